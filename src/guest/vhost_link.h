/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The socket of a vhost-user back end: a server, client or ready-made connection that delivers
 * whole messages with their descriptors. Knows framing, not meaning. The theory of operation is in
 * vhost_link.c.
 */
#ifndef VIFD_VHOST_LINK_H
#define VIFD_VHOST_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sys/error.h"
#include "sys/log.h"
#include "sys/tokens.h"
#include "sys/unix_socket.h"

enum {
	VHOST_PAYLOAD_MAX = 4096, /* more than any message of the specification has */
	VHOST_FDS_MAX = 8,        /* of SET_MEM_TABLE */

	VHOST_VERSION = 1,
	VHOST_VERSION_MASK = 3,
	VHOST_REPLY = 1 << 2,
	VHOST_NEED_REPLY = 1 << 3,
};

/* A memory region as the specification lays it out. */
struct vhost_region {
	uint64_t gpa, size, uva, mmap_offset;
};

/* A message in machine byte order: header and payload as on the socket, then the descriptors that
 * came with it. */
struct vhost_msg {
	struct {
		uint32_t request;
		uint32_t flags;
		uint32_t size; /* bytes of payload */
	} header;
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct {
			uint32_t count, padding;
			struct vhost_region regions[VHOST_FDS_MAX];
		} mem;
		struct {
			uint64_t padding;
			struct vhost_region region;
		} mem_reg;
		uint8_t bytes[VHOST_PAYLOAD_MAX];
	} payload;
	unsigned fd_count;
	int fds[VHOST_FDS_MAX]; /* -1: taken by whoever handled the message */
};

struct vhost_link;

/*
 * up:      a front end is connected.
 * message: one message is in link->msg. Descriptors left in it are closed afterwards. False:
 *          disconnect.
 * down:    the front end is gone; not called for vhost_link_close().
 */
struct vhost_link_ops {
	void (*up)(struct vhost_link *link);
	bool (*message)(struct vhost_link *link);
	void (*down)(struct vhost_link *link);
};

struct vhost_link {
	const struct vhost_link_ops *ops;
	const char *name; /* of the guest, for messages; the caller's */
	char *path;       /* NULL: the connection was given */
	bool client;
	int listen_fd;         /* -1: not a server */
	int fd;                /* -1: not connected */
	struct unix_file file; /* the socket file that we made */
	int timer;             /* until we try or read again; 0: none */
	struct tokens tokens;  /* what the front end may still ask of us */
	uint64_t connections, throttled;
	struct log_limit limit;
	size_t have; /* bytes of msg received so far */
	struct vhost_msg msg;
};

struct vhost_link_config {
	const char *name, *path;
	int fd; /* a connected socket (taken, also on failure); -1 with path */
	bool client;
	mode_t mode; /* of a listening socket */
};

/* Start serving; ops is set. 0, or -errno and a sentence. A client that finds nobody keeps trying.
 * */
int vhost_link_open(struct vhost_link *link, const struct vhost_link_config *config,
		    struct error *error);
/* Disconnect, stop, remove the socket file if it is still ours. */
void vhost_link_close(struct vhost_link *link);
/* Send the connected front end away; a server or client begins anew. */
void vhost_link_disconnect(struct vhost_link *link);
/* Answer link->msg with the first size bytes of its payload. False: the front end does not read its
 * answers. */
bool vhost_link_reply(struct vhost_link *link, uint32_t size);

#endif
