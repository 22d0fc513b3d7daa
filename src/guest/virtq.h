/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Split virtqueues, device side (virtio 1.2 §2.7): chains in, used entries out; no networking.
 *
 * Laws of shared memory: the available index is loaded once (acquire) per burst and a jump of more
 * than the queue size breaks the queue; each ring slot and each descriptor is read once, into
 * private memory, and judged there; chains are bounded; the used index is stored once (release) per
 * burst; notifications are armed, then re-checked. A broken queue is left alone until set up anew.
 */
#ifndef VIFD_VIRTQ_H
#define VIFD_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/guest_mem.h"

enum { VIRTQ_SIZE_MAX = 32768 };

enum virtq_error {
	VIRTQ_OK,
	VIRTQ_INDEX_JUMP,    /* available index ran more than the queue size ahead */
	VIRTQ_BAD_HEAD,      /* head or next out of the table */
	VIRTQ_LOOP,          /* chain longer than the queue or table */
	VIRTQ_BAD_ADDRESS,   /* buffer or table outside guest memory */
	VIRTQ_ZERO_LENGTH,   /* empty buffer, or empty chain */
	VIRTQ_BAD_INDIRECT,  /* nested, not negotiated, wrong length */
	VIRTQ_BAD_DIRECTION, /* writable buffer in a transmit chain, readable in a receive chain */
	VIRTQ_CALL_BLOCKED,  /* its call descriptor cannot be written to */
	VIRTQ_ERRORS
};
extern const char *const virtq_error_names[VIRTQ_ERRORS];

/* Ring layouts of the specification, in guest memory. */
struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
struct virtq_avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[];
};
struct virtq_used_elem {
	uint32_t id;
	uint32_t len;
};
struct virtq_used {
	uint16_t flags;
	uint16_t idx;
	struct virtq_used_elem ring[];
};

enum { VIRTQ_DESC_NEXT = 1, VIRTQ_DESC_WRITE = 2, VIRTQ_DESC_INDIRECT = 4 };

/* What a queue is set up with; the addresses are the front end's user addresses. */
struct virtq_setup {
	uint16_t size; /* entries, a power of two, <= VIRTQ_SIZE_MAX */
	uint16_t base; /* next available entry to look at */
	uint64_t desc_uva, avail_uva, used_uva;
	bool event_idx, indirect, in_order;
};

struct virtq {
	/* what a burst reads */
	const struct virtq_desc *desc;
	struct virtq_avail *avail;
	struct virtq_used *used;
	const struct guest_mem *mem;
	uint16_t size;
	uint16_t last_avail;     /* next available entry to take */
	uint16_t next_used;      /* next used entry to write */
	uint16_t signalled_used; /* next_used at the last notification decision */
	unsigned last_region;    /* guess for guest_mem_at() */
	bool started;            /* set up, memory known */
	bool enabled;            /* SET_VRING_ENABLE */
	bool broken;
	bool event_idx, indirect, in_order;
	bool notify_valid;      /* signalled_used means something */
	enum virtq_error error; /* why it is broken */
	int call_fd;            /* -1: the guest polls */
	int kick_fd;            /* -1: it wants to be polled */
	struct virtq_setup setup;
};

static inline bool virtq_running(const struct virtq *vq)
{
	return vq->started && vq->enabled && !vq->broken;
}

/*
 * Set up from vq->setup with memory mem; translates the ring addresses (alignment and containment
 * checked). 0, -EINVAL (bad size or alignment) or -EFAULT (rings outside memory). While paused.
 */
int virtq_start(struct virtq *vq, const struct guest_mem *mem);
/* Move a started queue to a new memory table, its position kept. As virtq_start(). */
int virtq_remap(struct virtq *vq, const struct guest_mem *mem);
/* Stop; returns the next available entry to look at, for GET_VRING_BASE. While paused. */
uint16_t virtq_stop(struct virtq *vq);
/* Mark broken: no further access to its memory. Says why once in the log (name is the port's). */
void virtq_break(struct virtq *vq, enum virtq_error error, const char *name);

/* ---- the data path; by one thread at a time ---- */

/* How many entries the driver has made available and we have not taken: one acquire load. More than
 * the queue holds means that the index jumped: the caller breaks the queue. */
static inline uint16_t virtq_available(const struct virtq *vq)
{
	return __atomic_load_n(&vq->avail->idx, __ATOMIC_ACQUIRE) - vq->last_avail;
}

/* The ring slot at position (an index that counts through), read once. */
static inline uint16_t virtq_head(const struct virtq *vq, uint16_t position)
{
	return __atomic_load_n(&vq->avail->ring[position & (vq->size - 1)], __ATOMIC_RELAXED);
}

/* A private copy of a descriptor, each word read once. index is in range. */
static inline struct virtq_desc virtq_desc_read(const struct virtq_desc *table, unsigned index)
{
	const uint64_t *words = (const uint64_t *)&table[index];
	uint64_t addr = __atomic_load_n(&words[0], __ATOMIC_RELAXED);
	uint64_t rest = __atomic_load_n(&words[1], __ATOMIC_RELAXED);

	return (struct virtq_desc){ addr, (uint32_t)rest, (uint16_t)(rest >> 32),
				    (uint16_t)(rest >> 48) };
}

/* The host address of a descriptor's buffer when all of it lies in one region; NULL otherwise. */
static inline uint8_t *virtq_buffer(struct virtq *vq, const struct virtq_desc *desc)
{
	uint64_t got;
	uint8_t *host = guest_mem_at(vq->mem, &vq->last_region, desc->addr, desc->len, &got);

	return likely(got == desc->len) ? host : NULL;
}

/* What virtq_gather() found. */
struct virtq_chain {
	unsigned count; /* entries of iov used, at most max */
	uint64_t len;   /* bytes in those */
	bool cut;       /* the chain has more than fits in iov */
};

/*
 * Walk a whole chain whose first descriptor has been read already, tables and links of any legal
 * form, buffers split at region edges, into iov[0..max). A chain that is cut is walked no further:
 * that bounds the work.
 * writable: what every buffer must be. VIRTQ_OK, or why the queue is to be broken.
 */
enum virtq_error virtq_gather(struct virtq *vq, const struct virtq_desc *first, bool writable,
			      struct iovec *iov, unsigned max, struct virtq_chain *chain);

/* Write the used entry offset places after the last one; not visible before virtq_publish(). */
static inline void virtq_put_used(struct virtq *vq, unsigned offset, uint32_t head, uint32_t len)
{
	uint16_t slot = (vq->next_used + offset) & (vq->size - 1);

	vq->used->ring[slot] = (struct virtq_used_elem){ head, len };
}

/* Make count more used entries visible: one release store. */
static inline void virtq_publish(struct virtq *vq, unsigned count)
{
	vq->next_used += count;
	/* All around since the driver was told: its event index no longer says what it has seen. */
	if (unlikely((uint16_t)(vq->next_used - vq->signalled_used) < count))
		vq->notify_valid = false;
	__atomic_store_n(&vq->used->idx, vq->next_used, __ATOMIC_RELEASE);
}

/* Does the driver want to be woken for what was published since this was last asked? */
bool virtq_should_signal(struct virtq *vq);
/* Wake the driver. May block, if the other side wants. False: the descriptor does not take it. */
bool virtq_signal(struct virtq *vq);

/* Ask for a kick when the next entry becomes available. True: one already is, no kick will come. */
bool virtq_arm(struct virtq *vq);
/* Ask for none. */
void virtq_disarm(struct virtq *vq);

#endif
