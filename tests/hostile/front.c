// SPDX-License-Identifier: BSD-3-Clause
/*
 * A vhost-user front end for tests: life and messages. The rings are in front_ring.c.
 *
 * The order of messages is QEMU's: features, protocol features, owner, memory, then each ring's
 * size, base, addresses, call and kick descriptors, and its enabling. Every request asks for an
 * acknowledgement where the back end offers them, and a refusal is a fault: an honest front end is
 * never refused.
 */
#include "front.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { REPLY_MSEC = 10000, PAGE = 4096 };

uint64_t front_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void front_sleep_us(unsigned usec)
{
	struct timespec time = { usec / 1000000, usec % 1000000 * 1000 };

	nanosleep(&time, NULL);
}

static int fault(struct front *front, const char *what)
{
	if (!front->fault[0])
		snprintf(front->fault, sizeof(front->fault), "%s", what);
	return -1;
}

static size_t page_round(size_t len)
{
	return (len + PAGE - 1) & ~(size_t)(PAGE - 1);
}

/* Hand out len bytes of guest memory; with no memory yet, only count them. */
static uint8_t *carve(struct front *front, size_t *used, size_t len)
{
	uint8_t *at = front->mem ? front->mem + *used : NULL;

	*used += page_round(len);
	return at;
}

/* Lay out guest memory; returns its length. Called twice: to measure, and to place. */
static size_t lay_out(struct front *front, size_t *rings_len)
{
	const struct front_config *config = &front->config;
	size_t used = 0;

	for (unsigned i = 0; i < 2 * config->pairs; i++) {
		struct front_ring *ring = &front->rings[i];

		ring->desc = (void *)carve(front, &used, ring->size * sizeof(struct vring_desc));
		ring->avail = (void *)carve(front, &used, 6 + 2 * ring->size);
		ring->used = (void *)carve(front, &used, 6 + 8 * ring->size);
	}
	*rings_len = used;
	for (unsigned i = 0; i < config->pairs; i++) {
		struct front_pair *pair = &front->pairs[i];

		pair->rx_count = config->size[0] / (config->rx_indirect ? 1 : config->rx_chain);
		if (config->rx_buffers && pair->rx_count > config->rx_buffers)
			pair->rx_count = config->rx_buffers;
		pair->rx_stride = (config->rx_buf_len + 15) / 16 * 16 + config->rx_chain * 16;
		pair->slots =
			carve(front, &used,
			      (size_t)config->tx_slots * (FRONT_SLOT_DATA + FRONT_SLOT_TABLE));
		pair->buffers = carve(front, &used, (size_t)pair->rx_count * pair->rx_stride);
	}
	front->scratch = carve(front, &used, FRONT_SCRATCH);
	return used;
}

/* Cut guest memory into the regions that are announced. */
static void cut_regions(struct front *front, size_t rings_len)
{
	unsigned count = front->config.regions;
	size_t first = count == 1 ? front->mem_len : rings_len;
	size_t part = count == 1 ? 0 : (front->mem_len - first) / (count - 1) & ~(size_t)(PAGE - 1);
	size_t at = 0;

	for (unsigned i = 0; i < count; i++) {
		size_t len = i == 0 ? first : i == count - 1 ? front->mem_len - at : part;

		front->regions[i] = (struct vu_region){ FRONT_GPA + at, len,
							(uintptr_t)front->mem + at, at };
		at += len;
	}
	front->region_count = count;
}

/* As at the start: empty, with everything idle, about to use entry base. */
static void clear_ring(struct front *front, struct front_ring *ring, uint16_t base)
{
	memset(ring->desc, 0, ring->size * sizeof(struct vring_desc));
	memset(ring->avail, 0, 6 + 2 * ring->size);
	memset(ring->used, 0, 6 + 8 * ring->size);
	memset(ring->chains, 0, ring->size * sizeof(ring->chains[0]));
	ring->avail_next = ring->used_next = ring->kicked = ring->oldest = base;
	ring->avail->idx = ring->used->idx = base;
	ring->free_head = 0;
	ring->free_count = ring->size;
	for (unsigned i = 0; i < ring->size; i++)
		ring->free[i] = (uint16_t)i;

	struct front_pair *pair = &front->pairs[ring->index / 2];

	if (ring->index % 2) {
		pair->free_head = 0;
		pair->free_count = front->config.tx_slots;
		for (unsigned i = 0; i < pair->free_count; i++)
			pair->free_slots[i] = i;
	} else {
		pair->idle_count = pair->rx_count;
		for (unsigned i = 0; i < pair->idle_count; i++)
			pair->idle_buffers[i] = pair->idle_count - 1 - i;
	}
}

int front_allocate(struct front *front, const struct front_config *config)
{
	*front = (struct front){ .config = *config, .socket = -1, .listener = -1, .memfd = -1 };
	struct front_config *own = &front->config;

	own->pairs = own->pairs ? own->pairs : 1;
	own->size[0] = own->size[0] ? own->size[0] : 256;
	own->size[1] = own->size[1] ? own->size[1] : 256;
	own->rx_buf_len = own->rx_buf_len ? own->rx_buf_len : 2048;
	own->rx_chain = own->rx_chain ? own->rx_chain : 1;
	own->tx_slots = own->tx_slots ? own->tx_slots : 64;
	own->regions = own->regions ? own->regions : 1;
	for (unsigned i = 0; i < 2 * own->pairs; i++) {
		front->rings[i].index = i;
		front->rings[i].size = own->size[i % 2];
		front->rings[i].kick_fd = front->rings[i].call_fd = -1;
	}

	size_t rings_len;

	front->mem_len = lay_out(front, &rings_len);
	front->memfd = memfd_create("front", MFD_CLOEXEC);
	if (front->memfd < 0 || ftruncate(front->memfd, (off_t)front->mem_len) < 0)
		return fault(front, "cannot create guest memory");
	front->mem = mmap(NULL, front->mem_len, PROT_READ | PROT_WRITE, MAP_SHARED, front->memfd,
			  0);
	if (front->mem == MAP_FAILED) {
		front->mem = NULL;
		return fault(front, "cannot map guest memory");
	}
	lay_out(front, &rings_len);
	cut_regions(front, rings_len);

	for (unsigned i = 0; i < own->pairs; i++) {
		front->pairs[i].free_slots = calloc(own->tx_slots, sizeof(unsigned));
		front->pairs[i].idle_buffers = calloc(front->pairs[i].rx_count, sizeof(unsigned));
	}
	for (unsigned i = 0; i < 2 * own->pairs; i++) {
		struct front_ring *ring = &front->rings[i];

		ring->free = calloc(ring->size, sizeof(ring->free[0]));
		ring->order = calloc(ring->size, sizeof(ring->order[0]));
		ring->chains = calloc(ring->size, sizeof(ring->chains[0]));
		ring->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ring->call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		clear_ring(front, ring, own->base);
	}
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void front_close(struct front *front)
{
	close_fd(&front->socket);
	if (front->listener >= 0)
		unlink(front->config.path);
	close_fd(&front->listener);
	close_fd(&front->memfd);
	if (front->mem)
		munmap(front->mem, front->mem_len);
	for (unsigned i = 0; i < front->config.pairs; i++) {
		free(front->pairs[i].free_slots);
		free(front->pairs[i].idle_buffers);
	}
	for (unsigned i = 0; i < 2 * front->config.pairs; i++) {
		struct front_ring *ring = &front->rings[i];

		free(ring->free);
		free(ring->order);
		free(ring->chains);
		close_fd(&ring->kick_fd);
		close_fd(&ring->call_fd);
	}
	*front = (struct front){ .socket = -1, .listener = -1, .memfd = -1 };
}

static int listen_once(struct front *front, const struct sockaddr_un *address)
{
	if (front->listener < 0) {
		front->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		unlink(front->config.path);
		if (bind(front->listener, (const void *)address, sizeof(*address)) < 0 ||
		    listen(front->listener, 1) < 0)
			return fault(front, "cannot listen");
	}

	struct pollfd ready = { .fd = front->listener, .events = POLLIN };

	if (poll(&ready, 1, REPLY_MSEC) != 1)
		return fault(front, "the back end did not connect");
	front->socket = accept4(front->listener, NULL, NULL, SOCK_CLOEXEC);
	return front->socket < 0 ? fault(front, "accept failed") : 0;
}

int front_connect(struct front *front)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", front->config.path);
	close_fd(&front->socket);
	if (front->config.listen)
		return listen_once(front, &address);
	front->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(front->socket, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close_fd(&front->socket);
		return fault(front, "cannot connect");
	}
	return 0;
}

int front_negotiate(struct front *front)
{
	const struct front_config *config = &front->config;

	front->features = front->protocol_features = 0;
	if (front_get_u64(front, VU_GET_FEATURES, &front->offered))
		return fault(front, "no answer to GET_FEATURES");
	front->features = front->offered & (config->features | FRONT_BIT(VU_F_PROTOCOL_FEATURES));
	if (front->features & FRONT_BIT(VU_F_PROTOCOL_FEATURES)) {
		if (front_get_u64(front, VU_GET_PROTOCOL_FEATURES, &front->protocol_offered))
			return fault(front, "no answer to GET_PROTOCOL_FEATURES");
		uint64_t wanted = front->protocol_offered & config->protocol_features;

		if (front_request(front, VU_SET_PROTOCOL_FEATURES, &wanted, sizeof(wanted), NULL,
				  0))
			return fault(front, "SET_PROTOCOL_FEATURES refused");
		front->protocol_features = wanted;
	}
	if (front_request(front, VU_SET_OWNER, NULL, 0, NULL, 0) ||
	    front_request(front, VU_SET_FEATURES, &front->features, sizeof(uint64_t), NULL, 0))
		return fault(front, "SET_OWNER or SET_FEATURES refused");

	bool modern = front->features &
		      (FRONT_BIT(VIRTIO_F_VERSION_1) | FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF));

	front->header_len = modern ? 12 : 10;
	for (unsigned i = 0; i < 2 * config->pairs; i++) {
		front->rings[i].event_idx = front->features & FRONT_BIT(VIRTIO_RING_F_EVENT_IDX);
		front->rings[i].in_order = front->features & FRONT_BIT(VIRTIO_F_IN_ORDER);
	}
	return 0;
}

int front_announce_memory(struct front *front)
{
	struct vu_mem_table table = { .count = front->region_count };
	int fds[FRONT_REGIONS_MAX];

	for (unsigned i = 0; i < front->region_count; i++) {
		table.regions[i] = front->regions[i];
		fds[i] = front->memfd;
	}
	if (front_request(front, VU_SET_MEM_TABLE, &table,
			  8 + table.count * sizeof(struct vu_region), fds, front->region_count))
		return fault(front, "SET_MEM_TABLE refused");
	return 0;
}

int front_start_ring(struct front *front, struct front_ring *ring, uint16_t base)
{
	struct vu_vring_state size = { ring->index, ring->size }, from = { ring->index, base };
	struct vu_vring_addr addr = { ring->index,
				      0,
				      (uintptr_t)ring->desc,
				      (uintptr_t)ring->used,
				      (uintptr_t)ring->avail,
				      0 };
	uint64_t index = ring->index;

	if (front_request(front, VU_SET_VRING_NUM, &size, sizeof(size), NULL, 0) ||
	    front_request(front, VU_SET_VRING_BASE, &from, sizeof(from), NULL, 0) ||
	    front_request(front, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0) ||
	    front_request(front, VU_SET_VRING_CALL, &index, sizeof(index), &ring->call_fd, 1) ||
	    front_request(front, VU_SET_VRING_KICK, &index, sizeof(index), &ring->kick_fd, 1))
		return fault(front, "a ring's set-up was refused");
	return 0;
}

int front_enable_ring(struct front *front, struct front_ring *ring, bool enable)
{
	struct vu_vring_state state = { ring->index, enable };

	/* Without protocol features rings start enabled and the message does not exist. */
	if (!(front->features & FRONT_BIT(VU_F_PROTOCOL_FEATURES)))
		return 0;
	return front_request(front, VU_SET_VRING_ENABLE, &state, sizeof(state), NULL, 0)
		       ? fault(front, "SET_VRING_ENABLE refused")
		       : 0;
}

int front_stop_ring(struct front *front, struct front_ring *ring)
{
	struct vu_vring_state state = { ring->index, 0 };
	struct vu_header header = { VU_GET_VRING_BASE, VU_VERSION, sizeof(state) };

	if (front_message(front, &header, &state, sizeof(state), NULL, 0) ||
	    front_reply(front, VU_GET_VRING_BASE, &state, sizeof(state), REPLY_MSEC) !=
		    sizeof(state))
		return fault(front, "no answer to GET_VRING_BASE");
	return (int)(state.num & 0xffff);
}

int front_restart_ring(struct front *front, struct front_ring *ring)
{
	if (front_stop_ring(front, ring) < 0)
		return -1;
	clear_ring(front, ring, 0);
	if (front_start_ring(front, ring, 0) || front_enable_ring(front, ring, true))
		return -1;
	if (ring->index % 2 == 0 && !front->config.rx_idle)
		front_post(front, ring->index / 2);
	return 0;
}

int front_open(struct front *front, const struct front_config *config)
{
	if (front_allocate(front, config) || front_connect(front) || front_negotiate(front) ||
	    front_announce_memory(front))
		return -1;
	for (unsigned i = 0; i < 2 * front->config.pairs; i++)
		if (front_start_ring(front, &front->rings[i], config->base))
			return -1;
	for (unsigned i = 0; i < 2 * front->config.pairs; i++)
		if (front_enable_ring(front, &front->rings[i], true))
			return -1;
	for (unsigned i = 0; i < front->config.pairs && !config->rx_idle; i++)
		front_post(front, i);
	return 0;
}

int front_reconnect(struct front *front, unsigned msec)
{
	uint64_t give_up = front_now_ns() + msec * UINT64_C(1000000);

	/* A vifd that was killed may still take the connection, and end before it answers. */
	while (front_connect(front) || front_negotiate(front) || front_announce_memory(front)) {
		if (front_now_ns() > give_up)
			return -1;
		front->fault[0] = 0;
		front_sleep_us(10000);
	}
	for (unsigned i = 0; i < 2 * front->config.pairs; i++) {
		struct front_ring *ring = &front->rings[i];

		/* What was available and never used is looked at once more, what was used never. */
		if (front_start_ring(front, ring, ring->used->idx) ||
		    front_enable_ring(front, ring, true))
			return -1;
		front_force_kick(ring);
	}
	return 0;
}

int front_message(struct front *front, const struct vu_header *header, const void *payload,
		  size_t len, const int *fds, unsigned fd_count)
{
	struct iovec iov[] = { { (void *)header, header ? sizeof(*header) : 0 },
			       { (void *)payload, len } };
	union {
		char bytes[CMSG_SPACE(253 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (fd_count) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, fd_count * sizeof(int));
	}
	ssize_t sent = sendmsg(front->socket, &msg, MSG_NOSIGNAL);

	return sent == (ssize_t)(iov[0].iov_len + len)
		       ? 0
		       : fault(front, "the back end closed the connection");
}

/* Read exactly len bytes within msec. */
static bool read_fully(int fd, void *buffer, size_t len, int msec)
{
	uint8_t *at = buffer;

	while (len) {
		struct pollfd ready = { .fd = fd, .events = POLLIN };

		if (poll(&ready, 1, msec) != 1)
			return false;
		ssize_t got = recv(fd, at, len, 0);

		if (got <= 0)
			return false;
		at += got;
		len -= (size_t)got;
	}
	return true;
}

int front_reply(struct front *front, uint32_t request, void *payload, size_t len, int msec)
{
	struct vu_header header;

	if (!read_fully(front->socket, &header, sizeof(header), msec))
		return fault(front, "no reply");
	if (header.request != request || (header.flags & 7) != (VU_VERSION | VU_REPLY) ||
	    header.size > len)
		return fault(front, "malformed reply");
	if (!read_fully(front->socket, payload, header.size, msec))
		return fault(front, "a reply broke off");
	return (int)header.size;
}

int front_request(struct front *front, uint32_t request, const void *payload, uint32_t size,
		  const int *fds, unsigned fd_count)
{
	bool ack = front->protocol_features & FRONT_BIT(VU_PROTOCOL_F_REPLY_ACK);
	struct vu_header header = { request, VU_VERSION | (ack ? VU_NEED_REPLY : 0), size };
	uint64_t status = 0;

	if (front_message(front, &header, payload, size, fds, fd_count))
		return -1;
	if (ack &&
	    front_reply(front, request, &status, sizeof(status), REPLY_MSEC) != sizeof(status))
		return fault(front, "no acknowledgement");
	return status != 0;
}

int front_get_u64(struct front *front, uint32_t request, uint64_t *value)
{
	struct vu_header header = { request, VU_VERSION, 0 };

	if (front_message(front, &header, NULL, 0, NULL, 0))
		return -1;
	return front_reply(front, request, value, sizeof(*value), REPLY_MSEC) == sizeof(*value)
		       ? 0
		       : fault(front, "no value");
}

bool front_disconnected(struct front *front, int msec)
{
	struct pollfd ready = { .fd = front->socket, .events = POLLRDHUP };

	return poll(&ready, 1, msec) == 1;
}
