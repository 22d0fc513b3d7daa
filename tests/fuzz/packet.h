/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fuzz targets share: input taken apart, and properties that end the run. */
#ifndef VIFD_FUZZ_PACKET_H
#define VIFD_FUZZ_PACKET_H

#include <netinet/in.h>
#include <stdio.h>

#include "frames.h"

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
 * flags, a seed, payload bytes (2).
 */
static inline void take_frame(struct input *input, struct frame *frame)
{
	struct frame_desc desc = {
		.vlans = take8(input) % 4,
		.ip = take8(input) % 2 ? 4 : 6,
		.ip_options = take8(input) % 6 * 8,
		.proto = take8(input) % 2 ? IPPROTO_UDP : IPPROTO_TCP,
		.tcp_options = take8(input) % 11 * 4,
		.tcp_flags = take8(input),
	};
	uint64_t seed = take8(input) + 1;

	desc.payload = take16(input);
	if (desc.payload > 65000)
		desc.payload = 65000;
	frame_build(frame, &desc, &seed);
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
