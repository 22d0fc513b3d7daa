/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lro=auto: whether a flow's aggregate waits for its next segment, and for how long (A15, M38). And
 * whether a worker may stay away while segments come in (A4). The laws are at the top of lro_law.c.
 */
#ifndef VIFD_LRO_LAW_H
#define VIFD_LRO_LAW_H

#include <stdbool.h>
#include <stdint.h>

/* The law's times, in cycles. */
struct lro_law_times {
	uint64_t wait_max;
	uint64_t hold_max;
	uint64_t slack;
	uint64_t gap_start;
};

/* What is remembered of a flow. */
struct lro_law {
	uint64_t gap;  /* average time from a poll with segments to the next, if that is soon */
	int16_t odds;  /* share of waits that were not in vain */
	uint16_t rest; /* times more that the flow does not wait, whatever the odds */
	uint16_t rest_next; /* length of its next rest */
};

/* What became of an aggregate that was not complete at a poll's end, when the next segment came. */
enum lro_law_outcome {
	LRO_LAW_CAUGHT,     /* it was still held */
	LRO_LAW_IN_VAIN,    /* it had waited, and left */
	LRO_LAW_NOT_WAITED, /* it had left at once */
};

void lro_law_times(struct lro_law_times *times, uint64_t cycles_per_usec);
/* eager: a new flow may wait at once, otherwise it starts with a rest. */
void lro_law_start(struct lro_law *law, const struct lro_law_times *times, bool eager);
void lro_law_learn(struct lro_law *law, const struct lro_law_times *times,
		   enum lro_law_outcome outcome, uint64_t gap);

/*
 * How long after its latest segment an aggregate leaves, if nothing more arrives; 0: at the poll's
 * end.
 */
uint64_t lro_law_wait(const struct lro_law *law, const struct lro_law_times *times);

/* What is remembered of a worker's traffic: may it nap? */
struct lro_nap {
	uint64_t urgent;   /* when something came that a nap would delay */
	uint64_t rested;   /* when it began to rest last */
	unsigned segments; /* taken in since, of flows that carry bulk */
	unsigned before;   /* and between that rest and the one before it */
};

static inline void lro_nap_note_urgent(struct lro_nap *nap, uint64_t now)
{
	nap->urgent = now;
}

static inline void lro_nap_note_segment(struct lro_nap *nap)
{
	nap->segments++;
}

/*
 * The worker is about to rest, with queues that have this much patience, in cycles: how long it
 * rests whatever comes in; 0: it is to be woken. Once for each rest.
 */
uint64_t lro_nap_length(struct lro_nap *nap, uint64_t patience, uint64_t now,
			uint64_t cycles_per_usec);

#endif
