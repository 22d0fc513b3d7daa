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
 * What the next burst will be written to is fetched from vifd's CPU at the end of this one.
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

/* So far ahead is fetched what is read or written next, from vifd's CPU. */
enum { ENTRIES_AHEAD = 16, BUFS_AHEAD = 32 };

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

/* The zone that the last entry was in: mostly the next one's, too. */
struct rx_zone {
	uint64_t id; /* UINT64_MAX: none yet */
	uint8_t *base;
};

/* Where len bytes at place, the first word of an entry, are. NULL: vifd's words make no sense. */
static inline void *place_data(struct vifront *front, struct rx_zone *last, uint64_t place,
			       uint32_t len)
{
	uint32_t id = place, offset = place >> 32;

	if (unlikely(id != last->id)) {
		struct zone *zone = zone_by_id(&front->space, id);

		if (!zone && vifront_attend(front) == 0) /* it was announced on the socket */
			zone = zone_by_id(&front->space, id);
		*last = zone ? (struct rx_zone){ id, zone->base } : (struct rx_zone){ UINT64_MAX };
	}
	if (unlikely(last->id != id || !zone_holds(offset, len))) {
		front_break(front, -EPROTO,
			    "vifd sent %u bytes at %u of zone %u, which do not exist", len, offset,
			    id);
		return NULL;
	}
	return last->base + offset;
}

/* Bytes from flags on are the same in both. */
static_assert(
	offsetof(struct snet_entry, len) == 8 && offsetof(struct snet_entry, id) == 12 &&
		offsetof(struct snet_entry, flags) == 16 &&
		offsetof(struct vifront_buf, len) == 8 && offsetof(struct vifront_buf, id) == 12 &&
		offsetof(struct vifront_buf, flags) == 16 &&
		offsetof(struct vifront_buf, gso_type) == offsetof(struct snet_entry, gso_type) &&
		offsetof(struct vifront_buf, gso_size) == offsetof(struct snet_entry, gso_size) &&
		offsetof(struct vifront_buf, csum_start) ==
			offsetof(struct snet_entry, csum_start) &&
		offsetof(struct vifront_buf, csum_offset) ==
			offsetof(struct snet_entry, csum_offset) &&
		sizeof(struct vifront_buf) == 24,
	"a buffer is an entry, but for the first of its three words");

int vifront_recv(struct vifront *front, unsigned number, struct vifront_buf *bufs, unsigned count)
{
	struct rx_zone zone = { UINT64_MAX };
	int err;
	struct queue *queue = queue_of(front, number, &err);
	unsigned there, whole = 0;

	if (unlikely(!queue))
		return err;

	const struct snet_rings rings = queue->rings;
	const uint32_t first = queue->rx_taken;

	there = snet_look(&rings.control->back.produced) - first;
	if (there == 0)
		return polled_in_vain(front, queue);
	if (unlikely(there > rings.mask + 1))
		return front_break(front, -EPROTO, "vifd sent more than the ring holds");
	if (count > there)
		count = there;
	for (unsigned i = 0; i < count; i++) {
		const uint64_t *words = (uint64_t *)snet_entry_at(&rings, rings.rx, first + i);
		uint64_t lengths = words[1], request = words[2];
		void *data = place_data(front, &zone, words[0], (uint32_t)lengths);

		if (unlikely(!data))
			return broken(front);
		__builtin_prefetch(data);
		__builtin_prefetch(snet_entry_at(&rings, rings.rx, first + i + ENTRIES_AHEAD));
		bufs[i].data = data;
		memcpy(&bufs[i].len, &lengths, sizeof(lengths));
		memcpy(&bufs[i].flags, &request, sizeof(request));
		if (likely(!(request & SNET_MORE)))
			whole = i + 1;
	}
	if (unlikely(whole == 0))
		return there > count ? -EMSGSIZE
				     : front_break(front, -EPROTO, "vifd sent half a frame");
	queue->rx_taken = first + whole;
	return whole;
}

void vifront_release(struct vifront *front, unsigned number, const struct vifront_buf *bufs,
		     unsigned count)
{
	int err;
	struct queue *queue = queue_of(front, number, &err);
	struct snet_rings *rings;
	uint32_t *rx_done, mask, at;

	if (unlikely(!queue) || count == 0)
		return;
	rings = &queue->rings;
	rx_done = rings->rx_done;
	mask = rings->mask;
	at = queue->rx_released;
	for (unsigned i = 0; i < count; i++)
		rx_done[at++ & mask] = bufs[i].id;
	queue->rx_released = at;
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
	const uint32_t *tx_done = queue->rings.tx_done, mask = queue->rings.mask;
	uint32_t given = snet_look(&queue->rings.control->back.given_back), at = queue->tx_done;
	uint32_t ids = queue->chunk_count * CHUNK_IDS, *small = queue->small;
	uint8_t *states = queue->states;
	unsigned small_count = queue->small_count;

	if (unlikely(given - at > queue->tx_produced - at))
		return front_break(front, -EPROTO, "vifd gave back more than it had");
	for (; at != given; at++) {
		uint32_t id = tx_done[at & mask];

		if (unlikely(id >= ids || states[id] != BUF_SENT))
			return front_break(front, -EPROTO, "vifd gave back what it did not have");
		states[id] = BUF_FREE;
		if (likely(id % CHUNK_IDS != CHUNK_WHOLE))
			small[small_count++] = id;
		else
			queue->large[queue->large_count++] = id;
	}
	queue->small_count = small_count;
	queue->tx_done = at;
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

static inline uint8_t *small_base(const struct chunk *chunks, uint32_t id)
{
	return chunks[id / CHUNK_IDS].base + id % CHUNK_IDS * VIFRONT_BUF_SMALL;
}

/* Hand out the last count of those that are free. */
static void hand_out(const struct queue *queue, const uint32_t *ids_end, bool is_small,
		     struct vifront_buf *bufs, unsigned count)
{
	const struct chunk *chunks = queue->chunks;
	uint8_t *states = queue->states;

	for (unsigned i = 0; i < count; i++) {
		uint32_t id = *--ids_end;

		states[id] = BUF_HELD;
		bufs[i] = (struct vifront_buf){
			.data = is_small ? small_base(chunks, id) : chunks[id / CHUNK_IDS].base,
			.len = is_small ? VIFRONT_BUF_SMALL : VIFRONT_BUF_LARGE,
			.id = id,
		};
	}
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
	hand_out(queue, ids + *left, is_small, bufs, count);
	*left -= count;
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

/* Does the program hold it, and does it say something that lies within it? *place: where, as the
 * first word of an entry. */
static inline bool is_sendable(const struct queue *queue, const struct vifront_buf *buf,
			       uint64_t *place)
{
	const struct chunk *chunk = &queue->chunks[buf->id / CHUNK_IDS];
	uint32_t which = buf->id % CHUNK_IDS, size = VIFRONT_BUF_SMALL, len = buf->len;
	uint32_t base = which * VIFRONT_BUF_SMALL;
	uint64_t off;

	if (!is_held(queue, buf))
		return false;
	if (unlikely(which == CHUNK_WHOLE)) {
		base = 0;
		size = VIFRONT_BUF_LARGE;
	}
	off = (uintptr_t)buf->data - (uintptr_t)chunk->base;
	*place = chunk->zone | (chunk->offset + off) << 32;
	return likely(off - base < size && len - 1 < size - (uint32_t)(off - base));
}

/* Buffers of the frame that begins at bufs, one of count; 0: it has no end. */
static inline unsigned frame_bufs(const struct vifront_buf *bufs, unsigned count)
{
	if (count > VIFRONT_FRAME_BUFS)
		count = VIFRONT_FRAME_BUFS;
	for (unsigned i = 0; i < count; i++) {
		if (likely(!(bufs[i].flags & VIFRONT_MORE)))
			return i + 1;
	}
	return 0;
}

/* Send a buffer, not visible before it is published. False: it cannot be. */
static inline bool put_entry(const struct queue *queue, const struct snet_rings *rings,
			     uint32_t index, const struct vifront_buf *buf)
{
	uint64_t *words = (uint64_t *)snet_entry_at(rings, rings->tx, index), place;

	if (unlikely(!is_sendable(queue, buf, &place)))
		return false;
	words[0] = place;
	memcpy(&words[1], &buf->len, sizeof(words[1]));
	memcpy(&words[2], &buf->flags, sizeof(words[2]));
	queue->states[buf->id] = BUF_SENT;
	return true;
}

/* Send a frame of count buffers. False: it cannot be, and nothing of it is. */
static inline bool put_frame(const struct queue *queue, const struct snet_rings *rings,
			     uint32_t index, const struct vifront_buf *bufs, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (likely(put_entry(queue, rings, index + i, &bufs[i])))
			continue;
		while (i-- > 0)
			queue->states[bufs[i].id] = BUF_HELD;
		return false;
	}
	return true;
}

/* What the next burst will be written to. */
static void prefetch_next(const struct queue *queue)
{
	unsigned n = queue->small_count < BUFS_AHEAD ? queue->small_count : BUFS_AHEAD;
	const uint32_t *ids = queue->small + queue->small_count - n;
	const struct snet_rings *rings = &queue->rings;

	for (unsigned i = 0; i < n; i++)
		__builtin_prefetch(small_base(queue->chunks, ids[i]), 1);
	for (unsigned i = 0; i < BUFS_AHEAD; i += 64 / SNET_ENTRY_MIN)
		__builtin_prefetch(snet_entry_at(rings, rings->tx, queue->tx_produced + i), 1);
}

int vifront_send(struct vifront *front, unsigned number, const struct vifront_buf *bufs,
		 unsigned count)
{
	int err;
	struct queue *queue = queue_of(front, number, &err);
	unsigned room, sent = 0;
	bool wrong = false;

	if (likely(queue))
		err = reap(front, queue);
	if (unlikely(err))
		return err;

	const struct snet_rings rings = queue->rings;
	const uint32_t first = queue->tx_produced;

	room = rings.mask + 1 - (first - queue->tx_done);
	while (sent < count) {
		unsigned frame = frame_bufs(bufs + sent, count - sent);

		wrong = frame == 0;
		if (wrong || frame > room - sent)
			break;
		wrong = !put_frame(queue, &rings, first + sent, bufs + sent, frame);
		if (wrong)
			break;
		sent += frame;
	}
	if (unlikely(sent == 0))
		return wrong ? -EINVAL : polled_in_vain(front, queue);
	queue->tx_produced = first + sent;
	snet_publish(&rings.control->front.produced, queue->tx_produced);
	wake(queue, SNET_WANT_ENTRIES);
	prefetch_next(queue);
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
