/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What it costs to wake somebody on the same CPU, and to switch to him: nanoseconds, on stdout.
 *
 * Two processes that share a CPU write to each other's eventfd and wait for their own by epoll, as vifd and its front ends
 * do. A round trip is twice all of that, and nothing else; each of them has spent the half of it.
 *
 *      wake_cost CPU
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 20000 };

static int waiting_for(int fd)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };

	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		exit(EXIT_FAILURE);
	return epoll;
}

static void wait_for(int epoll, int fd)
{
	struct epoll_event event;
	eventfd_t count;

	if (epoll_wait(epoll, &event, 1, -1) != 1 || eventfd_read(fd, &count))
		exit(EXIT_FAILURE);
}

static void echo(int in, int out)
{
	int epoll = waiting_for(in);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		wait_for(epoll, in);
		eventfd_write(out, 1);
	}
}

int main(int argc, char **argv)
{
	int there = eventfd(0, 0), back = eventfd(0, 0), epoll;
	struct timespec begin, end;
	cpu_set_t cpus;
	pid_t child;

	CPU_ZERO(&cpus);
	CPU_SET(argc == 2 ? atoi(argv[1]) : 0, &cpus);
	if (there < 0 || back < 0 || sched_setaffinity(0, sizeof(cpus), &cpus))
		return EXIT_FAILURE;
	child = fork();
	if (child == 0)
		echo(there, back);
	if (child < 0)
		return EXIT_FAILURE;
	epoll = waiting_for(back);
	for (int i = -ROUNDS / 10; i < ROUNDS; i++) {
		if (i == 0)
			clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
		eventfd_write(there, 1);
		wait_for(epoll, back);
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
	kill(child, SIGKILL);
	printf("%.0f\n",
	       ((end.tv_sec - begin.tv_sec) * 1e9 + end.tv_nsec - begin.tv_nsec) / ROUNDS);
	return EXIT_SUCCESS;
}
