/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory: regions, mappings, checked translation.
 *
 * Theory of operation. A front end shares its memory as file descriptors. Each region is mapped
 * once, whole, when it is announced, and stays mapped until no table refers to it; the data path
 * only adds offsets. A table is an array of at most GUEST_MEM_REGIONS_MAX regions that do not
 * overlap, searched linearly: the caller keeps the index of its last hit, so that the search is the
 * rare case (guest_mem_at()).
 *
 * Superpages (M15). hugetlbfs files are mapped in their own page size: offset and length are
 * rounded to it. For other shared memory the mapping is placed so that host address and file offset
 * agree modulo 2 MiB, without which the kernel cannot use a superpage whatever the file has, and
 * transparent ones are asked for. What was got is read back from the kernel when somebody asks
 * (`show guests`).
 *
 * What a hostile front end can do with a file it still holds: write to it at any time (hence the
 * laws for shared memory), and truncate it, which turns our next access to the lost pages into
 * SIGBUS. A size that is too small when the region is announced is refused here. Later truncation
 * can be excluded only by F_SEAL_SHRINK, which front ends with hugetlbfs or plain files cannot set,
 * so that it cannot be demanded: guest_fault.c survives it.
 *
 * Only the main thread creates, changes and frees tables and mappings; workers read the table
 * published to them.
 */
#include "guest/guest_mem.h"
#include "guest/guest_fault.h"
#include "sys/pages.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { SMALL_PAGE = 4096, SUPERPAGE = 2 << 20 };

struct guest_mapping {
	unsigned refs; /* tables that have a region here */
	void *addr;
	size_t len;       /* a multiple of page_size */
	size_t page_size; /* of the file system: 4096, or the hugetlbfs page */
	int fault_slot;   /* of guest_fault_watch() */
	dev_t dev;        /* the file */
	ino_t ino;
};

static int check_region(const struct guest_mem *mem, const struct guest_region *region);
static bool region_present(const struct guest_mem *mem, const struct guest_region *region, int fd);
static int map_region(struct guest_region *region, int fd);
static void mapping_put(struct guest_mapping *mapping);

struct guest_mem *guest_mem_new(void)
{
	return calloc(1, sizeof(struct guest_mem));
}

struct guest_mem *guest_mem_clone(const struct guest_mem *mem)
{
	struct guest_mem *clone = guest_mem_new();

	if (!clone)
		return NULL;
	*clone = *mem;
	for (unsigned i = 0; i < clone->count; i++)
		clone->regions[i].mapping->refs++;
	return clone;
}

int guest_mem_add(struct guest_mem *mem, uint64_t gpa, uint64_t size, uint64_t uva,
		  uint64_t mmap_offset, int fd)
{
	struct guest_region region = {
		.gpa = gpa,
		.size = size,
		.uva = uva,
		.mmap_offset = mmap_offset,
	};
	bool present = region_present(mem, &region, fd);
	int ret = present ? 0 : check_region(mem, &region);

	if (!present && ret == 0) {
		ret = map_region(&region, fd);
		if (ret == 0)
			mem->regions[mem->count++] = region;
	}
	close(fd); /* the mapping keeps the file */
	return ret;
}

int guest_mem_remove(struct guest_mem *mem, uint64_t gpa, uint64_t size, uint64_t uva)
{
	for (unsigned i = 0; i < mem->count; i++) {
		struct guest_region *region = &mem->regions[i];

		if (region->gpa != gpa || region->size != size || region->uva != uva)
			continue;
		mapping_put(region->mapping);
		mem->count--;
		memmove(region, region + 1, (mem->count - i) * sizeof(*region));
		return 0;
	}
	return -ENOENT;
}

void guest_mem_free(struct guest_mem *mem)
{
	if (!mem)
		return;
	for (unsigned i = 0; i < mem->count; i++)
		mapping_put(mem->regions[i].mapping);
	free(mem);
}

bool guest_mem_lost(const struct guest_mem *mem)
{
	for (unsigned i = 0; i < mem->count; i++) {
		if (guest_fault_lost(mem->regions[i].mapping->fault_slot))
			return true;
	}
	return false;
}

void *guest_mem_from_uva(const struct guest_mem *mem, uint64_t uva, uint64_t len)
{
	for (unsigned i = 0; i < mem->count; i++) {
		const struct guest_region *region = &mem->regions[i];
		uint64_t off = uva - region->uva;

		if (off < region->size)
			return len <= region->size - off ? region->host + off : NULL;
	}
	return NULL;
}

void *guest_mem_search(const struct guest_mem *mem, unsigned *last, uint64_t gpa, uint64_t len,
		       uint64_t *got)
{
	for (unsigned i = 0; i < mem->count; i++) {
		const struct guest_region *region = &mem->regions[i];
		uint64_t off = gpa - region->gpa;

		if (off < region->size) {
			uint64_t left = region->size - off;

			*last = i;
			*got = len < left ? len : left;
			return region->host + off;
		}
	}
	*got = 0;
	return NULL;
}

/* Half or more of what is resident in superpages counts as superpages: a few small pages at the
 * edges are normal. */
size_t guest_region_page_size(const struct guest_region *region, bool *transparent)
{
	struct pages pages;

	*transparent = false;
	if (region->mapping->page_size > SMALL_PAGE)
		return region->mapping->page_size;
	pages_look(region->host, region->size, &pages);
	*transparent = pages.super > 0 && pages.super >= pages.resident / 2;
	return *transparent ? SUPERPAGE : SMALL_PAGE;
}

/* Do [a, a + size_a) and [b, b + size_b) overlap? Neither wraps. */
static bool overlap(uint64_t a, uint64_t size_a, uint64_t b, uint64_t size_b)
{
	return a < b + size_b && b < a + size_a;
}

static int check_region(const struct guest_mem *mem, const struct guest_region *region)
{
	uint64_t gpa = region->gpa, size = region->size, uva = region->uva;
	uint64_t offset = region->mmap_offset, end;

	if (size == 0 || __builtin_add_overflow(gpa, size, &end) ||
	    __builtin_add_overflow(uva, size, &end) || __builtin_add_overflow(offset, size, &end))
		return -EINVAL;
	/* also what keeps the alignment of ring addresses the same here as there */
	if ((gpa | size | uva | offset) % SMALL_PAGE)
		return -EINVAL;
	for (unsigned i = 0; i < mem->count; i++) {
		const struct guest_region *other = &mem->regions[i];

		if (overlap(gpa, size, other->gpa, other->size) ||
		    overlap(uva, size, other->uva, other->size))
			return -EINVAL;
	}
	return mem->count == GUEST_MEM_REGIONS_MAX ? -ENOSPC : 0;
}

/* Is exactly this region of the same file in the table? */
static bool region_present(const struct guest_mem *mem, const struct guest_region *region, int fd)
{
	struct stat st;

	for (unsigned i = 0; i < mem->count; i++) {
		const struct guest_region *other = &mem->regions[i];

		if (region->gpa == other->gpa && region->size == other->size &&
		    region->uva == other->uva && region->mmap_offset == other->mmap_offset)
			return fstat(fd, &st) == 0 && st.st_dev == other->mapping->dev &&
			       st.st_ino == other->mapping->ino;
	}
	return false;
}

static uint64_t round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/*
 * Map len bytes of fd from offset, at an address that equals offset modulo align: reserve more than
 * is needed, map over the part that fits, give back the rest. len, offset and align are multiples
 * of the file's page size.
 */
static void *map_congruent(int fd, uint64_t offset, size_t len, size_t align)
{
	uint8_t *reserved = mmap(NULL, len + align, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *at;
	size_t slack;

	if (reserved == MAP_FAILED)
		return MAP_FAILED;
	slack = (offset - (uintptr_t)reserved) % align;
	at = mmap(reserved + slack, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		  offset);
	if (at == MAP_FAILED) {
		int saved = errno;

		munmap(reserved, len + align);
		errno = saved;
		return MAP_FAILED;
	}
	if (slack)
		munmap(reserved, slack);
	munmap(at + len, align - slack);
	return at;
}

static int map_region(struct guest_region *region, int fd)
{
	struct guest_mapping *mapping;
	size_t page_size = SMALL_PAGE;
	uint64_t before, end;
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) || fstatfs(fd, &fs))
		return -errno;
	/* a device or a pipe has no size that could be checked */
	if (!S_ISREG(st.st_mode) || region->mmap_offset + region->size > (uint64_t)st.st_size)
		return -EINVAL;
	if ((unsigned long)fs.f_type == HUGETLBFS_MAGIC)
		page_size = fs.f_bsize;

	mapping = malloc(sizeof(*mapping));
	if (!mapping)
		return -ENOMEM;
	before = region->mmap_offset % page_size;
	end = round_up(region->mmap_offset + region->size, page_size);
	mapping->refs = 1;
	mapping->page_size = page_size;
	mapping->dev = st.st_dev;
	mapping->ino = st.st_ino;
	mapping->len = end - (region->mmap_offset - before);
	mapping->addr = map_congruent(fd, region->mmap_offset - before, mapping->len,
				      page_size > SUPERPAGE ? page_size : SUPERPAGE);
	if (mapping->addr == MAP_FAILED) {
		int ret = -errno;

		free(mapping);
		return ret;
	}
	mapping->fault_slot = guest_fault_watch(mapping->addr, mapping->len);
	if (mapping->fault_slot < 0) {
		munmap(mapping->addr, mapping->len);
		free(mapping);
		return -ENOSPC;
	}
	/* both are wishes: kernels without THP say no, and a guest's memory in a core dump is only
	 * a leak */
	if (page_size == SMALL_PAGE)
		madvise(mapping->addr, mapping->len, MADV_HUGEPAGE);
	madvise(mapping->addr, mapping->len, MADV_DONTDUMP);
	region->mapping = mapping;
	region->host = (uint8_t *)mapping->addr + before;
	return 0;
}

static void mapping_put(struct guest_mapping *mapping)
{
	if (--mapping->refs)
		return;
	guest_fault_forget(mapping->fault_slot);
	munmap(mapping->addr, mapping->len);
	free(mapping);
}
