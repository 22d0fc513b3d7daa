/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A vifd that is nothing but the far end of an snet socket: a thread that shakes hands, and rings
 * that the test drives by hand.
 *
 *      libvifront <--socket--> fake_vifd thread        zone 1, 2   to send from
 *                 <--rings---> the test                zone 3      to receive from
 */
#ifndef VIFD_TEST_FAKE_SNET_H
#define VIFD_TEST_FAKE_SNET_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "snet/snet_msg.h"
#include "snet/snet_ring.h"

#include <cmocka.h> /* last: it has a macro fail() */

enum {
	FAKE_ZONE = 4 << 20,
	FAKE_ZONES = 3, /* ids 1.. ; the last is to receive from */
	FAKE_RX_ZONE = FAKE_ZONES,
	FAKE_QUEUES = 2,
	FAKE_MTU = 1400,
};

struct fake_queue {
	struct snet_rings rings;
	int kick, call;
	uint32_t tx_taken, tx_given, rx_produced, rx_back; /* indexes, as vifd counts them */
};

struct fake_vifd {
	char path[108];
	int listener, sock;
	pthread_t thread;
	bool greeting; /* the thread runs */
	/* How it behaves. */
	uint32_t ring_size, stride;
	unsigned hang_up_after; /* messages, 0: never */
	bool silent;
	const char *refuses;
	void (*spoil)(struct snet_msg *msg); /* each message before it is sent */
	/* What it was told. */
	struct snet_msg hello;

	uint8_t *memory;
	size_t memory_len;
	uint8_t *zones[FAKE_ZONES + 1]; /* by id */
	int zone_fds[FAKE_ZONES + 1];
	int rings_fd;
	struct fake_queue queues[FAKE_QUEUES];
	unsigned said;
};

static inline int fake_memfd(size_t len, uint8_t **base)
{
	int fd = memfd_create("fake", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, len), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	*base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(*base != MAP_FAILED);
	return fd;
}

/* Send a message with descriptors. False: it is time to hang up, or the front end has. */
static inline bool fake_say(struct fake_vifd *fake, struct snet_msg msg, const int *fds,
			    unsigned count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(SNET_FDS_MAX * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { &msg, sizeof(msg) };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count) {
		struct cmsghdr *c = &control.align;

		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	if (fake->spoil)
		fake->spoil(&msg);
	if (sendmsg(fake->sock, &header, MSG_NOSIGNAL) < 0)
		return false;
	return ++fake->said != fake->hang_up_after;
}

static inline bool fake_say_zone(struct fake_vifd *fake, uint32_t id)
{
	struct snet_msg msg = { .type = SNET_ZONE, .zone = { id, id != FAKE_RX_ZONE } };

	return fake_say(fake, msg, &fake->zone_fds[id], 1);
}

static inline bool fake_introduce(struct fake_vifd *fake)
{
	struct snet_msg welcome = {
		.type = SNET_WELCOME,
		.welcome = { SNET_VERSION,
			     FAKE_QUEUES,
			     fake->ring_size,
			     fake->stride,
			     FAKE_MTU,
			     { 2, 0, 0, 0, 0, 9 },
			     0,
			     1 },
	};

	if (!fake_say(fake, welcome, &fake->rings_fd, 1))
		return false;
	for (unsigned q = 0; q < FAKE_QUEUES; q++) {
		struct snet_msg queue = { .type = SNET_QUEUE, .queue = { q } };
		int fds[2] = { fake->queues[q].kick, fake->queues[q].call };

		if (!fake_say(fake, queue, fds, 2))
			return false;
	}
	for (unsigned id = 1; id <= FAKE_ZONES; id++) {
		if (!fake_say_zone(fake, id))
			return false;
	}
	return fake_say(fake, (struct snet_msg){ .type = SNET_START }, NULL, 0);
}

static inline void *fake_greet(void *arg)
{
	struct fake_vifd *fake = arg;
	struct snet_msg refused = { .type = SNET_REFUSED };

	fake->sock = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fake->sock < 0 || fake->silent ||
	    recv(fake->sock, &fake->hello, sizeof(fake->hello), 0) != sizeof(fake->hello))
		return NULL;
	if (!fake->refuses && fake_introduce(fake))
		return NULL;
	if (fake->refuses) {
		strcpy(refused.refused, fake->refuses);
		fake_say(fake, refused, NULL, 0);
	}
	shutdown(fake->sock, SHUT_RDWR);
	return NULL;
}

/* Listen at path and greet one front end; *fake has its behaviour already. */
static inline void fake_start(struct fake_vifd *fake, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	fake->ring_size = fake->ring_size ? fake->ring_size : SNET_RING_MIN;
	fake->stride = fake->stride ? fake->stride : SNET_ENTRY_MIN;
	fake->said = 0;
	fake->sock = -1;
	fake->memory_len = FAKE_QUEUES * snet_queue_bytes(fake->ring_size, fake->stride);
	fake->rings_fd = fake_memfd(fake->memory_len, &fake->memory);
	for (unsigned id = 1; id <= FAKE_ZONES; id++)
		fake->zone_fds[id] = fake_memfd(FAKE_ZONE, &fake->zones[id]);
	for (unsigned q = 0; q < FAKE_QUEUES; q++) {
		fake->queues[q] = (struct fake_queue){ 0 };
		fake->queues[q].kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		fake->queues[q].call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		snet_rings_at(&fake->queues[q].rings,
			      fake->memory + q * snet_queue_bytes(fake->ring_size, fake->stride),
			      fake->ring_size, fake->stride);
	}
	strcpy(fake->path, path);
	strcpy(address.sun_path, path);
	unlink(path);
	fake->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fake->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fake->listener, 1), 0);
	assert_int_equal(pthread_create(&fake->thread, NULL, fake_greet, fake), 0);
	fake->greeting = true;
}

/* Until the front end has been greeted. */
static inline void fake_wait(struct fake_vifd *fake)
{
	if (fake->greeting)
		pthread_join(fake->thread, NULL);
	fake->greeting = false;
}

/* As a vifd that is killed: what it shared stays as it was with who has it mapped. */
static inline void fake_die(struct fake_vifd *fake)
{
	shutdown(fake->listener, SHUT_RDWR); /* nobody may have come */
	fake_wait(fake);
	close(fake->listener);
	if (fake->sock >= 0)
		close(fake->sock);
	munmap(fake->memory, fake->memory_len);
	close(fake->rings_fd);
	for (unsigned id = 1; id <= FAKE_ZONES; id++) {
		munmap(fake->zones[id], FAKE_ZONE);
		close(fake->zone_fds[id]);
	}
	for (unsigned q = 0; q < FAKE_QUEUES; q++) {
		close(fake->queues[q].kick);
		close(fake->queues[q].call);
	}
	unlink(fake->path);
}

/* How often somebody wrote to an eventfd since it was last asked. */
static inline unsigned fake_events(int fd)
{
	eventfd_t count = 0;

	eventfd_read(fd, &count);
	return count;
}

/* The next entry that the front end sent; NULL: there is none. */
static inline struct snet_entry *fake_take(struct fake_queue *queue)
{
	if (snet_look(&queue->rings.control->front.produced) == queue->tx_taken)
		return NULL;
	return snet_entry_at(&queue->rings, queue->rings.tx, queue->tx_taken++);
}

/* Give an id back. */
static inline void fake_give_back(struct fake_queue *queue, uint32_t id)
{
	queue->rings.tx_done[queue->tx_given++ & queue->rings.mask] = id;
	snet_publish(&queue->rings.control->back.given_back, queue->tx_given);
	if (snet_must_wake(&queue->rings.control->front, SNET_WANT_DONE))
		eventfd_write(queue->call, 1);
}

/* Write an entry for the front end; fake_publish() shows all so far. */
static inline void fake_put(struct fake_queue *queue, struct snet_entry entry)
{
	*snet_entry_at(&queue->rings, queue->rings.rx, queue->rx_produced++) = entry;
}

static inline void fake_publish(struct fake_queue *queue)
{
	snet_publish(&queue->rings.control->back.produced, queue->rx_produced);
	if (snet_must_wake(&queue->rings.control->front, SNET_WANT_ENTRIES))
		eventfd_write(queue->call, 1);
}

/* The next id that the front end gave back: true, and *id. */
static inline bool fake_got_back(struct fake_queue *queue, uint32_t *id)
{
	if (snet_look(&queue->rings.control->front.given_back) == queue->rx_back)
		return false;
	*id = queue->rings.rx_done[queue->rx_back++ & queue->rings.mask];
	return true;
}

#endif
