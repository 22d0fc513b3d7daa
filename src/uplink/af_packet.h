/* SPDX-License-Identifier: BSD-3-Clause */
/* AF_PACKET uplink: an existing interface of any kind. The theory of operation is in af_packet.c. */
#ifndef VIFD_AF_PACKET_H
#define VIFD_AF_PACKET_H

#include <jansson.h>

#include "uplink/uplink.h"

/*
 * Attach to the interface, promiscuous and with the vnet header, register the port and attach it to
 * the workers. The caller then puts it on a bridge. 0 and *port, or -errno and a sentence in error.
 * The interface is left as it was found when the port closes, or when vifd starts anew.
 */
int af_packet_open(const struct uplink_config *config, struct port **port, struct error *error);
/* The uplink for `show uplinks`. New reference. */
json_t *af_packet_show(struct port *port);

#endif
