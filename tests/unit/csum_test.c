/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums against byte-by-byte sums: every kernel, all lengths and alignments, fragments of odd
 * lengths, pseudo headers.
 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

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

/* The next usable kernel from *i on, made the one in use. The last call restores the best. */
static bool next_kernel(unsigned *i)
{
	for (; *i < CSUM_KERNELS; ++*i) {
		if (csum_kernels[*i].usable()) {
			csum_kernel = csum_kernels[(*i)++];
			return true;
		}
	}
	for (*i = 0; !csum_kernels[*i].usable(); ++*i)
		;
	csum_kernel = csum_kernels[*i];
	return false;
}

/* The best is chosen, and plain C is always there. */
static void kernel_choice(void **state)
{
	unsigned best = 0;

	while (!csum_kernels[best].usable())
		best++;
	assert_string_equal(csum_kernel.name, csum_kernels[best].name);
	assert_string_equal(csum_kernels[CSUM_KERNELS - 1].name, "c");
	assert_true(csum_kernels[CSUM_KERNELS - 1].usable());
	for (unsigned i = best; i < CSUM_KERNELS; i++)
		print_message("kernel %s: %s\n", csum_kernels[i].name,
			      csum_kernels[i].usable() ? "usable" : "this CPU does not have it");
}

static void rfc1071_example(void **state)
{
	const uint8_t data[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };

	assert_int_equal(ntohs(csum_fold_partial(csum_partial(data, sizeof(data), 0))), 0xddf2);
	assert_int_equal(ntohs(csum_fold(csum_partial(data, sizeof(data), 0))), 0x220d);
}

enum { KERNEL_LEN = 4200, PAGE = 4096, AREA = 2 * PAGE, CANARY = 0xc5 };

/* AREA bytes and a page that must not be touched. */
static uint8_t *guarded_area(void)
{
	uint8_t *area = mmap(NULL, AREA + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);

	if (area == MAP_FAILED || mprotect(area + AREA, PAGE, PROT_NONE))
		abort();
	return area;
}

/* Sum and copy len bytes from from to to, and look at what lies around the copy. */
static void check_kernel(uint8_t *to, const uint8_t *from, unsigned len, uint32_t start)
{
	uint8_t word[4];

	memcpy(word, &start, 4);
	uint32_t slow = slow_sum(from, len, slow_sum(word, 4, 0));

	assert_same_sum(csum_partial(from, len, start), slow);
	memset(to - 64, CANARY, len + 128);
	assert_same_sum(csum_copy(to, from, len, start), slow);
	assert_memory_equal(to, from, len);
	for (int i = 1; i <= 64; i++)
		assert_true(to[-i] == CANARY && to[len + i - 1] == CANARY);
}

/*
 * All kernels, all lengths; the source ends where memory does, and both ends have any alignment.
 * Contents are all zeros, all ones, and random.
 */
static void kernels_agree(void **state)
{
	uint8_t *from = guarded_area(), *to = malloc(AREA);
	uint64_t seed = 1;

	for (unsigned k = 0; next_kernel(&k);) {
		for (int fill = 0; fill < 3; fill++) {
			memset(from, fill ? 0xff : 0, AREA);
			for (unsigned i = 0; i < AREA && fill == 2; i++)
				from[i] = rnd(&seed);
			for (unsigned len = 0; len <= KERNEL_LEN; len++) {
				unsigned align = rnd(&seed) % 64;

				check_kernel(to + 64 + align, from + AREA - len, len,
					     fill ? rnd(&seed) : 0);
			}
		}
	}
	free(to);
	munmap(from, AREA + PAGE);
}

/* Pairs of alignments within a cache line, at lengths around those where kernels turn. */
static void kernels_and_alignments(void **state)
{
	static const unsigned lens[] = { 1, 31, 63, 64, 65, 127, 129, 255, 256, 257, 400, 1500 };
	uint8_t *from = malloc(AREA), *to = malloc(AREA);
	uint64_t seed = 2;

	for (unsigned i = 0; i < AREA; i++)
		from[i] = rnd(&seed);
	for (unsigned k = 0; next_kernel(&k);) {
		for (unsigned align = 0; align < 64 * 64; align += 3) {
			for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
				check_kernel(to + 64 + align / 64, from + align % 64, lens[i], 0);
		}
	}
	free(to);
	free(from);
}

static void long_data(void **state)
{
	enum { LEN = 1 << 20 };
	uint8_t *data = malloc(LEN), *copy = malloc(LEN);
	uint64_t seed = 2;

	for (unsigned k = 0; next_kernel(&k);) {
		memset(data, 0xff, LEN);
		for (int round = 0; round < 20; round++) {
			unsigned from = rnd_in(&seed, 0, 100), len = rnd_in(&seed, 0, LEN - from);
			uint32_t sum = rnd(&seed);
			uint8_t word[4];

			memcpy(word, &sum, sizeof(word));
			uint32_t slow = slow_sum(data + from, len, slow_sum(word, 4, 0));

			assert_same_sum(csum_partial(data + from, len, sum), slow);
			assert_same_sum(csum_copy(copy, data + from, len, sum), slow);
			for (unsigned i = from; i < from + 5000 && i < LEN; i++)
				data[i] = rnd(&seed);
		}
	}
	free(copy);
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
	uint8_t bytes[3000], copy[3000];
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
		memset(copy, CANARY, sizeof(copy));
		assert_same_sum(csum_copy_pkt(copy, &pkt, off, n, 0), slow_sum(bytes + off, n, 0));
		assert_memory_equal(copy, bytes + off, n);
		assert_true(n == sizeof(copy) || copy[n] == CANARY);
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

/* A sum of all ones finishes as what UDP takes for a checksum. */
static void finish(void **state)
{
	assert_int_equal(csum_finish(0xffff), 0xffff);
	assert_int_equal(csum_finish(0xffffffff), 0xffff);
	assert_int_equal(csum_finish(0), 0xffff);
	assert_int_equal(csum_finish(0xfffe), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernel_choice), cmocka_unit_test(rfc1071_example),
		cmocka_unit_test(kernels_agree), cmocka_unit_test(kernels_and_alignments),
		cmocka_unit_test(long_data),     cmocka_unit_test(carries),
		cmocka_unit_test(fragments),     cmocka_unit_test(pseudo_headers),
		cmocka_unit_test(finish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
