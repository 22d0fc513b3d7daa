/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel=remap: what snet does away with, to be measured against it (SETH's VETH: S3, S4; M10).
 * For measurement only; nobody gets it who has not asked for it by name, and vifd warns then.
 *
 * Theory of operation. VETH's back end has no memory in common with the guest. It maps the pages of
 * each packet by the hypervisor's grant table, copies and unmaps them. So does this, although the
 * zones are mapped here already:
 *
 *      from the guest   entry: zone, off, len      mmap its pages, copy to a buffer of vifd's own,
 *                       (S3, step 5)               munmap, give the entry back at once
 *      to the guest     buffer in its zone         mmap its pages, copy the packet to it, munmap
 *                       (S4, step 4)
 *
 * There is no hypervisor and no grant table here. What stands for the two hypercalls is the two
 * system calls, which do the same work: they check who may map, write page table entries (all of a
 * buffer's at once, as VETH batches them: no page fault follows) and flush the TLB. Everything
 * else, rings, wake-ups and bridge, is the same code as without.
 *
 * vifd's own buffers: one to each packet of a worker's pool, in its order. The pool hands out the
 * packets that were used last, so that few of these buffers are ever touched.
 */
#include "guest/snet_remap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "port/worker.h"

enum {
	PAGE = 1 << ZONE_PAGE_SHIFT,
	BUFFER = (PKT_LEN_MAX + PAGE - 1) / PAGE * PAGE,
};

/* By worker: a buffer for each packet of its pool. */
static uint8_t *buffers[WORKERS_MAX];

int snet_remap_init(unsigned workers, struct error *error)
{
	for (unsigned i = 0; i < workers; i++) {
		void *memory;

		if (buffers[i])
			continue;
		memory = mmap(NULL, (size_t)WORKER_POOL_PACKETS * BUFFER, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (memory == MAP_FAILED)
			return fail(error, -ENOMEM, "out of memory");
		buffers[i] = memory;
	}
	return 0;
}

/* A mapping of the pages that a buffer lies on. */
struct mapping {
	uint8_t *base; /* MAP_FAILED: there is none */
	size_t len;
	uint8_t *data; /* the buffer in it */
};

/* Without a mapping, for which the kernel lacks memory, data is where the zone is mapped anyway. */
static struct mapping map(const struct snet *snet, void *addr, uint32_t len, int prot)
{
	const struct zone *zone = zone_of(snet->space, addr);
	uint32_t off = zone_offset(zone, addr), in_page = off & (PAGE - 1);
	struct mapping mapping = { .len = (in_page + len + PAGE - 1) / PAGE * PAGE, .data = addr };

	mapping.base = mmap(NULL, mapping.len, prot, MAP_SHARED | MAP_POPULATE, zone->fd,
			    off - in_page);
	if (likely(mapping.base != MAP_FAILED))
		mapping.data = mapping.base + in_page;
	return mapping;
}

static void unmap(const struct mapping *mapping)
{
	if (likely(mapping->base != MAP_FAILED))
		munmap(mapping->base, mapping->len);
}

void snet_remap_in(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n)
{
	const struct pkt *first = worker_self->pool.memory;

	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt = pkts[i];
		uint8_t *own = buffers[worker_self->id] + (size_t)(pkt - first) * BUFFER, *at = own;

		if (unlikely(pkt->len > PKT_LEN_MAX)) {
			pkt->frag_count = 0; /* will be dropped for that */
			continue;
		}
		for (unsigned f = 0; f < pkt->frag_count; f++) {
			const struct iovec *frag = &pkt->frags[f];
			struct mapping mapping = map(snet, frag->iov_base, frag->iov_len,
						     PROT_READ);

			memcpy(at, mapping.data, frag->iov_len);
			unmap(&mapping);
			at += frag->iov_len;
		}
		pkt->frags[0] = (struct iovec){ own, at - own };
		pkt->frag_count = 1;
	}
	if (n > 0)
		snet_tx_done(&queue->source, pkts, n);
	for (unsigned i = 0; i < n; i++)
		pkts[i]->source = NULL;
}

void snet_remap_out(const struct snet *snet, const struct pkt *pkt, uint32_t off, void *buf,
		    uint32_t len)
{
	struct mapping mapping = map(snet, buf, len, PROT_READ | PROT_WRITE);

	pkt_copy_out(pkt, off, mapping.data, len);
	unmap(&mapping);
}
