/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snet-pingpong: how long a packet takes through vifd and back, without a kernel in between.
 *
 *      # vifd 'bridge add br0' 'guest add a snet=/run/vifd/a.sock bridge=br0' \
 *             'guest add b snet=/run/vifd/b.sock bridge=br0' &
 *      # snet-pingpong --connect /run/vifd/b.sock --reflect &
 *      # snet-pingpong --connect /run/vifd/a.sock --size 64 --count 100000
 *
 * One side sends a frame and waits until it is back, again and again; the other reflects frames to
 * whoever sent them. The first ping is a broadcast: whoever answers is pinged from then on. With
 * --spin neither sleeps.
 *
 *      cc -O2 -o snet-pingpong snet-pingpong.c $(pkg-config --cflags --libs libvifront)
 */
#include <err.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <vifront.h>

enum { PATIENCE_MS = 1000, BUFS = VIFRONT_FRAME_BUFS };

/* What a ping looks like; the rest of the frame is zero. */
struct ping {
	uint8_t to[6], from[6];
	uint8_t type[2]; /* 0x88b5: local experiments */
	uint8_t number[4];
};

static struct vifront *front;
static bool spin;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

/* The next frames, at most as long as our patience; 0: none came. Whole frames, to be released. Both
 * sides use queue 0 alone, whose worker carries what comes from the one to the other's queue 0. */
static int receive(struct vifront_buf *bufs, int patience_ms)
{
	uint64_t end = now_ns() + patience_ms * UINT64_C(1000000);
	int got = 0;

	if (spin) {
		do {
			got = vifront_recv(front, 0, bufs, BUFS);
		} while (got == 0 && (patience_ms < 0 || now_ns() < end));
	} else {
		got = vifront_wait(front, 0, VIFRONT_RECV, patience_ms);
		if (got > 0)
			got = vifront_recv(front, 0, bufs, BUFS);
	}
	if (got < 0)
		errx(EXIT_FAILURE, "%s", vifront_why(front));
	return got;
}

/* Send a frame of size bytes that begins with ping. */
static void send_ping(const struct ping *ping, uint32_t size)
{
	struct vifront_buf buf;

	while (vifront_alloc(front, 0, size, &buf, 1) == 0)
		vifront_wait(front, 0, VIFRONT_SEND, PATIENCE_MS);
	memset(buf.data, 0, size);
	memcpy(buf.data, ping, sizeof(*ping));
	buf.len = size;
	if (vifront_send(front, 0, &buf, 1) < 0)
		errx(EXIT_FAILURE, "%s", vifront_why(front));
}

static bool is_ping(const struct vifront_buf *buf, const struct ping *like)
{
	const struct ping *ping = buf->data;

	return buf->len >= sizeof(*ping) && memcmp(ping->type, like->type, sizeof(like->type)) == 0;
}

static void reflect(struct ping *ours)
{
	for (;;) {
		struct vifront_buf bufs[BUFS];
		int count = receive(bufs, -1);

		for (int i = 0; i < count; i++) {
			const struct ping *ping = bufs[i].data;

			if (!is_ping(&bufs[i], ours) || bufs[i].flags & VIFRONT_MORE)
				continue;
			memcpy(ours->to, ping->from, 6);
			memcpy(ours->number, ping->number, 4);
			send_ping(ours, bufs[i].len);
		}
		vifront_release(front, 0, bufs, count);
	}
}

/* One round trip, in ns; 0: lost. */
static uint64_t round_trip(struct ping *ping, uint32_t number, uint32_t size)
{
	uint64_t begin = now_ns(), end = 0;

	memcpy(ping->number, &number, 4);
	send_ping(ping, size);
	while (!end && now_ns() - begin < PATIENCE_MS * UINT64_C(1000000)) {
		struct vifront_buf bufs[BUFS];
		int count = receive(bufs, PATIENCE_MS);

		for (int i = 0; i < count; i++) {
			const struct ping *pong = bufs[i].data;

			if (!is_ping(&bufs[i], ping) || memcmp(pong->number, &number, 4) != 0)
				continue;
			end = now_ns();
			memcpy(ping->to, pong->from, 6);
		}
		vifront_release(front, 0, bufs, count);
	}
	return end ? end - begin : 0;
}

static int compare(const void *a, const void *b)
{
	uint64_t one = *(const uint64_t *)a, two = *(const uint64_t *)b;

	return (one > two) - (one < two);
}

static int ping_pong(struct ping *ping, uint32_t size, uint32_t count)
{
	uint64_t *trips = calloc(count, sizeof(*trips));
	uint32_t got = 0;

	if (!trips)
		err(EXIT_FAILURE, "%u round trips", count);
	round_trip(ping, UINT32_MAX, size); /* finds the other end */
	for (uint32_t i = 0; i < count; i++) {
		trips[got] = round_trip(ping, i, size);
		got += trips[got] != 0;
	}
	qsort(trips, got, sizeof(*trips), compare);
	if (got > 0)
		printf("%u bytes, %u round trips: p50 %.1f us, p99 %.1f us, max %.1f us; %u lost\n",
		       size, got, trips[got / 2] / 1e3, trips[got * 99ULL / 100] / 1e3,
		       trips[got - 1] / 1e3, count - got);
	else
		printf("%u bytes: nobody answers\n", size);
	free(trips);
	return got == count ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "connect", required_argument, NULL, 'c' },
		{ "reflect", no_argument, NULL, 'r' },
		{ "size", required_argument, NULL, 's' },
		{ "count", required_argument, NULL, 'n' },
		{ "spin", no_argument, NULL, 'p' },
		{ 0 },
	};
	static const uint8_t nothing[6];
	struct ping ping = { .to = { 255, 255, 255, 255, 255, 255 }, .type = { 0x88, 0xb5 } };
	uint32_t size = 64, count = 10000, pid = getpid();
	const struct vifront_info *info;
	struct vifront_error error;
	const char *path = NULL;
	bool reflects = false;
	int c;

	while ((c = getopt_long(argc, argv, "c:rs:n:p", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			path = optarg;
			break;
		case 'r':
			reflects = true;
			break;
		case 's':
			size = strtoul(optarg, NULL, 0);
			break;
		case 'n':
			count = strtoul(optarg, NULL, 0);
			break;
		case 'p':
			spin = true;
			break;
		default:
			path = NULL;
			optind = argc + 1;
		}
	}
	if (!path || optind != argc || count == 0)
		errx(2, "usage: snet-pingpong --connect PATH [--reflect] [--size BYTES] "
			"[--count N] [--spin]");
	if (vifront_open(&front, path, NULL, &error))
		errx(EXIT_FAILURE, "%s", error.text);
	info = vifront_info(front);
	if (size < sizeof(ping) || size > info->mtu + 14)
		errx(2, "a frame is %zu to %u bytes long", sizeof(ping), info->mtu + 14);
	/* The address that vifd gave us, or one that is most likely ours alone. */
	memcpy(ping.from, (uint8_t[]){ 2, 0, pid >> 24, pid >> 16, pid >> 8, pid }, 6);
	if (memcmp(info->mac, nothing, 6) != 0)
		memcpy(ping.from, info->mac, 6);
	if (reflects)
		reflect(&ping);
	c = ping_pong(&ping, size, count);
	vifront_close(front);
	return c;
}
