/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The software offload driver (M8, M30).
 *
 * Theory of operation. Every guest has a NIC with all offloads (M6); packets cross the bridge
 * whole, and port_send() brings bursts here that hold packets whose next port cannot do all they
 * ask. Only the difference is done, packet by packet:
 *
 *      port lacks                  GSO packet                      other packet
 *      its kind of GSO, or CSUM    segment (tso.c), finish         finish the checksum in place
 *                                  checksums if it lacks CSUM
 *      and SG                      segments are written straight   a linear copy (linear.c),
 *                                  into linear memory              checksum included
 *
 * and what comes out is gathered, in order, so that it leaves in bursts again. Where payload is
 * copied its checksum is folded into the copy: no byte is touched twice.
 *
 * Segments and linear packets come from the worker's pool and go back once they are sent: all that
 * has been sent is completed after each full burst, and earlier when the pool or the linear memory
 * runs out, since the packets of one burst may become more than these hold.
 *
 * Payload that is still with its sender (PKT_REMOTE) is had brought first, for the whole burst at
 * once, unless the port takes the packet as it is.
 */
#include "offload/offload.h"

#include <string.h>

#include "offload/linear.h"
#include "offload/tso.h"
#include "pkt/csum.h"
#include "pkt/headers.h"
#include "port/worker.h"

/* On its way to one port. */
struct outbox {
	struct port *port;
	struct port_stats *stats;
	bool finish; /* checksums are ours */
	bool linear;
	unsigned count;
	struct pkt *pkts[PKT_BURST];
};

static void outbox_send(struct outbox *out)
{
	profile_mark(&worker_self->profile, STAGE_OFFLOAD);
	if (out->count > 0)
		out->port->ops->send(out->port, out->pkts, out->count);
	out->count = 0;
}

/*
 * Send, and get back what the packets held of the worker's: packets and memory that are still in
 * the cache.
 */
static void make_room(struct outbox *out)
{
	outbox_send(out);
	worker_complete(worker_self);
}

/* n packets have been put behind those in the box. */
static void outbox_added(struct outbox *out, unsigned n)
{
	out->count += n;
	if (out->count == PKT_BURST)
		make_room(out);
}

static void outbox_add(struct outbox *out, struct pkt *pkt)
{
	out->pkts[out->count] = pkt;
	outbox_added(out, 1);
}

static void refuse(struct outbox *out, struct pkt *pkt)
{
	out->stats->drop_offload_failed++;
	pkt_put(pkt);
}

bool offload_finish_checksum(struct pkt *pkt)
{
	unsigned start = pkt->offload.csum_start, field = start + pkt->offload.csum_offset;

	if (!pkt_pull(pkt, field + 2))
		return false;

	uint16_t csum = csum_finish(csum_pkt(pkt, start, pkt->len - start, 0));

	memcpy(pkt->header + field, &csum, sizeof(csum));
	pkt_csum_done(pkt);
	return true;
}

static void send_finished(struct outbox *out, struct pkt *pkt)
{
	if (unlikely(!offload_finish_checksum(pkt))) {
		refuse(out, pkt);
		return;
	}
	out->stats->checksummed_packets++;
	outbox_add(out, pkt);
}

/* finish: its checksum, too. */
static void send_linear(struct outbox *out, struct pkt *pkt, bool finish)
{
	struct pkt_pool *pool = &worker_self->pool;
	struct pkt *copy = NULL;

	headers_parse(pkt); /* whoever gets the copy must not pull from it */
	if (!finish || pkt_pull(pkt, pkt->offload.csum_start + pkt->offload.csum_offset + 2)) {
		copy = linear_copy(pool, pkt, finish);
		if (unlikely(!copy)) {
			make_room(out);
			copy = linear_copy(pool, pkt, finish);
		}
	}
	if (unlikely(!copy)) {
		refuse(out, pkt);
		return;
	}
	pkt_put(pkt);
	out->stats->linearised_packets++;
	out->stats->checksummed_packets += finish;
	outbox_add(out, copy);
}

/* Put the next segments into the box. Returns how many; 0: out of packets or of memory. */
static unsigned next_segments(struct outbox *out, struct tso *tso)
{
	struct pkt_pool *pool = &worker_self->pool;
	struct pkt **segments = out->pkts + out->count;
	unsigned room = PKT_BURST - out->count;

	if (out->linear)
		return tso_next_linear(tso, pool, segments, room);
	return tso_next(tso, pool, segments, room);
}

static void send_segments(struct outbox *out, struct pkt *pkt)
{
	struct tso tso;

	if (unlikely(!tso_begin(&tso, pkt, out->finish))) {
		refuse(out, pkt);
		return;
	}
	out->stats->segmented_packets++;
	while (!tso_at_end(&tso)) {
		unsigned n = next_segments(out, &tso);

		if (unlikely(n == 0)) {
			make_room(out);
			n = next_segments(out, &tso);
			if (n == 0) {
				refuse(out, pkt);
				return;
			}
		}
		out->stats->segments += n;
		out->stats->checksummed_packets += out->finish ? n : 0;
		out->stats->linearised_packets += out->linear ? n : 0;
		outbox_added(out, n);
	}
	pkt_put(pkt);
}

/* Have the payload brought of those packets that cannot go as they are. */
static void fetch(const struct port *port, struct pkt **pkts, unsigned n)
{
	struct pkt *remote[PKT_BURST];
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		if (pkts[i]->offload.flags & PKT_REMOTE && offload_needs(pkts[i]) & ~port->caps)
			remote[count++] = pkts[i];
		if (count == PKT_BURST || i + 1 == n) {
			pkt_fetch(remote, count);
			count = 0;
		}
	}
}

void offload_send(struct port *port, struct pkt **pkts, unsigned n)
{
	struct outbox out = {
		.port = port,
		.stats = port_stats(port),
		.finish = !(port->caps & PORT_CAP_CSUM),
		.linear = !(port->caps & PORT_CAP_SG),
	};

	fetch(port, pkts, n);
	for (unsigned i = 0; i < n; i++) {
		uint32_t lacks = offload_needs(pkts[i]) & ~port->caps;

		if (!lacks) {
			out.stats->passed_packets++;
			outbox_add(&out, pkts[i]);
		} else if (unlikely(pkts[i]->offload.flags & PKT_REMOTE)) {
			refuse(&out, pkts[i]);
		} else if (pkts[i]->offload.gso_type != PKT_GSO_NONE && lacks != PORT_CAP_SG) {
			send_segments(&out, pkts[i]);
		} else if (lacks & PORT_CAP_SG) {
			send_linear(&out, pkts[i], lacks & PORT_CAP_CSUM);
		} else {
			send_finished(&out, pkts[i]);
		}
	}
	outbox_send(&out);
}
