/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets that do not fit the MTU of the port that they go to.
 *
 * Theory of operation. The MTU counts the bytes of the IP packet: the Ethernet header and VLAN tags
 * come on top (and to guests, a frame without a tag may use its room). Of a GSO packet each segment
 * has to fit: headers and gso_size. What does not fit is dropped and counted (drop_too_big);
 * fragmenting is a router's job, not a bridge's.
 *
 * A router would also tell the sender, which then sends smaller packets (path MTU discovery). A
 * bridge between segments of different MTU is where that goes wrong silently, so vifd answers in
 * its place (`bridge add ... too-big=off` has it not to): "fragmentation needed" with the MTU to
 * IPv4 packets with DF (RFC 1191), "packet too big" to IPv6 packets (RFC 4443). A sender of IPv4
 * packets without DF does not expect to be told, and is not.
 *
 *      Ethernet + VLAN tags | IP | ICMP | the offending packet, from its IP header on
 *      as it came, the two    from its          \_ as much as fits 576 bytes (IPv4, RFC 1812), or
 *      addresses swapped      destination          1280 (IPv6); behind header[] by reference
 *
 * A bridge has no address of its own: the answer comes from where the offending packet was to go,
 * and leaves through the port that it came in on, whatever its addresses say. So it reaches
 * nobody but who sent that packet.
 *
 * No answer goes to what was flooded (somebody else may take it), and none to ICMP errors, later
 * fragments, group or made-up addresses (RFC 1122 3.2.2, RFC 4443 2.4), so that no answer can cause
 * another. Answers are rationed for each port that they leave through, on each worker, so that who
 * causes many does not use up the others' share.
 */
#include "offload/too_big.h"

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

#include "bridge/bridge.h"
#include "pkt/csum.h"
#include "pkt/headers.h"
#include "pkt/proto.h"
#include "port/worker.h"

enum {
	ANSWERS_PER_SEC = 1000,
	ANSWERS_AT_ONCE = 64, /* after a pause */

	IPV4_DF = 0x4000, /* of IPV4_FLAGS */
	IPV4_OFFSET_MASK = 0x1fff,
	IPV4_ANSWER_MAX = 576,

	IPV6_OFFSET_MASK = 0xfff8,
	IPV6_MTU_MIN = 1280, /* also the longest answer */

	HOPS = 64,
	TOS_INTERNETCONTROL = 0xc0,
	ICMP_HLEN = 8,
	ICMP_CSUM = 2,
	ICMP4_MTU = 6,
	ICMP6_MTU = 4,
	ICMP6_REDIRECT = 137, /* an informational type, but as bad as an error to answer */
};

/*
 * When (TSC) what a port's answers have used up will be replenished: the generic cell rate
 * algorithm. One row a worker.
 */
static uint64_t replenished[WORKERS_MAX][PORTS_MAX];

static bool take_ration(const struct port *in)
{
	const uint64_t interval = cycles_hz() / ANSWERS_PER_SEC;
	uint64_t *at = &replenished[worker_self->id][in->id], now = cycles_now();

	if (*at < now)
		*at = now;
	if (*at - now >= ANSWERS_AT_ONCE * interval)
		return false;
	*at += interval;
	return true;
}

/* ---- who is answered ---- */

/* Not unspecified, loopback, multicast or broadcast. */
static bool ipv4_is_station(const uint8_t *address)
{
	return address[0] != 0 && address[0] != 127 && address[0] < 224;
}

static bool ipv6_is_station(const uint8_t *address)
{
	static const uint8_t zero[15];

	return address[0] != 0xff && memcmp(address, zero, sizeof(zero)) != 0;
}

static bool ipv4_expects_answer(struct pkt *pkt)
{
	const uint8_t *ip = pkt->header + pkt->l3_off;
	uint16_t flags = load_be16(ip + IPV4_FLAGS);

	if (!(flags & IPV4_DF) || (flags & IPV4_OFFSET_MASK) || !ipv4_is_station(ip + IPV4_SADDR) ||
	    !ipv4_is_station(ip + IPV4_DADDR))
		return false;
	if (ip[IPV4_PROTO] != IPPROTO_ICMP)
		return true;
	if (!pkt_pull(pkt, pkt->l4_off + 1))
		return false;
	switch (pkt->header[pkt->l4_off]) {
	case ICMP_ECHO:
	case ICMP_ECHOREPLY:
	case ICMP_TIMESTAMP:
	case ICMP_TIMESTAMPREPLY:
		return true;
	default:
		return false;
	}
}

/* The protocol behind the extension headers; of a fragment other than the first IPPROTO_NONE. */
static uint8_t ipv6_protocol(const struct pkt *pkt)
{
	uint8_t proto = pkt->header[pkt->l3_off + IPV6_NEXT];

	/* They fill the space up to l4_off, and are in the header copy: headers_parse() saw to it. */
	for (unsigned off = pkt->l3_off + IPV6_HLEN, len; off < pkt->l4_off; off += len) {
		const uint8_t *ext = pkt->header + off;

		if (proto == IPPROTO_FRAGMENT && load_be16(ext + 2) & IPV6_OFFSET_MASK)
			return IPPROTO_NONE;
		len = proto == IPPROTO_FRAGMENT ? 8 : 8 + ext[1] * 8;
		proto = ext[0];
	}
	return proto;
}

static bool ipv6_expects_answer(struct pkt *pkt, unsigned mtu)
{
	const uint8_t *ip = pkt->header + pkt->l3_off;
	uint8_t proto = ipv6_protocol(pkt);

	/* IPv6 does not work over less than 1280; whoever is told so sends that. */
	if (mtu < IPV6_MTU_MIN || proto == IPPROTO_NONE || !ipv6_is_station(ip + IPV6_SADDR) ||
	    !ipv6_is_station(ip + IPV6_DADDR))
		return false;
	if (proto != IPPROTO_ICMPV6)
		return true;
	return pkt_pull(pkt, pkt->l4_off + 1) && (pkt->header[pkt->l4_off] & ICMP6_INFOMSG_MASK) &&
	       pkt->header[pkt->l4_off] != ICMP6_REDIRECT;
}

/* Is the sender of pkt, which came in from in, to be told that it does not fit port? */
static bool expects_answer(const struct port *port, const struct port *in, struct pkt *pkt)
{
	const struct bridge *bridge = port->bridge;

	if (!bridge || !bridge->answer_too_big || !in || in->bridge != bridge || !pkt->l4_off)
		return false;
	/* Unless its destination is known to be there, it was flooded. */
	if ((pkt->header[0] & 1) || mac_table_lookup(&bridge->fdb, pkt->header, bridge_now(),
						     bridge->ageing_sec) != port->id)
		return false;
	return headers_is_ipv6(pkt) ? ipv6_expects_answer(pkt, port->mtu)
				    : ipv4_expects_answer(pkt);
}

/* ---- the answer ---- */

static void answer_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		pkt_put(pkts[i]->parent);
}

static struct pkt_source answer_source = { .done = answer_done };

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Append len bytes of parent's IP packet to answer: what header[] has room for, then references. */
static void quote(struct pkt *answer, struct pkt *parent, uint32_t len)
{
	uint32_t from_header = least(len, parent->header_len - parent->l3_off);
	uint32_t copied = least(from_header, PKT_HEADER_MAX - answer->header_len);
	uint8_t *at = parent->header + parent->l3_off;

	memcpy(answer->header + answer->header_len, at, copied);
	answer->header_len += copied;
	answer->len = answer->header_len + from_header - copied;
	if (from_header > copied)
		answer->frags[answer->frag_count++] = (struct iovec){ at + copied,
								      from_header - copied };
	len -= from_header;
	for (unsigned i = 0; len > 0 && answer->frag_count < PKT_INLINE_FRAGS; i++) {
		uint32_t part = least(len, parent->frags[i].iov_len);

		answer->frags[answer->frag_count++] = (struct iovec){ parent->frags[i].iov_base,
								      part };
		answer->len += part;
		len -= part;
	}
	answer->source = &answer_source;
	answer->parent = parent;
	parent->refs++;
}

/* The IPv4 header in front of, and the ICMP message around, what is quoted. */
static void finish_ipv4(struct pkt *answer, const uint8_t *offender, uint16_t mtu)
{
	uint8_t *ip = answer->header + answer->l3_off, *icmp = answer->header + answer->l4_off;
	uint16_t sum;

	memset(ip, 0, IPV4_HLEN + ICMP_HLEN);
	ip[0] = 0x45;
	ip[1] = TOS_INTERNETCONTROL;
	store_be16(ip + IPV4_TOTAL_LEN, answer->len - answer->l3_off);
	store_be16(ip + IPV4_FLAGS, IPV4_DF);
	ip[8] = HOPS;
	ip[IPV4_PROTO] = IPPROTO_ICMP;
	memcpy(ip + IPV4_SADDR, offender + IPV4_DADDR, 4);
	memcpy(ip + IPV4_DADDR, offender + IPV4_SADDR, 4);
	sum = csum_fold(csum_partial(ip, IPV4_HLEN, 0));
	memcpy(ip + IPV4_CSUM, &sum, sizeof(sum));

	icmp[0] = ICMP_DEST_UNREACH;
	icmp[1] = ICMP_FRAG_NEEDED;
	store_be16(icmp + ICMP4_MTU, mtu);
	sum = csum_fold(csum_pkt(answer, answer->l4_off, answer->len - answer->l4_off, 0));
	memcpy(icmp + ICMP_CSUM, &sum, sizeof(sum));
}

static void finish_ipv6(struct pkt *answer, const uint8_t *offender, uint16_t mtu)
{
	uint8_t *ip = answer->header + answer->l3_off, *icmp = answer->header + answer->l4_off;
	uint32_t icmp_len = answer->len - answer->l4_off;
	uint16_t sum;

	memset(ip, 0, IPV6_HLEN + ICMP_HLEN);
	ip[0] = 0x60;
	store_be16(ip + IPV6_PAYLOAD_LEN, icmp_len);
	ip[IPV6_NEXT] = IPPROTO_ICMPV6;
	ip[7] = HOPS;
	memcpy(ip + IPV6_SADDR, offender + IPV6_DADDR, 16);
	memcpy(ip + IPV6_DADDR, offender + IPV6_SADDR, 16);

	icmp[0] = ICMP6_PACKET_TOO_BIG;
	store_be32(icmp + ICMP6_MTU, mtu);
	sum = csum_fold(csum_pkt(answer, answer->l4_off, icmp_len, csum_pseudo(answer, icmp_len)));
	memcpy(icmp + ICMP_CSUM, &sum, sizeof(sum));
}

/* Tell the sender of pkt, behind in, that port takes mtu bytes. False: out of packets. */
static bool send_answer(struct port *port, struct port *in, struct pkt *pkt, uint16_t mtu)
{
	const uint8_t *frame = pkt->header, *ip = frame + pkt->l3_off;
	bool ipv6 = headers_is_ipv6(pkt);
	uint32_t hlen = (ipv6 ? IPV6_HLEN : IPV4_HLEN) + ICMP_HLEN;
	uint32_t room = (ipv6 ? IPV6_MTU_MIN : IPV4_ANSWER_MAX) - hlen;
	struct pkt *answer;

	pkt_fetch(&pkt, 1); /* it is quoted */
	if (pkt->offload.flags & PKT_REMOTE)
		return false;
	if (pkt_pool_get(&worker_self->pool, &answer, 1) == 0)
		return false;
	memcpy(answer->header, frame + 6, 6);
	memcpy(answer->header + 6, frame, 6);
	memcpy(answer->header + 12, frame + 12, pkt->l3_off - 12);
	answer->in_port = port->id;
	answer->l3_off = pkt->l3_off;
	answer->l4_off = pkt->l3_off + hlen - ICMP_HLEN;
	answer->l4_proto = ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
	answer->header_len = pkt->l3_off + hlen;
	quote(answer, pkt, least(room, pkt->len - pkt->l3_off));
	if (ipv6)
		finish_ipv6(answer, ip, mtu);
	else
		finish_ipv4(answer, ip, mtu);
	port_send(in, &answer, 1);
	return true;
}

/* ---- what fits ---- */

/* Does the packet, or each segment of it, fit the MTU? */
static bool fits(struct pkt *pkt, unsigned mtu)
{
	headers_parse(pkt);
	if (pkt->offload.gso_type == PKT_GSO_NONE)
		return pkt->len - pkt->l3_off <= mtu;
	return (unsigned)pkt->payload_off - pkt->l3_off + pkt->offload.gso_size <= mtu;
}

unsigned too_big_drop_from(struct port *port, struct pkt **pkts, unsigned first, unsigned n)
{
	struct port_stats *stats = port_stats(port);
	const uint32_t surely_fits = too_big_surely_fits(port);
	const unsigned mtu = port->mtu;
	unsigned kept = first;

	for (unsigned i = first; i < n; i++) {
		struct pkt *pkt = pkts[i];
		struct port *in = port_by_id(pkt->in_port);

		if (likely(pkt->len <= surely_fits || fits(pkt, mtu))) {
			pkts[kept++] = pkt;
			continue;
		}
		stats->drop_too_big++;
		if (expects_answer(port, in, pkt) && take_ration(in) &&
		    send_answer(port, in, pkt, mtu))
			stats->too_big_answers++;
		pkt_put(pkt);
	}
	return kept;
}
