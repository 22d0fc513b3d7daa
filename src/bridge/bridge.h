/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The learning bridge (M1): two passes over a burst. Pass 1 learns the source, looks up the
 * destination and groups by destination port; pass 2 serves each destination once. Knows no
 * transport. The theory of operation is in bridge.c.
 */
#ifndef VIFD_BRIDGE_H
#define VIFD_BRIDGE_H

#include "bridge/mac_table.h"
#include "port/port.h"
#include "sys/error.h"

enum { BRIDGES_MAX = 64, BRIDGE_PORTS_MAX = PORTS_MAX, BRIDGE_AGEING_DEFAULT = 300 };

struct bridge {
	char name[PORT_NAME_MAX];
	unsigned id;
	struct mac_table fdb;
	struct port *ports[BRIDGE_PORTS_MAX]; /* changed while paused */
	unsigned port_count;
	unsigned ageing_sec;
	bool answer_too_big; /* with ICMP what does not fit a port's MTU (offload/too_big.c) */
};

/* ageing_sec and fdb_max (entries): 0 means the default, 300 s and 8192. 0 or -errno (-EEXIST). */
int bridge_create(const char *name, unsigned ageing_sec, unsigned fdb_max, struct bridge **bridge,
		  struct error *error);
/* The bridge must have no ports. */
void bridge_destroy(struct bridge *bridge);
struct bridge *bridge_by_name(const char *name);
/* Next in order of creation after bridge, the first for NULL; NULL at the end. */
struct bridge *bridge_next(const struct bridge *bridge);

/* Put a port on the bridge, take it off (its addresses are forgotten). Pause inside. A guest's
 * configured mac becomes a static entry; 0 or -errno (-EBUSY: on a bridge already; -EEXIST,
 * -ENOSPC: no such entry possible). */
int bridge_add_port(struct bridge *bridge, struct port *port, struct error *error);
void bridge_remove_port(struct port *port);

/* A port's isolated, spoof_strict, has_mac or mac has been changed: call it in the same pause. (The
 * static entry of a changed mac is the caller's to replace.) */
void bridge_settings_changed(void);

/* Forward a burst that came in on a port, on a worker. Takes all n (<= PKT_BURST) packets. */
void bridge_forward(struct port *in, struct pkt **pkts, unsigned n);
/* What the port takes (enum port_caps) to which pkt would be forwarded; 0 if it is not one port. */
uint32_t bridge_takes(struct port *in, struct pkt *pkt);

/* Age out entries; called about once a second by the main thread. now_sec: monotonic seconds, also
 * put where workers read it. */
void bridge_tick(uint32_t now_sec);
/* The seconds of the last tick, which ages in listings are relative to. */
uint32_t bridge_now(void);

#endif
