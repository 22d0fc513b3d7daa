/* SPDX-License-Identifier: BSD-3-Clause */
/* The control socket: the grammar over a unix stream socket. Main thread only. */
#ifndef VIFD_CTL_SOCKET_H
#define VIFD_CTL_SOCKET_H

#include "sys/error.h"

#define CTL_SOCKET_DEFAULT "/run/vifd/vifd.sock"

/*
 * Listen at path (mode 0660; its directory is made if it is missing) and serve clients on the loop.
 * The socket that a dead vifd left is replaced. 0, or -errno and a sentence; -EADDRINUSE when
 * another vifd answers there.
 */
int ctl_socket_open(const char *path, struct error *error);
/* Hang up on every client and remove the socket. Does nothing when none is open. */
void ctl_socket_close(void);

#endif
