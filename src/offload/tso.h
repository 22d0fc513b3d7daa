/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Segmentation, by reference or into linear memory. The theory of operation is at the top of tso.c.
 */
#ifndef VIFD_TSO_H
#define VIFD_TSO_H

#include "pkt/pkt.h"

/* A walk along a GSO packet. */
struct tso {
	struct pkt *parent;
	bool finish;         /* the segments' checksums */
	uint16_t csum_field; /* where they are, from the frame's start */
	uint16_t ip_id;      /* of the next segment */
	uint16_t ip_id_step; /* to the one after it */
	uint32_t offset;     /* next payload byte, from the frame's start */
	uint32_t frag;       /* fragment that it lies in; the first one while it lies in header[] */
	uint32_t frag_off;   /* and where in it */
	uint32_t tcp_seq;    /* of the first segment */
	uint32_t pseudo_sum; /* of the pseudo header but its length */
	uint32_t l4_sum;     /* of the L4 header but what changes */
	uint32_t ip_sum;     /* of the IPv4 header but its length, ID and checksum */
};

/*
 * Start on a GSO packet that headers_check_offload() has passed. finish: the segments leave with
 * their checksums finished, otherwise they ask for it. The caller keeps its reference until the
 * walk has ended. False: not a GSO packet, or its headers cannot be pulled.
 */
bool tso_begin(struct tso *tso, struct pkt *parent, bool finish);

static inline bool tso_at_end(const struct tso *tso)
{
	return tso->offset == tso->parent->len;
}

/*
 * Make the next segments, up to n, from the pool. Returns how many; the caller owns them. 0: at
 * the end, or the pool is out of packets or fragment blocks (then a later call goes on where this
 * one stopped).
 */
unsigned tso_next(struct tso *tso, struct pkt_pool *pool, struct pkt **segments, unsigned n);

/*
 * The same in linear memory: each segment is laid out whole (linear.h), its payload summed by the
 * loop that copies it if checksums are to be finished. No segment refers to the parent. 0: at the
 * end, or out of packets or of linear memory.
 */
unsigned tso_next_linear(struct tso *tso, struct pkt_pool *pool, struct pkt **segments, unsigned n);

#endif
