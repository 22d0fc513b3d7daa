/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Headers: parsing, judging offload requests, flow hash.
 *
 * Theory of operation. The bridge forwards by MAC address and needs nothing of this. Whoever
 * needs more (a packet with an offload request, software offload, a hash to choose a queue by)
 * parses on demand, once; the result is in the packet's first cache line. Everything is read from
 * the private header copy (M11): a guest that rewrites its packet meanwhile changes nothing that
 * was judged. Bytes missing from the copy are pulled, each once, never read again.
 *
 * An offload request makes us, the kernel behind an uplink or another guest write into the
 * packet. What is accepted follows what real guests send and Linux accepts
 * (include/linux/virtio_net.h), with two additions: the checksum field must not lie in the
 * Ethernet, VLAN or IP header, which were judged before it is written, and one packet becomes a
 * bounded number of segments (of the class of CVE-2024-11614 and CVE-2024-43817).
 */
#include "pkt/headers.h"

#include <net/ethernet.h>
#include <netinet/in.h>

#include "pkt/proto.h"

enum {
	ETHERTYPE_QINQ = 0x88a8,
	IPV4_FRAGMENT_MASK = 0x3fff, /* more fragments, and the offset */
	IPV6_FRAGMENT_MASK = 0xfff9, /* the offset, and more fragments */
};

/* Make sure that n header bytes are in the private copy. */
static inline bool have(struct pkt *pkt, unsigned n)
{
	return likely(n <= pkt->header_len) || (n <= PKT_HEADER_MAX && pkt_pull(pkt, n));
}

/* TCP and UDP of a packet whose IP payload ends at frame offset end. */
static void parse_l4(struct pkt *pkt, unsigned off, uint8_t proto, unsigned end)
{
	const uint8_t *l4 = pkt->header + off;
	unsigned header_end;

	pkt->l4_off = off;
	pkt->l4_proto = proto;
	if (likely(proto == IPPROTO_TCP)) {
		if (off + TCP_HLEN > end || !have(pkt, off + TCP_HLEN))
			return;
		header_end = off + (l4[TCP_DATA_OFFSET] >> 4) * 4;
		if (header_end < off + TCP_HLEN)
			return;
	} else if (proto == IPPROTO_UDP) {
		if (off + UDP_HLEN > end || !have(pkt, off + UDP_HLEN))
			return;
		header_end = off + UDP_HLEN;
		unsigned udp_len = load_be16(l4 + UDP_LEN);

		if (udp_len < UDP_HLEN || off + udp_len > end)
			return;
	} else {
		return;
	}
	if (header_end <= end && header_end <= PKT_HEADER_MAX)
		pkt->payload_off = header_end;
}

static void parse_ipv4(struct pkt *pkt)
{
	unsigned off = pkt->l3_off;
	const uint8_t *ip = pkt->header + off;

	if (!have(pkt, off + IPV4_HLEN))
		return;

	unsigned header_len = (ip[0] & 0xf) * 4;
	unsigned total_len = load_be16(ip + IPV4_TOTAL_LEN);

	if (ip[0] >> 4 != 4 || header_len < IPV4_HLEN || total_len < header_len ||
	    total_len > pkt->len - off || !have(pkt, off + header_len))
		return;

	bool fragment = load_be16(ip + IPV4_FLAGS) & IPV4_FRAGMENT_MASK;

	parse_l4(pkt, off + header_len, fragment ? 0 : ip[IPV4_PROTO], off + total_len);
}

static void parse_ipv6(struct pkt *pkt)
{
	unsigned off = pkt->l3_off;
	const uint8_t *ip = pkt->header + off;

	if (!have(pkt, off + IPV6_HLEN) || ip[0] >> 4 != 6 ||
	    load_be16(ip + IPV6_PAYLOAD_LEN) > pkt->len - off - IPV6_HLEN)
		return;

	unsigned end = off + IPV6_HLEN + load_be16(ip + IPV6_PAYLOAD_LEN);
	uint8_t proto = ip[IPV6_NEXT];

	/* Ends because each extension header is at least 8 bytes and the header copy is bounded. */
	for (off += IPV6_HLEN;;) {
		const uint8_t *ext = pkt->header + off;
		unsigned ext_len;

		switch (proto) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_DSTOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_FRAGMENT:
			break;
		default:
			parse_l4(pkt, off, proto, end);
			return;
		}
		if (off + 8 > end || !have(pkt, off + 8))
			return;
		ext_len = proto == IPPROTO_FRAGMENT ? 8 : 8 + ext[1] * 8;
		if (off + ext_len > end || !have(pkt, off + ext_len))
			return;
		off += ext_len;
		if ((proto == IPPROTO_FRAGMENT && load_be16(ext + 2) & IPV6_FRAGMENT_MASK) ||
		    (proto == IPPROTO_ROUTING && ext[3] != 0)) {
			parse_l4(pkt, off, 0, end);
			return;
		}
		proto = ext[0];
	}
}

static inline bool is_vlan(uint16_t ethertype)
{
	return ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ;
}

void headers_parse_now(struct pkt *pkt)
{
	unsigned off = ETH_HLEN;

	if (!have(pkt, off))
		return;

	uint16_t ethertype = load_be16(pkt->header + off - 2);

	for (int tags = 0; tags < 2 && unlikely(is_vlan(ethertype)) && have(pkt, off + VLAN_HLEN);
	     tags++) {
		off += VLAN_HLEN;
		ethertype = load_be16(pkt->header + off - 2);
	}
	pkt->l3_off = off;
	if (likely(ethertype == ETHERTYPE_IP))
		parse_ipv4(pkt);
	else if (ethertype == ETHERTYPE_IPV6)
		parse_ipv6(pkt);
}

static bool check_checksum(const struct pkt *pkt)
{
	unsigned start = pkt->offload.csum_start, offset = pkt->offload.csum_offset;
	unsigned field_end = start + offset + 2;
	unsigned l4_off = pkt->l4_off, inner_off = l4_off;

	if (field_end > pkt->len || field_end > PKT_HEADER_MAX || start < pkt->l3_off)
		return false;
	if (pkt->l4_proto == IPPROTO_TCP) {
		if (start == l4_off)
			return offset == TCP_CSUM;
		inner_off += TCP_HLEN;
	} else if (pkt->l4_proto == IPPROTO_UDP) {
		if (start == l4_off)
			return offset == UDP_CSUM;
		inner_off += UDP_HLEN;
	}
	return start >= inner_off;
}

static void drop_gso(struct pkt_offload *offload)
{
	offload->gso_type = PKT_GSO_NONE;
	offload->gso_size = 0;
	offload->flags &= ~PKT_GSO_ECN;
}

/* Of a packet with l4_off set: does the IP packet fill the frame? */
static bool ip_fills_frame(const struct pkt *pkt)
{
	return pkt->l3_off + headers_ip_len(pkt) == pkt->len;
}

static bool check_gso(struct pkt *pkt)
{
	struct pkt_offload *offload = &pkt->offload;
	unsigned segments_max = GSO_TCP_SEGMENTS_MAX;

	if (!offload->gso_size || !pkt->payload_off || offload->csum_start != pkt->l4_off ||
	    !ip_fills_frame(pkt))
		return false;
	switch (offload->gso_type) {
	case PKT_GSO_TCPV4:
		if (pkt->l4_proto != IPPROTO_TCP || headers_is_ipv6(pkt))
			return false;
		break;
	case PKT_GSO_TCPV6:
		if (pkt->l4_proto != IPPROTO_TCP || !headers_is_ipv6(pkt))
			return false;
		break;
	case PKT_GSO_UDP:
		if (pkt->l4_proto != IPPROTO_UDP || offload->flags & PKT_GSO_ECN ||
		    load_be16(pkt->header + pkt->l4_off + 4) != pkt->len - pkt->l4_off)
			return false;
		segments_max = GSO_UDP_SEGMENTS_MAX;
		break;
	default:
		return false;
	}

	unsigned payload = pkt->len - pkt->payload_off;

	if (payload > segments_max * offload->gso_size)
		return false;
	if (payload <= offload->gso_size)
		drop_gso(offload);
	return true;
}

bool headers_check_offload(struct pkt *pkt)
{
	struct pkt_offload *offload = &pkt->offload;

	if (pkt_needs_nothing(pkt)) {
		drop_gso(offload);
		return true;
	}
	if (!(offload->flags & PKT_CSUM_PARTIAL))
		return false;
	headers_parse(pkt);
	if (!pkt->l3_off || !check_checksum(pkt))
		return false;
	if (offload->gso_type == PKT_GSO_NONE) {
		drop_gso(offload);
		return true;
	}
	return check_gso(pkt);
}

static inline uint64_t mix(uint64_t hash, uint64_t value)
{
	unsigned __int128 product = (unsigned __int128)(hash ^ value) * 0x9e3779b97f4a7c15u;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

uint32_t headers_flow_hash(struct pkt *pkt)
{
	uint64_t hash = 0x2545f4914f6cdd1d;
	uint32_t ports = 0;

	if (pkt->hash)
		return pkt->hash;
	headers_parse(pkt);

	const uint8_t *l3 = pkt->header + pkt->l3_off;

	if (!pkt->l4_off) {
		/* Bytes 0 to 11: both MAC addresses. */
		hash = mix(mix(hash, load64(pkt->header)), load64(pkt->header + 4));
	} else if (headers_is_ipv6(pkt)) {
		hash = mix(mix(hash, load64(l3 + 8)), load64(l3 + 16));
		hash = mix(mix(hash, load64(l3 + 24)), load64(l3 + 32));
	} else {
		hash = mix(hash, load64(l3 + 12));
	}
	if (pkt->payload_off)
		memcpy(&ports, pkt->header + pkt->l4_off, sizeof(ports));
	hash = mix(hash, (uint64_t)ports << 8 | pkt->l4_proto);
	pkt->hash = (uint32_t)hash ? (uint32_t)hash : 1;
	return pkt->hash;
}
