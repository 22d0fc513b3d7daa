// SPDX-License-Identifier: BSD-3-Clause
/* Counters by perf_event_open(), in one group, so that both count the same stretches. */
#include "tlb_counters.h"

#include <linux/perf_event.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LOADS, STORES, COUNTERS };

static int fds[COUNTERS] = { -1, -1 };

static int counter_open(enum perf_hw_cache_op_id op, int group)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HW_CACHE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_CACHE_DTLB | op << 8 |
			  PERF_COUNT_HW_CACHE_RESULT_MISS << 16,
		.disabled = group < 0,
		.exclude_kernel = 1,
		.exclude_hv = 1,
	};

	return syscall(SYS_perf_event_open, &attr, 0, -1, group, PERF_FLAG_FD_CLOEXEC);
}

bool tlb_counters_open(void)
{
	fds[LOADS] = counter_open(PERF_COUNT_HW_CACHE_OP_READ, -1);
	if (fds[LOADS] >= 0) /* some CPUs have none for stores */
		fds[STORES] = counter_open(PERF_COUNT_HW_CACHE_OP_WRITE, fds[LOADS]);
	return fds[LOADS] >= 0;
}

void tlb_counters_run(bool run)
{
	if (fds[LOADS] >= 0)
		ioctl(fds[LOADS], run ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE,
		      PERF_IOC_FLAG_GROUP);
}

uint64_t tlb_counters_read(void)
{
	uint64_t sum = 0, count;

	for (unsigned i = 0; i < COUNTERS; i++) {
		if (fds[i] >= 0 && read(fds[i], &count, sizeof(count)) == sizeof(count))
			sum += count;
	}
	return sum;
}
