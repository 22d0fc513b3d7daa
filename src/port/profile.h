/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the cycles go (M23, S18, A9): by stage, always on, taken at a burst's stage boundaries.
 *
 * A worker's time is a sequence of stages. profile_mark(p, stage) says "what happened since the
 * last mark was stage": one TSC read per stage and burst, nothing per packet.
 */
#ifndef VIFD_PROFILE_H
#define VIFD_PROFILE_H

#include <stdint.h>
#include <x86intrin.h>

enum stage {
	STAGE_CHANNEL, /* rings, descriptors, address translation, completions, doorbells */
	STAGE_HEADER,  /* copying headers and judging them */
	STAGE_BRIDGE,  /* looking up, learning, grouping */
	STAGE_OFFLOAD, /* segmenting and checksumming in software */
	STAGE_COPY,    /* the one payload copy, into a guest */
	STAGE_UPLINK,  /* system calls of uplinks */
	STAGE_IDLE,    /* empty polls, arming, sleeping */
	STAGES
};

struct profile {
	uint64_t last;
	uint64_t cycles[STAGES];
};

extern const char *const stage_names[STAGES];

static inline uint64_t cycles_now(void)
{
	return __rdtsc();
}

static inline void profile_mark(struct profile *profile, enum stage stage)
{
	uint64_t now = cycles_now();

	profile->cycles[stage] += now - profile->last;
	profile->last = now;
}

/* TSC cycles per second, measured once at start-up. */
uint64_t cycles_hz(void);

#endif
