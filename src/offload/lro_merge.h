/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What may be merged into one packet, and how. The theory of operation is at the top of
 * lro_merge.c; lro.c decides about flows and times.
 */
#ifndef VIFD_LRO_MERGE_H
#define VIFD_LRO_MERGE_H

#include "offload/lro.h"

enum { LRO_HEADER_MAX = 128 }; /* Ethernet, two VLAN tags, IPv6 and a TCP header of 60: 122 bytes */

/* What is read of a packet that may be one of several. */
struct lro_segment {
	uint32_t payload;    /* bytes */
	uint32_t l4_len;     /* L4 header and payload */
	uint32_t seq;        /* TCP's */
	uint32_t pseudo_sum; /* of the pseudo header but its length; after lro_segment_check() */
	uint32_t ip_sum;     /* of the IPv4 header but its length, ID and checksum; likewise */
	uint16_t id;         /* IPv4's */
	uint8_t tcp_flags;   /* 0: UDP */
	bool ipv6;
};

/* What is held of a flow, and what its next segment must be like. */
struct lro_aggregate {
	struct pkt *pkt;  /* the aggregate, or its only segment; NULL: nothing is held */
	struct pkt *last; /* of its riders */
	uint32_t payload; /* bytes so far */
	uint32_t payload_max;
	uint32_t next_seq;
	uint32_t pseudo_sum, ip_sum; /* as in struct lro_segment */
	uint16_t segments;
	uint16_t gso_size;
	uint16_t next_id, id_step;
	uint8_t l3_off, l4_off, payload_off, l4_proto; /* as in struct pkt */
	uint8_t csum_flags;                            /* of all its segments */
	uint8_t tcp_flags;                             /* of the last segment */
	bool ipv6;
	uint8_t header[LRO_HEADER_MAX]; /* the first segment's; stays when that has left */
};

/*
 * Read a parsed packet. False: none that could be merged with others, whatever its neighbours and
 * its checksums are.
 */
bool lro_segment_read(struct pkt *pkt, struct lro_segment *segment);

/* A segment behind which nothing is merged: it says that its receiver is to look at once. */
bool lro_segment_is_last(const struct lro_segment *segment);

/*
 * Is it bad to let the packet, none that was merged, wait as long as bulk may? No if it goes to a
 * group, or only acknowledges.
 */
bool lro_is_urgent(struct pkt *pkt);

/* The enum port_caps of who takes an aggregate that begins with this segment. */
uint32_t lro_segment_needs(const struct pkt *pkt, const struct lro_segment *segment);

/*
 * Are both checksums right, and such that segmentation writes the same again? One that nobody has
 * looked at yet is verified, and PKT_CSUM_VALID afterwards.
 */
bool lro_segment_check(struct pkt *pkt, struct lro_segment *segment);

/* Has a parsed packet with payload_off set the flow's addresses and ports? */
bool lro_same_flow(const struct lro_aggregate *aggregate, const struct pkt *pkt);

/* Has a parsed packet with l3_off set the flow's IP addresses, as far as it shows any? */
bool lro_same_addresses(const struct lro_aggregate *aggregate, const struct pkt *pkt);

/* Begin with a segment of lro_segment_check(), of the flow to be. Nothing is held. */
void lro_aggregate_begin(struct lro_aggregate *aggregate, struct pkt *pkt,
			 const struct lro_segment *segment);

/*
 * Add the next segment of the same flow. False, and nothing has happened: it is none to add, for
 * *reason; what is held must leave before it.
 */
bool lro_aggregate_add(struct lro_aggregate *aggregate, struct pkt *pkt,
		       const struct lro_segment *segment, enum lro_reason *reason);

/* Can nothing be added any more? Then for *reason. */
bool lro_aggregate_at_end(const struct lro_aggregate *aggregate, enum lro_reason *reason);

/* Complete what is held and let it go: a GSO packet, or the only segment as it came. */
struct pkt *lro_aggregate_finish(struct lro_aggregate *aggregate);

#endif
