/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The offload driver: what a packet needs, finished checksums against slow ones, and what leaves
 * through ports of every capability, linear where it has to be, with counters, references and a
 * pool and a linear memory smaller than the job.
 */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "frames.h"
#include "offload/offload.h"
#include "pkt/headers.h"

enum { POOL_PACKETS = 64, SENT_MAX = 300, ALL_CAPS = 0x3f };

/* A port that remembers what it was sent. */
static struct {
	struct port port;
	struct port_stats stats[1];
	unsigned count, bursts, greatest_burst;
	bool keep; /* rather than let go of them at once */
	struct pkt *kept[SENT_MAX];
	uint8_t *bytes[SENT_MAX];
	uint32_t len[SENT_MAX];
	struct pkt_offload offload[SENT_MAX];
} sink;

/* As port_ops.send promises it. */
static void assert_linear(const struct pkt *pkt)
{
	if (pkt->frag_count == 0) {
		assert_int_equal(pkt->header_len, pkt->len);
		return;
	}
	const uint8_t *frame = pkt->frags[0].iov_base;
	unsigned parsed = pkt->payload_off ? pkt->payload_off : PKT_LEN_MIN;

	assert_int_equal(pkt->header_len, 0);
	assert_int_equal(pkt->frag_count, 1);
	assert_int_equal(pkt->frags[0].iov_len, pkt->len);
	assert_int_not_equal(pkt->l3_off, 0);
	assert_memory_equal(pkt->header, frame, parsed);
	if (pkt->payload_off)
		assert_int_equal((uintptr_t)(frame + pkt->payload_off) % 64, 0);
}

static void sink_send(struct port *port, struct pkt **pkts, unsigned n)
{
	sink.bursts++;
	if (n > sink.greatest_burst)
		sink.greatest_burst = n;
	for (unsigned i = 0; i < n; i++) {
		unsigned at = sink.count++;

		assert_true(at < SENT_MAX);
		assert_int_equal(offload_needs(pkts[i]) & ~port->caps, 0);
		if (!(port->caps & PORT_CAP_SG))
			assert_linear(pkts[i]);
		sink.len[at] = pkts[i]->len;
		sink.offload[at] = pkts[i]->offload;
		sink.bytes[at] = malloc(pkts[i]->len);
		pkt_copy_out(pkts[i], 0, sink.bytes[at], pkts[i]->len);
		sink.kept[at] = pkts[i];
		if (!sink.keep)
			pkt_put(pkts[i]);
	}
}

static const struct port_ops sink_ops = { .kind = "sink", .send = sink_send };

static void sink_reset(uint32_t caps)
{
	for (unsigned i = 0; i < sink.count; i++)
		free(sink.bytes[i]);
	memset(&sink, 0, sizeof(sink));
	sink.port.ops = &sink_ops;
	sink.port.stats = sink.stats;
	sink.port.caps = caps;
	sink.port.mtu = UINT16_MAX;
}

/*
 * A packet that asks for its checksum, and for GSO if gso_size. Free with pkt_empty() after its
 * last reference.
 */
static void build(struct frame *frame, const struct frame_desc *desc, uint32_t gso_size,
		  struct pkt *pkt, uint64_t *seed)
{
	bool udp = desc->proto == IPPROTO_UDP;

	frame_build(frame, desc, seed);
	pkt_fill(pkt, frame->bytes, frame->len, 64, 4096, seed);
	pkt->offload = (struct pkt_offload){
		.flags = PKT_CSUM_PARTIAL,
		.csum_start = frame->l4,
		.csum_offset = udp ? 6 : 16,
	};
	if (gso_size) {
		pkt->offload.gso_type = udp             ? PKT_GSO_UDP
					: desc->ip == 4 ? PKT_GSO_TCPV4
							: PKT_GSO_TCPV6;
		pkt->offload.gso_size = gso_size;
	}
	assert_true(headers_check_offload(pkt));
}

/* Does the L4 checksum of a frame like this one verify? */
static bool verifies(const struct frame *like, uint8_t *bytes, uint32_t len)
{
	struct frame frame = *like;

	frame.bytes = bytes;
	return slow_sum(bytes + frame.l4, len - frame.l4, slow_pseudo(&frame, len - frame.l4)) ==
	       0xffff;
}

static void needs(void **state)
{
	static const struct {
		struct pkt_offload offload;
		uint32_t needs;
	} cases[] = {
		{ { 0 }, 0 },
		{ { PKT_CSUM_VALID }, 0 },
		{ { PKT_CSUM_PARTIAL }, PORT_CAP_CSUM },
		{ { PKT_CSUM_PARTIAL, PKT_GSO_TCPV4 }, PORT_CAP_CSUM | PORT_CAP_TSO4 },
		{ { PKT_CSUM_PARTIAL, PKT_GSO_TCPV6 }, PORT_CAP_CSUM | PORT_CAP_TSO6 },
		{ { PKT_CSUM_PARTIAL, PKT_GSO_UDP }, PORT_CAP_CSUM | PORT_CAP_USO },
		{ { PKT_CSUM_PARTIAL | PKT_GSO_ECN, PKT_GSO_TCPV4 },
		  PORT_CAP_CSUM | PORT_CAP_TSO4 | PORT_CAP_TSO_ECN },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pkt pkt = { .offload = cases[i].offload };

		assert_int_equal(offload_needs(&pkt), cases[i].needs);
		pkt.header_len = 64;
		assert_int_equal(offload_needs(&pkt), cases[i].needs);
		pkt.frag_count = 1;
		assert_int_equal(offload_needs(&pkt), cases[i].needs | PORT_CAP_SG);
		pkt.header_len = 0; /* linear */
		assert_int_equal(offload_needs(&pkt), cases[i].needs);
		pkt.frag_count = 2;
		assert_int_equal(offload_needs(&pkt), cases[i].needs | PORT_CAP_SG);
	}
}

static void finishes_checksums(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 1;

	for (int round = 0; round < 3000; round++) {
		struct frame_desc desc = {
			.vlans = rnd(&seed) % 3,
			.ip = rnd(&seed) % 2 ? 4 : 6,
			.ip_options = rnd(&seed) % 4 * 8,
			.proto = rnd(&seed) % 2 ? IPPROTO_TCP : IPPROTO_UDP,
			.payload = rnd_in(&seed, 0, round % 10 ? 200 : 9000),
		};
		uint8_t *out = malloc(FRAME_MAX);
		struct pkt pkt;

		frame_build(&frame, &desc, &seed);
		pkt_fill(&pkt, frame.bytes, frame.len, rnd_in(&seed, 14, 192),
			 rnd_in(&seed, 20, 2000), &seed);
		pkt.offload = (struct pkt_offload){ PKT_CSUM_PARTIAL, 0, 0, frame.l4,
						    desc.proto == IPPROTO_TCP ? 16 : 6 };
		assert_true(offload_finish_checksum(&pkt));
		assert_true(pkt_needs_nothing(&pkt));
		pkt_copy_out(&pkt, 0, out, pkt.len);
		assert_true(verifies(&frame, out, pkt.len));

		/* Nothing but the checksum changed. */
		memcpy(out + frame.l4 + (desc.proto == IPPROTO_TCP ? 16 : 6),
		       frame.bytes + frame.l4 + (desc.proto == IPPROTO_TCP ? 16 : 6), 2);
		assert_memory_equal(out, frame.bytes, frame.len);
		pkt_empty(&pkt);
		free(out);
	}
	free(frame.bytes);
}

/* A checksum that comes out as zero is sent as 0xffff. */
static void zero_checksum(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_UDP, 0, 0, 10 };
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 2;
	struct pkt pkt;

	frame_build(&frame, &desc, &seed);
	be16(frame.bytes + frame.payload, 0);
	be16(frame.bytes + frame.payload,
	     ~slow_sum(frame.bytes + frame.l4, frame.len - frame.l4, 0));
	pkt_fill(&pkt, frame.bytes, frame.len, 64, 100, &seed);
	pkt.offload = (struct pkt_offload){ PKT_CSUM_PARTIAL, 0, 0, frame.l4, 6 };
	assert_true(offload_finish_checksum(&pkt));
	assert_int_equal(rd16(pkt.header + frame.l4 + 6), 0xffff);
	pkt_empty(&pkt);
	free(frame.bytes);
}

/* A packet whose checksum field is out of reach is refused, with and without SG. */
static void unreachable_checksum(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_UDP, 0, 0, 1000 };
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 3;
	struct pkt *pkt = aligned_alloc(64, sizeof(*pkt));

	for (int sg = 0; sg < 2; sg++) {
		sink_reset(sg ? PORT_CAP_SG : 0);
		build(&frame, &desc, 0, pkt, &seed);
		pkt->offload.csum_start = PKT_HEADER_MAX - 1;
		pkt->offload.csum_offset = 0;
		pkt->refs = 2; /* ours, so that it does not go into the pool that it is not of */
		offload_send(&sink.port, &pkt, 1);
		worker_complete(worker_self);
		assert_int_equal(sink.count, 0);
		assert_int_equal(sink.stats[0].drop_offload_failed, 1);
		assert_int_equal(sink.stats[0].checksummed_packets, 0);
		assert_int_equal(sink.stats[0].linearised_packets, 0);
		assert_int_equal(pkt->refs, 1);
		assert_int_equal(worker_self->pool.free_count, POOL_PACKETS);
		pkt_empty(pkt);
	}
	free(pkt);
	free(frame.bytes);
}

static const struct frame_desc tcp4_big = { 0, 4, 0, IPPROTO_TCP, 12, 0x18, 60000 };
static const struct frame_desc tcp6_big = { 1, 6, 0, IPPROTO_TCP, 12, 0x18, 60000 };
static const struct frame_desc udp4_big = { 0, 4, 0, IPPROTO_UDP, 0, 0, 60000 };
static const struct frame_desc udp6_small = { 0, 6, 0, IPPROTO_UDP, 0, 0, 1000 };

static const struct {
	const char *name;
	const struct frame_desc *frame;
	uint32_t gso_size, caps, flags;
	unsigned sent; /* packets that leave */
	bool finished; /* with their checksums finished */
} send_cases[] = {
	{ "all caps", &tcp4_big, 1448, ALL_CAPS, 0, 1, false },
	{ "no TSO4", &tcp4_big, 1448, ALL_CAPS & ~PORT_CAP_TSO4, 0, 42, false },
	{ "no TSO6", &tcp6_big, 1428, ALL_CAPS & ~PORT_CAP_TSO6, 0, 43, false },
	{ "no TSO4, for TSO6", &tcp6_big, 1428, ALL_CAPS & ~PORT_CAP_TSO4, 0, 1, false },
	{ "no USO", &udp4_big, 1472, ALL_CAPS & ~PORT_CAP_USO, 0, 41, false },
	{ "no ECN", &tcp4_big, 1448, ALL_CAPS & ~PORT_CAP_TSO_ECN, PKT_GSO_ECN, 42, false },
	{ "no ECN, none asked", &tcp4_big, 1448, ALL_CAPS & ~PORT_CAP_TSO_ECN, 0, 1, false },
	{ "SG and checksums", &tcp4_big, 1448, PORT_CAP_SG | PORT_CAP_CSUM, 0, 42, false },
	{ "SG only", &tcp4_big, 1448, PORT_CAP_SG, 0, 42, true },
	{ "checksums only", &tcp4_big, 1448, PORT_CAP_CSUM, 0, 42, false },
	{ "nothing at all, TCP", &tcp6_big, 1428, 0, 0, 43, true },
	{ "nothing at all, UDP", &udp4_big, 1472, 0, 0, 41, true },
	{ "TSO but no checksums", &tcp4_big, 1448, ALL_CAPS & ~PORT_CAP_CSUM, 0, 42, true },
	{ "all but SG", &tcp4_big, 1448, ALL_CAPS & ~PORT_CAP_SG, 0, 1, false },
	{ "checksum, to one that can", &udp6_small, 0, PORT_CAP_SG | PORT_CAP_CSUM, 0, 1, false },
	{ "checksum, to one that cannot", &udp6_small, 0, PORT_CAP_SG, 0, 1, true },
	{ "fragments, to one that takes none", &udp6_small, 0, PORT_CAP_CSUM, 0, 1, false },
	{ "both, to one that can do nothing", &udp6_small, 0, 0, 0, 1, true },
	{ "more segments than the pool has packets", &tcp4_big, 250, PORT_CAP_SG, 0, 240, true },
	{ "the same, linear", &tcp4_big, 250, 0, 0, 240, true },
};

/* As the bridge does it: port_send() decides. */
static void sends_what_the_port_takes(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	struct pkt *pkt = aligned_alloc(64, sizeof(*pkt));
	uint64_t seed = 4;

	for (unsigned i = 0; i < sizeof(send_cases) / sizeof(send_cases[0]); i++) {
		uint32_t payload = 0, gso_size = send_cases[i].gso_size;
		bool segmented = send_cases[i].sent > 1, finished = send_cases[i].finished;

		sink_reset(send_cases[i].caps);
		build(&frame, send_cases[i].frame, gso_size, pkt, &seed);
		pkt->offload.flags |= send_cases[i].flags;
		pkt->refs = 2;
		port_send(&sink.port, &pkt, 1);
		worker_complete(worker_self);

		if (sink.count != send_cases[i].sent)
			fail_msg("%s: %u packets left", send_cases[i].name, sink.count);
		assert_int_equal(pkt->refs, 1);
		assert_int_equal(sink.stats[0].segmented_packets, segmented);
		assert_int_equal(sink.stats[0].segments, segmented ? sink.count : 0);
		assert_int_equal(sink.stats[0].checksummed_packets, finished ? sink.count : 0);
		assert_int_equal(sink.stats[0].linearised_packets,
				 sink.port.caps & PORT_CAP_SG ? 0 : sink.count);
		assert_int_equal(sink.stats[0].passed_packets,
				 sink.port.caps & PORT_CAP_SG && !segmented && !finished);
		assert_int_equal(sink.stats[0].drop_offload_failed, 0);
		assert_true(sink.greatest_burst <= PKT_BURST);
		for (unsigned j = 0; j < sink.count; j++) {
			uint32_t part = sink.len[j] - frame.payload;

			if (verifies(&frame, sink.bytes[j], sink.len[j]) != finished)
				fail_msg("%s: checksum of packet %u", send_cases[i].name, j);
			assert_int_equal(sink.offload[j].flags & PKT_CSUM_PARTIAL,
					 finished ? 0 : PKT_CSUM_PARTIAL);
			assert_memory_equal(sink.bytes[j] + frame.payload,
					    frame.bytes + frame.payload + payload, part);
			payload += part;
			if (segmented)
				assert_true(part <= gso_size &&
					    sink.offload[j].gso_type == PKT_GSO_NONE);
		}
		assert_int_equal(payload, frame.len - frame.payload);
		assert_int_equal(worker_self->pool.free_count, POOL_PACKETS);
		pkt_empty(pkt);
	}
	sink_reset(0);
	free(pkt);
	free(frame.bytes);
}

/*
 * A port that keeps its packets: when the pool is empty, or the linear memory full, the rest is
 * refused, counted, and all comes back in the end.
 */
static void keeps_its_packets(uint32_t caps, uint32_t gso_size, unsigned fit)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	struct pkt *pkt = aligned_alloc(64, sizeof(*pkt));
	bool linear = !(caps & PORT_CAP_SG);
	uint64_t seed = 5;

	sink_reset(caps);
	sink.keep = true;
	build(&frame, &tcp4_big, gso_size, pkt, &seed);
	pkt->refs = 2;
	for (unsigned i = 0; i < 3 && sink.stats[0].drop_offload_failed == 0; i++) {
		pkt->refs += i > 0;
		port_send(&sink.port, &pkt, 1);
		worker_complete(worker_self);
	}
	assert_int_equal(sink.count, fit);
	assert_int_equal(sink.stats[0].segments, fit);
	assert_int_equal(sink.stats[0].drop_offload_failed, 1);
	assert_int_equal(pkt->refs, 1 + (linear ? 0 : fit));
	for (unsigned i = 0; i < sink.count; i++) {
		/* Nobody else's bytes have come into it. */
		uint8_t *now = malloc(sink.len[i]);

		pkt_copy_out(sink.kept[i], 0, now, sink.len[i]);
		assert_memory_equal(now, sink.bytes[i], sink.len[i]);
		free(now);
		pkt_put(sink.kept[i]);
	}
	worker_complete(worker_self);
	assert_int_equal(pkt->refs, 1);
	assert_int_equal(worker_self->pool.free_count, POOL_PACKETS);
	pkt_empty(pkt);
	sink_reset(0);
	free(pkt);
	free(frame.bytes);
}

static void pool_too_small(void **state)
{
	keeps_its_packets(PORT_CAP_SG | PORT_CAP_CSUM, 250, POOL_PACKETS);
	keeps_its_packets(PORT_CAP_CSUM, 250, POOL_PACKETS);
	keeps_its_packets(0, 250, POOL_PACKETS);
}

/* 128 KiB hold 60 segments of 2066 bytes, which take up 34 cache lines each. */
static void linear_memory_too_small(void **state)
{
	keeps_its_packets(0, 2000, 60);
	keeps_its_packets(PORT_CAP_CSUM, 2000, 60);
}

/* Flooded to a port that can and one that cannot, in both orders: each gets what it can take. */
static void shared_packet(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	struct pkt *pkt = aligned_alloc(64, sizeof(*pkt));
	uint64_t seed = 6;

	for (int order = 0; order < 2; order++) {
		sink_reset(PORT_CAP_SG);
		build(&frame, &udp6_small, 0, pkt, &seed);
		pkt->refs = 3;
		for (int i = 0; i < 2; i++) {
			sink.port.caps = PORT_CAP_SG | (i == order ? 0 : PORT_CAP_CSUM);
			port_send(&sink.port, &pkt, 1);
			assert_int_equal(sink.count, i + 1);
			assert_int_equal(verifies(&frame, sink.bytes[i], sink.len[i]),
					 !(sink.offload[i].flags & PKT_CSUM_PARTIAL));
		}
		assert_int_equal(sink.offload[order].flags, 0);
		assert_int_equal(pkt->refs, 1);
		pkt_empty(pkt);
	}
	sink_reset(0);
	free(pkt);
	free(frame.bytes);
}

/* A linear copy leaves the packet that others share as it was: its fragments and its request. */
static void shared_with_a_linear_port(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	struct pkt *pkt = aligned_alloc(64, sizeof(*pkt));
	uint8_t *out = malloc(FRAME_MAX);
	uint64_t seed = 7;

	sink_reset(0);
	build(&frame, &udp6_small, 0, pkt, &seed);
	pkt->refs = 2;
	port_send(&sink.port, &pkt, 1);
	worker_complete(worker_self);
	assert_int_equal(sink.count, 1);
	assert_true(verifies(&frame, sink.bytes[0], sink.len[0]));
	assert_int_equal(pkt->refs, 1);
	assert_int_equal(pkt->offload.flags, PKT_CSUM_PARTIAL);
	pkt_copy_out(pkt, 0, out, pkt->len);
	assert_memory_equal(out, frame.bytes, frame.len);
	pkt_empty(pkt);
	sink_reset(0);
	free(out);
	free(pkt);
	free(frame.bytes);
}

/* Random frames and geometries, with and without requests, to a port that can do nothing. */
static void linearises(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	struct pkt *pkt = aligned_alloc(64, sizeof(*pkt));
	uint64_t seed = 8;

	for (int round = 0; round < 3000; round++) {
		struct frame_desc desc = {
			.vlans = rnd(&seed) % 3,
			.ip = rnd(&seed) % 2 ? 4 : 6,
			.ip_options = rnd(&seed) % 4 * 8,
			.proto = rnd(&seed) % 2 ? IPPROTO_TCP : IPPROTO_UDP,
			.payload = rnd_in(&seed, 0, round % 10 ? 2000 : 65000),
		};
		bool partial = rnd(&seed) % 2;
		uint8_t *csum;

		sink_reset(0);
		frame_build(&frame, &desc, &seed);
		pkt_fill(pkt, frame.bytes, frame.len, rnd_in(&seed, 14, 192),
			 rnd_in(&seed, 1, 3000), &seed);
		if (partial)
			pkt->offload = (struct pkt_offload){ PKT_CSUM_PARTIAL, 0, 0, frame.l4,
							     desc.proto == IPPROTO_TCP ? 16 : 6 };
		pkt->refs = 2;
		port_send(&sink.port, &pkt, 1);
		worker_complete(worker_self);
		assert_int_equal(sink.count, 1);
		assert_int_equal(sink.len[0], frame.len);
		assert_int_equal(sink.stats[0].checksummed_packets, partial);
		assert_int_equal(sink.stats[0].linearised_packets + sink.stats[0].passed_packets,
				 frame.len > PKT_HEADER_MAX || sink.stats[0].linearised_packets ||
					 !partial);
		if (partial) {
			assert_true(verifies(&frame, sink.bytes[0], sink.len[0]));
			csum = frame.bytes + frame.l4 + (desc.proto == IPPROTO_TCP ? 16 : 6);
			memcpy(csum, sink.bytes[0] + (csum - frame.bytes), 2);
		}
		assert_memory_equal(sink.bytes[0], frame.bytes, frame.len);
		assert_int_equal(worker_self->pool.free_count, POOL_PACKETS);
		pkt_empty(pkt);
	}
	sink_reset(0);
	free(pkt);
	free(frame.bytes);
}

/* A UDP checksum that comes out as zero, as above, where it is folded into the copy. */
static void zero_checksum_linear(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_UDP, 0, 0, 1000 };
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	struct pkt *pkt = aligned_alloc(64, sizeof(*pkt));
	uint64_t seed = 9;

	sink_reset(0);
	frame_build(&frame, &desc, &seed);
	be16(frame.bytes + frame.payload, 0);
	be16(frame.bytes + frame.payload,
	     ~slow_sum(frame.bytes + frame.l4, frame.len - frame.l4, 0));
	pkt_fill(pkt, frame.bytes, frame.len, 64, 100, &seed);
	pkt->offload = (struct pkt_offload){ PKT_CSUM_PARTIAL, 0, 0, frame.l4, 6 };
	pkt->refs = 2;
	port_send(&sink.port, &pkt, 1);
	worker_complete(worker_self);
	assert_int_equal(sink.count, 1);
	assert_int_equal(rd16(sink.bytes[0] + frame.l4 + 6), 0xffff);
	pkt_empty(pkt);
	sink_reset(0);
	free(pkt);
	free(frame.bytes);
}

static int setup(void **state)
{
	*state = fake_worker(POOL_PACKETS);
	return 0;
}

static int teardown(void **state)
{
	fake_worker_free(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(needs),
		cmocka_unit_test(finishes_checksums),
		cmocka_unit_test(zero_checksum),
		cmocka_unit_test(unreachable_checksum),
		cmocka_unit_test(sends_what_the_port_takes),
		cmocka_unit_test(pool_too_small),
		cmocka_unit_test(linear_memory_too_small),
		cmocka_unit_test(shared_packet),
		cmocka_unit_test(shared_with_a_linear_port),
		cmocka_unit_test(linearises),
		cmocka_unit_test(zero_checksum_linear),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
