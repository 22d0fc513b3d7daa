// SPDX-License-Identifier: BSD-3-Clause
/*
 * Our segments beside the Linux kernel's: the same super-packet, with its virtio_net_hdr, goes
 * through vifd's offload driver and through a TAP device whose offloads are off.
 *
 *                 ┌── virtio_net_hdr judged ── port_send() ── port without offloads ──┐
 *      packet ────┤                                                                   ├── equal?
 *                 └── AF_PACKET (PACKET_VNET_HDR) ── kernel GSO ── TAP, read back ────┘
 *
 * The headers that both get are the same, so that all bytes of all segments must be equal, IPv4
 * IDs and checksums too. One field may differ: a TCP checksum that comes out as zero leaves vifd
 * as 0xffff always (the same number in one's complement), Linux as either. What only vifd knows,
 * the packet's fragments, the length of its header copy, and whether the port takes fragments and
 * unfinished checksums, is drawn for each packet and must change nothing.
 *
 * Usage: gso_pairs SEED COUNT    packets made here; each has a seed of its own, SEED counted up,
 *                                so that one that fails can be had alone: gso_pairs ITS_SEED 1
 *        gso_pairs -             packets from standard input: length (32 bits, of this machine)
 *                                of what follows, a virtio_net_hdr of 10 bytes, a frame
 *
 * Lives in a network namespace of its own. Prints what was compared; exit status 1 with a sentence
 * on standard error about the first difference.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "super.h"

enum {
	HDR_LEN = 10, /* of a virtio_net_hdr without num_buffers, as AF_PACKET has it */
	SEGMENTS_MAX = GSO_TCP_SEGMENTS_MAX,
	POOL_PACKETS = 64,
	TAP_MTU = 65521, /* the most that a TAP device takes */
};

/* What one side made of a packet, as frames one after the other. */
struct segments {
	unsigned count;
	uint32_t len[SEGMENTS_MAX + 1], used;
	uint8_t bytes[SEGMENTS_MAX * PKT_HEADER_MAX + 2 * FRAME_MAX];
};

static struct segments ours, theirs;
static struct super super;
static char context[64]; /* which packet, for sentences */
static uint64_t compared_packets, compared_segments, zero_checksums;

/* ---- vifd ---- */

static void add_segment(struct segments *to, uint32_t len)
{
	if (to->count > SEGMENTS_MAX || to->used + len > sizeof(to->bytes))
		errx(1, "%s: more segments than there may be", context);
	to->len[to->count++] = len;
	to->used += len;
}

/* What a device does that takes PKT_CSUM_PARTIAL: it knows no protocols. */
static void device_checksum(uint8_t *bytes, uint32_t len, const struct pkt_offload *offload)
{
	uint32_t csum = slow_sum(bytes + offload->csum_start, len - offload->csum_start, 0) ^
			0xffff;

	be16(bytes + offload->csum_start + offload->csum_offset, csum ? csum : 0xffff);
}

static void capture_send(struct port *port, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint8_t *bytes = ours.bytes + ours.used;

		add_segment(&ours, pkts[i]->len);
		pkt_copy_out(pkts[i], 0, bytes, pkts[i]->len);
		if (pkts[i]->offload.flags & PKT_CSUM_PARTIAL)
			device_checksum(bytes, pkts[i]->len, &pkts[i]->offload);
		pkt_put(pkts[i]);
	}
}

static void segment_ours(uint32_t caps, uint64_t *seed)
{
	static const struct port_ops ops = { .kind = "capture", .send = capture_send };
	static struct port_stats stats;
	static struct pkt pkt;
	static const uint32_t frag_max[] = { 16, 200, 1500, 4096, FRAME_MAX };
	struct port port = { .ops = &ops, .stats = &stats, .caps = caps, .mtu = 65535 };
	struct pkt *burst = &pkt;

	ours.count = ours.used = 0;
	pkt_fill(&pkt, super.frame.bytes, super.frame.len, rnd_in(seed, ETH_HLEN, PKT_HEADER_MAX),
		 frag_max[rnd(seed) % 5], seed);
	if (!vnet_to_offload(super.vnet, &pkt.offload) || !headers_check_offload(&pkt))
		errx(1, "%s: refused by vifd", context);
	headers_parse(&pkt);
	super.frame.ip = pkt.l4_off ? headers_is_ipv6(&pkt) ? 6 : 4 : 0;
	super.frame.proto = pkt.l4_proto;
	super.frame.l3 = pkt.l3_off;
	super.frame.l4 = pkt.l4_off;
	super.frame.payload = pkt.payload_off;
	pkt.refs = 2;
	port_send(&port, &burst, 1);
	worker_complete(worker_self);
	if (pkt.refs != 1 || worker_self->pool.free_count != POOL_PACKETS)
		errx(1, "%s: packets did not come back", context);
	pkt_empty(&pkt);
}

/* ---- Linux ---- */

static int tap, sender;

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		err(2, "%s", path);
	close(fd);
}

static void must(int result, const char *what)
{
	if (result < 0)
		err(2, "%s", what);
}

/* A TAP device that can do nothing and has no queue: what is sent can be read when send() is back. */
static void open_tap(void)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	struct sockaddr_ll address = { .sll_family = AF_PACKET };
	int on = 1;

	must(unshare(CLONE_NEWNET), "unshare");
	write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
	strcpy(ifr.ifr_name, "gso0");
	must(tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), "/dev/net/tun");
	must(ioctl(tap, TUNSETIFF, &ifr), "TUNSETIFF");
	must(ioctl(tap, TUNSETOFFLOAD, 0), "TUNSETOFFLOAD");

	must(sender = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), "AF_PACKET");
	ifr.ifr_mtu = TAP_MTU;
	must(ioctl(sender, SIOCSIFMTU, &ifr), "SIOCSIFMTU");
	ifr.ifr_qlen = SEGMENTS_MAX + 16;
	must(ioctl(sender, SIOCSIFTXQLEN, &ifr), "SIOCSIFTXQLEN");
	ifr.ifr_flags = IFF_UP;
	must(ioctl(sender, SIOCSIFFLAGS, &ifr), "SIOCSIFFLAGS");
	must(ioctl(sender, SIOCGIFINDEX, &ifr), "SIOCGIFINDEX");
	address.sll_ifindex = ifr.ifr_ifindex;
	must(bind(sender, (struct sockaddr *)&address, sizeof(address)), "bind");
	must(setsockopt(sender, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), "PACKET_VNET_HDR");
}

static void segment_theirs(void)
{
	struct iovec iov[] = { { super.vnet, HDR_LEN }, { super.frame.bytes, super.frame.len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t len;

	theirs.count = theirs.used = 0;
	if (sendmsg(sender, &msg, 0) < 0)
		err(1, "%s: refused by Linux", context);
	while ((len = read(tap, theirs.bytes + theirs.used, sizeof(theirs.bytes) - theirs.used)) >
	       0)
		add_segment(&theirs, (uint32_t)len);
	if (errno != EAGAIN)
		err(2, "TAP");
}

/* ---- both ---- */

/* Let a TCP checksum that Linux left as zero be what it means. */
static void rename_zero(uint8_t *bytes, uint32_t len)
{
	uint32_t field = super.frame.l4 + 16;

	if (super.frame.proto == IPPROTO_TCP && field + 2 <= len && rd16(bytes + field) == 0) {
		be16(bytes + field, 0xffff);
		zero_checksums++;
	}
}

static void print_hex(const char *who, const uint8_t *bytes, uint32_t len)
{
	fprintf(stderr, "%s", who);
	for (uint32_t i = 0; i < len; i++)
		fprintf(stderr, "%s%02x", i % 16 ? " " : "\n  ", bytes[i]);
	fprintf(stderr, "%s\n", len ? "" : " nothing");
}

static void different(unsigned segment, uint32_t at, const uint8_t *our, const uint8_t *their)
{
	uint32_t shown = super.frame.payload ? super.frame.payload : 64;

	fprintf(stderr,
		"%s: segment %u of %u (Linux: %u) differs at byte %u; IP at %u, L4 at %u, "
		"payload at %u; %u bytes (Linux: %u)\n",
		context, segment, ours.count, theirs.count, at, super.frame.l3, super.frame.l4,
		super.frame.payload, segment < ours.count ? ours.len[segment] : 0,
		segment < theirs.count ? theirs.len[segment] : 0);
	print_hex("super-packet", super.frame.bytes, shown);
	print_hex("vifd", our, segment < ours.count ? shown : 0);
	print_hex("Linux", their, segment < theirs.count ? shown : 0);
	exit(1);
}

static void compare(void)
{
	const uint8_t *our = ours.bytes;
	uint8_t *their = theirs.bytes;

	for (unsigned i = 0; i < ours.count || i < theirs.count; i++) {
		if (i >= ours.count || i >= theirs.count || ours.len[i] != theirs.len[i])
			different(i, 0, our, their);
		rename_zero(their, theirs.len[i]);
		for (uint32_t at = 0; at < ours.len[i]; at++) {
			if (our[at] != their[at])
				different(i, at, our, their);
		}
		our += ours.len[i];
		their += theirs.len[i];
	}
	compared_packets++;
	compared_segments += ours.count;
}

static void compare_super(uint64_t *seed)
{
	static const uint32_t caps[] = { 0, PORT_CAP_SG, PORT_CAP_CSUM,
					 PORT_CAP_SG | PORT_CAP_CSUM };

	segment_theirs();
	segment_ours(caps[rnd(seed) % 4], seed);
	compare();
}

/* ---- packets ---- */

static void compare_drawn(uint64_t first, uint64_t count)
{
	for (uint64_t i = first; i < first + count; i++) {
		uint64_t seed = (i + 1) * 0x9e3779b97f4a7c15;

		snprintf(context, sizeof(context), "seed %lu", (unsigned long)i);
		draw_super(&super, &seed);
		compare_super(&seed);
	}
}

static void compare_read(void)
{
	uint64_t seed = 1;
	uint32_t len;

	while (fread(&len, sizeof(len), 1, stdin) == 1) {
		snprintf(context, sizeof(context), "packet %lu", (unsigned long)compared_packets);
		memset(super.vnet, 0, sizeof(super.vnet));
		if (len < HDR_LEN + ETH_HLEN || len > HDR_LEN + PKT_LEN_MAX ||
		    fread(super.vnet, HDR_LEN, 1, stdin) != 1 ||
		    fread(super.frame.bytes, len - HDR_LEN, 1, stdin) != 1)
			errx(2, "%s: no packet", context);
		super.frame.len = len - HDR_LEN;
		compare_super(&seed);
	}
}

int main(int argc, char **argv)
{
	bool read_them = argc == 2 && strcmp(argv[1], "-") == 0;

	if (!read_them && argc != 3)
		errx(2, "usage: gso_pairs SEED COUNT | gso_pairs -");
	super.frame.bytes = malloc(FRAME_MAX);
	if (!super.frame.bytes)
		err(2, "malloc");
	open_tap();

	struct worker *worker = fake_worker(POOL_PACKETS);

	if (read_them)
		compare_read();
	else
		compare_drawn(strtoull(argv[1], NULL, 0), strtoull(argv[2], NULL, 0));
	printf("{\"packets\": %lu, \"segments\": %lu, \"zero_checksums\": %lu}\n",
	       (unsigned long)compared_packets, (unsigned long)compared_segments,
	       (unsigned long)zero_checksums);
	fake_worker_free(worker);
	free(super.frame.bytes);
	return 0;
}
