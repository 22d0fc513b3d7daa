/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The main thread's event loop.
 *
 * Theory of operation. Descriptors wait in one epoll; a table indexed by descriptor says whom to
 * call. Timers are a list in the order in which they fall due, and the first one bounds how long
 * epoll waits.
 *
 * A function that is called may take any descriptor out of the loop, close it, and open another
 * that gets the same number, while an event of the old one has already been fetched. Each use of a
 * number therefore has a generation, epoll carries it beside the number, and an event whose
 * generation is over is dropped.
 *
 * In the same way a function may add and delete timers: the list is taken from its head, one at a
 * time, and only timers that were due when the round began are run, so that a timer which starts
 * itself anew with 0 ms does not starve the descriptors.
 */
#include "sys/loop.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_PER_ROUND = 64 };

struct watch {
	loop_fd_fn *fn; /* NULL: not watched */
	void *arg;
	uint32_t generation;
};

struct timer {
	struct timer *next;
	uint64_t due_ns;
	int id;
	loop_timer_fn *fn;
	void *arg;
};

static int epoll_fd = -1;
static struct watch *watches; /* [watch_count], by descriptor */
static int watch_count;
static struct timer *timers; /* the first is due first */
static int last_timer_id;
static atomic_bool quit;

static void run_timers(void);
static int wait_msec(void);
static int watches_reserve(int fd);

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct epoll_event event_of(int fd, uint32_t events)
{
	return (struct epoll_event){
		.events = events,
		.data.u64 = (uint64_t)watches[fd].generation << 32 | (uint32_t)fd,
	};
}

int loop_init(void)
{
	if (epoll_fd < 0)
		epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return epoll_fd < 0 ? -errno : 0;
}

int loop_run(void)
{
	struct epoll_event events[EVENTS_PER_ROUND];

	while (!atomic_load(&quit)) {
		int n = epoll_wait(epoll_fd, events, EVENTS_PER_ROUND, wait_msec());

		if (n < 0 && errno != EINTR)
			return -errno;
		run_timers();
		for (int i = 0; i < n && !atomic_load(&quit); i++) {
			struct watch *watch = &watches[(uint32_t)events[i].data.u64];

			if (watch->fn && watch->generation == events[i].data.u64 >> 32)
				watch->fn(watch->arg, events[i].events);
		}
	}
	atomic_store(&quit, false);
	return 0;
}

void loop_quit(void)
{
	atomic_store(&quit, true);
}

int loop_add_fd(int fd, uint32_t events, loop_fd_fn *fn, void *arg)
{
	struct epoll_event event;
	int err = watches_reserve(fd);

	if (err)
		return err;
	event = event_of(fd, events);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	watches[fd].fn = fn;
	watches[fd].arg = arg;
	return 0;
}

int loop_set_events(int fd, uint32_t events)
{
	struct epoll_event event;

	if (fd < 0 || fd >= watch_count || !watches[fd].fn)
		return -ENOENT;
	event = event_of(fd, events);
	return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 ? -errno : 0;
}

void loop_del_fd(int fd)
{
	if (fd < 0 || fd >= watch_count || !watches[fd].fn)
		return;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	watches[fd].fn = NULL;
	watches[fd].generation++;
}

int loop_add_timer(unsigned msec, loop_timer_fn *fn, void *arg)
{
	struct timer *timer = malloc(sizeof(*timer));
	struct timer **at = &timers;

	if (!timer)
		return -ENOMEM;
	last_timer_id = last_timer_id == INT_MAX ? 1 : last_timer_id + 1;
	*timer = (struct timer){ .due_ns = now_ns() + (uint64_t)msec * 1000000,
				 .id = last_timer_id,
				 .fn = fn,
				 .arg = arg };

	while (*at && (*at)->due_ns <= timer->due_ns)
		at = &(*at)->next;
	timer->next = *at;
	*at = timer;
	return timer->id;
}

void loop_del_timer(int id)
{
	for (struct timer **at = &timers; *at; at = &(*at)->next) {
		struct timer *timer = *at;

		if (timer->id == id) {
			*at = timer->next;
			free(timer);
			return;
		}
	}
}

static void run_timers(void)
{
	uint64_t now = now_ns();

	while (timers && timers->due_ns <= now && !atomic_load(&quit)) {
		struct timer timer = *timers;

		/* Off the list before it is called: its id is then unknown, and deleting it does
		 * nothing. */
		free(timers);
		timers = timer.next;
		timer.fn(timer.arg);
	}
}

/* How long epoll may wait: until the first timer, rounded up so that it is due then. */
static int wait_msec(void)
{
	uint64_t now = now_ns();
	uint64_t msec;

	if (!timers)
		return -1;
	if (timers->due_ns <= now)
		return 0;
	msec = (timers->due_ns - now + 999999) / 1000000;
	return msec < INT_MAX ? (int)msec : INT_MAX;
}

static int watches_reserve(int fd)
{
	struct watch *grown;
	int count = watch_count ? watch_count : 64;

	if (fd < 0)
		return -EBADF;
	if (fd < watch_count)
		return watches[fd].fn ? -EEXIST : 0;
	while (count <= fd)
		count *= 2;
	grown = realloc(watches, (size_t)count * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	for (int i = watch_count; i < count; i++)
		grown[i] = (struct watch){ 0 };
	watches = grown;
	watch_count = count;
	return 0;
}
