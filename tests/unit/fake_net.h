/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtio network device with its guest, for tests: one worker (the calling thread), one queue
 * pair.
 *
 *      fake_ring, fake_guest (driver) <-- guest memory --> virtio_net (device) <--> struct pkt
 */
#ifndef VIFD_TEST_FAKE_NET_H
#define VIFD_TEST_FAKE_NET_H

#include "fake.h"
#include "guest/virtio_net.h"
#include "pkt/vnet.h"

enum { RX, TX, FAKE_NET_RINGS = 2, FAKE_NET_POOL = 128, FAKE_NET_SIZE = 256, FAKE_EDGE = 4 << 20 };

#define FEATURE(name) VIRTIO_BIT(name##_BIT)
#define MODERN        FEATURE(VIRTIO_F_VERSION_1)
#define MERGEABLE     (MODERN | FEATURE(VIRTIO_NET_F_MRG_RXBUF))

struct fake_net {
	struct worker *worker;
	struct fake_guest guest; /* one region up to FAKE_GPA + FAKE_EDGE, two small ones behind */
	struct virtio_net *device;
	struct fake_ring rings[FAKE_NET_RINGS];
	int calls[FAKE_NET_RINGS];
};

static inline void fake_net_init(struct fake_net *net)
{
	static const uint64_t sizes[] = { FAKE_EDGE, 1 << 17, 1 << 17 };

	net->worker = fake_worker(FAKE_NET_POOL);
	fake_guest_init(&net->guest, sizes, 3);
	net->device = aligned_alloc(64, (sizeof(*net->device) + 63) / 64 * 64);
	if (virtio_net_init(net->device, 1))
		abort();
	strcpy(net->device->channel.port.name, "g");
	if (port_register(&net->device->channel.port))
		abort();
	virtio_net_set_memory(net->device, &net->guest.mem);
}

/* False: packets were lost. */
static inline bool fake_net_fini(struct fake_net *net)
{
	struct pkt_pool *pool = &net->worker->pool;
	bool whole;

	worker_complete(net->worker);
	whole = pool->free_count == pool->capacity && pool->block_count == pool->block_capacity;
	virtio_net_reset(net->device); /* the memory is not the device's to free */
	virtio_net_fini(net->device);
	port_unregister(&net->device->channel.port);
	free(net->device);
	fake_guest_fini(&net->guest);
	fake_worker_free(net->worker);
	return whole;
}

/* How often the driver was called for a ring since last asked. */
static inline unsigned fake_net_called(struct fake_net *net, unsigned index)
{
	eventfd_t count = 0;

	return eventfd_read(net->calls[index], &count) ? 0 : count;
}

static inline unsigned fake_net_take(struct fake_net *net, struct pkt **pkts)
{
	return virtio_net_channel_ops.guest_tx(&net->device->channel, 0, pkts, PKT_BURST);
}

/*
 * Negotiate, set up both rings with size entries whose indices begin at index, and see off the
 * first calls.
 */
static inline void fake_net_start_at(struct fake_net *net, uint64_t features, unsigned size,
				     uint16_t index)
{
	struct pkt *pkts[PKT_BURST];

	virtio_net_set_features(net->device, features);
	for (unsigned i = 0; i < FAKE_NET_RINGS; i++) {
		fake_ring_init(&net->rings[i], &net->guest, size);
		fake_ring_age(&net->rings[i], index);
		net->device->rings[i].vq.setup = net->rings[i].setup;
		net->calls[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		virtio_net_set_call(net->device, i, net->calls[i]);
		if (virtio_net_start_ring(net->device, i))
			abort();
		virtio_net_enable_ring(net->device, i, true);
	}
	fake_net_take(net, pkts);
	for (unsigned i = 0; i < FAKE_NET_RINGS; i++)
		fake_net_called(net, i);
}

static inline void fake_net_start(struct fake_net *net, uint64_t features)
{
	fake_net_start_at(net, features, FAKE_NET_SIZE, 0);
}

static inline struct port_stats *fake_net_stats(struct fake_net *net)
{
	return &net->device->channel.port.stats[0];
}

#endif
