// SPDX-License-Identifier: BSD-3-Clause
/*
 * Models of a data TLB, fed with the trace of a program's memory accesses that valgrind's lackey
 * prints (--trace-mem=yes). The trace streams from standard input through all models at once and
 * is kept nowhere.
 *
 *      I  04001a2b,3       instruction: passed over
 *       L 1ffefff5c8,8     load
 *       S 0483a0c0,4       store
 *       M 0483a0c0,4       load and store of the same: one access
 *
 * Theory of operation. A TLB is sets of entries, each set in order of its entries' last use, the
 * least recent of which gives way to a new one. A model has a first level for 4 KiB pages, one for
 * superpages (or one for both), and maybe a second level for both:
 *
 *      access --> first level --miss--> second level --miss--> page walk
 *                                       hit: into the first level; walk: into both
 *
 * An access across the edge of a page is one to each. Prefetching, speculation and the caches of a
 * page walk are not modelled.
 *
 * Marks (tlb_marks.h) in the trace say which part of it is vifd's; only that reaches the models.
 * Where vifd's part begins, the CPU may have come from another domain: with switch=N the TLB is empty
 * there every Nth time. With switch=0 it is one whose entries are tagged with their address space, or
 * that of a CPU that runs nothing else.
 *
 * The map, a file of lines "FROM TO PAGE NAME" (hexadecimal addresses; PAGE 4096 or 2097152), says
 * what page size memory is on; what it does not name is on 4 KiB pages, and called "other".
 *
 * Usage: tlb_model MAP MODEL...; a MODEL is NAME[:OPTION=VALUE[,...]]
 *
 *      pages=map|4k            page sizes as in the map (default), or 4 KiB all over
 *      l1=ENTRIES[xWAYS]       first level, 4 KiB pages (64x4); ENTRIES: fully associative
 *      super=ENTRIES[xWAYS]    first level, superpages (32x4); super=shared: they take l1's entries
 *      l2=ENTRIES[xWAYS]       second level (1536x12); 0: there is none
 *      switch=N                empty every Nth time that vifd's part begins (0: never)
 *      every=N                 also empty it every N accesses (0: never)
 *
 * With -a in front, all of a trace without marks counts. Prints a JSON object by model.
 */
#include <err.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tlb_marks.h"

enum {
	NAP_NSEC = 2000000,
	SMALL_SHIFT = 12,
	SUPER_SHIFT = 21,
	MODELS_MAX = 32,
	RANGES_MAX = 32,
	NAME_MAX_LEN = 32
};
enum size { SMALL, SUPER, SIZES };

struct tlb {
	unsigned sets, ways;
	uint64_t *pages; /* [sets][ways], the last used first; 0: empty */
};

struct model {
	char name[NAME_MAX_LEN];
	bool small_only, shared;
	struct tlb first[SIZES], second; /* second.ways 0: there is none */
	uint64_t switches;               /* one of so many empties it; 0: none */
	uint64_t since_switch;           /* since the last that did */
	uint64_t every, since_flush;     /* the same in accesses */
	uint64_t accesses, flushes;
	uint64_t misses[SIZES], walks[SIZES];
	uint64_t misses_in[RANGES_MAX + 1]; /* by range of the map; the last: other */
};

struct range {
	uint64_t from, to;
	enum size size;
	char name[NAME_MAX_LEN];
};

static struct model models[MODELS_MAX];
static unsigned model_count;

static const char *map_path;
static struct range ranges[RANGES_MAX];
static unsigned range_count;

static bool counting, inside;

/* ---- a TLB ---- */

static void tlb_make(struct tlb *tlb, unsigned entries, unsigned ways)
{
	if (entries && (ways == 0 || entries % ways))
		errx(2, "%u entries cannot be shared out to sets of %u", entries, ways);
	free(tlb->pages);
	*tlb = (struct tlb){ .sets = ways ? entries / ways : 0, .ways = ways };
	tlb->pages = calloc(entries + 1, sizeof(*tlb->pages));
	if (!tlb->pages)
		err(EXIT_FAILURE, "TLB");
}

static void tlb_empty(struct tlb *tlb)
{
	memset(tlb->pages, 0, (size_t)tlb->sets * tlb->ways * sizeof(*tlb->pages));
}

/* Is the page there? It is in any case afterwards. */
static bool tlb_use(struct tlb *tlb, uint64_t number, enum size size)
{
	uint64_t *set = tlb->pages + number % tlb->sets * tlb->ways;
	uint64_t page = (number << 2 | size << 1) + 1, next = page;

	for (unsigned way = 0; way < tlb->ways; way++) {
		uint64_t here = set[way];

		set[way] = next; /* all that were used later move down by one */
		if (here == page)
			return true;
		next = here;
	}
	return false;
}

/* ---- a model ---- */

static void model_empty(struct model *model)
{
	for (enum size size = SMALL; size < SIZES; size++)
		tlb_empty(&model->first[size]);
	tlb_empty(&model->second);
	model->since_flush = 0;
	model->flushes += counting;
}

static void model_switch(struct model *model)
{
	if (model->switches && ++model->since_switch >= model->switches) {
		model_empty(model);
		model->since_switch = 0;
	}
}

/* in: the index of the range. */
static void model_touch(struct model *model, uint64_t number, enum size size, unsigned in)
{
	if (tlb_use(&model->first[model->shared ? SMALL : size], number, size))
		return;
	model->misses[size] += counting;
	model->misses_in[in] += counting;
	if (!model->second.ways || !tlb_use(&model->second, number, size))
		model->walks[size] += counting;
}

static void model_access(struct model *model, uint64_t at, uint64_t last, enum size size,
			 unsigned in)
{
	unsigned shift;

	if (model->every && model->since_flush++ == model->every) {
		model_empty(model);
		model->since_flush = 1;
	}
	if (model->small_only)
		size = SMALL;
	shift = size == SUPER ? SUPER_SHIFT : SMALL_SHIFT;
	model->accesses += counting;
	for (uint64_t number = at >> shift; number <= last >> shift; number++)
		model_touch(model, number, size, in);
}

static unsigned range_of(uint64_t at)
{
	for (unsigned i = 0; i < range_count; i++) {
		if (at >= ranges[i].from && at < ranges[i].to)
			return i;
	}
	return range_count;
}

static void access_all(uint64_t at, uint64_t len)
{
	unsigned in = range_of(at);
	enum size size = in < range_count ? ranges[in].size : SMALL;

	for (unsigned i = 0; i < model_count; i++)
		model_access(&models[i], at, at + len - 1, size, in);
}

/* ---- the trace ---- */

static void map_read(void)
{
	FILE *file = fopen(map_path, "re");
	unsigned long page;
	struct range range;
	int got;

	if (!file)
		err(EXIT_FAILURE, "%s", map_path);
	range_count = 0;
	while ((got = fscanf(file, "%lx %lx %lu %31s", &range.from, &range.to, &page,
			     range.name)) == 4) {
		if (range_count == RANGES_MAX ||
		    (page != 1u << SMALL_SHIFT && page != 1u << SUPER_SHIFT))
			errx(EXIT_FAILURE, "%s: too many ranges, or a page of %lu bytes", map_path,
			     page);
		range.size = page == 1u << SUPER_SHIFT ? SUPER : SMALL;
		ranges[range_count++] = range;
	}
	if (got != EOF)
		errx(EXIT_FAILURE, "%s: a range is not \"FROM TO PAGE NAME\"", map_path);
	fclose(file);
}

static void mark(enum tlb_mark which)
{
	switch (which) {
	case TLB_MARK_MAP:
		map_read();
		break;
	case TLB_MARK_COUNT:
		counting = true;
		break;
	case TLB_MARK_ENTER:
		inside = true;
		for (unsigned i = 0; i < model_count; i++)
			model_switch(&models[i]);
		break;
	default:
		inside = false;
	}
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A line of the trace; whatever is not one of an access is passed over. */
static void trace_line(const char *line)
{
	uint64_t at = 0, len = 0;
	int digit;

	if (line[0] != ' ' || (line[1] != 'L' && line[1] != 'S' && line[1] != 'M') ||
	    line[2] != ' ')
		return;
	for (line += 3; (digit = hex_digit(*line)) >= 0; line++)
		at = at << 4 | digit;
	if (*line++ != ',')
		return;
	for (; *line >= '0' && *line <= '9'; line++)
		len = len * 10 + *line - '0';
	if (at - TLB_MARKS < TLB_MARKS_END * TLB_MARK_STRIDE)
		mark((at - TLB_MARKS) / TLB_MARK_STRIDE);
	else if (inside && len > 0)
		access_all(at, len);
}

/* lackey writes each line by itself. Whoever slept until there is one would be woken for each. */
static void trace_read(void)
{
	static char buffer[1 << 20];
	const struct timespec nap = { .tv_nsec = NAP_NSEC };
	size_t have = 0;
	ssize_t got;

	while ((got = read(STDIN_FILENO, buffer + have, sizeof(buffer) - 1 - have)) > 0) {
		char *line = buffer, *end;

		have += got;
		buffer[have] = '\0';
		for (; (end = memchr(line, '\n', buffer + have - line)); line = end + 1)
			trace_line(line);
		have -= line - buffer;
		if (have == sizeof(buffer) - 1)
			errx(EXIT_FAILURE, "a trace has no lines this long");
		memmove(buffer, line, have);
		nanosleep(&nap, NULL);
	}
	if (got < 0)
		err(EXIT_FAILURE, "trace");
}

/* ---- arguments and results ---- */

/* "64" or "64x4" */
static void parse_tlb(struct tlb *tlb, const char *text)
{
	unsigned entries, ways;
	int got = sscanf(text, "%ux%u", &entries, &ways);

	if (got < 1)
		errx(2, "'%s' is not ENTRIES[xWAYS]", text);
	tlb_make(tlb, entries, got == 2 ? ways : entries);
}

static void parse_option(struct model *model, const char *key, const char *value)
{
	if (strcmp(key, "pages") == 0)
		model->small_only = strcmp(value, "4k") == 0;
	else if (strcmp(key, "l1") == 0)
		parse_tlb(&model->first[SMALL], value);
	else if (strcmp(key, "super") == 0 && strcmp(value, "shared") == 0)
		model->shared = true;
	else if (strcmp(key, "super") == 0)
		parse_tlb(&model->first[SUPER], value);
	else if (strcmp(key, "l2") == 0)
		parse_tlb(&model->second, value);
	else if (strcmp(key, "switch") == 0)
		model->switches = strtoull(value, NULL, 0);
	else if (strcmp(key, "every") == 0)
		model->every = strtoull(value, NULL, 0);
	else
		errx(2, "unknown option '%s'", key);
}

static void parse_model(char *text)
{
	struct model *model = &models[model_count];
	char *option = strchr(text, ':');

	if (model_count++ == MODELS_MAX)
		errx(2, "more than %u models", MODELS_MAX);
	if (option)
		*option++ = '\0';
	snprintf(model->name, sizeof(model->name), "%s", text);
	tlb_make(&model->first[SMALL], 64, 4);
	tlb_make(&model->first[SUPER], 32, 4);
	tlb_make(&model->second, 1536, 12);
	for (option = strtok(option, ","); option; option = strtok(NULL, ",")) {
		char *value = strchr(option, '=');

		if (!value)
			errx(2, "option '%s' has no value", option);
		*value++ = '\0';
		parse_option(model, option, value);
	}
	if (!model->first[SMALL].ways || !model->first[SUPER].ways)
		errx(2, "model %s has no first level", model->name);
}

static void print_model(const struct model *model)
{
	printf(" \"%s\": {\"accesses\": %lu, \"flushes\": %lu, \"misses\": {\"4k\": %lu, \"2m\": %lu}, "
	       "\"walks\": {\"4k\": %lu, \"2m\": %lu}, \"misses_in\": {",
	       model->name, model->accesses, model->flushes, model->misses[SMALL],
	       model->misses[SUPER], model->walks[SMALL], model->walks[SUPER]);
	for (unsigned i = 0; i < range_count; i++)
		printf("\"%s\": %lu, ", ranges[i].name, model->misses_in[i]);
	printf("\"other\": %lu}}", model->misses_in[range_count]);
}

int main(int argc, char **argv)
{
	int arg = 1;

	if (arg < argc && strcmp(argv[arg], "-a") == 0) {
		counting = inside = true;
		arg++;
	}
	if (arg + 2 > argc)
		errx(2, "usage: tlb_model [-a] MAP MODEL...");
	map_path = argv[arg++];
	while (arg < argc)
		parse_model(argv[arg++]);
	if (inside)
		map_read();
	trace_read();
	puts("{");
	for (unsigned i = 0; i < model_count; i++) {
		print_model(&models[i]);
		puts(i + 1 < model_count ? "," : "");
	}
	puts("}");
	return 0;
}
