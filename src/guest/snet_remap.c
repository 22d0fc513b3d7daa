/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel=remap: what snet does away with, to be measured against it (SETH's VETH: S3, S4; M10).
 * For measurement only; nobody gets it who has not asked for it by name, and vifd warns then.
 *
 * Theory of operation. VETH's back end has no memory in common with the guest. It maps the pages of
 * each packet by the hypervisor's grant table, copies and unmaps them. So does this, although the
 * zones are mapped here already:
 *
 *      from the guest   entry: zone, off, len      map its pages, copy to a buffer of vifd's own,
 *                       (S3, step 5)               unmap, give the entry back at once
 *      to the guest     buffer in its zone         map its pages, copy the packet to it, unmap
 *                       (S4, step 4)
 *
 * There is no hypervisor and no grant table here. A grant table operation is given a place in the
 * address space and does three things: it looks up whether the page may be mapped, writes the page
 * table entry, and on the way back clears it and flushes the TLB. What comes closest are two system
 * calls on a window, a second mapping of each zone that has no page table entries but those of the
 * packet at hand: MADV_POPULATE_READ or _WRITE fills in those of a buffer (all at once, as VETH
 * batches them: no page fault follows), MADV_DONTNEED clears them and flushes the TLB. mmap() and
 * munmap() for each packet would cost three times that, for they also find and give back a place,
 * which no grant does: the baseline must not be worse than what it stands for. Everything else,
 * rings, wake-ups and bridge, is the same code as without.
 *
 *      zones     | zone | zone | ...      mapped for good; not used here
 *      windows   |   .. |      | ...      the same places; by slot, made when first needed
 *
 * vifd's own buffers: one to each packet of a worker's pool, in its order. The pool hands out the
 * packets that were used last, so that few of these buffers are ever touched.
 */
#include "guest/snet_remap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "port/worker.h"

#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

enum {
	PAGE = 1 << ZONE_PAGE_SHIFT,
	BUFFER = (PKT_LEN_MAX + PAGE - 1) / PAGE * PAGE,
	AROUND = 64
		 << 10, /* reading one page maps its neighbours up to this, which have to go, too */
};

/* By worker: a buffer for each packet of its pool. */
static uint8_t *buffers[WORKERS_MAX];

/* Of the zones of the one space there is, and which zone each of them shows. */
static uint8_t *windows;
static _Atomic uint32_t shown[ZONES_MAX];

static uint8_t *reserve(size_t len, int prot)
{
	void *memory = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

int snet_remap_init(unsigned workers, struct error *error)
{
	if (!windows)
		windows = reserve((size_t)ZONES_MAX << ZONE_SHIFT, PROT_NONE);
	for (unsigned i = 0; i < workers && windows; i++) {
		if (!buffers[i])
			buffers[i] = reserve((size_t)WORKER_POOL_PACKETS * BUFFER,
					     PROT_READ | PROT_WRITE);
		if (!buffers[i])
			return fail(error, -ENOMEM, "out of memory");
	}
	return windows ? 0 : fail(error, -ENOMEM, "out of memory");
}

/* Where addr, which lies in a zone, is in the window of that; addr: there is none to be had. */
static uint8_t *window_of(const struct zone_space *space, void *addr)
{
	const struct zone *zone = zone_of(space, addr);
	size_t slot = zone - space->zones;
	uint8_t *window = windows + (slot << ZONE_SHIFT);

	if (unlikely(atomic_load_explicit(&shown[slot], memory_order_relaxed) != zone_id(zone))) {
		if (mmap(window, ZONE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 zone->fd, 0) == MAP_FAILED)
			return addr;
		madvise(window, ZONE_SIZE, MADV_NOHUGEPAGE);
		atomic_store_explicit(&shown[slot], zone_id(zone), memory_order_relaxed);
	}
	return window + zone_offset(zone, addr);
}

/* Do something to the pages, or larger units, on which len bytes lie. */
static void advise(uint8_t *at, uint32_t len, size_t unit, int advice)
{
	uintptr_t begin = (uintptr_t)at & ~(unit - 1);

	madvise((void *)begin, ((uintptr_t)at + len - begin + unit - 1) & ~(unit - 1), advice);
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
			uint8_t *from = window_of(snet->space, frag->iov_base);

			advise(from, frag->iov_len, PAGE, MADV_POPULATE_READ);
			memcpy(at, from, frag->iov_len);
			advise(from, frag->iov_len, AROUND, MADV_DONTNEED);
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
	uint8_t *to = window_of(snet->space, buf);

	advise(to, len, PAGE, MADV_POPULATE_WRITE);
	pkt_copy_out(pkt, off, to, len);
	advise(to, len, PAGE, MADV_DONTNEED);
}
