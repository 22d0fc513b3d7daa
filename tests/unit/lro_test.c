/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Large receive offload: that nothing is lost or changed (lro_world.h judges every packet of every
 * test), that merging happens where it should and nowhere else, and when what is held leaves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "lro_streams.h"

static uint8_t bytes[FRAME_MAX];
static uint64_t seed = 1;

static const struct frame_desc tcp4 = { 0, 4, 0, IPPROTO_TCP, 12, 0, 0 };
static const struct frame_desc tcp4_vlan = { 1, 4, 0, IPPROTO_TCP, 12, 0, 0 };
static const struct frame_desc tcp6 = { 0, 6, 0, IPPROTO_TCP, 12, 0, 0 };
static const struct frame_desc udp4 = { 0, 4, 0, IPPROTO_UDP, 0, 0, 0 };

static const struct lro_config poll_mode = { .mode = LRO_POLL };
static const struct lro_config auto_mode = { .mode = LRO_AUTO };

/* A stream whose checksums have been found right, with counting IDs. */
static struct stream stream_of(const struct frame_desc *desc, uint32_t mss)
{
	struct stream stream;

	stream_init(&stream, desc, mss, IDS_COUNT, PKT_CSUM_VALID, &seed);
	return stream;
}

/* A frame as an AF_XDP queue hands it over: 64 bytes of it in the header copy. */
static void put_on_wire(const struct draft *draft)
{
	if (world.count == PKT_BURST)
		world_poll(0);
	assert_true(world_frame(bytes, draft->frame.len, draft->offload, 64, 65536));
}

static void send_deviant(struct stream *stream, enum deviation what)
{
	struct draft draft;

	stream_next(stream, &draft, bytes, what, &seed);
	put_on_wire(&draft);
}

static void send_plain(struct stream *stream, unsigned count)
{
	while (count-- > 0)
		send_deviant(stream, DEVIATE_PLAIN);
}

static uint64_t flushed(enum lro_reason reason)
{
	return lro_stats(world.lro)->flushed[reason];
}

/* ---- what is merged ---- */

static void every_deviation(void **state)
{
	static const unsigned packets[DEVIATION_COUNT] = {
#define X(name, packets) packets,
		DEVIATIONS(X)
#undef X
	};

	for (enum deviation what = 0; what < DEVIATION_COUNT; what++) {
		struct stream stream = stream_of(&tcp4_vlan, 100);

		world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
		send_plain(&stream, 5);
		send_deviant(&stream, what);
		send_plain(&stream, 5);
		world_poll(0);
		if (world.packets != packets[what])
			print_error("%s: %u packets\n", deviation_names[what],
				    (unsigned)world.packets);
		assert_int_equal(world.packets, packets[what]);
		world_close();
	}
}

/* The same for what only UDP has, or has otherwise. */
static void udp_deviations(void **state)
{
	static const struct {
		enum deviation what;
		unsigned packets;
	} cases[] = {
		{ DEVIATE_PLAIN, 1 },        { DEVIATE_LOST, 1 },      { DEVIATE_SHORT_UDP, 3 },
		{ DEVIATE_SHORT, 2 },        { DEVIATE_LONG, 3 },      { DEVIATE_ID_JUMPED, 2 },
		{ DEVIATE_ZERO_L4_CSUM, 3 }, { DEVIATE_CUT_L4, 3 },    { DEVIATE_FRAGMENT, 3 },
		{ DEVIATE_ACK_ALONE, 3 },    { DEVIATE_OTHER_TTL, 3 },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream stream = stream_of(&udp4, 100);

		world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
		send_plain(&stream, 5);
		send_deviant(&stream, cases[i].what);
		send_plain(&stream, 5);
		world_poll(0);
		assert_int_equal(world.packets, cases[i].packets);
		world_close();
	}
}

/* What is never merged, however much alike. */
static void never(void **state)
{
	static const enum deviation cases[] = {
		DEVIATE_WITH_SYN,
		DEVIATE_WITH_RST,
		DEVIATE_URGENT,
		DEVIATE_URGENT_POINTER,
		DEVIATE_PUSHED,
		DEVIATE_FINISHED,
		DEVIATE_WITH_CWR,
		DEVIATE_PADDED,
		DEVIATE_WRONG_L4_CSUM,
		DEVIATE_WRONG_IP_CSUM,
		DEVIATE_WITH_IP_OPTIONS,
		DEVIATE_FRAGMENT,
		DEVIATE_GSO,
		DEVIATE_ACK_ALONE,
		DEVIATE_OTHER_CSUM_START,
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream stream = stream_of(&tcp4, 100);

		world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
		for (unsigned j = 0; j < 10; j++)
			send_deviant(&stream, cases[i]);
		world_poll(0);
		assert_int_equal(world.packets, 10);
		world_close();
	}
}

/* Flows that differ in one thing are merged beside each other. */
static void similar_flows(void **state)
{
	for (unsigned i = 0; i < 12 + 2 + 8 + 4; i++) {
		struct stream a = stream_of(&tcp4_vlan, 100), b = a;

		if (i < 12)
			b.headers[i] ^= 2;
		else if (i < 14)
			b.headers[i + 2] ^= 2; /* the VLAN's number */
		else
			b.headers[b.frame.l4 - 8 + i - 14] ^= 2;
		world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
		for (unsigned j = 0; j < 10; j++) {
			send_plain(&a, 1);
			send_plain(&b, 1);
		}
		world_poll(0);
		assert_int_equal(world.packets, 2);
		world_close();
	}
}

/* TCP and UDP, IPv4 and IPv6, with and without tags; IDs that count, stay, or do neither. */
static void every_kind(void **state)
{
	static const uint8_t csums[] = { 0, PKT_CSUM_VALID, PKT_CSUM_PARTIAL };

	for (unsigned kind = 0; kind < 2 * 2 * 3 * 3 * IDS_KINDS; kind++) {
		struct frame_desc desc = { .ip = kind % 2 ? 4 : 6,
					   .proto = kind / 2 % 2 ? IPPROTO_TCP : IPPROTO_UDP,
					   .vlans = kind / 4 % 3,
					   .tcp_options = rnd(&seed) % 11 * 4 };
		enum stream_ids ids = kind / 36;
		struct stream stream;

		stream_init(&stream, &desc, 100, ids, csums[kind / 12 % 3], &seed);
		world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
		send_plain(&stream, 20);
		world_poll(0);
		assert_int_equal(world.packets, ids == IDS_RANDOM && desc.ip == 4 ? 20 : 1);
		world_close();
	}
}

/* 65535 bytes of IP, 128 segments, and not one more. */
static void full(void **state)
{
	static const struct {
		const struct frame_desc *desc;
		unsigned mss, most;
	} cases[] = {
		{ &tcp4, 1448, (65535 - 52) / 1448 },
		{ &tcp6, 1428, (65535 - 72) / 1428 },
		{ &tcp4, 8948, 7 },
		{ &tcp4, (65535 - 52) / 2, 2 },
		{ &tcp4, (65535 - 52) / 2 + 1, 1 },
		{ &tcp4, 65535 - 52, 1 },
		{ &tcp4, 500, 128 },
		{ &tcp4, 2, 128 },
		{ &udp4, 500, 128 },
		{ &udp4, 1472, (65535 - 28) / 1472 },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream stream = stream_of(cases[i].desc, cases[i].mss);

		world_open((struct lro_config){ LRO_USEC, 1000 }, WORLD_PACKETS, WORLD_CAPS);
		send_plain(&stream, 10 * cases[i].most);
		world_poll(0);
		assert_int_equal(world.packets, 10);
		assert_int_equal(flushed(LRO_REASON_full), 10);
		world_close();
	}
}

/* Sequence numbers at 2^32, IDs at 2^16. */
static void counters_wrap(void **state)
{
	struct stream stream = stream_of(&tcp4, 1000);

	stream.seq = -2500;
	stream.id = 0xfffd;
	world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
	send_plain(&stream, 10);
	world_poll(0);
	assert_int_equal(world.packets, 1);
	world_close();
}

/* Payload in the header copy, in many fragments, more than inline, more than a packet has. */
static void every_geometry(void **state)
{
	static const uint32_t header_lens[] = { 14, 54, 64, 66, 80, 192 };
	static const uint32_t frag_lens[] = { 0, 60, 90, 1448, 65536 };

	for (unsigned i = 0; i < 6 * 5; i++) {
		struct stream stream = stream_of(&tcp4, 1000);
		struct draft draft;

		world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
		for (unsigned j = 0; j < PKT_BURST; j++) {
			stream_next(&stream, &draft, bytes, DEVIATE_PLAIN, &seed);
			world_frame(bytes, draft.frame.len, draft.offload, header_lens[i % 6],
				    frag_lens[i / 6]);
		}
		world_poll(0);
		assert_in_range(world.packets, 1, 2);
		if (frag_lens[i / 6] > 90)
			assert_int_equal(world.packets, 1);
		world_close();
	}
}

/* Those who would not take the aggregate get segments, at little cost. */
static unsigned asked;
static uint32_t answer;

static uint32_t counting_takes(struct port *in, struct pkt *pkt)
{
	asked++;
	return answer;
}

static void counting_deliver(struct port *in, struct pkt **pkts, unsigned n)
{
	world_deliver(in, pkts, n);
}

static void receivers_are_asked(void **state)
{
	static const struct lro_ops ops = { counting_takes, counting_deliver };
	static const struct {
		const struct frame_desc *desc;
		enum deviation first;
		uint32_t needs;
	} cases[] = {
		{ &tcp4, DEVIATE_PLAIN, PORT_CAP_SG | PORT_CAP_CSUM | PORT_CAP_TSO4 },
		{ &tcp6, DEVIATE_PLAIN, PORT_CAP_SG | PORT_CAP_CSUM | PORT_CAP_TSO6 },
		{ &udp4, DEVIATE_PLAIN, PORT_CAP_SG | PORT_CAP_CSUM | PORT_CAP_USO },
		{ &tcp4, DEVIATE_WITH_CWR,
		  PORT_CAP_SG | PORT_CAP_CSUM | PORT_CAP_TSO4 | PORT_CAP_TSO_ECN },
	};

	for (unsigned i = 0; i < 4; i++) {
		for (uint32_t caps = 0; caps <= WORLD_CAPS; caps++) {
			struct stream stream = stream_of(cases[i].desc, 100);
			bool takes = (caps & cases[i].needs) == cases[i].needs;

			world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
			lro_free(world.lro);
			world.lro = lro_new(&world.port, &ops);
			lro_configure(world.lro, &poll_mode);
			world.caps = answer = caps;
			asked = 0;
			send_deviant(&stream, cases[i].first);
			send_plain(&stream, PKT_BURST - 1);
			world_poll(0);
			/* The one with CWR may be refused, and those that follow it be merged. */
			if (cases[i].first == DEVIATE_PLAIN || takes)
				assert_int_equal(world.packets, takes ? 1 : PKT_BURST);
			assert_in_range(asked, 1, takes || cases[i].first == DEVIATE_PLAIN ? 1 : 2);
			world_close();
		}
	}
	/* A refusal is not for ever. */
	struct stream stream = stream_of(&tcp4, 100);

	world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
	lro_free(world.lro);
	world.lro = lro_new(&world.port, &ops);
	lro_configure(world.lro, &poll_mode);
	answer = asked = 0;
	send_plain(&stream, PKT_BURST);
	world_poll(0);
	assert_int_equal(asked, 1);
	answer = WORLD_CAPS;
	while (asked == 1) {
		send_plain(&stream, PKT_BURST);
		world_poll(0);
		assert_true(world.packets < 300);
	}
	assert_true(world.packets >= 256);
	send_plain(&stream, PKT_BURST);
	world_poll(0);
	assert_true(world.aggregates > 0);
	world_close();
}

/* Some who refuse do not spoil it for others. */
static void refusals_are_of_one_address(void **state)
{
	world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
	for (unsigned i = 0; i < 400; i++) {
		struct stream stream = stream_of(&tcp4, 100);

		stream.headers[5] |= i % 2;
		send_plain(&stream, 10);
		world_poll(0);
	}
	assert_int_equal(world.aggregates, 200);
	assert_int_equal(world.merged, 2000);
	world_close();
}

/* ---- random streams ---- */

enum { STREAMS_MAX = 24 };

static struct stream random_stream(void)
{
	static const uint32_t msses[] = { 2, 33, 100, 100, 536, 1448 };
	static const uint8_t csums[] = { 0, PKT_CSUM_VALID, PKT_CSUM_VALID, PKT_CSUM_PARTIAL };
	struct frame_desc desc = {
		.vlans = rnd(&seed) % 4 ? 0 : rnd(&seed) % 3,
		.ip = rnd(&seed) % 3 ? 4 : 6,
		.ip_options = rnd(&seed) % 16 ? 0 : 8,
		.proto = rnd(&seed) % 4 ? IPPROTO_TCP : IPPROTO_UDP,
		.tcp_options = rnd(&seed) % 2 ? 12 : rnd(&seed) % 11 * 4,
	};
	struct stream stream;

	stream_init(&stream, &desc, msses[rnd(&seed) % 6],
		    rnd(&seed) % 4 ? IDS_COUNT : rnd(&seed) % IDS_KINDS, csums[rnd(&seed) % 4],
		    &seed);
	if (rnd(&seed) % 16 == 0)
		stream.headers[5] |= 1; /* to somebody who takes nothing */
	return stream;
}

/* A stream like another but for one thing that makes it a flow of its own, or not. */
static void make_similar(struct stream *stream, const struct stream *to)
{
	uint8_t *ip, *l4;

	*stream = *to;
	ip = stream->headers + stream->frame.l3;
	l4 = stream->headers + stream->frame.l4;
	switch (rnd(&seed) % 5) {
	case 0:
		l4[rnd(&seed) % 4]++;
		break;
	case 1:
		ip[stream->frame.ip == 4 ? 12 + rnd(&seed) % 8 : 8 + rnd(&seed) % 32]++;
		break;
	case 2:
		stream->headers[rnd(&seed) % 5 + 6]++;
		break;
	case 3:
		if (stream->frame.l3 > 14)
			stream->headers[15]++;
		break;
	default:
		break; /* twins */
	}
}

/* Anything but a TCP or UDP packet of a stream. */
static void send_noise(const struct stream *beside)
{
	static const int protos[] = { 1, 50, 6, 17 };
	struct frame frame = { .bytes = bytes };
	struct frame_desc desc = { .ip = rnd(&seed) % 3 ? 4 : 0,
				   .proto = protos[rnd(&seed) % 4],
				   .payload = rnd(&seed) % 50 };

	frame_build(&frame, &desc, &seed);
	if (desc.ip && beside->frame.ip == 4) {
		/* Between the same addresses; with luck a fragment, or cut short. */
		memcpy(bytes, beside->headers, 12);
		memcpy(bytes + 14 + 12, beside->headers + beside->frame.l3 + 12, 8);
		if (rnd(&seed) % 2)
			be16(bytes + 14 + 6, rnd(&seed) & 0x3fff);
		if (rnd(&seed) % 4 == 0)
			be16(bytes + 14 + 2, rnd(&seed) % 100);
	}
	world_frame(bytes, frame.len < 15 ? 15 : frame.len, (struct pkt_offload){ 0 },
		    rnd_in(&seed, 14, 192), 0);
}

/* one_in: how many segments there are for each that deviates. */
static void send_any(struct stream *streams, unsigned count, unsigned one_in)
{
	struct stream *stream = &streams[rnd(&seed) % count];
	unsigned train = rnd(&seed) % 3 ? 1 : rnd_in(&seed, 1, 20);
	struct draft draft;

	for (; train > 0 && world.count < PKT_BURST; train--) {
		enum deviation what = DEVIATE_PLAIN;

		if (rnd(&seed) % one_in == 0)
			what = rnd(&seed) % DEVIATION_COUNT;
		stream_next(stream, &draft, bytes, what, &seed);
		world_frame(bytes, draft.frame.len, draft.offload,
			    rnd(&seed) % 2 ? 64 : rnd_in(&seed, 14, 192),
			    rnd(&seed) % 4 ? 65536 : 0);
	}
	if (rnd(&seed) % (4 * one_in) == 0 && world.count < PKT_BURST)
		send_noise(stream);
}

static void run_random(struct lro_config config, unsigned one_in, unsigned packets)
{
	struct stream streams[STREAMS_MAX];
	unsigned count = rnd_in(&seed, 1, STREAMS_MAX);

	world_open(config, packets, WORLD_CAPS & ~(rnd(&seed) % 8 ? 0 : 1 << rnd(&seed) % 6));
	world.keep = rnd(&seed) % 4 ? 0 : WORLD_KEEP_MAX / 2;
	for (unsigned i = 0; i < count; i++) {
		streams[i] = random_stream();
		if (i > 0 && rnd(&seed) % 4 == 0)
			make_similar(&streams[i], &streams[rnd(&seed) % i]);
	}
	for (unsigned polls = rnd_in(&seed, 1, 60); polls > 0; polls--) {
		unsigned most = rnd(&seed) % 4 ? rnd(&seed) % 8 : PKT_BURST;

		while (world.count < most && world.worker->pool.free_count > 0)
			send_any(streams, count, one_in);
		world_poll(rnd(&seed) % 4 ? rnd(&seed) % (10 * world.usec)
					  : rnd(&seed) % (400 * world.usec));
		if (rnd(&seed) % 8 == 0)
			world_sleep();
		if (rnd(&seed) % 8 == 0)
			world_nap(rnd(&seed) % (500 * world.usec));
		if (rnd(&seed) % 50 == 0) {
			lro_flush(world.lro, world.now);
			assert_null(world.oldest);
			worker_complete(world.worker);
		}
	}
	world_close();
}

static void random_streams(void **state)
{
	static const struct lro_config configs[] = {
		{ LRO_POLL, 0, false },     { LRO_EVERY, 1, false }, { LRO_EVERY, 2, false },
		{ LRO_EVERY, 1000, false }, { LRO_USEC, 1, false },  { LRO_USEC, 33, false },
		{ LRO_USEC, 10000, false }, { LRO_AUTO, 0, false },  { LRO_POLL, 0, true },
		{ LRO_EVERY, 3, true },     { LRO_USEC, 100, true }, { LRO_AUTO, 0, true },
		{ LRO_OFF, 0, false },      { LRO_AUTO, 0, false },
	};
	static const unsigned one_in[] = { 1, 3, 10, 100 };

	for (unsigned round = 0; round < 3000; round++) {
		unsigned packets = round % 5 ? WORLD_PACKETS : rnd_in(&seed, 1, 200);

		run_random(configs[round % 14], one_in[rnd(&seed) % 4], packets);
	}
}

/* ---- memory ---- */

/* 10,000 flows, many times more than there are places: each in order, little held. */
static void many_flows(void **state)
{
	enum { FLOWS = 10000 };
	struct stream *streams = calloc(FLOWS, sizeof(*streams));

	for (unsigned i = 0; i < FLOWS; i++)
		streams[i] = stream_of(i % 2 ? &tcp4 : &tcp6, 50);
	for (unsigned mode = 0; mode < 2; mode++) {
		world_open(mode ? auto_mode : (struct lro_config){ LRO_USEC, 10000 }, WORLD_PACKETS,
			   WORLD_CAPS);
		for (unsigned round = 0; round < 3; round++) {
			for (unsigned i = 0; i < FLOWS; i++) {
				send_plain(&streams[i], 2);
				if (i % 16 == 0)
					world_poll(world.usec);
			}
		}
		/* The two of a flow meet, as they come together. */
		assert_true(world.aggregates > FLOWS * 2);
		assert_true(flushed(LRO_REASON_evicted) > 0 || mode);
		world_close();
	}
	free(streams);
}

/* Of flows that are as many as there are places all are held: sets of four are not all of a size. */
static void places(void **state)
{
	struct stream streams[LRO_FLOWS];

	world_open((struct lro_config){ LRO_USEC, 10000 }, WORLD_PACKETS, WORLD_CAPS);
	for (unsigned i = 0; i < LRO_FLOWS; i++) {
		streams[i] = stream_of(&tcp4, 50);
		send_plain(&streams[i], 1);
	}
	world_poll(0);
	assert_int_equal(flushed(LRO_REASON_evicted), world.packets);
	assert_true(world.packets < LRO_FLOWS / 4);
	world_close();
}

/* What a flow holds is not given up for a flow that comes by. */
static void idle_flows_give_way_first(void **state)
{
	struct stream held = stream_of(&tcp4, 50);

	world_open((struct lro_config){ LRO_USEC, 10000 }, WORLD_PACKETS, WORLD_CAPS);
	send_plain(&held, 1);
	world_poll(1);
	for (unsigned i = 0; i < 10000; i++) {
		struct stream stream = stream_of(&tcp4, 50);

		send_plain(&stream, 1);
		send_deviant(&stream, DEVIATE_PUSHED);
		if (i % 16 == 0)
			world_poll(1);
	}
	send_plain(&held, 1);
	world_poll(1);
	assert_int_equal(flushed(LRO_REASON_evicted), 0);
	assert_int_equal(flushed(LRO_REASON_last), 10000);
	world_close();
}

static void too_many_held(void **state)
{
	struct stream streams[40];

	world_open((struct lro_config){ LRO_USEC, 10000 }, WORLD_PACKETS, WORLD_CAPS);
	for (unsigned i = 0; i < 40; i++)
		streams[i] = stream_of(&tcp4, 50);
	for (unsigned i = 0; i < 40 * 40; i++) {
		send_plain(&streams[i % 40], 1);
		if (i % 10 == 0)
			world_poll(world.usec);
		assert_true(world.lent - world.returned <= LRO_HELD_MAX + PKT_BURST);
	}
	assert_true(flushed(LRO_REASON_evicted) > 0);
	world_close();
}

/* No packet for a head: segments go on as they came. No block: aggregates as large as without. */
static void pool_runs_dry(void **state)
{
	struct stream stream = stream_of(&tcp4, 1000);
	struct pkt *hidden[WORLD_PACKETS];
	unsigned blocks, packets;

	world_open((struct lro_config){ LRO_USEC, 1000 }, WORLD_PACKETS, WORLD_CAPS);
	packets = pkt_pool_get(&world.worker->pool, hidden, WORLD_PACKETS - 20);
	send_plain(&stream, 20);
	world_poll(0);
	assert_int_equal(flushed(LRO_REASON_memory), 19);
	assert_int_equal(flushed(LRO_REASON_evicted), 1);
	assert_int_equal(world.packets, 20);
	pkt_pool_put(&world.worker->pool, hidden, packets);
	world_close();

	world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
	blocks = world.worker->pool.block_count;
	world.worker->pool.block_count = 0;
	send_plain(&stream, PKT_BURST);
	world_poll(0);
	assert_int_equal(flushed(LRO_REASON_memory), 1);
	assert_int_equal(world.packets, 2);
	world.worker->pool.block_count = blocks;
	world_close();
}

/* As long as the pool is nearly empty nothing is held beyond a poll. */
static void pool_is_low(void **state)
{
	struct stream stream = stream_of(&tcp4, 1000);
	struct pkt *hidden[WORLD_PACKETS];
	unsigned packets;

	world_open((struct lro_config){ LRO_USEC, 10000 }, WORLD_PACKETS, WORLD_CAPS);
	packets = pkt_pool_get(&world.worker->pool, hidden, WORLD_PACKETS - 200);
	send_plain(&stream, 20);
	world_poll(0);
	assert_int_equal(world.packets, 1);
	pkt_pool_put(&world.worker->pool, hidden, packets);
	send_plain(&stream, 20);
	world_poll(0);
	assert_int_equal(world.packets, 1);
	world_close();
}

/* bo=off: each aggregate lies in one piece, also when there are more than linear memory holds. */
static void linear(void **state)
{
	struct stream streams[PKT_BURST];

	seed = 1; /* flows that all find a place */
	world_open((struct lro_config){ LRO_USEC, 50, true }, WORLD_PACKETS, WORLD_CAPS);
	for (unsigned i = 0; i < PKT_BURST; i++)
		streams[i] = stream_of(&tcp4, 1448);
	for (unsigned i = 0; i < PKT_BURST * 20; i++)
		send_plain(&streams[i % PKT_BURST], 1);
	world_poll(50 * world.usec);
	world_poll(50 * world.usec);
	assert_int_equal(world.packets, PKT_BURST);
	assert_int_equal(world.aggregates, PKT_BURST);
	world_close();
}

/* ---- when it leaves ---- */

static void at_each_poll(void **state)
{
	struct stream stream = stream_of(&tcp4, 100);

	world_open(poll_mode, WORLD_PACKETS, WORLD_CAPS);
	for (unsigned i = 1; i <= 10; i++) {
		send_plain(&stream, 3);
		world_poll(world.usec);
		assert_int_equal(world.packets, i);
	}
	assert_int_equal(flushed(LRO_REASON_timing), 10);
	assert_int_equal(world.late, 0);
	world_close();
}

static void every_few_polls(void **state)
{
	struct stream stream = stream_of(&tcp4, 100);

	world_open((struct lro_config){ LRO_EVERY, 3 }, WORLD_PACKETS, WORLD_CAPS);
	for (unsigned i = 1; i <= 30; i++) {
		if (i % 4)
			send_plain(&stream, 1);
		world_poll(world.usec);
		assert_int_equal(world.packets, i / 3);
	}
	world_close();

	/* Polls that are far apart are not waited for. */
	world_open((struct lro_config){ LRO_EVERY, 1000 }, WORLD_PACKETS, WORLD_CAPS);
	send_plain(&stream, 1);
	world_poll(0);
	world_poll(999 * world.usec);
	assert_int_equal(world.packets, 0);
	world_poll(world.usec);
	assert_int_equal(world.packets, 1);
	world_close();
}

static void after_some_time(void **state)
{
	struct stream a = stream_of(&tcp4, 100), b = stream_of(&tcp4, 100);

	world_open((struct lro_config){ LRO_USEC, 40 }, WORLD_PACKETS, WORLD_CAPS);
	send_plain(&a, 1);
	world_poll(0);
	send_plain(&b, 1);
	world_poll(30 * world.usec);
	send_plain(&a, 1);
	world_poll(10 * world.usec - 1);
	assert_int_equal(world.packets, 0);
	world_poll(1); /* 40 us after a's first */
	assert_int_equal(world.packets, 1);
	assert_int_equal(lro_due(world.lro), world.now + 30 * world.usec);
	world_sleep();
	assert_int_equal(world.packets, 2);
	assert_int_equal(world.late, 2);
	assert_int_equal(world.longest, 40 * world.usec);
	world_close();
}

/* Complete aggregates do not wait for any clock. */
static void complete_leaves_at_once(void **state)
{
	struct stream stream = stream_of(&tcp4, 1448);

	world_open((struct lro_config){ LRO_USEC, 10000 }, WORLD_PACKETS, WORLD_CAPS);
	send_plain(&stream, 44);
	send_deviant(&stream, DEVIATE_PUSHED);
	world_poll(0);
	assert_int_equal(world.packets, 1);
	send_deviant(&stream, DEVIATE_PUSHED);
	world_poll(0);
	assert_int_equal(world.packets, 2);
	send_plain(&stream, 5);
	send_deviant(&stream, DEVIATE_SHORT);
	world_poll(0);
	assert_int_equal(world.packets, 3);
	send_plain(&stream, 45);
	world_poll(0);
	assert_int_equal(world.packets, 4);
	assert_int_equal(flushed(LRO_REASON_last), 3);
	assert_int_equal(flushed(LRO_REASON_full), 1);
	world_close();
}

static void delay_histogram(void **state)
{
	uint64_t below = 0;

	assert_int_equal(lro_delay_bound(0), 64);
	assert_int_equal(lro_delay_bound(1), 80);
	assert_int_equal(lro_delay_bound(4), 128);
	assert_int_equal(lro_delay_bound(5), 160);
	assert_true(lro_delay_bound(LRO_DELAY_BUCKETS - 1) > LRO_USEC_MAX * 1000);
	for (unsigned bucket = 0; bucket < LRO_DELAY_BUCKETS; bucket++) {
		struct stream stream = stream_of(&tcp4, 100);
		uint64_t bound = lro_delay_bound(bucket);
		uint64_t hz = cycles_hz(), within = (below + bound) / 2;

		assert_true(bound > below);
		world_open((struct lro_config){ LRO_EVERY, 2 }, WORLD_PACKETS, WORLD_CAPS);
		send_plain(&stream, 1);
		world_poll(0);
		world_poll(within * (hz / 1e9));
		assert_int_equal(lro_stats(world.lro)->delay[bucket], 1);
		assert_true(lro_stats(world.lro)->delay_max <= within);
		assert_true(lro_stats(world.lro)->delay_max + 2 + within / 100000 >= within);
		world_close();
		below = bound;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_deviation),
		cmocka_unit_test(udp_deviations),
		cmocka_unit_test(never),
		cmocka_unit_test(similar_flows),
		cmocka_unit_test(every_kind),
		cmocka_unit_test(full),
		cmocka_unit_test(counters_wrap),
		cmocka_unit_test(every_geometry),
		cmocka_unit_test(receivers_are_asked),
		cmocka_unit_test(refusals_are_of_one_address),
		cmocka_unit_test(random_streams),
		cmocka_unit_test(many_flows),
		cmocka_unit_test(places),
		cmocka_unit_test(idle_flows_give_way_first),
		cmocka_unit_test(too_many_held),
		cmocka_unit_test(pool_runs_dry),
		cmocka_unit_test(pool_is_low),
		cmocka_unit_test(linear),
		cmocka_unit_test(at_each_poll),
		cmocka_unit_test(every_few_polls),
		cmocka_unit_test(after_some_time),
		cmocka_unit_test(complete_leaves_at_once),
		cmocka_unit_test(delay_histogram),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
