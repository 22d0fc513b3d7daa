/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The law by which lro=auto waits (A15), and the one by which workers nap (A4).
 *
 * Theory of operation: waits. To hold an aggregate for the flow's next segment pays if that comes soon. If
 * not, it is delay: at worst for a sender that waits for the acknowledgement of what we hold. The end
 * of a message needs no guess: a segment with PSH or FIN, or one shorter than the others, ends its
 * aggregate, which leaves at once; so requests and responses never wait. For an aggregate that is
 * incomplete at the end of a poll, each flow remembers
 *
 *      gap    time from a poll with segments of it to the next, if below 50 us: moves by 1/4
 *      odds   share of waits that the next segment ended: moves by 1/8 with each; starts at 5/8
 *      rest   how many times more it does not wait, whatever the odds
 *
 * and it
 *
 *      waits until 4 gaps and 2 us after its latest segment, at most 50 us after it and 200 us after
 *      its first one, while the odds are even or better;
 *      leaves otherwise, for the flow rests.
 *
 * A resting flow still learns its gap. It rests for 8 times that the next segment comes within 50
 * us; then it has one more try, and each one in vain doubles the next rest, up to 1024, until a wait
 * succeeds. For what is merely seen must not count as what was tried: a sender that stops for
 * acknowledgements looks like a stream as long as nobody waits for it. What comes at longer distances
 * never ends the rest. UDP, where nothing marks a message's end, starts with a rest.
 *
 * So bulk traffic is held until its packets are full, and where it pauses that costs a few of its
 * own gaps; a steady stream of a segment every 12 us, say, leaves 16 at a time. A flow for which all
 * waits are in vain loses two of them when it starts, and later one in 8, then 16 .. 1024.
 *
 * Naps. A sleeping worker is woken for each train of a stream, and to be woken costs more than to
 * forward a train that is one packet by then. Where the user has allowed a delay, by usec:T or auto,
 * a worker may therefore rest for that long and look then, as a network card holds its interrupt back.
 * That delays whatever else comes in, so it
 *
 *      naps for T (auto: for 200 us), at most 500 us, when it would have slept otherwise,
 *      if it took in 8 segments or more of bulk flows since the rest before its last (for the last
 *      may have brought only what they wait for, acknowledgements),
 *      and for 5 ms nothing that is urgent: a request, a reply, a connection that opens or closes;
 *
 * otherwise it sleeps until it is woken. A flow carries bulk while its segments wait for others, or
 * leave 8 and more in a packet; acknowledgements, and what goes to a group, may wait; all else is
 * urgent. So a request has to come less than once in 5 ms, amid a stream, to find the worker away.
 *
 * What comes in meanwhile must find room: at 10 Gb/s 500 us are 406 frames of 1500 bytes, and an
 * AF_XDP queue has 2048. A nap is shorter where, at the rate since the last one, more than 512 would
 * come.
 */
#include "offload/lro_law.h"

enum {
	WAIT_MAX_USEC = 50,
	HOLD_MAX_USEC = 200,
	SLACK_USEC = 2,
	GAP_START_USEC = 2,
	GAPS = 4,
	ODDS_ONE = 256,
	ODDS_START = ODDS_ONE * 5 / 8,
	ODDS_EVEN = ODDS_ONE / 2,
	REST_MIN = 8,
	REST_MAX = 1024,
	NAP_MIN_USEC = 50, /* less is not worth it */
	NAP_MAX_USEC = 500,
	NAP_CALM_USEC = 5000,
	NAP_SEGMENTS = 8,
	NAP_SEGMENTS_MOST = 512,
};

void lro_law_times(struct lro_law_times *times, uint64_t cycles_per_usec)
{
	*times = (struct lro_law_times){
		.wait_max = WAIT_MAX_USEC * cycles_per_usec,
		.hold_max = HOLD_MAX_USEC * cycles_per_usec,
		.slack = SLACK_USEC * cycles_per_usec,
		.gap_start = GAP_START_USEC * cycles_per_usec,
	};
}

static void rest(struct lro_law *law)
{
	law->rest = law->rest_next;
	if (law->rest_next < REST_MAX)
		law->rest_next *= 2;
}

void lro_law_start(struct lro_law *law, const struct lro_law_times *times, bool eager)
{
	*law = (struct lro_law){
		.gap = times->gap_start,
		.odds = eager ? ODDS_START : 0,
		.rest_next = REST_MIN,
	};
	if (!eager)
		rest(law);
}

static void learn_in_vain(struct lro_law *law)
{
	law->odds -= law->odds / 8;
	if (law->odds < ODDS_EVEN)
		rest(law);
}

void lro_law_learn(struct lro_law *law, const struct lro_law_times *times,
		   enum lro_law_outcome outcome, uint64_t gap)
{
	if (outcome == LRO_LAW_IN_VAIN) {
		learn_in_vain(law);
		return;
	}
	if (gap > times->wait_max)
		return;
	law->gap += (int64_t)(gap - law->gap) / 4;
	if (outcome == LRO_LAW_CAUGHT) {
		law->odds += (ODDS_ONE - law->odds) / 8;
		law->rest_next = REST_MIN;
	} else if (law->rest > 0 && --law->rest == 0) {
		law->odds = ODDS_EVEN;
	}
}

uint64_t lro_law_wait(const struct lro_law *law, const struct lro_law_times *times)
{
	uint64_t wait = GAPS * law->gap + times->slack;

	if (law->odds < ODDS_EVEN)
		return 0;
	return wait < times->wait_max ? wait : times->wait_max;
}

uint64_t lro_nap_length(struct lro_nap *nap, uint64_t patience, uint64_t now,
			uint64_t cycles_per_usec)
{
	uint64_t length = NAP_MAX_USEC * cycles_per_usec, calm = NAP_CALM_USEC * cycles_per_usec;
	uint64_t since = now - nap->rested;
	unsigned segments = nap->segments, lately = segments + nap->before;

	nap->before = segments;
	nap->segments = 0;
	nap->rested = now;
	if (lately < NAP_SEGMENTS || patience < NAP_MIN_USEC * cycles_per_usec ||
	    now - nap->urgent < calm)
		return 0;
	if (since > calm)
		since = calm;
	if (length > patience)
		length = patience;
	if (segments > 0 && length > since * NAP_SEGMENTS_MOST / segments)
		length = since * NAP_SEGMENTS_MOST / segments;
	return length;
}
