// SPDX-License-Identifier: BSD-3-Clause
/*
 * File descriptors on the control socket: too many, none, of the wrong kind, and eventfds that are
 * used as weapons afterwards. An eventfd is shared: whatever vifd sets on it the front end can
 * change back.
 */
#include "hostile.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int request_fd(struct front *evil, uint32_t request, uint64_t index, const int *fds,
		      unsigned count)
{
	return front_request(evil, request, &index, sizeof(index), fds, count);
}

static void open_again(struct front *evil)
{
	struct front_config config = evil->config;

	front_close(evil);
	if (front_open(evil, &config))
		broken_test("evil: %s", evil->fault);
}

/* Traffic both ways, so that kick and call are used. */
static void traffic(struct front *evil, struct front *mate)
{
	unsigned len = good_frame(evil);

	for (unsigned i = 0; i < 50; i++) {
		put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
		offer(front_tx(evil), 0);
		all_used(front_tx(evil), 5);
	}
	mate_sends(mate, 50);
	mate_receives(mate);
}

/* Kick and call of every kind of file there is. */
static void wrong_kinds(struct front *evil, struct front *mate)
{
	int pipes[2], pair[2], timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK),
			       epoll = epoll_create1(0);
	struct itimerspec often = { { 0, 1000 }, { 0, 1000 } };
	struct epoll_event event = { .events = EPOLLIN };

	timerfd_settime(timer, 0, &often, NULL);
	if (pipe(pipes) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		broken_test("no pipe");
	if (write(pipes[1], "x", 1) != 1 || epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event))
		broken_test("no epoll");
	while (send(pair[0], "0123456789abcdef", 16, MSG_DONTWAIT) > 0)
		;
	const int kinds[] = { open("/", O_RDONLY | O_DIRECTORY),
			      pipes[0],
			      pipes[1],
			      pair[0],
			      pair[1],
			      timer,
			      epoll,
			      evil->socket,
			      evil->memfd,
			      open("/dev/null", O_RDWR),
			      open("/dev/zero", O_RDWR),
			      open("/proc/self/status", O_RDONLY),
			      open("/tmp", O_PATH) };

	for (unsigned i = 0; i < 2 * sizeof(kinds) / sizeof(kinds[0]); i++) {
		uint32_t request = i % 2 ? VU_SET_VRING_KICK : VU_SET_VRING_CALL;

		for (unsigned ring = 0; ring < 2; ring++) {
			request_fd(evil, request, ring, &kinds[i / 2], 1);
			if (front_disconnected(evil, 0) || evil->fault[0])
				open_again(evil);
		}
		traffic(evil, mate);
	}
}

/* Memory that is no memory. */
static void wrong_memory(struct front *evil, struct front *mate)
{
	int pipes[2];

	if (pipe(pipes))
		broken_test("no pipe");
	const int kinds[] = { open("/", O_RDONLY | O_DIRECTORY),
			      pipes[0],
			      epoll_create1(0),
			      eventfd(0, 0),
			      evil->socket,
			      open("/dev/zero", O_RDWR),
			      open("/dev/null", O_RDWR),
			      open("/proc/self/mem", O_RDWR),
			      open("/proc/self/exe", O_RDONLY),
			      open("/tmp", O_PATH) };

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct vu_mem_table table = { .count = 1, .regions[0] = evil->regions[0] };

		if (front_request(evil, VU_SET_MEM_TABLE, &table, 40, &kinds[i], 1) == 0)
			broken_test("memory of kind %u was accepted", i);
		if (front_disconnected(evil, 0) || evil->fault[0])
			open_again(evil);
		traffic(evil, mate);
	}
}

/* More descriptors than a message may have, and on messages that have none. */
static void too_many(struct front *evil, struct front *mate)
{
	static const uint32_t requests[] = { VU_SET_OWNER,      VU_GET_FEATURES,
					     VU_SET_MEM_TABLE,  VU_SET_VRING_KICK,
					     VU_SET_VRING_CALL, VU_SET_VRING_ERR,
					     VU_ADD_MEM_REG,    200 };
	static const unsigned counts[] = { 1, 2, 8, 9, 64, 253 };
	int fds[253];
	uint8_t payload[40] = { 0 };

	for (unsigned i = 0; i < 253; i++)
		fds[i] = dup(evil->rings[0].kick_fd);
	for (unsigned i = 0; i < 8; i++)
		for (unsigned j = 0; j < 6; j++) {
			struct vu_header header = { requests[i], VU_VERSION | VU_NEED_REPLY,
						    i % 2 ? 8 : 0 };
			uint64_t answer;

			if (front_disconnected(evil, 0))
				open_again(evil);
			front_message(evil, &header, payload, header.size, fds, counts[j]);
			front_reply(evil, requests[i], &answer, sizeof(answer), 50);
			evil->fault[0] = 0;
		}
	for (unsigned i = 0; i < 253; i++)
		close(fds[i]);
}

/* Descriptors with every single byte of a message. */
static void fd_a_byte(struct front *evil, struct front *mate)
{
	struct vu_header header = { VU_SET_VRING_CALL, VU_VERSION, 8 };

	for (unsigned i = 0; i < sizeof(header); i++) {
		union {
			char room[CMSG_SPACE(sizeof(int))];
			struct cmsghdr align;
		} control = { 0 };
		struct iovec iov = { (uint8_t *)&header + i, 1 };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = &control,
				      .msg_controllen = sizeof(control) };

		control.align = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.align), &evil->rings[0].call_fd, sizeof(int));
		if (sendmsg(evil->socket, &msg, MSG_NOSIGNAL) < 0)
			break;
	}
}

/* Announced and missing, or there and not announced. */
static void missing(struct front *evil, struct front *mate)
{
	struct vu_mem_table table = { .count = 1, .regions[0] = evil->regions[0] };
	static const uint32_t requests[] = { VU_SET_VRING_KICK, VU_SET_VRING_CALL };

	for (unsigned i = 0; i < 2; i++) {
		if (request_fd(evil, requests[i], 0, NULL, 0) == 0)
			broken_test("a ring's descriptor is missing, and nobody said so");
		if (evil->fault[0])
			open_again(evil);
		if (request_fd(evil, requests[i], VU_NOFD, &evil->rings[0].kick_fd, 1) == 0)
			broken_test("a descriptor that was not announced was taken");
		if (evil->fault[0])
			open_again(evil);
	}
	if (front_request(evil, VU_SET_MEM_TABLE, &table, 40, NULL, 0) == 0)
		broken_test("memory without a descriptor was accepted");
	open_again(evil);
	traffic(evil, mate);
}

/* No call descriptor and no kick: legal, the driver polls. */
static void none(struct front *evil, struct front *mate)
{
	if (request_fd(evil, VU_SET_VRING_CALL, 0 | VU_NOFD, NULL, 0) ||
	    request_fd(evil, VU_SET_VRING_CALL, 1 | VU_NOFD, NULL, 0))
		broken_test("a driver that polls was refused");
	traffic(evil, mate);
}

static void fill(int fd)
{
	uint64_t value;

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	if (read(fd, &value, sizeof(value)) < 0)
		value = 0;
	value = UINT64_MAX - 1;
	if (write(fd, &value, sizeof(value)) < 0)
		value = 0;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
}

/* The counter of the call eventfd is full and writing to it blocks, before vifd ever sees it. */
static void call_full(struct front *evil, struct front *mate)
{
	int fd = eventfd(UINT32_MAX, 0);

	fill(fd);
	if (request_fd(evil, VU_SET_VRING_CALL, 0, &fd, 1) ||
	    request_fd(evil, VU_SET_VRING_CALL, 1, &fd, 1))
		return; /* refused: fine */
	for (unsigned i = 0; i < 5; i++)
		traffic(evil, mate);
}

/* The same, once vifd has made what it could of the descriptor: the next call blocks its caller. */
static void call_blocks(struct front *evil, struct front *mate)
{
	unsigned len = good_frame(evil);

	fill(front_tx(evil)->call_fd);
	put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
	offer(front_tx(evil), 0);
	front_sleep_us(1000000);
}

/* And at once a message that must wait until every worker rests. */
static void call_blocks_and_messages(struct front *evil, struct front *mate)
{
	unsigned len = good_frame(evil);

	fill(front_tx(evil)->call_fd);
	put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
	offer(front_tx(evil), 0);
	for (unsigned i = 0; i < 200; i++) {
		if (front_enable_ring(evil, front_rx(evil), i % 2))
			broken_test("evil: %s", evil->fault);
		front_sleep_us(1000);
	}
	if (front_announce_memory(evil))
		broken_test("evil: %s", evil->fault);
}

/* Again and again: each time costs everybody a moment, which must not add up. */
static void call_blocks_again(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns();

	while (time_left(start_ns, 5000)) {
		unsigned len = good_frame(evil);

		fill(front_tx(evil)->call_fd);
		put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
		offer(front_tx(evil), 0);
		front_sleep_us(1000);
		evil->fault[0] = 0;
		if (front_disconnected(evil, 0) || front_restart_ring(evil, front_tx(evil)))
			front_reconnect(evil, 100);
	}
}

static _Atomic bool refill_stop;

static void *refill_thread(void *arg)
{
	while (!refill_stop) {
		fill(((struct front *)arg)->rings[0].call_fd);
		fill(((struct front *)arg)->rings[1].call_fd);
	}
	return NULL;
}

/* Filled and made blocking again all the time, under traffic that wants to call. */
static void call_refilled(struct front *evil, struct front *mate)
{
	pthread_t thread;
	uint64_t start_ns = front_now_ns();

	pthread_create(&thread, NULL, refill_thread, evil);
	while (time_left(start_ns, 2000)) {
		unsigned len = good_frame(evil);

		put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
		offer(front_tx(evil), 0);
		front_sleep_us(300);
		mate_receives(mate);
	}
	refill_stop = true;
	pthread_join(thread, NULL);
}

/* The same while the control plane is kept busy, which must wait for workers to rest. */
static void call_refilled_and_messages(struct front *evil, struct front *mate)
{
	pthread_t thread;
	uint64_t start_ns = front_now_ns();

	pthread_create(&thread, NULL, refill_thread, evil);
	for (unsigned i = 0; time_left(start_ns, 2000); i++) {
		unsigned len = good_frame(evil);

		put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
		offer(front_tx(evil), 0);
		front_enable_ring(evil, front_rx(evil), i % 2);
		mate_receives(mate);
	}
	refill_stop = true;
	pthread_join(thread, NULL);
}

/* The kick eventfd is always readable, and the counter is never reset. */
static void kick_full(struct front *evil, struct front *mate)
{
	fill(front_tx(evil)->kick_fd);
	fcntl(front_tx(evil)->kick_fd, F_SETFL, O_NONBLOCK); /* only vifd is to suffer */
	traffic(evil, mate);
	front_sleep_us(1000000);
}

/* One eventfd for everything: vifd's calls kick vifd. */
static void call_is_kick(struct front *evil, struct front *mate)
{
	int fd = front_tx(evil)->kick_fd;

	if (request_fd(evil, VU_SET_VRING_CALL, 0, &fd, 1) ||
	    request_fd(evil, VU_SET_VRING_CALL, 1, &fd, 1) ||
	    request_fd(evil, VU_SET_VRING_KICK, 0, &fd, 1))
		broken_test("evil: refused %s", evil->fault);
	for (unsigned i = 0; i < 10; i++)
		traffic(evil, mate);
}

/* Descriptors replaced again and again: none may be kept. */
static void replaced(struct front *evil, struct front *mate)
{
	for (unsigned i = 0; i < 1500; i++) {
		int fd = eventfd(0, EFD_NONBLOCK);

		if (request_fd(evil, i % 3 ? VU_SET_VRING_CALL : VU_SET_VRING_KICK, i % 2, &fd,
			       1) == 1)
			broken_test("evil: refused");
		close(fd);
	}
}

const struct scenario descriptor_scenarios[] = {
	{ "fd-wrong-kinds", wrong_kinds },
	{ "fd-wrong-memory", wrong_memory },
	{ "fd-too-many", too_many },
	{ "fd-a-byte", fd_a_byte },
	{ "fd-missing", missing },
	{ "fd-none", none },
	{ "fd-call-full", call_full },
	{ "fd-call-blocks", call_blocks },
	{ "fd-call-blocks-and-messages", call_blocks_and_messages },
	{ "fd-call-blocks-again", call_blocks_again },
	{ "fd-call-refilled", call_refilled },
	{ "fd-call-refilled-and-messages", call_refilled_and_messages },
	{ "fd-kick-full", kick_full },
	{ "fd-call-is-kick", call_is_kick },
	{ "fd-replaced", replaced },
	{ 0 },
};
