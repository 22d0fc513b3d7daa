// SPDX-License-Identifier: BSD-3-Clause
/*
 * Guest memory as a weapon: tables that make no sense, and memory that goes away, by message or
 * without one, while rings in it are in use.
 */
#include "hostile.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

/* Fill the transmit ring with good frames, without telling. */
static void load(struct front *evil)
{
	unsigned len = good_gso_frame(evil, 30000);

	put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
	for (unsigned i = 0; i < front_tx(evil)->size; i++)
		front_push(front_tx(evil), 0);
	front_publish(front_tx(evil));
}

static void expect_refusal(struct front *evil, const struct vu_mem_table *table, unsigned fd_count,
			   const char *what)
{
	int fds[FRONT_REGIONS_MAX];

	for (unsigned i = 0; i < fd_count; i++)
		fds[i] = evil->memfd;
	unsigned count = table->count < FRONT_REGIONS_MAX ? table->count : FRONT_REGIONS_MAX;

	if (front_request(evil, VU_SET_MEM_TABLE, table, 8 + count * sizeof(struct vu_region), fds,
			  fd_count) == 0)
		broken_test("accepted: %s", what);
	if (evil->fault[0]) {
		struct front_config config = evil->config;

		front_close(evil);
		if (front_open(evil, &config))
			broken_test("evil: %s", evil->fault);
	}
}

static void bad_tables(struct front *evil, struct front *mate)
{
	const struct vu_region good = evil->regions[0];
	const struct vu_region lies[] = {
		{ good.gpa, 0, good.uva, 0 },
		{ good.gpa, good.size + 4096, good.uva, 0 },
		{ good.gpa, good.size, good.uva, 4096 },
		{ good.gpa, UINT64_MAX, good.uva, 0 },
		{ UINT64_MAX - 4095, good.size, good.uva, 0 },
		{ good.gpa, good.size, UINT64_MAX - 4095, 0 },
		{ good.gpa, good.size, good.uva, UINT64_MAX - 4095 },
		{ good.gpa, UINT64_MAX - 8191, good.uva, 8192 },
		{ good.gpa, 8192, good.uva, 5 },
		{ good.gpa, UINT64_C(1) << 47, good.uva, 0 },
		{ good.gpa, UINT64_C(1) << 63, good.uva, UINT64_C(1) << 63 },
	};
	struct vu_mem_table table = { .count = 1 };

	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		table.regions[0] = lies[i];
		expect_refusal(evil, &table, 1, "a region that cannot be");
	}
	table = (struct vu_mem_table){ .count = 2, .regions = { good, good } };
	table.regions[1].gpa += 4096;
	table.regions[1].uva += good.size;
	expect_refusal(evil, &table, 2, "overlapping regions");
	table.count = 1;
	expect_refusal(evil, &table, 2, "more descriptors than regions");
	table.count = 2;
	expect_refusal(evil, &table, 1, "fewer descriptors than regions");
	table.count = 0xffffffff;
	expect_refusal(evil, &table, 8, "4294967295 regions");
	table.count = 9;
	expect_refusal(evil, &table, 8, "9 regions in a message of 8");
}

/* More slots than there are, one at a time; then all of them away. */
static void slots(struct front *evil, struct front *mate)
{
	struct vu_mem_reg message = { 0 };
	unsigned added = 0;

	for (unsigned i = 0; i < 600; i++) {
		message.region = (struct vu_region){ UINT64_C(1) << 40 | i << 20, 4096,
						     UINT64_C(1) << 45 | i << 20, 0 };
		int ret = front_request(evil, VU_ADD_MEM_REG, &message, sizeof(message),
					&evil->memfd, 1);

		if (ret < 0)
			broken_test("evil: %s", evil->fault);
		added += ret == 0;
	}
	if (added < 8 || added > 512)
		broken_test("%u memory slots were accepted", added);
	for (unsigned i = 0; i < added; i++) {
		message.region = (struct vu_region){ UINT64_C(1) << 40 | i << 20, 4096,
						     UINT64_C(1) << 45 | i << 20, 0 };
		if (front_request(evil, VU_REM_MEM_REG, &message, sizeof(message), NULL, 0))
			broken_test("a slot could not be removed");
	}
}

/* Announce one page that nothing lies in, instead of the memory that the rings are in. */
static void forget_memory(struct front *evil)
{
	struct vu_mem_table table = { .count = 1 };

	table.regions[0] = (struct vu_region){ UINT64_C(1) << 40, 4096, UINT64_C(1) << 45, 0 };
	if (front_request(evil, VU_SET_MEM_TABLE, &table, 40, &evil->memfd, 1))
		broken_test("evil: %s", evil->fault);
}

static void removed(struct front *evil, struct front *mate)
{
	load(evil);
	front_force_kick(front_tx(evil));
	forget_memory(evil);
	mate_sends(mate, 100);
	front_force_kick(front_tx(evil));
	front_sleep_us(50000);
}

/* Away and back under traffic, many times; afterwards everything must work. */
static void removed_and_returned(struct front *evil, struct front *mate)
{
	for (unsigned i = 0; i < 100; i++) {
		load(evil);
		front_force_kick(front_tx(evil));
		forget_memory(evil);
		if (front_announce_memory(evil))
			broken_test("evil: %s", evil->fault);
		front_force_kick(front_tx(evil));
		if (!all_used(front_tx(evil), 2000))
			broken_test("the ring did not go on when its memory came back");
		mate_receives(mate);
	}
}

/* Only the region that frames are in goes; the rings stay. */
static void payload_removed(struct front *evil, struct front *mate)
{
	unsigned all = evil->region_count;

	load(evil);
	evil->region_count = 1;
	if (front_announce_memory(evil))
		broken_test("evil: %s", evil->fault);
	front_force_kick(front_tx(evil));
	mate_sends(mate, 100);
	evil->region_count = all;
}

/* Take the file's pages away behind vifd's back: the next access through any mapping is SIGBUS. */
static void truncate_to(struct front *evil, size_t len)
{
	if (ftruncate(evil->memfd, (off_t)len))
		broken_test("cannot truncate");
}

static void truncated(struct front *evil, struct front *mate)
{
	load(evil);
	truncate_to(evil, 0);
	front_force_kick(front_tx(evil));
	mate_sends(mate, 100);
	front_sleep_us(100000);
}

/* The rings stay, what the descriptors point to goes. */
static void payload_truncated(struct front *evil, struct front *mate)
{
	load(evil);
	truncate_to(evil, evil->regions[0].size);
	front_force_kick(front_tx(evil));
	mate_sends(mate, 100);
	front_sleep_us(100000);
}

/* Truncated and grown again without pause, under traffic. */
static _Atomic bool stop;

static void *truncate_thread(void *arg)
{
	struct front *evil = arg;

	while (!stop) {
		if (ftruncate(evil->memfd, (off_t)evil->regions[0].size) ||
		    ftruncate(evil->memfd, (off_t)evil->mem_len))
			break;
		front_sleep_us(50);
	}
	return NULL;
}

static void truncate_storm(struct front *evil, struct front *mate)
{
	struct front_ring *ring = front_tx(evil);
	uint64_t start_ns = front_now_ns();
	pthread_t thread;

	load(evil);
	pthread_create(&thread, NULL, truncate_thread, evil);
	while (time_left(start_ns, 2000)) {
		for (unsigned i = 0; i < 32; i++)
			front_push(ring, 0);
		front_publish(ring);
		front_force_kick(ring);
		mate_sends(mate, 10);
		mate_receives(mate);
	}
	stop = true;
	pthread_join(thread, NULL);
}

/* Holes are punched into it: pages of zeros come back. */
static void holes(struct front *evil, struct front *mate)
{
	for (unsigned i = 0; i < 50; i++) {
		load(evil);
		front_force_kick(front_tx(evil));
		if (fallocate(evil->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			      (off_t)evil->mem_len))
			broken_test("cannot punch a hole");
		mate_sends(mate, 10);
		revive(evil, front_tx(evil));
		revive(evil, front_rx(evil));
		mate_receives(mate);
	}
}

/* A file that may only be read. */
static void read_only(struct front *evil, struct front *mate)
{
	struct vu_mem_table table = { .count = 1, .regions[0] = evil->regions[0] };
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", evil->memfd);
	fd = open(path, O_RDONLY);
	if (front_request(evil, VU_SET_MEM_TABLE, &table, 40, &fd, 1) == 0)
		broken_test("read-only memory was accepted");
	close(fd);
}

const struct scenario memory_scenarios[] = {
	{ "memory-bad-tables", bad_tables },
	{ "memory-slots", slots },
	{ "memory-removed", removed },
	{ "memory-removed-and-returned", removed_and_returned },
	{ "memory-payload-removed", payload_removed, .regions = 3 },
	{ "memory-truncated", truncated },
	{ "memory-payload-truncated", payload_truncated, .regions = 3 },
	{ "memory-truncate-storm", truncate_storm, .regions = 3 },
	{ "memory-holes", holes },
	{ "memory-read-only", read_only },
	{ 0 },
};
