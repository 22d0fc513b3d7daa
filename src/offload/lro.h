/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Large receive offload (A1-A4, A15, M38): TCP segments that arrive one by one go on as one large
 * packet. The theory of operation is at the top of lro.c.
 */
#ifndef VIFD_LRO_H
#define VIFD_LRO_H

#include "offload/lro_delay.h"
#include "pkt/pkt.h"

struct port;

enum {
	LRO_FLOWS = 256,        /* flows that a queue remembers */
	LRO_SEGMENTS_MAX = 128, /* segments of one aggregate */
	LRO_HELD_MAX = 1024,    /* segments that a queue holds: half of a worker's packets */
	LRO_EVERY_MAX = 1000,   /* polls */
	LRO_USEC_MAX = 10000,
	LRO_HOLD_MAX_USEC = 1000, /* longest that poll-counting and automatic modes hold a packet */
};

/* When held packets leave (A4, A12, A15), unless something about the flow makes them leave before. */
enum lro_mode {
	LRO_OFF,
	LRO_POLL,  /* at the end of each poll */
	LRO_EVERY, /* at the end of every value-th poll: DA is every:2 */
	LRO_USEC,  /* value us after the first segment of the aggregate arrived */
	LRO_AUTO,  /* as long as the next one is to be expected: the law is in lro_law.c */
};

struct lro_config {
	enum lro_mode mode;
	unsigned value; /* of every (1..LRO_EVERY_MAX) and usec (1..LRO_USEC_MAX); else 0 */
	bool linear; /* bo=off: copy aggregates into one piece before the bridge (A3's baseline) */
};

/* Why an aggregate went on. LRO_REASONS(X) lists X(name, what it means). */
#define LRO_REASONS(X)                                                                             \
	X(full, "the aggregate was as long as a packet can be")                                    \
	X(last, "the segment was the last of a train: PSH or FIN, or shorter than the others")     \
	X(differs, "the next segment of the flow differed in a header field")                      \
	X(sequence, "the next segment of the flow was not the one expected")                       \
	X(unmergeable, "the next packet of the flow was none to be merged")                        \
	X(timing, "its time was over: the poll's end, or the wait")                                \
	X(evicted, "another flow needed the place, or too many packets were held")                 \
	X(memory, "no packet or fragment list was left to add to it")                              \
	X(settled, "the worker went to rest, or the setting was changed")

enum lro_reason {
#define X(name, text) LRO_REASON_##name,
	LRO_REASONS(X)
#undef X
		LRO_REASON_COUNT
};

/* One writer, the queue's worker. */
struct lro_stats {
	uint64_t segments;                  /* packets that could have been merged: taken in */
	uint64_t packets;                   /* and what became of them: packets sent on */
	uint64_t aggregates;                /* of those, made of several segments */
	uint64_t flushed[LRO_REASON_COUNT]; /* why each of `packets` went on */
	/* of each that was held beyond the call it came with, or came in during a nap */
	uint64_t delay[LRO_DELAY_BUCKETS];
	uint64_t delay_max; /* ns */
};

/*
 * What the queue's worker lends:
 * takes:   the enum port_caps that everybody has to whom this packet, parsed, would go: an
 *          aggregate is begun only for those who would take it whole; asked once for each.
 * deliver: send on n (1..PKT_BURST) packets, and own them.
 */
struct lro_ops {
	uint32_t (*takes)(struct port *in, struct pkt *pkt);
	void (*deliver)(struct port *in, struct pkt **pkts, unsigned n);
};

/* One receive queue's. It holds packets, which are the pool's of the worker that polls it. */
struct lro;

/* Off until lro_configure(). NULL: out of memory. */
struct lro *lro_new(struct port *in, const struct lro_ops *ops);
/* It holds nothing (lro_flush()). NULL is allowed. */
void lro_free(struct lro *lro);
/* From the main thread, while workers are paused and it holds nothing. */
void lro_configure(struct lro *lro, const struct lro_config *config);
const struct lro_config *lro_settings(const struct lro *lro);
const struct lro_stats *lro_stats(const struct lro *lro);

/*
 * A poll of the queue at time now (TSC) found n (0..PKT_BURST) packets: take them, merge, deliver
 * whatever is not to wait. In order within a flow. Call it after each poll, also after an empty one.
 */
void lro_poll(struct lro *lro, struct pkt **pkts, unsigned n, uint64_t now);

/* Deliver all that is held. Afterwards it holds no packet. */
void lro_flush(struct lro *lro, uint64_t now);

/*
 * When the worker has to be back, if it means to sleep: the TSC time at which something that is held
 * is due; UINT64_MAX: nothing is held; 0: something is held that waits for polls, call lro_flush()
 * rather than to sleep.
 */
uint64_t lro_due(const struct lro *lro);

/* How long what comes in may wait to be polled, in cycles; 0: it may not. */
uint64_t lro_patience(const struct lro *lro);

/*
 * The worker, whose queue has patience, rests from now (TSC) on whatever comes in, until the next
 * poll. Returns when it has to be back, or UINT64_MAX; may deliver. Bounds are of the sum: what the
 * next polls find is taken to have come when the nap began.
 */
uint64_t lro_nap(struct lro *lro, uint64_t now);

#endif
