/* SPDX-License-Identifier: BSD-3-Clause */
/* Random numbers for tests and experiments. */
#ifndef VIFD_TEST_RANDOM_H
#define VIFD_TEST_RANDOM_H

#include <stdint.h>

/* xorshift64*: the same numbers in every run. */
static inline uint32_t rnd_below(uint64_t *state, uint32_t limit)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * 0x2545f4914f6cdd1d >> 32) % limit;
}

#endif
