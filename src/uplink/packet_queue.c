/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One queue of an AF_PACKET uplink: a packet socket (packet(7)).
 *
 * Theory of operation. With PACKET_VNET_HDR each packet carries a virtio_net_hdr both ways, so that
 * 64 KiB packets with an unfinished checksum cross whole (M6, M7).
 *
 *      recvmmsg   vnet[10] | header[192] of the packet | buffers of the queue (recv_bufs.c)
 *      sendmmsg   vnet[10] | header[]                  | fragments, wherever they are
 *
 * One system call receives a burst and one sends a burst. Rings shared with the kernel
 * (PACKET_MMAP) would not pay: the kernel copies into them all the same, TPACKET_V3 holds packets
 * back until a block is full or some milliseconds old, and V2 needs 64 KiB for each small packet.
 *
 * How many packets are asked for depends on their size: what is read is to be still in the
 * second-level cache when it is copied.
 *
 * What the kernel has taken off a received frame comes beside it (PACKET_AUXDATA): the VLAN tag is
 * put back in, and a checksum that has been found good is marked so.
 *
 * When the interface goes down, sockets say ENETDOWN once and sending fails; when it comes up again,
 * everything works as before. When it goes away, ENXIO is all that is left. The first queue of an
 * interface to notice says so.
 */
#include "uplink/packet_queue.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <string.h>
#include <unistd.h>

#include "bridge/bridge.h"
#include "pkt/headers.h"
#include "pkt/vnet.h"
#include "port/worker.h"
#include "sys/log.h"

enum {
	VLAN_LEN = 4,
	MACS_LEN = 12, /* of a frame, in front of its VLAN tag */
	BURST_BYTES = 256 << 10,
	ASK_MIN = 4,             /* packets asked for at once, however large they are */
	SOCKET_BUFFER = 8 << 20, /* several bursts of 64 KiB packets */
	SEND_IOVS = 2 * PKT_FRAGS_MAX,
};

static_assert((int)VLAN_LEN <= (int)RECV_ROOM, "there is room for the tag");
static_assert(2 + PKT_FRAGS_MAX <= SEND_IOVS, "every packet can be sent");

/* ---- opening and closing ---- */

void packet_queue_init(struct packet_queue *queue, struct packet_link *link)
{
	queue->fd = -1;
	queue->link = link;
	queue->ask = PKT_BURST;
	for (unsigned i = 0; i < PKT_BURST; i++) {
		recv_place_init(&queue->places[i]);
		queue->places[i].iov[0].iov_len = VNET_LEN_LEGACY;
		queue->places[i].iov[1].iov_len = PKT_HEADER_MAX;
		queue->msgs[i].msg_hdr.msg_iov = queue->places[i].iov;
		queue->msgs[i].msg_hdr.msg_iovlen = 4;
		queue->msgs[i].msg_hdr.msg_control = queue->controls[i].bytes;
	}
}

static int set_option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) ? -errno : 0;
}

/* As large as wished if we may, otherwise as large as others may. */
static void set_buffer(int fd, int forced, int modest)
{
	if (set_option(fd, SOL_SOCKET, forced, SOCKET_BUFFER))
		set_option(fd, SOL_SOCKET, modest, SOCKET_BUFFER);
}

/* Receive nothing, until SO_DETACH_FILTER. */
static int shut(int fd)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = { .len = 1, .filter = &nothing };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) ? -errno : 0;
}

int packet_queue_open(struct packet_queue *queue, int ifindex)
{
	struct sockaddr_ll where = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = ifindex,
	};
	struct packet_mreq all = { .mr_ifindex = ifindex, .mr_type = PACKET_MR_PROMISC };
	int err;

	queue->fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (queue->fd < 0)
		return -errno;
	set_buffer(queue->fd, SO_RCVBUFFORCE, SO_RCVBUF);
	set_buffer(queue->fd, SO_SNDBUFFORCE, SO_SNDBUF);
	err = shut(queue->fd);
	if (!err)
		err = set_option(queue->fd, SOL_PACKET, PACKET_VNET_HDR, 1);
	if (!err)
		err = set_option(queue->fd, SOL_PACKET, PACKET_AUXDATA, 1);
	if (!err)
		err = set_option(queue->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
	if (!err && setsockopt(queue->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)))
		err = -errno;
	if (!err && bind(queue->fd, (struct sockaddr *)&where, sizeof(where)))
		err = -errno;
	return err;
}

int packet_queue_let_in(struct packet_queue *queue)
{
	return set_option(queue->fd, SOL_SOCKET, SO_DETACH_FILTER, 0);
}

void packet_queue_close(struct packet_queue *queue)
{
	if (queue->fd >= 0)
		close(queue->fd);
}

uint64_t packet_queue_lost(struct packet_queue *queue)
{
	struct tpacket_stats since = { 0 }; /* we asked last */
	socklen_t len = sizeof(since);

	if (getsockopt(queue->fd, SOL_PACKET, PACKET_STATISTICS, &since, &len) == 0)
		queue->lost += since.tp_drops;
	return queue->lost;
}

/* ---- receiving ---- */

/* The interface went down or away; say so once. */
static void note_lost(struct packet_link *link, const struct port *port)
{
	if (!atomic_exchange_explicit(&link->lost, true, memory_order_relaxed))
		log_warn("%s: its interface '%s' is down or gone", port->name, link->ifname);
}

static void note_alive(struct packet_link *link, const struct port *port)
{
	if (unlikely(atomic_load_explicit(&link->lost, memory_order_relaxed)) &&
	    atomic_exchange_explicit(&link->lost, false, memory_order_relaxed))
		log_info("%s: its interface '%s' is up again", port->name, link->ifname);
}

/*
 * Put the VLAN tag back between the addresses and what follows: of header[] and what lies behind it
 * at *rest, everything from there on moves by four bytes, *rest to the front.
 */
static void insert_vlan(struct pkt *pkt, unsigned len, const struct tpacket_auxdata *aux,
			uint8_t **rest)
{
	unsigned in_header = len < PKT_HEADER_MAX ? len : PKT_HEADER_MAX;
	unsigned stay = PKT_HEADER_MAX - VLAN_LEN; /* of header[] in header[] */
	unsigned tpid = aux->tp_status & TP_STATUS_VLAN_TPID_VALID ? aux->tp_vlan_tpid
								   : ETH_P_8021Q;

	if (in_header > stay) {
		*rest -= in_header - stay;
		memcpy(*rest, pkt->header + stay, in_header - stay);
		in_header = stay;
	}
	memmove(pkt->header + MACS_LEN + VLAN_LEN, pkt->header + MACS_LEN, in_header - MACS_LEN);
	store_be16(pkt->header + MACS_LEN, tpid);
	store_be16(pkt->header + MACS_LEN + 2, aux->tp_vlan_tci);
	if (pkt->offload.flags & PKT_CSUM_PARTIAL)
		pkt->offload.csum_start += VLAN_LEN;
}

/* What the kernel says beside the packet; NULL: nothing. */
static const struct tpacket_auxdata *auxdata(struct msghdr *msg)
{
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);

	return cmsg && cmsg->cmsg_level == SOL_PACKET && cmsg->cmsg_type == PACKET_AUXDATA
		       ? (const struct tpacket_auxdata *)CMSG_DATA(cmsg)
		       : NULL;
}

/* Make a packet of message number i. False: it is not to be forwarded, and counted. */
static bool take_in(struct packet_queue *queue, unsigned i, struct pkt *pkt,
		    struct port_stats *stats)
{
	struct mmsghdr *msg = &queue->msgs[i];
	const struct tpacket_auxdata *aux = auxdata(&msg->msg_hdr);
	struct recv_place *place = &queue->places[i];
	unsigned len = msg->msg_len - VNET_LEN_LEGACY;
	uint8_t *rest = place->iov[2].iov_base;

	if (unlikely(msg->msg_len < VNET_LEN_LEGACY + PKT_LEN_MIN)) {
		stats->drop_runt++;
		return false;
	}
	if (unlikely(!vnet_to_offload(pkt->vnet, &pkt->offload))) {
		stats->drop_bad_vnet_header++;
		return false;
	}
	if (likely(aux)) {
		if (aux->tp_status & TP_STATUS_CSUM_VALID &&
		    !(pkt->offload.flags & PKT_CSUM_PARTIAL))
			pkt->offload.flags |= PKT_CSUM_VALID;
		if (aux->tp_status & TP_STATUS_VLAN_VALID) {
			insert_vlan(pkt, len, aux, &rest);
			len += VLAN_LEN;
		}
	}
	if (unlikely(len > PKT_LEN_MAX || msg->msg_hdr.msg_flags & MSG_TRUNC)) {
		stats->drop_oversize++;
		return false;
	}
	pkt->len = len;
	pkt->header_len = len < PKT_HEADER_MAX ? len : PKT_HEADER_MAX;
	if (unlikely(!pkt_needs_nothing(pkt) && !headers_check_offload(pkt))) {
		stats->drop_bad_vnet_header++;
		return false;
	}
	if (len > PKT_HEADER_MAX)
		recv_place_take(&queue->bufs, place, pkt, rest);
	stats->recv_packets++;
	stats->recv_bytes += len;
	stats->recv_gso_packets += pkt->offload.gso_type != PKT_GSO_NONE;
	return true;
}

/* Make places for up to n packets. Returns how many there are. */
static unsigned fill_places(struct packet_queue *queue, unsigned n)
{
	uint64_t larges = queue->bufs.larges;
	unsigned count = 0;

	while (count < n && likely(recv_place_fill(&queue->bufs, &queue->places[count], &larges)))
		count++;
	return count;
}

/* Take in up to n packets into pkts, of which the first are filled. Returns how many; 0 also when
 * there is none or the kernel could not hand it over. */
static unsigned read_burst(struct packet_queue *queue, struct port *port, struct pkt **pkts,
			   unsigned n)
{
	int got;

	for (unsigned i = 0; i < n; i++) {
		queue->places[i].iov[0].iov_base = pkts[i]->vnet;
		queue->places[i].iov[1].iov_base = pkts[i]->header;
		queue->msgs[i].msg_hdr.msg_controllen = sizeof(queue->controls[i].bytes);
	}
	got = recvmmsg(queue->fd, queue->msgs, n, MSG_DONTWAIT, NULL);
	if (got > 0) {
		note_alive(queue->link, port);
		return (unsigned)got;
	}
	if (errno == EAGAIN)
		queue->drained = true;
	else if (errno == ENETDOWN || errno == ENXIO)
		note_lost(queue->link, port);
	else if (errno != EINTR) /* of a kind that a vnet header cannot tell */
		port_stats(port)->drop_bad_vnet_header++;
	return 0;
}

/* Fewer packets at once the larger they are. */
static void adapt(struct packet_queue *queue, unsigned got, uint64_t bytes)
{
	if (bytes > BURST_BYTES)
		queue->ask = got / 2 > ASK_MIN ? got / 2 : ASK_MIN;
	else if (queue->ask < PKT_BURST)
		queue->ask++;
}

unsigned packet_queue_recv(struct packet_queue *queue, struct port *port, struct pkt **pkts,
			   unsigned n)
{
	struct port_stats *stats = port_stats(port);
	struct pkt_pool *pool = &worker_self->pool;
	unsigned got, count = 0;
	struct pkt *dropped[PKT_BURST];
	uint64_t bytes = 0;

	n = fill_places(queue, n < queue->ask ? n : queue->ask);
	n = pkt_pool_get(pool, pkts, n);
	queue->drained = false;
	if (unlikely(n == 0))
		return 0; /* it waits in the socket */
	got = read_burst(queue, port, pkts, n);
	pkt_pool_put(pool, pkts + got, n - got);
	n = 0;
	for (unsigned i = 0; i < got; i++) {
		struct pkt *pkt = pkts[i];

		bytes += queue->msgs[i].msg_len;
		if (unlikely(!take_in(queue, i, pkt, stats))) {
			dropped[n++] = pkt;
			continue;
		}
		pkt->in_port = port->id;
		pkts[count++] = pkt;
	}
	pkt_pool_put(pool, dropped, n);
	if (got > 0)
		adapt(queue, got, bytes);
	if (count > 0)
		profile_mark(&worker_self->profile, STAGE_UPLINK);
	return count;
}

/* After EAGAIN the next packet is an edge on the watched descriptor; before, there may be more. */
bool packet_queue_arm(struct packet_queue *queue)
{
	return !queue->drained;
}

/* ---- sending ---- */

/* A packet as a message; returns how many pieces it has. */
static unsigned write_message(struct pkt *pkt, struct mmsghdr *msg, struct iovec *iov)
{
	vnet_from_offload(&pkt->offload, pkt->payload_off ? pkt->payload_off : pkt->header_len,
			  pkt->vnet);
	iov[0] = (struct iovec){ pkt->vnet, VNET_LEN_LEGACY };
	iov[1] = (struct iovec){ pkt->header, pkt->header_len };
	memcpy(&iov[2], pkt->frags, pkt->frag_count * sizeof(iov[0]));
	msg->msg_hdr = (struct msghdr){ .msg_iov = iov, .msg_iovlen = 2u + pkt->frag_count };
	return 2u + pkt->frag_count;
}

/* One packet could not be sent because of code: count it, or all n that are left if they will fare
 * no better. Returns how many it counted. */
static unsigned count_failed(struct packet_queue *queue, struct port *port, int code, unsigned n)
{
	struct port_stats *stats = port_stats(port);

	switch (code) {
	case EAGAIN: /* the socket's buffer is full */
		stats->drop_queue_full += n;
		return n;
	case ENOBUFS: /* the interface's queue is full, or memory is short */
	case ENOMEM:
		stats->drop_queue_full++;
		return 1;
	case ENETDOWN:
	case ENXIO:
		note_lost(queue->link, port);
		stats->drop_device_error += n;
		return n;
	case EMSGSIZE:
		stats->drop_too_big++;
		return 1;
	default:
		stats->drop_device_error++;
		return 1;
	}
}

static void send_messages(struct packet_queue *queue, struct port *port, struct mmsghdr *msgs,
			  struct pkt **pkts, unsigned n)
{
	struct port_stats *stats = port_stats(port);

	while (n > 0) {
		int sent = sendmmsg(queue->fd, msgs, n, MSG_DONTWAIT);
		unsigned done = sent > 0 ? (unsigned)sent : count_failed(queue, port, errno, n);

		for (int i = 0; i < sent; i++) {
			stats->send_packets++;
			stats->send_bytes += pkts[i]->len;
			stats->send_gso_packets += pkts[i]->offload.gso_type != PKT_GSO_NONE;
		}
		if (sent > 0)
			note_alive(queue->link, port);
		msgs += done;
		pkts += done;
		n -= done;
	}
}

void packet_queue_send(struct packet_queue *queue, struct port *port, struct pkt **pkts, unsigned n)
{
	struct iovec iov[SEND_IOVS];
	struct mmsghdr msgs[PKT_BURST];

	for (unsigned from = 0; from < n;) {
		unsigned to = from, used = 0;

		while (to < n && to - from < PKT_BURST &&
		       used + 2 + pkts[to]->frag_count <= SEND_IOVS) {
			used += write_message(pkts[to], &msgs[to - from], iov + used);
			to++;
		}
		send_messages(queue, port, msgs, pkts + from, to - from);
		for (; from < to; from++)
			pkt_put(pkts[from]);
	}
	profile_mark(&worker_self->profile, STAGE_UPLINK);
}
