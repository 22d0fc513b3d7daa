/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The restricted-permission allocator (Menon §5.3.1, M16), which is the page allocator (SETH §3.2).
 *
 * Theory of operation. A superpage has one permission. Were pages that a peer may only read, pages
 * that it may write and pages it must not see taken from wherever there is room, nearly every
 * superpage would soon hold some of each and could be mapped by nobody whole. So memory is taken in
 * zones, and each zone belongs to a group: one peer, one permission, for good. Pages that are freed
 * return to their zone and are given out again within the group only. This is what keeps all
 * superpages whole, and also what makes zeroing pages unnecessary (M13): the next user is of the
 * same peer. tests/unit/superpages_test.c measures it against random placement.
 *
 * Within a group pages are taken from the lowest zone that has them, at the lowest address: what is
 * in use gathers there, so that the zones above become free as a whole and can be given back in
 * units of superpages (M19), which is the only unit in which that breaks none.
 *
 * Pages are counted by a bit each. Runs are powers of two and aligned to their size, as in a buddy
 * allocator; a bit map of 1024 pages is small enough to be searched instead.
 */
#include "zone/zone_group.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ORDER_MAX = ZONE_SHIFT - ZONE_PAGE_SHIFT };

static int find_run(const struct zone *zone, unsigned order);
static bool run_is(const struct zone *zone, unsigned page, unsigned order, bool used);
static void run_set(struct zone *zone, unsigned page, unsigned order, bool used);

void zone_group_init(struct zone_group *group, struct zone_space *space, const char *name,
		     enum zone_access access, unsigned quota)
{
	*group = (struct zone_group){ .space = space, .access = access, .quota = quota };
	snprintf(group->name, sizeof(group->name), "%s", name);
}

/* Take the zone that *link points to out of the group and let go of it. */
static void leave(struct zone_group *group, struct zone **link)
{
	struct zone *zone = *link;

	*link = zone->next;
	group->count--;
	atomic_store_explicit(&zone->group, NULL, memory_order_relaxed);
	zone_put(group->space, zone);
}

void zone_group_fini(struct zone_group *group)
{
	while (group->zones)
		leave(group, &group->zones);
}

int zone_group_grow(struct zone_group *group, unsigned count, struct error *error)
{
	struct zone **end = &group->zones, *zone;
	struct error why;
	int ret;

	if (count > group->quota - group->count)
		return fail(error, -ENOSPC, "%s: has %u zones of at most %u, no %u more",
			    group->name, group->count, group->quota, count);
	ret = zones_create(group->space, count, group->access, &zone, &why);
	if (ret)
		return fail(error, ret, "%s: %s", group->name, why.text);
	while (*end)
		end = &(*end)->next;
	for (unsigned i = 0; i < count; i++, zone++) {
		atomic_store_explicit(&zone->group, group, memory_order_relaxed);
		*end = zone;
		end = &zone->next;
		if (group->access == ZONE_PRIVATE)
			group->mapped_id = zone_id(zone);
	}
	group->count += count;
	return 0;
}

void zone_group_mapped(struct zone_group *group, uint32_t id)
{
	for (struct zone *zone = group->zones; zone && zone_id(zone) <= id; zone = zone->next) {
		if (zone_id(zone) > group->mapped_id)
			group->mapped_id = zone_id(zone);
	}
}

unsigned zone_group_trim(struct zone_group *group, unsigned keep)
{
	unsigned before = group->count, spare = before > keep ? before - keep : 0;
	unsigned unused = 0;

	for (struct zone *zone = group->zones; zone; zone = zone->next)
		unused += zone->used_pages == 0 && zone->refs == 1;
	/* the highest go: pages are taken from the lowest */
	for (struct zone **link = &group->zones; *link;) {
		if ((*link)->used_pages || (*link)->refs > 1) {
			link = &(*link)->next;
		} else if (unused-- > spare) {
			link = &(*link)->next;
		} else {
			leave(group, link);
		}
	}
	return before - group->count;
}

void *zone_pages_get(struct zone_group *group, unsigned order)
{
	for (struct zone *zone = group->zones; zone && zone_id(zone) <= group->mapped_id;
	     zone = zone->next) {
		int page = order <= ORDER_MAX ? find_run(zone, order) : -1;

		if (page < 0)
			continue;
		run_set(zone, page, order, true);
		zone->used_pages += 1U << order;
		return zone->base + ((size_t)page << ZONE_PAGE_SHIFT);
	}
	return NULL;
}

int zone_pages_put(struct zone_group *group, void *pages, unsigned order)
{
	struct zone *zone = zone_of(group->space, pages);
	uint32_t off;

	if (!zone || zone->group != group || order > ORDER_MAX)
		return -EINVAL;
	off = zone_offset(zone, pages);
	if (off & ((1U << (ZONE_PAGE_SHIFT + order)) - 1) ||
	    !run_is(zone, off >> ZONE_PAGE_SHIFT, order, true))
		return -EINVAL;
	run_set(zone, off >> ZONE_PAGE_SHIFT, order, false);
	zone->used_pages -= 1U << order;
	return 0;
}

/* The bits of a run of up to 64 pages within its word. */
static uint64_t run_mask(unsigned page, unsigned order)
{
	uint64_t ones = order < 6 ? (UINT64_C(1) << (1U << order)) - 1 : UINT64_MAX;

	return ones << page % 64;
}

static bool run_is(const struct zone *zone, unsigned page, unsigned order, bool used)
{
	uint64_t mask = run_mask(page, order), expected = used ? mask : 0;

	for (unsigned word = page / 64; word * 64 < page + (1U << order); word++) {
		if ((zone->used[word] & mask) != expected)
			return false;
	}
	return true;
}

static void run_set(struct zone *zone, unsigned page, unsigned order, bool used)
{
	uint64_t mask = run_mask(page, order);

	for (unsigned word = page / 64; word * 64 < page + (1U << order); word++)
		zone->used[word] = used ? zone->used[word] | mask : zone->used[word] & ~mask;
}

/* The first free run, or -1. */
static int find_run(const struct zone *zone, unsigned order)
{
	if (ZONE_PAGES - zone->used_pages < 1U << order)
		return -1;
	for (unsigned page = 0; page < ZONE_PAGES; page += 1U << order) {
		if (run_is(zone, page, order, false))
			return page;
	}
	return -1;
}
