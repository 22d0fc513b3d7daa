/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The software offload driver (M8, M30): what a packet needs and a port cannot do is done here, as late as possible.
 */
#ifndef VIFD_OFFLOAD_H
#define VIFD_OFFLOAD_H

#include "port/port.h"

/* enum port_caps that sending pkt as it is requires; 0: nothing. */
uint32_t offload_needs(const struct pkt *pkt);

/*
 * Finish the L4 checksum in the private header copy and clear the request. UDP checksums of zero become 0xffff.
 * False: the field is not within the header copy and cannot be pulled there; drop it (drop_offload_failed).
 */
bool offload_finish_checksum(struct pkt *pkt);

/*
 * Send one packet to a port that lacks part of what it needs (caps = port->caps): segment by reference, in bursts
 * of PKT_BURST, and/or finish checksums. Takes ownership of one reference of pkt; counts in the port's statistics
 * (segmented_packets, segments, checksummed_packets, drop_offload_failed). On a worker.
 */
void offload_send(struct port *port, struct pkt *pkt);

#endif
