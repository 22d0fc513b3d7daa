/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The snet channel's back end: ports, queues and packets, with front ends that are this file.
 *
 *      struct front ==rings==> struct snet ==> port ops, called from here: there is no bridge
 *        its zones               |
 *      struct front <==rings== struct snet <== packets made here, or sent by the other front
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include "frames.h"
#include "guest/snet.h"
#include "pkt/headers.h"
#include "port/worker.h"

#include <cmocka.h> /* last: it has a macro fail() */

enum { POOL = 2048, RING = 64, TX_ZONES = 1, RX_ZONES = 2, ID = 1000, OWN_ORDER = 8 };

/* A front end and its guest. Indexes are as the front end counts them. */
struct front {
	struct snet snet;
	struct zone_group tx, rx;
	struct snet_rings rings;
	struct snet_queue *queue;
	uint32_t tx_produced, tx_done, rx_taken, rx_given;
};

static struct worker *worker;
static struct zone_space space;
static struct front a, b;
static uint64_t seed;
static uint8_t expected[PKT_LEN_MAX];

/* ---- the front end ---- */

static void make_front(struct front *front, const char *name, bool shared, uint32_t ring,
		       uint32_t stride)
{
	static const unsigned bytes[] = { SNET_SMALL_BYTES, SNET_LARGE_BYTES };
	static const unsigned counts[] = { 640, 64 };
	struct snet *snet = &front->snet;
	struct snet_session *session = snet_session_new(1, ring, stride);
	struct error error;

	memset(front, 0, sizeof(*front));
	assert_non_null(session);
	strcpy(snet->port.name, name);
	snet->port.ops = &snet_port_ops;
	snet->port.queues = 1;
	snet->port.mtu = 1500;
	snet->port.caps = UINT32_MAX;
	snet->space = &space;
	snet->shared = shared;
	assert_int_equal(port_register(&snet->port), 0);

	zone_group_init(&front->tx, &space, name, ZONE_WRITABLE, TX_ZONES);
	zone_group_init(&front->rx, &space, name, ZONE_READ_ONLY, RX_ZONES);
	assert_int_equal(zone_group_grow(&front->tx, TX_ZONES, &error), 0);
	assert_int_equal(zone_group_grow(&front->rx, RX_ZONES, &error), 0);
	zone_group_mapped(&front->rx, UINT32_MAX);
	for (unsigned i = 0; i < SNET_CLASSES; i++) {
		snet->slabs[i] = slab_new(&front->rx, bytes[i], 1);
		assert_int_equal(slab_grow(snet->slabs[i], counts[i]), 0);
	}
	session->tx = &front->tx;
	session->snet = snet;
	snet->session = session;
	front->queue = &session->queues[0];
	front->queue->worker = worker;
	snet->own[0] = zone_pages_get(&front->rx, OWN_ORDER);
	assert_non_null(snet->own[0]);
	snet_rx_start(snet, front->queue, snet->own[0]);
	snet_rings_at(&front->rings, session->memory, ring, stride);
}

/* The front end goes; its session is returned, to be freed when it is done. */
static struct snet_session *stop_front(struct front *front)
{
	return snet_stop(&front->snet);
}

static void free_front(struct front *front)
{
	struct snet_session *session = stop_front(front);

	if (session) {
		worker_complete(worker);
		assert_true(snet_session_done(session));
		snet_session_free(session);
	}
	for (unsigned i = 0; i < SNET_CLASSES; i++)
		assert_int_equal(slab_free(front->snet.slabs[i]), 0);
	port_unregister(&front->snet.port);
	zone_group_fini(&front->tx);
	zone_group_fini(&front->rx);
}

static uint32_t age = 0; /* where all indexes begin */

/* As after a long life. */
static void make_old(struct front *front, uint32_t index)
{
	struct snet_control *control = front->rings.control;
	struct snet_queue *queue = front->queue;

	front->tx_produced = front->tx_done = front->rx_taken = front->rx_given = index;
	queue->tx_taken = queue->tx_returned = queue->rx_put = queue->rx_returned = index;
	control->front.produced = control->front.given_back = index;
	control->back.produced = control->back.given_back = index;
}

static int set_up(void **state)
{
	struct error error;

	worker = fake_worker(POOL);
	seed = 4711;
	if (zone_space_init(&space, 64, ZONE_TRANSPARENT, &error))
		return -1;
	make_front(&a, "a", false, RING, SNET_ENTRY_MIN);
	make_front(&b, "b", false, RING, SNET_ENTRY_MIN);
	if (age) {
		make_old(&a, age);
		make_old(&b, age);
	}
	return 0;
}

static int tear_down(void **state)
{
	worker_complete(worker);
	free_front(&b);
	free_front(&a);
	assert_int_equal(worker->pool.free_count, POOL);
	assert_int_equal(worker->pool.block_count, worker->pool.block_capacity);
	zone_space_fini(&space);
	fake_worker_free(worker);
	return 0;
}

static uint8_t *tx_memory(const struct front *front)
{
	return front->tx.zones->base;
}

static uint32_t tx_zone(const struct front *front)
{
	return zone_id(front->tx.zones);
}

/* Write a tx entry, not published. */
static struct snet_entry *put(struct front *front, uint32_t off, uint32_t len, uint32_t id,
			      uint8_t flags)
{
	struct snet_entry *entry = snet_entry_at(&front->rings, front->rings.tx,
						 front->tx_produced++);

	*entry = (struct snet_entry){
		.zone = tx_zone(front), .offset = off, .len = len, .id = id, .flags = flags
	};
	return entry;
}

static void publish(struct front *front)
{
	snet_publish(&front->rings.control->front.produced, front->tx_produced);
}

/* Is an id given back? */
static bool done(struct front *front, uint32_t *id)
{
	if (snet_look(&front->rings.control->back.given_back) == front->tx_done)
		return false;
	*id = front->rings.tx_done[front->tx_done++ & front->rings.mask];
	return true;
}

static bool take(struct front *front, struct snet_entry *entry)
{
	if (snet_look(&front->rings.control->back.produced) == front->rx_taken)
		return false;
	*entry = *snet_entry_at(&front->rings, front->rings.rx, front->rx_taken++);
	return true;
}

static void give(struct front *front, uint32_t id)
{
	front->rings.rx_done[front->rx_given++ & front->rings.mask] = id;
	snet_publish(&front->rings.control->front.given_back, front->rx_given);
}

static uint8_t *at(const struct snet_entry *entry)
{
	const struct zone *zone = zone_by_id(&space, entry->zone);

	assert_non_null(zone);
	assert_true(zone_holds(entry->offset, entry->len));
	return zone->base + entry->offset;
}

/* The next packet, gathered; its first entry, and the ids of all. */
static uint32_t receive(struct front *front, uint8_t *bytes, struct snet_entry *first,
			uint32_t *ids, unsigned *count)
{
	struct snet_entry entry = { 0 };
	uint32_t len = 0;

	*count = 0;
	if (!take(front, &entry))
		return 0;
	*first = entry;
	for (;;) {
		memcpy(bytes + len, at(&entry), entry.len);
		len += entry.len;
		ids[(*count)++] = entry.id;
		if (!(entry.flags & SNET_MORE))
			return len;
		assert_true(take(front, &entry));
	}
}

/* ---- vifd ---- */

static unsigned vifd_recv(struct front *front, struct pkt **pkts)
{
	return snet_port_ops.recv(&front->snet.port, 0, pkts, PKT_BURST);
}

static void vifd_send(struct front *front, struct pkt **pkts, unsigned n)
{
	snet_port_ops.send(&front->snet.port, pkts, n);
	worker_complete(worker);
}

static struct port_stats *stats(struct front *front)
{
	return &front->snet.port.stats[worker->id];
}

static void put_all(struct pkt **pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		pkt_put(pkts[i]);
	worker_complete(worker);
}

/* Random bytes that look like a frame between two stations. */
static void fill(uint8_t *bytes, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		bytes[i] = rnd(&seed);
	if (len >= 14) {
		bytes[0] = bytes[6] = 2;
		bytes[12] = 0x88;
		bytes[13] = 0xb5;
	}
}

/* A packet of vifd's own memory, at most PKT_HEADER_FAST of it in the header. */
static struct pkt *private_pkt(uint8_t *bytes, uint32_t len)
{
	uint32_t header = len < PKT_HEADER_FAST ? len : PKT_HEADER_FAST;
	struct pkt *pkt = NULL;

	assert_int_equal(pkt_pool_get(&worker->pool, &pkt, 1), 1);
	pkt->len = len;
	pkt->header_len = header;
	pkt->in_port = 0;
	memcpy(pkt->header, bytes, header);
	if (len > header) {
		pkt->frags[0] = (struct iovec){ bytes + header, len - header };
		pkt->frag_count = 1;
	}
	return pkt;
}

static void broken(struct front *front, enum snet_error error)
{
	unsigned queue;

	assert_int_equal(snet_session_error(front->snet.session, &queue), error);
	assert_int_equal(front->snet.breaks, 1);
}

/* ---- what a guest sends ---- */

static void sent_by_reference(void **state)
{
	struct pkt *pkts[PKT_BURST];
	uint8_t *memory = tx_memory(&a);
	uint32_t id = 0;

	fill(memory + 4096, 1514);
	put(&a, 4096, 1514, ID, 0);
	assert_int_equal(vifd_recv(&a, pkts), 0); /* not published yet */
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 1);
	assert_int_equal(pkts[0]->len, 1514);
	assert_int_equal(pkts[0]->in_port, a.snet.port.id);
	assert_int_equal(pkts[0]->header_len, PKT_HEADER_FAST);
	assert_memory_equal(pkts[0]->header, memory + 4096, PKT_HEADER_FAST);
	assert_int_equal(pkts[0]->frag_count, 1);
	assert_ptr_equal(pkts[0]->frags[0].iov_base, memory + 4096 + PKT_HEADER_FAST);
	assert_int_equal(pkts[0]->frags[0].iov_len, 1514 - PKT_HEADER_FAST);
	assert_false(done(&a, &id)); /* only when it has been sent */
	put_all(pkts, 1);
	assert_true(done(&a, &id));
	assert_int_equal(id, ID);
	assert_false(done(&a, &id));
	assert_int_equal(stats(&a)->recv_packets, 1);
	assert_int_equal(stats(&a)->recv_bytes, 1514);
}

/* Frames of all small sizes, and cut into buffers of all kinds. */
static void sent_in_pieces(void **state)
{
	static const unsigned counts[] = { 1, 2, 3, 19, 20, 21, 40, SNET_PACKET_ENTRIES };
	uint8_t *memory = tx_memory(&a), copy[4096];
	struct pkt *pkts[PKT_BURST];

	for (unsigned round = 0; round < 400; round++) {
		unsigned count = counts[round % 8];
		uint32_t len = count > 14 ? count + rnd(&seed) % 2000 : 14 + rnd(&seed) % 200;
		uint32_t left = len, off = 0, id = 0, ids = 0;

		fill(memory, len);
		for (unsigned i = 0; i < count; i++) {
			uint32_t piece = i + 1 == count ? left
							: 1 + rnd(&seed) % (left - (count - 1 - i));

			put(&a, off, piece, ID + i, i + 1 == count ? 0 : SNET_MORE);
			off += piece;
			left -= piece;
		}
		publish(&a);
		assert_int_equal(vifd_recv(&a, pkts), 1);
		assert_int_equal(pkts[0]->len, len);
		assert_int_equal(pkts[0]->header_len, len < 64 ? len : 64);
		pkt_copy_out(pkts[0], 0, copy, len);
		assert_memory_equal(copy, memory, len);
		put_all(pkts, 1);
		while (done(&a, &id))
			ids += id - ID;
		assert_int_equal(ids, count * (count - 1) / 2);
	}
}

/* Packets may be done in any order; ids return in that order, each once. */
static void done_in_any_order(void **state)
{
	struct pkt *pkts[PKT_BURST];
	uint32_t id = 0;

	fill(tx_memory(&a), 100);
	for (unsigned i = 0; i < 8; i++) {
		put(&a, 0, 60, ID + 2 * i, SNET_MORE);
		put(&a, 60, 40, ID + 2 * i + 1, 0);
	}
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 8);
	for (unsigned i = 8; i-- > 0;) {
		put_all(&pkts[i], 1);
		assert_true(done(&a, &id));
		assert_int_equal(id, ID + 2 * i);
		assert_true(done(&a, &id));
		assert_int_equal(id, ID + 2 * i + 1);
	}
	assert_false(done(&a, &id));
}

static void bad_packets_are_dropped(void **state)
{
	struct pkt *pkts[PKT_BURST];
	uint32_t id = 0, returned = 0;

	fill(tx_memory(&a), 70000);
	put(&a, 0, 13, ID, 0);
	put(&a, 0, 1, ID, 0);
	put(&a, 0, PKT_LEN_MAX + 1, ID, 0);
	put(&a, 0, ZONE_SIZE, ID, 0);
	put(&a, 0, 14, ID, 0);
	put(&a, 0, PKT_LEN_MAX, ID, 0);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 2);
	assert_int_equal(stats(&a)->drop_runt, 2);
	assert_int_equal(stats(&a)->drop_oversize, 2);
	put_all(pkts, 2);
	while (done(&a, &id))
		returned++;
	assert_int_equal(returned, 6);
	assert_int_equal(a.snet.breaks, 0);
}

/* One entry that is wrong: what came before it in the burst is good. */
static void entry_breaks(uint32_t zone, uint32_t off, uint32_t len, enum snet_error error)
{
	struct pkt *pkts[PKT_BURST];
	struct snet_entry *entry;

	put(&a, 0, 100, ID, 0);
	entry = put(&a, off, len, ID, 0);
	entry->zone = zone;
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 1);
	broken(&a, error);
	assert_int_equal(stats(&a)->drop_bad_descriptor, 1);
	put_all(pkts, 1);
	put(&a, 0, 100, ID, 0);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 0);
	assert_false(snet_port_ops.arm(&a.snet.port, 0));
}

static void zone_unknown(void **state)
{
	entry_breaks(999, 0, 100, SNET_BAD_BUFFER);
}

static void zone_nought(void **state)
{
	entry_breaks(0, 0, 100, SNET_BAD_BUFFER);
}

/* Same place in the table of zones, another zone. */
static void zone_of_the_same_slot(void **state)
{
	entry_breaks(tx_zone(&a) + ZONES_MAX, 0, 100, SNET_BAD_BUFFER);
}

static void zone_of_somebody_else(void **state)
{
	entry_breaks(tx_zone(&b), 0, 100, SNET_BAD_BUFFER);
}

static void zone_to_receive_into(void **state)
{
	entry_breaks(zone_id(a.rx.zones), 0, 100, SNET_BAD_BUFFER);
}

static void beyond_the_zone(void **state)
{
	entry_breaks(tx_zone(&a), ZONE_SIZE - 99, 100, SNET_BAD_BUFFER);
}

static void far_beyond_the_zone(void **state)
{
	entry_breaks(tx_zone(&a), ZONE_SIZE, 100, SNET_BAD_BUFFER);
}

static void length_that_wraps(void **state)
{
	entry_breaks(tx_zone(&a), 100, UINT32_MAX - 50, SNET_BAD_BUFFER);
}

static void empty_buffer(void **state)
{
	entry_breaks(tx_zone(&a), 100, 0, SNET_EMPTY_BUFFER);
}

static void last_byte_of_the_zone(void **state)
{
	struct pkt *pkts[PKT_BURST];

	put(&a, ZONE_SIZE - 100, 100, ID, 0);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 1);
	put_all(pkts, 1);
	assert_int_equal(a.snet.breaks, 0);
}

static void endless_chain(void **state)
{
	struct pkt *pkts[PKT_BURST];

	for (unsigned i = 0; i < RING; i++)
		put(&a, 0, 10, ID, SNET_MORE);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 0);
	broken(&a, SNET_HALF_PACKET);
}

static void chain_too_long(void **state)
{
	struct pkt *pkts[PKT_BURST];

	free_front(&a);
	make_front(&a, "a", false, 256, SNET_ENTRY_MIN);
	for (unsigned i = 0; i < 100; i++)
		put(&a, 0, 10, ID, SNET_MORE);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 0);
	broken(&a, SNET_LONG_CHAIN);
}

static void half_a_packet(void **state)
{
	struct pkt *pkts[PKT_BURST];

	put(&a, 0, 100, ID, SNET_MORE);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 0);
	broken(&a, SNET_HALF_PACKET);
}

static void index_jumps(void **state)
{
	struct pkt *pkts[PKT_BURST];

	snet_publish(&a.rings.control->front.produced, age + RING + 1);
	assert_int_equal(vifd_recv(&a, pkts), 0);
	broken(&a, SNET_TX_JUMPED);
}

static void index_goes_back(void **state)
{
	struct pkt *pkts[PKT_BURST];

	snet_publish(&a.rings.control->front.produced, age - 1);
	assert_int_equal(vifd_recv(&a, pkts), 0);
	broken(&a, SNET_TX_JUMPED);
}

/* What is with us counts: the ring is full although its entries have been read. */
static void index_jumps_over_what_is_out(void **state)
{
	struct pkt *pkts[PKT_BURST], *more[PKT_BURST];

	for (unsigned i = 0; i < RING; i++)
		put(&a, 0, 100, ID, 0);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), PKT_BURST);
	put(&a, 0, 100, ID, 0);
	publish(&a);
	assert_int_equal(vifd_recv(&a, more), 0);
	broken(&a, SNET_TX_JUMPED);
	put_all(pkts, PKT_BURST);
}

/* An offload request, and what becomes of it. */
static bool asks(const struct frame_desc *desc, struct snet_entry request)
{
	static uint8_t bytes[FRAME_MAX];
	struct frame frame = { .bytes = bytes };
	struct pkt *pkts[PKT_BURST];
	struct snet_entry *entry;
	uint32_t id = 0;
	unsigned n;

	frame_build(&frame, desc, &seed);
	memcpy(tx_memory(&a), bytes, frame.len);
	entry = put(&a, 0, frame.len, ID, request.flags);
	entry->gso_type = request.gso_type;
	entry->gso_size = request.gso_size;
	entry->csum_start = request.csum_start ? request.csum_start : frame.l4;
	entry->csum_offset = request.csum_offset ? request.csum_offset : 16;
	publish(&a);
	n = vifd_recv(&a, pkts);
	if (n)
		put_all(pkts, n);
	else
		worker_complete(worker);
	assert_true(done(&a, &id));
	assert_int_equal(a.snet.breaks, 0);
	return n == 1;
}

static void requests_are_judged(void **state)
{
	const struct frame_desc tcp4 = { .ip = 4, .proto = 6, .payload = 5000 };
	const struct frame_desc tcp6 = { .ip = 6, .proto = 6, .payload = 5000 };
	const struct frame_desc udp4 = { .ip = 4, .proto = 17, .payload = 5000 };
	const uint8_t partial = SNET_CSUM_PARTIAL;
	const struct {
		const struct frame_desc *frame;
		struct snet_entry request;
		bool good;
	} cases[] = {
		{ &tcp4, { 0 }, true },
		{ &tcp4, { .flags = SNET_CSUM_VALID }, true },
		{ &tcp4, { .flags = partial }, true },
		{ &tcp4, { .flags = partial, .csum_start = 60000 }, false },
		{ &tcp4, { .flags = partial, .csum_offset = 60000 }, false },
		{ &tcp4, { .flags = partial, .csum_offset = 6 }, false },
		{ &tcp4, { .flags = partial, .gso_type = PKT_GSO_TCPV4, .gso_size = 1448 }, true },
		{ &tcp4, { .flags = partial, .gso_type = PKT_GSO_TCPV4 }, false },
		{ &tcp4, { .flags = partial, .gso_type = PKT_GSO_TCPV4, .gso_size = 1 }, false },
		{ &tcp4, { .gso_type = PKT_GSO_TCPV4, .gso_size = 1448 }, false },
		{ &tcp4, { .flags = partial, .gso_type = PKT_GSO_TCPV6, .gso_size = 1448 }, false },
		{ &tcp4, { .flags = partial, .gso_type = 2, .gso_size = 1448 }, false },
		{ &tcp4, { .flags = partial, .gso_type = 0x81, .gso_size = 1448 }, false },
		{ &tcp6, { .flags = partial, .gso_type = PKT_GSO_TCPV6, .gso_size = 1440 }, true },
		{ &tcp6,
		  { .flags = partial | SNET_GSO_ECN, .gso_type = PKT_GSO_TCPV6, .gso_size = 1440 },
		  true },
		{ &udp4,
		  { .flags = partial, .gso_type = PKT_GSO_UDP, .gso_size = 1472, .csum_offset = 6 },
		  true },
		{ &udp4,
		  { .flags = partial | SNET_GSO_ECN,
		    .gso_type = PKT_GSO_UDP,
		    .gso_size = 1472,
		    .csum_offset = 6 },
		  false },
		{ &udp4,
		  { .flags = partial,
		    .gso_type = PKT_GSO_TCPV4,
		    .gso_size = 1472,
		    .csum_offset = 6 },
		  false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t dropped = stats(&a)->drop_bad_vnet_header;

		if (asks(cases[i].frame, cases[i].request) != cases[i].good)
			fail_msg("case %zu", i);
		assert_int_equal(stats(&a)->drop_bad_vnet_header, dropped + !cases[i].good);
	}
	a.snet.no_offload = true;
	assert_true(asks(&tcp4, (struct snet_entry){ 0 }));
	assert_false(asks(&tcp4, (struct snet_entry){ .flags = partial }));
}

/* Tied to another guest: nobody looks at what asks for nothing, lengths and requests are judged. */
static void tied_to_a_guest(void **state)
{
	static const uint32_t sizes[] = { 14, 31, 32, 63, 64, 65, 256, 257, 1514, 9014 };
	static uint8_t got[9015];
	uint8_t *memory = tx_memory(&a);
	struct pkt *pkts[PKT_BURST];
	struct snet_entry first;
	uint32_t ids[SNET_PACKET_ENTRIES];
	unsigned count;

	a.snet.port.direct = &b.snet.port;
	fill(memory, sizeof(got));
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t cut = i % 3 ? sizes[i] / 2 : 0;

		put(&a, cut, sizes[i] - cut, ID, i % 2 ? SNET_MORE : 0);
		if (i % 2)
			put(&a, 0, 1 + cut, ID, 0);
	}
	put(&a, 0, 13, ID, 0);
	put(&a, 0, PKT_LEN_MAX + 1, ID, 0);
	put(&a, 0, 100, ID, SNET_CSUM_PARTIAL)->csum_start = 4711;
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), sizeof(sizes) / sizeof(sizes[0]));
	assert_int_equal(stats(&a)->drop_runt, 1);
	assert_int_equal(stats(&a)->drop_oversize, 1);
	assert_int_equal(stats(&a)->drop_bad_vnet_header, 1);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t cut = i % 3 ? sizes[i] / 2 : 0, len = sizes[i] - cut;

		assert_int_equal(pkts[i]->header_len, 0);
		assert_int_equal(pkts[i]->len, len + (i % 2 ? 1 + cut : 0));
		len = pkts[i]->len;
		vifd_send(&b, &pkts[i], 1);
		assert_int_equal(receive(&b, got, &first, ids, &count), len);
		assert_memory_equal(got, memory + cut, sizes[i] - cut);
		assert_memory_equal(got + sizes[i] - cut, memory, len - (sizes[i] - cut));
		give(&b, ids[0]);
	}
	assert_int_equal(stats(&b)->copied_bytes, stats(&b)->send_bytes);
}

/* ---- what a guest receives ---- */

static void received_by_copy(void **state)
{
	static uint8_t bytes[PKT_LEN_MAX], got[PKT_LEN_MAX];
	static const uint32_t sizes[] = { 14,   60,   64,   65,    256,   257,        1514,
					  2048, 2049, 9014, 65536, 65537, PKT_LEN_MAX };
	static const unsigned entries[] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2 };

	fill(bytes, sizeof(bytes));
	for (unsigned round = 0; round < 300; round++) { /* far more than there is memory */
		unsigned i = round % 13, count;
		struct pkt *pkt = private_pkt(bytes, sizes[i]);
		struct snet_entry first;
		uint32_t ids[SNET_PACKET_ENTRIES];

		vifd_send(&b, &pkt, 1);
		assert_int_equal(receive(&b, got, &first, ids, &count), sizes[i]);
		assert_memory_equal(got, bytes, sizes[i]);
		assert_int_equal(count, entries[i]);
		assert_int_equal(first.flags & ~SNET_MORE, 0);
		assert_int_equal(zone_by_id(&space, first.zone)->access, ZONE_READ_ONLY);
		for (unsigned j = 0; j < count; j++)
			give(&b, ids[count - 1 - j]);
	}
	assert_int_equal(stats(&b)->send_packets, 300);
	assert_int_equal(stats(&b)->referenced_packets, 0);
	assert_true(stats(&b)->copied_bytes > 300 * 1000);
}

static void requests_are_passed_on(void **state)
{
	static uint8_t bytes[3000], got[3000];
	struct snet_entry first;
	uint32_t ids[SNET_PACKET_ENTRIES];
	unsigned count;
	struct pkt *pkt;

	fill(bytes, sizeof(bytes));
	for (unsigned takes = 0; takes < 2; takes++) {
		b.snet.port.caps = takes ? UINT32_MAX : PORT_CAP_SG;
		pkt = private_pkt(bytes, sizeof(bytes));
		pkt->offload = (struct pkt_offload){ PKT_CSUM_PARTIAL | PKT_GSO_ECN, PKT_GSO_TCPV4,
						     1448, 34, 16 };
		vifd_send(&b, &pkt, 1);
		assert_int_equal(receive(&b, got, &first, ids, &count), sizeof(bytes));
		assert_int_equal(first.flags, takes ? SNET_CSUM_PARTIAL | SNET_GSO_ECN : 0);
		assert_int_equal(first.gso_type, takes ? PKT_GSO_TCPV4 : 0);
		assert_int_equal(first.gso_size, takes ? 1448 : 0);
		assert_int_equal(first.csum_start, takes ? 34 : 0);
		assert_int_equal(first.csum_offset, takes ? 16 : 0);
		give(&b, ids[0]);
	}
	pkt = private_pkt(bytes, 100);
	pkt->offload.flags = PKT_CSUM_VALID;
	b.snet.port.caps = UINT32_MAX;
	vifd_send(&b, &pkt, 1);
	receive(&b, got, &first, ids, &count);
	assert_int_equal(first.flags, SNET_CSUM_VALID);
}

/* A front end that returns nothing: the ring's places, then nothing more; it all comes back. */
static void ring_full(void **state)
{
	static uint8_t bytes[1514];

	fill(bytes, sizeof(bytes));
	for (unsigned i = 0; i < 2 * RING; i++) {
		struct pkt *pkt = private_pkt(bytes, sizeof(bytes));

		vifd_send(&b, &pkt, 1);
	}
	assert_int_equal(stats(&b)->send_packets, RING);
	assert_int_equal(stats(&b)->drop_queue_full, RING);
	struct snet_entry entry = { 0 };

	assert_true(take(&b, &entry));
	give(&b, entry.id);
	struct pkt *pkt = private_pkt(bytes, sizeof(bytes));

	vifd_send(&b, &pkt, 1);
	assert_int_equal(stats(&b)->send_packets, RING + 1);
}

/* 64 KiB buffers used up: small ones, then drops. */
static void memory_full(void **state)
{
	static uint8_t bytes[65536], got[65536];
	struct snet_entry first;
	uint32_t ids[SNET_PACKET_ENTRIES];
	unsigned count, many = 0;

	free_front(&b);
	make_front(&b, "b", false, 1024, SNET_ENTRY_MIN);
	fill(bytes, sizeof(bytes));
	for (unsigned i = 0; i < 200; i++) {
		struct pkt *pkt = private_pkt(bytes, sizeof(bytes));

		vifd_send(&b, &pkt, 1);
	}
	assert_true(stats(&b)->drop_no_buffers > 0);
	assert_true(slab_short(b.snet.slabs[SNET_LARGE]));
	while (receive(&b, got, &first, ids, &count)) {
		assert_memory_equal(got, bytes, sizeof(bytes));
		many += count > 1;
	}
	assert_true(many > 10);
	assert_int_equal(stats(&b)->send_packets + stats(&b)->drop_no_buffers, 200);
	/* the front end dies with all of it */
}

/* What came back to a queue that misses nothing is looked at after so many polls. */
static void poll_long_enough(struct front *front)
{
	struct pkt *pkts[PKT_BURST];

	for (unsigned i = 0; i < SNET_POLLS_MAX; i++)
		assert_int_equal(vifd_recv(front, pkts), 0);
}

static void bad_returns(void **state)
{
	static const struct {
		uint32_t id;
		bool first;
	} cases[] = { { RING, false }, { UINT32_MAX, false }, { 5, false }, { 0, true } };

	static uint8_t bytes[100];

	for (unsigned i = 0; i < 4; i++) {
		struct pkt *pkt = private_pkt(bytes, sizeof(bytes));
		struct snet_entry entry = { 0 };

		free_front(&b);
		make_front(&b, "b", false, RING, SNET_ENTRY_MIN);
		vifd_send(&b, &pkt, 1);
		pkt = private_pkt(bytes, sizeof(bytes));
		vifd_send(&b, &pkt, 1);
		assert_true(take(&b, &entry));
		assert_true(entry.id != 5);
		if (cases[i].first) { /* twice */
			give(&b, entry.id);
			give(&b, entry.id);
		} else {
			give(&b, cases[i].id);
		}
		poll_long_enough(&b);
		broken(&b, SNET_BAD_ID);
	}
}

static void returns_jump(void **state)
{
	static uint8_t bytes[100];
	struct pkt *pkt = private_pkt(bytes, sizeof(bytes));

	vifd_send(&b, &pkt, 1);
	snet_publish(&b.rings.control->front.given_back, age + 2);
	poll_long_enough(&b);
	broken(&b, SNET_DONE_JUMPED);
}

/* ---- by reference ---- */

static void announce(struct front *to, const struct zone_group *group)
{
	for (const struct zone *zone = group->zones; zone; zone = zone->next)
		to->snet.session->announced[zone_id(zone) % ZONES_MAX] = zone_id(zone);
}

static void share(void)
{
	free_front(&b);
	free_front(&a);
	make_front(&a, "a", true, 1024, SNET_ENTRY_MIN);
	make_front(&b, "b", true, 1024, SNET_ENTRY_MIN);
	announce(&a, &a.tx);
	announce(&b, &b.tx);
	announce(&b, &a.tx);
	announce(&a, &b.tx);
}

/* a sends one frame in count pieces at off; it goes to b. */
static void a_to_b(uint32_t off, uint32_t len, uint32_t id)
{
	struct pkt *pkts[PKT_BURST];

	put(&a, off, len, id, 0);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 1);
	vifd_send(&b, pkts, 1);
}

/* Until the receiver returns it the sender does not get it back, and no byte of payload moves. */
static void received_by_reference(void **state)
{
	uint8_t *memory;
	struct snet_entry entry = { 0 };
	struct pkt *pkts[PKT_BURST];
	uint32_t id = 0, header_id, payload_id;

	share();
	memory = tx_memory(&a);
	fill(memory + 8192, 60000);
	a_to_b(8192, 60000, ID);
	assert_true(take(&b, &entry));
	assert_int_equal(entry.flags, SNET_MORE);
	assert_int_equal(entry.len, PKT_HEADER_FAST);
	assert_memory_equal(at(&entry), memory + 8192, PKT_HEADER_FAST);
	assert_int_equal(zone_by_id(&space, entry.zone)->access, ZONE_READ_ONLY);
	header_id = entry.id;
	assert_true(take(&b, &entry));
	assert_int_equal(entry.flags, 0);
	assert_int_equal(entry.zone, tx_zone(&a));
	assert_int_equal(entry.offset, 8192 + PKT_HEADER_FAST);
	assert_int_equal(entry.len, 60000 - PKT_HEADER_FAST);
	payload_id = entry.id;
	assert_false(take(&b, &entry));
	assert_int_equal(stats(&b)->referenced_packets, 1);
	assert_int_equal(stats(&b)->copied_bytes, 0);

	give(&b, header_id);
	assert_int_equal(vifd_recv(&b, pkts), 0);
	worker_complete(worker);
	assert_false(done(&a, &id));
	give(&b, payload_id);
	assert_int_equal(vifd_recv(&b, pkts), 0);
	worker_complete(worker);
	assert_true(done(&a, &id));
	assert_int_equal(id, ID);
}

/* Flooded to two, one of whom copies: the last to return it is the last. */
static void several_have_it(void **state)
{
	static uint8_t got[2000];
	static struct front c;
	struct pkt *pkts[PKT_BURST], *again[1];
	struct snet_entry entry = { 0 };
	uint32_t ids[SNET_PACKET_ENTRIES], id = 0;
	unsigned count;

	share();
	make_front(&c, "c", false, RING, SNET_ENTRY_MIN);
	fill(tx_memory(&a), 1000);
	put(&a, 0, 1000, ID, 0);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 1);
	pkts[0]->refs++;
	again[0] = pkts[0];
	vifd_send(&b, pkts, 1);
	vifd_send(&c, again, 1);
	assert_int_equal(receive(&c, got, &entry, ids, &count), 1000);
	assert_memory_equal(got, tx_memory(&a), 1000);
	assert_int_equal(stats(&c)->copied_bytes, 1000 - PKT_HEADER_FAST);
	assert_int_equal(receive(&b, got, &entry, ids, &count), 1000);
	assert_int_equal(count, 2);
	assert_false(done(&a, &id));
	give(&b, ids[0]);
	give(&b, ids[1]);
	vifd_recv(&b, pkts);
	worker_complete(worker);
	assert_true(done(&a, &id));
	free_front(&c);
}

/* What the front end was not told of, or is not shared, or is too much, is copied. */
static void copied_where_it_must_be(void **state)
{
	share();
	fill(tx_memory(&a), 2000);
	b.snet.session->announced[tx_zone(&a) % ZONES_MAX] = 0;
	a_to_b(0, 2000, ID);
	assert_int_equal(stats(&b)->referenced_packets, 0);
	announce(&b, &a.tx);
	b.snet.shared = false;
	a_to_b(0, 2000, ID);
	assert_int_equal(stats(&b)->referenced_packets, 0);
	b.snet.shared = true;
	a_to_b(0, 2000, ID);
	assert_int_equal(stats(&b)->referenced_packets, 1);
	a_to_b(0, PKT_HEADER_FAST, ID); /* nothing to refer to */
	assert_int_equal(stats(&b)->referenced_packets, 1);
	assert_int_equal(stats(&b)->send_packets, 4);
}

static void references_have_a_limit(void **state)
{
	unsigned n;

	share();
	free_front(&b);
	make_front(&b, "b", true, SNET_RING_MAX, SNET_ENTRY_MIN);
	announce(&b, &a.tx);
	fill(tx_memory(&a), 500);
	for (n = 0; n < SNET_REFERENCES_MAX; n++)
		a_to_b(0, 500, ID);
	assert_int_equal(stats(&b)->referenced_packets, n);
	assert_int_equal(stats(&b)->copied_bytes, 0);
	for (; n < SNET_REFERENCES_MAX + 50; n++)
		a_to_b(0, 500, ID);
	assert_int_equal(stats(&b)->referenced_packets, SNET_REFERENCES_MAX);
	assert_int_equal(b.queue->references, SNET_REFERENCES_MAX);
	assert_int_equal(stats(&b)->send_packets, n);
}

/* A packet by reference takes two places, a copy one: the last quarter of the ring is for copies. */
static void a_full_ring_is_copied_to(void **state)
{
	share();
	fill(tx_memory(&a), 500);
	for (unsigned n = 0; n < 500; n++)
		a_to_b(0, 500, ID);
	assert_true(stats(&b)->referenced_packets >= 380);
	assert_int_equal(stats(&b)->send_packets, 500);
	assert_int_equal(stats(&b)->drop_queue_full, 0);
	assert_int_equal(stats(&b)->copied_bytes,
			 (500 - stats(&b)->referenced_packets) * (500 - PKT_HEADER_FAST));
}

/* The receiver dies with what it has: the sender gets it back. */
static void receiver_dies(void **state)
{
	struct snet_session *session;
	uint32_t id = 0;

	share();
	for (unsigned i = 0; i < 10; i++)
		a_to_b(0, 1000, ID + i);
	session = stop_front(&b);
	assert_true(snet_session_done(session));
	for (unsigned i = 0; i < 10; i++) {
		assert_true(done(&a, &id));
		assert_true(id >= ID && id < ID + 10);
	}
	assert_false(done(&a, &id));
	snet_session_free(session);
	/* and what is sent now is dropped */
	a_to_b(0, 1000, ID);
	assert_int_equal(stats(&b)->drop_not_ready, 1);
	assert_true(done(&a, &id));
}

/* The sender dies: what it sent stays until the receiver is done with it. */
static void sender_dies(void **state)
{
	static uint8_t got[2000];
	struct snet_session *session;
	struct snet_entry entry = { 0 };
	struct pkt *pkts[PKT_BURST];
	uint32_t ids[SNET_PACKET_ENTRIES];
	unsigned count;

	share();
	fill(tx_memory(&a), 1000);
	memcpy(expected, tx_memory(&a), 1000);
	a_to_b(0, 1000, ID);
	session = stop_front(&a);
	assert_false(snet_session_done(session));
	assert_int_equal(receive(&b, got, &entry, ids, &count), 1000);
	assert_memory_equal(got, expected, 1000);
	give(&b, ids[0]);
	give(&b, ids[1]);
	vifd_recv(&b, pkts);
	worker_complete(worker);
	assert_true(snet_session_done(session));
	snet_session_free(session);
}

static struct {
	struct pkt_source source;
	unsigned done;
} uplink_source;

static void uplink_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	uplink_source.done += n;
}

/* An uplink that closes gets its frames back at once; the front end returns the ids when it likes. */
static void uplink_closes(void **state)
{
	static const struct port_ops other_ops = { .kind = "other" };
	struct port uplink = { .ops = &other_ops, .id = 77 },
		    another = { .ops = &other_ops, .id = 78 };
	struct pkt *pkts[PKT_BURST], *pkt;
	struct snet_entry entry = { 0 };

	share();
	fill(tx_memory(&a), 1000); /* as if it were its UMEM */
	pkt = private_pkt(tx_memory(&a), 1000);
	uplink_source.source.done = uplink_done;
	uplink_source.done = 0;
	pkt->source = &uplink_source.source;
	pkt->in_port = 77;
	vifd_send(&b, &pkt, 1);
	assert_int_equal(stats(&b)->referenced_packets, 1);
	snet_port_ops.let_go(&b.snet.port, &another);
	assert_int_equal(uplink_source.done, 0);
	snet_port_ops.let_go(&b.snet.port, &uplink);
	assert_int_equal(uplink_source.done, 1);
	while (take(&b, &entry))
		give(&b, entry.id);
	assert_int_equal(vifd_recv(&b, pkts), 0);
	assert_int_equal(b.snet.breaks, 0);
	assert_int_equal(b.queue->id_count, 1024);
}

/* ---- waking ---- */

static unsigned calls(struct front *front)
{
	uint64_t count = 0;

	return read(front->queue->call_fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void sleep_and_wake(void **state)
{
	struct snet_control *control = a.rings.control;
	struct port *port = &a.snet.port;
	struct pkt *pkts[PKT_BURST], *pkt;
	static uint8_t bytes[100];

	/* nothing there: it says what it waits for */
	assert_false(snet_port_ops.arm(port, 0));
	assert_int_equal(control->back.wants, SNET_WANT_ENTRIES);
	snet_port_ops.disarm(port, 0);
	assert_int_equal(control->back.wants, 0);
	/* something came meanwhile */
	put(&a, 0, 100, ID, 0);
	publish(&a);
	assert_true(snet_port_ops.arm(port, 0));
	assert_int_equal(control->back.wants, 0);

	/* done, and the front end does not wait for it */
	assert_int_equal(vifd_recv(&a, pkts), 1);
	put_all(pkts, 1);
	assert_int_equal(vifd_recv(&a, pkts), 0);
	assert_int_equal(calls(&a), 0);
	/* and does */
	snet_want(&control->front, SNET_WANT_DONE);
	put(&a, 0, 100, ID, 0);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 1);
	assert_int_equal(calls(&a), 0);
	put_all(pkts, 1);
	assert_int_equal(vifd_recv(&a, pkts), 0);
	assert_int_equal(calls(&a), 1);
	/* done just before the worker sleeps */
	put(&a, 0, 100, ID, 0);
	publish(&a);
	assert_int_equal(vifd_recv(&a, pkts), 1);
	put_all(pkts, 1);
	assert_false(snet_port_ops.arm(port, 0));
	assert_int_equal(calls(&a), 1);

	/* received: one call for a burst, if it is waited for */
	pkt = private_pkt(bytes, sizeof(bytes));
	vifd_send(&a, &pkt, 1);
	snet_port_ops.flush(port);
	assert_int_equal(calls(&a), 0);
	snet_want(&control->front, SNET_WANT_ENTRIES);
	pkt = private_pkt(bytes, sizeof(bytes));
	vifd_send(&a, &pkt, 1);
	assert_int_equal(calls(&a), 0);
	snet_port_ops.flush(port);
	assert_int_equal(calls(&a), 1);
	snet_port_ops.flush(port);
	assert_int_equal(calls(&a), 0);
	assert_int_equal(stats(&a)->doorbells, 3);
	worker->flush_count = 0;
}

/* A front end that has something of somebody else's must wake us when it returns that. */
static void waits_for_what_others_wait_for(void **state)
{
	struct snet_entry entry = { 0 };
	struct port *port;

	share();
	port = &b.snet.port;
	a_to_b(0, 1000, ID);
	assert_false(snet_port_ops.arm(port, 0));
	assert_int_equal(b.rings.control->back.wants, SNET_WANT_ENTRIES | SNET_WANT_DONE);
	snet_port_ops.disarm(port, 0);
	while (take(&b, &entry))
		give(&b, entry.id);
	assert_true(snet_port_ops.arm(port, 0));
}

/* ---- all of it ---- */

/* Two front ends exchange frames of all sizes, held and returned in random order. */
static void traffic(bool shared, uint32_t stride)
{
	enum { ROUNDS = 4000, HELD = 40 };
	static uint8_t got[PKT_LEN_MAX];
	static struct {
		uint32_t ids[SNET_PACKET_ENTRIES];
		unsigned count;
	} held[HELD];
	uint64_t sent = 0, received = 0;
	uint32_t lens[RING], next = 0, first = 0, id = 0;
	bool busy[64] = { 0 };
	unsigned holds = 0;

	free_front(&b);
	free_front(&a);
	make_front(&a, "a", shared, RING, stride);
	make_front(&b, "b", shared, RING, stride);
	make_old(&a, UINT32_MAX - 500);
	make_old(&b, UINT32_MAX - 900);
	announce(&b, &a.tx);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct pkt *pkts[PKT_BURST];
		struct snet_entry entry = { 0 };
		bool drained = false;
		unsigned n, slot;

		/* a slot of 64 KiB each; the first bytes say which frame it is */
		for (slot = rnd(&seed) % 60; slot < 60 && !busy[slot] && next - first < RING / 2;
		     slot++) {
			uint32_t len = rnd(&seed) % 4 ? 14 + rnd(&seed) % 1500
						      : 14 + rnd(&seed) % 60000;
			uint32_t cut = rnd(&seed) % 3 ? 0 : 1 + rnd(&seed) % (len - 1);
			uint8_t *bytes = tx_memory(&a) + slot * 65536;

			memset(bytes, (uint8_t)next, len);
			if (cut && (int)(a.tx_produced - a.tx_done) + 2 <= RING) {
				put(&a, slot * 65536, cut, 1000, SNET_MORE);
				put(&a, slot * 65536 + cut, len - cut, slot, 0);
			} else if ((int)(a.tx_produced - a.tx_done) + 1 <= RING) {
				put(&a, slot * 65536, len, slot, 0);
			} else {
				break;
			}
			busy[slot] = true;
			lens[next++ % RING] = len;
			sent++;
		}
		publish(&a);
		n = vifd_recv(&a, pkts);
		if (n)
			vifd_send(&b, pkts, n);
		while (holds < HELD) {
			uint32_t len = receive(&b, got, &entry, held[holds].ids,
					       &held[holds].count);

			drained = len == 0;
			if (drained)
				break;
			while (lens[first % RING] != len || got[0] != (uint8_t)first) {
				first++; /* was dropped: the ring was full */
				assert_true(first != next);
			}
			for (uint32_t i = 0; i < len; i++)
				assert_true(got[i] == (uint8_t)first);
			first++;
			received++;
			holds++;
		}
		while (holds > 0 && rnd(&seed) % 8) {
			unsigned which = rnd(&seed) % holds;

			for (unsigned i = 0; i < held[which].count; i++)
				give(&b, held[which].ids[i]);
			held[which] = held[--holds];
		}
		vifd_recv(&b, pkts);
		worker_complete(worker);
		if (n == 0 && drained)
			first = next;
		while (done(&a, &id)) {
			assert_true(id == 1000 || busy[id]);
			if (id < 64)
				busy[id] = false;
		}
	}
	assert_int_equal(a.snet.breaks + b.snet.breaks, 0);
	assert_int_equal(stats(&a)->recv_packets, sent);
	assert_true(stats(&b)->send_packets - received <= RING);
	assert_true(received > ROUNDS / 4);
	assert_true(shared == (stats(&b)->referenced_packets > 0));
}

static void traffic_copied(void **state)
{
	traffic(false, SNET_ENTRY_MIN);
}

static void traffic_referenced(void **state)
{
	traffic(true, SNET_ENTRY_MIN);
}

static void traffic_in_large_entries(void **state)
{
	traffic(true, 208);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(sent_by_reference),
		TEST(sent_in_pieces),
		TEST(done_in_any_order),
		TEST(bad_packets_are_dropped),
		TEST(zone_unknown),
		TEST(zone_nought),
		TEST(zone_of_the_same_slot),
		TEST(zone_of_somebody_else),
		TEST(zone_to_receive_into),
		TEST(beyond_the_zone),
		TEST(far_beyond_the_zone),
		TEST(length_that_wraps),
		TEST(empty_buffer),
		TEST(last_byte_of_the_zone),
		TEST(endless_chain),
		TEST(chain_too_long),
		TEST(half_a_packet),
		TEST(index_jumps),
		TEST(index_goes_back),
		TEST(index_jumps_over_what_is_out),
		TEST(requests_are_judged),
		TEST(tied_to_a_guest),
		TEST(received_by_copy),
		TEST(requests_are_passed_on),
		TEST(ring_full),
		TEST(memory_full),
		TEST(bad_returns),
		TEST(returns_jump),
		TEST(received_by_reference),
		TEST(several_have_it),
		TEST(copied_where_it_must_be),
		TEST(references_have_a_limit),
		TEST(a_full_ring_is_copied_to),
		TEST(receiver_dies),
		TEST(sender_dies),
		TEST(uplink_closes),
		TEST(sleep_and_wake),
		TEST(waits_for_what_others_wait_for),
		TEST(traffic_copied),
		TEST(traffic_referenced),
		TEST(traffic_in_large_entries),
	};
	int failed = cmocka_run_group_tests_name("snet", tests, NULL, NULL);

	age = UINT32_MAX - 20; /* indexes wrap */
	return failed + cmocka_run_group_tests_name("snet, indexes wrap", tests, NULL, NULL);
}
