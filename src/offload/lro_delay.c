/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The histogram of how long packets were held.
 */
#include "offload/lro_delay.h"

/*
 * Buckets: 0 up to 64 ns, then four of equal width for each doubling: 80, 96, 112, 128, 160, ..
 */
enum { DELAY_FIRST = 6 /* log2 */, DELAY_STEPS = 2 /* log2 */ };

uint64_t lro_delay_bound(unsigned bucket)
{
	unsigned octave, step;

	if (bucket == 0)
		return 1 << DELAY_FIRST;
	octave = (bucket - 1) >> DELAY_STEPS;
	step = (bucket - 1) & ((1 << DELAY_STEPS) - 1);
	return (UINT64_C(1) << (DELAY_FIRST - DELAY_STEPS + octave)) *
	       ((1 << DELAY_STEPS) + step + 1);
}

unsigned lro_delay_bucket(uint64_t ns)
{
	unsigned log2, step, bucket;

	if (ns < 1 << DELAY_FIRST)
		return 0;
	log2 = 63 - __builtin_clzll(ns);
	step = ns >> (log2 - DELAY_STEPS) & ((1 << DELAY_STEPS) - 1);
	bucket = 1 + ((log2 - DELAY_FIRST) << DELAY_STEPS) + step;
	return bucket < LRO_DELAY_BUCKETS ? bucket : LRO_DELAY_BUCKETS - 1;
}
