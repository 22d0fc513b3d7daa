/* SPDX-License-Identifier: BSD-3-Clause */
/* Zones: ids and addresses, what pages they are made of, and what those who got them can do. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_xdp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zones.h"

enum { PAGE = 4096, SUPERPAGE = 2 << 20 };

static struct zone *create(struct zone_space *space, unsigned count, enum zone_access access)
{
	struct error error = { "" };
	struct zone *zone = NULL;

	if (zones_create(space, count, access, &zone, &error))
		fail_msg("%s", error.text);
	return zone;
}

static int create_fails(struct zone_space *space, unsigned count)
{
	struct error error = { "" };
	struct zone *zone;
	int ret = zones_create(space, count, ZONE_PRIVATE, &zone, &error);

	assert_true(ret < 0 && error.text[0]);
	return ret;
}

/* ---- ids and addresses ---- */

static void addresses_lead_to_their_zone(void **state)
{
	struct zone_space space = space_of(4, ZONE_SMALL_PAGES);
	struct zone *a = create(&space, 1, ZONE_PRIVATE), *b = create(&space, 1, ZONE_PRIVATE);
	uint8_t *end = space.base + ((size_t)ZONES_MAX << ZONE_SHIFT);

	assert_int_equal((uintptr_t)a->base % ZONE_SIZE, 0);
	assert_ptr_equal(zone_of(&space, a->base), a);
	assert_ptr_equal(zone_of(&space, a->base + ZONE_SIZE - 1), a);
	assert_ptr_equal(zone_of(&space, b->base), b);
	assert_int_equal(zone_offset(b, b->base + 12345), 12345);
	/* reserved, but no zone */
	assert_null(zone_of(&space, a->base - 1));
	assert_null(zone_of(&space, b->base + ZONE_SIZE));
	assert_null(zone_of(&space, space.base));
	assert_null(zone_of(&space, end - 1));
	/* somewhere else */
	assert_null(zone_of(&space, end));
	assert_null(zone_of(&space, space.base - 1));
	assert_null(zone_of(&space, &space));
	assert_null(zone_of(&space, NULL));
	assert_null(zone_of(&space, (void *)UINTPTR_MAX));
	/* no more */
	zone_put(&space, a);
	assert_null(zone_of(&space, a->base));
	assert_ptr_equal(zone_of(&space, b->base), b);
	zone_space_fini(&space);
}

static void ids_lead_to_their_zone(void **state)
{
	struct zone_space space = space_of(4, ZONE_SMALL_PAGES);
	struct zone *zone = create(&space, 1, ZONE_PRIVATE);
	uint32_t id = zone_id(zone);

	assert_int_equal(id, 1);
	assert_ptr_equal(zone_by_id(&space, id), zone);
	assert_null(zone_by_id(&space, 0));
	assert_null(zone_by_id(&space, 2));
	assert_null(zone_by_id(&space, id + ZONES_MAX)); /* the same slot */
	assert_null(zone_by_id(&space, UINT32_MAX));
	zone_put(&space, zone);
	assert_null(zone_by_id(&space, id));
	zone_space_fini(&space);
}

static void offsets_are_checked(void **state)
{
	static const struct {
		uint32_t off, len;
		bool inside;
	} cases[] = {
		{ 0, 0, true },
		{ 0, ZONE_SIZE, true },
		{ 0, ZONE_SIZE + 1, false },
		{ ZONE_SIZE - 1, 1, true },
		{ ZONE_SIZE - 1, 2, false },
		{ ZONE_SIZE, 0, false },
		{ ZONE_SIZE, UINT32_MAX, false },
		{ 1, UINT32_MAX, false }, /* wraps to 0 */
		{ UINT32_MAX, 1, false },
		{ UINT32_MAX, UINT32_MAX, false },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		if (zone_holds(cases[i].off, cases[i].len) != cases[i].inside)
			fail_msg("%u, %u", cases[i].off, cases[i].len);
	}
}

static void ids_count_up_and_are_never_reused(void **state)
{
	struct zone_space space = space_of(3, ZONE_SMALL_PAGES);
	struct zone *stays = create(&space, 1, ZONE_PRIVATE);
	uint32_t last = zone_id(stays);

	/* around the table more than once: the slot of the one that stays is passed over */
	for (unsigned i = 0; i < 10; i++) {
		struct zone *zone = create(&space, 1, ZONE_PRIVATE);

		assert_true(zone_id(zone) > last);
		last = zone_id(zone);
		zone_put(&space, zone);
		assert_null(zone_by_id(&space, last));
		space.next_id += ZONES_MAX / 2 - 2;
	}
	assert_true(last > 4 * ZONES_MAX);
	space.next_id = 9 * ZONES_MAX + zone_id(stays);
	assert_int_equal(zone_id(create(&space, 1, ZONE_PRIVATE)),
			 9 * ZONES_MAX + zone_id(stays) + 1);
	assert_ptr_equal(zone_by_id(&space, zone_id(stays)), stays);
	zone_space_fini(&space);
}

static void ids_run_out_but_do_not_wrap(void **state)
{
	struct zone_space space = space_of(4, ZONE_SMALL_PAGES);

	space.next_id = UINT32_MAX - 2;
	assert_int_equal(create_fails(&space, 3), -ENOSPC);
	assert_int_equal(zone_id(create(&space, 1, ZONE_PRIVATE)), UINT32_MAX - 2);
	assert_int_equal(zone_id(create(&space, 1, ZONE_PRIVATE)), UINT32_MAX - 1);
	assert_int_equal(create_fails(&space, 1), -ENOSPC);
	zone_space_fini(&space);
}

/* As the frames of an AF_XDP socket have to be. */
static void several_come_in_a_row(void **state)
{
	struct zone_space space = space_of(8, ZONE_SMALL_PAGES);
	struct zone *first;

	create(&space, 1, ZONE_PRIVATE);
	first = create(&space, 3, ZONE_PRIVATE);
	assert_int_equal(space.count, 4);
	for (unsigned i = 0; i < 3; i++) {
		struct zone *zone = zone_by_id(&space, zone_id(first) + i);

		assert_non_null(zone);
		assert_ptr_equal(zone->base, first->base + (size_t)i * ZONE_SIZE);
		assert_int_equal(zone->refs, 1);
	}
	memset(first->base, 1, 3UL * ZONE_SIZE);
	/* no run reaches over the end of the addresses */
	space.next_id = 2 * ZONES_MAX - 2;
	first = create(&space, 3, ZONE_PRIVATE);
	assert_true(zone_id(first) % ZONES_MAX + 3 <= ZONES_MAX);
	memset(first->base, 1, 3UL * ZONE_SIZE);
	zone_space_fini(&space);
}

static void quotas_hold(void **state)
{
	struct zone_space space = space_of(3, ZONE_SMALL_PAGES);
	struct error error = { "" };
	struct zone *zone;

	assert_int_equal(create_fails(&space, 0), -ENOSPC);
	assert_int_equal(create_fails(&space, 4), -ENOSPC);
	zone = create(&space, 2, ZONE_PRIVATE);
	assert_int_equal(create_fails(&space, 2), -ENOSPC);
	assert_int_equal(create_fails(&space, UINT32_MAX), -ENOSPC);
	create(&space, 1, ZONE_PRIVATE);
	assert_int_equal(create_fails(&space, 1), -ENOSPC);
	zone_put(&space, zone);
	create(&space, 1, ZONE_PRIVATE);
	zone_space_fini(&space);
	assert_int_equal(zone_space_init(&space, 0, ZONE_HUGETLB, &error), -EINVAL);
	assert_int_equal(zone_space_init(&space, ZONES_MAX + 1, ZONE_HUGETLB, &error), -EINVAL);
	zone_space_fini(&space); /* of one that was never there */
}

static void references_keep_it(void **state)
{
	struct zone_space space = space_of(1, ZONE_SMALL_PAGES);
	struct zone *zone = create(&space, 1, ZONE_READ_ONLY);
	unsigned fds = count_fds();

	zone_get(zone);
	zone_put(&space, zone);
	zone->base[0] = 1;
	assert_int_equal(space.count, 1);
	assert_int_equal(count_fds(), fds);
	zone_put(&space, zone);
	assert_int_equal(space.count, 0);
	assert_int_equal(count_fds(), fds - 1);
	assert_int_equal(smaps_kib(zone->base, 1, "Rss"), 0);
	zone_space_fini(&space);
}

/* Halfway through a row the descriptors run out: nothing of it stays. */
static void failure_leaves_nothing(void **state)
{
	struct zone_space space = space_of(8, ZONE_SMALL_PAGES);
	unsigned fds = count_fds();
	struct rlimit before, few;
	int next = dup(0); /* the lowest that is free */

	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = (struct rlimit){ next + 2, before.rlim_max };
	for (unsigned i = 0; i < 3; i++) {
		struct error error = { "" };
		struct zone *zone;

		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		assert_int_equal(zones_create(&space, 4, ZONE_READ_ONLY, &zone, &error), -EMFILE);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
		assert_non_null(strstr(error.text, strerror(EMFILE)));
		assert_int_equal(space.count, 0);
		assert_int_equal(count_fds(), fds);
		assert_null(zone_by_id(&space, 1));
	}
	create(&space, 4, ZONE_READ_ONLY);
	zone_space_fini(&space);
	assert_int_equal(count_fds(), fds);
}

/* ---- pages ---- */

/* Whatever is asked for, what a zone says it is made of is what the kernel says. */
static void tells_what_pages_it_got(void **state)
{
	static unsigned char resident[ZONE_PAGES];

	for (enum zone_backing best = ZONE_SMALL_PAGES; best <= ZONE_HUGETLB; best++) {
		for (enum zone_access access = ZONE_PRIVATE; access <= ZONE_WRITABLE; access++) {
			struct zone_space space = space_of(1, best);
			struct zone *zone = create(&space, 1, access);
			bool hugetlb = smaps_kib(zone->base, 1, "KernelPageSize") > 4;
			unsigned long pmd = smaps_kib(zone->base, 1, "ShmemPmdMapped");

			assert_true(zone->backing <= best);
			assert_int_equal(zone->backing == ZONE_HUGETLB, hugetlb);
			assert_int_equal(pmd, zone->backing == ZONE_TRANSPARENT ? 4096 : 0);
			if (access == ZONE_WRITABLE)
				assert_false(hugetlb);
			assert_int_equal(mincore(zone->base, ZONE_SIZE, resident), 0);
			for (unsigned i = 0; i < ZONE_PAGES; i++)
				assert_int_equal(resident[i] & 1, 1);
			for (unsigned i = 0; i < ZONE_SIZE; i += 64)
				assert_int_equal(zone->base[i], 0);
			print_message("wanted %s, got %s\n", zone_backing_name(best),
				      zone_backing_name(zone->backing));
			zone_space_fini(&space);
		}
	}
}

/* An AF_XDP socket takes a row of zones as its frames (they are pinned, and written by the kernel),
 * sealed against everybody else as they are. */
static void zones_can_be_an_umem(void **state)
{
	for (enum zone_backing best = ZONE_SMALL_PAGES; best <= ZONE_HUGETLB; best++) {
		struct zone_space space = space_of(2, best);
		struct zone *first = create(&space, 2, ZONE_READ_ONLY);
		struct xdp_umem_reg umem = {
			.addr = (uintptr_t)first->base,
			.len = 2UL * ZONE_SIZE,
			.chunk_size = 2048,
		};
		int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);

		if (fd < 0) {
			zone_space_fini(&space);
			skip(); /* no privilege, or no AF_XDP in this kernel */
		}
		assert_int_equal(setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof(umem)), 0);
		close(fd);
		zone_space_fini(&space);
	}
}

/* ---- what others can do ---- */

static void *map(int fd, int protection)
{
	return mmap(NULL, ZONE_SIZE, protection, MAP_SHARED, fd, 0);
}

/* The same file through /proc, which asks for permissions only. */
static int reopen(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags);
}

static bool punches(int fd)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SUPERPAGE) == 0;
}

/* Nobody who has fd can write to what lies in the file, or take it away. */
static void assert_not_writable(int fd)
{
	uint8_t *at = map(fd, PROT_READ);

	assert_true(at != MAP_FAILED);
	assert_true(map(fd, PROT_READ | PROT_WRITE) == MAP_FAILED);
	assert_true(mprotect(at, ZONE_SIZE, PROT_READ | PROT_WRITE) < 0);
	assert_true(madvise(at, ZONE_SIZE, MADV_REMOVE) < 0);
	assert_true(pwrite(fd, "x", 1, 0) < 0);
	assert_false(punches(fd));
	assert_true(ftruncate(fd, 0) < 0);
	assert_true(ftruncate(fd, PAGE) < 0);
	assert_true(ftruncate(fd, 2 * ZONE_SIZE) < 0);
	assert_true(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
	munmap(at, ZONE_SIZE);
}

static void readers_cannot_write(void **state)
{
	for (enum zone_backing best = ZONE_SMALL_PAGES; best <= ZONE_HUGETLB; best++) {
		struct zone_space space = space_of(1, best);
		struct zone *zone = create(&space, 1, ZONE_READ_ONLY);
		int fd = zone_open(zone, false), again;
		uint8_t *at = map(fd, PROT_READ);

		memset(zone->base, 0x5a, ZONE_SIZE);
		assert_true(fd >= 0 && at != MAP_FAILED);
		assert_int_equal(zone_open(zone, true), -EPERM);
		assert_not_writable(fd);
		/* Its owner may make it writable as a file, and open it so: */
		fchmod(fd, 0777);
		again = reopen(fd, O_RDWR);
		if (again >= 0) {
			assert_not_writable(again);
			close(again);
		}
		assert_true(reopen(fd, O_RDWR | O_TRUNC) < 0);
		for (unsigned i = 0; i < ZONE_SIZE; i++)
			assert_int_equal(at[i], 0x5a);
		/* and we still can */
		zone->base[ZONE_SIZE - 1] = 1;
		assert_int_equal(at[ZONE_SIZE - 1], 1);
		munmap(at, ZONE_SIZE);
		close(fd);
		zone_space_fini(&space);
	}
}

static void writers_cannot_shrink_it(void **state)
{
	struct zone_space space = space_of(1, ZONE_HUGETLB);
	struct zone *zone = create(&space, 1, ZONE_WRITABLE);
	int fd = zone_open(zone, true);
	uint8_t *at = map(fd, PROT_READ | PROT_WRITE);

	assert_true(fd >= 0 && at != MAP_FAILED);
	at[5] = 7;
	assert_int_equal(zone->base[5], 7);
	zone->base[ZONE_SIZE - 1] = 8;
	assert_int_equal(at[ZONE_SIZE - 1], 8);
	assert_true(ftruncate(fd, 0) < 0);
	assert_true(reopen(fd, O_RDWR | O_TRUNC) < 0);
	/* no seals of its own, with which it could get in our way */
	assert_true(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0);
	/* it can punch holes: then there are zeros, not SIGBUS */
	assert_true(punches(fd));
	assert_int_equal(zone->base[5], 0);
	zone->base[5] = 9;
	assert_int_equal(at[5], 9);
	assert_int_equal(zone->base[ZONE_SIZE - 1], 8);
	munmap(at, ZONE_SIZE);
	close(fd);
	zone_space_fini(&space);
}

/* A descriptor opened for reading alone would not do where domains are hostile: that is why zones
 * that are read are sealed. */
static void read_only_descriptors_are_for_the_honest(void **state)
{
	struct zone_space space = space_of(1, ZONE_SMALL_PAGES);
	struct zone *zone = create(&space, 1, ZONE_WRITABLE);
	int fd = zone_open(zone, false), again;
	void *at = map(fd, PROT_READ);

	assert_true(fd >= 0 && at != MAP_FAILED);
	assert_true(map(fd, PROT_READ | PROT_WRITE) == MAP_FAILED);
	assert_true(mprotect(at, ZONE_SIZE, PROT_READ | PROT_WRITE) < 0);
	assert_false(punches(fd));
	again = reopen(fd, O_RDWR);
	assert_true(again >= 0);
	assert_true(pwrite(again, "x", 1, 0) == 1);
	munmap(at, ZONE_SIZE);
	close(again);
	close(fd);
	zone_space_fini(&space);
}

static void private_zones_are_not_shown(void **state)
{
	struct zone_space space = space_of(2, ZONE_HUGETLB);
	unsigned fds = count_fds();
	struct zone *zone = create(&space, 1, ZONE_PRIVATE);

	assert_int_equal(count_fds(), fds);
	assert_int_equal(zone_open(zone, false), -EPERM);
	assert_int_equal(zone_open(zone, true), -EPERM);
	zone = create(&space, 1, ZONE_READ_ONLY);
	zone_hide(zone);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(zone_open(zone, false), -EPERM);
	zone->base[0] = 1; /* still ours */
	zone_space_fini(&space);
}

/* Who wrote to a zone and keeps its descriptor and its mapping keeps no memory. */
static void writers_give_the_memory_back(void **state)
{
	struct zone_space space = space_of(1, ZONE_HUGETLB);
	struct zone *zone = create(&space, 1, ZONE_WRITABLE);
	int fd = zone_open(zone, true);
	uint8_t *at = map(fd, PROT_READ | PROT_WRITE);
	struct stat st;

	at[0] = 1;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks * 512, ZONE_SIZE);
	zone_put(&space, zone);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(at[0], 0);
	munmap(at, ZONE_SIZE);
	close(fd);
	zone_space_fini(&space);
}

/* ---- the other end ---- */

static void is_imported_under_its_id(void **state)
{
	for (enum zone_backing best = ZONE_SMALL_PAGES; best <= ZONE_HUGETLB; best++) {
		struct zone_space back = space_of(ZONES_MAX, best), front = space_of(2, best);
		struct zone *ours, *read = NULL, *written = NULL;
		struct error error = { "" };
		unsigned fds;

		back.next_id = 7 * ZONES_MAX + 3;
		ours = create(&back, 1, ZONE_READ_ONLY);
		create(&back, 1, ZONE_WRITABLE);
		fds = count_fds();
		assert_int_equal(zone_import(&front, zone_id(ours), zone_open(ours, false), false,
					     &read, &error),
				 0);
		assert_int_equal(zone_import(&front, zone_id(ours) + 1, zone_open(ours + 1, true),
					     true, &written, &error),
				 0);
		assert_int_equal(count_fds(), fds);
		assert_ptr_equal(zone_by_id(&front, zone_id(ours)), read);
		assert_ptr_equal(zone_of(&front, written->base + 1), written);

		ours->base[100] = 42;
		written->base[200] = 43;
		assert_int_equal(read->base[100], 42);
		assert_int_equal(ours[1].base[200], 43);
		assert_int_equal(zone_open(read, false), -EPERM);
		assert_true(mprotect(read->base, ZONE_SIZE, PROT_READ | PROT_WRITE) < 0);
		if (ours->backing == ZONE_TRANSPARENT)
			assert_int_equal(smaps_kib(read->base, 1, "ShmemPmdMapped"), 4096);

		/* The creator goes first: what was received can still be read. */
		zone_space_fini(&back);
		assert_int_equal(read->base[100], 42);
		zone_put(&front, read);
		assert_null(zone_by_id(&front, 7 * ZONES_MAX + 3));
		zone_space_fini(&front);
	}
}

/* A memfd of size bytes with these seals. */
static int file_of(size_t size, int seals)
{
	int fd = memfd_create("not a zone", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void refuses_to_import_what_is_no_zone(void **state)
{
	struct zone_space front = space_of(2, ZONE_SMALL_PAGES);
	unsigned fds = count_fds();
	struct error error;
	struct zone *zone;
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	close(ends[1]);
	assert_int_equal(zone_import(&front, 1, ends[0], false, &zone, &error), -EINVAL);
	assert_int_equal(zone_import(&front, 1, file_of(ZONE_SIZE - PAGE, F_SEAL_SHRINK), false,
				     &zone, &error),
			 -EINVAL);
	assert_int_equal(
		zone_import(&front, 1, file_of(2 * ZONE_SIZE, F_SEAL_SHRINK), false, &zone, &error),
		-EINVAL);
	assert_int_equal(
		zone_import(&front, 1, file_of(ZONE_SIZE, F_SEAL_GROW), false, &zone, &error),
		-EINVAL);
	assert_int_equal(zone_import(&front, 1, -1, false, &zone, &error), -EINVAL);
	assert_int_equal(
		zone_import(&front, 0, file_of(ZONE_SIZE, F_SEAL_SHRINK), false, &zone, &error),
		-EINVAL);
	assert_int_equal(
		zone_import(&front, 5, file_of(ZONE_SIZE, F_SEAL_SHRINK), false, &zone, &error), 0);
	assert_int_equal(
		zone_import(&front, 5, file_of(ZONE_SIZE, F_SEAL_SHRINK), false, &zone, &error),
		-EEXIST);
	assert_int_equal(zone_import(&front, 5 + ZONES_MAX, file_of(ZONE_SIZE, F_SEAL_SHRINK),
				     false, &zone, &error),
			 -EEXIST);
	assert_int_equal(
		zone_import(&front, 6, file_of(ZONE_SIZE, F_SEAL_SHRINK), false, &zone, &error), 0);
	assert_int_equal(
		zone_import(&front, 7, file_of(ZONE_SIZE, F_SEAL_SHRINK), false, &zone, &error),
		-ENOSPC);
	assert_non_null(strstr(error.text, "zone 7"));
	zone_space_fini(&front);
	assert_int_equal(count_fds(), fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_lead_to_their_zone),
		cmocka_unit_test(ids_lead_to_their_zone),
		cmocka_unit_test(offsets_are_checked),
		cmocka_unit_test(ids_count_up_and_are_never_reused),
		cmocka_unit_test(ids_run_out_but_do_not_wrap),
		cmocka_unit_test(several_come_in_a_row),
		cmocka_unit_test(quotas_hold),
		cmocka_unit_test(references_keep_it),
		cmocka_unit_test(failure_leaves_nothing),
		cmocka_unit_test(tells_what_pages_it_got),
		cmocka_unit_test(zones_can_be_an_umem),
		cmocka_unit_test(readers_cannot_write),
		cmocka_unit_test(writers_cannot_shrink_it),
		cmocka_unit_test(read_only_descriptors_are_for_the_honest),
		cmocka_unit_test(private_zones_are_not_shown),
		cmocka_unit_test(writers_give_the_memory_back),
		cmocka_unit_test(is_imported_under_its_id),
		cmocka_unit_test(refuses_to_import_what_is_no_zone),
	};

	return cmocka_run_group_tests_name("zone", tests, NULL, NULL);
}
