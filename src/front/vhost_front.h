/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtio-net front end over vhost-user, with the functions of vifront.h: what snet is compared
 * with. For one thread and one pair of queues. The theory of operation is in vhost_front.c.
 */
#ifndef VIFD_VHOST_FRONT_H
#define VIFD_VHOST_FRONT_H

#include "front/vifront.h"
#include "sys/error.h"

struct vhost_front;

/* Not connected yet. takes: enum vifront_takes. NULL: no memory. */
struct vhost_front *vhost_front_new(const char *path, uint32_t takes);
void vhost_front_free(struct vhost_front *front);

/* These are as those of vifront.h; a buffer's data is to stay where it is. */
int vhost_front_reopen(struct vhost_front *front, struct error *error);
const struct vifront_info *vhost_front_info(const struct vhost_front *front);
const char *vhost_front_why(const struct vhost_front *front);
int vhost_front_recv(struct vhost_front *front, struct vifront_buf *bufs, unsigned count);
void vhost_front_release(struct vhost_front *front, const struct vifront_buf *bufs, unsigned count);
int vhost_front_alloc(struct vhost_front *front, uint32_t bytes, struct vifront_buf *bufs,
		      unsigned count);
void vhost_front_give_up(struct vhost_front *front, const struct vifront_buf *bufs, unsigned count);
int vhost_front_send(struct vhost_front *front, const struct vifront_buf *bufs, unsigned count);
int vhost_front_event_fd(const struct vhost_front *front);
int vhost_front_socket_fd(const struct vhost_front *front);
int vhost_front_arm(struct vhost_front *front, unsigned events);
void vhost_front_disarm(struct vhost_front *front);
int vhost_front_attend(struct vhost_front *front);

#endif
