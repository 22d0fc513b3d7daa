/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two rings of Xen's network interface, as both ends see them (Xen's public/io/netif.h and
 * ring.h; xen_libs.c checks these against those).
 *
 *      page granted by the guest:  req_prod | req_event | rsp_prod | rsp_event | pad | 256 slots
 *      slot                        a request, or later the response to one
 *
 *      guest_tx, a packet          first: size of all | extras (GSO, ...) | the other fragments
 *      guest_rx, a packet          first fragment | extras | the other fragments
 *
 * A request is answered with one response. On guest_rx the response to a request must occupy its
 * slot; on guest_tx it may be any, for it names the request by its id.
 */
#ifndef VIFD_NETIF_RING_H
#define VIFD_NETIF_RING_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
	XEN_RING = 256,  /* slots */
	XEN_PAGE = 4096, /* bytes that a grant gives access to */

	/* data slots of a packet from a guest: as many as any front end may use, and as are enough
	 * to tell that it is none */
	XEN_TX_SLOTS_MAX = 18,
	XEN_TX_SLOTS_FATAL = 20,
	/* of a packet to a guest, its extra included */
	XEN_RX_SLOTS_MAX = 18,
};

enum {
	XEN_TXF_CSUM_BLANK = 1,
	XEN_TXF_DATA_VALIDATED = 2,
	XEN_TXF_MORE_DATA = 4,
	XEN_TXF_EXTRA_INFO = 8,

	XEN_RXF_DATA_VALIDATED = 1,
	XEN_RXF_CSUM_BLANK = 2,
	XEN_RXF_MORE_DATA = 4,
	XEN_RXF_EXTRA_INFO = 8,
};

enum { XEN_EXTRA_GSO = 1, XEN_EXTRA_MCAST_ADD, XEN_EXTRA_MCAST_DEL, XEN_EXTRA_HASH, XEN_EXTRA_END };
enum { XEN_EXTRA_FLAG_MORE = 1 };
enum { XEN_GSO_TCPV4 = 1, XEN_GSO_TCPV6 = 2 };
enum { XEN_RSP_ERROR = -1, XEN_RSP_OKAY = 0, XEN_RSP_NULL = 1 };

struct xen_tx_request {
	uint32_t gref;
	uint16_t offset;
	uint16_t flags;
	uint16_t id;
	uint16_t size; /* of the first: bytes of the whole packet */
};

struct xen_tx_response {
	uint16_t id;
	int16_t status;
};

struct xen_rx_request {
	uint16_t id;
	uint16_t pad;
	uint32_t gref;
};

struct xen_rx_response {
	uint16_t id;
	uint16_t offset;
	uint16_t flags;
	int16_t status; /* bytes, or an error */
};

/* In place of a request on guest_tx, of a response on guest_rx. */
struct xen_extra {
	uint8_t type;
	uint8_t flags;
	union {
		struct {
			uint16_t size;
			uint8_t type;
			uint8_t pad;
			uint16_t features;
		} gso;
		uint8_t address[6]; /* multicast */
	};
};

/* What both rings begin with. prod: the next to be put; event: wake me when this one is put. */
struct xen_ring_indexes {
	uint32_t req_prod, req_event;
	uint32_t rsp_prod, rsp_event;
	uint8_t pad[48];
};

struct xen_tx_ring {
	struct xen_ring_indexes at;
	union xen_tx_slot {
		struct xen_tx_request req;
		struct xen_tx_response rsp;
		struct xen_extra extra;
		uint32_t words[3];
	} slots[XEN_RING];
};

struct xen_rx_ring {
	struct xen_ring_indexes at;
	union xen_rx_slot {
		struct xen_rx_request req;
		struct xen_rx_response rsp;
		struct xen_extra extra;
		uint32_t words[2];
	} slots[XEN_RING];
};

static_assert(sizeof(struct xen_ring_indexes) == 64, "slots begin at a cache line");
static_assert(sizeof(union xen_tx_slot) == 12 && sizeof(union xen_rx_slot) == 8, "slots");
static_assert(sizeof(struct xen_tx_ring) <= XEN_PAGE && sizeof(struct xen_rx_ring) <= XEN_PAGE,
	      "a ring is a page");

/* An index that the front end writes, and all that it wrote before it. */
static inline uint32_t xen_look(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

static inline void xen_publish(uint32_t *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_RELEASE);
}

/* A slot as the front end filled it, each word read once. */
static inline union xen_tx_slot xen_tx_read(const struct xen_tx_ring *ring, uint32_t index)
{
	const uint32_t *from = ring->slots[index % XEN_RING].words;
	union xen_tx_slot slot;

	for (unsigned i = 0; i < 3; i++)
		slot.words[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	return slot;
}

static inline struct xen_rx_request xen_rx_read(const struct xen_rx_ring *ring, uint32_t index)
{
	const uint32_t *from = ring->slots[index % XEN_RING].words;
	union xen_rx_slot slot;

	for (unsigned i = 0; i < 2; i++)
		slot.words[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	return slot.req;
}

/* Responses from old on, up to now, are visible: does the front end want to be woken for them? */
static inline bool xen_must_wake(const struct xen_ring_indexes *at, uint32_t old, uint32_t now)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return now - __atomic_load_n(&at->rsp_event, __ATOMIC_RELAXED) < now - old;
}

/* Ask to be woken for the next request; true: it is there already. */
static inline bool xen_ring_arm(struct xen_ring_indexes *at, uint32_t req_cons)
{
	__atomic_store_n(&at->req_event, req_cons + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return xen_look(&at->req_prod) != req_cons;
}

/* No wake-ups: the one that is asked for is long past. */
static inline void xen_ring_disarm(struct xen_ring_indexes *at, uint32_t req_cons)
{
	__atomic_store_n(&at->req_event, req_cons, __ATOMIC_RELAXED);
}

#endif
