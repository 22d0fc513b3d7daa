/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The worker: a thread that polls receive queues in bursts while there is work, then spins a
 * bounded, adaptive while, arms every queue's notification, checks once more, and sleeps in epoll.
 * The theory of operation is at the top of worker.c and idle.c.
 *
 * Whatever the data path reads (ports, bridges, guest memory, rings) is changed only between
 * workers_pause() and workers_resume(), by the main thread: every worker is then between two
 * bursts, holds no packet of a synchronous port, and touches nothing.
 */
#ifndef VIFD_WORKER_H
#define VIFD_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "offload/lro.h"
#include "offload/lro_law.h"
#include "pkt/pkt.h"
#include "port/port.h"
#include "port/profile.h"

enum {
	WORKER_QUEUES_MAX = PORTS_MAX * PORT_QUEUES_MAX, /* one worker may have them all */
	WORKER_POOL_PACKETS = 2048,
	WORKER_CPU_ANY = -1,
};

/* One receive queue that a worker polls. */
struct worker_queue {
	struct port *port;
	unsigned queue;
	int wake_fd;         /* -1: none yet */
	uint64_t poll_after; /* TSC; of ports whose poll is a system call */
};

struct worker {
	unsigned id;
	int cpu; /* WORKER_CPU_ANY: not pinned */
	pthread_t thread;
	int epoll_fd;
	int wake_fd; /* eventfd: pause or stop */
	struct pkt_pool pool;
	struct profile profile;

	struct worker_queue *queues; /* changed only while paused */
	unsigned queue_count;

	struct pkt **done; /* packets whose last owner let go in this burst */
	struct pkt **done_spare;
	unsigned done_count;
	struct port *flush[PORTS_MAX]; /* ports sent to in this round */
	unsigned flush_count;
	unsigned unflushed_rounds; /* for which they have waited */
	bool draining;             /* since a nap there has always been more */

	bool polls_memory;              /* some queue's poll costs no system call */
	uint64_t spin_cycles;           /* present length of the idle spin */
	int spin_odds;                  /* how often it would be of use lately, in 1/256 */
	bool patient;                   /* some queue's lro allows naps */
	struct lro_nap nap;             /* and does the traffic? */
	uint64_t sleeps;                /* times it went to sleep */
	uint64_t naps;                  /* times it napped */
	uint64_t spins_won, spins_lost; /* idle spins that met work, and that ended in sleep */
	uint64_t rounds, bursts;
	uint64_t packets, bytes; /* taken in, for the profile's ratios */

	_Atomic bool parked;
	_Atomic bool calling;    /* in a guest's doorbell, where a hostile one can make it block */
	uint64_t watched_rounds; /* the watchdog's: rounds when it last looked */
} __attribute__((aligned(64)));

/* The calling worker; NULL in the main thread. */
extern __thread struct worker *worker_self;

struct worker_config {
	unsigned count;     /* 1..WORKERS_MAX */
	const int *cpus;    /* count CPU numbers, or NULL: not pinned */
	int idle_spin_usec; /* -1: adaptive up to a default bound; 0: never; else a fixed length */
};

/* Start the threads; ports are attached afterwards. Once. 0 or -errno. */
int workers_start(const struct worker_config *config);
/* Stop and join them. Ports must have been detached. */
void workers_stop(void);

/* Bring every worker to rest between two bursts; nests. Main thread only. Costs a wake-up. */
void workers_pause(void);
void workers_resume(void);

unsigned workers_count(void);
struct worker *worker_by_id(unsigned id);
/* To be called some times a second by the main thread: frees workers from a guest's doorbell. */
void workers_watchdog(void);
/* Change the idle spin at run time (see worker_config). */
void workers_set_idle_spin(int usec);

/* Share a registered port's queues out over the workers (fewest first, or one to each), and back.
 * Pause inside. */
void worker_attach(struct port *port);
void worker_detach(struct port *port);
/* Set (fd >= 0) or forget (-1) the descriptor whose readability wakes the queue's worker;
 * edge-triggered, never read by the worker; stays the caller's. While paused. */
int worker_watch(struct port *port, unsigned queue, int fd);
/*
 * Merge what a registered port's queues receive, or no longer (lro.h); also at run time. Lasts until
 * port_unregister(). 0 or -ENOMEM, then nothing has changed.
 */
int worker_set_lro(struct port *port, const struct lro_config *config);

/* For ports, on a worker: remember to flush(port) at the end of this round. */
static inline void worker_need_flush(struct worker *worker, struct port *port)
{
	if (!port->flush_pending[worker->id]) {
		port->flush_pending[worker->id] = true;
		worker->flush[worker->flush_count++] = port;
	}
}

static inline struct port_stats *port_stats(struct port *port)
{
	return &port->stats[worker_self->id];
}

void worker_complete(struct worker *worker);
void worker_flush(struct worker *worker);

/* NULL: what the queue receives is never merged. */
static inline struct lro *worker_queue_lro(const struct worker_queue *queue)
{
	return queue->port->lro[queue->queue];
}

/* Let go of one reference. With the last one the source is told at the end of the burst. */
static inline void pkt_put(struct pkt *pkt)
{
	struct worker *worker = worker_self;

	if (--pkt->refs == 0)
		worker->done[worker->done_count++] = pkt;
}

/* The same for each of a burst. */
static inline void pkt_put_burst(struct pkt **pkts, unsigned n)
{
	struct worker *worker = worker_self;
	struct pkt **done = worker->done + worker->done_count;

	for (unsigned i = 0; i < n; i++) {
		if (likely(--pkts[i]->refs == 0))
			*done++ = pkts[i];
	}
	worker->done_count = done - worker->done;
}

#endif
