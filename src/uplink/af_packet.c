/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * AF_PACKET: any Ethernet interface of the kernel as an uplink, by packet sockets (packet(7)).
 *
 * Theory of operation. A packet socket sees what the interface receives, before the kernel's own
 * protocols do, and sends what it is given (packet_queue.c). Packets of 64 KiB with an unfinished
 * checksum cross whole both ways: the kernel hands over what it has put together (GRO), and hands on
 * what the driver can segment, or segments it behind us, which costs less than many packets through
 * the socket. So the port can do whatever the kernel can, on every interface; caps_mask makes it
 * less, of what we send (what we receive is the kernel's choice).
 *
 * Frames that this host sends on the interface are not seen, least of all our own
 * (PACKET_IGNORE_OUTGOING). The kernel's own protocols go on receiving what is addressed to the
 * interface: give it no addresses.
 *
 * Several queues are sockets of a fanout group, among which the kernel deals by flow hash. They let
 * nothing in until all have joined: one that is bound but not yet in the group receives everything.
 *
 * Promiscuous mode and the group end with the sockets, however vifd ends; the MTU is netif.c's.
 */
#include "uplink/af_packet.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include "port/worker.h"
#include "uplink/netif.h"
#include "uplink/packet_queue.h"
#include "uplink/uplink.h"

#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING /* Linux 5.10 */
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000
#endif

struct af_packet {
	struct uplink uplink; /* first */
	struct packet_link link;
	struct packet_queue queues[PORT_QUEUES_MAX];
};

static struct af_packet *af_packet_of(struct port *port)
{
	return (struct af_packet *)port;
}

/* ---- opening and closing, in the main thread ---- */

/* Have the kernel deal packets out to the sockets. 0 or -errno. */
static int queues_join(struct af_packet *packet)
{
	const int how = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
	int group = (how | PACKET_FANOUT_FLAG_UNIQUEID) << 16;
	socklen_t len = sizeof(group);

	for (unsigned i = 0; i < packet->uplink.port.queues; i++) {
		int fd = packet->queues[i].fd;

		if (setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof(group)) ||
		    (i == 0 && getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, &len)))
			return -errno;
		group = (group & 0xffff) | how << 16;
	}
	return 0;
}

static int queues_open(struct af_packet *packet, int ifindex, struct error *error)
{
	int err = 0;

	for (unsigned i = 0; i < packet->uplink.port.queues && !err; i++)
		err = packet_queue_open(&packet->queues[i], ifindex);
	if (err == -EPERM)
		return fail(error, err,
			    "no permission for packet sockets: they take root or CAP_NET_RAW");
	if (!err && packet->uplink.port.queues > 1)
		err = queues_join(packet);
	for (unsigned i = 0; i < packet->uplink.port.queues && !err; i++)
		err = packet_queue_let_in(&packet->queues[i]);
	return err ? fail(error, err, "interface '%s': no packet socket: %s",
			  packet->uplink.netif.name, strerror(-err))
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

static int open_queues(struct uplink *uplink, const struct uplink_config *config,
		       struct error *error)
{
	struct af_packet *packet = (struct af_packet *)uplink;
	int err = uplink_must_exist(uplink, error);

	for (unsigned i = 0; i < PORT_QUEUES_MAX; i++)
		packet_queue_init(&packet->queues[i], &packet->link);
	if (err)
		return err;
	if (!netif_is_ethernet(&uplink->netif))
		return fail(error, -EINVAL, "interface '%s' is no Ethernet interface",
			    config->ifname);
	packet->link.ifname = uplink->netif.name;
	uplink->port.poll_is_syscall = true;
	uplink->port.caps = config->caps_mask & kernel_caps();
	err = uplink_set_up(uplink, config, error); /* first: sockets complain if it is down */
	if (!err)
		err = queues_open(packet, netif_index(&uplink->netif), error);
	for (unsigned i = 0; i < uplink->port.queues && !err; i++) {
		uplink->wake_fds[i] = packet->queues[i].fd;
		err = uplink_recv_bufs(uplink, i, &packet->queues[i].bufs, error);
	}
	return err;
}

static void close_queues(struct uplink *uplink)
{
	struct af_packet *packet = (struct af_packet *)uplink;

	for (unsigned i = 0; i < uplink->port.queues; i++) {
		packet_queue_close(&packet->queues[i]);
		recv_bufs_close(&packet->queues[i].bufs);
	}
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
	const struct netif *netif = &uplink_of(port)->netif;
	json_t *show = netif_show(netif);
	uint64_t lost = 0;

	for (unsigned i = 0; i < port->queues; i++)
		lost += packet_queue_lost(&af_packet_of(port)->queues[i]);
	json_object_set_new(show, "got", show_driver(netif));
	json_object_set_new(show, "kernel", json_pack("{s:I}", "rx_dropped", (json_int_t)lost));
	return show;
}

/* ---- the data path ---- */

static unsigned af_packet_recv(struct port *port, unsigned number, struct pkt **pkts, unsigned n)
{
	return packet_queue_recv(&af_packet_of(port)->queues[number], port, pkts, n);
}

static void af_packet_send(struct port *port, struct pkt **pkts, unsigned n)
{
	struct packet_queue *queues = af_packet_of(port)->queues;

	packet_queue_send(&queues[worker_self->id % port->queues], port, pkts, n);
}

static bool af_packet_arm(struct port *port, unsigned number)
{
	return packet_queue_arm(&af_packet_of(port)->queues[number]);
}

static const struct port_ops af_packet_ops = {
	.kind = "af-packet",
	.recv = af_packet_recv,
	.send = af_packet_send,
	.flush = uplink_flush_nothing,
	.arm = af_packet_arm,
	.disarm = uplink_disarm_nothing,
	.close = uplink_close,
	.tick = uplink_tick,
};

int af_packet_open(const struct uplink_config *config, struct port **port, struct error *error)
{
	static const struct uplink_kind kind = {
		.ops = &af_packet_ops,
		.size = sizeof(struct af_packet),
		.open = open_queues,
		.close = close_queues,
	};

	return uplink_open(&kind, config, port, error);
}
