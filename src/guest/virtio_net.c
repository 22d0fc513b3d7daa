/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio network device: packets from transmit rings and to receive rings (virtio 1.2 §5.1.6).
 *
 * Theory of operation
 *
 * guest_tx, two passes over a burst. Pass 1 (stage channel): one acquire load of the available
 * index; per entry the ring slot and descriptor are read once, checked, translated, and the frame's
 * first lines prefetched. Pass 2 (stage header): the virtio_net_hdr and the first 64 bytes of the
 * frame are copied, once, to the packet's private header (M11), the rest stays in guest memory as
 * fragments. What the guest asks for is checked against what it negotiated and against the headers,
 * as we parse them.
 *
 *      descriptor:  | virtio_net_hdr 12 | frame 0..63 | frame 64..        |
 *                     -> pkt.vnet         -> pkt.header   pkt.frags[0] -> here
 *
 * guest_rx: pass 1 takes a buffer for each packet, pass 2 copies (M12), then the used entries of
 * the burst become visible together. A packet larger than a buffer is spread over several
 * (mergeable receive buffers), or over a chain. The virtio_net_hdr is written only when it differs
 * from what lies there: the line then stays shared.
 *
 * A ring that breaks the rules is marked broken and not touched again until the guest sets it up
 * anew; a packet whose contents break them is dropped and counted, and its buffer given back.
 */
#include "guest/virtio_net.h"

#include <string.h>

#include "pkt/headers.h"
#include "pkt/vnet.h"
#include "port/worker.h"
#include "sys/log.h"

enum {
	RX_IOV_MAX = 1024, /* pieces of receive buffers that one packet is spread over */
	NUM_BUFFERS_OFF = 10,
	MUTE_TICKS = 40, /* ten seconds */
};

static struct virtio_net *device_of(struct channel *channel)
{
	return (struct virtio_net *)((char *)channel - offsetof(struct virtio_net, channel));
}

void virtio_net_break_ring(struct virtio_net *device, struct virtq *vq, enum virtq_error error)
{
	if (vq->broken)
		return;
	virtq_break(vq, error, device->channel.port.name);
	__atomic_fetch_add(&device->breaks, 1, __ATOMIC_RELAXED);
}

/*
 * Ring the guest's doorbell. The descriptor is the guest's too: should it make the write block, the
 * watchdog of the workers interrupts it, the ring is lost, and the guest is not called for a while:
 * others waited for it, and it could set up its ring and do it again at once.
 */
static void call_guest(struct virtio_net *device, struct virtq *vq)
{
	struct worker *worker = worker_self;

	if (vq->call_fd < 0 || unlikely(atomic_load_explicit(&device->muted, memory_order_relaxed)))
		return;
	atomic_store_explicit(&worker->calling, true, memory_order_relaxed);
	if (unlikely(!virtq_signal(vq))) {
		virtio_net_break_ring(device, vq, VIRTQ_CALL_BLOCKED);
		atomic_store(&device->muted, MUTE_TICKS);
	}
	atomic_store_explicit(&worker->calling, false, memory_order_relaxed);
	port_stats(&device->channel.port)->doorbells++;
}

/* After a reconnect the driver may wait for a call never made: make one on both rings. */
static void greet_guest(struct virtio_net *device, unsigned pair)
{
	virtio_net_tx_ring(device, pair)->greet = false;
	if (virtq_running(&virtio_net_tx_ring(device, pair)->vq))
		call_guest(device, &virtio_net_tx_ring(device, pair)->vq);
	if (virtq_running(&virtio_net_rx_ring(device, pair)->vq))
		call_guest(device, &virtio_net_rx_ring(device, pair)->vq);
}

/* ---- from the guest ---- */

/* A transmit buffer: one piece, the common case, or (data NULL) gathered in the packet's frags. */
struct tx_buffer {
	const uint8_t *data;
	uint64_t len; /* virtio_net_hdr included */
	bool cut;     /* more fragments than a packet may have */
};

/* The chain at first is not one readable buffer in one region: gather it into pkt's fragments. */
static enum virtq_error gather_tx(struct virtq *vq, const struct virtq_desc *first, struct pkt *pkt,
				  struct tx_buffer *buffer)
{
	struct virtq_chain chain;
	enum virtq_error error = virtq_gather(vq, first, false, pkt->frags, PKT_INLINE_FRAGS,
					      &chain);

	if (!error && chain.cut && pkt_take_frag_block(&worker_self->pool, pkt))
		error = virtq_gather(vq, first, false, pkt->frags, PKT_FRAGS_MAX, &chain);
	if (error)
		return error;
	pkt->frag_count = chain.count;
	*buffer = (struct tx_buffer){ NULL, chain.len, chain.cut };
	return VIRTQ_OK;
}

/* Pass 1. Returns how many of the n packets got their buffer; fewer when the ring broke. */
static unsigned take_tx(struct virtio_net *device, struct virtio_net_ring *ring, struct pkt **pkts,
			struct tx_buffer *buffers, unsigned n)
{
	struct virtq *vq = &ring->vq;
	const struct virtq_desc *table = vq->desc;
	unsigned size = vq->size, i;
	uint16_t position = vq->last_avail;
	enum virtq_error error = VIRTQ_OK;

	for (i = 0; i < n; i++, position++) {
		struct pkt *pkt = pkts[i];
		uint16_t head = virtq_head(vq, position);

		if (unlikely(head >= size)) {
			error = VIRTQ_BAD_HEAD;
			break;
		}
		struct virtq_desc desc = virtq_desc_read(table, head);
		const uint8_t *data;

		if (likely(desc.flags == 0 && desc.len > 0) &&
		    likely((data = virtq_buffer(vq, &desc)) != NULL)) {
			__builtin_prefetch(data);
			__builtin_prefetch(data + 64);
			buffers[i] = (struct tx_buffer){ data, desc.len, false };
		} else {
			error = gather_tx(vq, &desc, pkt, &buffers[i]);
			if (unlikely(error))
				break;
		}
		pkt->source = &ring->source;
		pkt->cookie = head | (uint32_t)position << 16;
	}
	vq->last_avail = position;
	if (unlikely(error)) {
		virtio_net_break_ring(device, vq, error);
		port_stats(&device->channel.port)->drop_bad_descriptor++;
	}
	return i;
}

/* Copy virtio_net_hdr and the first bytes of the frame, of len bytes, from frags, which shrink. */
static void read_scattered(struct pkt *pkt, unsigned header_len, uint32_t len)
{
	pkt->len = header_len + len;
	pkt->header_len = 0;
	pkt_pull(pkt, header_len);
	memcpy(pkt->vnet, pkt->header, header_len);
	pkt->len = len;
	pkt->header_len = 0;
	pkt_pull(pkt, len < PKT_HEADER_FAST ? len : PKT_HEADER_FAST);
}

static void read_plain(struct pkt *pkt, const uint8_t *data, unsigned header_len, uint32_t len)
{
	if (likely(header_len == VNET_LEN))
		memcpy(pkt->vnet, data, VNET_LEN);
	else
		memcpy(pkt->vnet, data, VNET_LEN_LEGACY);
	data += header_len;
	pkt->len = len;
	if (len > PKT_HEADER_FAST) {
		memcpy(pkt->header, data, PKT_HEADER_FAST);
		pkt->header_len = PKT_HEADER_FAST;
		pkt->frags[0] = (struct iovec){ (void *)(data + PKT_HEADER_FAST),
						len - PKT_HEADER_FAST };
		pkt->frag_count = 1;
	} else if (likely(len == PKT_HEADER_FAST)) {
		memcpy(pkt->header, data, PKT_HEADER_FAST);
		pkt->header_len = PKT_HEADER_FAST;
	} else {
		memcpy(pkt->header, data, len);
		pkt->header_len = len;
	}
}

/* Is every bit of the request one that the guest negotiated? */
static bool request_negotiated(const struct virtio_net *device, const struct pkt_offload *offload)
{
	static const unsigned gso_feature[] = {
		[PKT_GSO_TCPV4] = VIRTIO_NET_F_HOST_TSO4_BIT,
		[PKT_GSO_TCPV6] = VIRTIO_NET_F_HOST_TSO6_BIT,
		[PKT_GSO_UDP] = VIRTIO_NET_F_HOST_USO_BIT,
	};

	if ((offload->flags & PKT_CSUM_PARTIAL) && !virtio_net_has(device, VIRTIO_NET_F_CSUM_BIT))
		return false;
	if (offload->gso_type != PKT_GSO_NONE &&
	    !virtio_net_has(device, gso_feature[offload->gso_type]))
		return false;
	return !(offload->flags & PKT_GSO_ECN) || virtio_net_has(device, VIRTIO_NET_F_HOST_ECN_BIT);
}

/* Judge what the guest asks of this packet. */
static bool request_ok(const struct virtio_net *device, struct pkt *pkt)
{
	if (!vnet_to_offload(pkt->vnet, &pkt->offload))
		return false;
	/* A guest's word for its own packet is worth nothing. */
	pkt->offload.flags &= ~PKT_CSUM_VALID;
	if (likely(pkt_needs_nothing(pkt)))
		return true;
	return request_negotiated(device, &pkt->offload) && headers_check_offload(pkt);
}

/* Pass 2: headers. Keeps the good packets, in order, in pkts; completes the others. Returns how
 * many are good. */
static unsigned read_headers(struct virtio_net *device, struct pkt **pkts,
			     const struct tx_buffer *buffers, unsigned n)
{
	struct port *port = &device->channel.port;
	struct port_stats *stats = port_stats(port);
	unsigned header_len = device->header_len, good = 0;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt = pkts[i];
		const struct tx_buffer *buffer = &buffers[i];

		pkt->in_port = port->id;
		if (unlikely(buffer->cut)) {
			stats->drop_too_many_fragments++;
			goto drop;
		}
		if (unlikely(buffer->len < header_len + PKT_LEN_MIN)) {
			stats->drop_runt++;
			goto drop;
		}
		if (unlikely(buffer->len - header_len > PKT_LEN_MAX)) {
			stats->drop_oversize++;
			goto drop;
		}
		if (likely(buffer->data))
			read_plain(pkt, buffer->data, header_len, buffer->len - header_len);
		else
			read_scattered(pkt, header_len, buffer->len - header_len);
		if (unlikely(!request_ok(device, pkt))) {
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

static unsigned virtio_net_guest_tx(struct channel *channel, unsigned pair, struct pkt **pkts,
				    unsigned n)
{
	struct virtio_net *device = device_of(channel);
	struct virtio_net_ring *ring = virtio_net_tx_ring(device, pair);
	struct virtq *vq = &ring->vq;
	struct worker *worker = worker_self;
	struct tx_buffer buffers[PKT_BURST];

	if (!virtq_running(vq))
		return 0;
	uint16_t available = virtq_available(vq);

	if (available == 0) {
		if (unlikely(ring->greet))
			greet_guest(device, pair);
		return 0;
	}
	if (unlikely(available > vq->size)) {
		virtio_net_break_ring(device, vq, VIRTQ_INDEX_JUMP);
		return 0;
	}
	if (n > available)
		n = available;
	n = pkt_pool_get(&worker->pool, pkts, n);

	unsigned taken = take_tx(device, ring, pkts, buffers, n);

	if (unlikely(taken < n))
		pkt_pool_put(&worker->pool, pkts + taken, n - taken);
	profile_mark(&worker->profile, STAGE_CHANNEL);
	unsigned good = read_headers(device, pkts, buffers, taken);

	profile_mark(&worker->profile, STAGE_HEADER);
	return good;
}

/* Are these the next n of the ring, in order, as nearly always? */
static bool in_turn(const struct virtio_net_ring *ring, struct pkt **pkts, unsigned n)
{
	unsigned wrong = ring->out_of_turn;

	for (unsigned i = 0; i < n; i++)
		wrong |= (uint16_t)(pkts[i]->cookie >> 16) ^ (uint16_t)(ring->return_next + i);
	return wrong == 0;
}

/* In-order rings: note what is done, give back what is contiguous with one used entry for the whole
 * batch (virtio 1.2 §2.7.9.1). Returns how many ring entries that are. */
static unsigned return_in_order(struct virtio_net_ring *ring, struct pkt **pkts, unsigned n)
{
	uint16_t mask = ring->vq.size - 1;
	unsigned count = 0;
	uint32_t last = 0;

	if (likely(in_turn(ring, pkts, n))) {
		ring->return_next += n;
		virtq_put_used(&ring->vq, 0, (uint16_t)pkts[n - 1]->cookie, 0);
		return n;
	}
	for (unsigned i = 0; i < n; i++)
		ring->returned[(pkts[i]->cookie >> 16) & mask] = (uint16_t)pkts[i]->cookie + 1;
	ring->out_of_turn += n;
	while (ring->returned[ring->return_next & mask]) {
		last = ring->returned[ring->return_next & mask] - 1;
		ring->returned[ring->return_next & mask] = 0;
		ring->return_next++;
		count++;
	}
	ring->out_of_turn -= count;
	if (count > 0)
		virtq_put_used(&ring->vq, 0, last, 0);
	return count;
}

void virtio_net_tx_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	struct virtio_net_ring *ring =
		(struct virtio_net_ring *)((char *)source -
					   offsetof(struct virtio_net_ring, source));
	struct virtq *vq = &ring->vq;

	if (unlikely(!vq->started || vq->broken))
		return;
	if (vq->in_order) {
		n = return_in_order(ring, pkts, n);
	} else {
		for (unsigned i = 0; i < n; i++)
			virtq_put_used(vq, i, (uint16_t)pkts[i]->cookie, 0);
	}
	virtq_publish(vq, n);
	if (virtq_should_signal(vq))
		call_guest(ring->device, vq);
}

/* ---- to the guest ---- */

/* The virtio_net_hdr for a packet. Guests that did not negotiate checksums hear nothing of them. */
static void make_vnet(const struct virtio_net *device, const struct pkt *pkt, unsigned buffers,
		      uint8_t *vnet)
{
	struct pkt_offload offload = pkt->offload;

	if (!(device->channel.port.caps & PORT_CAP_CSUM))
		offload = (struct pkt_offload){ 0 };
	vnet_from_offload(&offload, pkt->payload_off ? pkt->payload_off : pkt->header_len, vnet);
	vnet_put16(vnet + NUM_BUFFERS_OFF, buffers);
}

/* Does what lies at to differ? Spelt out, as a call costs more than the rest of a small packet. */
static bool vnet_differs(const uint8_t *to, const uint8_t *vnet, unsigned header_len)
{
	uint64_t there, here;
	uint32_t there_end = 0, here_end = 0;

	memcpy(&there, to, 8);
	memcpy(&here, vnet, 8);
	if (likely(header_len == VNET_LEN)) {
		memcpy(&there_end, to + 8, 4);
		memcpy(&here_end, vnet + 8, 4);
	} else {
		memcpy(&there_end, to + 8, 2);
		memcpy(&here_end, vnet + 8, 2);
	}
	return ((there ^ here) | (there_end ^ here_end)) != 0;
}

static void copy_plain(const struct virtio_net *device, const struct pkt *pkt, uint8_t *to)
{
	uint8_t vnet[VNET_LEN];

	make_vnet(device, pkt, 1, vnet);
	if (unlikely(vnet_differs(to, vnet, device->header_len)))
		memcpy(to, vnet, device->header_len);
	to += device->header_len;
	if (likely(pkt->header_len == PKT_HEADER_FAST))
		memcpy(to, pkt->header, PKT_HEADER_FAST);
	else
		memcpy(to, pkt->header, pkt->header_len);
	to += pkt->header_len;
	for (unsigned i = 0; i < pkt->frag_count; i++) {
		memcpy(to, pkt->frags[i].iov_base, pkt->frags[i].iov_len);
		to += pkt->frags[i].iov_len;
	}
}

/* Where the next byte of a scattered copy goes. */
struct scatter {
	const struct iovec *iov;
	size_t off;
};

static void scatter_put(struct scatter *to, const uint8_t *from, size_t len)
{
	while (len > 0) {
		size_t part = to->iov->iov_len - to->off;

		if (part > len)
			part = len;
		memcpy((uint8_t *)to->iov->iov_base + to->off, from, part);
		from += part;
		len -= part;
		to->off += part;
		if (to->off == to->iov->iov_len) {
			to->iov++;
			to->off = 0;
		}
	}
}

static void copy_scattered(const struct virtio_net *device, const struct pkt *pkt, unsigned buffers,
			   const struct iovec *iov)
{
	struct scatter to = { iov, 0 };
	uint8_t vnet[VNET_LEN];

	make_vnet(device, pkt, buffers, vnet);
	scatter_put(&to, vnet, device->header_len);
	scatter_put(&to, pkt->header, pkt->header_len);
	for (unsigned i = 0; i < pkt->frag_count; i++)
		scatter_put(&to, pkt->frags[i].iov_base, pkt->frags[i].iov_len);
}

/*
 * A packet that does not go into one plain buffer: gather as many chains as it takes, from the ring
 * entry skip places on, and copy. Returns the entries used, 0 when it does not fit, with *why.
 */
static unsigned place_scattered(struct virtio_net *device, struct virtq *vq, const struct pkt *pkt,
				unsigned skip, unsigned available, uint64_t **why)
{
	struct port_stats *stats = port_stats(&device->channel.port);
	struct iovec iov[RX_IOV_MAX];
	bool mergeable = virtio_net_has(device, VIRTIO_NET_F_MRG_RXBUF_BIT);
	uint64_t need = device->header_len + pkt->len, have = 0;
	unsigned entries = 0, pieces = 0;

	while (have < need) {
		if (skip + entries == available) {
			*why = &stats->drop_no_buffers;
			return 0;
		}
		uint16_t head = virtq_head(vq, vq->last_avail + skip + entries);
		enum virtq_error error = VIRTQ_BAD_HEAD;
		struct virtq_chain chain = { 0 };

		if (likely(head < vq->size)) {
			struct virtq_desc desc = virtq_desc_read(vq->desc, head);

			error = virtq_gather(vq, &desc, true, iov + pieces, RX_IOV_MAX - pieces,
					     &chain);
		}
		if (error) {
			virtio_net_break_ring(device, vq, error);
			*why = &stats->drop_not_ready;
			return 0;
		}
		pieces += chain.count;
		uint64_t used = chain.len < need - have ? chain.len : need - have;

		virtq_put_used(vq, skip + entries, head, used);
		entries++;
		have += used;
		if (have < need && (!mergeable || chain.cut)) {
			*why = &stats->drop_too_big;
			return 0;
		}
	}
	copy_scattered(device, pkt, entries, iov);
	return entries;
}

static unsigned virtio_net_guest_rx(struct channel *channel, unsigned pair, struct pkt **pkts,
				    unsigned n, uint64_t **why)
{
	struct virtio_net *device = device_of(channel);
	struct virtio_net_ring *ring = virtio_net_rx_ring(device, pair);
	struct virtq *vq = &ring->vq;
	struct port_stats *stats = port_stats(&channel->port);
	uint8_t *to[PKT_BURST];
	unsigned entries = 0, i;

	*why = &stats->drop_not_ready;
	if (!virtq_running(vq))
		return 0;
	unsigned available = virtq_available(vq);

	if (unlikely(available > vq->size)) {
		virtio_net_break_ring(device, vq, VIRTQ_INDEX_JUMP);
		return 0;
	}
	for (i = 0; i < n; i++) {
		uint64_t need = device->header_len + pkts[i]->len;

		to[i] = NULL;
		if (unlikely(entries == available)) {
			*why = &stats->drop_no_buffers;
			break;
		}
		uint16_t head = virtq_head(vq, vq->last_avail + entries);

		if (likely(head < vq->size)) {
			struct virtq_desc desc = virtq_desc_read(vq->desc, head);

			if (likely(desc.flags == VIRTQ_DESC_WRITE && desc.len >= need))
				to[i] = virtq_buffer(vq, &desc);
		}
		if (likely(to[i])) {
			virtq_put_used(vq, entries++, head, need);
			continue;
		}
		unsigned more = place_scattered(device, vq, pkts[i], entries, available, why);

		if (more == 0)
			break;
		entries += more;
	}
	/* Broken at a later packet: the guest will not hear of the earlier ones either. */
	if (unlikely(vq->broken))
		return 0;
	for (unsigned j = 0; j < i; j++) {
		if (likely(to[j]))
			copy_plain(device, pkts[j], to[j]);
	}
	if (entries > 0) {
		vq->last_avail += entries;
		virtq_publish(vq, entries);
		ring->flush_pending = true;
	}
	return i;
}

static void virtio_net_kick(struct channel *channel, unsigned pair)
{
	struct virtio_net *device = device_of(channel);
	struct virtio_net_ring *ring = virtio_net_rx_ring(device, pair);

	if (!ring->flush_pending)
		return;
	ring->flush_pending = false;
	if (virtq_running(&ring->vq) && virtq_should_signal(&ring->vq))
		call_guest(device, &ring->vq);
}

static bool virtio_net_arm(struct channel *channel, unsigned pair)
{
	struct virtq *vq = &virtio_net_tx_ring(device_of(channel), pair)->vq;

	return virtq_running(vq) && virtq_arm(vq);
}

static void virtio_net_disarm(struct channel *channel, unsigned pair)
{
	struct virtq *vq = &virtio_net_tx_ring(device_of(channel), pair)->vq;

	if (virtq_running(vq))
		virtq_disarm(vq);
}

const struct channel_ops virtio_net_channel_ops = {
	.kind = "virtio",
	.guest_tx = virtio_net_guest_tx,
	.guest_rx = virtio_net_guest_rx,
	.kick = virtio_net_kick,
	.arm = virtio_net_arm,
	.disarm = virtio_net_disarm,
};
