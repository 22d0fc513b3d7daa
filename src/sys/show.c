/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What vifd tells about itself.
 *
 * Theory of operation. Everything is read from the live structures when it is asked for; there is
 * no second copy to keep up to date. Ports, bridges and queues are changed by this thread alone and
 * are read as they are. Counters are written by one worker each while we read: they are read one by
 * one with relaxed loads, so that each is a value it really had, and never written from here. A
 * reset is therefore a base that is remembered and subtracted.
 */
#include "sys/show.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "guest/snet.h"
#include "guest/snet_control.h"
#include "guest/vhost_user.h"
#include "guest/xen_backend.h"
#include "port/worker.h"
#include "sys/conf.h"
#include "sys/pages.h"
#include "uplink/af_packet.h"
#include "uplink/af_xdp.h"
#include "uplink/tap.h"
#include "zone/zone_group.h"

#define READ(counter) (*(const volatile __typeof__(counter) *)&(counter))

enum { FDB_ROWS = 64, USAGE_BYTES = 512 };

struct profile_sum {
	uint64_t cycles[STAGES];
	uint64_t packets, bytes;
	double cpu_seconds;
};

static struct profile_sum profile_base;

static void put(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

static void put_text(json_t *object, const char *key, const char *text)
{
	put(object, key, text ? json_string(text) : json_null());
}

static void put_count(json_t *object, const char *key, uint64_t count)
{
	put(object, key, json_integer((json_int_t)count));
}

/* A ratio is null where there was nothing to divide by. */
static void put_ratio(json_t *object, const char *key, uint64_t value, uint64_t of)
{
	put(object, key, of ? json_real((double)value / (double)of) : json_null());
}

static void put_mac(json_t *object, const char *key, const uint8_t *mac)
{
	put(object, key,
	    json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
			 mac[5]));
}

/* A new object at the end of list, which keeps it. */
static json_t *add_row(json_t *list)
{
	json_t *row = json_object();

	json_array_append_new(list, row);
	return row;
}

/* Next port by id after port, the first for NULL; NULL at the end. */
static struct port *port_next(const struct port *port)
{
	for (unsigned id = port ? port->id + 1 : 1; id < PORTS_MAX; id++)
		if (port_by_id(id))
			return port_by_id(id);
	return NULL;
}

json_t *show_bridges(void)
{
	json_t *list = json_array();

	for (struct bridge *bridge = bridge_next(NULL); bridge; bridge = bridge_next(bridge)) {
		const struct mac_table *fdb = &bridge->fdb;
		json_t *row = add_row(list), *ports = json_array();

		for (unsigned i = 0; i < bridge->port_count; i++)
			json_array_append_new(ports, json_string(bridge->ports[i]->name));
		put_text(row, "name", bridge->name);
		put(row, "ports", ports);
		put_count(row, "ageing_seconds", bridge->ageing_sec);
		put_text(row, "too_big", bridge->answer_too_big ? "on" : "off");
		put_count(row, "fdb_used", READ(fdb->used));
		put_count(row, "fdb_size", ((uint64_t)fdb->set_mask + 1) * MAC_TABLE_WAYS);
		put_count(row, "learned", READ(fdb->learned));
		put_count(row, "moved", READ(fdb->moved));
		put_count(row, "evicted", READ(fdb->evicted));
		put_count(row, "aged", READ(fdb->aged));
		put_count(row, "refused", READ(fdb->refused));
	}
	return list;
}

static json_t *caps_json(uint32_t caps)
{
	static const struct {
		enum port_caps cap;
		const char *name;
	} names[] = {
		{ PORT_CAP_SG, "sg" },     { PORT_CAP_CSUM, "csum" },   { PORT_CAP_TSO4, "tso4" },
		{ PORT_CAP_TSO6, "tso6" }, { PORT_CAP_TSO_ECN, "ecn" }, { PORT_CAP_USO, "uso" },
	};
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (caps & names[i].cap)
			json_array_append_new(list, json_string(names[i].name));
	return list;
}

json_t *show_ports(void)
{
	json_t *list = json_array();

	for (struct port *port = port_next(NULL); port; port = port_next(port)) {
		json_t *row = add_row(list);

		put_text(row, "name", port->name);
		put_text(row, "kind", port->ops->kind);
		put_text(row, "bridge", port->bridge ? port->bridge->name : NULL);
		put_text(row, "direct", port->direct_name[0] ? port->direct_name : NULL);
		put(row, "uplink", json_boolean(port->uplink));
		put(row, "isolated", json_boolean(port->isolated));
		put_text(row, "spoof", port->spoof_strict ? "strict" : "off");
		put_count(row, "mtu", port->mtu);
		put_count(row, "queues", port->queues);
		if (port->has_mac)
			put_mac(row, "mac", port->mac);
		else
			put(row, "mac", json_null());
		put(row, "caps", caps_json(READ(port->caps)));
	}
	return list;
}

/* Each kind of uplink tells of its interface. */
static json_t *interface_json(struct port *port)
{
	static const struct {
		const char *kind;
		json_t *(*show)(struct port *port);
	} kinds[] = {
		{ "tap", tap_show },
		{ "af-packet", af_packet_show },
		{ "af-xdp", af_xdp_show },
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(port->ops->kind, kinds[i].kind) == 0)
			return kinds[i].show(port);
	return json_object();
}

json_t *show_uplinks(void)
{
	json_t *list = json_array();

	for (struct port *port = port_next(NULL); port; port = port_next(port)) {
		if (!port->uplink)
			continue;
		json_t *row = add_row(list), *interface = interface_json(port);

		put_text(row, "name", port->name);
		put_text(row, "kind", port->ops->kind);
		put_count(row, "queues", port->queues);
		put_count(row, "mtu", port->mtu);
		put(row, "caps", caps_json(READ(port->caps)));
		json_object_update(row, interface);
		json_decref(interface);
	}
	return list;
}

static json_t *guest_json(struct port *port)
{
	if (port->ops == &snet_port_ops)
		return snet_show(port);
	return xen_is_guest(port) ? xen_show(port) : vhost_user_show(port);
}

json_t *show_guests(void)
{
	json_t *list = json_array();

	for (struct port *port = port_next(NULL); port; port = port_next(port)) {
		if (port->uplink)
			continue;
		json_array_append_new(list, guest_json(port));
	}
	return list;
}

json_t *show_memory(void)
{
	json_t *list = json_array();

	for (unsigned id = 0; id < workers_count(); id++) {
		const struct worker *worker = worker_by_id(id);
		char owner[sizeof("worker 4294967295")];

		snprintf(owner, sizeof(owner), "worker %u", id);
		pages_row(list, owner, "packets", worker->pool.memory, worker->pool.memory_len);
	}
	for (struct port *port = port_next(NULL); port; port = port_next(port)) {
		if (port->ops == &snet_port_ops)
			snet_show_memory(port, list);
		else if (!port->uplink && !xen_is_guest(port))
			vhost_user_show_memory(port, list);
		for (unsigned i = 0; port->uplink && i < port->queues; i++) {
			const struct zone_group *zones = port->zones[i];

			if (zones)
				pages_row(list, port->name, "frames", zones->zones->base,
					  zones->count * (size_t)ZONE_SIZE);
		}
	}
	return list;
}

static void fdb_append(json_t *list, struct bridge *bridge)
{
	struct mac_row rows[FDB_ROWS];
	unsigned position = 0, n;

	while ((n = mac_table_list(&bridge->fdb, &position, rows, FDB_ROWS, bridge_now())) > 0) {
		for (unsigned i = 0; i < n; i++) {
			const struct port *port = port_by_id(rows[i].port);
			json_t *row = add_row(list);

			put_text(row, "bridge", bridge->name);
			put_mac(row, "mac", rows[i].mac);
			put_text(row, "port", port ? port->name : NULL);
			put(row, "static", json_boolean(rows[i].is_static));
			put_count(row, "age_seconds", rows[i].age_sec);
		}
	}
}

json_t *show_fdb(const struct bridge *only)
{
	json_t *list = json_array();

	for (struct bridge *bridge = bridge_next(NULL); bridge; bridge = bridge_next(bridge))
		if (!only || bridge == only)
			fdb_append(list, bridge);
	return list;
}

json_t *show_stats(const struct port *only)
{
	json_t *list = json_array();

	for (struct port *port = port_next(NULL); port; port = port_next(port)) {
		struct port_stats sum;
		json_t *row;

		if (only && port != only)
			continue;
		port_stats_sum(port, &sum);
		row = add_row(list);
		put_text(row, "name", port->name);
		put_text(row, "kind", port->ops->kind);
#define X(counter, text) put_count(row, #counter, sum.counter);
		PORT_STATS(X)
#undef X
	}
	return list;
}

static void lro_sum(const struct port *port, struct lro_stats *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < port->queues && port->lro[i]; i++) {
		const struct lro_stats *one = lro_stats(port->lro[i]);

		sum->segments += READ(one->segments);
		sum->packets += READ(one->packets);
		sum->aggregates += READ(one->aggregates);
		for (unsigned j = 0; j < LRO_REASON_COUNT; j++)
			sum->flushed[j] += READ(one->flushed[j]);
		for (unsigned j = 0; j < LRO_DELAY_BUCKETS; j++)
			sum->delay[j] += READ(one->delay[j]);
		if (READ(one->delay_max) > sum->delay_max)
			sum->delay_max = READ(one->delay_max);
	}
}

/* The delay, ns, that a share of what was held did not exceed; null if nothing was held. */
static json_t *delay_percentile(const struct lro_stats *stats, double share)
{
	uint64_t all = 0, so_far = 0;
	unsigned bucket = 0;

	for (unsigned i = 0; i < LRO_DELAY_BUCKETS; i++)
		all += stats->delay[i];
	if (all == 0)
		return json_null();
	for (so_far = stats->delay[0]; (double)so_far < share * (double)all;)
		so_far += stats->delay[++bucket];

	uint64_t bound = lro_delay_bound(bucket);

	return json_integer((json_int_t)(bound < stats->delay_max ? bound : stats->delay_max));
}

/* [ns, how many were held so long or less, and longer than the one before], .. */
static json_t *delay_histogram(const struct lro_stats *stats)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < LRO_DELAY_BUCKETS; i++) {
		if (stats->delay[i] > 0)
			json_array_append_new(list,
					      json_pack("[II]", (json_int_t)lro_delay_bound(i),
							(json_int_t)stats->delay[i]));
	}
	return list;
}

static json_t *lro_mode_json(const struct lro_config *config)
{
	static const char *const modes[] = {
		[LRO_OFF] = "off",      [LRO_POLL] = "poll", [LRO_EVERY] = "every:%u",
		[LRO_USEC] = "usec:%u", [LRO_AUTO] = "auto",
	};

	return json_sprintf(modes[config->mode], config->value);
}

static void lro_row(json_t *row, const struct port *port)
{
	static const char *const reasons[] = {
#define X(name, text) #name,
		LRO_REASONS(X)
#undef X
	};
	const struct lro_config off = { 0 };
	const struct lro_config *config = port->lro[0] ? lro_settings(port->lro[0]) : &off;
	json_t *flushed = json_object();
	struct lro_stats sum;

	lro_sum(port, &sum);
	put_text(row, "name", port->name);
	put(row, "lro", lro_mode_json(config));
	put_text(row, "bo", config->linear ? "off" : "on");
	put_count(row, "segments", sum.segments);
	put_count(row, "packets", sum.packets);
	put_count(row, "aggregates", sum.aggregates);
	put_ratio(row, "rate", sum.segments, sum.packets);
	for (unsigned i = 0; i < LRO_REASON_COUNT; i++)
		put_count(flushed, reasons[i], sum.flushed[i]);
	put(row, "flushed", flushed);
	put(row, "delay_p50_ns", delay_percentile(&sum, 0.50));
	put(row, "delay_p99_ns", delay_percentile(&sum, 0.99));
	put_count(row, "delay_max_ns", sum.delay_max);
	put(row, "delays", delay_histogram(&sum));
}

json_t *show_lro(const struct port *only)
{
	json_t *list = json_array();

	for (struct port *port = port_next(NULL); port; port = port_next(port)) {
		if (only ? port == only : port->lro[0] != NULL)
			lro_row(add_row(list), port);
	}
	return list;
}

json_t *show_workers(void)
{
	const double cycles_per_usec = (double)cycles_hz() / 1e6;
	json_t *list = json_array();

	for (unsigned id = 0; id < workers_count(); id++) {
		const struct worker *worker = worker_by_id(id);
		json_t *row = add_row(list), *queues = json_array();

		for (unsigned i = 0; i < worker->queue_count; i++) {
			json_t *queue = add_row(queues);

			put_text(queue, "port", worker->queues[i].port->name);
			put_count(queue, "queue", worker->queues[i].queue);
		}
		put_count(row, "id", worker->id);
		put(row, "cpu",
		    worker->cpu == WORKER_CPU_ANY ? json_null() : json_integer(worker->cpu));
		put(row, "queues", queues);
		put(row, "spin_usec",
		    json_real((double)READ(worker->spin_cycles) / cycles_per_usec));
		put_count(row, "sleeps", READ(worker->sleeps));
		put_count(row, "naps", READ(worker->naps));
		put_count(row, "spins_won", READ(worker->spins_won));
		put_count(row, "spins_lost", READ(worker->spins_lost));
		put_count(row, "rounds", READ(worker->rounds));
		put_count(row, "bursts", READ(worker->bursts));
		put_count(row, "packets", READ(worker->packets));
		put_count(row, "bytes", READ(worker->bytes));
	}
	return list;
}

/* CPU time that a thread has used, as the kernel counts it. */
static double thread_cpu_seconds(pthread_t thread)
{
	struct timespec used;
	clockid_t clock;

	if (pthread_getcpuclockid(thread, &clock) || clock_gettime(clock, &used))
		return 0;
	return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

static struct profile_sum profile_total(void)
{
	struct profile_sum total = { 0 };

	for (unsigned id = 0; id < workers_count(); id++) {
		const struct worker *worker = worker_by_id(id);

		for (int stage = 0; stage < STAGES; stage++)
			total.cycles[stage] += READ(worker->profile.cycles[stage]);
		total.packets += READ(worker->packets);
		total.bytes += READ(worker->bytes);
		total.cpu_seconds += thread_cpu_seconds(worker->thread);
	}
	return total;
}

void profile_reset(void)
{
	profile_base = profile_total();
}

json_t *show_profile(void)
{
	struct profile_sum sum = profile_total();
	json_t *profile = json_object(), *stages = json_array();
	uint64_t all = 0, busy;

	sum.packets -= profile_base.packets;
	sum.bytes -= profile_base.bytes;
	for (int stage = 0; stage < STAGES; stage++) {
		sum.cycles[stage] -= profile_base.cycles[stage];
		all += sum.cycles[stage];
	}
	busy = all - sum.cycles[STAGE_IDLE];

	for (int stage = 0; stage < STAGES; stage++) {
		json_t *row = add_row(stages);

		put_text(row, "stage", stage_names[stage]);
		put_count(row, "cycles", sum.cycles[stage]);
		put_ratio(row, "cycles_per_packet", sum.cycles[stage], sum.packets);
		put_ratio(row, "cycles_per_byte", sum.cycles[stage], sum.bytes);
		put_ratio(row, "share", sum.cycles[stage], all);
	}
	put_count(profile, "tsc_hz", cycles_hz());
	put_count(profile, "packets", sum.packets);
	put_count(profile, "bytes", sum.bytes);
	put_count(profile, "busy_cycles", busy);
	put_ratio(profile, "busy_cycles_per_packet", busy, sum.packets);
	put_ratio(profile, "busy_cycles_per_byte", busy, sum.bytes);
	put(profile, "cpu_seconds", json_real(sum.cpu_seconds - profile_base.cpu_seconds));
	put(profile, "stages", stages);
	return profile;
}

json_t *show_help(void)
{
	json_t *list = json_array();

	for (int id = 0; id < CMD_COUNT; id++) {
		char usage[USAGE_BYTES];
		json_t *row = add_row(list);

		conf_usage(&conf_commands[id], usage, sizeof(usage));
		put_text(row, "usage", usage);
		put_text(row, "help", conf_commands[id].help);
	}
	return list;
}
