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
 * inet_gso_segment): the IPv4 ID counts up (but with PKT_GSO_FIXED_ID, see lro.c), the IP and UDP
 * lengths and the IPv4 header checksum are the segment's, the TCP sequence number advances, FIN and
 * PSH stay with the last segment, CWR with the first. The L4 checksum is left to the port
 * (PKT_CSUM_PARTIAL) or finished here, over a pseudo-header sum computed from the addresses, since
 * what the guest left in the field need not be trusted. Sums of what does not change are computed
 * once.
 *
 * A 64 KiB packet has 45 segments, and copying one's payload takes some 25 ns: headers are therefore
 * copied in whole blocks, and never read back, which has to wait for what was just stored.
 */
#include "offload/tso.h"

#include <netinet/in.h>

#include "offload/linear.h"
#include "pkt/csum.h"
#include "pkt/headers.h"
#include "pkt/proto.h"
#include "port/worker.h"

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

/* Of the L4 header but TCP's sequence number and flags, UDP's length, and the checksum. */
static uint32_t l4_sum(const struct pkt *parent)
{
	unsigned len = parent->payload_off - parent->l4_off;
	uint8_t copy[TCP_HLEN_MAX];

	memcpy(copy, parent->header + parent->l4_off, len);
	if (parent->l4_proto == IPPROTO_TCP) {
		store_be32(copy + TCP_SEQ, 0);
		copy[TCP_FLAGS] = 0;
		store_be16(copy + TCP_CSUM, 0);
	} else {
		store_be16(copy + UDP_LEN, 0);
		store_be16(copy + UDP_CSUM, 0);
	}
	return csum_partial(copy, len, 0);
}

bool tso_begin(struct tso *tso, struct pkt *parent, bool finish)
{
	if (parent->offload.gso_type == PKT_GSO_NONE || parent->offload.gso_size == 0 ||
	    !parent->payload_off || !pkt_pull(parent, parent->payload_off))
		return false;

	const uint8_t *ip = parent->header + parent->l3_off;

	*tso = (struct tso){
		.parent = parent,
		.finish = finish,
		.csum_field = parent->offload.csum_start + parent->offload.csum_offset,
		.offset = parent->payload_off,
		.pseudo_sum = csum_pseudo(parent, 0),
		.l4_sum = l4_sum(parent),
		.ip_id_step = !(parent->offload.flags & PKT_GSO_FIXED_ID),
	};
	if (parent->l4_proto == IPPROTO_TCP)
		tso->tcp_seq = load_be32(parent->header + parent->l4_off + TCP_SEQ);
	if (!headers_is_ipv6(parent)) {
		tso->ip_id = load_be16(ip + IPV4_ID);
		tso->ip_sum = ipv4_sum(ip, parent->l4_off - parent->l3_off);
	}
	return true;
}

/* Payload [at, at + len) of the parent, from the frame's start: the next segment's. */
struct part {
	uint32_t at, len;
};

static struct part next_part(const struct tso *tso)
{
	uint32_t left = tso->parent->len - tso->offset, gso_size = tso->parent->offload.gso_size;

	return (struct part){ tso->offset, left < gso_size ? left : gso_size };
}

static uint32_t part_seq(const struct tso *tso, struct part part)
{
	return tso->tcp_seq + part.at - tso->parent->payload_off;
}

static uint8_t part_tcp_flags(const struct tso *tso, struct part part)
{
	const struct pkt *parent = tso->parent;
	uint8_t flags = parent->header[parent->l4_off + TCP_FLAGS];

	if (part.at != parent->payload_off)
		flags &= ~TCP_CWR;
	if (part.at + part.len != parent->len)
		flags &= ~(TCP_FIN | TCP_PSH);
	return flags;
}

/*
 * Write a segment's headers, its checksum not finished, and up to 15 bytes more: header[] has room
 * for them, and so has linear memory.
 */
static void write_headers(const struct tso *tso, struct part part, uint8_t *to)
{
	const struct pkt *parent = tso->parent;
	uint32_t l4_len = parent->payload_off - parent->l4_off + part.len;
	uint32_t ip_len = parent->l4_off - parent->l3_off + l4_len;
	uint16_t pseudo = csum_fold_partial(csum_add(tso->pseudo_sum, htonl(l4_len)));
	uint8_t *ip = to + parent->l3_off, *l4 = to + parent->l4_off;

	for (unsigned at = 0; at < parent->payload_off; at += 16)
		memcpy(to + at, parent->header + at, 16);
	if (headers_is_ipv6(parent)) {
		store_be16(ip + IPV6_PAYLOAD_LEN, ip_len - IPV6_HLEN);
	} else {
		uint32_t changed = htons(ip_len) + htons(tso->ip_id);
		uint16_t sum = csum_fold(csum_add(tso->ip_sum, changed));

		store_be16(ip + IPV4_TOTAL_LEN, ip_len);
		store_be16(ip + IPV4_ID, tso->ip_id);
		memcpy(ip + IPV4_CSUM, &sum, sizeof(sum));
	}
	if (parent->l4_proto == IPPROTO_TCP) {
		store_be32(l4 + TCP_SEQ, part_seq(tso, part));
		l4[TCP_FLAGS] = part_tcp_flags(tso, part);
	} else {
		store_be16(l4 + UDP_LEN, l4_len);
	}
	memcpy(l4 + parent->offload.csum_offset, &pseudo, sizeof(pseudo));
}

static_assert(PKT_HEADER_MAX % 16 == 0, "headers are copied in blocks of 16 bytes");

/* A segment's finished checksum. */
static uint16_t part_checksum(const struct tso *tso, struct part part, uint32_t payload_sum)
{
	const struct pkt *parent = tso->parent;
	uint32_t l4_len = parent->payload_off - parent->l4_off + part.len;
	uint32_t sum = csum_add(csum_add(tso->pseudo_sum, htonl(l4_len)), tso->l4_sum);

	if (parent->l4_proto == IPPROTO_TCP) {
		uint16_t flags = htons(part_tcp_flags(tso, part)); /* behind an even byte */

		sum = csum_add(csum_add(sum, htonl(part_seq(tso, part))), flags);
	} else {
		sum = csum_add(sum, htons(l4_len));
	}
	return csum_finish(csum_add(sum, payload_sum));
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
 * Give the segment the next len bytes of payload; *sum is theirs if the checksum is to be finished.
 * False, and the walk has not moved: no fragment block left.
 */
static bool borrow_payload(struct tso *tso, struct pkt_pool *pool, struct pkt *segment,
			   uint32_t len, uint32_t *sum)
{
	const struct tso before = *tso;

	*sum = 0;
	for (uint32_t at = 0; at < len;) {
		bool in_header = tso->offset < tso->parent->header_len;
		struct iovec piece = next_piece(tso, len - at);

		if (in_header) {
			memcpy(segment->header + segment->header_len, piece.iov_base,
			       piece.iov_len);
			segment->header_len += piece.iov_len;
		} else if (likely(segment->frag_count < PKT_INLINE_FRAGS) ||
			   segment->frags != segment->inline_frags ||
			   pkt_take_frag_block(pool, segment)) {
			segment->frags[segment->frag_count++] = piece;
		} else {
			*tso = before;
			return false;
		}
		if (tso->finish)
			*sum = csum_add_at(*sum, csum_partial(piece.iov_base, piece.iov_len, 0),
					   at);
		at += piece.iov_len;
	}
	return true;
}

/* Copy the next len bytes of payload; returns their sum if the checksum is to be finished. */
static uint32_t copy_payload(struct tso *tso, uint8_t *to, uint32_t len)
{
	uint32_t sum = 0;

	for (uint32_t at = 0; at < len;) {
		struct iovec piece = next_piece(tso, len - at);

		if (tso->finish)
			sum = csum_add_at(sum, csum_copy(to + at, piece.iov_base, piece.iov_len, 0),
					  at);
		else
			memcpy(to + at, piece.iov_base, piece.iov_len);
		at += piece.iov_len;
	}
	return sum;
}

/* What is known about a segment whose headers have been written. */
static void describe(const struct tso *tso, struct pkt *segment)
{
	pkt_copy_facts(segment, tso->parent);
	if (!tso->finish)
		segment->offload = (struct pkt_offload){
			.flags = PKT_CSUM_PARTIAL,
			.csum_start = tso->parent->offload.csum_start,
			.csum_offset = tso->parent->offload.csum_offset,
		};
}

/* Make a fresh packet the next segment. False, and nothing has happened: no fragment block left. */
static bool borrow_segment(struct tso *tso, struct pkt_pool *pool, struct pkt *segment)
{
	struct pkt *parent = tso->parent;
	struct part part = next_part(tso);
	uint32_t payload_sum;

	write_headers(tso, part, segment->header);
	segment->header_len = parent->payload_off;
	segment->len = parent->payload_off + part.len;
	if (!borrow_payload(tso, pool, segment, part.len, &payload_sum))
		return false;
	if (tso->finish) {
		uint16_t csum = part_checksum(tso, part, payload_sum);

		memcpy(segment->header + tso->csum_field, &csum, sizeof(csum));
	}
	describe(tso, segment);
	segment->source = &tso_source;
	segment->parent = parent;
	parent->refs++;
	tso->ip_id += tso->ip_id_step;
	return true;
}

/* Make a fresh packet the next segment, linear. False, and nothing has happened: no memory left. */
static bool copy_segment(struct tso *tso, struct pkt *segment)
{
	uint32_t header_len = tso->parent->payload_off;
	struct part part = next_part(tso);
	uint8_t *frame = linear_lend(segment, header_len + part.len, header_len);
	uint32_t payload_sum;

	if (unlikely(!frame))
		return false;
	write_headers(tso, part, segment->header);
	write_headers(tso, part, frame);
	payload_sum = copy_payload(tso, frame + header_len, part.len);
	if (tso->finish) {
		uint16_t csum = part_checksum(tso, part, payload_sum);

		memcpy(segment->header + tso->csum_field, &csum, sizeof(csum));
		memcpy(frame + tso->csum_field, &csum, sizeof(csum));
	}
	describe(tso, segment);
	tso->ip_id += tso->ip_id_step;
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

unsigned tso_next_linear(struct tso *tso, struct pkt_pool *pool, struct pkt **segments, unsigned n)
{
	unsigned got = get_packets(tso, pool, segments, n), made = 0;

	while (made < got && likely(copy_segment(tso, segments[made])))
		made++;
	if (unlikely(made < got))
		pkt_pool_put(pool, segments + made, got - made);
	return made;
}
