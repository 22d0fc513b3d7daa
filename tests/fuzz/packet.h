/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fuzz targets share: input taken apart, and properties that end the run. */
#ifndef VIFD_FUZZ_PACKET_H
#define VIFD_FUZZ_PACKET_H

#include <netinet/in.h>
#include <stdio.h>

#include "frames.h"
#include "pkt/vnet.h"

#define HOLDS(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);  \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* The fuzzer's bytes, from the front; zeros when they are used up. */
struct input {
	const uint8_t *data;
	size_t len;
};

static inline uint8_t take8(struct input *input)
{
	if (input->len == 0)
		return 0;
	input->len--;
	return *input->data++;
}

static inline uint16_t take16(struct input *input)
{
	uint16_t low = take8(input);

	return low | take8(input) << 8;
}

/* A geometry: header copy of 14..192 bytes, fragments of up to 1..32 bytes or up to 64 KiB. */
static inline void take_geometry(struct input *input, struct pkt *pkt, const uint8_t *bytes,
				 uint32_t len)
{
	uint32_t header_len = 14 + take8(input) % (PKT_HEADER_MAX - 14 + 1);
	uint8_t frag = take8(input);
	uint64_t seed = take16(input) + 1;

	pkt_fill(pkt, bytes, len, header_len, frag % 2 ? 1 + frag / 8 : 1 + frag * 256, &seed);
}

/*
 * A well-formed frame: VLAN tags, IP version, bytes of options, protocol, bytes of TCP options, TCP
 * flags, a seed, payload bytes (2), by how many bits less: small ones are soon done.
 */
static inline void take_frame(struct input *input, struct frame *frame)
{
	static const uint8_t protos[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_TCP,  IPPROTO_UDP,
					  IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6 };
	struct frame_desc desc = {
		.vlans = take8(input) % 4,
		.ip = take8(input) % 2 ? 4 : 6,
		.ip_options = take8(input) % 6 * 8,
		.proto = protos[take8(input) % 8],
		.tcp_options = take8(input) % 11 * 4,
		.tcp_flags = take8(input),
	};
	uint64_t seed = take8(input) + 1;

	desc.payload = take16(input);
	desc.payload >>= take8(input) % 16;
	if (desc.payload > 65000)
		desc.payload = 65000;
	frame_build(frame, &desc, &seed);
}

/*
 * A virtio_net_hdr. Mostly types and offsets that real guests send, or few requests would pass the
 * first check.
 */
static inline void take_vnet(struct input *input, const struct frame *frame, uint8_t vnet[VNET_LEN])
{
	static const uint8_t types[] = { PKT_GSO_NONE, PKT_GSO_TCPV4, PKT_GSO_TCPV6, PKT_GSO_UDP };
	static const uint8_t offsets[] = { 16, 6 };

	memset(vnet, 0, VNET_LEN);
	vnet[0] = take8(input);
	uint8_t type = take8(input), offset = take8(input);

	vnet[1] = type & 0x40 ? type : types[type % 4] | (type & VNET_GSO_ECN);
	vnet_put16(vnet + 4, take16(input));
	vnet_put16(vnet + 6, frame->l4 + (int8_t)take8(input));
	vnet_put16(vnet + 8, offset & 0x40 ? take16(input) : offsets[offset % 2]);
}

/* Overwrite header bytes by (offset, value) pairs to the end of the input: any frame may result. */
static inline void damage_frame(struct input *input, struct frame *frame)
{
	while (input->len >= 2) {
		uint32_t at = take8(input);
		uint8_t value = take8(input);

		if (at < frame->len && at < PKT_HEADER_MAX)
			frame->bytes[at] = value;
	}
}

#endif
