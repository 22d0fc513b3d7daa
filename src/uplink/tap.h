/* SPDX-License-Identifier: BSD-3-Clause */
/* TAP uplink. The theory of operation is in tap.c. */
#ifndef VIFD_TAP_H
#define VIFD_TAP_H

#include <jansson.h>

#include "uplink/uplink.h"

/*
 * Create or attach the interface with the full vnet header, bring it up, register the port and
 * attach it to the workers. The caller then puts it on a bridge. 0 and *port, or -errno and a
 * sentence in error. An interface that vifd created vanishes with the port; one that existed
 * (persistent) stays.
 */
int tap_open(const struct uplink_config *config, struct port **port, struct error *error);
/* The interface for `show uplinks`: as netif_show(), and what was got. New reference. */
json_t *tap_show(struct port *port);

#endif
