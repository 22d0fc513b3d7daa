/* SPDX-License-Identifier: BSD-3-Clause */
/* Which virtual interfaces Xen wants us to serve, and their handshakes. The theory of operation is
 * in xen_backend.c and xen_vif.c. Main thread. */
#ifndef VIFD_XEN_BACKEND_H
#define VIFD_XEN_BACKEND_H

#include <jansson.h>

#include "guest/xen_netif.h"

/*
 * join:  put a new port on a bridge: that of this name if there is one (NULL: none is named), else
 *        on the one for all. 0, or -errno and a sentence; the port is closed then.
 * leave: take the port off its bridge and close it.
 */
struct xen_backend_config {
	const struct xen_ops *ops;
	enum xen_tx_mode tx_mode;
	unsigned queues; /* that an interface may have, 1..PORT_QUEUES_MAX */
	uint16_t mtu;
	bool spoof_strict, isolated;
	int (*join)(struct port *port, const char *bridge, struct error *error);
	void (*leave)(struct port *port);
};

/* Serve every interface that is there or comes. 0, or -errno and a sentence. Once. */
int xen_backend_open(const struct xen_backend_config *config, struct error *error);
bool xen_backend_is_open(void);
/* After the last port has been closed. Guests stay connected, to whoever comes after us. */
void xen_backend_close(void);

/* Is the port that of a Xen guest? */
bool xen_is_guest(const struct port *port);
/* For `show guests`. New reference. */
json_t *xen_show(struct port *port);

#endif
