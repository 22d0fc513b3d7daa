/* SPDX-License-Identifier: BSD-3-Clause */
/* The zones of vifd itself. What the function promises is in zone_host.h. */
#include "zone/zone_host.h"

#include <unistd.h>

#include "sys/pages.h"

enum { QUOTA_MIN = 64 };

static struct zone_space host;

struct zone_space *zone_host(struct error *error)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t quota = memory / 4 / ZONE_SIZE;

	if (host.zones)
		return &host;
	quota = quota < QUOTA_MIN ? QUOTA_MIN : quota > ZONES_MAX ? ZONES_MAX : quota;
	if (zone_space_init(&host, quota, pages_are_small() ? ZONE_SMALL_PAGES : ZONE_HUGETLB,
			    error))
		return NULL;
	return &host;
}
