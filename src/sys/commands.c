/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the commands of the grammar do.
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

#include "bridge/bridge.h"
#include "guest/snet_control.h"
#include "guest/vhost_user.h"
#include "port/port.h"
#include "port/worker.h"
#include "snet/snet_ring.h"
#include "sys/conf.h"
#include "sys/show.h"
#include "uplink/af_packet.h"
#include "uplink/af_xdp.h"
#include "uplink/tap.h"

enum { WORKERS_DEFAULT = 1, GUEST_DEFAULT_MTU = 1500, GUEST_DEFAULT_MODE = 0660 };

/* What "set" has said. */
struct settings {
	unsigned workers; /* 0: not said */
	unsigned cpu_count;
	int cpus[CONF_LIST_MAX];
	int idle_spin_usec;
};

/* One command; its values are in the order of its arguments in conf_commands. *result is JSON null
 * unless replaced. */
typedef int command_fn(const struct conf_value *values, json_t **result, struct error *error);
typedef json_t *show_fn(void);

static command_fn bridge_add, bridge_del, uplink_add, uplink_set, uplink_del;
static command_fn guest_add, guest_set, guest_del;
static command_fn fdb_add, fdb_del, fdb_show, stats_show, lro_show, profile;
static int set(const struct conf_value *values, bool at_start, struct error *error);

static command_fn *const functions[CMD_COUNT] = {
	[CMD_BRIDGE_ADD] = bridge_add, [CMD_BRIDGE_DEL] = bridge_del, [CMD_UPLINK_ADD] = uplink_add,
	[CMD_UPLINK_SET] = uplink_set, [CMD_SHOW_LRO] = lro_show,     [CMD_UPLINK_DEL] = uplink_del,
	[CMD_GUEST_ADD] = guest_add,   [CMD_GUEST_SET] = guest_set,   [CMD_GUEST_DEL] = guest_del,
	[CMD_FDB_ADD] = fdb_add,       [CMD_FDB_DEL] = fdb_del,       [CMD_SHOW_FDB] = fdb_show,
	[CMD_SHOW_STATS] = stats_show, [CMD_PROFILE] = profile,
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
	if (values[SET_IDLE_SPIN].given) {
		next.idle_spin_usec = values[SET_IDLE_SPIN].number;
		if (workers_count() > 0)
			workers_set_idle_spin(next.idle_spin_usec);
	}
	settings = next;
	return 0;
}

static struct bridge *bridge_find(const char *name, struct error *error)
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

/* The port of that name if it is an uplink, or a guest, as asked. */
static struct port *port_find_kind(const char *name, bool uplink, struct error *error)
{
	struct port *port = port_by_name(name);

	if (port && port->uplink == uplink)
		return port;
	if (port)
		fail(error, -EINVAL, "'%s' is %s", name,
		     uplink ? "a guest, not an uplink" : "an uplink, not a guest");
	else
		fail(error, -ENOENT, "there is no %s '%s' ('show %ss' lists them)",
		     uplink ? "uplink" : "guest", name, uplink ? "uplink" : "guest");
	return NULL;
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

/* Where a new port is to go: one of the two. */
struct place {
	struct bridge *bridge;
	const char *direct;
};

/* Can a port be tied to another, if that is there yet? */
static int check_direct(const char *name, const char *direct, struct error *error)
{
	const struct port *peer = port_by_name(direct);

	if (strcmp(name, direct) == 0)
		return fail(error, -EINVAL, "direct=%s: a port cannot be tied to itself", direct);
	if (peer && peer->bridge)
		return fail(error, -EBUSY,
			    "direct=%s: that port is on bridge '%s'; it needs direct=%s instead",
			    direct, peer->bridge->name, name);
	if (peer && strcmp(peer->direct_name, name) != 0)
		return fail(error, -EBUSY, "direct=%s: that port is for '%s' (its direct=)", direct,
			    peer->direct_name);
	return 0;
}

/* What a new port needs before it is opened. */
static int port_prepare(const char *name, const struct conf_value *bridge,
			const struct conf_value *direct, struct place *place, struct error *error)
{
	int err;

	*place = (struct place){ .direct = direct->given ? direct->text : NULL };
	if (port_by_name(name))
		return fail(error, -EEXIST, "there is already a port '%s'", name);
	if (place->direct) {
		err = check_direct(name, place->direct, error);
		if (err)
			return err;
	} else {
		place->bridge = bridge_find(bridge->text, error);
		if (!place->bridge)
			return -ENOENT;
	}
	return command_start_workers(error);
}

static void port_remove(struct port *port)
{
	workers_pause();
	if (port->bridge)
		bridge_remove_port(port);
	port_untie(port);
	worker_detach(port);
	workers_resume();
	port->ops->close(port);
}

/* Put a new port where it belongs; one whose peer does not exist yet waits. */
static int port_join(struct port *port, const struct place *place, struct error *error)
{
	struct port *peer;
	int err;

	if (place->bridge) {
		err = bridge_add_port(place->bridge, port, error);
		if (err)
			port_remove(port);
		return err;
	}
	snprintf(port->direct_name, sizeof(port->direct_name), "%s", place->direct);
	peer = port_by_name(place->direct);
	if (peer)
		port_tie(port, peer);
	return 0;
}

/* What offload= lets an uplink use of its interface's abilities. */
static uint32_t uplink_caps(const struct conf_value *offload)
{
	static const uint32_t caps[] = {
		[OFFLOAD_NONE] = 0,
		[OFFLOAD_CSUM] = PORT_CAP_CSUM,
		[OFFLOAD_CSUM_SG] = PORT_CAP_CSUM | PORT_CAP_SG,
		[OFFLOAD_ALL] = UINT32_MAX,
	};

	return caps[offload->given ? offload->number : OFFLOAD_ALL];
}

/* Open an uplink of one kind. The bridge and its name's being free have been seen to. */
static int tap_add(const struct conf_value *values, struct port **port, struct error *error)
{
	const struct conf_value *queues = &values[UPLINK_QUEUES];
	struct tap_config config = {
		.name = values[ARG_NAME].text,
		.ifname = values[UPLINK_TAP].text,
		.netns = values[UPLINK_NETNS].text,
		.queues = queues->given ? (unsigned)queues->number : 1,
		.mtu = (uint16_t)values[UPLINK_MTU].number,
		.caps_mask = uplink_caps(&values[UPLINK_OFFLOAD]),
		.uplink = true,
	};

	return tap_open(&config, port, error);
}

static int af_packet_add(const struct conf_value *values, struct port **port, struct error *error)
{
	const struct conf_value *queues = &values[UPLINK_QUEUES];
	struct af_packet_config config = {
		.name = values[ARG_NAME].text,
		.ifname = values[UPLINK_AF_PACKET].text,
		.netns = values[UPLINK_NETNS].text,
		.queues = queues->given ? (unsigned)queues->number : 1,
		.mtu = (uint16_t)values[UPLINK_MTU].number,
		.caps_mask = uplink_caps(&values[UPLINK_OFFLOAD]),
	};

	return af_packet_open(&config, port, error);
}

static int af_xdp_add(const struct conf_value *values, struct port **port, struct error *error)
{
	const struct conf_value *queues = &values[UPLINK_QUEUES];
	struct af_xdp_config config = {
		.name = values[ARG_NAME].text,
		.ifname = values[UPLINK_AF_XDP].text,
		.netns = values[UPLINK_NETNS].text,
		.queues = queues->given ? (unsigned)queues->number : 1,
		.mtu = (uint16_t)values[UPLINK_MTU].number,
		.mode = (enum af_xdp_mode)values[UPLINK_XDP_MODE].number,
	};

	return af_xdp_open(&config, port, error);
}

/* Have a port merge what it receives as config says, but for what lro= and bo= (if any) say. */
static int lro_apply(struct port *port, struct lro_config config, const struct conf_value *lro,
		     const struct conf_value *bo, struct error *error)
{
	int err;

	if (lro->given) {
		config.mode = (enum lro_mode)lro->number;
		config.value = (unsigned)lro->list[0];
	}
	if (bo && bo->given)
		config.linear = bo->number == BO_OFF;
	if (config.mode == LRO_OFF && !config.linear && !port->lro[0])
		return 0;
	err = worker_set_lro(port, &config);
	return err ? fail(error, err, "out of memory for lro=%s", lro->text) : 0;
}

/* The same for a port that exists: what is not said stays as it is. */
static int lro_change(struct port *port, const struct conf_value *lro, const struct conf_value *bo,
		      struct error *error)
{
	struct lro_config config = { 0 };

	if (port->lro[0])
		config = *lro_settings(port->lro[0]);
	return lro_apply(port, config, lro, bo, error);
}

static int uplink_add(const struct conf_value *values, json_t **result, struct error *error)
{
	bool xdp = values[UPLINK_AF_XDP].given;
	/* The kernel merges what it receives before other uplinks see it. */
	const struct lro_config lro = { .mode = xdp ? LRO_AUTO : LRO_OFF };
	struct place place;
	struct port *port;
	int err;

	if (xdp && values[UPLINK_OFFLOAD].given)
		return fail(error, -EINVAL,
			    "offload= is for tap= and af-packet=: AF_XDP has no offloads");
	if (!xdp && values[UPLINK_XDP_MODE].given)
		return fail(error, -EINVAL, "xdp-mode= is for af-xdp= only");
	err = port_prepare(values[ARG_NAME].text, &values[UPLINK_BRIDGE], &values[UPLINK_DIRECT],
			   &place, error);
	if (err)
		return err;
	if (values[UPLINK_TAP].given)
		err = tap_add(values, &port, error);
	else if (xdp)
		err = af_xdp_add(values, &port, error);
	else
		err = af_packet_add(values, &port, error);
	if (err)
		return err;
	err = lro_apply(port, lro, &values[UPLINK_LRO], &values[UPLINK_BO], error);
	if (err) {
		port_remove(port);
		return err;
	}
	return port_join(port, &place, error);
}

static int uplink_set(const struct conf_value *values, json_t **result, struct error *error)
{
	struct port *port = port_find_kind(values[ARG_NAME].text, true, error);

	if (!port)
		return -ENOENT;
	return lro_change(port, &values[UPLINK_SET_LRO], &values[UPLINK_SET_BO], error);
}

static int uplink_del(const struct conf_value *values, json_t **result, struct error *error)
{
	struct port *port = port_find_kind(values[ARG_NAME].text, true, error);

	if (!port)
		return -ENOENT;
	port_remove(port);
	return 0;
}

static int vhost_user_add(const struct conf_value *values, struct port **port, struct error *error)
{
	const struct conf_value *queues = &values[GUEST_QUEUES], *mtu = &values[GUEST_MTU];
	const struct conf_value *mac = &values[GUEST_MAC], *mode = &values[GUEST_MODE];
	const struct conf_value *offload = &values[GUEST_OFFLOAD];
	struct vhost_user_config config = {
		.name = values[ARG_NAME].text,
		.path = values[GUEST_VHOST_USER].text,
		.fd = -1,
		.client = values[GUEST_CLIENT].number,
		.pairs = queues->given ? (unsigned)queues->number : 1,
		.mtu = mtu->given ? (uint16_t)mtu->number : GUEST_DEFAULT_MTU,
		.mac = mac->given ? mac->mac : NULL,
		.spoof_strict = values[GUEST_SPOOF].number == SPOOF_STRICT,
		.isolated = values[GUEST_ISOLATED].number,
		.no_offload = offload->given && !offload->number,
		.mode = mode->given ? (mode_t)mode->number : GUEST_DEFAULT_MODE,
	};

	return vhost_user_open(&config, port, error);
}

static int snet_add(const struct conf_value *values, struct port **port, struct error *error)
{
	const struct conf_value *ring = &values[GUEST_RING], *entry = &values[GUEST_ENTRY];
	const struct conf_value *mtu = &values[GUEST_MTU], *mode = &values[GUEST_MODE];
	const struct conf_value *mac = &values[GUEST_MAC], *offload = &values[GUEST_OFFLOAD];
	struct snet_config config = {
		.name = values[ARG_NAME].text,
		.path = values[GUEST_SNET].text,
		.mtu = mtu->given ? (uint16_t)mtu->number : GUEST_DEFAULT_MTU,
		.mac = mac->given ? mac->mac : NULL,
		.spoof_strict = values[GUEST_SPOOF].number == SPOOF_STRICT,
		.isolated = values[GUEST_ISOLATED].number,
		.no_offload = offload->given && !offload->number,
		.shared = values[GUEST_TRUST].number == TRUST_SHARED,
		.remap = values[GUEST_CHANNEL].number == CHANNEL_REMAP,
		.ring_size = ring->given ? (uint32_t)ring->number : SNET_RING_DEFAULT,
		.stride = entry->given ? (uint32_t)entry->number : SNET_ENTRY_MIN,
		.mode = mode->given ? (mode_t)mode->number : GUEST_DEFAULT_MODE,
	};

	return snet_open(&config, port, error);
}

/* Options that only one of the channels has. */
static int guest_check_channel(const struct conf_value *values, struct error *error)
{
	const struct conf_value *ring = &values[GUEST_RING], *entry = &values[GUEST_ENTRY];

	if (values[GUEST_SNET].given) {
		if (values[GUEST_CLIENT].given)
			return fail(error, -EINVAL,
				    "client is for vhost-user=: snet front ends connect to vifd");
		if (values[GUEST_QUEUES].given)
			return fail(error, -EINVAL,
				    "queues= is for vhost-user=: snet has one for each worker");
		if (values[GUEST_CHANNEL].number == CHANNEL_REMAP &&
		    values[GUEST_TRUST].number == TRUST_SHARED)
			return fail(error, -EINVAL,
				    "channel=remap copies everything, trust=shared nothing");
	} else if (values[GUEST_TRUST].given || values[GUEST_CHANNEL].given || ring->given ||
		   entry->given) {
		return fail(error, -EINVAL,
			    "trust=, channel=, ring= and entry= are for snet= only");
	}
	if (ring->given && ring->number & (ring->number - 1))
		return fail(error, -EINVAL, "ring=%d: give a power of two", ring->number);
	if (entry->given && entry->number % 16)
		return fail(error, -EINVAL, "entry=%d: give a multiple of 16", entry->number);
	return 0;
}

/* What the grammar cannot say about the options of guest add. */
static int guest_check(const struct conf_value *values, struct error *error)
{
	bool strict = values[GUEST_SPOOF].number == SPOOF_STRICT;

	if (strict && !values[GUEST_MAC].given)
		return fail(error, -EINVAL,
			    "spoof=strict needs mac=, the one address the guest may use");
	if (values[GUEST_DIRECT].given && (strict || values[GUEST_ISOLATED].number))
		return fail(error, -EINVAL,
			    "%s is what a bridge sees to, and direct= goes past all of them",
			    strict ? "spoof=strict" : "isolated");
	if (values[GUEST_CLIENT].number && values[GUEST_MODE].given)
		return fail(error, -EINVAL,
			    "mode= is for a socket that vifd makes; with client it makes none");
	return guest_check_channel(values, error);
}

static int guest_add(const struct conf_value *values, json_t **result, struct error *error)
{
	struct place place;
	struct port *port;
	int err = guest_check(values, error);

	if (!err)
		err = port_prepare(values[ARG_NAME].text, &values[GUEST_BRIDGE],
				   &values[GUEST_DIRECT], &place, error);
	if (!err && values[GUEST_SNET].given)
		err = snet_add(values, &port, error);
	else if (!err)
		err = vhost_user_add(values, &port, error);
	if (err)
		return err;
	err = lro_change(port, &values[GUEST_LRO], NULL, error);
	if (err) {
		port_remove(port);
		return err;
	}
	return port_join(port, &place, error);
}

static int guest_del(const struct conf_value *values, json_t **result, struct error *error)
{
	struct port *port = port_find_kind(values[ARG_NAME].text, false, error);

	if (!port)
		return -ENOENT;
	port_remove(port);
	return 0;
}

/* Pin mac to port in the table of its bridge. */
static int fdb_pin(struct port *port, const uint8_t *mac, struct error *error)
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

static int guest_set(const struct conf_value *values, json_t **result, struct error *error)
{
	const struct conf_value *isolated = &values[GUEST_SET_ISOLATED],
				*spoof = &values[GUEST_SET_SPOOF];
	const struct conf_value *mac = &values[GUEST_SET_MAC];
	struct port *port = port_find_kind(values[ARG_NAME].text, false, error);
	bool strict, new_mac;
	int err = 0;

	if (!port)
		return -ENOENT;
	if (!port->bridge && (isolated->given || spoof->given || mac->given))
		return fail(error, -EINVAL, "'%s' is on no bridge, which would see to that",
			    port->name);
	strict = spoof->given ? spoof->number == SPOOF_STRICT : port->spoof_strict;
	if (strict && !mac->given && !port->has_mac)
		return fail(error, -EINVAL,
			    "spoof=strict needs mac=, the one address the guest may use");
	new_mac = mac->given &&
		  (!port->has_mac || memcmp(mac->mac, port->mac, sizeof(port->mac)) != 0);

	workers_pause();
	if (new_mac)
		err = fdb_pin(port, mac->mac, error);
	if (!err) {
		if (new_mac && port->has_mac)
			mac_table_delete(&port->bridge->fdb, port->mac);
		if (new_mac)
			memcpy(port->mac, mac->mac, sizeof(port->mac));
		port->has_mac |= mac->given;
		port->spoof_strict = strict;
		port->isolated = isolated->given ? isolated->number : port->isolated;
		bridge_settings_changed();
	}
	workers_resume();
	return err ? err : lro_change(port, &values[GUEST_SET_LRO], NULL, error);
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

static int stats_show(const struct conf_value *values, json_t **result, struct error *error)
{
	const char *name = values[SHOW_ONE].text;
	struct port *port = name ? port_find(name, error) : NULL;

	if (name && !port)
		return -ENOENT;
	*result = show_stats(port);
	return 0;
}

static int lro_show(const struct conf_value *values, json_t **result, struct error *error)
{
	const char *name = values[SHOW_ONE].text;
	struct port *port = name ? port_find(name, error) : NULL;

	if (name && !port)
		return -ENOENT;
	*result = show_lro(port);
	return 0;
}

static int profile(const struct conf_value *values, json_t **result, struct error *error)
{
	if (values[PROFILE_RESET].given)
		profile_reset();
	else
		*result = show_profile();
	return 0;
}
