/* SPDX-License-Identifier: BSD-3-Clause */
/* The buffers of a queue: where packets come to lie, and what happens when they are kept. */
#include "uplink/recv_bufs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "zone/zone_host.h"

#include <cmocka.h> /* last: it has a macro fail() */

enum { PACKETS = RECV_SMALLS + RECV_SPARES + 1, LONG = PKT_LEN_MAX, SHORT = 1514 };

static struct recv_bufs bufs;
static struct pkt pkts[PACKETS];
static struct recv_place place;

static int set_up(void **state)
{
	memset(&bufs, 0, sizeof(bufs));
	memset(pkts, 0, sizeof(pkts));
	recv_place_init(&place);
	return recv_bufs_open(&bufs, "test");
}

static int tear_down(void **state)
{
	recv_bufs_close(&bufs);
	return 0;
}

/* As if a packet of len bytes had been read, and moved of them been put in front of the rest. False:
 * there is no room. */
static bool receive(struct pkt *pkt, uint32_t len, unsigned moved)
{
	uint64_t larges = bufs.larges;

	if (!recv_place_fill(&bufs, &place, &larges))
		return false;
	pkt->frags = pkt->inline_frags;
	pkt->len = len;
	pkt->header_len = PKT_HEADER_MAX;
	recv_place_take(&bufs, &place, pkt, (uint8_t *)place.iov[2].iov_base - moved);
	return true;
}

static void done(struct pkt *pkt)
{
	pkt->source->done(pkt->source, &pkt, 1);
	pkt->source = NULL;
}

static bool in_zone(const struct iovec *frag)
{
	const uint8_t *start = frag->iov_base, *end = start + frag->iov_len;

	return start >= bufs.zone && end <= bufs.zone + ZONE_SIZE;
}

/* All of the packet's bytes are its own: nobody writes there while it has them. */
static void fill_with(struct pkt *pkt, uint8_t value)
{
	for (unsigned i = 0; i < pkt->frag_count; i++)
		memset(pkt->frags[i].iov_base, value, pkt->frags[i].iov_len);
}

static void check_filled_with(const struct pkt *pkt, uint8_t value)
{
	for (unsigned i = 0; i < pkt->frag_count; i++) {
		const uint8_t *bytes = pkt->frags[i].iov_base;

		for (size_t at = 0; at < pkt->frags[i].iov_len; at++)
			assert_int_equal(bytes[at], value);
	}
}

static void test_pieces(void **state)
{
	static const struct {
		uint32_t len;
		unsigned moved, first, second;
	} cases[] = {
		{ PKT_HEADER_MAX + 1, 0, 1, 0 },
		{ PKT_HEADER_MAX + 1, 4, 1, 0 },
		{ PKT_HEADER_MAX + 4, 4, 4, 0 },
		{ PKT_HEADER_MAX + RECV_SMALL, 0, RECV_SMALL, 0 },
		{ PKT_HEADER_MAX + RECV_SMALL + 1, 0, RECV_SMALL, 1 },
		{ PKT_HEADER_MAX + RECV_SMALL + 4, 4, RECV_SMALL + 4, 0 },
		{ PKT_HEADER_MAX + RECV_SMALL + 5, 4, RECV_SMALL + 4, 1 },
		{ LONG, 0, RECV_SMALL, LONG - PKT_HEADER_MAX - RECV_SMALL },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pkt *pkt = &pkts[0];
		uint8_t *start;

		assert_true(receive(pkt, cases[i].len, cases[i].moved));
		start = (uint8_t *)pkt->frags[0].iov_base + cases[i].moved;
		assert_int_equal(((uintptr_t)start) % 64, 0);
		assert_int_equal(pkt->frag_count, 1 + (cases[i].second > 0));
		assert_int_equal(pkt->frags[0].iov_len, cases[i].first);
		if (cases[i].second)
			assert_int_equal(pkt->frags[1].iov_len, cases[i].second);
		assert_true(in_zone(&pkt->frags[0]) && in_zone(&pkt->frags[pkt->frag_count - 1]));
		done(pkt);
	}
}

/* Guests keep everything: packets come in beside the zone, until that is used up, too. */
static void keep_all(uint32_t len, unsigned in_zone_most, unsigned most)
{
	unsigned count = 0;

	while (count < PACKETS && receive(&pkts[count], len, 0)) {
		struct pkt *pkt = &pkts[count++];

		assert_int_equal(in_zone(&pkt->frags[pkt->frag_count - 1]), count <= in_zone_most);
		fill_with(pkt, count);
	}
	assert_int_equal(count, most);
	for (unsigned i = 0; i < count; i++)
		check_filled_with(&pkts[i], i + 1);

	/* What comes back is used again, the zone's first. */
	done(&pkts[most - 1]);
	done(&pkts[in_zone_most - 1]);
	assert_true(receive(&pkts[0], len, 0));
	assert_true(in_zone(&pkts[0].frags[pkts[0].frag_count - 1]));
}

static void test_all_are_kept(void **state)
{
	keep_all(SHORT, RECV_SMALLS, RECV_SMALLS + RECV_SPARES);
}

static void test_all_large_ones_are_kept(void **state)
{
	keep_all(LONG, RECV_LARGES, RECV_LARGES + RECV_SPARES);
}

/* Kept and returned in any order, each packet has its bytes for itself. */
static void test_any_order(void **state)
{
	uint64_t random = 1;
	unsigned kept = 0;

	for (unsigned round = 0; round < 20000; round++) {
		unsigned i = rnd_below(&random, 64);
		uint32_t len = rnd_below(&random, 4) ? SHORT : 2500;

		if (pkts[i].source) {
			check_filled_with(&pkts[i], i);
			done(&pkts[i]);
			kept--;
		} else if (receive(&pkts[i], len, rnd_below(&random, 2) ? 4 : 0)) {
			fill_with(&pkts[i], i);
			kept++;
		}
	}
	assert_true(kept > 0);
	for (unsigned i = 0; i < 64; i++) {
		if (pkts[i].source)
			done(&pkts[i]);
	}
	assert_int_equal(bufs.small_count + bufs.spare_count + (place.small != RECV_NONE),
			 RECV_SMALLS + RECV_SPARES);
	assert_true(bufs.larges == UINT64_MAX);
}

/* Several places of one system call have nothing in common. */
static void test_places_of_one_call(void **state)
{
	struct recv_place places[PKT_BURST];
	uint64_t larges = bufs.larges;

	for (unsigned i = 0; i < PKT_BURST; i++) {
		recv_place_init(&places[i]);
		assert_true(recv_place_fill(&bufs, &places[i], &larges));
		for (unsigned j = 0; j < i; j++) {
			assert_ptr_not_equal(places[i].iov[2].iov_base, places[j].iov[2].iov_base);
			assert_ptr_not_equal(places[i].iov[3].iov_base, places[j].iov[3].iov_base);
		}
	}
}

/* The zone may be shown, the memory beside it lies in none. */
static void test_who_may_see(void **state)
{
	struct error error;
	struct zone_space *space = zone_host(&error);

	assert_int_equal(bufs.zones.count, 1);
	assert_int_equal(bufs.zones.zones->access, ZONE_READ_ONLY);
	assert_ptr_equal(zone_of(space, bufs.zone), bufs.zones.zones);
	assert_null(zone_of(space, bufs.spare));
}

/* There is no zone to be had. */
static void test_without_a_zone(void **state)
{
	struct error error;
	struct zone_space *space = zone_host(&error);
	unsigned quota = space->quota;
	uint8_t *end;

	recv_bufs_close(&bufs);
	memset(&bufs, 0, sizeof(bufs));
	space->quota = space->count;
	assert_int_equal(recv_bufs_open(&bufs, "test"), 0);
	space->quota = quota;
	assert_int_equal(bufs.zones.count, 0);
	end = bufs.spare + RECV_SPARES * (RECV_ROOM + RECV_SMALL + RECV_LARGE);
	for (unsigned i = 0; i < RECV_SPARES; i++) {
		assert_true(receive(&pkts[i], LONG, 0));
		assert_true((uint8_t *)pkts[i].frags[0].iov_base >= bufs.spare + RECV_ROOM);
		assert_true((uint8_t *)pkts[i].frags[1].iov_base + RECV_LARGE <= end);
		fill_with(&pkts[i], i);
	}
	assert_false(receive(&pkts[RECV_SPARES], SHORT, 0));
	for (unsigned i = 0; i < RECV_SPARES; i++)
		check_filled_with(&pkts[i], i);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_pieces),
		TEST(test_all_are_kept),
		TEST(test_all_large_ones_are_kept),
		TEST(test_any_order),
		TEST(test_places_of_one_call),
		TEST(test_who_may_see),
		TEST(test_without_a_zone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
