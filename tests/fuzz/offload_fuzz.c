/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The offload driver: packets of every shape and geometry, some of their header bytes damaged, with
 * every request, to two ports of any capability one after the other, as when flooded. Whatever
 * passes headers_check_offload()
 *
 *      - is never more than the port can do, nor in pieces when it takes none, and keeps its place
 *        among its neighbours;
 *      - arrives whole and unchanged but for its checksum, or as segments no larger and no more than
 *        allowed whose payload makes up the packet's;
 *      - has right checksums once a device that can has finished those left to it;
 *      - comes back, and all of the pool with it; when the port keeps packets and the pool runs dry,
 *        what is lost is the end, and counted;
 *      - is dropped if it does not fit the first port's MTU, and what its sender may be told then is
 *        a well-formed ICMP message, never about another ICMP error.
 *
 *      input: frame 10, modes 1, MTU 2, capabilities 2, virtio_net_hdr 7 or 9, geometry 4, damage
 */
#include <net/ethernet.h>

#include "bridge/bridge.h"
#include "offload/offload.h"
#include "packet.h"
#include "pkt/headers.h"

enum { POOL_PACKETS = 40, KEPT_MAX = 300 };
enum modes { HONEST = 1, KEEP = 2, NEIGHBOURS = 4, GSO = 8, SMALL_MTU = 16 };

static const uint8_t sender[6] = { 2, 0, 0, 0, 0, 1 }, receiver[6] = { 2, 0, 0, 0, 0, 2 };

static struct frame frame; /* the packet as it was sent */
static struct pkt_offload asked;
static struct pkt pkt, neighbours[2];
static struct port from, to; /* on a bridge, for answers about what is too big */

/* What one port got. */
static struct {
	uint32_t payload; /* bytes seen */
	unsigned packets, neighbours, answers;
	bool keep;
	struct pkt *kept[KEPT_MAX];
	unsigned kept_count;
} got;

static void device_checksum(uint8_t *bytes, uint32_t len, const struct pkt_offload *offload)
{
	uint32_t csum = slow_sum(bytes + offload->csum_start, len - offload->csum_start, 0) ^
			0xffff;

	be16(bytes + offload->csum_start + offload->csum_offset, csum ? csum : 0xffff);
}

static void check_segment(uint8_t *bytes, uint32_t len)
{
	struct frame flat = frame;
	uint32_t payload = len - frame.payload, l4_len = len - frame.l4;

	HOLDS(len > frame.payload && payload <= asked.gso_size);
	HOLDS(memcmp(bytes + frame.payload, frame.bytes + frame.payload + got.payload, payload) ==
	      0);
	HOLDS(memcmp(bytes, frame.bytes, frame.l3) == 0);
	flat.bytes = bytes;
	HOLDS(slow_sum(bytes + frame.l4, l4_len, slow_pseudo(&flat, l4_len)) == 0xffff);
	if (frame.ip == 4) {
		HOLDS(slow_sum(bytes + frame.l3, frame.l4 - frame.l3, 0) == 0xffff);
		HOLDS(rd16(bytes + frame.l3 + 2) == len - frame.l3);
	} else {
		HOLDS(rd16(bytes + frame.l3 + 4) == len - frame.l3 - 40);
	}
	if (frame.proto == IPPROTO_TCP)
		HOLDS(rd32(bytes + frame.l4 + 4) == rd32(frame.bytes + frame.l4 + 4) + got.payload);
	else
		HOLDS(rd16(bytes + frame.l4 + 4) == l4_len);
	got.payload += payload;
}

static void check_whole(uint8_t *bytes, uint32_t len)
{
	static uint8_t want[FRAME_MAX];

	HOLDS(len == frame.len);
	memcpy(want, frame.bytes, len);
	if (asked.flags & PKT_CSUM_PARTIAL)
		device_checksum(want, len, &asked);
	HOLDS(memcmp(bytes, want, len) == 0);
	got.payload = frame.len - frame.payload;
}

/* What port_ops.send() may count on. */
static void check_form(const struct port *port, const struct pkt *sent)
{
	static uint8_t headers[PKT_HEADER_MAX];
	uint32_t len = sent->l4_off ? sent->l4_off : ETH_HLEN; /* whose copy has to be right */

	HOLDS((offload_needs(sent) & ~port->caps) == 0);
	if (port->caps & PORT_CAP_SG || sent->frag_count == 0)
		return;
	HOLDS(sent->frag_count == 1 && sent->header_len == 0);
	pkt_copy_out(sent, 0, headers, len);
	HOLDS(memcmp(sent->header, headers, len) == 0);
}

static void check_packet(const struct port *port, const struct pkt *sent)
{
	static uint8_t bytes[FRAME_MAX];

	check_form(port, sent);
	HOLDS(sent->len <= frame.len);
	pkt_copy_out(sent, 0, bytes, sent->len);
	if (sent->offload.flags & PKT_CSUM_PARTIAL)
		device_checksum(bytes, sent->len, &sent->offload);
	if (asked.gso_type == PKT_GSO_NONE || sent->offload.gso_type != PKT_GSO_NONE) {
		HOLDS(sent->offload.gso_type == asked.gso_type &&
		      sent->offload.gso_size == asked.gso_size);
		check_whole(bytes, sent->len);
	} else {
		check_segment(bytes, sent->len);
	}
	got.packets++;
}

/* An answer to what is too big: ICMP over the same kind of IP, quoting as much as it may. */
static void check_answer(const struct port *port, const struct pkt *answer)
{
	uint8_t bytes[22 + 1280];
	uint32_t ip_hlen = frame.ip == 4 ? 20 : 40, icmp = frame.l3 + ip_hlen;
	uint32_t icmp_len = answer->len - icmp;
	struct frame flat = { bytes, .l3 = frame.l3, .ip = frame.ip, .proto = 58 };
	const uint8_t *quoted = bytes + icmp + 8, *l4 = frame.bytes + frame.l4;

	HOLDS(answer->len > icmp + 8 && answer->len <= frame.l3 + (frame.ip == 4 ? 576 : 1280));
	check_form(port, answer);
	HOLDS(pkt_needs_nothing(answer));
	pkt_copy_out(answer, 0, bytes, answer->len);
	HOLDS(memcmp(bytes, sender, 6) == 0 && memcmp(bytes + 6, receiver, 6) == 0);
	HOLDS(memcmp(bytes + 12, frame.bytes + 12, frame.l3 - 12) == 0);
	HOLDS(memcmp(quoted, frame.bytes + frame.l3, icmp_len - 8) == 0);
	if (frame.ip == 4) {
		HOLDS(slow_sum(bytes + frame.l3, 20, 0) == 0xffff && bytes[frame.l3 + 9] == 1);
		HOLDS(rd16(bytes + frame.l3 + 2) == answer->len - frame.l3);
		HOLDS(slow_sum(bytes + icmp, icmp_len, 0) == 0xffff);
		HOLDS(bytes[icmp] == 3 && bytes[icmp + 1] == 4);
		HOLDS(rd16(bytes + icmp + 6) == to.mtu);
		HOLDS(frame.proto != 1 || l4[0] == 0 || l4[0] == 8 || l4[0] == 13 || l4[0] == 14);
	} else {
		HOLDS(rd16(bytes + frame.l3 + 4) == icmp_len && bytes[frame.l3 + 6] == 58);
		HOLDS(slow_sum(bytes + icmp, icmp_len, slow_pseudo(&flat, icmp_len)) == 0xffff);
		HOLDS(bytes[icmp] == 2 && rd32(bytes + icmp + 4) == to.mtu && to.mtu >= 1280);
		HOLDS(frame.proto != 58 || l4[0] >= 128);
	}
	got.answers++;
}

static void from_send(struct port *port, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		check_answer(port, pkts[i]);
		pkt_put(pkts[i]);
	}
}

static void sink_send(struct port *port, struct pkt **pkts, unsigned n)
{
	HOLDS(n > 0 && n <= PKT_BURST);
	for (unsigned i = 0; i < n; i++) {
		bool neighbour = pkts[i]->len == PKT_LEN_MIN;

		if (neighbour) {
			/* The first comes before everything, the last after. */
			HOLDS(got.neighbours < 2 && (got.neighbours == 1 || got.packets == 0));
			got.neighbours++;
		} else {
			HOLDS(got.neighbours != 2);
		}
		if (got.keep) {
			HOLDS(got.kept_count < KEPT_MAX);
			got.kept[got.kept_count++] = pkts[i];
		}
		if (!neighbour && !got.keep)
			check_packet(port, pkts[i]);
		if (!got.keep)
			pkt_put(pkts[i]);
	}
}

/* Does the packet, or each segment of it, fit the port? Every frame has the room of one VLAN tag. */
static bool fits(void)
{
	if (frame.len <= to.mtu + ETH_HLEN + 4u)
		return true;
	if (asked.gso_type != PKT_GSO_NONE)
		return frame.payload - frame.l3 + asked.gso_size <= to.mtu;
	return frame.len - frame.l3 <= to.mtu;
}

static void check_outcome(uint8_t modes)
{
	const struct port_stats *stats = &to.stats[0];
	const struct pkt_pool *pool = &worker_self->pool;

	HOLDS(got.neighbours == (modes & NEIGHBOURS ? 2 : 0));
	HOLDS(got.packets <= GSO_TCP_SEGMENTS_MAX);
	HOLDS(stats->drop_too_big == !fits() && stats->too_big_answers == got.answers);
	if (!fits())
		HOLDS(got.packets == 0 && got.answers <= 1);
	else if (got.payload == frame.len - frame.payload)
		HOLDS(stats->drop_offload_failed == 0 && got.answers == 0);
	else
		HOLDS(got.keep && stats->drop_offload_failed == 1);
	HOLDS(pkt.refs == 1 && neighbours[0].refs == 1 && neighbours[1].refs == 1);
	HOLDS(pool->free_count == POOL_PACKETS && pool->block_count == pool->block_capacity);
}

/* One port's turn. */
static void send_to_port(uint8_t caps, uint16_t mtu, uint8_t modes)
{
	struct pkt *burst[3], **next = burst;

	memset(&got, 0, sizeof(got));
	memset(&to.stats[0], 0, sizeof(to.stats[0]));
	to.caps = caps & 0x3f;
	to.mtu = mtu;
	got.keep = modes & KEEP;
	if (modes & NEIGHBOURS)
		*next++ = &neighbours[0];
	*next++ = &pkt;
	if (modes & NEIGHBOURS)
		*next++ = &neighbours[1];
	for (struct pkt **p = burst; p < next; p++)
		(*p)->refs++;
	port_send(&to, burst, next - burst);
	for (unsigned i = 0; i < got.kept_count; i++) {
		if (got.kept[i]->len != PKT_LEN_MIN)
			check_packet(&to, got.kept[i]);
		pkt_put(got.kept[i]);
	}
	worker_complete(worker_self);
	check_outcome(modes);
}

/* The request that goes with the frame, or any. */
static void take_request(struct input *input, uint8_t modes, uint8_t vnet[VNET_LEN])
{
	take_vnet(input, &frame, vnet);
	if (!(modes & HONEST))
		return;
	vnet[0] = VNET_NEEDS_CSUM;
	vnet[1] &= VNET_GSO_ECN;
	if (!(modes & GSO))
		vnet[1] = PKT_GSO_NONE;
	else if (frame.proto == IPPROTO_UDP)
		vnet[1] = PKT_GSO_UDP;
	else
		vnet[1] |= frame.ip == 4 ? PKT_GSO_TCPV4 : PKT_GSO_TCPV6;
	vnet_put16(vnet + 6, frame.l4);
	vnet_put16(vnet + 8, frame.proto == IPPROTO_UDP ? 6 : 16);
}

static void start_port(struct port *port, const struct port_ops *ops, struct bridge *bridge,
		       const uint8_t *mac)
{
	struct error error;

	strcpy(port->name, ops->kind);
	port->ops = ops;
	port->mtu = UINT16_MAX;
	HOLDS(!port_register(port) && !bridge_add_port(bridge, port, &error));
	HOLDS(!mac_table_add_static(&bridge->fdb, mac, port->id));
}

static void start(void)
{
	static const struct port_ops from_ops = { .kind = "from", .send = from_send };
	static const struct port_ops to_ops = { .kind = "to", .send = sink_send };
	static uint8_t bytes[PKT_LEN_MIN];
	struct bridge *bridge;
	struct error error;
	uint64_t seed = 1;

	fake_worker(POOL_PACKETS);
	frame.bytes = malloc(FRAME_MAX);
	HOLDS(!bridge_create("br0", 0, 0, &bridge, &error));
	start_port(&from, &from_ops, bridge, sender);
	start_port(&to, &to_ops, bridge, receiver);
	for (int i = 0; i < 2; i++)
		pkt_fill(&neighbours[i], bytes, sizeof(bytes), sizeof(bytes), 1, &seed);
}

/* What the packet is, from its bytes. */
static void describe_frame(void)
{
	struct found found = slow_parse(frame.bytes, frame.len);

	frame.l3 = found.l3;
	frame.l4 = found.l4;
	frame.payload = found.payload;
	frame.proto = found.proto;
	frame.ip = frame.bytes[found.l3] >> 4;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size }, geometry;
	uint8_t vnet[VNET_LEN], caps[2], modes;
	uint16_t mtu;

	if (!worker_self)
		start();
	take_frame(&input, &frame);
	modes = take8(&input);
	mtu = take16(&input);
	caps[0] = take8(&input);
	caps[1] = take8(&input);
	take_request(&input, modes, vnet);
	geometry = input;
	take16(&input);
	take16(&input);
	damage_frame(&input, &frame);
	if (frame.len <= PKT_LEN_MIN)
		return 0;
	memcpy(frame.bytes, receiver, 6);
	memcpy(frame.bytes + 6, sender, 6);
	take_geometry(&geometry, &pkt, frame.bytes, frame.len);
	pkt.in_port = from.id;
	if (vnet_to_offload(vnet, &pkt.offload) && headers_check_offload(&pkt)) {
		describe_frame();
		asked = pkt.offload;
		from.caps = caps[1] & 0x3f;
		send_to_port(caps[0], modes & SMALL_MTU ? mtu : UINT16_MAX, modes);
		send_to_port(caps[1], UINT16_MAX, modes);
	}
	pkt_empty(&pkt);
	return 0;
}
