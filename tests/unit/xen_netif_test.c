/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Xen's netif, back end: what is sent and received, what it costs, and what a front end that lies
 * gets for it.
 *
 *      a: netfront --granted pages-- xen_netif --port--> this file, b's xen_netif, or a fake_port
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include "fake_front.h"
#include "offload/offload.h"
#include "pkt/headers.h"
#include "sys/log.h"

#include <cmocka.h> /* last: it has a macro fail() */

enum { POOL = 512, BURST = 8, BIG = 60000, LONG_LIFE = 0xffffff80 };

static struct worker *worker;
static struct fake_front a, b;
static struct pkt *pkts[PKT_BURST];
static uint8_t bytes[FRAME_MAX];
static uint64_t seed;

static int set_up(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	worker = fake_worker(POOL);
	worker->profile.last = cycles_now();
	fake_xen_init();
	fake_front_init(&a, 1);
	fake_front_init(&b, 2);
	seed = 1;
	return 0;
}

static void forget(struct pkt **some, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		pkt_put(some[i]);
	worker_complete(worker);
}

static int tear_down(void **state)
{
	bool whole;

	if (a.netif)
		fake_front_detach(&a);
	if (b.netif)
		fake_front_detach(&b);
	worker_complete(worker);
	whole = worker->pool.free_count == POOL && fake_xen.mapped == 0;
	fake_xen_fini();
	fake_worker_free(worker);
	return whole ? 0 : -1;
}

static void attach(struct fake_front *front, enum xen_tx_mode mode)
{
	struct xen_config config = fake_front_config(FRONT_CAPS);

	assert_int_equal(fake_front_attach(front, mode, &config), 0);
	fake_xen_reset_counts();
}

static void attach_all(enum xen_tx_mode mode)
{
	attach(&a, mode);
	attach(&b, mode);
}

static struct frame make_tcp(uint32_t payload, int ip)
{
	struct frame frame = { .bytes = bytes };
	struct frame_desc desc = {
		.ip = ip, .proto = IPPROTO_TCP, .tcp_options = 12, .payload = payload
	};

	frame_build(&frame, &desc, &seed);
	return frame;
}

static bool same(const struct pkt *pkt, const uint8_t *frame, uint32_t len)
{
	static uint8_t copy[FRAME_MAX];

	if (pkt->len != len)
		return false;
	pkt_copy_out(pkt, 0, copy, len);
	return memcmp(copy, frame, len) == 0;
}

/* ---- from the guest ---- */

static void test_tx_geometries(void **state)
{
	static const uint32_t heads[] = { 0, 1, 13, 14, 63, 64, 65, 127, 128, 129, 1000, 3996 };
	static const uint32_t sizes[] = { 14, 60, 64, 65, 128, 129, 1514, 4096, 9000, 65000 };

	attach(&a, XEN_TX_COPY);
	for (unsigned i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		for (unsigned j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++) {
			unsigned slots;

			for (uint32_t k = 0; k < sizes[j]; k++)
				bytes[k] = rnd(&seed);
			slots = front_put_frame(&a, bytes, sizes[j], heads[i], 0, 0, 0);
			assert_int_equal(front_take(&a, pkts), 1);
			assert_true(same(pkts[0], bytes, sizes[j]));
			assert_int_equal(front_answers(&a), 0);
			forget(pkts, 1);
			assert_int_equal(front_answers(&a), slots);
		}
	}
	assert_int_equal(a.errors, 0);
}

/* A burst takes one copy call and one notification, of a long life's indexes too. */
static void test_tx_burst_costs(void **state)
{
	struct frame frame = make_tcp(1400, 4);

	fake_front_age(&a, LONG_LIFE);
	attach(&a, XEN_TX_COPY);
	for (unsigned round = 0; round < 20; round++) {
		fake_xen.copy_calls = fake_xen.copies = fake_xen.notifies = 0;
		for (unsigned i = 0; i < PKT_BURST; i++)
			front_put_frame(&a, frame.bytes, frame.len, 4000, 0, 0, 0);
		assert_int_equal(front_take(&a, pkts), PKT_BURST);
		for (unsigned i = 0; i < PKT_BURST; i++)
			assert_true(same(pkts[i], frame.bytes, frame.len));
		forget(pkts, PKT_BURST);
		assert_int_equal(front_take(&a, pkts), 0);
		assert_int_equal(fake_xen.copy_calls, 1);
		assert_int_equal(fake_xen.copies, PKT_BURST);
		assert_int_equal(fake_xen.notifies, 1);
		assert_int_equal(front_answers(&a), PKT_BURST);
	}
	assert_int_equal(front_stats(&a)->recv_packets, 20 * PKT_BURST);
	assert_int_equal(front_stats(&a)->grant_calls, 20);
	assert_int_equal(front_stats(&a)->grant_copies, 20 * PKT_BURST);
}

/* What the front end asks of a packet, and where that is. */
static void check_gso(int ip)
{
	struct frame frame = make_tcp(BIG, ip);
	unsigned slots = front_put_frame(&a, frame.bytes, frame.len, 200,
					 XEN_TXF_CSUM_BLANK | XEN_TXF_DATA_VALIDATED, 1448,
					 ip == 4 ? XEN_GSO_TCPV4 : XEN_GSO_TCPV6);

	assert_int_equal(front_take(&a, pkts), 1);
	assert_int_equal(pkts[0]->offload.flags, PKT_CSUM_PARTIAL);
	assert_int_equal(pkts[0]->offload.csum_start, frame.l4);
	assert_int_equal(pkts[0]->offload.csum_offset, 16);
	assert_int_equal(pkts[0]->offload.gso_type, ip == 4 ? PKT_GSO_TCPV4 : PKT_GSO_TCPV6);
	assert_int_equal(pkts[0]->offload.gso_size, 1448);
	assert_true(same(pkts[0], frame.bytes, frame.len));
	forget(pkts, 1);
	assert_int_equal(front_answers(&a), slots);
	assert_int_equal(a.tx->slots[(a.tx_seen - 1) % XEN_RING].rsp.status, XEN_RSP_NULL);
}

static void test_tx_gso(void **state)
{
	attach(&a, XEN_TX_COPY);
	check_gso(4);
	check_gso(6);
}

/* Segmentation without a blank checksum: the field is made what segmentation needs. */
static void test_tx_gso_full_checksum(void **state)
{
	struct frame frame = make_tcp(5000, 4);
	uint8_t field[2] = { frame.bytes[frame.l4 + 16], frame.bytes[frame.l4 + 17] };

	attach(&a, XEN_TX_COPY);
	frame.bytes[frame.l4 + 16] ^= 0x55;
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 1448, XEN_GSO_TCPV4);
	assert_int_equal(front_take(&a, pkts), 1);
	assert_int_equal(pkts[0]->offload.flags, PKT_CSUM_PARTIAL);
	assert_memory_equal(pkts[0]->header + frame.l4 + 16, field, 2);
	forget(pkts, 1);
}

/* Neither TCP nor UDP: there is no field to be finished. */
static void test_tx_checksum_of_nothing(void **state)
{
	struct frame frame = { .bytes = bytes };
	struct frame_desc desc = { .ip = 4, .proto = IPPROTO_ICMP, .payload = 100 };

	frame_build(&frame, &desc, &seed);
	attach(&a, XEN_TX_COPY);
	front_put_frame(&a, frame.bytes, frame.len, 200, XEN_TXF_CSUM_BLANK, 0, 0);
	assert_int_equal(front_take(&a, pkts), 0);
	worker_complete(worker);
	assert_int_equal(front_stats(&a)->drop_bad_vnet_header, 1);
	assert_int_equal(front_answers(&a), 1);
	assert_int_equal(a.errors, 1);
}

/* ---- deferred payload ---- */

/* From Xen guest to Xen guest the payload is copied once, from grant to grant. */
static void test_header_between_guests(void **state)
{
	static struct front_frame got;
	struct frame frame = make_tcp(BIG, 4);

	attach_all(XEN_TX_HEADER);
	front_post(&b, 60);
	for (unsigned i = 0; i < 3; i++)
		front_put_frame(&a, frame.bytes, frame.len, 200, XEN_TXF_CSUM_BLANK, 1448,
				XEN_GSO_TCPV4);
	assert_int_equal(front_take(&a, pkts), 3);
	assert_int_equal(fake_xen.copied_here, 3 * XEN_HEADER_COPY);
	front_deliver(&b, pkts, 3);
	worker_complete(worker);
	assert_int_equal(fake_xen.copied_here, 3 * XEN_HEADER_COPY);
	assert_int_equal(fake_xen.copied_away, 3 * XEN_HEADER_COPY);
	assert_int_equal(fake_xen.copied_between, 3 * (frame.len - XEN_HEADER_COPY));
	assert_int_equal(fake_xen.copy_calls, 2);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(front_frame(&b, &got));
		assert_int_equal(got.len, frame.len);
		assert_memory_equal(got.bytes, frame.bytes, frame.len);
		assert_int_equal(got.gso.gso.size, 1448);
	}
	front_answers(&a);
	assert_int_equal(a.errors, 0);
	assert_int_equal(front_stats(&b)->passed_packets, 3);
}

/* To any other port it is brought here by one copy, for the burst at once, and before anything else
 * is done with it. */
static void check_fetch(uint32_t caps)
{
	static struct fake_port other;
	struct frame frame = make_tcp(3000, 4);

	fake_port_init(&other, "other", 1, 1, 2);
	other.port.caps = caps;
	assert_int_equal(port_register(&other.port), 0);
	fake_xen_reset_counts();
	for (unsigned i = 0; i < BURST; i++)
		front_put_frame(&a, frame.bytes, frame.len, 200, XEN_TXF_CSUM_BLANK, 0, 0);
	assert_int_equal(front_take(&a, pkts), BURST);
	assert_int_equal(fake_xen.copied_here, BURST * XEN_HEADER_COPY);
	for (unsigned i = 0; i < BURST; i++) {
		assert_true(pkts[i]->offload.flags & PKT_REMOTE);
		pkts[i]->refs++;
	}
	other.port.mtu = 9000;
	worker->flush_count = 0;
	port_send(&other.port, pkts, BURST);
	assert_int_equal(fake_xen.copied_here, BURST * frame.len);
	assert_int_equal(fake_xen.copy_calls, 2);
	for (unsigned i = 0; i < BURST; i++) {
		if (caps & PORT_CAP_CSUM) /* otherwise its header has changed */
			assert_true(same(pkts[i], frame.bytes, frame.len));
		assert_false(pkts[i]->offload.flags & PKT_REMOTE);
	}
	assert_int_equal(other.sent, BURST);
	forget(pkts, BURST);
	port_unregister(&other.port);
}

static void test_header_to_other_port(void **state)
{
	attach(&a, XEN_TX_HEADER);
	check_fetch(PORT_CAP_SG | PORT_CAP_CSUM);
	check_fetch(PORT_CAP_SG);
	check_fetch(0);
}

/* Nobody wants it: nothing but its header was copied. */
static void test_header_dropped(void **state)
{
	struct frame frame = make_tcp(3000, 4);

	attach(&a, XEN_TX_HEADER);
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_int_equal(front_take(&a, pkts), 1);
	forget(pkts, 1);
	assert_int_equal(fake_xen.copied_here, XEN_HEADER_COPY);
	assert_int_equal(fake_xen.copy_calls, 1);
}

/* Headers that lie in several slots, or are longer than what is copied, are pulled. */
static void test_header_scattered(void **state)
{
	static const uint32_t heads[] = { 0, 1, 14, 40, 64, 127 };
	struct frame frame = make_tcp(3000, 6);

	attach(&a, XEN_TX_HEADER);
	for (unsigned i = 0; i < 6; i++) {
		front_put_frame(&a, frame.bytes, frame.len, heads[i], XEN_TXF_CSUM_BLANK, 1000,
				XEN_GSO_TCPV6);
		assert_int_equal(front_take(&a, pkts), 1);
		pkt_fetch(pkts, 1);
		assert_false(pkts[0]->offload.flags & PKT_REMOTE);
		assert_true(same(pkts[0], frame.bytes, frame.len));
		forget(pkts, 1);
	}
}

/* A grant that is gone by the time that its payload is wanted: the packet is dropped. */
static void test_header_fetch_fails(void **state)
{
	static struct fake_port other;
	struct frame frame = make_tcp(3000, 4);

	attach(&a, XEN_TX_HEADER);
	fake_port_init(&other, "other", 1, 1, 2);
	other.port.caps = PORT_CAP_SG;
	other.port.mtu = 9000;
	assert_int_equal(port_register(&other.port), 0);
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_int_equal(front_take(&a, pkts), 2);
	fake_revoke(a.domid, FRONT_TX_PAGES);
	worker->flush_count = 0;
	port_send(&other.port, pkts, 2);
	worker_complete(worker);
	assert_int_equal(other.port.stats[0].drop_offload_failed, 1);
	assert_int_equal(other.sent, 1);
	assert_int_equal(front_answers(&a), 4);
	assert_int_equal(a.errors, 2);
	port_unregister(&other.port);
}

static void test_map(void **state)
{
	struct frame frame = make_tcp(BIG, 4);
	unsigned slots;

	attach(&a, XEN_TX_MAP);
	slots = front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_int_equal(front_take(&a, pkts), 1);
	assert_int_equal(fake_xen.maps, slots);
	assert_int_equal(fake_xen.copied_here, XEN_HEADER_COPY);
	assert_true(same(pkts[0], frame.bytes, frame.len));
	forget(pkts, 1);
	assert_int_equal(fake_xen.unmaps, slots);
	front_answers(&a);
	assert_int_equal(a.errors, 0);

	fake_xen.refuse_maps = true;
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_int_equal(front_take(&a, pkts), 0);
	worker_complete(worker);
	front_answers(&a);
	assert_int_equal(a.errors, slots);
}

/* ---- to the guest ---- */

static struct pkt *make_pkt(const struct frame *frame, uint32_t header_len, uint32_t frag)
{
	struct pkt *pkt = NULL;
	uint32_t off = header_len < frame->len ? header_len : frame->len;

	assert_int_equal(pkt_pool_get(&worker->pool, &pkt, 1), 1);
	pkt->len = frame->len;
	pkt->header_len = off;
	pkt->in_port = 0;
	memcpy(pkt->header, frame->bytes, off);
	if (frame->len > off && (frame->len - off) / frag >= PKT_INLINE_FRAGS)
		assert_true(pkt_take_frag_block(&worker->pool, pkt));
	for (; off < frame->len; off += frag) {
		uint32_t part = frame->len - off < frag ? frame->len - off : frag;

		pkt->frags[pkt->frag_count++] = (struct iovec){ frame->bytes + off, part };
	}
	return pkt;
}

/* Any geometry, into as few slots as hold it. */
static void test_rx_geometries(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 46, 150, 1446, 4040, 4042, 4043, 9000, 64000 };
	static const uint32_t frags[] = { 200, 1448, 4096, 70000 };
	static struct front_frame got;

	fake_front_age(&a, LONG_LIFE);
	attach(&a, XEN_TX_COPY);
	front_port(&a)->mtu = 65535;
	for (unsigned i = 0; i < 10; i++) {
		for (unsigned j = 0; j < 4; j++) {
			struct frame frame = make_tcp(sizes[i], 4);
			unsigned slots = (frame.len + XEN_PAGE - 1) / XEN_PAGE;

			pkts[0] = make_pkt(&frame, 64, frags[j]);
			front_post(&a, slots);
			front_deliver(&a, pkts, 1);
			worker_complete(worker);
			assert_true(front_frame(&a, &got));
			assert_int_equal(got.slots, slots);
			assert_int_equal(got.status, 0);
			assert_int_equal(got.len, frame.len);
			assert_memory_equal(got.bytes, frame.bytes, frame.len);
			assert_false(front_frame(&a, &got));
		}
	}
}

/* A burst is one copy call and one notification; small packets are few operations each. */
static void check_rx_burst_costs(unsigned least, unsigned most)
{
	struct frame frame = make_tcp(1400, 4);

	attach(&a, XEN_TX_COPY);
	front_post(&a, 100);
	for (unsigned i = 0; i < PKT_BURST; i++)
		pkts[i] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, PKT_BURST);
	worker_complete(worker);
	assert_int_equal(fake_xen.copy_calls, 1);
	assert_in_range(fake_xen.copies, least, most);
	assert_int_equal(fake_xen.notifies, 1);
	assert_int_equal(front_stats(&a)->send_packets, PKT_BURST);
	assert_int_equal(front_stats(&a)->doorbells, 1);
}

static void test_rx_burst_costs(void **state)
{
	check_rx_burst_costs(PKT_BURST, PKT_BURST);
}

/* There are no pages that we could grant to ourselves: every page of a packet's is a copy. */
static void test_rx_burst_costs_unstaged(void **state)
{
	fake_xen.refuse_own = true;
	check_rx_burst_costs(2 * PKT_BURST, 4 * PKT_BURST);
}

/* An aggregate, its segments where they are, goes straight to the pages; the extra takes a slot. */
static void check_rx_gso(unsigned least, unsigned most)
{
	static struct front_frame got;
	struct frame frame = make_tcp(45 * 1380, 6);

	attach(&a, XEN_TX_COPY);
	front_post(&a, XEN_RX_SLOTS_MAX);
	pkts[0] = make_pkt(&frame, 86, 1380);
	pkts[0]->offload = (struct pkt_offload){ PKT_CSUM_PARTIAL, PKT_GSO_TCPV6, 1380, 54, 16 };
	front_deliver(&a, pkts, 1);
	worker_complete(worker);
	assert_int_equal(fake_xen.copy_calls, 1);
	assert_in_range(fake_xen.copies, least, most);
	assert_int_equal(fake_xen.copied_away, frame.len);
	assert_true(front_frame(&a, &got));
	assert_int_equal(got.slots, 17);
	assert_int_equal(got.len, frame.len);
	assert_memory_equal(got.bytes, frame.bytes, frame.len);
	assert_int_equal(got.gso.type, XEN_EXTRA_GSO);
	assert_int_equal(got.gso.gso.type, XEN_GSO_TCPV6);
	assert_int_equal(got.gso.gso.size, 1380);
	assert_true(got.flags & XEN_RXF_CSUM_BLANK && got.flags & XEN_RXF_DATA_VALIDATED);
}

static void test_rx_gso(void **state)
{
	check_rx_gso(16, 16);
}

static void test_rx_gso_unstaged(void **state)
{
	fake_xen.refuse_own = true;
	check_rx_gso(45, 100); /* a segment of the aggregate at least */
}

/* The response is in the slot of its request, and says its id. */
static void test_rx_slots(void **state)
{
	struct frame frame = make_tcp(9000, 4);

	attach(&a, XEN_TX_COPY);
	front_port(&a)->mtu = 9100;
	front_post(&a, 10);
	a.rx->slots[1].req.id = 77;
	pkts[0] = make_pkt(&frame, 64, 70000);
	pkts[0]->offload.flags = PKT_CSUM_VALID;
	front_deliver(&a, pkts, 1);
	worker_complete(worker);
	assert_int_equal(a.rx->slots[0].rsp.id, 0);
	assert_int_equal(a.rx->slots[0].rsp.status, XEN_PAGE);
	assert_int_equal(a.rx->slots[0].rsp.flags, XEN_RXF_MORE_DATA | XEN_RXF_DATA_VALIDATED);
	assert_int_equal(a.rx->slots[1].rsp.id, 77);
	assert_int_equal(a.rx->slots[2].rsp.status, frame.len - 2 * XEN_PAGE);
	assert_int_equal(a.rx->slots[2].rsp.flags, 0);
}

static void test_rx_too_few_slots(void **state)
{
	static struct front_frame got;
	struct frame big = make_tcp(20000, 4), small;

	attach(&a, XEN_TX_COPY);
	front_port(&a)->mtu = 65000;
	front_post(&a, 3);
	pkts[0] = make_pkt(&big, 64, 70000);
	small = (struct frame){ .bytes = bytes, .len = 100 };
	pkts[1] = make_pkt(&small, 64, 70000);
	front_deliver(&a, pkts, 2);
	worker_complete(worker);
	assert_int_equal(front_stats(&a)->drop_no_buffers, 1);
	assert_int_equal(front_stats(&a)->send_packets, 1);
	assert_true(front_frame(&a, &got));
	assert_int_equal(got.len, 100);
}

/* A front end without feature-sg gets what fits a page. */
static void test_rx_no_sg(void **state)
{
	struct xen_config config = fake_front_config(PORT_CAP_SG);
	struct frame frame = make_tcp(6000, 4);

	config.sg = false;
	assert_int_equal(fake_front_attach(&a, XEN_TX_COPY, &config), 0);
	front_port(&a)->mtu = 9000;
	front_post(&a, 10);
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	worker_complete(worker);
	assert_int_equal(front_stats(&a)->drop_too_big, 1);
}

/* A page that cannot be written: that packet has an error, and no other. */
static void test_rx_copy_fails(void **state)
{
	static struct front_frame got;
	struct frame frame = make_tcp(1000, 4);

	attach(&a, XEN_TX_COPY);
	front_post(&a, 10);
	a.rx->slots[1].req.gref = 5;
	for (unsigned i = 0; i < 3; i++)
		pkts[i] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 3);
	worker_complete(worker);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(front_frame(&a, &got));
		assert_int_equal(got.status, i == 1 ? XEN_RSP_ERROR : 0);
	}
	assert_int_equal(front_stats(&a)->send_packets, 2);
	assert_int_equal(front_stats(&a)->send_bytes, 2 * frame.len);
	assert_int_equal(front_stats(&a)->drop_device_error, 1);
}

/* ---- front ends that lie ---- */

/* The request was read once: what the guest makes of it while it is copied changes nothing. */
static void spoil_ring(void)
{
	memset(a.tx->slots, 0xff, sizeof(a.tx->slots));
	memset(a.rx->slots, 0xff, sizeof(a.rx->slots));
}

static void test_double_fetch(void **state)
{
	static struct front_frame got;
	struct frame frame = make_tcp(5000, 4);
	unsigned slots;

	attach(&a, XEN_TX_COPY);
	front_port(&a)->mtu = 9000;
	fake_xen.on_copy = spoil_ring;
	slots = front_put_frame(&a, frame.bytes, frame.len, 200, XEN_TXF_CSUM_BLANK, 1448,
				XEN_GSO_TCPV4);
	assert_int_equal(front_take(&a, pkts), 1);
	assert_true(same(pkts[0], frame.bytes, frame.len));
	assert_int_equal(pkts[0]->offload.gso_size, 1448);
	forget(pkts, 1);
	assert_int_equal(a.tx->slots[0].rsp.id, 0);
	assert_int_equal(a.tx->slots[1].rsp.id, 2); /* behind the extra */
	assert_int_equal(front_answers(&a), slots);

	front_post(&a, 10);
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	worker_complete(worker);
	assert_true(front_frame(&a, &got));
	assert_int_equal(got.len, frame.len);
	assert_memory_equal(got.bytes, frame.bytes, frame.len);
	fake_xen.on_copy = NULL;
}

/* The interface is broken, as nothing else is; connecting anew mends it. */
static void check_broken(enum xen_error error)
{
	struct frame frame = make_tcp(100, 4);

	assert_int_equal(front_take(&a, pkts), 0);
	worker_complete(worker);
	assert_int_equal(a.netif->error, error);
	assert_int_equal(front_take(&a, pkts), 0);
	assert_false(xen_channel_ops.arm(&a.netif->channel, 0));
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	assert_int_equal(front_stats(&a)->drop_not_ready, 1);
	fake_front_detach(&a);

	front_put_frame(&b, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_int_equal(front_take(&b, pkts), 1);
	forget(pkts, 1);

	fake_front_age(&a, 0);
	attach(&a, XEN_TX_COPY);
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_int_equal(front_take(&a, pkts), 1);
	forget(pkts, 1);
	fake_front_detach(&a);
	fake_front_age(&a, 0);
}

static void test_fatal(void **state)
{
	attach_all(XEN_TX_COPY);

	a.tx_prod += XEN_RING + 1;
	check_broken(XEN_TX_JUMPED);

	attach(&a, XEN_TX_COPY);
	a.tx_prod -= 1;
	check_broken(XEN_TX_JUMPED);

	attach(&a, XEN_TX_COPY);
	front_put(&a, bytes, 0, 1000, XEN_TXF_MORE_DATA);
	check_broken(XEN_HALF_PACKET);

	attach(&a, XEN_TX_COPY);
	front_put(&a, bytes, 0, 100, XEN_TXF_EXTRA_INFO);
	check_broken(XEN_MISSING_EXTRA);

	attach(&a, XEN_TX_COPY);
	front_put(&a, bytes, 0, 100, XEN_TXF_EXTRA_INFO);
	front_put_gso(&a, 1448, XEN_GSO_TCPV4, XEN_EXTRA_FLAG_MORE);
	check_broken(XEN_MISSING_EXTRA);

	for (unsigned type = 0; type < 256; type += type ? 250 : XEN_EXTRA_END) {
		attach(&a, XEN_TX_COPY);
		front_put(&a, bytes, 0, 100, XEN_TXF_EXTRA_INFO);
		front_put_gso(&a, 1448, XEN_GSO_TCPV4, 0);
		a.tx->slots[1].extra.type = type;
		check_broken(XEN_BAD_EXTRA);
	}
	attach(&a, XEN_TX_COPY);
	front_put(&a, bytes, 0, 100, XEN_TXF_EXTRA_INFO);
	front_put_gso(&a, 0, XEN_GSO_TCPV4, 0);
	check_broken(XEN_BAD_GSO);

	attach(&a, XEN_TX_COPY);
	front_put(&a, bytes, 0, 100, XEN_TXF_EXTRA_INFO);
	front_put_gso(&a, 1448, 3, 0);
	check_broken(XEN_BAD_GSO);

	attach(&a, XEN_TX_COPY);
	front_put(&a, bytes, 4000, 97, 0);
	check_broken(XEN_ACROSS_PAGE);

	attach(&a, XEN_TX_COPY);
	front_put(&a, bytes, 0, 1000, XEN_TXF_MORE_DATA);
	front_put(&a, bytes, 65535, 100, 0);
	check_broken(XEN_ACROSS_PAGE);

	attach(&a, XEN_TX_COPY);
	front_put(&a, bytes, 0, 1000, XEN_TXF_MORE_DATA);
	for (unsigned i = 1; i < XEN_TX_SLOTS_FATAL; i++)
		front_put(&a, bytes, 0, 10, XEN_TXF_MORE_DATA * (i + 1 < XEN_TX_SLOTS_FATAL));
	check_broken(XEN_TOO_MANY_SLOTS);
}

/* The receive ring's index, too. */
static void test_rx_jump(void **state)
{
	struct frame frame = make_tcp(100, 4);

	attach(&a, XEN_TX_COPY);
	a.rx_prod += 1;
	front_post(&a, XEN_RING);
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	worker_complete(worker);
	assert_int_equal(a.netif->error, XEN_RX_JUMPED);
	assert_int_equal(front_stats(&a)->drop_not_ready, 1);
}

/* Dropped with an error, and no more: the packet behind it gets through. */
static void check_dropped(unsigned slots, uint64_t *counter)
{
	struct frame frame = make_tcp(100, 4);
	uint64_t before = *counter;
	unsigned errors = a.errors;

	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_int_equal(front_take(&a, pkts), 1);
	assert_true(same(pkts[0], frame.bytes, frame.len));
	forget(pkts, 1);
	assert_int_equal(*counter, before + 1);
	assert_int_equal(front_answers(&a), slots + 1);
	assert_int_equal(a.errors, errors + slots);
	assert_int_equal(a.netif->error, XEN_OK);
}

static void test_dropped(void **state)
{
	struct xen_tx_request *request;

	attach(&a, XEN_TX_COPY);
	/* more slots than a packet may have, and fewer than a front end is lost for */
	front_put(&a, bytes, 0, 1000, XEN_TXF_MORE_DATA);
	for (unsigned i = 0; i < XEN_TX_SLOTS_MAX; i++)
		front_put(&a, bytes, 0, 10, XEN_TXF_MORE_DATA * (i + 1 < XEN_TX_SLOTS_MAX));
	check_dropped(XEN_TX_SLOTS_MAX + 1, &front_stats(&a)->drop_bad_descriptor);

	/* less in all than in its fragments */
	front_put(&a, bytes, 0, 100, XEN_TXF_MORE_DATA);
	front_put(&a, bytes, 0, 101, 0);
	check_dropped(2, &front_stats(&a)->drop_bad_descriptor);

	for (unsigned size = 0; size < PKT_LEN_MIN; size++) {
		front_put(&a, bytes, 0, size, 0);
		check_dropped(1, &front_stats(&a)->drop_runt);
	}
	/* a grant that there is not */
	request = front_put(&a, bytes, 0, 100, 0);
	request->gref = 3;
	check_dropped(1, &front_stats(&a)->drop_bad_descriptor);
	front_put(&a, bytes, 0, 5000, XEN_TXF_MORE_DATA);
	request = front_put(&a, bytes, 0, 4096, 0);
	request->gref = FAKE_GRANTS + 1;
	check_dropped(2, &front_stats(&a)->drop_bad_descriptor);
}

/* Slots may be empty, the first one too. */
static void test_empty_slots(void **state)
{
	struct frame frame = make_tcp(1000, 4);

	attach(&a, XEN_TX_COPY);
	front_put(&a, NULL, 0, frame.len, XEN_TXF_MORE_DATA);
	front_put(&a, bytes, 0, frame.len, XEN_TXF_MORE_DATA);
	front_put(&a, NULL, 0, 0, 0);
	assert_int_equal(front_take(&a, pkts), 1);
	assert_true(same(pkts[0], frame.bytes, frame.len));
	forget(pkts, 1);
	assert_int_equal(front_answers(&a), 3);
}

/* ---- events ---- */

static bool readable(void)
{
	eventfd_t value;

	return eventfd_read(a.netif->queues[0]->events->fd, &value) == 0;
}

/* Armed for one event, and none while polled. */
static void test_events(void **state)
{
	struct frame frame = make_tcp(100, 4);

	attach(&a, XEN_TX_COPY);
	assert_false(xen_channel_ops.arm(&a.netif->channel, 0));
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_true(front_publish(&a));
	assert_true(a.netif->queues[0]->events->channels[0].queued);
	xen_channel_ops.disarm(&a.netif->channel, 0);
	for (unsigned i = 0; i < 10; i++) {
		front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
		assert_false(front_publish(&a));
	}
	assert_true(xen_channel_ops.arm(&a.netif->channel, 0)); /* there is work */
	assert_int_equal(front_take(&a, pkts), 11);
	forget(pkts, 11);
	assert_false(xen_channel_ops.arm(&a.netif->channel, 0));
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_true(front_publish(&a));
	assert_true(readable());
	assert_int_equal(fake_xen.takes, 3);
	assert_int_equal(fake_xen.unmasks, 1);
}

/* Events without end and without packets: masked until the next tick. */
static void test_event_storm(void **state)
{
	unsigned wakes = 0;

	attach(&a, XEN_TX_COPY);
	for (unsigned i = 0; i < 10000; i++) {
		assert_false(xen_channel_ops.arm(&a.netif->channel, 0));
		fake_event(a.domid, FRONT_TX_EVENT);
		wakes += a.netif->queues[0]->events->channels[0].queued;
		xen_channel_ops.disarm(&a.netif->channel, 0);
	}
	assert_in_range(wakes, 1, 100);
	assert_in_range(fake_xen.unmasks, 1, 100);
	xen_netif_tick(a.netif);
	assert_true(a.netif->queues[0]->events->channels[0].queued);
}

/* Nobody is told of responses that he did not ask to be told of. */
static void test_no_needless_notification(void **state)
{
	struct frame frame = make_tcp(100, 4);

	attach(&a, XEN_TX_COPY);
	a.tx->at.rsp_event = 10;
	for (unsigned i = 1; i <= 10; i++) {
		front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
		assert_int_equal(front_take(&a, pkts), 1);
		forget(pkts, 1);
		assert_int_equal(front_take(&a, pkts), 0);
		assert_int_equal(fake_xen.notifies, i == 10);
	}
}

/* Who goes on sending is told of what is done a quarter of the ring at a time. */
static void test_few_notifications(void **state)
{
	struct frame frame = make_tcp(100, 4);

	attach(&a, XEN_TX_COPY);
	for (unsigned i = 1; i <= 256; i++) {
		front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
		assert_int_equal(front_take(&a, pkts), 1);
		forget(pkts, 1);
		front_answers(&a);
	}
	assert_int_equal(fake_xen.notifies, 4);
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	assert_int_equal(front_take(&a, pkts), 1);
	forget(pkts, 1);
	assert_int_equal(fake_xen.notifies, 4);
	assert_false(xen_channel_ops.arm(&a.netif->channel, 0)); /* before it sleeps, too */
	assert_int_equal(fake_xen.notifies, 5);
}

/* ---- limits ---- */

static uint64_t usec_now;

static void sleep_usec(uint64_t usec)
{
	usec_now += usec;
	worker->profile.last = usec_now * (cycles_hz() / 1000000);
}

/* Take what there is, by a clock that stands still. */
static unsigned take_still(void)
{
	unsigned n = front_take(&a, pkts);

	forget(pkts, n);
	sleep_usec(0);
	return n;
}

static void test_rate(void **state)
{
	struct frame frame = make_tcp(930, 4); /* 996 bytes */

	attach(&a, XEN_TX_COPY);
	xen_netif_set_rate(a.netif, 3000, 50000);
	for (unsigned i = 0; i < 8; i++)
		front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	sleep_usec(1);
	assert_int_equal(take_still(), 3);
	assert_int_equal(take_still(), 0);
	sleep_usec(49000);
	assert_int_equal(take_still(), 0);
	assert_false(xen_channel_ops.arm(&a.netif->channel, 0)); /* a timer wakes it */
	sleep_usec(1001);
	assert_true(xen_channel_ops.arm(&a.netif->channel, 0));
	assert_int_equal(take_still(), 3);
	sleep_usec(50001);
	assert_int_equal(take_still(), 2);
}

/* A packet that is longer than what a period allows waits for several. */
static void test_rate_long_packet(void **state)
{
	struct frame frame = make_tcp(30000, 4);
	unsigned periods = 0;

	attach(&a, XEN_TX_COPY);
	xen_netif_set_rate(a.netif, 8000, 1000);
	front_put_frame(&a, frame.bytes, frame.len, 200, 0, 0, 0);
	sleep_usec(1);
	while (take_still() == 0 && periods++ < 10)
		sleep_usec(1001);
	assert_int_equal(periods, 3);
}

static void put_multicast(uint8_t type, uint8_t last)
{
	front_put(&a, bytes, 0, 100, XEN_TXF_EXTRA_INFO);
	front_put_gso(&a, 0, 0, 0);
	a.tx->slots[(a.tx_prod - 1) % XEN_RING].extra =
		(struct xen_extra){ .type = type, .address = { 1, 0, 0x5e, 0, 0, last } };
	assert_int_equal(front_take(&a, pkts), 0);
	worker_complete(worker);
}

static unsigned multicast_received(uint8_t last)
{
	struct frame frame = make_tcp(100, 4);
	uint64_t before = front_stats(&a)->send_packets;

	memcpy(frame.bytes, (uint8_t[6]){ 1, 0, 0x5e, 0, 0, last }, 6);
	front_post(&a, 1);
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	worker_complete(worker);
	return front_stats(&a)->send_packets - before;
}

/* A front end that says which multicast it wants gets that. */
static void test_multicast(void **state)
{
	struct xen_config config = fake_front_config(FRONT_CAPS);

	config.multicast_asks = true;
	assert_int_equal(fake_front_attach(&a, XEN_TX_COPY, &config), 0);
	assert_int_equal(multicast_received(1), 0);
	assert_int_equal(front_stats(&a)->drop_unwanted_multicast, 1);
	put_multicast(XEN_EXTRA_MCAST_ADD, 1);
	put_multicast(XEN_EXTRA_MCAST_ADD, 1);
	assert_int_equal(front_answers(&a), 4);
	assert_int_equal(multicast_received(1), 1);
	assert_int_equal(multicast_received(2), 0);
	put_multicast(XEN_EXTRA_MCAST_DEL, 1);
	assert_int_equal(multicast_received(1), 0);
	for (unsigned i = 0; i < XEN_MULTICAST_MAX; i++)
		put_multicast(XEN_EXTRA_MCAST_ADD, i);
	assert_int_equal(a.errors, 0);
	put_multicast(XEN_EXTRA_MCAST_ADD, 200);
	front_answers(&a);
	assert_int_equal(a.errors, 1);
	assert_int_equal(front_stats(&a)->drop_bad_descriptor, 0);
}

/* A front end that has lacked slots for a minute is not tried until it has what was lacking. */
static void test_stall(void **state)
{
	struct frame frame = make_tcp(5000, 4);
	struct xen_queue *queue;

	attach(&a, XEN_TX_COPY);
	queue = a.netif->queues[0];
	front_port(&a)->mtu = 9000;
	front_post(&a, 1);
	for (unsigned second = 1; second <= XEN_STALL_SECONDS; second++) {
		assert_false(queue->stalled);
		pkts[0] = make_pkt(&frame, 64, 70000);
		front_deliver(&a, pkts, 1);
		worker_complete(worker);
		xen_netif_tick(a.netif);
	}
	assert_true(queue->stalled);
	assert_int_equal(front_stats(&a)->drop_no_buffers, XEN_STALL_SECONDS);
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	assert_int_equal(front_stats(&a)->drop_not_ready, 1);
	front_post(&a, 1); /* two slots: what it takes */
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	worker_complete(worker);
	assert_false(queue->stalled);
	assert_int_equal(front_stats(&a)->send_packets, 1);
}

/* ---- coming and going ---- */

/* The back end died: the next one goes on where it stopped, and nothing is lost. */
static void test_restart(void **state)
{
	static struct front_frame got;
	struct frame frame = make_tcp(1000, 4);

	attach(&a, XEN_TX_COPY);
	front_post(&a, 20);
	for (unsigned i = 0; i < 5; i++)
		front_put_frame(&a, frame.bytes, frame.len, 2000, 0, 0, 0);
	assert_int_equal(front_take(&a, pkts), 5);
	forget(pkts, 2);
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	assert_int_equal(front_answers(&a), 2);

	/* dies with three packets: all that is left of it is what the rings say */
	a.netif->queues[0]->tx = calloc(1, XEN_PAGE);
	forget(pkts + 2, 3);
	free(a.netif->queues[0]->tx);
	a.netif->queues[0]->tx = a.tx;
	fake_front_detach(&a);

	attach(&a, XEN_TX_COPY);
	assert_int_equal(front_take(&a, pkts), 3);
	for (unsigned i = 0; i < 3; i++)
		assert_true(same(pkts[i], frame.bytes, frame.len));
	forget(pkts, 3);
	assert_int_equal(front_answers(&a), 3);
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	worker_complete(worker);
	assert_true(front_frame(&a, &got));
	assert_true(front_frame(&a, &got));
	assert_memory_equal(got.bytes, frame.bytes, frame.len);
}

/* Whoever connects is told on both rings, once. */
static void test_greeting(void **state)
{
	struct xen_config config = fake_front_config(FRONT_CAPS);

	assert_int_equal(fake_front_attach(&a, XEN_TX_COPY, &config), 0);
	assert_int_equal(fake_bound(a.domid, FRONT_TX_EVENT)->notified, 1);
	assert_int_equal(fake_bound(a.domid, FRONT_RX_EVENT)->notified, 1);
	fake_front_detach(&a);
	config.queue[0].rx_event = config.queue[0].tx_event;
	assert_int_equal(fake_front_attach(&a, XEN_TX_COPY, &config), 0);
	assert_int_equal(fake_bound(a.domid, FRONT_TX_EVENT)->notified, 1);
}

/* What cannot be connected to leaves nothing behind, and says why. */
static void test_refused(void **state)
{
	struct xen_config config = fake_front_config(FRONT_CAPS);
	struct error error;

	attach(&a, XEN_TX_COPY);
	assert_int_equal(xen_netif_connect(a.netif, &config, &error), -EINVAL);
	assert_non_null(strstr(error.text, "another back end"));
	fake_front_detach(&a);

	assert_int_equal(fake_front_attach(&a, XEN_TX_COPY, &config), 0);
	xen_netif_disconnect(a.netif);
	config.queue[0].rx_ref = 7;
	assert_int_equal(xen_netif_connect(a.netif, &config, &error), -EINVAL);
	config.queue[0].rx_ref = FRONT_RX_RING;
	a.tx->at.req_prod = a.tx->at.rsp_prod + XEN_RING + 1;
	assert_int_equal(xen_netif_connect(a.netif, &config, &error), -EPROTO);
	a.tx->at.req_prod = a.tx->at.rsp_prod;
	assert_int_equal(xen_netif_connect(a.netif, &config, &error), 0);
}

/* Not connected: nothing is taken, what is sent is counted. */
static void test_not_connected(void **state)
{
	struct frame frame = make_tcp(100, 4);

	attach(&a, XEN_TX_COPY);
	xen_netif_disconnect(a.netif);
	assert_int_equal(front_take(&a, pkts), 0);
	assert_false(xen_channel_ops.arm(&a.netif->channel, 0));
	pkts[0] = make_pkt(&frame, 64, 70000);
	front_deliver(&a, pkts, 1);
	worker_complete(worker);
	assert_int_equal(front_stats(&a)->drop_not_ready, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_tx_geometries),
		TEST(test_tx_burst_costs),
		TEST(test_tx_gso),
		TEST(test_tx_gso_full_checksum),
		TEST(test_tx_checksum_of_nothing),
		TEST(test_header_between_guests),
		TEST(test_header_to_other_port),
		TEST(test_header_dropped),
		TEST(test_header_scattered),
		TEST(test_header_fetch_fails),
		TEST(test_map),
		TEST(test_rx_geometries),
		TEST(test_rx_burst_costs),
		TEST(test_rx_burst_costs_unstaged),
		TEST(test_rx_gso),
		TEST(test_rx_gso_unstaged),
		TEST(test_rx_slots),
		TEST(test_rx_too_few_slots),
		TEST(test_rx_no_sg),
		TEST(test_rx_copy_fails),
		TEST(test_double_fetch),
		TEST(test_fatal),
		TEST(test_rx_jump),
		TEST(test_dropped),
		TEST(test_empty_slots),
		TEST(test_events),
		TEST(test_event_storm),
		TEST(test_no_needless_notification),
		TEST(test_few_notifications),
		TEST(test_rate),
		TEST(test_rate_long_packet),
		TEST(test_multicast),
		TEST(test_stall),
		TEST(test_restart),
		TEST(test_greeting),
		TEST(test_refused),
		TEST(test_not_connected),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
