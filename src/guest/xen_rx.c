/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a Xen guest receives (M12, S4): by grant copy into pages that it has posted.
 *
 * Theory of operation. The packets of a burst are laid out over the posted pages, and all of it is
 * copied by one call: the private header, the segments of an aggregate (A3), the fragments of
 * another guest's packet each go to where they belong.
 *
 *      packet   header[]  | frag                     | frag      |
 *      slots    [ h h f f f f ] (GSO)  [ f f f f f f ] [ f g g g  ]     the extra takes a slot, too
 *
 * A packet with PKT_REMOTE has its payload in pages of another Xen guest: the copy then is from
 * grant to grant, in pieces that cross no page on either side.
 *
 * What lies at an address costs gntdev, in a PV domain, some 1800 instructions for each page that a
 * piece touches, to find the page that it is and keep it there; and a packet's pages are never
 * aligned as the guest's are, so that each of these is two pieces. That is several times what the
 * bytes themselves cost. So they first are staged: copied, while they are in the cache, into pages
 * that we have granted to ourselves, laid out as the guest's. A slot then is one piece, from grant to
 * grant. Where there are no such pages pieces go straight to the guest.
 *
 * The responses, each in the slot of its request, are put into the ring once it is known that the
 * copies were made, and become visible together. Until then the requests stay there as they are:
 * should we die meanwhile, our successor finds them.
 */
#include <string.h>

#include "guest/xen_netif.h"
#include "port/worker.h"

/* Where the next byte goes. */
struct place {
	struct xen_queue *queue;
	unsigned pkt;          /* number in the burst */
	uint32_t first;        /* slots, as ring indexes: the packet's first, */
	uint32_t slot;         /* the one that is being filled */
	uint32_t offset;       /* and how far */
	uint32_t gref;         /* its page */
	uint8_t *stage;        /* ours for it, or NULL */
	struct xen_copy *open; /* the copy from there that ends at offset, or NULL */
	unsigned *copies;
};

static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

/* Begin with a slot: its request is read, once, and its response begun. */
static void open_slot(struct place *place)
{
	struct xen_queue *queue = place->queue;
	struct xen_rx_request request = xen_rx_read(queue->rx, place->slot);

	place->gref = request.gref;
	place->offset = 0;
	place->open = NULL;
	if (likely(queue->stage.granted))
		place->stage = queue->stage.pages + (size_t)queue->staged++ * XEN_PAGE;
	queue->rx_slots[place->slot % XEN_RING].rsp = (struct xen_rx_response){ .id = request.id };
}

/* The slot is full, or there is no more. */
static void close_slot(struct place *place, bool more)
{
	struct xen_rx_response *response = &place->queue->rx_slots[place->slot % XEN_RING].rsp;

	response->status = place->offset;
	response->flags |= more ? XEN_RXF_MORE_DATA : 0;
}

/* The next copy, of len bytes to where the next byte goes. */
static struct xen_copy *add_copy(struct place *place, uint16_t len)
{
	struct xen_queue *queue = place->queue;
	struct xen_copy *copy = &queue->rx_copies[*place->copies];

	copy->dest.foreign.ref = place->gref;
	copy->dest.foreign.offset = place->offset;
	copy->dest.foreign.domid = queue->netif->domid;
	copy->len = len;
	copy->flags = XEN_COPY_TO_GRANT;
	queue->rx_dests[(*place->copies)++] = (struct xen_rx_dest){ place->slot % XEN_RING,
								    place->pkt };
	return copy;
}

/* len bytes of ours, which the slot has room for, by way of the page staged for it. */
static void put_staged(struct place *place, const uint8_t *from, uint16_t len)
{
	uint8_t *at = place->stage + place->offset;

	memcpy(at, from, len);
	if (place->open) {
		place->open->len += len;
		return;
	}
	place->open = add_copy(place, len);
	place->open->source = xen_own_end(&place->queue->stage, at, &place->open->flags,
					  XEN_COPY_FROM_GRANT);
}

/* Bytes up to the end of the page that at is in. */
static uint32_t page_rest(uintptr_t at)
{
	return XEN_PAGE - (at & (XEN_PAGE - 1));
}

/* Lay out len bytes of a packet; remote: from this queue of another guest, or NULL. */
static void put_piece(struct place *place, const struct xen_queue *remote, const uint8_t *from,
		      uint32_t len, bool gso)
{
	bool staged = !remote && place->stage;

	while (len > 0) {
		uint32_t part = len;

		if (place->offset == XEN_PAGE) {
			close_slot(place, true);
			/* behind the first slot is the extra's */
			place->slot += place->slot == place->first && gso ? 2 : 1;
			open_slot(place);
		}
		if (part > XEN_PAGE - place->offset)
			part = XEN_PAGE - place->offset;
		if (!staged && part > page_rest((uintptr_t)from))
			part = page_rest((uintptr_t)from);
		if (staged) {
			put_staged(place, from, part);
		} else {
			struct xen_copy *copy = add_copy(place, part);

			place->open = NULL;
			copy->source.virt = (void *)from;
			if (remote) {
				copy->source = xen_tx_grant(remote, from);
				copy->flags |= XEN_COPY_FROM_GRANT;
			}
		}
		place->offset += part;
		from += part;
		len -= part;
	}
}

/* What is asked of the receiver: flags of the packet's first slot, and its extra. */
static void put_request(struct xen_queue *queue, uint32_t first, const struct pkt_offload *offload)
{
	struct xen_rx_response *response = &queue->rx_slots[first % XEN_RING].rsp;

	if (!(queue->netif->channel.port.caps & PORT_CAP_CSUM))
		return;
	if (offload->flags & PKT_CSUM_PARTIAL)
		response->flags |= XEN_RXF_CSUM_BLANK | XEN_RXF_DATA_VALIDATED;
	else if (offload->flags & PKT_CSUM_VALID)
		response->flags |= XEN_RXF_DATA_VALIDATED;
	if (offload->gso_type == PKT_GSO_NONE)
		return;
	response->flags |= XEN_RXF_EXTRA_INFO;
	queue->rx_slots[(first + 1) % XEN_RING].extra = (struct xen_extra){
		.type = XEN_EXTRA_GSO,
		.gso.size = offload->gso_size,
		.gso.type = offload->gso_type == PKT_GSO_TCPV6 ? XEN_GSO_TCPV6 : XEN_GSO_TCPV4,
	};
}

static unsigned slots_of(const struct pkt *pkt)
{
	return (pkt->len + XEN_PAGE - 1) / XEN_PAGE + (pkt->offload.gso_type != PKT_GSO_NONE);
}

/* Lay out a packet over slots from rx_cons + used on; as many as slots_of() says. */
static void put_packet(struct xen_queue *queue, const struct pkt *pkt, unsigned number,
		       uint32_t first, unsigned *copies)
{
	bool gso = pkt->offload.gso_type != PKT_GSO_NONE;
	const struct xen_queue *remote = pkt->offload.flags & PKT_REMOTE
						 ? (const struct xen_queue *)pkt->source
						 : NULL;
	struct place place = {
		.queue = queue, .pkt = number, .first = first, .slot = first, .copies = copies
	};

	open_slot(&place);
	put_piece(&place, NULL, pkt->header, pkt->header_len, gso);
	for (unsigned i = 0; i < pkt->frag_count; i++)
		put_piece(&place, remote, pkt->frags[i].iov_base, pkt->frags[i].iov_len, gso);
	close_slot(&place, false);
	put_request(queue, first, &pkt->offload);
}

/* A packet that will count as sent has not been. */
static void not_sent(struct port_stats *stats, const struct pkt *pkt, uint64_t *why)
{
	(*why)++;
	stats->send_packets--;
	stats->send_bytes -= pkt->len;
	stats->copied_bytes -= pkt->len - pkt->header_len;
	stats->send_gso_packets -= pkt->offload.gso_type != PKT_GSO_NONE;
}

/* Have done what has been laid out. */
static void copy_all(struct xen_queue *queue, struct pkt **pkts, unsigned *copies,
		     struct port_stats *stats)
{
	unsigned last = UINT8_MAX;

	if (*copies > 0)
		xen_copy(queue, queue->rx_copies, *copies, &queue->rx_costs);
	for (unsigned i = 0; i < *copies; i++) {
		const struct xen_rx_dest *dest = &queue->rx_dests[i];

		if (likely(queue->rx_copies[i].status == 0))
			continue;
		queue->rx_slots[dest->slot].rsp.status = XEN_RSP_ERROR;
		if (dest->pkt != last)
			not_sent(stats, pkts[dest->pkt], &stats->drop_device_error);
		last = dest->pkt;
	}
	*copies = 0;
	queue->staged = 0;
}

/* NULL if the packet fits the slots that are there, or the counter of why it does not. */
static uint64_t *fits(struct xen_queue *queue, const struct pkt *pkt, unsigned available,
		      struct port_stats *stats)
{
	unsigned need = slots_of(pkt);

	if (unlikely(need > XEN_RX_SLOTS_MAX || (!queue->netif->sg && pkt->len > XEN_PAGE)))
		return &stats->drop_too_big;
	if (unlikely(need > available)) {
		atomic_store_explicit(&queue->lacking, need, memory_order_relaxed);
		return &stats->drop_no_buffers;
	}
	return NULL;
}

/* A front end that has posted nothing for long is not tried until it has what was lacking. */
static bool still_stalled(struct xen_queue *queue, unsigned available)
{
	if (available < atomic_load_explicit(&queue->lacking, memory_order_relaxed))
		return true;
	atomic_store_explicit(&queue->stalled, false, memory_order_relaxed);
	return false;
}

/* Multicast that the guest has not asked for, though it said that it would ask. */
static bool unwanted(struct xen_netif *netif, const struct pkt *pkt)
{
	return netif->multicast_asks && pkt->header[0] & 1 &&
	       memcmp(pkt->header, broadcast, sizeof(broadcast)) != 0 &&
	       !xen_multicast_wanted(netif, pkt->header);
}

/* The responses from rx_cons on, up to end. */
static void respond(struct xen_queue *queue, uint32_t end)
{
	for (uint32_t at = queue->rx_cons; at != end; at++)
		queue->rx->slots[at % XEN_RING] = queue->rx_slots[at % XEN_RING];
	queue->rx_cons = end;
	xen_publish(&queue->rx->at.rsp_prod, end);
}

unsigned xen_rx_put(struct xen_queue *queue, struct pkt **pkts, unsigned n, uint64_t **why)
{
	struct port_stats *stats = port_stats(&queue->netif->channel.port);
	uint32_t available = xen_look(&queue->rx->at.req_prod) - queue->rx_cons;
	uint32_t at = queue->rx_cons, end = at + available;
	unsigned copies = 0, i;

	*why = &stats->drop_not_ready;
	if (unlikely(available > XEN_RING)) {
		xen_break(queue->netif, XEN_RX_JUMPED);
		return 0;
	}
	if (unlikely(atomic_load_explicit(&queue->stalled, memory_order_relaxed)) &&
	    still_stalled(queue, available))
		return 0;
	for (i = 0; i < n; i++) {
		struct pkt *pkt = pkts[i];

		if (unlikely(unwanted(queue->netif, pkt))) {
			not_sent(stats, pkt, &stats->drop_unwanted_multicast);
			continue;
		}
		*why = fits(queue, pkt, end - at, stats);
		if (unlikely(*why))
			break;
		if (unlikely(copies + 2 * (pkt->frag_count + XEN_RX_SLOTS_MAX) > XEN_RX_COPIES ||
			     queue->staged + XEN_RX_SLOTS_MAX > XEN_STAGE))
			copy_all(queue, pkts, &copies, stats);
		put_packet(queue, pkt, i, at, &copies);
		at += slots_of(pkt);
	}
	if (at == queue->rx_cons)
		return i;
	copy_all(queue, pkts, &copies, stats);
	respond(queue, at);
	if (i == n)
		atomic_store_explicit(&queue->lacking, 0, memory_order_relaxed);
	return i;
}
