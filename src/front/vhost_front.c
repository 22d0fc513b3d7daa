/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio-net over vhost-user (virtio 1.2 §2.7, §5.1; QEMU's interop/vhost-user.rst), as a driver
 * that only has what a comparison needs: split rings, mergeable receive buffers, all offloads, and
 * flags instead of event indexes.
 *
 * Theory of operation. All memory is one memfd, made anew for each connection:
 *
 *      rings    | rx: desc, avail, used | tx: desc, avail, used |
 *      receive  | 4 KiB | ...                                       one for each descriptor
 *      send     | vnet, 2112 | ...  | 64 KiB | ...                  likewise: small ones, large ones
 *
 * A buffer has the descriptor of its number for good, so that nothing but chains has to be written
 * when one is sent: a frame is a small buffer, with its virtio_net_hdr in front, and a large one
 * behind it if it is long. vifd copies what is received, into as many buffers as it takes.
 */
#include "front/vhost_front.h"

#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "front/asks.h"

#define BIT(n)              (UINT64_C(1) << (n))
#define F_PROTOCOL_FEATURES 30
#define F_GUEST_USO4        54 /* Linux 6.2 */
#define F_GUEST_USO6        55
#define F_HOST_USO          56

enum {
	RECEIVE = 0, /* rings, as virtio-net numbers them */
	SEND = 1,
	RING = 1024,
	RING_BYTES = 32 << 10,
	AVAIL_AT = RING * sizeof(struct vring_desc),
	USED_AT = AVAIL_AT + 4096,
	RX_BYTES = 4096,
	SMALLS = 768,
	LARGES = RING - SMALLS,
	HEAD_ROOM = 64,
	SMALL_STRIDE = 2240, /* 35 cache lines */
	RX_AT = 2 * RING_BYTES,
	SMALL_AT = RX_AT + RING * RX_BYTES,
	LARGE_AT = SMALL_AT + SMALLS * SMALL_STRIDE,
	MEMORY = LARGE_AT + LARGES * VIFRONT_BUF_LARGE,
	ANSWER_MS = 2000,
};

static_assert(USED_AT + 6 + RING * 8 <= RING_BYTES, "a ring's parts fit");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio's byte order is the host's");

enum vhost_request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	SET_VRING_ENABLE = 18,
};

struct message {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct vhost_vring_state state;
		struct vhost_vring_addr addr;
		struct {
			uint32_t count, padding;
			uint64_t guest_addr, size, user_addr, offset;
		} memory;
	};
} __attribute__((packed));

struct ring {
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t made_available, seen_used;
	int kick;
};

struct vhost_front {
	int sock, call, broken;
	uint32_t takes;
	uint8_t *memory;
	struct ring rings[2];
	uint16_t small[SMALLS], large[LARGES]; /* descriptors of free buffers to send from */
	unsigned small_count, large_count;
	struct vifront_info info;
	struct sockaddr_un address;
	struct error why;
};

static int connect_and_start(struct vhost_front *front, struct error *error);
static void disconnect(struct vhost_front *front);

struct vhost_front *vhost_front_new(const char *path, uint32_t takes)
{
	struct vhost_front *front = calloc(1, sizeof(*front));

	if (!front)
		return NULL;
	front->takes = takes;
	front->address.sun_family = AF_UNIX;
	snprintf(front->address.sun_path, sizeof(front->address.sun_path), "%s", path);
	front->sock = front->call = front->rings[0].kick = front->rings[1].kick = -1;
	front->broken = -ENOTCONN;
	return front;
}

void vhost_front_free(struct vhost_front *front)
{
	if (!front)
		return;
	disconnect(front);
	free(front);
}

int vhost_front_reopen(struct vhost_front *front, struct error *error)
{
	int err;

	disconnect(front);
	err = connect_and_start(front, error);
	if (err)
		disconnect(front);
	front->broken = err ? -ENOTCONN : 0;
	return err;
}

const struct vifront_info *vhost_front_info(const struct vhost_front *front)
{
	return &front->info;
}

const char *vhost_front_why(const struct vhost_front *front)
{
	return front->why.text;
}

/* ---- receiving ---- */

static bool is_used(const struct ring *ring)
{
	return __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE) != ring->seen_used;
}

static uint32_t next_used(struct ring *ring, uint32_t *len)
{
	const struct vring_used_elem *elem = &ring->used->ring[ring->seen_used++ % RING];

	*len = elem->len;
	return elem->id % RING;
}

static void make_available(struct ring *ring, uint16_t id)
{
	ring->avail->ring[ring->made_available++ % RING] = id;
}

/* Show what was made available, and wake vifd unless it looks anyway. */
static void publish(struct ring *ring)
{
	__atomic_store_n(&ring->avail->idx, ring->made_available, __ATOMIC_RELEASE);
	atomic_thread_fence(memory_order_seq_cst);
	if (!(__atomic_load_n(&ring->used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY))
		eventfd_write(ring->kick, 1);
}

int vhost_front_recv(struct vhost_front *front, struct vifront_buf *bufs, unsigned count)
{
	struct ring *ring = &front->rings[RECEIVE];
	unsigned got = 0;

	if (front->broken)
		return front->broken;
	while (is_used(ring)) {
		uint32_t len, id = ring->used->ring[ring->seen_used % RING].id % RING;
		const uint8_t *vnet = front->memory + RX_AT + id * RX_BYTES;
		unsigned pieces = vnet_get16(vnet + 10), skip = VNET_LEN;
		struct pkt_offload offload;

		pieces += pieces == 0;
		if (pieces > count - got)
			return got > 0 ? (int)got : -EMSGSIZE;
		if (!vnet_to_offload(vnet, &offload))
			offload = (struct pkt_offload){ 0 };
		for (unsigned i = 0; i < pieces; i++, skip = 0) {
			id = next_used(ring, &len);
			bufs[got + i] = (struct vifront_buf){
				.data = front->memory + RX_AT + id * RX_BYTES + skip,
				.len = len - skip,
				.id = id,
			};
			if (i == 0)
				buf_put_offload(&bufs[got], &offload);
			bufs[got + i].flags |= i + 1 < pieces ? VIFRONT_MORE : 0;
		}
		got += pieces;
	}
	return got;
}

void vhost_front_release(struct vhost_front *front, const struct vifront_buf *bufs, unsigned count)
{
	if (front->broken)
		return;
	for (unsigned i = 0; i < count; i++)
		make_available(&front->rings[RECEIVE], bufs[i].id);
	publish(&front->rings[RECEIVE]);
}

/* ---- sending ---- */

static void put_free(struct vhost_front *front, uint16_t id)
{
	if (id < SMALLS)
		front->small[front->small_count++] = id;
	else
		front->large[front->large_count++] = id;
}

/* Take back what has been sent. */
static void reap(struct vhost_front *front)
{
	struct ring *ring = &front->rings[SEND];

	while (is_used(ring)) {
		uint32_t len, id = next_used(ring, &len);

		put_free(front, id);
		if (ring->desc[id].flags & VRING_DESC_F_NEXT)
			put_free(front, ring->desc[id].next);
	}
}

static uint8_t *send_buf(const struct vhost_front *front, uint16_t id)
{
	return id < SMALLS ? front->memory + SMALL_AT + id * SMALL_STRIDE + HEAD_ROOM
			   : front->memory + LARGE_AT + (id - SMALLS) * VIFRONT_BUF_LARGE;
}

int vhost_front_alloc(struct vhost_front *front, uint32_t bytes, struct vifront_buf *bufs,
		      unsigned count)
{
	bool is_small = bytes <= VIFRONT_BUF_SMALL;
	unsigned *left = is_small ? &front->small_count : &front->large_count;
	const uint16_t *ids = is_small ? front->small : front->large;

	if (front->broken)
		return front->broken;
	if (*left < count)
		reap(front);
	if (count > *left)
		count = *left;
	for (unsigned i = 0; i < count; i++) {
		uint16_t id = ids[--*left];

		bufs[i] = (struct vifront_buf){
			.data = send_buf(front, id),
			.len = is_small ? VIFRONT_BUF_SMALL : VIFRONT_BUF_LARGE,
			.id = id,
		};
	}
	return count;
}

void vhost_front_give_up(struct vhost_front *front, const struct vifront_buf *bufs, unsigned count)
{
	for (unsigned i = 0; i < count && !front->broken; i++)
		put_free(front, bufs[i].id);
}

/* Frames are a small buffer, or that and a large one. There is a descriptor for each buffer, so there
 * is always room. */
int vhost_front_send(struct vhost_front *front, const struct vifront_buf *bufs, unsigned count)
{
	struct ring *ring = &front->rings[SEND];

	if (front->broken)
		return front->broken;
	for (unsigned i = 0; i < count; i++) {
		bool more = bufs[i].flags & VIFRONT_MORE;
		struct vring_desc *desc = &ring->desc[bufs[i].id];

		buf_get_vnet(&bufs[i], (uint8_t *)bufs[i].data - VNET_LEN);
		desc->len = VNET_LEN + bufs[i].len;
		desc->flags = more ? VRING_DESC_F_NEXT : 0;
		desc->next = more ? bufs[i + 1].id : 0;
		make_available(ring, bufs[i].id);
		if (more) {
			i++;
			ring->desc[bufs[i].id].len = bufs[i].len;
		}
	}
	publish(ring);
	return count;
}

/* ---- waiting ---- */

int vhost_front_event_fd(const struct vhost_front *front)
{
	return front->call;
}

int vhost_front_socket_fd(const struct vhost_front *front)
{
	return front->sock;
}

static void want(struct ring *ring, bool wanted)
{
	__atomic_store_n(&ring->avail->flags, wanted ? 0 : VRING_AVAIL_F_NO_INTERRUPT,
			 __ATOMIC_RELAXED);
}

int vhost_front_arm(struct vhost_front *front, unsigned events)
{
	int there;

	if (front->broken)
		return front->broken;
	want(&front->rings[RECEIVE], events & VIFRONT_RECV);
	want(&front->rings[SEND], events & VIFRONT_SEND);
	atomic_thread_fence(memory_order_seq_cst);
	there = events & ((is_used(&front->rings[RECEIVE]) ? VIFRONT_RECV : 0) |
			  (is_used(&front->rings[SEND]) ? VIFRONT_SEND : 0));
	if (there) {
		want(&front->rings[RECEIVE], false);
		want(&front->rings[SEND], false);
	}
	return there;
}

void vhost_front_disarm(struct vhost_front *front)
{
	eventfd_t count;

	if (front->broken)
		return;
	want(&front->rings[RECEIVE], false);
	want(&front->rings[SEND], false);
	eventfd_read(front->call, &count);
}

int vhost_front_attend(struct vhost_front *front)
{
	char byte;
	ssize_t got = front->broken ? 0 : recv(front->sock, &byte, 1, MSG_DONTWAIT);

	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
		fail(&front->why, 0, "vifd has gone");
		front->broken = -ENOTCONN;
	}
	return front->broken;
}

/* ---- connecting ---- */

/* Send a message of size bytes of payload, with a descriptor unless fd is -1. 0 or -errno. */
static int tell(struct vhost_front *front, struct message message, uint32_t size, int fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { &message, offsetof(struct message, u64) + size };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };

	message.flags = 1; /* version */
	message.size = size;
	if (fd >= 0) {
		header.msg_control = &control;
		header.msg_controllen = sizeof(control.bytes);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	return sendmsg(front->sock, &header, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int tell_u64(struct vhost_front *front, enum vhost_request request, uint64_t u64, int fd)
{
	return tell(front, (struct message){ .request = request, .u64 = u64 }, 8, fd);
}

static int tell_state(struct vhost_front *front, enum vhost_request request, unsigned ring,
		      unsigned value)
{
	return tell(front, (struct message){ .request = request, .state = { ring, value } },
		    sizeof(struct vhost_vring_state), -1);
}

/* Ask for something of 64 bits. 0 or -errno. */
static int ask(struct vhost_front *front, enum vhost_request request, uint64_t *answer)
{
	struct message message;
	int err = tell(front, (struct message){ .request = request }, 0, -1);
	ssize_t got;

	if (err)
		return err;
	got = recv(front->sock, &message, offsetof(struct message, u64) + 8, MSG_WAITALL);
	if (got < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (got != offsetof(struct message, u64) + 8 || message.request != request)
		return -ENOTCONN;
	*answer = message.u64;
	return 0;
}

/* What we want of the device: what the kernel sends, and what it takes. */
static uint64_t wanted_features(uint32_t takes)
{
	uint64_t features = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    BIT(F_PROTOCOL_FEATURES) | BIT(VIRTIO_NET_F_CSUM) |
			    BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) |
			    BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |
			    BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |
			    BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(F_HOST_USO);

	if (takes & VIFRONT_TAKES_USO)
		features |= BIT(F_GUEST_USO4) | BIT(F_GUEST_USO6);
	return features;
}

static int negotiate(struct vhost_front *front)
{
	uint64_t offered = 0, wanted = wanted_features(front->takes), protocol;
	int err = ask(front, GET_FEATURES, &offered);

	if (!err && !(offered & BIT(VIRTIO_F_VERSION_1) && offered & BIT(VIRTIO_NET_F_MRG_RXBUF) &&
		      offered & BIT(F_PROTOCOL_FEATURES)))
		return -EPROTONOSUPPORT;
	/* In part they are of no use to a TAP that has them all. */
	front->info.offload = (offered & wanted) == wanted;
	if (!front->info.offload)
		wanted &= BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
			  BIT(F_PROTOCOL_FEATURES);
	if (!err)
		err = ask(front, GET_PROTOCOL_FEATURES, &protocol);
	if (!err)
		err = tell_u64(front, SET_PROTOCOL_FEATURES, 0, -1);
	if (!err)
		err = tell(front, (struct message){ .request = SET_OWNER }, 0, -1);
	return err ? err : tell_u64(front, SET_FEATURES, wanted, -1);
}

static int start_ring(struct vhost_front *front, unsigned index)
{
	struct ring *ring = &front->rings[index];
	const struct message addresses = {
		.request = SET_VRING_ADDR,
		.addr = { .index = index,
			  .desc_user_addr = (uintptr_t)ring->desc,
			  .avail_user_addr = (uintptr_t)ring->avail,
			  .used_user_addr = (uintptr_t)ring->used },
	};
	int err = tell_state(front, SET_VRING_NUM, index, RING);

	if (!err)
		err = tell_state(front, SET_VRING_BASE, index, 0);
	if (!err)
		err = tell(front, addresses, sizeof(addresses.addr), -1);
	if (!err)
		err = tell_u64(front, SET_VRING_CALL, index, front->call);
	if (!err)
		err = tell_u64(front, SET_VRING_KICK, index, ring->kick);
	return err ? err : tell_state(front, SET_VRING_ENABLE, index, 1);
}

/* Memory, rings and buffers. Returns the memory's descriptor, or -errno. */
static int make_memory(struct vhost_front *front)
{
	int fd = memfd_create("vif-front", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, MEMORY))
		return -errno;
	front->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
			     0);
	if (front->memory == MAP_FAILED) {
		front->memory = NULL;
		return -errno;
	}
	front->small_count = front->large_count = 0;
	for (unsigned i = 0; i < 2; i++) {
		uint8_t *at = front->memory + i * RING_BYTES;

		front->rings[i] = (struct ring){ (struct vring_desc *)at,
						 (struct vring_avail *)(at + AVAIL_AT),
						 (struct vring_used *)(at + USED_AT),
						 .kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	}
	for (unsigned id = 0; id < RING; id++) {
		front->rings[RECEIVE].desc[id] = (struct vring_desc){ RX_AT + id * RX_BYTES,
								      RX_BYTES, VRING_DESC_F_WRITE,
								      0 };
		make_available(&front->rings[RECEIVE], id);
		front->rings[SEND].desc[id].addr = send_buf(front, id) - front->memory -
						   (id < SMALLS ? VNET_LEN : 0);
		put_free(front, id);
	}
	front->rings[RECEIVE].avail->idx = RING;
	front->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return fd;
}

static int shake_hands(struct vhost_front *front)
{
	struct message table = { .request = SET_MEM_TABLE,
				 .memory = { .count = 1, .size = MEMORY } };
	uint64_t features;
	int err = negotiate(front), fd;

	if (err)
		return err;
	fd = make_memory(front);
	table.memory.user_addr = (uintptr_t)front->memory;
	err = fd < 0 ? fd : tell(front, table, sizeof(table.memory), fd);
	if (fd >= 0)
		close(fd);
	for (unsigned i = 0; i < 2 && !err; i++)
		err = start_ring(front, i);
	/* An answer to anything says that all was understood. */
	return err ? err : ask(front, GET_FEATURES, &features);
}

static int connect_and_start(struct vhost_front *front, struct error *error)
{
	const struct timeval patience = { .tv_sec = ANSWER_MS / 1000 };
	const char *path = front->address.sun_path;
	struct stat st;
	int err;

	if (stat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return fail(error, -ENOTSOCK, "%s: not a socket", path);
	front->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(front->sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(front->sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(front->sock, (struct sockaddr *)&front->address, sizeof(front->address))) {
		err = -errno;
		if (err == -ENOENT || err == -ECONNREFUSED)
			return fail(error, err, "%s: no vifd is listening there", path);
		if (err == -EPROTOTYPE)
			return fail(error, err, "%s: not a vhost-user socket", path);
		return fail(error, err, "%s: %s", path, strerror(-err));
	}
	front->info = (struct vifront_info){ .queues = 1, .ring_size = RING, .mtu = 1500 };
	err = shake_hands(front);
	if (err == -ETIMEDOUT)
		return fail(error, err,
			    "%s: vifd does not answer; perhaps it has another front end there",
			    path);
	return err ? fail(error, err, "%s: vhost-user: %s", path, strerror(-err)) : 0;
}

static void disconnect(struct vhost_front *front)
{
	int *const fds[] = { &front->sock, &front->call, &front->rings[0].kick,
			     &front->rings[1].kick };

	for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	if (front->memory)
		munmap(front->memory, MEMORY);
	front->memory = NULL;
	front->info = (struct vifront_info){ 0 };
	front->broken = -ENOTCONN;
}
