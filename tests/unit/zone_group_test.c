/* SPDX-License-Identifier: BSD-3-Clause */
/* Groups of zones: whose memory is whose, runs of pages, whole zones coming and going. */
#include <errno.h>

#include "zones.h"

enum { PAGE = 4096, ORDER_MAX = 10 };

static struct zone_space space;
static struct zone_group group; /* private */

static int set_up(void **state)
{
	space = space_of(16, ZONE_SMALL_PAGES);
	zone_group_init(&group, &space, "guest web", ZONE_PRIVATE, 4);
	return 0;
}

static int tear_down(void **state)
{
	zone_group_fini(&group);
	assert_int_equal(space.count, 0);
	zone_space_fini(&space);
	return 0;
}

static void grow(struct zone_group *of, unsigned count)
{
	struct error error = { "" };

	if (zone_group_grow(of, count, &error))
		fail_msg("%s", error.text);
}

static unsigned used_pages(const struct zone_group *of)
{
	unsigned sum = 0;

	for (const struct zone *zone = of->zones; zone; zone = zone->next) {
		unsigned bits = 0;

		for (unsigned i = 0; i < ZONE_PAGES / 64; i++)
			bits += __builtin_popcountll(zone->used[i]);
		assert_int_equal(bits, zone->used_pages);
		sum += bits;
	}
	return sum;
}

static void runs_of_each_order_fill_a_zone(void **state)
{
	grow(&group, 1);
	for (unsigned order = 0; order <= ORDER_MAX; order++) {
		unsigned count = ZONE_PAGES >> order;
		uint8_t *base = group.zones->base;

		/* each once, aligned, from the lowest up */
		for (unsigned i = 0; i < count; i++) {
			uint8_t *pages = zone_pages_get(&group, order);

			assert_ptr_equal(pages, base + ((size_t)i << order) * PAGE);
		}
		assert_null(zone_pages_get(&group, order));
		assert_null(zone_pages_get(&group, 0));
		assert_int_equal(used_pages(&group), ZONE_PAGES);
		for (unsigned i = 0; i < count; i++)
			assert_int_equal(
				zone_pages_put(&group, base + ((size_t)i << order) * PAGE, order),
				0);
		assert_int_equal(used_pages(&group), 0);
	}
	assert_null(zone_pages_get(&group, ORDER_MAX + 1));
	assert_null(zone_pages_get(&group, UINT32_MAX));
}

static void holes_are_filled_where_they_fit(void **state)
{
	uint8_t *base, *pages[4];

	grow(&group, 2);
	base = group.zones->base;
	for (unsigned i = 0; i < 4; i++)
		pages[i] = zone_pages_get(&group, 4);
	zone_pages_put(&group, pages[1], 4);
	/* 32 pages do not fit the hole of 16, 8 do */
	assert_ptr_equal(zone_pages_get(&group, 5), base + (size_t)64 * PAGE);
	assert_ptr_equal(zone_pages_get(&group, 3), pages[1]);
	assert_ptr_equal(zone_pages_get(&group, 0), pages[1] + (size_t)8 * PAGE);
	assert_ptr_equal(zone_pages_get(&group, 1), pages[1] + (size_t)10 * PAGE);
	/* a whole zone only in the second */
	assert_ptr_equal(zone_pages_get(&group, ORDER_MAX), base + ZONE_SIZE);
	assert_null(zone_pages_get(&group, 9 + 1));
	assert_non_null(zone_pages_get(&group, 9));
}

static void refuses_pages_that_are_not_out(void **state)
{
	struct zone_group other;
	uint8_t *pages;

	zone_group_init(&other, &space, "other", ZONE_PRIVATE, 1);
	grow(&group, 1);
	grow(&other, 1);
	pages = zone_pages_get(&group, 2);
	assert_int_equal(zone_pages_put(&group, &space, 2), -EINVAL);
	assert_int_equal(zone_pages_put(&group, NULL, 0), -EINVAL);
	assert_int_equal(zone_pages_put(&group, group.zones->base - 1, 0), -EINVAL);
	assert_int_equal(zone_pages_put(&other, pages, 2), -EINVAL);
	assert_int_equal(zone_pages_put(&group, pages + 1, 0), -EINVAL);
	assert_int_equal(zone_pages_put(&group, pages + PAGE, 2), -EINVAL);
	assert_int_equal(zone_pages_put(&group, pages, 3), -EINVAL);
	assert_int_equal(zone_pages_put(&group, pages, ORDER_MAX), -EINVAL);
	assert_int_equal(zone_pages_put(&group, pages, ORDER_MAX + 1), -EINVAL);
	assert_int_equal(used_pages(&group), 4);
	assert_int_equal(zone_pages_put(&group, pages, 2), 0);
	assert_int_equal(zone_pages_put(&group, pages, 2), -EINVAL);
	assert_int_equal(used_pages(&group), 0);
	zone_group_fini(&other);
}

/* Against an array of who has which page. */
static void keeps_what_it_gave(void **state)
{
	enum { LIVE = 600, STEPS = 20000 };
	static uint16_t owner[3 * ZONE_PAGES]; /* 0: free, else which run */
	static struct {
		uint8_t *pages;
		unsigned order;
	} runs[LIVE];
	uint64_t seed = 1;
	uint8_t *base;

	grow(&group, 3);
	base = group.zones->base; /* made in a row */
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned i = rnd_below(&seed, LIVE), first;

		if (!runs[i].pages) {
			runs[i].order = rnd_below(&seed, 5);
			runs[i].pages = zone_pages_get(&group, runs[i].order);
			if (!runs[i].pages)
				continue;
		} else {
			assert_int_equal(zone_pages_put(&group, runs[i].pages, runs[i].order), 0);
		}
		first = (runs[i].pages - base) / PAGE;
		assert_int_equal(first % (1U << runs[i].order), 0);
		for (unsigned page = first; page < first + (1U << runs[i].order); page++) {
			assert_true(owner[page] == 0 || owner[page] == i + 1);
			owner[page] = owner[page] ? 0 : i + 1;
		}
		if (owner[first] == 0)
			runs[i].pages = NULL;
	}
	for (unsigned i = 0; i < LIVE; i++) {
		if (runs[i].pages)
			assert_int_equal(zone_pages_put(&group, runs[i].pages, runs[i].order), 0);
	}
	assert_int_equal(used_pages(&group), 0);
}

static void quotas_and_reasons(void **state)
{
	struct error error = { "" };

	grow(&group, 3);
	assert_int_equal(zone_group_grow(&group, 2, &error), -ENOSPC);
	assert_non_null(strstr(error.text, "guest web"));
	assert_int_equal(zone_group_grow(&group, UINT32_MAX, &error), -ENOSPC);
	assert_int_equal(group.count, 3);
	space.quota = 3; /* of everybody together */
	error.text[0] = 0;
	assert_int_equal(zone_group_grow(&group, 1, &error), -ENOSPC);
	assert_non_null(strstr(error.text, "guest web"));
	assert_int_equal(group.count, 3);
	space.quota = 4;
	grow(&group, 1);
	assert_int_equal(group.count, 4);
}

/* What the peer has not mapped it cannot be told to read; it may claim what it likes. */
static void pages_wait_for_the_peer(void **state)
{
	struct zone_group shown, other;
	uint32_t id;

	zone_group_init(&shown, &space, "shown", ZONE_READ_ONLY, 4);
	zone_group_init(&other, &space, "other", ZONE_READ_ONLY, 4);
	grow(&shown, 1);
	grow(&other, 1);
	id = zone_id(shown.zones);
	assert_null(zone_pages_get(&shown, 0));
	zone_group_mapped(&shown, 0);
	assert_null(zone_pages_get(&shown, 0));
	zone_group_mapped(&shown, UINT32_MAX);
	assert_int_equal(shown.mapped_id, id); /* no promise for zones to come */
	assert_non_null(zone_pages_get(&shown, ORDER_MAX));
	grow(&shown, 2);
	assert_null(zone_pages_get(&shown, 0));
	zone_group_mapped(&shown, id);
	zone_group_mapped(&shown, id + 1); /* the other's */
	assert_null(zone_pages_get(&shown, 0));
	zone_group_mapped(&shown, id + 2);
	assert_non_null(zone_pages_get(&shown, ORDER_MAX));
	assert_null(zone_pages_get(&shown, 0));
	zone_group_mapped(&shown, id + 3);
	zone_group_mapped(&shown, id); /* not taken back */
	assert_non_null(zone_pages_get(&shown, ORDER_MAX));
	assert_null(zone_pages_get(&other, 0));
	zone_group_fini(&shown);
	zone_group_fini(&other);
}

static void peers_reach_their_own_zones_only(void **state)
{
	struct zone_group web, db;
	uint32_t id;

	zone_group_init(&web, &space, "web", ZONE_WRITABLE, 2);
	zone_group_init(&db, &space, "db", ZONE_WRITABLE, 2);
	grow(&web, 1);
	grow(&db, 1);
	id = zone_id(web.zones);
	assert_ptr_equal(zone_group_at(&web, id, 5, 10), web.zones->base + 5);
	assert_ptr_equal(zone_group_at(&web, id, ZONE_SIZE - 1, 1),
			 web.zones->base + ZONE_SIZE - 1);
	assert_null(zone_group_at(&web, id, ZONE_SIZE - 1, 2));
	assert_null(zone_group_at(&web, id, UINT32_MAX, 2));
	assert_null(zone_group_at(&web, id, 2, UINT32_MAX));
	assert_null(zone_group_at(&db, id, 5, 10));
	assert_null(zone_group_at(&web, id + 1, 5, 10));
	assert_null(zone_group_at(&web, 0, 5, 10));
	assert_null(zone_group_at(&web, id + ZONES_MAX, 5, 10));
	assert_null(zone_group_at(&web, UINT32_MAX, 5, 10));
	zone_group_fini(&web);
	assert_null(zone_group_at(&web, id, 5, 10));
	assert_non_null(zone_group_at(&db, id + 1, 5, 10));
	zone_group_fini(&db);
}

static void freed_pages_stay_with_their_group(void **state)
{
	struct zone_group other;
	uint8_t *pages;

	zone_group_init(&other, &space, "other", ZONE_PRIVATE, 2);
	grow(&group, 1);
	grow(&other, 1);
	for (unsigned i = 0; i < ZONE_PAGES; i++)
		assert_non_null(zone_pages_get(&other, 0));
	pages = zone_pages_get(&group, 3);
	memset(pages, 0x11, PAGE);
	zone_pages_put(&group, pages, 3);
	assert_null(zone_pages_get(&other, 0)); /* whatever the others have */
	assert_ptr_equal(zone_pages_get(&group, 0), pages);
	zone_group_fini(&other);
}

static void whole_zones_go_back(void **state)
{
	uint8_t *low, *high;
	uint32_t id;

	grow(&group, 4);
	id = zone_id(group.zones);
	for (unsigned i = 0; i < ZONE_PAGES; i++)
		low = zone_pages_get(&group, 0);
	high = zone_pages_get(&group, 0);
	assert_int_equal(zone_id(zone_of(&space, high)), id + 1);
	/* two are free, one is to stay in reserve; of those in use none goes */
	assert_int_equal(zone_group_trim(&group, 3), 1);
	assert_null(zone_by_id(&space, id + 3));
	assert_non_null(zone_by_id(&space, id + 2));
	assert_int_equal(zone_group_trim(&group, 3), 0);
	assert_int_equal(zone_group_trim(&group, 0), 1);
	assert_int_equal(group.count, 2);
	assert_int_equal(space.count, 2);
	assert_int_equal(zone_group_trim(&group, 0), 0);

	/* What is used gathers below: a page taken while there are two goes to the lower. */
	zone_pages_put(&group, low, 0);
	assert_ptr_equal(zone_pages_get(&group, 0), low);
	zone_pages_put(&group, high, 0);
	assert_int_equal(zone_group_trim(&group, 0), 1);
	assert_null(zone_by_id(&space, id + 1));
	grow(&group, 1);
	assert_int_equal(zone_id(group.zones->next), id + 4);
	assert_int_equal(*(uint8_t *)zone_pages_get(&group, 0), 0);
}

static void zones_others_refer_to_stay(void **state)
{
	struct zone *zone;
	uint32_t id;

	grow(&group, 1);
	zone = group.zones;
	id = zone_id(zone);
	zone_get(zone); /* a socket's frames, say */
	assert_int_equal(zone_group_trim(&group, 0), 0);
	zone_group_fini(&group);
	assert_ptr_equal(zone_by_id(&space, id), zone);
	assert_null(zone_group_at(&group, id, 0, 1));
	assert_int_equal(zone_pages_put(&group, zone->base, 0), -EINVAL);
	zone->base[0] = 1;
	zone_put(&space, zone);
	assert_null(zone_by_id(&space, id));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(runs_of_each_order_fill_a_zone),
		TEST(holes_are_filled_where_they_fit),
		TEST(refuses_pages_that_are_not_out),
		TEST(keeps_what_it_gave),
		TEST(quotas_and_reasons),
		TEST(pages_wait_for_the_peer),
		TEST(peers_reach_their_own_zones_only),
		TEST(freed_pages_stay_with_their_group),
		TEST(whole_zones_go_back),
		TEST(zones_others_refer_to_stay),
	};

	return cmocka_run_group_tests_name("zone_group", tests, NULL, NULL);
}
