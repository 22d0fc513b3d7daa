/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Linear memory: where packets are laid out whole for ports without PORT_CAP_SG. The theory of
 * operation is at the top of linear.c.
 */
#ifndef VIFD_LINEAR_H
#define VIFD_LINEAR_H

#include "pkt/pkt.h"

/*
 * Make a fresh packet linear (port_ops.send): lend it the calling worker's memory for a frame of
 * len bytes, of which the one at align_off begins a cache line. Sets source, len, header_len and
 * the only fragment. Returns the frame, to be filled in from its start to its end (16 bytes behind
 * the last that was written do not matter); NULL, and nothing has happened: no memory
 * left until packets that have been sent are completed.
 */
uint8_t *linear_lend(struct pkt *pkt, uint32_t len, uint32_t align_off);

/*
 * A linear copy of a packet, with its checksum finished in the same pass if finish is set; csum_start
 * and the field lie within pkt->header[] then. It says the same of itself as pkt, whose owner does
 * not change. NULL: out of packets or of linear memory.
 */
struct pkt *linear_copy(struct pkt_pool *pool, const struct pkt *pkt, bool finish);

#endif
