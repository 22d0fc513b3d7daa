/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Workers without work: spin a little; arm, re-check, sleep; or nap.
 *
 * Theory of operation
 *
 * Idle spin. On a virtual machine a sleep costs the next packet some 30 us (a wake-up across CPUs),
 * a spin hand-over 0.1 us; but cycles spent spinning may be cycles a guest on the same CPU would
 * have used. So the length of the spin follows the traffic:
 *
 *      gap   how long the worker was without work, known when work arrives
 *      odds  share of the last gaps that a spin for the bound (50 us) would have caught: moves by
 *            1/8 with each gap
 *      spin  for the bound while the odds are even or better, else not at all
 *
 * so that at most every second spin is wasted. Streams and request/response on the same machine
 * keep it spinning and never sleep; where guests are slow, or share our CPU, it stops within six
 * gaps. A worker that has only queues whose poll is a system call (TAPs) gains little by polling
 * them and pays for each look: its bound is 5 us. `set idle-spin` fixes the length instead.
 *
 * Sleeping. Armed queues wake the worker through epoll. Descriptors are watched edge-triggered and
 * never read: an eventfd that is written again is a new edge, and nobody needs its count.
 *
 * Naps. Where the user has allowed a delay for the sake of larger packets (lro=usec:T, auto), and a
 * stream is all that comes in (the law is in offload/lro_law.c), the worker rests for that long
 * instead of being woken for each piece of the stream (A4): nothing is armed, no guest rings, and the
 * acknowledgements of the stream's receiver go out with the next look. Whoever wants the worker to
 * park waits for its nap to end.
 */
#include "port/idle.h"

#include <sys/epoll.h>
#include <time.h>

enum {
	SPIN_BOUND_USEC = 50,
	SPIN_BOUND_SYSCALLS_USEC = 5,
	SPIN_ODDS_ONE = 256,
	EPOLL_EVENTS = 64,
};

/* Idle spin, in cycles; read by workers, changed by the main thread. */
static _Atomic bool spin_adaptive;
static _Atomic uint64_t spin_bound, spin_bound_syscalls;
static uint64_t cycles_per_usec;

/* ---- spinning ---- */

void workers_set_idle_spin(int usec)
{
	cycles_per_usec = cycles_hz() / 1000000;
	atomic_store(&spin_adaptive, usec < 0);
	atomic_store(&spin_bound, (usec < 0 ? SPIN_BOUND_USEC : usec) * cycles_per_usec);
	atomic_store(&spin_bound_syscalls,
		     (usec < 0 ? SPIN_BOUND_SYSCALLS_USEC : usec) * cycles_per_usec);
}

void worker_start_spin(struct worker *worker)
{
	worker->spin_cycles = atomic_load(&spin_bound);
	worker->spin_odds = SPIN_ODDS_ONE;
}

void worker_adapt_spin(struct worker *worker, uint64_t gap)
{
	uint64_t bound = atomic_load_explicit(
		worker->polls_memory ? &spin_bound : &spin_bound_syscalls, memory_order_relaxed);

	worker->spin_odds += ((gap <= bound ? SPIN_ODDS_ONE : 0) - worker->spin_odds) / 8;
	if (!atomic_load_explicit(&spin_adaptive, memory_order_relaxed) ||
	    worker->spin_odds >= SPIN_ODDS_ONE / 2)
		worker->spin_cycles = bound;
	else
		worker->spin_cycles = 0;
}

/* ---- resting ---- */

/* Ask every queue for a wake-up. False: one of them has work after all, and none is left armed. */
static bool worker_arm(struct worker *worker)
{
	for (unsigned i = 0; i < worker->queue_count; i++) {
		struct worker_queue *queue = &worker->queues[i];

		if (queue->port->ops->arm(queue->port, queue->queue)) {
			queue->poll_after = 0;
			for (unsigned j = 0; j < i; j++)
				worker->queues[j].port->ops->disarm(worker->queues[j].port,
								    worker->queues[j].queue);
			return false;
		}
	}
	return true;
}

uint64_t worker_release(struct worker *worker, bool all)
{
	uint64_t due = UINT64_MAX;

	for (unsigned i = 0; i < worker->queue_count; i++) {
		struct lro *lro = worker_queue_lro(&worker->queues[i]);
		uint64_t its = lro ? lro_due(lro) : UINT64_MAX;

		if (its == 0 || (all && lro))
			lro_flush(lro, worker->profile.last);
		else if (its < due)
			due = its;
	}
	if (worker->flush_count > 0)
		worker_flush(worker);
	return due;
}

/* Sleep until there is work, or until due (TSC). */
static void worker_sleep(struct worker *worker, uint64_t due)
{
	struct epoll_event events[EPOLL_EVENTS];
	struct timespec timeout = { 0 };
	int n;

	if (due != UINT64_MAX && due > worker->profile.last)
		timeout.tv_nsec = (due - worker->profile.last) * 1000 / cycles_per_usec;
	worker->sleeps++;
	/* the usual one, unless it has to be exact: valgrind knows no other */
	n = due == UINT64_MAX
		    ? epoll_wait(worker->epoll_fd, events, EPOLL_EVENTS, -1)
		    : epoll_pwait2(worker->epoll_fd, events, EPOLL_EVENTS, &timeout, NULL);

	for (int i = 0; i < n; i++) {
		struct port *port = events[i].data.ptr;

		if (port)
			port_stats(port)->wakeups++;
	}
	for (unsigned i = 0; i < worker->queue_count; i++) {
		struct worker_queue *queue = &worker->queues[i];

		queue->poll_after = 0;
		queue->port->ops->disarm(queue->port, queue->queue);
	}
}

/* Rest whatever comes in. False: the law forbids it. */
static bool worker_nap(struct worker *worker)
{
	uint64_t now = worker->profile.last, patience = UINT64_MAX, length, due;

	for (unsigned i = 0; i < worker->queue_count; i++) {
		const struct lro *lro = worker_queue_lro(&worker->queues[i]);
		uint64_t its = lro ? lro_patience(lro) : 0;

		if (its > 0 && its < patience)
			patience = its;
	}
	length = lro_nap_length(&worker->nap, patience, now, cycles_per_usec);
	if (length == 0)
		return false;
	due = now + length;
	for (unsigned i = 0; i < worker->queue_count; i++) {
		struct lro *lro = worker_queue_lro(&worker->queues[i]);
		uint64_t its = lro && lro_patience(lro) > 0 ? lro_nap(lro, now) : UINT64_MAX;

		worker->queues[i].poll_after = 0;
		if (its < due)
			due = its;
	}
	if (worker->flush_count > 0)
		worker_flush(worker);

	struct timespec nap = { .tv_nsec = (due - now) * 1000 / cycles_per_usec };

	worker->naps++;
	worker->draining = true;
	nanosleep(&nap, NULL);
	return true;
}

bool worker_rest(struct worker *worker)
{
	uint64_t due = worker_release(worker, false);

	if (due <= worker->profile.last)
		return false;
	if (worker->patient && worker_nap(worker))
		return true;
	if (!worker_arm(worker))
		return false;
	worker_sleep(worker, due);
	return true;
}
