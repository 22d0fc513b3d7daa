/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A front end of snet for tests, with every step open to be bent. It shares the layout of rings and
 * messages with vifd (src/snet/), and no code.
 */
#ifndef SNET_FRONT_H
#define SNET_FRONT_H

#include <stdbool.h>
#include <stdint.h>

#include "snet/snet_msg.h"
#include "snet/snet_ring.h"

enum { FRONT_ZONES = 64, FRONT_ZONE = 4 << 20, FRONT_QUEUES = 8 };

struct front_zone {
	uint32_t id;
	bool writable;
	int fd;
	uint8_t *base; /* as it was announced: writable or not */
};

struct front_queue {
	struct snet_rings rings;
	int kick, call;
	uint32_t produced, done, taken, given; /* indexes, as a front end counts */
};

struct snet_front {
	int socket;
	struct snet_msg welcome;
	uint8_t *memory;
	size_t memory_len;
	int memory_fd;
	unsigned zone_count, queue_count;
	unsigned zones_gone; /* ZONE_GONE of zones that we were told of */
	struct front_zone zones[FRONT_ZONES];
	struct front_queue queues[FRONT_QUEUES];
	bool started;
	char refused[SNET_TEXT_MAX]; /* what vifd said when it sent us away */
	bool gone;                   /* the socket has ended */
};

/* Connect, say HELLO, read until START. Ends the program if that fails. */
void front_open(struct snet_front *front, const char *path);
void front_close(struct snet_front *front);
/* The same in steps: connect; send a message; read one, false if there is none within msec. */
void front_connect(struct snet_front *front, const char *path);
void front_say(struct snet_front *front, const void *msg, unsigned len, const int *fds,
	       unsigned fd_count);
void front_hello(struct snet_front *front);
bool front_read(struct snet_front *front, int msec);
/* Read until vifd has closed the connection; false: it has not within msec. */
bool front_sent_away(struct snet_front *front, int msec);

/* The first zone to send from, or to receive from. */
struct front_zone *front_zone(struct snet_front *front, bool writable);
struct front_zone *front_zone_by_id(struct snet_front *front, uint32_t id);
/* Write a tx entry on queue 0 that is all right, and return it to be bent; then publish and kick. */
struct snet_entry *front_put(struct snet_front *front, uint32_t offset, uint32_t len);
void front_publish(struct snet_front *front);
/* Ids of what was sent, taken back. How many. */
unsigned front_reclaim(struct snet_front *front);
/* The next received entry of any queue, and which; false: none. */
bool front_take(struct snet_front *front, struct snet_entry *entry, unsigned *queue);
void front_give(struct snet_front *front, unsigned queue, uint32_t id);

#endif
