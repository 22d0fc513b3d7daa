/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a Xen guest sends (M10, M11; S3).
 *
 * Theory of operation, in two passes over a burst, with one grant copy call between them.
 *
 * Pass 1 (stage channel): one acquire load of the index; each request is read once, into private
 * memory, and judged there. A slot with data gets a page of ours, the one used last first, and the
 * data will lie in it at the offset that it has in the guest's page, so that no copy crosses a page
 * on either side:
 *
 *      request: gref 17, offset 66, size 1514     pages[5] = { gref 17, id }
 *      guest's page  |....xxxxxxxx....|    -->    memory + 5 * 4096  |....xxxxxxxx....|
 *
 * Pass 2 (stage header): what could not be copied is dropped; the first bytes go to the packet's
 * private header, and what the guest asks for is judged by them.
 *
 *      tx=copy     all slots of the burst are copied between the passes
 *      tx=header   only the first 128 bytes of each packet, right into its header[]. The rest of it
 *                  has PKT_REMOTE: fragments lead to pages that nothing is in yet. Who gets it has
 *                  it brought there (xen_tx_fetch()), or, if that is another Xen guest, copied from
 *                  grant to grant (xen_rx.c): then no byte of it passes through our memory (M11).
 *      tx=map      likewise, but the rest is mapped at once and unmapped when it is done (M10)
 *
 * Slots are answered when the last owner of the packet lets go of it. The answers are in the order
 * in which packets are done: netif allows that on this ring. The front end is told of them when it
 * has sent nothing more, or when they are many: a notification is a system call, and an interrupt in
 * the guest.
 *
 * What contradicts the protocol breaks the interface: no front end does that by accident. A packet
 * with nonsense in it is answered with an error, dropped and counted.
 */
#include <string.h>

#include "guest/xen_netif.h"
#include "pkt/csum.h"
#include "pkt/headers.h"
#include "port/worker.h"

/* A packet between the passes. */
struct tx_packet {
	struct xen_tx_request slots[XEN_TX_SLOTS_FATAL];
	unsigned count; /* of those */
	unsigned extras;
	uint16_t len;
	uint16_t flags;
	uint16_t gso_size;
	uint8_t gso_type; /* as in the extra; 0: none */
	bool bad;         /* to be dropped */
	bool control;     /* no packet at all, but a word about multicast */
	unsigned copies;  /* where its copies end in tx_copies */
};

enum { TELL_SLOTS = 64 }; /* answered, and the front end has not been told */

/* pkt.cookie: what is to be answered. */
enum { COOKIE_EXTRAS_SHIFT = 16, COOKIE_ERROR = 1 << 24 };

/* ---- multicast ---- */

static uint64_t word_of(const uint8_t *address)
{
	uint64_t word = 0;

	memcpy(&word, address, 6);
	return word;
}

static _Atomic uint64_t *multicast_find(struct xen_netif *netif, uint64_t word)
{
	for (unsigned i = 0; i < XEN_MULTICAST_MAX; i++) {
		if (atomic_load_explicit(&netif->multicast[i], memory_order_relaxed) == word)
			return &netif->multicast[i];
	}
	return NULL;
}

bool xen_multicast_wanted(struct xen_netif *netif, const uint8_t *address)
{
	return multicast_find(netif, word_of(address)) != NULL;
}

/* False: there is no room for another address. */
static bool multicast_note(struct xen_netif *netif, uint8_t type, const uint8_t *address)
{
	uint64_t word = word_of(address);
	_Atomic uint64_t *at = multicast_find(netif, word);
	uint64_t none = 0;

	if (type == XEN_EXTRA_MCAST_DEL) {
		if (at)
			atomic_store_explicit(at, 0, memory_order_relaxed);
		return true;
	}
	for (unsigned i = 0; i < XEN_MULTICAST_MAX && !at; i++, none = 0) {
		if (atomic_compare_exchange_strong(&netif->multicast[i], &none, word))
			return true;
	}
	return at != NULL;
}

/* ---- pass 1 ---- */

/* The extras behind a packet's first slot, from *at on. */
static enum xen_error read_extras(struct xen_queue *queue, uint32_t *at, uint32_t end,
				  struct tx_packet *packet)
{
	struct xen_extra extra;

	do {
		if (*at == end)
			return XEN_MISSING_EXTRA;
		extra = xen_tx_read(queue->tx, (*at)++).extra;
		packet->extras++;
		switch (extra.type) {
		case XEN_EXTRA_GSO:
			if (extra.gso.size == 0 || extra.gso.type < XEN_GSO_TCPV4 ||
			    extra.gso.type > XEN_GSO_TCPV6)
				return XEN_BAD_GSO;
			packet->gso_size = extra.gso.size;
			packet->gso_type = extra.gso.type;
			break;
		case XEN_EXTRA_MCAST_ADD:
		case XEN_EXTRA_MCAST_DEL:
			packet->control = true;
			if (!multicast_note(queue->netif, extra.type, extra.address))
				packet->bad = true;
			break;
		case XEN_EXTRA_HASH:
			break;
		default:
			return XEN_BAD_EXTRA;
		}
	} while (extra.flags & XEN_EXTRA_FLAG_MORE);
	return XEN_OK;
}

/* The slots behind a packet's first and its extras, from *at on. */
static enum xen_error read_slots(struct xen_queue *queue, uint32_t *at, uint32_t end,
				 struct tx_packet *packet)
{
	unsigned rest = 0;
	uint16_t flags = packet->flags;

	while (flags & XEN_TXF_MORE_DATA) {
		struct xen_tx_request slot;

		if (*at == end)
			return XEN_HALF_PACKET;
		if (packet->count == XEN_TX_SLOTS_FATAL - 1)
			return XEN_TOO_MANY_SLOTS;
		slot = xen_tx_read(queue->tx, (*at)++).req;
		if (slot.offset + slot.size > XEN_PAGE)
			return XEN_ACROSS_PAGE;
		rest += slot.size;
		flags = slot.flags;
		packet->slots[packet->count++] = slot;
	}
	/* the first slot says how much all of them hold */
	packet->len = packet->slots[0].size;
	if (packet->count > XEN_TX_SLOTS_MAX || rest > packet->len || packet->len < PKT_LEN_MIN) {
		packet->bad = true;
		return XEN_OK;
	}
	packet->slots[0].size -= rest;
	return packet->slots[0].offset + packet->slots[0].size > XEN_PAGE ? XEN_ACROSS_PAGE
									  : XEN_OK;
}

/* The next packet, up to end. Nothing is taken when the interface breaks. */
static enum xen_error read_packet(struct xen_queue *queue, uint32_t end, struct tx_packet *packet)
{
	uint32_t at = queue->tx_cons;
	enum xen_error error = XEN_OK;

	packet->slots[0] = xen_tx_read(queue->tx, at++).req;
	packet->count = 1;
	packet->extras = 0;
	packet->flags = packet->slots[0].flags;
	packet->gso_type = 0;
	packet->bad = packet->control = false;
	if (packet->flags & XEN_TXF_EXTRA_INFO)
		error = read_extras(queue, &at, end, packet);
	if (!error)
		error = read_slots(queue, &at, end, packet);
	if (!error)
		queue->tx_cons = at;
	return error;
}

/* Take pages for the packet's slots, and note what is to be answered. */
static void take_pages(struct xen_queue *queue, const struct tx_packet *packet, struct pkt *pkt)
{
	uint16_t next = XEN_NO_PAGE;

	for (unsigned i = packet->count; i-- > 0;) {
		uint16_t number = queue->free_pages[--queue->free_count];
		struct xen_page *page = &queue->pages[number];

		page->gref = packet->slots[i].gref;
		page->id = packet->slots[i].id;
		page->next = next;
		page->mapped = NULL;
		next = number;
	}
	pkt->source = &queue->source;
	pkt->cookie = next | packet->extras << COOKIE_EXTRAS_SHIFT;
}

static uint8_t *page_at(const struct xen_queue *queue, uint16_t number)
{
	return queue->memory.pages + (size_t)number * XEN_PAGE;
}

union xen_copy_end xen_tx_grant(const struct xen_queue *queue, const void *at)
{
	size_t offset = (const uint8_t *)at - queue->memory.pages;
	union xen_copy_end end = { 0 };

	end.foreign.ref = queue->pages[offset / XEN_PAGE].gref;
	end.foreign.offset = offset % XEN_PAGE;
	end.foreign.domid = queue->netif->domid;
	return end;
}

/* The first bytes of a slot are to be copied to an address, that of dest.virt. */
static struct xen_copy *add_copy(struct xen_queue *queue, unsigned *count,
				 const struct xen_tx_request *slot, uint16_t len, void *to)
{
	struct xen_copy *copy = &queue->tx_copies[(*count)++];

	copy->source.foreign.ref = slot->gref;
	copy->source.foreign.offset = slot->offset;
	copy->source.foreign.domid = queue->netif->domid;
	copy->dest.virt = to;
	copy->len = len;
	copy->flags = XEN_COPY_FROM_GRANT;
	return copy;
}

/* What is to be copied of the packet between the passes; its fragments, all of them. */
static void plan_copies(struct xen_queue *queue, struct tx_packet *packet, struct pkt *pkt,
			bool header_only, unsigned *count)
{
	uint16_t number = pkt->cookie;

	pkt->header_len = 0;
	if (packet->bad || packet->control)
		return;
	for (unsigned i = 0; i < packet->count; i++, number = queue->pages[number].next) {
		struct xen_tx_request *slot = &packet->slots[i];
		uint16_t len = slot->size;

		if (header_only && i == 0) {
			len = len < XEN_HEADER_COPY ? len : XEN_HEADER_COPY;
			if (len > 0)
				add_copy(queue, count, slot, len, pkt->header);
			pkt->header_len = len;
			slot->offset += len;
			slot->size -= len;
		}
		if (slot->size == 0)
			continue;

		uint8_t *at = page_at(queue, number) + slot->offset;

		if (!header_only) {
			struct xen_copy *copy = add_copy(queue, count, slot, slot->size, at);

			copy->dest = xen_own_end(&queue->memory, at, &copy->flags,
						 XEN_COPY_TO_GRANT);
		}
		pkt->frags[pkt->frag_count++] = (struct iovec){ at, slot->size };
	}
}

/* ---- the rate ---- */

static bool in_credit(struct xen_queue *queue)
{
	const struct xen_netif *netif = queue->netif;
	uint64_t now = worker_self->profile.last, most = netif->rate_bytes;
	uint16_t len;

	if (most < XEN_CREDIT_MIN)
		most = XEN_CREDIT_MIN;
	if (now >= queue->credit_due) {
		queue->credit += netif->rate_bytes;
		if (queue->credit > most)
			queue->credit = most;
		queue->credit_due = now + cycles_hz() / 1000000 * netif->rate_usec;
	}
	/* What it says by the time it is taken is what counts. */
	len = xen_tx_read(queue->tx, queue->tx_cons).req.size;
	queue->limited = len > queue->credit;
	return !queue->limited;
}

static void use_credit(struct xen_queue *queue, uint16_t len)
{
	queue->credit -= len < queue->credit ? len : queue->credit;
}

/* ---- pass 2 ---- */

/* The whole packet is here: its first bytes become the private header. */
static void pull_header(struct pkt *pkt)
{
	struct iovec *frag = &pkt->frags[0];

	if (likely(pkt->frag_count > 0 && frag->iov_len > PKT_HEADER_FAST)) {
		memcpy(pkt->header, frag->iov_base, PKT_HEADER_FAST);
		pkt->header_len = PKT_HEADER_FAST;
		frag->iov_base = (uint8_t *)frag->iov_base + PKT_HEADER_FAST;
		frag->iov_len -= PKT_HEADER_FAST;
	} else {
		pkt_pull(pkt, pkt->len < PKT_HEADER_FAST ? pkt->len : PKT_HEADER_FAST);
	}
}

/* GSO without csum_blank: the field holds what it likes, and has to hold the pseudo header's sum. */
static void blank_checksum(struct pkt *pkt)
{
	uint16_t sum = csum_fold_partial(csum_pseudo(pkt, pkt->len - pkt->l4_off));

	memcpy(pkt->header + pkt->l4_off + 16, &sum, sizeof(sum));
}

/*
 * Judge what is asked of this packet. netif says that a checksum is to be finished, not where: that
 * follows from the headers.
 */
static bool request_ok(const struct tx_packet *packet, struct pkt *pkt)
{
	static const uint8_t types[] = { PKT_GSO_NONE, PKT_GSO_TCPV4, PKT_GSO_TCPV6 };

	if (likely(!(packet->flags & XEN_TXF_CSUM_BLANK) && !packet->gso_type))
		return true;
	headers_parse(pkt);
	if (!pkt->payload_off || !pkt_pull(pkt, pkt->payload_off))
		return false;
	pkt->offload.flags |= PKT_CSUM_PARTIAL;
	pkt->offload.csum_start = pkt->l4_off;
	pkt->offload.csum_offset = pkt->l4_proto == IPPROTO_TCP ? 16 : 6;
	if (packet->gso_type) {
		pkt->offload.gso_type = types[packet->gso_type];
		pkt->offload.gso_size = packet->gso_size;
		if (pkt->l4_proto == IPPROTO_TCP && !(packet->flags & XEN_TXF_CSUM_BLANK))
			blank_checksum(pkt);
	}
	return headers_check_offload(pkt);
}

/* Map what is left of the packet, all of its pages: for measurement. */
static bool map_rest(struct xen_queue *queue, struct pkt *pkt)
{
	struct xen_page *first = &queue->pages[(uint16_t)pkt->cookie];
	uint32_t refs[XEN_TX_SLOTS_MAX];
	uint16_t place[XEN_RING];
	unsigned count = 0;

	if (pkt->frag_count == 0)
		return true;
	for (uint16_t at = pkt->cookie; at != XEN_NO_PAGE; at = queue->pages[at].next) {
		place[at] = count;
		refs[count++] = queue->pages[at].gref;
	}
	first->mapped = queue->netif->ops->map(queue->netif->domid, refs, count, false);
	if (!first->mapped)
		return false;
	first->mapped_count = count;
	queue->tx_costs.maps += count;
	for (unsigned i = 0; i < pkt->frag_count; i++) {
		size_t offset = (uint8_t *)pkt->frags[i].iov_base - queue->memory.pages;

		pkt->frags[i].iov_base = (uint8_t *)first->mapped +
					 (size_t)place[offset / XEN_PAGE] * XEN_PAGE +
					 offset % XEN_PAGE;
	}
	return true;
}

/* What has not been copied makes a packet bad. */
static void note_failures(const struct xen_queue *queue, struct tx_packet *packets, unsigned n)
{
	const struct xen_copy *copy = queue->tx_copies;

	for (unsigned i = 0; i < n; i++) {
		for (; copy < queue->tx_copies + packets[i].copies; copy++)
			packets[i].bad |= copy->status != 0;
	}
}

/* The counter of why the packet is dropped, or NULL. */
static uint64_t *judge(struct xen_queue *queue, const struct tx_packet *packet, struct pkt *pkt,
		       bool header_only, struct port_stats *stats)
{
	if (unlikely(packet->len < PKT_LEN_MIN))
		return &stats->drop_runt;
	if (unlikely(packet->bad))
		return &stats->drop_bad_descriptor;
	if (!header_only)
		pull_header(pkt);
	else if (pkt->frag_count > 0 && queue->netif->tx_mode == XEN_TX_HEADER)
		pkt->offload.flags |= PKT_REMOTE;
	else if (unlikely(!map_rest(queue, pkt)))
		return &stats->drop_bad_descriptor;
	if (unlikely(pkt->header_len < PKT_LEN_MIN && !pkt_pull(pkt, PKT_LEN_MIN)))
		return &stats->drop_bad_descriptor;
	if (unlikely(!request_ok(packet, pkt)))
		return &stats->drop_bad_vnet_header;
	return NULL;
}

/* Pass 2. Keeps the good packets, in order, in pkts; answers the others. Returns how many are
 * good. */
static unsigned read_headers(struct xen_queue *queue, struct pkt **pkts,
			     const struct tx_packet *packets, unsigned n, bool header_only)
{
	struct port *port = &queue->netif->channel.port;
	struct port_stats *stats = port_stats(port);
	unsigned good = 0;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt = pkts[i];
		uint64_t *why;

		pkt->in_port = port->id;
		pkt->len = packets[i].len;
		if (unlikely(packets[i].control)) {
			pkt->cookie |= packets[i].bad ? COOKIE_ERROR : 0;
			pkt_put(pkt);
			continue;
		}
		why = judge(queue, &packets[i], pkt, header_only, stats);
		if (unlikely(why)) {
			(*why)++;
			pkt->cookie |= COOKIE_ERROR;
			pkt_put(pkt);
			continue;
		}
		bytes += pkt->len;
		stats->recv_gso_packets += pkt->offload.gso_type != PKT_GSO_NONE;
		pkts[good++] = pkt;
	}
	stats->recv_packets += good;
	stats->recv_bytes += bytes;
	return good;
}

unsigned xen_tx_take(struct xen_queue *queue, struct pkt **pkts, unsigned n)
{
	struct xen_netif *netif = queue->netif;
	struct worker *worker = worker_self;
	struct tx_packet packets[PKT_BURST];
	uint32_t end = xen_look(&queue->tx->at.req_prod), available = end - queue->tx_cons;
	/* Packets that are held back to be merged are looked into. */
	bool header_only = netif->tx_mode != XEN_TX_COPY && !netif->channel.port.lro[queue->number];
	unsigned taken, copies = 0;
	enum xen_error error = XEN_OK;

	if (available == 0) {
		xen_tx_tell(queue);
		return 0;
	}
	if (unlikely(end - queue->tx_rsp > XEN_RING)) {
		xen_break(netif, XEN_TX_JUMPED);
		return 0;
	}
	n = pkt_pool_get(&worker->pool, pkts, n < available ? n : available);
	for (taken = 0; taken < n && queue->tx_cons != end; taken++) {
		struct tx_packet *packet = &packets[taken];

		if (netif->rate_bytes > 0 && !in_credit(queue))
			break;
		error = read_packet(queue, end, packet);
		if (unlikely(error))
			break;
		if (netif->rate_bytes > 0)
			use_credit(queue, packet->len);
		take_pages(queue, packet, pkts[taken]);
		plan_copies(queue, packet, pkts[taken], header_only, &copies);
		packet->copies = copies;
	}
	if (taken < n)
		pkt_pool_put(&worker->pool, pkts + taken, n - taken);
	if (taken == 0)
		xen_tx_tell(queue);
	if (unlikely(error)) {
		xen_break(netif, error);
		port_stats(&netif->channel.port)->drop_bad_descriptor++;
	}
	if (copies > 0)
		xen_copy(queue, queue->tx_copies, copies, &queue->tx_costs);
	note_failures(queue, packets, taken);
	queue->worked |= taken > 0;
	profile_mark(&worker->profile, STAGE_CHANNEL);
	unsigned good = read_headers(queue, pkts, packets, taken, header_only);

	profile_mark(&worker->profile, STAGE_HEADER);
	return good;
}

/* ---- afterwards ---- */

void xen_tx_fetch(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	struct xen_queue *queue = (struct xen_queue *)source;
	struct xen_copy *copies = queue->tx_copies;
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		for (unsigned j = 0; j < pkts[i]->frag_count; j++) {
			const struct iovec *frag = &pkts[i]->frags[j];
			struct xen_copy *copy = &copies[count++];

			copy->source = xen_tx_grant(queue, frag->iov_base);
			copy->flags = XEN_COPY_FROM_GRANT;
			copy->dest = xen_own_end(&queue->memory, frag->iov_base, &copy->flags,
						 XEN_COPY_TO_GRANT);
			copy->len = frag->iov_len;
		}
	}
	xen_copy(queue, copies, count, &queue->tx_costs);
	for (unsigned i = 0; i < n; i++) {
		bool copied = true;

		for (unsigned j = 0; j < pkts[i]->frag_count; j++)
			copied &= copies++->status == 0;
		if (likely(copied))
			pkts[i]->offload.flags &= ~PKT_REMOTE;
		else
			pkts[i]->cookie |= COOKIE_ERROR;
	}
}

void xen_tx_tell(struct xen_queue *queue)
{
	if (queue->tx_told == queue->tx_rsp)
		return;
	xen_wake(queue, &queue->tx->at, queue->tx_told, queue->tx_rsp, queue->tx_port,
		 &queue->tx_costs);
	queue->tx_told = queue->tx_rsp;
}

/* Answer a packet's slots and free its pages. */
static void answer(struct xen_queue *queue, const struct pkt *pkt)
{
	int16_t status = pkt->cookie & COOKIE_ERROR ? XEN_RSP_ERROR : XEN_RSP_OKAY;
	uint16_t number = pkt->cookie;
	const struct xen_page *first = &queue->pages[number];
	union xen_tx_slot *slots = queue->tx->slots;

	if (unlikely(first->mapped != NULL)) {
		queue->netif->ops->unmap(first->mapped, first->mapped_count);
		queue->tx_costs.unmaps += first->mapped_count;
	}
	while (number != XEN_NO_PAGE) {
		struct xen_page *page = &queue->pages[number];

		slots[queue->tx_rsp++ % XEN_RING].rsp = (struct xen_tx_response){ page->id,
										  status };
		queue->free_pages[queue->free_count++] = number;
		number = page->next;
	}
	for (uint8_t extras = pkt->cookie >> COOKIE_EXTRAS_SHIFT; extras > 0; extras--)
		slots[queue->tx_rsp++ % XEN_RING].rsp = (struct xen_tx_response){ 0, XEN_RSP_NULL };
}

void xen_tx_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	struct xen_queue *queue = (struct xen_queue *)source;

	for (unsigned i = 0; i < n; i++)
		answer(queue, pkts[i]);
	xen_publish(&queue->tx->at.rsp_prod, queue->tx_rsp);
	if (queue->tx_rsp - queue->tx_told >= TELL_SLOTS)
		xen_tx_tell(queue);
}
