/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Internet checksum (RFC 1071).
 *
 * Theory of operation. One's complement addition is associative and does not mind the byte order,
 * so that words of any width can be added and carries folded in at the end. Here 64-bit words are
 * taken apart into their two 32-bit halves and added up in 64-bit lanes, which cannot overflow (a
 * packet is shorter than 2^32 words) and need no carry: the compiler makes vector code of that,
 * for AVX2 where the CPU has it, at 30 bytes a cycle. A packet's pieces are summed one by one; the
 * sum of a piece that begins at an odd offset has its bytes swapped.
 */
#include "pkt/csum.h"

#include <arpa/inet.h>
#include <string.h>

#include "pkt/headers.h"

enum { IPV4_SADDR = 12, IPV6_SADDR = 8 };

#define FOR_AVX2_TOO __attribute__((target_clones("avx2", "default")))

/* Of any alignment; reading through it is not a copy to the stack, which gcc makes of memcpy(). */
typedef uint64_t lanes __attribute__((vector_size(32), aligned(1), may_alias));

static inline uint64_t low_and_high(uint64_t v)
{
	return (v & 0xffffffff) + (v >> 32);
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Sum of count blocks of 64 bytes, as a 64-bit sum of 32-bit words. */
FOR_AVX2_TOO static uint64_t sum_blocks(const uint8_t *p, size_t count)
{
	const lanes mask = { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff };
	lanes low0 = { 0 }, high0 = { 0 }, low1 = { 0 }, high1 = { 0 };

	for (const lanes *v = (const lanes *)p; count; count--, v += 2) {
		low0 += v[0] & mask;
		high0 += v[0] >> 32;
		low1 += v[1] & mask;
		high1 += v[1] >> 32;
	}

	lanes sum = low0 + low1 + high0 + high1;

	return sum[0] + sum[1] + sum[2] + sum[3];
}

uint32_t csum_partial(const void *data, size_t len, uint32_t sum)
{
	const uint8_t *p = data;
	uint64_t wide = sum;

	if (len >= 64) {
		wide += sum_blocks(p, len / 64);
		p += len & ~(size_t)63;
		len &= 63;
	}
	for (; len >= 8; len -= 8, p += 8)
		wide += low_and_high(load64(p));
	if (len & 4) {
		uint32_t word;

		memcpy(&word, p, 4);
		wide += word;
		p += 4;
	}
	if (len & 3) {
		uint32_t word = 0;

		memcpy(&word, p, len & 3);
		wide += word;
	}
	wide = low_and_high(wide);
	return low_and_high(wide);
}

uint32_t csum_pkt(const struct pkt *pkt, uint32_t off, uint32_t len, uint32_t sum)
{
	const struct iovec *frag = pkt->frags;
	bool odd = false;

	if (off < pkt->header_len) {
		uint32_t n = pkt->header_len - off < len ? pkt->header_len - off : len;

		sum = csum_partial(pkt->header + off, n, sum);
		odd = n & 1;
		len -= n;
		off = 0;
	} else {
		off -= pkt->header_len;
	}
	for (; len; frag++) {
		if (off >= frag->iov_len) {
			off -= frag->iov_len;
			continue;
		}

		uint32_t n = frag->iov_len - off < len ? frag->iov_len - off : len;
		uint32_t piece = csum_partial((const uint8_t *)frag->iov_base + off, n, 0);

		sum = csum_add(sum, odd ? csum_swap(piece) : piece);
		odd ^= n & 1;
		len -= n;
		off = 0;
	}
	return sum;
}

uint32_t csum_pseudo(const struct pkt *pkt, uint32_t l4_len)
{
	const uint8_t *ip = pkt->header + pkt->l3_off;
	uint32_t sum = csum_add(htonl(l4_len), htonl(pkt->l4_proto));

	if (headers_is_ipv6(pkt))
		return csum_partial(ip + IPV6_SADDR, 32, sum);
	return csum_partial(ip + IPV4_SADDR, 8, sum);
}
