/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the commands of the grammar do; those that make and change ports are in port_commands.c.
 *
 * Theory of operation. A line that conf_parse() has passed is valid in itself; here it meets the
 * state: does the bridge exist, is the name free. Everything that can be refused is refused before
 * anything is opened, and what fails later is taken back, so that a failed command leaves nothing
 * half done. All of it happens in the main thread; the modules pause the workers where they must.
 *
 * Workers are started by the first command that needs one, so that "set" can come first and ports
 * can be given to workers as soon as they are made.
 */
#include "sys/commands.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port/worker.h"
#include "sys/conf.h"
#include "sys/log.h"
#include "sys/pages.h"
#include "sys/port_commands.h"
#include "sys/show.h"

enum { WORKERS_DEFAULT = 1 };

/* What "set" has said. */
struct settings {
	unsigned workers; /* 0: not said */
	unsigned cpu_count;
	int cpus[CONF_LIST_MAX];
	int idle_spin_usec;
};

typedef json_t *show_fn(void);

static command_fn bridge_add, bridge_del, fdb_add, fdb_del, fdb_show, stats_show, lro_show, profile;
static int set(const struct conf_value *values, bool at_start, struct error *error);

static command_fn *const functions[CMD_COUNT] = {
	[CMD_BRIDGE_ADD] = bridge_add, [CMD_BRIDGE_DEL] = bridge_del, [CMD_UPLINK_ADD] = uplink_add,
	[CMD_UPLINK_SET] = uplink_set, [CMD_SHOW_LRO] = lro_show,     [CMD_UPLINK_DEL] = uplink_del,
	[CMD_GUEST_ADD] = guest_add,   [CMD_GUEST_SET] = guest_set,   [CMD_GUEST_DEL] = guest_del,
	[CMD_FDB_ADD] = fdb_add,       [CMD_FDB_DEL] = fdb_del,       [CMD_SHOW_FDB] = fdb_show,
	[CMD_SHOW_STATS] = stats_show, [CMD_PROFILE] = profile,       [CMD_XEN] = xen_serve,
};

/* Those that take no argument and cannot fail. */
static show_fn *const shows[CMD_COUNT] = {
	[CMD_SHOW_BRIDGES] = show_bridges,
	[CMD_SHOW_PORTS] = show_ports,
	[CMD_SHOW_UPLINKS] = show_uplinks,
	[CMD_SHOW_GUESTS] = show_guests,
	[CMD_SHOW_MEMORY] = show_memory,
	[CMD_SHOW_WORKERS] = show_workers,
	[CMD_HELP] = show_help,
};

static struct settings settings = { .idle_spin_usec = -1 };

int command_run(const char *text, bool at_start, json_t **result, struct error *error)
{
	struct conf_line line;
	struct error why;
	enum conf_command_id id;
	int err = conf_parse(text, &line, error);

	if (err)
		return err;
	*result = json_null();
	if (!line.command)
		return 0;

	id = (enum conf_command_id)(line.command - conf_commands);
	if (id == CMD_SET)
		err = set(line.values, at_start, &why);
	else if (functions[id])
		err = functions[id](line.values, result, &why);
	else
		*result = shows[id]();
	return err ? fail(error, err, "%s: %s", line.command->words, why.text) : 0;
}

int conf_load(const char *path, struct error *error)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;
	ssize_t len;
	int err = 0;

	if (!file)
		return fail(error, -errno, "cannot read %s: %s", path, strerror(errno));
	errno = 0;
	for (unsigned number = 1; !err && (len = getline(&text, &size, file)) >= 0; number++) {
		struct error why;
		json_t *result = NULL;

		if (strlen(text) != (size_t)len)
			err = fail(&why, -EINVAL, "the line contains a zero byte");
		else
			err = command_run(text, true, &result, &why);
		if (err)
			fail(error, err, "%s:%u: %s", path, number, why.text);
		else
			json_decref(result);
	}
	if (!err && ferror(file))
		err = fail(error, -errno, "cannot read %s: %s", path, strerror(errno));
	free(text);
	fclose(file);
	return err;
}

int command_start_workers(struct error *error)
{
	struct worker_config config = {
		.count = settings.workers ? settings.workers : settings.cpu_count,
		.cpus = settings.cpu_count ? settings.cpus : NULL,
		.idle_spin_usec = settings.idle_spin_usec,
	};
	int err;

	if (workers_count() > 0)
		return 0;
	if (config.count == 0)
		config.count = WORKERS_DEFAULT;
	err = workers_start(&config);
	return err ? fail(error, err, "cannot start %u workers: %s", config.count, strerror(-err))
		   : 0;
}

static bool cpu_allowed(int cpu)
{
	cpu_set_t allowed;

	return sched_getaffinity(0, sizeof(allowed), &allowed) < 0 || CPU_ISSET(cpu, &allowed);
}

static int set(const struct conf_value *values, bool at_start, struct error *error)
{
	const struct conf_value *workers = &values[SET_WORKERS], *cpus = &values[SET_CPUS];
	struct settings next = settings;

	if ((workers->given || cpus->given) && (!at_start || workers_count() > 0))
		return fail(error, -EBUSY,
			    "the workers run already: workers= and cpus= are set at start-up, "
			    "before the first uplink or guest");
	if (values[SET_PAGES].given && (!at_start || workers_count() > 0))
		return fail(error, -EBUSY,
			    "memory is in use already: pages= is set at start-up, before the first "
			    "uplink or guest");
	if (workers->given)
		next.workers = (unsigned)workers->number;
	if (cpus->given) {
		next.cpu_count = cpus->list_count;
		memcpy(next.cpus, cpus->list, sizeof(next.cpus));
	}
	if (next.workers && next.cpu_count && next.workers != next.cpu_count)
		return fail(error, -EINVAL, "workers=%u needs %u CPU numbers, cpus= has %u",
			    next.workers, next.workers, next.cpu_count);
	for (unsigned i = 0; i < cpus->list_count; i++)
		if (!cpu_allowed(cpus->list[i]))
			return fail(error, -EINVAL,
				    "vifd may not run on CPU %d, or there is none of that number",
				    cpus->list[i]);
	if (values[SET_PAGES].number == PAGES_4K && pages_only_small())
		return fail(error, -errno, "pages=4k: %s", strerror(errno));
	if (values[SET_PAGES].number == PAGES_4K)
		log_warn("pages=4k is slow, and for measurement only");
	if (values[SET_IDLE_SPIN].given) {
		next.idle_spin_usec = values[SET_IDLE_SPIN].number;
		if (workers_count() > 0)
			workers_set_idle_spin(next.idle_spin_usec);
	}
	settings = next;
	return 0;
}

struct bridge *bridge_find(const char *name, struct error *error)
{
	struct bridge *bridge = bridge_by_name(name);

	if (!bridge)
		fail(error, -ENOENT, "there is no bridge '%s' (bridge add %s makes it)", name,
		     name);
	return bridge;
}

static struct port *port_find(const char *name, struct error *error)
{
	struct port *port = port_by_name(name);

	if (!port)
		fail(error, -ENOENT, "there is no port '%s' ('show ports' lists them)", name);
	return port;
}

static int bridge_add(const struct conf_value *values, json_t **result, struct error *error)
{
	const struct conf_value *ageing = &values[BRIDGE_AGEING];
	struct bridge *bridge;
	int err = bridge_create(values[ARG_NAME].text, (unsigned)ageing->number,
				(unsigned)values[BRIDGE_FDB_MAX].number, &bridge, error);

	if (!err && ageing->given && ageing->number == 0)
		bridge->ageing_sec = 0; /* never, which bridge_create() takes for "default" */
	if (!err)
		bridge->answer_too_big = values[BRIDGE_TOO_BIG].number == TOO_BIG_ON;
	return err;
}

static int bridge_del(const struct conf_value *values, json_t **result, struct error *error)
{
	struct bridge *bridge = bridge_find(values[ARG_NAME].text, error);

	if (!bridge)
		return -ENOENT;
	if (bridge->port_count > 0)
		return fail(error, -EBUSY, "'%s' still has %u port%s ('%s'%s): remove %s first",
			    bridge->name, bridge->port_count, bridge->port_count == 1 ? "" : "s",
			    bridge->ports[0]->name, bridge->port_count == 1 ? "" : ", ...",
			    bridge->port_count == 1 ? "it" : "them");
	bridge_destroy(bridge);
	return 0;
}

int fdb_pin(struct port *port, const uint8_t *mac, struct error *error)
{
	int err = mac_table_add_static(&port->bridge->fdb, mac, port->id);

	if (err == -EEXIST)
		return fail(error, err, "bridge '%s' has that address pinned to another port",
			    port->bridge->name);
	if (err == -ENOSPC)
		return fail(error, err,
			    "too many addresses are pinned on bridge '%s' (fdb-max= makes room)",
			    port->bridge->name);
	return err ? fail(error, err, "%s", strerror(-err)) : 0;
}

static int fdb_add(const struct conf_value *values, json_t **result, struct error *error)
{
	struct bridge *bridge = bridge_find(values[FDB_BRIDGE].text, error);
	struct port *port = bridge ? port_find(values[FDB_PORT].text, error) : NULL;

	if (!port)
		return -ENOENT;
	if (port->bridge != bridge)
		return fail(error, -EINVAL, "port '%s' is not on bridge '%s'", port->name,
			    bridge->name);
	return fdb_pin(port, values[FDB_MAC].mac, error);
}

static int fdb_del(const struct conf_value *values, json_t **result, struct error *error)
{
	struct bridge *bridge = bridge_find(values[FDB_BRIDGE].text, error);

	if (!bridge)
		return -ENOENT;
	if (mac_table_delete(&bridge->fdb, values[FDB_MAC].mac))
		return fail(error, -ENOENT, "bridge '%s' does not know %s", bridge->name,
			    values[FDB_MAC].text);
	return 0;
}

static int fdb_show(const struct conf_value *values, json_t **result, struct error *error)
{
	const char *name = values[SHOW_ONE].text;
	struct bridge *bridge = name ? bridge_find(name, error) : NULL;

	if (name && !bridge)
		return -ENOENT;
	*result = show_fdb(bridge);
	return 0;
}

/* Have one port shown, or all. */
static int port_show(const struct conf_value *values, json_t *(*show)(const struct port *port),
		     json_t **result, struct error *error)
{
	const char *name = values[SHOW_ONE].text;
	struct port *port = name ? port_find(name, error) : NULL;

	if (name && !port)
		return -ENOENT;
	*result = show(port);
	return 0;
}

static int stats_show(const struct conf_value *values, json_t **result, struct error *error)
{
	return port_show(values, show_stats, result, error);
}

static int lro_show(const struct conf_value *values, json_t **result, struct error *error)
{
	return port_show(values, show_lro, result, error);
}

static int profile(const struct conf_value *values, json_t **result, struct error *error)
{
	if (values[PROFILE_RESET].given)
		profile_reset();
	else
		*result = show_profile();
	return 0;
}
