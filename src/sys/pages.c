/* SPDX-License-Identifier: BSD-3-Clause */
/* The pages that memory is on. What the functions promise is in pages.h. */
#include "sys/pages.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>

enum { SMALL_PAGE = 4096, LINE_BYTES = 512 };

static bool small_only;

/* The kernel then refuses transparent ones, whoever advises them; those of hugetlb are left to who
 * would take them. */
int pages_only_small(void)
{
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		return -errno;
	small_only = true;
	return 0;
}

bool pages_are_small(void)
{
	return small_only;
}

void pages_look(const void *addr, size_t len, struct pages *pages)
{
	uintptr_t from = (uintptr_t)addr, to = from + len, start, end;
	unsigned long long kib;
	char line[LINE_BYTES];
	bool inside = false;
	FILE *smaps = fopen("/proc/self/smaps", "re");

	*pages = (struct pages){ 0 };
	if (!smaps)
		return;
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start < to && end > from;
		else if (!inside)
			continue;
		else if (sscanf(line, "KernelPageSize: %llu", &kib) == 1)
			pages->page_size = kib << 10;
		else if (sscanf(line, "Rss: %llu", &kib) == 1)
			pages->resident += kib << 10;
		else if (sscanf(line, "AnonHugePages: %llu", &kib) == 1 ||
			 sscanf(line, "ShmemPmdMapped: %llu", &kib) == 1 ||
			 sscanf(line, "FilePmdMapped: %llu", &kib) == 1)
			pages->super += kib << 10;
		else if (sscanf(line, "Shared_Hugetlb: %llu", &kib) == 1 ||
			 sscanf(line, "Private_Hugetlb: %llu", &kib) == 1) {
			pages->resident += kib << 10; /* not in Rss */
			pages->super += kib << 10;
		}
	}
	fclose(smaps);
}

void pages_row(json_t *list, const char *owner, const char *what, const void *addr, size_t len)
{
	struct pages pages;
	const char *name;

	pages_look(addr, len, &pages);
	name = pages.page_size > SMALL_PAGE                           ? "hugetlb"
	       : pages.super > 0 && pages.super >= pages.resident / 2 ? "transparent"
								      : "4k";
	json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:I, s:I, s:s}", "owner", owner,
					      "what", what, "size", (json_int_t)len, "resident",
					      (json_int_t)pages.resident, "superpages",
					      (json_int_t)pages.super, "pages", name));
}
