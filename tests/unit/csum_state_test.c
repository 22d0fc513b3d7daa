/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a guest is told about a packet's checksum, from port_send() to its receive ring: found good
 * (DATA_VALID), still to be finished (NEEDS_CSUM), or neither, in which case the checksum in the
 * packet is right. A packet to be segmented reaches it whole when it can take it.
 */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fake_net.h"
#include "pkt/headers.h"

enum { MSS = 1448, ROOM = 70000 };

#define CSUM FEATURE(VIRTIO_NET_F_GUEST_CSUM)
#define TSO  (CSUM | FEATURE(VIRTIO_NET_F_GUEST_TSO4))

static struct fake_net net;
static struct fake_ring *rx = &net.rings[RX];
static uint8_t bytes[FRAME_MAX], got[ROOM];

static const struct csum_case {
	const char *what;
	uint64_t features;
	uint8_t flags, gso_type; /* of the packet */
	unsigned packets;        /* that the guest gets */
	uint8_t vnet_flags, vnet_gso;
} cases[] = {
	{ "good, and it may be said", CSUM, PKT_CSUM_VALID, 0, 1, VNET_DATA_VALID, 0 },
	{ "good, but it may not be said", 0, PKT_CSUM_VALID, 0, 1, 0, 0 },
	{ "unknown", CSUM, 0, 0, 1, 0, 0 },
	{ "to be finished by the guest", CSUM, PKT_CSUM_PARTIAL, 0, 1, VNET_NEEDS_CSUM, 0 },
	{ "to be finished by us", 0, PKT_CSUM_PARTIAL, 0, 1, 0, 0 },
	{ "whole", TSO, PKT_CSUM_PARTIAL, PKT_GSO_TCPV4, 1, VNET_NEEDS_CSUM, PKT_GSO_TCPV4 },
	{ "segmented", CSUM, PKT_CSUM_PARTIAL, PKT_GSO_TCPV4, 3, VNET_NEEDS_CSUM, 0 },
	{ "segmented and finished", 0, PKT_CSUM_PARTIAL, PKT_GSO_TCPV4, 3, 0, 0 },
};

/* Send the case's packet. What its checksum field holds is right for its state. */
static void send_case(const struct csum_case *c, struct frame *frame)
{
	struct frame_desc desc = { .ip = 4,
				   .proto = IPPROTO_TCP,
				   .payload = c->gso_type ? 2 * MSS + 100 : 100 };
	uint64_t seed = 1;
	struct pkt *pkt;

	frame_build(frame, &desc, &seed);
	if (!(c->flags & PKT_CSUM_PARTIAL))
		be16(bytes + frame->l4 + 16,
		     ~slow_sum(bytes + frame->l4, frame->len - frame->l4, 0));
	assert_int_equal(pkt_pool_get(&net.worker->pool, &pkt, 1), 1);
	pkt->len = frame->len;
	pkt->header_len = PKT_HEADER_FAST;
	memcpy(pkt->header, bytes, PKT_HEADER_FAST);
	pkt->frags[0] = (struct iovec){ bytes + PKT_HEADER_FAST, frame->len - PKT_HEADER_FAST };
	pkt->frag_count = 1;
	pkt->offload.flags = c->flags;
	if (c->flags & PKT_CSUM_PARTIAL) {
		pkt->offload.csum_start = frame->l4;
		pkt->offload.csum_offset = 16;
	}
	pkt->offload.gso_type = c->gso_type;
	pkt->offload.gso_size = c->gso_type ? MSS : 0;
	assert_true(headers_check_offload(pkt));
	port_send(&net.device->channel.port, &pkt, 1);
	worker_complete(net.worker);
}

/* Does the checksum of what the guest got verify? */
static bool verifies(const struct frame *frame, uint32_t len)
{
	struct frame received = *frame;

	received.bytes = got + VNET_LEN;
	return slow_sum(received.bytes + frame->l4, len - frame->l4,
			slow_pseudo(&received, len - frame->l4)) == 0xffff;
}

static void test_what_the_guest_is_told(void **state)
{
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct csum_case *c = &cases[i];
		struct frame frame = { .bytes = bytes };
		struct virtq_used_elem elem;
		unsigned packets = 0;

		fake_net_init(&net);
		net.device->channel.port.mtu = 1500;
		fake_net_start(&net, MODERN | c->features);
		for (unsigned j = 0; j < 4; j++) {
			struct fake_buf buf = { fake_alloc(&net.guest, ROOM), ROOM };

			fake_offer(rx, fake_chain(rx, &buf, 1, VIRTQ_DESC_WRITE));
		}
		send_case(c, &frame);
		for (; fake_used(rx, &elem); packets++) {
			fake_read(&net.guest, rx->desc[elem.id].addr, got, elem.len);
			if (got[0] != c->vnet_flags || got[1] != c->vnet_gso)
				fail_msg("%s: flags %u, GSO type %u", c->what, got[0], got[1]);
			if (got[0] & VNET_NEEDS_CSUM)
				assert_int_equal(vnet_get16(got + 6), frame.l4);
			else if (!verifies(&frame, elem.len - VNET_LEN))
				fail_msg("%s: a wrong checksum", c->what);
		}
		if (packets != c->packets)
			fail_msg("%s: %u packets", c->what, packets);
		assert_true(fake_net_fini(&net));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_what_the_guest_is_told) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
