// SPDX-License-Identifier: BSD-3-Clause
/* Test frames whose every byte can be checked at the other end; see frame.h. */
#include "frame.h"

#include <arpa/inet.h>
#include <linux/virtio_config.h>
#include <string.h>

#define BIT(n) (UINT64_C(1) << (n))

static uint8_t pattern(uint32_t position)
{
	return (uint8_t)(position ^ position >> 7 ^ (position >> 15) * 37);
}

static void fill(uint8_t *at, uint32_t position, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		at[i] = pattern(position + i);
}

static bool filled(const uint8_t *at, uint32_t position, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		if (at[i] != pattern(position + i))
			return false;
	return true;
}

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static void put16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

/* Internet checksum, unfolded, in host order. */
static uint32_t sum(const uint8_t *at, unsigned len, uint32_t start)
{
	uint64_t total = start;

	for (; len > 1; at += 2, len -= 2)
		total += get16(at);
	if (len)
		total += (uint32_t)at[0] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint32_t)total;
}

/* Of addresses (len bytes at at), protocol and length. */
static uint32_t pseudo(const uint8_t *at, unsigned len, unsigned protocol, unsigned l4_len)
{
	return sum(at, len, protocol + (l4_len >> 16) + (l4_len & 0xffff));
}

static void put_ethernet(uint8_t *frame, const struct frame_addresses *to, unsigned type)
{
	memcpy(frame, to->dst, 6);
	memcpy(frame + 6, to->src, 6);
	put16(frame + 12, type);
}

static void put_ipv4(uint8_t *ip, unsigned len, unsigned protocol)
{
	static const uint8_t start[20] = { 0x45, [8] = 64, [12] = 10, 0, 0, 1, 10, 0, 0, 2 };

	memcpy(ip, start, sizeof(start));
	put16(ip + 2, len);
	ip[9] = (uint8_t)protocol;
	put16(ip + 10, ~sum(ip, 20, 0) & 0xffff);
}

static void put_ipv6(uint8_t *ip, unsigned payload_len, unsigned protocol)
{
	static const uint8_t start[40] = {
		0x60, [7] = 64, [8] = 0xfd, [23] = 1, [24] = 0xfd, [39] = 2
	};

	memcpy(ip, start, sizeof(start));
	put16(ip + 4, payload_len);
	ip[6] = (uint8_t)protocol;
}

unsigned frame_udp(uint8_t *frame, const struct frame_addresses *to, uint64_t number,
		   unsigned payload_len)
{
	uint8_t *ip = frame + 14, *udp = ip + 20;
	unsigned l4_len = 8 + payload_len;

	put_ethernet(frame, to, 0x0800);
	put_ipv4(ip, 20 + l4_len, IPPROTO_UDP);
	put16(udp, 7000);
	put16(udp + 2, 7001);
	put16(udp + 4, l4_len);
	put16(udp + 6, 0);
	memcpy(udp + 8, &number, 8);
	fill(udp + 16, (uint32_t)number, payload_len - 8);
	put16(udp + 6, ~sum(udp, l4_len, pseudo(ip + 12, 8, IPPROTO_UDP, l4_len)) & 0xffff);
	return 14 + 20 + l4_len;
}

int64_t frame_udp_check(const uint8_t *frame, unsigned len)
{
	const uint8_t *ip = frame + 14, *udp = ip + 20;
	int64_t number;

	if (len < FRAME_UDP_HEADERS + 8 || get16(frame + 12) != 0x0800 || ip[0] != 0x45 ||
	    ip[9] != IPPROTO_UDP || get16(udp) != 7000)
		return -1;
	if (sum(ip, 20, 0) != 0xffff || 14u + get16(ip + 2) != len || 34u + get16(udp + 4) != len ||
	    sum(udp, len - 34, pseudo(ip + 12, 8, IPPROTO_UDP, len - 34)) != 0xffff)
		return -1;
	memcpy(&number, udp + 8, 8);
	return filled(udp + 16, (uint32_t)number, len - FRAME_UDP_HEADERS - 8) ? number : -1;
}

unsigned frame_tcp(uint8_t *frame, const struct frame_addresses *to, uint32_t seq,
		   unsigned payload_len, bool ipv6, unsigned gso_size,
		   struct virtio_net_hdr_v1 *hdr)
{
	uint8_t *ip = frame + 14, *tcp = ip + (ipv6 ? 40 : 20);
	unsigned l4_len = 20 + payload_len, headers = (unsigned)(tcp - frame) + 20;

	put_ethernet(frame, to, ipv6 ? 0x86dd : 0x0800);
	memset(tcp, 0, 20);
	put16(tcp, 7000);
	put16(tcp + 2, 7002);
	put32(tcp + 4, seq);
	tcp[12] = 5 << 4;
	tcp[13] = 0x10; /* ACK */
	put16(tcp + 14, 0xffff);
	fill(tcp + 20, seq, payload_len);
	if (ipv6) {
		put_ipv6(ip, l4_len, IPPROTO_TCP);
		put16(tcp + 16, pseudo(ip + 8, 32, IPPROTO_TCP, l4_len));
	} else {
		put_ipv4(ip, 20 + l4_len, IPPROTO_TCP);
		put16(tcp + 16, pseudo(ip + 12, 8, IPPROTO_TCP, l4_len));
	}
	*hdr = (struct virtio_net_hdr_v1){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					   .csum_offset = 16 };
	hdr->csum_start = (uint16_t)(tcp - frame);
	if (gso_size) {
		hdr->gso_type = ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
		hdr->gso_size = (uint16_t)gso_size;
		hdr->hdr_len = (uint16_t)headers;
	}
	return headers + payload_len;
}

int frame_tcp_check(const uint8_t *frame, unsigned len, const struct virtio_net_hdr_v1 *hdr,
		    uint32_t *seq)
{
	bool ipv6 = len > 14 && get16(frame + 12) == 0x86dd;
	const uint8_t *ip = frame + 14, *tcp = ip + (ipv6 ? 40 : 20);
	unsigned headers = (unsigned)(tcp - frame) + 20;

	if (len < headers || (ipv6 ? ip[6] : ip[9]) != IPPROTO_TCP || get16(tcp) != 7000 ||
	    tcp[12] != 5 << 4)
		return -1;
	unsigned l4_len = len - headers + 20;
	uint32_t start = ipv6 ? pseudo(ip + 8, 32, IPPROTO_TCP, l4_len)
			      : pseudo(ip + 12, 8, IPPROTO_TCP, l4_len);

	if (ipv6 ? get16(ip + 4) != l4_len
		 : get16(ip + 2) != 20 + l4_len || sum(ip, 20, 0) != 0xffff)
		return -1;
	if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		if (hdr->csum_start != headers - 20 || hdr->csum_offset != 16 ||
		    get16(tcp + 16) != start)
			return -1;
	} else if (sum(tcp, l4_len, start) != 0xffff) {
		return -1;
	}
	*seq = (uint32_t)get16(tcp + 4) << 16 | get16(tcp + 6);
	return filled(tcp + 20, *seq, len - headers) ? (int)(len - headers) : -1;
}

const char *frame_hdr_wrong(const struct virtio_net_hdr_v1 *hdr, const uint8_t *frame, unsigned len,
			    uint64_t features)
{
	static const uint64_t needs[] = { [VIRTIO_NET_HDR_GSO_TCPV4] = BIT(VIRTIO_NET_F_GUEST_TSO4),
					  [VIRTIO_NET_HDR_GSO_TCPV6] = BIT(VIRTIO_NET_F_GUEST_TSO6),
					  [5 /* UDP_L4 */] = BIT(54) | BIT(55) };
	static const uint16_t types[] = {
		[VIRTIO_NET_HDR_GSO_TCPV4] = 0x0800, [VIRTIO_NET_HDR_GSO_TCPV6] = 0x86dd
	};
	unsigned gso = hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN, tag = 0;

	if (len < 14)
		return "frame shorter than an Ethernet header";
	if (hdr->flags & ~(VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID))
		return "unknown flags";
	if (hdr->flags && !(features & BIT(VIRTIO_NET_F_GUEST_CSUM)))
		return "flags without GUEST_CSUM";
	if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM &&
	    (unsigned)hdr->csum_start + hdr->csum_offset + 2 > len)
		return "checksum outside the frame";
	if (gso == VIRTIO_NET_HDR_GSO_NONE)
		return NULL;
	if (gso >= sizeof(needs) / sizeof(needs[0]) || !(features & needs[gso]))
		return "segmentation type that was not negotiated";
	if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return "segmentation without a checksum request";
	if (hdr->gso_size == 0 || hdr->csum_start >= len || hdr->gso_size >= len)
		return "segment size";
	while (tag < 8 && len > 18 + tag &&
	       (get16(frame + 12 + tag) == 0x8100 || get16(frame + 12 + tag) == 0x88a8))
		tag += 4;
	if (gso < 5 && get16(frame + 12 + tag) != types[gso])
		return "segmentation type that contradicts the frame";
	return NULL;
}
