/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums of packets (RFC 1071), piece by piece: a piece that begins at an odd offset has the
 * bytes of its sum swapped. The loops over bytes are in csum_kernels.c.
 */
#include "pkt/csum.h"

#include <arpa/inet.h>

#include "pkt/headers.h"

enum { IPV4_SADDR = 12, IPV6_SADDR = 8 };

/* Copies unless to is NULL, which it is constantly or never. */
static inline __attribute__((always_inline)) uint32_t sum_pieces(uint8_t *to, const struct pkt *pkt,
								 uint32_t off, uint32_t len,
								 uint32_t sum)
{
	const struct iovec *frag = pkt->frags;
	const uint8_t *from = pkt->header;
	size_t from_len = pkt->header_len;

	for (uint32_t done = 0; done < len;) {
		if (off < from_len) {
			size_t n = from_len - off < len - done ? from_len - off : len - done;
			uint32_t piece = to ? csum_copy(to + done, from + off, n, 0)
					    : csum_partial(from + off, n, 0);

			sum = csum_add_at(sum, piece, done);
			done += n;
			off = 0;
		} else {
			off -= from_len;
		}
		if (done < len) {
			from = frag->iov_base;
			from_len = frag->iov_len;
			frag++;
		}
	}
	return sum;
}

uint32_t csum_pkt(const struct pkt *pkt, uint32_t off, uint32_t len, uint32_t sum)
{
	return sum_pieces(NULL, pkt, off, len, sum);
}

uint32_t csum_copy_pkt(void *to, const struct pkt *pkt, uint32_t off, uint32_t len, uint32_t sum)
{
	return sum_pieces(to, pkt, off, len, sum);
}

uint32_t csum_pseudo(const struct pkt *pkt, uint32_t l4_len)
{
	const uint8_t *ip = pkt->header + pkt->l3_off;
	uint32_t sum = csum_add(htonl(l4_len), htonl(pkt->l4_proto));

	if (headers_is_ipv6(pkt))
		return csum_partial(ip + IPV6_SADDR, 32, sum);
	return csum_partial(ip + IPV4_SADDR, 8, sum);
}
