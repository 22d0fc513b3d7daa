/* SPDX-License-Identifier: BSD-3-Clause */
/* A vhost-user guest: its device, its socket, and what the messages on that have said. Private to
 * vhost_user.c and vhost_messages.c. */
#ifndef VIFD_VHOST_MESSAGES_H
#define VIFD_VHOST_MESSAGES_H

#include "guest/vhost_link.h"
#include "guest/virtio_net.h"

/* What has been said of a ring, which needs all four to start. */
struct ring_has {
	bool size, addresses, position, kick;
};

struct vhost_user {
	struct virtio_net device;
	struct vhost_link link;
	struct ring_has has[2 * PORT_QUEUES_MAX];
	uint64_t offered;           /* features; a subset of VIRTIO_NET_FEATURES */
	uint64_t protocol_features; /* negotiated */
	uint8_t status;             /* virtio device status, as last set */
	uint16_t mtu;               /* configured */
	uint64_t messages;
	struct error why; /* of the refusal of the message in hand */
};

static inline struct vhost_user *vhost_user_of_link(struct vhost_link *link)
{
	return (struct vhost_user *)((char *)link - offsetof(struct vhost_user, link));
}

/* vhost_link_ops.message: do what link->msg asks and answer it. */
bool vhost_user_message(struct vhost_link *link);

#endif
