/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A TAP port, and the virtio_net_hdr that it speaks. The TAP is in a network namespace of the
 * test's own, with a bridge between it and a port that remembers what it was sent:
 *
 *      packet socket -- tap0 (kernel) -- TAP port -- bridge -- probe
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bridge/bridge.h"
#include "pkt/headers.h"
#include "pkt/vnet.h"
#include "port/worker.h"
#include "uplink/tap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h> /* last: it defines fail() */

enum { TEST_PROTOCOL = 0x88b5, WAIT_MSEC = 5000, FRAMES_MAX = 512, FRAME_ROOM = 1 << 17 };

static const uint8_t ours[6] = { 0x52, 0, 0, 0, 0, 1 }, theirs[6] = { 0x52, 0, 0, 0, 0, 2 };

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

struct seen {
	uint8_t *bytes;
	uint32_t len;
	uint16_t header_len, frag_count;
	struct pkt_offload offload;
};

/* The port at the other end of the bridge, and what it is to send: one packet at a time. */
static struct probe {
	struct port port;
	int wake_fd;
	_Atomic unsigned count;
	struct seen seen[FRAMES_MAX];

	_Atomic bool pending;
	uint8_t *bytes;
	uint32_t len;
	unsigned header_len, frag_len; /* header[] and each fragment take so much */
	struct pkt_offload offload;
} probe;

static struct bridge *bridge;
static struct port *tap;
static int wire; /* packet socket on tap0 */

static void probe_send(struct port *port, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct seen *seen = &probe.seen[probe.count];

		if (memcmp(pkts[i]->header, theirs, 6) != 0 || probe.count == FRAMES_MAX) {
			pkt_put(pkts[i]); /* the kernel's own: neighbour discovery */
			continue;
		}
		seen->bytes = malloc(pkts[i]->len);
		seen->len = pkts[i]->len;
		seen->header_len = pkts[i]->header_len;
		seen->frag_count = pkts[i]->frag_count;
		seen->offload = pkts[i]->offload;
		pkt_copy_out(pkts[i], 0, seen->bytes, seen->len);
		pkt_put(pkts[i]);
		probe.count++;
	}
}

static unsigned probe_recv(struct port *port, unsigned queue, struct pkt **pkts, unsigned n)
{
	struct pkt *pkt;

	if (!probe.pending || !pkt_pool_get(&worker_self->pool, &pkt, 1))
		return 0;
	pkt->in_port = port->id;
	pkt->len = probe.len;
	pkt->header_len = probe.header_len;
	memcpy(pkt->header, probe.bytes, probe.header_len);
	for (uint32_t off = probe.header_len; off < probe.len; off += probe.frag_len) {
		uint32_t left = probe.len - off;

		pkt->frags[pkt->frag_count].iov_base = probe.bytes + off;
		pkt->frags[pkt->frag_count++].iov_len = left < probe.frag_len ? left
									      : probe.frag_len;
	}
	pkt->offload = probe.offload;
	if (!pkt_needs_nothing(pkt) && !headers_check_offload(pkt))
		abort(); /* the test's fault */
	pkts[0] = pkt;
	probe.pending = false;
	return 1;
}

static bool probe_arm(struct port *port, unsigned queue)
{
	return probe.pending;
}

static void probe_disarm(struct port *port, unsigned queue)
{
}

static const struct port_ops probe_ops = {
	.kind = "probe",
	.recv = probe_recv,
	.send = probe_send,
	.arm = probe_arm,
	.disarm = probe_disarm,
};

static bool have_namespace;

static int start(void **state)
{
	struct worker_config config = { .count = 1, .idle_spin_usec = -1 };

	have_namespace = unshare(CLONE_NEWNET) == 0 && access("/dev/net/tun", R_OK | W_OK) == 0;
	return have_namespace ? workers_start(&config) : 0;
}

static int stop(void **state)
{
	if (have_namespace)
		workers_stop();
	return 0;
}

static int wire_open(const char *ifname)
{
	int fd = socket(AF_PACKET, SOCK_RAW, htons(TEST_PROTOCOL));
	struct ifreq ifr = { 0 };
	struct timeval timeout = { .tv_sec = WAIT_MSEC / 1000 };
	int on = 1;

	strcpy(ifr.ifr_name, ifname);
	assert_int_equal(ioctl(fd, SIOCGIFINDEX, &ifr), 0);

	struct sockaddr_ll where = { .sll_family = AF_PACKET,
				     .sll_protocol = htons(ETH_P_ALL),
				     .sll_ifindex = ifr.ifr_ifindex };

	assert_int_equal(bind(fd, (void *)&where, sizeof(where)), 0);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
	setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	return fd;
}

static int set_up(void **state)
{
	struct uplink_config config = {
		.name = "wire",
		.ifname = "tap0",
		.queues = 1,
		.caps_mask = UINT32_MAX,
	};
	struct error error;

	if (!have_namespace)
		return 0;
	memset(&probe, 0, sizeof(probe));
	strcpy(probe.port.name, "probe");
	probe.port.ops = &probe_ops;
	probe.port.queues = 1;
	probe.port.caps = ~0u;
	probe.port.mtu = UINT16_MAX;
	probe.wake_fd = eventfd(0, EFD_NONBLOCK);

	assert_int_equal(bridge_create("br0", 0, 0, &bridge, &error), 0);
	workers_pause();
	assert_int_equal(port_register(&probe.port), 0);
	worker_attach(&probe.port);
	assert_int_equal(worker_watch(&probe.port, 0, probe.wake_fd), 0);
	workers_resume();
	if (tap_open(&config, &tap, &error))
		fail_msg("%s", error.text);
	assert_int_equal(bridge_add_port(bridge, tap, &error), 0);
	assert_int_equal(bridge_add_port(bridge, &probe.port, &error), 0);
	mac_table_add_static(&bridge->fdb, ours, tap->id);
	mac_table_add_static(&bridge->fdb, theirs, probe.port.id);
	wire = wire_open("tap0");
	return 0;
}

static int tear_down(void **state)
{
	if (!have_namespace)
		return 0;
	bridge_remove_port(tap);
	bridge_remove_port(&probe.port);
	worker_detach(tap);
	worker_detach(&probe.port);
	workers_pause();
	tap->ops->close(tap);
	port_unregister(&probe.port);
	/* Every packet is back where it came from. */
	struct worker *worker = worker_by_id(0);

	assert_int_equal(worker->pool.free_count, worker->pool.capacity);
	workers_resume();
	bridge_destroy(bridge);
	close(wire);
	close(probe.wake_fd);
	for (unsigned i = 0; i < probe.count; i++)
		free(probe.seen[i].bytes);
	return 0;
}

static uint64_t counter(const struct port *port, size_t offset)
{
	struct port_stats sum;

	port_stats_sum(port, &sum);
	return *(uint64_t *)((char *)&sum + offset);
}
#define COUNTER(port, name) counter(port, offsetof(struct port_stats, name))

static void wait_until(bool (*condition)(uint64_t arg), uint64_t arg)
{
	for (unsigned i = 0; i < WAIT_MSEC && !condition(arg); i++)
		usleep(1000);
	assert_true(condition(arg));
}

static bool seen_so_many(uint64_t n)
{
	return probe.count >= n;
}

static uint64_t sent_or_dropped(void)
{
	return COUNTER(tap, send_packets) + COUNTER(tap, drop_too_big) +
	       COUNTER(tap, drop_device_error);
}

static bool sent_so_many(uint64_t n)
{
	return sent_or_dropped() >= n;
}

/* A frame of ours with a payload that tells frames and offsets apart. */
static uint8_t *frame_new(uint32_t len, unsigned number, const uint8_t *to, const uint8_t *from)
{
	uint8_t *frame = malloc(len);

	for (uint32_t i = 0; i < len; i++)
		frame[i] = i * 7 + i / 256 + number;
	memcpy(frame, to, 6);
	memcpy(frame + 6, from, 6);
	store_be16(frame + 12, TEST_PROTOCOL);
	return frame;
}

/* Make it an IPv4/TCP packet with a pseudo-header checksum that is to be finished. */
static void frame_make_tcp(uint8_t *frame, uint32_t len)
{
	uint8_t *ip = frame + 14, *tcp = ip + 20;

	store_be16(frame + 12, ETHERTYPE_IP);
	memset(ip, 0, 40);
	ip[0] = 0x45;
	store_be16(ip + 2, len - 14);
	ip[8] = 64;
	ip[9] = IPPROTO_TCP;
	store_be32(ip + 12, 0x0a000001);
	store_be32(ip + 16, 0x0a000002);
	tcp[12] = 0x50;
	tcp[13] = 0x10;
}

static const struct pkt_offload tcp_1400 = { PKT_CSUM_PARTIAL, PKT_GSO_TCPV4, 1400, 34, 16 };

/* Into the kernel's interface, so that the TAP port receives it. */
static void wire_send(const uint8_t *frame, uint32_t len, const struct pkt_offload *offload)
{
	uint8_t vnet[VNET_LEN];
	struct iovec iov[2] = { { vnet, 10 }, { (void *)frame, len } };

	vnet_from_offload(offload, 54, vnet);
	assert_int_equal(writev(wire, iov, 2), 10 + len);
}

/* Next frame of ours from the kernel's interface; its length, 0 after a while without. */
static uint32_t wire_recv(uint8_t *frame, struct pkt_offload *offload)
{
	uint8_t vnet[VNET_LEN] = { 0 };
	struct iovec iov[2] = { { vnet, 10 }, { frame, FRAME_ROOM } };
	ssize_t got;

	do {
		got = readv(wire, iov, 2);
	} while (got > 0 && memcmp(frame, ours, 6) != 0);
	assert_true(got < 0 || vnet_to_offload(vnet, offload));
	return got < 0 ? 0 : got - 10;
}

/* Let the probe send a frame to the TAP port, and wait until that is done with it. */
static void probe_emit(uint8_t *frame, uint32_t len, unsigned header_len, unsigned frag_len,
		       const struct pkt_offload *offload)
{
	uint64_t before = sent_or_dropped();

	probe.bytes = frame;
	probe.len = len;
	probe.header_len = header_len;
	probe.frag_len = frag_len;
	probe.offload = *offload;
	probe.pending = true;
	eventfd_write(probe.wake_fd, 1);
	wait_until(sent_so_many, before + 1);
}

static const struct pkt_offload nothing = { 0 };

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
		assert_int_equal(seen->len, sizes[i]);
		assert_memory_equal(seen->bytes, frame, sizes[i]);
		assert_memory_equal(&seen->offload, &nothing, sizeof(nothing));
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
	frame_make_tcp(frame, len);
	for (unsigned i = 0; i < 20; i++)
		wire_send(frame, len, &tcp_1400);
	wait_until(seen_so_many, 20);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(probe.seen[i].len, len);
		assert_memory_equal(probe.seen[i].bytes, frame, len);
		assert_memory_equal(&probe.seen[i].offload, &tcp_1400, sizeof(tcp_1400));
	}
	assert_int_equal(COUNTER(tap, recv_gso_packets), 20);
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
		assert_int_equal(probe.seen[i].len, lens[i]);
		assert_memory_equal(probe.seen[i].bytes, frames[i], lens[i]);
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
	frame_make_tcp(frame, len);
	probe_emit(frame, len, 100, 1000, &tcp_1400);
	assert_int_equal(wire_recv(got, &offload), len);
	assert_memory_equal(got, frame, len);
	assert_memory_equal(&offload, &tcp_1400, sizeof(offload));
	assert_int_equal(COUNTER(tap, send_gso_packets), 1);
	assert_int_equal(COUNTER(tap, send_bytes), len);
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
		probe_emit(frame, cases[i].len, 64, 4096, &nothing);
		dropped += !cases[i].fits;
		assert_int_equal(COUNTER(tap, drop_too_big), dropped);
		if (cases[i].fits)
			assert_in_range(wire_recv(got, &offload), 1514, 1518);
	}
	/* Of a packet that is to be segmented, each segment. */
	frame_make_tcp(frame, 10000);
	large.gso_size = 1461;
	probe_emit(frame, 10000, 64, 4096, &large);
	assert_int_equal(COUNTER(tap, drop_too_big), dropped + 1);
	large.gso_size = 1460;
	probe_emit(frame, 10000, 64, 4096, &large);
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
	probe_emit(frame, 100, 64, 100, &nothing);
	assert_int_equal(COUNTER(tap, drop_device_error), 1);
	assert_int_equal(COUNTER(tap, send_packets), 0);
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
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error error = { "" };
		struct port *port;

		assert_int_equal(tap_open(&cases[i].config, &port, &error), cases[i].err);
		if (!strstr(error.text, cases[i].says))
			fail_msg("'%s' does not say '%s'", error.text, cases[i].says);
	}
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
		TEST(test_refuses_to_open),
		TEST(test_several_queues),
	};
	return cmocka_run_group_tests(tests, start, stop);
}
