/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ethernet, VLAN, IPv4, IPv6 (with extension headers), TCP and UDP, read from a packet's private
 * header copy only. The theory of operation is at the top of headers.c.
 */
#ifndef VIFD_HEADERS_H
#define VIFD_HEADERS_H

#include <arpa/inet.h>
#include <netinet/ip6.h>
#include <string.h>

#include "pkt/pkt.h"

enum {
	/*
	 * Segments that one packet may become. A packet that asks for more is refused: it is work
	 * for us and for every receiver that its sender did not pay for. 256 is 64 KiB in
	 * segments of 256 bytes, half of what the smallest path MTU that Linux accepts (552)
	 * leads to; smaller segments of shorter packets remain legal.
	 */
	GSO_TCP_SEGMENTS_MAX = 256,
	GSO_UDP_SEGMENTS_MAX = 128, /* Linux's UDP_MAX_SEGMENTS */
};

void headers_parse_now(struct pkt *pkt);

/*
 * Set l3_off, l4_off, l4_proto and payload_off, unless that was done before: nobody needs them
 * for most packets, so whoever does calls this first.
 *
 *   l3_off       end of the Ethernet header and up to two VLAN tags (0x8100, 0x88a8); always set
 *   l4_off       end of the IPv4 header with options, or of IPv6 with hop-by-hop, routing and
 *                destination options; 0: not IP, or its lengths do not fit the frame
 *   l4_proto     what is at l4_off; 0: not IP, a fragment (other than a whole one), or on its way
 *                to another than its destination address (IPv6 routing header with segments
 *                left), so that its pseudo header is not to be had
 *   payload_off  end of the TCP or UDP header, which fits into PKT_HEADER_MAX but need not have
 *                been pulled; 0: neither TCP nor UDP, malformed, or too long
 *
 * Pulls header bytes from the fragments (pkt_pull) as far as the above need them.
 */
static inline void headers_parse(struct pkt *pkt)
{
	if (!pkt->l3_off)
		headers_parse_now(pkt);
}

/*
 * Judge pkt->offload (converted from a virtio_net_hdr, otherwise unchecked) against the headers;
 * parses them if it must. False: the request contradicts the packet (drop_bad_vnet_header).
 *
 * Checksum: the field lies within the frame, within what the header copy can hold, behind the
 * Ethernet and IP headers, and, if csum_start is where TCP or UDP begins, where their checksum
 * is. A checksum further in (the inner one of a tunnel) and those of protocols unknown to us are
 * accepted as they are.
 *
 * GSO: a finished checksum is asked for too, type, IP version and protocol agree, the lengths in
 * the headers are the frame's, gso_size > 0 and no more segments than above. GSO with no more
 * than gso_size of payload becomes no GSO.
 */
bool headers_check_offload(struct pkt *pkt);

/*
 * Flow hash of addresses, protocol and ports; of the MAC addresses when not IP. The two
 * directions of a flow differ. Never 0; kept in pkt->hash. All fragments of a datagram have the
 * same.
 */
uint32_t headers_flow_hash(struct pkt *pkt);

static inline uint16_t load_be16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return ntohs(v);
}

static inline void store_be16(uint8_t *p, uint16_t v)
{
	v = htons(v);
	memcpy(p, &v, sizeof(v));
}

static inline uint32_t load_be32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return ntohl(v);
}

static inline void store_be32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, sizeof(v));
}

/* Of a parsed packet with l4_off set: IPv6, otherwise IPv4. */
static inline bool headers_is_ipv6(const struct pkt *pkt)
{
	return pkt->header[pkt->l3_off] >> 4 == 6;
}

/* Of such a packet: bytes from its IP header on, as that says; the frame may be padded. */
static inline unsigned headers_ip_len(const struct pkt *pkt)
{
	const uint8_t *ip = pkt->header + pkt->l3_off;

	return headers_is_ipv6(pkt) ? sizeof(struct ip6_hdr) + load_be16(ip + 4)
				    : load_be16(ip + 2);
}

#endif
