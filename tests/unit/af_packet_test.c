/* SPDX-License-Identifier: BSD-3-Clause */
/* An AF_PACKET port on one end of a veth pair (uplink_world.h). */
#include "uplink/af_packet.h"

#include "uplink_world.h"

static int set_up_as(uint32_t caps_mask)
{
	struct uplink_config config = {
		.name = "wire", .ifname = "near0", .queues = 1, .caps_mask = caps_mask
	};

	if (!have_namespace)
		return 0;
	run("ip link add near0 type veth peer name far0 && ip link set far0 up");
	world_open(af_packet_open, &config, "far0");
	return 0;
}

static int set_up(void **state)
{
	return set_up_as(UINT32_MAX);
}

static int set_up_plain(void **state)
{
	return set_up_as(0);
}

static int tear_down(void **state)
{
	if (!have_namespace)
		return 0;
	world_close();
	run("ip link del near0");
	return 0;
}

static bool refused_so_many(uint64_t n)
{
	return COUNTER(drop_device_error) >= n;
}

/* Sizes around that of the header copy, in bursts; small ones are all header and borrow nothing. */
static void test_receives_bursts_in_order(void **state)
{
	static const uint32_t sizes[] = { 14, 15, 60, 191, 192, 193, 256, 257, 1000, 1514 };
	const unsigned count = sizeof(sizes) / sizeof(sizes[0]);
	uint8_t *frames[FRAMES_MAX];

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < FRAMES_MAX; i++) {
		frames[i] = frame_new(sizes[i % count], i, theirs, ours);
		wire_send(frames[i], sizes[i % count], &nothing);
	}
	wait_until(seen_so_many, FRAMES_MAX);
	for (unsigned i = 0; i < FRAMES_MAX; i++) {
		uint32_t len = sizes[i % count];

		expect_seen(i, frames[i], len, &nothing);
		assert_int_equal(probe.seen[i].header_len, len < 192 ? len : 192);
		assert_int_equal(probe.seen[i].frag_count, len > 192);
		free(frames[i]);
	}
	assert_int_equal(COUNTER(recv_packets), FRAMES_MAX);
}

/* The kernel takes VLAN tags off: they are put back, and the offload request moves along. */
static void test_receives_whole_packets(void **state)
{
	static const uint32_t lens[] = { 191, 192, 195, 196, 197, 1000, 65000 };

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < 2 * sizeof(lens) / sizeof(lens[0]); i++) {
		unsigned tag_len = i % 2 ? 4 : 0;
		uint32_t len = lens[i / 2];
		uint8_t *frame = frame_new(len, i, theirs, ours);
		struct pkt_offload want = tcp_1400;

		frame_make_ip(frame, len, IPPROTO_TCP, tag_len);
		want.csum_start += tag_len;
		if (len < 1400) {
			want.gso_type = PKT_GSO_NONE;
			want.gso_size = 0;
		}
		for (unsigned times = 0; times < 10; times++)
			wire_send(frame, len, &want);
		wait_until(seen_so_many, 10 * (i + 1));
		for (unsigned times = 0; times < 10; times++)
			expect_seen(10 * i + times, frame, len, &want);
		free(frame);
	}
}

static void test_sends_fragments(void **state)
{
	static uint8_t got[FRAME_ROOM];
	struct pkt_offload offload;
	uint32_t len = 54 + 20000;
	uint8_t *frame = frame_new(len, 1, ours, theirs);

	if (!have_namespace)
		skip();
	frame_make_ip(frame, len, IPPROTO_TCP, 0);
	probe_emit(frame, len, 100, 1000, 40, &tcp_1400);
	for (unsigned i = 0; i < 40; i++) {
		assert_int_equal(wire_recv(got, &offload), len);
		assert_memory_equal(got, frame, len);
		assert_memory_equal(&offload, &tcp_1400, sizeof(offload));
	}
	wait_until(sent_so_many, 40);
	assert_int_equal(COUNTER(send_gso_packets), 40);
	assert_int_equal(COUNTER(send_bytes), 40 * len);
	assert_int_equal(COUNTER(recv_packets), 0); /* nothing of its own comes back */
	free(frame);
}

/* Without abilities the port is given linear packets; they leave as they are. */
static void test_sends_linear_packets(void **state)
{
	static uint8_t got[FRAME_ROOM];
	static const uint32_t lens[] = { 100, 192, 193, 1514 };
	struct pkt_offload offload;

	if (!have_namespace)
		skip();
	assert_int_equal(uplink->caps, 0);
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		uint8_t *frame = frame_new(lens[i], i, ours, theirs);

		probe_emit(frame, lens[i], 64, 100, 1, &nothing);
		assert_int_equal(wire_recv(got, &offload), lens[i]);
		assert_memory_equal(got, frame, lens[i]);
		assert_memory_equal(&offload, &nothing, sizeof(offload));
		free(frame);
	}
}

static void test_counts_what_the_device_refuses(void **state)
{
	uint8_t *frame = frame_new(100, 1, ours, theirs);

	if (!have_namespace)
		skip();
	run("ip link set near0 down");
	probe_emit(frame, 100, 64, 100, 10, &nothing);
	wait_until(refused_so_many, 10);
	assert_int_equal(COUNTER(drop_device_error), 10);
	assert_int_equal(COUNTER(send_packets), 0);
	free(frame);
}

static void test_goes_on_when_packets_are_kept(void **state)
{
	if (!have_namespace)
		skip();
	expect_goes_on_when_kept();
}

static void test_refuses_to_open(void **state)
{
	static const struct {
		struct uplink_config config;
		int err;
		const char *says;
	} cases[] = {
		{ { "x", "sixteen-letters-", NULL, 1 }, -ENAMETOOLONG, "longer than 15" },
		{ { "a-port-name-of-thirty-two-letters", "near0", NULL, 1 },
		  -ENAMETOOLONG,
		  "longer than 31" },
		{ { "x", "near0", "no-such-namespace", 1 },
		  -ENOENT,
		  "/run/netns/no-such-namespace" },
		{ { "x", "near0", NULL, 0 }, -EINVAL, "0 queues" },
		{ { "x", "near0", NULL, PORT_QUEUES_MAX + 1 }, -EINVAL, "1 to 16" },
		{ { "x", "nobody0", NULL, 1 }, -ENODEV, "no interface 'nobody0'" },
		{ { "x", "lo", NULL, 1 }, -EINVAL, "no Ethernet interface" },
		{ { "wire", "near0", NULL, 1 }, -EEXIST, "'wire'" },
		{ { "x", "near0", NULL, 1, 20 }, -EINVAL, "MTU 20" },
	};

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_refused(af_packet_open, &cases[i].config, cases[i].err, cases[i].says);
}

int main(void)
{
#define TEST(name, set_up) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_receives_bursts_in_order, set_up),
		TEST(test_receives_whole_packets, set_up),
		TEST(test_sends_fragments, set_up),
		TEST(test_sends_linear_packets, set_up_plain),
		TEST(test_counts_what_the_device_refuses, set_up),
		TEST(test_goes_on_when_packets_are_kept, set_up),
		TEST(test_refuses_to_open, set_up),
	};
	return cmocka_run_group_tests(tests, world_begin, world_end);
}
