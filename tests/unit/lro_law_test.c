/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lro=auto under simulated traffic: what the law is there for, and its bounds. Time is made here:
 *
 *      senders (open or closed loop) -> wire -> a poll every microsecond -> lro -> receiver
 *                     ^------------------------------- acknowledgement, after a round trip
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "lro_streams.h"
#include "offload/lro_law.h"

static uint8_t bytes[FRAME_MAX];
static uint64_t seed = 1;

static const struct lro_config auto_mode = { .mode = LRO_AUTO };
static const struct lro_config poll_mode = { .mode = LRO_POLL };
static const struct frame_desc tcp4 = { 0, 4, 0, IPPROTO_TCP, 12, 0, 0 };
static const struct frame_desc udp4 = { 0, 4, 0, IPPROTO_UDP, 0, 0, 0 };

/* What a sender does, in microseconds. */
struct sender {
	unsigned train;     /* segments sent one after the other, 1 us apart */
	unsigned spacing;   /* 0: 1 us; else the time between two segments of a train */
	unsigned pause_min; /* between trains, if it does not wait for acknowledgements */
	unsigned pause_max;
	unsigned round_trip; /* from the delivery of a train's last segment to the next's first */
	bool push;           /* at the end of a train */
	unsigned growth;     /* slow start: a train is this much of the one before, in percent */
};

struct flow {
	struct stream stream;
	const struct sender *sender;
	unsigned left, train; /* of the present train */
	uint64_t next;        /* microsecond of the next segment */
	uint64_t sent;
	bool waits;
};

enum { FLOWS_MAX = 16 };

static struct flow flows[FLOWS_MAX];

/* Does any frame of the flow wait to be delivered? */
static bool in_flight(const struct flow *flow)
{
	for (const struct world_frame *frame = world.oldest; frame; frame = frame->newer) {
		if (memcmp(frame->bytes + 26, flow->stream.headers + 26, 12) == 0)
			return true;
	}
	return false;
}

static void flow_send(struct flow *flow)
{
	enum deviation what = DEVIATE_PLAIN;
	struct draft draft;

	flow->left--;
	if (flow->left == 0 && flow->sender->push)
		what = DEVIATE_PUSHED;
	stream_next(&flow->stream, &draft, bytes, what, &seed);
	assert_true(world_frame(bytes, draft.frame.len, draft.offload, 66, 65536));
	flow->sent++;
}

/* One microsecond of one sender. */
static void flow_step(struct flow *flow, uint64_t now)
{
	const struct sender *sender = flow->sender;

	if (flow->waits) {
		if (in_flight(flow))
			return;
		flow->waits = false;
		flow->next = now + sender->round_trip;
	}
	if (now < flow->next || world.count == PKT_BURST)
		return;
	flow_send(flow);
	flow->next = now + (sender->spacing ? sender->spacing : 1);
	if (flow->left > 0)
		return;
	if (sender->growth)
		flow->train = flow->train * sender->growth / 100;
	flow->left = flow->train;
	if (sender->round_trip)
		flow->waits = true;
	else
		flow->next = now + rnd_in(&seed, sender->pause_min, sender->pause_max);
}

struct result {
	double rate;    /* frames for each packet */
	double longest; /* us that a packet's first frame was held */
	uint64_t frames;
	uint64_t late;  /* packets that were held beyond a poll */
	uint64_t delay; /* us, of all packets together */
};

/* For so long count senders of a kind are watched; then what is held is delivered. */
static struct result run_proto(struct lro_config config, const struct frame_desc *desc,
			       const struct sender *sender, unsigned count, uint64_t usecs)
{
	struct result result;

	world_open(config, WORLD_PACKETS, WORLD_CAPS);
	for (unsigned i = 0; i < count; i++) {
		flows[i] = (struct flow){ .sender = sender,
					  .left = sender->train,
					  .train = sender->train,
					  .next = i * 3 };
		stream_init(&flows[i].stream, desc, 100, IDS_COUNT, PKT_CSUM_VALID, &seed);
	}
	for (uint64_t now = 0; now < usecs; now++) {
		for (unsigned i = 0; i < count; i++)
			flow_step(&flows[i], now);
		world_poll(world.usec);
	}
	result = (struct result){
		.rate = (double)world.frames / world.packets,
		.longest = (double)world.longest / world.usec,
		.frames = world.frames,
		.late = world.late,
		.delay = world.sum_delay / world.usec,
	};
	world_close();
	return result;
}

static struct result run(struct lro_config config, const struct sender *sender, unsigned count,
			 uint64_t usecs)
{
	return run_proto(config, &tcp4, sender, count, usecs);
}

enum { LONG_RUN = 50000 };

/* Trains as TSO sends them: complete, or held a few microseconds longer than they are. */
static void trains(void **state)
{
	static const struct sender full = { .train = 128, .pause_min = 50, .pause_max = 300 };
	static const struct sender parts = { .train = 17, .pause_min = 50, .pause_max = 300 };
	static const struct sender writes = { .train = 90, .pause_max = 20, .push = true };
	struct result result = run(auto_mode, &full, 1, LONG_RUN);

	assert_true(result.rate > 120 && result.longest <= 128 + 1);
	result = run(auto_mode, &parts, 1, LONG_RUN);
	assert_true(result.rate > 16 && result.longest <= 17 + 10);
	result = run(auto_mode, &writes, 1, LONG_RUN);
	assert_true(result.rate > 85 && result.longest <= 90);
}

static void interleaved(void **state)
{
	static const struct sender parts = { .train = 45, .pause_min = 50, .pause_max = 300 };
	static const struct sender steady = { .train = 1000, .spacing = 12 };
	struct result result = run(auto_mode, &parts, 10, LONG_RUN);

	assert_true(result.rate > 40 && result.longest <= 45 + 10);
	result = run(auto_mode, &steady, 10, LONG_RUN);
	assert_true(result.rate > 15 && result.longest <= 200);
}

/* Segments at even distances are gathered for 200 us, as long as they come within 50 us. */
static void steady(void **state)
{
	static const struct {
		unsigned spacing;
		double rate, longest;
	} cases[] = { { 1, 100, 128 }, { 5, 37, 200 },  { 12, 16, 200 }, { 30, 6, 200 },
		      { 45, 4, 200 },  { 60, 0.9, 10 }, { 100, 0.9, 10 } };

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sender sender = { .train = 1000, .spacing = cases[i].spacing };
		struct result result = run(auto_mode, &sender, 1, 2 * LONG_RUN);

		assert_true(result.rate > cases[i].rate && result.longest <= cases[i].longest);
		/* Two at the start. */
		if (cases[i].spacing > 50)
			assert_in_range(result.late, 1, 2);
	}
}

/* What ends with PSH never waits: the first segment of a message only for its last. */
static void requests(void **state)
{
	static const struct sender request = { .train = 1, .round_trip = 30, .push = true };
	static const struct sender message = { .train = 5, .round_trip = 30, .push = true };
	struct result result = run(auto_mode, &request, 1, LONG_RUN);

	assert_int_equal(result.late, 0);
	assert_int_equal(result.frames, run(poll_mode, &request, 1, LONG_RUN).frames);
	result = run(auto_mode, &message, 1, LONG_RUN);
	assert_true(result.rate == 5 && result.longest <= 4);
	assert_int_equal(result.frames, run(poll_mode, &message, 1, LONG_RUN).frames);
}

/* UDP has no PSH: it waits once it is known to come in trains, and stops when that was wrong. */
static void datagrams(void **state)
{
	static const struct sender few = { .train = 8, .pause_min = LONG_RUN };
	static const struct sender requests = { .train = 1, .round_trip = 30 };
	static const struct sender trains = { .train = 20, .pause_min = 50, .pause_max = 300 };
	struct result result = run_proto(auto_mode, &udp4, &few, 1, LONG_RUN);

	assert_int_equal(result.late, 0);
	result = run_proto(auto_mode, &udp4, &requests, 1, LONG_RUN);
	assert_true(result.late < result.frames / 100);
	result = run_proto(auto_mode, &udp4, &trains, 1, LONG_RUN);
	assert_true(result.rate > 15 && result.longest <= 20 + 10);
}

/* How much a sender sends, against what it sends if nothing is held. */
static double speed(const struct sender *sender, uint64_t usecs)
{
	return (double)run(auto_mode, sender, 1, usecs).frames /
	       run(poll_mode, sender, 1, usecs).frames;
}

/* Whoever stops for the acknowledgement of every segment, without PSH, is soon left alone. */
static void stop_and_wait(void **state)
{
	for (unsigned round_trip = 5; round_trip <= 100; round_trip += 5) {
		struct sender sender = { .train = 1, .round_trip = round_trip };

		assert_true(speed(&sender, LONG_RUN) > 0.98);
	}
}

/* A window of several segments, without PSH, is slower by a few of the gaps between them. */
static void windows(void **state)
{
	for (unsigned train = 5; train <= 40; train += 5) {
		for (unsigned round_trip = 20; round_trip <= 200; round_trip += 20) {
			struct sender sender = { .train = train, .round_trip = round_trip };
			double time = train + round_trip;

			assert_true(speed(&sender, LONG_RUN) > time / (time + 8) - 0.01);
		}
	}
}

/* Slow start: 10 segments, 20, 40 ..; after 9 round trips of 100 us. */
static void slow_start(void **state)
{
	struct sender sender = { .train = 10, .round_trip = 100, .growth = 200 };

	assert_true(speed(&sender, 900) > 0.9);
}

/* What never waits does not end a rest either. */
static void requests_teach_nothing(void **state)
{
	struct stream stream;
	struct draft draft;

	stream_init(&stream, &tcp4, 100, IDS_COUNT, PKT_CSUM_VALID, &seed);
	world_open(auto_mode, WORLD_PACKETS, WORLD_CAPS);
	for (unsigned i = 0; i < 40; i++) {
		enum deviation what = i < 3 || i == 39 ? DEVIATE_PLAIN : DEVIATE_PUSHED;

		stream_next(&stream, &draft, bytes, what, &seed);
		world_frame(bytes, draft.frame.len, draft.offload, 66, 65536);
		world_poll(0);
		/* Two waits in vain; then it rests. */
		assert_int_equal(world.packets, i < 2 ? i : i + 1);
		world_poll(30 * world.usec);
		assert_int_equal(world.packets, i + 1);
	}
	world_close();
}

/* ---- the law by itself; a cycle is 1/10 us ---- */

enum { USEC = 10 };

static struct lro_law_times times;

static unsigned learn(struct lro_law *law, enum lro_law_outcome outcome, unsigned gap)
{
	lro_law_learn(law, &times, outcome, gap * USEC);
	return lro_law_wait(law, &times);
}

static void wait_follows_gap(void **state)
{
	struct lro_law law;

	lro_law_times(&times, USEC);
	for (unsigned gap = 0; gap <= 50; gap += 5) {
		unsigned wait = 4 * gap + 2 < 50 ? 4 * gap + 2 : 50;

		lro_law_start(&law, &times, true);
		assert_int_equal(lro_law_wait(&law, &times), 10 * USEC);
		for (unsigned i = 0; i < 40; i++)
			learn(&law, LRO_LAW_CAUGHT, gap);
		assert_in_range(lro_law_wait(&law, &times), (wait > 12 ? wait - 2 : 2) * USEC,
				(wait + 2) * USEC);
	}
}

/* The best flow there is takes six waits in vain to lose its reputation. */
static void odds(void **state)
{
	struct lro_law law;
	unsigned vain = 0;

	lro_law_times(&times, USEC);
	lro_law_start(&law, &times, true);
	for (unsigned i = 0; i < 1000; i++)
		learn(&law, LRO_LAW_CAUGHT, 1);
	do
		vain++;
	while (learn(&law, LRO_LAW_IN_VAIN, 100));
	assert_int_equal(vain, 6);
	/* Half of the waits in vain are too many; a third is not. */
	lro_law_start(&law, &times, true);
	for (unsigned i = 0; i < 1000; i++) {
		learn(&law, LRO_LAW_CAUGHT, 1);
		learn(&law, LRO_LAW_CAUGHT, 1);
		assert_int_not_equal(learn(&law, LRO_LAW_IN_VAIN, 100), 0);
	}
}

static void rests_double(void **state)
{
	struct lro_law law;

	lro_law_times(&times, USEC);
	lro_law_start(&law, &times, true);
	learn(&law, LRO_LAW_IN_VAIN, 100);
	assert_int_equal(learn(&law, LRO_LAW_IN_VAIN, 100), 0);
	for (unsigned rest = 8, i = 0; i < 12; i++) {
		/* What comes late does not count. */
		for (unsigned j = 0; j < 2000; j++)
			assert_int_equal(learn(&law, LRO_LAW_NOT_WAITED, 51), 0);
		for (unsigned j = 1; j < rest; j++)
			assert_int_equal(learn(&law, LRO_LAW_NOT_WAITED, 5), 0);
		assert_int_not_equal(learn(&law, LRO_LAW_NOT_WAITED, 5), 0);
		assert_int_equal(learn(&law, LRO_LAW_IN_VAIN, 100), 0);
		rest = rest < 1024 ? rest * 2 : 1024;
	}
	/* One that succeeds makes the next rest short again. */
	for (unsigned j = 0; j < 1024; j++)
		learn(&law, LRO_LAW_NOT_WAITED, 5);
	assert_int_not_equal(learn(&law, LRO_LAW_CAUGHT, 5), 0);
	while (learn(&law, LRO_LAW_IN_VAIN, 100))
		;
	for (unsigned j = 1; j < 8; j++)
		assert_int_equal(learn(&law, LRO_LAW_NOT_WAITED, 5), 0);
	assert_int_not_equal(learn(&law, LRO_LAW_NOT_WAITED, 5), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trains),
		cmocka_unit_test(interleaved),
		cmocka_unit_test(steady),
		cmocka_unit_test(requests),
		cmocka_unit_test(datagrams),
		cmocka_unit_test(stop_and_wait),
		cmocka_unit_test(windows),
		cmocka_unit_test(slow_start),
		cmocka_unit_test(requests_teach_nothing),
		cmocka_unit_test(wait_follows_gap),
		cmocka_unit_test(odds),
		cmocka_unit_test(rests_double),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
