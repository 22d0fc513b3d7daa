/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Split virtqueues, device side (virtio 1.2 §2.7): descriptor chains in, used entries out. Knows no networking.
 *
 * Laws of shared memory: the available index is loaded once (acquire) per burst and a jump of more than the queue
 * size breaks the queue; each ring slot and each descriptor is read once, into private memory, and judged there;
 * chains are bounded; the used index is stored once (release) per burst; notifications are armed, then re-checked.
 * A broken queue is left alone until it is set up again.
 */
#ifndef VIFD_VIRTQ_H
#define VIFD_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/guest_mem.h"

enum { VIRTQ_SIZE_MAX = 32768 };

enum virtq_error {
	VIRTQ_OK,
	VIRTQ_INDEX_JUMP,       /* available index ran more than the queue size ahead */
	VIRTQ_BAD_HEAD,         /* head or next out of the table */
	VIRTQ_LOOP,             /* chain longer than the queue or table */
	VIRTQ_BAD_ADDRESS,      /* buffer or table outside guest memory */
	VIRTQ_ZERO_LENGTH,      /* empty buffer, or empty chain */
	VIRTQ_BAD_INDIRECT,     /* nested, not negotiated, wrong length */
	VIRTQ_BAD_DIRECTION,    /* writable buffer in a transmit chain, or readable in a receive chain */
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
	uint16_t size;          /* entries, a power of two, <= VIRTQ_SIZE_MAX */
	uint16_t base;          /* next available entry to look at */
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
	uint16_t last_avail;    /* next available entry to take */
	uint16_t next_used;     /* next used entry to write; what was published is in published_used */
	uint16_t published_used;
	uint16_t signalled_used;/* published index at the last notification decision */
	unsigned last_region;   /* guess for guest_mem_at() */
	bool started;           /* set up, memory known */
	bool enabled;           /* SET_VRING_ENABLE */
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
 * Set up from vq->setup with memory mem; translates the ring addresses (alignment 16, 2, 4 and containment checked).
 * 0, -EINVAL (bad size or alignment) or -EFAULT (rings outside memory). Also used to move a started queue
 * to a new memory table: its position is kept. While paused.
 */
int virtq_start(struct virtq *vq, const struct guest_mem *mem);
int virtq_remap(struct virtq *vq, const struct guest_mem *mem);
/* Stop; returns the next available entry to look at, for GET_VRING_BASE. While paused. */
uint16_t virtq_stop(struct virtq *vq);
/* Mark broken: no further access to its memory. Says why once in the log (name is the port's). */
void virtq_break(struct virtq *vq, enum virtq_error error, const char *name);

#endif
