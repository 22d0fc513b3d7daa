/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The offload driver: packets of every shape and geometry, some of their header bytes damaged, with
 * every request, to two ports of any capability one after the other, as when flooded. Whatever
 * passes headers_check_offload()
 *
 *      - is never more than the port can do, and keeps its place among its neighbours;
 *      - arrives whole and unchanged but for its checksum, or as segments no larger and no more than
 *        allowed whose payload makes up the packet's;
 *      - has right checksums once a device that can has finished those left to it;
 *      - comes back, and all of the pool with it; when the port keeps packets and the pool runs dry,
 *        what is lost is the end, and counted.
 *
 *      input: frame 10, modes 1, capabilities 2, virtio_net_hdr 7 or 9, geometry 4, damage
 */
#include "offload/offload.h"
#include "packet.h"
#include "pkt/headers.h"

enum { POOL_PACKETS = 40, KEPT_MAX = 300, HONEST = 1, KEEP = 2, NEIGHBOURS = 4, GSO = 8 };

static struct frame frame; /* the packet as it was sent */
static struct pkt_offload asked;
static struct pkt pkt, neighbours[2];

/* What one port got. */
static struct {
	uint32_t payload; /* bytes seen */
	unsigned packets, neighbours;
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

static void check_packet(const struct port *port, const struct pkt *sent)
{
	static uint8_t bytes[FRAME_MAX];

	HOLDS((offload_needs(sent) & ~port->caps) == 0 && sent->len <= frame.len);
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

/* One port's turn. Capabilities beyond SG and CSUM only count with these, as everywhere. */
static void send_to_port(uint8_t caps, uint8_t modes)
{
	static const struct port_ops ops = { .kind = "sink", .send = sink_send };
	struct port_stats stats = { 0 };
	struct port port = { .ops = &ops, .stats = &stats, .caps = caps & 0x3f, .mtu = 65535 };
	struct pkt *burst[3], **next = burst;
	struct pkt_pool *pool = &worker_self->pool;

	memset(&got, 0, sizeof(got));
	got.keep = modes & KEEP;
	if (modes & NEIGHBOURS)
		*next++ = &neighbours[0];
	*next++ = &pkt;
	if (modes & NEIGHBOURS)
		*next++ = &neighbours[1];
	for (struct pkt **p = burst; p < next; p++)
		(*p)->refs++;
	port_send(&port, burst, next - burst);
	for (unsigned i = 0; i < got.kept_count; i++) {
		if (got.kept[i]->len != PKT_LEN_MIN)
			check_packet(&port, got.kept[i]);
		pkt_put(got.kept[i]);
	}
	worker_complete(worker_self);

	HOLDS(got.neighbours == (modes & NEIGHBOURS ? 2 : 0));
	HOLDS(got.packets <= GSO_TCP_SEGMENTS_MAX);
	if (got.payload == frame.len - frame.payload)
		HOLDS(stats.drop_offload_failed == 0);
	else
		HOLDS(got.keep && stats.drop_offload_failed == 1);
	HOLDS(pkt.refs == 1 && neighbours[0].refs == 1 && neighbours[1].refs == 1);
	HOLDS(pool->free_count == POOL_PACKETS && pool->block_count == pool->block_capacity);
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

static void start(void)
{
	static uint8_t bytes[PKT_LEN_MIN];
	uint64_t seed = 1;

	fake_worker(POOL_PACKETS);
	frame.bytes = malloc(FRAME_MAX);
	pkt_fill(&neighbours[0], bytes, sizeof(bytes), sizeof(bytes), 1, &seed);
	pkt_fill(&neighbours[1], bytes, sizeof(bytes), sizeof(bytes), 1, &seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size }, geometry;
	uint8_t vnet[VNET_LEN], caps[2], modes;
	struct found found;

	if (!worker_self)
		start();
	take_frame(&input, &frame);
	modes = take8(&input);
	caps[0] = take8(&input);
	caps[1] = take8(&input);
	take_request(&input, modes, vnet);
	geometry = input;
	take16(&input);
	take16(&input);
	damage_frame(&input, &frame);
	if (frame.len <= PKT_LEN_MIN)
		return 0;
	take_geometry(&geometry, &pkt, frame.bytes, frame.len);
	if (vnet_to_offload(vnet, &pkt.offload) && headers_check_offload(&pkt)) {
		found = slow_parse(frame.bytes, frame.len);
		frame.l3 = found.l3;
		frame.l4 = found.l4;
		frame.payload = found.payload;
		frame.proto = found.proto;
		frame.ip = frame.bytes[found.l3] >> 4;
		asked = pkt.offload;
		send_to_port(caps[0], modes);
		send_to_port(caps[1], modes);
	}
	pkt_empty(&pkt);
	return 0;
}
