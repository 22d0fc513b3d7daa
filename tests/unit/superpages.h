/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How many superpages stay whole (M16): pages grouped by peer and permission against pages taken
 * from anywhere, as Menon §5.3.1 argues but does not measure.
 *
 * 64 MiB are filled to 60 % with pages of several kinds (a kind is a peer and a permission), then
 * pages are freed and allocated over and over. A superpage can be mapped as one if all its pages in
 * use are of one kind; else each takes an entry of the TLB to itself. The same sequence for all:
 *
 *      random    any free page
 *      lowest    the lowest free page, whatever lies beside it
 *      grouped   zone_group.c
 */
#ifndef VIFD_TEST_SUPERPAGES_H
#define VIFD_TEST_SUPERPAGES_H

#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "zone/zone_group.h"

enum {
	PAGE = 4096,
	SUPERPAGE = 2 << 20,
	PAGES_PER_SUPERPAGE = SUPERPAGE / PAGE,
	ZONES = 16,
	PAGES = ZONES * ZONE_PAGES,
	SUPERPAGES = PAGES / PAGES_PER_SUPERPAGE,
	LIVE = PAGES * 6 / 10,
	CHURN = 10 * LIVE,
	KINDS_MAX = 8,
	RESTRICTED = 1, /* the kind, where there are two */
};

static const struct workload {
	const char *name;
	unsigned kinds;
	unsigned restricted; /* pages per mille of kind 1; 0: all kinds alike */
} workloads[] = {
	{ "one page in 100 read-only", 2, 10 },
	{ "one page in 20 read-only", 2, 50 },
	{ "4 peers, each reads and writes", 8, 0 },
};

static const char *const policies[] = { "random", "lowest", "grouped" };
enum policy { RANDOM, LOWEST, GROUPED };

struct outcome {
	unsigned used, whole; /* superpages in use; of those, of one kind */
	unsigned entries;     /* of a TLB, that all pages in use take */
};

/* Not a test's assertion: experiments use this, too. */
static inline void must(bool held)
{
	if (!held)
		abort();
}

/* Kind of each page, plus one; 0: free. */
static uint8_t kind_of[PAGES];

static struct zone_space space;
static struct zone_group groups[KINDS_MAX];

static inline uint8_t *memory(void)
{
	return space.base + ZONE_SIZE; /* ids begin at 1 */
}

static inline unsigned page_grouped(unsigned kind)
{
	struct zone_group *group = &groups[kind];
	struct error error;
	uint8_t *page = zone_pages_get(group, 0);

	if (!page) {
		must(zone_group_grow(group, 1, &error) == 0);
		page = zone_pages_get(group, 0);
	}
	return (page - memory()) / PAGE;
}

static inline unsigned allocate(enum policy policy, unsigned kind, uint64_t *seed)
{
	unsigned page = 0;

	if (policy == GROUPED)
		page = page_grouped(kind);
	else if (policy == LOWEST)
		page = (uint8_t *)memchr(kind_of, 0, PAGES) - kind_of;
	else
		do
			page = rnd_below(seed, PAGES);
		while (kind_of[page]);
	must(kind_of[page] == 0);
	kind_of[page] = kind + 1;
	return page;
}

static inline void release(enum policy policy, unsigned page)
{
	if (policy == GROUPED)
		must(zone_pages_put(&groups[kind_of[page] - 1], memory() + (size_t)page * PAGE,
				    0) == 0);
	kind_of[page] = 0;
}

static inline unsigned draw_kind(const struct workload *workload, uint64_t *seed)
{
	uint32_t number = rnd_below(seed, 1000);

	return workload->restricted ? number < workload->restricted : number % workload->kinds;
}

/* Leaves kind_of[] as it is after all that. Each number is another sequence. */
static inline void run(const struct workload *workload, enum policy policy, unsigned run_number)
{
	static unsigned live[LIVE];
	/* the first two: the same for all policies */
	uint64_t kinds = 3 * run_number + 1, victims = kinds + 1, places = kinds + 2;
	struct error error;

	memset(kind_of, 0, sizeof(kind_of));
	must(zone_space_init(&space, ZONES, ZONE_SMALL_PAGES, &error) == 0);
	for (unsigned i = 0; i < workload->kinds; i++)
		zone_group_init(&groups[i], &space, "kind", ZONE_PRIVATE, ZONES);
	for (unsigned i = 0; i < LIVE; i++)
		live[i] = allocate(policy, draw_kind(workload, &kinds), &places);
	for (unsigned i = 0; i < CHURN; i++) {
		unsigned *victim = &live[rnd_below(&victims, LIVE)];

		release(policy, *victim);
		*victim = allocate(policy, draw_kind(workload, &kinds), &places);
	}
	for (unsigned i = 0; i < workload->kinds; i++)
		zone_group_fini(&groups[i]);
	zone_space_fini(&space);
}

/* The kind of all pages in use of a superpage plus one; 0: none is in use; -1: several kinds. */
static inline int kind_of_superpage(unsigned superpage, unsigned *used)
{
	const uint8_t *pages = kind_of + (size_t)superpage * PAGES_PER_SUPERPAGE;
	int kind = 0;

	*used = 0;
	for (unsigned i = 0; i < PAGES_PER_SUPERPAGE; i++) {
		if (!pages[i])
			continue;
		(*used)++;
		kind = kind == 0 || kind == pages[i] ? pages[i] : -1;
	}
	return kind;
}

static inline struct outcome judge(void)
{
	struct outcome outcome = { 0 };

	for (unsigned i = 0; i < SUPERPAGES; i++) {
		unsigned used;
		int kind = kind_of_superpage(i, &used);

		outcome.used += kind != 0;
		outcome.whole += kind > 0;
		outcome.entries += kind > 0 ? 1 : used;
	}
	return outcome;
}

#endif
