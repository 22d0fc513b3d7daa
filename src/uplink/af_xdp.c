/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * AF_XDP: an existing interface as an uplink, by the shortest way through the kernel.
 *
 * Theory of operation. An XDP program (xdp_prog.c) hands what the interface receives to one AF_XDP
 * socket for each of its queues (xsk_queue.c) before the kernel makes anything of it; what is sent
 * goes to the driver's queue. Both ways frames lie in memory shared with the kernel.
 *
 * The interface does no offloads for us (M8): packets leave with their checksum finished and
 * segmented, which the offload driver sees to. It need not make them linear, for each is copied
 * into the shared memory anyway: the port takes fragments.
 *
 * Tried in this order, as far as the configuration allows, and reported by `show uplinks`:
 *
 *      native mode, zero-copy   the driver runs the program and works on our memory
 *      native mode, copy        the driver runs the program
 *      SKB mode, copy           the kernel runs it on finished packets: any interface
 *
 * Packets that do not fit a frame of 4 KiB (MTU above XSK_FRAME_LARGE less what is reserved) take
 * several, which Linux does since 6.6; where it does not, the port's MTU is what fits.
 *
 * On a veth the sockets only receive where the kernel can do better: see tc_burst.c.
 *
 * What is changed on the interface hangs on descriptors: the programs on their links, promiscuous
 * mode on a packet socket. The kernel takes them back when vifd ends, be it by kill -9. The MTU is
 * netif.c's.
 */
#include "uplink/af_xdp.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <xdp/libxdp.h>

#include "bridge/bridge.h"
#include "port/worker.h"
#include "sys/log.h"
#include "uplink/netif.h"
#include "uplink/tc_burst.h"
#include "uplink/uplink.h"
#include "uplink/xdp_prog.h"
#include "uplink/xsk_queue.h"

enum {
	LINK_HEADERS = 14 + 2 * 4, /* Ethernet and two VLAN tags: not in the MTU */
	SMALL_MTU = XSK_FRAME_SMALL - XSK_FRAME_RESERVED - LINK_HEADERS,
	LARGE_MTU = XSK_FRAME_LARGE - XSK_FRAME_RESERVED - LINK_HEADERS,
	BUSY_NAPS = 50,
	BUSY_NAP_NSEC = 10 * 1000 * 1000,
};

struct af_xdp {
	struct uplink uplink; /* first */
	enum af_xdp_mode asked;
	int promiscuous; /* packet socket that keeps the interface so; -1: none */
	bool is_veth;
	bool page_buffers;                    /* buffers=page */
	bool native, zero_copy, multi_buffer; /* what was got */
	struct xdp_prog prog;
	struct tc_burst burst; /* open: sends in place of the queues */
	struct xsk_queue queues[PORT_QUEUES_MAX];
};

#define NO_PERMISSION                                                                              \
	"no permission for AF_XDP on '%s': it takes root, or CAP_NET_ADMIN, CAP_NET_RAW and "      \
	"CAP_BPF"

static struct af_xdp *af_xdp_of(struct port *port)
{
	return (struct af_xdp *)port;
}

/* ---- the interface ---- */

/* Number of the interface's receive queues, 0 if it does not say. */
static unsigned queues_of_interface(const struct af_xdp *xdp)
{
	struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };

	if (netif_ethtool(&xdp->uplink.netif, &channels))
		return 0;
	return channels.combined_count + channels.rx_count;
}

/* Have the interface take in what is for others, for as long as a socket is open. */
static int promiscuous_open(struct af_xdp *xdp, struct error *error)
{
	struct packet_mreq membership = { .mr_ifindex = netif_index(&xdp->uplink.netif),
					  .mr_type = PACKET_MR_PROMISC };

	xdp->promiscuous = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (xdp->promiscuous >= 0 &&
	    !setsockopt(xdp->promiscuous, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership,
			sizeof(membership)))
		return 0;
	if (errno == EPERM)
		return fail(error, -EPERM, NO_PERMISSION, xdp->uplink.netif.name);
	return fail(error, -errno, "interface '%s' cannot be made promiscuous: %s",
		    xdp->uplink.netif.name, strerror(errno));
}

/* ---- what is got of what was asked ---- */

static void queues_close(struct af_xdp *xdp)
{
	for (unsigned i = 0; i < xdp->uplink.port.queues; i++)
		xsk_queue_close(&xdp->queues[i]);
}

/*
 * Open one socket. The kernel takes its time to let go of a queue (EBUSY) and of locked memory
 * (ENOBUFS) when a socket was closed a moment ago, by us or by a vifd that was killed.
 */
static int queue_open(struct af_xdp *xdp, const struct xsk_queue_config *config)
{
	const struct timespec nap = { .tv_nsec = BUSY_NAP_NSEC };
	int err = xsk_queue_open(&xdp->queues[config->queue], config);

	for (unsigned naps = 0; (err == -EBUSY || err == -ENOBUFS) && naps < BUSY_NAPS; naps++) {
		nanosleep(&nap, NULL);
		err = xsk_queue_open(&xdp->queues[config->queue], config);
	}
	return err;
}

/* Open all sockets in the way described by xdp->native, zero_copy and multi_buffer. */
static int queues_open(struct af_xdp *xdp)
{
	struct xsk_queue_config config = {
		.ifname = xdp->uplink.netif.name,
		.xdp_mode = xdp->native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE,
		.frame_size = xdp->uplink.port.mtu <= SMALL_MTU && !xdp->page_buffers
				      ? XSK_FRAME_SMALL
				      : XSK_FRAME_LARGE,
		.zero_copy = xdp->zero_copy,
		.multi_buffer = xdp->multi_buffer,
		.unfinished = !xdp->native || xdp->is_veth,
		.zeroing = xdp->page_buffers,
	};
	int err = 0;

	for (unsigned i = 0; i < xdp->uplink.port.queues && !err; i++) {
		config.queue = i;
		err = queue_open(xdp, &config);
		if (!err)
			err = xdp_prog_redirect(&xdp->prog, i,
						xsk_socket__fd(xdp->queues[i].socket));
	}
	if (err)
		queues_close(xdp);
	return err;
}

/* One mode: zero-copy, then copy. */
static int mode_open(struct af_xdp *xdp, int ifindex, bool native, bool multi_buffer)
{
	int err = xdp_prog_attach(&xdp->prog, ifindex, xdp->uplink.port.queues, native,
				  multi_buffer);

	if (err)
		return err;
	xdp->native = native;
	xdp->multi_buffer = multi_buffer;
	xdp->zero_copy = native;
	err = queues_open(xdp);
	if (err && native) {
		xdp->zero_copy = false;
		err = queues_open(xdp);
	}
	if (err)
		xdp_prog_detach(&xdp->prog);
	return err;
}

/* Nothing that another mode would change. */
static bool is_final(int err)
{
	return err == -EPERM || err == -EBUSY || err == -ENOBUFS;
}

static int modes_try(struct af_xdp *xdp, int ifindex, bool multi_buffer)
{
	int err = -EOPNOTSUPP;

	if (xdp->asked != AF_XDP_SKB)
		err = mode_open(xdp, ifindex, true, multi_buffer);
	if (err && !is_final(err) && xdp->asked != AF_XDP_NATIVE) {
		if (xdp->asked == AF_XDP_AUTO)
			log_info("%s: no native XDP on %s (%s), trying SKB mode",
				 xdp->uplink.port.name, xdp->uplink.netif.name, strerror(-err));
		err = mode_open(xdp, ifindex, false, multi_buffer);
	}
	return err;
}

/* Say why the sockets or the program could not be had. */
static int explain(struct af_xdp *xdp, int err, struct error *error)
{
	const char *ifname = xdp->uplink.netif.name;

	switch (-err) {
	case EPERM:
		return fail(error, err, NO_PERMISSION, ifname);
	case EBUSY:
	case EEXIST:
		return fail(error, err,
			    "interface '%s' is busy: another XDP program is on it, or another "
			    "AF_XDP socket on a queue of it (see `ip link show`)",
			    ifname);
	case ENOBUFS:
		return fail(error, err,
			    "interface '%s': no memory may be locked for AF_XDP: raise "
			    "RLIMIT_MEMLOCK (ulimit -l) or give CAP_IPC_LOCK",
			    ifname);
	}
	if (xdp->asked == AF_XDP_NATIVE)
		return fail(error, err,
			    "interface '%s' does no native XDP with MTU %u: %s (try "
			    "xdp-mode=skb)",
			    ifname, xdp->uplink.port.mtu, strerror(-err));
	return fail(error, err, "interface '%s' cannot be used with AF_XDP: %s", ifname,
		    strerror(-err));
}

/* Open program and sockets, from the best way to the plainest. */
static int interface_attach(struct af_xdp *xdp, int ifindex, struct error *error)
{
	const char *ifname = xdp->uplink.netif.name;
	struct port *port = &xdp->uplink.port;
	unsigned mtu = port->mtu, there = queues_of_interface(xdp);
	int err = -EOPNOTSUPP;

	if (there && port->queues > there)
		return fail(error, -EINVAL,
			    "interface '%s' has %u receive queue%s, %u were asked for", ifname,
			    there, there == 1 ? "" : "s", port->queues);
	if (mtu > LARGE_MTU)
		err = modes_try(xdp, ifindex, true);
	if (err && !is_final(err)) {
		if (mtu > LARGE_MTU)
			port->mtu = LARGE_MTU;
		err = modes_try(xdp, ifindex, false);
	}
	if (err)
		return explain(xdp, err, error);

	if (port->mtu < mtu)
		log_warn("%s: MTU %u rather than %u: longer packets take a kernel (6.6) and a "
			 "driver with multi-buffer AF_XDP",
			 port->name, port->mtu, mtu);
	if (there > port->queues)
		log_warn("%s: %s has %u receive queues, of which %u are used: packets of the "
			 "others go to the kernel (use queues=%u, or `ethtool -L`)",
			 port->name, ifname, there, port->queues, there);
	log_info("%s: %s, XDP in %s mode, %s, %u queue%s%s", port->name, ifname,
		 xdp->native ? "native" : "SKB", xdp->zero_copy ? "zero-copy" : "copy",
		 port->queues, port->queues == 1 ? "" : "s",
		 xdp->multi_buffer ? ", multi-buffer" : "");
	return 0;
}

/*
 * The faster way to send through a veth. Not for packets of several frames, and not everywhere
 * there: without it the sockets send.
 */
static void burst_open(struct af_xdp *xdp, unsigned ifindex)
{
	int err = -EOPNOTSUPP;

	if (xdp->is_veth && !xdp->zero_copy && !xdp->multi_buffer)
		err = tc_burst_open(&xdp->burst, ifindex, xdp->queues[0].frame_size);
	log_debug("%s: bursts by tc: %s", xdp->uplink.port.name, err ? strerror(-err) : "yes");
}

/* ---- opening and closing, in the main thread ---- */

static int open_queues(struct uplink *uplink, const struct uplink_config *config,
		       struct error *error)
{
	struct af_xdp *xdp = (struct af_xdp *)uplink;
	const struct netif *netif = &uplink->netif;
	struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
	int err;

	libbpf_set_print(NULL); /* what went wrong is said here */
	libxdp_set_print(NULL);
	xdp->asked = config->xdp_mode;
	xdp->page_buffers = config->page_buffers;
	xdp->promiscuous = -1;
	xdp->prog.link_fd = -1;
	xdp->burst.link_fd = xdp->burst.sock = -1;
	uplink->port.caps = PORT_CAP_SG;
	err = uplink_must_exist(uplink, error);
	if (!err)
		err = uplink_set_up(uplink, config, error);
	if (err)
		return err;
	if (!netif_ethtool(netif, &driver))
		xdp->is_veth = strcmp(driver.driver, "veth") == 0;
	err = promiscuous_open(xdp, error);
	if (!err)
		err = interface_attach(xdp, netif_index(netif), error);
	if (err)
		return err;
	burst_open(xdp, netif_index(netif));
	if (xdp->page_buffers)
		log_warn("uplink %s: buffers=page is slow, and for measurement only",
			 uplink->port.name);
	for (unsigned i = 0; i < uplink->port.queues; i++) {
		uplink->wake_fds[i] = xdp->queues[i].wake_fd;
		uplink->port.zones[i] = &xdp->queues[i].zones;
	}
	return 0;
}

static void close_queues(struct uplink *uplink)
{
	struct af_xdp *xdp = (struct af_xdp *)uplink;

	xdp_prog_detach(&xdp->prog);
	tc_burst_close(&xdp->burst);
	queues_close(xdp);
	if (xdp->promiscuous >= 0)
		close(xdp->promiscuous);
}

/* What the kernel could not deliver, or found wrong, summed over the queues. */
static json_t *show_kernel(const struct af_xdp *xdp)
{
	struct xdp_statistics sum = { 0 };

	for (unsigned i = 0; i < xdp->uplink.port.queues; i++) {
		struct xdp_statistics one = { 0 };
		socklen_t len = sizeof(one);

		if (getsockopt(xsk_socket__fd(xdp->queues[i].socket), SOL_XDP, XDP_STATISTICS, &one,
			       &len))
			continue;
		sum.rx_dropped += one.rx_dropped;
		sum.rx_ring_full += one.rx_ring_full;
		sum.tx_invalid_descs += one.tx_invalid_descs;
	}
	return json_pack("{s:I, s:I, s:I}", "rx_dropped", (json_int_t)sum.rx_dropped,
			 "rx_ring_full", (json_int_t)sum.rx_ring_full, "tx_invalid_descs",
			 (json_int_t)sum.tx_invalid_descs);
}

/* What is received into. What workers count meanwhile is read as it is. */
static json_t *show_buffers(const struct af_xdp *xdp)
{
	uint64_t zeroed = 0;

	for (unsigned i = 0; i < xdp->uplink.port.queues; i++)
		zeroed += ((const volatile struct xsk_queue *)&xdp->queues[i])->zeroed;
	return json_pack("{s:i, s:I}", "bytes", (int)xdp->queues[0].frame_size, "zeroed",
			 (json_int_t)zeroed);
}

json_t *af_xdp_show(struct port *port)
{
	static const char *const pages[] = {
		[ZONE_SMALL_PAGES] = "small pages",
		[ZONE_TRANSPARENT] = "transparent huge pages",
		[ZONE_HUGETLB] = "huge pages",
	};
	struct af_xdp *xdp = af_xdp_of(port);
	json_t *show = netif_show(&xdp->uplink.netif);
	json_t *got = json_pack("[s, s, s]", xdp->native ? "native" : "skb",
				xdp->zero_copy ? "zero-copy" : "copy",
				pages[xdp->queues[0].zones.zones->backing]);

	if (xdp->multi_buffer)
		json_array_append_new(got, json_string("multi-buffer"));
	if (tc_burst_works(&xdp->burst))
		json_array_append_new(got, json_string("tc bursts"));
	json_object_set_new(show, "got", got);
	json_object_set_new(show, "kernel", show_kernel(xdp));
	json_object_set_new(show, "buffers", show_buffers(xdp));
	return show;
}

/* ---- the data path ---- */

/* The queue through which the calling worker sends. */
static struct xsk_queue *queue_of_worker(struct port *port)
{
	return &af_xdp_of(port)->queues[worker_self->id % port->queues];
}

static unsigned af_xdp_recv(struct port *port, unsigned number, struct pkt **pkts, unsigned n)
{
	return xsk_queue_recv(&af_xdp_of(port)->queues[number], port, pkts, n);
}

static void af_xdp_send(struct port *port, struct pkt **pkts, unsigned n)
{
	struct tc_burst *burst = &af_xdp_of(port)->burst;

	if (tc_burst_works(burst))
		tc_burst_send(burst, port, pkts, n);
	else
		xsk_queue_send(queue_of_worker(port), port, pkts, n);
}

static void af_xdp_flush(struct port *port)
{
	struct tc_burst *burst = &af_xdp_of(port)->burst;

	port_stats(port)->doorbells += tc_burst_flush(burst, port);
	if (!tc_burst_works(burst))
		port_stats(port)->doorbells += xsk_queue_kick(queue_of_worker(port));
	profile_mark(&worker_self->profile, STAGE_UPLINK);
}

static bool af_xdp_arm(struct port *port, unsigned number)
{
	return xsk_queue_arm(&af_xdp_of(port)->queues[number]);
}

static const struct port_ops af_xdp_ops = {
	.kind = "af-xdp",
	.recv = af_xdp_recv,
	.send = af_xdp_send,
	.flush = af_xdp_flush,
	.arm = af_xdp_arm,
	.disarm = uplink_disarm_nothing,
	.close = uplink_close,
};

int af_xdp_open(const struct uplink_config *config, struct port **port, struct error *error)
{
	static const struct uplink_kind kind = {
		.ops = &af_xdp_ops,
		.size = sizeof(struct af_xdp),
		.open = open_queues,
		.close = close_queues,
	};

	return uplink_open(&kind, config, port, error);
}
