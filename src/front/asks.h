/* SPDX-License-Identifier: BSD-3-Clause */
/* What a frame asks of who gets it: as a buffer says it, as vnet.h does. */
#ifndef VIFD_FRONT_ASKS_H
#define VIFD_FRONT_ASKS_H

#include "front/vifront.h"
#include "pkt/vnet.h"

/* Write it into the first buffer of a frame, whose flags are 0. */
static inline void buf_put_offload(struct vifront_buf *buf, const struct pkt_offload *offload)
{
	buf->flags = (offload->flags & (PKT_CSUM_PARTIAL | PKT_CSUM_VALID | PKT_GSO_ECN)) << 1;
	buf->gso_type = offload->gso_type;
	buf->gso_size = offload->gso_size;
	buf->csum_start = offload->csum_start;
	buf->csum_offset = offload->csum_offset;
}

/* Bytes of the frame's headers, a hint for who gets it; 0: it may see for itself. */
static inline uint16_t buf_header_len(const struct vifront_buf *buf)
{
	const uint8_t *l4 = (const uint8_t *)buf->data + buf->csum_start;
	bool tcp = buf->csum_offset == 16;

	if (!(buf->flags & VIFRONT_CSUM_PARTIAL) || buf->csum_start + 20u > buf->len)
		return 0;
	return buf->csum_start + (tcp ? l4[12] >> 4 << 2 : 8);
}

/* Write the vnet header of the frame that begins with this buffer. */
static inline void buf_get_vnet(const struct vifront_buf *buf, uint8_t vnet[VNET_LEN])
{
	const struct pkt_offload offload = {
		.flags = buf->flags >> 1 & (PKT_CSUM_PARTIAL | PKT_CSUM_VALID | PKT_GSO_ECN),
		.gso_type = buf->gso_type,
		.gso_size = buf->gso_size,
		.csum_start = buf->csum_start,
		.csum_offset = buf->csum_offset,
	};

	vnet_from_offload(&offload, buf_header_len(buf), vnet);
}

static_assert((int)VIFRONT_CSUM_PARTIAL == PKT_CSUM_PARTIAL << 1 &&
		      (int)VIFRONT_CSUM_VALID == PKT_CSUM_VALID << 1 &&
		      (int)VIFRONT_GSO_ECN == PKT_GSO_ECN << 1,
	      "the same, behind VIFRONT_MORE");
static_assert((int)VIFRONT_GSO_TCPV4 == PKT_GSO_TCPV4 && (int)VIFRONT_GSO_TCPV6 == PKT_GSO_TCPV6 &&
		      (int)VIFRONT_GSO_UDP == PKT_GSO_UDP,
	      "virtio's numbers");

#endif
