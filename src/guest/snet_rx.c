/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a front end receives (S14, Figs 7 and 8): into zones of its own by one copy, or where it lies
 * already by none.
 *
 * Theory of operation
 *
 * trust=isolated. Buffers lie in zones that this guest alone can read. Each id has a small one of its
 * own, for good: where it is follows from the id, and returning the id returns it. Larger ones, in
 * two sizes, come from the worker's cache (zone/slab.c). A packet goes into one of them, the largest
 * into two; when those of 64 KiB are used up, into as many small ones as it takes.
 *
 *      packet  header[] | frag | frag        -->  | 256 B |  or  | 2 KiB |  or  | 64 KiB  | + | rest |
 *
 * trust=shared. Fragments that lie in zones which the front end has been told of, another shared
 * guest's or an uplink's, stay there: the entry names their place, the packet gets an owner more
 * for each, and loses it when the id returns (S14, steps 4 and 9). Only the private header, which
 * may have been changed on its way, is copied, into the id's own buffer. Everything else is copied
 * as above.
 *
 *      packet  header[]     --copied-->  | 256 B |
 *              frags[0], zone 7      entry (7, off, len), id 12;   out[12] = packet
 *              frags[1], zone 9      entry (9, off, len), id 11;   out[11] = packet
 *
 * What a front end does not return it does not get again: its ids, its zones and the packets that
 * it may have out by reference are limited. Without references left it is copied to, and when the
 * ring is three quarters full, for a copy takes fewer places (S22); without buffers or ids left,
 * packets for it are dropped.
 *
 * What came back is looked at when it is missed: at once where more than ids' own buffers is out, else
 * when a quarter of the ids is, or after some polls.
 */
#include <string.h>

#include "guest/snet.h"
#include "guest/snet_remap.h"
#include "port/worker.h"

#define INLINE inline __attribute__((always_inline))

/* What an id that is out stands for: a buffer of a slab, by its address; a packet that it has a share
 * of, by its address and this bit; nothing of ours any more; the buffer that is its own for good. */
enum { OUT_PACKET = 1, OUT_NOTHING = 2, OUT_OWN = 4 };

/* How many references to packets each worker has out. */
static struct {
	unsigned count;
} __attribute__((aligned(64))) worker_references[WORKERS_MAX];

/* Buffers on their way back, given up in one go. */
struct returned {
	unsigned count;
	void *bufs[SLAB_BULK];
};

static void give_up(struct snet *snet, unsigned worker, struct returned *returned)
{
	if (unlikely(snet->remap))
		snet_remap_back(snet, returned->bufs, returned->count);
	slab_put(snet->space, worker, returned->bufs, returned->count);
	returned->count = 0;
}

/* An id stands for more than a buffer of its own no longer. */
static void end_lent(struct snet_queue *queue, uintptr_t what, unsigned worker,
		     struct returned *returned)
{
	queue->lent--;
	if (what & OUT_PACKET) {
		queue->references--;
		worker_references[worker].count--;
		pkt_put((struct pkt *)(what & ~(uintptr_t)OUT_PACKET));
	} else if (what == OUT_NOTHING) {
		queue->orphans--;
	} else {
		returned->bufs[returned->count++] = (void *)what;
	}
}

/* Where a buffer lies, as the first word of its entry has it. */
static inline uint64_t place_of(const struct zone_space *space, const void *addr)
{
	const struct zone *zone = zone_of(space, addr);

	return zone_id(zone) | (uint64_t)zone_offset(zone, addr) << 32;
}

void snet_rx_start(const struct snet *snet, struct snet_queue *queue, uint8_t *own)
{
	queue->own = own;
	queue->own_place = place_of(snet->space, own);
}

/* The buffer that an id owns, and its place. */
static inline uint8_t *own_of(const struct snet_queue *queue, uint32_t id)
{
	return queue->own + (size_t)id * SNET_OWN_BYTES;
}

static inline uint64_t own_place(const struct snet_queue *queue, uint32_t id)
{
	return queue->own_place + ((uint64_t)id * SNET_OWN_BYTES << 32);
}

/* ---- returns ---- */

void snet_rx_take_back(struct snet *snet, struct snet_queue *queue)
{
	const struct snet_rings *rings = &queue->rings;
	uint32_t end = snet_look(&rings->control->front.given_back), at = queue->rx_returned;
	uint32_t *rx_done = rings->rx_done, mask = rings->mask, *ids = queue->ids;
	unsigned count = queue->id_count;
	uintptr_t *out = queue->out;
	struct returned returned;

	queue->polls = 0;
	if (end == at)
		return;
	if (unlikely(end - at > mask + 1 - count)) {
		snet_break(snet, queue, SNET_DONE_JUMPED);
		return;
	}
	returned.count = 0;
	for (; at != end; at++) {
		uint32_t id = __atomic_load_n(&rx_done[at & mask], __ATOMIC_RELAXED);
		uintptr_t what = id <= mask ? out[id] : 0;

		if (unlikely(what != OUT_OWN)) {
			if (!what) {
				snet_break(snet, queue, SNET_BAD_ID);
				break;
			}
			end_lent(queue, what, worker_self->id, &returned);
			if (returned.count == SLAB_BULK)
				give_up(snet, worker_self->id, &returned);
		}
		out[id] = 0;
		ids[count++] = id;
	}
	queue->rx_returned = at;
	queue->id_count = count;
	give_up(snet, worker_self->id, &returned);
}

void snet_rx_reclaim(struct snet *snet, struct snet_queue *queue)
{
	struct worker *self = worker_self, *worker = queue->worker;
	struct returned returned = { 0 };

	worker_self = worker;
	for (uint32_t id = 0; id <= queue->rings.mask; id++) {
		uintptr_t what = queue->out[id];

		if (!what)
			continue;
		if (what != OUT_OWN)
			end_lent(queue, what, worker->id, &returned);
		if (returned.count == SLAB_BULK)
			give_up(snet, worker->id, &returned);
		queue->out[id] = 0;
		queue->ids[queue->id_count++] = id;
	}
	give_up(snet, worker->id, &returned);
	worker_complete(worker);
	worker_self = self;
}

void snet_rx_let_go(struct snet_queue *queue, const struct port *from)
{
	struct worker *self = worker_self, *worker = queue->worker;

	worker_self = worker;
	for (uint32_t id = 0; id <= queue->rings.mask; id++) {
		struct pkt *pkt = (struct pkt *)(queue->out[id] & ~(uintptr_t)OUT_PACKET);

		if (!(queue->out[id] & OUT_PACKET) || pkt->in_port != from->id)
			continue;
		/* the front end keeps its own mapping of that zone, and the id */
		queue->out[id] = OUT_NOTHING;
		queue->orphans++;
		queue->references--;
		worker_references[worker->id].count--;
		pkt_put(pkt);
	}
	worker_complete(worker);
	worker_self = self;
}

/* ---- entries ---- */

/*
 * What the packet asks of its receiver, as its first entry says it: the word of flags, GSO and
 * checksum. It is put together in a register, as everything that goes into an entry.
 */
static uint64_t request_of(const struct snet *snet, const struct pkt *pkt)
{
	const struct pkt_offload *offload = &pkt->offload;
	uint64_t asks, flags = 0, request = 0;

	memcpy(&asks, offload, sizeof(asks));
	if (likely(asks == 0) || !(snet->port.caps & PORT_CAP_CSUM))
		return 0;
	if (offload->flags & PKT_CSUM_PARTIAL) {
		flags = SNET_CSUM_PARTIAL;
		request = (uint64_t)offload->csum_start << 32 | (uint64_t)offload->csum_offset
									<< 48;
	} else if (offload->flags & PKT_CSUM_VALID) {
		flags = SNET_CSUM_VALID;
	}
	if (offload->gso_type != PKT_GSO_NONE) {
		flags |= offload->flags & PKT_GSO_ECN ? SNET_GSO_ECN : 0;
		request |= (uint64_t)offload->gso_type << 8 | (uint64_t)offload->gso_size << 16;
	}
	return request | flags;
}

static_assert(offsetof(struct snet_entry, flags) == 16 &&
		      offsetof(struct snet_entry, gso_type) == 17 &&
		      offsetof(struct snet_entry, gso_size) == 18 &&
		      offsetof(struct snet_entry, csum_start) == 20 &&
		      offsetof(struct snet_entry, csum_offset) == 22,
	      "the third word, little endian");

/*
 * Write an entry of the ring: not visible before it is published. place: of the bytes; request: its
 * third word, of the packet's first entry what request_of() says, and SNET_MORE. The fourth stays as
 * it was made, 0.
 */
static inline void write_entry(struct snet_entry *entry, uint32_t id, uint64_t request,
			       uint64_t place, uint32_t len)
{
	uint64_t *words = (uint64_t *)entry;

	words[0] = place;
	words[1] = len | (uint64_t)id << 32;
	words[2] = request;
}

static struct snet_entry *next_entry(struct snet_queue *queue)
{
	return snet_entry_at(&queue->rings, queue->rings.rx, queue->rx_put++);
}

/* An entry for bytes that lie at addr. */
static void put_lent(struct snet *snet, struct snet_queue *queue, uint64_t request,
		     const void *addr, uint32_t len, uintptr_t what)
{
	uint32_t id = queue->ids[--queue->id_count];

	queue->out[id] = what;
	queue->lent++;
	write_entry(next_entry(queue), id, request, place_of(snet->space, addr), len);
}

/* One for bytes in the buffer that the next id owns. Returns that, for len bytes to be written to. */
static uint8_t *put_own(struct snet_queue *queue, uint64_t request, uint32_t len)
{
	uint32_t id = queue->ids[--queue->id_count];

	queue->out[id] = OUT_OWN;
	write_entry(next_entry(queue), id, request, own_place(queue, id), len);
	return own_of(queue, id);
}

/* ---- by reference ---- */

/* Does a fragment lie in one zone that the front end knows? */
static bool is_known(const struct snet *snet, const struct iovec *frag)
{
	const struct zone *zone = zone_of(snet->space, frag->iov_base);
	uint32_t id;

	if (!zone)
		return false;
	id = zone_id(zone);
	return atomic_load_explicit(&snet->session->announced[id % ZONES_MAX],
				    memory_order_acquire) == id &&
	       frag->iov_len > 0 && zone_holds(zone_offset(zone, frag->iov_base), frag->iov_len);
}

static bool may_refer(const struct snet *snet, const struct snet_queue *queue,
		      const struct pkt *pkt)
{
	unsigned count = pkt->frag_count, places = queue->rings.mask + 1;

	if (count == 0 || count >= SNET_PACKET_ENTRIES || pkt->refs > UINT16_MAX / 2 ||
	    queue->id_count < count + 1 + places / 4 ||
	    queue->references + count > SNET_REFERENCES_MAX ||
	    worker_references[worker_self->id].count + count > SNET_WORKER_REFERENCES_MAX)
		return false;
	for (unsigned i = 0; i < count; i++) {
		if (!is_known(snet, &pkt->frags[i]))
			return false;
	}
	return true;
}

/* The packet goes as it lies, but for its header. NULL, or the counter of why it could not. */
static uint64_t *put_by_reference(struct snet *snet, struct snet_queue *queue, struct pkt *pkt,
				  struct port_stats *stats)
{
	uint64_t request = request_of(snet, pkt);
	unsigned count = pkt->frag_count;

	if (unlikely(queue->id_count < count + (pkt->header_len > 0)))
		return &stats->drop_queue_full;
	if (likely(pkt->header_len > 0)) {
		memcpy(put_own(queue, request | SNET_MORE, pkt->header_len), pkt->header,
		       pkt->header_len);
		request = 0;
	}
	for (unsigned i = 0; i < count; i++, request = 0)
		put_lent(snet, queue, request | (i + 1 < count ? SNET_MORE : 0),
			 pkt->frags[i].iov_base, pkt->frags[i].iov_len,
			 (uintptr_t)pkt | OUT_PACKET);
	pkt->refs += count;
	queue->references += count;
	worker_references[worker_self->id].count += count;
	stats->referenced_packets++;
	return NULL;
}

static_assert((int)PKT_HEADER_MAX <= (int)SNET_OWN_BYTES, "a header fits the smallest buffer");

/* ---- by copy ---- */

/* The buffer for len bytes or the first of them, NULL: the next id's own (which has no pages to itself
 * that could be mapped). Returns how many it takes, 0: there is none. */
static uint32_t take_buf(struct snet *snet, unsigned worker, uint32_t len, void **buf)
{
	*buf = NULL;
	if (len <= SNET_OWN_BYTES && likely(!snet->remap))
		return len;
	if (len <= SNET_SMALL_BYTES && slab_get(snet->slabs[SNET_SMALL], worker, buf, 1))
		return len;
	if (slab_get(snet->slabs[SNET_LARGE], worker, buf, 1))
		return len < SNET_LARGE_BYTES ? len : SNET_LARGE_BYTES;
	if (len > SNET_SMALL_BYTES && slab_get(snet->slabs[SNET_SMALL], worker, buf, 1))
		return SNET_SMALL_BYTES;
	return 0;
}

/* NULL, or the counter of why it could not be. */
static INLINE uint64_t *put_copy(struct snet *snet, struct snet_queue *queue, struct pkt *pkt,
				 struct port_stats *stats, bool remap)
{
	uint64_t request = request_of(snet, pkt);
	struct iovec bufs[SNET_PACKET_ENTRIES];
	unsigned worker = worker_self->id, count = 0;
	uint64_t *why = NULL;

	for (uint32_t left = pkt->len; left > 0; left -= bufs[count - 1].iov_len) {
		struct iovec *buf = &bufs[count];

		if (unlikely(count == queue->id_count || count == SNET_PACKET_ENTRIES)) {
			why = &stats->drop_queue_full;
			break;
		}
		buf->iov_len = take_buf(snet, worker, left, &buf->iov_base);
		if (unlikely(!buf->iov_len)) {
			why = &stats->drop_no_buffers;
			break;
		}
		count++;
	}
	if (unlikely(why)) {
		for (unsigned i = 0; i < count; i++)
			slab_put(snet->space, worker, &bufs[i].iov_base, bufs[i].iov_base != NULL);
		return why;
	}
	for (uint32_t i = 0, off = 0; i < count; off += bufs[i++].iov_len) {
		uint64_t word = request | (i + 1 < count ? SNET_MORE : 0);
		uint32_t len = bufs[i].iov_len;
		void *buf = bufs[i].iov_base;

		if (buf)
			put_lent(snet, queue, word, buf, len, (uintptr_t)buf);
		else
			buf = put_own(queue, word, len);
		if (remap)
			snet_remap_out(snet, pkt, off, buf, len);
		else
			pkt_copy_out(pkt, off, buf, len);
		request = 0;
	}
	stats->copied_bytes += pkt->len - pkt->header_len;
	return NULL;
}

/* The whole of a packet that fits the smallest buffers. */
static inline void copy_small(const struct pkt *pkt, uint8_t *to)
{
	const uint8_t *from = pkt->header;
	uint32_t len = pkt->len;

	if (unlikely(pkt->header_len != len)) {
		if (pkt->header_len != 0 || pkt->frag_count != 1) {
			pkt_copy_out(pkt, 0, to, len);
			return;
		}
		from = pkt->frags[0].iov_base;
	}
	if (likely(len >= 32 && len <= 64)) { /* the two may overlap */
		memcpy(to, from, 32);
		memcpy(to + len - 32, from + len - 32, 32);
	} else {
		memcpy(to, from, len);
	}
}

/*
 * Those packets in front of a burst that fit the buffers of ids, but for those that go by reference:
 * to copy no more than a header costs less. Returns how many they are. put_own() for many: what is in
 * the queue stays in registers.
 */
static unsigned put_small(struct snet *snet, struct snet_queue *queue, struct pkt **pkts,
			  unsigned n, struct port_stats *stats)
{
	const struct snet_rings rings = queue->rings;
	const uint32_t *ids = queue->ids + queue->id_count;
	const uint16_t refer = snet->shared ? UINT16_MAX : 0;
	const uint64_t own_place = queue->own_place;
	uint64_t bytes = 0, headers = 0, gso = 0;
	uint8_t *own = queue->own;
	uintptr_t *out = queue->out;
	uint32_t at = queue->rx_put;
	unsigned count = 0;

	if (n > queue->id_count)
		n = queue->id_count;
	for (; count < n; count++) {
		const struct pkt *pkt = pkts[count];
		uint32_t len = pkt->len, id;
		uint64_t request, off;

		if (len > SNET_OWN_BYTES || (len > PKT_HEADER_FAST && pkt->frag_count & refer))
			break;
		request = request_of(snet, pkt);
		if (unlikely(request))
			gso += pkt->offload.gso_type != PKT_GSO_NONE;
		id = *--ids;
		off = (uint64_t)id * SNET_OWN_BYTES;
		out[id] = OUT_OWN;
		write_entry(snet_entry_at(&rings, rings.rx, at++), id, request,
			    own_place + (off << 32), len);
		copy_small(pkt, own + off);
		bytes += len;
		headers += pkt->header_len;
	}
	queue->rx_put = at;
	queue->id_count -= count;
	stats->send_packets += count;
	stats->send_bytes += bytes;
	stats->send_gso_packets += gso;
	stats->copied_bytes += bytes - headers;
	return count;
}

/*
 * What the next burst will be written to, on its way from the front end's CPU already while that
 * burst is read: otherwise the fences before its wake-ups wait for all of it.
 */
static void prefetch_next(const struct snet_queue *queue)
{
	unsigned n = queue->id_count < PKT_BURST ? queue->id_count : PKT_BURST;
	const uint32_t *ids = queue->ids + queue->id_count - n;
	const struct snet_rings *rings = &queue->rings;

	for (unsigned i = 0; i < n; i++)
		__builtin_prefetch(own_of(queue, ids[i]), 1);
	for (unsigned i = 0; i < PKT_BURST; i += 64 / SNET_ENTRY_MIN)
		__builtin_prefetch(snet_entry_at(rings, rings->rx, queue->rx_put + i), 1);
}

/* remap is known when this is compiled, which is done once for each. */
static INLINE void put_burst(struct snet *snet, struct snet_queue *queue, struct pkt **pkts,
			     unsigned n, bool remap)
{
	struct port_stats *stats = port_stats(&snet->port);

	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt;
		uint64_t *why;

		if (!remap)
			i += put_small(snet, queue, pkts + i, n - i, stats);
		if (i == n)
			break;
		pkt = pkts[i];
		why = snet->shared && may_refer(snet, queue, pkt)
			      ? put_by_reference(snet, queue, pkt, stats)
			      : put_copy(snet, queue, pkt, stats, remap);
		if (unlikely(why)) {
			(*why)++;
			continue;
		}
		stats->send_packets++;
		stats->send_bytes += pkt->len;
		stats->send_gso_packets += pkt->offload.gso_type != PKT_GSO_NONE;
	}
}

void snet_rx_put(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n)
{
	uint32_t before = queue->rx_put;

	if (queue->lent || unlikely(queue->id_count < n))
		snet_rx_take_back(snet, queue);
	if (unlikely(snet->remap))
		put_burst(snet, queue, pkts, n, true);
	else
		put_burst(snet, queue, pkts, n, false);
	if (queue->rx_put == before)
		return;
	snet_publish(&queue->rings.control->back.produced, queue->rx_put);
	queue->tell_put = true;
	worker_need_flush(worker_self, &snet->port);
	prefetch_next(queue);
}
