/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a front end may ask of the main thread in a time.
 *
 * Most of what it asks for pauses the workers for a moment, so that the other guests pay for it. It
 * therefore spends tokens, one a message and TOKENS_CONNECT a connection, and has TOKENS_BURST at
 * once and TOKENS_RATE a second, over all its connections.
 */
#ifndef VIFD_TOKENS_H
#define VIFD_TOKENS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { TOKENS_RATE = 1000, TOKENS_BURST = 2000, TOKENS_CONNECT = 20 };

struct tokens {
	unsigned left; /* TOKENS_BURST at first */
	uint64_t ms;   /* when they were counted last */
};

/* Spend n tokens. False: there are too few left; those that there are stay. */
static inline bool tokens_take(struct tokens *tokens, unsigned n)
{
	struct timespec now;
	uint64_t ms, gained;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ms = (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	gained = (ms - tokens->ms) * TOKENS_RATE / 1000;
	tokens->ms = ms;
	tokens->left = gained < TOKENS_BURST - tokens->left ? tokens->left + gained : TOKENS_BURST;
	if (tokens->left < n)
		return false;
	tokens->left -= n;
	return true;
}

#endif
