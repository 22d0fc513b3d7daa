/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A guest behind snet: its socket, the zones it gets to see, its front end's coming and going. The
 * messages are in snet/snet_msg.h.
 *
 * Theory of operation. The port lives from snet_open() to snet_close(), whether a front end is
 * connected or not. One front end is served at a time, others are told so at once and sent away. It
 * says HELLO once and nothing else ever; everything that it may touch is made by vifd and shown to it.
 *
 *      listening --accept--> connected --HELLO--> session --end--> listening
 *
 * When the front end goes, what it has sent may be under way yet, with somebody else: the session
 * then lingers until that is done. There are few such sessions to a guest; beyond that its front
 * ends are refused until one is done. Zones: snet_zones.c.
 */
#include "guest/snet_control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/snet_guest.h"
#include "guest/snet_remap.h"
#include "port/worker.h"
#include "sys/loop.h"
#include "zone/zone_host.h"

enum {
	THROTTLE_MS = 50,
	SEND_BUFFER = 4 << 20, /* bytes of messages that a front end has not read yet */
	LINGERING_MAX = 4,     /* sessions of a guest */
};

/* Sessions that are over, but something sent in them is under way. */
static struct snet_session *lingering;

static void on_accept(void *arg, uint32_t events);
static void on_throttle_end(void *arg);
static void on_message(void *arg, uint32_t events);
static int begin(struct snet_guest *guest, const struct snet_msg *hello, struct error *error);
static void disconnect(struct snet_guest *guest);
static void end_session(struct snet_guest *guest);
static void free_done(void);

/* ---- the port ---- */

static void fill_port(struct port *port, const struct snet_config *config)
{
	snprintf(port->name, sizeof(port->name), "%s", config->name);
	port->ops = &snet_port_ops;
	port->caps = PORT_CAP_SG;
	port->mtu = config->mtu;
	port->queues = workers_count();
	port->queue_per_worker = true;
	port->isolated = config->isolated;
	port->spoof_strict = config->spoof_strict;
	port->has_mac = config->mac;
	if (config->mac)
		memcpy(port->mac, config->mac, sizeof(port->mac));
}

static void guest_free(struct snet_guest *guest)
{
	snet_zones_fini(guest);
	snet_remap_free(guest->snet.remap);
	free(guest->path);
	free(guest);
}

static int guest_listen(struct snet_guest *guest, mode_t mode, struct error *error)
{
	int ret = unix_listen(guest->path, SOCK_SEQPACKET | SOCK_NONBLOCK, mode, &guest->file,
			      error);

	if (ret < 0)
		return ret;
	guest->listen_fd = ret;
	ret = loop_add_fd(guest->listen_fd, EPOLLIN, on_accept, guest);
	if (!ret)
		return 0;
	unix_unlink(guest->path, &guest->file);
	close(guest->listen_fd);
	guest->listen_fd = -1;
	return fail(error, ret, "cannot listen on %s: %s", guest->path, strerror(-ret));
}

static int guest_attach(struct port *port, struct error *error)
{
	int ret;

	workers_pause();
	ret = port_register(port);
	if (!ret)
		worker_attach(port);
	workers_resume();
	if (!ret)
		return 0;
	return fail(error, ret,
		    ret == -EEXIST ? "there is a port '%s' already" : "no room for port '%s'",
		    port->name);
}

/* What the baselines need, if one is asked for. */
static int remap_init(struct snet_guest *guest, const struct snet_config *config,
		      struct error *error)
{
	if (!config->remap && !config->flip)
		return 0;
	guest->snet.remap = snet_remap_new(config->flip ? SNET_REMAP_FLIP : SNET_REMAP_COPY,
					   workers_count());
	return guest->snet.remap ? 0 : fail(error, -ENOMEM, "out of memory");
}

int snet_open(const struct snet_config *config, struct port **port, struct error *error)
{
	static unsigned next_id;
	struct zone_space *space = zone_host(error);
	struct snet_guest *guest;
	int ret;

	if (!space)
		return -ENOMEM;
	if (workers_count() > PORT_QUEUES_MAX)
		return fail(error, -EINVAL, "a snet guest has a queue for each worker, at most %d",
			    PORT_QUEUES_MAX);
	guest = aligned_alloc(64, (sizeof(*guest) + 63) & ~(size_t)63);
	if (!guest)
		return fail(error, -ENOMEM, "out of memory");
	memset(guest, 0, sizeof(*guest));
	guest->snet.space = space;
	guest->snet.shared = config->shared;
	guest->snet.no_offload = config->no_offload;
	guest->ring_size = config->ring_size;
	guest->stride = config->stride;
	guest->listen_fd = guest->fd = -1;
	guest->tokens = (struct tokens){ TOKENS_BURST };
	guest->id = ++next_id;
	guest->path = strdup(config->path);
	fill_port(&guest->snet.port, config);
	ret = guest->path ? remap_init(guest, config, error)
			  : fail(error, -ENOMEM, "out of memory");
	if (!ret)
		ret = snet_zones_init(guest, error);
	if (!ret)
		ret = guest_attach(&guest->snet.port, error);
	if (ret) {
		guest_free(guest);
		return ret;
	}
	ret = guest_listen(guest, config->mode, error);
	if (ret) {
		worker_detach(&guest->snet.port);
		snet_close(&guest->snet.port);
		return ret;
	}
	if (guest->snet.remap)
		log_warn("guest %s: channel=%s is slow, and for measurement only", config->name,
			 config->flip ? "flip" : "remap");
	*port = &guest->snet.port;
	return 0;
}

void snet_close(struct port *port)
{
	struct snet_guest *guest = snet_guest_of(port);

	if (guest->timer)
		loop_del_timer(guest->timer);
	if (guest->listen_fd >= 0) {
		loop_del_fd(guest->listen_fd);
		close(guest->listen_fd);
		unix_unlink(guest->path, &guest->file);
	}
	if (guest->fd >= 0) {
		loop_del_fd(guest->fd);
		close(guest->fd);
		guest->fd = -1;
	}
	end_session(guest);
	workers_pause();
	port_unregister(port);
	workers_resume();
	guest_free(guest);
	free_done();
}

/* ---- the socket ---- */

/* Has who is connected gone, even if that was not heard of yet? */
static bool has_gone(int fd)
{
	struct pollfd pollfd = { .fd = fd };

	return poll(&pollfd, 1, 0) == 1 && pollfd.revents & POLLHUP;
}

/* Tell who has connected that somebody else has, and who. */
static void turn_away(struct snet_guest *guest, int fd)
{
	struct snet_msg msg = { .type = SNET_REFUSED }, unread;
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	getsockopt(guest->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
	snprintf(msg.refused, sizeof(msg.refused), "another front end is connected there, pid %d",
		 (int)peer.pid);
	guest->refused++;
	send(fd, &msg, sizeof(msg), MSG_DONTWAIT | MSG_NOSIGNAL);
	/* closing it with something unread would take that away again */
	shutdown(fd, SHUT_RD);
	while (recv(fd, &unread, sizeof(unread), MSG_DONTWAIT) > 0)
		;
	close(fd);
}

static void on_accept(void *arg, uint32_t events)
{
	struct snet_guest *guest = arg;
	int fd = -1, timer, room = SEND_BUFFER;

	if (guest->fd >= 0 && has_gone(guest->fd))
		disconnect(guest);
	if (tokens_take(&guest->tokens, TOKENS_CONNECT))
		fd = accept4(guest->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	else
		guest->throttled++;
	if (fd >= 0 && guest->fd >= 0) {
		turn_away(guest, fd);
		return;
	}
	if (fd >= 0 && loop_add_fd(fd, EPOLLIN, on_message, guest) == 0) {
		if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
			setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
		guest->fd = fd;
		guest->connections++;
		return;
	}
	if (fd >= 0)
		close(fd);
	/* too often, or out of descriptors: leave it in the backlog for a while */
	loop_set_events(guest->listen_fd, 0);
	timer = loop_add_timer(THROTTLE_MS, on_throttle_end, guest);
	guest->timer = timer > 0 ? timer : 0;
}

static void on_throttle_end(void *arg)
{
	struct snet_guest *guest = arg;

	guest->timer = 0;
	loop_set_events(guest->listen_fd, EPOLLIN);
}

bool snet_tell(struct snet_guest *guest, const struct snet_msg *msg, const int *fds,
	       unsigned fd_count)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(SNET_FDS_MAX * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)msg, sizeof(*msg) };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd_count > 0) {
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		control.align = (struct cmsghdr){ .cmsg_len = CMSG_LEN(fd_count * sizeof(int)),
						  .cmsg_level = SOL_SOCKET,
						  .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.align), fds, fd_count * sizeof(int));
	}
	return sendmsg(guest->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(*msg);
}

/* Send the front end away, and say why. */
static void refuse(struct snet_guest *guest, const char *why)
{
	struct snet_msg msg = { .type = SNET_REFUSED };

	if (log_allowed(&guest->limit))
		log_warn("guest %s: %s; front end disconnected", guest->snet.port.name, why);
	snprintf(msg.refused, sizeof(msg.refused), "%.*s", SNET_TEXT_MAX - 1, why);
	guest->refused++;
	snet_tell(guest, &msg, NULL, 0);
	disconnect(guest);
}

static void close_fds(struct msghdr *header)
{
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg; cmsg = CMSG_NXTHDR(header, cmsg)) {
		unsigned count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		for (unsigned i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
			close(fd);
		}
	}
}

static void on_message(void *arg, uint32_t events)
{
	struct snet_guest *guest = arg;
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(SNET_FDS_MAX * sizeof(int))];
	} control;
	struct snet_msg msg = { 0 };
	struct iovec iov = { &msg, sizeof(msg) };
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got = recvmsg(guest->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct error error;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		disconnect(guest);
		return;
	}
	close_fds(&header);
	guest->messages++;
	if (got != sizeof(msg) || header.msg_flags & MSG_TRUNC || header.msg_controllen > 0 ||
	    msg.type != SNET_HELLO || guest->snet.session)
		refuse(guest, "a message that is not one HELLO");
	else if (begin(guest, &msg, &error))
		refuse(guest, error.text);
}

static void disconnect(struct snet_guest *guest)
{
	loop_del_fd(guest->fd);
	close(guest->fd);
	guest->fd = -1;
	if (guest->snet.session && log_allowed(&guest->limit))
		log_info("guest %s: front end disconnected", guest->snet.port.name);
	end_session(guest);
}

/* ---- sessions ---- */

unsigned snet_lingering(const struct snet_guest *guest)
{
	unsigned count = 0;

	for (const struct snet_session *one = lingering; one; one = one->next)
		count += one->guest_id == guest->id;
	return count;
}

static bool tell_session(struct snet_guest *guest, struct snet_session *session)
{
	const struct port *port = &guest->snet.port;
	struct snet_msg msg = {
		.type = SNET_WELCOME,
		.welcome = {
			.version = SNET_VERSION,
			.queues = session->queue_count,
			.ring_size = guest->ring_size,
			.stride = guest->stride,
			.mtu = port->mtu,
			.shared = guest->snet.shared,
			.offload = !guest->snet.no_offload,
		},
	};

	if (port->has_mac)
		memcpy(msg.welcome.mac, port->mac, sizeof(port->mac));
	if (!snet_tell(guest, &msg, &session->memory_fd, 1))
		return false;
	for (unsigned i = 0; i < session->queue_count; i++) {
		const struct snet_queue *queue = &session->queues[i];
		const int fds[2] = { queue->kick_fd, queue->call_fd };
		struct snet_msg about = { .type = SNET_QUEUE, .queue = { i } };

		if (!snet_tell(guest, &about, fds, 2))
			return false;
	}
	return snet_zones_tell(guest, session);
}

static uint32_t caps_of(const struct snet_guest *guest)
{
	uint32_t takes = guest->takes, caps = PORT_CAP_SG;

	if (guest->snet.no_offload || !(takes & SNET_TAKES_CSUM))
		return caps;
	caps |= PORT_CAP_CSUM;
	caps |= takes & SNET_TAKES_TSO4 ? PORT_CAP_TSO4 : 0;
	caps |= takes & SNET_TAKES_TSO6 ? PORT_CAP_TSO6 : 0;
	caps |= takes & SNET_TAKES_TSO_ECN ? PORT_CAP_TSO_ECN : 0;
	caps |= takes & SNET_TAKES_USO ? PORT_CAP_USO : 0;
	return caps;
}

/* There are new zones: tell who may see them. Who does not read is dealt with at the next tick. */
static void tell_others(void)
{
	for (unsigned id = 1; id < PORTS_MAX; id++) {
		struct port *port = port_by_id(id);
		struct snet_guest *other = port ? snet_guest_of(port) : NULL;

		if (port && port->ops == &snet_port_ops && other->snet.session)
			snet_zones_tell(other, other->snet.session);
	}
}

/* Answer a HELLO with a session. 0, or -errno and a sentence for the front end. */
static int begin(struct snet_guest *guest, const struct snet_msg *hello, struct error *error)
{
	struct snet_msg start = { .type = SNET_START };
	struct port *port = &guest->snet.port;
	struct snet_session *session;
	int ret;

	if (hello->hello.version != SNET_VERSION)
		return fail(error, -EPROTO, "version %d of snet is spoken here, not %u",
			    SNET_VERSION, hello->hello.version);
	if (snet_lingering(guest) >= LINGERING_MAX)
		return fail(error, -EBUSY, "what earlier connections sent is still under way");
	ret = snet_zones_to_send(guest, hello->hello.tx_bytes, error);
	if (ret)
		return ret;
	session = snet_session_new(workers_count(), guest->ring_size, guest->stride);
	if (!session)
		return fail(error, -ENOMEM, "out of memory or of descriptors");
	session->tx = guest->tx;
	session->guest_id = guest->id;
	guest->takes = hello->hello.takes;
	if (!tell_session(guest, session)) {
		snet_session_free(session);
		return fail(error, -EPIPE, "it does not read what it is told");
	}
	workers_pause();
	ret = snet_start(&guest->snet, session);
	if (!ret) {
		port->caps = caps_of(guest);
		port->zones[0] = guest->snet.shared ? guest->tx : NULL;
	}
	workers_resume();
	if (ret) {
		snet_session_free(session);
		return fail(error, ret, "its queues cannot be watched: %s", strerror(-ret));
	}
	if (log_allowed(&guest->limit))
		log_info("guest %s: front end connected", port->name);
	tell_others();
	return snet_tell(guest, &start, NULL, 0)
		       ? 0
		       : fail(error, -EPIPE, "it does not read what it is told");
}

static void end_session(struct snet_guest *guest)
{
	struct snet_session *session;
	bool done;

	if (!guest->snet.session)
		return;
	workers_pause();
	session = snet_stop(&guest->snet);
	guest->snet.port.caps = PORT_CAP_SG;
	guest->snet.port.zones[0] = NULL;
	done = snet_session_done(session);
	workers_resume();
	if (done) {
		snet_session_free(session);
		return;
	}
	guest->tx = NULL;
	session->next = lingering;
	lingering = session;
}

/* Free the lingering sessions that are done. */
static void free_done(void)
{
	struct snet_session *done = NULL;
	bool any = false;

	/* a first look while workers run saves pausing them for nothing */
	for (struct snet_session *one = lingering; one; one = one->next)
		any |= snet_session_done(one);
	if (!any)
		return;
	workers_pause();
	for (struct snet_session **link = &lingering; *link;) {
		struct snet_session *session = *link;

		if (snet_session_done(session)) {
			*link = session->next;
			session->next = done;
			done = session;
		} else {
			link = &session->next;
		}
	}
	workers_resume();
	while (done) {
		struct snet_session *next = done->next;

		snet_zones_drop(&done->tx);
		snet_session_free(done);
		done = next;
	}
}

/* ---- from time to time ---- */

static void guest_tick(struct snet_guest *guest)
{
	struct snet_session *session = guest->snet.session;
	unsigned muted = atomic_load(&guest->snet.muted), queue;
	enum snet_error broken;
	struct error why;

	if (muted > 0)
		atomic_store(&guest->snet.muted, muted - 1);
	if (!session)
		return;
	broken = snet_session_error(session, &queue);
	if (broken) {
		fail(&why, 0, "queue %u: %s", queue, snet_error_names[broken]);
		refuse(guest, why.text);
		return;
	}
	snet_zones_tell_gone(guest, session);
	if (snet_zones_tell(guest, session))
		snet_zones_relieve(guest);
	else
		refuse(guest, "it does not read what it is told");
}

void snet_tick(void)
{
	for (unsigned id = 1; id < PORTS_MAX; id++) {
		struct port *port = port_by_id(id);

		if (port && port->ops == &snet_port_ops)
			guest_tick(snet_guest_of(port));
	}
	free_done();
}
