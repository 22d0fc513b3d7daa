/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libvifront: a queue's packets. The rings are drawn in snet/snet_ring.h.
 *
 * Theory of operation. Memory to send from comes in chunks of 64 KiB. A chunk is one large buffer
 * or, once small ones have run out, 31 small ones, 33 cache lines apart so that frames do not
 * compete for the same cache sets. It stays cut until large ones have run out and all 31 are free.
 * The buffer used last is used next, while it is still in the cache.
 *
 * A buffer is free, held by the program, or sent. Ids that come back are looked at, which costs a
 * byte each, so that neither a confused program nor a dying vifd makes two frames share a buffer.
 *
 * Indexes are read once a burst, published once a burst; an eventfd is written only when vifd sleeps.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "front/front.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Empty polls after which a program that never waits hears whether vifd is still there. */
enum { POLLS_PER_LOOK = 4096 };

int queue_init(struct queue *queue, struct chunk *chunks, unsigned count)
{
	queue->chunks = chunks;
	queue->chunk_count = queue->large_count = count;
	queue->states = calloc(count, CHUNK_IDS);
	queue->large = calloc(count, sizeof(queue->large[0]));
	queue->small = calloc(count, CHUNK_SMALLS * sizeof(queue->small[0]));
	if (!queue->states || !queue->large || !queue->small)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++)
		queue->large[i] = (count - 1 - i) * CHUNK_IDS + CHUNK_WHOLE;
	return 0;
}

void queue_fini(struct queue *queue)
{
	if (queue->kick >= 0)
		close(queue->kick);
	if (queue->call >= 0)
		close(queue->call);
	free(queue->chunks);
	free(queue->states);
	free(queue->large);
	free(queue->small);
}

/* After publishing: wake vifd if it waits for that. */
static inline void wake(const struct queue *queue, enum snet_wants what)
{
	if (unlikely(snet_must_wake(&queue->rings.control->back, what)))
		eventfd_write(queue->kick, 1);
}

static inline int broken(const struct vifront *front)
{
	return atomic_load_explicit(&front->broken, memory_order_relaxed);
}

/* The queue to work on. NULL: not now, and *err says why. */
static inline struct queue *queue_of(const struct vifront *front, unsigned number, int *err)
{
	*err = broken(front);
	if (unlikely(!*err && number >= front->info.queues))
		*err = -EINVAL;
	return likely(!*err) ? &front->queues[number] : NULL;
}

/* A poll found nothing. Once in a while: is vifd still there? */
static int polled_in_vain(struct vifront *front, struct queue *queue)
{
	return unlikely(++queue->empty_polls % POLLS_PER_LOOK == 0) ? vifront_attend(front) : 0;
}

/* ---- receiving ---- */

/* Where an entry's bytes are. NULL: vifd's words make no sense. */
static void *entry_data(struct vifront *front, const struct snet_entry *entry)
{
	struct zone *zone = zone_by_id(&front->space, entry->zone);

	if (unlikely(!zone) && vifront_attend(front) == 0) /* it was announced on the socket */
		zone = zone_by_id(&front->space, entry->zone);
	if (unlikely(!zone || !zone_holds(entry->offset, entry->len))) {
		front_break(front, -EPROTO,
			    "vifd sent %u bytes at %u of zone %u, which do not exist", entry->len,
			    entry->offset, entry->zone);
		return NULL;
	}
	return zone->base + entry->offset;
}

int vifront_recv(struct vifront *front, unsigned number, struct vifront_buf *bufs, unsigned count)
{
	int err;
	struct queue *queue = queue_of(front, number, &err);
	struct snet_rings *rings;
	unsigned there, whole = 0;

	if (unlikely(!queue))
		return err;
	rings = &queue->rings;
	there = snet_look(&rings->control->back.produced) - queue->rx_taken;
	if (there == 0)
		return polled_in_vain(front, queue);
	if (unlikely(there > rings->mask + 1))
		return front_break(front, -EPROTO, "vifd sent more than the ring holds");
	for (unsigned i = 0; i < there && i < count; i++) {
		const struct snet_entry *entry = snet_entry_at(rings, rings->rx,
							       queue->rx_taken + i);
		void *data = entry_data(front, entry);

		if (unlikely(!data))
			return broken(front);
		__builtin_prefetch(data);
		bufs[i] = (struct vifront_buf){
			.data = data,
			.len = entry->len,
			.id = entry->id,
			.flags = entry->flags,
			.gso_type = entry->gso_type,
			.gso_size = entry->gso_size,
			.csum_start = entry->csum_start,
			.csum_offset = entry->csum_offset,
		};
		if (likely(!(entry->flags & SNET_MORE)))
			whole = i + 1;
	}
	if (unlikely(whole == 0))
		return there > count ? -EMSGSIZE
				     : front_break(front, -EPROTO, "vifd sent half a frame");
	queue->rx_taken += whole;
	return whole;
}

void vifront_release(struct vifront *front, unsigned number, const struct vifront_buf *bufs,
		     unsigned count)
{
	int err;
	struct queue *queue = queue_of(front, number, &err);
	struct snet_rings *rings;

	if (unlikely(!queue) || count == 0)
		return;
	rings = &queue->rings;
	for (unsigned i = 0; i < count; i++)
		rings->rx_done[queue->rx_released++ & rings->mask] = bufs[i].id;
	snet_publish(&rings->control->front.given_back, queue->rx_released);
	wake(queue, SNET_WANT_DONE);
}

/* ---- buffers ---- */

static void put_free(struct queue *queue, uint32_t id)
{
	queue->states[id] = BUF_FREE;
	if (id % CHUNK_IDS == CHUNK_WHOLE)
		queue->large[queue->large_count++] = id;
	else
		queue->small[queue->small_count++] = id;
}

/* Take back what vifd is done with. 0, or what is wrong. */
static int reap(struct vifront *front, struct queue *queue)
{
	struct snet_rings *rings = &queue->rings;
	uint32_t given = snet_look(&rings->control->back.given_back);

	if (unlikely(given - queue->tx_done > queue->tx_produced - queue->tx_done))
		return front_break(front, -EPROTO, "vifd gave back more than it had");
	for (; queue->tx_done != given; queue->tx_done++) {
		uint32_t id = rings->tx_done[queue->tx_done & rings->mask];

		if (unlikely(id >= queue->chunk_count * CHUNK_IDS || queue->states[id] != BUF_SENT))
			return front_break(front, -EPROTO, "vifd gave back what it did not have");
		put_free(queue, id);
	}
	return 0;
}

/* Small buffers out of a large one. */
static void cut_chunk(struct queue *queue)
{
	uint32_t id = queue->large[--queue->large_count] - CHUNK_WHOLE;

	queue->states[id + CHUNK_WHOLE] = BUF_CUT;
	for (unsigned i = 0; i < CHUNK_SMALLS; i++)
		queue->small[queue->small_count++] = id + CHUNK_SMALLS - 1 - i;
}

/* Is this chunk cut, and are all its buffers free? */
static bool is_idle(const struct queue *queue, unsigned chunk)
{
	const uint8_t *states = &queue->states[chunk * CHUNK_IDS];

	if (states[CHUNK_WHOLE] != BUF_CUT)
		return false;
	for (unsigned i = 0; i < CHUNK_SMALLS; i++) {
		if (states[i] != BUF_FREE)
			return false;
	}
	return true;
}

/* Large buffers out of chunks that small frames need no more. Seldom: it looks at all of them. */
static void mend_chunks(struct queue *queue)
{
	unsigned kept = 0;

	for (unsigned chunk = 0; chunk < queue->chunk_count; chunk++) {
		if (is_idle(queue, chunk))
			put_free(queue, chunk * CHUNK_IDS + CHUNK_WHOLE);
	}
	for (unsigned i = 0; i < queue->small_count; i++) {
		uint32_t id = queue->small[i];

		if (queue->states[id / CHUNK_IDS * CHUNK_IDS + CHUNK_WHOLE] == BUF_CUT)
			queue->small[kept++] = id;
	}
	queue->small_count = kept;
}

/* Where a buffer begins, and how many bytes it has. */
static inline uint8_t *buf_base(const struct queue *queue, uint32_t id, uint32_t *len)
{
	uint8_t *base = queue->chunks[id / CHUNK_IDS].base;

	id %= CHUNK_IDS;
	*len = id == CHUNK_WHOLE ? VIFRONT_BUF_LARGE : VIFRONT_BUF_SMALL;
	return id == CHUNK_WHOLE ? base : base + id * VIFRONT_BUF_SMALL;
}

int vifront_alloc(struct vifront *front, unsigned number, uint32_t bytes, struct vifront_buf *bufs,
		  unsigned count)
{
	int err;
	struct queue *queue = queue_of(front, number, &err);
	bool is_small = bytes <= VIFRONT_BUF_SMALL;
	const uint32_t *ids;
	unsigned *left;

	if (unlikely(!queue))
		return err;
	if (bytes == 0 || bytes > VIFRONT_BUF_LARGE)
		return -EMSGSIZE;
	ids = is_small ? queue->small : queue->large;
	left = is_small ? &queue->small_count : &queue->large_count;
	if (*left < count) {
		err = reap(front, queue);
		if (err)
			return err;
		while (is_small && *left < count && queue->large_count)
			cut_chunk(queue);
		if (!is_small && *left == 0)
			mend_chunks(queue);
	}
	if (count > *left)
		count = *left;
	for (unsigned i = 0; i < count; i++) {
		uint32_t id = ids[--*left];

		bufs[i] = (struct vifront_buf){ .id = id };
		bufs[i].data = buf_base(queue, id, &bufs[i].len);
		queue->states[id] = BUF_HELD;
	}
	return count;
}

/* Is this a buffer that the program holds? */
static bool is_held(const struct queue *queue, const struct vifront_buf *buf)
{
	return likely(buf->id < queue->chunk_count * CHUNK_IDS &&
		      queue->states[buf->id] == BUF_HELD);
}

void vifront_free(struct vifront *front, unsigned number, const struct vifront_buf *bufs,
		  unsigned count)
{
	int err;
	struct queue *queue = queue_of(front, number, &err);

	if (unlikely(!queue))
		return;
	while (count-- > 0) { /* so that they are taken in the same order again */
		if (is_held(queue, &bufs[count]))
			put_free(queue, bufs[count].id);
	}
}

/* ---- sending ---- */

/* And does it say something that lies within it? */
static bool is_sendable(const struct queue *queue, const struct vifront_buf *buf)
{
	uintptr_t off;
	uint32_t len;

	if (!is_held(queue, buf) || unlikely(buf->len == 0))
		return false;
	off = (uintptr_t)buf->data - (uintptr_t)buf_base(queue, buf->id, &len);
	return likely(off < len && buf->len <= len - off);
}

/* Buffers of the frame that begins at bufs; 0: it is not one. */
static unsigned frame_bufs(const struct queue *queue, const struct vifront_buf *bufs,
			   unsigned count)
{
	if (count > VIFRONT_FRAME_BUFS)
		count = VIFRONT_FRAME_BUFS;
	for (unsigned i = 0; i < count && is_sendable(queue, &bufs[i]); i++) {
		if (likely(!(bufs[i].flags & VIFRONT_MORE)))
			return i + 1;
	}
	return 0;
}

static void put_entry(struct queue *queue, const struct vifront_buf *buf)
{
	const struct chunk *chunk = &queue->chunks[buf->id / CHUNK_IDS];

	*snet_entry_at(&queue->rings, queue->rings.tx, queue->tx_produced++) = (struct snet_entry){
		.zone = chunk->zone,
		.offset = chunk->offset + ((uint8_t *)buf->data - chunk->base),
		.len = buf->len,
		.id = buf->id,
		.flags = buf->flags,
		.gso_type = buf->gso_type,
		.gso_size = buf->gso_size,
		.csum_start = buf->csum_start,
		.csum_offset = buf->csum_offset,
	};
	queue->states[buf->id] = BUF_SENT;
}

int vifront_send(struct vifront *front, unsigned number, const struct vifront_buf *bufs,
		 unsigned count)
{
	int err;
	struct queue *queue = queue_of(front, number, &err);
	unsigned room, sent = 0;

	if (likely(queue))
		err = reap(front, queue);
	if (unlikely(err))
		return err;
	room = queue->rings.mask + 1 - (queue->tx_produced - queue->tx_done);
	while (sent < count) {
		unsigned frame = frame_bufs(queue, bufs + sent, count - sent);

		if (unlikely(frame == 0)) {
			if (sent == 0)
				return -EINVAL;
			break;
		}
		if (frame > room - sent)
			break;
		for (unsigned end = sent + frame; sent < end; sent++)
			put_entry(queue, &bufs[sent]);
	}
	if (unlikely(sent == 0))
		return polled_in_vain(front, queue);
	snet_publish(&queue->rings.control->front.produced, queue->tx_produced);
	wake(queue, SNET_WANT_ENTRIES);
	return sent;
}

/* ---- waiting ---- */

int vifront_event_fd(const struct vifront *front, unsigned number)
{
	return number < front->info.queues ? front->queues[number].call : -1;
}

static unsigned events_there(const struct queue *queue, unsigned events)
{
	struct snet_control *control = queue->rings.control;
	bool recv = snet_look(&control->back.produced) != queue->rx_taken;
	/* When nothing is on its way nothing can come back: there is all the room there is. */
	bool send = snet_look(&control->back.given_back) != queue->tx_done ||
		    queue->tx_done == queue->tx_produced;

	return events & ((recv ? VIFRONT_RECV : 0) | (send ? VIFRONT_SEND : 0));
}

int vifront_arm(struct vifront *front, unsigned number, unsigned events)
{
	int err;
	struct queue *queue = queue_of(front, number, &err);
	unsigned there;

	if (unlikely(!queue))
		return err;
	snet_want(&queue->rings.control->front,
		  (events & VIFRONT_RECV ? SNET_WANT_ENTRIES : 0) |
			  (events & VIFRONT_SEND ? SNET_WANT_DONE : 0));
	there = events_there(queue, events);
	if (there)
		snet_want(&queue->rings.control->front, 0);
	return there;
}

void vifront_disarm(struct vifront *front, unsigned number)
{
	int err;
	struct queue *queue = queue_of(front, number, &err);
	eventfd_t count;

	if (!queue)
		return;
	snet_want(&queue->rings.control->front, 0);
	eventfd_read(queue->call, &count);
}

int vifront_wait(struct vifront *front, unsigned number, unsigned events, int timeout_ms)
{
	int64_t end = (int64_t)front_now_ms() + timeout_ms;

	for (;;) {
		struct pollfd fds[2] = { { .fd = vifront_event_fd(front, number),
					   .events = POLLIN },
					 { .fd = vifront_socket_fd(front), .events = POLLIN } };
		int there = vifront_arm(front, number, events), got, err;
		int64_t left = timeout_ms < 0 ? -1 : end - (int64_t)front_now_ms();

		if (there)
			return there;
		got = poll(fds, 2, timeout_ms >= 0 && left < 0 ? 0 : (int)left);
		err = got < 0 ? -errno : 0;
		vifront_disarm(front, number);
		if (!err && fds[1].revents)
			err = vifront_attend(front);
		if (err || got == 0)
			return err;
	}
}
