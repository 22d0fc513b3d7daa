/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Xen's network interface, back end: a channel whose rings are pages granted by the guest. The
 * theory of operation is in xen_netif.c; the rings are in xen/netif_ring.h; xen_vif.c sets this up.
 */
#ifndef VIFD_XEN_NETIF_H
#define VIFD_XEN_NETIF_H

#include "guest/channel.h"
#include "xen/netif_ring.h"
#include "xen/xen_ops.h"

enum {
	XEN_HEADER_COPY =
		128,     /* bytes of a packet that are copied before it is known where it goes */
	XEN_STAGE = 128, /* pages that are copied to a guest by one call, at most */
	XEN_MULTICAST_MAX = 64, /* addresses that a guest may ask for */
	XEN_CREDIT_MIN =
		131072, /* bytes that may be saved up with any rate: the longest packets pass */
	XEN_STALL_SECONDS = 60,
	XEN_RX_COPIES = 2 * PKT_FRAGS_MAX + 128, /* of one call: the worst packet's */
	XEN_NO_PAGE = UINT16_MAX,
};

/* How what the guest sends comes here. */
enum xen_tx_mode {
	XEN_TX_COPY,   /* all of it by grant copy */
	XEN_TX_HEADER, /* its first bytes; the rest when it is known who gets it (M11) */
	XEN_TX_MAP,    /* its first bytes, the rest is mapped and unmapped: for measurement (M10) */
	XEN_TX_MODES
};

/* Why an interface is broken: what the front end did that no front end does. */
enum xen_error {
	XEN_OK,
	XEN_TX_JUMPED,
	XEN_RX_JUMPED,
	XEN_HALF_PACKET,
	XEN_MISSING_EXTRA,
	XEN_BAD_EXTRA,
	XEN_BAD_GSO,
	XEN_ACROSS_PAGE,
	XEN_TOO_MANY_SLOTS,
	XEN_ERRORS
};

extern const char *const xen_error_names[XEN_ERRORS];
extern const char *const xen_tx_mode_names[XEN_TX_MODES];

/* A slot that the guest sent and that has not been answered. */
struct xen_page {
	uint32_t gref;
	uint16_t id;
	uint16_t next; /* page of the packet's next slot, or XEN_NO_PAGE */
	void *mapped;  /* of the packet's first: where all its pages are mapped, or NULL */
	uint16_t mapped_count;
};

/* What one side of a queue has cost; one writer each. */
struct xen_costs {
	uint64_t copies;     /* grant copies */
	uint64_t copy_calls; /* system calls for these */
	uint64_t maps, unmaps;
	uint64_t notifies, takes, unmasks; /* of event channels */
};

/* Pages of ours, and their grants to ourselves. */
struct xen_own {
	uint8_t *pages;
	bool granted; /* false: there were none to be had, and these are copied by address */
	uint32_t refs[XEN_RING];
};

/* One pair of rings. */
struct xen_queue {
	struct pkt_source source; /* of what the guest sends; first: done() finds us by it */
	struct xen_netif *netif;
	unsigned number;
	struct xen_events *events;
	int wake_fd; /* that the worker watches: that of events, or an epoll of that and timer_fd */
	int timer_fd; /* -1: there is no rate to keep */
	uint32_t tx_port, rx_port;

	/* from the guest: the worker's */
	struct xen_tx_ring *tx;
	uint32_t tx_cons, tx_rsp;
	uint32_t tx_told;      /* the front end has been told of responses up to here */
	struct xen_own memory; /* [XEN_RING] pages, that what is copied here lies in */
	struct xen_page pages[XEN_RING];
	uint16_t free_pages[XEN_RING]; /* the hottest is the next */
	unsigned free_count;
	struct xen_copy tx_copies[XEN_RING];
	struct xen_costs tx_costs;
	uint64_t credit, credit_due; /* bytes that may still be sent; TSC when there will be more */
	bool limited;                /* a packet waits for that */
	bool worked;                 /* packets came since events were taken last */
	unsigned spurious;           /* events without any, since the last tick */
	_Atomic bool masked[XEN_EVENTS_MAX]; /* left so until the next tick */

	/* to the guest: under the pair's lock */
	struct xen_rx_ring *rx __attribute__((aligned(64)));
	uint32_t rx_cons;
	uint32_t rx_told; /* the front end has been told of responses up to here */
	union xen_rx_slot rx_slots[XEN_RING]; /* responses that are not in the ring yet */
	struct xen_copy rx_copies[XEN_RX_COPIES];
	struct xen_rx_dest {
		uint8_t slot, pkt; /* that a copy is for: in the ring, in the burst */
	} rx_dests[XEN_RX_COPIES];
	struct xen_own stage; /* [XEN_STAGE] pages, laid out as the guest's: see xen_rx.c */
	unsigned staged;      /* of those, by the next call */
	struct xen_costs rx_costs;
	_Atomic unsigned lacking; /* slots that a packet needed and that were not there */
	unsigned lacking_ticks;   /* the main thread's */
	_Atomic bool stalled;
} __attribute__((aligned(64)));

struct xen_netif {
	struct channel channel; /* channel.port is the guest's port */
	const struct xen_ops *ops;
	enum xen_tx_mode tx_mode;
	uint16_t domid;
	bool sg;             /* the front end takes packets in several slots */
	bool multicast_asks; /* it says which multicast it wants */
	_Atomic uint64_t multicast[XEN_MULTICAST_MAX]; /* addresses, 0: none */
	uint64_t rate_bytes;                           /* 0: no limit; of each queue */
	uint32_t rate_usec;
	_Atomic uint8_t error; /* enum xen_error; the interface is served while it is XEN_OK */
	struct xen_queue *queues[PORT_QUEUES_MAX]; /* NULL: not connected; changes while paused */
	uint64_t breaks;
};

/* What a front end says about one queue. */
struct xen_queue_config {
	uint32_t tx_ref, rx_ref;
	uint32_t tx_event, rx_event; /* the same: one channel for both rings */
};

/* And about the whole. */
struct xen_config {
	unsigned queues;
	struct xen_queue_config queue[PORT_QUEUES_MAX];
	uint32_t caps; /* enum port_caps */
	bool sg, multicast_asks;
};

/* Without close(), which is xen_vif.c's. */
extern const struct channel_ops xen_channel_ops;

/*
 * Map the rings, bind the event channels and serve them from now on, from where the back end before
 * us stopped, if there was one. Pauses inside. 0, or -errno and a sentence.
 */
int xen_netif_connect(struct xen_netif *netif, const struct xen_config *config,
		      struct error *error);
/* Serve nobody, forget the front end. Pauses inside. */
void xen_netif_disconnect(struct xen_netif *netif);
/* Bytes that the guest may send per usec microseconds; 0: no limit. Pauses inside. */
void xen_netif_set_rate(struct xen_netif *netif, uint64_t bytes, uint32_t usec);
/* About once a second, on the main thread. */
void xen_netif_tick(struct xen_netif *netif);

/* Between xen_netif.c, xen_tx.c and xen_rx.c. */

void xen_break(struct xen_netif *netif, enum xen_error error);

static inline bool xen_ok(const struct xen_netif *netif)
{
	return atomic_load_explicit(&netif->error, memory_order_relaxed) == XEN_OK;
}

/* Wake the front end for responses from old on, up to now, if it wants to. */
void xen_wake(struct xen_queue *queue, const struct xen_ring_indexes *at, uint32_t old,
	      uint32_t now, uint32_t port, struct xen_costs *costs);
/* Have copies made, in one system call. */
void xen_copy(struct xen_queue *queue, struct xen_copy *copies, unsigned count,
	      struct xen_costs *costs);

/* The two directions. */
unsigned xen_tx_take(struct xen_queue *queue, struct pkt **pkts, unsigned n);
void xen_tx_done(struct pkt_source *source, struct pkt **pkts, unsigned n);
/* Tell the front end of what has been answered, if it wants to know. */
void xen_tx_tell(struct xen_queue *queue);
void xen_tx_fetch(struct pkt_source *source, struct pkt **pkts, unsigned n);
unsigned xen_rx_put(struct xen_queue *queue, struct pkt **pkts, unsigned n, uint64_t **why);

/* A place in pages of ours as an end of a copy; flag is added to flags if it is a grant. */
static inline union xen_copy_end xen_own_end(const struct xen_own *own, const uint8_t *at,
					     uint16_t *flags, enum xen_copy_flags flag)
{
	size_t offset = at - own->pages;
	union xen_copy_end end = { .virt = (void *)at };

	if (likely(own->granted)) {
		end.foreign.ref = own->refs[offset / XEN_PAGE];
		end.foreign.offset = offset % XEN_PAGE;
		end.foreign.domid = XEN_SELF;
		*flags |= flag;
	}
	return end;
}

/* The address of a fragment of a packet with PKT_REMOTE, from queue, as an end of a copy. */
union xen_copy_end xen_tx_grant(const struct xen_queue *queue, const void *at);

/* Multicast addresses that the guest wants (xen_tx.c notes them). */
bool xen_multicast_wanted(struct xen_netif *netif, const uint8_t *address);

#endif
