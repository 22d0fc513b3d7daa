/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Segmentation by reference (M8): a TCP or UDP packet of up to 64 KiB becomes packets of gso_size
 * bytes of payload each.
 *
 * Theory of operation. A segment is a private copy of the headers, edited, and fragments that it
 * borrows from its parent, so that no payload is touched:
 *
 *      parent    header[] H p p | frag p p p p p p p p | frag p p p p p p p
 *      segment   header[] H'p p | ---- p p p p
 *      segment   header[] H'    |              ---- p p p | ---- p
 *
 * Payload bytes that lie in the parent's header copy are copied. Each segment holds a reference
 * of its parent; when the last is done, so is the parent, and its source gets the fragments back.
 *
 * What changes from segment to segment is what Linux changes (tcp_gso_segment, __udp_gso_segment,
 * inet_gso_segment): the IPv4 ID counts up, the IP and UDP lengths and the IPv4 header checksum
 * are the segment's, the TCP sequence number advances, FIN and PSH stay with the last segment,
 * CWR with the first. The L4 checksum is left to be finished (PKT_CSUM_PARTIAL): by the port, or
 * by the offload driver, over a pseudo-header sum computed here from the addresses, since what
 * the guest left in the field need not be trusted.
 */
#include "offload/tso.h"

#include <netinet/in.h>

#include "pkt/csum.h"
#include "pkt/headers.h"
#include "port/worker.h"

enum {
	IPV4_TOTAL_LEN = 2,
	IPV4_ID = 4,
	IPV4_CSUM = 10,
	IPV4_HLEN_MAX = 60,
	IPV6_PAYLOAD_LEN = 4,
	IPV6_HLEN = 40,
	TCP_SEQ = 4,
	TCP_FLAGS = 13,
	TCP_FIN = 0x01,
	TCP_PSH = 0x08,
	TCP_CWR = 0x80,
	UDP_LEN = 4,
};

static void tso_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		pkt_put(pkts[i]->parent);
}

static struct pkt_source tso_source = { .done = tso_done };

static uint32_t ipv4_sum(const uint8_t *ip, unsigned len)
{
	uint8_t copy[IPV4_HLEN_MAX];

	memcpy(copy, ip, len);
	store_be16(copy + IPV4_TOTAL_LEN, 0);
	store_be16(copy + IPV4_ID, 0);
	store_be16(copy + IPV4_CSUM, 0);
	return csum_partial(copy, len, 0);
}

bool tso_begin(struct tso *tso, struct pkt *parent)
{
	if (parent->offload.gso_type == PKT_GSO_NONE || parent->offload.gso_size == 0 ||
	    !parent->payload_off || !pkt_pull(parent, parent->payload_off))
		return false;

	const uint8_t *ip = parent->header + parent->l3_off;

	*tso = (struct tso){
		.parent = parent,
		.offset = parent->payload_off,
		.pseudo_sum = csum_pseudo(parent, 0),
	};
	if (parent->l4_proto == IPPROTO_TCP)
		tso->tcp_seq = load_be32(parent->header + parent->l4_off + TCP_SEQ);
	if (!headers_is_ipv6(parent)) {
		tso->ip_id = load_be16(ip + IPV4_ID);
		tso->ip_sum = ipv4_sum(ip, parent->l4_off - parent->l3_off);
	}
	return true;
}

/*
 * Give the segment the next len bytes of payload. False, and nothing has happened: no fragment
 * block left.
 */
static bool borrow_payload(struct tso *tso, struct pkt_pool *pool, struct pkt *segment,
			   uint32_t len)
{
	const struct pkt *parent = tso->parent;
	uint32_t frag = tso->frag, frag_off = tso->frag_off, rest = len;

	if (tso->offset < parent->header_len) {
		uint32_t part = parent->header_len - tso->offset < rest
					? parent->header_len - tso->offset
					: rest;

		memcpy(segment->header + segment->header_len, parent->header + tso->offset, part);
		segment->header_len += part;
		rest -= part;
	}
	while (rest) {
		const struct iovec *from = &parent->frags[frag];
		uint32_t part = from->iov_len - frag_off < rest ? from->iov_len - frag_off : rest;

		if (unlikely(segment->frag_count == PKT_INLINE_FRAGS) &&
		    !pkt_take_frag_block(pool, segment))
			return false;
		segment->frags[segment->frag_count++] = (struct iovec){
			.iov_base = (uint8_t *)from->iov_base + frag_off,
			.iov_len = part,
		};
		rest -= part;
		frag_off += part;
		if (frag_off == from->iov_len) {
			frag++;
			frag_off = 0;
		}
	}
	tso->offset += len;
	tso->frag = frag;
	tso->frag_off = frag_off;
	segment->len += len;
	return true;
}

/* Edit the headers of a segment whose payload is the parent's from payload_at on. */
static void edit_headers(struct tso *tso, struct pkt *segment, uint32_t payload_at)
{
	const struct pkt *parent = tso->parent;
	uint8_t *ip = segment->header + segment->l3_off;
	uint8_t *l4 = segment->header + segment->l4_off;
	uint32_t l4_len = segment->len - segment->l4_off;

	if (headers_is_ipv6(segment)) {
		store_be16(ip + IPV6_PAYLOAD_LEN, segment->len - segment->l3_off - IPV6_HLEN);
	} else {
		uint16_t total_len = segment->len - segment->l3_off;
		uint16_t sum =
			csum_fold(csum_add(tso->ip_sum, htons(total_len) + htons(tso->ip_id)));

		store_be16(ip + IPV4_TOTAL_LEN, total_len);
		store_be16(ip + IPV4_ID, tso->ip_id++);
		memcpy(ip + IPV4_CSUM, &sum, sizeof(sum));
	}
	if (segment->l4_proto == IPPROTO_TCP) {
		store_be32(l4 + TCP_SEQ, tso->tcp_seq + payload_at - parent->payload_off);
		if (payload_at != parent->payload_off)
			l4[TCP_FLAGS] &= ~TCP_CWR;
		if (!tso_at_end(tso))
			l4[TCP_FLAGS] &= ~(TCP_FIN | TCP_PSH);
	} else {
		store_be16(l4 + UDP_LEN, l4_len);
	}

	uint16_t pseudo = csum_fold_partial(csum_add(tso->pseudo_sum, htonl(l4_len)));

	memcpy(l4 + parent->offload.csum_offset, &pseudo, sizeof(pseudo));
}

/* Make a fresh packet the next segment. False, and nothing has happened: no fragment block left. */
static bool make_segment(struct tso *tso, struct pkt_pool *pool, struct pkt *segment)
{
	struct pkt *parent = tso->parent;
	uint32_t at = tso->offset, payload = parent->len - at;

	memcpy(segment->header, parent->header, parent->payload_off);
	segment->len = segment->header_len = parent->payload_off;
	if (payload > parent->offload.gso_size)
		payload = parent->offload.gso_size;
	if (!borrow_payload(tso, pool, segment, payload))
		return false;

	segment->source = &tso_source;
	segment->parent = parent;
	parent->refs++;
	segment->in_port = parent->in_port;
	segment->hash = parent->hash;
	segment->l3_off = parent->l3_off;
	segment->l4_off = parent->l4_off;
	segment->payload_off = parent->payload_off;
	segment->l4_proto = parent->l4_proto;
	segment->offload = (struct pkt_offload){
		.flags = PKT_CSUM_PARTIAL,
		.csum_start = parent->offload.csum_start,
		.csum_offset = parent->offload.csum_offset,
	};
	edit_headers(tso, segment, at);
	return true;
}

unsigned tso_next(struct tso *tso, struct pkt_pool *pool, struct pkt **segments, unsigned n)
{
	uint16_t gso_size = tso->parent->offload.gso_size;
	unsigned left = (tso->parent->len - tso->offset + gso_size - 1) / gso_size;
	unsigned got = pkt_pool_get(pool, segments, left < n ? left : n);

	for (unsigned i = 0; i < got; i++) {
		if (unlikely(!make_segment(tso, pool, segments[i]))) {
			pkt_pool_put(pool, segments + i, got - i);
			return i;
		}
	}
	return got;
}
