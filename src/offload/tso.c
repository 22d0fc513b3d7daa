/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Segmentation (M8): a TCP or UDP packet of up to 64 KiB becomes packets of gso_size
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
 * For ports that take no fragments a segment is written to one piece of memory instead (linear.c),
 * and its checksum, if it is to be finished, is computed by the loop that copies the payload.
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

#include "offload/linear.h"
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

/* Step over the next piece of payload that lies in one place, of at most len bytes. */
static struct iovec next_piece(struct tso *tso, uint32_t len)
{
	struct pkt *parent = tso->parent;
	struct iovec piece;

	if (tso->offset < parent->header_len) {
		piece.iov_base = parent->header + tso->offset;
		piece.iov_len = parent->header_len - tso->offset;
		if (piece.iov_len > len)
			piece.iov_len = len;
	} else {
		const struct iovec *frag = &parent->frags[tso->frag];

		piece.iov_base = (uint8_t *)frag->iov_base + tso->frag_off;
		piece.iov_len = frag->iov_len - tso->frag_off;
		if (piece.iov_len > len) {
			piece.iov_len = len;
			tso->frag_off += len;
		} else {
			tso->frag++;
			tso->frag_off = 0;
		}
	}
	tso->offset += piece.iov_len;
	return piece;
}

/*
 * Give the segment the next len bytes of payload. False, and the walk has not moved: no fragment
 * block left.
 */
static bool borrow_payload(struct tso *tso, struct pkt_pool *pool, struct pkt *segment,
			   uint32_t len)
{
	const struct tso before = *tso;

	segment->len += len;
	while (len > 0) {
		bool in_header = tso->offset < tso->parent->header_len;
		struct iovec piece = next_piece(tso, len);

		len -= piece.iov_len;
		if (in_header) {
			memcpy(segment->header + segment->header_len, piece.iov_base,
			       piece.iov_len);
			segment->header_len += piece.iov_len;
			continue;
		}
		if (unlikely(segment->frag_count == PKT_INLINE_FRAGS) &&
		    !pkt_take_frag_block(pool, segment)) {
			*tso = before;
			return false;
		}
		segment->frags[segment->frag_count++] = piece;
	}
	return true;
}

/* Copy the next len bytes of payload; returns their sum, or 0 unless that is wanted. */
static uint32_t copy_payload(struct tso *tso, uint8_t *to, uint32_t len, bool want_sum)
{
	uint32_t sum = 0;

	for (uint32_t at = 0; at < len;) {
		struct iovec piece = next_piece(tso, len - at);

		if (want_sum)
			sum = csum_add_at(sum, csum_copy(to + at, piece.iov_base, piece.iov_len, 0),
					  at);
		else
			memcpy(to + at, piece.iov_base, piece.iov_len);
		at += piece.iov_len;
	}
	return sum;
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

/* What all segments have in common: the parent's headers, facts, and a checksum to finish. */
static void begin_segment(const struct pkt *parent, struct pkt *segment)
{
	memcpy(segment->header, parent->header, parent->payload_off);
	pkt_copy_facts(segment, parent);
	segment->offload = (struct pkt_offload){
		.flags = PKT_CSUM_PARTIAL,
		.csum_start = parent->offload.csum_start,
		.csum_offset = parent->offload.csum_offset,
	};
}

/* Payload bytes of the next segment. */
static uint32_t next_len(const struct tso *tso)
{
	uint32_t left = tso->parent->len - tso->offset;

	return left < tso->parent->offload.gso_size ? left : tso->parent->offload.gso_size;
}

/* Make a fresh packet the next segment. False, and nothing has happened: no fragment block left. */
static bool borrow_segment(struct tso *tso, struct pkt_pool *pool, struct pkt *segment)
{
	struct pkt *parent = tso->parent;
	uint32_t at = tso->offset;

	begin_segment(parent, segment);
	segment->len = segment->header_len = parent->payload_off;
	if (!borrow_payload(tso, pool, segment, next_len(tso)))
		return false;
	segment->source = &tso_source;
	segment->parent = parent;
	parent->refs++;
	edit_headers(tso, segment, at);
	return true;
}

/* The checksum of a segment whose payload's sum is known; L4 headers are of even length. */
static void finish_checksum(struct pkt *segment, uint32_t payload_sum)
{
	uint8_t *l4 = segment->header + segment->l4_off;
	uint32_t sum = csum_partial(l4, segment->payload_off - segment->l4_off, payload_sum);
	uint16_t csum = csum_finish(sum);

	memcpy(l4 + segment->offload.csum_offset, &csum, sizeof(csum));
	pkt_csum_done(segment);
}

/* Make a fresh packet the next segment, linear. False, and nothing has happened: no memory left. */
static bool copy_segment(struct tso *tso, struct pkt *segment, bool finish)
{
	const struct pkt *parent = tso->parent;
	uint32_t at = tso->offset, header_len = parent->payload_off, payload = next_len(tso);
	uint8_t *frame = linear_lend(segment, header_len + payload, header_len);
	uint32_t sum;

	if (unlikely(!frame))
		return false;
	begin_segment(parent, segment);
	sum = copy_payload(tso, frame + header_len, payload, finish);
	edit_headers(tso, segment, at);
	if (finish)
		finish_checksum(segment, sum);
	memcpy(frame, segment->header, header_len);
	return true;
}

/* Take packets from the pool for the next segments, at most n. */
static unsigned get_packets(const struct tso *tso, struct pkt_pool *pool, struct pkt **segments,
			    unsigned n)
{
	uint16_t gso_size = tso->parent->offload.gso_size;
	unsigned left = (tso->parent->len - tso->offset + gso_size - 1) / gso_size;

	return pkt_pool_get(pool, segments, left < n ? left : n);
}

unsigned tso_next(struct tso *tso, struct pkt_pool *pool, struct pkt **segments, unsigned n)
{
	unsigned got = get_packets(tso, pool, segments, n), made = 0;

	while (made < got && likely(borrow_segment(tso, pool, segments[made])))
		made++;
	if (unlikely(made < got))
		pkt_pool_put(pool, segments + made, got - made);
	return made;
}

unsigned tso_next_linear(struct tso *tso, struct pkt_pool *pool, struct pkt **segments, unsigned n,
			 bool finish)
{
	unsigned got = get_packets(tso, pool, segments, n), made = 0;

	while (made < got && likely(copy_segment(tso, segments[made], finish)))
		made++;
	if (unlikely(made < got))
		pkt_pool_put(pool, segments + made, got - made);
	return made;
}
