/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the uplinks share: a port on an interface of the kernel, its opening and its closing. The
 * theory of operation is in uplink.c.
 */
#ifndef VIFD_UPLINK_H
#define VIFD_UPLINK_H

#include "port/port.h"
#include "sys/error.h"
#include "uplink/netif.h"

enum af_xdp_mode { AF_XDP_AUTO, AF_XDP_NATIVE, AF_XDP_SKB };

struct uplink_config {
	const char *name;   /* of the port */
	const char *ifname; /* of the interface */
	const char *netns;  /* name (/run/netns/NAME) or path of a network namespace; NULL: ours */
	unsigned queues;    /* 1..PORT_QUEUES_MAX */
	uint16_t mtu;       /* set on the interface unless 0 */
	uint32_t caps_mask; /* enum port_caps that may be used; the rest is done in software */
	enum af_xdp_mode xdp_mode;
	bool page_buffers; /* AF_XDP, for measurement: a page for each packet, zeroed after use */
};

struct recv_bufs;
struct uplink;

/* One kind of uplink. All in the main thread. */
struct uplink_kind {
	const struct port_ops *ops;
	size_t size; /* of its own struct, which begins with struct uplink */
	/*
	 * In the interface's network namespace, netif being open: make the queues, and set the port's
	 * MTU (uplink_set_up()) and caps, and wake_fds. 0, or -errno and a sentence.
	 */
	int (*open)(struct uplink *uplink, const struct uplink_config *config, struct error *error);
	/* Let go of what open() has made, however far it came. */
	void (*close)(struct uplink *uplink);
};

struct uplink {
	struct port port;               /* first */
	const struct uplink_kind *kind; /* NULL: its open() has not been called */
	struct netif netif;
	int wake_fds[PORT_QUEUES_MAX]; /* by queue: what wakes its worker */
};

static inline struct uplink *uplink_of(struct port *port)
{
	return (struct uplink *)port;
}

/*
 * Open an uplink of this kind, register its port and attach it to the workers. The caller then puts
 * it on a bridge. 0 and *port, or -errno and a sentence.
 */
int uplink_open(const struct uplink_kind *kind, const struct uplink_config *config,
		struct port **port, struct error *error);

/* For open(): fails unless the interface was there already. */
int uplink_must_exist(const struct uplink *uplink, struct error *error);
/* For open(): bring the interface up, set its MTU as configured, and the port's. */
int uplink_set_up(struct uplink *uplink, const struct uplink_config *config, struct error *error);

/* For open(): make the buffers that a queue receives into, to be shown to shared guests. */
int uplink_recv_bufs(struct uplink *uplink, unsigned queue, struct recv_bufs *bufs,
		     struct error *error);

/* struct port_ops of all kinds: */
void uplink_close(struct port *port);
/* Notice `ip link set mtu`. */
void uplink_tick(struct port *port);
/* Of kinds by which a packet is on its way when send() returns. */
void uplink_flush_nothing(struct port *port);
/* Of kinds with nothing to withdraw: an edge too many is a round for nothing. */
void uplink_disarm_nothing(struct port *port, unsigned queue);

#endif
