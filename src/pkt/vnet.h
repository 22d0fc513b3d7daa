/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio_net_hdr (virtio 1.2 §5.1.6, little endian) to and from what a packet asks (struct
 * pkt_offload). Guests' rings and TAP devices speak it alike.
 *
 *      byte  0       1          2        4          6            8             10
 *            flags | gso_type | hdr_len | gso_size | csum_start | csum_offset | num_buffers
 *
 * hdr_len is a hint and never read; num_buffers belongs to who fills receive buffers.
 */
#ifndef VIFD_VNET_H
#define VIFD_VNET_H

#include <endian.h>
#include <string.h>

#include "pkt/pkt.h"

enum {
	VNET_LEN = 12,
	VNET_LEN_LEGACY = 10, /* without num_buffers */
	VNET_NEEDS_CSUM = 1,
	VNET_DATA_VALID = 2, /* flags */
	VNET_GSO_ECN = 0x80, /* in gso_type; the types are those of enum pkt_gso_type */
};

static inline uint16_t vnet_get16(const uint8_t *at)
{
	uint16_t le;

	memcpy(&le, at, 2);
	return le16toh(le);
}

static inline void vnet_put16(uint8_t *at, uint16_t value)
{
	value = htole16(value);
	memcpy(at, &value, 2);
}

/* The rest of vnet_to_offload(), for a header that asks something. */
static inline bool vnet_to_offload_asked(const uint8_t vnet[VNET_LEN], struct pkt_offload *offload)
{
	uint8_t type = vnet[1] & ~VNET_GSO_ECN;
	bool ecn = vnet[1] & VNET_GSO_ECN;

	*offload = (struct pkt_offload){ 0 };
	if (vnet[0] & VNET_NEEDS_CSUM) {
		offload->flags = PKT_CSUM_PARTIAL;
		offload->csum_start = vnet_get16(vnet + 6);
		offload->csum_offset = vnet_get16(vnet + 8);
	} else if (vnet[0] & VNET_DATA_VALID) {
		offload->flags = PKT_CSUM_VALID;
	}
	if (vnet[1] == PKT_GSO_NONE)
		return true;

	offload->gso_type = type;
	offload->gso_size = vnet_get16(vnet + 4);
	if (!(offload->flags & PKT_CSUM_PARTIAL) || offload->gso_size == 0)
		return false;
	if (ecn)
		offload->flags |= PKT_GSO_ECN;
	return type == PKT_GSO_TCPV4 || type == PKT_GSO_TCPV6 || (type == PKT_GSO_UDP && !ecn);
}

/*
 * Convert a header's request. Says nothing about the packet it came with: headers_check_offload()
 * judges that. False: the header contradicts itself (unknown GSO type, GSO without checksum or
 * size); the packet is to be dropped. Flags that we do not know are ignored, as §5.1.6.2.2 wants.
 * PKT_CSUM_VALID is the sender's claim: whoever does not trust the sender clears it.
 */
static inline bool vnet_to_offload(const uint8_t vnet[VNET_LEN], struct pkt_offload *offload)
{
	uint16_t asks;

	memcpy(&asks, vnet, 2);
	if (likely(asks == 0)) { /* neither flags nor GSO: the other fields mean nothing */
		*offload = (struct pkt_offload){ 0 };
		return true;
	}
	return vnet_to_offload_asked(vnet, offload);
}

/*
 * Write the header that asks for offload. hdr_len: bytes of all protocol headers, a hint that
 * receivers put into linear memory; only said for GSO packets and partial checksums. num_buffers is
 * left 0.
 */
static inline void vnet_from_offload(const struct pkt_offload *offload, uint16_t hdr_len,
				     uint8_t vnet[VNET_LEN])
{
	uint64_t asks;

	memcpy(&asks, offload, 8);
	memset(vnet, 0, VNET_LEN);
	if (likely(asks == 0))
		return;
	if (!(offload->flags & PKT_CSUM_PARTIAL)) {
		vnet[0] = offload->flags & PKT_CSUM_VALID ? VNET_DATA_VALID : 0;
		return;
	}
	vnet[0] = VNET_NEEDS_CSUM;
	vnet_put16(vnet + 2, hdr_len);
	vnet_put16(vnet + 6, offload->csum_start);
	vnet_put16(vnet + 8, offload->csum_offset);
	if (offload->gso_type != PKT_GSO_NONE) {
		vnet[1] = offload->gso_type | (offload->flags & PKT_GSO_ECN ? VNET_GSO_ECN : 0);
		vnet_put16(vnet + 4, offload->gso_size);
	}
}

static_assert(offsetof(struct pkt, vnet) + VNET_LEN == offsetof(struct pkt, header),
	      "read and written in one go");

#endif
