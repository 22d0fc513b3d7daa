/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio network device, control: what the control side (vhost_user.c) sets up and takes down, in
 * the main thread, while the workers are paused. What they do in between is virtio_net.c.
 */
#include "guest/virtio_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pkt/vnet.h"
#include "port/worker.h"
#include "sys/log.h"

int virtio_net_init(struct virtio_net *device, unsigned pairs_max)
{
	struct channel *channel = &device->channel;

	memset(device, 0, sizeof(*device));
	device->rings = calloc(2 * pairs_max, sizeof(*device->rings));
	if (!device->rings)
		return -ENOMEM;
	device->pairs_max = pairs_max;
	for (unsigned i = 0; i < 2 * pairs_max; i++) {
		device->rings[i].vq.call_fd = device->rings[i].vq.kick_fd = -1;
		device->rings[i].source.done = virtio_net_tx_done;
		device->rings[i].device = device;
	}
	channel->ops = &virtio_net_channel_ops;
	channel->port.ops = &guest_port_ops;
	channel->port.queues = pairs_max;
	for (unsigned i = 0; i < PORT_QUEUES_MAX; i++)
		atomic_flag_clear(&channel->locks[i].held);
	virtio_net_set_features(device, 0);
	channel->pairs = 1;
	return 0;
}

void virtio_net_fini(struct virtio_net *device)
{
	guest_mem_free(virtio_net_reset(device));
	for (unsigned i = 0; i < 2 * device->pairs_max; i++)
		free(device->rings[i].returned);
	free(device->rings);
	device->rings = NULL;
}

void virtio_net_set_features(struct virtio_net *device, uint64_t features)
{
	static const struct {
		unsigned feature, cap;
	} offloads[] = {
		{ VIRTIO_NET_F_GUEST_TSO4_BIT, PORT_CAP_TSO4 },
		{ VIRTIO_NET_F_GUEST_TSO6_BIT, PORT_CAP_TSO6 },
		{ VIRTIO_NET_F_GUEST_ECN_BIT, PORT_CAP_TSO_ECN },
	};
	uint64_t uso = VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO4_BIT) |
		       VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO6_BIT);
	uint32_t caps = PORT_CAP_SG;

	device->features = features;
	device->header_len = virtio_net_has(device, VIRTIO_F_VERSION_1_BIT) ||
					     virtio_net_has(device, VIRTIO_NET_F_MRG_RXBUF_BIT)
				     ? VNET_LEN
				     : VNET_LEN_LEGACY;
	/* The other receive offloads require GUEST_CSUM (virtio 1.2 §5.1.3.1). */
	if (virtio_net_has(device, VIRTIO_NET_F_GUEST_CSUM_BIT)) {
		caps |= PORT_CAP_CSUM;
		for (unsigned i = 0; i < sizeof(offloads) / sizeof(offloads[0]); i++) {
			if (virtio_net_has(device, offloads[i].feature))
				caps |= offloads[i].cap;
		}
		if ((features & uso) == uso)
			caps |= PORT_CAP_USO;
	}
	device->channel.port.caps = caps;
}

struct guest_mem *virtio_net_set_memory(struct virtio_net *device, struct guest_mem *mem)
{
	struct guest_mem *old = device->mem;

	device->mem = mem;
	for (unsigned i = 0; i < 2 * device->pairs_max; i++) {
		struct virtq *vq = &device->rings[i].vq;

		if (vq->started && virtq_remap(vq, mem))
			virtio_net_break_ring(device, vq, VIRTQ_BAD_ADDRESS);
	}
	return old;
}

int virtio_net_start_ring(struct virtio_net *device, unsigned index)
{
	struct virtio_net_ring *ring = &device->rings[index];
	struct virtq *vq = &ring->vq;

	vq->setup.event_idx = virtio_net_has(device, VIRTIO_RING_F_EVENT_IDX_BIT);
	vq->setup.indirect = virtio_net_has(device, VIRTIO_RING_F_INDIRECT_DESC_BIT);
	vq->setup.in_order = virtio_net_has(device, VIRTIO_F_IN_ORDER_BIT);
	int err = virtq_start(vq, device->mem);

	if (err)
		return err;
	free(ring->returned);
	ring->returned = calloc(vq->size, sizeof(*ring->returned));
	if (!ring->returned) {
		virtq_stop(vq);
		return -ENOMEM;
	}
	ring->return_next = vq->last_avail;
	ring->out_of_turn = 0;
	ring->flush_pending = false;
	virtio_net_tx_ring(device, index / 2)->greet = true;
	return 0;
}

uint16_t virtio_net_stop_ring(struct virtio_net *device, unsigned index)
{
	return virtq_stop(&device->rings[index].vq);
}

void virtio_net_enable_ring(struct virtio_net *device, unsigned index, bool enable)
{
	unsigned pairs = 0;

	device->rings[index].vq.enabled = enable;
	while (pairs < device->pairs_max && virtio_net_rx_ring(device, pairs)->vq.enabled)
		pairs++;
	device->channel.pairs = pairs > 0 ? pairs : 1;
}

void virtio_net_set_kick(struct virtio_net *device, unsigned index, int fd)
{
	struct virtq *vq = &device->rings[index].vq;
	bool transmit = index % 2;

	/* Receive rings are looked at when there is something to send: their kicks wake nobody. */
	int err = transmit ? worker_watch(&device->channel.port, index / 2, fd) : 0;

	if (err)
		log_warn("guest %s: the kick descriptor of ring %u cannot be watched: %s",
			 device->channel.port.name, index, strerror(-err));
	if (vq->kick_fd >= 0)
		close(vq->kick_fd);
	vq->kick_fd = fd;
}

void virtio_net_set_call(struct virtio_net *device, unsigned index, int fd)
{
	struct virtq *vq = &device->rings[index].vq;

	if (vq->call_fd >= 0)
		close(vq->call_fd);
	vq->call_fd = fd;
}

struct guest_mem *virtio_net_reset(struct virtio_net *device)
{
	struct guest_mem *old = device->mem;

	for (unsigned i = 0; i < 2 * device->pairs_max; i++) {
		struct virtq *vq = &device->rings[i].vq;

		virtio_net_stop_ring(device, i);
		virtio_net_enable_ring(device, i, false);
		virtio_net_set_kick(device, i, -1);
		virtio_net_set_call(device, i, -1);
		vq->setup = (struct virtq_setup){ 0 };
		vq->broken = false;
		vq->error = VIRTQ_OK;
	}
	device->mem = NULL;
	virtio_net_set_features(device, 0);
	return old;
}

void virtio_net_tick(struct virtio_net *device)
{
	if (!atomic_load(&device->muted) || atomic_fetch_sub(&device->muted, 1) > 1)
		return;
	workers_pause();
	for (unsigned i = 0; i < device->pairs_max; i++)
		virtio_net_tx_ring(device, i)->greet = true;
	workers_resume();
}
