/* SPDX-License-Identifier: BSD-3-Clause */
/* An AF_XDP port on one end of a veth pair (uplink_world.h). */
#include "uplink/af_xdp.h"

#include <bpf/bpf.h>

#include "uplink/xsk_queue.h"

#include "uplink_world.h"

#ifndef BPF_F_BEFORE /* Linux 6.6 */
#define BPF_TCX_EGRESS 47
#endif

static int set_up_with(enum af_xdp_mode mode, unsigned mtu)
{
	struct uplink_config config = {
		.name = "wire", .ifname = "near0", .queues = 1, .xdp_mode = mode, .mtu = mtu
	};

	if (!have_namespace)
		return 0;
	run(mtu ? "ip link add near0 type veth peer name far0 mtu 9000 && ip link set far0 up"
		: "ip link add near0 type veth peer name far0 && ip link set far0 up");
	world_open(af_xdp_open, &config, "far0");
	return 0;
}

static int set_up(void **state)
{
	return set_up_with(AF_XDP_AUTO, 0);
}

static int set_up_skb(void **state)
{
	return set_up_with(AF_XDP_SKB, 0);
}

static int set_up_jumbo(void **state)
{
	return set_up_with(AF_XDP_AUTO, JUMBO_MTU);
}

static int tear_down(void **state)
{
	if (!have_namespace)
		return 0;
	world_close();
	run("ip link del far0");
	return 0;
}

/* How many programs are in the interface's egress path; the first one's id. */
static unsigned egress_programs(const char *ifname, uint32_t *id)
{
	uint32_t ids[8] = { 0 };
	LIBBPF_OPTS(bpf_prog_query_opts, opts, .prog_ids = ids, .prog_cnt = 8);

	if (bpf_prog_query_opts(if_nametoindex(ifname), BPF_TCX_EGRESS, &opts))
		return 0; /* the kernel has no tcx */
	*id = ids[0];
	return opts.prog_cnt;
}

/* Take away the link that holds a program, over the head of whoever made it. */
static void detach(uint32_t program)
{
	for (uint32_t id = 0; bpf_link_get_next_id(id, &id) == 0;) {
		struct bpf_link_info info = { 0 };
		uint32_t len = sizeof(info);
		int fd = bpf_link_get_fd_by_id(id);

		if (fd < 0)
			continue;
		if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.prog_id == program)
			assert_int_equal(bpf_link_detach(fd), 0);
		close(fd);
	}
}

static bool port_got(const char *what)
{
	json_t *show = af_xdp_show(uplink), *entry;
	bool found = false;
	size_t i;

	json_array_foreach (json_object_get(show, "got"), i, entry)
		found |= strcmp(json_string_value(entry), what) == 0;
	json_decref(show);
	return found;
}

/* Finish the checksum in the frame, as a sender without offloads does. */
static void frame_finish(uint8_t *frame, uint32_t len, unsigned field)
{
	uint16_t sum = csum_fold(csum_partial(frame + 34, len - 34, 0));

	memcpy(frame + field, &sum, 2);
}

static bool sent_by_sockets(uint64_t arg)
{
	return COUNTER(drop_device_error) == 1 && !port_got("tc bursts");
}

/*
 * The program of tc_burst.c is detached: the first burst is lost with it, the others go by the
 * socket, as all do on a kernel without tcx.
 */
static int set_up_without_bursts(void **state)
{
	int err = set_up_with(AF_XDP_AUTO, 0);
	uint8_t frame[60] = { 0 };
	uint32_t program;

	if (err || !have_namespace || egress_programs("near0", &program) == 0)
		return err;
	assert_true(port_got("tc bursts"));
	detach(program);
	memcpy(frame, ours, 6);
	memcpy(frame + 6, theirs, 6);
	probe_emit(frame, sizeof(frame), sizeof(frame), 1, 1, &nothing);
	wait_until(sent_by_sockets, 0);
	assert_int_equal(COUNTER(send_packets), 0);
	return 0;
}

/* ---- tests ---- */

static void test_receives_all_sizes(void **state)
{
	static const uint32_t sizes[] = { 14, 15, 60, 63, 64, 65, 128, 255, 1000, 1514 };

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t *frame = frame_new(sizes[i], i, theirs, ours);
		const struct seen *seen = &probe.seen[i];

		wire_send(frame, sizes[i], &nothing);
		wait_until(seen_so_many, i + 1);
		expect_seen(i, frame, sizes[i], &nothing);
		/* Small frames are all header and borrow nothing. */
		assert_int_equal(seen->header_len, sizes[i] < 64 ? sizes[i] : 64);
		assert_int_equal(seen->frag_count, sizes[i] > 64);
		free(frame);
	}
}

/* More than there are frames to receive into: they do come back. */
static void test_receives_again_and_again(void **state)
{
	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < 10000; i++) {
		uint8_t *frame = frame_new(60 + i % 1400, i, theirs, ours);

		/* One at a time, for the probe remembers the first ones only. */
		wire_send(frame, 60 + i % 1400, &nothing);
		if (i % 100 == 99) {
			for (unsigned ms = 0; ms < WAIT_MSEC && COUNTER(recv_packets) <= i; ms++)
				usleep(1000);
		}
		free(frame);
	}
	assert_true(COUNTER(recv_packets) >= 10000);
	assert_int_equal(probe.count, FRAMES_MAX);
	for (unsigned i = 0; i < FRAMES_MAX; i++) {
		uint8_t *frame = frame_new(60 + i % 1400, i, theirs, ours);

		assert_int_equal(probe.seen[i].len, 60 + i % 1400);
		assert_memory_equal(probe.seen[i].bytes, frame, probe.seen[i].len);
		free(frame);
	}
}

/* What a packet's checksum is, and what is said of it. */
static void test_checksums_are_judged(void **state)
{
	static const struct {
		const char *what;
		uint8_t proto;
		enum { FINISHED, UNFINISHED, WRONG, NONE, PART } sum;
		uint8_t flags;
	} cases[] = {
		{ "TCP, right", IPPROTO_TCP, FINISHED, PKT_CSUM_VALID },
		{ "UDP, right", IPPROTO_UDP, FINISHED, PKT_CSUM_VALID },
		{ "TCP, unfinished", IPPROTO_TCP, UNFINISHED, PKT_CSUM_PARTIAL },
		{ "UDP, unfinished", IPPROTO_UDP, UNFINISHED, PKT_CSUM_PARTIAL },
		{ "TCP, wrong", IPPROTO_TCP, WRONG, 0 },
		{ "UDP, wrong", IPPROTO_UDP, WRONG, 0 },
		{ "UDP, none", IPPROTO_UDP, NONE, 0 },
		{ "UDP, shorter than its packet", IPPROTO_UDP, PART, 0 },
	};
	uint32_t len = 1001;

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t *frame = frame_new(len, i, theirs, ours);
		unsigned field = cases[i].proto == IPPROTO_TCP ? 50 : 40;
		struct pkt_offload asks = { 0 };

		frame_make_ip(frame, len, cases[i].proto, 0);
		if (cases[i].sum == PART)
			store_be16(frame + 38, len - 34 - 4);
		if (cases[i].sum == UNFINISHED)
			asks = (struct pkt_offload){ PKT_CSUM_PARTIAL, 0, 0, 34, field - 34 };
		else
			frame_finish(frame, len, field);
		if (cases[i].sum == WRONG)
			frame[len - 1] ^= 0x10;
		if (cases[i].sum == NONE)
			memset(frame + field, 0, 2);
		wire_send(frame, len, &asks);
		wait_until(seen_so_many, i + 1);
		assert_memory_equal(probe.seen[i].bytes, frame, len);
		if (probe.seen[i].offload.flags != cases[i].flags)
			fail_msg("%s: flags are %u", cases[i].what, probe.seen[i].offload.flags);
		if (cases[i].sum == UNFINISHED)
			assert_memory_equal(&probe.seen[i].offload, &asks, sizeof(asks));
		free(frame);
	}
}

static void test_sends_fragments(void **state)
{
	static uint8_t got[FRAME_ROOM];
	struct pkt_offload offload;
	uint8_t *frame = frame_new(1514, 1, ours, theirs);

	if (!have_namespace)
		skip();
	for (unsigned frag_len = 100; frag_len <= 1400; frag_len += 100) {
		probe_emit(frame, 1514, 64 + frag_len % 37, frag_len, 1, &nothing);
		assert_int_equal(wire_recv(got, &offload), 1514);
		assert_memory_equal(got, frame, 1514);
	}
	wait_until(sent_so_many, 14);
	assert_int_equal(COUNTER(send_bytes), 14 * 1514);
	free(frame);
}

/* Far more than there are frames to send from. */
static void test_sends_again_and_again(void **state)
{
	static uint8_t got[FRAME_ROOM];
	struct pkt_offload offload;
	unsigned copies = 10000;
	uint8_t *frame = frame_new(200, 1, ours, theirs);

	if (!have_namespace)
		skip();
	probe_emit(frame, 200, 64, 1000, copies, &nothing);
	for (unsigned i = 0; i < copies; i++) {
		if (wire_recv(got, &offload) != 200)
			fail_msg("%u of %u arrived", i, copies);
		assert_memory_equal(got, frame, 200);
	}
	wait_until(sent_so_many, copies);
	free(frame);
}

/* Each as it is, in order and once, however long the one before was. */
static void test_sends_all_sizes(void **state)
{
	static uint8_t got[FRAME_ROOM];
	struct pkt_offload offload;
	unsigned copies = 5000;
	uint8_t *frame = frame_new(1514, 1, ours, theirs);

	if (!have_namespace)
		skip();
	probe.numbered = true;
	probe_emit(frame, 1514, 64, 700, copies, &nothing);
	for (unsigned i = 0; i < copies; i++) {
		uint32_t len = wire_recv(got, &offload);

		if (len != numbered_len(i) || load_be32(got + 14) != i)
			fail_msg("%u: %u bytes with number %u", i, len, load_be32(got + 14));
		assert_memory_equal(got, frame, 14);
		assert_memory_equal(got + 18, frame + 18, len - 18);
	}
	wait_until(sent_so_many, copies);
	if (port_got("tc bursts")) /* each leaves in one system call */
		assert_true(COUNTER(doorbells) <= copies / PKT_BURST + 1);
	free(frame);
}

/* What the port cannot do is done before it: checksums and segments at the far end are right. */
static void test_sends_without_offloads(void **state)
{
	static const struct pkt_offload tcp = { PKT_CSUM_PARTIAL, PKT_GSO_TCPV4, 1400, 34, 16 };
	static uint8_t got[FRAME_ROOM];
	struct pkt_offload offload;
	uint8_t *frame = frame_new(54 + 14000, 1, ours, theirs);

	if (!have_namespace)
		skip();
	frame_make_ip(frame, 54 + 14000, IPPROTO_TCP, 0);
	probe_emit(frame, 54 + 14000, 64, 4096, 1, &tcp);
	for (unsigned i = 0; i < 10; i++) {
		uint32_t sum = csum_add(htonl(1420), htonl(IPPROTO_TCP));

		assert_int_equal(wire_recv(got, &offload), 54 + 1400);
		sum = csum_partial(got + 26, 8, sum);
		assert_int_equal(csum_fold(csum_partial(got + 34, 1420, sum)), 0);
		assert_memory_equal(got + 54, frame + 54 + i * 1400, 1400);
	}
	free(frame);
}

/* What is received may be shown to others, what is sent is not. */
static void test_frames_are_zones(void **state)
{
	uint32_t shown = 0, hidden = 0;
	const struct zone *last;

	if (!have_namespace)
		skip();
	assert_non_null(uplink->zones[0]);
	last = uplink->zones[0]->zones;
	for (const struct zone *zone = last; zone; last = zone, zone = zone->next) {
		assert_true(zone == last || zone->base == last->base + ZONE_SIZE);
		*(zone->access == ZONE_READ_ONLY ? &shown : &hidden) += ZONE_SIZE;
	}
	assert_int_equal(last->access, ZONE_PRIVATE);
	assert_int_equal(shown, XSK_RX_FRAMES * XSK_FRAME_SMALL);
	assert_in_range(hidden, XSK_TX_FRAMES * XSK_FRAME_SMALL, ZONE_SIZE);
}

static void test_jumbo_frames(void **state)
{
	static uint8_t got[FRAME_ROOM];
	struct pkt_offload offload;
	uint8_t *frame;

	if (!have_namespace)
		skip();
	if (uplink->mtu != JUMBO_MTU)
		skip(); /* the kernel has no multi-buffer */
	for (unsigned i = 0; i < 100; i++) {
		frame = frame_new(9014 - i * 50, i, theirs, ours);
		wire_send(frame, 9014 - i * 50, &nothing);
		wait_until(seen_so_many, i + 1);
		assert_int_equal(probe.seen[i].len, 9014 - i * 50);
		assert_memory_equal(probe.seen[i].bytes, frame, probe.seen[i].len);
		free(frame);
	}
	frame = frame_new(9014, 1, ours, theirs);
	probe_emit(frame, 9014, 64, 1000, 1000, &nothing);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(wire_recv(got, &offload), 9014);
		assert_memory_equal(got, frame, 9014);
	}
	free(frame);
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
		{ { "x", "near0", NULL, 0 }, -EINVAL, "0 queues" },
		{ { "x", "near0", NULL, PORT_QUEUES_MAX + 1 }, -EINVAL, "1 to 16" },
		{ { "x", "no-such", NULL, 1 }, -ENODEV, "no interface 'no-such'" },
		{ { "x", "near0", NULL, 1 }, -EBUSY, "busy" },
		{ { "x", "far0", NULL, 2 }, -EINVAL, "has 1 receive queue" },
		{ { "wire", "far0", NULL, 1 }, -EEXIST, "'wire'" },
		{ { "x", "far0", NULL, 1, 20 }, -EINVAL, "MTU 20" },
	};

	if (!have_namespace)
		skip();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_refused(af_xdp_open, &cases[i].config, cases[i].err, cases[i].says);
}

static void test_restores_the_interface(void **state)
{
	struct uplink_config config = {
		.name = "other", .ifname = "one0", .queues = 1, .mtu = 1400
	};
	struct error error;
	struct port *port;
	uint32_t program;

	if (!have_namespace)
		skip();
	run("ip link add one0 type veth peer name two0");
	if (af_xdp_open(&config, &port, &error))
		fail_msg("%s", error.text);
	assert_int_equal(port->mtu, 1400);
	assert_true(flags_of("one0") & IFF_UP);
	run("ip -d link show one0 | tr -d '\\n' | grep -q ' mtu 1400 xdp.* promiscuity 1 '");
	assert_int_equal(egress_programs("one0", &program), port_got("tc bursts"));
	worker_detach(port);
	port->ops->close(port);
	run("ip -d link show one0 | tr -d '\\n' | grep -q ' mtu 1500 .* promiscuity 0 '");
	run("! ip link show one0 | grep -q xdp");
	assert_int_equal(egress_programs("one0", &program), 0);
	run("ip link del one0");
}

static void test_several_queues(void **state)
{
	struct uplink_config config = { .name = "many", .ifname = "many0", .queues = 4 };
	struct error error;
	struct port *port;

	if (!have_namespace)
		skip();
	run("ip link add many0 numrxqueues 4 numtxqueues 4 type veth peer name far1 numrxqueues 4 "
	    "numtxqueues 4");
	if (af_xdp_open(&config, &port, &error))
		fail_msg("%s", error.text);
	assert_int_equal(port->queues, 4);
	assert_true(port->uplink);
	assert_int_equal(worker_by_id(0)->queue_count, 2 + 4);
	worker_detach(port);
	port->ops->close(port);
	assert_null(port_by_name("many"));
	run("ip link del many0");
}

int main(void)
{
#define TEST(name, set_up) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_receives_all_sizes, set_up),
		TEST(test_receives_all_sizes, set_up_skb),
		TEST(test_receives_again_and_again, set_up),
		TEST(test_checksums_are_judged, set_up),
		TEST(test_checksums_are_judged, set_up_skb),
		TEST(test_sends_fragments, set_up),
		TEST(test_sends_fragments, set_up_skb),
		TEST(test_sends_fragments, set_up_without_bursts),
		TEST(test_sends_again_and_again, set_up),
		TEST(test_sends_again_and_again, set_up_without_bursts),
		TEST(test_sends_all_sizes, set_up),
		TEST(test_sends_all_sizes, set_up_skb),
		TEST(test_sends_all_sizes, set_up_without_bursts),
		TEST(test_sends_without_offloads, set_up),
		TEST(test_frames_are_zones, set_up),
		TEST(test_jumbo_frames, set_up_jumbo),
		TEST(test_refuses_to_open, set_up),
		TEST(test_restores_the_interface, set_up),
		TEST(test_several_queues, set_up),
	};
	return cmocka_run_group_tests(tests, world_begin, world_end);
}
