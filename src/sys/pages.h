/* SPDX-License-Identifier: BSD-3-Clause */
/* The pages that memory is on, as the kernel tells (M15). Control path: reads a file of /proc. */
#ifndef VIFD_PAGES_H
#define VIFD_PAGES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct pages {
	size_t page_size; /* of the mapping: 4096, or the hugetlbfs page */
	size_t resident;  /* bytes */
	size_t super;     /* of those, on superpages of either kind */
};

/*
 * At start, before there is any memory to be shared: have the whole process do without superpages,
 * the baseline that they are measured against (M28). 0 or -errno.
 */
int pages_only_small(void);
/* Has that been asked for? */
bool pages_are_small(void);

/* Look at the mappings that [addr, addr + len) touches, whole. All zero: it cannot be told. */
void pages_look(const void *addr, size_t len, struct pages *pages);

/* Add a row of `show memory` to list: what of owner's lies at addr. */
void pages_row(json_t *list, const char *owner, const char *what, const void *addr, size_t len);

#endif
