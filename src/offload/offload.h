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
	uint32_t needs = pkt->frag_count + (pkt->header_len > 0) > 1 ? PORT_CAP_SG : 0;

	static_assert((int)PKT_REMOTE == (int)PORT_CAP_REMOTE, "the one needs the other");
	needs |= pkt->offload.flags & PKT_REMOTE;
	if (likely(pkt_needs_nothing(pkt)))
		return needs;
	needs |= PORT_CAP_CSUM;
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
 * Send n packets, some of which need what port lacks, after doing that. Takes ownership of one
 * reference of each. They leave in order, in bursts of up to PKT_BURST. Counts in the port's
 * statistics: passed_packets, segmented_packets, segments, checksummed_packets, linearised_packets,
 * drop_offload_failed. On a worker.
 */
void offload_send(struct port *port, struct pkt **pkts, unsigned n);

#endif
