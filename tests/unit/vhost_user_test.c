/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost-user over a real socket, with a real device, one worker and a main loop that runs while the
 * front end waits.
 *
 *      front end (this file) <--socket--> vhost_link, vhost_messages, virtio_net <--> worker
 *      guest memory: one memfd; rings of RING_SIZE entries at RING(index), buffers behind
 *
 * Each test ends with the guest removed, and then no descriptor and no mapping may be left over.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "guest/vhost_user.h"
#include "guest/virtio_net.h"
#include "port/worker.h"
#include "sys/log.h"
#include "sys/loop.h"

#include <cmocka.h> /* last: it defines fail() */

enum {
	GET_FEATURES = 1,
	SET_FEATURES,
	SET_OWNER,
	RESET_OWNER,
	SET_MEM_TABLE,
	SET_LOG_BASE,
	SET_LOG_FD,
	SET_VRING_NUM,
	SET_VRING_ADDR,
	SET_VRING_BASE,
	GET_VRING_BASE,
	SET_VRING_KICK,
	SET_VRING_CALL,
	SET_VRING_ERR,
	GET_PROTOCOL_FEATURES,
	SET_PROTOCOL_FEATURES,
	GET_QUEUE_NUM,
	SET_VRING_ENABLE,
	SEND_RARP,
	NET_SET_MTU,
	GET_CONFIG = 24,
	RESET_DEVICE = 34,
	GET_MAX_MEM_SLOTS = 36,
	ADD_MEM_REG,
	REM_MEM_REG,
	SET_STATUS,
	GET_STATUS,
	REQUESTS,

	VERSION = 1,
	REPLY = 4,
	NEED_REPLY = 8,
	NO_FD = 256,
	MQ = 1 << 0,
	REPLY_ACK = 1 << 3,
	NET_MTU = 1 << 4,
	MEM_SLOTS = 1 << 15,
	STATUS = 1 << 16,
};

enum { RING_SIZE = 256, RING_BYTES = 0x4000, MEM_SIZE = 0x100000, BUFFERS = 0x80000, MTU = 1500 };
#define GPA          UINT64_C(0x100000000)
#define UVA          UINT64_C(0x7f0000000000)
#define RING(index)  (UINT64_C(0x1000) + (index)*RING_BYTES)
#define PROTOCOL_BIT VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES_BIT)
#define FEATURES                                                                                   \
	(PROTOCOL_BIT | VIRTIO_BIT(VIRTIO_F_VERSION_1_BIT) | VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF_BIT))

struct header {
	uint32_t request, flags, size;
};

struct region {
	uint64_t gpa, size, uva, offset;
};

static struct port *guest;
static int front = -1;     /* our end of the socket */
static int memory_fd = -1; /* the guest's memory */
static uint8_t *memory;
static int kick_fds[8], call_fds[8];
static char folder[64];

/* ---- what a test leaves behind ---- */

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static unsigned count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned count = 0;
	char line[512];

	while (fgets(line, sizeof(line), maps))
		count += strstr(line, "memfd:vm") != NULL;
	fclose(maps);
	return count;
}

static unsigned fds_before;

static int setup(void **state)
{
	fds_before = count_fds();
	memory_fd = memfd_create("vm", MFD_CLOEXEC);
	assert_int_equal(ftruncate(memory_fd, MEM_SIZE), 0);
	memory = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	for (unsigned i = 0; i < 8; i++) {
		kick_fds[i] = eventfd(0, EFD_CLOEXEC);
		call_fds[i] = eventfd(0, EFD_CLOEXEC);
	}
	return 0;
}

static void remove_guest(void)
{
	workers_pause();
	worker_detach(guest);
	workers_resume();
	guest->ops->close(guest);
	guest = NULL;
}

static void hang_up(void)
{
	loop_del_fd(front);
	close(front);
	front = -1;
}

static int teardown(void **state)
{
	if (front >= 0)
		hang_up();
	if (guest)
		remove_guest();
	munmap(memory, MEM_SIZE);
	close(memory_fd);
	for (unsigned i = 0; i < 8; i++) {
		close(kick_fds[i]);
		close(call_fds[i]);
	}
	assert_int_equal(count_mappings(), 0);
	assert_int_equal(count_fds(), fds_before);
	return 0;
}

/* ---- main loop and front end ---- */

static void quit_on_fd(void *arg, uint32_t events)
{
	loop_quit();
}

static void quit_on_timer(void *arg)
{
	*(bool *)arg = true;
	loop_quit();
}

/* Run the loop for msec, less if front becomes readable. */
static bool run_loop(unsigned msec)
{
	struct pollfd poll_front = { .fd = front, .events = POLLIN };
	bool timed_out = false;
	int timer = loop_add_timer(msec, quit_on_timer, &timed_out);

	loop_run();
	if (!timed_out)
		loop_del_timer(timer);
	return poll(&poll_front, 1, 0) == 1;
}

static void adopt(int fd)
{
	front = fd;
	assert_int_equal(loop_add_fd(front, EPOLLIN, quit_on_fd, NULL), 0);
}

static void open_guest_as(struct vhost_user_config config)
{
	struct error error;
	int ends[2];

	config.name = "web";
	config.mtu = MTU;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	config.fd = ends[1];
	assert_int_equal(vhost_user_open(&config, &guest, &error), 0);
	adopt(ends[0]);
}

static void open_guest(unsigned pairs)
{
	open_guest_as((struct vhost_user_config){ .pairs = pairs });
}

static void send_bytes(const void *data, size_t len, const int *fds, unsigned fd_count)
{
	char control[CMSG_SPACE(64 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, len };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd_count) {
		header.msg_control = control;
		header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);

		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, fd_count * sizeof(int));
	}
	assert_int_equal(sendmsg(front, &header, MSG_NOSIGNAL), len);
}

static void send_fds(uint32_t request, uint32_t flags, const void *payload, uint32_t size,
		     const int *fds, unsigned fd_count)
{
	uint8_t buffer[8192] = { 0 };
	struct header header = { request, VERSION | flags, size };

	memcpy(buffer, &header, sizeof(header));
	if (payload)
		memcpy(buffer + sizeof(header), payload, size);
	send_bytes(buffer, sizeof(header) + size, fds, fd_count);
}

static void send_msg(uint32_t request, const void *payload, uint32_t size)
{
	send_fds(request, 0, payload, size, NULL, 0);
}

static void send_u64(uint32_t request, uint64_t value)
{
	send_msg(request, &value, sizeof(value));
}

static void send_state(uint32_t request, uint32_t index, uint32_t num)
{
	uint32_t state[2] = { index, num };

	send_msg(request, state, sizeof(state));
}

static void send_ring_fd(uint32_t request, uint64_t index, int fd)
{
	send_fds(request, 0, &index, sizeof(index), &fd, 1);
}

static void send_addr(uint32_t index, uint64_t uva)
{
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr = { index, 0, uva, uva + RING_SIZE * 16 + 0x1000, uva + RING_SIZE * 16, 0 };

	send_msg(SET_VRING_ADDR, &addr, sizeof(addr));
}

/* The answer to request: its first eight bytes of payload. */
static uint64_t answer(uint32_t request)
{
	struct {
		struct header header;
		uint64_t u64;
	} __attribute__((packed)) reply = { 0 };

	assert_true(run_loop(2000));
	assert_int_equal(recv(front, &reply, sizeof(reply), 0), sizeof(reply));
	assert_int_equal(reply.header.request, request);
	assert_int_equal(reply.header.flags, VERSION | REPLY);
	assert_int_equal(reply.header.size, 8);
	return reply.u64;
}

static uint64_t ask(uint32_t request)
{
	send_msg(request, NULL, 0);
	return answer(request);
}

/* All messages so far are done, and we are still connected. */
static void sync_up(void)
{
	assert_int_equal(ask(GET_FEATURES), VIRTIO_NET_FEATURES);
}

static void expect_disconnect(const char *what)
{
	char byte;

	if (!run_loop(2000))
		fail_msg("%s: still connected", what);
	if (recv(front, &byte, 1, 0) > 0)
		fail_msg("%s: answered", what);
}

/* ---- what the device says of itself ---- */

static json_int_t shown(const char *key)
{
	json_t *state = vhost_user_show(guest);
	json_t *value = json_object_get(state, key);
	json_int_t ret = json_is_boolean(value) ? json_is_true(value) : json_integer_value(value);

	assert_non_null(value);
	json_decref(state);
	return ret;
}

/* Why the ring does not run; "" when it does. */
static const char *ring_why(unsigned index)
{
	static char why[128];
	json_t *state = vhost_user_show(guest);
	json_t *ring = json_array_get(json_object_get(state, "rings"), index);
	const char *text = json_string_value(json_object_get(ring, "why"));

	assert_non_null(ring);
	assert_int_equal(json_is_true(json_object_get(ring, "running")), text == NULL);
	snprintf(why, sizeof(why), "%s", text ? text : "");
	json_decref(state);
	return why;
}

static unsigned regions_shown(void)
{
	json_t *state = vhost_user_show(guest);
	unsigned count = json_array_size(json_object_get(state, "memory"));

	json_decref(state);
	return count;
}

/* ---- the usual steps ---- */

static void share_memory(bool slots)
{
	struct {
		uint32_t count, padding;
		struct region region;
	} table = { 1, 0, { GPA, MEM_SIZE, UVA, 0 } };
	struct {
		uint64_t padding;
		struct region region;
	} slot = { 0, { GPA, MEM_SIZE, UVA, 0 } };

	if (slots)
		send_fds(ADD_MEM_REG, NEED_REPLY, &slot, sizeof(slot), &memory_fd, 1);
	else
		send_fds(SET_MEM_TABLE, NEED_REPLY, &table, sizeof(table), &memory_fd, 1);
	assert_int_equal(answer(slots ? ADD_MEM_REG : SET_MEM_TABLE), 0);
}

static void remove_memory(void)
{
	struct {
		uint64_t padding;
		struct region region;
	} slot = { 0, { GPA, MEM_SIZE, UVA, 0 } };

	send_fds(REM_MEM_REG, NEED_REPLY, &slot, sizeof(slot), NULL, 0);
	assert_int_equal(answer(REM_MEM_REG), 0);
}

static void set_up_ring(unsigned index, uint16_t base)
{
	send_state(SET_VRING_NUM, index, RING_SIZE);
	send_state(SET_VRING_BASE, index, base);
	send_addr(index, UVA + RING(index));
	send_ring_fd(SET_VRING_KICK, index, kick_fds[index]);
}

static void set_up_rings(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		set_up_ring(i, 0);
		send_state(SET_VRING_ENABLE, i, 1);
	}
	sync_up();
}

/* A guest with two running rings. */
static void start_guest(void)
{
	open_guest(1);
	send_u64(SET_PROTOCOL_FEATURES, MQ | REPLY_ACK | MEM_SLOTS | STATUS | NET_MTU);
	send_u64(SET_FEATURES, FEATURES);
	share_memory(true);
	set_up_rings(2);
	assert_string_equal(ring_why(0), "");
	assert_string_equal(ring_why(1), "");
}

/* The driver sends n frames; the worker must have taken them all soon after the kick. */
static void transmit(unsigned index, unsigned n)
{
	uint8_t *ring = memory + RING(index);
	struct virtq_desc *desc = (struct virtq_desc *)ring;
	struct virtq_avail *avail = (struct virtq_avail *)(ring + RING_SIZE * 16);
	struct virtq_used *used = (struct virtq_used *)(ring + RING_SIZE * 16 + 0x1000);
	uint16_t idx = avail->idx;

	for (unsigned i = 0; i < n; i++, idx++) {
		memset(memory + BUFFERS, 0, 12 + 60);
		memset(memory + BUFFERS + 12, 2, 12);
		desc[0] = (struct virtq_desc){ GPA + BUFFERS, 12 + 60, 0, 0 };
		avail->ring[idx % RING_SIZE] = 0;
	}
	__atomic_store_n(&avail->idx, idx, __ATOMIC_RELEASE);
	assert_int_equal(eventfd_write(kick_fds[index], 1), 0);
	for (unsigned i = 0; i < 2000 && __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) != idx; i++)
		usleep(1000);
	assert_int_equal(used->idx, idx);
}

static uint64_t get_base(unsigned index)
{
	send_state(GET_VRING_BASE, index, 0);
	return answer(GET_VRING_BASE) >> 32;
}

/* ---- tests: handshakes ---- */

static void qemu_order(void **state)
{
	eventfd_t calls = 0;

	open_guest(4);
	assert_int_equal(ask(GET_FEATURES), VIRTIO_NET_FEATURES);
	assert_int_equal(ask(GET_PROTOCOL_FEATURES), MQ | REPLY_ACK | MEM_SLOTS | STATUS | NET_MTU);
	send_u64(SET_PROTOCOL_FEATURES, MQ | REPLY_ACK | MEM_SLOTS | STATUS | NET_MTU);
	assert_int_equal(ask(GET_QUEUE_NUM), 4);
	assert_int_equal(ask(GET_MAX_MEM_SLOTS), GUEST_MEM_REGIONS_MAX);
	send_msg(SET_OWNER, NULL, 0);
	sync_up();
	for (unsigned i = 0; i < 4; i++)
		send_ring_fd(SET_VRING_CALL, i, call_fds[i]);
	for (unsigned i = 0; i < 4; i++)
		send_state(SET_VRING_ENABLE, i, 1);
	for (unsigned pair = 0; pair < 2; pair++) {
		send_u64(SET_FEATURES, FEATURES); /* for each pair again */
		send_u64(SET_STATUS, 11);
		share_memory(true); /* so does QEMU 7.2 */
		set_up_ring(2 * pair, 0);
		set_up_ring(2 * pair + 1, 0);
	}
	send_u64(SET_STATUS, 15);
	assert_int_equal(ask(GET_STATUS), 15);
	for (unsigned i = 0; i < 4; i++)
		assert_string_equal(ring_why(i), "");
	assert_string_equal(ring_why(4), "not set up");
	assert_int_equal(shown("pairs"), 2);
	assert_int_equal(shown("connected"), 1);
	/* one call for what a predecessor may have kept to itself */
	assert_int_equal(poll(&(struct pollfd){ call_fds[1], POLLIN, 0 }, 1, 2000), 1);
	assert_int_equal(eventfd_read(call_fds[1], &calls), 0);
	transmit(1, 100);
	transmit(3, 5);
	assert_int_equal(get_base(1), 100);
	assert_string_equal(ring_why(1), "stopped");
	assert_string_equal(ring_why(3), "");
}

static void dpdk_order(void **state)
{
	open_guest(1);
	send_msg(SET_OWNER, NULL, 0);
	sync_up();
	ask(GET_PROTOCOL_FEATURES);
	send_u64(SET_PROTOCOL_FEATURES, MQ | REPLY_ACK);
	send_ring_fd(SET_VRING_CALL, 0, call_fds[0]);
	send_ring_fd(SET_VRING_CALL, 1, call_fds[1]);
	send_u64(SET_FEATURES, FEATURES);
	share_memory(false);
	set_up_ring(0, 0);
	set_up_ring(1, 0);
	sync_up();
	assert_string_equal(ring_why(1), "not enabled");
	send_state(SET_VRING_ENABLE, 0, 1);
	send_state(SET_VRING_ENABLE, 1, 1);
	sync_up();
	assert_string_equal(ring_why(0), "");
	transmit(1, 3);
}

static void rings_before_memory(void **state)
{
	open_guest(1);
	send_u64(SET_PROTOCOL_FEATURES, MQ | REPLY_ACK);
	set_up_rings(2);
	assert_string_equal(ring_why(1), "addresses outside memory");
	share_memory(false);
	assert_string_equal(ring_why(1), "");
	send_u64(SET_FEATURES, FEATURES);
	sync_up();
	transmit(1, 3);
}

static void without_protocol_features_rings_start_enabled(void **state)
{
	open_guest(1);
	send_u64(SET_FEATURES, FEATURES & ~PROTOCOL_BIT);
	share_memory(false);
	set_up_ring(0, 0);
	set_up_ring(1, 0);
	sync_up();
	assert_string_equal(ring_why(0), "");
	transmit(1, 1);
}

static void kick_may_be_absent(void **state)
{
	open_guest(1);
	share_memory(false);
	send_state(SET_VRING_NUM, 1, RING_SIZE);
	send_state(SET_VRING_BASE, 1, 0);
	send_addr(1, UVA + RING(1));
	sync_up();
	assert_string_equal(ring_why(1), "stopped");
	send_u64(SET_VRING_KICK, 1 | NO_FD);
	send_u64(SET_VRING_CALL, 1 | NO_FD);
	send_u64(SET_VRING_ERR, 1 | NO_FD);
	sync_up();
	assert_string_equal(ring_why(1), "");
}

/* ---- tests: changes while rings run ---- */

static void stops_and_starts_again_at_its_position(void **state)
{
	start_guest();
	transmit(1, 70);
	assert_int_equal(get_base(1), 70);
	assert_int_equal(get_base(1), 70);
	assert_int_equal(get_base(0), 0);
	set_up_ring(1, 70);
	sync_up();
	transmit(1, 10);
	/* position alone, on a running ring: QEMU never does it, and it must not go wrong */
	send_state(SET_VRING_BASE, 1, 80);
	send_addr(1, UVA + RING(1));
	sync_up();
	transmit(1, 10);
	assert_int_equal(get_base(1), 90);
}

static void memory_goes_and_comes_back(void **state)
{
	struct {
		uint64_t padding;
		struct region region;
	} slot = { 0, { 0, 0x1000, UVA - 0x1000, 0 } };

	start_guest();
	transmit(1, 40);
	assert_int_equal(count_mappings(), 2); /* ours and the guest's */
	/* another region comes and goes: the rings do not notice */
	send_fds(ADD_MEM_REG, NEED_REPLY, &slot, sizeof(slot), &memory_fd, 1);
	assert_int_equal(answer(ADD_MEM_REG), 0);
	transmit(1, 3);
	send_fds(REM_MEM_REG, NEED_REPLY, &slot, sizeof(slot), &memory_fd,
		 1); /* with a needless descriptor */
	assert_int_equal(answer(REM_MEM_REG), 0);
	transmit(1, 3);
	assert_int_equal(regions_shown(), 1);
	/* the region of the rings goes: they stop, and resume when it is back */
	remove_memory();
	remove_memory(); /* QEMU 7.2, for another queue pair */
	assert_string_equal(ring_why(1), "addresses outside memory");
	assert_int_equal(regions_shown(), 0);
	assert_int_equal(count_mappings(), 1);
	share_memory(true);
	assert_string_equal(ring_why(1), "");
	transmit(1, 4);
	share_memory(false);
	transmit(1, 10);
	assert_int_equal(get_base(1), 60);
	assert_int_equal(shown("breaks"), 0);
}

static void refused_memory_changes_nothing(void **state)
{
	struct {
		uint64_t padding;
		struct region region;
	} slot = { 0, { GPA + 0x1000, 0x1000, UVA - 0x1000, 0 } }; /* overlaps */
	struct {
		uint32_t count, padding;
		struct region region[2];
	} table = {
		2, 0, { { GPA, MEM_SIZE, UVA, 0 }, { 0, MEM_SIZE, 0, 0x1000 } }
	}; /* second beyond its file */
	const int fds[] = { memory_fd, memory_fd };

	start_guest();
	send_fds(ADD_MEM_REG, NEED_REPLY, &slot, sizeof(slot), fds, 1);
	assert_int_equal(answer(ADD_MEM_REG), 1);
	send_fds(SET_MEM_TABLE, NEED_REPLY, &table, sizeof(table), fds, 2);
	assert_int_equal(answer(SET_MEM_TABLE), 1);
	send_fds(REM_MEM_REG, NEED_REPLY, &slot, sizeof(slot), NULL,
		 0); /* it is not there, as is wanted */
	assert_int_equal(answer(REM_MEM_REG), 0);
	assert_int_equal(regions_shown(), 1);
	transmit(1, 3);
}

static void memory_slots_are_bounded(void **state)
{
	struct {
		uint64_t padding;
		struct region region;
	} slot = { 0, { 0, 0x1000, 0, 0 } };

	open_guest(1);
	for (unsigned i = 0; i <= GUEST_MEM_REGIONS_MAX;
	     i++, slot.region.gpa += 0x1000, slot.region.uva += 0x1000) {
		send_fds(ADD_MEM_REG, NEED_REPLY, &slot, sizeof(slot), &memory_fd, 1);
		assert_int_equal(answer(ADD_MEM_REG), i == GUEST_MEM_REGIONS_MAX);
	}
}

static void features_change_while_running(void **state)
{
	start_guest();
	transmit(1, 5);
	send_u64(SET_FEATURES, FEATURES | VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX_BIT));
	sync_up();
	assert_string_equal(ring_why(1), "");
	transmit(1, 5);
	assert_int_equal(get_base(1), 10);
}

static void status_zero_stops_rings_and_keeps_memory(void **state)
{
	start_guest();
	send_u64(SET_STATUS, 15);
	transmit(1, 5);
	send_u64(SET_STATUS, 0);
	assert_int_equal(ask(GET_STATUS), 0);
	assert_string_equal(ring_why(1), "stopped");
	assert_int_equal(regions_shown(), 1);
	assert_int_equal(get_base(1), 5);
	send_msg(RESET_DEVICE, NULL, 0);
	set_up_ring(1, 5);
	sync_up();
	assert_string_equal(ring_why(1), "not enabled");
	send_state(SET_VRING_ENABLE, 1, 1);
	sync_up();
	transmit(1, 5);
}

static void mtu_is_bounded_by_configuration(void **state)
{
	static const struct {
		uint64_t mtu, refused;
	} cases[] = { { 1400, 0 },    { MTU, 0 }, { 68, 0 },           { 67, 1 },
		      { MTU + 1, 1 }, { 0, 1 },   { 65536 + 1400, 1 }, { UINT64_MAX, 1 } };

	start_guest();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		send_fds(NET_SET_MTU, NEED_REPLY, &cases[i].mtu, 8, NULL, 0);
		assert_int_equal(answer(NET_SET_MTU), cases[i].refused);
	}
	assert_int_equal(guest->mtu, 68);
	send_u64(SEND_RARP, 0x525400000001);
	send_msg(RESET_OWNER, NULL, 0);
	sync_up();
}

/* ---- tests: bad messages ---- */

/* What is malformed ends the connection, asked for a reply or not, and only that. */
static void malformed_messages_disconnect(void **state)
{
	static const struct {
		const char *what;
		uint32_t request, flags, size;
		uint32_t payload[4];
		unsigned fds;
	} bad[] = {
		{ "version 0",
		  GET_FEATURES,
		  VERSION,
		  0,
		  { 0 },
		  0 }, /* flags are exclusive-ored with VERSION */
		{ "version 2", GET_FEATURES, VERSION ^ 2, 0, { 0 }, 0 },
		{ "a reply", GET_FEATURES, REPLY, 0, { 0 }, 0 },
		{ "oversized", SET_FEATURES, 0, 4097, { 0 }, 0 },
		{ "size 2^32 - 1", SET_FEATURES, 0, UINT32_MAX, { 0 }, 0 },
		{ "GET_FEATURES with payload", GET_FEATURES, 0, 8, { 0 }, 0 },
		{ "GET_FEATURES with descriptor", GET_FEATURES, 0, 0, { 0 }, 1 },
		{ "SET_FEATURES too short", SET_FEATURES, NEED_REPLY, 4, { 0 }, 0 },
		{ "SET_FEATURES with descriptors", SET_FEATURES, 0, 8, { 0 }, 8 },
		{ "SET_VRING_NUM too long", SET_VRING_NUM, 0, 12, { 0, 256 }, 0 },
		{ "SET_VRING_ADDR too short", SET_VRING_ADDR, 0, 16, { 0 }, 0 },
		{ "SET_VRING_KICK with two descriptors", SET_VRING_KICK, 0, 8, { 0 }, 2 },
		{ "SET_MEM_TABLE without payload", SET_MEM_TABLE, 0, 0, { 0 }, 0 },
		{ "SET_MEM_TABLE shorter than its count", SET_MEM_TABLE, 0, 8, { 1 }, 1 },
		{ "SET_MEM_TABLE of nine", SET_MEM_TABLE, 0, 8 + 9 * 32, { 9 }, 8 },
		{ "SET_MEM_TABLE of 2^27 + 1, whose size wraps",
		  SET_MEM_TABLE,
		  0,
		  8 + 32,
		  { 0x8000001 },
		  1 },
		{ "SET_MEM_TABLE of 2^32 - 1", SET_MEM_TABLE, 0, 8, { UINT32_MAX }, 0 },
		{ "SET_MEM_TABLE without descriptor", SET_MEM_TABLE, 0, 8 + 32, { 1 }, 0 },
		{ "SET_MEM_TABLE with one too many", SET_MEM_TABLE, 0, 8 + 32, { 1 }, 2 },
		{ "ADD_MEM_REG without descriptor", ADD_MEM_REG, 0, 40, { 0 }, 0 },
		{ "ADD_MEM_REG with two", ADD_MEM_REG, 0, 40, { 0 }, 2 },
		{ "REM_MEM_REG too short", REM_MEM_REG, 0, 32, { 0 }, 0 },
		{ "nine descriptors", SET_FEATURES, 0, 8, { 0 }, 9 },
		{ "thirty descriptors", SET_FEATURES, 0, 8, { 0 }, 30 },
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint8_t payload[4096] = { 0 };
		int fds[30];

		start_guest();
		memcpy(payload, bad[i].payload, sizeof(bad[i].payload));
		for (unsigned j = 0; j < 30; j++)
			fds[j] = memory_fd;
		if (bad[i].size > sizeof(payload)) {
			struct header header = { bad[i].request, VERSION, bad[i].size };

			send_bytes(&header, sizeof(header), NULL, 0);
		} else {
			struct {
				struct header header;
				uint8_t payload[4096];
			} msg = { { bad[i].request, VERSION ^ bad[i].flags, bad[i].size }, { 0 } };

			memcpy(msg.payload, payload, bad[i].size);
			send_bytes(&msg, sizeof(msg.header) + bad[i].size, fds, bad[i].fds);
		}
		if (bad[i].flags & NEED_REPLY)
			assert_int_equal(answer(bad[i].request), 1);
		expect_disconnect(bad[i].what);
		assert_int_equal(shown("connected"), 0);
		assert_int_equal(count_mappings(), 1);
		assert_string_equal(ring_why(1), "not set up");
		hang_up();
		remove_guest();
		memset(memory, 0, MEM_SIZE);
	}
}

/* Well-formed but impossible: refused. Told so, the front end may go on; not told, it is
 * disconnected. */
static void impossible_messages_are_refused(void **state)
{
	static const struct {
		const char *what;
		uint32_t request, size;
		uint32_t payload[10];
		int fds; /* -1: one that is no eventfd */
	} bad[] = {
		{ "feature not offered", SET_FEATURES, 8, { 0, 4 }, 0 },
		{ "protocol feature not offered", SET_PROTOCOL_FEATURES, 8, { 2 }, 0 },
		{ "SET_VRING_NUM index", SET_VRING_NUM, 8, { 2, 256 }, 0 },
		{ "SET_VRING_NUM huge index", SET_VRING_NUM, 8, { UINT32_MAX, 256 }, 0 },
		{ "ring of 0", SET_VRING_NUM, 8, { 0, 0 }, 0 },
		{ "ring of 3", SET_VRING_NUM, 8, { 0, 3 }, 0 },
		{ "ring of 65536", SET_VRING_NUM, 8, { 0, 65536 }, 0 },
		{ "ring of 65536 + 256", SET_VRING_NUM, 8, { 0, 65536 + 256 }, 0 },
		{ "SET_VRING_BASE index", SET_VRING_BASE, 8, { 2, 0 }, 0 },
		{ "position 65536", SET_VRING_BASE, 8, { 0, 65536 }, 0 },
		{ "SET_VRING_ADDR index", SET_VRING_ADDR, 40, { 2 }, 0 },
		{ "ring logging", SET_VRING_ADDR, 40, { 0, 1 }, 0 },
		{ "descriptors misaligned", SET_VRING_ADDR, 40, { 0, 0, 8 }, 0 },
		{ "used ring misaligned", SET_VRING_ADDR, 40, { 0, 0, 0, 0, 2 }, 0 },
		{ "available ring misaligned", SET_VRING_ADDR, 40, { 0, 0, 0, 0, 0, 0, 1 }, 0 },
		{ "SET_VRING_ENABLE index", SET_VRING_ENABLE, 8, { 2, 1 }, 0 },
		{ "enabled twice over", SET_VRING_ENABLE, 8, { 0, 2 }, 0 },
		{ "kick missing", SET_VRING_KICK, 8, { 0 }, 0 },
		{ "kick not announced", SET_VRING_KICK, 8, { NO_FD }, 1 },
		{ "kick index", SET_VRING_KICK, 8, { 2 }, 1 },
		{ "kick with unknown bits", SET_VRING_KICK, 8, { 0, 1 }, 1 },
		{ "kick that is a file", SET_VRING_KICK, 8, { 1 }, -1 },
		{ "call missing", SET_VRING_CALL, 8, { 1 }, 0 },
		{ "call that is a file", SET_VRING_CALL, 8, { 1 }, -1 },
		{ "err index", SET_VRING_ERR, 8, { 255 }, 1 },
		{ "MTU", NET_SET_MTU, 8, { 9000 }, 0 },
		{ "status", SET_STATUS, 8, { 256 }, 0 },
		{ "add empty memory", ADD_MEM_REG, 40, { 0 }, -1 },
		{ "unknown request", REQUESTS + 10, 8, { 0 }, 0 },
		{ "request 0", 0, 0, { 0 }, 0 },
		{ "request 2^32 - 1", UINT32_MAX, 0, { 0 }, 0 },
		{ "request with descriptors that are not offered", SET_LOG_BASE, 16, { 0 }, -1 },
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const int fd = bad[i].fds < 0 ? memory_fd : kick_fds[5];

		start_guest();
		send_fds(bad[i].request, NEED_REPLY, bad[i].payload, bad[i].size, &fd,
			 bad[i].fds != 0);
		if (answer(bad[i].request) != 1)
			fail_msg("%s: not refused", bad[i].what);
		sync_up();
		transmit(1, 2);
		send_fds(bad[i].request, 0, bad[i].payload, bad[i].size, &fd, bad[i].fds != 0);
		expect_disconnect(bad[i].what);
		hang_up();
		remove_guest();
		memset(memory, 0, MEM_SIZE);
	}
}

/* GET_CONFIG would be answered with a payload of its own: whoever waits for that must not wait for
 * ever. */
static void unknown_requests(void **state)
{
	const uint32_t config[] = { 0, 8, 0, 0, 0 };

	start_guest();
	send_fds(GET_CONFIG, NEED_REPLY, config, sizeof(config), NULL, 0);
	assert_int_equal(answer(GET_CONFIG), 1);
	sync_up();
	send_fds(GET_CONFIG, 0, config, sizeof(config), NULL, 0);
	expect_disconnect("GET_CONFIG");
}

/* offload=off: nothing of checksums and segmentation is offered or accepted, all else is. */
static void offloads_can_be_withheld(void **state)
{
	static const unsigned withheld[] = {
		VIRTIO_NET_F_CSUM_BIT,       VIRTIO_NET_F_GUEST_CSUM_BIT,
		VIRTIO_NET_F_HOST_TSO4_BIT,  VIRTIO_NET_F_GUEST_TSO4_BIT,
		VIRTIO_NET_F_HOST_TSO6_BIT,  VIRTIO_NET_F_GUEST_TSO6_BIT,
		VIRTIO_NET_F_HOST_ECN_BIT,   VIRTIO_NET_F_GUEST_ECN_BIT,
		VIRTIO_NET_F_GUEST_USO4_BIT, VIRTIO_NET_F_GUEST_USO6_BIT,
		VIRTIO_NET_F_HOST_USO_BIT,
	};
	uint64_t offered = VIRTIO_NET_FEATURES, all = VIRTIO_NET_FEATURES;

	for (unsigned i = 0; i < sizeof(withheld) / sizeof(withheld[0]); i++)
		offered &= ~VIRTIO_BIT(withheld[i]);
	open_guest_as((struct vhost_user_config){ .pairs = 1, .no_offload = true });
	assert_int_equal(ask(GET_FEATURES), offered);
	send_u64(SET_PROTOCOL_FEATURES, REPLY_ACK);
	send_fds(SET_FEATURES, NEED_REPLY, &all, 8, NULL, 0);
	assert_int_equal(answer(SET_FEATURES), 1);
	send_fds(SET_FEATURES, NEED_REPLY, &offered, 8, NULL, 0);
	assert_int_equal(answer(SET_FEATURES), 0);
	assert_int_equal(guest->caps & ~PORT_CAP_SG, 0);
}

static void every_message_can_ask_for_a_reply(void **state)
{
	const uint64_t features = FEATURES;

	start_guest();
	send_fds(SET_FEATURES, NEED_REPLY, &features, 8, NULL, 0);
	assert_int_equal(answer(SET_FEATURES), 0);
	send_fds(SET_OWNER, NEED_REPLY, NULL, 0, NULL, 0);
	assert_int_equal(answer(SET_OWNER), 0);
	/* one answer, not two */
	send_fds(GET_QUEUE_NUM, NEED_REPLY, NULL, 0, NULL, 0);
	assert_int_equal(answer(GET_QUEUE_NUM), 1);
	sync_up();
}

static void get_vring_base_of_no_ring(void **state)
{
	const uint32_t config[] = { 7, 0 };

	start_guest();
	send_fds(GET_VRING_BASE, NEED_REPLY, config, sizeof(config), NULL, 0);
	expect_disconnect("GET_VRING_BASE");
}

static void messages_in_pieces(void **state)
{
	struct {
		struct header header;
		uint64_t u64;
	} __attribute__((packed)) kick = { { SET_VRING_KICK, VERSION | NEED_REPLY, 8 }, 1 };

	start_guest();
	for (unsigned i = 0; i < sizeof(kick); i++) {
		assert_false(run_loop(3));
		send_bytes((uint8_t *)&kick + i, 1, &kick_fds[5],
			   i == 4); /* the descriptor with any byte */
	}
	assert_int_equal(answer(SET_VRING_KICK), 0);
	/* several at once */
	uint8_t many[40 * sizeof(struct header)];
	struct header owner = { SET_OWNER, VERSION, 0 };

	for (unsigned i = 0; i < 40; i++)
		memcpy(many + i * sizeof(owner), &owner, sizeof(owner));
	json_int_t before = shown("messages");

	send_bytes(many, sizeof(many), NULL, 0);
	sync_up();
	assert_int_equal(shown("messages"), before + 41);
	/* half a message, with a descriptor, and gone */
	send_bytes(&kick, 15, &memory_fd, 1);
	run_loop(20);
	hang_up();
	run_loop(20);
	assert_int_equal(shown("connected"), 0);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void floods_are_throttled(void **state)
{
	enum { COUNT = 3000 };
	static uint8_t many[COUNT * sizeof(struct header)];
	struct header owner = { SET_OWNER, VERSION, 0 };
	double start = seconds();

	open_guest(1);
	for (unsigned i = 0; i < COUNT; i++)
		memcpy(many + i * sizeof(owner), &owner, sizeof(owner));
	send_bytes(many, sizeof(many), NULL, 0);
	send_msg(GET_FEATURES, NULL, 0);
	assert_int_equal(answer(GET_FEATURES), VIRTIO_NET_FEATURES); /* nothing is lost */
	assert_true(seconds() - start > 0.8);
	assert_true(shown("throttled") > 0);
	/* hanging up while it is not read is noticed at once */
	send_bytes(many, sizeof(many), NULL, 0);
	run_loop(20);
	hang_up();
	run_loop(20);
	assert_int_equal(shown("connected"), 0);
}

/* A front end that asks and does not read would make us wait; it is disconnected. */
static void unread_answers_disconnect(void **state)
{
	static uint8_t many[1500 * sizeof(struct header)];
	struct header get = { GET_FEATURES, VERSION, 0 };

	open_guest(1);
	loop_del_fd(front);
	for (unsigned i = 0; i < 1500; i++)
		memcpy(many + i * sizeof(get), &get, sizeof(get));
	for (unsigned i = 0; i < 5 && shown("connected"); i++) {
		bool timed_out = false;

		if (send(front, many, sizeof(many), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			break;
		loop_add_timer(1500, quit_on_timer, &timed_out);
		loop_run();
	}
	assert_int_equal(shown("connected"), 0);
	close(front);
	front = -1;
}

/* ---- tests: sockets ---- */

static const char *socket_path(void)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/web.sock", folder);
	return path;
}

static struct sockaddr_un socket_addr(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	strcpy(addr.sun_path, socket_path());
	return addr;
}

static int open_at_path(bool client, const char *name, struct port **port, struct error *error)
{
	struct vhost_user_config config = { .name = name,
					    .path = socket_path(),
					    .fd = -1,
					    .client = client,
					    .pairs = 1,
					    .mtu = MTU,
					    .mode = 0640 };

	return vhost_user_open(&config, port, error);
}

static int dial(void)
{
	struct sockaddr_un addr = socket_addr();
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static int listen_here(void)
{
	struct sockaddr_un addr = socket_addr();
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void server_serves_one_after_the_other(void **state)
{
	struct error error;
	struct stat st;
	int next;

	assert_int_equal(open_at_path(false, "web", &guest, &error), 0);
	assert_int_equal(stat(socket_path(), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	adopt(dial());
	sync_up();
	share_memory(true);
	set_up_rings(2);
	transmit(1, 5);
	send_fds(NET_SET_MTU, 0, &(uint64_t){ 1400 }, 8, NULL, 0);
	sync_up();
	assert_int_equal(guest->mtu, 1400);
	/* a second one waits until the first is gone */
	next = dial();
	assert_int_equal(send(next, &(struct header){ GET_FEATURES, VERSION, 0 }, 12, 0), 12);
	sync_up();
	assert_int_equal(recv(next, &st, 1, MSG_DONTWAIT), -1);
	hang_up();
	adopt(next);
	assert_int_equal(answer(GET_FEATURES), VIRTIO_NET_FEATURES);
	assert_int_equal(shown("reconnects"), 1);
	/* and finds nothing of it */
	assert_int_equal(regions_shown(), 0);
	assert_int_equal(guest->mtu, MTU);
	assert_string_equal(ring_why(1), "not set up");
	remove_guest();
	assert_int_equal(stat(socket_path(), &st), -1);
	guest = NULL;
}

static void server_replaces_only_stale_sockets(void **state)
{
	struct port *second;
	struct error error;
	struct stat st;
	int fd;

	fd = listen_here();
	assert_int_equal(open_at_path(false, "web", &guest, &error), -EADDRINUSE);
	assert_non_null(strstr(error.text, "in use"));
	assert_null(port_by_name("web"));
	close(fd); /* the file stays: stale */
	assert_int_equal(open_at_path(false, "web", &guest, &error), 0);
	assert_int_equal(open_at_path(false, "web2", &second, &error), -EADDRINUSE);
	assert_int_equal(open_at_path(false, "web", &second, &error), -EEXIST);
	/* somebody else's socket in our place is not removed with us */
	assert_int_equal(unlink(socket_path()), 0);
	fd = listen_here();
	remove_guest();
	assert_int_equal(stat(socket_path(), &st), 0);
	close(fd);
	unlink(socket_path());

	fd = open(socket_path(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	guest = NULL;
	assert_int_equal(open_at_path(false, "web", &guest, &error), -EEXIST);
	assert_non_null(strstr(error.text, "not a socket"));
	guest = NULL;
	unlink(socket_path());
}

static void bad_paths(void **state)
{
	char path[200];
	struct vhost_user_config config = {
		.name = "web", .path = path, .fd = -1, .pairs = 1, .mtu = MTU
	};
	struct error error;

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	assert_int_equal(vhost_user_open(&config, &guest, &error), -ENAMETOOLONG);
	strcpy(path, "/nonexistent/web.sock");
	assert_int_equal(vhost_user_open(&config, &guest, &error), -ENOENT);
	assert_non_null(strstr(error.text, "/nonexistent/web.sock"));
	guest = NULL;
	assert_null(port_by_name("web"));
}

static void client_connects_again_and_again(void **state)
{
	struct error error;
	int listener;

	assert_int_equal(open_at_path(true, "web", &guest, &error), 0);
	run_loop(50);
	assert_int_equal(shown("connected"), 0);
	listener = listen_here();
	for (unsigned i = 0; i < 3; i++) {
		struct pollfd waiting = { .fd = listener, .events = POLLIN };

		for (unsigned j = 0; j < 20 && poll(&waiting, 1, 0) == 0; j++)
			run_loop(50);
		adopt(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
		sync_up();
		share_memory(true);
		set_up_rings(2);
		transmit(1, 4);
		hang_up();
		run_loop(20);
		assert_int_equal(shown("connected"), 0);
		assert_int_equal(shown("reconnects"), i);
		memset(memory, 0, MEM_SIZE);
	}
	remove_guest();
	close(listener);
	unlink(socket_path());
}

/* ---- */

static int start_world(void **state)
{
	struct worker_config config = { .count = 1, .idle_spin_usec = 0 };

	log_set_level(LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	snprintf(folder, sizeof(folder), "/tmp/vhost_user_test.XXXXXX");
	if (!mkdtemp(folder) || loop_init() || workers_start(&config))
		return -1;
	workers_resume();
	return 0;
}

static int end_world(void **state)
{
	workers_stop();
	return rmdir(folder);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(qemu_order),
		TEST(dpdk_order),
		TEST(rings_before_memory),
		TEST(without_protocol_features_rings_start_enabled),
		TEST(kick_may_be_absent),
		TEST(stops_and_starts_again_at_its_position),
		TEST(memory_goes_and_comes_back),
		TEST(refused_memory_changes_nothing),
		TEST(memory_slots_are_bounded),
		TEST(features_change_while_running),
		TEST(status_zero_stops_rings_and_keeps_memory),
		TEST(mtu_is_bounded_by_configuration),
		TEST(malformed_messages_disconnect),
		TEST(impossible_messages_are_refused),
		TEST(unknown_requests),
		TEST(offloads_can_be_withheld),
		TEST(every_message_can_ask_for_a_reply),
		TEST(get_vring_base_of_no_ring),
		TEST(messages_in_pieces),
		TEST(floods_are_throttled),
		TEST(unread_answers_disconnect),
		TEST(server_serves_one_after_the_other),
		TEST(server_replaces_only_stale_sockets),
		TEST(bad_paths),
		TEST(client_connects_again_and_again),
	};

	return cmocka_run_group_tests_name("vhost_user", tests, start_world, end_world);
}
