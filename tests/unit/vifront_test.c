/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libvifront as a program sees it, linked as a program links it, against a vifd of the test's own
 * over a real socket (fake_snet.h). After each test no descriptor and no mapping is left over.
 */
#include "fake_snet.h"

#include <dirent.h>
#include <poll.h>
#include <time.h>

#include <vifront.h>

static struct fake_vifd fake;
static struct vifront *front;
static char path[64];
static unsigned fds_before, maps_before;

static unsigned count_lines(const char *file, const char *with)
{
	FILE *lines = fopen(file, "re");
	unsigned count = 0;
	char line[512];

	while (fgets(line, sizeof(line), lines))
		count += strstr(line, with) != NULL;
	fclose(lines);
	return count;
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static int set_up(void **state)
{
	snprintf(path, sizeof(path), "/tmp/vifront-test-%d.sock", getpid());
	fake = (struct fake_vifd){ 0 };
	front = NULL;
	fds_before = count_fds();
	maps_before = count_lines("/proc/self/maps", "memfd:");
	return 0;
}

static int tear_down(void **state)
{
	vifront_close(front);
	fake_die(&fake);
	assert_int_equal(count_fds(), fds_before);
	assert_int_equal(count_lines("/proc/self/maps", "memfd:"), maps_before);
	return 0;
}

static void open_front(const struct vifront_options *options)
{
	struct vifront_error error = { "" };

	fake_start(&fake, path);
	if (vifront_open(&front, path, options, &error))
		fail_msg("%s", error.text);
	fake_wait(&fake);
}

/* ---- connecting ---- */

static void test_knows_what_vifd_said(void **state)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 9 };
	const struct vifront_options options = { .takes = 0x15, .send_bytes = 12345 };
	const struct vifront_info *info;

	fake.ring_size = 64;
	fake.stride = 128;
	open_front(&options);
	info = vifront_info(front);
	assert_int_equal(info->queues, FAKE_QUEUES);
	assert_int_equal(info->ring_size, 64);
	assert_int_equal(info->mtu, FAKE_MTU);
	assert_memory_equal(info->mac, mac, 6);
	assert_int_equal(info->shared, 0);
	assert_int_equal(info->offload, 1);
	assert_int_equal(info->send_bufs, 64); /* two zones for two queues */
	assert_int_equal(fake.hello.hello.version, SNET_VERSION);
	assert_int_equal(fake.hello.hello.takes, 0x15);
	assert_int_equal(fake.hello.hello.tx_bytes, 12345);
}

static void expect_failure(int code, const char *sentence)
{
	const struct vifront_options options = { .timeout_ms = 200 };
	struct vifront_error error = { "" };

	assert_int_equal(vifront_open(&front, path, &options, &error), code);
	if (!strstr(error.text, sentence))
		fail_msg("'%s' does not say '%s'", error.text, sentence);
	assert_null(front);
}

static void test_says_why_it_cannot_connect(void **state)
{
	char long_path[200] = "";

	memset(long_path, 'x', sizeof(long_path) - 1);
	fake.refuses = "guest 'web' has a front end already";
	fake_start(&fake, path);
	expect_failure(-EPERM, "vifd refuses: guest 'web' has a front end already");
	assert_int_equal(vifront_open(&front, long_path, NULL, NULL), -ENAMETOOLONG);
	fake_die(&fake);
	strcpy(long_path, path);
	expect_failure(-ENOENT, "no vifd is listening there");
	strcpy(path, "/dev/null");
	expect_failure(-ENOTSOCK, "not a socket");
	strcpy(path, long_path);
	fake = (struct fake_vifd){ .silent = true };
	fake_start(&fake, path);
	expect_failure(-ETIMEDOUT, "does not answer");
}

static void spoil_version(struct snet_msg *msg)
{
	msg->welcome.version += msg->type == SNET_WELCOME;
}

static void spoil_size(struct snet_msg *msg)
{
	msg->welcome.ring_size -= msg->type == SNET_WELCOME;
}

static void spoil_queue(struct snet_msg *msg)
{
	if (msg->type == SNET_QUEUE)
		msg->queue.number = 7;
}

static void spoil_zone(struct snet_msg *msg)
{
	if (msg->type == SNET_ZONE)
		msg->zone.id = 1; /* thrice */
}

static void spoil_access(struct snet_msg *msg)
{
	if (msg->type == SNET_ZONE)
		msg->zone.writable = 0;
}

static void spoil_type(struct snet_msg *msg)
{
	if (msg->type == SNET_ZONE)
		msg->type = 99;
}

static void test_understands_no_nonsense(void **state)
{
	static const struct {
		void (*spoil)(struct snet_msg *msg);
		int code;
		const char *sentence;
	} cases[] = {
		{ spoil_version, -EPROTONOSUPPORT, "version 2" },
		{ spoil_size, -EPROTO, "cannot be" },
		{ spoil_queue, -EPROTO, "queue" },
		{ spoil_zone, -EEXIST, "zone 1" },
		{ spoil_access, -EPROTO, "no memory to send from" },
		{ spoil_type, -EPROTO, "unknown type 99" },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake = (struct fake_vifd){ .spoil = cases[i].spoil };
		fake_start(&fake, path);
		expect_failure(cases[i].code, cases[i].sentence);
		fake_die(&fake);
	}
	fake_start(&fake, path);
}

/* However far it got. */
static void test_survives_a_vifd_that_dies_in_the_handshake(void **state)
{
	for (unsigned messages = 1; messages < 2 + FAKE_QUEUES + FAKE_ZONES; messages++) {
		fake = (struct fake_vifd){ .hang_up_after = messages };
		fake_start(&fake, path);
		expect_failure(-ENOTCONN, "hung up");
		fake_die(&fake);
	}
	fake_start(&fake, path);
}

/* ---- sending ---- */

/* Take buffers, each filled with a byte of its own. */
static unsigned take(uint32_t bytes, struct vifront_buf *bufs, unsigned count, uint8_t fill)
{
	int got = vifront_alloc(front, 0, bytes, bufs, count);

	assert_true(got >= 0);
	for (int i = 0; i < got; i++)
		memset(bufs[i].data, fill + i, bufs[i].len);
	return got;
}

static void test_sends_by_reference(void **state)
{
	struct fake_queue *queue = &fake.queues[0];
	struct vifront_buf bufs[3];
	const struct snet_entry *entry;

	open_front(NULL);
	assert_int_equal(take(1, bufs, 1, 'a'), 1);
	assert_int_equal(take(VIFRONT_BUF_LARGE, bufs + 1, 2, 'b'), 2);
	assert_int_equal(bufs[0].len, VIFRONT_BUF_SMALL);
	assert_int_equal(bufs[1].len, VIFRONT_BUF_LARGE);
	bufs[0].data = (uint8_t *)bufs[0].data + 10; /* room in front */
	bufs[0].len = 54;
	bufs[0].flags = VIFRONT_MORE | VIFRONT_CSUM_PARTIAL;
	bufs[0].gso_type = VIFRONT_GSO_TCPV6;
	bufs[0].gso_size = 1400;
	bufs[0].csum_start = 34;
	bufs[0].csum_offset = 16;
	bufs[1].len = 60000;
	bufs[2].len = 64;
	assert_int_equal(vifront_send(front, 0, bufs, 3), 3);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t want[60000];

		entry = fake_take(queue);
		assert_non_null(entry);
		assert_int_equal(entry->len, bufs[i].len);
		assert_int_equal(entry->flags, bufs[i].flags);
		assert_true(entry->offset + entry->len <= FAKE_ZONE);
		memset(want, 'a' + i, sizeof(want));
		assert_memory_equal(fake.zones[entry->zone] + entry->offset, want, entry->len);
		if (i == 0) {
			assert_int_equal(entry->gso_type, VIFRONT_GSO_TCPV6);
			assert_int_equal(entry->gso_size, 1400);
			assert_int_equal(entry->csum_start, 34);
			assert_int_equal(entry->csum_offset, 16);
		}
	}
	assert_null(fake_take(queue));
	assert_int_equal(fake_events(queue->kick), 0); /* it did not sleep */
	snet_want(&queue->rings.control->back, SNET_WANT_ENTRIES);
	assert_int_equal(take(64, bufs, 1, 'a'), 1);
	assert_int_equal(vifront_send(front, 0, bufs, 1), 1);
	assert_int_equal(fake_events(queue->kick), 1);
}

/* What fills the ring waits; what comes back, in any order, is used again and never twice at once. */
static void test_sends_as_much_as_the_ring_holds(void **state)
{
	enum { SIZE = SNET_RING_MIN, EACH = 3, ROUNDS = 1000 };
	struct fake_queue *queue = &fake.queues[0];
	uint32_t out[SIZE], count = 0;
	uint64_t random = 1;

	open_front(NULL);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct vifront_buf bufs[EACH * 4];
		const struct snet_entry *entry;
		unsigned room = (SIZE - count) / EACH * EACH;
		int sent;

		assert_int_equal(take(100, bufs, EACH * 4, 0), EACH * 4);
		for (unsigned i = 0; i < EACH * 4; i++)
			bufs[i].flags = i % EACH < EACH - 1 ? VIFRONT_MORE : 0;
		sent = vifront_send(front, 0, bufs, EACH * 4);
		assert_int_equal(sent, room < EACH * 4 ? room : EACH * 4);
		vifront_free(front, 0, bufs + sent, EACH * 4 - sent);
		while ((entry = fake_take(queue))) {
			for (unsigned i = 0; i < count; i++)
				assert_int_not_equal(out[i], entry->id);
			out[count++] = entry->id;
		}
		for (random = random * 6364136223846793005 + 1; count && random >> 61;
		     random = random * 6364136223846793005 + 1) {
			unsigned which = (random >> 33) % count;

			fake_give_back(queue, out[which]);
			out[which] = out[--count];
		}
	}
	assert_true(queue->tx_given > ROUNDS);
}

static int compare_bufs(const void *a, const void *b)
{
	const struct vifront_buf *one = a, *two = b;

	return (one->data > two->data) - (one->data < two->data);
}

/* All of both queues: no two overlap, all lie in zones to send from, none is missing. */
static void test_buffers_are_apart(void **state)
{
	static struct vifront_buf bufs[5000];
	unsigned count = 0, large;

	open_front(NULL);
	for (unsigned q = 0; q < FAKE_QUEUES; q++) {
		count += vifront_alloc(front, q, VIFRONT_BUF_LARGE, bufs + count, 10);
		large = count;
		count += vifront_alloc(front, q, VIFRONT_BUF_SMALL, bufs + count, 4000);
		assert_int_equal(count - large, 31 * 54);
		assert_int_equal(vifront_alloc(front, q, 1, bufs + count, 1), 0);
		assert_int_equal(vifront_alloc(front, q, 3000, bufs + count, 1), 0);
	}
	for (unsigned i = 0; i < count; i++)
		memset(bufs[i].data, 1, bufs[i].len); /* ASan and the kernel look */
	qsort(bufs, count, sizeof(bufs[0]), compare_bufs);
	for (unsigned i = 1; i < count; i++)
		assert_true((uint8_t *)bufs[i - 1].data + bufs[i - 1].len <=
			    (uint8_t *)bufs[i].data);
}

/* Memory that was used for small frames can be used for large ones again. */
static void test_small_buffers_become_large_again(void **state)
{
	static struct vifront_buf bufs[2000];
	struct vifront_buf large[100];

	open_front(NULL);
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(vifront_alloc(front, 0, 1, bufs, 2000), 31 * 64);
		assert_int_equal(vifront_alloc(front, 0, VIFRONT_BUF_LARGE, large, 1), 0);
		vifront_free(front, 0, bufs, 100);
		vifront_free(front, 0, bufs + 101, 31 * 64 - 101);
		/* one is still held */
		assert_int_equal(vifront_alloc(front, 0, VIFRONT_BUF_LARGE, large, 100), 63);
		assert_int_equal(vifront_alloc(front, 0, 1, bufs, 2000), 30);
		assert_int_equal(vifront_alloc(front, 0, 1, bufs + 30, 1), 0);
		vifront_free(front, 0, bufs, 30);
		vifront_free(front, 0, bufs + 100, 1);
		vifront_free(front, 0, large, 63);
	}
	assert_int_equal(vifront_alloc(front, 0, VIFRONT_BUF_LARGE, large, 100), 63);
	assert_int_equal(vifront_alloc(front, 0, VIFRONT_BUF_LARGE, large + 63, 100), 1);
}

static void test_refuses_what_is_no_frame(void **state)
{
	struct vifront_buf bufs[VIFRONT_FRAME_BUFS + 1], again;

	fake.ring_size = 256;
	open_front(NULL);
	assert_int_equal(vifront_alloc(front, 0, 0, bufs, 1), -EMSGSIZE);
	assert_int_equal(vifront_alloc(front, 0, VIFRONT_BUF_LARGE + 1, bufs, 1), -EMSGSIZE);
	assert_int_equal(vifront_alloc(front, FAKE_QUEUES, 1, bufs, 1), -EINVAL);
	assert_int_equal(take(64, bufs, VIFRONT_FRAME_BUFS + 1, 0), VIFRONT_FRAME_BUFS + 1);
	for (unsigned i = 0; i < VIFRONT_FRAME_BUFS; i++)
		bufs[i].flags = VIFRONT_MORE;
	assert_int_equal(vifront_send(front, 0, bufs, VIFRONT_FRAME_BUFS), -EINVAL);
	assert_int_equal(vifront_send(front, 0, bufs, VIFRONT_FRAME_BUFS + 1), -EINVAL);
	again = bufs[64];
	again.len = VIFRONT_BUF_SMALL + 1;
	assert_int_equal(vifront_send(front, 0, &again, 1), -EINVAL);
	again = bufs[64];
	again.data = (uint8_t *)again.data - 1;
	assert_int_equal(vifront_send(front, 0, &again, 1), -EINVAL);
	again = bufs[64];
	again.len = 0;
	assert_int_equal(vifront_send(front, 0, &again, 1), -EINVAL);
	struct vifront_buf twice[2] = { bufs[64], bufs[64] };

	twice[0].flags = VIFRONT_MORE;
	assert_int_equal(vifront_send(front, 0, twice, 2), -EINVAL);
	assert_null(fake_take(&fake.queues[0])); /* nor half of it */
	assert_int_equal(vifront_send(front, 0, &bufs[64], 1), 1);
	assert_int_equal(vifront_send(front, 0, &bufs[64], 1), -EINVAL); /* it is gone */
	assert_int_equal(vifront_send(front, 0, bufs + 1, VIFRONT_FRAME_BUFS), -EINVAL);
	bufs[63].flags = 0;
	assert_int_equal(vifront_send(front, 0, bufs, VIFRONT_FRAME_BUFS), VIFRONT_FRAME_BUFS);
}

static void test_notices_ids_that_vifd_did_not_have(void **state)
{
	static const uint32_t bad[] = { 5, 1u << 31, UINT32_MAX };
	struct vifront_buf bufs[2];

	for (unsigned i = 0; i < 4; i++) {
		open_front(NULL);
		assert_int_equal(take(64, bufs, 2, 0), 2);
		assert_int_equal(vifront_send(front, 0, bufs, 2), 2);
		fake_give_back(&fake.queues[0], i < 3 ? bad[i] : bufs[0].id);
		if (i == 3)
			fake_give_back(&fake.queues[0], bufs[0].id);
		assert_int_equal(vifront_send(front, 0, bufs, 1), -EPROTO);
		assert_non_null(strstr(vifront_why(front), "gave back"));
		assert_int_equal(vifront_recv(front, 0, bufs, 2), -EPROTO);
		vifront_close(front);
		front = NULL;
		fake_die(&fake);
	}
	fake_start(&fake, path);
}

/* ---- receiving ---- */

static struct snet_entry rx_entry(uint32_t offset, uint32_t len, uint8_t flags, uint32_t id)
{
	return (struct snet_entry){
		.zone = FAKE_RX_ZONE, .offset = offset, .len = len, .flags = flags, .id = id
	};
}

static void test_receives_by_reference(void **state)
{
	struct fake_queue *queue = &fake.queues[1];
	struct vifront_buf bufs[8];
	struct snet_entry entry = rx_entry(4096, 1000, SNET_MORE | SNET_CSUM_PARTIAL, 70);
	uint32_t id;

	open_front(NULL);
	memset(fake.zones[FAKE_RX_ZONE] + 4096, 'x', 1000);
	memset(fake.zones[FAKE_RX_ZONE] + FAKE_ZONE - 10, 'y', 10);
	entry.gso_type = VIFRONT_GSO_TCPV4;
	entry.gso_size = 500;
	entry.csum_start = 34;
	entry.csum_offset = 16;
	fake_put(queue, entry);
	fake_put(queue, rx_entry(FAKE_ZONE - 10, 10, 0, 71));
	fake_put(queue, rx_entry(0, 64, SNET_CSUM_VALID, UINT32_MAX));
	assert_int_equal(vifront_recv(front, 1, bufs, 8), 0);
	fake_publish(queue);
	assert_int_equal(vifront_recv(front, 0, bufs, 8), 0);
	assert_int_equal(vifront_recv(front, 1, bufs, 1), -EMSGSIZE);
	assert_int_equal(vifront_recv(front, 1, bufs, 2), 2);
	assert_int_equal(vifront_recv(front, 1, bufs + 2, 6), 1);
	assert_int_equal(vifront_recv(front, 1, bufs + 3, 5), 0);
	assert_int_equal(bufs[0].len, 1000);
	assert_int_equal(bufs[0].flags, VIFRONT_MORE | VIFRONT_CSUM_PARTIAL);
	assert_int_equal(bufs[0].gso_type, VIFRONT_GSO_TCPV4);
	assert_int_equal(bufs[0].gso_size, 500);
	assert_int_equal(bufs[0].csum_start, 34);
	assert_int_equal(bufs[0].csum_offset, 16);
	assert_memory_equal(bufs[0].data, fake.zones[FAKE_RX_ZONE] + 4096, 1000);
	assert_memory_equal(bufs[1].data, "yyyyyyyyyy", 10);
	assert_int_equal(bufs[2].flags, VIFRONT_CSUM_VALID);

	assert_false(fake_got_back(queue, &id));
	vifront_release(front, 1, bufs + 2, 1);
	assert_true(fake_got_back(queue, &id) && id == UINT32_MAX);
	snet_want(&queue->rings.control->back, SNET_WANT_DONE);
	vifront_release(front, 1, bufs, 2);
	assert_true(fake_got_back(queue, &id) && id == 70);
	assert_true(fake_got_back(queue, &id) && id == 71);
	assert_false(fake_got_back(queue, &id));
	assert_int_equal(fake_events(queue->kick), 1);
}

/* Many times round the rings. */
static void test_receives_in_order(void **state)
{
	struct fake_queue *queue = &fake.queues[0];
	uint32_t put = 0, got = 0, back = 0, id;
	struct vifront_buf bufs[5];

	open_front(NULL);
	while (back < 10000) {
		for (; put - back < SNET_RING_MIN; put++)
			fake_put(queue, rx_entry(put % 1000 * 64, 60 + put % 4, 0, put));
		fake_publish(queue);
		for (int i = 0, n = vifront_recv(front, 0, bufs, 1 + put % 5); i < n; i++, got++) {
			assert_int_equal(bufs[i].len, 60 + got % 4);
			vifront_release(front, 0, &bufs[i], 1);
		}
		while (fake_got_back(queue, &id))
			assert_int_equal(id, back++);
		assert_int_equal(back, got);
	}
}

/* A zone that is announced while the rings run, and one that goes. */
static void test_zones_come_and_go(void **state)
{
	struct snet_msg gone = { .type = SNET_ZONE_GONE, .zone = { 4100 } };
	struct snet_msg zone = { .type = SNET_ZONE, .zone = { 4100, 0 } };
	struct fake_queue *queue = &fake.queues[0];
	struct snet_entry entry = rx_entry(0, 64, 0, 0);
	struct vifront_buf buf;

	open_front(NULL);
	entry.zone = 4100;
	assert_true(fake_say(&fake, zone, &fake.zone_fds[FAKE_RX_ZONE], 1));
	fake_put(queue, entry);
	fake_publish(queue);
	assert_int_equal(vifront_recv(front, 0, &buf, 1), 1);
	assert_memory_equal(buf.data, fake.zones[FAKE_RX_ZONE], 64);
	vifront_release(front, 0, &buf, 1);
	assert_true(fake_say(&fake, gone, NULL, 0));
	assert_int_equal(vifront_attend(front), 0);
	fake_put(queue, entry);
	fake_publish(queue);
	assert_int_equal(vifront_recv(front, 0, &buf, 1), -EPROTO);
	assert_non_null(strstr(vifront_why(front), "zone 4100"));
}

static void test_follows_no_entry_out_of_its_zone(void **state)
{
	static const uint32_t places[][3] = {
		{ 0, 0, 1 },
		{ 99, 0, 1 },
		{ FAKE_RX_ZONE, FAKE_ZONE - 1, 2 },
		{ FAKE_RX_ZONE, FAKE_ZONE, 0 },
		{ FAKE_RX_ZONE, UINT32_MAX, 2 },
		{ FAKE_RX_ZONE, 1, UINT32_MAX },
	};
	struct vifront_buf buf;

	for (unsigned i = 0; i <= sizeof(places) / sizeof(places[0]) + 1; i++) {
		open_front(NULL);
		if (i > sizeof(places) / sizeof(places[0])) {
			fake_put(&fake.queues[0], rx_entry(0, 64, SNET_MORE, 0)); /* and no end */
		} else if (i < sizeof(places) / sizeof(places[0])) {
			struct snet_entry entry = rx_entry(places[i][1], places[i][2], 0, 0);

			entry.zone = places[i][0];
			fake_put(&fake.queues[0], entry);
		} else {
			fake.queues[0].rx_produced = SNET_RING_MIN + 1;
		}
		fake_publish(&fake.queues[0]);
		assert_int_equal(vifront_recv(front, 0, &buf, 1), -EPROTO);
		vifront_close(front);
		front = NULL;
		fake_die(&fake);
	}
	fake_start(&fake, path);
}

/* ---- waiting ---- */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void test_waits_for_what_it_was_told(void **state)
{
	struct fake_queue *queue = &fake.queues[0];
	struct vifront_buf bufs[SNET_RING_MIN + 1];
	uint64_t begin = now_ms();

	open_front(NULL);
	assert_int_equal(vifront_wait(front, 0, VIFRONT_RECV, 30), 0);
	assert_true(now_ms() - begin >= 30);
	assert_int_equal(vifront_wait(front, 0, VIFRONT_RECV | VIFRONT_SEND, -1), VIFRONT_SEND);
	assert_int_equal(take(64, bufs, SNET_RING_MIN + 1, 0), SNET_RING_MIN + 1);
	assert_int_equal(vifront_send(front, 0, bufs, SNET_RING_MIN + 1), SNET_RING_MIN);
	assert_int_equal(vifront_wait(front, 0, VIFRONT_SEND, 10), 0);
	fake_give_back(queue, fake_take(queue)->id);
	assert_int_equal(fake_events(queue->call), 0); /* nobody slept */
	assert_int_equal(vifront_wait(front, 0, VIFRONT_SEND, -1), VIFRONT_SEND);
	assert_int_equal(vifront_send(front, 0, bufs + SNET_RING_MIN, 1), 1);
	fake_put(queue, rx_entry(0, 64, 0, 0));
	fake_publish(queue);
	assert_int_equal(vifront_wait(front, 0, VIFRONT_SEND, 10), 0);
	assert_int_equal(vifront_wait(front, 0, VIFRONT_SEND | VIFRONT_RECV, -1), VIFRONT_RECV);
	assert_int_equal(vifront_recv(front, 0, bufs, 1), 1);
	/* An event loop's way. */
	assert_int_equal(vifront_arm(front, 0, VIFRONT_RECV), 0);
	fake_give_back(queue, fake_take(queue)->id);
	assert_int_equal(poll(&(struct pollfd){ vifront_event_fd(front, 0), POLLIN }, 1, 0), 0);
	fake_put(queue, rx_entry(0, 64, 0, 0));
	fake_publish(queue);
	assert_int_equal(poll(&(struct pollfd){ vifront_event_fd(front, 0), POLLIN }, 1, 0), 1);
	vifront_disarm(front, 0);
	assert_int_equal(poll(&(struct pollfd){ vifront_event_fd(front, 0), POLLIN }, 1, 0), 0);
	assert_int_equal(vifront_arm(front, 0, VIFRONT_RECV), VIFRONT_RECV);
}

/* Sends back what comes, and sleeps as vifd does. */
static void *reflect(void *arg)
{
	struct fake_queue *queue = arg;
	struct snet_control *control = queue->rings.control;

	for (;;) {
		const struct snet_entry *entry = fake_take(queue);
		uint32_t id;

		while (fake_got_back(queue, &id))
			;
		if (entry && entry->len == 1)
			return NULL;
		if (entry) {
			uint32_t to = ((queue - fake.queues) * 1024 + entry->id % 1024) * 64;

			memcpy(fake.zones[FAKE_RX_ZONE] + to,
			       fake.zones[entry->zone] + entry->offset, 64);
			fake_give_back(queue, entry->id);
			fake_put(queue, rx_entry(to, 64, 0, 0));
			fake_publish(queue);
			continue;
		}
		snet_want(&control->back, SNET_WANT_ENTRIES | SNET_WANT_DONE);
		if (snet_look(&control->front.produced) == queue->tx_taken &&
		    snet_look(&control->front.given_back) == queue->rx_back)
			poll(&(struct pollfd){ queue->kick, POLLIN }, 1, -1);
		snet_want(&control->back, 0);
		fake_events(queue->kick);
	}
}

struct caller {
	unsigned queue;
	uint32_t trips;
};

/* Send, wait for the answer, look at it; sometimes two on their way. */
static void *call(void *arg)
{
	struct caller *caller = arg;
	unsigned q = caller->queue;
	uint32_t sent = 0, got = 0, word;

	while (got < caller->trips) {
		struct vifront_buf bufs[4];
		int n = vifront_alloc(front, q, 64, bufs, 1 + got % 3 / 2);

		for (int i = 0; i < n; i++) {
			bufs[i].len = 64;
			memcpy(bufs[i].data, &sent, sizeof(sent));
			sent++;
		}
		if (n < 0 || vifront_send(front, q, bufs, n) != n)
			return "send";
		while (got < sent) {
			if (vifront_wait(front, q, VIFRONT_RECV, 10000) != VIFRONT_RECV)
				return "wait";
			n = vifront_recv(front, q, bufs, 4);
			for (int i = 0; i < n; i++) {
				memcpy(&word, bufs[i].data, sizeof(word));
				if (word != got++)
					return "content";
			}
			vifront_release(front, q, bufs, n);
		}
	}
	return NULL;
}

/* Both ends sleep between packets; a lost wake-up is a time-out. A thread for each queue. */
static void test_loses_no_wake_up(void **state)
{
	pthread_t reflectors[FAKE_QUEUES], callers[FAKE_QUEUES];
	struct caller what[FAKE_QUEUES];

	open_front(NULL);
	for (unsigned q = 0; q < FAKE_QUEUES; q++) {
		what[q] = (struct caller){ q, 20000 };
		pthread_create(&reflectors[q], NULL, reflect, &fake.queues[q]);
		pthread_create(&callers[q], NULL, call, &what[q]);
	}
	for (unsigned q = 0; q < FAKE_QUEUES; q++) {
		struct vifront_buf last;
		void *failed;

		pthread_join(callers[q], &failed);
		if (failed)
			fail_msg("queue %u: %s", q, (const char *)failed);
		assert_int_equal(vifront_alloc(front, q, 1, &last, 1), 1);
		last.len = 1;
		assert_int_equal(vifront_send(front, q, &last, 1), 1);
		pthread_join(reflectors[q], NULL);
	}
}

/* ---- vifd goes, and comes back ---- */

static void *hang_up_soon(void *arg)
{
	usleep(20000);
	shutdown(fake.sock, SHUT_RDWR);
	return NULL;
}

static void test_notices_that_vifd_has_gone(void **state)
{
	struct vifront_buf held, received, buf;
	pthread_t thread;
	int got;

	for (unsigned way = 0; way < 3; way++) {
		open_front(NULL);
		assert_int_equal(take(64, &held, 1, 0), 1);
		fake_put(&fake.queues[0], rx_entry(0, 64, 0, 0));
		fake_publish(&fake.queues[0]);
		assert_int_equal(vifront_recv(front, 0, &received, 1), 1);
		pthread_create(&thread, NULL, hang_up_soon, NULL);
		if (way == 0) {
			assert_int_equal(vifront_wait(front, 0, VIFRONT_RECV, -1), -ENOTCONN);
		} else if (way == 1) {
			while ((got = vifront_recv(front, 0, &buf, 1)) == 0)
				;
			assert_int_equal(got, -ENOTCONN);
		} else {
			poll(&(struct pollfd){ vifront_socket_fd(front), POLLIN }, 1, -1);
			assert_int_equal(vifront_attend(front), -ENOTCONN);
		}
		pthread_join(thread, NULL);
		fake_die(&fake);
		assert_string_equal(vifront_why(front), "vifd has gone");
		assert_int_equal(vifront_recv(front, 0, &buf, 1), -ENOTCONN);
		assert_int_equal(vifront_send(front, 0, &held, 1), -ENOTCONN);
		assert_int_equal(vifront_alloc(front, 0, 64, &buf, 1), -ENOTCONN);
		assert_int_equal(vifront_wait(front, 0, VIFRONT_SEND, -1), -ENOTCONN);
		assert_int_equal(vifront_arm(front, 0, VIFRONT_SEND), -ENOTCONN);
		vifront_disarm(front, 0);
		vifront_release(front, 0, &received, 1);
		vifront_free(front, 0, &held, 1);
		memset(held.data, 7, 64); /* memory stays until it is reopened */
		vifront_close(front);
		front = NULL;
	}
	fake_start(&fake, path);
}

static void test_begins_anew(void **state)
{
	struct vifront_error error = { "" };
	struct vifront_buf buf;

	open_front(NULL);
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(take(64, &buf, 1, 'a' + round), 1);
		assert_int_equal(vifront_send(front, 0, &buf, 1), 1);
		fake_die(&fake);
		assert_int_equal(vifront_wait(front, 0, VIFRONT_RECV, 1000), -ENOTCONN);
		assert_int_equal(vifront_reopen(front, &error), -ENOENT);
		assert_non_null(strstr(error.text, path));
		assert_string_equal(vifront_why(front), error.text);
		assert_int_equal(vifront_recv(front, 0, &buf, 1), -ENOTCONN);
		assert_int_equal(vifront_wait(front, 0, VIFRONT_RECV, -1), -ENOTCONN);
		assert_int_equal(vifront_attend(front), -ENOTCONN);
		assert_int_equal(vifront_info(front)->queues, 0);
		fake.ring_size = 32 << round;
		fake_start(&fake, path);
		assert_int_equal(vifront_reopen(front, &error), 0);
		assert_int_equal(vifront_info(front)->ring_size, 32 << round);
		assert_string_equal(vifront_why(front), "connected");
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_knows_what_vifd_said),
		TEST(test_says_why_it_cannot_connect),
		TEST(test_understands_no_nonsense),
		TEST(test_survives_a_vifd_that_dies_in_the_handshake),
		TEST(test_sends_by_reference),
		TEST(test_sends_as_much_as_the_ring_holds),
		TEST(test_buffers_are_apart),
		TEST(test_small_buffers_become_large_again),
		TEST(test_refuses_what_is_no_frame),
		TEST(test_notices_ids_that_vifd_did_not_have),
		TEST(test_receives_by_reference),
		TEST(test_receives_in_order),
		TEST(test_zones_come_and_go),
		TEST(test_follows_no_entry_out_of_its_zone),
		TEST(test_waits_for_what_it_was_told),
		TEST(test_loses_no_wake_up),
		TEST(test_notices_that_vifd_has_gone),
		TEST(test_begins_anew),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
