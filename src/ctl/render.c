/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Answers of vifd as tables.
 *
 * Theory of operation. A view says how one command's answer is shown: most are one row for each
 * object of a list, with columns that are data; a few have a function of their own.
 */
#include "ctl/render.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl/table.h"
#include "port/port.h"

struct view {
	const char *command;
	const char *nothing; /* said instead of an empty table */
	void (*print)(const json_t *result, bool all);
	struct column columns[COLUMNS_MAX];
};

static void print_stats(const json_t *result, bool all);
static void print_guests(const json_t *result, bool all);
static void print_profile(const json_t *result, bool all);
static void print_help(const json_t *result, bool all);

/* clang-format off */
static const struct view views[] = {
	{
		.command = "show bridges",
		.nothing = "no bridges",
		.columns = {
			{ "BRIDGE", "name", TEXT }, { "AGEING", "ageing_seconds", SECONDS },
			{ "ADDRESSES", "fdb_used", COUNT }, { "OF", "fdb_size", COUNT },
			{ "LEARNED", "learned", COUNT }, { "MOVED", "moved", COUNT },
			{ "AGED", "aged", COUNT }, { "EVICTED", "evicted", COUNT },
			{ "REFUSED", "refused", COUNT }, { "PORTS", "ports", LIST },
		},
	},
	{
		.command = "show ports",
		.nothing = "no ports",
		.columns = {
			{ "PORT", "name", TEXT }, { "BRIDGE", "bridge", TEXT },
			{ "ROLE", "uplink", ROLE }, { "KIND", "kind", TEXT },
			{ "MTU", "mtu", NUMBER }, { "QUEUES", "queues", NUMBER },
			{ "MAC", "mac", TEXT }, { "SPOOF", "spoof", TEXT },
			{ "ISOLATED", "isolated", YES }, { "TAKES", "caps", LIST },
		},
	},
	{
		.command = "show fdb",
		.nothing = "no addresses",
		.columns = {
			{ "BRIDGE", "bridge", TEXT }, { "MAC", "mac", TEXT },
			{ "PORT", "port", TEXT }, { "AGE", "age_seconds", SECONDS },
			{ "PINNED", "static", YES },
		},
	},
	{
		.command = "show workers",
		.nothing = "no workers",
		.columns = {
			{ "WORKER", "id", NUMBER }, { "CPU", "cpu", NUMBER },
			{ "PACKETS", "packets", COUNT }, { "BURSTS", "bursts", COUNT },
			{ "ROUNDS", "rounds", COUNT }, { "SLEEPS", "sleeps", COUNT },
			{ "NAPS", "naps", COUNT }, { "SPIN", "spin_usec", USEC },
			{ "WON", "spins_won", COUNT }, { "LOST", "spins_lost", COUNT },
			{ "POLLS", "queues", QUEUES },
		},
	},
	{
		.command = "show uplinks",
		.nothing = "no uplinks",
		.columns = {
			{ "UPLINK", "name", TEXT }, { "KIND", "kind", TEXT },
			{ "INTERFACE", "interface", TEXT }, { "NETNS", "netns", TEXT },
			{ "STATE", "state", TEXT }, { "MTU", "mtu", NUMBER },
			{ "QUEUES", "queues", NUMBER }, { "TAKES", "caps", LIST },
			{ "GOT", "got", LIST },
		},
	},
	{
		.command = "show lro",
		.nothing = "no port merges what it receives",
		.columns = {
			{ "PORT", "name", TEXT }, { "LRO", "lro", TEXT }, { "BO", "bo", TEXT },
			{ "SEGMENTS", "segments", COUNT }, { "PACKETS", "packets", COUNT },
			{ "RATE", "rate", RATIO }, { "DELAY P50", "delay_p50_ns", NSEC },
			{ "P99", "delay_p99_ns", NSEC }, { "MAX", "delay_max_ns", NSEC },
			{ "SENT ON BECAUSE", "flushed", COUNTS },
		},
	},
	{
		.command = "show memory",
		.nothing = "no memory",
		.columns = {
			{ "OF", "owner", TEXT }, { "WHAT", "what", TEXT },
			{ "SIZE", "size", SIZE }, { "RESIDENT", "resident", SIZE },
			{ "ON SUPERPAGES", "superpages", SIZE }, { "PAGES", "pages", TEXT },
		},
	},
	{ .command = "show guests", .nothing = "no guests", .print = print_guests },
	{ .command = "show stats", .nothing = "no ports", .print = print_stats },
	{ .command = "profile", .print = print_profile },
	{ .command = "help", .print = print_help },
};
/* clang-format on */

void render(const char *command, const json_t *result, bool all)
{
	if (json_is_null(result))
		return;
	for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
		const struct view *view = &views[i];
		size_t len = strlen(view->command);

		if (strncmp(command, view->command, len) != 0 ||
		    (command[len] && command[len] != ' '))
			continue;
		if (json_is_array(result) && json_array_size(result) == 0)
			puts(view->nothing);
		else if (view->print)
			view->print(result, all);
		else
			print_rows(result, view->columns, 0);
		return;
	}
	json_dumpf(result, stdout, JSON_INDENT(2));
	putchar('\n');
}

static void print_stats(const json_t *result, bool all)
{
	static const struct {
		const char *name, *text;
	} counters[] = {
#define X(name, text) { #name, text },
		PORT_STATS(X)
#undef X
	};
	size_t i;
	const json_t *port;

	json_array_foreach (result, i, port) {
		struct table table;

		printf("%s%s (%s)\n", i ? "\n" : "", text_of(port, "name"), text_of(port, "kind"));
		table_init(&table, 3);
		table.right[1] = true;
		for (size_t c = 0; c < sizeof(counters) / sizeof(counters[0]); c++) {
			int64_t count = count_of(port, counters[c].name);
			struct cell *cells;

			if (count == 0 && !all)
				continue;
			cells = table_row(&table);
			strcpy(cells[0].text, counters[c].name);
			format_count(cells[1].text, count);
			strcpy(cells[2].text, counters[c].text);
		}
		if (table.rows == 0)
			puts("  nothing counted yet");
		table_print(&table, 2);
	}
}

/* A label and words behind it, wrapped. */
static void print_words(const char *label, const json_t *words)
{
	const int width = 100, start = 12;
	int at = printf("  %-*s", start - 2, label);
	size_t i;
	const json_t *word;

	json_array_foreach (words, i, word) {
		const char *text = json_string_value(word);

		if (i > 0 && at + 1 + (int)strlen(text) > width)
			at = printf("\n%*s", start, "") - 1;
		else if (i > 0)
			at += printf(" ");
		at += printf("%s", text);
	}
	puts(json_array_size(words) ? "" : "none");
}

static void print_rings(const json_t *rings)
{
	struct table table;
	size_t i;
	const json_t *ring;

	table_init(&table, 4);
	table.right[1] = table.right[2] = true;
	json_array_foreach (rings, i, ring) {
		int64_t index = count_of(ring, "index");
		struct cell *cells;

		if (count_of(ring, "size") == 0)
			continue; /* not set up */
		cells = table_row(&table);
		strcpy(cells[0].text, table.rows == 1 ? "rings     " : "");
		snprintf(cells[1].text, CELL_BYTES, "%" PRId64, index);
		snprintf(cells[2].text, CELL_BYTES, "%" PRId64 " entries", count_of(ring, "size"));
		if (json_is_true(json_object_get(ring, "broken")))
			snprintf(cells[3].text, CELL_BYTES, "guest %s, BROKEN: %s",
				 index % 2 ? "sends" : "receives", text_of(ring, "why"));
		else
			snprintf(cells[3].text, CELL_BYTES, "guest %s, %s",
				 index % 2 ? "sends" : "receives",
				 json_is_true(json_object_get(ring, "running")) ? "running"
										: "stopped");
	}
	table_print(&table, 2);
}

static void print_memory(const json_t *regions)
{
	struct table table;
	size_t i;
	const json_t *region;

	table_init(&table, 4);
	table.right[2] = true;
	json_array_foreach (regions, i, region) {
		struct cell *cells = table_row(&table);
		char page[CELL_BYTES];

		strcpy(cells[0].text, i == 0 ? "memory    " : "");
		snprintf(cells[1].text, CELL_BYTES, "at 0x%" PRIx64,
			 (uint64_t)count_of(region, "gpa"));
		format_size(cells[2].text, count_of(region, "size"));
		format_size(page, count_of(region, "page_size"));
		snprintf(cells[3].text, CELL_BYTES, "in pages of %.32s%s", page,
			 json_is_true(json_object_get(region, "thp")) ? " (transparent)" : "");
	}
	table_print(&table, 2);
}

/* The queues of an snet guest. */
static void print_queues(const json_t *queues)
{
	struct table table;
	size_t i;
	const json_t *queue;

	table_init(&table, 3);
	table.right[1] = true;
	json_array_foreach (queues, i, queue) {
		struct cell *cells = table_row(&table);

		strcpy(cells[0].text, i == 0 ? "queues    " : "");
		snprintf(cells[1].text, CELL_BYTES, "%" PRId64, count_of(queue, "index"));
		if (json_is_true(json_object_get(queue, "broken")))
			snprintf(cells[2].text, CELL_BYTES, "BROKEN: %s", text_of(queue, "why"));
		else
			snprintf(cells[2].text, CELL_BYTES,
				 "%" PRId64 " buffers of it with vifd, %" PRId64
				 " with it, of which %" PRId64 " by reference",
				 count_of(queue, "sent"), count_of(queue, "out"),
				 count_of(queue, "references"));
	}
	table_print(&table, 2);
}

static void print_zones(const json_t *zones)
{
	struct table table;
	size_t i;
	const json_t *zone;

	table_init(&table, 4);
	table.right[1] = true;
	json_array_foreach (zones, i, zone) {
		struct cell *cells = table_row(&table);

		strcpy(cells[0].text, i == 0 ? "zones     " : "");
		snprintf(cells[1].text, CELL_BYTES, "%" PRId64, count_of(zone, "id"));
		snprintf(cells[2].text, CELL_BYTES, "to %s", text_of(zone, "access"));
		snprintf(cells[3].text, CELL_BYTES, "in pages: %s", text_of(zone, "pages"));
	}
	table_print(&table, 2);
}

static void print_vhost_user(const json_t *guest)
{
	print_words("features", json_object_get(guest, "features"));
	printf("  %-10s%" PRId64 " in use\n", "pairs", count_of(guest, "pairs"));
	print_rings(json_object_get(guest, "rings"));
	print_memory(json_object_get(guest, "memory"));
	printf("  %-10s%" PRId64 " messages, %" PRId64 " reconnects, %" PRId64 " broken rings\n",
	       "so far", count_of(guest, "messages"), count_of(guest, "reconnects"),
	       count_of(guest, "breaks"));
}

static void print_snet(const json_t *guest)
{
	const json_t *remap = json_object_get(guest, "remap");

	printf("  %-10s%s\n", "trust", text_of(guest, "trust"));
	if (remap)
		printf("  %-10s%s: %" PRId64 " pages mapped, %" PRId64 " unmapped, %" PRId64
		       " handed over, %" PRId64 " zeroed\n",
		       "channel", text_of(guest, "channel"), count_of(remap, "mapped"),
		       count_of(remap, "unmapped"), count_of(remap, "handed_over"),
		       count_of(remap, "zeroed"));
	print_words("takes", json_object_get(guest, "features"));
	printf("  %-10s%" PRId64 " entries of %" PRId64 " bytes\n", "rings",
	       count_of(guest, "ring"), count_of(guest, "entry"));
	print_queues(json_object_get(guest, "queues"));
	print_zones(json_object_get(guest, "zones"));
	printf("  %-10s%" PRId64 " reconnects, %" PRId64 " refused, %" PRId64
	       " broken queues, %" PRId64 " sessions not done yet\n",
	       "so far", count_of(guest, "reconnects"), count_of(guest, "refused"),
	       count_of(guest, "breaks"), count_of(guest, "lingering"));
}

/* One direction of a Xen guest: what it took of Xen. */
static void print_grants(const char *name, const json_t *costs)
{
	printf("  %-10s%" PRId64 " grant copies in %" PRId64 " calls, %" PRId64
	       " pages mapped, %" PRId64 " notifications\n",
	       name, count_of(costs, "grant_copies"), count_of(costs, "grant_calls"),
	       count_of(costs, "grant_maps"), count_of(costs, "notifies"));
}

static void print_xen(const json_t *guest)
{
	const json_t *queue;
	size_t i;

	print_words("features", json_object_get(guest, "features"));
	printf("  %-10s%s\n", "tx", text_of(guest, "tx"));
	if (count_of(guest, "rate_bytes") > 0)
		printf("  %-10s%" PRId64 " bytes in %" PRId64 " us, each queue\n", "rate",
		       count_of(guest, "rate_bytes"), count_of(guest, "rate_usec"));
	json_array_foreach (json_object_get(guest, "queues"), i, queue)
		printf("  queue %-4zu%" PRId64 " slots with us, %" PRId64 " posted%s\n", i,
		       count_of(queue, "sent"), count_of(queue, "posted"),
		       json_is_true(json_object_get(queue, "stalled")) ? ", STALLED" : "");
	if (json_is_string(json_object_get(guest, "why")))
		printf("  %-10s%s\n",
		       json_is_true(json_object_get(guest, "broken")) ? "BROKEN" : "why",
		       text_of(guest, "why"));
	print_grants("from it", json_object_get(guest, "from_guest"));
	print_grants("to it", json_object_get(guest, "to_guest"));
	printf("  %-10s%" PRId64 " reconnects, broken %" PRId64 " times\n", "so far",
	       count_of(guest, "reconnects"), count_of(guest, "breaks"));
}

static void print_guests(const json_t *result, bool all)
{
	size_t i;
	const json_t *guest;

	json_array_foreach (result, i, guest) {
		const char *path = json_string_value(json_object_get(guest, "path"));

		printf("%s%s: %s, %s%s%s\n", i ? "\n" : "", text_of(guest, "name"),
		       json_is_true(json_object_get(guest, "connected")) ? "connected"
									 : "not connected",
		       text_of(guest, "role"), path ? " at " : "", path ? path : "");
		if (json_object_get(guest, "trust"))
			print_snet(guest);
		else if (json_object_get(guest, "domid"))
			print_xen(guest);
		else
			print_vhost_user(guest);
	}
}

/* One stage, or all; every number of a column has as many decimals as that of busy needs. */
static void profile_row(struct table *table, const char *name, const json_t *per_packet,
			const json_t *per_byte, double share, const double busy[2])
{
	struct cell *cells = table_row(table);

	strcpy(cells[0].text, name);
	format_ratio(cells[1].text, per_packet, decimals_of(busy[0]));
	format_ratio(cells[2].text, per_byte, decimals_of(busy[1]));
	snprintf(cells[3].text, CELL_BYTES, "%.1f %%", share * 100);
}

static void profile_sum(const json_t *result, const double busy[2], double idle)
{
	const double nsec = 1e9 / (double)count_of(result, "tsc_hz");
	const double cpu = json_number_value(json_object_get(result, "cpu_seconds"));
	const double busy_seconds = (double)count_of(result, "busy_cycles") * nsec * 1e-9;
	char packets[CELL_BYTES], bytes[CELL_BYTES];

	format_count(packets, count_of(result, "packets"));
	format_count(bytes, count_of(result, "bytes"));
	printf("\n%s packets, %s bytes", packets, bytes);
	if (busy[0] > 0)
		printf(": %.*f ns a packet, %.*f ns a byte at %.2f GHz",
		       decimals_of(busy[0] * nsec), busy[0] * nsec, decimals_of(busy[1] * nsec),
		       busy[1] * nsec, 1 / nsec);
	printf("\nidle %.1f %% of the time; %.2f s of CPU time\n", idle * 100, cpu);
	/* Stages are timed by a clock that runs on while somebody else has the CPU. */
	if (busy_seconds > 1.2 * cpu)
		printf("workers were kept from their CPU for %.0f %% or more of what is shown as busy\n",
		       (1 - cpu / busy_seconds) * 100);
}

static void print_profile(const json_t *result, bool all)
{
	static const char *const titles[] = { "STAGE", "CYCLES/PACKET", "CYCLES/BYTE", "OF BUSY" };
	const json_t *per_packet = json_object_get(result, "busy_cycles_per_packet");
	const json_t *per_byte = json_object_get(result, "busy_cycles_per_byte");
	const double busy[2] = { json_number_value(per_packet), json_number_value(per_byte) };
	const double cycles = (double)count_of(result, "busy_cycles");
	struct table table;
	struct cell *cells;
	double idle = 0;
	size_t i;
	const json_t *stage;

	table_init(&table, 4);
	table.right[1] = table.right[2] = table.right[3] = true;
	cells = table_row(&table);
	for (unsigned c = 0; c < 4; c++)
		strcpy(cells[c].text, titles[c]);
	json_array_foreach (json_object_get(result, "stages"), i, stage) {
		const char *name = text_of(stage, "stage");

		if (strcmp(name, "idle") == 0)
			idle = json_number_value(json_object_get(stage, "share"));
		else
			profile_row(&table, name, json_object_get(stage, "cycles_per_packet"),
				    json_object_get(stage, "cycles_per_byte"),
				    cycles > 0 ? (double)count_of(stage, "cycles") / cycles : 0,
				    busy);
	}
	profile_row(&table, "busy", per_packet, per_byte, cycles > 0, busy);
	table_print(&table, 0);
	profile_sum(result, busy, idle);
}

static void print_help(const json_t *result, bool all)
{
	size_t i;
	const json_t *command;

	json_array_foreach (result, i, command) {
		const json_t *words = json_object_get(command, "usage");

		printf("%s\n        %s\n", json_string_value(words), text_of(command, "help"));
	}
}
