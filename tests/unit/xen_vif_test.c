/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The handshake of Xen's virtual interfaces: what we do about what the toolstack and a front end
 * write to the store.
 *
 *      this file (toolstack and netfront) --fake_xen.h's store-- xen_backend.c, xen_vif.c --> ports
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include "fake_front.h"
#include "guest/xen_backend.h"
#include "sys/log.h"
#include "sys/loop.h"

enum { POOL = 128, QUEUES = 4 };

#define BACK  "backend/vif/1/0"
#define FRONT "/local/domain/1/device/vif/0"

static struct worker *worker;
static struct fake_front front;
static unsigned joined, left;
static char joined_to[32];
static bool refuse;

static void leave(struct port *port)
{
	left++;
	port->ops->close(port);
}

static int join(struct port *port, const char *bridge, struct error *error)
{
	snprintf(joined_to, sizeof(joined_to), "%s", bridge ? bridge : "");
	if (refuse) {
		port->ops->close(port);
		return fail(error, -ENOENT, "no such bridge");
	}
	joined++;
	return 0;
}

#include <cmocka.h> /* last: it has a macro fail() */

/* ---- the store ---- */

static void put(const char *dir, const char *key, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, key);
	fake_put(path, value);
}

static void put_number(const char *dir, const char *key, unsigned value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	put(dir, key, text);
}

static int number(const char *dir, const char *key)
{
	char path[128];
	const struct fake_node *node;

	snprintf(path, sizeof(path), "%s/%s", dir, key);
	node = fake_node(path);
	return node ? atoi(node->value) : -1;
}

static void quit(void *arg)
{
	loop_quit();
}

/* Let the back end see what has changed. */
static void settle(void)
{
	loop_add_timer(1, quit, NULL);
	loop_run();
}

/* What xl does for a new interface. */
static void make_vif(void)
{
	put(FRONT, "state", "1");
	put(FRONT, "backend-id", "0");
	put(BACK, "frontend", FRONT);
	put(BACK, "frontend-id", "1");
	put(BACK, "online", "1");
	put(BACK, "state", "1");
	put(BACK, "mac", "00:16:3e:01:02:03");
	put(BACK, "bridge", "xenbr0");
	put(BACK, "handle", "0");
	settle();
}

/* What netfront does: keys of one queue, or of several. */
static void front_connects(unsigned queues)
{
	put(FRONT, "request-rx-copy", "1");
	put(FRONT, "feature-rx-notify", "1");
	put(FRONT, "feature-sg", "1");
	put(FRONT, "feature-gso-tcpv4", "1");
	put(FRONT, "feature-gso-tcpv6", "1");
	put(FRONT, "feature-ipv6-csum-offload", "1");
	put_number(FRONT, "multi-queue-num-queues", queues);
	for (unsigned i = 0; i < queues; i++) {
		char dir[64];

		snprintf(dir, sizeof(dir), queues > 1 ? FRONT "/queue-%u" : FRONT, i);
		put_number(dir, "tx-ring-ref", FRONT_TX_RING + 30 * i);
		put_number(dir, "rx-ring-ref", FRONT_RX_RING + 30 * i);
		put_number(dir, "event-channel-tx", FRONT_TX_EVENT + 30 * i);
		put_number(dir, "event-channel-rx", FRONT_RX_EVENT + 30 * i);
		if (i > 0) {
			fake_grant(1, FRONT_TX_RING + 30 * i);
			fake_grant(1, FRONT_RX_RING + 30 * i);
		}
	}
	put(FRONT, "state", "4");
	settle();
}

static struct port *port(void)
{
	return port_by_name("vif1.0");
}

static struct xen_netif *netif(void)
{
	return (struct xen_netif *)((char *)port() - offsetof(struct xen_netif, channel.port));
}

static void open_backend(void)
{
	const struct xen_backend_config config = {
		.ops = &fake_xen_ops,
		.queues = QUEUES,
		.mtu = 1500,
		.join = join,
		.leave = leave,
	};
	struct error error;

	assert_int_equal(xen_backend_open(&config, &error), 0);
	settle();
}

static void close_backend(void)
{
	if (port())
		leave(port());
	xen_backend_close();
}

static int set_up(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	worker = fake_worker(POOL);
	fake_xen_init();
	fake_front_init(&front, 1);
	joined = left = 0;
	refuse = false;
	return loop_init();
}

static int tear_down(void **state)
{
	bool whole;

	close_backend();
	whole = fake_xen.mapped == 0;
	for (unsigned i = 0; i < FAKE_CHANNELS; i++)
		whole &= fake_xen.bound[i].events == NULL;
	fake_xen_fini();
	fake_worker_free(worker);
	return whole ? 0 : -1;
}

static bool served(void)
{
	return port() && netif()->queues[0] != NULL;
}

/* ---- tests ---- */

static void test_handshake(void **state)
{
	static const char *const features[] = {
		"feature-sg",
		"feature-gso-tcpv4",
		"feature-gso-tcpv6",
		"feature-ipv6-csum-offload",
		"feature-rx-copy",
		"feature-split-event-channels",
		"feature-multicast-control",
	};

	open_backend();
	make_vif();
	assert_int_equal(number(BACK, "state"), 2);
	for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		assert_int_equal(number(BACK, features[i]), 1);
	assert_int_equal(number(BACK, "feature-rx-flip"), 0);
	assert_int_equal(number(BACK, "feature-ctrl-ring"), -1);
	assert_int_equal(number(BACK, "multi-queue-max-queues"), QUEUES);
	assert_int_equal(joined, 1);
	assert_string_equal(joined_to, "xenbr0");
	assert_true(port()->has_mac);
	assert_int_equal(port()->mac[5], 3);
	assert_false(served());
	front_connects(1);
	assert_int_equal(number(BACK, "state"), 4);
	assert_true(served());
	assert_int_equal(port()->caps, FRONT_CAPS);
	assert_int_equal(netif()->channel.pairs, 1);
	assert_int_equal(joined, 1);
}

/* Somebody else writes to the store meanwhile: the transaction is done again. */
static void test_transaction_conflicts(void **state)
{
	open_backend();
	fake_xen.conflicts = 3;
	make_vif();
	assert_int_equal(number(BACK, "state"), 2);
	assert_int_equal(fake_xen.conflicts, 0);
}

static void test_queues(void **state)
{
	open_backend();
	make_vif();
	front_connects(3);
	assert_int_equal(number(BACK, "state"), 4);
	assert_int_equal(netif()->channel.pairs, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_non_null(netif()->queues[i]);
	assert_null(netif()->queues[3]);
}

/* Fewer than one, or more than we offered. */
static void test_queue_counts(void **state)
{
	static const char *const counts[] = { "0", "5", "4294967295", "99999999999", "-1", "x" };

	open_backend();
	make_vif();
	for (unsigned i = 0; i < 6; i++) {
		front_connects(1);
		assert_true(served());
		put(FRONT, "state", "6");
		settle();
		put(FRONT, "state", "1");
		settle();
		put(FRONT, "multi-queue-num-queues", counts[i]);
		put(FRONT, "state", "4");
		settle();
		/* what is no number is as if it were not there: one */
		assert_int_equal(served(), i > 2);
		put(FRONT, "state", "1");
		settle();
	}
}

/* One event channel for both rings; no offloads. */
static void test_old_front_end(void **state)
{
	open_backend();
	make_vif();
	put(FRONT, "request-rx-copy", "1");
	put(FRONT, "feature-no-csum-offload", "1");
	put_number(FRONT, "tx-ring-ref", FRONT_TX_RING);
	put_number(FRONT, "rx-ring-ref", FRONT_RX_RING);
	put_number(FRONT, "event-channel", FRONT_TX_EVENT);
	put(FRONT, "state", "4");
	settle();
	assert_true(served());
	assert_int_equal(port()->caps, PORT_CAP_SG | PORT_CAP_REMOTE);
	assert_false(netif()->sg);
	assert_int_equal(netif()->queues[0]->tx_port, netif()->queues[0]->rx_port);
}

/* A front end that does not say what it has to is not served, and hurts nobody. */
static void test_incomplete_front_end(void **state)
{
	static const char *const keys[] = { "request-rx-copy", "tx-ring-ref", "rx-ring-ref" };

	open_backend();
	make_vif();
	for (unsigned i = 0; i < 3; i++) {
		front_connects(1);
		put(FRONT, "state", "6");
		settle();
		put(FRONT, "state", "1");
		settle();
		assert_int_equal(number(BACK, "state"), 2);
		put(FRONT, keys[i], "12 monkeys");
		put(FRONT, "state", "4");
		settle();
		assert_false(served());
		assert_int_equal(number(BACK, "state"), 2);
		put(FRONT, "state", "1");
		settle();
	}
	front_connects(1);
	assert_true(served());
}

/* The guest closes, and its driver comes again: 5, 6, 1. */
static void test_reconnect(void **state)
{
	open_backend();
	make_vif();
	for (unsigned i = 0; i < 3; i++) {
		front_connects(1);
		assert_true(served());
		put(FRONT, "state", "5");
		settle();
		assert_int_equal(number(BACK, "state"), 5);
		assert_false(served());
		put(FRONT, "state", "6");
		settle();
		assert_int_equal(number(BACK, "state"), 6);
		put(FRONT, "state", "1");
		settle();
		assert_int_equal(number(BACK, "state"), 2);
	}
	assert_int_equal(joined, 1);
	assert_int_equal(left, 0);
}

/* Without a word of farewell: a new kernel in the guest begins with 1. */
static void test_sudden_restart(void **state)
{
	open_backend();
	make_vif();
	front_connects(1);
	put(FRONT, "state", "1");
	settle();
	assert_false(served());
	assert_int_equal(number(BACK, "state"), 2);
	front_connects(1);
	assert_true(served());
}

/* xl network-detach: the toolstack writes our state. */
static void test_detach(void **state)
{
	open_backend();
	make_vif();
	front_connects(1);
	put(BACK, "online", "0");
	put(BACK, "state", "5");
	settle();
	assert_false(served());
	assert_int_equal(number(BACK, "state"), 6);
	fake_remove(BACK);
	settle();
	assert_null(port());
	assert_int_equal(left, 1);
}

/* xl destroy: the front end's directory has gone already. */
static void test_destroy(void **state)
{
	open_backend();
	make_vif();
	front_connects(1);
	put(BACK, "online", "0");
	fake_remove(FRONT);
	put(BACK, "state", "5");
	settle();
	assert_false(served());
	assert_int_equal(number(BACK, "state"), 6);
	fake_remove("backend/vif/1");
	settle();
	put("", "@releaseDomain", "");
	settle();
	assert_int_equal(left, 1);
}

/* It closed, and the toolstack does not want it to come again. */
static void test_offline(void **state)
{
	open_backend();
	make_vif();
	front_connects(1);
	put(BACK, "online", "0");
	put(FRONT, "state", "6");
	settle();
	put(FRONT, "state", "1");
	settle();
	assert_int_equal(number(BACK, "state"), 6);
	assert_false(served());
}

/* We died under a guest: what comes after us finds it in the store and goes on. */
static void test_restart(void **state)
{
	open_backend();
	make_vif();
	front_connects(1);
	close_backend();
	assert_int_equal(number(BACK, "state"), 4);
	fake_xen.watch_count = 0;
	open_backend();
	assert_true(served());
	assert_int_equal(number(BACK, "state"), 4);
}

/* Another back end is bound to the event channel: said, and nothing of its is changed. */
static void test_other_back_end(void **state)
{
	struct xen_events *other = fake_events_open();

	fake_bind(other, 1, FRONT_TX_EVENT);
	open_backend();
	make_vif();
	front_connects(1);
	assert_false(served());
	assert_int_equal(number(BACK, "state"), 2);

	json_t *shown = xen_show(port());

	assert_non_null(strstr(json_string_value(json_object_get(shown, "why")), "xen-netback"));
	assert_false(json_is_true(json_object_get(shown, "connected")));
	json_decref(shown);
	fake_events_close(other);
	put(FRONT, "state", "4");
	settle();
	assert_true(served());
}

/* There is no such bridge: the interface is tried again when something changes. */
static void test_no_bridge(void **state)
{
	refuse = true;
	open_backend();
	make_vif();
	assert_null(port());
	assert_int_equal(number(BACK, "state"), 1);
	refuse = false;
	put(BACK, "online", "1");
	settle();
	assert_int_equal(number(BACK, "state"), 2);
}

static void test_rate(void **state)
{
	open_backend();
	make_vif();
	put(BACK, "rate", "1000000,50000");
	front_connects(1);
	assert_int_equal(netif()->rate_bytes, 1000000);
	assert_int_equal(netif()->rate_usec, 50000);
	put(BACK, "rate", "5000,100");
	settle();
	assert_int_equal(netif()->rate_bytes, 5000);
	put(BACK, "rate", "0,0");
	settle();
	assert_int_equal(netif()->rate_bytes, 0);
}

/* What libxl writes besides is not looked at. */
static void test_other_nodes(void **state)
{
	open_backend();
	put(BACK, "script", "/etc/xen/scripts/vif-user");
	put("backend/vif", "1", "");
	put("backend/vif/x", "0", "");
	put("backend/vif/99999999", "0", "");
	put("backend/vif/1", "y", "");
	settle();
	assert_int_equal(joined, 0);
	make_vif();
	put(BACK, "hotplug-status", "connected");
	settle();
	assert_int_equal(joined, 1);
}

static void test_show(void **state)
{
	json_t *shown;

	open_backend();
	make_vif();
	front_connects(2);
	shown = xen_show(port());
	assert_non_null(shown);
	assert_string_equal(json_string_value(json_object_get(shown, "kind")), "xen");
	assert_true(json_is_true(json_object_get(shown, "connected")));
	assert_int_equal(json_array_size(json_object_get(shown, "queues")), 2);
	assert_int_equal(json_array_size(json_object_get(shown, "features")), 5);
	json_decref(shown);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_handshake),      TEST(test_transaction_conflicts),
		TEST(test_queues),         TEST(test_queue_counts),
		TEST(test_old_front_end),  TEST(test_incomplete_front_end),
		TEST(test_reconnect),      TEST(test_sudden_restart),
		TEST(test_detach),         TEST(test_destroy),
		TEST(test_offline),        TEST(test_restart),
		TEST(test_other_back_end), TEST(test_no_bridge),
		TEST(test_rate),           TEST(test_other_nodes),
		TEST(test_show),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
