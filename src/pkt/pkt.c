/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packet pool and the two ways to read a packet's bytes. Theory of operation: pkt.h.
 *
 * A pool is one mapping: packets at a fixed stride, then the fragment blocks. It is aligned to
 * 2 MiB and offered to the kernel as a superpage (M15), so that a burst of headers costs few TLB
 * entries.
 */
#include "pkt/pkt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { BLOCKS_PER_POOL = 64, SUPERPAGE = 2 << 20 };

int pkt_pool_init(struct pkt_pool *pool, unsigned capacity)
{
	size_t block_len = PKT_FRAGS_MAX * sizeof(struct iovec);
	size_t need = capacity * sizeof(struct pkt) + BLOCKS_PER_POOL * block_len;

	memset(pool, 0, sizeof(*pool));
	pool->memory_len = (need + SUPERPAGE - 1) / SUPERPAGE * SUPERPAGE;
	pool->memory = aligned_alloc(SUPERPAGE, pool->memory_len);
	pool->free = calloc(capacity, sizeof(*pool->free));
	pool->blocks = calloc(BLOCKS_PER_POOL, sizeof(*pool->blocks));
	if (!pool->memory || !pool->free || !pool->blocks) {
		pkt_pool_fini(pool);
		return -ENOMEM;
	}
	madvise(pool->memory, pool->memory_len, MADV_HUGEPAGE);
	memset(pool->memory, 0, pool->memory_len);

	struct pkt *pkts = pool->memory;

	for (unsigned i = 0; i < capacity; i++)
		pool->free[i] = &pkts[i];
	pool->capacity = pool->free_count = capacity;

	uint8_t *blocks = (uint8_t *)&pkts[capacity];

	for (unsigned i = 0; i < BLOCKS_PER_POOL; i++)
		pool->blocks[i] = (struct iovec *)(blocks + i * block_len);
	pool->block_capacity = pool->block_count = BLOCKS_PER_POOL;
	return 0;
}

void pkt_pool_fini(struct pkt_pool *pool)
{
	free(pool->memory);
	free(pool->free);
	free(pool->blocks);
	memset(pool, 0, sizeof(*pool));
}

bool pkt_take_frag_block(struct pkt_pool *pool, struct pkt *pkt)
{
	if (pool->block_count == 0)
		return false;
	struct iovec *block = pool->blocks[--pool->block_count];

	memcpy(block, pkt->frags, pkt->frag_count * sizeof(*block));
	pkt->frags = block;
	return true;
}

void pkt_pool_put(struct pkt_pool *pool, struct pkt **pkts, unsigned n)
{
	struct pkt **to = pool->free + pool->free_count;

	/* The first of a burst goes on top: the next begins with the same packets, still cached. */
	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt = pkts[i];

		if (unlikely(pkt->frags != pkt->inline_frags))
			pool->blocks[pool->block_count++] = pkt->frags;
		to[n - 1 - i] = pkt;
	}
	pool->free_count += n;
}

void pkt_fetch(struct pkt **pkts, unsigned n)
{
	for (unsigned from = 0, to; from < n; from = to) {
		struct pkt_source *source = pkts[from]->source;

		to = from + 1;
		if (!(pkts[from]->offload.flags & PKT_REMOTE))
			continue;
		while (to < n && pkts[to]->source == source && pkts[to]->offload.flags & PKT_REMOTE)
			to++;
		source->fetch(source, pkts + from, to - from);
	}
}

void pkt_copy_out(const struct pkt *pkt, uint32_t off, void *buf, uint32_t len)
{
	uint8_t *to = buf;

	if (off < pkt->header_len) {
		uint32_t part = pkt->header_len - off;

		if (part > len)
			part = len;
		memcpy(to, pkt->header + off, part);
		to += part;
		len -= part;
		off = 0;
	} else {
		off -= pkt->header_len;
	}
	for (unsigned i = 0; len > 0; i++) {
		const struct iovec *frag = &pkt->frags[i];

		if (off >= frag->iov_len) {
			off -= frag->iov_len;
			continue;
		}
		uint32_t part = frag->iov_len - off;

		if (part > len)
			part = len;
		memcpy(to, (uint8_t *)frag->iov_base + off, part);
		to += part;
		len -= part;
		off = 0;
	}
}

bool pkt_pull(struct pkt *pkt, unsigned want)
{
	if (want <= pkt->header_len)
		return true;
	if (want > PKT_HEADER_MAX || want > pkt->len)
		return false;
	if (unlikely(pkt->offload.flags & PKT_REMOTE)) {
		pkt_fetch(&pkt, 1);
		if (pkt->offload.flags & PKT_REMOTE)
			return false;
	}

	unsigned first = 0; /* fragments used up */

	while (pkt->header_len < want) {
		struct iovec *frag = &pkt->frags[first];
		size_t part = want - pkt->header_len;

		if (part > frag->iov_len)
			part = frag->iov_len;
		memcpy(pkt->header + pkt->header_len, frag->iov_base, part);
		pkt->header_len += part;
		frag->iov_base = (uint8_t *)frag->iov_base + part;
		frag->iov_len -= part;
		if (frag->iov_len == 0)
			first++;
	}
	if (first > 0) {
		pkt->frag_count -= first;
		memmove(pkt->frags, pkt->frags + first, pkt->frag_count * sizeof(*pkt->frags));
	}
	return true;
}
