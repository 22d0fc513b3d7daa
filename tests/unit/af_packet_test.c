/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An AF_PACKET port on one end of a veth pair, in a network namespace of the test's own, with a
 * bridge between it and a port that remembers what it was sent:
 *
 *      packet socket -- far0 == near0 -- AF_PACKET port -- bridge -- probe
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
#include "uplink/af_packet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h> /* last: it defines fail() */

enum {
	TEST_PROTOCOL = 0x88b5,
	WAIT_MSEC = 5000,
	FRAMES_MAX = 512,
	FRAME_ROOM = 1 << 17,
	JUMBO_MTU = 9000,
};

static const uint8_t ours[6] = { 0x52, 0, 0, 0, 0, 1 }, theirs[6] = { 0x52, 0, 0, 0, 0, 2 };

struct seen {
	uint8_t *bytes;
	uint32_t len;
	uint16_t header_len, frag_count;
	struct pkt_offload offload;
};

/* The port at the other end of the bridge, and what it is to send: copies of one packet. */
static struct probe {
	struct port port;
	int wake_fd;
	_Atomic unsigned count;
	struct seen seen[FRAMES_MAX];

	_Atomic unsigned pending;
	uint8_t *bytes;
	uint32_t len;
	unsigned header_len, frag_len; /* header[] and each fragment take so much */
	struct pkt_offload offload;
} probe;

static struct bridge *bridge;
static struct port *packet;
static int wire; /* packet socket on far0 */

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
	unsigned count = 0;

	while (count < n && probe.pending > 0 &&
	       pkt_pool_get(&worker_self->pool, &pkts[count], 1)) {
		struct pkt *pkt = pkts[count++];

		pkt->in_port = port->id;
		pkt->len = probe.len;
		pkt->header_len = probe.header_len;
		memcpy(pkt->header, probe.bytes, probe.header_len);
		for (uint32_t off = probe.header_len; off < probe.len; off += probe.frag_len) {
			uint32_t left = probe.len - off;

			pkt->frags[pkt->frag_count].iov_base = probe.bytes + off;
			pkt->frags[pkt->frag_count++].iov_len = left < probe.frag_len
									? left
									: probe.frag_len;
		}
		pkt->offload = probe.offload;
		if (!pkt_needs_nothing(pkt) && !headers_check_offload(pkt))
			abort(); /* the test's fault */
		probe.pending--;
	}
	return count;
}

static bool probe_arm(struct port *port, unsigned queue)
{
	return probe.pending > 0;
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

/* ---- the pair ---- */

static bool have_namespace;

static void run(const char *command)
{
	if (system(command))
		fail_msg("'%s' failed", command);
}

static int start(void **state)
{
	struct worker_config config = { .count = 1, .idle_spin_usec = -1 };

	/* The kernel has nothing to say there itself. */
	have_namespace = unshare(CLONE_NEWNET) == 0 &&
			 system("echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/default/disable_ipv6; "
				"ip link set lo up") == 0;
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
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct ifreq ifr = { 0 };
	struct timeval timeout = { .tv_sec = WAIT_MSEC / 1000 };
	int on = 1, room = 16 << 20;

	strcpy(ifr.ifr_name, ifname);
	assert_int_equal(ioctl(fd, SIOCGIFINDEX, &ifr), 0);

	struct sockaddr_ll where = { .sll_family = AF_PACKET,
				     .sll_protocol = htons(ETH_P_ALL),
				     .sll_ifindex = ifr.ifr_ifindex };

	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
	setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	assert_int_equal(bind(fd, (void *)&where, sizeof(where)), 0);
	return fd;
}

static short flags_of(const char *ifname)
{
	struct ifreq ifr = { 0 };

	strcpy(ifr.ifr_name, ifname);
	assert_int_equal(ioctl(wire, SIOCGIFFLAGS, &ifr), 0);
	return ifr.ifr_flags;
}

/* Until the far end is up: what is sent before is lost. */
static void wait_for_carrier(const char *ifname)
{
	for (unsigned ms = 0; ms < WAIT_MSEC && !(flags_of(ifname) & IFF_RUNNING); ms++)
		usleep(1000);
	assert_true(flags_of(ifname) & IFF_RUNNING);
	usleep(10000); /* from saying so to doing so */
}

static int set_up_as(uint32_t caps_mask)
{
	struct uplink_config config = {
		.name = "wire", .ifname = "near0", .queues = 1, .caps_mask = caps_mask
	};
	struct error error;

	if (!have_namespace)
		return 0;
	run("ip link add near0 type veth peer name far0 && ip link set far0 up");
	memset(&probe, 0, sizeof(probe));
	strcpy(probe.port.name, "probe");
	probe.port.ops = &probe_ops;
	probe.port.queues = 1;
	probe.port.mtu = JUMBO_MTU;
	probe.port.caps = ~0u;
	probe.wake_fd = eventfd(0, EFD_NONBLOCK);

	assert_int_equal(bridge_create("br0", 0, 0, &bridge, &error), 0);
	workers_pause();
	assert_int_equal(port_register(&probe.port), 0);
	worker_attach(&probe.port);
	assert_int_equal(worker_watch(&probe.port, 0, probe.wake_fd), 0);
	workers_resume();
	if (af_packet_open(&config, &packet, &error))
		fail_msg("%s", error.text);
	assert_int_equal(bridge_add_port(bridge, packet, &error), 0);
	assert_int_equal(bridge_add_port(bridge, &probe.port, &error), 0);
	mac_table_add_static(&bridge->fdb, ours, packet->id);
	mac_table_add_static(&bridge->fdb, theirs, probe.port.id);
	wire = wire_open("far0");
	wait_for_carrier("far0");
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
	bridge_remove_port(packet);
	bridge_remove_port(&probe.port);
	worker_detach(packet);
	worker_detach(&probe.port);
	workers_pause();
	packet->ops->close(packet);
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
	run("ip link del near0");
	return 0;
}

static uint64_t counter(const struct port *port, size_t offset)
{
	struct port_stats sum;

	port_stats_sum(port, &sum);
	return *(uint64_t *)((char *)&sum + offset);
}
#define COUNTER(port, name) counter(port, offsetof(struct port_stats, name))

static void wait_until_seen(unsigned n)
{
	for (unsigned i = 0; i < WAIT_MSEC && probe.count < n; i++)
		usleep(1000);
	assert_int_equal(probe.count, n);
}

/* A frame with a payload that tells frames and offsets apart. */
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

/* Make it an IPv4/TCP packet behind tag_len bytes of VLAN tags, its checksum to be finished. */
static void frame_make_tcp(uint8_t *frame, uint32_t len, unsigned tag_len)
{
	uint8_t *ip = frame + 14 + tag_len, *tcp = ip + 20;

	if (tag_len) {
		store_be16(frame + 12, 0x8100);
		store_be16(frame + 14, 0x2005);
	}
	store_be16(ip - 2, ETHERTYPE_IP);
	memset(ip, 0, 40);
	ip[0] = 0x45;
	store_be16(ip + 2, len - 14 - tag_len);
	ip[8] = 64;
	ip[9] = IPPROTO_TCP;
	store_be32(ip + 12, 0x0a000001);
	store_be32(ip + 16, 0x0a000002);
	tcp[12] = 0x50;
	tcp[13] = 0x10;
}

static const struct pkt_offload nothing = { 0 };
static const struct pkt_offload tcp_1400 = { PKT_CSUM_PARTIAL, PKT_GSO_TCPV4, 1400, 34, 16 };

static void wire_send(const uint8_t *frame, uint32_t len, const struct pkt_offload *offload)
{
	uint8_t vnet[VNET_LEN];
	struct iovec iov[2] = { { vnet, 10 }, { (void *)frame, len } };

	vnet_from_offload(offload, offload->csum_start + 20, vnet);
	assert_int_equal(writev(wire, iov, 2), 10 + len);
}

/* Next frame of ours at the far end; its length, 0 after a while without. */
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

/* Let the probe send a frame so many times. */
static void probe_emit(uint8_t *frame, uint32_t len, unsigned header_len, unsigned frag_len,
		       const struct pkt_offload *offload, unsigned times)
{
	probe.bytes = frame;
	probe.len = len;
	probe.header_len = header_len;
	probe.frag_len = frag_len;
	probe.offload = *offload;
	probe.pending = times;
	eventfd_write(probe.wake_fd, 1);
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
	wait_until_seen(FRAMES_MAX);
	for (unsigned i = 0; i < FRAMES_MAX; i++) {
		uint32_t len = sizes[i % count];

		assert_int_equal(probe.seen[i].len, len);
		assert_memory_equal(probe.seen[i].bytes, frames[i], len);
		assert_int_equal(probe.seen[i].header_len, len < 192 ? len : 192);
		assert_int_equal(probe.seen[i].frag_count, len > 192);
		free(frames[i]);
	}
	assert_int_equal(COUNTER(packet, recv_packets), FRAMES_MAX);
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

		frame_make_tcp(frame, len, tag_len);
		want.csum_start += tag_len;
		if (len < 1400) {
			want.gso_type = PKT_GSO_NONE;
			want.gso_size = 0;
		}
		for (unsigned times = 0; times < 10; times++)
			wire_send(frame, len, &want);
		wait_until_seen(10 * (i + 1));
		for (unsigned times = 0; times < 10; times++) {
			const struct seen *seen = &probe.seen[10 * i + times];

			assert_int_equal(seen->len, len);
			assert_memory_equal(seen->bytes, frame, len);
			assert_memory_equal(&seen->offload, &want, sizeof(want));
		}
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
	frame_make_tcp(frame, len, 0);
	probe_emit(frame, len, 100, 1000, &tcp_1400, 40);
	for (unsigned i = 0; i < 40; i++) {
		assert_int_equal(wire_recv(got, &offload), len);
		assert_memory_equal(got, frame, len);
		assert_memory_equal(&offload, &tcp_1400, sizeof(offload));
	}
	/* The last are counted after they have been seen. */
	for (unsigned msec = 0; msec < 5000 && COUNTER(packet, send_gso_packets) < 40; msec++)
		usleep(1000);
	assert_int_equal(COUNTER(packet, send_gso_packets), 40);
	assert_int_equal(COUNTER(packet, send_bytes), 40 * len);
	assert_int_equal(COUNTER(packet, recv_packets), 0); /* nothing of its own comes back */
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
	assert_int_equal(packet->caps, 0);
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		uint8_t *frame = frame_new(lens[i], i, ours, theirs);

		probe_emit(frame, lens[i], 64, 100, &nothing, 1);
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
	probe_emit(frame, 100, 64, 100, &nothing, 10);
	for (unsigned i = 0; i < WAIT_MSEC && COUNTER(packet, drop_device_error) < 10; i++)
		usleep(1000);
	assert_int_equal(COUNTER(packet, drop_device_error), 10);
	assert_int_equal(COUNTER(packet, send_packets), 0);
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
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error error = { "" };
		struct port *port;

		assert_int_equal(af_packet_open(&cases[i].config, &port, &error), cases[i].err);
		if (!strstr(error.text, cases[i].says))
			fail_msg("'%s' does not say '%s'", error.text, cases[i].says);
	}
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
		TEST(test_refuses_to_open, set_up),
	};
	return cmocka_run_group_tests(tests, start, stop);
}
