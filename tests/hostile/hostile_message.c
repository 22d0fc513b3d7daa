// SPDX-License-Identifier: BSD-3-Clause
/*
 * Lies on the control socket: messages that are cut, too long, out of range, out of order, or not
 * messages at all. Every scenario starts without a connection. A refused message is answered with 1
 * or ends the connection; what must never happen is an answer of 0, or that vifd stops listening to
 * others meanwhile.
 */
#include "hostile.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A fresh connection; negotiated as far as acknowledgements need. */
static void connect_anew(struct front *evil)
{
	evil->fault[0] = 0;
	if (front_connect(evil) || front_negotiate(evil))
		broken_test("evil: %s", evil->fault);
}

static void connect_only(struct front *evil)
{
	evil->fault[0] = 0;
	if (front_connect(evil))
		broken_test("evil: %s", evil->fault);
}

/* Send a request that must be refused, by answer or by hanging up (the next then reconnects). */
static void expect_refusal(struct front *evil, uint32_t request, const void *payload, uint32_t size,
			   const int *fds, unsigned fd_count, const char *what)
{
	if (front_request(evil, request, payload, size, fds, fd_count) == 0)
		broken_test("accepted: %s", what);
	if (evil->fault[0])
		connect_anew(evil);
}

static void send_bytes(struct front *evil, const void *bytes, size_t len)
{
	if (send(evil->socket, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
		evil->fault[0] = 0; /* hung up on: fine */
}

/* ---- framing ---- */

static void garbage(struct front *evil, struct front *mate)
{
	for (unsigned i = 0; i < 50; i++) {
		uint32_t bytes[256];

		for (unsigned j = 0; j < 256; j++)
			bytes[j] = random_u32();
		connect_only(evil);
		send_bytes(evil, bytes, sizeof(bytes));
	}
}

/* Half a header, and half a payload, held while others want to be served. */
static void partial(struct front *evil, struct front *mate)
{
	struct vu_header header = { VU_SET_MEM_TABLE, VU_VERSION, 40 };

	connect_only(evil);
	send_bytes(evil, &header, 5);
	front_sleep_us(50000);
	connect_only(evil);
	send_bytes(evil, &header, sizeof(header));
	send_bytes(evil, "1234567", 7);
}

/* A whole conversation, a byte at a time: legal on a stream socket, and must be understood. */
static void drip(struct front *evil, struct front *mate)
{
	struct vu_header header = { VU_GET_FEATURES, VU_VERSION, 0 };
	uint64_t features;

	connect_only(evil);
	for (unsigned i = 0; i < sizeof(header); i++) {
		send_bytes(evil, (uint8_t *)&header + i, 1);
		front_sleep_us(2000);
	}
	if (front_reply(evil, VU_GET_FEATURES, &features, sizeof(features), 2000) !=
	    sizeof(features))
		broken_test("a message in pieces was not answered");
}

static void oversized(struct front *evil, struct front *mate)
{
	static const uint32_t sizes[] = { 0xffffffff, 0x80000000, 1 << 20, 65536, 4097 };
	static uint8_t payload[65536];

	for (unsigned i = 0; i < 5; i++) {
		struct vu_header header = { VU_SET_FEATURES, VU_VERSION, sizes[i] };

		connect_only(evil);
		front_message(evil, &header, payload, sizeof(payload), NULL, 0);
		if (!front_disconnected(evil, 2000))
			broken_test("a message of %u bytes was swallowed", sizes[i]);
	}
}

static void wrong_version(struct front *evil, struct front *mate)
{
	static const uint32_t flags[] = { 0, 2, 3, VU_VERSION | VU_REPLY, 0xfffffff0 };

	for (unsigned i = 0; i < 5; i++) {
		struct vu_header header = { VU_GET_FEATURES, flags[i], 0 };

		connect_only(evil);
		front_message(evil, &header, NULL, 0, NULL, 0);
		front_disconnected(evil, 200);
	}
}

/* Every request with every small size and with none of, or all the bits set. */
static void every_request(struct front *evil, struct front *mate)
{
	uint8_t payload[80];

	for (uint32_t request = 0; request < 45; request++)
		for (uint32_t size = 0; size <= sizeof(payload); size += request % 2 ? 8 : 20) {
			struct vu_header header = { request, VU_VERSION | VU_NEED_REPLY, size };
			uint64_t answer[8];

			memset(payload, size % 16 ? 0xff : 0, sizeof(payload));
			if (evil->socket < 0 || front_disconnected(evil, 0))
				connect_only(evil);
			front_message(evil, &header, payload, size, NULL, 0);
			front_reply(evil, request, answer, sizeof(answer), 100);
			evil->fault[0] = 0;
		}
}

static void unknown(struct front *evil, struct front *mate)
{
	static const uint32_t requests[] = { 0, 44, 127, 4096, 0x7fffffff, 0xffffffff };
	uint64_t payload = 0;

	connect_anew(evil);
	for (unsigned i = 0; i < 6; i++)
		expect_refusal(evil, requests[i], &payload, sizeof(payload), NULL, 0,
			       "an unknown request");
}

/* Ask and never listen to the answers. */
static void unread_answers(struct front *evil, struct front *mate)
{
	struct vu_header header = { VU_GET_FEATURES, VU_VERSION, 0 };
	uint64_t start_ns = front_now_ns();

	connect_only(evil);
	while (time_left(start_ns, 2000)) {
		char bytes[sizeof(header) * 64];

		for (unsigned i = 0; i < 64; i++)
			memcpy(bytes + i * sizeof(header), &header, sizeof(header));
		if (send(evil->socket, bytes, sizeof(bytes), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			front_sleep_us(1000);
	}
}

/* Ask and be gone before the answer. */
static void ask_and_leave(struct front *evil, struct front *mate)
{
	struct vu_header header = { VU_GET_FEATURES, VU_VERSION, 0 };

	for (unsigned i = 0; i < 30; i++) {
		connect_only(evil);
		for (unsigned j = 0; j < 20; j++)
			front_message(evil, &header, NULL, 0, NULL, 0);
		close(evil->socket);
		evil->socket = -1;
	}
}

/* ---- contents ---- */

static void ring_numbers(struct front *evil, struct front *mate)
{
	static const uint32_t indices[] = { 2, 32, 255, 256, 65535, 0x80000000, 0xffffffff };
	static const uint32_t requests[] = { VU_SET_VRING_NUM, VU_SET_VRING_BASE,
					     VU_SET_VRING_ENABLE };

	connect_anew(evil);
	for (unsigned i = 0; i < 7; i++) {
		struct vu_vring_state state = { indices[i], 1 };
		struct vu_vring_addr addr = { indices[i], 0, 0, 0, 0, 0 };
		uint64_t kick = indices[i];

		for (unsigned j = 0; j < 3; j++)
			expect_refusal(evil, requests[j], &state, sizeof(state), NULL, 0,
				       "a ring that does not exist");
		expect_refusal(evil, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0,
			       "addresses of no ring");
		if (indices[i] < 256)
			expect_refusal(evil, VU_SET_VRING_KICK, &kick, 8, &evil->rings[0].kick_fd,
				       1, "a kick of no ring");
	}
}

static void ring_sizes(struct front *evil, struct front *mate)
{
	static const uint32_t sizes[] = { 0, 3, 255, 257, 32769, 65536, 0x10100, 0xffffffff };

	connect_anew(evil);
	for (unsigned i = 0; i < 8; i++) {
		struct vu_vring_state state = { 1, sizes[i] };

		expect_refusal(evil, VU_SET_VRING_NUM, &state, sizeof(state), NULL, 0,
			       "an illegal ring size");
	}
	for (unsigned i = 0; i < 2; i++) {
		struct vu_vring_state state = { 1, i ? 0xffffffff : 65536 };

		expect_refusal(evil, VU_SET_VRING_BASE, &state, sizeof(state), NULL, 0,
			       "an illegal ring position");
	}
}

/* Rings at places where there is no memory, or not enough of it: refused, or never started. */
static void ring_addresses(struct front *evil, struct front *mate)
{
	struct front_ring *ring = front_tx(evil);
	uint64_t end = (uintptr_t)evil->mem + evil->mem_len, good = (uintptr_t)ring->desc;
	uint64_t bad[] = { 0,
			   16,
			   end,
			   end - 16,
			   end - 4096 + 16,
			   UINT64_MAX & ~15ull,
			   good + 1,
			   good - (1 << 30) };

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]) * 3; i++) {
		struct vu_vring_addr addr = {
			1, 0, good, (uintptr_t)ring->used, (uintptr_t)ring->avail, 0
		};
		uint64_t *const fields[] = { &addr.desc, &addr.used, &addr.avail };

		connect_anew(evil);
		if (front_announce_memory(evil) || front_start_ring(evil, ring, 0))
			broken_test("evil: %s", evil->fault);
		*fields[i % 3] = bad[i / 3];
		front_request(evil, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
		evil->fault[0] = 0;
		if (!front_disconnected(evil, 0))
			front_enable_ring(evil, ring, true);
		ring->avail->idx++;
		front_force_kick(ring);
		front_sleep_us(1000);
	}
}

/* Rings set up, changed, enabled and stopped in random order, with values that are mostly right. */
static void random_order(struct front *evil, struct front *mate)
{
	uint64_t start_ns = front_now_ns();

	connect_anew(evil);
	while (time_left(start_ns, 3000)) {
		struct front_ring *ring = &evil->rings[random_u32() % 2];
		struct vu_vring_state state = { random_u32() % 16 ? ring->index
								  : random_u32() % 300,
						0 };
		struct vu_vring_addr addr = { state.index,
					      0,
					      (uintptr_t)ring->desc,
					      (uintptr_t)ring->used,
					      (uintptr_t)ring->avail,
					      0 };
		struct vu_mem_table table = { .count = 1, .regions[0] = evil->regions[0] };
		uint64_t u64 = state.index & 0xff,
			 features = random_u32() % 4 ? evil->features : random_u32();

		if (random_u32() % 16 == 0)
			table.regions[0].size = random_u32() & ~4095u;
		switch (random_u32() % 11) {
		case 0:
			state.num = random_u32() % 8 ? 256 : random_u32();
			front_request(evil, VU_SET_VRING_NUM, &state, sizeof(state), NULL, 0);
			break;
		case 1:
			state.num = random_u32() % 65536;
			front_request(evil, VU_SET_VRING_BASE, &state, sizeof(state), NULL, 0);
			break;
		case 2:
			front_request(evil, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
			break;
		case 3:
			front_request(evil, VU_SET_VRING_KICK, &u64, 8, &ring->kick_fd, 1);
			break;
		case 4:
			front_request(evil, VU_SET_VRING_CALL, &u64, 8, &ring->call_fd, 1);
			break;
		case 5:
			state.num = random_u32() % 8 != 0;
			front_request(evil, VU_SET_VRING_ENABLE, &state, sizeof(state), NULL, 0);
			break;
		case 6:
			front_stop_ring(evil, ring);
			break;
		case 7:
			front_request(evil, VU_SET_MEM_TABLE, &table, 40, &evil->memfd, 1);
			break;
		case 8:
			front_request(evil, VU_SET_FEATURES, &features, 8, NULL, 0);
			break;
		case 9:
			u64 = random_u32() % 8 ? 15 : 0;
			front_request(evil, VU_SET_STATUS, &u64, 8, NULL, 0);
			break;
		default:
			ring->avail->idx = (uint16_t)random_u32();
			front_force_kick(ring);
		}
		if (evil->fault[0])
			connect_anew(evil);
	}
}

static void features(struct front *evil, struct front *mate)
{
	uint64_t all = UINT64_MAX, packed = FRONT_BIT(34) | FRONT_BIT(VIRTIO_F_VERSION_1);

	connect_anew(evil);
	expect_refusal(evil, VU_SET_FEATURES, &all, 8, NULL, 0, "features that were not offered");
	expect_refusal(evil, VU_SET_FEATURES, &packed, 8, NULL, 0, "packed rings");
	expect_refusal(evil, VU_SET_PROTOCOL_FEATURES, &all, 8, NULL, 0,
		       "protocol features that were not offered");
}

/* Logs that were not offered, with sizes and offsets that overflow whoever believes them. */
static void logs(struct front *evil, struct front *mate)
{
	uint64_t log_base[2] = { UINT64_MAX, UINT64_MAX - 4095 };
	struct {
		uint64_t size, offset;
		uint16_t queues, entries;
	} inflight = { UINT64_MAX, UINT64_MAX, 0xffff, 0xffff };
	struct front_ring *ring = front_tx(evil);
	struct vu_vring_addr addr = {
		1,         1, (uintptr_t)ring->desc, (uintptr_t)ring->used, (uintptr_t)ring->avail,
		UINT64_MAX
	};

	connect_anew(evil);
	expect_refusal(evil, VU_SET_LOG_BASE, log_base, 16, &evil->memfd, 1, "a log");
	expect_refusal(evil, VU_SET_LOG_FD, NULL, 0, &ring->kick_fd, 1, "a log descriptor");
	expect_refusal(evil, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0, "a ring's log");
	expect_refusal(evil, VU_GET_INFLIGHT_FD, &inflight, 20, NULL, 0, "in-flight memory");
	expect_refusal(evil, VU_SET_INFLIGHT_FD, &inflight, 20, &evil->memfd, 1,
		       "in-flight memory");
}

/* Gone in the middle of everything, with frames in flight both ways. */
static void leave_in_flight(struct front *evil, struct front *mate)
{
	for (unsigned round = 0; round < 20; round++) {
		struct front_config config = evil->config;

		front_close(evil);
		if (front_open(evil, &config))
			broken_test("evil: %s", evil->fault);
		unsigned len = good_gso_frame(evil, 60000);

		put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
		for (unsigned i = 0; i < front_tx(evil)->size; i++)
			front_push(front_tx(evil), 0);
		front_publish(front_tx(evil));
		front_force_kick(front_tx(evil));
		mate_sends(mate, round);
		mate_receives(mate);
		close(evil->socket);
		evil->socket = -1;
	}
}

/* A second front end while the first is there must not disturb it. */
static void second_front_end(struct front *evil, struct front *mate)
{
	static struct front second;
	struct front_config config = evil->config;
	unsigned len;

	front_close(evil);
	if (front_open(evil, &config) || front_allocate(&second, &config))
		broken_test("evil: %s", evil->fault);
	for (unsigned i = 0; i < 3; i++) {
		second.fault[0] = 0;
		if (front_connect(&second) == 0)
			front_request(&second, VU_SET_OWNER, NULL, 0, NULL, 0);
	}
	len = good_frame(evil);
	for (unsigned i = 0; i < 100; i++) {
		put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
		offer(front_tx(evil), 0);
		if (!all_used(front_tx(evil), 2000))
			broken_test("a second front end took the first one's device");
	}
	mate_receives(mate);
	front_close(&second);
}

#define RAW .raw = true

const struct scenario message_scenarios[] = {
	{ "message-garbage", garbage, RAW },
	{ "message-partial", partial, RAW },
	{ "message-drip", drip, RAW },
	{ "message-oversized", oversized, RAW },
	{ "message-wrong-version", wrong_version, RAW },
	{ "message-every-request", every_request, RAW },
	{ "message-unknown", unknown, RAW },
	{ "message-unread-answers", unread_answers, RAW },
	{ "message-ask-and-leave", ask_and_leave, RAW },
	{ "message-ring-numbers", ring_numbers, RAW },
	{ "message-ring-sizes", ring_sizes, RAW },
	{ "message-ring-addresses", ring_addresses, RAW },
	{ "message-random-order", random_order, RAW },
	{ "message-features", features, RAW },
	{ "message-logs", logs, RAW },
	{ "message-leave-in-flight", leave_in_flight, RAW },
	{ "message-second-front-end", second_front_end, RAW },
	{ 0 },
};
