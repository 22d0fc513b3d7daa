/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Segmenting: GSO packets of every shape and geometry, some of their header bytes damaged, through
 * a port that can do nothing. Whatever passes headers_check_offload() leaves as segments whose
 * payload makes up the packet's, whose checksums verify, and everything comes back to the pool.
 *
 *      input: frame 9, gso_size 2, geometry 4, damage
 */
#include "offload/offload.h"
#include "packet.h"
#include "pkt/headers.h"

enum { POOL_PACKETS = 40 };

static struct frame frame;
static uint32_t gso_size, payload_seen;

static void check_segment(const struct pkt *segment)
{
	static uint8_t bytes[FRAME_MAX];
	struct frame flat = frame;
	uint32_t payload = segment->len - frame.payload, l4_len = segment->len - frame.l4;

	HOLDS(pkt_needs_nothing(segment) && segment->refs == 1);
	HOLDS(segment->len > frame.payload && payload <= gso_size);
	pkt_copy_out(segment, 0, bytes, segment->len);
	flat.bytes = bytes;
	HOLDS(memcmp(bytes + frame.payload, frame.bytes + frame.payload + payload_seen, payload) ==
	      0);
	HOLDS(memcmp(bytes, frame.bytes, frame.l3) == 0);
	HOLDS(slow_sum(bytes + frame.l4, l4_len, slow_pseudo(&flat, l4_len)) == 0xffff);
	if (frame.ip == 4) {
		HOLDS(slow_sum(bytes + frame.l3, frame.l4 - frame.l3, 0) == 0xffff);
		HOLDS(rd16(bytes + frame.l3 + 2) == segment->len - frame.l3);
	} else {
		HOLDS(rd16(bytes + frame.l3 + 4) == segment->len - frame.l3 - 40);
	}
	payload_seen += payload;
}

static void sink_send(struct port *port, struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		check_segment(pkts[i]);
		pkt_put(pkts[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct port_ops ops = { .kind = "sink", .send = sink_send };
	static struct worker *worker;
	static struct port_stats stats;
	struct port port = { .ops = &ops, .stats = &stats };
	struct input input = { data, size }, geometry;
	static struct pkt pkt, *burst;

	if (size < 15)
		return 0;
	if (!worker) {
		worker = fake_worker(POOL_PACKETS);
		frame.bytes = malloc(FRAME_MAX);
	}
	take_frame(&input, &frame);
	gso_size = take16(&input);
	geometry = input;
	input.data += 4;
	input.len -= 4;
	damage_frame(&input, &frame);
	take_geometry(&geometry, &pkt, frame.bytes, frame.len);
	pkt.offload = (struct pkt_offload){
		.flags = PKT_CSUM_PARTIAL,
		.gso_type = frame.proto == IPPROTO_UDP ? PKT_GSO_UDP
			    : frame.ip == 4            ? PKT_GSO_TCPV4
						       : PKT_GSO_TCPV6,
		.gso_size = gso_size,
		.csum_start = frame.l4,
		.csum_offset = frame.proto == IPPROTO_UDP ? 6 : 16,
	};
	if (headers_check_offload(&pkt) && pkt.offload.gso_type != PKT_GSO_NONE) {
		struct found found = slow_parse(frame.bytes, frame.len);

		frame.l3 = found.l3;
		frame.l4 = found.l4;
		frame.payload = found.payload;
		payload_seen = 0;
		burst = &pkt;
		pkt.refs = 2;
		port_send(&port, &burst, 1);
		worker_complete(worker);
		HOLDS(payload_seen == frame.len - frame.payload && pkt.refs == 1);
		HOLDS(worker->pool.free_count == POOL_PACKETS);
		HOLDS(worker->pool.block_count == worker->pool.block_capacity);
	}
	pkt_empty(&pkt);
	return 0;
}
