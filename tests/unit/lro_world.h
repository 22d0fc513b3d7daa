/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A world around one lro, for its tests and its fuzz target: frames go in, packets come out, and after
 * each poll everything that is promised is checked:
 *
 *      wire -> world_frame() -> world_poll() -> lro_poll() -> deliver() -> tso.c -> the same frames?
 *
 *      - split again, what came out is what went in, byte for byte, in order within each flow, a
 *        packet whose flow cannot be told behind all between the same addresses;
 *      - nothing is held longer than the mode allows, and lro_due() says how long; what came during
 *        a nap is taken to have come when that began;
 *      - aggregates go only to those who take them, and are GSO packets that anybody accepts;
 *      - every packet is let go of once, and the counters add up.
 *
 * Every fragment is an allocation of its own, freed when its source is told, so that a sanitizer
 * sees what is used for too long.
 */
#ifndef VIFD_TEST_LRO_WORLD_H
#define VIFD_TEST_LRO_WORLD_H

#include <netinet/in.h>
#include <stdio.h>

#include "frames.h"
#include "offload/lro.h"
#include "offload/offload.h"
#include "offload/tso.h"
#include "pkt/headers.h"

#ifndef HOLDS
#define HOLDS(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);  \
			abort();                                                                   \
		}                                                                                  \
	} while (0)
#endif

#ifndef WORLD_FLOWS
#define WORLD_FLOWS (1 << 15) /* that one world can have; a power of two */
#endif

enum {
	WORLD_KEEP_MAX = 64,
	WORLD_PACKETS = 2048,
	WORLD_CAPS = PORT_CAP_SG | PORT_CAP_CSUM | PORT_CAP_TSO4 | PORT_CAP_TSO6 |
		     PORT_CAP_TSO_ECN | PORT_CAP_USO,
};

/* A frame that went in and has not come out. */
struct world_frame {
	struct world_frame *next;          /* of its flow */
	struct world_frame *older, *newer; /* of all */
	uint64_t arrived;
	uint64_t addresses; /* hash; 0: not IP */
	bool hidden;        /* IP, but of which flow cannot be told */
	struct pkt_offload offload;
	uint32_t len;
	uint8_t bytes[];
};

struct world_flow {
	uint64_t key;
	struct world_frame *first, *last;
};

static struct world {
	struct worker *worker, *checker; /* the latter's pool is for splitting */
	struct lro *lro;
	struct lro_config config;
	struct port port;
	uint64_t now, usec; /* cycles */
	uint64_t polls;     /* since the last that let everything go */
	uint64_t since;     /* a nap, of which there may be more to find; 0: none */
	unsigned drained;   /* polls that have found some of it */
	bool napped;
	uint32_t caps; /* of receivers; those whose address ends with an odd byte take nothing */
	uint64_t seed;
	struct pkt *burst[PKT_BURST];
	unsigned count;
	struct world_frame *oldest, *newest;
	struct world_flow flows[WORLD_FLOWS];
	unsigned keep; /* packets that the receiver holds on to */
	struct pkt *kept[WORLD_KEEP_MAX];
	unsigned kept_count;
	/* what happened */
	uint64_t frames, packets, aggregates, merged; /* in, out, of those large, frames in them */
	uint64_t late;    /* came out after the poll they came in with */
	uint64_t longest; /* of those; cycles */
	uint64_t sum_delay;
	uint64_t lent, returned;
} world;

static inline uint64_t world_hash(uint64_t hash, const uint8_t *bytes, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return hash;
}

/* What tells flows apart, found out independently. */
static inline uint64_t world_key(const uint8_t *bytes, uint32_t len, uint64_t *addresses,
				 bool *hidden)
{
	struct found found = slow_parse(bytes, len);
	uint64_t key = world_hash(1, bytes, 12);
	unsigned version = len > found.l3 ? bytes[found.l3] >> 4 : 0;
	unsigned type = rd16(bytes + found.l3 - 2);

	*addresses = 0;
	for (unsigned tag = 12; tag < found.l3 - 2; tag += 4) {
		uint8_t id[2] = { bytes[tag + 2] & 0x0f, bytes[tag + 3] };

		key = world_hash(key, id, 2);
	}
	if (type == 0x0800 && version == 4 && len >= found.l3 + 20)
		*addresses = world_hash(4, bytes + found.l3 + 12, 8);
	if (type == 0x86dd && version == 6 && len >= found.l3 + 40)
		*addresses = world_hash(6, bytes + found.l3 + 8, 32);
	*hidden = *addresses && !found.payload &&
		  (found.proto == 0 || found.proto == 6 || found.proto == 17);
	key = world_hash(key, (uint8_t *)addresses, 8);
	key = world_hash(key, (uint8_t *)&found.proto, sizeof(found.proto));
	if (found.payload)
		key = world_hash(key, bytes + found.l4, 4);
	return key ? key : 1;
}

static inline struct world_flow *world_flow(uint64_t key)
{
	for (uint64_t at = key;; at++) {
		struct world_flow *flow = &world.flows[at % WORLD_FLOWS];

		if (flow->key == key || flow->key == 0) {
			flow->key = key;
			return flow;
		}
	}
}

/* ---- out ---- */

static inline void world_forget(struct world_flow *flow)
{
	struct world_frame *frame = flow->first;

	if (frame->older)
		frame->older->newer = frame->newer;
	else
		world.oldest = frame->newer;
	if (frame->newer)
		frame->newer->older = frame->older;
	else
		world.newest = frame->older;
	flow->first = frame->next;
	free(frame);
}

/* A frame came out: it is the next of its flow. */
static inline void world_expect(const struct pkt *pkt, bool whole)
{
	static uint8_t bytes[FRAME_MAX];
	uint64_t addresses;
	bool hidden;

	pkt_copy_out(pkt, 0, bytes, pkt->len);

	struct world_flow *flow = world_flow(world_key(bytes, pkt->len, &addresses, &hidden));
	const struct world_frame *frame = flow->first;

	HOLDS(frame && frame->len == pkt->len);
	HOLDS(memcmp(frame->bytes, bytes, frame->len) == 0);
	HOLDS(memcmp(frame->bytes, pkt->header, pkt->header_len) == 0);
	for (struct world_frame *f = world.oldest; hidden && f != frame; f = f->newer)
		HOLDS(f->addresses != addresses);
	if (whole && frame->offload.flags == 0 && pkt->offload.flags == PKT_CSUM_VALID)
		HOLDS(pkt->offload.gso_type == PKT_GSO_NONE); /* verified on the way */
	else if (whole || frame->offload.flags == PKT_CSUM_PARTIAL)
		HOLDS(memcmp(&pkt->offload, &frame->offload, sizeof(frame->offload)) == 0);
	else
		HOLDS(pkt_needs_nothing(pkt) && frame->offload.gso_type == PKT_GSO_NONE);
	world_forget(flow);
}

/* Split an aggregate and expect its segments. */
static inline void world_split(struct pkt *pkt, bool finished)
{
	struct pkt *segments[PKT_BURST];
	unsigned n, count = 0;
	struct tso tso;

	worker_self = world.checker;
	HOLDS(tso_begin(&tso, pkt, finished));
	while ((n = tso_next(&tso, &worker_self->pool, segments, PKT_BURST)) > 0) {
		for (unsigned i = 0; i < n; i++) {
			world_expect(segments[i], false);
			pkt_put(segments[i]);
		}
		worker_complete(worker_self);
		count += n;
	}
	HOLDS(tso_at_end(&tso) && count > 1 && count <= LRO_SEGMENTS_MAX);
	HOLDS(worker_self->pool.free_count == worker_self->pool.capacity);
	worker_self = world.worker;
	world.aggregates++;
	world.merged += count;
}

/* An aggregate itself: a GSO packet beyond doubt, for those who take it. */
static inline void world_judge(struct pkt *pkt)
{
	struct pkt_offload offload = pkt->offload;
	static uint8_t bytes[FRAME_MAX];

	HOLDS(headers_check_offload(pkt));
	HOLDS(memcmp(&offload, &pkt->offload, sizeof(offload)) == 0);
	HOLDS(!(offload_needs(pkt) & ~world.caps) && pkt->frag_count <= PKT_FRAGS_MAX);
	HOLDS(!(pkt->header[5] & 1));
	pkt_copy_out(pkt, 0, bytes, pkt->len);

	struct found found = slow_parse(bytes, pkt->len);
	struct frame frame = { bytes,      pkt->len,      found.l3,
			       found.l4,   found.payload, bytes[found.l3] >> 4,
			       found.proto };

	HOLDS(found.payload && found.payload == pkt->payload_off && found.l4 == pkt->l4_off &&
	      found.l3 == pkt->l3_off && (unsigned)found.proto == pkt->l4_proto);
	if (frame.ip == 4)
		HOLDS(slow_sum(bytes + found.l3, 20, 0) == 0xffff);
	if (frame.proto == IPPROTO_TCP) /* CWR */
		HOLDS(!(bytes[found.l4 + 13] & 0x80) == !(offload.flags & PKT_GSO_ECN));
	HOLDS(rd16(bytes + offload.csum_start + offload.csum_offset) ==
	      slow_pseudo(&frame, pkt->len - found.l4));
	/* Linear memory that is kept, or no packet for the copy, leave the chain. */
	if (world.config.linear && !world.keep && world.worker->pool.free_count > PKT_BURST)
		HOLDS(pkt->frag_count == 1);
}

static inline const struct world_frame *world_first_of(const struct pkt *pkt)
{
	static uint8_t bytes[FRAME_MAX];
	uint64_t addresses;
	bool hidden;

	pkt_copy_out(pkt, 0, bytes, pkt->len);
	return world_flow(world_key(bytes, pkt->len, &addresses, &hidden))->first;
}

static inline void world_come_out(struct pkt *pkt)
{
	const struct world_frame *first = world_first_of(pkt);
	uint64_t delay;

	HOLDS(first);
	HOLDS(pkt->refs == 1 && pkt->in_port == world.port.id);
	delay = world.now - first->arrived;
	world.late += delay > 0;
	world.sum_delay += delay;
	if (delay > world.longest)
		world.longest = delay;
	if (pkt->offload.gso_type == PKT_GSO_NONE || first->offload.gso_type != PKT_GSO_NONE) {
		world_expect(pkt, true);
	} else {
		bool finished = first->offload.flags != PKT_CSUM_PARTIAL;

		world_judge(pkt);
		world_split(pkt, finished);
	}
	world.packets++;
}

static inline void world_deliver(struct port *in, struct pkt **pkts, unsigned n)
{
	HOLDS(in == &world.port && n > 0 && n <= PKT_BURST);
	for (unsigned i = 0; i < n; i++) {
		world_come_out(pkts[i]);
		if (world.kept_count < world.keep)
			world.kept[world.kept_count++] = pkts[i];
		else
			pkt_put(pkts[i]);
	}
}

static inline uint32_t world_takes(struct port *in, struct pkt *pkt)
{
	HOLDS(in == &world.port && pkt->payload_off);
	return pkt->header[5] & 1 ? 0 : world.caps;
}

/* ---- in ---- */

static inline void world_source_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		void **bases = (void **)(uintptr_t)pkts[i]->cookie;

		for (unsigned j = 0; bases[j]; j++)
			free(bases[j]);
		free(bases);
	}
	world.returned += n;
}

static struct pkt_source world_source = { .done = world_source_done };

/* header_len bytes in the header copy, the rest in fragments of frag_len or, 0, of any length. */
static inline void world_fill(struct pkt *pkt, const uint8_t *bytes, uint32_t len,
			      uint32_t header_len, uint32_t frag_len)
{
	void **bases = calloc(PKT_INLINE_FRAGS + 1, sizeof(*bases));

	pkt->len = len;
	pkt->header_len = header_len < len ? header_len : len;
	memset(pkt->header, 0xa5, sizeof(pkt->header));
	memcpy(pkt->header, bytes, pkt->header_len);
	for (uint32_t off = pkt->header_len; off < len;) {
		uint32_t part = frag_len ? frag_len : rnd_in(&world.seed, 1, len);

		if (part > len - off || pkt->frag_count == PKT_INLINE_FRAGS - 1)
			part = len - off;
		bases[pkt->frag_count] = malloc(part);
		memcpy(bases[pkt->frag_count], bytes + off, part);
		pkt->frags[pkt->frag_count] = (struct iovec){ bases[pkt->frag_count], part };
		pkt->frag_count++;
		off += part;
	}
	pkt->cookie = (uintptr_t)bases;
	pkt->source = &world_source;
	world.lent++;
}

/* A frame for the next poll. False: no packet was left, it is lost. */
static inline bool world_frame(const uint8_t *bytes, uint32_t len, struct pkt_offload offload,
			       uint32_t header_len, uint32_t frag_len)
{
	struct world_frame *frame;
	struct world_flow *flow;
	struct pkt *pkt;

	HOLDS(world.count < PKT_BURST);
	if (!pkt_pool_get(&world.worker->pool, &pkt, 1))
		return false;
	world_fill(pkt, bytes, len, header_len, frag_len);
	pkt->in_port = world.port.id;
	pkt->offload = offload;
	world.burst[world.count++] = pkt;
	world.frames++;

	frame = malloc(sizeof(*frame) + len);
	*frame = (struct world_frame){ .older = world.newest, .len = len, .offload = offload };
	memcpy(frame->bytes, bytes, len);
	flow = world_flow(world_key(bytes, len, &frame->addresses, &frame->hidden));
	if (flow->first)
		flow->last->next = frame;
	else
		flow->first = frame;
	flow->last = frame;
	if (world.newest)
		world.newest->newer = frame;
	else
		world.oldest = frame;
	world.newest = frame;
	return true;
}

/* ---- polls ---- */

/* Longest that a frame is held: it is gone in the first poll this long after it arrived, or later. */
static inline uint64_t world_bound(void)
{
	switch (world.config.mode) {
	case LRO_EVERY:
		return LRO_HOLD_MAX_USEC * world.usec;
	case LRO_USEC:
		return world.config.value * world.usec;
	case LRO_AUTO:
		return 200 * world.usec;
	default:
		return 0;
	}
}

static inline void world_check_held(void)
{
	uint64_t due = lro_due(world.lro);

	if (!world.since)
		HOLDS(!world.oldest || world.now - world.oldest->arrived < world_bound());
	if (!world.oldest)
		HOLDS(due == UINT64_MAX);
	else if (world.config.mode == LRO_EVERY)
		HOLDS(due == 0);
	else
		HOLDS((due > world.now || world.since) &&
		      due - world.oldest->arrived <= world_bound());
	if (world.config.mode == LRO_USEC && world.oldest)
		HOLDS(due == world.oldest->arrived + world_bound());
	if (world.config.mode == LRO_AUTO && world.oldest)
		HOLDS(due <= world.now + 50 * world.usec);
}

static inline void world_check_stats(void)
{
	const struct lro_stats *stats = lro_stats(world.lro);
	uint64_t flushed = 0, delayed = 0;

	for (unsigned i = 0; i < LRO_REASON_COUNT; i++)
		flushed += stats->flushed[i];
	for (unsigned i = 0; i < LRO_DELAY_BUCKETS; i++)
		delayed += stats->delay[i];
	HOLDS(flushed == stats->packets && stats->aggregates == world.aggregates);
	/* What was none to be merged leaves at once, but may have come during a nap. */
	HOLDS(world.napped ? delayed <= world.late : delayed == world.late);
	/* What was no candidate counts nowhere. */
	if (!world.oldest)
		HOLDS(stats->segments - stats->packets == world.frames - world.packets);
}

static inline void world_complete(void)
{
	/* The receiver is done with some of what it kept. */
	while (world.kept_count > 0 &&
	       (world.kept_count == WORLD_KEEP_MAX || rnd(&world.seed) % 2)) {
		unsigned i = rnd(&world.seed) % world.kept_count;

		pkt_put(world.kept[i]);
		world.kept[i] = world.kept[--world.kept_count];
	}
	worker_complete(world.worker);
}

/* After this many cycles, with the frames that have come by now. */
static inline void world_poll(uint64_t later)
{
	struct world_frame *frame = world.newest;
	unsigned n = world.count;

	world.now += later;
	for (unsigned i = 0; i < n; i++, frame = frame->older)
		frame->arrived = world.since ? world.since : world.now;
	world.count = 0;
	world.polls++;
	lro_poll(world.lro, world.burst, n, world.now);
	if (world.since && !(n == PKT_BURST && ++world.drained < 16)) {
		world.since = 0;
		HOLDS(world.config.mode != LRO_AUTO || !world.oldest);
	}
	if (world.config.mode == LRO_EVERY && world.polls == world.config.value) {
		world.polls = 0;
		HOLDS(!world.oldest);
	}
	world_check_held();
	world_check_stats();
	world_complete();
}

/* The worker goes to sleep as long as it may: something leaves when it is due, nothing before. */
static inline void world_sleep(void)
{
	uint64_t due, before;

	while (world.count || world.since)
		world_poll(0);
	due = lro_due(world.lro);
	before = world.packets;
	if (due == 0) {
		lro_flush(world.lro, world.now);
		HOLDS(!world.oldest);
		world_check_stats();
		world_complete();
	} else if (due != UINT64_MAX) {
		world_poll(due - world.now - 1);
		HOLDS(world.packets == before);
		world_poll(1);
		HOLDS(world.packets > before);
	}
}

/* The worker naps for this long, or as long as it may. What comes next came meanwhile. */
static inline void world_nap(uint64_t length)
{
	uint64_t patience = lro_patience(world.lro), due;

	HOLDS(!patience == (world.config.mode != LRO_USEC && world.config.mode != LRO_AUTO));
	HOLDS(patience <= world_bound());
	while (world.count || world.since)
		world_poll(0);
	if (!patience)
		return;
	due = lro_nap(world.lro, world.now);
	world_check_held();
	world_check_stats();
	world_complete();
	HOLDS(due == lro_due(world.lro));
	world.since = world.now;
	world.drained = 0;
	world.napped = true;
	if (length > patience)
		length = patience;
	if (length > due - world.now)
		length = due - world.now;
	world.now += length;
}

static inline void world_open(struct lro_config config, unsigned packets, uint32_t caps)
{
	static const struct lro_ops ops = { .takes = world_takes, .deliver = world_deliver };
	uint64_t seed = world.seed;
	struct worker *worker = world.worker, *checker = world.checker;

	/* Workers are made once, as far as they have the right size. */
	if (!checker)
		checker = fake_worker(PKT_BURST);
	if (worker && worker->pool.capacity != packets) {
		fake_worker_free(worker);
		worker = NULL;
	}
	if (!worker)
		worker = fake_worker(packets);
	memset(&world, 0, sizeof(world));
	world.seed = seed ? seed : 1;
	world.checker = checker;
	worker_self = world.worker = worker;
	world.port.id = 5;
	world.port.uplink = true;
	world.config = config;
	world.caps = caps;
	world.usec = cycles_hz() / 1000000;
	world.now = 1000 * world.usec;
	world.lro = lro_new(&world.port, &ops);
	HOLDS(world.lro);
	lro_configure(world.lro, &config);
}

static inline void world_close(void)
{
	if (world.count)
		world_poll(0);
	lro_flush(world.lro, world.now);
	HOLDS(!world.oldest && lro_due(world.lro) == UINT64_MAX);
	world_check_stats();
	world.keep = 0;
	for (unsigned i = 0; i < world.kept_count; i++)
		pkt_put(world.kept[i]);
	worker_complete(world.worker);
	HOLDS(world.lent == world.returned);
	HOLDS(world.worker->pool.free_count == world.worker->pool.capacity);
	HOLDS(world.worker->pool.block_count == world.worker->pool.block_capacity);
	lro_free(world.lro);
}

/* After the last world. */
static inline void world_free(void)
{
	fake_worker_free(world.checker);
	fake_worker_free(world.worker);
}

#endif
