// SPDX-License-Identifier: BSD-3-Clause
/*
 * An snet guest that looks for other guests' packets in everything that it gets to see.
 *
 * Usage: snet_spy SOCKET MARKER [keep]. Connects, maps every zone that vifd tells it of, also later
 * ones, prints "ready", and reads through all of them for the bytes of MARKER until standard input
 * ends. Its own ring is emptied and returned unread, or kept. Then prints {"zones": N, "gone": N,
 * "found": BYTES}: the zones that it was told of, and of those the ones that are no more.
 */
#include "snet_front.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t search(const struct front_zone *zone, const char *marker)
{
	size_t len = strlen(marker), found = 0;
	const uint8_t *at = zone->base, *end = zone->base + FRONT_ZONE;

	while (at && (at = memmem(at, end - at, marker, len))) {
		found += len;
		at += len;
	}
	return found;
}

static bool input_has_ended(void)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	char byte;

	return poll(&input, 1, 0) == 1 && read(STDIN_FILENO, &byte, 1) <= 0;
}

int main(int argc, char **argv)
{
	static struct snet_front front;
	struct snet_entry entry;
	bool keep = argc == 4 && strcmp(argv[3], "keep") == 0;
	size_t found = 0;
	unsigned queue;

	if (argc != 3 && !keep)
		return 2;
	front_open(&front, argv[1]);
	puts("ready");
	fflush(stdout);
	while (!input_has_ended()) {
		while (front_read(&front, 0))
			;
		while (front_take(&front, &entry, &queue)) {
			if (!keep)
				front_give(&front, queue, entry.id);
		}
		for (unsigned i = 0; i < front.zone_count; i++)
			found += search(&front.zones[i], argv[2]);
		usleep(1000);
	}
	printf("{\"zones\": %u, \"gone\": %u, \"found\": %zu}\n", front.zone_count,
	       front.zones_gone, found);
	front_close(&front);
	return EXIT_SUCCESS;
}
