/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory: the regions a front end shares with us, each mapped once, and checked translation
 * of the addresses in its descriptors (hostile-guest classes: unmapped or split ranges, integer
 * overflow).
 *
 * A table is immutable once published: a change builds a new one that shares the unchanged
 * mappings, the workers are paused for the swap only, and the old one is released afterwards.
 */
#ifndef VIFD_GUEST_MEM_H
#define VIFD_GUEST_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "pkt/pkt.h"

enum { GUEST_MEM_REGIONS_MAX = 64 };

/* A mapping of a front end's file descriptor, shared by successive tables. */
struct guest_mapping;

struct guest_region {
	uint64_t gpa;         /* guest physical address of the first byte */
	uint64_t size;        /* bytes, > 0; gpa + size does not wrap */
	uint8_t *host;        /* where gpa is mapped here */
	uint64_t uva;         /* the front end's address of that, as in ring addresses */
	uint64_t mmap_offset; /* offset of the region in its file */
	struct guest_mapping *mapping;
};

struct guest_mem {
	unsigned count;
	struct guest_region regions[GUEST_MEM_REGIONS_MAX];
};

/* A new empty table; NULL without memory. */
struct guest_mem *guest_mem_new(void);
/* A copy that shares the mappings of mem. */
struct guest_mem *guest_mem_clone(const struct guest_mem *mem);
/*
 * Map and add a region of fd (takes the descriptor, also on failure; it is closed once mapped).
 * Superpages are asked for and what was got is remembered. 0; -EINVAL when size is 0, something
 * wraps, is not page aligned where it must be, overlaps another region in gpa or uva, or lies
 * beyond the end of the file (a later access would be SIGBUS); -ENOSPC when the table is full; or
 * mmap's -errno. A region that the table has already, of the same file, is no error and adds
 * nothing.
 */
int guest_mem_add(struct guest_mem *mem, uint64_t gpa, uint64_t size, uint64_t uva,
		  uint64_t mmap_offset, int fd);
/* Remove the region with exactly this gpa, size and uva. 0 or -ENOENT. */
int guest_mem_remove(struct guest_mem *mem, uint64_t gpa, uint64_t size, uint64_t uva);
/* Release the table and every mapping that no other table shares. */
void guest_mem_free(struct guest_mem *mem);
/* Page size that backs a region: 4096, 2 MiB, 1 GiB (as far as the kernel tells); transparent when
 * it is THP. */
size_t guest_region_page_size(const struct guest_region *region, bool *transparent);

/* Has a front end taken memory of this table away (truncated the file) while it was in use? */
bool guest_mem_lost(const struct guest_mem *mem);

/* Host address of [uva, uva + len), which must lie in one region; NULL otherwise. */
void *guest_mem_from_uva(const struct guest_mem *mem, uint64_t uva, uint64_t len);

/* Slow part of guest_mem_at(): search all regions, remember the one found in *last. */
void *guest_mem_search(const struct guest_mem *mem, unsigned *last, uint64_t gpa, uint64_t len,
		       uint64_t *got);

/*
 * Host address of gpa, or NULL when it is not guest memory. *got (<= len) is how many bytes from
 * there lie in the same region: a buffer may continue in the next one, where the caller goes on.
 * last: index of the region that the previous look-up hit, a guess.
 */
static inline void *guest_mem_at(const struct guest_mem *mem, unsigned *last, uint64_t gpa,
				 uint64_t len, uint64_t *got)
{
	if (likely(*last < mem->count)) {
		const struct guest_region *region = &mem->regions[*last];
		uint64_t off = gpa - region->gpa; /* wraps to a huge number below the region */

		if (likely(off < region->size && len <= region->size - off)) {
			*got = len;
			return region->host + off;
		}
	}
	return guest_mem_search(mem, last, gpa, len, got);
}

#endif
