/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The learning bridge (M1): two passes over a burst. Pass 1 learns the source, looks up the destination and groups
 * by destination port; pass 2 serves each destination once. Knows no transport.
 */
#ifndef VIFD_BRIDGE_H
#define VIFD_BRIDGE_H

#include <jansson.h>

#include "bridge/mac_table.h"
#include "port/port.h"
#include "sys/error.h"

enum { BRIDGES_MAX = 64, BRIDGE_PORTS_MAX = PORTS_MAX };

struct bridge {
	char name[PORT_NAME_MAX];
	unsigned id;
	struct mac_table fdb;
	struct port *ports[BRIDGE_PORTS_MAX];   /* changed while paused */
	unsigned port_count;
	unsigned ageing_sec;                    /* default 300; 0: never */
};

/* ageing_sec and fdb_max (entries): 0 means the default, 300 s and 8192. 0 or -errno (-EEXIST). Main thread. */
int bridge_create(const char *name, unsigned ageing_sec, unsigned fdb_max, struct bridge **bridge, struct error *error);
/* The bridge must have no ports. */
void bridge_destroy(struct bridge *bridge);
struct bridge *bridge_by_name(const char *name);
/* Next in order of creation after bridge, the first for NULL; NULL at the end. */
struct bridge *bridge_next(const struct bridge *bridge);

/* Put a port on the bridge, take it off (its addresses are forgotten). Pause inside. A guest's configured mac becomes
 * a static entry. */
int bridge_add_port(struct bridge *bridge, struct port *port, struct error *error);
void bridge_remove_port(struct port *port);

/* Forward a burst that came in on port (all of it on a worker). Takes ownership of all n (<= PKT_BURST) packets. */
void bridge_forward(struct port *in, struct pkt **pkts, unsigned n);

/* Age out entries; called about once a second by the main thread. now_sec: monotonic seconds, also put where workers
 * read it. */
void bridge_tick(uint32_t now_sec);

#endif
