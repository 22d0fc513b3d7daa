/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the data path talks to, for tests: a guest (its memory, and the driver's side of its split
 * rings) and a port in memory. A worker for the calling thread is in frames.h.
 */
#ifndef VIFD_TEST_FAKE_H
#define VIFD_TEST_FAKE_H

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "frames.h"
#include "guest/virtq.h"
#include "port/worker.h"

/* ---- guest memory ---- */

/*
 *      gpa   FAKE_GPA                                  user address: gpa + FAKE_UVA
 *            | region 0      | region 1 | region 2 |
 *
 * Guest addresses are contiguous; here each region is an allocation of its own, so that a sanitizer
 * sees a byte too far and a buffer across an edge is in two places.
 */
enum { FAKE_GPA = 0x10000 };
#define FAKE_UVA UINT64_C(0x700000000000)

struct fake_guest {
	struct guest_mem mem;
	uint64_t next; /* gpa that fake_alloc() goes on from */
};

static inline void fake_guest_init(struct fake_guest *guest, const uint64_t *sizes, unsigned count)
{
	uint64_t gpa = FAKE_GPA;

	*guest = (struct fake_guest){ .next = gpa };
	for (unsigned i = 0; i < count; i++) {
		guest->mem.regions[guest->mem.count++] = (struct guest_region){
			.gpa = gpa,
			.size = sizes[i],
			.uva = gpa + FAKE_UVA,
			.host = calloc(1, sizes[i]),
		};
		gpa += sizes[i];
	}
}

static inline void fake_guest_fini(struct fake_guest *guest)
{
	for (unsigned i = 0; i < guest->mem.count; i++)
		free(guest->mem.regions[i].host);
}

/* Where [gpa, gpa + len) lies here; NULL: not in one region. */
static inline void *fake_at(const struct fake_guest *guest, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < guest->mem.count; i++) {
		const struct guest_region *region = &guest->mem.regions[i];

		if (gpa >= region->gpa && gpa + len <= region->gpa + region->size)
			return region->host + (gpa - region->gpa);
	}
	return NULL;
}

/* len bytes that lie in one region. */
static inline uint64_t fake_alloc(struct fake_guest *guest, uint64_t len)
{
	for (unsigned i = 0; i < guest->mem.count; i++) {
		const struct guest_region *region = &guest->mem.regions[i];
		uint64_t gpa = guest->next > region->gpa ? (guest->next + 15) & ~UINT64_C(15)
							 : region->gpa;

		if (fake_at(guest, gpa, len)) {
			guest->next = gpa + len;
			return gpa;
		}
	}
	abort();
}

/* Byte by byte, across region edges. */
static inline void fake_write(struct fake_guest *guest, uint64_t gpa, const void *from,
			      uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		*(uint8_t *)fake_at(guest, gpa + i, 1) = ((const uint8_t *)from)[i];
}

static inline void fake_read(struct fake_guest *guest, uint64_t gpa, void *to, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		((uint8_t *)to)[i] = *(uint8_t *)fake_at(guest, gpa + i, 1);
}

/* ---- the driver's side of a split ring ---- */

struct fake_ring {
	struct fake_guest *guest;
	struct virtq_setup setup; /* what the device is told; features are the test's to set */
	struct virtq_desc *desc;
	struct virtq_avail *avail;
	struct virtq_used *used;
	uint16_t next_desc; /* descriptors are handed out round robin */
	uint16_t avail_idx; /* next entry to make available; visible when fake_offer() returns */
	uint16_t used_idx;  /* next used entry to look at */
};

struct fake_buf {
	uint64_t gpa;
	uint32_t len;
};

static inline void fake_ring_init(struct fake_ring *ring, struct fake_guest *guest, unsigned size)
{
	uint64_t desc = fake_alloc(guest, size * sizeof(struct virtq_desc));
	uint64_t avail = fake_alloc(guest, 4 + size * 2 + 2);
	uint64_t used = fake_alloc(guest, 4 + size * sizeof(struct virtq_used_elem) + 2);

	*ring = (struct fake_ring){
		.guest = guest,
		.setup = { .size = size,
			   .desc_uva = desc + FAKE_UVA,
			   .avail_uva = avail + FAKE_UVA,
			   .used_uva = used + FAKE_UVA },
		.desc = fake_at(guest, desc, 1),
		.avail = fake_at(guest, avail, 1),
		.used = fake_at(guest, used, 1),
	};
}

/* As after a long life: the next available entry, and the next used one, have this index. */
static inline void fake_ring_age(struct fake_ring *ring, uint16_t index)
{
	ring->avail_idx = ring->used_idx = ring->setup.base = index;
	ring->avail->idx = ring->used->idx = index;
}

/* The two event indices: the driver's, which it writes, and the device's, which it reads. */
static inline uint16_t *fake_used_event(struct fake_ring *ring)
{
	return &ring->avail->ring[ring->setup.size];
}

static inline uint16_t *fake_avail_event(struct fake_ring *ring)
{
	return (uint16_t *)&ring->used->ring[ring->setup.size];
}

/* Fill a table with a chain of n buffers, from entry first on, in a table of size entries. */
static inline void fake_link(struct virtq_desc *table, unsigned size, unsigned first,
			     const struct fake_buf *bufs, unsigned n, uint16_t flags)
{
	for (unsigned i = 0; i < n; i++)
		table[(first + i) % size] = (struct virtq_desc){
			.addr = bufs[i].gpa,
			.len = bufs[i].len,
			.flags = flags | (i + 1 < n ? VIRTQ_DESC_NEXT : 0),
			.next = (first + i + 1) % size,
		};
}

/* A chain of n buffers; flags 0: to be read, VIRTQ_DESC_WRITE: to be written. Returns its head. */
static inline uint16_t fake_chain(struct fake_ring *ring, const struct fake_buf *bufs, unsigned n,
				  uint16_t flags)
{
	uint16_t head = ring->next_desc;

	fake_link(ring->desc, ring->setup.size, head, bufs, n, flags);
	ring->next_desc = (head + n) % ring->setup.size;
	return head;
}

/* The same behind one indirect descriptor. */
static inline uint16_t fake_chain_indirect(struct fake_ring *ring, const struct fake_buf *bufs,
					   unsigned n, uint16_t flags)
{
	struct fake_buf table = { .len = n * sizeof(struct virtq_desc) };

	table.gpa = fake_alloc(ring->guest, table.len);
	fake_link(fake_at(ring->guest, table.gpa, table.len), n, 0, bufs, n, flags);
	return fake_chain(ring, &table, 1, VIRTQ_DESC_INDIRECT);
}

static inline void fake_offer(struct fake_ring *ring, uint16_t head)
{
	ring->avail->ring[ring->avail_idx++ % ring->setup.size] = head;
	__atomic_store_n(&ring->avail->idx, ring->avail_idx, __ATOMIC_RELEASE);
}

/* The next used entry, if the device has given one back. */
static inline bool fake_used(struct fake_ring *ring, struct virtq_used_elem *elem)
{
	if (__atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE) == ring->used_idx)
		return false;
	*elem = ring->used->ring[ring->used_idx++ % ring->setup.size];
	return true;
}

/* ---- a port in memory ---- */

enum { FAKE_FRAME_LEN = 60, FAKE_SENT_MAX = 64 };

struct fake_port {
	struct port port;
	struct pkt_source source;

	/* recv(): what is taken in from a queue is this frame, again and again */
	uint8_t frame[FAKE_FRAME_LEN];
	_Atomic unsigned waiting[PORT_QUEUES_MAX]; /* as often as this */
	unsigned burst;                            /* at most so many at once */
	bool stutter;                              /* every other poll finds nothing */
	bool armed[PORT_QUEUES_MAX];
	int wake_fd[PORT_QUEUES_MAX]; /* for worker_watch(), or -1 */

	/* what was done to the port */
	_Atomic unsigned recv_calls, received, arms, disarms;
	_Atomic unsigned polled_armed; /* recv() of a queue that was still armed */
	_Atomic unsigned send_calls, sent, flushes;
	_Atomic unsigned done_calls, done;

	/* what was sent to it: the first FAKE_SENT_MAX packets */
	atomic_flag lock;
	struct fake_sent {
		unsigned call; /* number of the send() that it came with, from 1 */
		uint32_t len;
		struct pkt_offload offload;
		uint8_t header[PKT_HEADER_FAST];
	} log[FAKE_SENT_MAX];
};

static inline void fake_port_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	struct fake_port *fake =
		(struct fake_port *)((char *)source - offsetof(struct fake_port, source));

	fake->done_calls++;
	fake->done += n;
}

static inline unsigned fake_port_recv(struct port *port, unsigned queue, struct pkt **pkts,
				      unsigned n)
{
	struct fake_port *fake = (struct fake_port *)port;
	unsigned waiting = fake->waiting[queue];

	fake->polled_armed += fake->armed[queue];

	if (fake->recv_calls++ % 2 && fake->stutter)
		return 0;
	n = n < fake->burst ? n : fake->burst;
	n = pkt_pool_get(&worker_self->pool, pkts, n < waiting ? n : waiting);
	for (unsigned i = 0; i < n; i++) {
		pkts[i]->source = &fake->source;
		pkts[i]->in_port = port->id;
		pkts[i]->len = pkts[i]->header_len = FAKE_FRAME_LEN;
		memcpy(pkts[i]->header, fake->frame, FAKE_FRAME_LEN);
	}
	fake->waiting[queue] -= n;
	fake->received += n;
	port_stats(port)->recv_packets += n;
	port_stats(port)->recv_bytes += n * FAKE_FRAME_LEN;
	return n;
}

static inline void fake_port_send(struct port *port, struct pkt **pkts, unsigned n)
{
	struct fake_port *fake = (struct fake_port *)port;

	while (atomic_flag_test_and_set(&fake->lock))
		_mm_pause();
	fake->send_calls++;
	for (unsigned i = 0; i < n && fake->sent + i < FAKE_SENT_MAX; i++) {
		struct fake_sent *log = &fake->log[fake->sent + i];

		*log = (struct fake_sent){ fake->send_calls, pkts[i]->len, pkts[i]->offload };
		pkt_copy_out(pkts[i], 0, log->header,
			     log->len < PKT_HEADER_FAST ? log->len : PKT_HEADER_FAST);
	}
	fake->sent += n;
	atomic_flag_clear(&fake->lock);

	port_stats(port)->send_packets += n;
	worker_need_flush(worker_self, port);
	for (unsigned i = 0; i < n; i++)
		pkt_put(pkts[i]);
}

static inline void fake_port_flush(struct port *port)
{
	((struct fake_port *)port)->flushes++;
}

static inline bool fake_port_arm(struct port *port, unsigned queue)
{
	struct fake_port *fake = (struct fake_port *)port;

	fake->arms++;
	fake->armed[queue] = fake->waiting[queue] == 0;
	return !fake->armed[queue];
}

static inline void fake_port_disarm(struct port *port, unsigned queue)
{
	struct fake_port *fake = (struct fake_port *)port;

	fake->disarms++;
	fake->armed[queue] = false;
}

static inline void fake_port_close(struct port *port)
{
}

static const struct port_ops fake_port_ops = {
	.kind = "fake",
	.recv = fake_port_recv,
	.send = fake_port_send,
	.flush = fake_port_flush,
	.arm = fake_port_arm,
	.disarm = fake_port_disarm,
	.close = fake_port_close,
};

/* A port with all capabilities that sends from 02::from to 02::to. Not registered yet. */
static inline void fake_port_init(struct fake_port *fake, const char *name, unsigned queues,
				  uint8_t from, uint8_t to)
{
	memset(fake, 0, sizeof(*fake));
	strcpy(fake->port.name, name);
	fake->port.ops = &fake_port_ops;
	fake->port.queues = queues;
	fake->port.caps = ~0u;
	fake->port.mtu = 1500;
	fake->source.done = fake_port_done;
	fake->burst = PKT_BURST;
	atomic_flag_clear(&fake->lock);
	for (unsigned i = 0; i < PORT_QUEUES_MAX; i++)
		fake->wake_fd[i] = -1;
	fake->frame[0] = fake->frame[6] = 2;
	fake->frame[5] = to;
	fake->frame[11] = from;
	fake->frame[12] = 0x88; /* local experimental */
	fake->frame[13] = 0xb5;
}

#endif
