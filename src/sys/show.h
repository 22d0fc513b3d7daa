/* SPDX-License-Identifier: BSD-3-Clause */
/* What the show commands and the profile tell, as JSON. Each returns a new reference. Main thread
 * only. */
#ifndef VIFD_SHOW_H
#define VIFD_SHOW_H

#include <jansson.h>

#include "bridge/bridge.h"
#include "port/port.h"

json_t *show_bridges(void);
json_t *show_ports(void);
json_t *show_uplinks(void);
json_t *show_guests(void);
/* One bridge, or NULL: all. */
json_t *show_fdb(const struct bridge *bridge);
/* One port, or NULL: all. */
json_t *show_stats(const struct port *port);
/* One port, or NULL: all that merge, or did. */
json_t *show_lro(const struct port *port);
/* Zones, guests' memory, rings, frames and pools, with the pages that they are on. */
json_t *show_memory(void);
json_t *show_workers(void);
/* Cycles by stage of all workers since they started, or since profile_reset(). */
json_t *show_profile(void);
void profile_reset(void);
/* How each command is called and what it is for. */
json_t *show_help(void);

#endif
