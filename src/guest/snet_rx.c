/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a front end receives (S14, Figs 7 and 8): into zones of its own by one copy, or where it lies
 * already by none.
 *
 * Theory of operation
 *
 * trust=isolated. Buffers come from zones that this guest alone can read, in three sizes, from the
 * worker's cache (zone/slab.c). A packet goes into one of them, the largest into two; when those
 * of 64 KiB are used up, into as many small ones as it takes.
 *
 *      packet  header[] | frag | frag        -->  | 2 KiB |   or   | 64 KiB          | + | rest |
 *
 * trust=shared. Fragments that lie in zones which the front end has been told of, another shared
 * guest's or an uplink's, stay there: the entry names their place, the packet gets an owner more
 * for each, and loses it when the id returns (S14, steps 4 and 9). Only the private header, which
 * may have been changed on its way, is copied, into the smallest buffer. Everything else is copied
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
 */
#include <string.h>

#include "guest/snet.h"
#include "guest/snet_remap.h"
#include "port/worker.h"

#define INLINE inline __attribute__((always_inline))

/* What an id stands for, besides a buffer: a packet that it owns a share of, or nothing of ours. */
enum { OUT_PACKET = 1, OUT_NOTHING = 2 };

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

/* An id returns, or is taken back. */
static void end_out(struct snet *snet, struct snet_queue *queue, unsigned worker, uint32_t id,
		    struct returned *returned)
{
	uintptr_t what = queue->out[id];

	queue->out[id] = 0;
	queue->ids[queue->id_count++] = id;
	if (what & OUT_PACKET) {
		queue->references--;
		worker_references[worker].count--;
		pkt_put((struct pkt *)(what & ~(uintptr_t)OUT_PACKET));
	} else if (what == OUT_NOTHING) {
		queue->orphans--;
	} else {
		returned->bufs[returned->count++] = (void *)what;
		if (returned->count == SLAB_BULK)
			give_up(snet, worker, returned);
	}
}

void snet_rx_take_back(struct snet *snet, struct snet_queue *queue)
{
	const struct snet_rings *rings = &queue->rings;
	uint32_t end = snet_look(&rings->control->front.given_back);
	struct returned returned;

	if (end == queue->rx_returned)
		return;
	if (unlikely(end - queue->rx_returned > rings->mask + 1 - queue->id_count)) {
		snet_break(snet, queue, SNET_DONE_JUMPED);
		return;
	}
	returned.count = 0;
	while (queue->rx_returned != end) {
		uint32_t id = __atomic_load_n(&rings->rx_done[queue->rx_returned & rings->mask],
					      __ATOMIC_RELAXED);

		if (unlikely(id > rings->mask || !queue->out[id])) {
			snet_break(snet, queue, SNET_BAD_ID);
			break;
		}
		queue->rx_returned++;
		end_out(snet, queue, worker_self->id, id, &returned);
	}
	give_up(snet, worker_self->id, &returned);
}

void snet_rx_reclaim(struct snet *snet, struct snet_queue *queue)
{
	struct worker *self = worker_self, *worker = queue->worker;
	struct returned returned = { 0 };

	worker_self = worker;
	for (uint32_t id = 0; id <= queue->rings.mask; id++) {
		if (queue->out[id])
			end_out(snet, queue, worker->id, id, &returned);
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

/* Write the packet's next entry into the ring: not visible before it is published. request: its
 * third word, of the packet's first entry what request_of() says, and SNET_MORE. */
static void put_entry(struct snet *snet, struct snet_queue *queue, uint64_t request,
		      const void *addr, uint32_t len, uintptr_t what)
{
	const struct snet_rings *rings = &queue->rings;
	uint64_t *words = (uint64_t *)snet_entry_at(rings, rings->rx, queue->rx_put++);
	const struct zone *zone = zone_of(snet->space, addr);
	uint32_t id = queue->ids[--queue->id_count];

	queue->out[id] = what;
	words[0] = zone_id(zone) | (uint64_t)zone_offset(zone, addr) << 32;
	words[1] = len | (uint64_t)id << 32;
	words[2] = request;
	words[3] = 0;
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
	unsigned worker = worker_self->id, count = pkt->frag_count;
	void *buf;

	if (unlikely(queue->id_count < count + (pkt->header_len > 0)))
		return &stats->drop_queue_full;
	if (likely(pkt->header_len > 0)) {
		if (unlikely(!slab_get(snet->slabs[SNET_TINY], worker, &buf, 1)))
			return &stats->drop_no_buffers;
		memcpy(buf, pkt->header, pkt->header_len);
		put_entry(snet, queue, request | SNET_MORE, buf, pkt->header_len, (uintptr_t)buf);
		request = 0;
	}
	for (unsigned i = 0; i < count; i++, request = 0)
		put_entry(snet, queue, request | (i + 1 < count ? SNET_MORE : 0),
			  pkt->frags[i].iov_base, pkt->frags[i].iov_len,
			  (uintptr_t)pkt | OUT_PACKET);
	pkt->refs += count;
	queue->references += count;
	worker_references[worker].count += count;
	stats->referenced_packets++;
	return NULL;
}

static_assert((int)PKT_HEADER_MAX <= (int)SNET_TINY_BYTES, "a header fits the smallest buffer");

/* ---- by copy ---- */

static const uint32_t class_bytes[SNET_CLASSES] = {
	[SNET_TINY] = SNET_TINY_BYTES,
	[SNET_SMALL] = SNET_SMALL_BYTES,
	[SNET_LARGE] = SNET_LARGE_BYTES,
};

/* A buffer for len bytes or the first of them; how many it takes, 0: there is none. */
static uint32_t take_buf(struct snet *snet, unsigned worker, uint32_t len, void **buf)
{
	enum snet_class class = SNET_TINY;

	while (class < SNET_LARGE && class_bytes[class] < len)
		class ++;
	for (; class < SNET_CLASSES; class ++) {
		if (likely(slab_get(snet->slabs[class], worker, buf, 1)))
			return len < class_bytes[class] ? len : class_bytes[class];
	}
	if (len > SNET_SMALL_BYTES && slab_get(snet->slabs[SNET_SMALL], worker, buf, 1))
		return SNET_SMALL_BYTES;
	return 0;
}

static void copy(const struct pkt *pkt, uint32_t off, void *buf, uint32_t len)
{
	if (likely(pkt->header_len == PKT_HEADER_FAST && len == PKT_HEADER_FAST && off == 0))
		memcpy(buf, pkt->header, PKT_HEADER_FAST);
	else
		pkt_copy_out(pkt, off, buf, len);
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
			slab_put(snet->space, worker, &bufs[i].iov_base, 1);
		return why;
	}
	for (uint32_t i = 0, off = 0; i < count; off += bufs[i++].iov_len) {
		if (remap)
			snet_remap_out(snet, pkt, off, bufs[i].iov_base, bufs[i].iov_len);
		else
			copy(pkt, off, bufs[i].iov_base, bufs[i].iov_len);
		put_entry(snet, queue, request | (i + 1 < count ? SNET_MORE : 0), bufs[i].iov_base,
			  bufs[i].iov_len, (uintptr_t)bufs[i].iov_base);
		request = 0;
	}
	stats->copied_bytes += pkt->len - pkt->header_len;
	return NULL;
}

/* Those packets in front of a burst that fit the smallest buffers, which are got at once. Returns
 * how many they are. */
static unsigned put_tiny(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n,
			 struct port_stats *stats)
{
	uint64_t bytes = 0, copied = 0, gso = 0;
	void *bufs[PKT_BURST];
	unsigned count = 0;

	if (n > PKT_BURST)
		n = PKT_BURST;
	if (n > queue->id_count)
		n = queue->id_count;
	while (count < n && pkts[count]->len <= SNET_TINY_BYTES)
		count++;
	count = slab_get(snet->slabs[SNET_TINY], worker_self->id, bufs, count);
	for (unsigned i = 0; i < count; i++) {
		const struct pkt *pkt = pkts[i];

		copy(pkt, 0, bufs[i], pkt->len);
		put_entry(snet, queue, request_of(snet, pkt), bufs[i], pkt->len,
			  (uintptr_t)bufs[i]);
		bytes += pkt->len;
		copied += pkt->len - pkt->header_len;
		gso += pkt->offload.gso_type != PKT_GSO_NONE;
	}
	stats->send_packets += count;
	stats->send_bytes += bytes;
	stats->send_gso_packets += gso;
	stats->copied_bytes += copied;
	return count;
}

/*
 * What the next burst will be written to, on its way from the front end's CPU already while that
 * burst is read: otherwise the fences before its wake-ups wait for all of it.
 */
static void prefetch_next(const struct snet *snet, const struct snet_queue *queue)
{
	slab_prefetch(snet->slabs[SNET_TINY], worker_self->id, PKT_BURST);
	for (unsigned i = 0; i < PKT_BURST; i += 64 / SNET_ENTRY_MIN)
		__builtin_prefetch(snet_entry_at(&queue->rings, queue->rings.rx, queue->rx_put + i),
				   1);
}

/* remap is known when this is compiled, which is done once for each. */
static INLINE void put_burst(struct snet *snet, struct snet_queue *queue, struct pkt **pkts,
			     unsigned n, bool remap)
{
	struct port_stats *stats = port_stats(&snet->port);
	unsigned tiny = snet->shared || remap ? 0 : put_tiny(snet, queue, pkts, n, stats);

	for (unsigned i = tiny; i < n; i++) {
		struct pkt *pkt = pkts[i];
		uint64_t *why = snet->shared && may_refer(snet, queue, pkt)
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

	if (queue->id_count < n)
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
	snet_rx_take_back(snet, queue);
	prefetch_next(snet, queue);
}
