/* SPDX-License-Identifier: BSD-3-Clause */
/* A TAP port (uplink_world.h; the socket is on the kernel's tap0), and the virtio_net_hdr that it
 * speaks. */
#include "uplink/tap.h"

#include "uplink_world.h"

/* ---- virtio_net_hdr ---- */

static const struct vnet_case {
	const char *what;
	uint8_t vnet[VNET_LEN];
	bool ok;
	struct pkt_offload offload;
} vnet_cases[] = {
	{ "nothing", { 0 }, true, { 0 } },
	{ "nothing, with other fields set", { 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9 }, true, { 0 } },
	{ "checksum",
	  { 1, 0, 54, 0, 0, 0, 34, 0, 16, 0 },
	  true,
	  { PKT_CSUM_PARTIAL, 0, 0, 34, 16 } },
	{ "both bytes",
	  { 1, 0, 0, 0, 0, 0, 1, 2, 3, 4 },
	  true,
	  { PKT_CSUM_PARTIAL, 0, 0, 0x201, 0x403 } },
	{ "valid", { 2 }, true, { PKT_CSUM_VALID } },
	{ "valid and partial",
	  { 3, 0, 0, 0, 0, 0, 34, 0, 6, 0 },
	  true,
	  { PKT_CSUM_PARTIAL, 0, 0, 34, 6 } },
	{ "unknown flag", { 0xf8 }, true, { 0 } },
	{ "TCPv4",
	  { 1, 1, 66, 0, 0xb4, 5, 34, 0, 16, 0 },
	  true,
	  { PKT_CSUM_PARTIAL, PKT_GSO_TCPV4, 1460, 34, 16 } },
	{ "TCPv4 with ECN",
	  { 1, 0x81, 66, 0, 0xb4, 5, 34, 0, 16, 0 },
	  true,
	  { PKT_CSUM_PARTIAL | PKT_GSO_ECN, PKT_GSO_TCPV4, 1460, 34, 16 } },
	{ "TCPv6",
	  { 1, 4, 86, 0, 0xa0, 5, 54, 0, 16, 0 },
	  true,
	  { PKT_CSUM_PARTIAL, PKT_GSO_TCPV6, 1440, 54, 16 } },
	{ "UDP",
	  { 1, 5, 42, 0, 0xe8, 3, 34, 0, 6, 0 },
	  true,
	  { PKT_CSUM_PARTIAL, PKT_GSO_UDP, 1000, 34, 6 } },
	{ "UDP with ECN", { 1, 0x85, 42, 0, 0xe8, 3, 34, 0, 6, 0 }, false, { 0 } },
	{ "ECN without GSO", { 1, 0x80, 42, 0, 0xe8, 3, 34, 0, 6, 0 }, false, { 0 } },
	{ "old UDP fragmentation", { 1, 3, 42, 0, 0xe8, 3, 34, 0, 6, 0 }, false, { 0 } },
	{ "unknown GSO", { 1, 2, 42, 0, 0xe8, 3, 34, 0, 6, 0 }, false, { 0 } },
	{ "GSO without checksum", { 0, 1, 66, 0, 0xb4, 5, 34, 0, 16, 0 }, false, { 0 } },
	{ "GSO with a valid checksum", { 2, 1, 66, 0, 0xb4, 5, 34, 0, 16, 0 }, false, { 0 } },
	{ "GSO without size", { 1, 1, 66, 0, 0, 0, 34, 0, 16, 0 }, false, { 0 } },
};

static void test_vnet_to_offload(void **state)
{
	for (unsigned i = 0; i < sizeof(vnet_cases) / sizeof(vnet_cases[0]); i++) {
		const struct vnet_case *c = &vnet_cases[i];
		struct pkt_offload offload;

		memset(&offload, 0xff, sizeof(offload));
		if (vnet_to_offload(c->vnet, &offload) != c->ok)
			fail_msg("%s: %saccepted", c->what, c->ok ? "not " : "");
		if (c->ok && memcmp(&offload, &c->offload, sizeof(offload)) != 0)
			fail_msg("%s: wrong offload request", c->what);
	}
}

static void test_vnet_there_and_back(void **state)
{
	for (unsigned i = 0; i < sizeof(vnet_cases) / sizeof(vnet_cases[0]); i++) {
		const struct vnet_case *c = &vnet_cases[i];
		struct pkt_offload offload;
		uint8_t vnet[VNET_LEN];

		if (!c->ok)
			continue;
		memset(vnet, 0xff, sizeof(vnet));
		vnet_from_offload(&c->offload, 0x1234, vnet);
		assert_int_equal(vnet_get16(vnet + 10), 0);
		assert_int_equal(vnet_get16(vnet + 2), vnet[0] & VNET_NEEDS_CSUM ? 0x1234 : 0);
		assert_true(vnet_to_offload(vnet, &offload));
		if (memcmp(&offload, &c->offload, sizeof(offload)) != 0)
			fail_msg("%s: not the same after there and back", c->what);
	}
}

/* ---- the port ---- */

static int begin(void **state)
{
	int err = world_begin(state);

	have_namespace = have_namespace && access("/dev/net/tun", R_OK | W_OK) == 0;
	return err;
}

static int set_up(void **state)
{
	struct uplink_config config = {
		.name = "wire", .ifname = "tap0", .queues = 1, .caps_mask = UINT32_MAX
	};

	if (have_namespace)
		world_open(tap_open, &config, "tap0");
	return 0;
}

static int tear_down(void **state)
{
	if (have_namespace)
		world_close();
	return 0;
}

static uint64_t sent_or_dropped(void)
{
	return COUNTER(send_packets) + COUNTER(drop_too_big) + COUNTER(drop_device_error);
}

static bool dealt_with_so_many(uint64_t n)
{
	return sent_or_dropped() >= n;
}

/* Let the probe send one packet, and wait until the port is done with it. */
static void emit(uint8_t *frame, uint32_t len, unsigned header_len, unsigned frag_len,
		 const struct pkt_offload *offload)
{
	uint64_t before = sent_or_dropped();

	probe_emit(frame, len, header_len, frag_len, 1, offload);
	wait_until(dealt_with_so_many, before + 1);
}

static void test_receives_all_sizes(void **state)
{
	static const uint32_t sizes[] = { 14, 15, 60, 191, 192, 193, 255, 256, 257, 1000, 1514 };

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t *frame = frame_new(sizes[i], i, theirs, ours);
		const struct seen *seen = &probe.seen[i];

		wire_send(frame, sizes[i], &nothing);
		wait_until(seen_so_many, i + 1);
		expect_seen(i, frame, sizes[i], &nothing);
		/* Small frames are all header and borrow nothing. */
		assert_int_equal(seen->header_len, sizes[i] < 192 ? sizes[i] : 192);
		assert_int_equal(seen->frag_count, sizes[i] > 192);
		free(frame);
	}
}

static void test_receives_whole_packets(void **state)
{
	uint32_t len =
		65000; /* the kernel segments itself what is longer than 64 KiB with headers */
	uint8_t *frame = frame_new(len, 1, theirs, ours);

	if (!have_namespace)
		skip();
	frame_make_ip(frame, len, IPPROTO_TCP, 0);
	for (unsigned i = 0; i < 20; i++)
		wire_send(frame, len, &tcp_1400);
	wait_until(seen_so_many, 20);
	for (unsigned i = 0; i < 20; i++)
		expect_seen(i, frame, len, &tcp_1400);
	assert_int_equal(COUNTER(recv_gso_packets), 20);
	free(frame);
}

/* Bursts in which small and large frames lie behind each other. */
static void test_receives_bursts_in_order(void **state)
{
	uint8_t *frames[FRAMES_MAX];
	uint32_t lens[FRAMES_MAX];

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < FRAMES_MAX; i++) {
		lens[i] = 14 + i * 977 % 1501;
		frames[i] = frame_new(lens[i], i, theirs, ours);
	}
	for (unsigned i = 0; i < FRAMES_MAX; i++)
		wire_send(frames[i], lens[i], &nothing);
	wait_until(seen_so_many, FRAMES_MAX);
	for (unsigned i = 0; i < FRAMES_MAX; i++) {
		expect_seen(i, frames[i], lens[i], &nothing);
		free(frames[i]);
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
	emit(frame, len, 100, 1000, &tcp_1400);
	assert_int_equal(wire_recv(got, &offload), len);
	assert_memory_equal(got, frame, len);
	assert_memory_equal(&offload, &tcp_1400, sizeof(offload));
	assert_int_equal(COUNTER(send_gso_packets), 1);
	assert_int_equal(COUNTER(send_bytes), len);
	free(frame);
}

static void test_sends_what_fits_the_mtu(void **state)
{
	static uint8_t got[FRAME_ROOM];
	static const struct {
		uint32_t len;
		uint16_t tag;
		bool fits;
	} cases[] = { { 1514, 0, true },
		      { 1515, 0, false },
		      { 1518, 0x8100, true },
		      { 1519, 0x8100, false } };
	struct pkt_offload offload, large = tcp_1400;
	uint8_t *frame = frame_new(10000, 1, ours, theirs);
	unsigned dropped = 0;

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		store_be16(frame + 12, cases[i].tag ? cases[i].tag : TEST_PROTOCOL);
		store_be16(frame + 16, TEST_PROTOCOL);
		emit(frame, cases[i].len, 64, 4096, &nothing);
		dropped += !cases[i].fits;
		assert_int_equal(COUNTER(drop_too_big), dropped);
		if (cases[i].fits)
			assert_in_range(wire_recv(got, &offload), 1514, 1518);
	}
	/* Of a packet that is to be segmented, each segment. */
	frame_make_ip(frame, 10000, IPPROTO_TCP, 0);
	large.gso_size = 1461;
	emit(frame, 10000, 64, 4096, &large);
	assert_int_equal(COUNTER(drop_too_big), dropped + 1);
	large.gso_size = 1460;
	emit(frame, 10000, 64, 4096, &large);
	assert_int_equal(wire_recv(got, &offload), 10000);
	free(frame);
}

static void test_counts_what_the_device_refuses(void **state)
{
	struct ifreq ifr = { .ifr_name = "tap0" };
	uint8_t *frame = frame_new(100, 1, ours, theirs);

	if (!have_namespace)
		skip();
	assert_int_equal(ioctl(wire, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags &= ~IFF_UP;
	assert_int_equal(ioctl(wire, SIOCSIFFLAGS, &ifr), 0);
	emit(frame, 100, 64, 100, &nothing);
	assert_int_equal(COUNTER(drop_device_error), 1);
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
		{ { "a-port-name-of-thirty-two-letters", "x", NULL, 1 },
		  -ENAMETOOLONG,
		  "longer than 31" },
		{ { "x", "x", "no-such-namespace", 1 }, -ENOENT, "/run/netns/no-such-namespace" },
		{ { "x", "x", "/dev/null", 1 }, -EINVAL, "no network namespace" },
		{ { "x", "x", NULL, 0 }, -EINVAL, "0 queues" },
		{ { "x", "x", NULL, PORT_QUEUES_MAX + 1 }, -EINVAL, "1 to 16" },
		{ { "x", "lo", NULL, 1 }, -EEXIST, "no TAP" },
		{ { "x", "tap0", NULL, 1 }, -EBUSY, "busy" },
		{ { "x", "tap0", NULL, 2 }, -EINVAL, "single queue" },
		{ { "wire", "x", NULL, 1 }, -EEXIST, "'wire'" },
		{ { "x", "x", NULL, 1, 20 }, -EINVAL, "MTU 20" },
	};

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_refused(tap_open, &cases[i].config, cases[i].err, cases[i].says);
}

static void test_several_queues(void **state)
{
	struct uplink_config config = {
		.name = "many", .ifname = "many0", .queues = 4, .mtu = 9000
	};
	struct error error;
	struct port *port;

	if (!have_namespace)
		skip();
	if (tap_open(&config, &port, &error))
		fail_msg("%s", error.text);
	assert_int_equal(port->queues, 4);
	assert_int_equal(port->mtu, 9000);
	assert_true(port->uplink);
	assert_int_equal(worker_by_id(0)->queue_count, 2 + 4);
	worker_detach(port);
	port->ops->close(port);
	assert_null(port_by_name("many"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vnet_to_offload),
		cmocka_unit_test(test_vnet_there_and_back),
		TEST(test_receives_all_sizes),
		TEST(test_receives_whole_packets),
		TEST(test_receives_bursts_in_order),
		TEST(test_sends_fragments),
		TEST(test_sends_what_fits_the_mtu),
		TEST(test_counts_what_the_device_refuses),
		TEST(test_goes_on_when_packets_are_kept),
		TEST(test_refuses_to_open),
		TEST(test_several_queues),
	};
	return cmocka_run_group_tests(tests, begin, world_end);
}
