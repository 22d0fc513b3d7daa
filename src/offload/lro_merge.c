/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Merging TCP segments, and UDP datagrams, into one packet that can be split into the same again.
 *
 * Theory of operation. An aggregate is a fresh head packet with the first segment's headers and
 * fragments that say where the payload of all of them lies; no byte of payload moves (A3):
 *
 *      riders    header[] H H p | frag p p p p       next ->
 *                header[] H'H'p | frag p p p p       next ->
 *                header[] H"H"p | frag p p
 *      head      header[] H*H*  | p ---- p p p p | p ---- p p p p | p ---- p p
 *                                 in the riders' header copies and fragments
 *
 * The head's source lets go of the riders when the head is done, and their sources get the
 * fragments back.
 *
 * What is merged is what segmentation (tso.c) turns back into the original frames, byte for byte.
 * So these must be equal, or follow from the first segment's:
 *
 *      Ethernet, VLAN   equal
 *      IPv4             no options; equal but for length, ID, checksum; the ID counts up by one, or
 *                       stays (PKT_GSO_FIXED_ID), which the second segment decides
 *      IPv6             no extension headers; equal but for length
 *      TCP              the sequence number is the expected one; acknowledgement, window, urgent
 *                       pointer (0), options and reserved bits equal; of the flags, no SYN, RST, URG,
 *                       CWR only on the first segment, PSH and FIN only on the last
 *      UDP              ports equal, length that of the IP packet, a checksum
 *      payload          some; as much as in the first, in the last maybe less
 *      frame            ends with the IP packet: no padding
 *
 * Checksums are recomputed when the aggregate is split, so a wrong one must never enter, nor a right
 * one that would be written differently: one's complement knows two zeros. The IPv4 header's must be
 * what tso.c will write. TCP's and UDP's are either all finished and found right, and none of the
 * zeros, or all left to be finished, each field holding exactly the pseudo header's sum. Sums over what
 * does not change are computed once for each aggregate.
 *
 * A checksum that nobody has looked at is verified here, once, be it a guest's whose payload can
 * change afterwards: the guest gains nothing that it could not have by leaving the checksum to us,
 * and the damage is its own.
 */
#include "offload/lro_merge.h"

#include <net/ethernet.h>
#include <netinet/in.h>

#include "pkt/csum.h"
#include "pkt/headers.h"
#include "port/worker.h"

enum {
	VLAN_HLEN = 4,
	VLAN_ID_MASK = 0x0fff,
	IPV4_TOTAL_LEN = 2,
	IPV4_ID = 4,
	IPV4_FRAGMENT = 6, /* fragment offset and flags, TTL, protocol */
	IPV4_TTL = 8,
	IPV4_CSUM = 10,
	IPV4_SADDR = 12,
	IPV4_HLEN = 20,
	IPV6_PAYLOAD_LEN = 4,
	IPV6_NEXT_HEADER = 6, /* and hop limit */
	IPV6_SADDR = 8,
	IPV6_HLEN = 40,
	IP_LEN_MAX = 65535,
	TCP_SEQ = 4,
	TCP_ACK = 8, /* acknowledgement, header length, flags, window */
	TCP_FLAGS = 13,
	TCP_CSUM = 16,
	TCP_URGENT = 18,
	TCP_HLEN = 20,
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_PSH = 0x08,
	TCP_ACK_FLAG = 0x10,
	TCP_URG = 0x20,
	TCP_CWR = 0x80,
	ACK_LEN_MAX = 128, /* with all TCP options that it may have */
	UDP_LEN = 4,
	UDP_CSUM = 6,
};

static void riders_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		for (struct pkt *rider = pkts[i]->parent, *next; rider; rider = next) {
			next = rider->next;
			pkt_put(rider);
		}
	}
}

static struct pkt_source riders_source = { .done = riders_done };

/* ---- words as they lie in memory: for comparing, and for sums, which do not mind the order ---- */

static inline uint16_t word16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t word32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t word64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* 0: equal. */
static inline uint64_t differ16(const uint8_t *a, const uint8_t *b)
{
	return word16(a) ^ word16(b);
}

static inline uint64_t differ32(const uint8_t *a, const uint8_t *b)
{
	return word32(a) ^ word32(b);
}

static inline uint64_t differ64(const uint8_t *a, const uint8_t *b)
{
	return word64(a) ^ word64(b);
}

/* ---- one segment ---- */

bool lro_segment_read(struct pkt *pkt, struct lro_segment *segment)
{
	const uint8_t *ip = pkt->header + pkt->l3_off, *l4 = pkt->header + pkt->l4_off;
	unsigned ip_hlen = pkt->l4_off - pkt->l3_off, ip_len;
	uint8_t csum_flags = pkt->offload.flags;

	if (!pkt->payload_off || pkt->offload.gso_type != PKT_GSO_NONE ||
	    (csum_flags && csum_flags != PKT_CSUM_VALID && csum_flags != PKT_CSUM_PARTIAL) ||
	    unlikely(pkt->header_len < pkt->payload_off && !pkt_pull(pkt, pkt->payload_off)))
		return false;
	*segment = (struct lro_segment){ .ipv6 = headers_is_ipv6(pkt) };
	if (segment->ipv6) {
		ip_len = IPV6_HLEN + load_be16(ip + IPV6_PAYLOAD_LEN);
		if (ip_hlen != IPV6_HLEN)
			return false;
	} else {
		ip_len = load_be16(ip + IPV4_TOTAL_LEN);
		segment->id = load_be16(ip + IPV4_ID);
		if (ip_hlen != IPV4_HLEN)
			return false;
	}
	segment->l4_len = ip_len - ip_hlen;
	segment->payload = pkt->len - pkt->payload_off;
	if (pkt->l3_off + ip_len != pkt->len || segment->payload == 0)
		return false;
	if (likely(pkt->l4_proto == IPPROTO_TCP)) {
		segment->seq = load_be32(l4 + TCP_SEQ);
		segment->tcp_flags = l4[TCP_FLAGS];
		return !(segment->tcp_flags & (TCP_SYN | TCP_RST | TCP_URG)) &&
		       word16(l4 + TCP_URGENT) == 0;
	}
	return load_be16(l4 + UDP_LEN) == segment->l4_len;
}

bool lro_segment_is_last(const struct lro_segment *segment)
{
	return segment->tcp_flags & (TCP_PSH | TCP_FIN);
}

bool lro_is_urgent(struct pkt *pkt)
{
	unsigned len;

	if (pkt->header[0] & 1)
		return false;
	if (pkt->len > ACK_LEN_MAX)
		return true;
	headers_parse(pkt);
	if (pkt->l4_proto != IPPROTO_TCP || !pkt->payload_off || !pkt_pull(pkt, pkt->payload_off))
		return true;

	const uint8_t *ip = pkt->header + pkt->l3_off;

	/* the frame may be padded */
	len = headers_is_ipv6(pkt) ? IPV6_HLEN + load_be16(ip + IPV6_PAYLOAD_LEN)
				   : load_be16(ip + IPV4_TOTAL_LEN);
	return pkt->header[pkt->l4_off + TCP_FLAGS] != TCP_ACK_FLAG ||
	       pkt->l3_off + len != pkt->payload_off;
}

uint32_t lro_segment_needs(const struct pkt *pkt, const struct lro_segment *segment)
{
	uint32_t needs = PORT_CAP_SG | PORT_CAP_CSUM;

	if (pkt->l4_proto == IPPROTO_UDP)
		return needs | PORT_CAP_USO;
	if (segment->tcp_flags & TCP_CWR)
		needs |= PORT_CAP_TSO_ECN;
	return needs | (segment->ipv6 ? PORT_CAP_TSO6 : PORT_CAP_TSO4);
}

static unsigned csum_offset(uint8_t l4_proto)
{
	return l4_proto == IPPROTO_TCP ? TCP_CSUM : UDP_CSUM;
}

/* Of the IPv4 header but its length, ID and checksum. */
static uint32_t ipv4_sum(const uint8_t *ip)
{
	uint32_t sum = word16(ip) + word16(ip + IPV4_FRAGMENT) + word16(ip + IPV4_TTL);

	return csum_add(csum_add(sum, word32(ip + IPV4_SADDR)), word32(ip + IPV4_SADDR + 4));
}

/* Is the IPv4 header's checksum what segmentation will write? */
static inline bool ipv4_csum_returns(const uint8_t *ip, uint32_t ip_sum)
{
	uint32_t changing = word16(ip + IPV4_TOTAL_LEN) + word16(ip + IPV4_ID);

	return csum_fold(csum_add(ip_sum, changing)) == word16(ip + IPV4_CSUM);
}

/*
 * And TCP's or UDP's? A finished one that is right is; unless it is zero, which has two forms, of
 * which one says that UDP has none.
 */
static inline bool l4_csum_returns(const struct pkt *pkt, uint32_t l4_len, uint32_t pseudo_sum)
{
	unsigned offset = csum_offset(pkt->l4_proto);
	uint16_t field = word16(pkt->header + pkt->l4_off + offset);

	if (pkt->offload.flags & PKT_CSUM_PARTIAL)
		return pkt->offload.csum_start == pkt->l4_off &&
		       pkt->offload.csum_offset == offset &&
		       field == csum_fold_partial(csum_add(pseudo_sum, htonl(l4_len)));
	return field != 0 && field != 0xffff;
}

/* Look at the checksum unless somebody has, or it is not finished yet. False: it is wrong. */
static inline bool verify(struct pkt *pkt, uint32_t l4_len, uint32_t pseudo_sum)
{
	if (likely(pkt->offload.flags))
		return true;

	uint32_t sum = csum_add(pseudo_sum, htonl(l4_len));

	if (csum_fold(csum_pkt(pkt, pkt->l4_off, l4_len, sum)) != 0)
		return false;
	pkt->offload.flags = PKT_CSUM_VALID;
	return true;
}

bool lro_segment_check(struct pkt *pkt, struct lro_segment *segment)
{
	const uint8_t *ip = pkt->header + pkt->l3_off;

	segment->pseudo_sum = csum_pseudo(pkt, 0);
	segment->ip_sum = segment->ipv6 ? 0 : ipv4_sum(ip);
	return (segment->ipv6 || ipv4_csum_returns(ip, segment->ip_sum)) &&
	       l4_csum_returns(pkt, segment->l4_len, segment->pseudo_sum) &&
	       verify(pkt, segment->l4_len, segment->pseudo_sum);
}

/* ---- a segment and what is held ---- */

static inline uint64_t addresses_differ(const uint8_t *a, const uint8_t *b, bool ipv6)
{
	if (likely(!ipv6))
		return differ64(a + IPV4_SADDR, b + IPV4_SADDR);
	a += IPV6_SADDR;
	b += IPV6_SADDR;
	return differ64(a, b) | differ64(a + 8, b + 8) | differ64(a + 16, b + 16) |
	       differ64(a + 24, b + 24);
}

bool lro_same_flow(const struct lro_aggregate *aggregate, const struct pkt *pkt)
{
	const uint8_t *a = aggregate->header, *b = pkt->header;
	unsigned l3_off = pkt->l3_off;

	if (aggregate->l3_off != l3_off || aggregate->l4_proto != pkt->l4_proto ||
	    aggregate->ipv6 != headers_is_ipv6(pkt))
		return false;

	/* The MAC addresses, the ports: where those are depends on IP options. */
	uint64_t differ = differ64(a, b) | differ32(a + 8, b + 8) |
			  differ32(a + aggregate->l4_off, b + pkt->l4_off);

	for (unsigned tag = ETH_HLEN - 2; unlikely(tag < l3_off - 2); tag += VLAN_HLEN)
		differ |= differ32(a + tag, b + tag) & htonl(0xffff0000 | VLAN_ID_MASK);
	return !(differ | addresses_differ(a + l3_off, b + l3_off, aggregate->ipv6));
}

bool lro_same_addresses(const struct lro_aggregate *aggregate, const struct pkt *pkt)
{
	const uint8_t *ip = pkt->header + pkt->l3_off;
	unsigned len = aggregate->ipv6 ? IPV6_HLEN : IPV4_HLEN;

	return pkt->header_len >= pkt->l3_off + len && headers_is_ipv6(pkt) == aggregate->ipv6 &&
	       !addresses_differ(aggregate->header + aggregate->l3_off, ip, aggregate->ipv6);
}

/*
 * Is something different that must be equal, but for what makes it another flow? The lengths of all
 * headers are equal as long as TCP's is, which is next to its flags.
 */
static inline bool headers_differ(const struct lro_aggregate *aggregate, const struct pkt *pkt)
{
	static const uint8_t may_differ[8] = { [TCP_FLAGS - TCP_ACK] = TCP_FIN | TCP_PSH |
								       TCP_CWR };
	unsigned l3_off = aggregate->l3_off, l4_off = aggregate->l4_off;
	const uint8_t *a = aggregate->header, *b = pkt->header;
	uint64_t differ = 0;

	for (unsigned tag = ETH_HLEN; unlikely(tag < l3_off); tag += VLAN_HLEN)
		differ |= differ16(a + tag, b + tag);
	a += l3_off;
	b += l3_off;
	if (aggregate->ipv6)
		differ |= differ32(a, b) | differ16(a + IPV6_NEXT_HEADER, b + IPV6_NEXT_HEADER);
	else
		differ |= differ16(a, b) | differ32(a + IPV4_FRAGMENT, b + IPV4_FRAGMENT);
	if (likely(aggregate->l4_proto == IPPROTO_TCP)) {
		a += l4_off - l3_off;
		b += l4_off - l3_off;
		differ |= differ64(a + TCP_ACK, b + TCP_ACK) & ~word64(may_differ);
		for (unsigned at = TCP_HLEN; at < aggregate->payload_off - l4_off; at += 4)
			differ |= differ32(a + at, b + at);
	}
	return differ != 0;
}

/* May the segment follow what is held? */
static inline bool follows(const struct lro_aggregate *aggregate, struct pkt *pkt,
			   const struct lro_segment *segment, enum lro_reason *reason)
{
	bool fixed_id = aggregate->segments == 1 &&
			segment->id == (uint16_t)(aggregate->next_id - 1);
	uint8_t csum_flags = pkt->offload.flags ? pkt->offload.flags : PKT_CSUM_VALID;

	*reason = LRO_REASON_differs;
	if (headers_differ(aggregate, pkt) || segment->payload > aggregate->gso_size ||
	    segment->tcp_flags & TCP_CWR || csum_flags != aggregate->csum_flags)
		return false;
	if (!aggregate->ipv6 && segment->id != aggregate->next_id && !fixed_id)
		return false;
	*reason = LRO_REASON_sequence;
	if (aggregate->l4_proto == IPPROTO_TCP && segment->seq != aggregate->next_seq)
		return false;
	*reason = LRO_REASON_unmergeable;
	return (aggregate->ipv6 ||
		ipv4_csum_returns(pkt->header + pkt->l3_off, aggregate->ip_sum)) &&
	       l4_csum_returns(pkt, segment->l4_len, aggregate->pseudo_sum) &&
	       verify(pkt, segment->l4_len, aggregate->pseudo_sum);
}

/* ---- the aggregate ---- */

/* All of them, and up to 15 bytes more: there is room for these on both sides. */
static inline void copy_headers(uint8_t *to, const uint8_t *from, unsigned len)
{
	for (unsigned at = 0; at < len; at += 16)
		memcpy(to + at, from + at, 16);
}

static_assert(LRO_HEADER_MAX % 16 == 0 && PKT_HEADER_MAX % 16 == 0,
	      "headers are copied in blocks of 16 bytes");

void lro_aggregate_begin(struct lro_aggregate *aggregate, struct pkt *pkt,
			 const struct lro_segment *segment)
{
	aggregate->pkt = aggregate->last = pkt;
	aggregate->payload = aggregate->gso_size = segment->payload;
	aggregate->payload_max = IP_LEN_MAX - (pkt->payload_off - pkt->l3_off);
	aggregate->next_seq = segment->seq + segment->payload;
	aggregate->pseudo_sum = segment->pseudo_sum;
	aggregate->ip_sum = segment->ip_sum;
	aggregate->segments = 1;
	aggregate->next_id = segment->id + 1;
	aggregate->id_step = 1;
	aggregate->l3_off = pkt->l3_off;
	aggregate->l4_off = pkt->l4_off;
	aggregate->payload_off = pkt->payload_off;
	aggregate->l4_proto = pkt->l4_proto;
	aggregate->csum_flags = pkt->offload.flags;
	aggregate->tcp_flags = segment->tcp_flags;
	aggregate->ipv6 = segment->ipv6;
	copy_headers(aggregate->header, pkt->header, pkt->payload_off);
}

/* Put a rider's payload behind the head's. False, and nothing has happened: no fragment is left. */
static inline bool append(struct pkt *head, struct pkt *rider)
{
	unsigned payload_off = head->payload_off;
	bool in_header = rider->header_len > payload_off;
	unsigned count = head->frag_count + in_header + rider->frag_count;

	if (unlikely(count > PKT_INLINE_FRAGS) &&
	    (count > PKT_FRAGS_MAX ||
	     (head->frags == head->inline_frags && !pkt_take_frag_block(&worker_self->pool, head))))
		return false;

	struct iovec *frag = head->frags + head->frag_count;

	if (in_header)
		*frag++ = (struct iovec){ rider->header + payload_off,
					  rider->header_len - payload_off };
	for (unsigned i = 0; i < rider->frag_count; i++)
		*frag++ = rider->frags[i];
	head->frag_count = count;
	rider->next = NULL;
	return true;
}

/* A head for the first two segments. NULL, and nothing has happened: out of packets or fragments. */
static struct pkt *make_head(struct pkt *first, struct pkt *second)
{
	struct pkt_pool *pool = &worker_self->pool;
	struct pkt *head;

	if (unlikely(!pkt_pool_get(pool, &head, 1)))
		return NULL;
	pkt_copy_facts(head, first);
	copy_headers(head->header, first->header, first->payload_off);
	head->header_len = first->payload_off;
	head->source = &riders_source;
	head->parent = first;
	if (likely(append(head, first) && append(head, second)))
		return head;
	pkt_pool_put(pool, &head, 1);
	return NULL;
}

static inline bool ride(struct lro_aggregate *aggregate, struct pkt *pkt)
{
	if (likely(aggregate->segments > 1))
		return append(aggregate->pkt, pkt);

	struct pkt *head = make_head(aggregate->pkt, pkt);

	if (unlikely(!head))
		return false;
	aggregate->pkt = head;
	return true;
}

bool lro_aggregate_add(struct lro_aggregate *aggregate, struct pkt *pkt,
		       const struct lro_segment *segment, enum lro_reason *reason)
{
	if (!follows(aggregate, pkt, segment, reason))
		return false;
	if (unlikely(!ride(aggregate, pkt))) {
		*reason = LRO_REASON_memory;
		return false;
	}
	if (aggregate->segments == 1)
		aggregate->id_step = segment->id == aggregate->next_id;
	aggregate->last->next = pkt;
	aggregate->last = pkt;
	aggregate->segments++;
	aggregate->payload += segment->payload;
	aggregate->next_seq += segment->payload;
	aggregate->next_id = segment->id + aggregate->id_step;
	aggregate->tcp_flags = segment->tcp_flags;
	return true;
}

bool lro_aggregate_at_end(const struct lro_aggregate *aggregate, enum lro_reason *reason)
{
	uint32_t whole = (uint32_t)aggregate->segments * aggregate->gso_size;

	*reason = LRO_REASON_last;
	if (aggregate->tcp_flags & (TCP_PSH | TCP_FIN) || aggregate->payload < whole)
		return true;
	*reason = LRO_REASON_full;
	return aggregate->segments == LRO_SEGMENTS_MAX ||
	       aggregate->payload + aggregate->gso_size > aggregate->payload_max;
}

static_assert((int)LRO_SEGMENTS_MAX <= (int)GSO_UDP_SEGMENTS_MAX, "one that everybody accepts");
static_assert((int)LRO_SEGMENTS_MAX <= (int)GSO_TCP_SEGMENTS_MAX, "one that everybody accepts");

/* What the aggregate asks of its next port. */
static struct pkt_offload request(const struct lro_aggregate *aggregate, uint8_t first_tcp_flags)
{
	bool tcp = aggregate->l4_proto == IPPROTO_TCP;
	struct pkt_offload offload = {
		.flags = PKT_CSUM_PARTIAL,
		.gso_type = !tcp              ? PKT_GSO_UDP
			    : aggregate->ipv6 ? PKT_GSO_TCPV6
					      : PKT_GSO_TCPV4,
		.gso_size = aggregate->gso_size,
		.csum_start = aggregate->l4_off,
		.csum_offset = csum_offset(aggregate->l4_proto),
	};

	if (tcp && first_tcp_flags & TCP_CWR)
		offload.flags |= PKT_GSO_ECN;
	if (!aggregate->ipv6 && !aggregate->id_step)
		offload.flags |= PKT_GSO_FIXED_ID;
	return offload;
}

struct pkt *lro_aggregate_finish(struct lro_aggregate *aggregate)
{
	struct pkt *pkt = aggregate->pkt;
	uint8_t *ip = pkt->header + aggregate->l3_off, *l4 = pkt->header + aggregate->l4_off;
	uint32_t l4_len = aggregate->payload_off - aggregate->l4_off + aggregate->payload;
	uint32_t ip_len = aggregate->l4_off - aggregate->l3_off + l4_len;
	uint16_t pseudo = csum_fold_partial(csum_add(aggregate->pseudo_sum, htonl(l4_len)));

	aggregate->pkt = NULL;
	if (aggregate->segments == 1)
		return pkt;
	pkt->len = aggregate->payload_off + aggregate->payload;
	pkt->offload = request(aggregate, l4[TCP_FLAGS]);
	if (aggregate->ipv6) {
		store_be16(ip + IPV6_PAYLOAD_LEN, l4_len);
	} else {
		uint32_t changing = htons(ip_len) + word16(ip + IPV4_ID);
		uint16_t csum = csum_fold(csum_add(aggregate->ip_sum, changing));

		store_be16(ip + IPV4_TOTAL_LEN, ip_len);
		memcpy(ip + IPV4_CSUM, &csum, sizeof(csum));
	}
	if (aggregate->l4_proto == IPPROTO_TCP)
		l4[TCP_FLAGS] |= aggregate->tcp_flags & (TCP_PSH | TCP_FIN);
	else
		store_be16(l4 + UDP_LEN, l4_len);
	memcpy(l4 + pkt->offload.csum_offset, &pseudo, sizeof(pseudo));
	return pkt;
}
