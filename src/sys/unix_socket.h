/* SPDX-License-Identifier: BSD-3-Clause */
/* Listening Unix sockets: one place in the file system, whose file is ours while we serve it. */
#ifndef VIFD_UNIX_SOCKET_H
#define VIFD_UNIX_SOCKET_H

#include <sys/stat.h>
#include <sys/un.h>

#include "sys/error.h"

/* The file of a socket that was made. */
struct unix_file {
	dev_t dev;
	ino_t ino;
};

/* 0, or -ENAMETOOLONG and a sentence. */
int unix_address(const char *path, struct sockaddr_un *addr, struct error *error);
/*
 * Listen at path with a socket of this type (SOCK_STREAM, SOCK_SEQPACKET), whose file gets exactly
 * this mode. The file of somebody who does not listen any more is replaced. A descriptor, which
 * does not block (SOCK_NONBLOCK in type) or does, or -errno and a sentence; -EADDRINUSE: somebody
 * listens there.
 */
int unix_listen(const char *path, int type, mode_t mode, struct unix_file *file,
		struct error *error);
/* Remove the file of unix_listen(), unless somebody else has put another there. */
void unix_unlink(const char *path, const struct unix_file *file);

#endif
