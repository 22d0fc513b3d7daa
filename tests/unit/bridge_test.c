/* SPDX-License-Identifier: BSD-3-Clause */
/* The bridge between ports that only remember what they were sent. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bridge/bridge.h"
#include "port/worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h> /* last: it defines fail() */

enum { PORTS = 4, SENT_MAX = 4 * PKT_BURST, NOW = 1000 };

struct fake_port {
	struct port port;
	struct pkt *sent[SENT_MAX];
	unsigned sent_count;
	unsigned calls; /* of send */
};

static struct fake_port *fakes[PORTS];
static struct bridge *bridge;
static struct worker *worker;

static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

static void fake_send(struct port *port, struct pkt **pkts, unsigned n)
{
	struct fake_port *fake = (struct fake_port *)port;

	fake->calls++;
	for (unsigned i = 0; i < n; i++) {
		assert_true(pkts[i]->refs > 0);
		fake->sent[fake->sent_count++] = pkts[i];
		pkt_put(pkts[i]);
		pkts[i] = NULL; /* the list is ours as well */
	}
}

static const struct port_ops fake_ops = { .kind = "fake", .send = fake_send };

static struct fake_port *fake_new(const char *name)
{
	struct fake_port *fake = calloc(1, sizeof(*fake));

	strcpy(fake->port.name, name);
	fake->port.ops = &fake_ops;
	fake->port.mtu = 1500;
	fake->port.queues = 1;
	assert_int_equal(port_register(&fake->port), 0);
	return fake;
}

static void fake_free(struct fake_port *fake)
{
	bridge_remove_port(&fake->port);
	port_unregister(&fake->port);
	free(fake);
}

static int set_up(void **state)
{
	struct error error;

	worker = aligned_alloc(64, sizeof(*worker));
	memset(worker, 0, sizeof(*worker));
	assert_int_equal(pkt_pool_init(&worker->pool, WORKER_POOL_PACKETS), 0);
	worker->done = calloc(WORKER_POOL_PACKETS, sizeof(*worker->done));
	worker->done_spare = calloc(WORKER_POOL_PACKETS, sizeof(*worker->done_spare));
	worker_self = worker;

	bridge_tick(NOW);
	assert_int_equal(bridge_create("br0", 300, 64, &bridge, &error), 0);
	for (unsigned i = 0; i < PORTS; i++) {
		char name[] = { 'p', '0' + i, 0 };

		fakes[i] = fake_new(name);
		assert_int_equal(bridge_add_port(bridge, &fakes[i]->port, &error), 0);
	}
	return 0;
}

static int tear_down(void **state)
{
	for (unsigned i = 0; i < PORTS; i++)
		fake_free(fakes[i]);
	bridge_destroy(bridge);
	/* Nobody has lost a packet. */
	worker_complete(worker);
	assert_int_equal(worker->pool.free_count, worker->pool.capacity);
	pkt_pool_fini(&worker->pool);
	free(worker->done);
	free(worker->done_spare);
	free(worker);
	worker_self = NULL;
	return 0;
}

static const uint8_t *mac_of(unsigned n)
{
	static uint8_t macs[256][6];

	macs[n][0] = 0x52;
	macs[n][5] = n;
	return macs[n];
}

static struct pkt *pkt_new(const struct port *in, const uint8_t *to, const uint8_t *from)
{
	struct pkt *pkt;

	if (pkt_pool_get(&worker->pool, &pkt, 1) != 1)
		abort();
	memset(pkt->header, 0, 60);
	memcpy(pkt->header, to, 6);
	memcpy(pkt->header + 6, from, 6);
	pkt->len = pkt->header_len = 60;
	pkt->in_port = in->id;
	return pkt;
}

/* Forget what has been sent, and let packets go as a worker does after each burst. */
static void next_burst(void)
{
	worker_complete(worker);
	for (unsigned i = 0; i < PORTS; i++)
		fakes[i]->sent_count = fakes[i]->calls = 0;
}

/* One packet in on port; how many came out, a digit for each port: 101 is on ports 2 and 0. */
static unsigned forward(unsigned port, const uint8_t *to, const uint8_t *from)
{
	struct pkt *pkt = pkt_new(&fakes[port]->port, to, from);
	unsigned out = 0;

	next_burst();
	bridge_forward(&fakes[port]->port, &pkt, 1);
	for (unsigned i = PORTS; i-- > 0;)
		out = out * 10 + fakes[i]->sent_count;
	return out;
}

static struct port_stats stats_of(unsigned port)
{
	struct port_stats sum;

	port_stats_sum(&fakes[port]->port, &sum);
	return sum;
}

static void test_floods_until_learned(void **state)
{
	assert_int_equal(forward(0, mac_of(2), mac_of(1)), 1110);
	assert_int_equal(stats_of(0).flooded_packets, 1);
	assert_int_equal(forward(1, mac_of(1), mac_of(2)), 1);
	assert_int_equal(forward(0, mac_of(2), mac_of(1)), 10);
	assert_int_equal(stats_of(0).flooded_packets, 1);
}

static void test_broadcast_and_multicast_flood(void **state)
{
	static const uint8_t multicast[6] = { 0x33, 0x33, 0, 0, 0, 1 };

	assert_int_equal(forward(2, broadcast, mac_of(1)), 1011);
	assert_int_equal(forward(2, multicast, mac_of(1)), 1011);
}

static void test_flooded_packet_is_shared(void **state)
{
	struct pkt *pkts[2] = { pkt_new(&fakes[0]->port, broadcast, mac_of(1)),
				pkt_new(&fakes[0]->port, broadcast, mac_of(1)) };
	struct pkt *first = pkts[0];

	bridge_forward(&fakes[0]->port, pkts, 2);
	for (unsigned i = 1; i < PORTS; i++) {
		assert_int_equal(fakes[i]->calls, 1);
		assert_int_equal(fakes[i]->sent_count, 2);
		assert_ptr_equal(fakes[i]->sent[0], first);
	}
	assert_int_equal(first->refs, 0);
	assert_int_equal(worker->done_count, 2);
}

static void test_each_destination_is_served_once_and_in_order(void **state)
{
	struct pkt *pkts[PKT_BURST], *sent[PKT_BURST];

	for (unsigned i = 1; i < PORTS; i++)
		forward(i, broadcast, mac_of(i));
	next_burst();
	for (unsigned i = 0; i < PKT_BURST; i++)
		sent[i] = pkts[i] = pkt_new(&fakes[0]->port, mac_of(1 + i % 3), mac_of(10));
	bridge_forward(&fakes[0]->port, pkts, PKT_BURST);
	for (unsigned port = 1; port < PORTS; port++) {
		assert_int_equal(fakes[port]->calls, 1);
		for (unsigned i = 0; i < fakes[port]->sent_count; i++)
			assert_ptr_equal(fakes[port]->sent[i], sent[3 * i + port - 1]);
	}
	assert_int_equal(fakes[1]->sent_count + fakes[2]->sent_count + fakes[3]->sent_count,
			 PKT_BURST);
}

static void test_drops_are_counted_where_they_came_in(void **state)
{
	static const uint8_t reserved[6] = { 0x01, 0x80, 0xc2, 0, 0, 0x0e };
	static const uint8_t not_reserved[6] = { 0x01, 0x80, 0xc2, 0, 0, 0x10 };
	static const uint8_t zero[6] = { 0 };

	for (unsigned repeat = 1; repeat <= 3; repeat++) {
		assert_int_equal(forward(0, mac_of(9), broadcast), 0);
		assert_int_equal(stats_of(0).drop_bad_source, 2 * repeat - 1);
		assert_int_equal(forward(0, mac_of(9), zero), 0);
		assert_int_equal(stats_of(0).drop_bad_source, 2 * repeat);
		assert_int_equal(forward(0, reserved, mac_of(1)), 0);
		assert_int_equal(stats_of(0).drop_reserved_group, repeat);
		assert_int_equal(forward(0, not_reserved, mac_of(1)), 1110);
		assert_int_equal(forward(0, mac_of(1), mac_of(3)), 0);
		assert_int_equal(stats_of(0).drop_same_port, repeat);
	}
	assert_int_equal(bridge->fdb.used, 2); /* nothing learned from the bad ones */
}

static void test_nowhere_to_go(void **state)
{
	struct pkt *pkt;

	for (unsigned i = 1; i < PORTS; i++)
		bridge_remove_port(&fakes[i]->port);
	assert_int_equal(forward(0, broadcast, mac_of(1)), 0);
	assert_int_equal(stats_of(0).drop_nowhere, 1);
	bridge_remove_port(&fakes[0]->port);
	pkt = pkt_new(&fakes[0]->port, broadcast, mac_of(1));
	bridge_forward(&fakes[0]->port, &pkt, 1);
	assert_int_equal(stats_of(0).drop_nowhere, 2);
}

static void test_isolated_ports_talk_to_uplinks_only(void **state)
{
	fakes[0]->port.isolated = fakes[1]->port.isolated = true;
	fakes[3]->port.uplink = true;
	bridge_settings_changed();

	/* Flooding skips whom one may not talk to. */
	assert_int_equal(forward(0, broadcast, mac_of(0)), 1000);
	assert_int_equal(forward(1, broadcast, mac_of(1)), 1000);
	assert_int_equal(forward(2, broadcast, mac_of(2)), 1000);
	assert_int_equal(forward(3, broadcast, mac_of(3)), 111);
	/* Known addresses: isolated to isolated, to and from others; and the uplink. */
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 0);
	assert_int_equal(forward(0, mac_of(2), mac_of(0)), 0);
	assert_int_equal(stats_of(0).drop_isolated, 2);
	assert_int_equal(forward(2, mac_of(0), mac_of(2)), 0);
	assert_int_equal(stats_of(2).drop_isolated, 1);
	assert_int_equal(forward(0, mac_of(3), mac_of(0)), 1000);
	assert_int_equal(forward(3, mac_of(0), mac_of(3)), 1);
	/* A flow that runs notices the change. */
	fakes[0]->port.isolated = false;
	bridge_settings_changed();
	assert_int_equal(forward(0, mac_of(2), mac_of(0)), 100);
	assert_int_equal(forward(2, mac_of(0), mac_of(2)), 1);
}

static void test_spoofed_source(void **state)
{
	memcpy(fakes[0]->port.mac, mac_of(7), 6);
	fakes[0]->port.has_mac = true;
	assert_int_equal(forward(0, broadcast, mac_of(8)), 1110);
	fakes[0]->port.spoof_strict = true;
	bridge_settings_changed();
	assert_int_equal(forward(0, broadcast, mac_of(8)), 0);
	assert_int_equal(forward(0, broadcast, mac_of(7)), 1110);
	assert_int_equal(stats_of(0).drop_spoofed, 1);
}

static void test_configured_mac_is_pinned(void **state)
{
	struct fake_port *guest = fake_new("guest"), *thief = fake_new("thief");
	struct error error;

	memcpy(guest->port.mac, mac_of(7), 6);
	memcpy(thief->port.mac, mac_of(7), 6);
	guest->port.has_mac = thief->port.has_mac = true;
	assert_int_equal(bridge_add_port(bridge, &guest->port, &error), 0);
	assert_int_equal(bridge_add_port(bridge, &guest->port, &error), -EBUSY);
	assert_int_equal(bridge_add_port(bridge, &thief->port, &error), -EEXIST);
	assert_non_null(strstr(error.text, "thief"));
	assert_null(thief->port.bridge);

	/* Known before it has said a word, and nobody takes it away. */
	forward(1, mac_of(7), mac_of(1));
	assert_int_equal(guest->sent_count, 1);
	forward(2, broadcast, mac_of(7));
	assert_int_equal(guest->sent_count, 2);
	forward(1, mac_of(7), mac_of(1));
	assert_int_equal(guest->sent_count, 3);
	fake_free(guest);
	fake_free(thief);
	assert_int_equal(mac_table_lookup(&bridge->fdb, mac_of(7), NOW, 0), 0);
}

static void test_flow_follows_a_station_that_moves(void **state)
{
	forward(1, broadcast, mac_of(1));
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 10);
	assert_int_equal(forward(2, broadcast, mac_of(1)), 1011);
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 100);
}

static void test_flow_notices_the_operators_entries(void **state)
{
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 1110);
	mac_table_add_static(&bridge->fdb, mac_of(1), fakes[3]->port.id);
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 1000);
	mac_table_delete(&bridge->fdb, mac_of(1));
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 1110);
}

/* A flow refreshes its source though it is cached, and its destination ages though it is. */
static void test_flow_and_ageing(void **state)
{
	forward(1, broadcast, mac_of(1));
	for (unsigned sec = 0; sec <= 300; sec++) {
		bridge_tick(NOW + sec);
		assert_int_equal(forward(0, mac_of(1), mac_of(0)), 10);
	}
	bridge_tick(NOW + 301);
	assert_int_equal(bridge->fdb.used, 1);
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 1110);
	assert_int_equal(mac_table_lookup(&bridge->fdb, mac_of(0), NOW + 600, 300),
			 fakes[0]->port.id);
}

static void test_removed_port_is_forgotten(void **state)
{
	struct error error;

	forward(1, broadcast, mac_of(1));
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 10);
	bridge_remove_port(&fakes[1]->port);
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 1100);
	assert_int_equal(bridge_add_port(bridge, &fakes[1]->port, &error), 0);
	assert_int_equal(forward(0, mac_of(1), mac_of(0)), 1110);
}

static void test_bridges_are_separate(void **state)
{
	struct bridge *other;
	struct error error;

	assert_int_equal(bridge_create("br0", 0, 0, &other, &error), -EEXIST);
	assert_int_equal(bridge_create("br1", 0, 0, &other, &error), 0);
	assert_int_equal(other->ageing_sec, 300);
	assert_ptr_equal(bridge_by_name("br1"), other);
	assert_ptr_equal(bridge_next(NULL), bridge);
	assert_ptr_equal(bridge_next(bridge), other);
	assert_null(bridge_next(other));

	for (unsigned i = 2; i < PORTS; i++) {
		bridge_remove_port(&fakes[i]->port);
		assert_int_equal(bridge_add_port(other, &fakes[i]->port, &error), 0);
	}
	assert_int_equal(forward(0, broadcast, mac_of(1)), 10);
	assert_int_equal(forward(2, mac_of(1), mac_of(2)), 1000); /* unknown here */
	assert_int_equal(forward(1, mac_of(1), mac_of(2)), 1);
	for (unsigned i = 2; i < PORTS; i++)
		bridge_remove_port(&fakes[i]->port);
	bridge_destroy(other);
	assert_null(bridge_by_name("br1"));
}

/* More flows at once than the cache has places for: none gets another's verdict. */
static void test_many_flows(void **state)
{
	static const unsigned expected[PORTS] = { 0, 10, 100, 1000 };

	for (unsigned i = 0; i < 12; i++)
		forward(1 + i % 3, broadcast, mac_of(i));
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(forward(0, mac_of(i % 12), mac_of(100 + i % 7)),
				 expected[1 + i % 12 % 3]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_floods_until_learned),
		TEST(test_broadcast_and_multicast_flood),
		TEST(test_flooded_packet_is_shared),
		TEST(test_each_destination_is_served_once_and_in_order),
		TEST(test_drops_are_counted_where_they_came_in),
		TEST(test_nowhere_to_go),
		TEST(test_isolated_ports_talk_to_uplinks_only),
		TEST(test_spoofed_source),
		TEST(test_configured_mac_is_pinned),
		TEST(test_flow_follows_a_station_that_moves),
		TEST(test_flow_notices_the_operators_entries),
		TEST(test_flow_and_ageing),
		TEST(test_removed_port_is_forgotten),
		TEST(test_bridges_are_separate),
		TEST(test_many_flows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
