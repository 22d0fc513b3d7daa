// SPDX-License-Identifier: BSD-3-Clause
/*
 * What a load leaves behind, given back in units of superpages and of pages (M19).
 *
 * Theory of operation. vifd's own allocators, slab.c on zone_group.c on zones that the kernel made,
 * go through a load: buffers are got until the group has all its zones, change hands in any order,
 * and are put back but for a few, wherever these lie. Then whole zones, two superpages each, go back
 * to the system. What pages one by one could have been given back instead, and which superpages that
 * would have broken, is counted, not done.
 *
 * Usage: balloon RUNS. Prints a line of JSON for each number of buffers held, and run.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "sys/pages.h"
#include "zone/slab.h"

enum {
	ZONES = 16,
	BUF = 2048,
	PEAK = ZONES * (ZONE_SIZE / BUF),
	CHANGES = 20000,
	SUPERPAGE = 2 << 20,
	PAGE = 1 << ZONE_PAGE_SHIFT,
	PAGES = SUPERPAGE / PAGE, /* of a superpage */
};

static const unsigned held[] = { 0, PEAK / 4096, PEAK / 64 };

static struct zone_space space;
static struct zone_group group;
static struct slab *slab;
static void *bufs[PEAK];

static void swap(unsigned a, unsigned b)
{
	void *buf = bufs[a];

	bufs[a] = bufs[b];
	bufs[b] = buf;
}

/* To the peak and down again, to bufs[0..keep). */
static void load(unsigned keep, uint64_t *seed)
{
	for (unsigned i = 0; i < PEAK; i++) {
		if (slab_get(slab, 0, &bufs[i], 1) == 0)
			errx(EXIT_FAILURE, "only %u buffers", i);
	}
	for (unsigned i = 0; i < CHANGES; i++) {
		unsigned count = 1 + rnd_below(seed, SLAB_BULK);

		for (unsigned j = 0; j < count; j++)
			swap(j, rnd_below(seed, PEAK));
		slab_put(&space, 0, bufs, count);
		if (slab_get(slab, 0, bufs, count) != count)
			errx(EXIT_FAILURE, "buffers are lost");
	}
	for (unsigned i = PEAK; i-- > keep;) {
		swap(i, rnd_below(seed, i + 1));
		slab_put(&space, 0, &bufs[i], 1);
	}
}

/* Pages without a buffer that is held, and the superpages that have one and would stay whole. */
static void count_pages(unsigned keep, unsigned *free_pages, unsigned *used, unsigned *whole)
{
	static uint16_t in_use[ZONES_MAX][ZONE_PAGES];

	*free_pages = group.count * ZONE_PAGES;
	*used = *whole = 0;
	memset(in_use, 0, sizeof(in_use));
	for (unsigned i = 0; i < keep; i++) {
		struct zone *zone = zone_of(&space, bufs[i]);

		if (in_use[zone - space.zones][zone_offset(zone, bufs[i]) / PAGE]++ == 0)
			--*free_pages;
	}
	for (const struct zone *zone = group.zones; zone; zone = zone->next) {
		for (unsigned first = 0; first < ZONE_PAGES; first += PAGES) {
			unsigned count = 0;

			for (unsigned i = first; i < first + PAGES; i++)
				count += in_use[zone - space.zones][i] > 0;
			*used += count > 0;
			*whole += count == PAGES;
		}
	}
}

/* Bytes of the group's zones, and of those on superpages. */
static void look(size_t *resident, size_t *super)
{
	*resident = *super = 0;
	for (const struct zone *zone = group.zones; zone; zone = zone->next) {
		struct pages pages;

		pages_look(zone->base, ZONE_SIZE, &pages);
		*resident += pages.resident;
		*super += pages.super;
	}
}

static void run(unsigned keep, uint64_t seed)
{
	size_t before, super_before, after, super_after;
	unsigned free_pages, used, whole, zones;
	struct error error;

	zone_group_init(&group, &space, "balloon", ZONE_PRIVATE, ZONES);
	slab = slab_new(&group, BUF, 1);
	if (!slab || zone_group_grow(&group, ZONES, &error) || slab_grow(slab, PEAK))
		errx(EXIT_FAILURE, "no memory");
	load(keep, &seed);
	look(&before, &super_before);
	count_pages(keep, &free_pages, &used, &whole);
	slab_trim(slab, 0);
	zones = zone_group_trim(&group, 0);
	look(&after, &super_after);
	printf("{\"held\": %u, \"zones\": %u, \"given_back\": %u, \"before\": %zu, "
	       "\"super_before\": %zu, \"after\": %zu, \"super_after\": %zu, \"pages\": %u, "
	       "\"pages_free\": %u, \"used\": %u, \"whole\": %u}\n",
	       keep, ZONES, zones, before, super_before, after, super_after, ZONES * ZONE_PAGES,
	       free_pages, used, whole);
	slab_put(&space, 0, bufs, keep);
	if (slab_free(slab))
		errx(EXIT_FAILURE, "buffers have owners yet");
	zone_group_fini(&group);
}

int main(int argc, char **argv)
{
	unsigned runs = argc == 2 ? atoi(argv[1]) : 0;
	struct error error;

	if (runs == 0)
		errx(2, "usage: balloon RUNS");
	if (zone_space_init(&space, ZONES, ZONE_HUGETLB, &error))
		errx(EXIT_FAILURE, "%s", error.text);
	for (unsigned i = 0; i < sizeof(held) / sizeof(*held); i++) {
		for (unsigned r = 0; r < runs; r++)
			run(held[i], 4711 + r);
	}
	zone_space_fini(&space);
	return 0;
}
