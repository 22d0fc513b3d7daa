/* SPDX-License-Identifier: BSD-3-Clause */
/* AF_PACKET uplink: an existing interface of any kind. The theory of operation is in af_packet.c. */
#ifndef VIFD_AF_PACKET_H
#define VIFD_AF_PACKET_H

#include <jansson.h>

#include "port/port.h"
#include "sys/error.h"

struct af_packet_config {
	const char *name;   /* of the port */
	const char *ifname; /* of the interface, which must exist */
	const char *netns;  /* name (/run/netns/NAME) or path of a network namespace; NULL: ours */
	unsigned queues;    /* 1..PORT_QUEUES_MAX */
	uint16_t mtu;       /* set on the interface unless 0 */
	uint32_t caps_mask; /* enum port_caps that may be used; the rest is done in software */
};

/*
 * Attach to the interface, promiscuous and with the vnet header, register the port and attach it to
 * the workers. The caller then puts it on a bridge. 0 and *port, or -errno and a sentence in error.
 * The interface is left as it was found when the port closes, or when vifd starts anew.
 */
int af_packet_open(const struct af_packet_config *config, struct port **port, struct error *error);
/* The uplink for `show uplinks`. New reference. */
json_t *af_packet_show(struct port *port);

#endif
