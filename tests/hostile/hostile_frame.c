// SPDX-License-Identifier: BSD-3-Clause
/*
 * Lies in frames and virtio headers (virtio 1.2 §5.1.6.2): the ring is honest, what it carries is
 * not. vifd must give every buffer back, drop the frame under the right counter, and leave the ring
 * running.
 */
#include "hostile.h"

#include <string.h>

static uint8_t frame[FRONT_FRAME_MAX + 65536];

/* Send and get the buffer back. */
static void send(struct front *evil, const struct virtio_net_hdr_v1 *hdr, unsigned len,
		 const struct front_layout *layout)
{
	if (front_send(evil, hdr, frame, len, layout, 2000) || front_drain(evil, 0, 2000))
		broken_test("evil: %s", evil->fault);
}

/* The ring still works after the lie: a good frame gets to mate, which checks all that came. */
static void still_works(struct front *evil, struct front *mate)
{
	send(evil, NULL, frame_udp(frame, &evil_to_mate, 99, 100), NULL);
	for (unsigned i = 0; i < 200; i++) {
		if (mate_receives(mate))
			return;
		front_sleep_us(1000);
	}
	broken_test("a good frame after the bad ones did not arrive");
}

/* ---- sizes ---- */

static void runts(struct front *evil, struct front *mate)
{
	frame_udp(frame, &evil_to_mate, 1, 100);
	for (unsigned len = 0; len < 14; len++) {
		send(evil, NULL, len, NULL);
		send(evil, NULL, len, &(struct front_layout){ .first = 5, .piece = 3 });
		send(evil, NULL, len,
		     &(struct front_layout){ .first = 12, .piece = 1, .indirect = true });
	}
	still_works(evil, mate);
}

/* Not even a whole virtio header. */
static void shorter_than_header(struct front *evil, struct front *mate)
{
	for (unsigned len = 1; len <= 12; len++) {
		put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
		offer(front_tx(evil), 0);
		if (!all_used(front_tx(evil), 2000))
			broken_test("a chain of %u bytes was not given back", len);
	}
}

static void oversize(struct front *evil, struct front *mate)
{
	frame_udp(frame, &evil_to_mate, 1, 100);
	for (unsigned len = FRONT_FRAME_MAX + 1; len < FRONT_FRAME_MAX + 65536; len += 8191) {
		send(evil, NULL, len, NULL);
		send(evil, NULL, len,
		     &(struct front_layout){ .first = 12, .piece = 4096, .indirect = true });
	}
	still_works(evil, mate);
}

/* More bytes than 32 bits count: 500 pieces of the whole guest memory. */
static void length_overflow(struct front *evil, struct front *mate)
{
	struct vring_desc *table = (void *)evil->scratch;

	for (unsigned i = 0; i < 500; i++)
		table[i] = (struct vring_desc){ FRONT_GPA, (uint32_t)evil->mem_len,
						i < 499 ? VRING_DESC_F_NEXT : 0,
						(uint16_t)(i + 1) };
	put_desc(front_tx(evil), 0, front_gpa(evil, table), 500 * 16, VRING_DESC_F_INDIRECT, 0);
	offer(front_tx(evil), 0);
	if (!all_used(front_tx(evil), 2000))
		broken_test("the chain was not given back");
}

static void too_many_fragments(struct front *evil, struct front *mate)
{
	unsigned len = frame_udp(frame, &evil_to_mate, 1, 900);

	send(evil, NULL, len,
	     &(struct front_layout){ .first = 12, .piece = 1, .gap = 1, .indirect = true });
	send(evil, NULL, len, &(struct front_layout){ .first = 12, .piece = 1, .gap = 1 });
	still_works(evil, mate);
}

/* Header and frame in pieces of one byte, as many as are allowed: legal, and must arrive. */
static void many_fragments(struct front *evil, struct front *mate)
{
	unsigned len = frame_udp(frame, &evil_to_mate, 1, 512 - 12 - FRAME_UDP_HEADERS);

	send(evil, NULL, len,
	     &(struct front_layout){ .first = 1, .piece = 1, .gap = 2, .indirect = true });
	front_sleep_us(20000);
	if (mate_receives(mate) != 1)
		broken_test("a frame in 512 pieces did not arrive");
	still_works(evil, mate);
}

/* ---- virtio headers ---- */

enum kind { UDP, TCP4, TCP6, ARP };

/* A good frame of a kind, and the virtio header that asks for its offloads. */
static unsigned build(enum kind kind, unsigned payload_len, struct virtio_net_hdr_v1 *hdr)
{
	unsigned len;

	if (kind == TCP4 || kind == TCP6)
		return frame_tcp(frame, &evil_to_mate, 1, payload_len, kind == TCP6, GSO_SIZE, hdr);
	*hdr = (struct virtio_net_hdr_v1){ 0 };
	len = frame_udp(frame, &evil_to_mate, 1, payload_len);
	if (kind == ARP)
		memcpy(frame + 12, "\x08\x06", 2);
	return len;
}

enum {
	CSUM = VIRTIO_NET_HDR_F_NEEDS_CSUM,
	V4 = VIRTIO_NET_HDR_GSO_TCPV4,
	V6 = VIRTIO_NET_HDR_GSO_TCPV6,
	USO = 5
};

/* A frame, and the virtio header that it gets instead of the good one. */
struct header_lie {
	enum kind kind;
	unsigned payload_len;
	uint8_t flags, gso_type;
	uint16_t gso_size, csum_start, csum_offset;
};

static void send_lies(struct front *evil, struct front *mate, const struct header_lie *lies,
		      unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const struct header_lie *lie = &lies[i];
		struct virtio_net_hdr_v1 good, hdr = { .flags = lie->flags,
						       .gso_type = lie->gso_type,
						       .gso_size = lie->gso_size,
						       .csum_start = lie->csum_start,
						       .csum_offset = lie->csum_offset };
		unsigned len = build(lie->kind, lie->payload_len, &good);
		struct front_layout scattered = { .first = 3, .piece = 700, .indirect = true };

		send(evil, &hdr, len, NULL);
		send(evil, &hdr, len, &scattered);
	}
	still_works(evil, mate);
}

#define LIES(list) send_lies(evil, mate, list, sizeof(list) / sizeof(list[0]))

static void bad_csum(struct front *evil, struct front *mate)
{
	static const struct header_lie lies[] = {
		{ UDP, 100, CSUM, 0, 0, 142, 0 },
		{ UDP, 100, CSUM, 0, 0, 149, 0 },
		{ UDP, 100, CSUM, 0, 0, 34, 0xffff },
		{ UDP, 100, CSUM, 0, 0, 0xffff, 0xffff },
		{ UDP, 100, CSUM, 0, 0, 0xffff, 43 },
		{ UDP, 100, CSUM, 0, 0, 0xfffe, 2 },
		{ UDP, 100, CSUM, 0, 0, 34, 115 },
		{ UDP, 100, CSUM, 0, 0, 0, 0 },   /* onto the MAC address */
		{ UDP, 100, CSUM, 0, 0, 14, 12 }, /* onto the IP address */
	};
	LIES(lies);
}

static void bad_gso_size(struct front *evil, struct front *mate)
{
	static const struct header_lie lies[] = {
		{ TCP4, 9000, CSUM, V4, 0, 34, 16 },
		{ TCP6, 9000, CSUM, V6, 0, 54, 16 },
	};
	LIES(lies);
}

static void bad_gso_type(struct front *evil, struct front *mate)
{
	static const struct header_lie lies[] = {
		{ TCP4, 9000, CSUM, 2, 1400, 34, 16 },  { TCP4, 9000, CSUM, 0x7f, 1400, 34, 16 },
		{ TCP4, 9000, CSUM, V6, 1400, 34, 16 }, { TCP6, 9000, CSUM, V4, 1400, 54, 16 },
		{ UDP, 1400, CSUM, V4, 300, 34, 6 },    { ARP, 1400, CSUM, V4, 300, 34, 16 },
	};
	LIES(lies);
}

static void gso_without_csum(struct front *evil, struct front *mate)
{
	static const struct header_lie lies[] = {
		{ TCP4, 9000, 0, V4, 1400, 0, 0 },
		{ TCP4, 9000, 0, V4, 1400, 34, 16 },
		{ TCP4, 9000, CSUM, V4, 1400, 34, 6 },
		{ TCP4, 9000, CSUM, V4, 1400, 38, 16 },
	};
	LIES(lies);
}

static void not_negotiated(struct front *evil, struct front *mate)
{
	static const struct header_lie lies[] = {
		{ TCP4, 900, CSUM, 0, 0, 34, 16 },
		{ TCP4, 9000, CSUM, V4, 1400, 34, 16 },
		{ TCP6, 9000, CSUM, V6, 1400, 54, 16 },
	};
	LIES(lies);
}

static void uso_not_negotiated(struct front *evil, struct front *mate)
{
	static const struct header_lie lies[] = {
		{ UDP, 9000, CSUM, USO, 1400, 34, 6 },
	};
	LIES(lies);
}

/* A request whose headers are truncated, or disagree with the frame's length. */
static void headers_beyond_frame(struct front *evil, struct front *mate)
{
	struct virtio_net_hdr_v1 hdr;

	for (unsigned cut = 14; cut < FRAME_TCP_HEADERS; cut++) {
		build(TCP4, 9000, &hdr);
		send(evil, &hdr, cut, NULL);
	}
	for (unsigned cut = 14; cut < FRAME_TCP6_HEADERS; cut += 5) {
		build(TCP6, 9000, &hdr);
		send(evil, &hdr, cut, NULL);
	}
	still_works(evil, mate);
}

/* Segment sizes at both ends: neither may become a flood of tiny frames, nor anything wrong. */
static void extreme_gso_sizes(struct front *evil, struct front *mate)
{
	static const uint16_t sizes[] = { 1, 2, 7, 255, 256, 65535, 65000, 9000, 8999 };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct virtio_net_hdr_v1 hdr;
		unsigned len = build(TCP4, i < 5 ? 64000 : 9000, &hdr);

		hdr.gso_size = sizes[i];
		send(evil, &hdr, len, NULL);
		mate_receives(mate);
	}
	still_works(evil, mate);
}

/* hdr_len is a hint and num_buffers means nothing in this direction: both are ignored. */
static void lies_to_ignore(struct front *evil, struct front *mate)
{
	static const uint16_t values[] = { 0, 1, 13, 55, 4000, 0xffff };

	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		struct virtio_net_hdr_v1 hdr;
		unsigned len = build(TCP4, 9000, &hdr);

		hdr.hdr_len = hdr.num_buffers = values[i];
		hdr.flags |= VIRTIO_NET_HDR_F_DATA_VALID;
		send(evil, &hdr, len, NULL);
	}
	still_works(evil, mate);
}

/* ---- addresses ---- */

static void bad_sources(struct front *evil, struct front *mate)
{
	struct frame_addresses to = evil_to_mate;

	for (unsigned i = 0; i < 50; i++) {
		memset(to.src, i % 2 ? 0xff : 0, 6);
		if (i % 3 == 0)
			to.src[0] = to.src[1] = 1;
		send(evil, NULL, frame_udp(frame, &to, i, 100), NULL);
	}
	still_works(evil, mate);
}

static void reserved_group(struct front *evil, struct front *mate)
{
	struct frame_addresses to = evil_to_mate;

	memcpy(to.dst, "\x01\x80\xc2\x00\x00", 5);
	for (unsigned i = 0; i < 16; i++) {
		to.dst[5] = (uint8_t)i;
		send(evil, NULL, frame_udp(frame, &to, i, 100), NULL);
	}
	still_works(evil, mate);
}

/* Frames in the witness's name. Where they come from a guest with a fixed address, none may pass;
 * elsewhere the witness's static entries must not move. */
static void spoofed(struct front *evil, struct front *mate)
{
	struct frame_addresses to = evil_to_mate;

	for (unsigned i = 0; i < 2000; i++) {
		memcpy(to.src, "\x52\x54\x00\x00\x01", 5);
		to.src[5] = (uint8_t)(1 + i % 2);
		send(evil, NULL, frame_udp(frame, &to, i, 100), NULL);
	}
	mate_receives(mate);
}

/* Tags on tags, extension headers likewise, IP lengths that lie, an offload request on top. */
static void strange_stacks(struct front *evil, struct front *mate)
{
	struct virtio_net_hdr_v1 hdr;
	unsigned len;

	for (unsigned tags = 1; tags < 60; tags++) {
		len = build(TCP4, 9000, &hdr);
		for (unsigned i = 0; i < tags; i++)
			memcpy(frame + 12 + 4 * i, i % 2 ? "\x81\x00\x00\x01" : "\x88\xa8\x00\x02",
			       4);
		send(evil, &hdr, len, NULL);
	}
	for (unsigned count = 1; count < 120; count++) {
		len = build(TCP6, 9000, &hdr);
		frame[20] = 0;
		memset(frame + 54, 0, 8 * count);
		send(evil, &hdr, len, NULL);
	}
	for (unsigned value = 0; value < 65536; value += 257) {
		len = build(TCP4, 9000, &hdr);
		frame[16] = (uint8_t)(value >> 8);
		frame[17] = (uint8_t)value;
		send(evil, &hdr, len, NULL);
		len = build(TCP6, 9000, &hdr);
		frame[18] = (uint8_t)(value >> 8);
		frame[19] = (uint8_t)value;
		send(evil, &hdr, len, NULL);
		mate_receives(mate);
	}
	for (unsigned value = 0; value < 256; value++) {
		len = build(TCP4, 9000, &hdr);
		frame[14] = (uint8_t)value; /* version and header length */
		send(evil, &hdr, len, NULL);
		len = build(TCP4, 9000, &hdr);
		frame[46] = (uint8_t)value; /* TCP header length */
		send(evil, &hdr, len, NULL);
		mate_receives(mate);
	}
	still_works(evil, mate);
}

/* Good frames with some bytes of frame and virtio header replaced at random, in random layouts. */
static void fuzzed(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns();

	while (time_left(start_ns, 3000)) {
		struct virtio_net_hdr_v1 hdr;
		unsigned len = build(random_u32() % 4, random_u32() % 4 ? 600 : 9000, &hdr);
		struct front_layout layout = { random_u32() % 80,
					       1 + len / 200 + random_u32() % 400, random_u32() % 3,
					       random_u32() % 2 };

		for (unsigned i = random_u32() % 4; i; i--)
			((uint8_t *)&hdr)[random_u32() % 12] = (uint8_t)random_u32();
		for (unsigned i = random_u32() % 8; i; i--)
			frame[random_u32() % 100] = (uint8_t)random_u32();
		memcpy(frame, &evil_to_mate, 12); /* mate's address must not move to evil */
		if (random_u32() % 8 == 0)
			len = random_u32() % (len + 1);
		send(evil, &hdr, len, &layout);
		mate_receives(mate);
	}
	still_works(evil, mate);
}

#define NO_OFFLOADS                                                                                \
	FRONT_BIT(VIRTIO_NET_F_CSUM) | FRONT_BIT(VIRTIO_NET_F_HOST_TSO4) |                         \
		FRONT_BIT(VIRTIO_NET_F_HOST_TSO6)

const struct scenario frame_scenarios[] = {
	{ "frame-runts", runts },
	{ "frame-shorter-than-header", shorter_than_header },
	{ "frame-oversize", oversize },
	{ "frame-length-overflow", length_overflow },
	{ "frame-too-many-fragments", too_many_fragments, .size = { 0, 1024 } },
	{ "frame-many-fragments", many_fragments, .size = { 0, 1024 } },
	{ "frame-bad-csum", bad_csum },
	{ "frame-bad-gso-size", bad_gso_size },
	{ "frame-bad-gso-type", bad_gso_type },
	{ "frame-gso-without-csum", gso_without_csum },
	{ "frame-not-negotiated", not_negotiated, .without = NO_OFFLOADS },
	{ "frame-uso-not-negotiated", uso_not_negotiated },
	{ "frame-headers-beyond-frame", headers_beyond_frame },
	{ "frame-extreme-gso-sizes", extreme_gso_sizes },
	{ "frame-lies-to-ignore", lies_to_ignore },
	{ "frame-bad-sources", bad_sources },
	{ "frame-reserved-group", reserved_group },
	{ "frame-spoofed", spoofed },
	{ "frame-strange-stacks", strange_stacks },
	{ "frame-fuzzed", fuzzed },
	{ 0 },
};
