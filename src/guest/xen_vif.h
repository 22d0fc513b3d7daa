/* SPDX-License-Identifier: BSD-3-Clause */
/* One virtual interface of a Xen guest, as the store has it. Between xen_backend.c, xen_vif.c and
 * xen_show.c; the theory of operation is in xen_vif.c. */
#ifndef VIFD_XEN_VIF_H
#define VIFD_XEN_VIF_H

#include "guest/xen_backend.h"
#include "sys/log.h"

/* xenbus: where an end of a device stands (public/io/xenbus.h). */
enum xen_state {
	XEN_STATE_UNKNOWN,
	XEN_STATE_INITIALISING,
	XEN_STATE_INIT_WAIT,
	XEN_STATE_INITIALISED,
	XEN_STATE_CONNECTED,
	XEN_STATE_CLOSING,
	XEN_STATE_CLOSED,
	XEN_STATES
};

struct xen_vif {
	struct xen_netif netif;
	const struct xen_backend_config *config;
	struct xen_vif *next;
	unsigned domid, devid;
	char dir[XEN_STORE_PATH_MAX];   /* ours in the store */
	char front[XEN_STORE_PATH_MAX]; /* the front end's */
	char token[32];                 /* of the watch on its state */
	bool connected, split_events;
	uint64_t connections;
	struct error why; /* the last attempt to connect failed */
	struct log_limit limit;
};

/*
 * Make the interface of a directory in the store, and its port. NULL: the directory is not complete
 * (yet), or *error says what is wrong.
 */
struct xen_vif *xen_vif_new(const struct xen_backend_config *config, unsigned domid, unsigned devid,
			    struct error *error);
/* Disconnect, forget, free, its port too, which no worker knows any more. */
void xen_vif_free(struct xen_vif *vif);
/* Do what the states of both ends ask for. False: the directory is gone. */
bool xen_vif_step(struct xen_vif *vif);
/* Read the rate that the guest may send with. */
void xen_vif_read_rate(struct xen_vif *vif);

/* Called by xen_vif_free(). */
void xen_backend_forget(struct xen_vif *vif);
/* The port's ops. */
const struct port_ops *xen_port_ops(void);

static inline struct xen_vif *xen_vif_of_port(struct port *port)
{
	return (struct xen_vif *)((char *)port - offsetof(struct xen_vif, netif.channel.port));
}

#endif
