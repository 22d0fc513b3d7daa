/* SPDX-License-Identifier: BSD-3-Clause */
/* The forwarding table: learn, move, age, static entries, fair eviction, concurrent readers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "bridge/mac_table.h"

static struct mac_table table;

static int set_up(void **state)
{
	return mac_table_init(&table, 64);
}

static int tear_down(void **state)
{
	mac_table_fini(&table);
	return 0;
}

/* The n-th address of an owner. */
static const uint8_t *mac_of(unsigned owner, unsigned n)
{
	static __thread uint8_t macs[8][6];
	static __thread unsigned next;
	uint8_t *mac = macs[next++ % 8];

	mac[0] = 0x52;
	mac[1] = owner;
	mac[2] = n >> 24;
	mac[3] = n >> 16;
	mac[4] = n >> 8;
	mac[5] = n;
	return mac;
}

static unsigned owned(uint16_t port)
{
	struct mac_row row;
	unsigned position = 0, count = 0;

	while (mac_table_list(&table, &position, &row, 1, 0))
		count += row.port == port && !row.is_static;
	assert_int_equal(count, table.per_port[port]);
	return count;
}

static void test_sizes(void **state)
{
	static const struct {
		unsigned asked, got;
	} sizes[] = { { 0, 8192 }, { 1, 64 },      { 64, 64 },
		      { 65, 128 }, { 8192, 8192 }, { UINT32_MAX, 1 << 20 } };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct mac_table sized;

		assert_int_equal(mac_table_init(&sized, sizes[i].asked), 0);
		assert_int_equal(mac_table_size(&sized), sizes[i].got);
		mac_table_fini(&sized);
	}
}

static void test_learns_and_finds(void **state)
{
	uint32_t generation = table.generation;

	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 100, 300), 0);
	assert_int_equal(mac_table_learn(&table, mac_of(1, 1), 7, 100), MAC_NEW);
	assert_int_not_equal(table.generation, generation);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 100, 300), 7);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 2), 100, 300), 0);
	assert_int_equal(table.used, 1);
	assert_int_equal(table.learned, 1);
}

static void test_refresh_changes_no_generation(void **state)
{
	mac_table_learn(&table, mac_of(1, 1), 7, 100);
	uint32_t generation = table.generation;

	assert_int_equal(mac_table_learn(&table, mac_of(1, 1), 7, 200), MAC_KNOWN);
	assert_int_equal(table.generation, generation);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 450, 300), 7);
}

static void test_station_moves(void **state)
{
	mac_table_learn(&table, mac_of(1, 1), 7, 100);
	uint32_t generation = table.generation;

	assert_int_equal(mac_table_learn(&table, mac_of(1, 1), 9, 101), MAC_MOVED);
	assert_int_not_equal(table.generation, generation);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 101, 300), 9);
	assert_int_equal(owned(7), 0);
	assert_int_equal(owned(9), 1);
	assert_int_equal(table.moved, 1);
}

static void test_ages(void **state)
{
	mac_table_learn(&table, mac_of(1, 1), 7, 100);
	mac_table_learn(&table, mac_of(1, 2), 7, 150);
	mac_table_add_static(&table, mac_of(1, 3), 7);

	/* Too old for a look-up also before it has been swept out. */
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 400, 300), 7);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 401, 300), 0);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 401, 0), 7);
	/* A worker whose clock is a tick behind. */
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 99, 300), 7);

	mac_table_age(&table, 99, 300);
	mac_table_age(&table, 5000, 0);
	assert_int_equal(table.used, 3);
	mac_table_age(&table, 401, 300);
	assert_int_equal(table.used, 2);
	assert_int_equal(table.aged, 1);
	mac_table_age(&table, 100000, 300);
	assert_int_equal(table.used, 1);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 3), 100000, 300), 7);
}

static void test_static_entries_stay(void **state)
{
	mac_table_learn(&table, mac_of(1, 1), 7, 100);
	assert_int_equal(mac_table_add_static(&table, mac_of(1, 1), 8), 0);
	assert_int_equal(table.used, 1);
	assert_int_equal(owned(7), 0);
	assert_int_equal(mac_table_add_static(&table, mac_of(1, 1), 8), 0);
	assert_int_equal(mac_table_add_static(&table, mac_of(1, 1), 7), -EEXIST);
	assert_int_equal(mac_table_learn(&table, mac_of(1, 1), 7, 101), MAC_REFUSED);
	assert_int_equal(mac_table_learn(&table, mac_of(1, 1), 8, 101), MAC_KNOWN);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 101, 300), 8);
	assert_int_equal(table.refused, 1);

	/* A flood does not evict it. */
	for (unsigned i = 0; i < 10000; i++)
		mac_table_learn(&table, mac_of(2, i), 9, 102);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 102, 300), 8);

	assert_int_equal(mac_table_delete(&table, mac_of(1, 1)), 0);
	assert_int_equal(mac_table_delete(&table, mac_of(1, 1)), -ENOENT);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 102, 300), 0);
}

static void test_full_of_static_entries(void **state)
{
	unsigned refused = 0;

	for (unsigned i = 0; i < 1000; i++)
		refused += mac_table_add_static(&table, mac_of(1, i), 7) == -ENOSPC;
	assert_int_equal(table.used, 64);
	assert_int_equal(refused, 1000 - 64);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(mac_table_learn(&table, mac_of(2, i), 8, 1), MAC_REFUSED);
	assert_int_equal(table.used, 64);
}

static void test_static_entry_finds_a_place_in_a_full_table(void **state)
{
	for (unsigned i = 0; i < 10000; i++)
		mac_table_learn(&table, mac_of(2, i), 9, 1);
	assert_int_equal(table.used, 64);
	assert_int_equal(mac_table_add_static(&table, mac_of(1, 1), 7), 0);
	assert_int_equal(table.used, 64);
	assert_int_equal(mac_table_lookup(&table, mac_of(1, 1), 1, 0), 7);
}

static void test_forgets_a_port(void **state)
{
	for (unsigned i = 0; i < 5; i++)
		mac_table_learn(&table, mac_of(1, i), 7, 1);
	mac_table_learn(&table, mac_of(2, 0), 8, 1);
	mac_table_add_static(&table, mac_of(1, 9), 7);
	mac_table_forget_port(&table, 7);
	assert_int_equal(table.used, 1);
	assert_int_equal(owned(7), 0);
	assert_int_equal(mac_table_lookup(&table, mac_of(2, 0), 1, 0), 8);
}

static void test_lists_every_entry_once(void **state)
{
	struct mac_row rows[5];
	unsigned position = 0, got, total = 0, statics = 0;
	bool seen[20] = { false };

	for (unsigned i = 0; i < 20; i++) {
		if (i % 5)
			mac_table_learn(&table, mac_of(3, i), 3, 10 + i);
		else
			mac_table_add_static(&table, mac_of(3, i), 3);
	}
	while ((got = mac_table_list(&table, &position, rows, 5, 40))) {
		for (unsigned i = 0; i < got; i++) {
			unsigned n = rows[i].mac[5];

			assert_in_range(n, 0, 19);
			assert_memory_equal(rows[i].mac, mac_of(3, n), 6);
			assert_false(seen[n]);
			seen[n] = true;
			assert_int_equal(rows[i].port, 3);
			assert_int_equal(rows[i].is_static, n % 5 == 0);
			assert_int_equal(rows[i].age_sec, n % 5 ? 30 - n : 0);
			statics += rows[i].is_static;
		}
		total += got;
	}
	assert_int_equal(total, 20);
	assert_int_equal(statics, 4);
}

/* A guest that floods takes what is free, and nothing from ports that own less. */
static void test_flood_evicts_only_the_flooder(void **state)
{
	uint8_t victims[8][6];

	for (unsigned i = 0; i < 8; i++) {
		memcpy(victims[i], mac_of(1, i), 6);
		assert_int_equal(mac_table_learn(&table, victims[i], 10 + i, 1), MAC_NEW);
	}
	for (unsigned i = 0; i < 100000; i++)
		mac_table_learn(&table, mac_of(2, i), 99, 2 + i / 1000);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(mac_table_lookup(&table, victims[i], 2, 0), 10 + i);
	assert_int_equal(owned(99), 64 - 8);
	assert_true(table.evicted > 0);
}

/* ... and gives way to newcomers of ports that own less. */
static void test_flooder_gives_way(void **state)
{
	for (unsigned i = 0; i < 100000; i++)
		mac_table_learn(&table, mac_of(2, i), 99, 1);
	assert_int_equal(owned(99), 64);
	for (unsigned i = 0; i < MAC_TABLE_WAYS; i++) {
		assert_int_equal(mac_table_learn(&table, mac_of(1, i), 10 + i, 1), MAC_NEW);
		assert_int_equal(mac_table_lookup(&table, mac_of(1, i), 1, 0), 10 + i);
	}
	for (unsigned i = 0; i < 100000; i++)
		mac_table_learn(&table, mac_of(2, i), 99, 2);
	for (unsigned i = 0; i < MAC_TABLE_WAYS; i++)
		assert_int_equal(mac_table_lookup(&table, mac_of(1, i), 2, 0), 10 + i);
}

/* Sets where the flooder has no entry and owns more than those who have: refused. */
static void test_flooder_is_refused_where_it_owns_nothing(void **state)
{
	unsigned left = 0;

	/* Many ports that own one address at most fill the table. */
	for (unsigned i = 0; i < 500; i++)
		mac_table_learn(&table, mac_of(1, i), 100 + i, 1);
	assert_int_equal(table.used, 64);
	for (unsigned i = 0; i < 10000; i++)
		mac_table_learn(&table, mac_of(2, i), 99, 2);
	for (unsigned i = 0; i < 500; i++)
		left += owned(100 + i);
	/* The flooder was an owner like any other until it owned two. */
	assert_int_equal(left, 62);
	assert_int_equal(owned(99), 2);
	assert_true(table.refused > 0);
}

/* Addresses that count up, as those of a host's guests do, spread over the sets. */
static void test_spreads_consecutive_addresses(void **state)
{
	struct mac_table large;
	unsigned most = 0;

	assert_int_equal(mac_table_init(&large, 1024), 0);
	for (unsigned i = 0; i < 256; i++)
		mac_table_learn(&large, mac_of(1, i), 1, 1);
	/* Two in a set on average; the chance of more than eight somewhere is one in thousands. */
	for (unsigned set = 0; set <= large.set_mask; set++) {
		unsigned in_set = 0;

		for (unsigned way = 0; way < MAC_TABLE_WAYS; way++)
			in_set += large.sets[set].entries[way] != 0;
		most = in_set > most ? in_set : most;
	}
	assert_in_range(large.used, 250, 256);
	assert_in_range(most, 3, 8);
	mac_table_fini(&large);
}

/* Of the victim port's entries in a set the oldest goes. */
static void test_oldest_goes_first(void **state)
{
	uint8_t in_set[9][6];
	unsigned found = 0;

	/* Nine addresses of one set: each learned in an empty table shows where it goes. */
	for (unsigned i = 0; found < 9; i++) {
		struct mac_table probe = table;
		struct mac_set sets[8] = { 0 };
		struct mac_stamps stamps[8] = { 0 };
		unsigned set = 0;

		probe.sets = sets;
		probe.stamps = stamps;
		mac_table_learn(&probe, mac_of(5, i), 1, 1);
		while (!sets[set].entries[0])
			set++;
		if (set == 3)
			memcpy(in_set[found++], mac_of(5, i), 6);
	}
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(mac_table_learn(&table, in_set[i], 1, 100 + (i + 3) % 8), MAC_NEW);
	assert_int_equal(mac_table_learn(&table, in_set[8], 1, 200),
			 MAC_NEW); /* evicts in_set[5], seen at 100 */
	for (unsigned i = 0; i < 9; i++)
		assert_int_equal(mac_table_lookup(&table, in_set[i], 200, 0), i == 5 ? 0 : 1);
	assert_int_equal(table.evicted, 1);
}

enum { STRESS_ADDRESSES = 4096, STRESS_ROUNDS = 40 };

/* Address n belongs to port 1 + n % 1000, always. */
static void *stress_writer(void *arg)
{
	unsigned from = *(unsigned *)arg;

	for (unsigned round = 0; round < STRESS_ROUNDS; round++) {
		for (unsigned n = from; n < STRESS_ADDRESSES; n += 2) {
			mac_table_learn(&table, mac_of(6, n), 1 + n % 1000, round);
			if (n % 7 == 0)
				mac_table_delete(&table, mac_of(6, n));
		}
	}
	return NULL;
}

static _Atomic bool stress_over;

static void *stress_reader(void *arg)
{
	uintptr_t wrong = 0;

	while (!stress_over) {
		for (unsigned n = 0; n < STRESS_ADDRESSES; n++) {
			uint16_t port = mac_table_lookup(&table, mac_of(6, n), 0, 0);

			wrong += port != 0 && port != 1 + n % 1000;
		}
	}
	return (void *)wrong;
}

/* A reader never finds an address with another's port, however entries are replaced under it. */
static void test_readers_beside_writers(void **state)
{
	pthread_t writers[2], reader;
	unsigned from[2] = { 0, 1 };
	void *wrong;

	stress_over = false;
	pthread_create(&reader, NULL, stress_reader, NULL);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&writers[i], NULL, stress_writer, &from[i]);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(writers[i], NULL);
	stress_over = true;
	pthread_join(reader, &wrong);
	assert_null(wrong);

	unsigned used = 0;

	for (unsigned port = 1; port <= 1000; port++)
		used += owned(port);
	assert_int_equal(used, table.used);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_sizes),
		TEST(test_learns_and_finds),
		TEST(test_refresh_changes_no_generation),
		TEST(test_station_moves),
		TEST(test_ages),
		TEST(test_static_entries_stay),
		TEST(test_full_of_static_entries),
		TEST(test_static_entry_finds_a_place_in_a_full_table),
		TEST(test_forgets_a_port),
		TEST(test_lists_every_entry_once),
		TEST(test_flood_evicts_only_the_flooder),
		TEST(test_flooder_gives_way),
		TEST(test_flooder_is_refused_where_it_owns_nothing),
		TEST(test_spreads_consecutive_addresses),
		TEST(test_oldest_goes_first),
		TEST(test_readers_beside_writers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
