/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets that do not fit the MTU of the port that they go to: dropped here, for all ports, and the
 * sender is told. The theory of operation is at the top of too_big.c.
 */
#ifndef VIFD_TOO_BIG_H
#define VIFD_TOO_BIG_H

#include "port/port.h"

/*
 * Room in a frame beside the MTU that every frame is granted: the Ethernet header and one VLAN tag,
 * whether it has one or not, as Linux's bridge and Open vSwitch do.
 */
enum { FRAME_ROOM = PKT_LEN_MIN + 4 };

/* The rest of too_big_drop(), from the first packet on that may be too big. */
unsigned too_big_drop_from(struct port *port, struct pkt **pkts, unsigned first, unsigned n);

/*
 * Drop those of n packets that do not fit the port's MTU. Returns how many are left, in order, in
 * pkts. On a worker.
 */
static inline unsigned too_big_drop(struct port *port, struct pkt **pkts, unsigned n)
{
	const uint32_t surely_fits = port->mtu + FRAME_ROOM;

	for (unsigned i = 0; i < n; i++) {
		if (unlikely(pkts[i]->len > surely_fits))
			return too_big_drop_from(port, pkts, i, n);
	}
	return n;
}

#endif
