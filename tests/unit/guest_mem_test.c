/* SPDX-License-Identifier: BSD-3-Clause */
/* Guest memory: translation at every edge, and regions that must be refused. */
#include <dirent.h>
#include <errno.h>
#include <linux/memfd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "guest/guest_mem.h"

enum { PAGE = 4096 };

/* A memfd of size bytes whose byte at i * PAGE is first + i. */
static int file_of(uint64_t size, uint8_t first)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	for (uint64_t off = 0; off < size; off += PAGE, first++)
		assert_int_equal(pwrite(fd, &first, 1, off), 1);
	return fd;
}

static unsigned count_lines(const char *path, const char *needle)
{
	char line[512];
	unsigned count = 0;
	FILE *file = fopen(path, "r");

	while (fgets(line, sizeof(line), file))
		count += strstr(line, needle) != NULL;
	fclose(file);
	return count;
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* gpa 0x10000..0x12000 and, right after it, 0x12000..0x13000 of another file; 0x20000..0x21000
 * after a gap. */
static struct guest_mem *three_regions(void)
{
	struct guest_mem *mem = guest_mem_new();

	assert_non_null(mem);
	assert_int_equal(guest_mem_add(mem, 0x10000, 2 * PAGE, 0x7000000, 0, file_of(2 * PAGE, 1)),
			 0);
	assert_int_equal(
		guest_mem_add(mem, 0x12000, PAGE, 0x8000000, 3 * PAGE, file_of(4 * PAGE, 11)), 0);
	assert_int_equal(guest_mem_add(mem, 0x20000, PAGE, 0x9000000, 0, file_of(PAGE, 21)), 0);
	return mem;
}

static void translates_to_the_edges(void **state)
{
	struct guest_mem *mem = three_regions();
	volatile unsigned stale = 1000; /* volatile: the compiler would warn of what is tested */
	unsigned last = 0;
	uint64_t got = 0;
	uint8_t *at;

	at = guest_mem_at(mem, &last, 0x10000, 1, &got);
	assert_non_null(at);
	assert_int_equal(*at, 1);
	assert_int_equal(got, 1);
	at = guest_mem_at(mem, &last, 0x11000, PAGE, &got);
	assert_int_equal(*at, 2);
	assert_int_equal(got, PAGE);
	assert_ptr_equal(guest_mem_at(mem, &last, 0x11fff, 1, &got), at + PAGE - 1);
	assert_int_equal(last, 0);

	/* the next region, found by search; its offset in the file counts */
	at = guest_mem_at(mem, &last, 0x12000, PAGE, &got);
	assert_int_equal(*at, 11 + 3);
	assert_int_equal(last, 1);
	/* a stale guess beyond the table is no harm */
	last = stale;
	assert_int_equal(*(uint8_t *)guest_mem_at(mem, &last, 0x20000, 1, &got), 21);
	assert_int_equal(last, 2);
	guest_mem_free(mem);
}

static void splits_at_region_edges(void **state)
{
	struct guest_mem *mem = three_regions();
	uint64_t got = 0;
	uint8_t *at;

	for (unsigned guess = 0; guess < 4; guess++) {
		unsigned last = guess;

		/* 16 bytes, 6 of them in the first region, then 10 in the second */
		assert_non_null(guest_mem_at(mem, &last, 0x12000 - 6, 16, &got));
		assert_int_equal(got, 6);
		at = guest_mem_at(mem, &last, 0x12000, 10, &got);
		assert_int_equal(*at, 14);
		assert_int_equal(got, 10);
		/* into a gap */
		assert_non_null(guest_mem_at(mem, &last, 0x13000 - 1, 2, &got));
		assert_int_equal(got, 1);
	}
	guest_mem_free(mem);
}

static void refuses_what_is_not_memory(void **state)
{
	struct guest_mem *mem = three_regions();
	const uint64_t outside[] = { 0,       0xffff,     0x13000,          0x1ffff,
				     0x21000, UINT64_MAX, UINT64_MAX - PAGE };
	uint64_t got = 0;

	for (unsigned guess = 0; guess < 4; guess++) {
		for (unsigned i = 0; i < sizeof(outside) / sizeof(*outside); i++) {
			unsigned last = guess;

			assert_null(guest_mem_at(mem, &last, outside[i], 1, &got));
			assert_null(guest_mem_at(mem, &last, outside[i], UINT64_MAX, &got));
		}
	}
	guest_mem_free(mem);
}

static void bounds_lengths_that_wrap(void **state)
{
	struct guest_mem *mem = guest_mem_new();
	const uint64_t top = UINT64_MAX - 2 * PAGE + 1; /* the last page but one */
	unsigned last = 0;
	uint64_t got = 0;

	assert_int_equal(guest_mem_add(mem, top, PAGE, top, 0, file_of(PAGE, 1)), 0);
	assert_non_null(guest_mem_at(mem, &last, top, UINT64_MAX, &got));
	assert_int_equal(got, PAGE);
	assert_non_null(guest_mem_at(mem, &last, top + PAGE - 1, UINT64_MAX, &got));
	assert_int_equal(got, 1);
	assert_null(guest_mem_at(mem, &last, 0, 1, &got));
	assert_non_null(guest_mem_from_uva(mem, top, PAGE));
	assert_null(guest_mem_from_uva(mem, top, PAGE + 1));
	assert_null(guest_mem_from_uva(mem, top + 1, UINT64_MAX));
	assert_null(guest_mem_from_uva(mem, top + PAGE, 0));
	guest_mem_free(mem);
}

static void user_addresses_stay_in_one_region(void **state)
{
	struct guest_mem *mem = three_regions();
	uint8_t *first = guest_mem_from_uva(mem, 0x7000000, 2 * PAGE);

	assert_non_null(first);
	assert_ptr_equal(guest_mem_from_uva(mem, 0x7000000 + 2 * PAGE - 1, 1),
			 first + 2 * PAGE - 1);
	assert_null(guest_mem_from_uva(mem, 0x7000001, 2 * PAGE));
	assert_null(guest_mem_from_uva(mem, 0x7000000 + 2 * PAGE, 1));
	assert_null(guest_mem_from_uva(mem, 0x6ffffff, 1));
	guest_mem_free(mem);
}

static void refuses_bad_regions(void **state)
{
	static const struct {
		const char *what;
		uint64_t gpa, size, uva, offset;
	} bad[] = {
		{ "empty", 0x100000, 0, 0x100000, 0 },
		{ "gpa wraps", UINT64_MAX - PAGE + 1, 2 * PAGE, 0x100000, 0 },
		{ "gpa ends at 2^64", UINT64_MAX - PAGE + 1, PAGE, 0x100000, 0 },
		{ "uva wraps", 0x100000, 2 * PAGE, UINT64_MAX - PAGE + 1, 0 },
		{ "offset wraps", 0x100000, 2 * PAGE, 0x100000, UINT64_MAX - PAGE + 1 },
		{ "offset + size wrap to a small sum", 0x100000, UINT64_MAX - PAGE + 1, 0,
		  2 * PAGE },
		{ "gpa not aligned", 0x100001, PAGE, 0x100000, 0 },
		{ "size not aligned", 0x100000, 100, 0x100000, 0 },
		{ "uva not aligned", 0x100000, PAGE, 0x100010, 0 },
		{ "offset not aligned", 0x100000, PAGE, 0x100000, 512 },
		{ "file one page short", 0x100000, 5 * PAGE, 0x100000, 0 },
		{ "offset at the end of the file", 0x100000, PAGE, 0x100000, 4 * PAGE },
		{ "far beyond the file", 0x100000, UINT64_C(1) << 62, 0x100000, 0 },
		{ "gpa overlaps the start", 0xf000, 2 * PAGE, 0x100000, 0 },
		{ "gpa overlaps the end", 0x11000, PAGE, 0x100000, 0 },
		{ "gpa encloses", 0x1f000, 3 * PAGE, 0x100000, 0 },
		{ "gpa is the same", 0x20000, PAGE, 0x100000, 0 },
		{ "uva overlaps", 0x100000, 2 * PAGE, 0x7000000 - PAGE, 0 },
	};
	struct guest_mem *mem = three_regions();
	unsigned fds = count_fds();

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		int ret = guest_mem_add(mem, bad[i].gpa, bad[i].size, bad[i].uva, bad[i].offset,
					file_of(4 * PAGE, 1));

		if (ret != -EINVAL)
			fail_msg("%s: %d", bad[i].what, ret);
	}
	assert_int_equal(mem->count, 3);
	/* touching neighbours is no overlap */
	assert_int_equal(guest_mem_add(mem, 0x13000, PAGE, 0x8001000, 0, file_of(PAGE, 1)), 0);
	assert_int_equal(count_fds(), fds);
	guest_mem_free(mem);
}

static void refuses_files_without_a_size(void **state)
{
	struct guest_mem *mem = guest_mem_new();
	unsigned fds = count_fds();
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	close(ends[1]);
	assert_int_equal(guest_mem_add(mem, 0, PAGE, 0, 0, ends[0]), -EINVAL);
	assert_int_equal(guest_mem_add(mem, 0, PAGE, 0, 0, -1), -EBADF);
	assert_int_equal(count_fds(), fds);
	guest_mem_free(mem);
}

static void adding_the_same_again_is_no_error(void **state)
{
	struct guest_mem *mem = guest_mem_new();
	unsigned fds = count_fds();
	int fd = file_of(4 * PAGE, 1);

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(guest_mem_add(mem, 0x10000, PAGE, 0x20000, PAGE, dup(fd)), 0);
	assert_int_equal(mem->count, 1);
	/* the same place in another file, another place in the same file */
	assert_int_equal(guest_mem_add(mem, 0x10000, PAGE, 0x20000, PAGE, file_of(4 * PAGE, 1)),
			 -EINVAL);
	assert_int_equal(guest_mem_add(mem, 0x10000, PAGE, 0x20000, 0, dup(fd)), -EINVAL);
	assert_int_equal(mem->count, 1);
	close(fd);
	assert_int_equal(count_fds(), fds);
	guest_mem_free(mem);
	assert_int_equal(count_lines("/proc/self/maps", "memfd:guest"), 0);
}

static void bounds_the_number_of_regions(void **state)
{
	struct guest_mem *mem = guest_mem_new();

	for (uint64_t i = 0; i < GUEST_MEM_REGIONS_MAX; i++)
		assert_int_equal(guest_mem_add(mem, i * PAGE, PAGE, i * PAGE, 0, file_of(PAGE, 1)),
				 0);
	assert_int_equal(guest_mem_add(mem, 0x1000000, PAGE, 0x1000000, 0, file_of(PAGE, 1)),
			 -ENOSPC);
	guest_mem_free(mem);
}

static void clones_share_mappings(void **state)
{
	struct guest_mem *mem = three_regions(), *clone = guest_mem_clone(mem);
	uint8_t *at = guest_mem_from_uva(mem, 0x7000000, 1);

	assert_non_null(clone);
	assert_int_equal(count_lines("/proc/self/maps", "memfd:guest"), 3);
	assert_ptr_equal(guest_mem_from_uva(clone, 0x7000000, 1), at);
	assert_int_equal(guest_mem_remove(clone, 0x10000, PAGE, 0x7000000), -ENOENT);
	assert_int_equal(guest_mem_remove(clone, 0x10000, 2 * PAGE, 0x7000001), -ENOENT);
	assert_int_equal(guest_mem_remove(clone, 0x20000, PAGE, 0x9000000), 0);
	assert_int_equal(clone->count, 2);
	assert_int_equal(mem->count, 3);
	assert_int_equal(guest_mem_add(clone, 0x30000, PAGE, 0x30000, 0, file_of(PAGE, 1)), 0);
	assert_int_equal(count_lines("/proc/self/maps", "memfd:guest"), 4);

	/* the old table goes: what only it had is unmapped, the rest stays where it was */
	guest_mem_free(mem);
	assert_int_equal(count_lines("/proc/self/maps", "memfd:guest"), 3);
	assert_ptr_equal(guest_mem_from_uva(clone, 0x7000000, 1), at);
	assert_int_equal(*at, 1);
	assert_null(guest_mem_from_uva(clone, 0x9000000, 1));
	guest_mem_free(clone);
	assert_int_equal(count_lines("/proc/self/maps", "memfd:guest"), 0);
	guest_mem_free(NULL);
}

/* Without this no superpage can back the mapping. */
static void host_addresses_agree_with_offsets_modulo_2_mib(void **state)
{
	struct guest_mem *mem = guest_mem_new();
	const uint64_t offset = (2 << 20) + 5 * PAGE;
	int fd = memfd_create("guest", MFD_CLOEXEC);
	bool transparent = true;

	assert_int_equal(ftruncate(fd, 16 << 20), 0);
	assert_int_equal(guest_mem_add(mem, 0, 8 << 20, 0, offset, fd), 0);
	assert_int_equal((uintptr_t)mem->regions[0].host % (2 << 20), offset % (2 << 20));
	assert_int_equal(guest_region_page_size(&mem->regions[0], &transparent), PAGE);
	assert_false(transparent);
	memset(mem->regions[0].host, 1, mem->regions[0].size);
	assert_int_equal(guest_region_page_size(&mem->regions[0], &transparent),
			 transparent ? 2 << 20 : PAGE);
	guest_mem_free(mem);
}

static void maps_hugetlbfs_in_its_pages(void **state)
{
	struct guest_mem *mem = guest_mem_new();
	int fd = memfd_create("guest", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	bool transparent = true;
	int ret;

	if (fd < 0 || ftruncate(fd, 2 << 20))
		ret = -ENOMEM;
	else /* a region in the middle of a superpage, which the kernel only maps whole */
		ret = guest_mem_add(mem, 0x5000, 0x10000, 0x5000, 0x5000, fd);
	if (ret == 0) {
		assert_int_equal((uintptr_t)mem->regions[0].host % (2 << 20), 0x5000);
		assert_int_equal(guest_region_page_size(&mem->regions[0], &transparent), 2 << 20);
		assert_false(transparent);
		memset(mem->regions[0].host, 1, 0x10000);
	}
	guest_mem_free(mem);
	assert_int_equal(count_lines("/proc/self/maps", "memfd:guest"), 0);
	if (ret) {
		assert_int_equal(ret, -ENOMEM);
		skip(); /* no superpages reserved on this machine */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(translates_to_the_edges),
		cmocka_unit_test(splits_at_region_edges),
		cmocka_unit_test(refuses_what_is_not_memory),
		cmocka_unit_test(bounds_lengths_that_wrap),
		cmocka_unit_test(user_addresses_stay_in_one_region),
		cmocka_unit_test(refuses_bad_regions),
		cmocka_unit_test(refuses_files_without_a_size),
		cmocka_unit_test(adding_the_same_again_is_no_error),
		cmocka_unit_test(bounds_the_number_of_regions),
		cmocka_unit_test(clones_share_mappings),
		cmocka_unit_test(host_addresses_agree_with_offsets_modulo_2_mib),
		cmocka_unit_test(maps_hugetlbfs_in_its_pages),
	};

	return cmocka_run_group_tests_name("guest_mem", tests, NULL, NULL);
}
