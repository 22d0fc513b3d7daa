/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where in their headers IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293) and UDP (RFC 768) say what:
 * offsets in bytes from the header's start, and how long headers are.
 */
#ifndef VIFD_PROTO_H
#define VIFD_PROTO_H

enum {
	VLAN_HLEN = 4,

	IPV4_TOTAL_LEN = 2,
	IPV4_ID = 4,
	IPV4_FLAGS = 6, /* and fragment offset */
	IPV4_PROTO = 9,
	IPV4_CSUM = 10,
	IPV4_SADDR = 12,
	IPV4_DADDR = 16,
	IPV4_HLEN = 20, /* without options */
	IPV4_HLEN_MAX = 60,

	IPV6_PAYLOAD_LEN = 4,
	IPV6_NEXT = 6,
	IPV6_SADDR = 8,
	IPV6_DADDR = 24,
	IPV6_HLEN = 40,

	TCP_SEQ = 4,
	TCP_DATA_OFFSET = 12, /* upper four bits: length of the header in words */
	TCP_FLAGS = 13,
	TCP_CSUM = 16,
	TCP_HLEN = 20, /* without options */
	TCP_HLEN_MAX = 60,

	UDP_LEN = 4,
	UDP_CSUM = 6,
	UDP_HLEN = 8,
};

/* Bits of TCP_FLAGS. */
enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_CWR = 0x80 };

#endif
