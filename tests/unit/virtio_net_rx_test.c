/* SPDX-License-Identifier: BSD-3-Clause */
/* The virtio network device: what a guest receives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fake_net.h"

enum { PAGE = 4096 };

static struct fake_net net;
static struct fake_ring *rx = &net.rings[RX];
static struct virtq *vq;
static uint8_t frame[FRAME_MAX + 64], copy[FRAME_MAX + 600];

static int set_up(void **state)
{
	fake_net_init(&net);
	vq = &net.device->rings[RX].vq;
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = i * 7 + i / 251;
	return 0;
}

static int tear_down(void **state)
{
	return fake_net_fini(&net) ? 0 : -1;
}

/*
 * A packet of the frame's first len bytes: header_len in the header copy, the rest in fragments of
 * frag_len.
 */
static struct pkt *make_pkt(uint32_t len, uint32_t header_len, uint32_t frag_len)
{
	struct pkt *pkt, *pkts[1];

	if (pkt_pool_get(&net.worker->pool, pkts, 1) != 1)
		abort();
	pkt = pkts[0];
	pkt->len = len;
	pkt->header_len = header_len < len ? header_len : len;
	memcpy(pkt->header, frame, pkt->header_len);
	for (uint32_t off = pkt->header_len; off < len; off += frag_len) {
		uint32_t part = frag_len < len - off ? frag_len : len - off;

		if (pkt->frag_count == PKT_INLINE_FRAGS)
			assert_true(pkt_take_frag_block(&net.worker->pool, pkt));
		pkt->frags[pkt->frag_count++] = (struct iovec){ frame + off, part };
	}
	return pkt;
}

/*
 * Send to the guest as backend.c does, without counting. Returns how many fit; *why as the device
 * said.
 */
static unsigned give(struct pkt **pkts, unsigned n, uint64_t **why)
{
	return virtio_net_channel_ops.guest_rx(&net.device->channel, 0, pkts, n, why);
}

/* One frame of len bytes. NULL: it fitted; otherwise the counter that it belongs to. */
static uint64_t *give_one(uint32_t len)
{
	struct pkt *pkt = make_pkt(len, PKT_HEADER_FAST, 4096);
	uint64_t *why = NULL;
	unsigned fit = give(&pkt, 1, &why);

	pkt_put(pkt);
	worker_complete(net.worker);
	return fit ? NULL : why;
}

/*
 * Post a chain of n buffers of len bytes each, anywhere. Returns its head; *gpa is where the first
 * one is.
 */
static uint16_t post(unsigned n, uint32_t len, uint64_t *gpa)
{
	struct fake_buf bufs[1024] = { 0 };
	uint16_t head;

	for (unsigned i = 0; i < n; i++) {
		bufs[i] = (struct fake_buf){ fake_alloc(&net.guest, len), len };
		memset(fake_at(&net.guest, bufs[i].gpa, len), 0x55, len);
	}
	*gpa = bufs[0].gpa;
	head = fake_chain(rx, bufs, n, VIRTQ_DESC_WRITE);
	fake_offer(rx, head);
	return head;
}

/*
 * Collect what the driver got in the used entry: walk its chain. Returns the bytes said to be
 * there.
 */
static uint32_t collect(struct virtq_used_elem elem, uint8_t *to)
{
	const struct virtq_desc *desc = &rx->desc[elem.id];

	for (uint32_t left = elem.len, part; left > 0; left -= part, to += part) {
		part = desc->len < left ? desc->len : left;
		fake_read(&net.guest, desc->addr, to, part);
		desc = &rx->desc[desc->next];
	}
	return elem.len;
}

/*
 * The driver receives a frame: as many used entries as the header of the first says. Returns that
 * number.
 */
static unsigned check_received(uint32_t len, const uint8_t *vnet)
{
	unsigned header_len = net.device->header_len, buffers = 1;
	struct virtq_used_elem elem;
	uint32_t got;

	assert_true(fake_used(rx, &elem));
	got = collect(elem, copy);
	if (header_len == 12 && got >= 12)
		buffers = vnet_get16(copy + 10);
	for (unsigned i = 1; i < buffers; i++) {
		assert_true(fake_used(rx, &elem));
		got += collect(elem, copy + got);
	}
	assert_int_equal(got, header_len + len);
	assert_memory_equal(copy, vnet, 10);
	assert_memory_equal(copy + header_len, frame, len);
	return buffers;
}

static const uint8_t no_request[VNET_LEN];
static const uint32_t lengths[] = { 14, 60, 63, 64, 65, 1514, 1518, 9014, 65549, PKT_LEN_MAX };

enum { LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };

/* ---- frames of every size into buffers of every kind ---- */

static void test_one_buffer(void **state)
{
	static const uint64_t features[] = { 0, MODERN, MERGEABLE };
	struct virtq_used_elem elem;
	uint64_t gpa;

	for (unsigned f = 0; f < 3; f++) {
		net.guest.next = FAKE_GPA;
		fake_net_start_at(&net, features[f], 16, 65530);
		for (unsigned i = 0; i < LENGTHS * 3; i++) {
			uint32_t len = lengths[i / 3], room = net.device->header_len + len;
			uint64_t before = net.guest.next;

			/* exactly enough, one more, a lot more; and nothing is written behind the frame */
			room += i % 3 == 0 ? 0 : i % 3 == 1 ? 1 : 500;
			post(1, room, &gpa);
			assert_null(give_one(len));
			assert_int_equal(check_received(len, no_request), 1);
			fake_read(&net.guest, gpa, copy, room);
			for (uint32_t j = net.device->header_len + len; j < room; j++)
				assert_int_equal(copy[j], 0x55);
			net.guest.next = before;
		}
		assert_false(fake_used(rx, &elem));
	}
}

/* Packets of any geometry read the same. */
static void test_packet_layouts(void **state)
{
	static const uint32_t layouts[][2] = {
		{ 64, 4096 }, { 192, 4096 }, { 14, 140 }, { 0, 200 }, { 100, 7 }
	};

	fake_net_start(&net, MERGEABLE);
	for (unsigned i = 0; i < 5 * 2; i++) {
		uint64_t before = net.guest.next, gpa, *why;
		struct pkt *pkt = make_pkt(1518, layouts[i / 2][0], layouts[i / 2][1]);

		post(i % 2 ? 1 : 30, i % 2 ? 2000 : 60, &gpa);
		assert_int_equal(give(&pkt, 1, &why), 1);
		check_received(1518, no_request);
		pkt_put(pkt);
		worker_complete(net.worker);
		net.guest.next = before;
	}
}

/*
 * Chains: a legacy driver's, with the header a descriptor of its own, and of pieces down to one
 * byte.
 */
static void test_chains(void **state)
{
	static const uint64_t features[] = { 0, MODERN, MERGEABLE };
	static const uint32_t pieces[] = { 1, 5, 9, 13, 64, 4096 };
	uint64_t gpa;

	for (unsigned f = 0; f < 3; f++) {
		net.guest.next = FAKE_GPA;
		fake_net_start(&net, features[f]);
		for (unsigned i = 0; i < LENGTHS; i++) {
			uint64_t before = net.guest.next;
			uint32_t need = net.device->header_len + lengths[i];
			struct fake_buf bufs[] = { { FAKE_GPA + FAKE_EDGE, net.device->header_len },
						   { FAKE_GPA + FAKE_EDGE + 100, lengths[i] } };

			fake_offer(rx, fake_chain(rx, bufs, 2, VIRTQ_DESC_WRITE));
			assert_null(give_one(lengths[i]));
			assert_int_equal(check_received(lengths[i], no_request), 1);
			for (unsigned j = 0; j < sizeof(pieces) / sizeof(pieces[0]); j++) {
				if (need / pieces[j] >= FAKE_NET_SIZE)
					continue;
				net.guest.next = before;
				post(need / pieces[j] + 1, pieces[j], &gpa);
				assert_null(give_one(lengths[i]));
				assert_int_equal(check_received(lengths[i], no_request), 1);
			}
			net.guest.next = before;
		}
	}
}

static void test_indirect_chain_across_an_edge(void **state)
{
	uint64_t edge = FAKE_GPA + FAKE_EDGE;
	struct fake_buf bufs[] = { { edge - 5, 40 }, { edge + 1000, 100 } };

	fake_net_start(&net, MODERN | FEATURE(VIRTIO_RING_F_INDIRECT_DESC));
	fake_offer(rx, fake_chain_indirect(rx, bufs, 2, VIRTQ_DESC_WRITE));
	assert_null(give_one(60));
	fake_read(&net.guest, edge - 5, copy, 40);
	fake_read(&net.guest, edge + 1000, copy + 40, 32);
	assert_memory_equal(copy + 12, frame, 60);

	/* One buffer across the edge is taken like a chain. */
	fake_offer(rx, fake_chain(rx, bufs, 1, VIRTQ_DESC_WRITE));
	assert_null(give_one(28));
	fake_read(&net.guest, edge - 5, copy, 40);
	assert_memory_equal(copy + 12, frame, 28);
}

/* Mergeable buffers: as many as it takes, their number in the first. */
static void test_mergeable(void **state)
{
	static const uint32_t rooms[] = { 1, 11, 12, 13, 64, 100, 1000, 1526, 2048, 4096, 65536 };
	struct virtq_used_elem elem;
	uint64_t gpa;

	fake_net_start_at(&net, MERGEABLE, 2048, 65000);
	for (unsigned i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
		for (unsigned j = 0; j < LENGTHS; j++) {
			unsigned buffers = (12 + lengths[j] + rooms[i] - 1) / rooms[i];
			uint64_t before = net.guest.next;

			if (buffers > 1024)
				continue;
			for (unsigned k = 0; k < buffers + 2; k++)
				post(1, rooms[i], &gpa);
			assert_null(give_one(lengths[j]));
			if (rooms[i] < 12) {
				/* The header itself is over several: all the test can see is their number. */
				for (unsigned k = 0; k < buffers; k++)
					assert_true(fake_used(rx, &elem));
			} else {
				assert_int_equal(check_received(lengths[j], no_request), buffers);
			}
			assert_false(fake_used(rx, &elem));
			/* The two that are left are taken next. */
			assert_int_equal(virtq_available(vq), 2);
			vq->last_avail += 2;
			virtq_publish(vq, 2);
			rx->used_idx += 2;
			net.guest.next = before;
		}
	}
}

static void test_mergeable_burst(void **state)
{
	struct pkt *pkts[PKT_BURST];
	uint64_t gpa, *why = NULL;
	unsigned count = 0;

	/* Small and large in turn: plain copies between scattered ones, published together. */
	fake_net_start_at(&net, MERGEABLE, 256, 65500);
	for (unsigned i = 0; i < 100; i++)
		post(1, 600, &gpa);
	for (unsigned i = 0; i < PKT_BURST; i++)
		pkts[i] = make_pkt(i % 2 ? 1518 : 60 + i, 64, 700);
	assert_int_equal(give(pkts, PKT_BURST, &why), PKT_BURST);
	for (unsigned i = 0; i < PKT_BURST; i++) {
		count += check_received(i % 2 ? 1518 : 60 + i, no_request);
		pkt_put(pkts[i]);
	}
	assert_int_equal(count, 16 + 16 * 3);
	assert_int_equal(vq->last_avail, (uint16_t)(65500 + count));
}

/* ---- what does not fit ---- */

static void test_no_buffers(void **state)
{
	struct port_stats *stats = fake_net_stats(&net);
	struct virtq_used_elem elem;
	struct pkt *pkts[3];
	uint64_t gpa, *why = NULL;

	fake_net_start(&net, MERGEABLE);
	assert_ptr_equal(give_one(60), &stats->drop_no_buffers);
	post(1, 100, &gpa);
	post(1, 100, &gpa);
	for (unsigned i = 0; i < 3; i++)
		pkts[i] = make_pkt(60, 64, 1);
	assert_int_equal(give(pkts, 3, &why), 2);
	assert_ptr_equal(why, &stats->drop_no_buffers);
	check_received(60, no_request);
	check_received(60, no_request);
	for (unsigned i = 0; i < 3; i++)
		pkt_put(pkts[i]);

	/* A packet that needs one more than there are takes none; a smaller one has them. */
	for (unsigned i = 0; i < 3; i++)
		post(1, 100, &gpa);
	assert_ptr_equal(give_one(300), &stats->drop_no_buffers);
	assert_false(fake_used(rx, &elem));
	assert_null(give_one(288));
	assert_int_equal(check_received(288, no_request), 3);
}

static void test_too_big(void **state)
{
	struct port_stats *stats = fake_net_stats(&net);
	struct virtq_used_elem elem;
	uint64_t gpa;

	fake_net_start(&net, MODERN);
	for (unsigned i = 0; i < 10; i++)
		post(1 + i % 2, 1526 / (1 + i % 2), &gpa);
	for (unsigned i = 0; i < 10; i++) {
		assert_ptr_equal(give_one(1515), &stats->drop_too_big);
		assert_false(fake_used(rx, &elem));
		assert_null(give_one(1514));
		assert_int_equal(check_received(1514, no_request), 1);
	}
	/* Mergeable buffers so small that there would be no end of them. */
	net.guest.next = FAKE_GPA;
	fake_net_start_at(&net, MERGEABLE, 4096, 0);
	for (unsigned i = 0; i < 3000; i++) {
		struct fake_buf buf = { FAKE_GPA + FAKE_EDGE + i, 1 };

		fake_offer(rx, fake_chain(rx, &buf, 1, VIRTQ_DESC_WRITE));
	}
	assert_ptr_equal(give_one(1518), &stats->drop_too_big);
	assert_false(fake_used(rx, &elem));
}

static void test_not_ready(void **state)
{
	struct port_stats *stats = fake_net_stats(&net);
	uint64_t gpa;

	assert_ptr_equal(give_one(60), &stats->drop_not_ready);
	fake_net_start(&net, MERGEABLE);
	post(1, 100, &gpa);
	virtio_net_enable_ring(net.device, RX, false);
	assert_ptr_equal(give_one(60), &stats->drop_not_ready);
	virtio_net_enable_ring(net.device, RX, true);
	virtio_net_stop_ring(net.device, RX);
	assert_ptr_equal(give_one(60), &stats->drop_not_ready);
	assert_int_equal(virtio_net_start_ring(net.device, RX), 0);
	assert_null(give_one(60));
	check_received(60, no_request);
}

/* ---- the virtio_net_hdr ---- */

static void test_header_says_what_is_asked(void **state)
{
	const uint64_t csum = FEATURE(VIRTIO_NET_F_GUEST_CSUM);
	const struct pkt_offload gso = { PKT_CSUM_PARTIAL | PKT_GSO_ECN, PKT_GSO_TCPV4, 1448, 34,
					 16 };
	const struct pkt_offload valid = { .flags = PKT_CSUM_VALID };
	static const uint8_t gso_vnet[VNET_LEN] = { 1,         0x81, 54, 0,  1448 & 0xff,
						    1448 >> 8, 34,   0,  16, 0 };
	static const uint8_t valid_vnet[VNET_LEN] = { 2 };
	uint64_t gpa, *why;

	for (unsigned i = 0; i < 2; i++) {
		net.guest.next = FAKE_GPA;
		fake_net_start(&net, i ? MERGEABLE | csum : csum);
		for (unsigned j = 0; j < 4; j++) {
			struct pkt *pkt = make_pkt(1000, 64, 4096);

			pkt->offload = j < 2 ? gso : valid;
			pkt->payload_off = 54;
			if (i && j % 2)
				post(1, 600, &gpa);
			post(1, i && j % 2 ? 600 : 1100, &gpa);
			assert_int_equal(give(&pkt, 1, &why), 1);
			check_received(1000, j < 2 ? gso_vnet : valid_vnet);
			pkt_put(pkt);
			worker_complete(net.worker);
		}
	}
	/* Whoever did not negotiate checksums hears nothing of them. */
	net.guest.next = FAKE_GPA;
	fake_net_start(&net, MERGEABLE);
	struct pkt *pkt = make_pkt(1000, 64, 4096);

	pkt->offload = valid;
	post(1, 1100, &gpa);
	assert_int_equal(give(&pkt, 1, &why), 1);
	check_received(1000, no_request);
	pkt_put(pkt);
}

/* A header that is right already is left alone: its page may be read-only. */
static void test_header_written_only_when_it_differs(void **state)
{
	struct guest_region *region = &net.guest.mem.regions[1];
	uint8_t *calloced = region->host;
	uint8_t *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			      -1, 0);

	assert_true(pages != MAP_FAILED);
	region->host = pages;
	for (unsigned i = 0; i < 2; i++) {
		unsigned header_len = i ? 12 : 10;
		struct fake_buf buf = { region->gpa + PAGE - header_len, 200 };

		net.guest.next = FAKE_GPA;
		fake_net_start(&net, i ? MERGEABLE : 0);
		/* Different in its first byte, or the last; then right, and not to be touched. */
		for (unsigned j = 0; j < 3; j++) {
			uint8_t *header = pages + PAGE - header_len;

			if (j < 2)
				header[j ? header_len - 1 : 0] ^= 0x80;
			else
				assert_int_equal(mprotect(pages, PAGE, PROT_READ), 0);
			fake_offer(rx, fake_chain(rx, &buf, 1, VIRTQ_DESC_WRITE));
			assert_null(give_one(60));
			check_received(60, no_request);
		}
		assert_int_equal(mprotect(pages, PAGE, PROT_READ | PROT_WRITE), 0);
	}
	region->host = calloced;
	munmap(pages, 2 * PAGE);
}

/* ---- rings that break the rules ---- */

static void check_broken(enum virtq_error error, uint64_t breaks)
{
	assert_true(vq->broken);
	assert_int_equal(vq->error, error);
	assert_int_equal(net.device->breaks, breaks);

	/* Nothing of it is touched again. */
	vq->desc = NULL;
	vq->avail = NULL;
	vq->used = NULL;
	vq->mem = NULL;
	assert_ptr_equal(give_one(60), &fake_net_stats(&net)->drop_not_ready);
	virtio_net_channel_ops.kick(&net.device->channel, 0);
	assert_int_equal(fake_net_called(&net, RX), 0);
	assert_int_equal(net.device->breaks, breaks);
}

static void test_broken_rings(void **state)
{
	static const enum virtq_error errors[] = {
		VIRTQ_INDEX_JUMP,  VIRTQ_BAD_HEAD,     VIRTQ_LOOP,          VIRTQ_BAD_ADDRESS,
		VIRTQ_ZERO_LENGTH, VIRTQ_BAD_INDIRECT, VIRTQ_BAD_DIRECTION,
	};

	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		uint64_t gpa;
		uint16_t head;

		net.guest.next = FAKE_GPA;
		fake_net_start(&net, MERGEABLE);
		head = post(2, 20, &gpa);
		switch (errors[i]) {
		case VIRTQ_BAD_HEAD:
			rx->avail->ring[0] = FAKE_NET_SIZE;
			break;
		case VIRTQ_LOOP:
			rx->desc[head + 1].flags |= VIRTQ_DESC_NEXT;
			rx->desc[head + 1].next = head;
			break;
		case VIRTQ_BAD_ADDRESS:
			rx->desc[head + 1].addr = FAKE_GPA - 1;
			break;
		case VIRTQ_ZERO_LENGTH:
			rx->desc[head + 1].len = 0;
			break;
		case VIRTQ_BAD_INDIRECT:
			rx->desc[head].flags = VIRTQ_DESC_INDIRECT;
			break;
		case VIRTQ_BAD_DIRECTION:
			rx->desc[head].flags = VIRTQ_DESC_NEXT;
			break;
		default:
			rx->avail->idx = FAKE_NET_SIZE + 1;
		}
		assert_ptr_equal(give_one(60), &fake_net_stats(&net)->drop_not_ready);
		assert_int_equal(rx->used->idx, 0);
		check_broken(errors[i], i + 1);
	}
}

/*
 * A ring that breaks in the middle of a burst: none of the burst arrives, and none is said to have.
 */
static void test_breaks_within_a_burst(void **state)
{
	struct pkt *pkts[4];
	uint64_t gpa, first, *why = NULL;

	fake_net_start(&net, MERGEABLE);
	post(1, 100, &first);
	post(1, 100, &gpa);
	post(1, 0, &gpa);
	post(1, 100, &gpa);
	for (unsigned i = 0; i < 4; i++)
		pkts[i] = make_pkt(60, 64, 1);
	assert_int_equal(give(pkts, 4, &why), 0);
	assert_ptr_equal(why, &fake_net_stats(&net)->drop_not_ready);
	assert_int_equal(rx->used->idx, 0);
	fake_read(&net.guest, first, copy, 100);
	assert_int_equal(copy[20], 0x55);
	for (unsigned i = 0; i < 4; i++)
		pkt_put(pkts[i]);
	check_broken(VIRTQ_ZERO_LENGTH, 1);
}

/* ---- notifications ---- */

static void kick(void)
{
	virtio_net_channel_ops.kick(&net.device->channel, 0);
}

static void test_kicks_once_per_flush(void **state)
{
	uint64_t gpa;

	fake_net_start(&net, MERGEABLE);
	for (unsigned i = 0; i < 10; i++)
		post(1, 100, &gpa);
	kick();
	assert_int_equal(fake_net_called(&net, RX), 0);
	for (unsigned i = 0; i < 3; i++)
		give_one(60);
	assert_int_equal(fake_net_called(&net, RX), 0);
	kick();
	kick();
	assert_int_equal(fake_net_called(&net, RX), 1);
	assert_int_equal(fake_net_stats(&net)->doorbells, 2 + 1); /* two when it was started */
	rx->avail->flags = 1;
	give_one(60);
	kick();
	assert_int_equal(fake_net_called(&net, RX), 0);
	/* What did not fit is nothing to tell. */
	rx->avail->flags = 0;
	give_one(60000);
	kick();
	assert_int_equal(fake_net_called(&net, RX), 0);

	/* The driver says at which entry it wants to hear; until then it does not. */
	net.guest.next = FAKE_GPA;
	fake_net_start(&net, MERGEABLE | FEATURE(VIRTIO_RING_F_EVENT_IDX));
	for (unsigned i = 0; i < 10; i++)
		post(1, 100, &gpa);
	give_one(60);
	kick();
	assert_int_equal(fake_net_called(&net, RX), 1);
	*fake_used_event(rx) = 2;
	give_one(60);
	kick();
	assert_int_equal(fake_net_called(&net, RX), 0);
	give_one(60);
	kick();
	assert_int_equal(fake_net_called(&net, RX), 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_one_buffer),
		TEST(test_packet_layouts),
		TEST(test_chains),
		TEST(test_indirect_chain_across_an_edge),
		TEST(test_mergeable),
		TEST(test_mergeable_burst),
		TEST(test_no_buffers),
		TEST(test_too_big),
		TEST(test_not_ready),
		TEST(test_header_says_what_is_asked),
		TEST(test_header_written_only_when_it_differs),
		TEST(test_broken_rings),
		TEST(test_breaks_within_a_burst),
		TEST(test_kicks_once_per_flush),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
