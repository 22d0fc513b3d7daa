/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Test frames whose every byte can be checked at the other end.
 *
 * Payload byte i of a flow is pattern(i): a function of its position in the flow alone. A UDP frame
 * carries its number in the first eight payload bytes and the pattern from there on; of a TCP frame
 * the sequence number says which part of the flow it carries, so that it can be checked whole,
 * segmented or merged alike.
 */
#ifndef FRAME_H
#define FRAME_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	FRAME_UDP_HEADERS = 14 + 20 + 8,
	FRAME_TCP_HEADERS = 14 + 20 + 20,
	FRAME_TCP6_HEADERS = 14 + 40 + 20
};

struct frame_addresses {
	uint8_t dst[6], src[6];
};

/* UDP over IPv4 with finished checksums, payload_len >= 8. Returns the frame's length. */
unsigned frame_udp(uint8_t *frame, const struct frame_addresses *to, uint64_t number,
		   unsigned payload_len);
/* The number of a frame_udp() frame whose bytes and checksums are all right, or -1. */
int64_t frame_udp_check(const uint8_t *frame, unsigned len);

/* TCP over IPv4 or IPv6 whose checksum is left to finish (pseudo header only), as *hdr asks;
 * gso_size 0: no GSO. */
unsigned frame_tcp(uint8_t *frame, const struct frame_addresses *to, uint32_t seq,
		   unsigned payload_len, bool ipv6, unsigned gso_size,
		   struct virtio_net_hdr_v1 *hdr);
/* Payload bytes of a frame_tcp() frame or a segment of one, all checked, with its sequence number
 * in *seq; the checksum must be right, or asked for in hdr. -1: something is wrong. */
int frame_tcp_check(const uint8_t *frame, unsigned len, const struct virtio_net_hdr_v1 *hdr,
		    uint32_t *seq);

/* Why a receiver that negotiated features must never see hdr with this frame, or NULL. */
const char *frame_hdr_wrong(const struct virtio_net_hdr_v1 *hdr, const uint8_t *frame, unsigned len,
			    uint64_t features);

#endif
