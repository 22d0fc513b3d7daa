/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums against byte-by-byte sums: all lengths and alignments, fragments of odd lengths,
 * pseudo headers.
 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "frames.h"
#include "pkt/csum.h"
#include "pkt/headers.h"

/*
 * Zero is written 0xffff when the sum is of anything but zeros; the slow sum keeps to the same
 * rule.
 */
static void assert_same_sum(uint32_t sum, uint32_t slow)
{
	assert_int_equal(ntohs(csum_fold_partial(sum)) % 0xffff, slow % 0xffff);
	assert_int_equal(csum_fold_partial(sum) == 0, slow == 0);
	assert_int_equal(csum_fold(sum), (uint16_t)~csum_fold_partial(sum));
}

static void rfc1071_example(void **state)
{
	const uint8_t data[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };

	assert_int_equal(ntohs(csum_fold_partial(csum_partial(data, sizeof(data), 0))), 0xddf2);
	assert_int_equal(ntohs(csum_fold(csum_partial(data, sizeof(data), 0))), 0x220d);
}

static void every_length_and_alignment(void **state)
{
	enum { LEN = 400 };
	static const int fills[] = { 0, 0xff, -1 };
	uint64_t seed = 1;

	for (int f = 0; f < 3; f++) {
		for (unsigned align = 0; align < 9; align++) {
			for (unsigned len = 0; len <= LEN; len++) {
				/* Ends where the allocation ends, for the sanitizer. */
				uint8_t *buf = malloc(align + len), *data = buf + align;

				for (unsigned i = 0; i < len; i++)
					data[i] = fills[f] < 0 ? rnd(&seed) : (uint32_t)fills[f];
				assert_same_sum(csum_partial(data, len, 0), slow_sum(data, len, 0));
				free(buf);
			}
		}
	}
}

static void long_data(void **state)
{
	enum { LEN = 1 << 20 };
	uint8_t *data = malloc(LEN);
	uint64_t seed = 2;

	memset(data, 0xff, LEN);
	for (int round = 0; round < 50; round++) {
		unsigned from = rnd_in(&seed, 0, 100), len = rnd_in(&seed, 0, LEN - from);
		uint32_t sum = rnd(&seed);
		uint8_t word[4];

		memcpy(word, &sum, sizeof(word));
		assert_same_sum(csum_partial(data + from, len, sum),
				slow_sum(data + from, len, slow_sum(word, 4, 0)));
		for (unsigned i = from; i < from + 5000 && i < LEN; i++)
			data[i] = rnd(&seed);
	}
	free(data);
}

/* A sum that carries at every step, to the edge of 32 bits. */
static void carries(void **state)
{
	static const uint32_t edges[] = { 0,          1,          0xffff,     0x10000,
					  0xfffeffff, 0xffff0000, 0xfffffffe, 0xffffffff };
	uint8_t a[4], b[4];

	for (unsigned i = 0; i < 8; i++) {
		for (unsigned j = 0; j < 8; j++) {
			memcpy(a, &edges[i], 4);
			memcpy(b, &edges[j], 4);
			uint32_t slow = slow_sum(b, 4, slow_sum(a, 4, 0));

			assert_same_sum(csum_add(edges[i], edges[j]), slow);
			assert_same_sum(csum_partial(a, 4, edges[j]), slow);
		}
	}
}

static void fragments(void **state)
{
	uint8_t bytes[3000];
	uint64_t seed = 3;
	struct pkt pkt;

	for (int round = 0; round < 2000; round++) {
		uint32_t len = rnd_in(&seed, 1, 3000);
		uint32_t off = rnd_in(&seed, 0, len - 1), n = rnd_in(&seed, 0, len - off);

		for (unsigned i = 0; i < len; i++)
			bytes[i] = rnd(&seed);
		pkt_fill(&pkt, bytes, len, rnd_in(&seed, 1, PKT_HEADER_MAX), round % 3 ? 700 : 11,
			 &seed);
		assert_same_sum(csum_pkt(&pkt, off, n, 0), slow_sum(bytes + off, n, 0));
		pkt_empty(&pkt);
	}
}

static void pseudo_headers(void **state)
{
	uint64_t seed = 4;
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	struct pkt pkt;

	for (int round = 0; round < 1000; round++) {
		struct frame_desc desc = {
			.vlans = rnd(&seed) % 3,
			.ip = rnd(&seed) % 2 ? 4 : 6,
			.ip_options = rnd(&seed) % 2 * 8,
			.proto = rnd(&seed) % 2 ? 6 : 17,
			.payload = rnd(&seed) % 100,
		};
		uint32_t l4_len = rnd(&seed) % 70000;

		frame_build(&frame, &desc, &seed);
		pkt_fill(&pkt, frame.bytes, frame.len, 64, 100, &seed);
		headers_parse(&pkt);
		assert_same_sum(csum_pseudo(&pkt, l4_len), slow_pseudo(&frame, l4_len));
		pkt_empty(&pkt);
	}
	free(frame.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc1071_example), cmocka_unit_test(every_length_and_alignment),
		cmocka_unit_test(long_data),       cmocka_unit_test(carries),
		cmocka_unit_test(fragments),       cmocka_unit_test(pseudo_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
