/* SPDX-License-Identifier: BSD-3-Clause */
/* channel=remap and channel=flip: the channels that snet is measured against. The theory of operation
 * is in snet_remap.c. */
#ifndef VIFD_SNET_REMAP_H
#define VIFD_SNET_REMAP_H

#include <jansson.h>

#include "guest/snet.h"
#include "sys/error.h"

enum snet_remap_mode { SNET_REMAP_COPY /* channel=remap */, SNET_REMAP_FLIP };

enum { SNET_FLIP_PAGE = 1 << ZONE_PAGE_SHIFT };

/* Main thread. What a guest's channel needs, with vifd's own buffers for the packets of so many
 * workers. NULL: out of memory. */
struct snet_remap *snet_remap_new(enum snet_remap_mode mode, unsigned workers);
/* The guest has gone; NULL is nothing. */
void snet_remap_free(struct snet_remap *remap);
bool snet_remap_flips(const struct snet_remap *remap);

/*
 * On the queue's worker. n packets as they were taken from the ring, their header not read yet.
 * remap: copy each to a buffer of vifd's own, through a mapping made for it. Their entries are given
 * back, the packets are nobody's any more (source is NULL). flip: make a mapping for each, which it
 * has until it is done.
 */
void snet_remap_in(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n);

/* Copy len bytes of the packet at off to buf, which lies in a zone to receive into, through a
 * mapping made for it. flip: its pages are the guest's then. */
void snet_remap_out(const struct snet *snet, const struct pkt *pkt, uint32_t off, void *buf,
		    uint32_t len);
/* flip: pages that snet_remap_out() has handed over are vifd's again, and zeroed. remap: nothing. */
void snet_remap_back(const struct snet *snet, void *const *bufs, unsigned n);

/* What was done so far, for `show guests`. New reference. */
json_t *snet_remap_show(const struct snet_remap *remap);

#endif
