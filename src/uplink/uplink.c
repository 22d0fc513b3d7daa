/* SPDX-License-Identifier: BSD-3-Clause */
/* What the uplinks share on their way into the port table. */
#include "uplink/uplink.h"

#include <string.h>

#include "port/worker.h"

int uplink_attach(struct port *port, const int *fds, struct error *error)
{
	int err;

	workers_pause();
	err = port_register(port);
	if (!err) {
		worker_attach(port);
		for (unsigned i = 0; i < port->queues && !err; i++)
			err = worker_watch(port, i, fds[i]);
		if (err) {
			worker_detach(port);
			port_unregister(port);
		}
	}
	workers_resume();
	return err ? fail(error, err, "port '%s' cannot be added: %s", port->name, strerror(-err))
		   : 0;
}
