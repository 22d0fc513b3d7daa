/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of zones share: spaces, and what the kernel says about memory. */
#ifndef VIFD_TEST_ZONES_H
#define VIFD_TEST_ZONES_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "zone/zone_group.h"

#include <cmocka.h> /* last: it has a macro fail() */

static inline struct zone_space space_of(unsigned quota, enum zone_backing best)
{
	struct zone_space space;
	struct error error = { "" };

	if (zone_space_init(&space, quota, best, &error))
		fail_msg("%s", error.text);
	return space;
}

/* Of the mappings in [addr, addr + len), a line of /proc/self/smaps in KiB, summed up. */
static inline unsigned long smaps_kib(const void *addr, size_t len, const char *field)
{
	uintptr_t from = (uintptr_t)addr;
	unsigned long start, end, kib, sum = 0;
	FILE *smaps = fopen("/proc/self/smaps", "re");
	bool inside = false;
	char line[512];

	assert_non_null(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start < from + len && end > from;
		else if (inside && strncmp(line, field, strlen(field)) == 0 &&
			 sscanf(line + strlen(field), ": %lu kB", &kib) == 1)
			sum += kib;
	}
	fclose(smaps);
	return sum;
}

static inline unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

#endif
