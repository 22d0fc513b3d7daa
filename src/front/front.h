/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside libvifront: what its files share. vifront.c has the connection, vifront_queue.c the packets. */
#ifndef VIFD_FRONT_H
#define VIFD_FRONT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/un.h>

#include "front/vifront.h"
#include "snet/snet_msg.h"
#include "snet/snet_ring.h"
#include "zone/zone.h"

enum {
	CHUNK_SIZE = VIFRONT_BUF_LARGE,
	CHUNKS_PER_ZONE = ZONE_SIZE / CHUNK_SIZE,
	CHUNK_SMALLS = CHUNK_SIZE / VIFRONT_BUF_SMALL,
	CHUNK_IDS = 32, /* ids of a chunk: its small buffers, and the last: the whole of it */
	CHUNK_WHOLE = CHUNK_IDS - 1,
};

/* Memory to send from: a large buffer, or small ones. */
struct chunk {
	uint8_t *base;
	uint32_t zone, offset;
};

enum buf_state { BUF_FREE, BUF_HELD, BUF_SENT, BUF_CUT /* into small ones */ };

struct queue {
	struct snet_rings rings;
	uint32_t tx_produced; /* entries */
	uint32_t tx_done;     /* ids that came back */
	uint32_t rx_taken;    /* entries */
	uint32_t rx_released; /* ids given back */
	int kick, call;
	unsigned empty_polls;

	struct chunk *chunks;
	uint8_t *states; /* enum buf_state by id, CHUNK_IDS of each chunk */
	uint32_t *large; /* ids that are free, the one used last on top */
	uint32_t *small;
	unsigned chunk_count, large_count, small_count;
} __attribute__((aligned(64))); /* queues belong to different threads */

struct vifront {
	_Atomic int broken; /* 0: connected; -ENOTCONN, -EPROTO */
	struct queue *queues;
	struct zone_space space;
	struct vifront_info info;

	pthread_mutex_t lock; /* the socket, and making zones known */
	int sock;
	bool started;
	uint8_t *memory; /* of all queues */
	size_t memory_len;
	uint32_t stride;
	unsigned queues_known;

	struct sockaddr_un address;
	struct vifront_options options;
	pthread_mutex_t why_lock;
	struct vifront_error why;
};

/* vifront.c: the connection is of no use any more, and why. Returns code, or what was first. */
int front_break(struct vifront *front, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Of a clock that only goes forward. */
uint64_t front_now_ms(void);

/* vifront_queue.c. Memory to send from, count chunks; takes chunks, also on failure. 0 or -ENOMEM. */
int queue_init(struct queue *queue, struct chunk *chunks, unsigned count);
void queue_fini(struct queue *queue);

#endif
