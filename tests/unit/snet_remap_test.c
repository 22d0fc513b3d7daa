/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel=remap and channel=flip: what is copied through mappings of its own are the same bytes. The
 * zone's usual mapping is taken away meanwhile: who used it would fault.
 *
 *      zone, as a guest wrote it   --snet_remap_in()-->   pkt   --snet_remap_out()-->   zone
 *
 * flip: nothing is copied on the way in, and each mapping is undone; a page that comes back is zeroed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include "frames.h"
#include "guest/snet_remap.h"
#include "port/worker.h"
#include "zones.h"

#include <cmocka.h> /* last: it has a macro fail() */

enum { RING = 64, PIECES = 40, ID = 1000, OUT_ZONE = ZONE_SIZE };

static struct worker *worker;
static struct zone_space space;
static struct zone_group group;
static struct snet_session *session;
static struct snet snet;
static uint8_t *zones; /* two in a row */
static uint64_t seed = 4711;
static uint8_t expected[PKT_LEN_MAX + 1], got[PKT_LEN_MAX];

static int make_space(void **state)
{
	space = space_of(8, ZONE_TRANSPARENT);
	return 0;
}

static int free_space(void **state)
{
	zone_space_fini(&space);
	return 0;
}

/* Each time other zones in the same places. */
static int set_up_as(enum snet_remap_mode mode)
{
	struct error error;

	worker = fake_worker(WORKER_POOL_PACKETS);
	zone_group_init(&group, &space, "test", ZONE_WRITABLE, 2);
	if (zone_group_grow(&group, 2, &error))
		return -1;
	zones = group.zones->base;
	session = snet_session_new(1, RING, SNET_ENTRY_MIN);
	snet = (struct snet){ .space = &space,
			      .session = session,
			      .remap = snet_remap_new(mode, 1) };
	if (!session || !snet.remap)
		return -1;
	session->snet = &snet;
	return 0;
}

static int set_up(void **state)
{
	return set_up_as(SNET_REMAP_COPY);
}

static int set_up_flip(void **state)
{
	return set_up_as(SNET_REMAP_FLIP);
}

static int tear_down(void **state)
{
	snet_session_free(session);
	snet_remap_free(snet.remap);
	zone_group_fini(&group);
	fake_worker_free(worker);
	return 0;
}

static void protect(bool away)
{
	int prot = away ? PROT_NONE : PROT_READ | PROT_WRITE;

	assert_int_equal(mprotect(zones, 2 * ZONE_SIZE, prot), 0);
}

/* A packet of len bytes in count pieces all over the first zone; expected has them in a row. */
static struct pkt *sent(uint32_t len, unsigned count)
{
	uint32_t slot = ZONE_SIZE / count, done = 0;
	struct pkt *pkt = NULL;

	assert_int_equal(pkt_pool_get(&worker->pool, &pkt, 1), 1);
	pkt->source = &session->queues[0].source;
	pkt->cookie = ID;
	pkt->len = len;
	if (count > PKT_INLINE_FRAGS)
		assert_true(pkt_take_frag_block(&worker->pool, pkt));
	for (unsigned i = 0; i < count; i++) {
		uint32_t piece = i + 1 == count ? len - done : len / count;
		uint8_t *at = zones + i * slot + rnd(&seed) % (slot - piece + 1);

		for (uint32_t j = 0; j < piece; j++)
			at[j] = expected[done + j] = rnd(&seed);
		pkt->frags[pkt->frag_count++] = (struct iovec){ at, piece };
		done += piece;
	}
	return pkt;
}

static void in_and_out(void **state)
{
	static const uint32_t lens[] = { 1, 14, 64, 65, 1514, 4096, 4097, 65535, PKT_LEN_MAX };
	static const unsigned counts[] = { 1, 2, 19, 20, PIECES };
	struct snet_queue *queue = &session->queues[0];

	for (unsigned round = 0; round < 300; round++) {
		unsigned count = counts[round % 5];
		uint32_t len = lens[round % 9] < count ? count : lens[round % 9];
		struct pkt *pkt = sent(len, count);
		uint8_t *to = zones + OUT_ZONE + rnd(&seed) % (ZONE_SIZE - len);
		uint32_t half = rnd(&seed) % len;

		protect(true);
		snet_remap_in(&snet, queue, &pkt, 1);
		/* it is given back at once, and what becomes of it then does not matter */
		assert_int_equal(queue->tx_returned, round + 1);
		assert_int_equal(queue->rings.tx_done[round & (RING - 1)], ID);
		assert_null(pkt->source);
		assert_int_equal(pkt->len, len);
		pkt_copy_out(pkt, 0, got, len);
		assert_memory_equal(got, expected, len);

		if (half > 0)
			snet_remap_out(&snet, pkt, 0, to, half);
		snet_remap_out(&snet, pkt, half, to + half, len - half);
		protect(false);
		assert_memory_equal(to, expected, len);
		pkt_put(pkt);
		worker_complete(worker);
	}
	assert_int_equal(worker->pool.free_count, WORKER_POOL_PACKETS);
}

/* Packets of a burst do not lie upon each other. */
static void burst(void **state)
{
	struct pkt *pkts[PKT_BURST];

	for (unsigned i = 0; i < PKT_BURST; i++) {
		pkts[i] = sent(PKT_LEN_MAX, 1);
		memset(pkts[i]->frags[0].iov_base, i, PKT_LEN_MAX);
		snet_remap_in(&snet, &session->queues[0], &pkts[i], 1);
	}
	for (unsigned i = 0; i < PKT_BURST; i++) {
		pkt_copy_out(pkts[i], 0, got, PKT_LEN_MAX);
		memset(expected, i, PKT_LEN_MAX);
		assert_memory_equal(got, expected, PKT_LEN_MAX);
		pkt_put(pkts[i]);
	}
	worker_complete(worker);
}

/* What is too long is dropped later: nothing of it is copied or mapped. */
static void too_long(void **state)
{
	struct pkt *pkt = sent(PKT_LEN_MAX + 1, 1);

	protect(true);
	snet_remap_in(&snet, &session->queues[0], &pkt, 1);
	protect(false);
	assert_int_equal(pkt->len, PKT_LEN_MAX + 1);
	assert_int_equal(pkt->frag_count, 0);
	pkt_put(pkt);
	worker_complete(worker);
	assert_int_equal(session->queues[0].tx_returned, 1);
}

static json_int_t counted(const char *what)
{
	json_t *show = snet_remap_show(snet.remap);
	json_int_t count = json_integer_value(json_object_get(show, what));

	json_decref(show);
	return count;
}

/* The pages of the zones are mapped while the packet is under way, and no longer. */
static void flip_in(void **state)
{
	static const uint32_t lens[] = { 40, 64, 65, 1514, 4096, 4097, 65535, PKT_LEN_MAX };
	static const unsigned counts[] = { 1, 2, 19, 20, PIECES };
	struct snet_queue *queue = &session->queues[0];

	for (unsigned round = 0; round < 200; round++) {
		unsigned count = counts[round % 5];
		struct pkt *pkt = sent(lens[round % 8], count);
		json_int_t before = counted("mapped");

		protect(true);
		snet_remap_in(&snet, queue, &pkt, 1);
		assert_int_equal(queue->tx_returned, round);
		assert_true(counted("mapped") >= before + count);
		assert_int_equal(pkt->frag_count, count);
		pkt_copy_out(pkt, 0, got, pkt->len);
		assert_memory_equal(got, expected, pkt->len);
		pkt_put(pkt);
		worker_complete(worker);
		protect(false);
		assert_int_equal(queue->tx_returned, round + 1);
		assert_int_equal(queue->rings.tx_done[round & (RING - 1)], ID);
		assert_int_equal(counted("mapped"), counted("unmapped"));
	}
	assert_int_equal(counted("handed_over"), 0);
}

/* Of a guest that has gone meanwhile, and is not counted for any more. */
static void flip_outlives(void **state)
{
	struct pkt *pkt = sent(1514, 1);

	snet_remap_in(&snet, &session->queues[0], &pkt, 1);
	session->snet = NULL;
	pkt_put(pkt);
	worker_complete(worker);
	assert_int_equal(session->queues[0].tx_returned, 1);
	assert_int_equal(counted("unmapped"), 0);
}

/* Each page goes to the guest and back: mapped twice, unmapped twice, zeroed once. */
static void flip_out(void **state)
{
	static const uint32_t lens[] = { 14, 1514, 4096, 4097, 65536 };
	static const unsigned pages[] = { 1, 1, 1, 2, 16 };
	static const uint8_t zeros[ZONE_SIZE];
	json_int_t sum = 0;

	for (unsigned round = 0; round < 50; round++) {
		struct pkt *pkt = sent(lens[round % 5], 1);
		uint8_t *to = zones + OUT_ZONE + round * SNET_FLIP_PAGE;
		void *buf = to;

		assert_int_equal(mprotect(zones + OUT_ZONE, ZONE_SIZE, PROT_NONE), 0);
		snet_remap_out(&snet, pkt, 0, to, pkt->len);
		protect(false);
		sum += pages[round % 5];
		assert_int_equal(counted("handed_over"), sum);
		assert_int_equal(counted("mapped"), 2 * sum);
		assert_memory_equal(to, expected, pkt->len);

		snet_remap_back(&snet, &buf, 1);
		assert_int_equal(counted("taken_back"), sum);
		assert_int_equal(counted("zeroed"), sum);
		assert_int_equal(counted("unmapped"), 2 * sum);
		assert_memory_equal(zones + OUT_ZONE, zeros, ZONE_SIZE);
		pkt->source = NULL;
		pkt_put(pkt);
		worker_complete(worker);
	}
}

/* In remap nothing changes hands. */
static void remap_keeps(void **state)
{
	struct pkt *pkt = sent(1514, 1);
	void *buf = zones + OUT_ZONE;

	snet_remap_out(&snet, pkt, 0, buf, pkt->len);
	snet_remap_back(&snet, &buf, 1);
	assert_memory_equal(buf, expected, pkt->len);
	assert_int_equal(counted("zeroed") + counted("handed_over"), 0);
	assert_int_equal(counted("mapped"), counted("unmapped"));
	pkt->source = NULL;
	pkt_put(pkt);
	worker_complete(worker);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(in_and_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(burst, set_up, tear_down),
		cmocka_unit_test_setup_teardown(too_long, set_up, tear_down),
		cmocka_unit_test_setup_teardown(remap_keeps, set_up, tear_down),
		cmocka_unit_test_setup_teardown(flip_in, set_up_flip, tear_down),
		cmocka_unit_test_setup_teardown(flip_outlives, set_up_flip, tear_down),
		cmocka_unit_test_setup_teardown(flip_out, set_up_flip, tear_down),
		cmocka_unit_test_setup_teardown(too_long, set_up_flip, tear_down),
	};

	return cmocka_run_group_tests_name("snet_remap", tests, make_space, free_space);
}
