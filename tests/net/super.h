/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Super-packets drawn from a seed, as guests with all offloads send them: TCP and UDP over IPv4 and
 * IPv6, with VLAN tags, IP and TCP options, any TCP flags, and odd sizes.
 */
#ifndef VIFD_TEST_SUPER_H
#define VIFD_TEST_SUPER_H

#include <netinet/in.h>

#include "frames.h"
#include "pkt/headers.h"
#include "pkt/vnet.h"

struct super {
	struct frame frame;
	uint8_t vnet[VNET_LEN];
};

static inline uint32_t one_of(uint64_t *seed, const uint32_t *values, unsigned count)
{
	return values[rnd(seed) % count];
}

/* Sizes that real senders use, odd ones, and those where something just fits or just does not. */
static inline uint32_t draw_gso_size(uint64_t *seed)
{
	static const uint32_t usual[] = { 1448, 1460, 1428, 1440, 1472, 8948, 536, 1024 };

	return rnd(seed) % 2 ? one_of(seed, usual, 8) : rnd_in(seed, 1, rnd(seed) % 2 ? 200 : 9000);
}

static inline uint32_t draw_payload(uint64_t *seed, uint32_t gso_size, uint32_t segments_max,
				    uint32_t payload_max)
{
	uint32_t max = gso_size * segments_max < payload_max ? gso_size * segments_max
							     : payload_max;
	uint32_t payload;

	switch (rnd(seed) % 4) {
	case 0:
		return max;
	case 1: /* few segments, and one byte around their edges */
		payload = gso_size * rnd_in(seed, 1, 4) + rnd(seed) % 3 - 1;
		return payload < max ? payload : max;
	default:
		return rnd_in(seed, 0, max);
	}
}

/* frame.bytes is the caller's. gso_size is at most 9000. */
static inline void draw_super(struct super *super, uint64_t *seed)
{
	bool tcp = rnd(seed) % 3 != 0;
	struct frame_desc desc = {
		.vlans = rnd(seed) % 2 ? 0 : rnd(seed) % 3,
		.ip = rnd(seed) % 2 ? 4 : 6,
		.ip_options = rnd(seed) % 4 ? 0 : rnd_in(seed, 1, 5) * 8,
		.proto = tcp ? IPPROTO_TCP : IPPROTO_UDP,
		.tcp_options = tcp ? rnd(seed) % 11 * 4 : 0,
		.tcp_flags = rnd(seed),
	};
	uint32_t l4_header = tcp ? 20 + desc.tcp_options : 8;
	uint32_t gso_size = draw_gso_size(seed);

	desc.payload = draw_payload(seed, gso_size,
				    tcp ? GSO_TCP_SEGMENTS_MAX : GSO_UDP_SEGMENTS_MAX,
				    65535 - (desc.ip == 4 ? 20 : 40) - desc.ip_options - l4_header);
	frame_build(&super->frame, &desc, seed);
	if (desc.ip == 4 && rnd(seed) % 2) { /* without "don't fragment" */
		uint8_t *ip = super->frame.bytes + super->frame.l3;

		be16(ip + 6, 0);
		be16(ip + 10, 0);
		be16(ip + 10, ~slow_sum(ip, super->frame.l4 - super->frame.l3, 0));
	}
	memset(super->vnet, 0, sizeof(super->vnet));
	super->vnet[0] = VNET_NEEDS_CSUM;
	vnet_put16(super->vnet + 6, super->frame.l4);
	vnet_put16(super->vnet + 8, tcp ? 16 : 6);
	/*
	 * Linux takes TCP options for payload when it judges whether a packet is worth GSO, and then
	 * drops it because it is not. vifd sends it.
	 */
	if (desc.payload <= (int)gso_size && desc.payload + desc.tcp_options > (int)gso_size)
		return;
	super->vnet[1] = !tcp ? PKT_GSO_UDP : desc.ip == 4 ? PKT_GSO_TCPV4 : PKT_GSO_TCPV6;
	if (tcp && rnd(seed) % 2)
		super->vnet[1] |= VNET_GSO_ECN;
	vnet_put16(super->vnet + 2, rnd(seed) % 2 ? super->frame.payload : 0);
	vnet_put16(super->vnet + 4, gso_size);
}

#endif
