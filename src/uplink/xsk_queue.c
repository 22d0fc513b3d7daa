/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One queue of an AF_XDP uplink (Linux, Documentation/networking/af_xdp.rst).
 *
 * Theory of operation. Kernel and vifd share frames of 2 or 4 KiB, the UMEM, and hand them to each
 * other over four rings. Each queue has a UMEM of its own, so that queues share nothing.
 *
 *      frames   [ XSK_RX_FRAMES: received into        | XSK_TX_FRAMES: sent from          ]
 *
 *      recv()     fill ring    --> kernel: receives   | send()   tx ring    --> kernel: sends
 *                 rx ring      <-- packet by packet   |          completion <-- frame by frame
 *                 done(): back into the fill ring     |          ring, reaped with the next burst
 *
 * A received packet references its frames until its last owner lets go; the first 64 bytes are
 * copied to header[] as everywhere, and a packet that fits there gives its frame back at once.
 * next[] chains the frames of a packet that takes several. Both rings of a side have room for all
 * frames of that side, hence neither ever overflows. Sending is the one copy: header and fragments
 * are gathered into a frame, so that a packet in pieces costs no more than one in a whole.
 *
 * Doorbells. In copy mode it is our system call that sends, 32 packets at most; in zero-copy mode
 * the driver polls and says (need-wakeup) when it has to be woken. What the device could not take
 * at once is tried again in the next rounds of the worker that receives here.
 *
 * Wake-ups. The worker sleeps on wake_fd, an epoll descriptor with the socket in it. The kernel
 * tells it of every packet received and of every packet sent, whether the worker sleeps or not: an
 * eighth of the cost of a small packet. So a queue that is kept busy takes the socket out, and puts
 * it back when it is armed, which tells at once of packets that came meanwhile. One that sleeps
 * between packets leaves it in, and is spared two system calls each time.
 *
 * Checksums (M7). XDP delivers a packet's bytes and none of what the kernel knew about its
 * checksum. It is therefore verified here, while the payload is on its way into the cache for the
 * copy that follows, and only a right one is called valid. A wrong one is left as it is, for the
 * receiver to find.
 *
 * One kind of wrong is no error: on an interface whose other end is on this machine (veth; in SKB
 * mode others) the sender's kernel leaves the checksum unfinished, for there is no wire: the field
 * holds the sum of the pseudo header. A packet from such an interface with exactly that in its
 * field asks for its checksum to be finished, as if it came from a TAP. That is believed at the
 * price of the checksum being one bit weaker there (a damaged packet looks unfinished once in 65536
 * times, as it looks intact once in 65536 times); from other interfaces it is not.
 */
#include "uplink/xsk_queue.h"

#include <errno.h>
#include <linux/if_link.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bridge/bridge.h"
#include "pkt/csum.h"
#include "pkt/headers.h"
#include "pkt/proto.h"
#include "port/worker.h"
#include "zone/zone_host.h"

#ifndef XDP_USE_SG /* Linux 6.6 */
#define XDP_USE_SG    (1 << 4)
#define XDP_PKT_CONTD (1 << 0)
#endif

enum {
	NO_FRAME = 0xffff,
	BUSY_BURSTS = 16,       /* received without a sleep: the queue is kept busy */
	SEND_BUDGET = 32,       /* packets that one sendto() sends in copy mode */
	SEND_BUFFER = 64 << 20, /* bytes of memory of packets on their way; frames bound it */
};

static_assert((int)XSK_RX_FRAMES < (int)NO_FRAME, "frames are numbered in 16 bits");

/* ---- opening and closing ---- */

/*
 * The UMEM: zones, so that what is received can stay where it is on its way to a guest that may see
 * it (S11). What is sent is nobody's business.
 */
static int frames_make(struct xsk_queue *queue, const char *ifname)
{
	unsigned rx = XSK_RX_FRAMES * queue->frame_size / ZONE_SIZE;
	unsigned tx = (XSK_TX_FRAMES * queue->frame_size + ZONE_SIZE - 1) / ZONE_SIZE;
	struct error error;
	struct zone_space *space = zone_host(&error);
	struct zone *zone;
	int err;

	if (!space)
		return -ENOMEM;
	zone_group_init(&queue->zones, space, ifname, ZONE_READ_ONLY, rx + tx);
	err = zone_group_grow(&queue->zones, rx + tx, &error);
	if (err)
		return err;
	zone = queue->zones.zones;
	queue->frames = zone->base;
	for (unsigned i = 0; zone; zone = zone->next, i++) {
		if (i >= rx)
			zone_hide(zone);
	}
	return 0;
}

static_assert(XSK_RX_FRAMES * XSK_FRAME_SMALL % ZONE_SIZE == 0, "no zone has frames of both kinds");

static void queue_done(struct pkt_source *source, struct pkt **pkts, unsigned n);

static int socket_open(struct xsk_queue *queue, const struct xsk_queue_config *config)
{
	const struct xsk_umem_config umem = {
		.fill_size = XSK_RX_FRAMES,
		.comp_size = XSK_TX_FRAMES,
		.frame_size = config->frame_size,
	};
	const struct xsk_socket_config socket = {
		.rx_size = XSK_RX_FRAMES,
		.tx_size = XSK_TX_FRAMES,
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.xdp_flags = config->xdp_mode,
		.bind_flags = XDP_USE_NEED_WAKEUP | (config->zero_copy ? XDP_ZEROCOPY : XDP_COPY) |
			      (config->multi_buffer ? XDP_USE_SG : 0),
	};
	size_t len = (size_t)(XSK_RX_FRAMES + XSK_TX_FRAMES) * config->frame_size;
	int err = xsk_umem__create(&queue->umem, queue->frames, len, &queue->fill,
				   &queue->completion, &umem);

	if (err) {
		queue->umem = NULL;
		return err;
	}
	err = xsk_socket__create(&queue->socket, config->ifname, config->queue, queue->umem,
				 &queue->rx, &queue->tx, &socket);
	if (err) {
		queue->socket = NULL;
		return err;
	}
	queue->wake_fd = epoll_create1(EPOLL_CLOEXEC);
	return queue->wake_fd < 0 ? -errno : 0;
}

int xsk_queue_open(struct xsk_queue *queue, const struct xsk_queue_config *config)
{
	int send_buffer = SEND_BUFFER, err;
	uint32_t at = 0;

	queue->source.done = queue_done;
	queue->frame_size = config->frame_size;
	queue->multi_buffer = config->multi_buffer;
	queue->unfinished = config->unfinished;
	queue->zeroing = config->zeroing;
	err = frames_make(queue, config->ifname);
	if (!err)
		err = socket_open(queue, config);
	if (err) {
		xsk_queue_close(queue);
		return err;
	}

	/* Without the privilege a busy device is tried again more often, that is all. */
	setsockopt(xsk_socket__fd(queue->socket), SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer,
		   sizeof(send_buffer));
	xsk_ring_prod__reserve(&queue->fill, XSK_RX_FRAMES, &at);
	for (unsigned i = 0; i < XSK_RX_FRAMES; i++)
		*xsk_ring_prod__fill_addr(&queue->fill, at + i) = (uint64_t)i * queue->frame_size;
	xsk_ring_prod__submit(&queue->fill, XSK_RX_FRAMES);
	for (unsigned i = 0; i < XSK_TX_FRAMES; i++)
		queue->free[i] = XSK_RX_FRAMES + XSK_TX_FRAMES - 1 - i;
	queue->free_count = XSK_TX_FRAMES;
	return 0;
}

void xsk_queue_close(struct xsk_queue *queue)
{
	if (queue->socket) {
		xsk_socket__delete(queue->socket);
		if (queue->wake_fd >= 0)
			close(queue->wake_fd);
	}
	if (queue->umem)
		xsk_umem__delete(queue->umem);
	if (queue->zones.space)
		zone_group_fini(&queue->zones);
	memset(queue, 0, sizeof(*queue));
}

/* ---- receiving ---- */

static inline void wake_receiver(struct xsk_queue *queue)
{
	if (unlikely(xsk_ring_prod__needs_wakeup(&queue->fill)))
		recvfrom(xsk_socket__fd(queue->socket), NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

/* Try again to send what the device had no room for. True: it still has none. */
static inline bool send_later(struct xsk_queue *queue)
{
	if (likely(!atomic_load_explicit(&queue->later, memory_order_relaxed)))
		return false;
	xsk_queue_kick(queue);
	return atomic_load_explicit(&queue->later, memory_order_relaxed);
}

/* buffers=page: as if this page were handed to somebody next, who must not see what was in it (M13). */
static void frame_zero(struct xsk_queue *queue, unsigned frame)
{
	memset(queue->frames + (size_t)frame * queue->frame_size, 0, queue->frame_size);
	queue->zeroed++;
}

/* Put a packet's frames into the fill ring, which has room for all; submit later. */
static unsigned frames_return(struct xsk_queue *queue, const struct pkt *pkt)
{
	unsigned count = 0;
	uint32_t at = 0;

	for (unsigned frame = pkt->cookie; frame != NO_FRAME; frame = queue->next[frame]) {
		if (unlikely(queue->zeroing))
			frame_zero(queue, frame);
		xsk_ring_prod__reserve(&queue->fill, 1, &at);
		*xsk_ring_prod__fill_addr(&queue->fill, at) = (uint64_t)frame * queue->frame_size;
		count++;
	}
	return count;
}

static void queue_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	struct xsk_queue *queue = (struct xsk_queue *)source;
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++)
		count += frames_return(queue, pkts[i]);
	xsk_ring_prod__submit(&queue->fill, count);
}

/* Say of the checksum what is known for certain; see the top of the file. */
static void judge_checksum(const struct xsk_queue *queue, struct pkt *pkt)
{
	unsigned offset;
	uint16_t field;

	headers_parse(pkt);
	if (!pkt->payload_off || !pkt_pull(pkt, pkt->payload_off))
		return;
	offset = pkt->l4_proto == IPPROTO_TCP ? TCP_CSUM : UDP_CSUM;
	memcpy(&field, pkt->header + pkt->l4_off + offset, sizeof(field));

	unsigned len = pkt->l3_off + headers_ip_len(pkt) - pkt->l4_off;

	/* The sender made none, or over something other than we would look at. */
	if (pkt->l4_proto == IPPROTO_UDP &&
	    (field == 0 || load_be16(pkt->header + pkt->l4_off + UDP_LEN) != len))
		return;

	uint32_t pseudo = csum_pseudo(pkt, len);

	/*
	 * First, for it costs little. A field that is right as well stays right when it is
	 * finished: then the data sum to zero.
	 */
	if (queue->unfinished && field == csum_fold_partial(pseudo) &&
	    pkt->l4_off + len == pkt->len) {
		pkt->offload.flags = PKT_CSUM_PARTIAL;
		pkt->offload.csum_start = pkt->l4_off;
		pkt->offload.csum_offset = offset;
	} else if (csum_fold(csum_pkt(pkt, pkt->l4_off, len, pseudo)) == 0) {
		pkt->offload.flags = PKT_CSUM_VALID;
	}
}

/* A packet that is being put together from its frames. */
struct assembly {
	struct pkt *pkt; /* NULL: none */
	unsigned last;   /* its last frame so far */
	uint64_t *drop;  /* counter of why it is to be dropped, or NULL */
};

/* The first frame of a packet. */
static void begin(struct xsk_queue *queue, struct assembly *packet, const struct xdp_desc *desc)
{
	uint8_t *data = queue->frames + desc->addr;
	struct pkt *pkt = packet->pkt;

	pkt->header_len = desc->len < PKT_HEADER_FAST ? desc->len : PKT_HEADER_FAST;
	memcpy(pkt->header, data, pkt->header_len);
	pkt->len = desc->len;
	pkt->cookie = packet->last = desc->addr / queue->frame_size;
	queue->next[pkt->cookie] = NO_FRAME;
	packet->drop = NULL;
	if (desc->len > PKT_HEADER_FAST) {
		pkt->frags[0] = (struct iovec){ data + PKT_HEADER_FAST,
						desc->len - PKT_HEADER_FAST };
		pkt->frag_count = 1;
	}
}

static void continue_with(struct xsk_queue *queue, struct assembly *packet,
			  const struct xdp_desc *desc, struct port_stats *stats)
{
	struct pkt *pkt = packet->pkt;
	unsigned frame = desc->addr / queue->frame_size;

	queue->next[packet->last] = frame;
	queue->next[frame] = NO_FRAME;
	packet->last = frame;
	pkt->len += desc->len;
	if (pkt->len > PKT_LEN_MAX)
		packet->drop = &stats->drop_oversize;
	else if (pkt->frag_count == PKT_INLINE_FRAGS)
		packet->drop = &stats->drop_too_many_fragments;
	else
		pkt->frags[pkt->frag_count++] = (struct iovec){ queue->frames + desc->addr,
								desc->len };
}

/* All of a packet is there. False: it is not to be forwarded, and counted. */
static bool finish(struct xsk_queue *queue, struct assembly *packet, struct port_stats *stats,
		   unsigned *returned)
{
	struct pkt *pkt = packet->pkt;

	if (unlikely(pkt->len < PKT_LEN_MIN))
		packet->drop = &stats->drop_runt;
	if (unlikely(packet->drop)) {
		(*packet->drop)++;
		*returned += frames_return(queue, pkt);
		pkt_pool_put(&worker_self->pool, &pkt, 1);
		return false;
	}
	if (pkt->frag_count)
		pkt->source = &queue->source;
	else
		*returned += frames_return(queue, pkt); /* it is all in the header copy */
	stats->recv_packets++;
	stats->recv_bytes += pkt->len;
	return true;
}

/*
 * Descriptors of whole packets, n at most; at is the first. What of a packet is still to come, or
 * does not fit n, stays in the ring: a packet takes fewer frames than a burst has packets.
 */
static unsigned peek_packets(struct xsk_queue *queue, unsigned n, uint32_t *at)
{
	unsigned found = xsk_ring_cons__peek(&queue->rx, n, at), whole = found;

	while (whole > 0 && unlikely(xsk_ring_cons__rx_desc(&queue->rx, *at + whole - 1)->options &
				     XDP_PKT_CONTD))
		whole--;
	xsk_ring_cons__cancel(&queue->rx, found - whole);
	return whole;
}

/* A burst was received. With enough of them nobody need be told of the next. */
static inline void count_burst(struct xsk_queue *queue)
{
	if (likely(!queue->watched) || ++queue->bursts < BUSY_BURSTS)
		return;
	epoll_ctl(queue->wake_fd, EPOLL_CTL_DEL, xsk_socket__fd(queue->socket), NULL);
	queue->watched = false;
}

unsigned xsk_queue_recv(struct xsk_queue *queue, struct port *port, struct pkt **pkts, unsigned n)
{
	struct port_stats *stats = port_stats(port);
	struct assembly packet = { 0 };
	uint32_t at = 0, used = 0;
	unsigned count = 0, returned = 0;
	unsigned descs = peek_packets(queue, n, &at);

	if (descs == 0) {
		wake_receiver(queue);
		send_later(queue);
		return 0;
	}
	count_burst(queue);
	for (unsigned i = 0; i < descs; i++) {
		const struct xdp_desc *desc = xsk_ring_cons__rx_desc(&queue->rx, at + i);

		__builtin_prefetch(queue->frames + desc->addr);
		__builtin_prefetch(queue->frames + desc->addr + 64);
	}
	for (; used < descs; used++) {
		const struct xdp_desc *desc = xsk_ring_cons__rx_desc(&queue->rx, at + used);

		if (packet.pkt)
			continue_with(queue, &packet, desc, stats);
		else if (likely(pkt_pool_get(&worker_self->pool, &packet.pkt, 1)))
			begin(queue, &packet, desc);
		else
			break; /* it waits in the ring */
		if (unlikely(desc->options & XDP_PKT_CONTD))
			continue;
		packet.pkt->in_port = port->id;
		if (likely(finish(queue, &packet, stats, &returned)))
			pkts[count++] = packet.pkt;
		packet.pkt = NULL;
	}
	xsk_ring_cons__cancel(&queue->rx, descs - used);
	xsk_ring_cons__release(&queue->rx, used);
	if (returned)
		xsk_ring_prod__submit(&queue->fill, returned);
	profile_mark(&worker_self->profile, STAGE_UPLINK);
	for (unsigned i = 0; i < count; i++)
		judge_checksum(queue, pkts[i]);
	profile_mark(&worker_self->profile, STAGE_OFFLOAD);
	return count;
}

bool xsk_queue_arm(struct xsk_queue *queue)
{
	struct epoll_event event = { .events = EPOLLIN };

	if (send_later(queue) || xsk_cons_nb_avail(&queue->rx, 1) > 0)
		return true;
	queue->bursts = 0;
	if (likely(queue->watched))
		return false;
	queue->watched = epoll_ctl(queue->wake_fd, EPOLL_CTL_ADD, xsk_socket__fd(queue->socket),
				   &event) == 0;
	return !queue->watched; /* without memory for it the worker polls on */
}

/* ---- sending ---- */

static void queue_lock(struct xsk_queue *queue)
{
	while (atomic_flag_test_and_set_explicit(&queue->held, memory_order_acquire))
		_mm_pause();
}

static void queue_unlock(struct xsk_queue *queue)
{
	atomic_flag_clear_explicit(&queue->held, memory_order_release);
}

/* Take back the frames that have been sent. */
static void reap(struct xsk_queue *queue)
{
	uint32_t at = 0;
	unsigned count = xsk_ring_cons__peek(&queue->completion, XSK_TX_FRAMES, &at);

	for (unsigned i = 0; i < count; i++)
		queue->free[queue->free_count++] =
			*xsk_ring_cons__comp_addr(&queue->completion, at + i) / queue->frame_size;
	if (count)
		xsk_ring_cons__release(&queue->completion, count);
}

/* Descriptors that the kernel has not taken yet. */
static unsigned unsent(const struct xsk_queue *queue)
{
	return __atomic_load_n(queue->tx.producer, __ATOMIC_RELAXED) -
	       __atomic_load_n(queue->tx.consumer, __ATOMIC_ACQUIRE);
}

unsigned xsk_queue_kick(struct xsk_queue *queue)
{
	unsigned left = unsent(queue), before, calls = 0;
	bool later = false;

	while (left && !later && xsk_ring_prod__needs_wakeup(&queue->tx)) {
		calls++;
		if (sendto(xsk_socket__fd(queue->socket), NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0)
			break;
		/* An interface that is down (ENETDOWN) or gone is left alone until more is sent. */
		if (errno != EAGAIN && errno != EBUSY && errno != ENOBUFS)
			break;
		/* EAGAIN is also what it says after each SEND_BUDGET packets. */
		before = left;
		left = unsent(queue);
		later = left && left + SEND_BUDGET > before;
	}
	atomic_store_explicit(&queue->later, later, memory_order_relaxed);
	return calls;
}

/* Where a packet is being gathered to: the present frame, and how much of it is used. */
struct gather {
	struct xsk_queue *queue;
	uint32_t at; /* of the tx ring */
	unsigned descs;
	struct xdp_desc *desc; /* NULL: none yet */
};

static void gather_frame(struct gather *gather)
{
	struct xsk_queue *queue = gather->queue;

	if (gather->desc)
		gather->desc->options = XDP_PKT_CONTD;
	xsk_ring_prod__reserve(&queue->tx, 1, &gather->at);
	gather->desc = xsk_ring_prod__tx_desc(&queue->tx, gather->at);
	gather->desc->addr = (uint64_t)queue->free[--queue->free_count] * queue->frame_size;
	gather->desc->len = 0;
	gather->desc->options = 0;
	gather->descs++;
}

static void gather_bytes(struct gather *gather, const uint8_t *from, size_t len)
{
	struct xsk_queue *queue = gather->queue;

	while (len > 0) {
		uint32_t room = queue->frame_size - gather->desc->len;

		if (unlikely(room == 0)) {
			gather_frame(gather);
			room = queue->frame_size;
		}
		if (room > len)
			room = len;
		memcpy(queue->frames + gather->desc->addr + gather->desc->len, from, room);
		gather->desc->len += room;
		from += room;
		len -= room;
	}
}

/* There is too little room: have sent what is there. */
static void make_room(struct gather *gather)
{
	xsk_ring_prod__submit(&gather->queue->tx, gather->descs);
	gather->descs = 0;
	xsk_queue_kick(gather->queue);
	reap(gather->queue);
}

/* Copy one packet; returns the counter of why it could not, or NULL. */
static uint64_t *put_packet(struct gather *gather, struct pkt *pkt, struct port_stats *stats)
{
	struct xsk_queue *queue = gather->queue;
	unsigned frames = (pkt->len + queue->frame_size - 1) / queue->frame_size;

	if (unlikely(frames > 1 && !queue->multi_buffer))
		return &stats->drop_too_big;
	if (unlikely(queue->free_count < frames)) {
		make_room(gather);
		if (queue->free_count < frames)
			return &stats->drop_queue_full;
	}
	gather->desc = NULL;
	gather_frame(gather);
	gather_bytes(gather, pkt->header, pkt->header_len);
	for (unsigned i = 0; i < pkt->frag_count; i++)
		gather_bytes(gather, pkt->frags[i].iov_base, pkt->frags[i].iov_len);
	return NULL;
}

void xsk_queue_send(struct xsk_queue *queue, struct port *port, struct pkt **pkts, unsigned n)
{
	struct port_stats *stats = port_stats(port);
	struct gather gather = { .queue = queue };

	queue_lock(queue);
	reap(queue);
	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt = pkts[i];
		uint64_t *why = put_packet(&gather, pkt, stats);

		if (unlikely(why)) {
			(*why)++;
		} else {
			stats->send_packets++;
			stats->send_bytes += pkt->len;
		}
		pkt_put(pkt);
	}
	xsk_ring_prod__submit(&queue->tx, gather.descs);
	queue_unlock(queue);
	worker_need_flush(worker_self, port);
	profile_mark(&worker_self->profile, STAGE_COPY);
}
