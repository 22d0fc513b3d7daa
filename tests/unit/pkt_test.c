/* SPDX-License-Identifier: BSD-3-Clause */
/* The packet pool, and reading a packet's bytes whatever its fragments look like. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "frames.h"

enum { CAPACITY = 100 };

static struct pkt_pool pool;

static int set_up(void **state)
{
	return pkt_pool_init(&pool, CAPACITY);
}

static int tear_down(void **state)
{
	pkt_pool_fini(&pool);
	return 0;
}

static void test_pool_hands_out_each_packet_once(void **state)
{
	struct pkt *pkts[CAPACITY + 1];

	assert_int_equal(pool.capacity, CAPACITY);
	assert_int_equal(pkt_pool_get(&pool, pkts, CAPACITY + 1), CAPACITY);
	assert_int_equal(pkt_pool_get(&pool, pkts + CAPACITY, 1), 0);
	for (unsigned i = 0; i < CAPACITY; i++) {
		assert_int_equal((uintptr_t)pkts[i] % 64, 0);
		for (unsigned j = 0; j < i; j++)
			assert_ptr_not_equal(pkts[i], pkts[j]);
		/* All of it is ours: neighbours and fragment blocks stay as they are. */
		memset(pkts[i]->header, i, sizeof(pkts[i]->header));
		memset(pkts[i]->inline_frags, i, sizeof(pkts[i]->inline_frags));
	}
	for (unsigned i = 0; i < CAPACITY; i++) {
		assert_int_equal(pkts[i]->header[PKT_HEADER_MAX - 1], i);
		assert_int_equal(pkts[i]->refs, 1);
	}
	pkt_pool_put(&pool, pkts, CAPACITY);
	assert_int_equal(pool.free_count, CAPACITY);
}

static void test_pool_is_last_in_first_out(void **state)
{
	struct pkt *first[32], *other[16], *again[48];

	assert_int_equal(pkt_pool_get(&pool, first, 32), 32);
	assert_int_equal(pkt_pool_get(&pool, other, 16), 16);
	pkt_pool_put(&pool, other, 16);
	pkt_pool_put(&pool, first, 32);
	/* The burst that came back last comes first, and in its order. */
	assert_int_equal(pkt_pool_get(&pool, again, 48), 48);
	assert_memory_equal(again, first, sizeof(first));
	assert_memory_equal(again + 32, other, sizeof(other));
	pkt_pool_put(&pool, again, 48);
}

static void test_pool_hands_out_clean_packets(void **state)
{
	struct pkt *pkt = NULL;

	pkt_pool_get(&pool, &pkt, 1);
	memset(pkt, 0xff, offsetof(struct pkt, vnet));
	pkt->frags = pkt->inline_frags;
	pkt_pool_put(&pool, &pkt, 1);

	pkt_pool_get(&pool, &pkt, 1);
	assert_null(pkt->source);
	assert_ptr_equal(pkt->frags, pkt->inline_frags);
	assert_int_equal(pkt->frag_count, 0);
	assert_int_equal(pkt->refs, 1);
	assert_int_equal(pkt->hash, 0);
	assert_int_equal(pkt->l3_off | pkt->l4_off | pkt->payload_off | pkt->l4_proto, 0);
	assert_true(pkt_needs_nothing(pkt));
	assert_int_equal(pkt->offload.flags | pkt->offload.gso_size | pkt->offload.csum_start, 0);
	pkt_pool_put(&pool, &pkt, 1);
}

static void test_pool_fragment_blocks(void **state)
{
	struct pkt *pkts[CAPACITY];
	unsigned blocks = pool.block_capacity, i;

	assert_true(blocks > 0 && blocks < CAPACITY);
	assert_int_equal(pkt_pool_get(&pool, pkts, CAPACITY), CAPACITY);
	for (i = 0; i < blocks; i++) {
		/* What is in the list already moves along. */
		pkts[i]->frag_count = PKT_INLINE_FRAGS;
		for (unsigned j = 0; j < PKT_INLINE_FRAGS; j++)
			pkts[i]->inline_frags[j] = (struct iovec){ pkts[i], j };
		assert_true(pkt_take_frag_block(&pool, pkts[i]));
		assert_ptr_not_equal(pkts[i]->frags, pkts[i]->inline_frags);
		assert_memory_equal(pkts[i]->frags, pkts[i]->inline_frags,
				    sizeof(pkts[i]->inline_frags));
		for (unsigned j = 0; j < PKT_FRAGS_MAX; j++)
			pkts[i]->frags[j] = (struct iovec){ &pool, i };
	}
	assert_false(pkt_take_frag_block(&pool, pkts[i]));
	assert_ptr_equal(pkts[i]->frags, pkts[i]->inline_frags);
	for (i = 0; i < blocks; i++) {
		for (unsigned j = 0; j < PKT_FRAGS_MAX; j++)
			assert_int_equal(pkts[i]->frags[j].iov_len, i);
	}
	/* They come back with their packets. */
	pkt_pool_put(&pool, pkts, CAPACITY);
	assert_int_equal(pool.block_count, blocks);
	pkt_pool_get(&pool, pkts, 1);
	assert_ptr_equal(pkts[0]->frags, pkts[0]->inline_frags);
	assert_true(pkt_take_frag_block(&pool, pkts[0]));
	pkt_pool_put(&pool, pkts, 1);
}

/* A frame and packets that hold it: every geometry in turn. */
struct layout {
	uint32_t len, header_len, frag_max;
};

static const struct layout layouts[] = {
	{ 14, 14, 1 },       { 64, 64, 1 },       { 64, 0, 64 },       { 64, 13, 1 },
	{ 65, 64, 1 },       { 192, 192, 1 },     { 193, 192, 1 },     { 300, 0, 1 },
	{ 300, 64, 3 },      { 300, 191, 7 },     { 1518, 64, 1454 },  { 1518, 64, 100 },
	{ 1518, 0, 700 },    { 9014, 100, 4096 }, { 65549, 64, 4096 }, { 65549, 0, 65549 },
	{ 65549, 192, 200 },
};

enum { LAYOUTS = sizeof(layouts) / sizeof(layouts[0]) };

static uint8_t frame[FRAME_MAX];

static void fill(struct pkt *pkt, const struct layout *layout, uint64_t *seed)
{
	for (uint32_t i = 0; i < layout->len; i++)
		frame[i] = rnd(seed);
	pkt_fill(pkt, frame, layout->len, layout->header_len, layout->frag_max, seed);
}

/* Does the packet still say what the frame says, and are its lengths consistent? */
static void check_whole(const struct pkt *pkt, uint32_t len)
{
	uint32_t sum = pkt->header_len;
	uint8_t *copy = malloc(len);

	assert_int_equal(pkt->len, len);
	for (unsigned i = 0; i < pkt->frag_count; i++)
		sum += pkt->frags[i].iov_len;
	assert_int_equal(sum, len);
	pkt_copy_out(pkt, 0, copy, len);
	assert_memory_equal(copy, frame, len);
	free(copy);
}

static void test_copy_out(void **state)
{
	uint64_t seed = 1;

	for (unsigned i = 0; i < LAYOUTS; i++) {
		uint32_t len = layouts[i].len;
		struct pkt pkt;

		fill(&pkt, &layouts[i], &seed);
		check_whole(&pkt, len);
		for (unsigned round = 0; round < 300; round++) {
			uint32_t off = rnd_in(&seed, 0, len), part = rnd_in(&seed, 0, len - off);
			uint8_t *copy = malloc(part ? part : 1);

			if (round % 2 && part > 200)
				part = rnd_in(&seed, 0, 200);
			pkt_copy_out(&pkt, off, copy, part);
			assert_memory_equal(copy, frame + off, part);
			free(copy);
		}
		pkt_empty(&pkt);
	}
}

static void test_pull(void **state)
{
	uint64_t seed = 2;

	for (unsigned i = 0; i < LAYOUTS; i++) {
		uint32_t len = layouts[i].len;

		for (unsigned want = 0; want <= PKT_HEADER_MAX + 1; want++) {
			struct pkt pkt;
			uint32_t before;
			bool possible = want <= len && want <= PKT_HEADER_MAX;

			fill(&pkt, &layouts[i], &seed);
			before = pkt.header_len;
			assert_int_equal(pkt_pull(&pkt, want), possible || want <= before);
			assert_int_equal(pkt.header_len, possible && want > before ? want : before);
			assert_memory_equal(pkt.header, frame, pkt.header_len);
			for (unsigned j = 0; j < pkt.frag_count; j++)
				assert_true(pkt.frags[j].iov_len > 0);
			if (want % 16 == 0 || len < 100)
				check_whole(&pkt, len);
			pkt_empty(&pkt);
		}
	}
}

/* Pulled in steps, no byte is read twice: what lies in a fragment's pulled part may change. */
static void test_pull_reads_once(void **state)
{
	const struct layout layout = { 300, 10, 30 };
	uint64_t seed = 3;
	struct pkt pkt;

	fill(&pkt, &layout, &seed);
	for (unsigned want = 10; want <= PKT_HEADER_MAX; want += 1 + want % 5) {
		uint8_t *first = pkt.frags[0].iov_base;

		assert_true(pkt_pull(&pkt, want));
		if (pkt.frags[0].iov_base != first)
			*first ^= 0xff;
		assert_memory_equal(pkt.header, frame, pkt.header_len);
	}
	pkt_empty(&pkt);
}

/* Empty fragments are nobody's idea of a packet, but harmless. */
static void test_empty_fragments(void **state)
{
	uint8_t bytes[40], copy[40];
	struct pkt *pkt = NULL;

	pkt_pool_get(&pool, &pkt, 1);
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = frame[i] = i + 1;
	pkt->len = sizeof(bytes);
	pkt->header_len = 0;
	pkt->frags[0] = (struct iovec){ bytes, 0 };
	pkt->frags[1] = (struct iovec){ bytes, 20 };
	pkt->frags[2] = (struct iovec){ bytes, 0 };
	pkt->frags[3] = (struct iovec){ bytes + 20, 20 };
	pkt->frag_count = 4;
	pkt_copy_out(pkt, 10, copy, 30);
	assert_memory_equal(copy, bytes + 10, 30);
	assert_true(pkt_pull(pkt, 20));
	check_whole(pkt, sizeof(bytes));
	assert_true(pkt_pull(pkt, 40));
	assert_int_equal(pkt->frag_count, 0);
	check_whole(pkt, sizeof(bytes));
	pkt_pool_put(&pool, &pkt, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pool_hands_out_each_packet_once, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_pool_is_last_in_first_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pool_hands_out_clean_packets, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_pool_fragment_blocks, set_up, tear_down),
		cmocka_unit_test(test_copy_out),
		cmocka_unit_test(test_pull),
		cmocka_unit_test(test_pull_reads_once),
		cmocka_unit_test_setup_teardown(test_empty_fragments, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
