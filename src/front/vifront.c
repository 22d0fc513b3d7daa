/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libvifront: the connection to vifd. The messages are drawn in snet/snet_msg.h.
 *
 * Theory of operation. All that is shared comes over one socket: the memory of the rings, eventfds
 * for each queue, zones. Opening reads messages until START; later ones (zones come and go, vifd
 * says farewell) are read whenever somebody waits, meets a zone that it does not know, or has polled
 * in vain for long. A queue's thread does that for all, under the lock; zones are looked up without
 * one (zone/zone.h). A zone goes only when no buffer in it is with us, so nobody is looking.
 *
 * vifd is believed, for it is the driver domain, but it may die at any moment, and be another one
 * when it comes back. Nothing of a connection outlives it: vifront_reopen() unmaps everything. Until
 * then all memory stays where it was. `broken` stops the queues; it is set once.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "front/front.h"

enum { TIMEOUT_DEFAULT_MS = 5000, RETRY_MS = 10 };

static_assert(sizeof(struct error) == sizeof(struct vifront_error), "one is passed for the other");
static_assert((int)VIFRONT_MORE == SNET_MORE && (int)VIFRONT_CSUM_PARTIAL == SNET_CSUM_PARTIAL &&
		      (int)VIFRONT_CSUM_VALID == SNET_CSUM_VALID &&
		      (int)VIFRONT_GSO_ECN == SNET_GSO_ECN,
	      "flags cross as they are");
static_assert((int)VIFRONT_TAKES_CSUM == SNET_TAKES_CSUM &&
		      (int)VIFRONT_TAKES_TSO4 == SNET_TAKES_TSO4 &&
		      (int)VIFRONT_TAKES_TSO6 == SNET_TAKES_TSO6 &&
		      (int)VIFRONT_TAKES_TSO_ECN == SNET_TAKES_TSO_ECN &&
		      (int)VIFRONT_TAKES_USO == SNET_TAKES_USO,
	      "and so does what is taken");
static_assert(VIFRONT_FRAME_BUFS == (int)SNET_PACKET_ENTRIES, "a frame fits");

/* A message and what came beside it. */
struct letter {
	struct snet_msg msg;
	int fds[SNET_FDS_MAX]; /* -1: none, or taken */
};

static int connect_and_start(struct vifront *front, struct error *error);
static void disconnect(struct vifront *front);
static int receive(struct vifront *front, struct letter *letter);
static void letter_drop(struct letter *letter);
static int obey(struct vifront *front, struct letter *letter, struct error *error);

int vifront_open(struct vifront **front, const char *path, const struct vifront_options *options,
		 struct vifront_error *error)
{
	struct vifront *made = calloc(1, sizeof(*made));
	struct error unread;
	int err;

	if (!error)
		error = (struct vifront_error *)&unread;
	if (!made)
		return fail((struct error *)error, -ENOMEM, "out of memory");
	made->sock = -1;
	made->address.sun_family = AF_UNIX;
	if (options)
		made->options = *options;
	if (!made->options.timeout_ms)
		made->options.timeout_ms = TIMEOUT_DEFAULT_MS;
	pthread_mutex_init(&made->lock, NULL);
	pthread_mutex_init(&made->why_lock, NULL);
	if (strlen(path) >= sizeof(made->address.sun_path)) {
		err = fail((struct error *)error, -ENAMETOOLONG, "%s: longer than %zu characters",
			   path, sizeof(made->address.sun_path) - 1);
	} else {
		strcpy(made->address.sun_path, path);
		err = vifront_reopen(made, error);
	}
	if (err)
		vifront_close(made);
	else
		*front = made;
	return err;
}

int vifront_reopen(struct vifront *front, struct vifront_error *error)
{
	struct error unread;
	int err;

	if (!error)
		error = (struct vifront_error *)&unread;
	disconnect(front);
	err = connect_and_start(front, (struct error *)error);
	if (err) {
		disconnect(front);
		front_break(front, -ENOTCONN, "%s", error->text);
	}
	return err;
}

void vifront_close(struct vifront *front)
{
	if (!front)
		return;
	disconnect(front);
	pthread_mutex_destroy(&front->lock);
	pthread_mutex_destroy(&front->why_lock);
	free(front);
}

const struct vifront_info *vifront_info(const struct vifront *front)
{
	return &front->info;
}

const char *vifront_why(const struct vifront *front)
{
	return atomic_load(&front->broken) ? front->why.text : "connected";
}

int vifront_socket_fd(const struct vifront *front)
{
	return front->sock;
}

int vifront_attend(struct vifront *front)
{
	struct letter letter;
	struct error error;
	int err = atomic_load(&front->broken);

	if (err)
		return err;
	pthread_mutex_lock(&front->lock);
	while (!err) {
		err = receive(front, &letter);
		if (err)
			break;
		err = obey(front, &letter, &error);
		if (err)
			front_break(front, err == -EPERM ? -ENOTCONN : -EPROTO, "%s", error.text);
		letter_drop(&letter);
	}
	pthread_mutex_unlock(&front->lock);
	if (err != -EAGAIN)
		front_break(front, -ENOTCONN, "vifd has gone");
	return atomic_load(&front->broken);
}

int front_break(struct vifront *front, int code, const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&front->why_lock);
	if (!atomic_load(&front->broken)) {
		va_start(args, format);
		vsnprintf(front->why.text, sizeof(front->why.text), format, args);
		va_end(args);
		atomic_store(&front->broken, code);
	}
	pthread_mutex_unlock(&front->why_lock);
	return atomic_load(&front->broken);
}

/* ---- connecting ---- */

uint64_t front_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Sleep until fd is readable, -1: for nothing else, or it is `end`. 0, -ETIMEDOUT, -EINTR. */
static int wait_readable(int fd, uint64_t end)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	uint64_t now = front_now_ms();
	int got = poll(&pollfd, 1, now < end ? (int)(end - now) : 0);

	return got > 0 ? 0 : got == 0 ? -ETIMEDOUT : -errno;
}

static int connect_socket(struct vifront *front, uint64_t end, struct error *error)
{
	const char *path = front->address.sun_path;
	struct stat st;
	int err;

	if (stat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return fail(error, -ENOTSOCK, "%s: not a socket", path);
	front->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (front->sock < 0)
		return fail(error, -errno, "socket: %s", strerror(errno));
	while (connect(front->sock, (struct sockaddr *)&front->address, sizeof(front->address))) {
		err = -errno;
		if (err == -EAGAIN && front_now_ms() < end) /* others are waiting there, too */
			err = wait_readable(-1, front_now_ms() + RETRY_MS);
		if (err == -ETIMEDOUT)
			continue;
		if (err == -ENOENT || err == -ECONNREFUSED)
			return fail(error, err, "%s: no vifd is listening there", path);
		if (err == -EPROTOTYPE)
			return fail(error, err, "%s: not the socket of an snet guest", path);
		return fail(error, err, "%s: %s", path, strerror(-err));
	}
	return 0;
}

/* Read and obey messages until vifd has said START. */
static int shake_hands(struct vifront *front, uint64_t end, struct error *error)
{
	const char *path = front->address.sun_path;
	const struct snet_msg hello = {
		.type = SNET_HELLO,
		.hello = { SNET_VERSION, front->options.takes, front->options.send_bytes },
	};
	struct letter letter;
	int err = 0;

	if (send(front->sock, &hello, sizeof(hello), MSG_NOSIGNAL) < 0)
		err = -errno; /* there may be a reason to read all the same */
	while (!front->started) {
		err = receive(front, &letter);
		if (err == -EAGAIN) {
			err = wait_readable(front->sock, end);
			if (err == -ETIMEDOUT)
				return fail(error, err, "%s: vifd does not answer", path);
			if (err)
				return fail(error, err, "%s: %s", path, strerror(-err));
			continue;
		}
		if (err)
			return fail(error, err, "%s: vifd has hung up", path);
		err = obey(front, &letter, error);
		letter_drop(&letter);
		if (err)
			return err;
	}
	return 0;
}

/* Share the memory to send from out among the queues, piece by piece. */
static int queues_init(struct vifront *front, struct error *error)
{
	unsigned count = front->info.queues, total = 0, each;
	struct chunk *chunks;
	int err = 0;

	for (unsigned i = 0; i < ZONES_MAX; i++) {
		const struct zone *zone = &front->space.zones[i];

		total += zone_id(zone) && zone->access == ZONE_WRITABLE ? CHUNKS_PER_ZONE : 0;
	}
	each = total / count;
	if (each == 0)
		return fail(error, -EPROTO, "vifd has given no memory to send from");
	front->info.send_bufs = each;
	for (unsigned q = 0, zone = 0, in_zone = 0; q < count && !err; q++) {
		chunks = calloc(each, sizeof(*chunks));
		for (unsigned i = 0; chunks && i < each; i++, in_zone++) {
			const struct zone *from;

			if (in_zone == CHUNKS_PER_ZONE) {
				in_zone = 0;
				zone++;
			}
			while (from = &front->space.zones[zone],
			       !zone_id(from) || from->access != ZONE_WRITABLE)
				zone++;
			chunks[i].zone = zone_id(from);
			chunks[i].offset = in_zone * CHUNK_SIZE;
			chunks[i].base = from->base + chunks[i].offset;
		}
		err = chunks ? queue_init(&front->queues[q], chunks, each) : -ENOMEM;
	}
	return err ? fail(error, err, "out of memory") : 0;
}

static int connect_and_start(struct vifront *front, struct error *error)
{
	uint64_t end = front_now_ms() + front->options.timeout_ms;
	int err = zone_space_init(&front->space, ZONES_MAX, ZONE_HUGETLB, error);

	if (!err)
		err = connect_socket(front, end, error);
	if (!err)
		err = shake_hands(front, end, error);
	if (!err)
		err = queues_init(front, error);
	return err;
}

/* To where there is nothing yet. */
static void disconnect(struct vifront *front)
{
	for (unsigned q = 0; front->queues && q < front->info.queues; q++)
		queue_fini(&front->queues[q]);
	free(front->queues);
	front->queues = NULL;
	if (front->memory)
		munmap(front->memory, front->memory_len);
	front->memory = NULL;
	zone_space_fini(&front->space);
	if (front->sock >= 0)
		close(front->sock);
	front->sock = -1;
	front->started = false;
	front->queues_known = 0;
	front->info = (struct vifront_info){ 0 };
	atomic_store(&front->broken, 0);
}

/* ---- messages ---- */

/* 0: *letter is the next message; -EAGAIN: there is none now; -ENOTCONN: nor will there ever be. */
static int receive(struct vifront *front, struct letter *letter)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(letter->fds))];
	} control;
	struct iovec iov = { &letter->msg, sizeof(letter->msg) };
	struct msghdr header = { .msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control) };
	ssize_t got;

	memset(letter->fds, -1, sizeof(letter->fds));
	do {
		got = recvmsg(front->sock, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		return -EAGAIN;
	for (struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&header) : NULL; c;
	     c = CMSG_NXTHDR(&header, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			memcpy(letter->fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	}
	if (got != sizeof(letter->msg)) {
		letter_drop(letter);
		return -ENOTCONN;
	}
	return 0;
}

static void letter_drop(struct letter *letter)
{
	for (unsigned i = 0; i < SNET_FDS_MAX; i++) {
		if (letter->fds[i] >= 0)
			close(letter->fds[i]);
	}
}

static int obey_welcome(struct vifront *front, struct letter *letter, struct error *error)
{
	const struct snet_msg *msg = &letter->msg;
	uint32_t size = msg->welcome.ring_size, stride = msg->welcome.stride;
	uint32_t queues = msg->welcome.queues;
	struct stat st;

	if (msg->welcome.version != SNET_VERSION)
		return fail(error, -EPROTONOSUPPORT, "vifd speaks snet version %u, we speak %u",
			    msg->welcome.version, SNET_VERSION);
	if (front->memory || queues < 1 || queues > SNET_QUEUES_MAX || size < SNET_RING_MIN ||
	    size > SNET_RING_MAX || size & (size - 1) || stride < SNET_ENTRY_MIN ||
	    stride > SNET_ENTRY_MAX || stride % 16)
		return fail(error, -EPROTO, "vifd offers rings that cannot be");
	front->stride = stride;
	front->memory_len = queues * snet_queue_bytes(size, stride);
	if (fstat(letter->fds[0], &st) || st.st_size < (off_t)front->memory_len)
		return fail(error, -EPROTO, "vifd offers rings without memory");
	front->memory = mmap(NULL, front->memory_len, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_POPULATE, letter->fds[0], 0);
	if (front->memory == MAP_FAILED) {
		front->memory = NULL;
		return fail(error, -errno, "the rings cannot be mapped: %s", strerror(errno));
	}
	front->queues = aligned_alloc(64, queues * sizeof(front->queues[0]));
	if (!front->queues)
		return fail(error, -ENOMEM, "out of memory");
	memset(front->queues, 0, queues * sizeof(front->queues[0]));
	for (unsigned q = 0; q < queues; q++)
		front->queues[q].kick = front->queues[q].call = -1;
	front->info = (struct vifront_info){
		.queues = queues,
		.ring_size = size,
		.mtu = msg->welcome.mtu,
		.shared = msg->welcome.shared,
		.offload = msg->welcome.offload,
	};
	memcpy(front->info.mac, msg->welcome.mac, sizeof(front->info.mac));
	return 0;
}

static int obey_queue(struct vifront *front, struct letter *letter, struct error *error)
{
	uint32_t number = letter->msg.queue.number, size = front->info.ring_size;
	struct queue *queue = &front->queues[number];

	if (!front->queues || number >= front->info.queues || queue->call >= 0 ||
	    letter->fds[1] < 0)
		return fail(error, -EPROTO, "vifd speaks of a queue that cannot be");
	queue->kick = letter->fds[0];
	queue->call = letter->fds[1];
	letter->fds[0] = letter->fds[1] = -1;
	fcntl(queue->call, F_SETFL, O_NONBLOCK);
	snet_rings_at(&queue->rings, front->memory + number * snet_queue_bytes(size, front->stride),
		      size, front->stride);
	front->queues_known++;
	return 0;
}

static int obey_zone(struct vifront *front, struct letter *letter, struct error *error)
{
	struct zone *zone;
	int fd = letter->fds[0];

	if (fd < 0)
		return fail(error, -EPROTO, "vifd speaks of a zone without memory");
	letter->fds[0] = -1;
	return zone_import(&front->space, letter->msg.zone.id, fd, letter->msg.zone.writable, &zone,
			   error);
}

static int obey_zone_gone(struct vifront *front, struct letter *letter, struct error *error)
{
	struct zone *zone = zone_by_id(&front->space, letter->msg.zone.id);

	if (!zone || (front->started && zone->access == ZONE_WRITABLE))
		return fail(error, -EPROTO, "vifd takes zone %u away", letter->msg.zone.id);
	zone_put(&front->space, zone);
	return 0;
}

/* Do what vifd says. 0, or -errno and a sentence: -EPERM when it is vifd's. */
static int obey(struct vifront *front, struct letter *letter, struct error *error)
{
	switch (letter->msg.type) {
	case SNET_WELCOME:
		return obey_welcome(front, letter, error);
	case SNET_QUEUE:
		return obey_queue(front, letter, error);
	case SNET_ZONE:
		return obey_zone(front, letter, error);
	case SNET_ZONE_GONE:
		return obey_zone_gone(front, letter, error);
	case SNET_START:
		if (!front->memory || front->queues_known < front->info.queues)
			return fail(error, -EPROTO, "vifd starts too early");
		front->started = true;
		return 0;
	case SNET_REFUSED:
		letter->msg.refused[SNET_TEXT_MAX - 1] = 0;
		return fail(error, -EPERM, "vifd refuses: %s", letter->msg.refused);
	}
	return fail(error, -EPROTO, "vifd sent a message of unknown type %u", letter->msg.type);
}
