/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets that do not fit the MTU of the port that they go to: dropped here, for all ports, and the
 * sender is told. The theory of operation is at the top of too_big.c.
 */
#ifndef VIFD_TOO_BIG_H
#define VIFD_TOO_BIG_H

#include "port/port.h"

/*
 * The longest frame that certainly fits a port. A guest is granted the room of a VLAN tag whether
 * there is one or not, as by Linux's bridge and Open vSwitch; an interface of the kernel refuses
 * what is longer than its MTU, and the sender would not be told.
 */
static inline uint32_t too_big_surely_fits(const struct port *port)
{
	return port->mtu + PKT_LEN_MIN + (port->uplink ? 0 : 4);
}

/* The rest of too_big_drop(), from the first packet on that may be too big. */
unsigned too_big_drop_from(struct port *port, struct pkt **pkts, unsigned first, unsigned n);

/*
 * Drop those of n packets that do not fit the port's MTU. Returns how many are left, in order, in
 * pkts. On a worker.
 */
static inline unsigned too_big_drop(struct port *port, struct pkt **pkts, unsigned n)
{
	const uint32_t surely_fits = too_big_surely_fits(port);

	for (unsigned i = 0; i < n; i++) {
		if (unlikely(pkts[i]->len > surely_fits))
			return too_big_drop_from(port, pkts, i, n);
	}
	return n;
}

#endif
