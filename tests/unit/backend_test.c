/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The port of a guest channel: counting, choosing a pair, locking, doorbells.
 *
 *      port_ops (this file is the bridge) --> backend.c --> struct fake_channel (pairs with room)
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fake.h"
#include "guest/channel.h"
#include "pkt/headers.h"

enum { PAIRS = 4, POOL = 512, LOG = 256, ROUNDS = 3000 };

struct fake_channel {
	struct channel channel;
	unsigned room[PAIRS];    /* bytes that a pair still takes */
	uint8_t log[PAIRS][LOG]; /* marks of the packets it took, in order */
	unsigned count[PAIRS];
	unsigned calls, kicks[PAIRS];
	unsigned longest; /* burst it was given */
	unsigned asked;   /* pair that was asked for last by recv, arm or disarm */
	bool closed;
	bool linger; /* let others run while inside */
	_Atomic unsigned inside[PAIRS], collisions;
};

static struct fake_channel fake;
static struct port *port = &fake.channel.port;
static struct worker *worker;

static struct fake_channel *fake_of(struct channel *channel)
{
	return (struct fake_channel *)channel;
}

static unsigned channel_guest_tx(struct channel *channel, unsigned pair, struct pkt **pkts,
				 unsigned n)
{
	fake_of(channel)->asked = pair;
	return pkt_pool_get(&worker_self->pool, pkts, n < 3 ? n : 3);
}

/* Nobody else may be at the same pair. */
static void enter(struct fake_channel *self, unsigned pair)
{
	if (self->inside[pair]++)
		self->collisions++;
	if (self->linger)
		sched_yield();
}

static unsigned channel_guest_rx(struct channel *channel, unsigned pair, struct pkt **pkts,
				 unsigned n, uint64_t **why)
{
	struct fake_channel *self = fake_of(channel);
	unsigned i;

	enter(self, pair);
	self->calls++;
	if (n > self->longest)
		self->longest = n;
	for (i = 0; i < n && pkts[i]->len <= self->room[pair]; i++) {
		self->room[pair] -= pkts[i]->len;
		if (self->count[pair] < LOG)
			self->log[pair][self->count[pair]] = pkts[i]->header[5];
		self->count[pair]++;
	}
	if (i < n)
		*why = pkts[i]->len > 9000 ? &port_stats(&channel->port)->drop_too_big
					   : &port_stats(&channel->port)->drop_no_buffers;
	self->inside[pair]--;
	return i;
}

static void channel_kick(struct channel *channel, unsigned pair)
{
	enter(fake_of(channel), pair);
	fake_of(channel)->kicks[pair]++;
	fake_of(channel)->inside[pair]--;
}

static bool channel_arm(struct channel *channel, unsigned pair)
{
	fake_of(channel)->asked = pair;
	return pair % 2;
}

static void channel_disarm(struct channel *channel, unsigned pair)
{
	fake_of(channel)->asked = pair;
}

static void channel_close(struct channel *channel)
{
	fake_of(channel)->closed = true;
}

static const struct channel_ops fake_channel_ops = {
	.kind = "fake",
	.guest_tx = channel_guest_tx,
	.guest_rx = channel_guest_rx,
	.kick = channel_kick,
	.arm = channel_arm,
	.disarm = channel_disarm,
	.close = channel_close,
};

static int set_up(void **state)
{
	worker = fake_worker(POOL);
	memset(&fake, 0, sizeof(fake));
	fake.channel.ops = &fake_channel_ops;
	fake.channel.pairs = 1;
	port->ops = &guest_port_ops;
	port->queues = PAIRS;
	strcpy(port->name, "guest");
	for (unsigned i = 0; i < PAIRS; i++)
		fake.room[i] = UINT32_MAX;
	return port_register(port);
}

static int tear_down(void **state)
{
	worker_complete(worker);
	assert_int_equal(worker->pool.free_count, POOL);
	port_unregister(port);
	fake_worker_free(worker);
	return 0;
}

/* A UDP packet of a flow; mark: its number. */
static struct pkt *make_pkt(uint32_t len, uint8_t mark, uint8_t flow)
{
	struct frame_desc desc = { .ip = 4, .proto = 17, .payload = PKT_HEADER_MAX - 42 };
	static uint8_t bytes[512];
	struct frame frame = { .bytes = bytes };
	struct pkt *pkt, *pkts[1];
	uint64_t seed = 1;

	if (pkt_pool_get(&worker->pool, pkts, 1) != 1)
		abort();
	pkt = pkts[0];
	frame_build(&frame, &desc, &seed);
	frame.bytes[5] = mark;
	frame.bytes[frame.l4] = flow;
	memcpy(pkt->header, frame.bytes, PKT_HEADER_MAX);
	pkt->header_len = PKT_HEADER_MAX;
	pkt->len = len; /* nobody reads what would be behind the headers */
	return pkt;
}

static void send_all(struct pkt **pkts, unsigned n)
{
	port->ops->send(port, pkts, n);
	worker_complete(worker);
}

/* ---- one pair ---- */

static void test_counts_what_is_sent(void **state)
{
	struct pkt *pkts[3] = { make_pkt(200, 1, 0), make_pkt(1500, 2, 0), make_pkt(60000, 3, 0) };

	pkts[2]->offload.gso_type = PKT_GSO_UDP;
	pkts[0]->refs = 2;
	send_all(pkts, 3);
	assert_int_equal(fake.calls, 1);
	assert_memory_equal(fake.log[0], "\1\2\3", 3);
	assert_int_equal(port->stats[0].send_packets, 3);
	assert_int_equal(port->stats[0].send_bytes, 61700);
	assert_int_equal(port->stats[0].send_gso_packets, 1);
	/* One reference each is gone, no more. */
	assert_int_equal(worker->pool.free_count, POOL - 1);
	assert_int_equal(pkts[0]->refs, 1);
	pkt_put(pkts[0]);
}

/*
 * Each packet that does not fit counts once, where the channel says; smaller ones behind it still
 * get in.
 */
static void test_counts_what_is_dropped(void **state)
{
	static const uint32_t lengths[] = { 200, 60000, 300, 2000, 2000, 200, 60000 };
	struct pkt *pkts[7];

	fake.room[0] = 1000;
	for (unsigned i = 0; i < 7; i++)
		pkts[i] = make_pkt(lengths[i], i + 1, 0);
	send_all(pkts, 7);
	assert_int_equal(fake.count[0], 3);
	assert_memory_equal(fake.log[0], "\1\3\6", 3);
	assert_int_equal(port->stats[0].send_packets, 3);
	assert_int_equal(port->stats[0].send_bytes, 700);
	assert_int_equal(port->stats[0].drop_too_big, 2);
	assert_int_equal(port->stats[0].drop_no_buffers, 2);
	assert_int_equal(worker->pool.free_count, POOL);
}

/* More than a burst at once is fine, too; channels are given no more than that. */
static void test_long_bursts(void **state)
{
	struct pkt *pkts[100];

	for (unsigned i = 0; i < 100; i++)
		pkts[i] = make_pkt(200, i, 0);
	send_all(pkts, 100);
	assert_int_equal(fake.count[0], 100);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(fake.log[0][i], i);
	assert_int_equal(port->stats[0].send_packets, 100);
	assert_int_equal(fake.longest, PKT_BURST);
}

static void test_flushes_at_the_end_of_the_round(void **state)
{
	struct pkt *pkt;

	for (unsigned i = 0; i < 3; i++) {
		pkt = make_pkt(200, 1, 0);
		send_all(&pkt, 1);
	}
	assert_int_equal(worker->flush_count, 1);
	assert_ptr_equal(worker->flush[0], port);
	assert_true(port->flush_pending[worker->id]);
	assert_int_equal(fake.kicks[0], 0);
	port->ops->flush(port);
	assert_int_equal(fake.kicks[0], 1);
	assert_int_equal(fake.kicks[1], 0);
}

/* ---- several pairs ---- */

static void test_a_flow_stays_on_its_pair(void **state)
{
	struct pkt *pkts[PKT_BURST];
	unsigned used = 0, next[8] = { 0 };

	/* Eight flows, two packets of each in a row; marks count within the flow. */
	fake.channel.pairs = PAIRS;
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < PKT_BURST; i++) {
			unsigned flow = i / 2 % 8;

			pkts[i] = make_pkt(200, flow << 4 | next[flow]++, flow);
		}
		send_all(pkts, PKT_BURST);
	}
	assert_int_equal(port->stats[0].send_packets, 4 * PKT_BURST);
	memset(next, 0, sizeof(next));
	for (unsigned pair = 0; pair < PAIRS; pair++) {
		used += fake.count[pair] > 0;
		assert_int_equal(fake.count[pair] % 16, 0); /* all of a flow, or nothing */
		for (unsigned i = 0; i < fake.count[pair]; i++) {
			unsigned flow = fake.log[pair][i] >> 4;

			assert_int_equal(fake.log[pair][i] & 0xf, next[flow]++);
		}
	}
	assert_true(used > 1);
	/* Neighbours of one pair go together. */
	assert_true(fake.calls <= 4 * PKT_BURST / 2);

	port->ops->flush(port);
	for (unsigned pair = 0; pair < PAIRS; pair++)
		assert_int_equal(fake.kicks[pair], 1);
}

static void test_uses_the_pairs_in_use(void **state)
{
	struct pkt *pkts[PKT_BURST];

	for (fake.channel.pairs = 1; fake.channel.pairs <= PAIRS; fake.channel.pairs++) {
		memset(fake.count, 0, sizeof(fake.count));
		for (unsigned i = 0; i < PKT_BURST; i++)
			pkts[i] = make_pkt(200, i, i);
		send_all(pkts, PKT_BURST);
		for (unsigned pair = 0; pair < PAIRS; pair++)
			assert_int_equal(fake.count[pair] > 0, pair < fake.channel.pairs);
	}
}

/* ---- the rest of the contract ---- */

static void test_passes_the_queue_on(void **state)
{
	struct pkt *pkts[PKT_BURST];

	for (unsigned queue = 0; queue < PAIRS; queue++) {
		fake.asked = PAIRS;
		assert_int_equal(port->ops->recv(port, queue, pkts, PKT_BURST), 3);
		assert_int_equal(fake.asked, queue);
		pkt_pool_put(&worker->pool, pkts, 3);
		fake.asked = PAIRS;
		assert_int_equal(port->ops->arm(port, queue), queue % 2);
		assert_int_equal(fake.asked, queue);
		fake.asked = PAIRS;
		port->ops->disarm(port, queue);
		assert_int_equal(fake.asked, queue);
	}
	port->ops->close(port);
	assert_true(fake.closed);
}

/* A worker that sends and flushes. */
static void *sender(void *arg)
{
	unsigned id = (uintptr_t)arg;
	struct pkt *pkts[4];

	fake_worker(POOL)->id = id;
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned n = pkt_pool_get(&worker_self->pool, pkts, 4);

		for (unsigned j = 0; j < n; j++) {
			pkts[j]->len = pkts[j]->header_len = 60;
			pkts[j]->hash = 1 + i + j;
		}
		port->ops->send(port, pkts, n);
		port->ops->flush(port);
		worker_complete(worker_self);
	}
	fake_worker_free(worker_self);
	return NULL;
}

/* Several workers send at once: a pair is one worker's at a time. */
static void test_senders_take_turns(void **state)
{
	struct port_stats sum;
	pthread_t threads[3];

	fake.channel.pairs = 2;
	fake.linger = true;
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, sender, (void *)i), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(fake.collisions, 0);
	port_stats_sum(port, &sum);
	assert_int_equal(sum.send_packets + sum.drop_no_buffers, 3 * ROUNDS * 4);
	assert_int_equal(fake.count[0] + fake.count[1], sum.send_packets);
	assert_int_equal(fake.kicks[0], 3 * ROUNDS);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_counts_what_is_sent),
		TEST(test_counts_what_is_dropped),
		TEST(test_long_bursts),
		TEST(test_flushes_at_the_end_of_the_round),
		TEST(test_a_flow_stays_on_its_pair),
		TEST(test_uses_the_pairs_in_use),
		TEST(test_passes_the_queue_on),
		TEST(test_senders_take_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
