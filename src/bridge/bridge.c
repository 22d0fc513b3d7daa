/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The learning bridge.
 *
 * Theory of operation. A burst that came in on one port passes twice (the shape is VALE's). Pass 1
 * gives each packet a verdict: the id of the port it goes to, flooding, or a reason to drop it.
 * Pass 2 serves each verdict once: all packets for a port leave in one port_send(), in the order
 * they came, so that the cost of a destination (a lock, a doorbell, a cold ring) is paid per burst.
 * Mostly the whole burst has one destination and goes out as it came in.
 *
 * The verdict of a packet follows from its port, its two addresses, the table and the settings of
 * ports. So each worker keeps a small direct-mapped cache of flows, (port, addresses) -> verdict,
 * and a packet of a known flow costs a compare. A cached verdict is good for the epoch it was made
 * in: the second and the generation of the table, which every change but a refresh counts. A flow
 * thus meets the real table at least once a second, which refreshes its source address and lets its
 * destination age. Changes of ports and their settings happen while the workers are paused and
 * empty the caches.
 *
 * Who may talk to whom: an isolated port talks to uplinks only. Never forwarded are packets for the
 * link-local control addresses 01:80:c2:00:00:00 to 0f (802.1D: they end at the next bridge),
 * packets from group addresses (they would poison learning), and with spoof=strict those from any
 * address but the guest's own. Flooded packets get one reference for each target and are never
 * copied.
 *
 * Addresses are read from the private header copy only. The port has dropped frames without a whole
 * Ethernet header.
 */
#include "bridge/bridge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "port/worker.h"

enum { FLOWS = 64 };

/* What becomes of a packet; below PORTS_MAX: the id of the port that it goes to. */
enum verdict {
	VERDICT_SERVED = 0, /* none any more; no port has id 0 */
	VERDICT_FLOOD = PORTS_MAX,
	VERDICT_BAD_SOURCE,
	VERDICT_SPOOFED,
	VERDICT_RESERVED_GROUP,
	VERDICT_SAME_PORT,
	VERDICT_ISOLATED,
	VERDICT_NOWHERE,
	VERDICT_END
};

/* The counter of a verdict that drops, in struct port_stats. */
static const size_t drop_counters[VERDICT_END - PORTS_MAX] = {
	[VERDICT_BAD_SOURCE - PORTS_MAX] = offsetof(struct port_stats, drop_bad_source),
	[VERDICT_SPOOFED - PORTS_MAX] = offsetof(struct port_stats, drop_spoofed),
	[VERDICT_RESERVED_GROUP - PORTS_MAX] = offsetof(struct port_stats, drop_reserved_group),
	[VERDICT_SAME_PORT - PORTS_MAX] = offsetof(struct port_stats, drop_same_port),
	[VERDICT_ISOLATED - PORTS_MAX] = offsetof(struct port_stats, drop_isolated),
	[VERDICT_NOWHERE - PORTS_MAX] = offsetof(struct port_stats, drop_nowhere),
};

/* What identifies a flow: the twelve address bytes as they lie in the frame, and the port. */
struct flow_key {
	uint64_t low;  /* destination, two bytes of source */
	uint64_t high; /* four bytes of source, in_port; never 0 */
};

struct flow {
	struct flow_key key;
	uint64_t epoch;
	uint64_t verdict;
};

static struct flow_cache {
	struct flow flows[FLOWS];
} __attribute__((aligned(64))) flow_caches[WORKERS_MAX];

static struct bridge *bridges[BRIDGES_MAX]; /* in order of creation, without gaps */
static unsigned bridge_count;
static _Atomic uint32_t now_sec;

int bridge_create(const char *name, unsigned ageing_sec, unsigned fdb_max, struct bridge **bridge,
		  struct error *error)
{
	struct timespec now;
	struct bridge *new;
	static unsigned next_id;

	if (bridge_by_name(name))
		return fail(error, -EEXIST, "there is a bridge '%s' already", name);
	if (strlen(name) >= sizeof(new->name))
		return fail(error, -ENAMETOOLONG, "bridge name '%s' is longer than %zu characters",
			    name, sizeof(new->name) - 1);
	if (bridge_count == BRIDGES_MAX)
		return fail(error, -ENOSPC, "there are %u bridges already, more are not possible",
			    bridge_count);
	new = aligned_alloc(64, sizeof(*new));
	if (!new)
		return fail(error, -ENOMEM, "out of memory");
	memset(new, 0, sizeof(*new));
	if (mac_table_init(&new->fdb, fdb_max)) {
		free(new);
		return fail(error, -ENOMEM, "out of memory for a table of %u addresses", fdb_max);
	}
	strcpy(new->name, name);
	new->id = next_id++;
	new->ageing_sec = ageing_sec ? ageing_sec : BRIDGE_AGEING_DEFAULT;
	new->answer_too_big = true;
	bridges[bridge_count++] = new;

	if (bridge_now() == 0) { /* not ticked yet: nothing must be learned in the distant past */
		clock_gettime(CLOCK_MONOTONIC, &now);
		atomic_store(&now_sec, now.tv_sec);
	}
	*bridge = new;
	return 0;
}

void bridge_destroy(struct bridge *bridge)
{
	unsigned i = 0;

	while (bridges[i] != bridge)
		i++;
	memmove(&bridges[i], &bridges[i + 1], (--bridge_count - i) * sizeof(bridges[0]));
	mac_table_fini(&bridge->fdb);
	free(bridge);
}

struct bridge *bridge_by_name(const char *name)
{
	for (unsigned i = 0; i < bridge_count; i++) {
		if (strcmp(bridges[i]->name, name) == 0)
			return bridges[i];
	}
	return NULL;
}

struct bridge *bridge_next(const struct bridge *bridge)
{
	unsigned i = 0;

	if (bridge) {
		while (bridges[i] != bridge)
			i++;
		i++;
	}
	return i < bridge_count ? bridges[i] : NULL;
}

void bridge_settings_changed(void)
{
	memset(flow_caches, 0, sizeof(flow_caches));
}

int bridge_add_port(struct bridge *bridge, struct port *port, struct error *error)
{
	int err = 0;

	if (port->bridge)
		return fail(error, -EBUSY, "'%s' is on bridge '%s' already", port->name,
			    port->bridge->name);
	workers_pause();
	if (port->has_mac)
		err = mac_table_add_static(&bridge->fdb, port->mac, port->id);
	if (!err) {
		bridge->ports[bridge->port_count++] = port;
		port->bridge = bridge;
		bridge_settings_changed();
	}
	workers_resume();
	if (err)
		fail(error, err, "the address of '%s' cannot be pinned to it on bridge '%s': %s",
		     port->name, bridge->name,
		     err == -EEXIST ? "another port has it" : "no place in the table");
	return err;
}

void bridge_remove_port(struct port *port)
{
	struct bridge *bridge = port->bridge;
	unsigned i = 0;

	if (!bridge)
		return;
	workers_pause();
	while (bridge->ports[i] != port)
		i++;
	memmove(&bridge->ports[i], &bridge->ports[i + 1],
		(--bridge->port_count - i) * sizeof(bridge->ports[0]));
	mac_table_forget_port(&bridge->fdb, port->id);
	port->bridge = NULL;
	bridge_settings_changed();
	workers_resume();
}

void bridge_tick(uint32_t now)
{
	atomic_store(&now_sec, now);
	for (unsigned i = 0; i < bridge_count; i++)
		mac_table_age(&bridges[i]->fdb, now, bridges[i]->ageing_sec);
}

uint32_t bridge_now(void)
{
	return atomic_load_explicit(&now_sec, memory_order_relaxed);
}

static bool may_talk(const struct port *in, const struct port *out)
{
	return !(in->isolated || out->isolated) || in->uplink || out->uplink;
}

static bool is_zero(const uint8_t *mac)
{
	return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

static bool is_reserved_group(const uint8_t *mac)
{
	static const uint8_t prefix[5] = { 0x01, 0x80, 0xc2, 0x00, 0x00 };

	return memcmp(mac, prefix, sizeof(prefix)) == 0 && mac[5] < 0x10;
}

/* Learn the source of a frame and find out where it goes: what the flow cache caches. */
static unsigned judge(struct bridge *bridge, struct port *in, const uint8_t *frame, uint32_t now)
{
	const uint8_t *destination = frame, *source = frame + 6;
	struct port *out;
	unsigned id;

	if ((source[0] & 1) || is_zero(source))
		return VERDICT_BAD_SOURCE;
	if (in->spoof_strict && memcmp(source, in->mac, 6) != 0)
		return VERDICT_SPOOFED;
	if (is_reserved_group(destination))
		return VERDICT_RESERVED_GROUP;

	mac_table_learn(&bridge->fdb, source, in->id, now);
	if (destination[0] & 1)
		return VERDICT_FLOOD;
	id = mac_table_lookup(&bridge->fdb, destination, now, bridge->ageing_sec);
	out = port_by_id(id);
	if (!out || out->bridge != bridge)
		return VERDICT_FLOOD;
	if (out == in)
		return VERDICT_SAME_PORT;
	if (!may_talk(in, out))
		return VERDICT_ISOLATED;
	return id;
}

static struct flow_key flow_key_of(const struct port *in, const struct pkt *pkt)
{
	struct flow_key key;
	uint32_t high;

	memcpy(&key.low, pkt->header, 8);
	memcpy(&high, pkt->header + 8, 4);
	key.high = high | (uint64_t)in->id << 32;
	return key;
}

static bool flow_key_equal(struct flow_key a, struct flow_key b)
{
	return ((a.low ^ b.low) | (a.high ^ b.high)) == 0;
}

static struct flow *flow_slot(struct flow_cache *cache, struct flow_key key)
{
	uint64_t mixed = (key.low ^ key.high * UINT64_C(0xd6e8feb86659fd93)) *
			 UINT64_C(0x9e3779b97f4a7c15);

	return &cache->flows[mixed >> 58];
}

static_assert(FLOWS == 1 << (64 - 58), "flow_slot() takes the top bits");

/* Of n packets, at least one: how many in front are of the first one's flow, whose key is given. */
static unsigned flow_length(struct pkt **pkts, struct flow_key key, unsigned n)
{
	unsigned i = 1;

	for (; i < n; i++) {
		uint64_t low;
		uint32_t high;

		memcpy(&low, pkts[i]->header, 8);
		memcpy(&high, pkts[i]->header + 8, 4);
		if (((low ^ key.low) | (high ^ (uint32_t)key.high)) != 0)
			break;
	}
	return i;
}

/* Pass 1. Returns the verdict if all packets have the same, otherwise 0, and each one's. */
static unsigned judge_burst(struct port *in, struct pkt **pkts, uint16_t *verdicts, unsigned n)
{
	struct flow_cache *cache = &flow_caches[worker_self->id];
	struct bridge *bridge = in->bridge;
	uint32_t now = bridge_now();
	/* Read before the table is: a change meanwhile makes what is cached useless, not wrong. */
	uint64_t epoch =
		(uint64_t)atomic_load_explicit(&bridge->fdb.generation, memory_order_acquire)
			<< 32 |
		now;
	unsigned verdict = 0, mixed = 0;

	for (unsigned i = 0, end; i < n; i = end) {
		struct flow_key key = flow_key_of(in, pkts[i]);
		struct flow *flow = flow_slot(cache, key);

		if (unlikely(!flow_key_equal(key, flow->key) || flow->epoch != epoch)) {
			flow->verdict = judge(bridge, in, pkts[i]->header, now);
			flow->key = key;
			flow->epoch = epoch;
		}
		verdict = flow->verdict;
		end = i + flow_length(pkts + i, key, n - i);
		if (i == 0 && end == n)
			return verdict;
		for (unsigned j = i; j < end; j++)
			verdicts[j] = verdict;
		mixed |= verdict ^ verdicts[0];
	}
	return mixed ? 0 : verdict;
}

static void drop(struct port *in, unsigned verdict, struct pkt **pkts, unsigned n)
{
	char *stats = (char *)port_stats(in);

	*(uint64_t *)(stats + drop_counters[verdict - PORTS_MAX]) += n;
	for (unsigned i = 0; i < n; i++)
		pkt_put(pkts[i]);
}

uint32_t bridge_takes(struct port *in, struct pkt *pkt)
{
	uint16_t same;
	unsigned verdict;

	if (!in->bridge)
		return 0;
	verdict = judge_burst(in, &pkt, &same, 1);
	return verdict < PORTS_MAX ? port_by_id(verdict)->caps : 0;
}

/* Send all packets to every other port that may have them: one reference each, no copy. */
static void flood(struct port *in, struct pkt **pkts, unsigned n)
{
	struct bridge *bridge = in->bridge;
	struct pkt *shared[PKT_BURST];
	unsigned targets = 0;

	for (unsigned i = 0; i < bridge->port_count; i++)
		targets += bridge->ports[i] != in && may_talk(in, bridge->ports[i]);
	if (targets == 0) {
		drop(in, VERDICT_NOWHERE, pkts, n);
		return;
	}
	port_stats(in)->flooded_packets += n;
	for (unsigned i = 0; i < n; i++)
		pkts[i]->refs += targets - 1;
	for (unsigned i = 0; i < bridge->port_count; i++) {
		struct port *out = bridge->ports[i];

		if (out == in || !may_talk(in, out))
			continue;
		memcpy(shared, pkts, n * sizeof(*pkts)); /* a port may reorder its list */
		port_send(out, shared, n);
	}
}

static void serve(struct port *in, unsigned verdict, struct pkt **pkts, unsigned n)
{
	if (verdict < PORTS_MAX)
		port_send(port_by_id(verdict), pkts, n);
	else if (verdict == VERDICT_FLOOD)
		flood(in, pkts, n);
	else
		drop(in, verdict, pkts, n);
}

/* Pass 2 for a burst with several verdicts: each once, in order of its first packet. */
static void serve_mixed(struct port *in, struct pkt **pkts, uint16_t *verdicts, unsigned n)
{
	struct pkt *group[PKT_BURST];

	for (unsigned i = 0; i < n; i++) {
		unsigned verdict = verdicts[i], count = 0;

		if (verdict == VERDICT_SERVED)
			continue;
		for (unsigned j = i; j < n; j++) {
			if (verdicts[j] == verdict) {
				group[count++] = pkts[j];
				verdicts[j] = VERDICT_SERVED;
			}
		}
		serve(in, verdict, group, count);
	}
}

void bridge_forward(struct port *in, struct pkt **pkts, unsigned n)
{
	uint16_t verdicts[PKT_BURST];
	unsigned verdict;

	if (unlikely(!in->bridge)) {
		drop(in, VERDICT_NOWHERE, pkts, n);
		return;
	}
	verdict = judge_burst(in, pkts, verdicts, n);
	profile_mark(&worker_self->profile, STAGE_BRIDGE);
	if (likely(verdict))
		serve(in, verdict, pkts, n);
	else
		serve_mixed(in, pkts, verdicts, n);
}
