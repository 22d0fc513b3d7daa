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
 * In direct mode (S15) between two snet guests nobody looks at what is in a packet that asks for
 * nothing: it goes on as it lies, without a header.
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

#define INLINE inline __attribute__((always_inline))

/* What pass 1 leaves of a packet to pass 2. */
struct tx_packet {
	uint8_t *data;    /* of a packet in one buffer; NULL: it has its fragments already */
	uint64_t request; /* of its first entry: flags, GSO and checksum, as they lie there */
};

/* The zone that the last entry was in: mostly the next one's, too. */
struct tx_zone {
	uint64_t id; /* TX_ZONE_NONE: none yet */
	uint8_t *base;
};

#define TX_ZONE_NONE UINT64_MAX

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

/* Where an entry's buffer lies. NULL: nowhere that this guest may send from, or it is empty. */
static inline uint8_t *data_of(const struct snet_queue *queue, struct tx_zone *zone,
			       const struct tx_entry *entry)
{
	if (unlikely(entry->zone != zone->id)) {
		uint8_t *base = zone_group_at(queue->session->tx, entry->zone, 0, 0);

		if (!base)
			return NULL;
		*zone = (struct tx_zone){ entry->zone, base };
	}
	if (unlikely(!zone_holds(entry->offset, entry->len) || entry->len == 0))
		return NULL;
	return zone->base + entry->offset;
}

/* Add a buffer to the packet's fragments. False: there is no room for so many. */
static bool add_fragment(struct pkt *pkt, uint8_t *data, uint32_t len)
{
	if (unlikely(pkt->frag_count == PKT_INLINE_FRAGS && pkt->frags == pkt->inline_frags) &&
	    !pkt_take_frag_block(&worker_self->pool, pkt))
		return false;
	pkt->frags[pkt->frag_count++] = (struct iovec){ data, len };
	return true;
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

/* What is wrong with a buffer that data_of() does not find. */
static enum snet_error error_of(const struct tx_entry *entry)
{
	return entry->len == 0 ? SNET_EMPTY_BUFFER : SNET_BAD_BUFFER;
}

/* The entries behind the first, which has SNET_MORE, from *at on. */
static enum snet_error take_more(struct snet_queue *queue, struct tx_zone *zone, uint32_t *at,
				 uint32_t end, struct pkt *pkt, bool *cut)
{
	struct tx_entry entry;
	unsigned count = 1;

	do {
		uint8_t *data;

		if (*at == end)
			return SNET_HALF_PACKET;
		if (count++ == SNET_PACKET_ENTRIES)
			return SNET_LONG_CHAIN;
		entry = entry_read(&queue->rings, *at);
		data = data_of(queue, zone, &entry);
		if (unlikely(!data))
			return error_of(&entry);
		__builtin_prefetch(data);
		pkt->len += entry.len;
		*cut |= !add_fragment(pkt, data, entry.len);
		cookie_add(queue, pkt, entry.id);
		(*at)++;
	} while (entry.request & SNET_MORE);
	return SNET_OK;
}

/*
 * Pass 1. Returns how many of n packets, which there are entries for, were taken; fewer when the
 * queue broke or packets have several entries. *cut: a bit for each that has more fragments than
 * there was room for. look: somebody will look at what is in them.
 */
static INLINE unsigned take_entries(struct snet *snet, struct snet_queue *queue, struct pkt **pkts,
				    struct tx_packet *packets, uint32_t *cut, uint32_t end,
				    unsigned n, bool look)
{
	struct tx_zone zone = { TX_ZONE_NONE, NULL };
	uint32_t at = queue->tx_taken;
	uint16_t port = snet->port.id;
	enum snet_error error;
	unsigned i;

	*cut = 0;
	for (i = 0; i < n; i++) {
		struct tx_entry entry = entry_read(&queue->rings, at);
		uint8_t *data = data_of(queue, &zone, &entry);
		struct pkt *pkt = pkts[i];

		if (unlikely(!data)) {
			error = error_of(&entry);
			goto broken;
		}
		if (look) {
			__builtin_prefetch(data);
			if (entry.len > 64)
				__builtin_prefetch(data + 64);
		}
		pkt->source = &queue->source;
		pkt->in_port = port;
		pkt->cookie = entry.id;
		pkt->len = entry.len;
		packets[i] = (struct tx_packet){ data, entry.request };
		if (unlikely(entry.request & SNET_MORE)) {
			uint32_t more = at + 1;
			bool too_many = false;

			packets[i].data = NULL;
			add_fragment(pkt, data, entry.len);
			error = take_more(queue, &zone, &more, end, pkt, &too_many);
			if (error)
				goto broken;
			at = more - 1;
			*cut |= (uint32_t)too_many << i;
			if (n - i - 1 > end - more)
				n = i + 1 + (end - more);
		}
		at++;
	}
	queue->tx_taken = at;
	return i;
broken:
	queue->tx_taken = at;
	snet_break(snet, queue, error);
	port_stats(&snet->port)->drop_bad_descriptor++;
	return i;
}

static_assert(PKT_BURST <= 32, "a bit for each packet of a burst");

/* The private copy of what is to be judged. */
static inline void read_header(struct pkt *pkt, uint8_t *data)
{
	if (likely(data && pkt->len >= PKT_HEADER_FAST)) {
		memcpy(pkt->header, data, PKT_HEADER_FAST);
		pkt->header_len = PKT_HEADER_FAST;
		if (pkt->len > PKT_HEADER_FAST) {
			pkt->frags[0] = (struct iovec){ data + PKT_HEADER_FAST,
							pkt->len - PKT_HEADER_FAST };
			pkt->frag_count = 1;
		}
	} else if (data) {
		memcpy(pkt->header, data, pkt->len);
		pkt->header_len = pkt->len;
	} else {
		pkt->header_len = 0;
		pkt_pull(pkt, pkt->len < PKT_HEADER_FAST ? pkt->len : PKT_HEADER_FAST);
	}
}

/* Does the packet ask for nothing? What a guest claims to have verified is worth nothing. */
static inline bool is_plain(uint64_t request) /* little endian: 0xff00 is gso_type */
{
	return likely((request & (SNET_CSUM_PARTIAL | 0xff00)) == 0);
}

/* Judge what is asked of this packet, which is not plain. */
static bool request_ok(const struct snet *snet, struct pkt *pkt, uint64_t request)
{
	struct pkt_offload *offload = &pkt->offload;
	uint8_t flags = request, gso_type = request >> 8;

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

/*
 * Pass 2. Keeps the good packets, in order, in pkts; gives the others back. Returns how many are
 * good. look: somebody will look at what is in them, even if they ask for nothing.
 */
static INLINE unsigned read_packets(struct snet *snet, struct pkt **pkts,
				    const struct tx_packet *packets, uint32_t cut, unsigned n,
				    bool look)
{
	struct port_stats *stats = port_stats(&snet->port);
	uint64_t bytes = 0, gso = 0, *why;
	unsigned good = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t request = packets[i].request;
		uint8_t *data = packets[i].data;
		struct pkt *pkt = pkts[i];

		why = pkt->len < PKT_LEN_MIN ? &stats->drop_runt : &stats->drop_oversize;
		if (unlikely(pkt->len - PKT_LEN_MIN > PKT_LEN_MAX - PKT_LEN_MIN))
			goto drop;
		why = &stats->drop_too_many_fragments;
		if (unlikely(!data && cut & 1U << i))
			goto drop;
		if (look || unlikely(!is_plain(request))) {
			read_header(pkt, data);
		} else {
			pkt->header_len = 0;
			if (likely(data != NULL)) {
				pkt->frags[0] = (struct iovec){ data, pkt->len };
				pkt->frag_count = 1;
			}
		}
		if (unlikely(!is_plain(request))) {
			why = &stats->drop_bad_vnet_header;
			if (!request_ok(snet, pkt, request))
				goto drop;
			gso += pkt->offload.gso_type != PKT_GSO_NONE;
		}
		bytes += pkt->len;
		pkts[good++] = pkt;
		continue;
	drop:
		(*why)++;
		pkt_put(pkt);
	}
	stats->recv_packets += good;
	stats->recv_bytes += bytes;
	stats->recv_gso_packets += gso;
	return good;
}

/* Is there nobody who looks at what is in the packets of this guest, because they go to another one
 * as they are? */
static bool is_blind(const struct snet *snet)
{
	const struct port *to = snet->port.direct;

	return to && to->ops == &snet_port_ops && !snet->remap;
}

/* channel=remap: all packets to where they are vifd's own. */
static void remap(struct snet *snet, struct snet_queue *queue, struct pkt **pkts,
		  struct tx_packet *packets, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (packets[i].data)
			add_fragment(pkts[i], packets[i].data, pkts[i]->len);
		packets[i].data = NULL;
	}
	snet_remap_in(snet, queue, pkts, n);
}

static INLINE unsigned take(struct snet *snet, struct snet_queue *queue, struct pkt **pkts,
			    uint32_t end, unsigned n, bool look)
{
	struct worker *worker = worker_self;
	struct tx_packet packets[PKT_BURST];
	uint32_t cut;
	unsigned taken = take_entries(snet, queue, pkts, packets, &cut, end, n, look);

	if (unlikely(taken < n))
		pkt_pool_put(&worker->pool, pkts + taken, n - taken);
	if (unlikely(snet->remap))
		remap(snet, queue, pkts, packets, taken);
	profile_mark(&worker->profile, STAGE_CHANNEL);
	unsigned good = read_packets(snet, pkts, packets, cut, taken, look);

	profile_mark(&worker->profile, STAGE_HEADER);
	return good;
}

unsigned snet_tx_take(struct snet *snet, struct snet_queue *queue, struct pkt **pkts, unsigned n)
{
	uint32_t end = snet_look(&queue->rings.control->front.produced);
	uint32_t available = end - queue->tx_taken, with_us = queue->tx_taken - queue->tx_returned;

	if (available == 0)
		return 0;
	if (unlikely(available > queue->rings.mask + 1 - with_us)) {
		snet_break(snet, queue, SNET_TX_JUMPED);
		return 0;
	}
	n = pkt_pool_get(&worker_self->pool, pkts, n < available ? n : available);
	for (unsigned i = n; i < 2 * n && i < available; i += 2) /* for the next burst */
		__builtin_prefetch(
			snet_entry_at(&queue->rings, queue->rings.tx, queue->tx_taken + i));
	return is_blind(snet) ? take(snet, queue, pkts, end, n, false)
			      : take(snet, queue, pkts, end, n, true);
}

void snet_tx_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	struct snet_queue *queue = (struct snet_queue *)source;
	const struct snet_rings *rings = &queue->rings;
	uint32_t *tx_done = rings->tx_done, mask = rings->mask, at = queue->tx_returned;

	for (unsigned i = 0; i < n; i++) {
		uint64_t cookie = pkts[i]->cookie;

		tx_done[at++ & mask] = (uint32_t)cookie;
		for (uint32_t link = cookie >> 32; unlikely(link != 0);) {
			struct snet_rest *rest = &queue->tx_rest[link - 1];
			uint32_t next = rest->next;

			tx_done[at++ & mask] = rest->id;
			rest->next = queue->tx_rest_free;
			queue->tx_rest_free = link;
			link = next;
		}
	}
	queue->tx_returned = at;
	snet_publish(&rings->control->back.given_back, at);
	queue->tell_done = true;
}
