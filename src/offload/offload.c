/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The software offload driver (M8, M30).
 *
 * Theory of operation. Every guest has a NIC with all offloads (M6); packets cross the bridge
 * whole, and port_send() brings those here whose next port cannot do all they ask. Only the
 * difference is done:
 *
 *      GSO, and the port lacks its kind or checksums   segment by reference (tso.c), in bursts
 *      then, if the port lacks checksums               finish each one's
 *      then, if the port takes no fragments            nothing yet: all ports take them
 *
 * Segments come from the worker's pool and go back once they are sent. The packets of one burst
 * may become more segments than the pool has packets, so that when it runs dry those already sent
 * are completed in between.
 */
#include "offload/offload.h"

#include <string.h>

#include "offload/tso.h"
#include "pkt/csum.h"
#include "port/worker.h"

bool offload_finish_checksum(struct pkt *pkt)
{
	unsigned start = pkt->offload.csum_start, field = start + pkt->offload.csum_offset;

	if (!pkt_pull(pkt, field + 2))
		return false;

	uint16_t csum = csum_fold(csum_pkt(pkt, start, pkt->len - start, 0));

	/*
	 * Zero would say "no checksum" in UDP (RFC 768); both mean the same in all other
	 * protocols.
	 */
	if (csum == 0)
		csum = 0xffff;
	memcpy(pkt->header + field, &csum, sizeof(csum));
	pkt->offload.flags &= ~PKT_CSUM_PARTIAL;
	pkt->offload.csum_start = pkt->offload.csum_offset = 0;
	return true;
}

/*
 * Finish the checksums of packets that need nothing else. Drops those it cannot, returns how many
 * are left.
 */
static unsigned finish_checksums(struct port *port, struct pkt **pkts, unsigned n)
{
	struct port_stats *stats = port_stats(port);
	unsigned kept = 0;

	for (unsigned i = 0; i < n; i++) {
		if (likely(offload_finish_checksum(pkts[i]))) {
			pkts[kept++] = pkts[i];
		} else {
			stats->drop_offload_failed++;
			pkt_put(pkts[i]);
		}
	}
	stats->checksummed_packets += kept;
	return kept;
}

/* Send packets of one segment each. */
static void send_burst(struct port *port, struct pkt **pkts, unsigned n)
{
	if (!(port->caps & PORT_CAP_CSUM))
		n = finish_checksums(port, pkts, n);
	/*
	 * Here packets are to be linearised for the first port without PORT_CAP_SG (and
	 * offload_needs() must say so).
	 */
	profile_mark(&worker_self->profile, STAGE_OFFLOAD);
	if (n > 0)
		port->ops->send(port, pkts, n);
}

static unsigned next_segments(struct tso *tso, struct pkt **segments)
{
	struct worker *worker = worker_self;
	unsigned n = tso_next(tso, &worker->pool, segments, PKT_BURST);

	if (unlikely(n == 0)) {
		worker_complete(worker);
		n = tso_next(tso, &worker->pool, segments, PKT_BURST);
	}
	return n;
}

static void send_segments(struct port *port, struct pkt *pkt)
{
	struct port_stats *stats = port_stats(port);
	struct pkt *segments[PKT_BURST];
	struct tso tso;

	if (!tso_begin(&tso, pkt)) {
		stats->drop_offload_failed++;
		return;
	}
	stats->segmented_packets++;
	while (!tso_at_end(&tso)) {
		unsigned n = next_segments(&tso, segments);

		if (n == 0) {
			stats->drop_offload_failed++;
			return;
		}
		stats->segments += n;
		send_burst(port, segments, n);
	}
}

void offload_send(struct port *port, struct pkt *pkt)
{
	if (pkt->offload.gso_type == PKT_GSO_NONE) {
		send_burst(port, &pkt, 1);
	} else {
		send_segments(port, pkt);
		pkt_put(pkt);
	}
}
