/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Internet checksum (RFC 1071), alone or while copying.
 *
 * A sum is 32 bits wide, in the byte order of memory (RFC 1071, 2B: the checksum does not mind)
 * and not yet folded, so that sums can be carried on. The functions that take a sum add to it.
 */
#ifndef VIFD_CSUM_H
#define VIFD_CSUM_H

#include <stddef.h>

#include "pkt/pkt.h"

/* Add the sum of a piece of data, which takes up an even number of bytes before the piece's own. */
static inline uint32_t csum_add(uint32_t sum, uint32_t piece)
{
	sum += piece;
	return sum + (sum < piece);
}

/* The sum of a piece that begins at an odd offset instead: its bytes change places. */
static inline uint32_t csum_swap(uint32_t sum)
{
	return sum >> 8 | sum << 24;
}

/*
 * Fold to 16 bits, not complemented: what a field holds before the checksum is finished over it.
 * To be stored as is.
 */
static inline uint16_t csum_fold_partial(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

/*
 * Fold to the checksum: the 16-bit one's complement. To be stored as is; 0 when a sum includes a
 * right checksum.
 */
static inline uint16_t csum_fold(uint32_t sum)
{
	return ~csum_fold_partial(sum);
}

/* Add the sum of a piece that begins off bytes behind where the sum begins. */
static inline uint32_t csum_add_at(uint32_t sum, uint32_t piece, uint32_t off)
{
	return csum_add(sum, off & 1 ? csum_swap(piece) : piece);
}

/* One way to sum, and to copy and sum. All give sums that fold to the same. */
struct csum_kernel {
	const char *name;
	bool (*usable)(void); /* does this CPU have it? */
	uint32_t (*partial)(const void *data, size_t len, uint32_t sum);
	uint32_t (*copy)(void *to, const void *from, size_t len, uint32_t sum);
};

enum { CSUM_KERNELS = 3 };

extern const struct csum_kernel csum_kernels[CSUM_KERNELS]; /* the best first */
/* The one in use: the first usable. Tests and benchmarks may assign another, on one thread. */
extern struct csum_kernel csum_kernel;

/* Add len bytes at data, of any alignment. len is even, or these are the last bytes. */
static inline uint32_t csum_partial(const void *data, size_t len, uint32_t sum)
{
	return csum_kernel.partial(data, len, sum);
}

/*
 * The same while copying them to another place, which must not overlap: each byte is read once, so
 * that the sum is that of the copy even if somebody writes to the original meanwhile.
 */
static inline uint32_t csum_copy(void *to, const void *from, size_t len, uint32_t sum)
{
	return csum_kernel.copy(to, from, len, sum);
}

/*
 * Add frame bytes [off, off + len), which lie within the packet, over header and fragments of odd
 * lengths too.
 */
uint32_t csum_pkt(const struct pkt *pkt, uint32_t off, uint32_t len, uint32_t sum);

/* The same while copying them to flat memory. */
uint32_t csum_copy_pkt(void *to, const struct pkt *pkt, uint32_t off, uint32_t len, uint32_t sum);

/*
 * The checksum of a finished sum as a packet carries it, to be stored as is. Zero would say "no
 * checksum" in UDP (RFC 768); its other form means the same in all other protocols.
 */
static inline uint16_t csum_finish(uint32_t sum)
{
	uint16_t csum = csum_fold(sum);

	return csum ? csum : 0xffff;
}

/*
 * The pseudo header of a parsed packet with l4_off and l4_proto set, for l4_len bytes of L4
 * header and payload.
 */
uint32_t csum_pseudo(const struct pkt *pkt, uint32_t l4_len);

#endif
