/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Workers: poll, forward, complete, flush. What they do without work is in idle.c.
 *
 * Theory of operation
 *
 * A round polls each receive queue of the worker once for a burst, forwards it, tells the packets'
 * sources that their buffers are free, and at its end flushes every port that was sent to: one
 * doorbell per port and round. A queue whose poll is a system call is polled at most every 4 us
 * while it is empty, so that it does not tax the others. After a nap (idle.c) rounds follow until all
 * that came meanwhile is forwarded: up to four of them share their doorbells.
 *
 * Merging (LRO). What a queue's poll finds goes through its struct lro, which may hold packets back:
 * it is polled with nothing, too, and tells a worker that means to sleep until when it may. Before a
 * worker parks, everything that is held leaves. While a queue has patience, what the others receive
 * is looked at: something urgent keeps the worker from naps.
 *
 * Doorbells. A call descriptor is shared with the guest's side, which can fill its counter and make
 * a write block. The watchdog in the main thread sees a worker that has not moved since the last
 * look and is in such a write, and interrupts it with a signal. So does the main thread while it
 * waits for workers to park.
 *
 * Pausing. The main thread raises `pausing`, wakes the sleepers and waits until every worker has
 * parked at the top of its loop, where it holds no packet and no lock.
 */
#include "port/worker.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "bridge/bridge.h"
#include "offload/lro_merge.h"
#include "port/idle.h"
#include "sys/log.h"

enum {
	SYSCALL_POLL_USEC = 4,
	TIMER_SLACK_NSEC = 1000,
	FLUSH_ROUNDS = 4, /* that share a doorbell: half a ring of 256 */
};
enum { PAUSE_MSEC = 100 }; /* more than any round takes */

__thread struct worker *worker_self;

const char *const stage_names[STAGES] = {
	[STAGE_CHANNEL] = "channel", [STAGE_HEADER] = "header", [STAGE_BRIDGE] = "bridge",
	[STAGE_OFFLOAD] = "offload", [STAGE_COPY] = "copy",     [STAGE_UPLINK] = "uplink",
	[STAGE_IDLE] = "idle",
};

static struct worker *workers;
static unsigned worker_total;

static _Atomic bool pausing, stopping;
static unsigned pause_depth;
static pthread_mutex_t pause_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pause_changed = PTHREAD_COND_INITIALIZER;

static uint64_t syscall_poll_cycles;

static void *worker_main(void *arg);

static void on_interrupt(int signal)
{
	(void)signal;
}

uint64_t cycles_hz(void)
{
	static uint64_t hz;
	struct timespec t0, t1, nap = { .tv_nsec = 20 * 1000 * 1000 };

	if (!hz) {
		clock_gettime(CLOCK_MONOTONIC, &t0);
		uint64_t c0 = cycles_now();

		nanosleep(&nap, NULL);
		clock_gettime(CLOCK_MONOTONIC, &t1);
		uint64_t c1 = cycles_now();

		double sec = (t1.tv_sec - t0.tv_sec) + (t1.tv_nsec - t0.tv_nsec) * 1e-9;

		hz = (c1 - c0) / sec;
	}
	return hz;
}

static int worker_init(struct worker *worker, unsigned id, int cpu)
{
	int err = pkt_pool_init(&worker->pool, WORKER_POOL_PACKETS);

	if (err)
		return err;
	worker->id = id;
	worker->cpu = cpu;
	worker->queues = calloc(WORKER_QUEUES_MAX, sizeof(*worker->queues));
	worker->done = calloc(WORKER_POOL_PACKETS, sizeof(*worker->done));
	worker->done_spare = calloc(WORKER_POOL_PACKETS, sizeof(*worker->done_spare));
	if (!worker->queues || !worker->done || !worker->done_spare)
		return -ENOMEM;
	worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (worker->epoll_fd < 0 || worker->wake_fd < 0)
		return -errno;

	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.ptr = NULL };

	if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->wake_fd, &event))
		return -errno;
	worker_start_spin(worker);
	return 0;
}

int workers_start(const struct worker_config *config)
{
	workers = aligned_alloc(64, config->count * sizeof(*workers));
	if (!workers)
		return -ENOMEM;
	memset(workers, 0, config->count * sizeof(*workers));
	syscall_poll_cycles = cycles_hz() / 1000000 * SYSCALL_POLL_USEC;
	workers_set_idle_spin(config->idle_spin_usec);
	atomic_store(&stopping, false);

	/* No SA_RESTART: the write ends with EINTR. */
	struct sigaction interrupt = { .sa_handler = on_interrupt };

	sigaction(SIGUSR1, &interrupt, NULL);

	for (unsigned i = 0; i < config->count; i++) {
		struct worker *worker = &workers[i];
		int err = worker_init(worker, i, config->cpus ? config->cpus[i] : WORKER_CPU_ANY);

		if (!err)
			err = -pthread_create(&worker->thread, NULL, worker_main, worker);
		if (err)
			return err;
		worker_total++;
	}
	return 0;
}

static void worker_wake(struct worker *worker)
{
	if (eventfd_write(worker->wake_fd, 1) && errno != EAGAIN)
		log_error("worker %u: cannot be woken: %s", worker->id, strerror(errno));
}

void workers_stop(void)
{
	atomic_store(&stopping, true);
	for (unsigned i = 0; i < worker_total; i++) {
		struct worker *worker = &workers[i];

		worker_wake(worker);
		pthread_join(worker->thread, NULL);
		close(worker->epoll_fd);
		close(worker->wake_fd);
		pkt_pool_fini(&worker->pool);
		free(worker->queues);
		free(worker->done);
		free(worker->done_spare);
	}
	free(workers);
	workers = NULL;
	worker_total = 0;
}

unsigned workers_count(void)
{
	return worker_total;
}

struct worker *worker_by_id(unsigned id)
{
	return id < worker_total ? &workers[id] : NULL;
}

/* ---- pausing ---- */

/*
 * Wait for a change of who is parked. The watchdog does not run meanwhile: whoever is still in a
 * doorbell after PAUSE_MSEC is interrupted from here. It may not be the one waited for, which may
 * itself wait for a lock that the other holds.
 */
static void wait_for_change(void)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += PAUSE_MSEC * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	if (pthread_cond_clockwait(&pause_changed, &pause_lock, CLOCK_MONOTONIC, &until) == 0)
		return;
	for (unsigned i = 0; i < worker_total; i++) {
		if (atomic_load(&workers[i].calling))
			pthread_kill(workers[i].thread, SIGUSR1);
	}
}

void workers_pause(void)
{
	if (pause_depth++ > 0)
		return;
	pthread_mutex_lock(&pause_lock);
	atomic_store(&pausing, true);
	for (unsigned i = 0; i < worker_total; i++)
		worker_wake(&workers[i]);
	for (unsigned i = 0; i < worker_total; i++) {
		while (!atomic_load(&workers[i].parked))
			wait_for_change();
	}
	pthread_mutex_unlock(&pause_lock);
}

void workers_resume(void)
{
	if (--pause_depth > 0)
		return;
	pthread_mutex_lock(&pause_lock);
	atomic_store(&pausing, false);
	/* A next pause would take for parked those who have not seen this one end. */
	for (unsigned i = 0; i < worker_total; i++)
		atomic_store(&workers[i].parked, false);
	pthread_cond_broadcast(&pause_changed);
	pthread_mutex_unlock(&pause_lock);
}

static void worker_park(struct worker *worker)
{
	pthread_mutex_lock(&pause_lock);
	while (atomic_load(&pausing)) {
		atomic_store(&worker->parked, true);
		pthread_cond_broadcast(&pause_changed);
		pthread_cond_wait(&pause_changed, &pause_lock);
	}
	pthread_mutex_unlock(&pause_lock);
}

void workers_watchdog(void)
{
	for (unsigned i = 0; i < worker_total; i++) {
		struct worker *worker = &workers[i];
		uint64_t rounds = __atomic_load_n(&worker->rounds, __ATOMIC_RELAXED);

		if (rounds == worker->watched_rounds && atomic_load(&worker->calling))
			pthread_kill(worker->thread, SIGUSR1);
		worker->watched_rounds = rounds;
	}
}

/* ---- queues ---- */

/* While paused, after a change of queues or of what is merged. */
static void look_for_patience(void)
{
	for (unsigned i = 0; i < worker_total; i++) {
		struct worker *worker = &workers[i];

		worker->patient = false;
		for (unsigned j = 0; j < worker->queue_count; j++) {
			const struct lro *lro = worker_queue_lro(&worker->queues[j]);

			worker->patient |= lro && lro_patience(lro) > 0;
		}
	}
}

static struct worker *worker_with_fewest_queues(void)
{
	struct worker *best = &workers[0];

	for (unsigned i = 1; i < worker_total; i++) {
		if (workers[i].queue_count < best->queue_count)
			best = &workers[i];
	}
	return best;
}

void worker_attach(struct port *port)
{
	workers_pause();
	for (unsigned i = 0; i < port->queues; i++) {
		struct worker *worker = port->queue_per_worker ? &workers[i]
							       : worker_with_fewest_queues();

		worker->queues[worker->queue_count++] =
			(struct worker_queue){ .port = port, .queue = i, .wake_fd = -1 };
		worker->polls_memory |= !port->poll_is_syscall;
	}
	look_for_patience();
	workers_resume();
}

void worker_detach(struct port *port)
{
	workers_pause();
	for (unsigned i = 0; i < worker_total; i++) {
		struct worker *worker = &workers[i];
		unsigned kept = 0;

		worker->polls_memory = false;
		for (unsigned j = 0; j < worker->queue_count; j++) {
			struct worker_queue *queue = &worker->queues[j];

			if (queue->port != port) {
				worker->queues[kept++] = *queue;
				worker->polls_memory |= !queue->port->poll_is_syscall;
			} else if (queue->wake_fd >= 0) {
				epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, queue->wake_fd, NULL);
			}
		}
		worker->queue_count = kept;
	}
	look_for_patience();
	ports_let_go(port);
	workers_resume();
}

static struct worker_queue *queue_find(struct port *port, unsigned number, struct worker **owner)
{
	for (unsigned i = 0; i < worker_total; i++) {
		for (unsigned j = 0; j < workers[i].queue_count; j++) {
			struct worker_queue *queue = &workers[i].queues[j];

			if (queue->port == port && queue->queue == number) {
				*owner = &workers[i];
				return queue;
			}
		}
	}
	return NULL;
}

int worker_watch(struct port *port, unsigned number, int fd)
{
	struct worker *worker;
	struct worker_queue *queue = queue_find(port, number, &worker);

	if (!queue)
		return fd < 0 ? 0 : -ENOENT;
	if (queue->wake_fd >= 0)
		epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, queue->wake_fd, NULL);
	queue->wake_fd = -1;
	if (fd < 0)
		return 0;

	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.ptr = port };

	if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event))
		return -errno;
	queue->wake_fd = fd;
	return 0;
}

/* ---- the data path ---- */

void worker_complete(struct worker *worker)
{
	/* A segment's done() releases its parent into the list again: hence loop and swap. */
	while (worker->done_count > 0) {
		struct pkt **pkts = worker->done;
		unsigned n = worker->done_count;

		worker->done = worker->done_spare;
		worker->done_spare = pkts;
		worker->done_count = 0;

		for (unsigned from = 0, to; from < n; from = to) {
			struct pkt_source *source = pkts[from]->source;

			for (to = from + 1; to < n && pkts[to]->source == source; to++)
				;
			if (source)
				source->done(source, pkts + from, to - from);
		}
		pkt_pool_put(&worker->pool, pkts, n);
	}
}

void worker_flush(struct worker *worker)
{
	for (unsigned i = 0; i < worker->flush_count; i++) {
		struct port *port = worker->flush[i];

		port->flush_pending[worker->id] = false;
		port->ops->flush(port);
	}
	worker->flush_count = 0;
	worker->unflushed_rounds = 0;
}

/* Send a burst on: to the port that it is tied to, or over its bridge. */
static void forward(struct port *in, struct pkt **pkts, unsigned n)
{
	if (unlikely(in->direct != NULL))
		port_send(in->direct, pkts, n);
	else
		bridge_forward(in, pkts, n);
}

static uint32_t takes(struct port *in, struct pkt *pkt)
{
	return in->direct ? in->direct->caps : bridge_takes(in, pkt);
}

static void deliver(struct port *in, struct pkt **pkts, unsigned n)
{
	forward(in, pkts, n);
	worker_complete(worker_self);
}

static const struct lro_ops lro_ops = { .takes = takes, .deliver = deliver };

int worker_set_lro(struct port *port, const struct lro_config *config)
{
	int err = 0;

	workers_pause();
	for (unsigned i = 0; i < port->queues && !err; i++) {
		if (!port->lro[i])
			port->lro[i] = lro_new(port, &lro_ops);
		if (!port->lro[i])
			err = -ENOMEM;
	}
	for (unsigned i = 0; i < port->queues && !err; i++)
		lro_configure(port->lro[i], config);
	look_for_patience();
	workers_resume();
	return err;
}

/* Note for naps what comes in on a queue that is not to be merged, or at once. */
static void note_urgent(struct worker *worker, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (lro_is_urgent(pkts[i])) {
			lro_nap_note_urgent(&worker->nap, worker->profile.last);
			return;
		}
	}
}

/* Poll every queue once. Returns the number of packets taken in. */
static unsigned worker_round(struct worker *worker)
{
	struct pkt *pkts[PKT_BURST];
	unsigned total = 0;
	bool more = false; /* is there likely to be, behind what has been found? */

	for (unsigned i = 0; i < worker->queue_count; i++) {
		struct worker_queue *queue = &worker->queues[i];
		struct port *port = queue->port;

		if (port->poll_is_syscall && worker->profile.last < queue->poll_after)
			continue;

		uint64_t bytes = port->stats[worker->id].recv_bytes;
		unsigned n = port->ops->recv(port, queue->queue, pkts, PKT_BURST);
		struct lro *lro = worker_queue_lro(queue);

		if (n == 0)
			queue->poll_after = worker->profile.last + syscall_poll_cycles;
		else if (worker->patient && !(lro && lro_patience(lro) > 0))
			note_urgent(worker, pkts, n);
		if (lro)
			lro_poll(lro, pkts, n, worker->profile.last);
		else if (n > 0)
			forward(port, pkts, n);
		if (worker->done_count > 0)
			worker_complete(worker);
		if (n == 0)
			continue;
		worker->bytes += port->stats[worker->id].recv_bytes - bytes;
		worker->bursts++;
		total += n;
		more |= n == PKT_BURST;
		profile_mark(&worker->profile, STAGE_CHANNEL);
	}
	worker->rounds++;
	worker->packets += total;
	worker->draining &= more;
	if (worker->flush_count > 0 &&
	    !(worker->draining && ++worker->unflushed_rounds < FLUSH_ROUNDS)) {
		worker_flush(worker);
		profile_mark(&worker->profile, STAGE_CHANNEL);
	}
	return total;
}

static void worker_pin(struct worker *worker)
{
	char name[16];

	snprintf(name, sizeof(name), "vifd-w%u", worker->id);
	pthread_setname_np(pthread_self(), name);
	if (worker->cpu == WORKER_CPU_ANY)
		return;

	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(worker->cpu, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set))
		log_warn("worker %u: cannot be pinned to CPU %d, runs anywhere", worker->id,
			 worker->cpu);
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct profile *profile = &worker->profile;
	bool idle = false, slept = false;
	uint64_t idle_from = 0;

	worker_self = worker;
	worker_pin(worker);
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NSEC); /* naps that LRO asks for are short */
	profile->last = cycles_now();

	while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
		if (unlikely(atomic_load_explicit(&pausing, memory_order_relaxed))) {
			worker_release(worker, true);
			worker_park(worker);
			profile_mark(profile, STAGE_IDLE);
		}

		uint64_t before = profile->last;

		if (worker_round(worker) > 0) {
			if (idle) {
				worker_adapt_spin(worker, before - idle_from);
				worker->spins_won += !slept;
				idle = slept = false;
			}
			continue;
		}
		if (!idle) {
			idle = true;
			idle_from = before;
		}
		profile_mark(profile, STAGE_IDLE);
		if (profile->last - idle_from < worker->spin_cycles)
			continue;
		if (!worker_rest(worker))
			continue;
		worker->spins_lost += !slept && worker->spin_cycles > 0;
		slept = true;
		profile_mark(profile, STAGE_IDLE);
	}
	return NULL;
}
