/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snet-gen: how many packets vifd carries, and whether it loses or changes any.
 *
 *      # snet-gen --from /run/vifd/a.sock --to /run/vifd/b.sock --size 64 --seconds 5
 *
 * sends from one port and receives at the other, both in one thread without sleeping. With only one
 * of --from and --to it is a generator, or a sink; then the other may run elsewhere. Frames carry
 * numbers; the sink reports gaps as lost, and frames that are out of order or of another length as
 * bad. A sink first sends a frame itself, so that a bridge knows where it is.
 *
 *      cc -O2 -o snet-gen snet-gen.c $(pkg-config --cflags --libs libvifront)
 */
#include <err.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <vifront.h>

enum { BURST = 32, RECV_BUFS = 2 * VIFRONT_FRAME_BUFS, ROUNDS_PER_LOOK = 256 };

struct frame {
	uint8_t to[6], from[6];
	uint8_t type[2]; /* 0x88b5: local experiments */
	uint8_t number[8];
};

static const struct frame model = {
	.to = { 2, 's', 'n', 'e', 't', 2 },
	.from = { 2, 's', 'n', 'e', 't', 1 },
	.type = { 0x88, 0xb5 },
};

struct counts {
	uint64_t sent, received, lost, bad;
	uint64_t next; /* number of the next frame to arrive */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

static int checked(const struct vifront *front, int result)
{
	if (result < 0)
		errx(EXIT_FAILURE, "%s", vifront_why(front));
	return result;
}

static struct vifront *connect_to(const char *path)
{
	struct vifront_error error;
	struct vifront *front;

	if (vifront_open(&front, path, NULL, &error))
		errx(EXIT_FAILURE, "%s", error.text);
	return front;
}

/* A burst of frames, as many as there is room for. */
static void generate(struct vifront *front, uint32_t size, struct counts *counts)
{
	struct vifront_buf bufs[BURST];
	int count = checked(front, vifront_alloc(front, 0, size, bufs, BURST)), sent;

	for (int i = 0; i < count; i++) {
		struct frame *frame = bufs[i].data;
		uint64_t number = counts->sent + i;

		*frame = model;
		memcpy(frame->number, &number, sizeof(number));
		bufs[i].len = size;
	}
	sent = checked(front, vifront_send(front, 0, bufs, count));
	vifront_free(front, 0, bufs + sent, count - sent);
	counts->sent += sent;
}

/* Look at a frame: its first buffer, and its length. */
static void check(const struct vifront_buf *buf, uint32_t len, uint32_t size, struct counts *counts)
{
	const struct frame *frame = buf->data;
	uint64_t number;

	if (buf->len < sizeof(*frame) || memcmp(frame->type, model.type, sizeof(model.type)) != 0)
		return; /* somebody else's */
	memcpy(&number, frame->number, sizeof(number));
	counts->received++;
	if (len != size || number < counts->next) {
		counts->bad++;
		return;
	}
	counts->lost += number - counts->next;
	counts->next = number + 1;
}

/* What has arrived. */
static void sink(struct vifront *front, uint32_t size, struct counts *counts)
{
	for (unsigned queue = 0; queue < vifront_info(front)->queues; queue++) {
		struct vifront_buf bufs[RECV_BUFS];
		int count = checked(front, vifront_recv(front, queue, bufs, RECV_BUFS));
		uint32_t len = 0;

		for (int i = 0, first = 0; i < count; i++) {
			len += bufs[i].len;
			if (bufs[i].flags & VIFRONT_MORE)
				continue;
			check(&bufs[first], len, size, counts);
			first = i + 1;
			len = 0;
		}
		vifront_release(front, queue, bufs, count);
	}
}

/* Tell the bridge where the sink is. */
static void announce(struct vifront *front)
{
	struct frame *frame;
	struct vifront_buf buf;

	if (checked(front, vifront_alloc(front, 0, 60, &buf, 1)) == 0)
		return;
	memset(buf.data, 0, 60);
	frame = buf.data;
	memcpy(frame->to, model.from, 6);
	memcpy(frame->from, model.to, 6);
	buf.len = 60;
	checked(front, vifront_send(front, 0, &buf, 1));
}

static void report(const struct counts *counts, double seconds, uint32_t size, bool from, bool to)
{
	uint64_t done = to ? counts->received : counts->sent;

	printf("%u bytes, %.1f s:", size, seconds);
	if (from)
		printf(" sent %llu", (unsigned long long)counts->sent);
	if (to)
		printf(" received %llu lost %llu bad %llu", (unsigned long long)counts->received,
		       (unsigned long long)counts->lost, (unsigned long long)counts->bad);
	printf(" (%.3f Mpps)\n", done / seconds / 1e6);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "from", required_argument, NULL, 'f' },
		{ "to", required_argument, NULL, 't' },
		{ "size", required_argument, NULL, 's' },
		{ "seconds", required_argument, NULL, 'd' },
		{ 0 },
	};
	struct vifront *from = NULL, *to = NULL;
	struct counts counts = { 0 };
	uint64_t begin, now, end;
	double seconds = 5;
	uint32_t size = 64;
	int c;

	while ((c = getopt_long(argc, argv, "f:t:s:d:", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			from = connect_to(optarg);
			break;
		case 't':
			to = connect_to(optarg);
			break;
		case 's':
			size = strtoul(optarg, NULL, 0);
			break;
		case 'd':
			seconds = strtod(optarg, NULL);
			break;
		default:
			optind = argc + 1;
		}
	}
	if ((!from && !to) || optind != argc || seconds <= 0)
		errx(2, "usage: snet-gen [--from PATH] [--to PATH] [--size BYTES] [--seconds S]");
	if (size < sizeof(model) || size > vifront_info(from ? from : to)->mtu + 14)
		errx(2, "a frame is %zu to %u bytes long", sizeof(model),
		     vifront_info(from ? from : to)->mtu + 14);
	if (to)
		announce(to);
	begin = now = now_ns();
	end = begin + seconds * 1e9;
	while (now < end) {
		for (unsigned i = 0; i < ROUNDS_PER_LOOK; i++) {
			if (from)
				generate(from, size, &counts);
			if (to)
				sink(to, size, &counts);
		}
		now = now_ns();
	}
	report(&counts, (now - begin) / 1e9, size, from, to);
	vifront_close(from);
	vifront_close(to);
	return counts.bad || (to && !counts.received) ? EXIT_FAILURE : EXIT_SUCCESS;
}
