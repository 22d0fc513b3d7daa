/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a front end sends (S13, Fig 6): from its zones to whoever gets it, without a look at the
 * payload.
 *
 * Theory of operation, in two passes over a burst, as for virtio. Pass 1 (stage channel): one
 * acquire load of the index; each entry is read once, into private memory, its place looked up and
 * prefetched. Pass 2 (stage header): the first 64 bytes are copied to the packet's private header
 * (M11), which is SETH's pseudo header, and what the entry asks for is judged by them; everything
 * else stays where it is, as fragments.
 *
 *      entry:  zone, offset, len      | frame 0..63 | frame 64..        |
 *                                       -> pkt.header  pkt.frags[0] -> here, in the zone
 *
 * When the last owner of a packet lets go of it the ids of its entries go into tx_done: that is
 * when it has been sent (S13, step 8), not when it was read.
 *
 * What lies about where it is or how much breaks the queue: no driver does that by accident. A
 * packet with nonsense in it is dropped and counted, and its buffers given back.
 */
#include "guest/snet.h"

#include <string.h>

#include "guest/snet_remap.h"
#include "pkt/headers.h"
#include "port/worker.h"

/* What a packet's first entry asks for. */
struct tx_request {
	uint64_t word; /* flags, GSO and checksum, as they lie in the entry */
	bool cut;      /* more fragments than there was room for */
};

/* An entry, each word read once, into registers. */
struct tx_entry {
	uint32_t zone, offset, len, id;
	uint64_t request; /* struct snet_entry from flags on */
};

static inline struct tx_entry entry_read(const struct snet_rings *rings, uint32_t index)
{
	const uint64_t *words = (const uint64_t *)snet_entry_at(rings, rings->tx, index);
	uint64_t place = __atomic_load_n(&words[0], __ATOMIC_RELAXED);
	uint64_t buffer = __atomic_load_n(&words[1], __ATOMIC_RELAXED);

	return (struct tx_entry){ (uint32_t)place, place >> 32, (uint32_t)buffer, buffer >> 32,
				  __atomic_load_n(&words[2], __ATOMIC_RELAXED) };
}

static_assert(offsetof(struct snet_entry, offset) == 4 && offsetof(struct snet_entry, id) == 12 &&
		      offsetof(struct snet_entry, flags) == 16,
	      "three words, little endian");

/* Add an entry's buffer to the packet's fragments. */
static inline enum snet_error take_buffer(struct snet_queue *queue, const struct tx_entry *entry,
					  struct pkt *pkt, bool *cut)
{
	uint8_t *data = zone_group_at(queue->session->tx, entry->zone, entry->offset, entry->len);

	if (unlikely(!data))
		return SNET_BAD_BUFFER;
	if (unlikely(entry->len == 0))
		return SNET_EMPTY_BUFFER;
	__builtin_prefetch(data);
	if (entry->len > 64)
		__builtin_prefetch(data + 64);
	pkt->len += entry->len;
	if (unlikely(pkt->frag_count == PKT_INLINE_FRAGS && pkt->frags == pkt->inline_frags) &&
	    !pkt_take_frag_block(&worker_self->pool, pkt)) {
		*cut = true;
		return SNET_OK;
	}
	pkt->frags[pkt->frag_count++] = (struct iovec){ data, entry->len };
	return SNET_OK;
}

static_assert((int)SNET_PACKET_ENTRIES <= (int)PKT_FRAGS_MAX, "a block holds them");

/*
 * What a packet's cookie says: the id of its first entry, and the chain of the others' (link in the
 * upper half). There are as many links as there can be entries with us.
 */
static void cookie_add(struct snet_queue *queue, struct pkt *pkt, uint32_t id)
{
	uint32_t link = queue->tx_rest_free;
	struct snet_rest *rest = &queue->tx_rest[link - 1];

	queue->tx_rest_free = rest->next;
	*rest = (struct snet_rest){ id, pkt->cookie >> 32 };
	pkt->cookie = (uint32_t)pkt->cookie | (uint64_t)link << 32;
}

/* The entries behind the first, which has SNET_MORE, from *at on. */
static enum snet_error take_more(struct snet_queue *queue, uint32_t *at, uint32_t end,
				 struct pkt *pkt, bool *cut)
{
	struct tx_entry entry;
	unsigned count = 1;

	do {
		enum snet_error error;

		if (*at == end)
			return SNET_HALF_PACKET;
		if (count++ == SNET_PACKET_ENTRIES)
			return SNET_LONG_CHAIN;
		entry = entry_read(&queue->rings, *at);
		error = take_buffer(queue, &entry, pkt, cut);
		if (error)
			return error;
		cookie_add(queue, pkt, entry.id);
		(*at)++;
	} while (entry.request & SNET_MORE);
	return SNET_OK;
}

/* Pass 1. Returns how many of the n packets were taken; fewer when there are no more, or the queue
 * broke. */
static unsigned take_entries(struct snet *snet, struct snet_queue *queue, struct pkt **pkts,
			     struct tx_request *requests, uint32_t end, unsigned n)
{
	uint32_t at = queue->tx_taken;
	unsigned i;

	for (i = 0; i < n && at != end; i++) {
		struct tx_entry entry = entry_read(&queue->rings, at);
		struct pkt *pkt = pkts[i];
		enum snet_error error;

		pkt->len = 0;
		requests[i] = (struct tx_request){ entry.request, false };
		at++;
		pkt->cookie = entry.id;
		error = take_buffer(queue, &entry, pkt, &requests[i].cut);
		if (likely(!error) && unlikely(entry.request & SNET_MORE))
			error = take_more(queue, &at, end, pkt, &requests[i].cut);
		if (unlikely(error)) {
			snet_break(snet, queue, error);
			port_stats(&snet->port)->drop_bad_descriptor++;
			break;
		}
		pkt->source = &queue->source;
		queue->tx_taken = at;
	}
	return i;
}

static void read_header(struct pkt *pkt)
{
	struct iovec *frag = &pkt->frags[0];

	pkt->header_len = 0;
	if (likely(frag->iov_len > PKT_HEADER_FAST)) {
		memcpy(pkt->header, frag->iov_base, PKT_HEADER_FAST);
		pkt->header_len = PKT_HEADER_FAST;
		frag->iov_base = (uint8_t *)frag->iov_base + PKT_HEADER_FAST;
		frag->iov_len -= PKT_HEADER_FAST;
	} else if (likely(frag->iov_len == PKT_HEADER_FAST && pkt->frag_count == 1)) {
		memcpy(pkt->header, frag->iov_base, PKT_HEADER_FAST);
		pkt->header_len = PKT_HEADER_FAST;
		pkt->frag_count = 0;
	} else {
		pkt_pull(pkt, pkt->len < PKT_HEADER_FAST ? pkt->len : PKT_HEADER_FAST);
	}
}

/* Judge what is asked of this packet. What a guest claims to have verified is worth nothing. */
static bool request_ok(const struct snet *snet, struct pkt *pkt, uint64_t request)
{
	struct pkt_offload *offload = &pkt->offload;
	uint8_t flags = request, gso_type = request >> 8;

	if (likely(!(flags & SNET_CSUM_PARTIAL) && gso_type == PKT_GSO_NONE))
		return true;
	if (snet->no_offload || !(flags & SNET_CSUM_PARTIAL))
		return false;
	*offload = (struct pkt_offload){
		.flags = PKT_CSUM_PARTIAL,
		.csum_start = request >> 32,
		.csum_offset = request >> 48,
	};
	if (gso_type != PKT_GSO_NONE) {
		offload->gso_type = gso_type;
		offload->gso_size = request >> 16;
		if (flags & SNET_GSO_ECN)
			offload->flags |= PKT_GSO_ECN;
		if (offload->gso_size == 0)
			return false;
		if (gso_type != PKT_GSO_TCPV4 && gso_type != PKT_GSO_TCPV6 &&
		    (gso_type != PKT_GSO_UDP || offload->flags & PKT_GSO_ECN))
			return false;
	}
	return headers_check_offload(pkt);
}

/* Pass 2. Keeps the good packets, in order, in pkts; gives the others back. Returns how many are
 * good. */
static unsigned read_packets(struct snet *snet, struct pkt **pkts,
			     const struct tx_request *requests, unsigned n)
{
	struct port_stats *stats = port_stats(&snet->port);
	unsigned good = 0;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt = pkts[i];

		pkt->in_port = snet->port.id;
		if (unlikely(requests[i].cut)) {
			stats->drop_too_many_fragments++;
			goto drop;
		}
		if (unlikely(pkt->len < PKT_LEN_MIN)) {
			stats->drop_runt++;
			goto drop;
		}
		if (unlikely(pkt->len > PKT_LEN_MAX)) {
			stats->drop_oversize++;
			goto drop;
		}
		read_header(pkt);
		if (unlikely(!request_ok(snet, pkt, requests[i].word))) {
			stats->drop_bad_vnet_header++;
			goto drop;
		}
		bytes += pkt->len;
		stats->recv_gso_packets += pkt->offload.gso_type != PKT_GSO_NONE;
		pkts[good++] = pkt;
		continue;
	drop:
		pkt_put(pkt);
	}
	stats->recv_packets += good;
	stats->recv_bytes += bytes;
	return good;
}

unsigned snet_tx_take(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n)
{
	struct worker *worker = worker_self;
	struct tx_request requests[PKT_BURST];
	uint32_t end = snet_look(&queue->rings.control->front.produced);
	uint32_t available = end - queue->tx_taken, with_us = queue->tx_taken - queue->tx_returned;

	if (available == 0)
		return 0;
	if (unlikely(available > queue->rings.mask + 1 - with_us)) {
		snet_break(snet, queue, SNET_TX_JUMPED);
		return 0;
	}
	n = pkt_pool_get(&worker->pool, pkts, n < available ? n : available);
	for (unsigned i = n; i < 2 * n && i < available; i += 2) /* for the next burst */
		__builtin_prefetch(
			snet_entry_at(&queue->rings, queue->rings.tx, queue->tx_taken + i));

	unsigned taken = take_entries(snet, queue, pkts, requests, end, n);

	if (unlikely(taken < n))
		pkt_pool_put(&worker->pool, pkts + taken, n - taken);
	if (unlikely(snet->remap))
		snet_remap_in(snet, queue, pkts, taken);
	profile_mark(&worker->profile, STAGE_CHANNEL);
	unsigned good = read_packets(snet, pkts, requests, taken);

	profile_mark(&worker->profile, STAGE_HEADER);
	return good;
}

void snet_tx_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	struct snet_queue *queue = (struct snet_queue *)source;
	const struct snet_rings *rings = &queue->rings;
	uint32_t at = queue->tx_returned;

	for (unsigned i = 0; i < n; i++) {
		rings->tx_done[at++ & rings->mask] = (uint32_t)pkts[i]->cookie;
		for (uint32_t link = pkts[i]->cookie >> 32; unlikely(link != 0);) {
			struct snet_rest *rest = &queue->tx_rest[link - 1];
			uint32_t next = rest->next;

			rings->tx_done[at++ & rings->mask] = rest->id;
			rest->next = queue->tx_rest_free;
			queue->tx_rest_free = link;
			link = next;
		}
	}
	queue->tx_returned = at;
	snet_publish(&rings->control->back.given_back, at);
	queue->tell_done = true;
}
