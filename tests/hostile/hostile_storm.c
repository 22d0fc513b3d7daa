// SPDX-License-Identifier: BSD-3-Clause
/*
 * Too much of something that is allowed: doorbells, broadcasts, source addresses, control messages,
 * work. A guest may waste its own share; the witness must keep getting its own.
 */
#include "hostile.h"

#include <string.h>

enum { STORM_MSEC = 2000 };

/* Make the one frame that head 0 describes available as often as the ring holds, for msec. */
static void pour(struct front *evil, struct front *mate, unsigned msec)
{
	struct front_ring *ring = front_tx(evil);
	uint64_t start_ns = front_now_ns();

	while (time_left(start_ns, msec)) {
		uint16_t used = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);

		while ((uint16_t)(ring->avail_next - used) < ring->size)
			front_push(ring, 0);
		front_publish(ring);
		front_kick(ring);
		mate_receives(mate);
		front_sleep_us(100);
	}
}

static void describe(struct front *evil, unsigned len)
{
	put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
}

static void kicks(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns();

	while (time_left(start_ns, STORM_MSEC))
		for (unsigned i = 0; i < 2; i++)
			front_force_kick(&evil->rings[i]);
}

/* Each frame needs a doorbell, and each use of its buffer is wanted to be called for. */
static void kick_a_frame(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns();

	describe(evil, good_frame(evil));
	while (time_left(start_ns, STORM_MSEC)) {
		offer(front_tx(evil), 0);
		all_used(front_tx(evil), 100);
		mate_receives(mate);
	}
}

static void broadcasts(struct front *evil, struct front *mate)
{
	unsigned len = good_frame(evil);

	memset(evil->scratch + evil->header_len, 0xff, 6);
	describe(evil, len);
	pour(evil, mate, STORM_MSEC);
}

static void large_broadcasts(struct front *evil, struct front *mate)
{
	unsigned len = good_gso_frame(evil, 64000);

	memset(evil->scratch + evil->header_len, 0xff, 6);
	describe(evil, len);
	pour(evil, mate, STORM_MSEC);
}

/* The most work one frame can make: many small segments, in software, for all who take no GSO. */
static void small_segments(struct front *evil, struct front *mate)
{
	unsigned len = good_gso_frame(evil, 64000);

	memset(evil->scratch + evil->header_len, 0xff, 6);
	((struct virtio_net_hdr_v1 *)evil->scratch)->gso_size = 1;
	describe(evil, len);
	pour(evil, mate, STORM_MSEC);
}

static void unicasts(struct front *evil, struct front *mate)
{
	describe(evil, good_frame(evil));
	pour(evil, mate, STORM_MSEC);
}

/* A new source address with every frame: the table must not forget the witness. */
static void addresses(struct front *evil, struct front *mate)
{
	static uint8_t frame[256];
	struct frame_addresses to = evil_to_mate;

	for (unsigned i = 0; i < 60000; i++) {
		uint32_t number = random_u32();

		to.src[0] = 0x02;
		memcpy(to.src + 1, &number, 4);
		to.src[5] = (uint8_t)i;
		if (front_send(evil, NULL, frame, frame_udp(frame, &to, i, 60), NULL, 2000))
			broken_test("evil: %s", evil->fault);
		mate_receives(mate);
	}
}

/* Rings switched off and on. */
static void enables(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns();

	for (unsigned i = 0; time_left(start_ns, STORM_MSEC); i++)
		if (front_enable_ring(evil, &evil->rings[i / 2 % 2], i % 2))
			broken_test("evil: %s", evil->fault);
}

/* The memory table announced anew, the same every time. */
static void memory_tables(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns();

	while (time_left(start_ns, STORM_MSEC))
		if (front_announce_memory(evil))
			broken_test("evil: %s", evil->fault);
}

static void restarts(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns();

	while (time_left(start_ns, STORM_MSEC)) {
		revive(evil, front_rx(evil));
		revive(evil, front_tx(evil));
	}
}

/* Messages that cost an answer, without waiting for it. */
static void requests(struct front *evil, struct front *mate)
{
	struct vu_header header = { VU_GET_FEATURES, VU_VERSION, 0 };
	uint64_t start_ns = front_now_ns(), value;

	while (time_left(start_ns, STORM_MSEC)) {
		for (unsigned i = 0; i < 100; i++)
			if (front_message(evil, &header, NULL, 0, NULL, 0))
				return; /* thrown out: fair */
		for (unsigned i = 0; i < 100; i++)
			if (front_reply(evil, VU_GET_FEATURES, &value, sizeof(value), 2000) < 0)
				return;
	}
}

static void connections(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns(), value;

	for (unsigned i = 0; time_left(start_ns, STORM_MSEC); i++) {
		evil->fault[0] = 0;
		if (front_connect(evil))
			front_sleep_us(1000);
		else if (i % 3 == 0)
			front_get_u64(evil, VU_GET_FEATURES, &value);
	}
}

/* A server that hangs up on vifd, its client, as soon as it connects: vifd must not hammer it. */
static void hang_up(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns();
	unsigned count = 0;

	while (time_left(start_ns, 3000)) {
		if (front_connect(evil))
			broken_test("evil: %s", evil->fault);
		count++;
	}
	if (count > 300)
		broken_test("vifd connected %u times in three seconds", count);
}

const struct scenario storm_scenarios[] = {
	{ "storm-kicks", kicks },
	{ "storm-kick-a-frame", kick_a_frame },
	{ "storm-broadcasts", broadcasts },
	{ "storm-large-broadcasts", large_broadcasts },
	{ "storm-small-segments", small_segments },
	{ "storm-unicasts", unicasts },
	{ "storm-unicasts-large-ring", unicasts, .size = { 0, 32768 } },
	{ "storm-addresses", addresses },
	{ "storm-enables", enables },
	{ "storm-memory-tables", memory_tables },
	{ "storm-restarts", restarts },
	{ "storm-requests", requests },
	{ "storm-connections", connections, .raw = true },
	{ "storm-hang-up", hang_up, .listen = true },
	{ 0 },
};
