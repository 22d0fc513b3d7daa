/* SPDX-License-Identifier: BSD-3-Clause */
/* Slabs: each buffer has whom it was given to, on one thread and on several. */
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "zones.h"

#include "zone/slab.h"

enum { BUF = 2048, BUFS_PER_ZONE = ZONE_SIZE / BUF };

static struct zone_space space;
static struct zone_group group;
static struct slab *slab;

static int set_up(void **state)
{
	struct error error;

	space = space_of(8, ZONE_SMALL_PAGES);
	zone_group_init(&group, &space, "guest web", ZONE_PRIVATE, 3);
	assert_int_equal(zone_group_grow(&group, 2, &error), 0);
	slab = slab_new(&group, BUF, 3);
	assert_non_null(slab);
	return 0;
}

static int tear_down(void **state)
{
	assert_int_equal(slab_free(slab), 0);
	zone_group_fini(&group);
	zone_space_fini(&space);
	return 0;
}

/* Get them all, in bursts; returns how many there were. */
static unsigned get_all(void **bufs, unsigned max)
{
	unsigned count = 0, got;

	do {
		unsigned n = max - count < SLAB_BULK ? max - count : SLAB_BULK;

		got = slab_get(slab, 0, bufs + count, n);
		count += got;
	} while (got);
	return count;
}

static int compare(const void *a, const void *b)
{
	const uint8_t *p = *(uint8_t *const *)a, *q = *(uint8_t *const *)b;

	return p < q ? -1 : p > q;
}

static void hands_out_each_buffer_once(void **state)
{
	static void *bufs[2 * BUFS_PER_ZONE + 1];

	assert_int_equal(slab_get(slab, 0, bufs, 1), 0);
	assert_int_equal(slab_grow(slab, 2 * BUFS_PER_ZONE), 0);
	assert_int_equal(slab->total, 2 * BUFS_PER_ZONE);
	assert_int_equal(get_all(bufs, 2 * BUFS_PER_ZONE + 1), 2 * BUFS_PER_ZONE);
	qsort(bufs, 2 * BUFS_PER_ZONE, sizeof(*bufs), compare);
	/* side by side from the first byte to the last of both zones: no other bytes are used */
	for (unsigned i = 0; i < 2 * BUFS_PER_ZONE; i++)
		assert_ptr_equal(bufs[i], group.zones->base + (size_t)i * BUF);
	slab_put(&space, 0, bufs, 2 * BUFS_PER_ZONE);
	assert_int_equal(get_all(bufs, 2 * BUFS_PER_ZONE + 1), 2 * BUFS_PER_ZONE);
	slab_put(&space, 0, bufs, 2 * BUFS_PER_ZONE);
}

static void the_last_put_is_got_first(void **state)
{
	void *first[32], *other[16], *again[16];

	slab_grow(slab, 1000);
	assert_int_equal(slab_get(slab, 0, first, 32), 32);
	assert_int_equal(slab_get(slab, 0, other, 16), 16);
	slab_put(&space, 0, first, 32);
	slab_put(&space, 0, other, 16);
	assert_int_equal(slab_get(slab, 0, again, 16), 16);
	for (unsigned i = 0; i < 16; i++)
		assert_ptr_equal(again[i], other[15 - i]);
	slab_put(&space, 0, again, 16);
}

static void any_address_leads_to_the_buffer(void **state)
{
	uint8_t *buf;
	void *addr;

	slab_grow(slab, 1);
	assert_int_equal(slab_get(slab, 0, (void **)&buf, 1), 1);
	assert_ptr_equal(slab_buf(&space, buf), buf);
	assert_ptr_equal(slab_buf(&space, buf + BUF - 1), buf);
	assert_ptr_equal(slab_buf(&space, buf + BUF), buf + BUF);
	assert_null(slab_buf(&space, &space));
	assert_null(slab_buf(&space, NULL));
	assert_null(slab_buf(&space, buf + SLAB_BUF_MAX)); /* in a zone, in no slab */
	assert_false(slab_ref(&space, buf + SLAB_BUF_MAX));
	assert_false(slab_ref(&space, &space));
	addr = &space;
	slab_put(&space, 0, &addr, 1);

	addr = buf + 1234;
	slab_put(&space, 0, &addr, 1);
	assert_int_equal(slab_get(slab, 0, &addr, 1), 1);
	assert_ptr_equal(addr, buf);
	slab_put(&space, 0, &addr, 1);
}

static void the_last_owner_frees_it(void **state)
{
	void *buf, *other, *within;

	slab_grow(slab, 1);
	for (unsigned round = 0; round < 2; round++) { /* the count is right again afterwards */
		assert_int_equal(slab_get(slab, 0, &buf, 1), 1);
		within = (uint8_t *)buf + 66;
		for (unsigned i = 0; i < 1000; i++)
			assert_true(slab_ref(&space, within));
		for (unsigned i = 0; i < 1000; i++) {
			slab_put(&space, i % 3, &within, 1);
			assert_int_equal(slab->caches[1].count + slab->caches[2].count, 0);
		}
		assert_int_equal(slab_free(slab), -EBUSY);
		assert_int_equal(slab->total, SLAB_BUF_MAX / BUF);
		slab_put(&space, 1, &buf, 1);
		assert_int_equal(slab_get(slab, 1, &other, 1), 1);
		assert_ptr_equal(other, buf);
		slab_put(&space, 1, &other, 1);
		slab_trim(slab, UINT32_MAX); /* everything into the stock, no more */
	}
}

/* Buffers of several slabs in one burst, each to where it belongs. */
static void slabs_live_side_by_side(void **state)
{
	static const unsigned sizes[] = { SLAB_BUF_MIN, 512, 4096, 16384, SLAB_BUF_MAX };
	enum { COUNT = sizeof(sizes) / sizeof(*sizes) };
	struct slab *slabs[COUNT];
	void *bufs[COUNT], *again;

	for (unsigned i = 0; i < COUNT; i++) {
		slabs[i] = slab_new(&group, sizes[i], 1);
		assert_non_null(slabs[i]);
		assert_int_equal(slab_grow(slabs[i], 1), 0);
		assert_int_equal(slabs[i]->total, SLAB_BUF_MAX / sizes[i]);
		assert_int_equal(slab_get(slabs[i], 0, &bufs[i], 1), 1);
		assert_int_equal((uintptr_t)bufs[i] % sizes[i], 0);
		memset(bufs[i], i, sizes[i]);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(*(uint8_t *)bufs[i], i);
		assert_int_equal(((uint8_t *)bufs[i])[sizes[i] - 1], i);
		assert_ptr_equal(slab_buf(&space, (uint8_t *)bufs[i] + sizes[i] - 1), bufs[i]);
	}
	slab_put(&space, 0, bufs, COUNT);
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(slab_get(slabs[i], 0, &again, 1), 1);
		assert_ptr_equal(again, bufs[i]);
		slab_put(&space, 0, &again, 1);
		assert_int_equal(slab_free(slabs[i]), 0);
	}
	for (const struct zone *zone = group.zones; zone; zone = zone->next)
		assert_int_equal(zone->used_pages, 0);
}

static void refuses_sizes_that_do_not_fit(void **state)
{
	assert_null(slab_new(&group, 0, 1));
	assert_null(slab_new(&group, SLAB_BUF_MIN / 2, 1));
	assert_null(slab_new(&group, SLAB_BUF_MAX * 2, 1));
	assert_null(slab_new(&group, 3000, 1));
}

static void grows_as_far_as_the_group_has_pages(void **state)
{
	static void *bufs[3 * BUFS_PER_ZONE];
	struct error error;

	assert_false(slab_short(slab));
	assert_int_equal(slab_grow(slab, 2 * BUFS_PER_ZONE - 10), 0); /* rounded up */
	assert_int_equal(slab_grow(slab, 1), -ENOSPC);
	assert_int_equal(slab->total, 2 * BUFS_PER_ZONE);
	assert_int_equal(get_all(bufs, 2 * BUFS_PER_ZONE), 2 * BUFS_PER_ZONE);
	assert_int_equal(slab_get(slab, 1, bufs, 1), 0);
	assert_true(slab_short(slab));
	assert_false(slab_short(slab));
	assert_int_equal(zone_group_grow(&group, 1, &error), 0);
	assert_int_equal(slab_grow(slab, 2 * BUFS_PER_ZONE), -ENOSPC);
	assert_int_equal(slab->total, 3 * BUFS_PER_ZONE); /* half of it could be had */
	assert_int_equal(get_all(bufs + 2UL * BUFS_PER_ZONE, BUFS_PER_ZONE), BUFS_PER_ZONE);
	slab_put(&space, 0, bufs, 3 * BUFS_PER_ZONE);
	assert_false(slab_short(slab));
}

static void gives_back_what_nobody_uses(void **state)
{
	enum { CHUNK_BUFS = SLAB_BUF_MAX / BUF };
	static void *bufs[BUFS_PER_ZONE], *rest[BUFS_PER_ZONE];
	unsigned n;

	slab_grow(slab, BUFS_PER_ZONE);
	assert_int_equal(get_all(bufs, BUFS_PER_ZONE), BUFS_PER_ZONE);
	qsort(bufs, BUFS_PER_ZONE, sizeof(*bufs), compare);
	/* one buffer of the first chunk stays with its owner, the rest is in caches and stock */
	slab_put(&space, 0, bufs + 1, 40);
	slab_put(&space, 2, bufs + 41, BUFS_PER_ZONE - 41);

	assert_int_equal(slab_trim(slab, BUFS_PER_ZONE - 3 * CHUNK_BUFS + 1), 2 * CHUNK_BUFS);
	assert_int_equal(slab->total, BUFS_PER_ZONE - 2 * CHUNK_BUFS);
	assert_int_equal(group.zones->used_pages, ZONE_PAGES - 2 * 16);
	n = get_all(rest, BUFS_PER_ZONE);
	assert_int_equal(n, BUFS_PER_ZONE - 2 * CHUNK_BUFS - 1);
	for (unsigned i = 0; i < n; i++)
		assert_ptr_equal(slab_buf(&space, rest[i]), rest[i]);
	slab_put(&space, 1, rest, n);

	/* all but the chunk that somebody owns of, then the zones can go too */
	assert_int_equal(slab_free(slab), -EBUSY);
	assert_int_equal(slab->total, CHUNK_BUFS);
	assert_ptr_equal(slab_buf(&space, bufs[0]), bufs[0]);
	assert_null(slab_buf(&space, (uint8_t *)bufs[0] + SLAB_BUF_MAX));
	assert_int_equal(zone_group_trim(&group, 0), 1);
	slab_put(&space, 0, bufs, 1);
	assert_int_equal(slab_trim(slab, 0), CHUNK_BUFS);
	assert_int_equal(zone_group_trim(&group, 0), 1);
}

/* S32: with the lock held by somebody else, everything within the caches goes on. */
static void the_fast_path_takes_no_lock(void **state)
{
	void *bufs[SLAB_BULK];

	slab_grow(slab, 1000);
	assert_int_equal(slab_get(slab, 0, bufs, SLAB_BULK), SLAB_BULK);
	slab_put(&space, 0, bufs, SLAB_BULK);
	alarm(10); /* instead of waiting for the lock for ever */
	atomic_flag_test_and_set(&slab->held);
	for (unsigned i = 0; i < 1000; i++) {
		unsigned n = 1 + i % SLAB_BULK;

		assert_int_equal(slab_get(slab, 0, bufs, n), n);
		assert_true(slab_ref(&space, bufs[0]));
		slab_put(&space, 1, bufs, 1);
		slab_put(&space, 0, bufs, n);
	}
	atomic_flag_clear(&slab->held);
	alarm(0);
	assert_int_equal(slab->caches[1].count, 0);
}

/* ---- several threads ---- */

enum { THREADS = 3, ROUNDS = 20000, TABLE = 512, HELD = 32, SHARED = 16 };

/* Threads pass buffers on through this: who finds one there owns it, or one share of it. */
static _Atomic(uint64_t *) table[TABLE];

/*
 * Take a burst of buffers and leave each somewhere in the table, alone or with further owners; put
 * what was there before. word[0] of a buffer counts its owners here, word[1] is a thread that has
 * it exclusively: who gets a buffer that somebody else still has finds either.
 */
static void *exchange(void *arg)
{
	unsigned thread = (uintptr_t)arg;
	uint64_t seed = thread + 1;

	for (unsigned round = 0; round < ROUNDS; round++) {
		void *bufs[HELD];
		unsigned n = slab_get(slab, thread, bufs, 1 + rnd_below(&seed, HELD));

		for (unsigned i = 0; i < n; i++) {
			_Atomic uint64_t *words = bufs[i];
			unsigned owners = 1 + (rnd_below(&seed, 4) == 0) * rnd_below(&seed, SHARED);

			if (atomic_exchange(&words[0], owners) || atomic_exchange(&words[1], 1))
				return "got a buffer that somebody has";
			for (unsigned k = 1; k < owners; k++)
				slab_ref(&space, (uint8_t *)bufs[i] + rnd_below(&seed, BUF));
			atomic_store(&words[1], 0);
			for (unsigned k = 0; k < owners; k++) {
				unsigned at = rnd_below(&seed, TABLE);
				void *old = atomic_exchange(&table[at], bufs[i]);

				if (!old)
					continue;
				if (rnd_below(&seed, 4) == 0) { /* one of several owners adds one */
					slab_ref(&space, old);
					slab_put(&space, thread, &old, 1);
				}
				if (atomic_fetch_sub((_Atomic uint64_t *)old, 1) == 0)
					return "a buffer had too few owners";
				slab_put(&space, thread, &old, 1);
			}
		}
	}
	return NULL;
}

/* Run it on each thread, with its number; it returns what went wrong, or NULL. */
static void on_threads(void *(*function)(void *))
{
	pthread_t threads[THREADS];
	char *trouble;

	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, function, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], (void **)&trouble), 0);
		if (trouble)
			fail_msg("%s", trouble);
	}
}

static void threads_exchange_buffers(void **state)
{
	slab_grow(slab, 1500);
	on_threads(exchange);
	assert_int_equal(slab_free(slab), -EBUSY); /* those in the table */
	for (unsigned i = 0; i < TABLE; i++) {
		void *buf = atomic_exchange(&table[i], NULL);

		if (buf)
			slab_put(&space, 0, &buf, 1);
	}
}

/* More at a time than a cache holds, so that nearly all pass through the stock. */
static void *use_the_stock(void *arg)
{
	unsigned thread = (uintptr_t)arg;

	for (unsigned round = 0; round < ROUNDS; round++) {
		void *bufs[4 * SLAB_BULK];
		unsigned n = 0;

		for (unsigned i = 0; i < 4; i++)
			n += slab_get(slab, thread, bufs + n, SLAB_BULK);
		for (unsigned i = 0; i < n; i++) {
			if (atomic_exchange((_Atomic uint64_t *)bufs[i], 1))
				return "got a buffer that somebody has";
		}
		for (unsigned i = 0; i < n; i++)
			atomic_store((_Atomic uint64_t *)bufs[i], 0);
		slab_put(&space, thread, bufs, n);
	}
	return NULL;
}

static void threads_meet_in_the_stock(void **state)
{
	static void *bufs[1024];

	slab_grow(slab, 1000);
	on_threads(use_the_stock);
	slab_trim(slab, UINT32_MAX);
	assert_int_equal(get_all(bufs, 1024), 1024);
	slab_put(&space, 0, bufs, 1024);
}

static void *the_one;

static void *come_and_go(void *arg)
{
	for (unsigned i = 0; i < 10 * ROUNDS; i++) {
		slab_ref(&space, the_one);
		slab_put(&space, (uintptr_t)arg, &the_one, 1);
	}
	slab_put(&space, (uintptr_t)arg, &the_one, 1);
	return NULL;
}

static void threads_own_the_same_buffer(void **state)
{
	slab_grow(slab, 1);
	slab_get(slab, 0, &the_one, 1);
	for (unsigned i = 0; i < THREADS; i++)
		assert_true(slab_ref(&space, the_one));
	on_threads(come_and_go);
	/* no owner was lost: it is ours alone now */
	for (unsigned i = 1; i < THREADS; i++)
		assert_int_equal(slab->caches[i].count, 0);
	assert_int_equal(slab_free(slab), -EBUSY);
	slab_put(&space, 1, &the_one, 1);
	assert_int_equal(slab->caches[1].count, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(hands_out_each_buffer_once),
		TEST(the_last_put_is_got_first),
		TEST(any_address_leads_to_the_buffer),
		TEST(the_last_owner_frees_it),
		TEST(slabs_live_side_by_side),
		TEST(refuses_sizes_that_do_not_fit),
		TEST(grows_as_far_as_the_group_has_pages),
		TEST(gives_back_what_nobody_uses),
		TEST(the_fast_path_takes_no_lock),
		TEST(threads_exchange_buffers),
		TEST(threads_meet_in_the_stock),
		TEST(threads_own_the_same_buffer),
	};

	return cmocka_run_group_tests_name("slab", tests, NULL, NULL);
}
