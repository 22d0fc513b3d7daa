/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a queue receives into if the kernel copies packets to it (TAP, AF_PACKET). The theory of
 * operation is in recv_bufs.c.
 */
#ifndef VIFD_RECV_BUFS_H
#define VIFD_RECV_BUFS_H

#include "port/port.h"
#include "zone/zone_group.h"

enum {
	RECV_SMALLS = 1024, /* buffers of a zone */
	RECV_LARGES = 32,
	RECV_SPARES = 32, /* of each size */
	RECV_ROOM = 64,   /* in front of what is read to a small one */
	RECV_SMALL = 2048,
	RECV_LARGE = 62 << 10,
	RECV_NONE = 0xffff,
};

/* The buffers of one queue; its worker's. They are numbered, the zone's first, then the spare. */
struct recv_bufs {
	struct pkt_source source; /* of packets that lie in them; first: done() finds us by it */
	uint8_t *zone, *spare;
	uint64_t larges;                    /* that are free, a bit each */
	unsigned small_count, spare_count;  /* that are free */
	uint16_t smalls[RECV_SMALLS];       /* those; the last is the next */
	uint16_t spare_smalls[RECV_SPARES]; /* for when there are no others */
	struct zone_group zones;            /* empty if there was none to be had */
};

/* Where one packet is read to. */
struct recv_place {
	struct iovec iov[4]; /* for its header, the caller's; small and large buffer, ours */
	uint16_t small;      /* it has this one until a packet takes it along; RECV_NONE: none */
	uint16_t large;
};

/* Make buffers for a queue of the port of that name. bufs is zeroed. 0 or -ENOMEM. */
int recv_bufs_open(struct recv_bufs *bufs, const char *name);
/* No packet lies in them any more. Also of those that could not be made, or are still zeroed. */
void recv_bufs_close(struct recv_bufs *bufs);

/* A place that has no buffers yet. */
void recv_place_init(struct recv_place *place);
/*
 * The packet, of pkt->len bytes, of which header[] has the first header_len, takes along what of the
 * place it fills, until it is done. The others begin at rest: where iov[2] said, or in front of that
 * by what has been inserted since.
 */
void recv_place_take(struct recv_bufs *bufs, struct recv_place *place, struct pkt *pkt,
		     uint8_t *rest);

static inline uint8_t *recv_small_at(const struct recv_bufs *bufs, unsigned small)
{
	const unsigned size = RECV_ROOM + RECV_SMALL;

	return small < RECV_SMALLS ? bufs->zone + small * size
				   : bufs->spare + (small - RECV_SMALLS) * size;
}

static inline uint8_t *recv_large_at(const struct recv_bufs *bufs, unsigned large)
{
	return large < RECV_LARGES
		       ? bufs->zone + RECV_SMALLS * (RECV_ROOM + RECV_SMALL) + large * RECV_LARGE
		       : bufs->spare + RECV_SPARES * (RECV_ROOM + RECV_SMALL) +
				 (large - RECV_LARGES) * RECV_LARGE;
}

/*
 * Make a place ready for a packet of any length. *larges: those that no other place of the same
 * system call has; bufs->larges at first. False: others have them all, what comes has to wait.
 */
static inline bool recv_place_fill(struct recv_bufs *bufs, struct recv_place *place,
				   uint64_t *larges)
{
	unsigned large;

	if (unlikely(*larges == 0))
		return false;
	if (place->small == RECV_NONE) {
		if (likely(bufs->small_count > 0))
			place->small = bufs->smalls[--bufs->small_count];
		else if (bufs->spare_count > 0)
			place->small = bufs->spare_smalls[--bufs->spare_count];
		else
			return false;
		place->iov[2].iov_base = recv_small_at(bufs, place->small) + RECV_ROOM;
	}
	large = __builtin_ctzll(*larges);
	*larges &= *larges - 1;
	if (unlikely(place->large != large)) {
		place->large = large;
		place->iov[3].iov_base = recv_large_at(bufs, large);
	}
	return true;
}

#endif
