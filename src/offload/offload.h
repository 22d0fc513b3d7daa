/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The software offload driver (M8, M30): what a packet needs and a port cannot do is done here,
 * as late as possible. The theory of operation is at the top of offload.c.
 */
#ifndef VIFD_OFFLOAD_H
#define VIFD_OFFLOAD_H

#include "port/port.h"

/* The enum port_caps that a port must have to be sent pkt as it is; 0: nothing. */
static inline uint32_t offload_needs(const struct pkt *pkt)
{
	uint32_t needs = PORT_CAP_CSUM;

	if (likely(pkt_needs_nothing(pkt)))
		return 0;
	if (pkt->offload.gso_type == PKT_GSO_TCPV4)
		needs |= PORT_CAP_TSO4;
	else if (pkt->offload.gso_type == PKT_GSO_TCPV6)
		needs |= PORT_CAP_TSO6;
	else if (pkt->offload.gso_type == PKT_GSO_UDP)
		needs |= PORT_CAP_USO;
	if (pkt->offload.flags & PKT_GSO_ECN)
		needs |= PORT_CAP_TSO_ECN;
	return needs;
}

/*
 * Finish the L4 checksum that pkt->offload asks for, in the private header copy, and clear the
 * request. Other owners of the packet get it with its checksum finished, too. False: the field is
 * not within PKT_HEADER_MAX; to be dropped.
 */
bool offload_finish_checksum(struct pkt *pkt);

/*
 * Send a packet to a port that lacks part of what it needs, after doing that part. Takes
 * ownership of one reference. Counts in the port's statistics: segmented_packets, segments,
 * checksummed_packets, drop_offload_failed. On a worker.
 */
void offload_send(struct port *port, struct pkt *pkt);

#endif
