/* SPDX-License-Identifier: BSD-3-Clause */
/* TAP uplink. The theory of operation is in tap.c. */
#ifndef VIFD_TAP_H
#define VIFD_TAP_H

#include <jansson.h>

#include "port/port.h"
#include "sys/error.h"

struct tap_config {
	const char *name;   /* of the port */
	const char *ifname; /* of the interface; created unless it exists, then attached to */
	const char *netns;  /* name (/run/netns/NAME) or path of a network namespace; NULL: ours */
	unsigned queues;    /* 1..PORT_QUEUES_MAX */
	uint16_t mtu;       /* set on the interface unless 0 */
	uint32_t caps_mask; /* enum port_caps that may be used; the rest is done in software */
	bool uplink;        /* false: treat it as a guest domain (isolation) */
};

/*
 * Create or attach the interface with the full vnet header, bring it up, register the port and
 * attach it to the workers. The caller then puts it on a bridge. 0 and *port, or -errno and a
 * sentence in error. An interface that vifd created vanishes with the port; one that existed
 * (persistent) stays.
 */
int tap_open(const struct tap_config *config, struct port **port, struct error *error);
/* The interface for `show uplinks`: as netif_show(), and what was got. New reference. */
json_t *tap_show(struct port *port);

#endif
