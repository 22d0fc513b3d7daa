/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel=remap and channel=flip: what snet does away with, to be measured against it. For
 * measurement only; nobody gets one who has not asked for it by name, and vifd warns then.
 *
 * Theory of operation. remap is SETH's VETH (S3, S4): the back end has no memory in common with the
 * guest; it maps the pages of each packet by the hypervisor's grant table, copies and unmaps them.
 * flip is Xen's channel before there were grant tables (M10, M13): what a guest sends is mapped until
 * it is sent, and what it receives comes in a page of its own, which becomes the guest's, while
 * one of the guest's becomes vifd's, is zeroed, for nobody may see what was in it, and used again. So
 * do these, although the zones are mapped here already:
 *
 *      remap   from the guest   map its pages, copy to a buffer of vifd's own, unmap, give the
 *                               entry back at once (S3, step 5)
 *              to the guest     map a buffer in its zone, copy the packet to it, unmap (S4, step 4)
 *      flip    from the guest   map its pages; unmap them when the packet is done: 2 remaps
 *              to the guest     take a page, map it, put the packet there, unmap; map it in the
 *                               guest's view. When it comes back: unmap there, zero it, free it
 *
 * Xen needs 3 remaps for the last, since it puts a new page where the driver domain's was in one; here
 * those are two. Its NIC writes into the page; here the packet lies in the uplink's memory already, and
 * is copied: that is the part of flip that is worse than what it stands for, by the 1500 bytes of a
 * memcpy(). To take and to free a page costs nothing but a slab's cache, which is less than Xen's.
 *
 * There is no hypervisor here. A remap by hypercall is given a place in the address space and does
 * three things: it looks up whether the page may be mapped, writes the page table entry, and on the
 * way back clears it and flushes the TLB. What comes closest are two system calls on a window, a
 * second mapping of each zone that has no page table entries but those of the packet at hand:
 * MADV_POPULATE_* fills in those of a buffer (all at once, as Xen batches them: no page fault
 * follows), MADV_DONTNEED clears them and flushes the TLB. mmap() and munmap() for each packet would
 * cost three times that, for they also find and give back a place, which no grant does: the baseline
 * must not be worse than what it stands for. Everything else, rings, wake-ups and bridge, is the
 * same code as without.
 *
 *      zones     | zone | zone | ...      mapped for good; to zero pages by
 *      windows   |   .. |      | ...      the same places; by slot, made when first needed
 *      views     |      |  .   | ...      once more: stands for what guests map of pages that they got
 *
 * vifd's own buffers, and notes of what is mapped for a packet: one to each packet of a worker's pool,
 * in its order. The pool hands out the packets that were used last, so that few of these are ever
 * touched.
 */
#include "guest/snet_remap.h"

#include <stdlib.h>
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
	/* To map a page for reading maps its neighbours up to this, which have to go, too: dearer
	 * than one page for writing, cheaper than more than these. */
	AROUND = 64 << 10,
	PAGES_FOR_WRITING = 4,
	/* Cycles of a call in the midst of which somebody else had the CPU, for sure. */
	INTERRUPTED = 1 << 18,
};

/* Of one worker. Pages, but for calls and cycles. */
struct counts {
	uint64_t mapped, unmapped, handed_over, taken_back, zeroed;
	uint64_t calls, timed_calls, cycles; /* to map and unmap; of those timed */
} __attribute__((aligned(64)));

struct snet_remap {
	enum snet_remap_mode mode;
	struct counts counts[WORKERS_MAX];
};

/* The mappings of a packet that was sent. */
struct mappings {
	unsigned count;
	struct iovec at[SNET_PACKET_ENTRIES];
};

/* By worker: one for each packet of its pool. */
static uint8_t *buffers[WORKERS_MAX];
static struct mappings *mappings[WORKERS_MAX];

/* Second mappings of the zones of the one space there is, and which zone each place shows. */
struct windows {
	uint8_t *base;
	_Atomic uint32_t shown[ZONES_MAX];
};

static struct windows own, guests;

/* By page of the space: how many from there on were handed over together. */
static uint8_t *handed;

/* ---- mapping ---- */

/* What is reserved already stays. */
static void *reserve(void *memory, size_t len, int prot)
{
	if (memory)
		return memory;
	memory = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

struct snet_remap *snet_remap_new(enum snet_remap_mode mode, unsigned workers)
{
	const size_t zones = (size_t)ZONES_MAX << ZONE_SHIFT;
	const int use = PROT_READ | PROT_WRITE;
	struct snet_remap *remap;
	bool ok;

	own.base = reserve(own.base, zones, PROT_NONE);
	guests.base = reserve(guests.base, zones, PROT_NONE);
	handed = reserve(handed, (size_t)ZONES_MAX * ZONE_PAGES, use);
	ok = own.base && guests.base && handed;
	for (unsigned i = 0; i < workers && ok; i++) {
		buffers[i] = reserve(buffers[i], (size_t)WORKER_POOL_PACKETS * BUFFER, use);
		mappings[i] = reserve(mappings[i], WORKER_POOL_PACKETS * sizeof(struct mappings),
				      use);
		ok = buffers[i] && mappings[i];
	}
	remap = ok ? aligned_alloc(64, sizeof(*remap)) : NULL;
	if (!remap)
		return NULL;
	memset(remap, 0, sizeof(*remap));
	remap->mode = mode;
	return remap;
}

void snet_remap_free(struct snet_remap *remap)
{
	free(remap);
}

bool snet_remap_flips(const struct snet_remap *remap)
{
	return remap && remap->mode == SNET_REMAP_FLIP;
}

/* Where addr, which lies in a zone, is in the window of that; addr: there is none to be had. */
static uint8_t *window_of(struct windows *windows, const struct zone_space *space, void *addr)
{
	const struct zone *zone = zone_of(space, addr);
	size_t slot = zone - space->zones;
	uint8_t *window = windows->base + (slot << ZONE_SHIFT);
	_Atomic uint32_t *shown = &windows->shown[slot];

	if (unlikely(atomic_load_explicit(shown, memory_order_relaxed) != zone_id(zone))) {
		if (mmap(window, ZONE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 zone->fd, 0) == MAP_FAILED)
			return addr;
		madvise(window, ZONE_SIZE, MADV_NOHUGEPAGE);
		atomic_store_explicit(shown, zone_id(zone), memory_order_relaxed);
	}
	return window + zone_offset(zone, addr);
}

static unsigned pages_of(const uint8_t *at, uint32_t len)
{
	return (((uintptr_t)at & (PAGE - 1)) + len + PAGE - 1) / PAGE;
}

/* Do something to the pages, or larger units, on which len bytes lie. */
static void advise(struct counts *counts, uint8_t *at, uint32_t len, size_t unit, int advice)
{
	uintptr_t begin = (uintptr_t)at & ~(unit - 1);
	uint64_t before = cycles_now(), took;

	madvise((void *)begin, ((uintptr_t)at + len - begin + unit - 1) & ~(unit - 1), advice);
	took = cycles_now() - before;
	counts->calls++;
	if (likely(took < INTERRUPTED)) {
		counts->timed_calls++;
		counts->cycles += took;
	}
}

static void map(struct counts *counts, uint8_t *at, uint32_t len)
{
	unsigned pages = pages_of(at, len);

	advise(counts, at, len, PAGE,
	       pages <= PAGES_FOR_WRITING ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
	counts->mapped += pages;
}

static void unmap(struct counts *counts, uint8_t *at, uint32_t len)
{
	unsigned pages = pages_of(at, len);

	advise(counts, at, len, pages <= PAGES_FOR_WRITING ? PAGE : AROUND, MADV_DONTNEED);
	counts->unmapped += pages;
}

/* ---- from the guest ---- */

/* The packet's place in the pool, and so among buffers and mappings. */
static size_t place_of(const struct pkt *pkt)
{
	return pkt - (const struct pkt *)worker_self->pool.memory;
}

static void copy_in(const struct snet *snet, struct counts *counts, struct pkt *pkt)
{
	uint8_t *buffer = buffers[worker_self->id] + place_of(pkt) * BUFFER, *at = buffer;

	for (unsigned f = 0; f < pkt->frag_count; f++) {
		const struct iovec *frag = &pkt->frags[f];
		uint8_t *from = window_of(&own, snet->space, frag->iov_base);

		map(counts, from, frag->iov_len);
		memcpy(at, from, frag->iov_len);
		unmap(counts, from, frag->iov_len);
		at += frag->iov_len;
	}
	pkt->frags[0] = (struct iovec){ buffer, at - buffer };
	pkt->frag_count = 1;
}

static void map_in(const struct snet *snet, struct counts *counts, struct pkt *pkt)
{
	struct mappings *mapped = &mappings[worker_self->id][place_of(pkt)];

	mapped->count = 0;
	for (unsigned f = 0; f < pkt->frag_count; f++) {
		struct iovec *frag = &pkt->frags[f];

		frag->iov_base = window_of(&own, snet->space, frag->iov_base);
		map(counts, frag->iov_base, frag->iov_len);
		mapped->at[mapped->count++] = *frag;
	}
}

/* flip: what was sent is done. The guest may have gone since, and nobody counts any more. */
static void flip_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	const struct snet *snet = ((struct snet_queue *)source)->session->snet;
	unsigned worker = worker_self->id;
	struct counts nobodys = { 0 }, *counts = snet ? &snet->remap->counts[worker] : &nobodys;

	for (unsigned i = 0; i < n; i++) {
		const struct mappings *mapped = &mappings[worker][place_of(pkts[i])];

		for (unsigned f = 0; f < mapped->count; f++)
			unmap(counts, mapped->at[f].iov_base, mapped->at[f].iov_len);
	}
	snet_tx_done(source, pkts, n);
}

void snet_remap_in(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n)
{
	struct counts *counts = &snet->remap->counts[worker_self->id];
	bool flips = snet_remap_flips(snet->remap);

	for (unsigned i = 0; i < n; i++) {
		if (unlikely(pkts[i]->len > PKT_LEN_MAX)) {
			pkts[i]->frag_count = 0; /* will be dropped for that */
			mappings[worker_self->id][place_of(pkts[i])].count = 0;
		} else if (flips) {
			map_in(snet, counts, pkts[i]);
		} else {
			copy_in(snet, counts, pkts[i]);
		}
	}
	if (flips) {
		queue->source.done = flip_done;
		return;
	}
	if (n > 0)
		snet_tx_done(&queue->source, pkts, n);
	for (unsigned i = 0; i < n; i++)
		pkts[i]->source = NULL;
}

/* ---- to the guest ---- */

static uint8_t *handed_at(const struct snet *snet, const void *buf)
{
	return &handed[(size_t)((const uint8_t *)buf - snet->space->base) >> ZONE_PAGE_SHIFT];
}

void snet_remap_out(const struct snet *snet, const struct pkt *pkt, uint32_t off, void *buf,
		    uint32_t len)
{
	struct counts *counts = &snet->remap->counts[worker_self->id];
	uint8_t *to = window_of(&own, snet->space, buf);
	unsigned pages = pages_of(buf, len);

	map(counts, to, len);
	pkt_copy_out(pkt, off, to, len);
	unmap(counts, to, len);
	if (!snet_remap_flips(snet->remap))
		return;
	map(counts, window_of(&guests, snet->space, buf), len);
	*handed_at(snet, buf) = pages;
	counts->handed_over += pages;
}

void snet_remap_back(const struct snet *snet, void *const *bufs, unsigned n)
{
	struct counts *counts = &snet->remap->counts[worker_self->id];

	if (!snet_remap_flips(snet->remap))
		return;
	for (unsigned i = 0; i < n; i++) {
		unsigned pages = *handed_at(snet, bufs[i]);

		unmap(counts, window_of(&guests, snet->space, bufs[i]), pages * PAGE);
		memset(bufs[i], 0, pages * PAGE);
		counts->taken_back += pages;
		counts->zeroed += pages;
	}
}

/* ---- telling ---- */

json_t *snet_remap_show(const struct snet_remap *remap)
{
	struct counts sum = { 0 };

	/* what workers write meanwhile is read as it is */
	for (unsigned i = 0; i < WORKERS_MAX; i++) {
		const volatile struct counts *one = &remap->counts[i];

		sum.mapped += one->mapped;
		sum.unmapped += one->unmapped;
		sum.handed_over += one->handed_over;
		sum.taken_back += one->taken_back;
		sum.zeroed += one->zeroed;
		sum.calls += one->calls;
		sum.timed_calls += one->timed_calls;
		sum.cycles += one->cycles;
	}
	if (sum.timed_calls > 0)
		sum.cycles = (double)sum.cycles / sum.timed_calls * sum.calls;
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "mapped", (json_int_t)sum.mapped,
			 "unmapped", (json_int_t)sum.unmapped, "handed_over",
			 (json_int_t)sum.handed_over, "taken_back", (json_int_t)sum.taken_back,
			 "zeroed", (json_int_t)sum.zeroed, "calls", (json_int_t)sum.calls, "cycles",
			 (json_int_t)sum.cycles);
}
