/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Slabs: receive buffers of one size in the zones of one group, with a cache for each thread (S11,
 * S12, S32). The theory of operation is in slab.c.
 *
 * A buffer that was got has one owner. Further ones are added by slab_ref(); each lets go with
 * slab_put(), on any thread and in any order, and with the last the buffer is free again.
 */
#ifndef VIFD_SLAB_H
#define VIFD_SLAB_H

#include "zone/zone_group.h"

enum {
	SLAB_BUF_MIN = 256, /* bytes */
	SLAB_BUF_MAX = 1 << ZONE_CHUNK_SHIFT,
	SLAB_BULK = 64, /* buffers that change between cache and stock under one lock */
	SLAB_CACHE_MAX = 2 * SLAB_BULK,
};

/* What one thread has at hand. */
struct slab_cache {
	unsigned count;
	void *bufs[SLAB_CACHE_MAX]; /* the last is the hottest */
} __attribute__((aligned(64)));

struct slab {
	struct zone_group *group;
	unsigned shift;   /* a buffer has 1 << shift bytes, and is aligned to that */
	unsigned threads; /* caches */
	unsigned total;   /* buffers, wherever they are */
	struct slab_chunk *chunks;
	void **stock; /* buffers that nobody has at hand, under held */

	atomic_flag held __attribute__((aligned(64)));
	_Atomic bool shortage;
	unsigned stock_count;

	struct slab_cache caches[];
};

/*
 * A slab without buffers yet. buf_size: a power of two, SLAB_BUF_MIN..SLAB_BUF_MAX. threads: how
 * many use it; each is known by its index below that. NULL: a bad size, or no memory.
 */
struct slab *slab_new(struct zone_group *group, unsigned buf_size, unsigned threads);
/* Main thread, workers paused: give all memory back to the group. 0; -EBUSY: buffers have owners
 * yet, the rest is gone; try again later. */
int slab_free(struct slab *slab);

/*
 * Main thread. Add buffers, at least this many, of the group's pages. 0; -ENOSPC: the group's zones
 * have no more pages; -ENOMEM. What could be added has been.
 */
int slab_grow(struct slab *slab, unsigned bufs);
/*
 * Main thread, workers paused: give pages whose buffers are all free back to the group, while at
 * least keep buffers remain. Returns how many buffers went.
 */
unsigned slab_trim(struct slab *slab, unsigned keep);
/* Main thread. Has somebody got fewer than he wanted since this was last asked? */
bool slab_short(struct slab *slab);

/* Get up to n (at most SLAB_BULK) buffers, the caller's then. Fewer when all are in use. */
unsigned slab_get(struct slab *slab, unsigned thread, void **bufs, unsigned n);
/* Fetch the next n buffers that the thread will get for writing, as far as it has them at hand. */
static inline void slab_prefetch(const struct slab *slab, unsigned thread, unsigned n)
{
	const struct slab_cache *cache = &slab->caches[thread];

	for (unsigned i = 1; i <= n && i <= cache->count; i++)
		__builtin_prefetch(cache->bufs[cache->count - i], 1);
}
/* An owner lets go of n buffers, of any slabs in space, each told by an address within it. */
void slab_put(const struct zone_space *space, unsigned thread, void *const *bufs, unsigned n);
/* Make the caller, who owns it, twice the owner of the buffer that addr lies in. False, and nothing
 * happens: it lies in none (S12). */
bool slab_ref(const struct zone_space *space, const void *addr);
/* The start of the buffer that addr lies in, NULL: in none. */
void *slab_buf(const struct zone_space *space, const void *addr);

#endif
