/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A netfront for tests: one queue of a domain of fake_xen.h, and the back end's interface that it
 * is connected to. It grants pages, fills and reads rings; what it puts there is the test's to say.
 */
#ifndef VIFD_TEST_FAKE_FRONT_H
#define VIFD_TEST_FAKE_FRONT_H

#include "fake_xen.h"

enum {
	FRONT_TX_RING = 8,
	FRONT_RX_RING,
	FRONT_TX_EVENT = 20,
	FRONT_RX_EVENT,
	FRONT_TX_PAGES = 256,  /* the first of XEN_RING grants to send from; */
	FRONT_RX_PAGES = 1024, /* to receive into */
};

struct fake_front {
	uint16_t domid;
	struct xen_netif *netif;
	struct xen_tx_ring *tx;
	struct xen_rx_ring *rx;
	uint32_t tx_prod, tx_seen; /* requests put, responses read */
	uint32_t rx_prod, rx_seen;
	unsigned errors; /* responses that said so */
};

static inline void fake_front_init(struct fake_front *front, uint16_t domid)
{
	*front = (struct fake_front){ .domid = domid };
	fake_grant(domid, FRONT_TX_RING);
	fake_grant(domid, FRONT_RX_RING);
	front->tx = (struct xen_tx_ring *)fake_page(domid, FRONT_TX_RING);
	front->rx = (struct xen_rx_ring *)fake_page(domid, FRONT_RX_RING);
	front->tx->at.rsp_event = front->rx->at.rsp_event = 1;
	front->tx->at.req_event = front->rx->at.req_event = 1;
	for (uint32_t i = 0; i < XEN_RING; i++) {
		fake_grant(domid, FRONT_TX_PAGES + i);
		fake_grant(domid, FRONT_RX_PAGES + i);
	}
}

/* As after a long life. */
static inline void fake_front_age(struct fake_front *front, uint32_t index)
{
	front->tx_prod = front->tx_seen = front->rx_prod = front->rx_seen = index;
	front->tx->at.req_prod = front->tx->at.rsp_prod = index;
	front->rx->at.req_prod = front->rx->at.rsp_prod = index;
	front->tx->at.rsp_event = front->rx->at.rsp_event = index + 1;
}

static inline struct xen_config fake_front_config(uint32_t caps)
{
	return (struct xen_config){
		.queues = 1,
		.queue[0] = { FRONT_TX_RING, FRONT_RX_RING, FRONT_TX_EVENT, FRONT_RX_EVENT },
		.caps = caps,
		.sg = true,
	};
}

enum { FRONT_CAPS = PORT_CAP_SG | PORT_CAP_REMOTE | PORT_CAP_CSUM | PORT_CAP_TSO4 | PORT_CAP_TSO6 };

/* An interface for the front end, with a port; connected. */
static inline int fake_front_attach(struct fake_front *front, enum xen_tx_mode mode,
				    const struct xen_config *config)
{
	struct xen_netif *netif = aligned_alloc(64, (sizeof(*netif) + 63) & ~(size_t)63);
	struct error error;

	memset(netif, 0, sizeof(*netif));
	netif->channel.ops = &xen_channel_ops;
	netif->channel.pairs = 1;
	netif->channel.port.ops = &guest_port_ops;
	netif->channel.port.queues = 1;
	netif->channel.port.mtu = 1500;
	sprintf(netif->channel.port.name, "vif%u.0", front->domid);
	netif->ops = &fake_xen_ops;
	netif->tx_mode = mode;
	netif->domid = front->domid;
	front->netif = netif;
	if (port_register(&netif->channel.port))
		abort();
	return xen_netif_connect(netif, config, &error);
}

static inline void fake_front_detach(struct fake_front *front)
{
	worker_complete(worker_self);
	xen_netif_disconnect(front->netif);
	port_unregister(&front->netif->channel.port);
	free(front->netif);
	front->netif = NULL;
}

static inline struct port *front_port(struct fake_front *front)
{
	return &front->netif->channel.port;
}

static inline struct port_stats *front_stats(struct fake_front *front)
{
	return &front->netif->channel.port.stats[0];
}

/* ---- sending ---- */

/* The next slot; its page is the one of its place in the ring. */
static inline union xen_tx_slot *front_slot(struct fake_front *front)
{
	return &front->tx->slots[front->tx_prod++ % XEN_RING];
}

static inline uint8_t *front_tx_page(struct fake_front *front, uint32_t index)
{
	return fake_page(front->domid, FRONT_TX_PAGES + index % XEN_RING);
}

/* Put a request for bytes at an offset of its page, which are copied there. */
static inline struct xen_tx_request *front_put(struct fake_front *front, const void *bytes,
					       uint16_t offset, uint16_t size, uint16_t flags)
{
	uint32_t index = front->tx_prod;
	struct xen_tx_request *request = &front_slot(front)->req;

	*request = (struct xen_tx_request){
		.gref = FRONT_TX_PAGES + index % XEN_RING,
		.offset = offset,
		.flags = flags,
		.id = index % XEN_RING,
		.size = size,
	};
	if (bytes && offset + size <= XEN_PAGE)
		memcpy(front_tx_page(front, index) + offset, bytes, size);
	return request;
}

static inline void front_put_gso(struct fake_front *front, uint16_t size, uint8_t type,
				 uint8_t flags)
{
	union xen_tx_slot *slot = front_slot(front);

	memset(slot, 0, sizeof(*slot));
	slot->extra = (struct xen_extra){ .type = XEN_EXTRA_GSO, .flags = flags };
	slot->extra.gso.size = size;
	slot->extra.gso.type = type;
}

/* Put a frame: its first head bytes in the first slot, the rest in slots of up to a page. */
static inline unsigned front_put_frame(struct fake_front *front, const uint8_t *frame, uint32_t len,
				       uint32_t head, uint16_t flags, uint16_t gso_size,
				       uint8_t gso_type)
{
	uint32_t from = front->tx_prod, off = head < len ? head : len;
	struct xen_tx_request *request = front_put(front, frame, 100, off, flags);

	if (gso_size) {
		request->flags |= XEN_TXF_EXTRA_INFO;
		front_put_gso(front, gso_size, gso_type, 0);
	}
	request->size = len; /* of all */
	while (off < len) {
		uint32_t part = len - off < XEN_PAGE ? len - off : XEN_PAGE;

		request->flags |= XEN_TXF_MORE_DATA;
		request = front_put(front, frame + off, 0, part, 0);
		off += part;
	}
	return front->tx_prod - from;
}

/* What has been put is visible; an event if it was asked for. */
static inline bool front_publish(struct fake_front *front)
{
	uint32_t old = front->tx->at.req_prod;

	__atomic_store_n(&front->tx->at.req_prod, front->tx_prod, __ATOMIC_RELEASE);
	if (front->tx_prod - front->tx->at.req_event >= front->tx_prod - old)
		return false;
	fake_event(front->domid, FRONT_TX_EVENT);
	return true;
}

static inline unsigned front_take(struct fake_front *front, struct pkt **pkts)
{
	front_publish(front);
	return xen_channel_ops.guest_tx(&front->netif->channel, 0, pkts, PKT_BURST);
}

/* Read responses; how many there were. */
static inline unsigned front_answers(struct fake_front *front)
{
	uint32_t prod = __atomic_load_n(&front->tx->at.rsp_prod, __ATOMIC_ACQUIRE);
	unsigned count = prod - front->tx_seen;

	for (; front->tx_seen != prod; front->tx_seen++)
		front->errors += front->tx->slots[front->tx_seen % XEN_RING].rsp.status < 0;
	front->tx->at.rsp_event = prod + 1;
	return count;
}

/* ---- receiving ---- */

static inline void front_post(struct fake_front *front, unsigned count)
{
	for (; count > 0; count--, front->rx_prod++)
		front->rx->slots[front->rx_prod % XEN_RING].req = (struct xen_rx_request){
			.id = front->rx_prod % XEN_RING,
			.gref = FRONT_RX_PAGES + front->rx_prod % XEN_RING,
		};
	__atomic_store_n(&front->rx->at.req_prod, front->rx_prod, __ATOMIC_RELEASE);
}

/* Hand packets to the port, and end the round. */
static inline void front_deliver(struct fake_front *front, struct pkt **pkts, unsigned n)
{
	worker_self->flush_count = 0;
	front_port(front)->flush_pending[0] = false;
	port_send(front_port(front), pkts, n);
	guest_port_ops.flush(front_port(front));
}

/* A packet that was received. */
struct front_frame {
	uint32_t len;
	unsigned slots;
	uint16_t flags;
	int16_t status; /* the worst */
	struct xen_extra gso;
	uint8_t bytes[FRAME_MAX];
};

/* Read the next packet. False: there is none. */
static inline bool front_frame(struct fake_front *front, struct front_frame *frame)
{
	uint32_t prod = __atomic_load_n(&front->rx->at.rsp_prod, __ATOMIC_ACQUIRE);
	bool more = true;

	frame->len = frame->slots = frame->status = 0;
	frame->gso.type = 0;
	while (more && front->rx_seen != prod) {
		uint32_t index = front->rx_seen++;
		struct xen_rx_response rsp = front->rx->slots[index % XEN_RING].rsp;

		if (rsp.status < 0)
			frame->status = rsp.status;
		else if (frame->len + rsp.status <= FRAME_MAX)
			memcpy(frame->bytes + frame->len,
			       fake_page(front->domid, FRONT_RX_PAGES + index % XEN_RING) +
				       rsp.offset,
			       rsp.status);
		frame->len += rsp.status > 0 ? rsp.status : 0;
		if (frame->slots++ == 0)
			frame->flags = rsp.flags;
		if (frame->slots == 1 && rsp.flags & XEN_RXF_EXTRA_INFO) {
			frame->gso = front->rx->slots[front->rx_seen++ % XEN_RING].extra;
			frame->slots++;
		}
		more = rsp.flags & XEN_RXF_MORE_DATA;
	}
	front->rx->at.rsp_event = front->rx_seen + 1;
	return frame->slots > 0;
}

#endif
