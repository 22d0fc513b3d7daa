/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * placement: how far apart are two CPUs at this moment? Theory of operation:
 *
 *     placement CPU CPU
 *
 * A virtual machine's CPUs are moved between the cores of its host, within seconds, and whatever
 * two CPUs do through shared memory becomes 1.5 to 3 times dearer or cheaper by it. Each line on
 * stdin is answered with the round trip of one cache line between the two CPUs, in nanoseconds:
 * about 40 between two hyperthreads of a core, 120 between cores that share a cache, 500 and more
 * between cores that do not.
 *
 * The answering thread spins for the milliseconds of a measurement only, on a CPU that must
 * otherwise be idle.
 */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CHUNKS = 15, ROUND_TRIPS = 500 };

static _Alignas(128) _Atomic uint32_t ping;
static _Alignas(128) _Atomic uint32_t pong;
static sem_t start;

static void pin(pthread_t thread, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(thread, sizeof(set), &set)) {
		fprintf(stderr, "placement: there is no CPU %d to run on\n", cpu);
		exit(EXIT_FAILURE);
	}
}

/* Reflect one measurement's worth of pings, the wake-up's one included. */
static void *answer(void *unused)
{
	uint32_t seen = 0, until;

	for (;;) {
		while (sem_wait(&start))
			;
		until = seen + 1 + CHUNKS * ROUND_TRIPS;
		while (seen != until)
			if (atomic_load_explicit(&ping, memory_order_acquire) == seen + 1)
				atomic_store_explicit(&pong, ++seen, memory_order_release);
	}
	return unused;
}

static void round_trips(unsigned count)
{
	uint32_t sent;

	while (count--) {
		sent = atomic_load_explicit(&ping, memory_order_relaxed) + 1;
		atomic_store_explicit(&ping, sent, memory_order_release);
		while (atomic_load_explicit(&pong, memory_order_acquire) != sent)
			;
	}
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median over chunks, so that an interrupt does not count. */
static double measure(void)
{
	double chunks[CHUNKS], begin;
	unsigned i;

	sem_post(&start);
	round_trips(1);
	for (i = 0; i < CHUNKS; i++) {
		begin = now_ns();
		round_trips(ROUND_TRIPS);
		chunks[i] = (now_ns() - begin) / ROUND_TRIPS;
	}
	qsort(chunks, CHUNKS, sizeof(chunks[0]), compare);
	return chunks[CHUNKS / 2];
}

int main(int argc, char **argv)
{
	pthread_t thread;
	char line[16];

	if (argc != 3) {
		fprintf(stderr, "usage: placement CPU CPU\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	sem_init(&start, 0, 0);
	if (pthread_create(&thread, NULL, answer, NULL))
		return EXIT_FAILURE;
	pin(pthread_self(), atoi(argv[1]));
	pin(thread, atoi(argv[2]));
	while (fgets(line, sizeof(line), stdin))
		printf("%.1f\n", measure());
	return 0;
}
