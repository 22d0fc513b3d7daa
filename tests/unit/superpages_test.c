/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How many superpages stay whole (M16): pages grouped by peer and permission against pages taken
 * from anywhere, as Menon §5.3.1 argues but does not measure.
 *
 * 64 MiB are filled to 60 % with pages of several kinds (a kind is a peer and a permission), then
 * pages are freed and allocated over and over. A superpage can be mapped as one if all its pages in
 * use are of one kind; else each takes an entry of the TLB to itself. The same sequence for all:
 *
 *      random    any free page
 *      lowest    the lowest free page, whatever lies beside it
 *      grouped   zone_group.c
 *
 * At the end the kernel is asked: such memory on transparent superpages, the restricted pages made
 * read-only, and how much of it is still mapped in superpages.
 */
#include <sys/mman.h>

#include "zones.h"

enum {
	PAGE = 4096,
	SUPERPAGE = 2 << 20,
	PAGES_PER_SUPERPAGE = SUPERPAGE / PAGE,
	ZONES = 16,
	PAGES = ZONES * ZONE_PAGES,
	SUPERPAGES = PAGES / PAGES_PER_SUPERPAGE,
	LIVE = PAGES * 6 / 10,
	CHURN = 10 * LIVE,
	KINDS_MAX = 8,
	RESTRICTED = 1, /* the kind, where there are two */
};

static const struct workload {
	const char *name;
	unsigned kinds;
	unsigned restricted; /* pages per mille of kind 1; 0: all kinds alike */
} workloads[] = {
	{ "one page in 100 read-only", 2, 10 },
	{ "one page in 20 read-only", 2, 50 },
	{ "4 peers, each reads and writes", 8, 0 },
};

static const char *const policies[] = { "random", "lowest", "grouped" };
enum policy { RANDOM, LOWEST, GROUPED };

struct outcome {
	unsigned used, whole; /* superpages in use; of those, of one kind */
	unsigned entries;     /* of a TLB, that all pages in use take */
};

/* Kind of each page, plus one; 0: free. */
static uint8_t kind_of[PAGES];

static struct zone_space space;
static struct zone_group groups[KINDS_MAX];

static uint8_t *memory(void)
{
	return space.base + ZONE_SIZE; /* ids begin at 1 */
}

static unsigned page_grouped(unsigned kind)
{
	struct zone_group *group = &groups[kind];
	struct error error = { "" };
	uint8_t *page = zone_pages_get(group, 0);

	if (!page) {
		if (zone_group_grow(group, 1, &error))
			fail_msg("%s", error.text);
		page = zone_pages_get(group, 0);
	}
	return (page - memory()) / PAGE;
}

static unsigned allocate(enum policy policy, unsigned kind, uint64_t *seed)
{
	unsigned page = 0;

	if (policy == GROUPED)
		page = page_grouped(kind);
	else if (policy == LOWEST)
		page = (uint8_t *)memchr(kind_of, 0, PAGES) - kind_of;
	else
		do
			page = rnd_below(seed, PAGES);
		while (kind_of[page]);
	assert_int_equal(kind_of[page], 0);
	kind_of[page] = kind + 1;
	return page;
}

static void release(enum policy policy, unsigned page)
{
	if (policy == GROUPED)
		assert_int_equal(zone_pages_put(&groups[kind_of[page] - 1],
						memory() + (size_t)page * PAGE, 0),
				 0);
	kind_of[page] = 0;
}

static unsigned draw_kind(const struct workload *workload, uint64_t *seed)
{
	uint32_t number = rnd_below(seed, 1000);

	return workload->restricted ? number < workload->restricted : number % workload->kinds;
}

/* Leaves kind_of[] as it is after all that. */
static void run(const struct workload *workload, enum policy policy)
{
	static unsigned live[LIVE];
	uint64_t kinds = 1, victims = 2, places = 3; /* the first two: the same for all policies */

	memset(kind_of, 0, sizeof(kind_of));
	space = space_of(ZONES, ZONE_SMALL_PAGES);
	for (unsigned i = 0; i < workload->kinds; i++)
		zone_group_init(&groups[i], &space, "kind", ZONE_PRIVATE, ZONES);
	for (unsigned i = 0; i < LIVE; i++)
		live[i] = allocate(policy, draw_kind(workload, &kinds), &places);
	for (unsigned i = 0; i < CHURN; i++) {
		unsigned *victim = &live[rnd_below(&victims, LIVE)];

		release(policy, *victim);
		*victim = allocate(policy, draw_kind(workload, &kinds), &places);
	}
	for (unsigned i = 0; i < workload->kinds; i++)
		zone_group_fini(&groups[i]);
	zone_space_fini(&space);
}

/* The kind of all pages in use of a superpage plus one; 0: none is in use; -1: several kinds. */
static int kind_of_superpage(unsigned superpage, unsigned *used)
{
	const uint8_t *pages = kind_of + (size_t)superpage * PAGES_PER_SUPERPAGE;
	int kind = 0;

	*used = 0;
	for (unsigned i = 0; i < PAGES_PER_SUPERPAGE; i++) {
		if (!pages[i])
			continue;
		(*used)++;
		kind = kind == 0 || kind == pages[i] ? pages[i] : -1;
	}
	return kind;
}

static struct outcome judge(void)
{
	struct outcome outcome = { 0 };

	for (unsigned i = 0; i < SUPERPAGES; i++) {
		unsigned used;
		int kind = kind_of_superpage(i, &used);

		outcome.used += kind != 0;
		outcome.whole += kind > 0;
		outcome.entries += kind > 0 ? 1 : used;
	}
	return outcome;
}

static void grouping_keeps_superpages_whole(void **state)
{
	for (unsigned i = 0; i < sizeof(workloads) / sizeof(*workloads); i++) {
		struct outcome outcomes[3];

		print_message("%s, %u superpages, %u pages in use\n", workloads[i].name, SUPERPAGES,
			      LIVE);
		for (enum policy policy = RANDOM; policy <= GROUPED; policy++) {
			run(&workloads[i], policy);
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
		run(&workloads[1], policy);
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
