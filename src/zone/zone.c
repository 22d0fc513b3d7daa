/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Zones: what domains share is set up once, so that packets need no mapping (SETH §3.2, S9-S12).
 *
 * Theory of operation. A zone is 4 MiB of memory behind a descriptor (memfd): whoever gets the
 * descriptor can map it, wherever it likes, and an address in it has the same meaning everywhere as
 * (zone id, offset). Ids count up and are never used again, so that what refers to a zone that is
 * gone refers to nothing.
 *
 *      addresses  | slot 0 | slot 1 | slot 2 | ...             ZONES_MAX x 4 MiB, reserved
 *      zones      |        | id 1   | id 4098| ...             id lives in slot id % ZONES_MAX
 *
 * An address thus leads to its zone by a shift, an id by a mask and a comparison; no search, no
 * lock. An id whose slot is taken by an older zone is skipped. Reserved addresses belong to no
 * memory; a zone is mapped over them, and reserved again in one step when it goes.
 *
 * Superpages (M15). A zone is two of them. hugetlb pages are tried first: there are only as many as
 * the operator reserved. Then transparent ones: the memory is filled with what pages there are and
 * the kernel asked to collapse it (MADV_COLLAPSE, Linux 6.1), which it does whatever
 * /sys/kernel/mm/transparent_hugepage says; it tells if it could not. What was got is kept. All
 * memory is made resident before anybody uses it: the data path takes no page faults and runs out
 * of nothing.
 *
 * What holders of a descriptor can do to us is decided by seals, for permissions of files do not
 * count between processes of root, and a descriptor opened read-only can be opened for writing
 * again through /proc:
 *
 *   F_SEAL_SHRINK        nobody truncates the file: our accesses cannot become SIGBUS
 *   F_SEAL_FUTURE_WRITE  nobody can write, map for writing, make a mapping writable or punch holes
 *                        any more, through whatever descriptor; the mapping that we have stays
 *                        writable. This is what makes a zone read-only to its receivers.
 *   F_SEAL_SEAL          nor are there further seals.
 *
 * A writable zone cannot have the second, and then its holders can punch holes. In tmpfs our next
 * access finds zeros there, which is harmless; hugetlb pages may have run out meanwhile, and it is
 * SIGBUS. So writable zones are never made of hugetlb pages. When they go we punch a hole
 * ourselves: who keeps the descriptor keeps no memory of ours. From a sealed zone memory cannot be
 * taken back as long as a peer has it mapped. Groups (zone_group.c) are therefore to be kept for a
 * peer's next connection, not made anew.
 */
#include "zone/zone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif
#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#define SPACE_SIZE ((size_t)ZONES_MAX << ZONE_SHIFT)

static uint32_t pick_ids(const struct zone_space *space, unsigned count);
static int zone_make(struct zone_space *space, uint32_t id, enum zone_access access);
static void zone_publish(struct zone_space *space, struct zone *zone, uint32_t id);
static void zone_unmap(struct zone *zone);

int zone_space_init(struct zone_space *space, unsigned quota, enum zone_backing best,
		    struct error *error)
{
	*space = (struct zone_space){ .next_id = 1, .quota = quota, .best = best };
	if (quota == 0 || quota > ZONES_MAX)
		return fail(error, -EINVAL, "the quota of zones is 1 to %u", ZONES_MAX);
	space->zones = calloc(ZONES_MAX, sizeof(*space->zones));
	if (!space->zones)
		return fail(error, -ENOMEM, "no memory for the table of zones");
	space->reserved = mmap(NULL, SPACE_SIZE + ZONE_SIZE, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space->reserved == MAP_FAILED) {
		int ret = -errno;

		free(space->zones);
		*space = (struct zone_space){ 0 };
		return fail(error, ret, "no %zu GiB of addresses for zones: %s", SPACE_SIZE >> 30,
			    strerror(-ret));
	}
	space->base = (uint8_t *)space->reserved + (-(uintptr_t)space->reserved & (ZONE_SIZE - 1));
	return 0;
}

void zone_space_fini(struct zone_space *space)
{
	if (!space->zones)
		return;
	for (unsigned i = 0; i < ZONES_MAX; i++) {
		if (zone_id(&space->zones[i]))
			zone_unmap(&space->zones[i]);
	}
	munmap(space->reserved, SPACE_SIZE + ZONE_SIZE);
	free(space->zones);
	*space = (struct zone_space){ 0 };
}

int zones_create(struct zone_space *space, unsigned count, enum zone_access access,
		 struct zone **first, struct error *error)
{
	uint32_t id;

	if (count == 0 || count > space->quota - space->count)
		return fail(error, -ENOSPC, "%u of %u zones are in use, no %u more", space->count,
			    space->quota, count);
	id = pick_ids(space, count);
	if (!id)
		return fail(error, -ENOSPC, "no room for %u zones side by side", count);
	for (unsigned i = 0; i < count; i++) {
		int ret = zone_make(space, id + i, access);

		if (ret) {
			while (i-- > 0)
				zone_put(space, zone_by_id(space, id + i));
			return fail(error, ret, "no memory for a zone: %s", strerror(-ret));
		}
	}
	space->next_id = id + count;
	*first = zone_by_id(space, id);
	return 0;
}

/* A zone, or something that a peer calls so? */
static int check_import(const struct zone_space *space, uint32_t id, int fd, struct error *error)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (!id)
		return fail(error, -EINVAL, "there is no zone 0");
	if (space->zones[id % ZONES_MAX].refs)
		return fail(error, -EEXIST, "zone %u: its place is taken", id);
	if (space->count == space->quota)
		return fail(error, -ENOSPC, "zone %u: %u zones are in use, the limit", id,
			    space->count);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size != ZONE_SIZE)
		return fail(error, -EINVAL, "zone %u: not a file of %u bytes", id, ZONE_SIZE);
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return fail(error, -EINVAL, "zone %u: can be truncated while in use", id);
	return 0;
}

/*
 * Map fd, which has its memory already, in the slot of id; the zone takes it. Should that fail the
 * slot is never used again: its addresses may be somebody else's by now.
 */
static int zone_map(struct zone_space *space, uint32_t id, int fd, int protection)
{
	struct zone *zone = &space->zones[id % ZONES_MAX];

	/* id and group, which others may be reading, are none already */
	memset(&zone->base, 0, sizeof(*zone) - offsetof(struct zone, base));
	zone->refs = 1;
	zone->base = space->base + ((size_t)(id % ZONES_MAX) << ZONE_SHIFT);
	if (mmap(zone->base, ZONE_SIZE, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	zone->fd = fd;
	madvise(zone->base, ZONE_SIZE, MADV_DONTDUMP); /* packets are nobody's business */
	return 0;
}

int zone_import(struct zone_space *space, uint32_t id, int fd, bool writable, struct zone **zone,
		struct error *error)
{
	int ret = check_import(space, id, fd, error);

	if (ret) {
		close(fd);
		return ret;
	}
	ret = zone_map(space, id, fd, PROT_READ | (writable ? PROT_WRITE : 0));
	if (ret)
		return fail(error, ret, "zone %u: cannot be mapped: %s", id, strerror(-ret));
	*zone = &space->zones[id % ZONES_MAX];
	close((*zone)->fd); /* the mapping keeps the file, and it is not ours to show around */
	(*zone)->fd = -1;
	(*zone)->access = writable ? ZONE_WRITABLE : ZONE_READ_ONLY;
	/* wishes: superpages, and no page faults later */
	madvise((*zone)->base, ZONE_SIZE, MADV_HUGEPAGE);
	madvise((*zone)->base, ZONE_SIZE, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
	zone_publish(space, *zone, id);
	return 0;
}

void zone_get(struct zone *zone)
{
	zone->refs++;
}

void zone_put(struct zone_space *space, struct zone *zone)
{
	if (--zone->refs)
		return;
	atomic_store_explicit(&zone->id, 0, memory_order_release);
	atomic_store_explicit(&zone->group, NULL, memory_order_relaxed);
	zone_unmap(zone);
	space->count--;
}

int zone_open(const struct zone *zone, bool writable)
{
	char path[32];
	int fd;

	if (zone->fd < 0 || (writable && zone->access != ZONE_WRITABLE))
		return -EPERM;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", zone->fd);
	fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

void zone_hide(struct zone *zone)
{
	if (zone->fd >= 0)
		close(zone->fd);
	zone->fd = -1;
	zone->access = ZONE_PRIVATE;
}

const char *zone_backing_name(enum zone_backing backing)
{
	static const char *const names[] = {
		[ZONE_SMALL_PAGES] = "4k",
		[ZONE_TRANSPARENT] = "transparent",
		[ZONE_HUGETLB] = "hugetlb",
	};

	return names[backing];
}

/* The next id from which on count slots in a row are free; 0: there is none. */
static uint32_t pick_ids(const struct zone_space *space, unsigned count)
{
	uint64_t id = space->next_id, end = id + 2 * ZONES_MAX;

	while (id < end && id + count <= UINT32_MAX) {
		unsigned slot = id % ZONES_MAX, free = 0;

		while (free < count && slot + free < ZONES_MAX && !space->zones[slot + free].refs)
			free++;
		if (free == count)
			return id;
		id += free + 1;
	}
	return 0;
}

/* A file with all its memory. A descriptor or -errno. */
static int file_create(enum zone_backing backing)
{
	bool hugetlb = backing == ZONE_HUGETLB;
	int fd = memfd_create("vifd-zone", MFD_CLOEXEC | MFD_ALLOW_SEALING |
						   (hugetlb ? MFD_HUGETLB | MFD_HUGE_2MB : 0));

	if (fd < 0)
		return -errno;
	/* of hugetlb pages, so that none are missing when it is mapped; transparent superpages
	 * are had when a mapping is filled */
	if (ftruncate(fd, ZONE_SIZE) || (hugetlb && fallocate(fd, 0, 0, ZONE_SIZE))) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	return fd;
}

/* Fill the mapping with memory; what of pages was got. Or -errno. */
static int zone_populate(struct zone *zone, enum zone_backing backing)
{
	if (backing != ZONE_HUGETLB)
		madvise(zone->base, ZONE_SIZE,
			backing == ZONE_TRANSPARENT ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (madvise(zone->base, ZONE_SIZE, MADV_POPULATE_WRITE))
		return -errno;
	if (backing == ZONE_TRANSPARENT && madvise(zone->base, ZONE_SIZE, MADV_COLLAPSE))
		return ZONE_SMALL_PAGES;
	return backing;
}

/* Set for good what others may do, now that we have our mapping. */
static int zone_seal(struct zone *zone)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

	if (zone->access == ZONE_PRIVATE) {
		zone_hide(zone);
		return 0;
	}
	if (zone->access == ZONE_READ_ONLY)
		seals |= F_SEAL_FUTURE_WRITE;
	return fcntl(zone->fd, F_ADD_SEALS, seals) ? -errno : 0;
}

/* Make zone id, whose slot is free, of the best pages there are. */
static int zone_make(struct zone_space *space, uint32_t id, enum zone_access access)
{
	struct zone *zone = &space->zones[id % ZONES_MAX];
	enum zone_backing backing = space->best;
	int fd, ret;

	if (backing == ZONE_HUGETLB && access == ZONE_WRITABLE)
		backing = ZONE_TRANSPARENT;
	fd = file_create(backing);
	if (fd < 0 && backing == ZONE_HUGETLB) {
		backing = ZONE_TRANSPARENT;
		fd = file_create(backing);
	}
	if (fd < 0)
		return fd;
	ret = zone_map(space, id, fd, PROT_READ | PROT_WRITE);
	if (ret)
		return ret;
	zone->access = access;
	ret = zone_populate(zone, backing);
	if (ret >= 0) {
		zone->backing = ret;
		ret = zone_seal(zone);
	}
	if (ret) {
		zone_unmap(zone);
		return ret;
	}
	zone_publish(space, zone, id);
	return 0;
}

/* From here on it is found. */
static void zone_publish(struct zone_space *space, struct zone *zone, uint32_t id)
{
	space->count++;
	atomic_store_explicit(&zone->id, id, memory_order_release);
}

/* Reserve the zone's addresses again, in the same step; the slot is then free. */
static void zone_unmap(struct zone *zone)
{
	void *at = mmap(zone->base, ZONE_SIZE, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	zone->refs = at == MAP_FAILED; /* as in zone_map() */
	if (zone->fd < 0)
		return;
	if (zone->access == ZONE_WRITABLE)
		fallocate(zone->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, ZONE_SIZE);
	close(zone->fd);
	zone->fd = -1;
}
