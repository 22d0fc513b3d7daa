/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio network device: what a guest sends, completions, and the control side. Receiving:
 * virtio_net_rx_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_net.h"
#include "pkt/headers.h"

static struct fake_net net;
static struct fake_ring *tx = &net.rings[TX];
static struct virtq *vq;
static uint8_t frame[FRAME_MAX + 64], copy[FRAME_MAX + 64];

static int set_up(void **state)
{
	fake_net_init(&net);
	vq = &net.device->rings[TX].vq;
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = i * 7 + i / 251;
	return 0;
}

static int tear_down(void **state)
{
	return fake_net_fini(&net) ? 0 : -1;
}

/*
 * Put virtio_net_hdr and frame into guest memory at gpa and offer them in pieces of these lengths,
 * repeated.
 */
static uint16_t send_at(uint64_t gpa, const uint8_t *vnet, uint32_t len, const uint32_t *pieces,
			unsigned count, bool indirect)
{
	static struct fake_buf bufs[FRAME_MAX];
	uint32_t header_len = net.device->header_len, total = header_len + len;
	unsigned n = 0;
	uint16_t head;

	fake_write(&net.guest, gpa, vnet, header_len);
	fake_write(&net.guest, gpa + header_len, frame, len);
	for (uint32_t off = 0; off < total; n++) {
		uint32_t part = pieces[n < count ? n : count - 1];

		if (part > total - off)
			part = total - off;
		bufs[n] = (struct fake_buf){ gpa + off, part };
		off += part;
	}
	head = indirect ? fake_chain_indirect(tx, bufs, n, 0) : fake_chain(tx, bufs, n, 0);
	fake_offer(tx, head);
	return head;
}

static const uint8_t no_request[VNET_LEN];
static const uint32_t one_piece[] = { UINT32_MAX };

/* Send one frame in one piece and take it. NULL: it was dropped. */
static struct pkt *send_one(const uint8_t *vnet, uint32_t len)
{
	struct pkt *pkts[PKT_BURST];
	uint64_t gpa = fake_alloc(&net.guest, VNET_LEN + len);
	unsigned n;

	net.guest.next = gpa;
	send_at(gpa, vnet, len, one_piece, 1, false);
	n = fake_net_take(&net, pkts);
	assert_true(n <= 1);
	return n ? pkts[0] : NULL;
}

static void done_with(struct pkt *pkt)
{
	pkt_put(pkt);
	worker_complete(net.worker);
}

/* The driver got exactly this buffer back. */
static void check_used(uint16_t head)
{
	struct virtq_used_elem elem;

	assert_true(fake_used(tx, &elem));
	assert_int_equal(elem.id, head);
	assert_false(fake_used(tx, &elem));
}

static void check_pkt(const struct pkt *pkt, uint32_t len)
{
	uint32_t sum = pkt->header_len;

	assert_int_equal(pkt->len, len);
	assert_int_equal(pkt->in_port, net.device->channel.port.id);
	assert_int_equal(pkt->header_len, len < PKT_HEADER_FAST ? len : PKT_HEADER_FAST);
	assert_int_equal(pkt->refs, 1);
	for (unsigned i = 0; i < pkt->frag_count; i++)
		sum += pkt->frags[i].iov_len;
	assert_int_equal(sum, len);
	pkt_copy_out(pkt, 0, copy, len);
	assert_memory_equal(copy, frame, len);
	assert_true(pkt_needs_nothing(pkt));
}

/* ---- frames of every size and geometry ---- */

static const uint32_t lengths[] = { 14, 59, 60, 63, 64, 65, 66, 1518, 9014, 65549, PKT_LEN_MAX };

static void test_sizes_and_layouts(void **state)
{
	static const struct {
		uint32_t pieces[8];
		unsigned count;
	} layouts[] = {
		{ { UINT32_MAX }, 1 },     /* one buffer */
		{ { 10, UINT32_MAX }, 2 }, /* the header its own, as legacy drivers have it */
		{ { 12, UINT32_MAX }, 2 },
		{ { 4, 3, 1, 1, 5, UINT32_MAX }, 6 }, /* the header in many */
		{ { 11, UINT32_MAX }, 2 },
		{ { 13, UINT32_MAX }, 2 },
		{ { 12 + 63, 1, 1, UINT32_MAX }, 4 },
		{ { 12 + 64, 4096 }, 2 },
		{ { 1, 1, 1, 1, 1, 1, 1, 400 }, 8 },
	};
	static const uint64_t features[] = { 0, MODERN, MERGEABLE,
					     FEATURE(VIRTIO_NET_F_MRG_RXBUF) };
	const uint64_t all = FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
	uint64_t packets = 0, bytes = 0;

	for (unsigned f = 0; f < 4; f++) {
		net.guest.next = FAKE_GPA;
		fake_net_start(&net, features[f] | all);
		assert_int_equal(net.device->header_len, features[f] ? 12 : 10);
		for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]) * 4; i++) {
			const uint32_t *pieces = layouts[i / 4].pieces;

			for (unsigned j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
				uint64_t edge = FAKE_GPA + FAKE_EDGE, before = net.guest.next;
				/* in one region, or across an edge: in the header, or in the frame */
				uint64_t gpa = i % 4 < 2 ? edge : edge - (i % 4 == 2 ? 5 : 50);
				struct pkt *pkts[PKT_BURST];
				uint16_t head = send_at(gpa, no_request, lengths[j], pieces,
							layouts[i / 4].count, i % 2);

				assert_int_equal(fake_net_take(&net, pkts), 1);
				check_pkt(pkts[0], lengths[j]);
				done_with(pkts[0]);
				check_used(head);
				net.guest.next = before;
				packets++;
				bytes += lengths[j];
			}
		}
	}
	assert_int_equal(fake_net_stats(&net)->recv_packets, packets);
	assert_int_equal(fake_net_stats(&net)->recv_bytes, bytes);
	assert_int_equal(net.device->breaks, 0);
}

/* What we keep of a frame's start is a copy: the guest may change its own as it likes. */
static void test_headers_are_private(void **state)
{
	struct pkt *pkts[PKT_BURST];
	uint64_t gpa = FAKE_GPA + FAKE_EDGE;

	fake_net_start(&net, MODERN);
	send_at(gpa, no_request, 100, one_piece, 1, false);
	assert_int_equal(fake_net_take(&net, pkts), 1);
	memset(fake_at(&net.guest, gpa, 12 + 64), 0, 12 + 64);
	check_pkt(pkts[0], 100);
	done_with(pkts[0]);
}

static void test_bursts(void **state)
{
	struct pkt *pkts[PKT_BURST];
	unsigned left = 100;

	/* Indices run over 65535 within the first burst. */
	fake_net_start_at(&net, MODERN, FAKE_NET_SIZE, 65530);
	for (unsigned i = 0; i < 100; i++)
		send_at(fake_alloc(&net.guest, 112), no_request, 60 + i % 40, one_piece, 1, false);
	for (unsigned at = 0; left > 0;) {
		unsigned n = fake_net_take(&net, pkts);

		assert_int_equal(n, left < PKT_BURST ? left : PKT_BURST);
		for (unsigned i = 0; i < n; i++, at++)
			check_pkt(pkts[i], 60 + at % 40);
		for (unsigned i = 0; i < n; i++)
			pkt_put(pkts[i]);
		worker_complete(net.worker);
		left -= n;
	}
	assert_int_equal(fake_net_take(&net, pkts), 0);
	assert_int_equal(tx->used->idx, (uint16_t)(65530 + 100));
}

/* The pool runs dry: what does not fit stays in the ring, and comes later. */
static void test_empty_pool(void **state)
{
	struct pkt *held[FAKE_NET_POOL], *pkts[PKT_BURST];

	fake_net_start(&net, MODERN);
	assert_int_equal(pkt_pool_get(&net.worker->pool, held, FAKE_NET_POOL - 1),
			 FAKE_NET_POOL - 1);
	for (unsigned i = 0; i < 3; i++)
		send_at(fake_alloc(&net.guest, 112), no_request, 60, one_piece, 1, false);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(fake_net_take(&net, pkts), 1);
		assert_int_equal(fake_net_take(&net, pkts + 1), 0);
		check_pkt(pkts[0], 60);
		done_with(pkts[0]);
	}
	pkt_pool_put(&net.worker->pool, held, FAKE_NET_POOL - 1);
}

static void test_fragments(void **state)
{
	/* The header, then a frame of so many pieces of 3 bytes. */
	static const uint32_t pieces[] = { 12, 3 };
	static const unsigned counts[] = { 18, 19, 20, 64, 256, PKT_FRAGS_MAX - 1 };
	struct pkt *pkts[PKT_BURST];
	uint16_t head;

	fake_net_start(&net, MODERN | FEATURE(VIRTIO_RING_F_INDIRECT_DESC));
	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		head = send_at(FAKE_GPA + FAKE_EDGE, no_request, counts[i] * 3, pieces, 2, true);
		assert_int_equal(fake_net_take(&net, pkts), 1);
		check_pkt(pkts[0], counts[i] * 3);
		done_with(pkts[0]);
		check_used(head);
	}
	head = send_at(FAKE_GPA + FAKE_EDGE, no_request, PKT_FRAGS_MAX * 3, pieces, 2, true);
	assert_int_equal(fake_net_take(&net, pkts), 0);
	worker_complete(net.worker);
	check_used(head);
	assert_int_equal(fake_net_stats(&net)->drop_too_many_fragments, 1);
	assert_int_equal(net.device->breaks, 0);
}

/* ---- packets that are dropped, and their buffers given back ---- */

static void test_bad_packets_among_good_ones(void **state)
{
	static const uint8_t contradiction[VNET_LEN] = { 0, PKT_GSO_TCPV4 };
	struct port_stats *stats = fake_net_stats(&net);
	struct pkt *pkts[PKT_BURST];
	struct fake_buf stub = { FAKE_GPA + FAKE_EDGE, 5 };
	bool back[FAKE_NET_SIZE] = { false };
	struct virtq_used_elem elem = { 0 };
	unsigned offered = 0;

	fake_net_start(&net, MODERN);
	for (unsigned i = 0; i < 5; i++) {
		send_at(fake_alloc(&net.guest, 112), no_request, 60, one_piece, 1, false);
		send_at(fake_alloc(&net.guest, 112), no_request, i, one_piece, 1, false);
		send_at(fake_alloc(&net.guest, 112), contradiction, 60, one_piece, 1, false);
		offered += 3;
	}
	send_at(fake_alloc(&net.guest, 112), no_request, 13, one_piece, 1, false);
	fake_offer(tx, fake_chain(tx, &stub, 1, 0)); /* not even a header */
	send_at(FAKE_GPA + FAKE_EDGE, no_request, PKT_LEN_MAX + 1, one_piece, 1, false);
	stub.len = 1 << 18; /* both small regions, all of them: far too much */
	fake_offer(tx, fake_chain(tx, &stub, 1, 0));
	offered += 4;

	assert_int_equal(fake_net_take(&net, pkts), 5);
	for (unsigned i = 0; i < 5; i++) {
		check_pkt(pkts[i], 60);
		pkt_put(pkts[i]);
	}
	worker_complete(net.worker);
	assert_int_equal(stats->drop_runt, 5 + 2);
	assert_int_equal(stats->drop_bad_vnet_header, 5);
	assert_int_equal(stats->drop_oversize, 2);
	assert_int_equal(stats->recv_packets, 5);
	for (unsigned i = 0; i < offered; i++) {
		assert_true(fake_used(tx, &elem));
		assert_true(elem.id < offered && !back[elem.id]);
		back[elem.id] = true;
	}
	assert_false(fake_used(tx, &elem));
	assert_int_equal(net.device->breaks, 0);
}

/* ---- offload requests ---- */

/* Build a frame and the virtio_net_hdr that asks for its offload; gso_type 0: checksum only. */
static uint32_t make_request(int ip, int proto, unsigned gso_type, uint8_t *vnet)
{
	struct frame_desc desc = { .ip = ip, .proto = proto, .payload = 3000 };
	struct frame built = { .bytes = frame };
	uint64_t seed = 1;

	frame_build(&built, &desc, &seed);
	memset(vnet, 0, VNET_LEN);
	vnet[0] = VNET_NEEDS_CSUM;
	vnet[1] = gso_type;
	if (gso_type)
		vnet_put16(vnet + 4, 1000);
	vnet_put16(vnet + 6, built.l4);
	vnet_put16(vnet + 8, proto == 6 ? 16 : 6);
	return built.len;
}

static void test_only_negotiated_requests(void **state)
{
	static const struct {
		uint64_t needs;
		int ip, proto;
		unsigned gso_type;
	} requests[] = {
		{ FEATURE(VIRTIO_NET_F_CSUM), 4, 6, 0 },
		{ FEATURE(VIRTIO_NET_F_CSUM), 6, 17, 0 },
		{ FEATURE(VIRTIO_NET_F_HOST_TSO4), 4, 6, PKT_GSO_TCPV4 },
		{ FEATURE(VIRTIO_NET_F_HOST_TSO6), 6, 6, PKT_GSO_TCPV6 },
		{ FEATURE(VIRTIO_NET_F_HOST_USO), 4, 17, PKT_GSO_UDP },
		{ FEATURE(VIRTIO_NET_F_HOST_USO), 6, 17, PKT_GSO_UDP },
		{ FEATURE(VIRTIO_NET_F_HOST_TSO4) | FEATURE(VIRTIO_NET_F_HOST_ECN), 4, 6,
		  PKT_GSO_TCPV4 | VNET_GSO_ECN },
		{ FEATURE(VIRTIO_NET_F_HOST_TSO6) | FEATURE(VIRTIO_NET_F_HOST_ECN), 6, 6,
		  PKT_GSO_TCPV6 | VNET_GSO_ECN },
	};
	uint64_t refused = 0, gso = 0;

	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		uint64_t needs = requests[i].needs | FEATURE(VIRTIO_NET_F_CSUM);
		unsigned type = requests[i].gso_type;
		uint8_t vnet[VNET_LEN];
		uint32_t len = make_request(requests[i].ip, requests[i].proto, type, vnet);
		struct pkt *pkt;

		net.guest.next = FAKE_GPA;
		fake_net_start(&net, MODERN | needs);
		pkt = send_one(vnet, len);
		assert_non_null(pkt);
		assert_true(pkt->offload.flags & PKT_CSUM_PARTIAL);
		assert_int_equal(pkt->offload.gso_type, type & ~VNET_GSO_ECN);
		assert_int_equal(!!(pkt->offload.flags & PKT_GSO_ECN), !!(type & VNET_GSO_ECN));
		gso += type != 0;
		done_with(pkt);

		/* All else that there is, but one of the bits that it needs. */
		for (unsigned bit = 0; bit < 64; bit++) {
			if (!(needs & VIRTIO_BIT(bit)))
				continue;
			net.guest.next = FAKE_GPA;
			fake_net_start(&net, VIRTIO_NET_FEATURES & ~VIRTIO_BIT(bit));
			assert_null(send_one(vnet, len));
			assert_int_equal(fake_net_stats(&net)->drop_bad_vnet_header, ++refused);
			worker_complete(net.worker);
		}
	}
	assert_int_equal(fake_net_stats(&net)->recv_gso_packets, gso);
}

/* The claim that a checksum is good is dropped, and a request must fit the headers. */
static void test_requests_are_judged(void **state)
{
	uint8_t vnet[VNET_LEN];
	uint32_t len = make_request(4, 6, PKT_GSO_TCPV4, vnet);
	struct pkt *pkt;

	fake_net_start(&net, VIRTIO_NET_FEATURES & ~FEATURE(VIRTIO_F_IN_ORDER));
	vnet_put16(vnet + 6, 65000); /* far outside the frame */
	assert_null(send_one(vnet, len));
	len = make_request(4, 6, PKT_GSO_TCPV6, vnet);
	assert_null(send_one(vnet, len));
	len = make_request(4, 6, 3 /* UFO, never offered */, vnet);
	assert_null(send_one(vnet, len));
	assert_int_equal(fake_net_stats(&net)->drop_bad_vnet_header, 3);

	len = make_request(4, 6, 0, vnet);
	vnet[0] = VNET_DATA_VALID;
	pkt = send_one(vnet, len);
	assert_non_null(pkt);
	assert_int_equal(pkt->offload.flags, 0);
	done_with(pkt);
}

/* ---- rings that break the rules ---- */

/* The ring is broken for this reason, told once, and nothing of it is touched again. */
static void check_broken(enum virtq_error error, uint64_t breaks)
{
	struct channel *channel = &net.device->channel;
	struct pkt *pkts[PKT_BURST];

	worker_complete(net.worker);
	assert_true(vq->broken);
	assert_int_equal(vq->error, error);
	assert_int_equal(net.device->breaks, breaks);

	vq->desc = NULL;
	vq->avail = NULL;
	vq->used = NULL;
	vq->mem = NULL;
	assert_int_equal(fake_net_take(&net, pkts), 0);
	assert_false(channel->ops->arm(channel, 0));
	channel->ops->disarm(channel, 0);
	assert_int_equal(fake_net_called(&net, TX), 0);
	assert_int_equal(net.device->breaks, breaks);
}

static void test_broken_rings(void **state)
{
	static const enum virtq_error errors[] = {
		VIRTQ_INDEX_JUMP,  VIRTQ_BAD_HEAD,     VIRTQ_LOOP,          VIRTQ_BAD_ADDRESS,
		VIRTQ_ZERO_LENGTH, VIRTQ_BAD_INDIRECT, VIRTQ_BAD_DIRECTION,
	};
	const unsigned count = sizeof(errors) / sizeof(errors[0]);

	/* All that a driver can do; the last one is the device's own, see test_call_that_fails(). */
	assert_int_equal(count, VIRTQ_ERRORS - 2);
	for (unsigned i = 0; i < count; i++) {
		struct fake_buf bufs[2] = { { FAKE_GPA + FAKE_EDGE, 20 },
					    { FAKE_GPA + FAKE_EDGE, 60 } };
		struct pkt *pkts[PKT_BURST];
		bool jump = errors[i] == VIRTQ_INDEX_JUMP;
		uint16_t head;

		net.guest.next = FAKE_GPA;
		fake_net_start(&net, MODERN);
		/* Two good packets, the bad one, one more. */
		for (unsigned j = 0; j < 2; j++)
			send_at(fake_alloc(&net.guest, 112), no_request, 60, one_piece, 1, false);
		head = fake_chain(tx, bufs, 2, 0);
		switch (errors[i]) {
		case VIRTQ_BAD_HEAD:
			head = FAKE_NET_SIZE;
			break;
		case VIRTQ_LOOP:
			tx->desc[head + 1].flags = VIRTQ_DESC_NEXT;
			tx->desc[head + 1].next = head;
			break;
		case VIRTQ_BAD_ADDRESS:
			tx->desc[head].addr = 0;
			break;
		case VIRTQ_ZERO_LENGTH:
			tx->desc[head + 1].len = 0;
			break;
		case VIRTQ_BAD_INDIRECT:
			tx->desc[head].flags = VIRTQ_DESC_INDIRECT;
			break;
		case VIRTQ_BAD_DIRECTION:
			tx->desc[head + 1].flags = VIRTQ_DESC_WRITE;
			break;
		default:
			tx->avail->idx = vq->last_avail + FAKE_NET_SIZE + 1;
		}
		if (!jump) {
			fake_offer(tx, head);
			send_at(fake_alloc(&net.guest, 112), no_request, 60, one_piece, 1, false);
		}
		assert_int_equal(fake_net_take(&net, pkts), jump ? 0 : 2);
		if (!jump) {
			pkt_put(pkts[0]);
			pkt_put(pkts[1]);
		}
		check_broken(errors[i], i + 1);
		assert_int_equal(fake_net_stats(&net)->drop_bad_descriptor, i);
		assert_int_equal(net.worker->pool.free_count, FAKE_NET_POOL);
	}
}

/* Seen although the loop lies far behind the fragments that a packet has at first. */
static void test_long_loop(void **state)
{
	static struct fake_buf bufs[FAKE_NET_SIZE];
	struct pkt *pkts[PKT_BURST];

	for (unsigned i = 0; i < FAKE_NET_SIZE; i++)
		bufs[i] = (struct fake_buf){ FAKE_GPA + FAKE_EDGE, 1 };
	fake_net_start(&net, MODERN);
	fake_offer(tx, fake_chain(tx, bufs, FAKE_NET_SIZE, 0));
	tx->desc[FAKE_NET_SIZE - 1].flags = VIRTQ_DESC_NEXT;
	assert_int_equal(fake_net_take(&net, pkts), 0);
	check_broken(VIRTQ_LOOP, 1);
}

static void test_empty_buffer(void **state)
{
	struct fake_buf buf = { FAKE_GPA + FAKE_EDGE, 0 };
	struct pkt *pkts[PKT_BURST];

	fake_net_start(&net, MODERN);
	fake_offer(tx, fake_chain(tx, &buf, 1, 0));
	assert_int_equal(fake_net_take(&net, pkts), 0);
	check_broken(VIRTQ_ZERO_LENGTH, 1);
}

static void test_call_that_fails(void **state)
{
	fake_net_start(&net, MODERN);
	assert_int_equal(eventfd_write(net.calls[TX], UINT64_MAX - 1), 0);
	done_with(send_one(no_request, 60));
	fake_net_called(&net, TX);
	check_broken(VIRTQ_CALL_BLOCKED, 1);
}

/* ---- completions ---- */

static void test_completes_in_any_order(void **state)
{
	static const unsigned order[] = { 3, 7, 0, 2, 1, 6, 4, 5 };
	struct pkt *pkts[PKT_BURST];
	struct virtq_used_elem elem;
	uint16_t heads[8];

	fake_net_start(&net, MODERN);
	for (unsigned i = 0; i < 8; i++)
		heads[i] = send_at(fake_alloc(&net.guest, 112), no_request, 60, one_piece, 1,
				   false);
	assert_int_equal(fake_net_take(&net, pkts), 8);
	for (unsigned i = 0; i < 8; i++) {
		done_with(pkts[order[i]]);
		assert_true(fake_used(tx, &elem));
		assert_int_equal(elem.id, heads[order[i]]);
		assert_int_equal(elem.len, 0);
		assert_false(fake_used(tx, &elem));
	}
}

/*
 * With VIRTIO_F_IN_ORDER one used entry stands for a batch: it lies where the batch begins and
 * names its last.
 */
static void test_completes_in_order(void **state)
{
	static const struct {
		unsigned done, given_back; /* packet, entries given back so far */
	} steps[] = {
		{ 3, 0 }, { 7, 0 }, { 0, 1 }, { 2, 1 }, { 1, 4 }, { 6, 4 }, { 4, 5 }, { 5, 8 }
	};
	struct pkt *pkts[PKT_BURST];
	uint16_t heads[8];

	/* The ring's end and the end of the index are crossed; heads are no positions. */
	fake_net_start_at(&net, MODERN | FEATURE(VIRTIO_F_IN_ORDER), 16, 65532);
	tx->next_desc = 5;
	for (unsigned i = 0; i < 8; i++)
		heads[i] = send_at(fake_alloc(&net.guest, 112), no_request, 60, one_piece, 1,
				   false);
	assert_int_equal(fake_net_take(&net, pkts), 8);
	for (unsigned i = 0, before = 0; i < 8; before = steps[i++].given_back) {
		unsigned now = steps[i].given_back;

		done_with(pkts[steps[i].done]);
		assert_int_equal(tx->used->idx, (uint16_t)(65532 + now));
		if (now > before)
			assert_int_equal(tx->used->ring[(65532 + before) % 16].id, heads[now - 1]);
	}
	/* A dropped packet waits for its turn, too. */
	tx->next_desc = 0;
	heads[0] = send_at(fake_alloc(&net.guest, 112), no_request, 60, one_piece, 1, false);
	heads[1] = send_at(fake_alloc(&net.guest, 112), no_request, 3, one_piece, 1, false);
	assert_int_equal(fake_net_take(&net, pkts), 1);
	worker_complete(net.worker);
	assert_int_equal(tx->used->idx, (uint16_t)(65532 + 8));
	done_with(pkts[0]);
	assert_int_equal(tx->used->idx, (uint16_t)(65532 + 10));
	assert_int_equal(tx->used->ring[(65532 + 8) % 16].id, heads[1]);
}

static void test_calls_when_asked(void **state)
{
	struct pkt *pkts[PKT_BURST];

	fake_net_start(&net, MODERN | FEATURE(VIRTIO_RING_F_EVENT_IDX));
	done_with(send_one(no_request, 60)); /* the first is always told */
	assert_int_equal(fake_net_called(&net, TX), 1);
	*fake_used_event(tx) = 3;
	done_with(send_one(no_request, 60));
	done_with(send_one(no_request, 60));
	assert_int_equal(fake_net_called(&net, TX), 0);
	/* One call for a burst, however long. */
	for (unsigned i = 0; i < 10; i++)
		send_at(fake_alloc(&net.guest, 112), no_request, 60, one_piece, 1, false);
	assert_int_equal(fake_net_take(&net, pkts), 10);
	for (unsigned i = 0; i < 10; i++)
		pkt_put(pkts[i]);
	worker_complete(net.worker);
	assert_int_equal(fake_net_called(&net, TX), 1);
	done_with(send_one(no_request, 60));
	assert_int_equal(fake_net_called(&net, TX), 0);

	net.guest.next = FAKE_GPA;
	fake_net_start(&net, MODERN);
	tx->avail->flags = 1;
	done_with(send_one(no_request, 60));
	assert_int_equal(fake_net_called(&net, TX), 0);
	tx->avail->flags = 0;
	done_with(send_one(no_request, 60));
	assert_int_equal(fake_net_called(&net, TX), 1);

	/* A driver that polls has no descriptor. */
	virtio_net_set_call(net.device, TX, -1);
	done_with(send_one(no_request, 60));
	assert_false(vq->broken);
}

static void test_arm(void **state)
{
	struct channel *channel = &net.device->channel;
	struct pkt *pkts[PKT_BURST];

	fake_net_start(&net, MODERN);
	assert_int_equal(tx->used->flags, 1);
	assert_false(channel->ops->arm(channel, 0));
	assert_int_equal(tx->used->flags, 0);
	channel->ops->disarm(channel, 0);
	assert_int_equal(tx->used->flags, 1);
	send_at(FAKE_GPA + FAKE_EDGE, no_request, 60, one_piece, 1, false);
	assert_true(channel->ops->arm(channel, 0));
	assert_int_equal(tx->used->flags, 1);
	assert_int_equal(fake_net_take(&net, pkts), 1);
	pkt_put(pkts[0]);
	virtio_net_enable_ring(net.device, TX, false);
	assert_false(channel->ops->arm(channel, 0));
	assert_int_equal(tx->used->flags, 1);
}

/* ---- the control side ---- */

static void test_features(void **state)
{
	const uint64_t csum = FEATURE(VIRTIO_NET_F_GUEST_CSUM);
	const uint64_t uso4 = FEATURE(VIRTIO_NET_F_GUEST_USO4),
		       uso6 = FEATURE(VIRTIO_NET_F_GUEST_USO6);
	const struct {
		uint64_t features;
		uint32_t caps;
		unsigned header_len;
	} cases[] = {
		{ 0, 0, 10 },
		{ FEATURE(VIRTIO_NET_F_MRG_RXBUF), 0, 12 },
		{ MODERN, 0, 12 },
		{ csum, PORT_CAP_CSUM, 10 },
		{ csum | FEATURE(VIRTIO_NET_F_GUEST_TSO4), PORT_CAP_CSUM | PORT_CAP_TSO4, 10 },
		{ csum | FEATURE(VIRTIO_NET_F_GUEST_TSO6), PORT_CAP_CSUM | PORT_CAP_TSO6, 10 },
		{ csum | FEATURE(VIRTIO_NET_F_GUEST_ECN), PORT_CAP_CSUM | PORT_CAP_TSO_ECN, 10 },
		{ csum | uso4, PORT_CAP_CSUM, 10 },
		{ csum | uso6, PORT_CAP_CSUM, 10 },
		{ csum | uso4 | uso6, PORT_CAP_CSUM | PORT_CAP_USO, 10 },
		/* without checksums none of them */
		{ VIRTIO_NET_FEATURES & ~csum, 0, 12 },
		{ VIRTIO_NET_FEATURES,
		  PORT_CAP_CSUM | PORT_CAP_TSO4 | PORT_CAP_TSO6 | PORT_CAP_TSO_ECN | PORT_CAP_USO,
		  12 },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		virtio_net_set_features(net.device, cases[i].features);
		assert_int_equal(net.device->channel.port.caps, cases[i].caps | PORT_CAP_SG);
		assert_int_equal(net.device->header_len, cases[i].header_len);
	}
}

static void test_pairs_in_use(void **state)
{
	struct virtio_net *many = aligned_alloc(64, (sizeof(*many) + 63) / 64 * 64);

	assert_int_equal(virtio_net_init(many, 4), 0);
	assert_int_equal(many->channel.pairs, 1);
	assert_int_equal(many->channel.port.queues, 4);
	/* Receive rings that are enabled, counted up to the first gap; never none. */
	for (unsigned i = 0; i < 4; i++) {
		virtio_net_enable_ring(many, 2 * i + 1, true);
		assert_int_equal(many->channel.pairs, i ? i : 1);
		virtio_net_enable_ring(many, 2 * i, true);
		assert_int_equal(many->channel.pairs, i + 1);
	}
	virtio_net_enable_ring(many, 2, false);
	assert_int_equal(many->channel.pairs, 1);
	virtio_net_enable_ring(many, 0, false);
	assert_int_equal(many->channel.pairs, 1);
	virtio_net_fini(many);
	free(many);
}

static void test_start_refuses(void **state)
{
	fake_net_start(&net, MODERN);
	virtio_net_stop_ring(net.device, TX);
	vq->setup.size = 3;
	assert_int_equal(virtio_net_start_ring(net.device, TX), -EINVAL);
	vq->setup.size = FAKE_NET_SIZE;
	vq->setup.used_uva = 0;
	assert_int_equal(virtio_net_start_ring(net.device, TX), -EFAULT);
	assert_false(virtq_running(vq));
}

/* Both rings are called once when they were started, whatever our predecessor left undone. */
static void test_greets_the_guest(void **state)
{
	struct pkt *pkts[PKT_BURST];

	fake_net_start(&net, MODERN);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(fake_net_take(&net, pkts), 0);
		assert_int_equal(fake_net_called(&net, TX), 0);
		assert_int_equal(fake_net_called(&net, RX), 0);
		virtio_net_stop_ring(net.device, RX);
		assert_int_equal(virtio_net_start_ring(net.device, RX), 0);
		assert_int_equal(fake_net_take(&net, pkts), 0);
		assert_int_equal(fake_net_called(&net, TX), 1);
		assert_int_equal(fake_net_called(&net, RX), 1);
	}
}

static void test_stop_and_restart(void **state)
{
	struct pkt *pkts[PKT_BURST];

	fake_net_start_at(&net, MODERN, FAKE_NET_SIZE, 65535);
	done_with(send_one(no_request, 60));
	send_at(FAKE_GPA + FAKE_EDGE, no_request, 65, one_piece, 1, false);
	assert_int_equal(virtio_net_stop_ring(net.device, TX), 0);
	assert_int_equal(fake_net_take(&net, pkts), 0);

	/* What was offered meanwhile is there after the start; a broken ring runs again. */
	virtq_break(vq, VIRTQ_LOOP, "g");
	assert_int_equal(virtio_net_start_ring(net.device, TX), 0);
	assert_int_equal(fake_net_take(&net, pkts), 1);
	check_pkt(pkts[0], 65);
	done_with(pkts[0]);
	assert_int_equal(tx->used->idx, 1);

	virtio_net_enable_ring(net.device, TX, false);
	send_at(FAKE_GPA + FAKE_EDGE, no_request, 66, one_piece, 1, false);
	assert_int_equal(fake_net_take(&net, pkts), 0);
	virtio_net_enable_ring(net.device, TX, true);
	assert_int_equal(fake_net_take(&net, pkts), 1);
	pkt_put(pkts[0]);
}

/* The guest's memory moves here while its rings run; the old mappings go away. */
static void test_memory_swap(void **state)
{
	struct guest_mem moved, *old;
	struct pkt *pkts[PKT_BURST];
	uint64_t gpa = FAKE_GPA + FAKE_EDGE;

	fake_net_start(&net, MODERN);
	done_with(send_one(no_request, 60));
	send_at(gpa, no_request, 1518, one_piece, 1, false);
	moved = net.guest.mem;
	for (unsigned i = 0; i < moved.count; i++) {
		moved.regions[i].host = malloc(moved.regions[i].size);
		memcpy(moved.regions[i].host, net.guest.mem.regions[i].host, moved.regions[i].size);
	}
	old = virtio_net_set_memory(net.device, &moved);
	assert_ptr_equal(old, &net.guest.mem);
	fake_guest_fini(&net.guest);
	net.guest.mem = moved;
	tx->used = vq->used;

	assert_int_equal(fake_net_take(&net, pkts), 1);
	check_pkt(pkts[0], 1518);
	done_with(pkts[0]);
	assert_int_equal(tx->used->idx, 2);
	assert_int_equal(net.device->breaks, 0);

	/*
	 * A table without the rings breaks both; they stay broken when it comes back, until they
	 * are set up.
	 */
	moved.count = 0;
	virtio_net_set_memory(net.device, &moved);
	assert_int_equal(net.device->breaks, 2);
	assert_int_equal(fake_net_take(&net, pkts), 0);
	virtio_net_set_memory(net.device, NULL);
	assert_int_equal(net.device->breaks, 2);
	virtio_net_set_memory(net.device, &net.guest.mem);
	assert_int_equal(fake_net_take(&net, pkts), 0);
	assert_int_equal(vq->error, VIRTQ_BAD_ADDRESS);
	virtio_net_stop_ring(net.device, TX);
	assert_int_equal(virtio_net_start_ring(net.device, TX), 0);
	assert_true(virtq_running(vq));
}

static void test_reset(void **state)
{
	struct channel *channel = &net.device->channel;
	struct pkt *pkts[PKT_BURST];

	fake_net_start(&net, VIRTIO_NET_FEATURES);
	send_at(FAKE_GPA + FAKE_EDGE, no_request, 60, one_piece, 1, false);
	assert_ptr_equal(virtio_net_reset(net.device), &net.guest.mem);
	assert_null(net.device->mem);
	assert_int_equal(net.device->features, 0);
	assert_int_equal(net.device->header_len, 10);
	assert_int_equal(channel->port.caps, PORT_CAP_SG);
	for (unsigned i = 0; i < FAKE_NET_RINGS; i++) {
		struct virtq *ring = &net.device->rings[i].vq;

		assert_false(ring->started || ring->enabled || ring->broken);
		assert_int_equal(ring->call_fd, -1);
		assert_int_equal(fcntl(net.calls[i], F_GETFD), -1); /* closed */
	}
	assert_int_equal(fake_net_take(&net, pkts), 0);
	assert_false(channel->ops->arm(channel, 0));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sizes_and_layouts),
		TEST(test_headers_are_private),
		TEST(test_bursts),
		TEST(test_empty_pool),
		TEST(test_fragments),
		TEST(test_bad_packets_among_good_ones),
		TEST(test_only_negotiated_requests),
		TEST(test_requests_are_judged),
		TEST(test_broken_rings),
		TEST(test_long_loop),
		TEST(test_empty_buffer),
		TEST(test_call_that_fails),
		TEST(test_completes_in_any_order),
		TEST(test_completes_in_order),
		TEST(test_calls_when_asked),
		TEST(test_arm),
		TEST(test_features),
		TEST(test_pairs_in_use),
		TEST(test_start_refuses),
		TEST(test_greets_the_guest),
		TEST(test_stop_and_restart),
		TEST(test_memory_swap),
		TEST(test_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
