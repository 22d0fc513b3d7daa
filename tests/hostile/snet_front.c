// SPDX-License-Identifier: BSD-3-Clause
/* A front end of snet for tests. What the functions do is in snet_front.h. */
#include "snet_front.h"

#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { TIMEOUT_MS = 5000, FDS_MAX = 4 };

void front_connect(struct snet_front *front, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	memset(front, 0, sizeof(*front));
	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	front->memory_fd = -1;
	front->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (front->socket < 0 ||
	    connect(front->socket, (struct sockaddr *)&address, sizeof(address)))
		err(EXIT_FAILURE, "%s", path);
}

void front_say(struct snet_front *front, const void *msg, unsigned len, const int *fds,
	       unsigned fd_count)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(256 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)msg, len };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd_count > 0) {
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		control.align.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.align), fds, fd_count * sizeof(int));
	}
	if (sendmsg(front->socket, &header, MSG_NOSIGNAL) < 0 && errno != EPIPE &&
	    errno != ECONNRESET)
		err(EXIT_FAILURE, "sendmsg");
}

void front_hello(struct snet_front *front)
{
	const struct snet_msg hello = { .type = SNET_HELLO,
					.hello = { .version = SNET_VERSION, .takes = 31 } };

	front_say(front, &hello, sizeof(hello), NULL, 0);
}

static void map_zone(struct snet_front *front, const struct snet_msg *msg, int fd)
{
	struct front_zone *zone = &front->zones[front->zone_count];

	if (front->zone_count == FRONT_ZONES)
		errx(EXIT_FAILURE, "more than %d zones", FRONT_ZONES);
	*zone = (struct front_zone){ .id = msg->zone.id, .writable = msg->zone.writable, .fd = fd };
	zone->base = mmap(NULL, FRONT_ZONE, PROT_READ | (zone->writable ? PROT_WRITE : 0),
			  MAP_SHARED, fd, 0);
	if (zone->base == MAP_FAILED)
		err(EXIT_FAILURE, "zone %u cannot be mapped", zone->id);
	front->zone_count++;
}

static void map_rings(struct snet_front *front, const struct snet_msg *msg, int fd)
{
	struct stat st;

	front->welcome = *msg;
	front->memory_fd = fd;
	if (fstat(fd, &st))
		err(EXIT_FAILURE, "rings");
	front->memory_len = st.st_size;
	front->memory = mmap(NULL, front->memory_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (front->memory == MAP_FAILED)
		err(EXIT_FAILURE, "rings cannot be mapped");
}

static void handle(struct snet_front *front, const struct snet_msg *msg, const int *fds)
{
	uint32_t size = front->welcome.welcome.ring_size, stride = front->welcome.welcome.stride;
	struct front_queue *queue;

	switch (msg->type) {
	case SNET_WELCOME:
		map_rings(front, msg, fds[0]);
		break;
	case SNET_QUEUE:
		queue = &front->queues[front->queue_count++];
		snet_rings_at(&queue->rings,
			      front->memory + msg->queue.number * snet_queue_bytes(size, stride),
			      size, stride);
		queue->kick = fds[0];
		queue->call = fds[1];
		break;
	case SNET_ZONE:
		map_zone(front, msg, fds[0]);
		break;
	case SNET_ZONE_GONE:
		front->zones_gone += front_zone_by_id(front, msg->zone.id) != NULL;
		break;
	case SNET_START:
		front->started = true;
		break;
	case SNET_REFUSED:
		memcpy(front->refused, msg->refused, SNET_TEXT_MAX - 1);
		break;
	}
}

bool front_read(struct snet_front *front, int msec)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct snet_msg msg = { 0 };
	struct iovec iov = { &msg, sizeof(msg) };
	struct msghdr header = { .msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control) };
	struct pollfd ready = { .fd = front->socket, .events = POLLIN };
	int fds[FDS_MAX] = { -1, -1, -1, -1 };
	struct cmsghdr *cmsg;

	if (front->gone || poll(&ready, 1, msec) != 1)
		return false;
	if (recvmsg(front->socket, &header, MSG_CMSG_CLOEXEC) <= 0) {
		front->gone = true;
		return false;
	}
	cmsg = CMSG_FIRSTHDR(&header);
	if (cmsg)
		memcpy(fds, CMSG_DATA(cmsg), cmsg->cmsg_len - CMSG_LEN(0));
	handle(front, &msg, fds);
	return true;
}

bool front_sent_away(struct snet_front *front, int msec)
{
	while (front_read(front, msec))
		;
	return front->gone;
}

void front_open(struct snet_front *front, const char *path)
{
	front_connect(front, path);
	front_hello(front);
	while (!front->started && front_read(front, TIMEOUT_MS))
		;
	if (!front->started)
		errx(EXIT_FAILURE, "%s: no START: %s", path, front->refused);
}

void front_close(struct snet_front *front)
{
	for (unsigned i = 0; i < front->zone_count; i++) {
		munmap(front->zones[i].base, FRONT_ZONE);
		close(front->zones[i].fd);
	}
	for (unsigned i = 0; i < front->queue_count; i++) {
		close(front->queues[i].kick);
		close(front->queues[i].call);
	}
	if (front->memory_fd >= 0) {
		munmap(front->memory, front->memory_len);
		close(front->memory_fd);
	}
	close(front->socket);
}

struct front_zone *front_zone(struct snet_front *front, bool writable)
{
	for (unsigned i = 0; i < front->zone_count; i++) {
		if (front->zones[i].writable == writable)
			return &front->zones[i];
	}
	errx(EXIT_FAILURE, "no %s zone", writable ? "writable" : "read-only");
}

struct front_zone *front_zone_by_id(struct snet_front *front, uint32_t id)
{
	for (unsigned i = 0; i < front->zone_count; i++) {
		if (front->zones[i].id == id)
			return &front->zones[i];
	}
	return NULL;
}

struct snet_entry *front_put(struct snet_front *front, uint32_t offset, uint32_t len)
{
	struct front_queue *queue = &front->queues[0];
	struct snet_entry *entry = snet_entry_at(&queue->rings, queue->rings.tx, queue->produced++);

	*entry = (struct snet_entry){ .zone = front_zone(front, true)->id,
				      .offset = offset,
				      .len = len,
				      .id = queue->produced };
	return entry;
}

void front_publish(struct snet_front *front)
{
	struct front_queue *queue = &front->queues[0];

	snet_publish(&queue->rings.control->front.produced, queue->produced);
	if (snet_must_wake(&queue->rings.control->back, SNET_WANT_ENTRIES))
		eventfd_write(queue->kick, 1);
}

unsigned front_reclaim(struct snet_front *front)
{
	struct front_queue *queue = &front->queues[0];
	uint32_t now = snet_look(&queue->rings.control->back.given_back);
	unsigned count = now - queue->done;

	queue->done = now;
	return count;
}

bool front_take(struct snet_front *front, struct snet_entry *entry, unsigned *number)
{
	for (*number = 0; *number < front->queue_count; (*number)++) {
		struct front_queue *queue = &front->queues[*number];

		if (snet_look(&queue->rings.control->back.produced) == queue->taken)
			continue;
		*entry = *snet_entry_at(&queue->rings, queue->rings.rx, queue->taken++);
		return true;
	}
	return false;
}

void front_give(struct snet_front *front, unsigned number, uint32_t id)
{
	struct front_queue *queue = &front->queues[number];

	queue->rings.rx_done[queue->given++ & queue->rings.mask] = id;
	snet_publish(&queue->rings.control->front.given_back, queue->given);
	if (snet_must_wake(&queue->rings.control->back, SNET_WANT_DONE))
		eventfd_write(queue->kick, 1);
}
