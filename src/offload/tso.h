/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Segmentation by reference: each segment is a private copy of the headers, edited, and fragments borrowed from the
 * parent, which it holds a reference of (pkt->parent).
 */
#ifndef VIFD_TSO_H
#define VIFD_TSO_H

#include "port/port.h"

/* Walks a GSO packet. Zero-initialise through tso_begin(). */
struct tso {
	struct pkt *parent;
	uint32_t offset;        /* next payload byte, offset from the frame's start */
	unsigned frag;          /* fragment it lies in */
	size_t frag_off;        /* and where in it */
	unsigned index;         /* segments made so far */
	uint32_t tcp_seq;       /* of the first segment */
	uint16_t ip_id;
};

/*
 * Start on a checked GSO packet (headers_check_offload() said yes). Pulls the headers. False: headers are not within
 * PKT_HEADER_MAX.
 */
bool tso_begin(struct tso *tso, struct pkt *parent);
/*
 * Make up to n (<= PKT_BURST) segments from the pool. Rules as Linux: sequence numbers advance, IPv4 ID counts up
 * (fixed when DF... see tso.c), lengths and IPv4 header checksum are set, PSH and FIN only on the last, CWR only on the
 * first; each leaves with PKT_CSUM_PARTIAL and a fresh pseudo-header checksum, UDP length set for USO. Returns how many,
 * 0 at the end. When the pool runs empty, *out_of_packets is set and the rest is lost.
 */
unsigned tso_next(struct tso *tso, struct pkt_pool *pool, struct pkt **segments, unsigned n, bool *out_of_packets);

#endif
