/* SPDX-License-Identifier: BSD-3-Clause */
/* channel=remap: the channel that SETH is measured against. The theory of operation is in
 * snet_remap.c. */
#ifndef VIFD_SNET_REMAP_H
#define VIFD_SNET_REMAP_H

#include "guest/snet.h"
#include "sys/error.h"

/* Main thread. Reserve vifd's own buffers for the packets of so many workers; again is nothing.
 * 0 or -ENOMEM. */
int snet_remap_init(unsigned workers, struct error *error);

/*
 * On the queue's worker. n packets as they were taken from the ring, their header not read yet: copy
 * each to a buffer of vifd's own, through a mapping made for it. Their entries are given back, the
 * packets are nobody's any more (source is NULL).
 */
void snet_remap_in(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n);

/* Copy len bytes of the packet at off to buf, which lies in a zone to receive into, through a
 * mapping made for it. */
void snet_remap_out(const struct snet *snet, const struct pkt *pkt, uint32_t off, void *buf,
		    uint32_t len);

#endif
