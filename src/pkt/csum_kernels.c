/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The loops that sum and that copy and sum, for plain C, AVX2 and AVX-512.
 *
 * Theory of operation. One's complement addition is associative and does not mind the byte order,
 * so that words of any width can be added and carries folded in at the end. Here 32-bit words are
 * added up in 64-bit lanes, which cannot overflow: a packet is shorter than 2^32 words. The vector
 * kernels load two words v = high << 32 | low a lane and keep two sums,
 *
 *      all  += v              modulo 2^64, equals low's sum + (high's sum << 32)
 *      high += v >> 32        exact
 *
 * from which the sum of low follows, too: three instructions a vector instead of the four that
 * taking v apart would need. A kernel that copies stores v on its way: where a copy is needed
 * anyway, the checksum costs hardly more than the copy (M30).
 *
 * The best kernel that the CPU has is chosen when the program starts.
 */
#include <immintrin.h>
#include <string.h>

#include "pkt/csum.h"

#define AVX2   __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw")))
#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t low_and_high(uint64_t v)
{
	return (v & 0xffffffff) + (v >> 32);
}

INLINE uint32_t fold(uint64_t wide)
{
	wide = low_and_high(wide);
	return low_and_high(wide);
}

/* The sum of all words, from the sums that the vector kernels keep. */
INLINE uint64_t words_sum(uint64_t all, uint64_t high)
{
	return all - (high << 32) + high;
}

/* Sum len bytes, and copy them unless to is NULL, which it is constantly or never. */
INLINE uint64_t scalar(uint8_t *restrict to, const uint8_t *restrict from, size_t len)
{
	uint64_t all = 0, high = 0, wide, v8;
	uint32_t v4;
	uint16_t v2;
	size_t at = 0;

	for (; at + 8 <= len; at += 8) {
		memcpy(&v8, from + at, 8);
		all += v8;
		high += v8 >> 32;
		if (to)
			memcpy(to + at, &v8, 8);
	}
	wide = words_sum(all, high);
	if (len & 4) {
		memcpy(&v4, from + at, 4);
		wide += v4;
		if (to)
			memcpy(to + at, &v4, 4);
		at += 4;
	}
	if (len & 2) {
		memcpy(&v2, from + at, 2);
		wide += v2;
		if (to)
			memcpy(to + at, &v2, 2);
		at += 2;
	}
	if (len & 1) {
		wide += from[at];
		if (to)
			to[at] = from[at];
	}
	return wide;
}

static uint32_t sum_plain(const void *data, size_t len, uint32_t sum)
{
	return fold(sum + scalar(NULL, data, len));
}

static uint32_t copy_plain(void *to, const void *from, size_t len, uint32_t sum)
{
	return fold(sum + scalar(to, from, len));
}

AVX2 INLINE uint64_t lanes_sum(__m256i v)
{
	__m128i half = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

	return (uint64_t)_mm_cvtsi128_si64(half) + (uint64_t)_mm_extract_epi64(half, 1);
}

AVX2 INLINE void step_avx2(uint8_t *to, const uint8_t *from, __m256i *all, __m256i *high)
{
	__m256i v = _mm256_loadu_si256((const __m256i_u *)from);

	if (to)
		_mm256_storeu_si256((__m256i_u *)to, v);
	*all = _mm256_add_epi64(*all, v);
	*high = _mm256_add_epi64(*high, _mm256_srli_epi64(v, 32));
}

AVX2 INLINE uint32_t avx2(uint8_t *to, const uint8_t *from, size_t len, uint32_t sum)
{
	__m256i all[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };
	__m256i high[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };
	uint64_t wide = sum;
	size_t at = 0;

	if (len >= 32) {
		for (; at + 64 <= len; at += 64) {
			step_avx2(to ? to + at : NULL, from + at, &all[0], &high[0]);
			step_avx2(to ? to + at + 32 : NULL, from + at + 32, &all[1], &high[1]);
		}
		if (len & 32) {
			step_avx2(to ? to + at : NULL, from + at, &all[0], &high[0]);
			at += 32;
		}
		wide += words_sum(lanes_sum(_mm256_add_epi64(all[0], all[1])),
				  lanes_sum(_mm256_add_epi64(high[0], high[1])));
	}
	return fold(wide + scalar(to ? to + at : NULL, from + at, len & 31));
}

AVX2 static uint32_t sum_avx2(const void *data, size_t len, uint32_t sum)
{
	return avx2(NULL, data, len, sum);
}

AVX2 static uint32_t copy_avx2(void *to, const void *from, size_t len, uint32_t sum)
{
	return avx2(to, from, len, sum);
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2");
}

AVX512 INLINE uint64_t lanes_sum512(__m512i v)
{
	__m256i half = _mm256_add_epi64(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));

	return lanes_sum(half);
}

AVX512 INLINE void add_avx512(__m512i v, __m512i *all, __m512i *high)
{
	*all = _mm512_add_epi64(*all, v);
	*high = _mm512_add_epi64(*high, _mm512_srli_epi64(v, 32));
}

AVX512 INLINE void part_avx512(uint8_t *to, const uint8_t *from, unsigned len, __m512i *all,
			       __m512i *high)
{
	__mmask64 mask = ~UINT64_C(0) >> (64 - len);
	__m512i v = _mm512_maskz_loadu_epi8(mask, from);

	if (to)
		_mm512_mask_storeu_epi8(to, mask, v);
	add_avx512(v, all, high);
}

/*
 * A vector that straddles cache lines costs two accesses, so that a first part, of even length, is
 * taken off up to where a line begins (of what is written, if anything is). Parts are vectors with
 * a mask.
 */
AVX512 INLINE uint32_t avx512(uint8_t *to, const uint8_t *from, size_t len, uint32_t sum)
{
	__m512i all[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };
	__m512i high[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };
	unsigned first = -(uintptr_t)(to ? to : from) & 62;
	size_t at = 0;

	if (len >= 256 && first) {
		part_avx512(to, from, first, &all[0], &high[0]);
		at = first;
	}
	for (; at + 128 <= len; at += 128) {
		__m512i v = _mm512_loadu_si512(from + at), w = _mm512_loadu_si512(from + at + 64);

		if (to) {
			_mm512_storeu_si512(to + at, v);
			_mm512_storeu_si512(to + at + 64, w);
		}
		add_avx512(v, &all[0], &high[0]);
		add_avx512(w, &all[1], &high[1]);
	}
	if (at + 64 <= len) {
		__m512i v = _mm512_loadu_si512(from + at);

		if (to)
			_mm512_storeu_si512(to + at, v);
		add_avx512(v, &all[0], &high[0]);
		at += 64;
	}
	if (at < len)
		part_avx512(to ? to + at : NULL, from + at, len - at, &all[1], &high[1]);
	return fold(sum + words_sum(lanes_sum512(_mm512_add_epi64(all[0], all[1])),
				    lanes_sum512(_mm512_add_epi64(high[0], high[1]))));
}

AVX512 static uint32_t sum_avx512(const void *data, size_t len, uint32_t sum)
{
	return avx512(NULL, data, len, sum);
}

AVX512 static uint32_t copy_avx512(void *to, const void *from, size_t len, uint32_t sum)
{
	return avx512(to, from, len, sum);
}

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

static bool has_c(void)
{
	return true;
}

const struct csum_kernel csum_kernels[CSUM_KERNELS] = {
	{ "avx512", has_avx512, sum_avx512, copy_avx512 },
	{ "avx2", has_avx2, sum_avx2, copy_avx2 },
	{ "c", has_c, sum_plain, copy_plain },
};

struct csum_kernel csum_kernel = { "c", has_c, sum_plain, copy_plain };

__attribute__((constructor)) static void choose_kernel(void)
{
	unsigned i = 0;

	__builtin_cpu_init();
	while (!csum_kernels[i].usable())
		i++;
	csum_kernel = csum_kernels[i];
}
