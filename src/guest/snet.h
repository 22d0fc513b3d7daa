/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The snet channel, back end (SETH, S8): the port of a guest whose packets lie in zones, and the
 * queues of the front end that is connected to it. The theory of operation is in snet.c; the rings
 * are in snet/snet_ring.h. snet_control.c sets all of this up.
 */
#ifndef VIFD_SNET_H
#define VIFD_SNET_H

#include "port/port.h"
#include "snet/snet_ring.h"
#include "zone/slab.h"

struct worker;
struct snet_remap;

enum {
	/*
	 * Fragments that lie with somebody else and that one queue of a front end has out, and all of a
	 * worker's queues together: what they hold is packets of the worker and frames of its uplinks.
	 */
	SNET_REFERENCES_MAX = 512,
	SNET_WORKER_REFERENCES_MAX = 1024,
	/* Polls after which buffers that came back are looked at, even if they are not missed. */
	SNET_POLLS_MAX = 64,
};

/* Sizes of the buffers that are copied into: those of slabs, and what each id has of its own. */
enum snet_class { SNET_SMALL, SNET_LARGE, SNET_CLASSES };
enum { SNET_OWN_BYTES = 256, SNET_SMALL_BYTES = 2048, SNET_LARGE_BYTES = 65536 };

/* Why a queue is broken: what the front end did that no front end does. */
enum snet_error {
	SNET_OK,
	SNET_TX_JUMPED,
	SNET_BAD_BUFFER,
	SNET_EMPTY_BUFFER,
	SNET_LONG_CHAIN,
	SNET_HALF_PACKET,
	SNET_DONE_JUMPED,
	SNET_BAD_ID,
	SNET_CALL_BLOCKED,
	SNET_ERRORS
};

extern const char *const snet_error_names[SNET_ERRORS]; /* "a buffer ...", for show and log */

/* One queue, a worker's own: nobody else touches it while workers run. */
struct snet_queue {
	struct pkt_source source; /* of what the front end sends; first: done() finds us by it */
	struct snet_session *session;
	struct worker *worker;
	struct snet_rings rings;
	int kick_fd, call_fd;
	_Atomic uint8_t error; /* enum snet_error; SNET_OK: it is served */

	/* from the front end */
	uint32_t tx_taken;    /* entries */
	uint32_t tx_returned; /* ids; what is between the two is with us */
	struct snet_rest {
		uint32_t id, next;
	} * tx_rest;           /* [size] ids of packets of several buffers, but for their first */
	uint32_t tx_rest_free; /* chain of those not in use; links are an index + 1, 0 ends */
	bool tell_done;        /* given back since the front end was told */

	/* to the front end */
	uint32_t rx_put;      /* entries */
	uint32_t rx_returned; /* ids */
	uint8_t *own;         /* buffers that ids own, SNET_OWN_BYTES each: see snet_rx.c */
	uint64_t own_place;   /* the first word of an entry for the first of them */
	uintptr_t *out;       /* by id: what it stands for (snet_rx.c); 0: not out */
	uint32_t *ids;        /* those not out; the last is the next */
	unsigned id_count;
	unsigned lent;       /* of those out, more than a buffer of its own */
	unsigned references; /* of these, with somebody else */
	unsigned orphans;    /* with somebody who has gone since */
	unsigned polls;      /* since what came back was looked at */
	bool tell_put;       /* put since the front end was told */
} __attribute__((aligned(64)));

/*
 * A front end's connection. It outlives the connection, and even the guest, until all that the
 * front end sent is done: somebody else may have it, by reference.
 */
struct snet_session {
	struct snet *snet;     /* NULL: the front end has gone */
	struct zone_group *tx; /* the zones that it sends from */
	uint8_t *memory;       /* the rings of all queues */
	size_t memory_len;
	int memory_fd;
	/* the control side's: */
	unsigned guest_id;
	struct snet_session *next; /* of those that are not done yet */
	/* by slot: the id of the zone there that the front end has been told of, if any */
	_Atomic uint32_t announced[ZONES_MAX];
	unsigned queue_count;
	struct snet_queue queues[]; /* by worker */
};

/* The device. */
struct snet {
	struct port port; /* first */
	struct zone_space *space;
	struct snet_session *session; /* NULL: no front end; changes while paused */
	struct slab *slabs[SNET_CLASSES];
	uint8_t *own[PORT_QUEUES_MAX]; /* by queue: the buffers of its ids, in a row, for good */
	bool shared;                   /* trust=shared */
	bool no_offload;               /* offload=off */
	struct snet_remap *remap; /* channel=remap or flip, for measurement only; NULL: neither */
	_Atomic unsigned muted;   /* ticks without calls, since one blocked */
	_Atomic uint64_t breaks;
};

extern const struct port_ops snet_port_ops;
void snet_close(struct port *port); /* its close(): snet_control.c */

/*
 * A session of count queues with empty rings, each of size places stride bytes apart, in shared
 * memory of its own. Descriptors are made, zones are not: tx is NULL. NULL: out of memory or of
 * descriptors.
 */
struct snet_session *snet_session_new(unsigned count, uint32_t size, uint32_t stride);
/* It is over and all is returned (snet_session_done()). */
void snet_session_free(struct snet_session *session);

/* While paused: serve the session, snet being without; watches are set. 0 or -errno. */
int snet_start(struct snet *snet, struct snet_session *session);
/*
 * While paused: forget the front end. What it had got is taken back, what it has sent may still be
 * under way: the session is the caller's, to be freed once it is done. NULL: there was none.
 */
struct snet_session *snet_stop(struct snet *snet);
/* While paused: is nothing of what the front end sent under way any more? */
bool snet_session_done(const struct snet_session *session);

static inline struct snet *snet_of_port(struct port *port)
{
	return (struct snet *)port;
}

/* The break that has befallen one of its queues; SNET_OK: none. */
enum snet_error snet_session_error(const struct snet_session *session, unsigned *queue);

/* The two directions, for the port's ops: snet_tx.c and snet_rx.c. On the queue's worker. */
unsigned snet_tx_take(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n);
void snet_tx_done(struct pkt_source *source, struct pkt **pkts, unsigned n);
void snet_rx_put(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n);
/* The buffers of a new queue's ids are these, in a row. */
void snet_rx_start(const struct snet *snet, struct snet_queue *queue, uint8_t *own);
/* Take back what the front end has returned: all, or if it is time to. */
void snet_rx_take_back(struct snet *snet, struct snet_queue *queue);
static inline void snet_rx_poll(struct snet *snet, struct snet_queue *queue)
{
	unsigned size = queue->rings.mask + 1;

	if (queue->lent || queue->id_count < size - size / 4 || ++queue->polls == SNET_POLLS_MAX)
		snet_rx_take_back(snet, queue);
}
/* In the name of the queue's worker, while paused: take back all that is out, or what came in on one port. */
void snet_rx_reclaim(struct snet *snet, struct snet_queue *queue);
void snet_rx_let_go(struct snet_queue *queue, const struct port *from);

/* The front end broke the rules: its queue is not touched again. */
void snet_break(struct snet *snet, struct snet_queue *queue, enum snet_error error);

static inline bool snet_queue_ok(const struct snet_queue *queue)
{
	return atomic_load_explicit(&queue->error, memory_order_relaxed) == SNET_OK;
}

#endif
