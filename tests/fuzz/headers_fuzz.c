/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Parsing and judging: frames with their headers damaged and of another length than they say, any
 * virtio_net_hdr, any geometry. What is found is what a plain parser finds; no byte changes; a
 * request that passes writes behind the IP header and within the frame only.
 *
 *      input: frame 10, geometry 4, length change 1, virtio_net_hdr 6 or 8, damage
 */
#include "offload/offload.h"
#include "packet.h"
#include "pkt/headers.h"

static void check_request(struct pkt *pkt, const uint8_t *before)
{
	uint32_t gso_size = pkt->offload.gso_size, payload = pkt->len - pkt->payload_off;
	uint32_t field = pkt->offload.csum_start + pkt->offload.csum_offset;
	uint8_t *after = malloc(pkt->len);

	if (pkt->offload.gso_type != PKT_GSO_NONE) {
		HOLDS(pkt->payload_off && gso_size && payload > gso_size);
		HOLDS(payload <= gso_size * GSO_TCP_SEGMENTS_MAX);
		HOLDS(pkt->offload.csum_start == pkt->l4_off);
		HOLDS(pkt->offload.flags & PKT_CSUM_PARTIAL);
	} else {
		HOLDS(gso_size == 0 && !(pkt->offload.flags & PKT_GSO_ECN));
	}
	if (pkt->offload.flags & PKT_CSUM_PARTIAL) {
		HOLDS(pkt->l3_off && pkt->offload.csum_start >= pkt->l3_off);
		HOLDS(pkt->offload.csum_start >= pkt->l4_off && field + 2 <= pkt->len);
		HOLDS(offload_finish_checksum(pkt));
		pkt_copy_out(pkt, 0, after, pkt->len);
		HOLDS(rd16(after + field) != 0);
		memcpy(after + field, before + field, 2);
		HOLDS(memcmp(after, before, pkt->len) == 0);
	}
	free(after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t frame_bytes[FRAME_MAX], out[FRAME_MAX];
	struct input input = { data, size }, geometry;
	struct frame frame = { .bytes = frame_bytes };
	uint8_t vnet[VNET_LEN];
	struct pkt pkt;

	take_frame(&input, &frame);
	geometry = input;
	take16(&input);
	take16(&input);

	int8_t longer = take8(&input);

	take_vnet(&input, &frame, vnet);
	damage_frame(&input, &frame);
	if ((int)frame.len + longer >= PKT_LEN_MIN && frame.len + longer <= PKT_LEN_MAX)
		frame.len += longer;
	take_geometry(&geometry, &pkt, frame.bytes, frame.len);

	struct found want = slow_parse(frame.bytes, frame.len);

	HOLDS(headers_flow_hash(&pkt) != 0);
	HOLDS(pkt.l3_off == want.l3 && pkt.l4_off == want.l4);
	HOLDS(pkt.l4_proto == want.proto && pkt.payload_off == want.payload);

	bool passes = vnet_to_offload(vnet, &pkt.offload) && headers_check_offload(&pkt);

	pkt_copy_out(&pkt, 0, out, pkt.len);
	HOLDS(memcmp(out, frame.bytes, pkt.len) == 0);
	if (passes)
		check_request(&pkt, frame.bytes);
	pkt_empty(&pkt);
	return 0;
}
