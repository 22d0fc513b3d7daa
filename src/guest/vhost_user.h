/* SPDX-License-Identifier: BSD-3-Clause */
/* vhost-user, back end (the control socket of a virtio_net device). The theory of operation is in
 * vhost_user.c. */
#ifndef VIFD_VHOST_USER_H
#define VIFD_VHOST_USER_H

#include <jansson.h>

#include "port/port.h"
#include "sys/error.h"

struct vhost_user_config {
	const char *name;   /* of the port */
	const char *path;   /* socket; NULL with fd */
	int fd;             /* a connected socket (--fd); -1 with path */
	bool client;        /* connect to path, again and again, instead of listening there */
	unsigned pairs;     /* queue pairs at most, 1..PORT_QUEUES_MAX */
	uint16_t mtu;       /* advertised with VIRTIO_NET_F_MTU, bytes */
	const uint8_t *mac; /* the guest's address, NULL: not known */
	bool spoof_strict, isolated;
	bool no_offload; /* offer the guest a NIC without checksum and segmentation offloads */
	mode_t mode;     /* of a listening socket, 0660 unless told */
};

/* Create the guest's port, register it, attach it to the workers and start serving its socket. The
 * caller then puts it on a bridge. 0 and *port, or -errno and a sentence in error. A stale socket
 * file is replaced, a live one is an error. */
int vhost_user_open(const struct vhost_user_config *config, struct port **port,
		    struct error *error);

/* To be called some times a second: disconnects front ends that took memory away which they had
 * shared. */
void vhost_user_tick(void);

/* State of the guest for `show guests`: connected, role, path, features by name, rings (size,
 * running, broken and why), memory regions with page sizes, messages, reconnects. New reference. */
json_t *vhost_user_show(struct port *port);
/* Add rows of `show memory` to list: the regions of the guest's memory, rings and all. */
void vhost_user_show_memory(struct port *port, json_t *list);

#endif
