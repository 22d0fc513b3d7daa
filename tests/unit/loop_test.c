/* SPDX-License-Identifier: BSD-3-Clause */
/* The event loop: order of timers, and descriptors that come and go while their events are being
 * served. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys/loop.h"

static char trail[64]; /* what was called, a letter each */

static void note(char letter)
{
	size_t len = strlen(trail);

	assert_true(len + 1 < sizeof(trail));
	trail[len] = letter;
	trail[len + 1] = 0;
}

static int setup(void **state)
{
	trail[0] = 0;
	return loop_init();
}

static void on_timer(void *arg)
{
	note(*(const char *)arg);
}

static void on_last_timer(void *arg)
{
	on_timer(arg);
	loop_quit();
}

static void timers_run_when_due(void **state)
{
	struct timespec before, after;
	long msec;

	clock_gettime(CLOCK_MONOTONIC, &before);
	assert_true(loop_add_timer(60, on_last_timer, "d") > 0);
	assert_true(loop_add_timer(10, on_timer, "b") > 0);
	assert_true(loop_add_timer(0, on_timer, "a") > 0);
	assert_true(loop_add_timer(10, on_timer, "c") >
		    0); /* the same time: in the order of adding */
	assert_int_equal(loop_run(), 0);
	clock_gettime(CLOCK_MONOTONIC, &after);

	assert_string_equal(trail, "abcd");
	msec = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
	assert_in_range(msec, 59, 5000);
}

static int doomed;

static void on_killer(void *arg)
{
	note('k');
	loop_del_timer(doomed);
}

static void deleted_timers_do_not_run(void **state)
{
	int early = loop_add_timer(0, on_timer, "x");

	loop_add_timer(0, on_killer, NULL);
	doomed = loop_add_timer(0, on_timer, "y"); /* due in the same round as its killer */
	loop_add_timer(5, on_last_timer, "z");
	loop_del_timer(early);
	loop_del_timer(early);
	loop_del_timer(0);
	assert_int_equal(loop_run(), 0);
	assert_string_equal(trail, "kz");
}

static unsigned again;

static void on_again(void *arg)
{
	again++;
	loop_add_timer(0, on_again, NULL);
}

static void on_fd_quit(void *arg, uint32_t events)
{
	note('q');
	loop_quit();
}

static void restless_timers_do_not_starve_descriptors(void **state)
{
	int fd = eventfd(1, EFD_CLOEXEC);

	assert_int_equal(loop_add_fd(fd, EPOLLIN, on_fd_quit, NULL), 0);
	loop_add_timer(0, on_again, NULL);
	assert_int_equal(loop_run(), 0);
	assert_string_equal(trail, "q");
	assert_in_range(again, 1, 100);
	loop_del_fd(fd);
	close(fd);
}

struct pair {
	int fds[2];
	int fresh;
};

static void on_stranger(void *arg, uint32_t events)
{
	note('!');
}

/* Both of the pair are readable: whichever is served first closes the other, and a new one takes
 * its number. */
static void on_either(void *arg, uint32_t events)
{
	struct pair *pair = arg;

	for (int i = 0; i < 2; i++) {
		int fd = pair->fds[i];
		uint64_t count;

		if (read(fd, &count, sizeof(count)) < 0 && errno == EBADF)
			fail();
		loop_del_fd(fd);
		close(fd);
		pair->fresh = eventfd(
			0, EFD_CLOEXEC | EFD_NONBLOCK); /* the same number, with nothing to read */
		assert_int_equal(pair->fresh, fd);
		assert_int_equal(loop_add_fd(pair->fresh, EPOLLIN, on_stranger, NULL), 0);
	}
	note('e');
	loop_add_timer(5, on_last_timer, "z");
}

static void events_of_a_closed_descriptor_are_dropped(void **state)
{
	struct pair pair;

	for (int i = 0; i < 2; i++) {
		pair.fds[i] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
		assert_int_equal(loop_add_fd(pair.fds[i], EPOLLIN, on_either, &pair), 0);
	}
	assert_int_equal(loop_run(), 0);
	assert_string_equal(trail, "ez");
	for (int i = 0; i < 2; i++) {
		loop_del_fd(pair.fds[i]);
		close(pair.fds[i]);
	}
}

static void on_events(void *arg, uint32_t events)
{
	note(events & EPOLLIN ? 'i' : 'o');
	if (events & EPOLLIN)
		loop_set_events(*(int *)arg, EPOLLOUT);
	else
		loop_quit();
}

static void events_can_be_changed(void **state)
{
	int fd = eventfd(1, EFD_CLOEXEC);

	assert_int_equal(loop_set_events(fd, EPOLLIN), -ENOENT);
	assert_int_equal(loop_add_fd(fd, EPOLLIN, on_events, &fd), 0);
	assert_int_equal(loop_add_fd(fd, EPOLLIN, on_events, &fd), -EEXIST);
	assert_int_equal(loop_run(), 0);
	assert_string_equal(trail, "io");
	loop_del_fd(fd);
	loop_del_fd(fd);
	close(fd);
	assert_int_equal(loop_add_fd(fd, EPOLLIN, on_events, &fd), -EBADF);
	assert_int_equal(loop_add_fd(-1, EPOLLIN, on_events, &fd), -EBADF);
}

static void descriptors_of_any_number(void **state)
{
	int low = eventfd(1, EFD_CLOEXEC);
	int high = dup2(low, 700);

	assert_int_equal(high, 700);
	assert_int_equal(loop_add_fd(high, EPOLLIN, on_fd_quit, NULL), 0);
	assert_int_equal(loop_run(), 0);
	assert_string_equal(trail, "q");
	loop_del_fd(high);
	close(high);
	close(low);
}

static void quitting_before_running_ends_the_run(void **state)
{
	loop_quit();
	assert_int_equal(loop_run(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(timers_run_when_due, setup),
		cmocka_unit_test_setup(deleted_timers_do_not_run, setup),
		cmocka_unit_test_setup(events_of_a_closed_descriptor_are_dropped, setup),
		cmocka_unit_test_setup(events_can_be_changed, setup),
		cmocka_unit_test_setup(descriptors_of_any_number, setup),
		cmocka_unit_test_setup(quitting_before_running_ends_the_run, setup),
		/* leaves a timer behind, so it is the last */
		cmocka_unit_test_setup(restless_timers_do_not_starve_descriptors, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
