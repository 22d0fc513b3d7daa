/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Naps: the law by which a worker rests whatever comes in, what lro.c tells that law of the traffic,
 * what becomes of what came meanwhile, and a worker that does it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "bridge/bridge.h" /* before cmocka.h, which has a fail() of its own */

#include <cmocka.h>

#include "fake.h"
#include "lro_streams.h"
#include "offload/lro_law.h"
#include "offload/lro_merge.h"

static uint8_t bytes[FRAME_MAX];
static uint64_t seed = 1;

static const struct frame_desc tcp4 = { 0, 4, 0, IPPROTO_TCP, 12, 0, 0 };
static const struct frame_desc tcp6 = { 0, 6, 0, IPPROTO_TCP, 12, 0, 0 };
static const struct frame_desc udp4 = { 0, 4, 0, IPPROTO_UDP, 0, 0, 0 };

static const struct lro_config auto_mode = { .mode = LRO_AUTO };

/* ---- the law by itself; a cycle is 1/10 us ---- */

enum { USEC = 10, LONG_AGO = 10000000 * USEC };

static uint64_t length(struct lro_nap *nap, unsigned segments, unsigned patience, uint64_t now)
{
	while (segments-- > 0)
		lro_nap_note_segment(nap);
	return lro_nap_length(nap, patience * USEC, now, USEC) / USEC;
}

static void law(void **state)
{
	struct lro_nap nap = { 0 };
	uint64_t now = LONG_AGO;

	assert_int_equal(length(&nap, 8, 300, now), 300);
	/* Each nap has to be earned, since the rest before the last. */
	assert_int_equal(length(&nap, 0, 300, now += 10000), 300);
	assert_int_equal(length(&nap, 0, 300, now += 10000), 0);
	assert_int_equal(length(&nap, 7, 300, now += 10000), 0);
	assert_int_equal(length(&nap, 0, 300, now += 10000), 0);
	assert_int_equal(length(&nap, 3, 300, now += 10000), 0);
	assert_int_equal(length(&nap, 5, 300, now += 10000), 300);
	/* As long as is allowed, within reason. */
	assert_int_equal(length(&nap, 8, 0, now += 10000), 0);
	assert_int_equal(length(&nap, 8, 49, now += 10000), 0);
	assert_int_equal(length(&nap, 8, 50, now += 10000), 50);
	assert_int_equal(length(&nap, 8, 500, now += 10000), 500);
	assert_int_equal(length(&nap, 8, 10000, now += 10000), 500);
	/* Where more than 512 would come in that time, shorter. */
	assert_int_equal(length(&nap, 512, 400, now += 400 * USEC), 400);
	assert_int_equal(length(&nap, 1024, 400, now += 400 * USEC), 200);
	assert_int_equal(length(&nap, 512, 400, now += 100 * USEC), 100);
}

static void law_is_calm(void **state)
{
	struct lro_nap nap = { 0 };
	uint64_t now = LONG_AGO;

	lro_nap_note_urgent(&nap, now);
	assert_int_equal(length(&nap, 100, 300, now), 0);
	assert_int_equal(length(&nap, 100, 300, now + 4999 * USEC), 0);
	assert_int_equal(length(&nap, 8, 300, now + 5000 * USEC), 64);
	assert_int_equal(length(&nap, 8, 300, now + 5064 * USEC), 300);
	/* A request every 5 ms keeps the worker awake for good. */
	for (unsigned i = 0; i < 100; i++, now += 4990 * USEC) {
		lro_nap_note_urgent(&nap, now);
		for (unsigned usec = 0; usec < 4990; usec += 10)
			assert_int_equal(length(&nap, 10, 300, now + usec * USEC), 0);
	}
}

/* No more than a quarter of an AF_XDP queue's frames comes during a nap, at a steady rate. */
static void law_leaves_room(void **state)
{
	static const unsigned per_msec[] = { 20, 100, 812 /* 10 Gb/s of 1538 bytes */, 2030,
					     14880 };

	for (unsigned i = 0; i < 5; i++) {
		struct lro_nap nap = { 0 };
		uint64_t usec = 100, now = LONG_AGO, most = 0;

		for (unsigned round = 0; round < 100; round++) {
			uint64_t came = usec * per_msec[i] / 1000;

			usec = length(&nap, came, 500, now += usec * USEC);
			usec = usec ? usec : 500;
			if (round > 1 && came > most)
				most = came;
		}
		assert_true(most <= 512);
		if (i == 2)
			assert_in_range(most, 405, 407);
	}
}

/* ---- what is told of the traffic ---- */

static struct stream stream_of(const struct frame_desc *desc)
{
	struct stream stream;

	stream_init(&stream, desc, 100, IDS_COUNT, PKT_CSUM_VALID, &seed);
	return stream;
}

static void send_deviant(struct stream *stream, enum deviation what)
{
	struct draft draft;

	if (world.count == PKT_BURST)
		world_poll(0);
	stream_next(stream, &draft, bytes, what, &seed);
	assert_true(world_frame(bytes, draft.frame.len, draft.offload, 64, 65536));
}

static void send_plain(struct stream *stream, unsigned count)
{
	while (count-- > 0)
		send_deviant(stream, DEVIATE_PLAIN);
}

/* Of what waits for this poll, is something urgent? */
static bool urgent_poll(void)
{
	world.worker->nap = (struct lro_nap){ 0 };
	world_poll(world.usec);
	return world.worker->nap.urgent == world.now;
}

static void bulk_and_messages(void **state)
{
	static const struct lro_config config = { LRO_USEC, 10000 };
	struct stream stream = stream_of(&tcp4), other = stream_of(&tcp6);

	world_open(config, WORLD_PACKETS, WORLD_CAPS);
	/* Segments that wait for others, for as long as they do. */
	send_plain(&stream, 5);
	assert_false(urgent_poll());
	assert_int_equal(world.worker->nap.segments, 5);
	send_plain(&stream, 5);
	assert_false(urgent_poll());
	/* The end of ten, and the rest of it; then it is a message. */
	send_deviant(&stream, DEVIATE_PUSHED);
	assert_false(urgent_poll());
	send_deviant(&stream, DEVIATE_PUSHED);
	assert_false(urgent_poll());
	send_deviant(&stream, DEVIATE_PUSHED);
	assert_true(urgent_poll());
	for (unsigned segments = 1; segments <= 20; segments++) {
		send_plain(&stream, segments - 1);
		send_deviant(&stream, DEVIATE_PUSHED);
		assert_true(urgent_poll() == (segments < 8));
	}
	/* A flow that is not known, and one whose bulk is another's. */
	send_deviant(&other, DEVIATE_PUSHED);
	assert_true(urgent_poll());
	world_close();
}

static void other_packets(void **state)
{
	static const struct {
		enum deviation what;
		bool urgent;
	} cases[] = {
		{ DEVIATE_PLAIN, false },           { DEVIATE_LOST, false },
		{ DEVIATE_RETRANSMITTED, false },   { DEVIATE_ACK_ALONE, false },
		{ DEVIATE_EMPTY_KEEPALIVE, false }, { DEVIATE_PUSHED, true },
		{ DEVIATE_FINISHED, true },         { DEVIATE_WITH_SYN, true },
		{ DEVIATE_WITH_RST, true },         { DEVIATE_URGENT, true },
		{ DEVIATE_FRAGMENT, true },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (unsigned group = 0; group < 2; group++) {
			struct stream stream = stream_of(&tcp4);

			world_open(auto_mode, WORLD_PACKETS, WORLD_CAPS);
			send_plain(&stream, 1);
			urgent_poll();
			send_deviant(&stream, cases[i].what);
			assert_true(urgent_poll() == cases[i].urgent);
			world_close();
		}
	}
	/* Who does not take large packets gets urgent ones. */
	struct stream stream = stream_of(&tcp4);

	world_open(auto_mode, WORLD_PACKETS, 0);
	send_plain(&stream, 10);
	assert_true(urgent_poll());
	assert_int_equal(world.worker->nap.segments, 0);
	world_close();
}

/* Of ports that merge nothing, packets are judged one by one. */
static bool is_urgent(const struct frame_desc *desc, bool group, unsigned padding)
{
	struct frame frame = { .bytes = bytes };
	struct pkt pkt;
	bool urgent;

	frame_build(&frame, desc, &seed);
	if (group)
		memcpy(bytes, "\x33\x33\0\0\0\1", 6);
	memset(bytes + frame.len, 0, padding);
	pkt_fill(&pkt, bytes, frame.len + padding, 64, 65536, &seed);
	urgent = lro_is_urgent(&pkt);
	pkt_empty(&pkt);
	return urgent;
}

static void packets_of_others(void **state)
{
	for (int ip = 4; ip <= 6; ip += 2) {
		struct frame_desc desc = { .ip = ip, .proto = IPPROTO_TCP, .tcp_flags = TCP_ACK };

		for (desc.tcp_options = 0; desc.tcp_options <= 40; desc.tcp_options += 4) {
			assert_false(is_urgent(&desc, false, 0));
			assert_false(is_urgent(&desc, false, 6));
		}
		desc.tcp_options = 12;
		desc.payload = 1;
		assert_true(is_urgent(&desc, false, 0));
		assert_false(is_urgent(&desc, true, 0));
		desc.payload = 1400;
		assert_true(is_urgent(&desc, false, 0));
		assert_false(is_urgent(&desc, true, 0));
		desc.payload = 0;
		for (unsigned flags = 0; flags < 256; flags++) {
			desc.tcp_flags = flags;
			assert_true(is_urgent(&desc, false, 0) == (flags != TCP_ACK));
		}
		desc.proto = IPPROTO_UDP;
		assert_true(is_urgent(&desc, false, 0));
		desc.proto = 1;
		assert_true(is_urgent(&desc, false, 0));
	}
	assert_true(is_urgent(&(struct frame_desc){ .payload = 40 }, false, 0));
	assert_false(is_urgent(&(struct frame_desc){ .payload = 40 }, true, 0));
}

/* ---- what came meanwhile ---- */

/* It leaves when all of it has been taken in, merged over bursts, and no later than T after the nap
 * began. */
static void drains(void **state)
{
	static const struct {
		struct lro_config config;
		unsigned usec;
	} cases[] = { { { LRO_USEC, 300 }, 300 }, { { LRO_AUTO }, 200 } };

	for (unsigned i = 0; i < 2; i++) {
		struct stream a = stream_of(&tcp4), b = stream_of(&tcp6), c = stream_of(&udp4);

		world_open(cases[i].config, WORLD_PACKETS, WORLD_CAPS);
		assert_int_equal(lro_patience(world.lro), cases[i].usec * world.usec);
		world_nap(UINT64_MAX);
		send_plain(&a, 40);
		send_plain(&b, 1);
		send_plain(&a, 60);
		send_deviant(&c, DEVIATE_PUSHED);
		assert_int_equal(world.packets, 0);
		world_poll(0);
		assert_int_equal(world.packets, 3);
		assert_int_equal(world.longest, cases[i].usec * world.usec);
		assert_true(lro_stats(world.lro)->delay_max >=
			    (cases[i].usec - 1) * UINT64_C(1000));
		/* What comes now came now. */
		send_plain(&a, 5);
		world_poll(0);
		assert_true(lro_due(world.lro) > world.now);
		world_close();
	}
}

/* What is held already bounds the nap with usec, and leaves before it with auto. */
static void held_before(void **state)
{
	struct stream stream = stream_of(&tcp4);

	world_open((struct lro_config){ LRO_USEC, 300 }, WORLD_PACKETS, WORLD_CAPS);
	send_plain(&stream, 3);
	world_poll(0);
	world_poll(100 * world.usec);
	assert_int_equal(lro_nap(world.lro, world.now), world.now + 200 * world.usec);
	world_nap(UINT64_MAX);
	send_plain(&stream, 3);
	world_poll(0);
	assert_int_equal(world.packets, 1);
	assert_int_equal(world.longest, 300 * world.usec);
	world_close();

	world_open(auto_mode, WORLD_PACKETS, WORLD_CAPS);
	send_plain(&stream, 3);
	world_poll(0);
	assert_int_equal(world.packets, 0);
	world_nap(UINT64_MAX);
	assert_int_equal(world.packets, 1);
	assert_int_equal(world.longest, 0);
	world_close();
}

/* Naps say nothing about a flow's gaps: auto waits as before. */
static void auto_learns_nothing(void **state)
{
	struct stream stream = stream_of(&tcp4);
	uint64_t wait;

	world_open(auto_mode, WORLD_PACKETS, WORLD_CAPS);
	for (unsigned i = 0; i < 50; i++) {
		send_plain(&stream, 1);
		world_poll(5 * world.usec);
	}
	wait = lro_due(world.lro) - world.now;
	for (unsigned i = 0; i < 50; i++) {
		world_nap(UINT64_MAX);
		send_plain(&stream, 20);
		world_poll(0);
	}
	send_plain(&stream, 1);
	world_poll(300 * world.usec);
	assert_int_equal(lro_due(world.lro) - world.now, wait);
	world_close();
}

/* Somebody who fills every burst does not keep another's segment for ever. */
static void drains_no_longer(void **state)
{
	struct stream one = stream_of(&tcp4), many = stream_of(&tcp6);

	world_open((struct lro_config){ LRO_USEC, 100 }, WORLD_PACKETS, WORLD_CAPS);
	world_nap(UINT64_MAX);
	send_plain(&one, 1);
	for (unsigned polls = 0; polls < 16; polls++) {
		send_plain(&many, PKT_BURST - world.count);
		world_poll(0);
		assert_true(world.oldest != NULL || polls == 15);
	}
	assert_null(world.oldest);
	world_close();
}

/* ---- a worker; wire sends TCP segments, all alike, guest something else ---- */

static struct fake_port wire, guest;
static struct bridge *bridge;

static void nap_usec(unsigned usec)
{
	struct timespec time = { .tv_nsec = usec * 1000L };

	nanosleep(&time, NULL);
}

/* On a busy machine that may take a while. */
#define wait_for(condition)                                                                        \
	do {                                                                                       \
		unsigned patience_ = 200000;                                                       \
		while (!(condition)) {                                                             \
			assert_true(patience_-- > 0);                                              \
			nap_usec(100);                                                             \
		}                                                                                  \
	} while (0)

static void add_port(struct fake_port *port)
{
	struct error error;

	assert_int_equal(port_register(&port->port), 0);
	worker_attach(&port->port);
	assert_int_equal(bridge_add_port(bridge, &port->port, &error), 0);
	workers_pause();
	port->wake_fd[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(worker_watch(&port->port, 0, port->wake_fd[0]), 0);
	workers_resume();
}

static void del_port(struct fake_port *port)
{
	bridge_remove_port(&port->port);
	worker_detach(&port->port);
	port_unregister(&port->port);
	close(port->wake_fd[0]);
}

/* Both at once, in one round of the worker. */
static void arrive(unsigned from_wire, unsigned from_guest)
{
	workers_pause();
	wire.waiting[0] += from_wire;
	guest.waiting[0] += from_guest;
	workers_resume();
}

static void start(const struct lro_config *config)
{
	const struct worker_config workers = { .count = 1, .idle_spin_usec = 0 };
	struct frame_desc desc = { 0, 4, 0, IPPROTO_TCP, 0, 0, 0 };
	struct stream stream;
	struct draft draft;
	struct error error;

	assert_int_equal(workers_start(&workers), 0);
	assert_int_equal(bridge_create("br0", 0, 0, &bridge, &error), 0);
	fake_port_init(&wire, "wire", 1, 1, 2);
	fake_port_init(&guest, "guest", 1, 2, 1);
	stream_init(&stream, &desc, 6, IDS_COUNT, 0, &seed);
	stream_next(&stream, &draft, bytes, DEVIATE_PLAIN, &seed);
	assert_int_equal(draft.frame.len, FAKE_FRAME_LEN);
	memcpy(wire.frame + 12, bytes + 12, FAKE_FRAME_LEN - 12);
	add_port(&wire);
	add_port(&guest);
	/* Nobody merges for a guest that nobody has heard of; it is forgotten how urgent that was. */
	arrive(0, 1);
	wait_for(guest.done == 1);
	workers_pause();
	worker_by_id(0)->nap.urgent = 0;
	assert_int_equal(worker_set_lro(&wire.port, config), 0);
	workers_resume();
}

static void stop(void)
{
	del_port(&wire);
	del_port(&guest);
	bridge_destroy(bridge);
	assert_int_equal(wire.done, wire.received);
	assert_int_equal(guest.done, guest.received);
	workers_stop();
}

static uint64_t naps(void)
{
	return __atomic_load_n(&worker_by_id(0)->naps, __ATOMIC_RELAXED);
}

static void worker_naps(void **state)
{
	static const struct {
		struct lro_config config;
		unsigned segments;
		bool naps;
	} cases[] = {
		{ { LRO_USEC, 500 }, 20, true }, { { LRO_AUTO }, 20, true },
		{ { LRO_USEC, 500 }, 3, false }, { { LRO_AUTO }, 3, false },
		{ { LRO_USEC, 20 }, 20, false }, { { LRO_EVERY, 100 }, 20, false },
		{ { LRO_POLL }, 20, false },     { { LRO_OFF }, 20, false },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned total = 0;

		start(&cases[i].config);
		for (unsigned round = 0; round < 20; round++) {
			uint64_t before = naps();

			arrive(cases[i].segments, 0);
			total += cases[i].segments;
			wait_for(wire.done == total && guest.sent == total);
			if (cases[i].naps)
				wait_for(naps() > before);
		}
		assert_true(cases[i].naps == (naps() > 0));
		/* It sleeps in the end, and can be woken. */
		wait_for(guest.arms > 0 && wire.armed[0]);
		wire.waiting[0] += 1;
		eventfd_write(wire.wake_fd[0], 1);
		wait_for(guest.sent == total + 1);
		stop();
	}
}

/* What another port receives keeps the worker awake. Timing: it could be held up for 5 ms. */
static void worker_stays_awake(void **state)
{
	static const struct lro_config config = { LRO_USEC, 500 };
	unsigned total = 0;

	start(&config);
	for (unsigned round = 0; round < 50; round++) {
		uint64_t before = naps();

		arrive(20, 1);
		total += 20;
		wait_for(wire.done == total && guest.done == round + 2);
		if (naps() == before)
			break;
		assert_true(round < 49);
	}
	/* No queue allows it any more. */
	assert_true(worker_by_id(0)->patient);
	worker_detach(&wire.port);
	assert_false(worker_by_id(0)->patient);
	worker_attach(&wire.port);
	assert_true(worker_by_id(0)->patient);
	assert_int_equal(worker_set_lro(&wire.port, &(struct lro_config){ LRO_POLL }), 0);
	assert_false(worker_by_id(0)->patient);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(law),
		cmocka_unit_test(law_is_calm),
		cmocka_unit_test(law_leaves_room),
		cmocka_unit_test(bulk_and_messages),
		cmocka_unit_test(other_packets),
		cmocka_unit_test(packets_of_others),
		cmocka_unit_test(drains),
		cmocka_unit_test(held_before),
		cmocka_unit_test(auto_learns_nothing),
		cmocka_unit_test(drains_no_longer),
		cmocka_unit_test(worker_naps),
		cmocka_unit_test(worker_stays_awake),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	world_free();
	return failed;
}
