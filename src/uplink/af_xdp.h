/* SPDX-License-Identifier: BSD-3-Clause */
/* AF_XDP uplink: an existing interface, packets from its driver's queues. See af_xdp.c. */
#ifndef VIFD_AF_XDP_H
#define VIFD_AF_XDP_H

#include <jansson.h>

#include "port/port.h"
#include "sys/error.h"

enum af_xdp_mode { AF_XDP_AUTO, AF_XDP_NATIVE, AF_XDP_SKB };

struct af_xdp_config {
	const char *name;   /* of the port */
	const char *ifname; /* of the interface, which must exist */
	const char *netns;  /* name (/run/netns/NAME) or path of a network namespace; NULL: ours */
	unsigned queues;    /* 1..PORT_QUEUES_MAX, of the interface, from 0 on */
	uint16_t mtu;       /* set on the interface unless 0 */
	enum af_xdp_mode mode;
};

/*
 * Attach to the interface: XDP program, one socket a queue, native mode before SKB mode, zero-copy
 * before copy; register the port and attach it to the workers. The caller then puts it on a bridge.
 * 0 and *port, or -errno and a sentence in error. Program and promiscuous mode end with the port,
 * or with vifd, however it ends.
 */
int af_xdp_open(const struct af_xdp_config *config, struct port **port, struct error *error);
/*
 * The interface for `show uplinks`: as netif_show(), what was got (mode, bind, pages,
 * multi-buffer), and what the kernel has lost. New reference.
 */
json_t *af_xdp_show(struct port *port);

#endif
