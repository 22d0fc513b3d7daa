/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Large receive offload: flows, and when what is held of them leaves (A1-A4, A12, A15, M38).
 *
 * Theory of operation. Segments of a TCP flow that arrive one by one are held back, gathered into
 * one packet (lro_merge.c says which and how) and sent on as that. Order within a flow is sacred: a
 * packet of a flow that cannot be merged leaves after what is held of the flow, whatever it is. A
 * packet whose ports cannot be told (a fragment, a header out of reach) leaves after whatever is
 * held between the same addresses.
 *
 *      table    sets of four flows, found by hash, compared by addresses, ports, VLAN, MACs; a flow
 *               is remembered when nothing is held of it; the one heard of longest ago gives way,
 *               one that holds something last
 *      held     list of the flows of which something is held, the oldest aggregate first
 *      outbox   what leaves, in order, in bursts
 *
 * Nothing is held of a flow whose receivers would have it split again: they are asked when an
 * aggregate is to begin, and a refusal is remembered, for each address, for the next 256 segments.
 *
 * When an aggregate leaves: when nothing can be added any more (it is full; the segment was the last
 * of a train: PSH, FIN, shorter), when the flow's next packet cannot be added, when its place is
 * needed, and else by the clock, looked at once in each poll:
 *
 *      poll       at the end of the poll
 *      every:K    at the end of every K-th poll, empty ones too, or after 1 ms (A4: K = 2)
 *      usec:T     in the first poll T us or more after its first segment
 *      auto       by the law in lro_law.c, which guesses when the next segment comes
 *
 * Naps. With usec:T and auto the worker may stay away while segments come in (the law is in lro_law.c,
 * to which it is told here what came). What is found then counts as arrived when the nap began, so
 * that T bounds the sum; and is all taken in before any of it leaves by the clock, so that aggregates
 * are long.
 */
#include "offload/lro.h"

#include <net/ethernet.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "offload/linear.h"
#include "offload/lro_law.h"
#include "offload/lro_merge.h"
#include "pkt/headers.h"
#include "port/worker.h"

enum {
	WAYS = 4,
	SETS = LRO_FLOWS / WAYS,
	REFUSALS = 16,
	REFUSAL_SEGMENTS = 256,
	POOL_RESERVE = 8,  /* share of the pool's packets that is not for us: 1/8 */
	BULK_SEGMENTS = 8, /* of an aggregate that tells of bulk */
	DRAIN_POLLS = 16,  /* after a nap: a quarter of an AF_XDP queue's frames */
};

/* Times are TSC. */
struct flow {
	struct lro_aggregate aggregate;
	uint64_t first;             /* when what is held began to arrive */
	uint64_t latest;            /* when the flow's latest segment arrived */
	uint64_t due;               /* auto: when what is held leaves, or was to leave */
	struct flow *older, *newer; /* held */
	struct lro_law law;
	bool open; /* the latest segment waited, or might have: the next one tells what for */
	bool bulk; /* what left last was long: what ends it is no message of its own */
} __attribute__((aligned(64)));

/* Somebody to whom packets are not to be merged for now. */
struct refusal {
	uint64_t key;  /* destination, and what it lacks */
	unsigned left; /* segments for which it is not asked again */
};

struct lro {
	struct port *in;
	const struct lro_ops *ops;
	struct lro_config config;
	struct lro_stats stats;
	uint64_t now;
	uint64_t since;           /* what is found now came then or later; 0: just now */
	unsigned drained;         /* polls after a nap, which found that there may be more */
	uint64_t due;             /* auto: nothing that is held leaves earlier */
	struct flow *recent;      /* found last: the first to look at */
	struct flow *held_oldest; /* in order of first */
	struct flow *held_newest;
	unsigned held;  /* segments */
	unsigned polls; /* every: since the last that flushed */
	unsigned out_count;
	struct pkt *out[PKT_BURST];

	/* in cycles */
	uint64_t value_cycles; /* usec */
	uint64_t hold_max;     /* every */
	struct lro_law_times law;
	uint64_t ns_per_mcycle; /* nanoseconds per 2^20 cycles */

	struct refusal refusals[REFUSALS];
	uint32_t hashes[LRO_FLOWS]; /* of the flows, for the search; 0: none */
	struct flow flows[LRO_FLOWS];
};

/* ---- setting up ---- */

struct lro *lro_new(struct port *in, const struct lro_ops *ops)
{
	struct lro *lro = aligned_alloc(64, sizeof(*lro));

	if (!lro)
		return NULL;
	memset(lro, 0, sizeof(*lro));
	lro->in = in;
	lro->ops = ops;
	return lro;
}

void lro_free(struct lro *lro)
{
	free(lro);
}

void lro_configure(struct lro *lro, const struct lro_config *config)
{
	uint64_t usec = cycles_hz() / 1000000;

	lro->config = *config;
	lro->value_cycles = config->value * usec;
	lro->hold_max = LRO_HOLD_MAX_USEC * usec;
	lro_law_times(&lro->law, usec);
	lro->ns_per_mcycle = (UINT64_C(1000000000) << 20) / cycles_hz();
	lro->due = UINT64_MAX;
	lro->since = 0;
	lro->polls = 0;
	memset(lro->refusals, 0, sizeof(lro->refusals));
	memset(lro->hashes, 0, sizeof(lro->hashes));
	memset(lro->flows, 0, sizeof(lro->flows));
	lro->recent = lro->flows;
}

const struct lro_config *lro_settings(const struct lro *lro)
{
	return &lro->config;
}

const struct lro_stats *lro_stats(const struct lro *lro)
{
	return &lro->stats;
}

/* ---- how long ---- */

/* When what a poll has found arrived, at the earliest. */
static uint64_t arrival(const struct lro *lro)
{
	return unlikely(lro->since) ? lro->since : lro->now;
}

/* Something leaves that began to arrive then. */
static void note_delay(struct lro *lro, uint64_t first)
{
	uint64_t cycles = lro->now - first, ns;

	if (lro->now <= first)
		return;
	if (cycles > UINT64_C(1) << 40) /* minutes */
		cycles = UINT64_C(1) << 40;
	ns = cycles * lro->ns_per_mcycle >> 20;
	lro->stats.delay[lro_delay_bucket(ns)]++;
	if (ns > lro->stats.delay_max)
		lro->stats.delay_max = ns;
}

/* ---- what leaves ---- */

static void out_send(struct lro *lro)
{
	unsigned n = lro->out_count;

	lro->out_count = 0;
	if (n > 0)
		lro->ops->deliver(lro->in, lro->out, n);
}

static void out_add(struct lro *lro, struct pkt *pkt)
{
	if (unlikely(lro->out_count == PKT_BURST))
		out_send(lro);
	lro->out[lro->out_count++] = pkt;
}

/*
 * The paper's baseline: an aggregate in one piece. As it was if there is no memory for that, even
 * when all that was lent before has come back.
 */
static struct pkt *linearise(struct lro *lro, struct pkt *pkt)
{
	struct pkt_pool *pool = &worker_self->pool;
	struct pkt *copy = linear_copy(pool, pkt, false);

	if (!copy) {
		out_send(lro);
		worker_complete(worker_self);
		copy = linear_copy(pool, pkt, false);
	}
	if (!copy)
		return pkt;
	pkt_put(pkt);
	return copy;
}

static void count_out(struct lro *lro, enum lro_reason reason, unsigned segments)
{
	lro->stats.segments += segments;
	lro->stats.packets++;
	lro->stats.aggregates += segments > 1;
	lro->stats.flushed[reason]++;
}

static void held_add(struct lro *lro, struct flow *flow)
{
	flow->older = lro->held_newest;
	flow->newer = NULL;
	if (flow->older)
		flow->older->newer = flow;
	else
		lro->held_oldest = flow;
	lro->held_newest = flow;
}

static void held_remove(struct lro *lro, struct flow *flow)
{
	if (flow->older)
		flow->older->newer = flow->newer;
	else
		lro->held_oldest = flow->newer;
	if (flow->newer)
		flow->newer->older = flow->older;
	else
		lro->held_newest = flow->older;
}

/*
 * A flow's train of so many segments is complete, with a segment of which the sender said so. A
 * short one is a message, unless it is the rest of a longer one.
 */
static void judge_train(struct lro *lro, struct flow *flow, unsigned segments)
{
	if (segments < BULK_SEGMENTS && !(flow && flow->bulk))
		lro_nap_note_urgent(&worker_self->nap, lro->now);
	if (flow)
		flow->bulk = segments >= BULK_SEGMENTS;
}

static void flush(struct lro *lro, struct flow *flow, enum lro_reason reason)
{
	unsigned segments = flow->aggregate.segments;
	struct pkt *pkt = lro_aggregate_finish(&flow->aggregate);

	if (reason == LRO_REASON_last)
		judge_train(lro, flow, segments);
	else
		flow->bulk |= segments >= BULK_SEGMENTS;

	held_remove(lro, flow);
	lro->held -= segments;
	flow->open = reason == LRO_REASON_timing && !lro->since; /* a nap is no wait */
	count_out(lro, reason, segments);
	note_delay(lro, flow->first);
	if (unlikely(lro->config.linear) && segments > 1)
		pkt = linearise(lro, pkt);
	out_add(lro, pkt);
}

static void flush_all(struct lro *lro, enum lro_reason reason)
{
	while (lro->held_oldest)
		flush(lro, lro->held_oldest, reason);
}

/* ---- auto ---- */

/* The first segment in this poll of a flow that is open: tell the law what became of the others. */
static void learn(struct lro *lro, struct flow *flow)
{
	enum lro_law_outcome outcome = LRO_LAW_NOT_WAITED;

	if (flow->aggregate.pkt)
		outcome = LRO_LAW_CAUGHT;
	else if (flow->due > flow->latest)
		outcome = LRO_LAW_IN_VAIN;
	lro_law_learn(&flow->law, &lro->law, outcome, lro->now - flow->latest);
}

/* When what is held of the flow leaves, if nothing more arrives. */
static void set_due(struct lro *lro, struct flow *flow)
{
	uint64_t wait = lro_law_wait(&flow->law, &lro->law);
	uint64_t latest = flow->first + lro->law.hold_max;

	flow->due = lro->now + wait < latest ? lro->now + wait : latest;
	if (flow->due < lro->due)
		lro->due = flow->due;
}

/* ---- flows ---- */

static unsigned set_of(uint32_t hash)
{
	return hash % SETS * WAYS;
}

static struct flow *flow_find(struct lro *lro, struct pkt *pkt)
{
	struct flow *flow = lro->recent;
	uint32_t hash;

	if (likely(lro_same_flow(&flow->aggregate, pkt)))
		return flow;
	hash = headers_flow_hash(pkt);
	for (unsigned at = set_of(hash), end = at + WAYS; at < end; at++) {
		flow = &lro->flows[at];
		if (lro->hashes[at] == hash && likely(lro_same_flow(&flow->aggregate, pkt))) {
			lro->recent = flow;
			return flow;
		}
	}
	return NULL;
}

/* Which of two flows is to give way? One heard of longer ago, and first one that holds nothing. */
static bool gives_way(const struct flow *flow, const struct flow *other)
{
	bool held = flow->aggregate.pkt, other_held = other->aggregate.pkt;

	return held != other_held ? other_held : flow->latest < other->latest;
}

/* A place for a packet's flow, which has none. */
static struct flow *flow_new(struct lro *lro, struct pkt *pkt)
{
	uint32_t hash = headers_flow_hash(pkt);
	unsigned set = set_of(hash);
	struct flow *flow = &lro->flows[set];

	for (unsigned at = set; at < set + WAYS; at++) {
		if (gives_way(&lro->flows[at], flow))
			flow = &lro->flows[at];
	}
	if (flow->aggregate.pkt)
		flush(lro, flow, LRO_REASON_evicted);
	lro->hashes[flow - lro->flows] = hash;
	flow->open = flow->bulk = false;
	lro_law_start(&flow->law, &lro->law, pkt->l4_proto == IPPROTO_TCP);
	return flow;
}

/* ---- what arrives ---- */

/* Might the packet belong to a flow that it does not show? */
static bool hides_its_flow(const struct pkt *pkt)
{
	uint16_t ethertype = load_be16(pkt->header + pkt->l3_off - 2);

	return pkt->l4_proto == IPPROTO_TCP || pkt->l4_proto == IPPROTO_UDP ||
	       (pkt->l4_proto == 0 && (ethertype == ETHERTYPE_IP || ethertype == ETHERTYPE_IPV6));
}

/* A packet that is not to be merged: after what is held of its flow. */
static void pass(struct lro *lro, struct pkt *pkt)
{
	if (lro_is_urgent(pkt))
		lro_nap_note_urgent(&worker_self->nap, lro->now);
	if (likely(!lro->held_oldest)) {
		out_add(lro, pkt);
		return;
	}
	if (pkt->payload_off) {
		struct flow *flow = flow_find(lro, pkt);

		if (flow && flow->aggregate.pkt)
			flush(lro, flow, LRO_REASON_unmergeable);
	} else if (hides_its_flow(pkt)) {
		for (struct flow *flow = lro->held_oldest, *newer; flow; flow = newer) {
			newer = flow->newer;
			if (lro_same_addresses(&flow->aggregate, pkt))
				flush(lro, flow, LRO_REASON_unmergeable);
		}
	}
	out_add(lro, pkt);
}

/* Would everybody to whom the segment goes take an aggregate that begins with it? */
static bool wanted(struct lro *lro, struct pkt *pkt, const struct lro_segment *segment)
{
	uint64_t needs = lro_segment_needs(pkt, segment), key;

	memcpy(&key, pkt->header, sizeof(key)); /* little endian: the destination is the low part */
	key = key << 16 | needs;

	struct refusal *refusal = &lro->refusals[key * UINT64_C(0x9e3779b97f4a7c15) >> 60];

	if (refusal->key == key && refusal->left > 0) {
		refusal->left--;
		return false;
	}
	if (likely((lro->ops->takes(lro->in, pkt) & needs) == needs))
		return true;
	*refusal = (struct refusal){ key, REFUSAL_SEGMENTS };
	return false;
}

static_assert(REFUSALS == 1 << (64 - 60), "wanted() takes the top bits");

/* A segment has been held: let go of what that completes, or makes too many. */
static void settle(struct lro *lro, struct flow *flow)
{
	enum lro_reason reason;

	lro->held++;
	lro_nap_note_segment(&worker_self->nap);
	if (lro_aggregate_at_end(&flow->aggregate, &reason))
		flush(lro, flow, reason);
	while (unlikely(lro->held > LRO_HELD_MAX))
		flush(lro, lro->held_oldest, LRO_REASON_evicted);
}

/* A segment that begins an aggregate, or goes on by itself. Nothing is held of its flow, if any. */
static void begin(struct lro *lro, struct flow *flow, struct pkt *pkt, struct lro_segment *segment)
{
	if (lro_segment_is_last(segment)) {
		if (flow)
			flow->open = false;
		judge_train(lro, flow, 1);
		count_out(lro, LRO_REASON_last, 1);
		note_delay(lro, arrival(lro));
		out_add(lro, pkt);
		return;
	}
	if (!wanted(lro, pkt, segment) || unlikely(!lro_segment_check(pkt, segment))) {
		lro_nap_note_urgent(&worker_self->nap, lro->now);
		out_add(lro, pkt);
		return;
	}
	if (!flow)
		flow = flow_new(lro, pkt);
	lro_aggregate_begin(&flow->aggregate, pkt, segment);
	held_add(lro, flow);
	flow->first = arrival(lro);
	flow->latest = lro->now;
	flow->open = true;
	set_due(lro, flow);
	settle(lro, flow);
}

static void take(struct lro *lro, struct pkt *pkt)
{
	struct lro_segment segment;
	enum lro_reason reason;
	struct flow *flow;
	bool first; /* of the flow's, in this poll */

	headers_parse(pkt);
	if (!lro_segment_read(pkt, &segment)) {
		pass(lro, pkt);
		return;
	}
	flow = flow_find(lro, pkt);
	if (!flow) {
		begin(lro, NULL, pkt, &segment);
		return;
	}
	first = flow->latest != lro->now;
	if (first && flow->open)
		learn(lro, flow);
	flow->latest = lro->now;
	if (!flow->aggregate.pkt) {
		begin(lro, flow, pkt, &segment);
	} else if (likely(lro_aggregate_add(&flow->aggregate, pkt, &segment, &reason))) {
		if (first)
			set_due(lro, flow);
		settle(lro, flow);
	} else {
		flush(lro, flow, reason);
		begin(lro, flow, pkt, &segment);
	}
}

/* ---- the clock ---- */

/* Aggregates whose first segment arrived this long ago or longer. */
static void flush_older(struct lro *lro, uint64_t cycles)
{
	while (lro->held_oldest && lro->now - lro->held_oldest->first >= cycles)
		flush(lro, lro->held_oldest, LRO_REASON_timing);
}

static void flush_due(struct lro *lro)
{
	if (likely(lro->now < lro->due))
		return;
	lro->due = UINT64_MAX;
	for (struct flow *flow = lro->held_oldest, *newer; flow; flow = newer) {
		newer = flow->newer;
		if (flow->due <= lro->now)
			flush(lro, flow, LRO_REASON_timing);
		else if (flow->due < lro->due)
			lro->due = flow->due;
	}
}

/* At the end of a poll. */
static void let_go(struct lro *lro)
{
	switch (lro->config.mode) {
	case LRO_OFF:
	case LRO_POLL:
		flush_all(lro, LRO_REASON_timing);
		break;
	case LRO_EVERY:
		flush_older(lro, lro->hold_max);
		if (++lro->polls < lro->config.value)
			break;
		lro->polls = 0;
		flush_all(lro, LRO_REASON_timing);
		break;
	case LRO_USEC:
		flush_older(lro, lro->value_cycles);
		break;
	case LRO_AUTO:
		if (lro->since)
			flush_all(lro, LRO_REASON_timing);
		else
			flush_due(lro);
		break;
	}
}

/* After a nap: behind a full burst there is more that came in meanwhile. */
static bool draining(struct lro *lro, unsigned n)
{
	return unlikely(lro->since) && n == PKT_BURST && ++lro->drained < DRAIN_POLLS;
}

void lro_poll(struct lro *lro, struct pkt **pkts, unsigned n, uint64_t now)
{
	const struct pkt_pool *pool = &worker_self->pool;

	if (lro->config.mode == LRO_OFF) {
		if (n > 0)
			lro->ops->deliver(lro->in, pkts, n);
		return;
	}
	lro->now = now;
	for (unsigned i = 0; i < n; i++)
		take(lro, pkts[i]);
	if (!draining(lro, n)) {
		let_go(lro);
		lro->since = 0;
	}
	if (unlikely(pool->free_count < pool->capacity / POOL_RESERVE))
		flush_all(lro, LRO_REASON_evicted);
	out_send(lro);
}

void lro_flush(struct lro *lro, uint64_t now)
{
	lro->now = now;
	flush_all(lro, LRO_REASON_settled);
	out_send(lro);
}

uint64_t lro_due(const struct lro *lro)
{
	uint64_t due = UINT64_MAX;

	if (!lro->held_oldest)
		return UINT64_MAX;
	if (lro->config.mode == LRO_USEC)
		return lro->held_oldest->first + lro->value_cycles;
	if (lro->config.mode != LRO_AUTO)
		return 0;
	for (const struct flow *flow = lro->held_oldest; flow; flow = flow->newer) {
		if (flow->due < due)
			due = flow->due;
	}
	return due;
}

/* ---- naps ---- */

uint64_t lro_patience(const struct lro *lro)
{
	switch (lro->config.mode) {
	case LRO_USEC:
		return lro->value_cycles;
	case LRO_AUTO:
		return lro->law.hold_max;
	default:
		return 0;
	}
}

uint64_t lro_nap(struct lro *lro, uint64_t now)
{
	if (lro->config.mode == LRO_AUTO)
		lro_flush(lro, now);
	lro->since = now;
	lro->drained = 0;
	return lro_due(lro);
}
