// SPDX-License-Identifier: BSD-3-Clause
/*
 * The offload driver's kernels, alone on a CPU, each against plain copying of the same bytes.
 *
 *      csum            checksum of a 1500-byte buffer   memcpy() of it
 *      copy-csum       copy and checksum in one pass    memcpy(), then checksum
 *      segment         a 64 KiB TCP packet to a port    copy of the packet's bytes
 *                      that takes fragments, but does
 *                      nothing else: MTU frames that
 *                      borrow it, with checksums
 *      segment-linear  the same to a port that takes    the same
 *                      no fragments: frames in one
 *                      piece, which includes the copy
 *      lro             a received segment of 1448 bytes the same, passed on without
 *                      merged into a large packet       being looked at
 *
 * Theory of operation. The buffers are few enough to stay in the first-level cache. The packets are
 * more than the second-level cache holds, since a guest's payload was written by the guest's CPU
 * and comes from the cache that CPUs share; they go the way of any packet, through port_send(), to
 * a port in memory.
 *
 * The two sides of a row take turns of about a millisecond, the one to begin changing every time,
 * so that a CPU whose speed drifts does so for both. Time is the thread's CPU time, in which other
 * programs do not count.
 *
 * Usage: micro SAMPLES ROW... Prints a line of JSON for each row: lists of ns per buffer or packet.
 */
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "offload/lro.h"
#include "offload/tso.h"
#include "pkt/csum.h"
#include "pkt/headers.h"
#include "port/port.h"
#include "port/worker.h"

enum {
	BUFFERS = 8, /* two sets of these fit the smallest first-level cache in use, 32 KiB */
	BUFFER_LEN = 1500,
	BUFFER_STRIDE = 1536,
	PACKETS = 64, /* together 4 MiB */
	PAGE = 4096,  /* pieces that a guest's payload lies in */
	TURN_NSEC = 1000000,

	IP_OFF = 14,
	TCP_OFF = IP_OFF + 20,
	PAYLOAD_OFF = TCP_OFF + 32, /* with a timestamp option */
	FRAME_LEN = IP_OFF + 65535,
	FRAME_STRIDE = FRAME_LEN / PAGE * PAGE + PAGE,
	GSO_SIZE = 1448,
	SEGMENTS = (FRAME_LEN - PAYLOAD_OFF + GSO_SIZE - 1) / GSO_SIZE,
};

static uint8_t from[BUFFERS * BUFFER_STRIDE] __attribute__((aligned(64)));
static uint8_t to[BUFFERS * BUFFER_STRIDE] __attribute__((aligned(64)));
static volatile size_t buffer_len = BUFFER_LEN; /* as unknown to the compiler as a packet's */

/* One side of a row: does its work count times. */
typedef void (*side_fn)(unsigned count);

/* The compiler must think that a result is used, and that memory is. */
#define USED(value) __asm__ volatile("" : : "r"(value) : "memory")

static void checksum(unsigned count)
{
	size_t len = buffer_len;

	for (unsigned i = 0; i < count; i++)
		USED(csum_partial(from + i % BUFFERS * BUFFER_STRIDE, len, 0));
}

static void copy(unsigned count)
{
	size_t len = buffer_len;

	for (unsigned i = 0; i < count; i++) {
		size_t at = i % BUFFERS * BUFFER_STRIDE;

		USED(memcpy(to + at, from + at, len));
	}
}

static void copy_with_checksum(unsigned count)
{
	size_t len = buffer_len;

	for (unsigned i = 0; i < count; i++) {
		size_t at = i % BUFFERS * BUFFER_STRIDE;

		USED(csum_copy(to + at, from + at, len, 0));
	}
}

static void copy_then_checksum(unsigned count)
{
	size_t len = buffer_len;

	for (unsigned i = 0; i < count; i++) {
		size_t at = i % BUFFERS * BUFFER_STRIDE;

		USED(memcpy(to + at, from + at, len));
		USED(csum_partial(to + at, len, 0));
	}
}

/* ---- a packet of 64 KiB and a port in memory ---- */

static uint64_t sent_packets, sent_bytes, sent_unfinished, sent_linear;

static void sink_send(struct port *port, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		sent_packets++;
		sent_bytes += pkts[i]->len;
		sent_unfinished += !pkt_needs_nothing(pkts[i]);
		sent_linear += pkts[i]->header_len == 0 && pkts[i]->frag_count == 1;
		pkt_put(pkts[i]);
	}
}

static const struct port_ops sink_ops = { .kind = "sink", .send = sink_send };
static struct port sink = { .name = "sink", .ops = &sink_ops, .mtu = 1500, .queues = 1 };

static uint8_t frames[PACKETS][FRAME_STRIDE] __attribute__((aligned(PAGE)));
static uint8_t frame_copy[FRAME_LEN] __attribute__((aligned(PAGE)));
static struct pkt *packets[PACKETS];

/* The calling thread becomes a worker. */
static void become_worker(void)
{
	static struct worker worker;

	if (pkt_pool_init(&worker.pool, WORKER_POOL_PACKETS))
		err(EXIT_FAILURE, "packet pool");
	worker.done = calloc(WORKER_POOL_PACKETS, sizeof(*worker.done));
	worker.done_spare = calloc(WORKER_POOL_PACKETS, sizeof(*worker.done_spare));
	if (!worker.done || !worker.done_spare)
		err(EXIT_FAILURE, "worker");
	worker_self = &worker;
	if (port_register(&sink))
		errx(EXIT_FAILURE, "port");
}

/* A TCP packet as a guest's back end makes it: headers copied, payload in the guest's pages. */
static void build_packet(struct pkt *packet, uint8_t *frame)
{
	static const uint8_t headers[PAYLOAD_OFF] = {
		2,    0,    0,    0,    0,  1, 2,    0, 0,  0, 0, 2,  8, 0, /* Ethernet, IPv4 */
		0x45, 0,    0xff, 0xff, 0,  1, 0x40, 0, 64, 6, 0, 0,  /* 65535 bytes, DF, TCP */
		10,   0,    0,    1,    10, 0, 0,    2,               /* addresses */
		0x30, 0x39, 0x14, 0x51, 0,  0, 0,    1, 0,  0, 0, 1,  /* ports, numbers */
		0x80, 0x10, 0xff, 0xff, 0,  0, 0,    0, 1,  1, 8, 10, /* 32 bytes, ACK, window */
		0,    0,    0,    1,    0,  0, 0,    1,               /* timestamps */
	};

	for (unsigned i = 0; i < FRAME_LEN; i++)
		frame[i] = i < sizeof(headers) ? headers[i] : i * 167 + (i >> 8);
	packet->in_port = sink.id;
	packet->len = FRAME_LEN;
	packet->header_len = PKT_HEADER_FAST;
	memcpy(packet->header, frame, PKT_HEADER_FAST);
	for (uint32_t at = PKT_HEADER_FAST, end; at < FRAME_LEN; at = end) {
		end = (at / PAGE + 1) * PAGE;
		if (end > FRAME_LEN)
			end = FRAME_LEN;
		packet->frags[packet->frag_count++] = (struct iovec){ .iov_base = frame + at,
								      .iov_len = end - at };
	}
	packet->offload = (struct pkt_offload){
		.flags = PKT_CSUM_PARTIAL,
		.gso_type = PKT_GSO_TCPV4,
		.gso_size = GSO_SIZE,
		.csum_start = TCP_OFF,
		.csum_offset = 16,
	};
	headers_parse(packet);
	if (!headers_check_offload(packet))
		errx(EXIT_FAILURE, "the packet is not what it should be");
}

static void send_packet(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct pkt *packet = packets[i % PACKETS];

		packet->refs++; /* ours stays */
		port_send(&sink, &packet, 1);
		worker_complete(worker_self);
	}
}

static void segment_sg(unsigned count)
{
	sink.caps = PORT_CAP_SG;
	send_packet(count);
}

static void segment_linear(unsigned count)
{
	sink.caps = 0;
	send_packet(count);
}

static void copy_packet(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		pkt_copy_out(packets[i % PACKETS], 0, frame_copy, FRAME_LEN);
		USED(frame_copy);
	}
}

/* A row is of nothing unless everything leaves as it should. */
static void check_sink(side_fn side)
{
	sent_packets = sent_bytes = sent_unfinished = sent_linear = 0;
	side(1);
	if (sent_packets != SEGMENTS || sent_bytes != FRAME_LEN + (SEGMENTS - 1) * PAYLOAD_OFF ||
	    sent_unfinished || sent_linear != (sink.caps & PORT_CAP_SG ? 0 : SEGMENTS))
		errx(EXIT_FAILURE, "one packet left as %lu, %lu bytes: %lu unfinished, %lu linear",
		     sent_packets, sent_bytes, sent_unfinished, sent_linear);
}

/* ---- segments that arrive, a burst at a time ---- */

static struct {
	struct lro *merging, *passing;
	uint8_t headers[PKT_BURST][PKT_HEADER_MAX];
	uint64_t polls;
} wire;

static uint32_t wire_takes(struct port *in, struct pkt *pkt)
{
	return PORT_CAP_SG | PORT_CAP_CSUM | PORT_CAP_TSO4;
}

static void wire_deliver(struct port *in, struct pkt **pkts, unsigned n)
{
	sink_send(in, pkts, n);
}

/* Their headers are those of the first packet's segments. */
static void wire_build(void)
{
	static const struct lro_ops ops = { wire_takes, wire_deliver };
	static const struct lro_config merge = { .mode = LRO_POLL }, pass = { .mode = LRO_OFF };
	struct pkt *segments[PKT_BURST];
	struct tso tso;

	wire.merging = lro_new(&sink, &ops);
	wire.passing = lro_new(&sink, &ops);
	if (!wire.merging || !wire.passing || !tso_begin(&tso, packets[0], true) ||
	    tso_next(&tso, &worker_self->pool, segments, PKT_BURST) != PKT_BURST)
		errx(EXIT_FAILURE, "segments");
	lro_configure(wire.merging, &merge);
	lro_configure(wire.passing, &pass);
	for (unsigned i = 0; i < PKT_BURST; i++) {
		memcpy(wire.headers[i], segments[i]->header, PAYLOAD_OFF);
		pkt_put(segments[i]);
	}
	worker_complete(worker_self);
}

/* count segments, in whole bursts, as an AF_XDP queue hands them over. */
static void wire_poll(struct lro *lro, unsigned count)
{
	struct pkt *burst[PKT_BURST];

	for (unsigned done = 0; done < count; done += PKT_BURST) {
		uint8_t *payload = frames[wire.polls++ % PACKETS] + PAYLOAD_OFF;

		pkt_pool_get(&worker_self->pool, burst, PKT_BURST);
		for (unsigned i = 0; i < PKT_BURST; i++) {
			struct pkt *pkt = burst[i];

			memcpy(pkt->header, wire.headers[i], PAYLOAD_OFF);
			pkt->header_len = PAYLOAD_OFF;
			pkt->len = PAYLOAD_OFF + GSO_SIZE;
			pkt->frags[0] = (struct iovec){ payload + i * GSO_SIZE, GSO_SIZE };
			pkt->frag_count = 1;
			pkt->in_port = sink.id;
			pkt->offload.flags = PKT_CSUM_VALID;
			headers_parse(pkt);
		}
		lro_poll(lro, burst, PKT_BURST, wire.polls);
		worker_complete(worker_self);
	}
}

static void merge_segments(unsigned count)
{
	wire_poll(wire.merging, count);
}

static void pass_segments(unsigned count)
{
	wire_poll(wire.passing, count);
}

static void check_merging(void)
{
	sent_packets = sent_bytes = 0;
	merge_segments(PKT_BURST);
	if (sent_packets != 1 || sent_bytes != PAYLOAD_OFF + PKT_BURST * GSO_SIZE)
		errx(EXIT_FAILURE, "a burst of segments left as %lu packets, %lu bytes",
		     sent_packets, sent_bytes);
}

/* ---- measuring ---- */

static uint64_t cpu_nsec(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

static double nsec_each(side_fn side, unsigned count)
{
	uint64_t start = cpu_nsec();

	side(count);
	return (double)(cpu_nsec() - start) / count;
}

/* How often something is to be done in a turn; doing it that often also warms it up. */
static unsigned turn_count(side_fn side)
{
	unsigned count = PKT_BURST;

	while (nsec_each(side, count) * count < TURN_NSEC)
		count *= 2;
	return count;
}

static void print_list(const char *name, const double *values, unsigned n)
{
	printf(", \"%s\": [", name);
	for (unsigned i = 0; i < n; i++)
		printf("%s%.3f", i ? ", " : "", values[i]);
	printf("]");
}

static void compare(const char *row, side_fn ours, side_fn theirs, unsigned samples)
{
	double *of_ours = calloc(samples, sizeof(double)),
	       *of_theirs = calloc(samples, sizeof(double));
	unsigned our_count = turn_count(ours), their_count = turn_count(theirs);

	if (!of_ours || !of_theirs)
		err(EXIT_FAILURE, "samples");
	for (unsigned i = 0; i < samples; i++) {
		if (i % 2)
			of_theirs[i] = nsec_each(theirs, their_count);
		of_ours[i] = nsec_each(ours, our_count);
		if (i % 2 == 0)
			of_theirs[i] = nsec_each(theirs, their_count);
	}
	printf("{\"row\": \"%s\"", row);
	print_list("ours", of_ours, samples);
	print_list("theirs", of_theirs, samples);
	puts("}");
	free(of_ours);
	free(of_theirs);
}

static const struct {
	const char *name;
	side_fn ours, theirs;
	bool sends;
} rows[] = {
	{ "csum", checksum, copy, false },
	{ "copy-csum", copy_with_checksum, copy_then_checksum, false },
	{ "segment", segment_sg, copy_packet, true },
	{ "segment-linear", segment_linear, copy_packet, true },
	{ "lro", merge_segments, pass_segments, false },
};

static void run_row(const char *name, unsigned samples)
{
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strcmp(name, rows[i].name) != 0)
			continue;
		if (rows[i].sends)
			check_sink(rows[i].ours);
		compare(name, rows[i].ours, rows[i].theirs, samples);
		return;
	}
	errx(2, "no row %s", name);
}

int main(int argc, char **argv)
{
	unsigned samples = argc > 2 ? atoi(argv[1]) : 0;

	if (samples == 0)
		errx(2, "usage: micro SAMPLES ROW...");
	for (unsigned i = 0; i < sizeof(from); i++)
		from[i] = i * 167 + (i >> 8);
	become_worker();
	if (pkt_pool_get(&worker_self->pool, packets, PACKETS) != PACKETS)
		errx(EXIT_FAILURE, "packet pool");
	for (unsigned i = 0; i < PACKETS; i++)
		build_packet(packets[i], frames[i]);
	wire_build();
	check_merging();
	for (int i = 2; i < argc; i++)
		run_row(argv[i], samples);
	return 0;
}
