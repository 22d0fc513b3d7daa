/* SPDX-License-Identifier: BSD-3-Clause */
/* The CPU's counters of data TLB misses, of the calling thread in user mode. */
#ifndef VIFD_LAB_TLB_COUNTERS_H
#define VIFD_LAB_TLB_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

/* Make them, standing still at 0. False: the CPU, or who made it, has none, or we may not. */
bool tlb_counters_open(void);
/* Let them run, or stand still; nothing without counters. */
void tlb_counters_run(bool run);
/* What they are at: loads, and stores where those are counted. */
uint64_t tlb_counters_read(void);

#endif
