/* SPDX-License-Identifier: BSD-3-Clause */
/* What the uplinks share on their way into the port table. */
#ifndef VIFD_UPLINK_H
#define VIFD_UPLINK_H

#include "port/port.h"
#include "sys/error.h"

/*
 * Enter the port table and give the queues to workers, each woken by its descriptor of fds[queues].
 * 0, or -errno, a sentence, and nothing done.
 */
int uplink_attach(struct port *port, const int *fds, struct error *error);

#endif
