/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * AF_PACKET: any Ethernet interface of the kernel as an uplink, by packet sockets (packet(7)).
 *
 * Theory of operation. A packet socket sees what the interface receives, before the kernel's own
 * protocols do, and sends what it is given. With PACKET_VNET_HDR each packet carries a
 * virtio_net_hdr both ways, so that 64 KiB packets with an unfinished checksum cross whole (M6,
 * M7): the kernel hands over what it has put together (GRO), and hands on what the driver can
 * segment, or segments it behind us, which costs less than many packets through the socket. So the
 * port can do whatever the kernel can, on every interface; caps_mask makes it less, of what we send
 * (what we receive is the kernel's choice).
 *
 *      recvmmsg   vnet[10] | header[192] of the packet | a slot of the queue's arena
 *      sendmmsg   vnet[10] | header[]                  | fragments, wherever they are
 *
 * One system call receives a burst and one sends a burst. Rings shared with the kernel
 * (PACKET_MMAP) would not pay: the kernel copies into them all the same, TPACKET_V3 holds packets
 * back until a block is full or some milliseconds old, and V2 needs 64 KiB for each small packet.
 *
 * A slot holds what a packet has beyond header[]; the lowest free ones are used, which are those
 * used last. How many packets are asked for depends on their size: what is read is to be still in
 * the second-level cache when it is copied.
 *
 * What the kernel has taken off a received frame comes beside it (PACKET_AUXDATA): the VLAN tag is
 * put back in, and a checksum that has been found good is marked so. Frames that this host sends on
 * the interface are not seen, least of all our own (PACKET_IGNORE_OUTGOING). The kernel's own
 * protocols go on receiving what is addressed to the interface: give it no addresses.
 *
 * Several queues are sockets of a fanout group, among which the kernel deals by flow hash. They let
 * nothing in until all have joined: one that is bound but not yet in the group receives everything.
 *
 * Promiscuous mode and the group end with the sockets, however vifd ends; the MTU is netif.c's. When
 * the interface goes down, sockets say ENETDOWN once and sending fails; when it comes up again,
 * everything works as before. When it goes away, ENXIO is all that is left.
 */
#include "uplink/af_packet.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bridge/bridge.h"
#include "pkt/headers.h"
#include "pkt/vnet.h"
#include "port/worker.h"
#include "sys/log.h"
#include "uplink/netif.h"
#include "uplink/uplink.h"

#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING /* Linux 5.10 */
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000
#endif

enum {
	VLAN_LEN = 4,
	MACS_LEN = 12, /* of a frame, in front of its VLAN tag */
	BURST_BYTES = 256 << 10,
	ASK_MIN = 4,              /* packets asked for at once, however large they are */
	READ_MAX = 65536 + 64,    /* behind header[]: more than a legal packet has */
	SLOT_SIZE = 65536 + 1408, /* slots of 1500-byte packets meet in no cache set */
	SLOTS = PKT_BURST,
	ARENA_SIZE = SLOTS * SLOT_SIZE,
	HUGE_PAGE = 2 << 20,
	SOCKET_BUFFER = 8 << 20, /* several bursts of 64 KiB packets */
	SEND_IOVS = 2 * PKT_FRAGS_MAX,
};

static_assert(VLAN_LEN + READ_MAX <= SLOT_SIZE, "a packet and room to move it fit a slot");
static_assert(PKT_HEADER_MAX + READ_MAX > PKT_LEN_MAX,
	      "an oversized packet can be told from one that fits");
static_assert(SLOTS == 32, "free slots are bits of a word");
static_assert(2 + PKT_FRAGS_MAX <= SEND_IOVS, "every packet can be sent");

/* Where recvmmsg() puts one packet. */
struct place {
	struct iovec iov[3];
	unsigned slot;
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
};

struct packet_queue {
	struct pkt_source source; /* first: done() finds the queue by it */
	int fd;
	bool drained; /* the last read found nothing: an edge will announce the next packet */
	unsigned ask; /* how many packets to ask for */
	uint32_t free_slots; /* a bit each */
	uint8_t *arena;
	struct mmsghdr msgs[PKT_BURST];
	struct place places[PKT_BURST];
} __attribute__((aligned(64))); /* queues belong to different workers */

struct af_packet {
	struct port port;
	struct netif netif;
	_Atomic bool lost; /* the interface is down or gone, as far as we have noticed */
	uint8_t *arenas;   /* of all queues */
	size_t arenas_len;
	struct packet_queue queues[PORT_QUEUES_MAX];
};

static const struct port_ops af_packet_ops;

static struct af_packet *af_packet_of(struct port *port)
{
	return (struct af_packet *)((char *)port - offsetof(struct af_packet, port));
}

/* ---- opening and closing, in the main thread ---- */

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

/* Open a socket on the interface, shut. 0 or -errno. */
static int queue_open(struct packet_queue *queue, int ifindex)
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

/* Have the kernel deal packets out to the sockets. 0 or -errno. */
static int queues_join(struct af_packet *packet)
{
	const int how = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
	int group = (how | PACKET_FANOUT_FLAG_UNIQUEID) << 16;
	socklen_t len = sizeof(group);

	for (unsigned i = 0; i < packet->port.queues; i++) {
		int fd = packet->queues[i].fd;
		int err = set_option(fd, SOL_PACKET, PACKET_FANOUT, group);

		if (err)
			return err;
		if (i == 0 && getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, &len))
			return -errno;
		group = (group & 0xffff) | how << 16;
	}
	return 0;
}

static int queues_open(struct af_packet *packet, int ifindex, struct error *error)
{
	int err = 0;

	for (unsigned i = 0; i < packet->port.queues && !err; i++)
		err = queue_open(&packet->queues[i], ifindex);
	if (err == -EPERM)
		return fail(error, err,
			    "no permission for packet sockets: they take root or CAP_NET_RAW");
	if (!err && packet->port.queues > 1)
		err = queues_join(packet);
	for (unsigned i = 0; i < packet->port.queues && !err; i++)
		err = set_option(packet->queues[i].fd, SOL_SOCKET, SO_DETACH_FILTER, 0);
	return err ? fail(error, err, "interface '%s': no packet socket: %s", packet->netif.name,
			  strerror(-err))
		   : 0;
}

/* What the kernel takes from packet sockets on any interface, and does itself if the driver does
 * not. */
static uint32_t kernel_caps(void)
{
	uint32_t caps = PORT_CAP_SG | PORT_CAP_CSUM | PORT_CAP_TSO4 | PORT_CAP_TSO6 |
			PORT_CAP_TSO_ECN;
	unsigned major = 0, minor = 0;
	struct utsname kernel;

	/* UDP segmentation came with Linux 6.2, and there is no way to ask. */
	if (uname(&kernel) == 0 && sscanf(kernel.release, "%u.%u", &major, &minor) == 2 &&
	    (major > 6 || (major == 6 && minor >= 2)))
		caps |= PORT_CAP_USO;
	return caps;
}

/* What has to be done in the interface's network namespace. */
static int interface_open(struct af_packet *packet, const struct af_packet_config *config,
			  struct error *error)
{
	struct netif *netif = &packet->netif;
	int err = netif_open(netif, config->ifname, config->netns, error), ifindex, mtu;

	if (err)
		return err;
	ifindex = netif_index(netif);
	if (ifindex < 0)
		return config->netns
			       ? fail(error, ifindex,
				      "there is no interface '%s' in network namespace '%s'",
				      config->ifname, config->netns)
			       : fail(error, ifindex, "there is no interface '%s'", config->ifname);
	if (!netif_is_ethernet(netif))
		return fail(error, -EINVAL, "interface '%s' is no Ethernet interface",
			    config->ifname);
	mtu = netif_set_up(netif, config->mtu, error); /* first: sockets complain if it is down */
	if (mtu < 0)
		return mtu;
	err = queues_open(packet, ifindex, error);
	if (err)
		return err;
	packet->port.mtu = mtu < UINT16_MAX ? mtu : UINT16_MAX;
	packet->port.caps = config->caps_mask & kernel_caps();
	return 0;
}

static void queue_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	struct packet_queue *queue = (struct packet_queue *)source;

	for (unsigned i = 0; i < n; i++)
		queue->free_slots |= 1u << pkts[i]->cookie;
}

static void queue_init(struct packet_queue *queue, uint8_t *arena)
{
	queue->source.done = queue_done;
	queue->ask = PKT_BURST;
	queue->free_slots = UINT32_MAX;
	queue->arena = arena;
	for (unsigned i = 0; i < PKT_BURST; i++) {
		struct place *place = &queue->places[i];

		place->iov[0].iov_len = VNET_LEN_LEGACY;
		place->iov[1].iov_len = PKT_HEADER_MAX;
		place->iov[2].iov_len = READ_MAX;
		queue->msgs[i].msg_hdr.msg_iov = place->iov;
		queue->msgs[i].msg_hdr.msg_iovlen = 3;
		queue->msgs[i].msg_hdr.msg_control = place->control;
	}
}

/* Arenas of all queues in one mapping, on huge pages where the kernel has them. */
static int queues_init(struct af_packet *packet)
{
	size_t wanted = (size_t)packet->port.queues * ARENA_SIZE;
	uint8_t *start;

	packet->arenas_len = (wanted + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE + HUGE_PAGE;
	packet->arenas = mmap(NULL, packet->arenas_len, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (packet->arenas == MAP_FAILED)
		return -errno;
	start = packet->arenas + (-(uintptr_t)packet->arenas & (HUGE_PAGE - 1));
	madvise(start, packet->arenas_len - HUGE_PAGE, MADV_HUGEPAGE);
	for (unsigned i = 0; i < packet->port.queues; i++)
		queue_init(&packet->queues[i], start + (size_t)i * ARENA_SIZE);
	return 0;
}

static struct af_packet *af_packet_new(const struct af_packet_config *config)
{
	struct af_packet *packet = aligned_alloc(64, sizeof(*packet));

	if (!packet)
		return NULL;
	memset(packet, 0, sizeof(*packet));
	for (unsigned i = 0; i < PORT_QUEUES_MAX; i++)
		packet->queues[i].fd = -1;
	strcpy(packet->port.name, config->name);
	packet->netif = (struct netif){ .sock = -1, .note = -1 };
	packet->port.ops = &af_packet_ops;
	packet->port.queues = config->queues;
	packet->port.uplink = true;
	packet->port.poll_is_syscall = true;
	if (queues_init(packet)) {
		free(packet);
		return NULL;
	}
	return packet;
}

/* Of a port that is not, or no longer, in the port table. */
static void af_packet_free(struct af_packet *packet)
{
	for (unsigned i = 0; i < PORT_QUEUES_MAX; i++) {
		if (packet->queues[i].fd >= 0)
			close(packet->queues[i].fd);
	}
	netif_close(&packet->netif);
	munmap(packet->arenas, packet->arenas_len);
	free(packet);
}

static int af_packet_attach(struct af_packet *packet, struct error *error)
{
	int fds[PORT_QUEUES_MAX];

	for (unsigned i = 0; i < packet->port.queues; i++)
		fds[i] = packet->queues[i].fd;
	return uplink_attach(&packet->port, fds, error);
}

int af_packet_open(const struct af_packet_config *config, struct port **port, struct error *error)
{
	struct af_packet *packet;
	int back, err;

	if (strlen(config->name) >= PORT_NAME_MAX)
		return fail(error, -ENAMETOOLONG, "port name '%s' is longer than %u characters",
			    config->name, PORT_NAME_MAX - 1);
	if (config->queues < 1 || config->queues > PORT_QUEUES_MAX)
		return fail(error, -EINVAL, "%u queues: 1 to %u are possible", config->queues,
			    PORT_QUEUES_MAX);
	packet = af_packet_new(config);
	if (!packet)
		return fail(error, -ENOMEM, "out of memory");
	err = netns_enter(config->netns, &back, error);
	if (!err) {
		err = interface_open(packet, config, error);
		netns_leave(back);
	}
	if (!err)
		err = af_packet_attach(packet, error);
	if (err) {
		af_packet_free(packet);
		return err;
	}
	*port = &packet->port;
	return 0;
}

static void af_packet_close(struct port *port)
{
	workers_pause();
	port_unregister(port);
	workers_resume();
	af_packet_free(af_packet_of(port));
}

/* What the driver does itself; the kernel does the rest for it. */
static json_t *show_driver(const struct netif *netif)
{
	static const struct {
		uint32_t get;
		const char *name;
	} abilities[] = {
		{ ETHTOOL_GTXCSUM, "driver-csum" },
		{ ETHTOOL_GSG, "driver-sg" },
		{ ETHTOOL_GTSO, "driver-tso" },
	};
	json_t *got = json_array();

	for (size_t i = 0; i < sizeof(abilities) / sizeof(abilities[0]); i++) {
		struct ethtool_value value = { .cmd = abilities[i].get };

		if (netif_ethtool(netif, &value) == 0 && value.data)
			json_array_append_new(got, json_string(abilities[i].name));
	}
	return got;
}

json_t *af_packet_show(struct port *port)
{
	struct af_packet *packet = af_packet_of(port);
	json_t *show = netif_show(&packet->netif);

	json_object_set_new(show, "got", show_driver(&packet->netif));
	return show;
}

/* ---- receiving ---- */

/* The interface went down or away; say so once. */
static void note_lost(struct af_packet *packet)
{
	if (!atomic_exchange_explicit(&packet->lost, true, memory_order_relaxed))
		log_warn("%s: its interface '%s' is down or gone", packet->port.name,
			 packet->netif.name);
}

static void note_alive(struct af_packet *packet)
{
	if (unlikely(atomic_load_explicit(&packet->lost, memory_order_relaxed)) &&
	    atomic_exchange_explicit(&packet->lost, false, memory_order_relaxed))
		log_info("%s: its interface '%s' is up again", packet->port.name,
			 packet->netif.name);
}

/* Where a slot's part of a packet begins, with room for a VLAN tag in front. */
static uint8_t *slot_start(const struct packet_queue *queue, unsigned slot)
{
	return queue->arena + (size_t)slot * SLOT_SIZE + VLAN_LEN;
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
	unsigned slot = queue->places[i].slot, len = msg->msg_len - VNET_LEN_LEGACY;
	uint8_t *rest = slot_start(queue, slot);

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
	if (len > PKT_HEADER_MAX) {
		pkt->frags[0] = (struct iovec){ rest, len - PKT_HEADER_MAX };
		pkt->frag_count = 1;
	}
	if (unlikely(!pkt_needs_nothing(pkt) && !headers_check_offload(pkt))) {
		stats->drop_bad_vnet_header++;
		return false;
	}
	if (pkt->frag_count) {
		pkt->source = &queue->source;
		pkt->cookie = slot;
		queue->free_slots &= ~(1u << slot);
	}
	stats->recv_packets++;
	stats->recv_bytes += len;
	stats->recv_gso_packets += pkt->offload.gso_type != PKT_GSO_NONE;
	return true;
}

/* Take in up to n packets into pkts, of which the first are filled. Returns how many; 0 also when
 * there is none or the kernel could not hand it over. */
static unsigned read_burst(struct af_packet *packet, struct packet_queue *queue, struct pkt **pkts,
			   unsigned n, struct port_stats *stats)
{
	uint32_t slots = queue->free_slots;
	int got;

	for (unsigned i = 0; i < n; i++, slots &= slots - 1) {
		struct place *place = &queue->places[i];

		place->slot = (unsigned)__builtin_ctz(slots);
		place->iov[0].iov_base = pkts[i]->vnet;
		place->iov[1].iov_base = pkts[i]->header;
		place->iov[2].iov_base = slot_start(queue, place->slot);
		queue->msgs[i].msg_hdr.msg_controllen = sizeof(place->control);
	}
	got = recvmmsg(queue->fd, queue->msgs, n, MSG_DONTWAIT, NULL);
	if (got > 0) {
		note_alive(packet);
		return (unsigned)got;
	}
	if (errno == EAGAIN)
		queue->drained = true;
	else if (errno == ENETDOWN || errno == ENXIO)
		note_lost(packet);
	else if (errno != EINTR)
		stats->drop_bad_vnet_header++; /* of a kind that a vnet header cannot tell */
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

static unsigned af_packet_recv(struct port *port, unsigned number, struct pkt **pkts, unsigned n)
{
	struct af_packet *packet = af_packet_of(port);
	struct packet_queue *queue = &packet->queues[number];
	struct port_stats *stats = port_stats(port);
	struct pkt_pool *pool = &worker_self->pool;
	unsigned slots = (unsigned)__builtin_popcount(queue->free_slots), got, count = 0;
	struct pkt *dropped[PKT_BURST];
	uint64_t bytes = 0;

	n = n < queue->ask ? n : queue->ask;
	n = pkt_pool_get(pool, pkts, n < slots ? n : slots);
	queue->drained = false;
	if (unlikely(n == 0))
		return 0; /* it waits in the socket */
	got = read_burst(packet, queue, pkts, n, stats);
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
static bool af_packet_arm(struct port *port, unsigned number)
{
	return !af_packet_of(port)->queues[number].drained;
}

static void af_packet_disarm(struct port *port, unsigned number)
{
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
static unsigned count_failed(struct af_packet *packet, int code, unsigned n,
			     struct port_stats *stats)
{
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
		note_lost(packet);
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

static void send_messages(struct af_packet *packet, struct mmsghdr *msgs, struct pkt **pkts,
			  unsigned n)
{
	struct port *port = &packet->port;
	struct port_stats *stats = port_stats(port);
	int fd = packet->queues[worker_self->id % port->queues].fd;

	while (n > 0) {
		int sent = sendmmsg(fd, msgs, n, MSG_DONTWAIT);
		unsigned done = sent > 0 ? (unsigned)sent : count_failed(packet, errno, n, stats);

		for (int i = 0; i < sent; i++) {
			stats->send_packets++;
			stats->send_bytes += pkts[i]->len;
			stats->send_gso_packets += pkts[i]->offload.gso_type != PKT_GSO_NONE;
		}
		if (sent > 0)
			note_alive(packet);
		msgs += done;
		pkts += done;
		n -= done;
	}
}

static void af_packet_send(struct port *port, struct pkt **pkts, unsigned n)
{
	struct af_packet *packet = af_packet_of(port);
	struct iovec iov[SEND_IOVS];
	struct mmsghdr msgs[PKT_BURST];

	for (unsigned from = 0; from < n;) {
		unsigned to = from, used = 0;

		while (to < n && to - from < PKT_BURST &&
		       used + 2 + pkts[to]->frag_count <= SEND_IOVS) {
			used += write_message(pkts[to], &msgs[to - from], iov + used);
			to++;
		}
		send_messages(packet, msgs, pkts + from, to - from);
		for (; from < to; from++)
			pkt_put(pkts[from]);
	}
	profile_mark(&worker_self->profile, STAGE_UPLINK);
}

/* A packet is on its way when it has been sent. */
static void af_packet_flush(struct port *port)
{
}

/* Notice `ip link set mtu`. */
static void af_packet_tick(struct port *port)
{
	port_note_mtu(port, netif_mtu(&af_packet_of(port)->netif));
}

static const struct port_ops af_packet_ops = {
	.kind = "af-packet",
	.recv = af_packet_recv,
	.send = af_packet_send,
	.flush = af_packet_flush,
	.arm = af_packet_arm,
	.disarm = af_packet_disarm,
	.close = af_packet_close,
	.tick = af_packet_tick,
};
