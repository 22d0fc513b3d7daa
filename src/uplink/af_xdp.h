/* SPDX-License-Identifier: BSD-3-Clause */
/* AF_XDP uplink: an existing interface, packets from its driver's queues. See af_xdp.c. */
#ifndef VIFD_AF_XDP_H
#define VIFD_AF_XDP_H

#include <jansson.h>

#include "uplink/uplink.h"

/*
 * Attach to the interface: XDP program, one socket a queue, native mode before SKB mode, zero-copy
 * before copy; register the port and attach it to the workers. The caller then puts it on a bridge.
 * 0 and *port, or -errno and a sentence in error. Program and promiscuous mode end with the port,
 * or with vifd, however it ends.
 */
int af_xdp_open(const struct uplink_config *config, struct port **port, struct error *error);
/*
 * The interface for `show uplinks`: as netif_show(), what was got (mode, bind, pages,
 * multi-buffer), and what the kernel has lost. New reference.
 */
json_t *af_xdp_show(struct port *port);

#endif
