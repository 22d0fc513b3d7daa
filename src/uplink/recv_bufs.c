/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Buffers to receive into, in a zone.
 *
 * Theory of operation. What the kernel copies out of its packets it may as well copy to where shared
 * guests can read it (trust=shared, S11): they get it by reference then, and everybody else as
 * before. A queue has one zone for that:
 *
 *      | 1024 x ( 64 room | 2048 small )                            | 32 x 62 KiB large      |
 *
 *      packet   header[192] | the next 2048 bytes: a small buffer   | the rest: a large one
 *
 * A guest may keep a packet for as long as it likes. So packets are not read into whatever memory is
 * next, which one that is kept would hold up: each takes buffers of its own along and brings them
 * back, in any order. Two sizes, for packets of 1500 bytes are many and are kept by the hundred; one
 * of 64 KiB lies in two pieces, which nobody minds. Those that came back last are used first, while
 * they are in the cache.
 *
 * Spare buffers, no zone's, are the last of all. When guests keep all of the zone, packets lie there
 * and are copied to whoever they are for: the uplink goes on, and they come back after each burst.
 * Their memory is not even there until they are needed. A queue that can have no zone has them alone.
 *
 * The room keeps small buffers from meeting in the same cache sets, and takes a VLAN tag that is put
 * back in front of what has been read.
 */
#include "uplink/recv_bufs.h"

#include <errno.h>
#include <stdlib.h>

#include "sys/log.h"
#include "zone/zone_host.h"

static_assert(RECV_SMALLS * (RECV_ROOM + RECV_SMALL) + RECV_LARGES * RECV_LARGE == ZONE_SIZE,
	      "the buffers fill a zone");
static_assert(PKT_HEADER_MAX + RECV_SMALL + RECV_LARGE > PKT_LEN_MAX,
	      "an oversized packet can be told from one that fits");
static_assert(RECV_LARGES + RECV_SPARES <= 64, "free ones are bits of a word");

static void bufs_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	struct recv_bufs *bufs = (struct recv_bufs *)source;

	for (unsigned i = 0; i < n; i++) {
		unsigned small = pkts[i]->cookie & 0xffff, large = pkts[i]->cookie >> 16;

		if (likely(small < RECV_SMALLS))
			bufs->smalls[bufs->small_count++] = small;
		else
			bufs->spare_smalls[bufs->spare_count++] = small;
		if (large != RECV_NONE)
			bufs->larges |= UINT64_C(1) << large;
	}
}

void recv_place_init(struct recv_place *place)
{
	*place = (struct recv_place){ .small = RECV_NONE, .large = RECV_NONE };
	place->iov[2].iov_len = RECV_SMALL;
	place->iov[3].iov_len = RECV_LARGE;
}

void recv_place_take(struct recv_bufs *bufs, struct recv_place *place, struct pkt *pkt,
		     uint8_t *rest)
{
	uint32_t len = pkt->len - pkt->header_len;
	uint32_t room = (uint8_t *)place->iov[2].iov_base + RECV_SMALL - rest;
	unsigned large = RECV_NONE;

	pkt->frags[0] = (struct iovec){ rest, len < room ? len : room };
	pkt->frag_count = 1;
	if (len > room) {
		large = place->large;
		bufs->larges &= ~(UINT64_C(1) << large);
		pkt->frags[1] = (struct iovec){ place->iov[3].iov_base, len - room };
		pkt->frag_count = 2;
	}
	pkt->cookie = place->small | large << 16;
	pkt->source = &bufs->source;
	place->small = RECV_NONE;
}

/* A zone that shared guests may see. */
static int zone_make(struct recv_bufs *bufs, const char *name, struct error *error)
{
	struct zone_space *space = zone_host(error);
	int err;

	if (!space)
		return -ENOMEM;
	zone_group_init(&bufs->zones, space, name, ZONE_READ_ONLY, 1);
	err = zone_group_grow(&bufs->zones, 1, error);
	if (err)
		return err;
	bufs->zone = bufs->zones.zones->base;
	return 0;
}

int recv_bufs_open(struct recv_bufs *bufs, const char *name)
{
	struct error why;

	bufs->source.done = bufs_done;
	bufs->spare = aligned_alloc(64, RECV_SPARES * (RECV_ROOM + RECV_SMALL + RECV_LARGE));
	if (!bufs->spare)
		return -ENOMEM;
	for (unsigned i = 0; i < RECV_SPARES; i++)
		bufs->spare_smalls[bufs->spare_count++] = RECV_SMALLS + i;
	bufs->larges = ((UINT64_C(1) << RECV_SPARES) - 1) << RECV_LARGES;
	if (zone_make(bufs, name, &why)) {
		log_info("shared guests get copies of what '%s' receives: %s", name, why.text);
		return 0;
	}
	for (unsigned i = RECV_SMALLS; i-- > 0;)
		bufs->smalls[bufs->small_count++] = i;
	bufs->larges |= (UINT64_C(1) << RECV_LARGES) - 1;
	return 0;
}

void recv_bufs_close(struct recv_bufs *bufs)
{
	if (bufs->zones.space)
		zone_group_fini(&bufs->zones);
	free(bufs->spare);
}
