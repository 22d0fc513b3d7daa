/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ethernet, VLAN, IPv4, IPv6 (with extension headers), TCP and UDP, read from a packet's private header copy only.
 */
#ifndef VIFD_HEADERS_H
#define VIFD_HEADERS_H

#include "pkt/pkt.h"

/*
 * Set l3_off, l4_off, l4_proto and payload_off from header[0..header_len) as far as they are there: up to two VLAN
 * tags (0x8100, 0x88a8), IPv4 with options, IPv6 with hop-by-hop, routing, destination options. Fragments of IP
 * packets other than whole ones get l4_proto 0. Pulls more header bytes from the fragments (pkt_pull) where the
 * headers are longer than what is there, up to PKT_HEADER_MAX. Lengths in the headers are checked against the frame.
 */
void headers_parse(struct pkt *pkt);

/*
 * Judge pkt->offload (converted from a virtio_net_hdr, otherwise unchecked) against the parsed headers; parses them
 * if it must. Checksum position: inside the frame and where the L4 checksum of the parsed protocol is, or, for
 * protocols we do not know, inside the header copy. GSO: type matches the IP version and protocol, gso_size > 0
 * and >= the floor below, header < frame, PKT_CSUM_PARTIAL set. GSO of a packet with no more than gso_size payload is
 * turned into no GSO. False: the request contradicts the packet (drop_bad_vnet_header).
 */
bool headers_check_offload(struct pkt *pkt);

enum {
	GSO_SIZE_MIN = 256,     /* smaller requests are clamped up where legal, or refused: one packet must not become
	                           tens of thousands */
};

/* Symmetric-free flow hash of addresses, protocol and ports (MACs when not IP), never 0. Stored in pkt->hash. */
uint32_t headers_flow_hash(struct pkt *pkt);

#endif
