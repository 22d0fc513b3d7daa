/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long aggregates were held, first segment to departure: a histogram with four steps an octave
 * from 64 ns on, bucket 0 for what is below.
 */
#ifndef VIFD_LRO_DELAY_H
#define VIFD_LRO_DELAY_H

#include <stdint.h>

enum { LRO_DELAY_BUCKETS = 72 };

/* Upper bound of a bucket, ns. */
uint64_t lro_delay_bound(unsigned bucket);
unsigned lro_delay_bucket(uint64_t ns);

#endif
