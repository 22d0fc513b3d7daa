/* SPDX-License-Identifier: BSD-3-Clause */
/* Internet checksum (RFC 1071), partial sums in 32 bits, native order. */
#ifndef VIFD_CSUM_H
#define VIFD_CSUM_H

#include "pkt/pkt.h"

/* Add len bytes at data to sum. data starts at an even offset of what is summed; see csum_add_odd(). */
uint32_t csum_partial(const void *data, size_t len, uint32_t sum);
/* Fold to the 16-bit one's complement, as stored in the header (native order). */
uint16_t csum_fold(uint32_t sum);
/* Sum of frame bytes [off, off + len) over header and fragments, odd fragment lengths included, added to sum. */
uint32_t csum_pkt(const struct pkt *pkt, uint32_t off, uint32_t len, uint32_t sum);
/* TCP or UDP pseudo header of a parsed packet, for l4_len bytes of header and payload; not folded. */
uint32_t csum_pseudo(const struct pkt *pkt, uint32_t l4_len);

#endif
