/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * TAP: an interface of the kernel's network stack as an uplink.
 *
 * Theory of operation. What the kernel sends out on the interface vifd receives, and the other way
 * round. Both ways each packet carries a virtio_net_hdr, so that packets of 64 KiB with an
 * unfinished checksum cross whole (M6, M7): the kernel segments nothing for us and we nothing for
 * it.
 *
 * A packet costs one system call to take in and one to put out; everything here serves to let it
 * cost little else.
 *
 *      readv    vnet + header[192] of the packet | buffers of the queue (recv_bufs.c)
 *      writev   vnet + header[]                  | fragments, wherever they are
 *
 * vnet and header[] are adjacent in struct pkt, hence one piece, and small packets need no buffer.
 * All headers land in the private copy at once, nothing has to be pulled. A burst ends when it has
 * read BURST_BYTES, so that what is read is still in the second-level cache when it is copied or
 * written.
 *
 * Wake-ups are edge-triggered on the descriptor: once a read has said EAGAIN, the next packet is an
 * edge. So arming needs no system call, only the memory that the last read said so.
 *
 * The interface lives in the network namespace in which it is made, wherever vifd's threads are;
 * only the main thread goes there, to open it. Offloads are the kernel's choice among TUN_F_*, of
 * which we allow it all that caps_mask has; what the kernel says about a packet is believed as far
 * as it does not contradict the packet's headers, for a program may have put it there. With a
 * smaller mask the interface plays a lesser NIC, in both directions.
 */
#include "uplink/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bridge/bridge.h"
#include "pkt/headers.h"
#include "pkt/vnet.h"
#include "port/worker.h"
#include "sys/log.h"
#include "uplink/recv_bufs.h"
#include "uplink/uplink.h"

#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

enum { BURST_BYTES = 256 << 10 };

struct tap_queue {
	int fd;
	bool drained; /* the last read found nothing: an edge will announce the next packet */
	bool gone;    /* the interface has been deleted */
	struct recv_place place;
	struct recv_bufs bufs;
} __attribute__((aligned(64))); /* queues belong to different workers */

struct tap {
	struct uplink uplink; /* first */
	struct tap_queue queues[PORT_QUEUES_MAX];
};

static struct tap *tap_of(struct port *port)
{
	return (struct tap *)port;
}

/* ---- opening and closing, in the main thread ---- */

/* Is there an interface of this name that is no TAP? */
static bool is_other_interface(const struct netif *netif)
{
	struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };

	return netif_index(netif) >= 0 &&
	       (netif_ethtool(netif, &driver) || strcmp(driver.driver, "tun") != 0 ||
		strcmp(driver.bus_info, "tap") != 0);
}

/* Say why TUNSETIFF failed with code. */
static int explain_attach(const struct netif *netif, unsigned queues, int code, struct error *error)
{
	const char *ifname = netif->name;

	if (code == EPERM)
		return fail(error, -code,
			    "no permission to open TAP '%s': it takes root or CAP_NET_ADMIN, or an "
			    "interface made with `ip tuntap add ... user`",
			    ifname);
	if (code == EBUSY)
		return fail(error, -code, "TAP '%s' is busy: a program has it open", ifname);
	if (code == EINVAL && is_other_interface(netif))
		return fail(error, -EEXIST, "interface '%s' exists and is no TAP", ifname);
	if (code == EINVAL && queues > 1)
		return fail(error, -code,
			    "TAP '%s' exists with a single queue: use queues=1, or make it with "
			    "`ip tuntap add ... multi_queue`",
			    ifname);
	if (code == E2BIG)
		return fail(error, -code, "TAP '%s' has no %u queues left", ifname, queues);
	return fail(error, -code, "TAP '%s': %s", ifname, strerror(code));
}

/* Open one queue of the interface: *fd. 0 or an errno. */
static int queue_open(struct tap *tap, bool multi_queue, int *fd)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
					  (multi_queue ? IFF_MULTI_QUEUE : 0) };
	int vnet_len = VNET_LEN, little_endian = 1, err = 0;

	*fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (*fd < 0)
		return errno;
	strcpy(ifr.ifr_name, tap->uplink.netif.name);
	if (ioctl(*fd, TUNSETIFF, &ifr) || ioctl(*fd, TUNSETVNETHDRSZ, &vnet_len) ||
	    ioctl(*fd, TUNSETVNETLE, &little_endian)) {
		err = errno;
		close(*fd);
		*fd = -1;
	}
	strcpy(tap->uplink.netif.name, ifr.ifr_name); /* the kernel fills in a %d */
	return err;
}

static int queues_open(struct tap *tap, struct error *error)
{
	bool multi_queue = tap->uplink.port.queues > 1;

	for (unsigned i = 0; i < tap->uplink.port.queues; i++) {
		int err = queue_open(tap, multi_queue, &tap->queues[i].fd);

		/* An existing interface with many queues can also be used with one. */
		if (err == EINVAL && !multi_queue) {
			multi_queue = true;
			err = queue_open(tap, multi_queue, &tap->queues[i].fd);
		}
		if (err)
			return explain_attach(&tap->uplink.netif, tap->uplink.port.queues, err,
					      error);
	}
	return 0;
}

/* The mask works both ways: what we leave to the kernel, and what we allow it to leave to us. */
static int offloads_set(struct tap *tap, uint32_t mask, struct error *error)
{
	static const struct {
		enum port_caps cap;
		unsigned long flags;
	} kernel[] = {
		{ PORT_CAP_CSUM, TUN_F_CSUM },
		{ PORT_CAP_TSO4, TUN_F_TSO4 },
		{ PORT_CAP_TSO6, TUN_F_TSO6 },
		{ PORT_CAP_TSO_ECN, TUN_F_TSO_ECN },
	};
	const unsigned long uso = TUN_F_USO4 | TUN_F_USO6;
	unsigned long flags = 0;
	int fd = tap->queues[0].fd; /* all queues share them */

	for (size_t i = 0; i < sizeof(kernel) / sizeof(kernel[0]); i++)
		flags |= mask & kernel[i].cap ? kernel[i].flags : 0;
	tap->uplink.port.caps = mask & (PORT_CAP_SG | PORT_CAP_CSUM | PORT_CAP_TSO4 |
					PORT_CAP_TSO6 | PORT_CAP_TSO_ECN);
	if (mask & PORT_CAP_USO && ioctl(fd, TUNSETOFFLOAD, flags | uso) == 0)
		tap->uplink.port.caps |= PORT_CAP_USO;
	else if (ioctl(fd, TUNSETOFFLOAD, flags))
		return fail(error, -errno, "TAP '%s': offloads are refused: %s",
			    tap->uplink.netif.name, strerror(errno));
	return 0;
}

static int open_queues(struct uplink *uplink, const struct uplink_config *config,
		       struct error *error)
{
	struct tap *tap = (struct tap *)uplink;
	int err;

	for (unsigned i = 0; i < PORT_QUEUES_MAX; i++) {
		tap->queues[i].fd = -1;
		recv_place_init(&tap->queues[i].place);
	}
	uplink->port.poll_is_syscall = true;
	err = queues_open(tap, error);
	if (!err)
		err = offloads_set(tap, config->caps_mask, error);
	if (!err)
		err = uplink_set_up(uplink, config, error);
	for (unsigned i = 0; i < uplink->port.queues && !err; i++) {
		uplink->wake_fds[i] = tap->queues[i].fd;
		err = uplink_recv_bufs(uplink, i, &tap->queues[i].bufs, error);
	}
	return err;
}

static void close_queues(struct uplink *uplink)
{
	struct tap *tap = (struct tap *)uplink;

	for (unsigned i = 0; i < uplink->port.queues; i++) {
		if (tap->queues[i].fd >= 0)
			close(tap->queues[i].fd);
		recv_bufs_close(&tap->queues[i].bufs);
	}
}

json_t *tap_show(struct port *port)
{
	const struct netif *netif = &uplink_of(port)->netif;
	json_t *show = netif_show(netif);

	json_object_set_new(show, "got", json_pack("[s]", netif->found ? "found" : "made"));
	return show;
}

/* ---- receiving ---- */

/* Convert and judge what the kernel says about a packet. */
static bool accept_offload(struct pkt *pkt)
{
	if (!vnet_to_offload(pkt->vnet, &pkt->offload))
		return false;
	return likely(pkt_needs_nothing(pkt)) || headers_check_offload(pkt);
}

/* Make a packet of len bytes that were read. False: it is not to be forwarded, and counted. */
static bool take_in(struct tap_queue *queue, struct pkt *pkt, size_t len, struct port_stats *stats)
{
	if (unlikely(len < PKT_LEN_MIN)) {
		stats->drop_runt++;
		return false;
	}
	if (unlikely(len > PKT_LEN_MAX)) {
		stats->drop_oversize++;
		return false;
	}
	pkt->len = len;
	pkt->header_len = len < PKT_HEADER_MAX ? len : PKT_HEADER_MAX;
	if (unlikely(!accept_offload(pkt))) {
		stats->drop_bad_vnet_header++;
		return false;
	}
	if (len > PKT_HEADER_MAX)
		recv_place_take(&queue->bufs, &queue->place, pkt, queue->place.iov[2].iov_base);
	stats->recv_packets++;
	stats->recv_bytes += len;
	stats->recv_gso_packets += pkt->offload.gso_type != PKT_GSO_NONE;
	return true;
}

/* Bytes of a frame read into pkt and the queue's place; -1: there is none. */
static ssize_t read_frame(struct tap_queue *queue, struct pkt *pkt)
{
	struct iovec *iov = &queue->place.iov[1];
	ssize_t got;

	iov[0] = (struct iovec){ pkt->vnet, VNET_LEN + PKT_HEADER_MAX };
	got = readv(queue->fd, iov, 3);
	if (likely(got >= VNET_LEN))
		return got - VNET_LEN;
	queue->drained = got >= 0 || errno != EINTR;
	queue->gone = got < 0 && errno == EBADFD;
	return -1;
}

static unsigned tap_recv(struct port *port, unsigned number, struct pkt **pkts, unsigned n)
{
	struct tap_queue *queue = &tap_of(port)->queues[number];
	struct port_stats *stats = port_stats(port);
	struct pkt_pool *pool = &worker_self->pool;
	unsigned count = 0, bytes = 0;

	if (unlikely(queue->gone))
		return 0;
	queue->drained = false;
	for (unsigned reads = 0; reads < n && bytes < BURST_BYTES; reads++) {
		uint64_t larges = queue->bufs.larges;
		struct pkt *pkt;

		if (unlikely(!recv_place_fill(&queue->bufs, &queue->place, &larges) ||
			     !pkt_pool_get(pool, &pkt, 1)))
			break; /* it waits in the interface's queue */
		ssize_t len = read_frame(queue, pkt);

		if (len < 0) {
			pkt_pool_put(pool, &pkt, 1);
			break;
		}
		bytes += len;
		if (unlikely(!take_in(queue, pkt, len, stats))) {
			pkt_pool_put(pool, &pkt, 1);
			continue;
		}
		pkt->in_port = port->id;
		pkts[count++] = pkt;
	}
	if (unlikely(queue->gone))
		log_warn("%s: its interface has been deleted", port->name);
	if (count > 0)
		profile_mark(&worker_self->profile, STAGE_UPLINK);
	return count;
}

/* After EAGAIN the next packet is an edge on the watched descriptor; before, there may be more. */
static bool tap_arm(struct port *port, unsigned number)
{
	return !tap_of(port)->queues[number].drained;
}

/* ---- sending ---- */

/* Write one packet; returns the counter of why it could not, or NULL. */
static uint64_t *write_frame(int fd, struct pkt *pkt, struct port_stats *stats)
{
	struct iovec iov[1 + PKT_FRAGS_MAX];

	vnet_from_offload(&pkt->offload, pkt->payload_off ? pkt->payload_off : pkt->header_len,
			  pkt->vnet);
	iov[0] = (struct iovec){ pkt->vnet, VNET_LEN + pkt->header_len };
	memcpy(&iov[1], pkt->frags, pkt->frag_count * sizeof(iov[0]));
	if (likely(writev(fd, iov, 1 + pkt->frag_count) >= 0))
		return NULL;
	if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)
		return &stats->drop_queue_full;
	return &stats->drop_device_error;
}

static void tap_send(struct port *port, struct pkt **pkts, unsigned n)
{
	int fd = tap_of(port)->queues[worker_self->id % port->queues].fd;
	struct port_stats *stats = port_stats(port);

	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt = pkts[i];
		uint64_t *why = write_frame(fd, pkt, stats);

		if (unlikely(why)) {
			(*why)++;
		} else {
			stats->send_packets++;
			stats->send_bytes += pkt->len;
			stats->send_gso_packets += pkt->offload.gso_type != PKT_GSO_NONE;
		}
		pkt_put(pkt);
	}
	profile_mark(&worker_self->profile, STAGE_UPLINK);
}

static const struct port_ops tap_ops = {
	.kind = "tap",
	.recv = tap_recv,
	.send = tap_send,
	.flush = uplink_flush_nothing,
	.arm = tap_arm,
	.disarm = uplink_disarm_nothing,
	.close = uplink_close,
	.tick = uplink_tick,
};

int tap_open(const struct uplink_config *config, struct port **port, struct error *error)
{
	static const struct uplink_kind kind = {
		.ops = &tap_ops,
		.size = sizeof(struct tap),
		.open = open_queues,
		.close = close_queues,
	};

	return uplink_open(&kind, config, port, error);
}
