/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Zones: memory in pieces of 4 MiB that domains share, addressed as (zone id, offset) (S9, S12).
 * The theory of operation is in zone.c; docs/shared-memory.md draws it. Both ends use this: vifd
 * creates zones, a front end imports them under the ids they have there.
 *
 * The main thread creates, imports and lets go of zones; any thread looks them up, without locks.
 * What a worker may still touch is let go of only while workers are paused.
 */
#ifndef VIFD_ZONE_H
#define VIFD_ZONE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sys/error.h"

enum {
	ZONE_SHIFT = 22,
	ZONE_SIZE = 1 << ZONE_SHIFT, /* bytes: two superpages */
	ZONES_MAX = 4096,            /* at a time: 16 GiB of addresses, reserved at start */
	ZONE_PAGE_SHIFT = 12,        /* what the page allocator counts in */
	ZONE_PAGES = ZONE_SIZE >> ZONE_PAGE_SHIFT,
	ZONE_CHUNK_SHIFT = 16, /* what slabs take at once */
	ZONE_CHUNKS = ZONE_SIZE >> ZONE_CHUNK_SHIFT,
};

/* What a domain that is not vifd may do with a zone; for good. */
enum zone_access { ZONE_PRIVATE, ZONE_READ_ONLY, ZONE_WRITABLE };

/* The pages a zone is made of, worst first. */
enum zone_backing { ZONE_SMALL_PAGES, ZONE_TRANSPARENT, ZONE_HUGETLB };

struct zone_group;
struct slab_chunk;

struct zone {
	/* 0: no zone here. Written last when one is made, first when it goes. */
	_Atomic uint32_t id;
	uint8_t access;                         /* enum zone_access */
	uint8_t backing;                        /* enum zone_backing: what was got; ours only */
	_Atomic(struct zone_group *) group;     /* NULL: none */
	uint8_t *base;                          /* where it is mapped here */
	struct slab_chunk *chunks[ZONE_CHUNKS]; /* slab.c's */

	int fd;        /* of a zone that can be shown to others, else -1 */
	unsigned refs; /* 0: the place is free */

	/* zone_group.c's */
	struct zone *next;
	unsigned used_pages;
	uint64_t used[ZONE_PAGES / 64]; /* bit per page */
};

/* All zones of a process, in one range of addresses. */
struct zone_space {
	uint8_t *base;      /* a multiple of ZONE_SIZE */
	struct zone *zones; /* [ZONES_MAX]: zone id lives at id % ZONES_MAX */
	uint32_t next_id;   /* ids are never given out again */
	unsigned count, quota;
	enum zone_backing best;
	void *reserved;
};

/*
 * Reserve addresses (no memory yet). quota: zones at a time, 1..ZONES_MAX. best: the best pages to
 * try for, ZONE_HUGETLB but for experiments. 0 or -errno.
 */
int zone_space_init(struct zone_space *space, unsigned quota, enum zone_backing best,
		    struct error *error);
/* Unmap everything, also zones that are still referenced. */
void zone_space_fini(struct zone_space *space);

/*
 * Make count zones with ids and addresses in a row (an AF_XDP socket wants its frames so), zeroed
 * and resident. Each has one reference, the caller's; *first is the one with the lowest id. Takes some
 * milliseconds each. 0; -ENOSPC: quota, or no room for that many in a row; or -errno: then none is
 * made.
 */
int zones_create(struct zone_space *space, unsigned count, enum zone_access access,
		 struct zone **first, struct error *error);
/*
 * Map a zone that another process created and announced under this id. Takes fd, also on failure.
 * writable as it was announced. One reference, the caller's. 0; -EINVAL: fd is not a zone, or could
 * be truncated under us; -EEXIST: id is in use, or a zone in its place; or -errno.
 */
int zone_import(struct zone_space *space, uint32_t id, int fd, bool writable, struct zone **zone,
		struct error *error);

/* Main thread. With the last reference the zone is unmapped and its id is void. */
void zone_get(struct zone *zone);
void zone_put(struct zone_space *space, struct zone *zone);

/*
 * A descriptor of the zone to send to another process; the caller's to close. Read-only whatever it
 * does, or writable, which takes ZONE_WRITABLE. A read-only one of a ZONE_WRITABLE zone keeps only
 * honest domains from writing. -EPERM: access does not permit it; or -errno.
 */
int zone_open(const struct zone *zone, bool writable);

/* Nobody else gets to see this zone, which nobody has seen yet: it is ZONE_PRIVATE from now on. */
void zone_hide(struct zone *zone);

/* "hugetlb", "transparent", "4k" */
const char *zone_backing_name(enum zone_backing backing);

static inline uint32_t zone_id(const struct zone *zone)
{
	return atomic_load_explicit(&zone->id, memory_order_acquire);
}

/* The zone that addr lies in, NULL: in none. (zone_id(), zone_offset()) names it elsewhere. */
static inline struct zone *zone_of(const struct zone_space *space, const void *addr)
{
	uintptr_t off = (uintptr_t)addr - (uintptr_t)space->base; /* huge when below */
	struct zone *zone;

	if (off >> ZONE_SHIFT >= ZONES_MAX)
		return NULL;
	zone = &space->zones[off >> ZONE_SHIFT];
	return zone_id(zone) ? zone : NULL;
}

static inline uint32_t zone_offset(const struct zone *zone, const void *addr)
{
	return (const uint8_t *)addr - zone->base;
}

/* The zone with this id, NULL: none. id may come from anybody. */
static inline struct zone *zone_by_id(const struct zone_space *space, uint32_t id)
{
	struct zone *zone = &space->zones[id % ZONES_MAX];

	return id && zone_id(zone) == id ? zone : NULL;
}

/* Do len bytes at off lie within a zone? Both may come from anybody. */
static inline bool zone_holds(uint32_t off, uint32_t len)
{
	return off < ZONE_SIZE && len <= ZONE_SIZE - off;
}

#endif
