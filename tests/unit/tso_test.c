/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Segmentation, by reference and into linear memory, against a segmenter of flat memory, byte for
 * byte, over headers and geometries of every kind; and what happens to references when the pool runs dry.
 */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "frames.h"
#include "offload/tso.h"
#include "pkt/headers.h"

enum { POOL_PACKETS = 600, TCP_FIN_PSH = 0x09, TCP_CWR = 0x80 };

static unsigned parents_done;

static void parent_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	parents_done += n;
}

static struct pkt_source parent_source = { .done = parent_done };

/* A GSO packet and what it was made of. */
struct job {
	struct frame frame;
	struct pkt *pkt;
	uint32_t gso_size;
};

/* The parent comes from the pool; its flat bytes are of allocations of their own. */
static void job_build(struct job *job, const struct frame_desc *desc, uint32_t gso_size,
		      uint32_t header_len, uint32_t frag_max, uint64_t *seed)
{
	struct pkt *pkt = NULL;

	frame_build(&job->frame, desc, seed);
	pkt_pool_get(&worker_self->pool, &pkt, 1);
	if (!pkt)
		abort();
	pkt_fill(pkt, job->frame.bytes, job->frame.len, header_len, frag_max, seed);
	pkt->source = &parent_source;
	pkt->in_port = 7;
	pkt->hash = 0x1234;
	pkt->offload = (struct pkt_offload){
		.flags = PKT_CSUM_PARTIAL | (*seed & 1024 ? PKT_GSO_FIXED_ID : 0),
		.gso_type = desc->proto == IPPROTO_UDP ? PKT_GSO_UDP
			    : desc->ip == 4            ? PKT_GSO_TCPV4
						       : PKT_GSO_TCPV6,
		.gso_size = gso_size,
		.csum_start = job->frame.l4,
		.csum_offset = desc->proto == IPPROTO_UDP ? 6 : 16,
	};
	job->pkt = pkt;
	job->gso_size = gso_size;
	assert_true(headers_check_offload(pkt));
	parents_done = 0;
}

/* After the last reference: the parent's fragments were not its pool's, so they go first. */
static void job_free(struct job *job)
{
	struct pkt *pkt = job->pkt;
	struct iovec *frags = pkt->frags;
	void **bases = (void **)(uintptr_t)pkt->cookie;

	pkt->frags = pkt->inline_frags;
	pkt_put(pkt);
	worker_complete(worker_self);
	for (unsigned i = 0; bases[i]; i++)
		free(bases[i]);
	free(bases);
	free(frags);
	assert_int_equal(parents_done, 1);
	assert_int_equal(worker_self->pool.free_count, worker_self->pool.capacity);
	assert_int_equal(worker_self->pool.block_count, worker_self->pool.block_capacity);
}

/*
 * Segment number index of a job as it must leave, into out. Returns its length, 0: there is no
 * such segment.
 */
static uint32_t slow_segment(const struct job *job, unsigned index, uint8_t *out)
{
	const struct frame *whole = &job->frame;
	uint32_t from = whole->payload + index * job->gso_size;
	uint32_t payload = whole->len - from < job->gso_size ? whole->len - from : job->gso_size;
	struct frame frame = *whole;
	uint8_t *l3 = out + frame.l3, *l4 = out + frame.l4;

	if (from >= whole->len)
		return 0;
	bool last = from + payload == whole->len;
	bool fixed_id = job->pkt->offload.flags & PKT_GSO_FIXED_ID;

	memcpy(out, whole->bytes, whole->payload);
	memcpy(out + whole->payload, whole->bytes + from, payload);
	frame.bytes = out;
	frame.len = whole->payload + payload;
	if (frame.ip == 4) {
		be16(l3 + 2, frame.len - frame.l3);
		be16(l3 + 4, rd16(l3 + 4) + (fixed_id ? 0 : index));
		be16(l3 + 10, 0);
		be16(l3 + 10, ~slow_sum(l3, frame.l4 - frame.l3, 0));
	} else {
		be16(l3 + 4, frame.len - frame.l3 - 40);
	}
	if (frame.proto == IPPROTO_TCP) {
		uint32_t seq = rd32(l4 + 4) + index * job->gso_size;

		be16(l4 + 4, seq >> 16);
		be16(l4 + 6, seq);
		l4[13] &= ~((index ? TCP_CWR : 0) | (last ? 0 : TCP_FIN_PSH));
		be16(l4 + 16, slow_pseudo(&frame, frame.len - frame.l4));
	} else {
		be16(l4 + 4, frame.len - frame.l4);
		be16(l4 + 6, slow_pseudo(&frame, frame.len - frame.l4));
	}
	return frame.len;
}

enum how { BY_REFERENCE, LINEAR = 1, FINISHED = 2 };

/* The segment's bytes against those it must have; its checksum is judged apart. */
static void assert_bytes(const struct job *job, unsigned index, const struct pkt *segment,
			 bool finished)
{
	uint8_t *want = calloc(1, FRAME_MAX), *got = malloc(FRAME_MAX);
	uint32_t len = slow_segment(job, index, want), l4_len = len - job->frame.l4;

	assert_int_not_equal(len, 0);
	assert_int_equal(segment->len, len);
	pkt_copy_out(segment, 0, got, len);
	/* A pseudo-header sum has two zeros. */
	uint8_t *sum = got + job->pkt->offload.csum_start + job->pkt->offload.csum_offset;
	const uint8_t *want_sum = want + (sum - got);

	if (finished) {
		struct frame flat = job->frame;

		flat.bytes = got;
		assert_int_equal(slow_sum(got + flat.l4, l4_len, slow_pseudo(&flat, l4_len)),
				 0xffff);
		assert_int_not_equal(rd16(sum), 0);
	} else {
		assert_int_equal(rd16(sum) % 0xffff, rd16(want_sum) % 0xffff);
	}
	memcpy(sum, want_sum, 2);
	if (job->frame.ip == 4) {
		uint8_t *l3 = got + job->frame.l3, *want_l3 = want + job->frame.l3;

		assert_int_equal(slow_sum(l3, job->frame.l4 - job->frame.l3, 0), 0xffff);
		assert_int_equal(rd16(l3 + 10) % 0xffff, rd16(want_l3 + 10) % 0xffff);
		memcpy(l3 + 10, want_l3 + 10, 2);
	}
	assert_memory_equal(got, want, len);
	free(want);
	free(got);
}

static void assert_is_segment(const struct job *job, unsigned index, const struct pkt *segment,
			      enum how how)
{
	bool finished = how & FINISHED;
	uint32_t frag_bytes = 0;

	for (unsigned i = 0; i < segment->frag_count; i++) {
		assert_int_not_equal(segment->frags[i].iov_len, 0);
		frag_bytes += segment->frags[i].iov_len;
	}
	assert_int_equal(segment->header_len + frag_bytes, segment->len);
	if (how & LINEAR) {
		assert_int_equal(segment->header_len, 0);
		assert_int_equal(segment->frag_count, 1);
		assert_memory_equal(segment->header, segment->frags[0].iov_base,
				    segment->payload_off);
	}
	assert_bytes(job, index, segment, finished);
	assert_int_equal(segment->l3_off, job->frame.l3);
	assert_int_equal(segment->l4_off, job->frame.l4);
	assert_int_equal(segment->payload_off, job->frame.payload);
	assert_int_equal(segment->l4_proto, job->frame.proto);
	assert_int_equal(segment->refs, 1);
	assert_int_equal(segment->in_port, 7);
	assert_int_equal(segment->hash, 0x1234);
	assert_int_equal(segment->offload.flags, finished ? 0 : PKT_CSUM_PARTIAL);
	assert_int_equal(segment->offload.gso_type, PKT_GSO_NONE);
	assert_int_equal(segment->offload.gso_size, 0);
	assert_int_equal(segment->offload.csum_start, finished ? 0 : job->pkt->offload.csum_start);
	assert_int_equal(segment->offload.csum_offset,
			 finished ? 0 : job->pkt->offload.csum_offset);
}

static unsigned next(struct tso *tso, struct pkt **segments, unsigned n, enum how how)
{
	if (!(how & LINEAR))
		return tso_next(tso, &worker_self->pool, segments, n);
	return tso_next_linear(tso, &worker_self->pool, segments, n);
}

/*
 * Walk the whole job in bursts of up to n, checking and letting go of every segment. Returns how
 * many there were.
 */
static unsigned walk_how(struct job *job, unsigned n, enum how how)
{
	struct pkt *segments[PKT_BURST];
	unsigned index = 0, got;
	struct tso tso;

	assert_true(tso_begin(&tso, job->pkt, how & FINISHED));
	while ((got = next(&tso, segments, n, how)) > 0) {
		assert_int_equal(job->pkt->refs, 1 + (how & LINEAR ? 0 : got));
		for (unsigned i = 0; i < got; i++) {
			assert_is_segment(job, index++, segments[i], how);
			pkt_put(segments[i]);
		}
		worker_complete(worker_self);
		assert_int_equal(job->pkt->refs, 1);
	}
	assert_true(tso_at_end(&tso));
	assert_int_equal(parents_done, 0);
	assert_int_equal(index,
			 (job->frame.len - job->frame.payload + job->gso_size - 1) / job->gso_size);
	return index;
}

/* In each of the four ways. */
static unsigned walk(struct job *job, unsigned n)
{
	unsigned segments = walk_how(job, n, BY_REFERENCE);

	assert_int_equal(walk_how(job, n, LINEAR), segments);
	assert_int_equal(walk_how(job, n, FINISHED), segments);
	assert_int_equal(walk_how(job, n, LINEAR | FINISHED), segments);
	return segments;
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

static void every_kind(void **state)
{
	static const struct {
		struct frame_desc frame;
		uint32_t gso_size;
		unsigned segments;
	} cases[] = {
		{ { 0, 4, 0, IPPROTO_TCP, 12, 0x18, 65535 - 52 }, 1448, 46 },
		{ { 0, 4, 0, IPPROTO_TCP, 0, 0x99, 3000 }, 1000, 3 }, /* CWR, ACK, PSH, FIN */
		{ { 1, 4, 8, IPPROTO_TCP, 40, 0xff, 3001 }, 1000, 4 },
		{ { 0, 6, 0, IPPROTO_TCP, 12, 0x19, 60000 }, 1428, 43 },
		{ { 2, 6, 24, IPPROTO_TCP, 20, 0x90, 10000 }, 1440, 7 },
		{ { 0, 4, 0, IPPROTO_UDP, 0, 0, 60000 }, 1472, 41 },
		{ { 0, 6, 8, IPPROTO_UDP, 0, 0, 2 }, 1, 2 },
		{ { 0, 4, 0, IPPROTO_TCP, 12, 0x18, 256 * 100 }, 100, 256 }, /* all of the limit */
	};
	struct job job = { .frame.bytes = malloc(FRAME_MAX) };
	uint64_t seed = 1;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		static const uint32_t header_lens[] = { 14, 64, 192 };

		for (int h = 0; h < 3; h++) {
			job_build(&job, &cases[i].frame, cases[i].gso_size, header_lens[h], 4096,
				  &seed);
			assert_int_equal(walk(&job, PKT_BURST), cases[i].segments);
			job_free(&job);
		}
	}
	free(job.frame.bytes);
}

/*
 * Fragments of one byte, headers split anywhere, segments smaller than what lies in the header
 * copy.
 */
static void every_geometry(void **state)
{
	struct job job = { .frame.bytes = malloc(FRAME_MAX) };
	uint64_t seed = 2;

	for (int round = 0; round < 3000; round++) {
		static const uint32_t frag_maxes[] = { 1, 3, 50, 1500, 4096, 65536 };
		struct frame_desc desc = {
			.vlans = rnd(&seed) % 3,
			.ip = rnd(&seed) % 2 ? 4 : 6,
			.ip_options = rnd(&seed) % 4 * 8,
			.proto = rnd(&seed) % 3 ? IPPROTO_TCP : IPPROTO_UDP,
			.tcp_options = rnd(&seed) % 11 * 4,
			.tcp_flags = rnd(&seed),
			.payload = round % 4 ? rnd_in(&seed, 2, 1000) : rnd_in(&seed, 2, 60000),
		};
		uint32_t most = desc.proto == IPPROTO_TCP ? GSO_TCP_SEGMENTS_MAX
							  : GSO_UDP_SEGMENTS_MAX;
		uint32_t least = (desc.payload + most - 1) / most;
		uint32_t gso_size = rnd(&seed) % 2 ? least : rnd_in(&seed, least, desc.payload - 1);

		job_build(&job, &desc, gso_size, rnd_in(&seed, 14, 192), frag_maxes[rnd(&seed) % 6],
			  &seed);
		walk(&job, rnd_in(&seed, 1, PKT_BURST));
		job_free(&job);
	}
	free(job.frame.bytes);
}

/* IPv4 IDs and TCP sequence numbers wrap. */
static void counters_wrap(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_TCP, 0, 0x10, 5000 };
	struct job job = { .frame.bytes = malloc(FRAME_MAX) };
	uint64_t seed = 3;
	struct pkt *segments[PKT_BURST];
	struct tso tso;

	job_build(&job, &desc, 1000, 64, 4096, &seed);
	memset(job.pkt->header + job.frame.l3 + 4, 0xff, 2);
	memset(job.pkt->header + job.frame.l4 + 4, 0xff, 4);
	assert_true(tso_begin(&tso, job.pkt, false));
	assert_int_equal(tso_next(&tso, &worker_self->pool, segments, PKT_BURST), 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(rd16(segments[i]->header + job.frame.l3 + 4),
				 (0xffff + i) & 0xffff);
		assert_int_equal(rd32(segments[i]->header + job.frame.l4 + 4),
				 0xffffffff + i * 1000);
		pkt_put(segments[i]);
	}
	worker_complete(worker_self);
	job_free(&job);
	free(job.frame.bytes);
}

/* The parent outlives its owner as long as a segment is on its way, and is done once. */
static void segments_keep_the_parent(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_TCP, 0, 0x10, 5000 };
	struct job job = { .frame.bytes = malloc(FRAME_MAX) };
	uint64_t seed = 4;
	struct pkt *segments[PKT_BURST];
	struct tso tso;

	job_build(&job, &desc, 1000, 64, 4096, &seed);
	assert_true(tso_begin(&tso, job.pkt, false));
	assert_int_equal(tso_next(&tso, &worker_self->pool, segments, PKT_BURST), 5);
	job.pkt->refs++; /* job_free()'s */
	pkt_put(job.pkt);
	for (unsigned i = 0; i < 5; i++) {
		worker_complete(worker_self);
		assert_int_equal(job.pkt->refs, 1 + 5 - i);
		assert_is_segment(&job, 4 - i, segments[4 - i], BY_REFERENCE);
		pkt_put(segments[4 - i]);
	}
	worker_complete(worker_self);
	assert_int_equal(parents_done, 0);
	job_free(&job);
	free(job.frame.bytes);
}

/*
 * Out of packets, or out of fragment blocks: nothing is lost, and the walk goes on later where it
 * stopped.
 */
static void pool_runs_dry(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_TCP, 0, 0x10, 10000 };
	struct job job = { .frame.bytes = malloc(FRAME_MAX) };
	struct worker *worker = *state;
	uint64_t seed = 5;

	for (int dry = 0; dry < 2; dry++) {
		unsigned index = 0, hidden_packets = 0, hidden_blocks = 0, got;
		struct pkt *segments[PKT_BURST], *hidden[POOL_PACKETS];
		struct tso tso;

		/* About 40 fragments a segment in the second round: more than inline. */
		job_build(&job, &desc, 1000, 64, dry ? 40 : 4096, &seed);
		if (dry)
			hidden_blocks = worker->pool.block_count - 3;
		else
			hidden_packets = worker->pool.free_count - 3;
		worker->pool.block_count -= hidden_blocks;
		assert_int_equal(pkt_pool_get(&worker->pool, hidden, hidden_packets),
				 hidden_packets);

		assert_true(tso_begin(&tso, job.pkt, false));
		while (!tso_at_end(&tso)) {
			got = tso_next(&tso, &worker->pool, segments, PKT_BURST);
			assert_in_range(got, 1, 3);
			if (!tso_at_end(&tso)) {
				assert_int_equal(got, 3);
				assert_int_equal(tso_next(&tso, &worker->pool, segments + got, 1),
						 0);
			}
			for (unsigned i = 0; i < got; i++) {
				assert_is_segment(&job, index++, segments[i], BY_REFERENCE);
				pkt_put(segments[i]);
			}
			worker_complete(worker);
		}
		assert_int_equal(index, 10);
		pkt_pool_put(&worker->pool, hidden, hidden_packets);
		worker->pool.block_count += hidden_blocks;
		job_free(&job);
	}
	free(job.frame.bytes);
}

static void not_gso(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_TCP, 0, 0x10, 500 };
	struct job job = { .frame.bytes = malloc(FRAME_MAX) };
	uint64_t seed = 6;
	struct tso tso;

	job_build(&job, &desc, 1000, 64, 4096, &seed); /* one segment: became no GSO */
	assert_false(tso_begin(&tso, job.pkt, false));
	job_free(&job);
	free(job.frame.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind),    cmocka_unit_test(every_geometry),
		cmocka_unit_test(counters_wrap), cmocka_unit_test(segments_keep_the_parent),
		cmocka_unit_test(pool_runs_dry), cmocka_unit_test(not_gso),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
