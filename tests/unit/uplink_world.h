/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A world around one uplink, for the tests of tap.c, af_packet.c and af_xdp.c: its interface in a
 * network namespace of the test's own, a packet socket on the other side of that, and a bridge to a
 * port that remembers what it was sent. One worker polls both ports:
 *
 *      theirs                                                       ours
 *      packet socket -- interface(s) -- uplink under test -- bridge -- probe
 *
 *      wire_send() -------------------------------------------------> probe.seen[]
 *      wire_recv() <------------------------------------------------- probe_emit()
 *
 * The interface is the kernel's side of a TAP, or a veth pair: the uplink has near0, the socket
 * far0. Addresses are static entries of the bridge; what has others is the kernel's own and is
 * looked away from, at both ends. world_close() sees to it that every packet is back where it came
 * from.
 */
#ifndef VIFD_TEST_UPLINK_WORLD_H
#define VIFD_TEST_UPLINK_WORLD_H

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
#include "pkt/csum.h"
#include "pkt/headers.h"
#include "pkt/vnet.h"
#include "port/worker.h"
#include "uplink/recv_bufs.h"
#include "uplink/uplink.h"
#include "zone/zone_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h> /* last: it defines fail() */

enum {
	TEST_PROTOCOL = 0x88b5, /* for local experiments */
	WAIT_MSEC = 5000,
	FRAMES_MAX = 512,
	FRAME_ROOM = 1 << 17,
	JUMBO_MTU = 9000,
};

static const uint8_t ours[6] = { 0x52, 0, 0, 0, 0, 1 }, theirs[6] = { 0x52, 0, 0, 0, 0, 2 };

static const struct pkt_offload nothing = { 0 };
static const struct pkt_offload tcp_1400 = { PKT_CSUM_PARTIAL, PKT_GSO_TCPV4, 1400, 34, 16 };

/* ---- the probe ---- */

struct seen {
	uint8_t *bytes;
	uint32_t len;
	uint16_t header_len, frag_count;
	bool in_zones; /* all fragments */
	struct pkt_offload offload;
};

/* The port at the other end of the bridge, and what it is to send: copies of one packet. */
static struct probe {
	struct port port;
	int wake_fd;
	_Atomic unsigned count;
	struct seen seen[FRAMES_MAX];

	_Atomic bool keeps; /* packets that it is sent, until it keeps no more */
	struct pkt *kept[FRAMES_MAX];
	unsigned kept_count;

	_Atomic unsigned pending;
	uint8_t *bytes;
	uint32_t len;
	unsigned header_len, frag_len; /* header[] and each fragment take so much */
	struct pkt_offload offload;
	bool numbered;    /* copies differ: in length, and in the number in bytes 14 to 17 */
	unsigned numbers; /* given so far */
} probe;

static inline uint32_t numbered_len(unsigned number)
{
	return 18 + number * 61 % 1497;
}

static inline void probe_see(const struct pkt *pkt)
{
	struct seen *seen = &probe.seen[probe.count];
	struct error error;

	seen->bytes = malloc(pkt->len);
	seen->len = pkt->len;
	seen->header_len = pkt->header_len;
	seen->frag_count = pkt->frag_count;
	seen->offload = pkt->offload;
	seen->in_zones = true;
	for (unsigned i = 0; i < pkt->frag_count; i++)
		seen->in_zones &= zone_of(zone_host(&error), pkt->frags[i].iov_base) != NULL;
	pkt_copy_out(pkt, 0, seen->bytes, seen->len);
	probe.count++;
}

static void probe_send(struct port *port, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (memcmp(pkts[i]->header, theirs, 6) == 0 && probe.count < FRAMES_MAX) {
			probe_see(pkts[i]);
			if (probe.keeps) {
				probe.kept[probe.kept_count++] = pkts[i];
				continue;
			}
		}
		pkt_put(pkts[i]);
	}
}

static inline void probe_fill(struct pkt *pkt)
{
	pkt->len = probe.numbered ? numbered_len(probe.numbers) : probe.len;
	pkt->header_len = pkt->len < probe.header_len ? pkt->len : probe.header_len;
	memcpy(pkt->header, probe.bytes, pkt->header_len);
	if (probe.numbered)
		store_be32(pkt->header + 14, probe.numbers++);
	for (uint32_t off = pkt->header_len; off < pkt->len; off += probe.frag_len) {
		uint32_t left = pkt->len - off;

		pkt->frags[pkt->frag_count++] = (struct iovec){
			probe.bytes + off, left < probe.frag_len ? left : probe.frag_len
		};
	}
	pkt->offload = probe.offload;
	if (!pkt_needs_nothing(pkt) && !headers_check_offload(pkt))
		abort(); /* the test's fault */
}

static unsigned probe_recv(struct port *port, unsigned queue, struct pkt **pkts, unsigned n)
{
	unsigned count = 0;

	while (!probe.keeps && probe.kept_count > 0)
		pkt_put(probe.kept[--probe.kept_count]);
	while (count < n && probe.pending > 0 &&
	       pkt_pool_get(&worker_self->pool, &pkts[count], 1)) {
		pkts[count]->in_port = port->id;
		probe_fill(pkts[count++]);
		probe.pending--;
	}
	return count;
}

static bool probe_arm(struct port *port, unsigned queue)
{
	return probe.pending > 0 || (!probe.keeps && probe.kept_count > 0);
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

/* Let the probe send copies of a frame to the uplink. */
static inline void probe_emit(uint8_t *frame, uint32_t len, unsigned header_len, unsigned frag_len,
			      unsigned copies, const struct pkt_offload *offload)
{
	probe.bytes = frame;
	probe.len = len;
	probe.header_len = header_len;
	probe.frag_len = frag_len;
	probe.offload = *offload;
	probe.pending = copies;
	eventfd_write(probe.wake_fd, 1);
}

/* From now on it keeps nothing that it is sent, and gives back what it has kept. */
static inline void probe_let_go(void)
{
	probe.keeps = false;
	eventfd_write(probe.wake_fd, 1);
}

/* ---- the world ---- */

static bool have_namespace; /* else tests are skipped */
static struct bridge *bridge;
static struct port *uplink; /* under test */
static int wire;            /* packet socket on the far side of its interface */

static inline void run(const char *command)
{
	if (system(command))
		fail_msg("'%s' failed", command);
}

/* For a group of tests. */
static inline int world_begin(void **state)
{
	struct worker_config config = { .count = 1, .idle_spin_usec = -1 };

	/* The kernel has nothing to say there itself. */
	have_namespace = unshare(CLONE_NEWNET) == 0 &&
			 system("echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/default/disable_ipv6; "
				"ip link set lo up") == 0;
	return have_namespace ? workers_start(&config) : 0;
}

static inline int world_end(void **state)
{
	if (have_namespace)
		workers_stop();
	return 0;
}

static inline int wire_open(const char *ifname)
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

static inline short flags_of(const char *ifname)
{
	struct ifreq ifr = { 0 };

	strcpy(ifr.ifr_name, ifname);
	assert_int_equal(ioctl(wire, SIOCGIFFLAGS, &ifr), 0);
	return ifr.ifr_flags;
}

/* Until the interface is up: what is sent before is lost. */
static inline void wait_for_carrier(const char *ifname)
{
	for (unsigned ms = 0; ms < WAIT_MSEC && !(flags_of(ifname) & IFF_RUNNING); ms++)
		usleep(1000);
	assert_true(flags_of(ifname) & IFF_RUNNING);
	usleep(10000); /* from saying so to doing so */
}

/* The uplink that open() opens, and all around it. far: the interface that the socket is on. */
static inline void world_open(int (*open)(const struct uplink_config *, struct port **,
					  struct error *),
			      const struct uplink_config *config, const char *far)
{
	struct error error;

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
	if (open(config, &uplink, &error))
		fail_msg("%s", error.text);
	assert_int_equal(bridge_add_port(bridge, uplink, &error), 0);
	assert_int_equal(bridge_add_port(bridge, &probe.port, &error), 0);
	mac_table_add_static(&bridge->fdb, ours, uplink->id);
	mac_table_add_static(&bridge->fdb, theirs, probe.port.id);
	wire = wire_open(far);
	wait_for_carrier(far);
}

static inline void world_close(void)
{
	struct worker *worker = worker_by_id(0);

	bridge_remove_port(uplink);
	bridge_remove_port(&probe.port);
	worker_detach(uplink);
	worker_detach(&probe.port);
	workers_pause();
	uplink->ops->close(uplink);
	port_unregister(&probe.port);
	assert_int_equal(worker->pool.free_count, worker->pool.capacity);
	workers_resume();
	bridge_destroy(bridge);
	close(wire);
	close(probe.wake_fd);
	for (unsigned i = 0; i < probe.count; i++)
		free(probe.seen[i].bytes);
}

static inline uint64_t counter(const struct port *port, size_t offset)
{
	struct port_stats sum;

	port_stats_sum(port, &sum);
	return *(uint64_t *)((char *)&sum + offset);
}
#define COUNTER(name) counter(uplink, offsetof(struct port_stats, name))

static inline void wait_until(bool (*condition)(uint64_t arg), uint64_t arg)
{
	for (unsigned i = 0; i < WAIT_MSEC && !condition(arg); i++)
		usleep(1000);
	assert_true(condition(arg));
}

static inline bool seen_so_many(uint64_t n)
{
	return probe.count >= n;
}

/* Counted when the kernel has taken them, which may be after they arrived. */
static inline bool sent_so_many(uint64_t n)
{
	return COUNTER(send_packets) == n;
}

/* ---- frames ---- */

/* A frame with a payload that tells frames and offsets apart. */
static inline uint8_t *frame_new(uint32_t len, unsigned number, const uint8_t *to,
				 const uint8_t *from)
{
	uint8_t *frame = malloc(len);

	for (uint32_t i = 0; i < len; i++)
		frame[i] = i * 7 + i / 256 + number;
	memcpy(frame, to, 6);
	memcpy(frame + 6, from, 6);
	store_be16(frame + 12, TEST_PROTOCOL);
	return frame;
}

/*
 * Make it an IPv4 packet of TCP or UDP behind tag_len bytes of VLAN tags, with the pseudo header's
 * sum where the checksum belongs.
 */
static inline void frame_make_ip(uint8_t *frame, uint32_t len, uint8_t proto, unsigned tag_len)
{
	uint8_t *ip = frame + 14 + tag_len, *l4 = ip + 20;
	uint32_t l4_len = len - tag_len - 34, sum = csum_add(htonl(l4_len), htonl(proto));
	uint16_t field;

	if (tag_len) {
		store_be16(frame + 12, 0x8100);
		store_be16(frame + 14, 0x2005);
	}
	store_be16(ip - 2, ETHERTYPE_IP);
	memset(ip, 0, proto == IPPROTO_TCP ? 40 : 28);
	ip[0] = 0x45;
	store_be16(ip + 2, 20 + l4_len);
	ip[8] = 64;
	ip[9] = proto;
	store_be32(ip + 12, 0x0a000001);
	store_be32(ip + 16, 0x0a000002);
	field = csum_fold_partial(csum_partial(ip + 12, 8, sum));
	if (proto == IPPROTO_TCP) {
		l4[12] = 0x50;
		l4[13] = 0x10;
		memcpy(l4 + 16, &field, 2);
	} else {
		store_be16(l4 + 4, l4_len);
		memcpy(l4 + 6, &field, 2);
	}
}

/* To the uplink, which receives it. */
static inline void wire_send(const uint8_t *frame, uint32_t len, const struct pkt_offload *offload)
{
	uint8_t vnet[VNET_LEN];
	struct iovec iov[2] = { { vnet, VNET_LEN_LEGACY }, { (void *)frame, len } };

	vnet_from_offload(offload, offload->csum_start + 20, vnet);
	assert_int_equal(writev(wire, iov, 2), VNET_LEN_LEGACY + len);
}

/* The next frame that the uplink has sent; its length, 0 after a while without. */
static inline uint32_t wire_recv(uint8_t *frame, struct pkt_offload *offload)
{
	uint8_t vnet[VNET_LEN] = { 0 };
	struct iovec iov[2] = { { vnet, VNET_LEN_LEGACY }, { frame, FRAME_ROOM } };
	ssize_t got;

	do {
		got = readv(wire, iov, 2);
	} while (got > 0 && memcmp(frame, ours, 6) != 0);
	assert_true(got < 0 || vnet_to_offload(vnet, offload));
	return got < 0 ? 0 : got - VNET_LEN_LEGACY;
}

/* ---- what every uplink has to do ---- */

static inline void expect_seen(unsigned number, const uint8_t *frame, uint32_t len,
			       const struct pkt_offload *offload)
{
	const struct seen *seen = &probe.seen[number];

	assert_int_equal(seen->len, len);
	assert_memory_equal(seen->bytes, frame, len);
	assert_memory_equal(&seen->offload, offload, sizeof(*offload));
}

/* One that could not be opened: err, and a sentence that says so. */
static inline void expect_refused(int (*open)(const struct uplink_config *, struct port **,
					      struct error *),
				  const struct uplink_config *config, int err, const char *says)
{
	struct error error = { "" };
	struct port *port;
	int fd = eventfd(0, 0), got = open(config, &port, &error), after = eventfd(0, 0);

	if (got != err || !strstr(error.text, says))
		fail_msg("%d, '%s' is not %d, '%s'", got, error.text, err, says);
	assert_int_equal(after, fd + 1); /* nothing is left open, nor closed that is not its own */
	close(after);
	close(fd);
}

/*
 * Of an uplink with recv_bufs: packets that are kept lie in the zone as long as there is room, then
 * beside it; then no more come in, until they are let go.
 */
static inline void expect_goes_on_when_kept(void)
{
	const unsigned most = RECV_LARGES + RECV_SPARES, more = most + 6;
	const uint32_t len = 60000;
	uint8_t *frames[RECV_LARGES + RECV_SPARES + 7];

	probe.keeps = true;
	for (unsigned i = 0; i <= more; i++) {
		frames[i] = frame_new(len, i, theirs, ours);
		frame_make_ip(frames[i], len, IPPROTO_TCP, 0);
	}
	for (unsigned i = 0; i < more; i++)
		wire_send(frames[i], len, &tcp_1400);
	wait_until(seen_so_many, most);
	usleep(50000);
	assert_int_equal(probe.count, most);
	for (unsigned i = 0; i < most; i++)
		assert_int_equal(probe.seen[i].in_zones, i < RECV_LARGES);
	probe_let_go();
	wait_until(seen_so_many, more);
	wire_send(frames[more], len, &tcp_1400);
	wait_until(seen_so_many, more + 1);
	assert_true(probe.seen[more].in_zones);
	for (unsigned i = 0; i <= more; i++) {
		expect_seen(i, frames[i], len, &tcp_1400);
		free(frames[i]);
	}
}

#endif
