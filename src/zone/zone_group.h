/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Groups of zones: the memory that one peer sees with one permission, and its pages (M16, S10). The
 * theory of operation is in zone_group.c. Main thread, but for zone_group_at().
 */
#ifndef VIFD_ZONE_GROUP_H
#define VIFD_ZONE_GROUP_H

#include "zone/zone.h"

enum { ZONE_GROUP_NAME_MAX = 48 };

struct zone_group {
	struct zone_space *space;
	struct zone *zones; /* by id, upwards: zone->next */
	unsigned count, quota;
	enum zone_access access;
	uint32_t mapped_id; /* the peer has mapped the zones up to this one */
	char name[ZONE_GROUP_NAME_MAX];
};

/* An empty group in space. name: for messages, "guest web"; quota: zones it may have at a time. */
void zone_group_init(struct zone_group *group, struct zone_space *space, const char *name,
		     enum zone_access access, unsigned quota);
/* Let go of all its zones, whatever pages are in use; those that somebody else references stay
 * mapped, in no group. */
void zone_group_fini(struct zone_group *group);

/*
 * Add count zones in a row (S10). New ones are at the end of group->zones and have the highest ids:
 * announce those above the last one announced. Their pages are given out only once
 * zone_group_mapped() says so; of a ZONE_PRIVATE group at once. 0; -ENOSPC: a quota; or -errno.
 */
int zone_group_grow(struct zone_group *group, unsigned count, struct error *error);
/* The peer says that it has mapped its zones up to this id. It may say anything. */
void zone_group_mapped(struct zone_group *group, uint32_t id);
/*
 * Give back whole zones: those no page of which is in use and nobody else references (M19). keep
 * zones stay at least. Returns how many went. Memory that a peer reads is free only when the peer
 * unmaps it too: do this to peers that are trusted to, or the group grows beyond its quota.
 */
unsigned zone_group_trim(struct zone_group *group, unsigned keep);

/*
 * Take 1 << order pages in a row (order 0..10), aligned to that; as they were left by their last
 * user, who was of the same group, at first zeroed. NULL: there are none, grow.
 */
void *zone_pages_get(struct zone_group *group, unsigned order);
/* Back to their group. -EINVAL, and nothing happens: they are not pages of it that are in use. */
int zone_pages_put(struct zone_group *group, void *pages, unsigned order);

/* Any thread. Where [off, off + len) of zone id of this group is, NULL: nowhere. All three may come
 * from the peer; another peer's zones are none of its business. */
static inline void *zone_group_at(const struct zone_group *group, uint32_t id, uint32_t off,
				  uint32_t len)
{
	struct zone *zone = zone_by_id(group->space, id);

	if (!zone || atomic_load_explicit(&zone->group, memory_order_relaxed) != group ||
	    !zone_holds(off, len))
		return NULL;
	return zone->base + off;
}

#endif
