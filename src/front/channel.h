/* SPDX-License-Identifier: BSD-3-Clause */
/* vif-front's way to vifd: snet, or vhost-user to compare with. The functions are those of vifront.h. */
#ifndef VIFD_FRONT_CHANNEL_H
#define VIFD_FRONT_CHANNEL_H

#include "front/vhost_front.h"
#include "front/vifront.h"

struct channel {
	struct vifront *snet; /* or */
	struct vhost_front *vhost;
	unsigned send_queue;
};

static inline const struct vifront_info *channel_info(const struct channel *channel)
{
	return channel->vhost ? vhost_front_info(channel->vhost) : vifront_info(channel->snet);
}

static inline const char *channel_why(const struct channel *channel)
{
	return channel->vhost ? vhost_front_why(channel->vhost) : vifront_why(channel->snet);
}

static inline int channel_recv(const struct channel *channel, unsigned queue,
			       struct vifront_buf *bufs, unsigned count)
{
	return channel->vhost ? vhost_front_recv(channel->vhost, bufs, count)
			      : vifront_recv(channel->snet, queue, bufs, count);
}

static inline void channel_release(const struct channel *channel, unsigned queue,
				   const struct vifront_buf *bufs, unsigned count)
{
	if (channel->vhost)
		vhost_front_release(channel->vhost, bufs, count);
	else
		vifront_release(channel->snet, queue, bufs, count);
}

static inline int channel_alloc(const struct channel *channel, uint32_t bytes,
				struct vifront_buf *bufs, unsigned count)
{
	return channel->vhost
		       ? vhost_front_alloc(channel->vhost, bytes, bufs, count)
		       : vifront_alloc(channel->snet, channel->send_queue, bytes, bufs, count);
}

static inline void channel_free(const struct channel *channel, const struct vifront_buf *bufs,
				unsigned count)
{
	if (channel->vhost)
		vhost_front_give_up(channel->vhost, bufs, count);
	else
		vifront_free(channel->snet, channel->send_queue, bufs, count);
}

static inline int channel_send(const struct channel *channel, const struct vifront_buf *bufs,
			       unsigned count)
{
	return channel->vhost ? vhost_front_send(channel->vhost, bufs, count)
			      : vifront_send(channel->snet, channel->send_queue, bufs, count);
}

static inline int channel_event_fd(const struct channel *channel, unsigned queue)
{
	return channel->vhost ? vhost_front_event_fd(channel->vhost)
			      : vifront_event_fd(channel->snet, queue);
}

static inline int channel_socket_fd(const struct channel *channel)
{
	return channel->vhost ? vhost_front_socket_fd(channel->vhost)
			      : vifront_socket_fd(channel->snet);
}

static inline int channel_arm(const struct channel *channel, unsigned queue, unsigned events)
{
	return channel->vhost ? vhost_front_arm(channel->vhost, events)
			      : vifront_arm(channel->snet, queue, events);
}

static inline void channel_disarm(const struct channel *channel, unsigned queue)
{
	if (channel->vhost)
		vhost_front_disarm(channel->vhost);
	else
		vifront_disarm(channel->snet, queue);
}

static inline int channel_attend(const struct channel *channel)
{
	return channel->vhost ? vhost_front_attend(channel->vhost) : vifront_attend(channel->snet);
}

#endif
