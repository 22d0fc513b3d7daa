/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Workers: real threads that carry packets between ports in memory.
 *
 *      a (n queues) --recv--> worker 0..3 --bridge--> b (n queues)
 *        <--------------------send--------------------
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "bridge/bridge.h" /* before cmocka.h, which has a fail() of its own */

#include <cmocka.h>

#include "fake.h"

enum { WORKERS_MOST = 4, A = 1, B = 2, PATIENCE_MSEC = 20000 };

static struct fake_port a, b;
static struct bridge *bridge;

/* ---- ports that notice who calls them ---- */

/* Read by every operation, replaced whenever the workers are at rest. */
static unsigned *canary;
static _Atomic unsigned canary_sum, inside[PORT_QUEUES_MAX], collisions;

static unsigned watched_recv(struct port *port, unsigned queue, struct pkt **pkts, unsigned n)
{
	bool mine = port == &a.port;

	canary_sum += *canary;
	if (mine && inside[queue]++)
		collisions++;
	n = fake_port_recv(port, queue, pkts, n);
	if (mine)
		inside[queue]--;
	return n;
}

static void watched_send(struct port *port, struct pkt **pkts, unsigned n)
{
	canary_sum += *canary;
	fake_port_send(port, pkts, n);
}

static void watched_flush(struct port *port)
{
	canary_sum += *canary;
	fake_port_flush(port);
}

static struct port_ops watched_ops;

static void new_canary(void)
{
	free(canary);
	canary = calloc(1, sizeof(*canary));
}

/* ---- the stage ---- */

static void nap(unsigned usec)
{
	struct timespec time = { .tv_nsec = usec * 1000L };

	nanosleep(&time, NULL);
}

static uint64_t now_usec(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000000) + now.tv_nsec / 1000;
}

/* Until it is true; on a busy machine that may take a while. */
#define wait_for(condition)                                                                        \
	do {                                                                                       \
		uint64_t from_ = now_usec();                                                       \
		while (!(condition)) {                                                             \
			assert_true(now_usec() - from_ < PATIENCE_MSEC * UINT64_C(1000));          \
			nap(100);                                                                  \
		}                                                                                  \
	} while (0)

static void add_port(struct fake_port *fake, const char *name, unsigned queues, uint8_t from,
		     uint8_t to)
{
	struct error error;

	fake_port_init(fake, name, queues, from, to);
	fake->port.ops = &watched_ops;
	assert_int_equal(port_register(&fake->port), 0);
	worker_attach(&fake->port);
	assert_int_equal(bridge_add_port(bridge, &fake->port, &error), 0);
}

static void del_port(struct fake_port *fake)
{
	bridge_remove_port(&fake->port);
	worker_detach(&fake->port);
	port_unregister(&fake->port);
	for (unsigned i = 0; i < PORT_QUEUES_MAX; i++) {
		if (fake->wake_fd[i] >= 0)
			close(fake->wake_fd[i]);
	}
}

/* Give the workers eventfds to watch; all queues of a port or none. */
static void watch(struct fake_port *fake)
{
	workers_pause();
	for (unsigned i = 0; i < fake->port.queues; i++) {
		fake->wake_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		assert_int_equal(worker_watch(&fake->port, i, fake->wake_fd[i]), 0);
	}
	workers_resume();
}

/* So many packets arrive at a queue, with a wake-up if it has a descriptor. */
static void arrive(struct fake_port *fake, unsigned queue, unsigned count)
{
	fake->waiting[queue] += count;
	if (fake->wake_fd[queue] >= 0)
		eventfd_write(fake->wake_fd[queue], 1);
}

/* Sleeping workers look at their queues after a pause. */
static void look_again(void)
{
	workers_pause();
	workers_resume();
}

static void start(unsigned count, unsigned queues, int spin_usec)
{
	const struct worker_config config = { .count = count, .idle_spin_usec = spin_usec };
	struct error error;

	watched_ops = fake_port_ops;
	watched_ops.recv = watched_recv;
	watched_ops.send = watched_send;
	watched_ops.flush = watched_flush;
	collisions = 0;
	new_canary();
	assert_int_equal(workers_start(&config), 0);
	assert_int_equal(bridge_create("br0", 0, 0, &bridge, &error), 0);
	add_port(&a, "a", queues, A, B);
	add_port(&b, "b", queues, B, A);
	/* Let both addresses be learned, so that nothing is flooded. */
	arrive(&a, 0, 1);
	look_again();
	wait_for(b.sent == 1);
	arrive(&b, 0, 1);
	look_again();
	wait_for(a.sent == 1 && b.done == 1);
}

/* Every pool has all its packets again. */
static void check_pools(void)
{
	workers_pause();
	for (unsigned i = 0; i < workers_count(); i++) {
		const struct pkt_pool *pool = &worker_by_id(i)->pool;

		assert_int_equal(pool->free_count, WORKER_POOL_PACKETS);
		assert_int_equal(pool->block_count, pool->block_capacity);
		assert_int_equal(worker_by_id(i)->done_count, 0);
		assert_int_equal(worker_by_id(i)->flush_count, 0);
	}
	workers_resume();
}

static void stop(void)
{
	check_pools();
	del_port(&a);
	del_port(&b);
	bridge_destroy(bridge);
	workers_stop();
	assert_int_equal(collisions, 0);
	assert_int_equal(a.polled_armed + b.polled_armed, 0);
	assert_int_equal(a.done, a.received);
	assert_int_equal(b.done, b.received);
}

/* A failed test leaves its workers running, on data that the next one would reuse. */
static int tear_down(void **state)
{
	if (workers_count() > 0)
		_exit(1);
	return 0;
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* ---- threads and queues ---- */

static void test_start_and_stop(void **state)
{
	unsigned fds = count_fds();

	assert_int_equal(workers_count(), 0);
	assert_null(worker_by_id(0));
	workers_pause(); /* of nobody */
	workers_resume();
	for (unsigned count = 1; count <= WORKERS_MOST; count++) {
		const struct worker_config config = { .count = count };

		assert_int_equal(workers_start(&config), 0);
		assert_int_equal(workers_count(), count);
		for (unsigned i = 0; i < count; i++)
			assert_int_equal(worker_by_id(i)->id, i);
		assert_null(worker_by_id(count));
		assert_null(worker_self);
		workers_stop();
		assert_int_equal(workers_count(), 0);
	}
	assert_int_equal(count_fds(), fds);
}

static void test_queues_are_shared_out(void **state)
{
	static const unsigned expected[WORKERS_MOST + 1][2] = {
		/* most and fewest queues, of 5 + 5 */
		{ 0 }, { 10, 10 }, { 5, 5 }, { 4, 3 }, { 3, 2 },
	};

	for (unsigned count = 1; count <= WORKERS_MOST; count++) {
		unsigned most = 0, fewest = UINT32_MAX;

		start(count, 5, 0);
		for (unsigned i = 0; i < count; i++) {
			unsigned queues = worker_by_id(i)->queue_count;

			most = queues > most ? queues : most;
			fewest = queues < fewest ? queues : fewest;
		}
		assert_int_equal(most, expected[count][0]);
		assert_int_equal(fewest, expected[count][1]);
		/* Taking a port away leaves the other one's. */
		worker_detach(&a.port);
		for (unsigned i = 0; i < count; i++) {
			for (unsigned j = 0; j < worker_by_id(i)->queue_count; j++)
				assert_ptr_equal(worker_by_id(i)->queues[j].port, &b.port);
		}
		worker_detach(&a.port);
		worker_attach(&a.port);
		stop();
	}
}

/* As many ports as there can be, with all their queues, on one worker. */
static void test_room_for_every_queue(void **state)
{
	const struct worker_config config = { .count = 1 };
	static struct port many[PORTS_MAX - 1];

	watched_ops = fake_port_ops;
	assert_int_equal(workers_start(&config), 0);
	workers_pause(); /* nobody polls them: these are not whole ports */
	for (unsigned i = 0; i < PORTS_MAX - 1; i++) {
		many[i].ops = &watched_ops;
		many[i].queues = PORT_QUEUES_MAX;
		worker_attach(&many[i]);
	}
	assert_int_equal(worker_by_id(0)->queue_count, (PORTS_MAX - 1) * PORT_QUEUES_MAX);
	for (unsigned i = 0; i < PORTS_MAX - 1; i++)
		worker_detach(&many[i]);
	assert_int_equal(worker_by_id(0)->queue_count, 0);
	workers_resume();
	workers_stop();
}

/* ---- packets ---- */

static void test_packets_flow(void **state)
{
	enum { EACH = 2000 };

	for (unsigned count = 1; count <= WORKERS_MOST; count++) {
		for (unsigned queues = 1; queues <= 4; queues += 3) {
			struct port_stats sum;
			uint64_t packets = 0, bursts = 0, bytes = 0;

			start(count, queues, count % 2 ? -1 : 0);
			watch(&a);
			watch(&b);
			for (unsigned round = 0; round < 4; round++) {
				for (unsigned i = 0; i < queues; i++) {
					arrive(&a, i, EACH / 4);
					arrive(&b, i, EACH / 4);
				}
				nap(300);
			}
			wait_for(b.sent == 1 + queues * EACH && a.sent == 1 + queues * EACH &&
				 a.done == a.sent && b.done == b.sent);
			workers_pause();
			for (unsigned i = 0; i < count; i++) {
				packets += worker_by_id(i)->packets;
				bytes += worker_by_id(i)->bytes;
				bursts += worker_by_id(i)->bursts;
			}
			assert_int_equal(packets, a.received + b.received);
			assert_int_equal(bytes, packets * FAKE_FRAME_LEN);
			assert_int_equal(bursts, a.done_calls + b.done_calls);
			port_stats_sum(&b.port, &sum);
			assert_int_equal(sum.recv_packets, b.received);
			assert_int_equal(sum.send_packets, b.sent);
			assert_true(b.flushes <= b.send_calls);
			workers_resume();
			stop();
		}
	}
}

/* What a burst and a round share: a completion, a doorbell. */
static void test_once_per_burst_and_round(void **state)
{
	start(1, 4, 0);
	/* All of it is there when the worker looks: four bursts in one round. */
	workers_pause();
	a.done_calls = b.send_calls = b.flushes = 0;
	for (unsigned i = 0; i < 4; i++)
		arrive(&a, i, PKT_BURST);
	workers_resume();
	wait_for(a.done == 1 + 4 * PKT_BURST && b.flushes > 0);
	workers_pause();
	assert_int_equal(a.done_calls, 4);
	assert_int_equal(b.send_calls, 4);
	assert_int_equal(b.flushes, 1);
	/* Three bursts of one queue are three rounds. */
	a.done_calls = b.send_calls = b.flushes = 0;
	arrive(&a, 0, 2 * PKT_BURST + 1);
	workers_resume();
	wait_for(a.done == 1 + 6 * PKT_BURST + 1 && b.flushes >= 3);
	workers_pause();
	assert_int_equal(a.done_calls, 3);
	assert_int_equal(b.flushes, 3);
	workers_resume();
	stop();
}

/* A port that drops all it takes in says so with 0 packets; their sources are told all the same. */
static unsigned recv_and_drop(struct port *port, unsigned queue, struct pkt **pkts, unsigned n)
{
	n = fake_port_recv(port, queue, pkts, n);
	for (unsigned i = 0; i < n; i++)
		pkt_put(pkts[i]);
	return 0;
}

static void test_port_that_drops_all(void **state)
{
	start(1, 1, 0);
	watch(&a);
	workers_pause();
	watched_ops.recv = recv_and_drop;
	arrive(&a, 0, 100);
	workers_resume();
	wait_for(a.done == 101);
	assert_int_equal(a.done_calls, 1 + 4);
	assert_int_equal(b.sent, 1);
	stop();
}

static void test_attach_and_detach_while_packets_flow(void **state)
{
	static struct fake_port c;

	for (unsigned count = 1; count <= WORKERS_MOST; count++) {
		start(count, 2, -1);
		for (unsigned round = 0; round < 100; round++) {
			unsigned calls;

			for (unsigned i = 0; i < 2; i++) {
				arrive(&a, i, 500);
				arrive(&b, i, 500);
			}
			add_port(&c, "c", 3, 3, round % 2 ? A : 9 /* unknown: flooded */);
			watch(&c);
			for (unsigned i = 0; i < 3; i++)
				arrive(&c, i, 10);
			if (round % 3)
				nap(50);
			/* Packets may still wait in it; nobody calls it any more. */
			bridge_remove_port(&c.port);
			worker_detach(&c.port);
			calls = c.recv_calls + c.send_calls + c.flushes + c.arms + c.disarms;
			assert_int_equal(c.received, c.done);
			for (unsigned i = 0; i < 3; i++)
				eventfd_write(c.wake_fd[i], 1);
			nap(50);
			assert_int_equal(c.recv_calls + c.send_calls + c.flushes + c.arms +
						 c.disarms,
					 calls);
			del_port(&c);
		}
		look_again(); /* a and b have no descriptors */
		wait_for(a.waiting[0] + a.waiting[1] + b.waiting[0] + b.waiting[1] == 0);
		stop();
	}
}

/* ---- pausing ---- */

static unsigned all_calls(void)
{
	return a.recv_calls + a.send_calls + a.flushes + a.arms + a.disarms + a.done_calls +
	       b.recv_calls + b.send_calls + b.flushes + b.arms + b.disarms + b.done_calls;
}

static void test_pause_stops_everything(void **state)
{
	for (unsigned count = 1; count <= WORKERS_MOST; count++) {
		unsigned progress = 0, before = 0;

		start(count, 4, count % 2 ? 0 : -1);
		watch(&a);
		for (unsigned round = 0; round < 300; round++) {
			unsigned calls;

			for (unsigned i = 0; i < 4; i++)
				arrive(&a, i, 200);
			for (unsigned spin = 0; spin < round % 7 * 400; spin++)
				_mm_pause();
			if (round % 20 == 0) /* whoever else runs here */
				wait_for(a.received != before);
			workers_pause();
			calls = all_calls();
			progress += a.received != before;
			before = a.received;
			new_canary();
			if (round % 10 == 0) {
				check_pools(); /* pauses, too: they nest */
				nap(200);
			}
			for (unsigned i = 0; i < count; i++)
				assert_int_equal(worker_by_id(i)->pool.free_count,
						 WORKER_POOL_PACKETS);
			assert_int_equal(a.done, a.received);
			assert_int_equal(all_calls(), calls);
			workers_resume();
		}
		assert_true(progress > 10);
		wait_for(a.done == 1 + 300 * 4 * 200);
		stop();
	}
}

static void test_pause_nests(void **state)
{
	unsigned calls;

	start(2, 1, 0);
	workers_pause();
	workers_pause();
	workers_pause();
	workers_resume();
	workers_resume();
	calls = all_calls();
	arrive(&a, 0, 10);
	nap(2000);
	assert_int_equal(all_calls(), calls);
	workers_resume();
	wait_for(a.done == 11);
	stop();
}

/* The time at rest is nobody's work. */
static void test_pause_counts_as_idle(void **state)
{
	struct worker *worker;
	uint64_t busy[2] = { 0 }, idle;

	start(1, 1, 0);
	worker = worker_by_id(0);
	workers_pause();
	idle = worker->profile.cycles[STAGE_IDLE];
	for (unsigned i = 0; i < STAGE_IDLE; i++)
		busy[0] += worker->profile.cycles[i];
	arrive(&a, 0, 1);
	nap(100000);
	workers_resume();
	wait_for(a.done == 2);
	workers_pause();
	for (unsigned i = 0; i < STAGE_IDLE; i++)
		busy[1] += worker->profile.cycles[i];
	assert_true(busy[1] - busy[0] < cycles_hz() / 20);
	assert_true(worker->profile.cycles[STAGE_IDLE] - idle > cycles_hz() / 20);
	workers_resume();
	stop();
}

/* ---- sleeping ---- */

static uint64_t sleeps(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < workers_count(); i++)
		sum += __atomic_load_n(&worker_by_id(i)->sleeps, __ATOMIC_RELAXED);
	return sum;
}

/* Have all workers gone to sleep, and stayed there? */
static bool asleep(void)
{
	unsigned calls = all_calls();

	nap(2000);
	return all_calls() == calls;
}

static void test_sleeps_and_wakes(void **state)
{
	for (unsigned count = 1; count <= WORKERS_MOST; count += 3) {
		struct port_stats sum;

		start(count, 2, 0);
		watch(&a);
		watch(&b);
		wait_for(asleep());
		for (unsigned round = 1; round <= 50; round++) {
			uint64_t before = sleeps();

			/* Once and again: the count of the descriptor is never read back. */
			arrive(&a, round % 2, 40);
			wait_for(a.done == 1 + round * 40);
			wait_for(sleeps() > before);
		}
		wait_for(asleep());
		port_stats_sum(&a.port, &sum);
		assert_true(sum.wakeups > 0 && sum.wakeups <= 50 + 2);
		port_stats_sum(&b.port, &sum);
		assert_true(sum.wakeups <= 2); /* new descriptors may be looked at once */

		/* Forgotten, it wakes nobody; another one does. */
		workers_pause();
		assert_int_equal(worker_watch(&a.port, 0, -1), 0);
		workers_resume();
		wait_for(asleep());
		arrive(&a, 0, 1);
		nap(2000);
		assert_int_equal(a.waiting[0], 1);
		workers_pause();
		close(a.wake_fd[0]);
		a.wake_fd[0] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
		assert_int_equal(worker_watch(&a.port, 0, a.wake_fd[0]), 0);
		workers_resume();
		wait_for(a.done == 1 + 50 * 40 + 1);
		stop();
	}
}

static void test_watch_refuses(void **state)
{
	struct fake_port stranger;
	int file;

	fake_port_init(&stranger, "s", 1, 7, 8);
	start(1, 1, 0);
	workers_pause();
	file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert_int_equal(worker_watch(&stranger.port, 0, 0), -ENOENT);
	assert_int_equal(worker_watch(&stranger.port, 0, -1), 0);
	assert_int_equal(worker_watch(&a.port, 1, 0), -ENOENT);
	assert_int_equal(worker_watch(&a.port, 0, file), -EPERM); /* cannot be polled */
	assert_int_equal(worker_watch(&a.port, 0, -1), 0);
	close(file);
	workers_resume();
	stop();
}

/* Work that arrives just while a worker arms is not slept over: nobody would wake it. */
static void test_arms_then_looks_again(void **state)
{
	start(1, 3, 0);
	/* No descriptors at all; a worker that sleeps is woken by the pause only. */
	workers_pause();
	a.stutter = true; /* every other poll finds nothing though something is there */
	a.burst = 1;
	arrive(&a, 2, 500);
	workers_resume();
	wait_for(a.done == 501);
	/* The queues that were armed before the one with work are disarmed: see stop(). */
	assert_true(a.arms > 500 && a.disarms > 0);
	stop();
}

/* ---- the idle spin ---- */

static uint64_t spin_of(unsigned id)
{
	uint64_t cycles;

	workers_pause();
	cycles = worker_by_id(id)->spin_cycles;
	workers_resume();
	return cycles;
}

/* One packet after a gap longer than any spin. */
static void packet_after_long_gap(void)
{
	unsigned done = a.done;

	nap(2000);
	arrive(&a, 0, 1);
	wait_for(a.done == done + 1);
}

static void test_adaptive_spin(void **state)
{
	const uint64_t usec = cycles_hz() / 1000000;
	const uint64_t bound = 50 * usec;

	start(1, 1, -1);
	watch(&a);
	workers_pause();
	worker_by_id(0)->spin_cycles = bound;
	worker_by_id(0)->spin_odds = 256;
	workers_resume();
	/* Five wasted spins are borne, with the sixth the odds are worse than even. */
	for (unsigned i = 0; i < 5; i++) {
		packet_after_long_gap();
		assert_int_equal(spin_of(0), bound);
	}
	packet_after_long_gap();
	assert_int_equal(spin_of(0), 0);

	/* Gaps that a spin would have caught bring it back: here, of one empty poll each. */
	for (unsigned i = 0; i < 1000 && spin_of(0) == 0; i++) {
		workers_pause();
		a.stutter = true;
		a.burst = 1;
		workers_resume();
		arrive(&a, 0, 3);
		wait_for(a.waiting[0] == 0);
	}
	assert_int_equal(spin_of(0), bound);
	stop();
}

static void test_fixed_spin(void **state)
{
	const uint64_t usec = cycles_hz() / 1000000;
	uint64_t before;

	start(1, 1, 30);
	watch(&a);
	for (unsigned i = 0; i < 3; i++)
		packet_after_long_gap();
	assert_int_equal(spin_of(0), 30 * usec);
	/* Changed at run time, it holds from the next packet on. */
	workers_set_idle_spin(0);
	packet_after_long_gap();
	assert_int_equal(spin_of(0), 0);
	workers_set_idle_spin(PATIENCE_MSEC * 1000);
	packet_after_long_gap();
	/* So long a spin never sleeps, and needs no descriptor to find work. */
	before = sleeps();
	for (unsigned i = 0; i < 10; i++) {
		unsigned done = a.done;

		a.waiting[0]++;
		wait_for(a.done == done + 1);
	}
	assert_int_equal(sleeps(), before);
	workers_set_idle_spin(-1);
	assert_true(worker_by_id(0)->spins_won > 0 && worker_by_id(0)->spins_lost > 0);
	stop();
}

/* An empty queue whose poll is a system call is polled every 4 microseconds at most. */
static void test_polls_that_cost(void **state)
{
	uint64_t from, polls;

	start(1, 1, 1000000);
	watch(&a);
	workers_pause();
	b.port.poll_is_syscall = true;
	b.recv_calls = a.recv_calls = 0;
	from = now_usec();
	workers_resume();
	nap(50000);
	workers_pause();
	polls = b.recv_calls;
	assert_true(polls > 10 && polls <= (now_usec() - from) / 4 * 11 / 10 + 2);
	assert_true(a.recv_calls >= polls);
	workers_resume();
	/* It is still served. */
	arrive(&b, 0, 100);
	wait_for(b.done == 101);
	stop();
}

/* ---- doorbells that block ---- */

static int full_fd;

static void flush_and_block(struct port *port)
{
	worker_self->calling = true;
	eventfd_write(full_fd, 1);
	worker_self->calling = false;
	fake_port_flush(port);
}

/*
 * A guest that fills its call descriptor holds up neither its worker for long, nor the main thread.
 */
static void test_blocking_doorbells(void **state)
{
	start(2, 1, 0);
	watch(&a);
	full_fd = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(eventfd_write(full_fd, UINT64_MAX - 1), 0);
	workers_pause();
	watched_ops.flush = flush_and_block;
	b.flushes = 0;
	workers_resume();
	for (unsigned round = 0; round < 3; round++) {
		arrive(&a, 0, 1);
		wait_for(a.done == 2 + 2 * round);
		/* the main loop's watch */
		for (unsigned i = 0; b.flushes == 2 * round; i++) {
			assert_true(i < 1000);
			workers_watchdog();
			nap(2000);
		}
		/* and no loop at all */
		arrive(&a, 0, 1);
		wait_for(a.done == 3 + 2 * round);
		workers_pause();
		assert_int_equal(b.flushes, 2 * round + 2);
		workers_resume();
	}
	workers_pause();
	watched_ops.flush = watched_flush;
	workers_resume();
	close(full_fd);
	stop();
}

#define TEST(function) cmocka_unit_test_teardown(function, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_start_and_stop),
		TEST(test_queues_are_shared_out),
		TEST(test_room_for_every_queue),
		TEST(test_packets_flow),
		TEST(test_once_per_burst_and_round),
		TEST(test_port_that_drops_all),
		TEST(test_attach_and_detach_while_packets_flow),
		TEST(test_pause_stops_everything),
		TEST(test_pause_nests),
		TEST(test_pause_counts_as_idle),
		TEST(test_sleeps_and_wakes),
		TEST(test_watch_refuses),
		TEST(test_arms_then_looks_again),
		TEST(test_adaptive_spin),
		TEST(test_fixed_spin),
		TEST(test_polls_that_cost),
		TEST(test_blocking_doorbells),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	free(canary);
	return failed;
}
