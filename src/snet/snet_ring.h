/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snet: the rings between a front end and vifd (SETH: S8, S13, S14). Both sides include this file;
 * docs/shared-memory.md draws it.
 *
 * Theory of operation. Packets lie in zones, which both map, and never in a ring; a ring entry says
 * where: (zone id, offset, length). A queue has four rings, each with one producer and one consumer:
 *
 *      tx        front end -> vifd    buffers to be sent      tx_done   vifd -> front end    ids, given back
 *      rx        vifd -> front end    buffers received        rx_done   front end -> vifd    ids, given back
 *
 * Each ring has `size` places, a power of two. An index counts what was produced so far, modulo
 * 2^32, and is written by its producer only; a place is index % size. There is no consumer's index:
 * whoever produces entries counts those that were not given back, never more than size, so that
 * neither ring of a pair can overflow. Ids are the producer's own and mean nothing to the other
 * side, which gives each back once, in any order.
 *
 * A packet of several buffers has several entries in a row, all but the last with SNET_MORE; the
 * first carries the offload request (struct virtio_net_hdr's fields). vifd publishes the entries of
 * a packet with one store; a front end must.
 *
 * Sleeping. Who is about to sleep says in its `wants` which rings it waits for, then looks at them
 * once more; who has produced looks at the other's `wants` and writes to its eventfd if it is meant:
 *
 *      consumer: wants = W;  fence;  look at index, sleep if unchanged;  wants = 0
 *      producer: index = i;  fence;  look at wants, write to the eventfd if it has W
 *
 * One of the two sees the other's store, whatever the order: no wake-up is lost
 * (tests/model/snet.pml proves it).
 *
 * Trust. All of a queue's memory is writable by the front end. vifd reads from it the front end's
 * indexes and wants, tx entries and rx_done ids, each once, and believes nothing: an index that
 * jumps, an id that is not out, a buffer outside the zones it may send from breaks the queue. What
 * vifd has itself written there it never reads.
 */
#ifndef VIFD_SNET_RING_H
#define VIFD_SNET_RING_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SNET_RING_MIN = 16,
	SNET_RING_DEFAULT = 1024, /* places */
	SNET_RING_MAX = 4096,
	SNET_ENTRY_MIN = 32, /* bytes from entry to entry: larger ones are for experiments (S22) */
	SNET_ENTRY_MAX = 256,
	SNET_PACKET_ENTRIES = 64, /* entries of one packet at most */
};

enum snet_flags {
	SNET_MORE = 1,         /* the packet goes on in the next entry */
	SNET_CSUM_PARTIAL = 2, /* as enum pkt_offload_flags; in the first entry */
	SNET_CSUM_VALID = 4,
	SNET_GSO_ECN = 8,
};

struct snet_entry {
	uint32_t zone, offset, len; /* bytes */
	uint32_t id;                /* given back when the buffer may be used again */
	uint8_t flags;              /* enum snet_flags */
	uint8_t gso_type;           /* enum pkt_gso_type */
	uint16_t gso_size;
	uint16_t csum_start, csum_offset;
	uint8_t reserved[8]; /* 0 */
};

static_assert(sizeof(struct snet_entry) == SNET_ENTRY_MIN, "as it lies in memory");

/* What a side waits for. */
enum snet_wants { SNET_WANT_ENTRIES = 1, SNET_WANT_DONE = 2 };

/* What one side writes: a line for each of its two indexes, and one for what it waits for. */
struct snet_side {
	_Atomic uint32_t produced __attribute__((aligned(64)));   /* entries */
	_Atomic uint32_t given_back __attribute__((aligned(64))); /* ids */
	_Atomic uint32_t wants __attribute__((aligned(64)));      /* enum snet_wants */
};

/* A queue's memory begins with this. Behind it: tx entries, rx entries, tx_done ids, rx_done ids. */
struct snet_control {
	struct snet_side front; /* the front end writes: tx, rx_done */
	struct snet_side back;  /* vifd writes: rx, tx_done */
};

/* Where a queue's rings are, for one side: both keep one of their own, in private memory. */
struct snet_rings {
	struct snet_control *control;
	uint8_t *tx, *rx;
	uint32_t *tx_done, *rx_done;
	uint32_t mask;   /* size - 1 */
	uint32_t stride; /* bytes from entry to entry, a multiple of 16 */
};

/* Bytes of a queue's memory, a multiple of a page: queue i begins at i times this. */
static inline size_t snet_queue_bytes(uint32_t size, uint32_t stride)
{
	size_t bytes = sizeof(struct snet_control) + 2 * (size_t)size * (stride + sizeof(uint32_t));

	return (bytes + 4095) & ~(size_t)4095;
}

static inline void snet_rings_at(struct snet_rings *rings, void *memory, uint32_t size,
				 uint32_t stride)
{
	uint8_t *at = memory;

	rings->control = memory;
	rings->tx = at + sizeof(struct snet_control);
	rings->rx = rings->tx + (size_t)size * stride;
	rings->tx_done = (uint32_t *)(rings->rx + (size_t)size * stride);
	rings->rx_done = rings->tx_done + size;
	rings->mask = size - 1;
	rings->stride = stride;
}

static inline struct snet_entry *snet_entry_at(const struct snet_rings *rings, uint8_t *ring,
					       uint32_t index)
{
	return (struct snet_entry *)(ring + (size_t)(index & rings->mask) * rings->stride);
}

/* Publish what was written into a ring up to index. */
static inline void snet_publish(_Atomic uint32_t *produced, uint32_t index)
{
	atomic_store_explicit(produced, index, memory_order_release);
}

/* How far the other side has got: once a burst. */
static inline uint32_t snet_look(const _Atomic uint32_t *produced)
{
	return atomic_load_explicit(produced, memory_order_acquire);
}

/* After publishing: does the other side wait for this (enum snet_wants)? Then wake it. */
static inline bool snet_must_wake(const struct snet_side *other, uint32_t what)
{
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&other->wants, memory_order_relaxed) & what;
}

/* Before the last look at the rings ahead of sleep; 0 when awake again. */
static inline void snet_want(struct snet_side *own, uint32_t what)
{
	atomic_store_explicit(&own->wants, what, memory_order_relaxed);
	if (what)
		atomic_thread_fence(memory_order_seq_cst);
}

#endif
