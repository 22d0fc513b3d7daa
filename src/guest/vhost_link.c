/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The socket of a vhost-user back end (QEMU's docs/interop/vhost-user.rst, "Message
 * Specification").
 *
 * Theory of operation. A link is one of three: a server that listens on a path and serves one front
 * end at a time (the next one waits in the backlog: when a VM is killed and started again, the new
 * connection may be there before we have seen the old one end), a client that connects to a path
 * every RETRY_MS until somebody listens, or a connection that vifd was started with. After a
 * disconnect the first two begin anew.
 *
 *      server:  listening --accept--> connected --end--> listening
 *      client:  waiting --connect--> connected --end--> waiting
 *
 * Messages are read exactly: first the header, then as many bytes as it says, whatever pieces they
 * come in. A read never runs into the next message, so that the descriptors received on the way
 * belong to this one. All calls are non-blocking by flag of the call, not of the descriptor, which
 * the peer may share and change.
 *
 * What a front end may ask for in a time is limited (sys/tokens.h): a message costs a token, a
 * connection some. Out of tokens it is not read for a while; nothing is lost, and front ends that
 * mean well need some fifty messages for a start and never notice. A front end that does not read
 * its answers is disconnected.
 */
#include "guest/vhost_link.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys/loop.h"

enum {
	RETRY_MS = 200,
	THROTTLE_MS = 50,
	MESSAGES_PER_TURN = 32, /* before other descriptors of the loop get theirs */
};

enum { HEADER_SIZE = sizeof(((struct vhost_msg *)NULL)->header) };
_Static_assert(HEADER_SIZE == 12, "as on the socket");

static int listen_at(struct vhost_link *link, mode_t mode, struct error *error);
static void on_accept(void *arg, uint32_t events);
static void try_connect(void *arg);
static int connected(struct vhost_link *link, int fd);
static void begin_anew(struct vhost_link *link);
static void on_socket(void *arg, uint32_t events);
static int receive(struct vhost_link *link);
static ssize_t receive_some(struct vhost_link *link, void *to, size_t len);
static int take_fds(struct vhost_msg *msg, struct msghdr *header);
static void next_message(struct vhost_link *link);
static void on_throttle_end(void *arg);

int vhost_link_open(struct vhost_link *link, const struct vhost_link_config *config,
		    struct error *error)
{
	int ret = 0;

	link->name = config->name;
	link->client = config->client;
	link->listen_fd = link->fd = -1;
	link->tokens = (struct tokens){ TOKENS_BURST };
	if (config->path) {
		struct sockaddr_un addr;

		ret = unix_address(config->path, &addr, error);
		if (ret)
			return ret;
		link->path = strdup(config->path);
		if (!link->path)
			return fail(error, -ENOMEM, "out of memory");
		if (!link->client)
			ret = listen_at(link, config->mode, error);
		else
			try_connect(link);
	} else {
		ret = connected(link, config->fd);
		if (ret)
			fail(error, ret, "cannot serve descriptor %d: %s", config->fd,
			     strerror(-ret));
	}
	if (ret) {
		free(link->path);
		link->path = NULL;
	}
	return ret;
}

void vhost_link_close(struct vhost_link *link)
{
	if (link->timer)
		loop_del_timer(link->timer);
	link->timer = 0;
	if (link->fd >= 0) {
		next_message(link);
		loop_del_fd(link->fd);
		close(link->fd);
		link->fd = -1;
	}
	if (link->listen_fd >= 0) {
		loop_del_fd(link->listen_fd);
		close(link->listen_fd);
		link->listen_fd = -1;
		unix_unlink(link->path, &link->file);
	}
	free(link->path);
	link->path = NULL;
}

bool vhost_link_reply(struct vhost_link *link, uint32_t size)
{
	struct vhost_msg *msg = &link->msg;
	struct iovec iov[2] = { { &msg->header, HEADER_SIZE }, { &msg->payload, size } };
	struct msghdr header = { .msg_iov = iov, .msg_iovlen = 2 };

	msg->header.flags = VHOST_VERSION | VHOST_REPLY;
	msg->header.size = size;
	return sendmsg(link->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) ==
	       (ssize_t)(HEADER_SIZE + size);
}

static int listen_at(struct vhost_link *link, mode_t mode, struct error *error)
{
	int fd = unix_listen(link->path, SOCK_STREAM, mode, &link->file, error), ret;

	if (fd < 0)
		return fd;
	ret = loop_add_fd(fd, EPOLLIN, on_accept, link);
	if (ret) {
		unix_unlink(link->path, &link->file);
		close(fd);
		return fail(error, ret, "cannot listen on %s: %s", link->path, strerror(-ret));
	}
	link->listen_fd = fd;
	return 0;
}

static void set_timer(struct vhost_link *link, unsigned msec, loop_timer_fn *fn)
{
	int timer = loop_add_timer(msec, fn, link);

	link->timer = timer > 0 ? timer : 0;
}

static void on_accept(void *arg, uint32_t events)
{
	struct vhost_link *link = arg;
	int fd = -1;

	if (tokens_take(&link->tokens, TOKENS_CONNECT))
		fd = accept4(link->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0 && connected(link, fd) == 0)
		return;
	/* too often, or out of descriptors: leave it in the backlog for a while */
	loop_set_events(link->listen_fd, 0);
	set_timer(link, THROTTLE_MS, on_throttle_end);
}

static void try_connect(void *arg)
{
	struct vhost_link *link = arg;
	struct sockaddr_un addr;
	struct error error;
	int fd;

	link->timer = 0;
	unix_address(link->path, &addr, &error);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && tokens_take(&link->tokens, TOKENS_CONNECT) &&
	    connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
		if (connected(link, fd) == 0)
			return;
	} else if (fd >= 0) {
		close(fd);
	}
	set_timer(link, RETRY_MS, try_connect);
}

/* Serve fd (taken, also on failure). */
static int connected(struct vhost_link *link, int fd)
{
	int ret = loop_add_fd(fd, EPOLLIN, on_socket, link);

	if (ret) {
		close(fd);
		return ret;
	}
	if (link->listen_fd >= 0)
		loop_set_events(link->listen_fd, 0);
	link->fd = fd;
	link->have = 0;
	link->msg.fd_count = 0;
	link->connections++;
	link->ops->up(link);
	return 0;
}

void vhost_link_disconnect(struct vhost_link *link)
{
	if (link->timer) /* throttled */
		loop_del_timer(link->timer);
	link->timer = 0;
	next_message(link);
	loop_del_fd(link->fd);
	close(link->fd);
	link->fd = -1;
	link->ops->down(link);
	begin_anew(link);
}

static void begin_anew(struct vhost_link *link)
{
	if (link->listen_fd >= 0)
		loop_set_events(link->listen_fd, EPOLLIN);
	else if (link->client)
		set_timer(link, RETRY_MS, try_connect);
}

static void on_socket(void *arg, uint32_t events)
{
	struct vhost_link *link = arg;

	if (link->timer) { /* throttled, yet called: it has hung up, which cannot be masked */
		vhost_link_disconnect(link);
		return;
	}
	for (unsigned i = 0; i < MESSAGES_PER_TURN; i++) {
		int ret = receive(link);

		if (ret == 0)
			return;
		if (ret < 0 || !link->ops->message(link)) {
			vhost_link_disconnect(link);
			return;
		}
		next_message(link);
		if (!tokens_take(&link->tokens, 1)) {
			link->throttled++;
			loop_set_events(link->fd, 0);
			set_timer(link, THROTTLE_MS, on_throttle_end);
			return;
		}
	}
}

static void complain(struct vhost_link *link, const char *what)
{
	if (log_allowed(&link->limit))
		log_warn("guest %s: %s; front end disconnected", link->name, what);
}

/* 1: link->msg is a whole message; 0: not yet; -errno: the connection is to be closed. */
static int receive(struct vhost_link *link)
{
	struct vhost_msg *msg = &link->msg;

	for (;;) {
		bool in_header = link->have < HEADER_SIZE;
		size_t at = in_header ? link->have : link->have - HEADER_SIZE;
		size_t left = (in_header ? HEADER_SIZE : msg->header.size) - at;
		ssize_t got;

		if (!in_header && left == 0)
			return 1;
		got = receive_some(link,
				   (in_header ? (uint8_t *)&msg->header : msg->payload.bytes) + at,
				   left);
		if (got <= 0)
			return (int)got;
		link->have += got;
		if (!in_header || link->have < HEADER_SIZE)
			continue;
		if ((msg->header.flags & (VHOST_VERSION_MASK | VHOST_REPLY)) != VHOST_VERSION) {
			complain(link, "message of another protocol version");
			return -EPROTO;
		}
		if (msg->header.size > VHOST_PAYLOAD_MAX) {
			complain(link, "oversized message");
			return -EPROTO;
		}
	}
}

/* Receive up to len bytes and the descriptors that come with them. > 0 bytes; 0: nothing there yet;
 * -errno. */
static ssize_t receive_some(struct vhost_link *link, void *to, size_t len)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(VHOST_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { to, len };
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got = recvmsg(link->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (take_fds(&link->msg, &header)) {
		complain(link, "message with more than 8 descriptors");
		return -EPROTO;
	}
	if (got == 0) {
		if (link->have)
			complain(link, "half a message");
		return -ECONNRESET;
	}
	return got;
}

static int take_fds(struct vhost_msg *msg, struct msghdr *header)
{
	int ret = header->msg_flags & MSG_CTRUNC ? -EPROTO : 0; /* the kernel dropped some */

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg; cmsg = CMSG_NXTHDR(header, cmsg)) {
		unsigned count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fds[VHOST_FDS_MAX];

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS ||
		    count > VHOST_FDS_MAX)
			continue;
		memcpy(fds, CMSG_DATA(cmsg), count * sizeof(int));
		for (unsigned i = 0; i < count; i++) {
			if (msg->fd_count < VHOST_FDS_MAX) {
				msg->fds[msg->fd_count++] = fds[i];
			} else {
				close(fds[i]);
				ret = -EPROTO;
			}
		}
	}
	return ret;
}

/* Be ready for the next message: the descriptors that nobody took are closed. */
static void next_message(struct vhost_link *link)
{
	struct vhost_msg *msg = &link->msg;

	for (unsigned i = 0; i < msg->fd_count; i++) {
		if (msg->fds[i] >= 0)
			close(msg->fds[i]);
	}
	msg->fd_count = 0;
	link->have = 0;
}

static void on_throttle_end(void *arg)
{
	struct vhost_link *link = arg;

	link->timer = 0;
	loop_set_events(link->fd >= 0 ? link->fd : link->listen_fd, EPOLLIN);
}
