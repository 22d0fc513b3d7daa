/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * That grouping keeps superpages whole (M16): superpages.h, and what the kernel makes of it: such memory
 * on transparent superpages, the restricted pages made read-only, and how much of it is still mapped
 * in superpages.
 */
#include "superpages.h"

#include <sys/mman.h>

#include "zones.h"

static void grouping_keeps_superpages_whole(void **state)
{
	for (unsigned i = 0; i < sizeof(workloads) / sizeof(*workloads); i++) {
		struct outcome outcomes[3];

		print_message("%s, %u superpages, %u pages in use\n", workloads[i].name, SUPERPAGES,
			      LIVE);
		for (enum policy policy = RANDOM; policy <= GROUPED; policy++) {
			run(&workloads[i], policy, 0);
			outcomes[policy] = judge();
			print_message(
				"    %-8s %2u superpages in use, %2u whole; %4u TLB entries\n",
				policies[policy], outcomes[policy].used, outcomes[policy].whole,
				outcomes[policy].entries);
		}
		assert_int_equal(outcomes[GROUPED].whole, outcomes[GROUPED].used);
		assert_int_equal(outcomes[GROUPED].entries, outcomes[GROUPED].used);
		assert_true(outcomes[RANDOM].whole * 4 < outcomes[GROUPED].whole);
		assert_true(outcomes[RANDOM].entries > 50 * outcomes[GROUPED].entries);
		assert_true(outcomes[LOWEST].entries > 50 * outcomes[GROUPED].entries);
	}
}

/* ---- what the kernel makes of it ---- */

/* Restricted pages become read-only: with the superpage they lie in if that is theirs alone. */
static void restrict_pages(uint8_t *at)
{
	for (unsigned i = 0; i < PAGES; i++) {
		unsigned superpage = i / PAGES_PER_SUPERPAGE, used;
		bool alone = kind_of_superpage(superpage, &used) == RESTRICTED + 1;

		if (alone && i % PAGES_PER_SUPERPAGE == 0)
			assert_int_equal(mprotect(at + (size_t)i * PAGE, SUPERPAGE, PROT_READ), 0);
		else if (!alone && kind_of[i] == RESTRICTED + 1)
			assert_int_equal(mprotect(at + (size_t)i * PAGE, PAGE, PROT_READ), 0);
	}
}

static void the_kernel_agrees(void **state)
{
	const size_t len = (size_t)PAGES * PAGE;
	unsigned long whole[3];

	for (enum policy policy = RANDOM; policy <= GROUPED; policy++) {
		uint8_t *reserved = mmap(NULL, len + SUPERPAGE, PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		uint8_t *at = reserved + (-(uintptr_t)reserved & (SUPERPAGE - 1));

		assert_true(reserved != MAP_FAILED);
		madvise(at, len, MADV_HUGEPAGE);
		memset(at, 1, len);
		if (smaps_kib(at, len, "AnonHugePages") < len >> 10) {
			munmap(reserved, len + SUPERPAGE);
			print_message("no transparent superpages on this machine\n");
			skip();
		}
		run(&workloads[1], policy, 0);
		restrict_pages(at);
		whole[policy] = smaps_kib(at, len, "AnonHugePages") / (SUPERPAGE >> 10);
		print_message("    %-8s %2lu of %u superpages are mapped as such\n",
			      policies[policy], whole[policy], SUPERPAGES);
		munmap(reserved, len + SUPERPAGE);
	}
	assert_int_equal(whole[GROUPED], SUPERPAGES);
	assert_true(whole[RANDOM] * 4 < SUPERPAGES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grouping_keeps_superpages_whole),
		cmocka_unit_test(the_kernel_agrees),
	};

	return cmocka_run_group_tests_name("superpages", tests, NULL, NULL);
}
