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
 * All that is changed on the interface hangs on descriptors: the program on its link, promiscuous
 * mode on a packet socket. The kernel takes both back when vifd ends, be it by kill -9. MTU and
 * IFF_UP are restored on closing.
 */
#include "uplink/af_xdp.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <xdp/libxdp.h>

#include "bridge/bridge.h"
#include "port/worker.h"
#include "sys/log.h"
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
	struct port port;
	char ifname[IFNAMSIZ];
	char *netns; /* as configured, NULL: vifd's */
	enum af_xdp_mode asked;
	int control;       /* packet socket in the interface's namespace: promiscuity, ioctl() */
	short flags_found; /* the interface's, to be restored */
	int mtu_found;
	char driver[32];
	bool native, zero_copy, multi_buffer; /* what was got */
	struct xdp_prog prog;
	struct xsk_queue queues[PORT_QUEUES_MAX];
};

static const struct port_ops af_xdp_ops;

static struct af_xdp *af_xdp_of(struct port *port)
{
	return (struct af_xdp *)((char *)port - offsetof(struct af_xdp, port));
}

/* ---- the interface ---- */

static int interface_ioctl(struct af_xdp *xdp, unsigned long request, struct ifreq *ifr)
{
	strcpy(ifr->ifr_name, xdp->ifname);
	return ioctl(xdp->control, request, ifr) ? -errno : 0;
}

/* Number of the interface's receive queues, 0 if it does not say. */
static unsigned queues_of_interface(struct af_xdp *xdp)
{
	struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };
	struct ifreq ifr = { .ifr_data = (void *)&channels };

	if (interface_ioctl(xdp, SIOCETHTOOL, &ifr))
		return 0;
	return channels.combined_count + channels.rx_count;
}

/* Set the MTU if one is given, bring the interface up, make it promiscuous. */
static int interface_prepare(struct af_xdp *xdp, uint16_t mtu, int *ifindex, struct error *error)
{
	struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
	struct packet_mreq promiscuous = { .mr_type = PACKET_MR_PROMISC };
	struct ifreq ifr = { 0 };
	int err;

	xdp->control = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (xdp->control < 0)
		return errno == EPERM ? fail(error, -EPERM,
					     "no permission for AF_XDP: it takes root, or "
					     "CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF")
				      : fail(error, -errno, "packet socket: %s", strerror(errno));
	if (interface_ioctl(xdp, SIOCGIFINDEX, &ifr))
		return fail(error, -ENODEV, "there is no interface '%s'%s%s", xdp->ifname,
			    xdp->netns ? " in network namespace " : "",
			    xdp->netns ? xdp->netns : "");
	*ifindex = promiscuous.mr_ifindex = ifr.ifr_ifindex;
	ifr = (struct ifreq){ .ifr_data = (void *)&driver };
	if (!interface_ioctl(xdp, SIOCETHTOOL, &ifr))
		snprintf(xdp->driver, sizeof(xdp->driver), "%s", driver.driver);

	err = interface_ioctl(xdp, SIOCGIFMTU, &ifr);
	xdp->mtu_found = ifr.ifr_mtu;
	if (!err && mtu) {
		ifr.ifr_mtu = mtu;
		err = interface_ioctl(xdp, SIOCSIFMTU, &ifr);
	}
	if (err)
		return fail(error, err, "interface '%s': MTU %u: %s", xdp->ifname, mtu,
			    strerror(-err));
	xdp->port.mtu = ifr.ifr_mtu < UINT16_MAX ? ifr.ifr_mtu : UINT16_MAX;

	err = interface_ioctl(xdp, SIOCGIFFLAGS, &ifr);
	xdp->flags_found = ifr.ifr_flags;
	ifr.ifr_flags |= IFF_UP;
	if (!err)
		err = interface_ioctl(xdp, SIOCSIFFLAGS, &ifr);
	if (err)
		return fail(error, err, "interface '%s' cannot be brought up: %s", xdp->ifname,
			    strerror(-err));
	if (setsockopt(xdp->control, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous,
		       sizeof(promiscuous)))
		return fail(error, -errno, "interface '%s' cannot be made promiscuous: %s",
			    xdp->ifname, strerror(errno));
	return 0;
}

static void interface_restore(struct af_xdp *xdp)
{
	struct ifreq ifr = { 0 };

	if (xdp->control < 0)
		return;
	if (xdp->mtu_found && !interface_ioctl(xdp, SIOCGIFMTU, &ifr) &&
	    ifr.ifr_mtu != xdp->mtu_found) {
		ifr.ifr_mtu = xdp->mtu_found;
		interface_ioctl(xdp, SIOCSIFMTU, &ifr);
	}
	if (xdp->flags_found && !(xdp->flags_found & IFF_UP) &&
	    !interface_ioctl(xdp, SIOCGIFFLAGS, &ifr)) {
		ifr.ifr_flags &= ~IFF_UP;
		interface_ioctl(xdp, SIOCSIFFLAGS, &ifr);
	}
	close(xdp->control); /* ends promiscuous mode */
}

/* ---- what is got of what was asked ---- */

static void queues_close(struct af_xdp *xdp)
{
	for (unsigned i = 0; i < xdp->port.queues; i++)
		xsk_queue_close(&xdp->queues[i]);
}

/*
 * Open one socket. The kernel takes its time to let go of a queue whose socket was closed a moment
 * ago, by us or by a vifd that was killed.
 */
static int queue_open(struct af_xdp *xdp, const struct xsk_queue_config *config)
{
	const struct timespec nap = { .tv_nsec = BUSY_NAP_NSEC };
	int err = xsk_queue_open(&xdp->queues[config->queue], config);

	for (unsigned naps = 0; err == -EBUSY && naps < BUSY_NAPS; naps++) {
		nanosleep(&nap, NULL);
		err = xsk_queue_open(&xdp->queues[config->queue], config);
	}
	return err;
}

/* Open all sockets in the way described by xdp->native, zero_copy and multi_buffer. */
static int queues_open(struct af_xdp *xdp)
{
	struct xsk_queue_config config = {
		.ifname = xdp->ifname,
		.xdp_mode = xdp->native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE,
		.frame_size = xdp->port.mtu <= SMALL_MTU ? XSK_FRAME_SMALL : XSK_FRAME_LARGE,
		.zero_copy = xdp->zero_copy,
		.multi_buffer = xdp->multi_buffer,
		.unfinished = !xdp->native || strcmp(xdp->driver, "veth") == 0,
	};
	int err = 0;

	for (unsigned i = 0; i < xdp->port.queues && !err; i++) {
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
	int err = xdp_prog_attach(&xdp->prog, ifindex, xdp->port.queues, native, multi_buffer);

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

static int modes_try(struct af_xdp *xdp, int ifindex, bool multi_buffer)
{
	int err = -EOPNOTSUPP;

	if (xdp->asked != AF_XDP_SKB)
		err = mode_open(xdp, ifindex, true, multi_buffer);
	if (err && err != -EPERM && err != -EBUSY && xdp->asked != AF_XDP_NATIVE) {
		if (xdp->asked == AF_XDP_AUTO)
			log_info("%s: no native XDP on %s (%s), trying SKB mode", xdp->port.name,
				 xdp->ifname, strerror(-err));
		err = mode_open(xdp, ifindex, false, multi_buffer);
	}
	return err;
}

/* Say why the sockets or the program could not be had. */
static int explain(struct af_xdp *xdp, int err, struct error *error)
{
	const char *ifname = xdp->ifname;

	switch (-err) {
	case EPERM:
		return fail(error, err,
			    "no permission for AF_XDP on '%s': it takes root, or CAP_NET_ADMIN, "
			    "CAP_NET_RAW and CAP_BPF",
			    ifname);
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
			    ifname, xdp->port.mtu, strerror(-err));
	return fail(error, err, "interface '%s' cannot be used with AF_XDP: %s", ifname,
		    strerror(-err));
}

/* Open program and sockets, from the best way to the plainest. */
static int interface_attach(struct af_xdp *xdp, int ifindex, struct error *error)
{
	unsigned mtu = xdp->port.mtu, there = queues_of_interface(xdp);
	int err = -EOPNOTSUPP;

	if (there && xdp->port.queues > there)
		return fail(error, -EINVAL,
			    "interface '%s' has %u receive queue%s, %u were asked for", xdp->ifname,
			    there, there == 1 ? "" : "s", xdp->port.queues);
	if (mtu > LARGE_MTU)
		err = modes_try(xdp, ifindex, true);
	if (err && err != -EPERM && err != -EBUSY) {
		if (mtu > LARGE_MTU)
			xdp->port.mtu = LARGE_MTU;
		err = modes_try(xdp, ifindex, false);
	}
	if (err)
		return explain(xdp, err, error);

	if (xdp->port.mtu < mtu)
		log_warn("%s: MTU %u rather than %u: longer packets take a kernel (6.6) and a "
			 "driver with multi-buffer AF_XDP",
			 xdp->port.name, xdp->port.mtu, mtu);
	if (there > xdp->port.queues)
		log_warn("%s: %s has %u receive queues, of which %u are used: packets of the "
			 "others go to the kernel (use queues=%u, or `ethtool -L`)",
			 xdp->port.name, xdp->ifname, there, xdp->port.queues, there);
	log_info("%s: %s, XDP in %s mode, %s, %u queue%s%s", xdp->port.name, xdp->ifname,
		 xdp->native ? "native" : "SKB", xdp->zero_copy ? "zero-copy" : "copy",
		 xdp->port.queues, xdp->port.queues == 1 ? "" : "s",
		 xdp->multi_buffer ? ", multi-buffer" : "");
	return 0;
}

/* ---- opening and closing, in the main thread ---- */

/* Move to a network namespace. Returns a descriptor of the present one to go back to, or -errno. */
static int netns_enter(const char *netns, struct error *error)
{
	char path[PATH_MAX];
	int there, back, err = 0;

	snprintf(path, sizeof(path), "%s%s", strchr(netns, '/') ? "" : "/run/netns/", netns);
	there = open(path, O_RDONLY | O_CLOEXEC);
	if (there < 0)
		return errno == ENOENT
			       ? fail(error, -ENOENT, "there is no network namespace '%s' (%s)",
				      netns, path)
			       : fail(error, -errno, "network namespace %s: %s", path,
				      strerror(errno));
	back = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (back < 0)
		err = fail(error, -errno, "/proc/thread-self/ns/net: %s", strerror(errno));
	else if (setns(there, CLONE_NEWNET))
		err = fail(error, -errno, "network namespace %s: %s", path, strerror(errno));
	if (err && back >= 0)
		close(back);
	close(there);
	return err ? err : back;
}

static void netns_leave(int back)
{
	if (back < 0)
		return;
	if (setns(back, CLONE_NEWNET)) /* it was ours a moment ago */
		log_error("cannot return to the network namespace: %s", strerror(errno));
	close(back);
}

static struct af_xdp *af_xdp_new(const struct af_xdp_config *config)
{
	struct af_xdp *xdp = aligned_alloc(64, sizeof(*xdp));

	if (!xdp)
		return NULL;
	memset(xdp, 0, sizeof(*xdp));
	strcpy(xdp->port.name, config->name);
	strcpy(xdp->ifname, config->ifname);
	xdp->port.ops = &af_xdp_ops;
	xdp->port.queues = config->queues;
	xdp->port.uplink = true;
	xdp->port.caps = PORT_CAP_SG;
	xdp->asked = config->mode;
	xdp->control = -1;
	xdp->prog.link_fd = -1;
	xdp->netns = config->netns ? strdup(config->netns) : NULL;
	if (config->netns && !xdp->netns) {
		free(xdp);
		return NULL;
	}
	return xdp;
}

/* Of a port that is not, or no longer, in the port table. */
static void af_xdp_free(struct af_xdp *xdp)
{
	xdp_prog_detach(&xdp->prog);
	queues_close(xdp);
	interface_restore(xdp);
	free(xdp->netns);
	free(xdp);
}

/* Enter the port table and give the queues to workers. */
static int af_xdp_attach(struct af_xdp *xdp, struct error *error)
{
	int err;

	workers_pause();
	err = port_register(&xdp->port);
	if (!err) {
		worker_attach(&xdp->port);
		for (unsigned i = 0; i < xdp->port.queues && !err; i++)
			err = worker_watch(&xdp->port, i, xsk_socket__fd(xdp->queues[i].socket));
		if (err) {
			worker_detach(&xdp->port);
			port_unregister(&xdp->port);
		}
	}
	workers_resume();
	return err ? fail(error, err, "port '%s' cannot be added: %s", xdp->port.name,
			  strerror(-err))
		   : 0;
}

int af_xdp_open(const struct af_xdp_config *config, struct port **port, struct error *error)
{
	struct af_xdp *xdp;
	int back = -1, ifindex = 0, err;

	if (strlen(config->name) >= PORT_NAME_MAX)
		return fail(error, -ENAMETOOLONG, "port name '%s' is longer than %u characters",
			    config->name, PORT_NAME_MAX - 1);
	if (strlen(config->ifname) >= IFNAMSIZ)
		return fail(error, -ENAMETOOLONG,
			    "interface name '%s' is longer than %u characters", config->ifname,
			    IFNAMSIZ - 1);
	if (config->queues < 1 || config->queues > PORT_QUEUES_MAX)
		return fail(error, -EINVAL, "%u queues: 1 to %u are possible", config->queues,
			    PORT_QUEUES_MAX);
	xdp = af_xdp_new(config);
	if (!xdp)
		return fail(error, -ENOMEM, "out of memory");
	libbpf_set_print(NULL); /* what went wrong is said here */
	libxdp_set_print(NULL);

	if (config->netns) {
		back = netns_enter(config->netns, error);
		if (back < 0) {
			af_xdp_free(xdp);
			return back;
		}
	}
	err = interface_prepare(xdp, config->mtu, &ifindex, error);
	if (!err)
		err = interface_attach(xdp, ifindex, error);
	netns_leave(back);
	if (!err)
		err = af_xdp_attach(xdp, error);
	if (err) {
		af_xdp_free(xdp);
		return err;
	}
	*port = &xdp->port;
	return 0;
}

static void af_xdp_close(struct port *port)
{
	workers_pause();
	port_unregister(port);
	workers_resume();
	af_xdp_free(af_xdp_of(port));
}

/* What the kernel could not deliver, or found wrong, summed over the queues. */
static json_t *show_kernel(const struct af_xdp *xdp)
{
	struct xdp_statistics sum = { 0 };

	for (unsigned i = 0; i < xdp->port.queues; i++) {
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

json_t *af_xdp_show(struct port *port)
{
	static const char *const modes[] = {
		[AF_XDP_AUTO] = "auto",
		[AF_XDP_NATIVE] = "native",
		[AF_XDP_SKB] = "skb",
	};
	static const char *const pages[] = {
		[XSK_PAGES_SMALL] = "small",
		[XSK_PAGES_TRANSPARENT] = "transparent",
		[XSK_PAGES_HUGE] = "huge",
	};
	struct af_xdp *xdp = af_xdp_of(port);

	return json_pack("{s:s, s:s, s:s, s:s?, s:i, s:i, s:s, s:s, s:s, s:b, s:i, s:s, s:o}",
			 "name", port->name, "kind", port->ops->kind, "af-xdp", xdp->ifname,
			 "netns", xdp->netns, "queues", (int)port->queues, "mtu", (int)port->mtu,
			 "xdp-mode", modes[xdp->asked], "mode", xdp->native ? "native" : "skb",
			 "bind", xdp->zero_copy ? "zero-copy" : "copy", "multi_buffer",
			 xdp->multi_buffer, "frame_size", (int)xdp->queues[0].frame_size, "pages",
			 pages[xdp->queues[0].pages], "kernel", show_kernel(xdp));
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
	xsk_queue_send(queue_of_worker(port), port, pkts, n);
}

static void af_xdp_flush(struct port *port)
{
	xsk_queue_kick(queue_of_worker(port));
	port_stats(port)->doorbells++;
	profile_mark(&worker_self->profile, STAGE_UPLINK);
}

static bool af_xdp_arm(struct port *port, unsigned number)
{
	return xsk_queue_arm(&af_xdp_of(port)->queues[number]);
}

/* Nothing to withdraw: an edge too many is a round for nothing. */
static void af_xdp_disarm(struct port *port, unsigned number)
{
}

static const struct port_ops af_xdp_ops = {
	.kind = "af-xdp",
	.recv = af_xdp_recv,
	.send = af_xdp_send,
	.flush = af_xdp_flush,
	.arm = af_xdp_arm,
	.disarm = af_xdp_disarm,
	.close = af_xdp_close,
};
