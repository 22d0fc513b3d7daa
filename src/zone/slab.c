/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Slabs: buffers to receive into, where the guest will read them (SETH §3.2, S11).
 *
 * Theory of operation. As in SETH, only the bytes of a packet lie in zones, what is known about it
 * is in private memory, owners included: a guest that may write a zone can forge no count.
 *
 *       thread 0         all threads         thread 1
 *      ┌─────────┐  64    ┌─────────┐    64  ┌─────────┐
 *      │  cache  │◄──────►│  stock  │◄──────►│  cache  │
 *      └─────────┘        └────▲────┘        └─────────┘
 *                              │ slab_grow(), slab_trim()
 *       pages of a zone group: chunks of 64 KiB, cut into buffers
 *
 * Each thread gets and puts at the end of a cache of its own, without lock or atomic operation
 * (S32); the buffer put last is got first, while it is warm. Only when its cache runs empty or full
 * it takes the lock, and moves SLAB_BULK buffers at once. A buffer may be got by one worker and put
 * by another, to which the guest returned it: the stock evens that out. On the data path nothing is
 * allocated; all buffers are cut by the main thread, which is told when they were too few.
 *
 * Owners. A count per buffer is 1 while it is free or has one owner, so that getting it need not
 * touch the count. Who finds 1 is the only owner, nobody else can change the count, and neither he
 * who lets go nor he who adds an owner needs an atomic operation; only buffers shared by several
 * guests, or held by a guest and by us, cost one each.
 *
 * From an address to its buffer: zone (a shift), chunk (an index), buffer (a shift). So owners may
 * name a buffer by any address in it, such as the start of a packet or of a fragment.
 */
#include "zone/slab.h"

#include <errno.h>
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_ORDER = ZONE_CHUNK_SHIFT - ZONE_PAGE_SHIFT };

struct slab_chunk {
	struct slab *slab;
	uint8_t *base;
	struct slab_chunk *next;
	unsigned idle; /* slab_trim()'s: buffers of it in stock */
	_Atomic uint32_t owners[];
};

static void slab_lock(struct slab *slab)
{
	while (atomic_flag_test_and_set_explicit(&slab->held, memory_order_acquire))
		_mm_pause();
}

static void slab_unlock(struct slab *slab)
{
	atomic_flag_clear_explicit(&slab->held, memory_order_release);
}

static unsigned bufs_per_chunk(const struct slab *slab)
{
	return 1U << (ZONE_CHUNK_SHIFT - slab->shift);
}

/* ---- the main thread ---- */

struct slab *slab_new(struct zone_group *group, unsigned buf_size, unsigned threads)
{
	size_t size = sizeof(struct slab) + threads * sizeof(struct slab_cache);
	struct slab *slab;

	if (buf_size < SLAB_BUF_MIN || buf_size > SLAB_BUF_MAX || buf_size & (buf_size - 1))
		return NULL;
	slab = aligned_alloc(_Alignof(struct slab), size);
	if (!slab)
		return NULL;
	memset(slab, 0, size);
	slab->group = group;
	slab->shift = __builtin_ctz(buf_size);
	slab->threads = threads;
	/* room for all that the group may ever have, so that it never has to move */
	slab->stock = calloc((size_t)group->quota * ZONE_CHUNKS * bufs_per_chunk(slab),
			     sizeof(*slab->stock));
	if (!slab->stock) {
		free(slab);
		return NULL;
	}
	return slab;
}

int slab_free(struct slab *slab)
{
	slab_trim(slab, 0);
	if (slab->total)
		return -EBUSY;
	free(slab->stock);
	free(slab);
	return 0;
}

static int add_chunk(struct slab *slab)
{
	unsigned bufs = bufs_per_chunk(slab);
	uint8_t *base = zone_pages_get(slab->group, CHUNK_ORDER);
	struct slab_chunk *chunk;
	struct zone *zone;

	if (!base)
		return -ENOSPC;
	chunk = calloc(1, sizeof(*chunk) + bufs * sizeof(*chunk->owners));
	if (!chunk) {
		zone_pages_put(slab->group, base, CHUNK_ORDER);
		return -ENOMEM;
	}
	chunk->slab = slab;
	chunk->base = base;
	chunk->next = slab->chunks;
	for (unsigned i = 0; i < bufs; i++)
		atomic_init(&chunk->owners[i], 1);
	zone = zone_of(slab->group->space, base);
	zone->chunks[zone_offset(zone, base) >> ZONE_CHUNK_SHIFT] = chunk;
	slab->chunks = chunk;
	slab->total += bufs;

	slab_lock(slab);
	for (unsigned i = bufs; i-- > 0;)
		slab->stock[slab->stock_count++] = base + ((size_t)i << slab->shift);
	slab_unlock(slab);
	return 0;
}

int slab_grow(struct slab *slab, unsigned bufs)
{
	int ret = 0;

	for (unsigned added = 0; added < bufs && ret == 0; added += bufs_per_chunk(slab))
		ret = add_chunk(slab);
	return ret;
}

static struct slab_chunk *chunk_of(const struct zone_space *space, const void *addr)
{
	struct zone *zone = zone_of(space, addr);

	return zone ? zone->chunks[zone_offset(zone, addr) >> ZONE_CHUNK_SHIFT] : NULL;
}

/* Which of its chunk's buffers does addr lie in? */
static unsigned buf_index(const struct slab_chunk *chunk, const void *addr)
{
	return ((const uint8_t *)addr - chunk->base) >> chunk->slab->shift;
}

/* Everything at hand into the stock. */
static void drain(struct slab *slab)
{
	for (unsigned i = 0; i < slab->threads; i++) {
		struct slab_cache *cache = &slab->caches[i];

		memcpy(slab->stock + slab->stock_count, cache->bufs,
		       cache->count * sizeof(*cache->bufs));
		slab->stock_count += cache->count;
		cache->count = 0;
	}
}

/* Take the buffers of chunks that are about to go out of the stock. */
static void forget_going(struct slab *slab, unsigned gone)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < slab->stock_count; i++) {
		struct slab_chunk *chunk = chunk_of(slab->group->space, slab->stock[i]);

		if (chunk->idle != gone)
			slab->stock[kept++] = slab->stock[i];
	}
	slab->stock_count = kept;
}

static void chunk_free(struct slab *slab, struct slab_chunk *chunk)
{
	struct zone *zone = zone_of(slab->group->space, chunk->base);

	zone->chunks[zone_offset(zone, chunk->base) >> ZONE_CHUNK_SHIFT] = NULL;
	zone_pages_put(slab->group, chunk->base, CHUNK_ORDER);
	free(chunk);
}

unsigned slab_trim(struct slab *slab, unsigned keep)
{
	enum { GOING = SLAB_BUF_MAX }; /* more than a chunk has buffers */
	unsigned bufs = bufs_per_chunk(slab), before = slab->total;

	drain(slab);
	for (struct slab_chunk *chunk = slab->chunks; chunk; chunk = chunk->next)
		chunk->idle = 0;
	for (unsigned i = 0; i < slab->stock_count; i++)
		chunk_of(slab->group->space, slab->stock[i])->idle++;
	for (struct slab_chunk *chunk = slab->chunks; chunk; chunk = chunk->next) {
		if (chunk->idle == bufs && slab->total - bufs >= keep) {
			chunk->idle = GOING;
			slab->total -= bufs;
		}
	}
	forget_going(slab, GOING);
	for (struct slab_chunk **link = &slab->chunks; *link;) {
		struct slab_chunk *chunk = *link;

		if (chunk->idle == GOING) {
			*link = chunk->next;
			chunk_free(slab, chunk);
		} else {
			link = &chunk->next;
		}
	}
	return before - slab->total;
}

bool slab_short(struct slab *slab)
{
	return atomic_exchange_explicit(&slab->shortage, false, memory_order_relaxed);
}

/* ---- any thread ---- */

/* Fill a cache that is nearly empty from the stock. */
static void refill(struct slab *slab, struct slab_cache *cache)
{
	unsigned n = SLAB_BULK;

	slab_lock(slab);
	if (n > slab->stock_count)
		n = slab->stock_count;
	slab->stock_count -= n;
	memcpy(cache->bufs + cache->count, slab->stock + slab->stock_count,
	       n * sizeof(*cache->bufs));
	slab_unlock(slab);
	cache->count += n;
}

/* The coldest of a full cache into the stock. */
static void unload(struct slab *slab, struct slab_cache *cache)
{
	slab_lock(slab);
	memcpy(slab->stock + slab->stock_count, cache->bufs, SLAB_BULK * sizeof(*cache->bufs));
	slab->stock_count += SLAB_BULK;
	slab_unlock(slab);
	cache->count -= SLAB_BULK;
	memmove(cache->bufs, cache->bufs + SLAB_BULK, cache->count * sizeof(*cache->bufs));
}

unsigned slab_get(struct slab *slab, unsigned thread, void **bufs, unsigned n)
{
	struct slab_cache *cache = &slab->caches[thread];

	if (cache->count < n) {
		refill(slab, cache);
		if (cache->count < n) {
			n = cache->count;
			atomic_store_explicit(&slab->shortage, true, memory_order_relaxed);
		}
	}
	for (unsigned i = 0; i < n; i++)
		bufs[i] = cache->bufs[--cache->count];
	return n;
}

/* One owner less. Was it the last? */
static bool disown(_Atomic uint32_t *owners)
{
	if (atomic_load_explicit(owners, memory_order_acquire) == 1)
		return true;
	if (atomic_fetch_sub_explicit(owners, 1, memory_order_acq_rel) != 1)
		return false;
	atomic_store_explicit(owners, 1, memory_order_relaxed); /* free is 1 */
	return true;
}

void slab_put(const struct zone_space *space, unsigned thread, void *const *bufs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct slab_chunk *chunk = chunk_of(space, bufs[i]);
		struct slab_cache *cache;
		unsigned index;

		if (!chunk)
			continue;
		index = buf_index(chunk, bufs[i]);
		if (!disown(&chunk->owners[index]))
			continue;
		cache = &chunk->slab->caches[thread];
		if (cache->count == SLAB_CACHE_MAX)
			unload(chunk->slab, cache);
		cache->bufs[cache->count++] = chunk->base + ((size_t)index << chunk->slab->shift);
	}
}

bool slab_ref(const struct zone_space *space, const void *addr)
{
	struct slab_chunk *chunk = chunk_of(space, addr);
	_Atomic uint32_t *owners;

	if (!chunk)
		return false;
	owners = &chunk->owners[buf_index(chunk, addr)];
	if (atomic_load_explicit(owners, memory_order_relaxed) == 1)
		atomic_store_explicit(owners, 2, memory_order_relaxed);
	else
		atomic_fetch_add_explicit(owners, 1, memory_order_relaxed);
	return true;
}

void *slab_buf(const struct zone_space *space, const void *addr)
{
	struct slab_chunk *chunk = chunk_of(space, addr);

	return chunk ? chunk->base + ((size_t)buf_index(chunk, addr) << chunk->slab->shift) : NULL;
}
