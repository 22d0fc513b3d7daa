/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commands that make, change and remove ports: uplinks and guests.
 *
 * Theory of operation. A port is opened by its own module as its options say, told how to merge
 * what it receives, and then put on a bridge, or tied to another port; it carries nothing before. A
 * step that fails takes back those before it.
 */
#include "sys/port_commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "guest/snet_control.h"
#include "guest/vhost_user.h"
#include "guest/xen_backend.h"
#include "port/worker.h"
#include "snet/snet_ring.h"
#include "sys/commands.h"
#include "uplink/af_packet.h"
#include "uplink/af_xdp.h"
#include "uplink/tap.h"

enum { GUEST_DEFAULT_MTU = 1500, GUEST_DEFAULT_MODE = 0660 };

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

/*
 * Put a new port where it belongs, unless err says that it is not to be; one whose peer does not
 * exist yet waits.
 */
static int port_join(struct port *port, const struct place *place, int err, struct error *error)
{
	struct port *peer;

	if (!err && place->bridge)
		err = bridge_add_port(place->bridge, port, error);
	if (err) {
		port_remove(port);
		return err;
	}
	if (place->bridge)
		return 0;
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

/* Open an uplink. The bridge and its name's being free have been seen to. */
static int uplink_new(const struct conf_value *values, struct port **port, struct error *error)
{
	const struct conf_value *queues = &values[UPLINK_QUEUES];
	struct uplink_config config = {
		.name = values[ARG_NAME].text,
		.netns = values[UPLINK_NETNS].text,
		.queues = queues->given ? (unsigned)queues->number : 1,
		.mtu = (uint16_t)values[UPLINK_MTU].number,
		.caps_mask = uplink_caps(&values[UPLINK_OFFLOAD]),
		.xdp_mode = (enum af_xdp_mode)values[UPLINK_XDP_MODE].number,
		.page_buffers = values[UPLINK_BUFFERS].number == BUFFERS_PAGE,
	};

	if (values[UPLINK_TAP].given) {
		config.ifname = values[UPLINK_TAP].text;
		return tap_open(&config, port, error);
	}
	if (values[UPLINK_AF_XDP].given) {
		config.ifname = values[UPLINK_AF_XDP].text;
		return af_xdp_open(&config, port, error);
	}
	config.ifname = values[UPLINK_AF_PACKET].text;
	return af_packet_open(&config, port, error);
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

int uplink_add(const struct conf_value *values, json_t **result, struct error *error)
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
	if (!xdp && values[UPLINK_BUFFERS].given)
		return fail(error, -EINVAL, "buffers= is for af-xdp= only");
	err = port_prepare(values[ARG_NAME].text, &values[UPLINK_BRIDGE], &values[UPLINK_DIRECT],
			   &place, error);
	if (err)
		return err;
	err = uplink_new(values, &port, error);
	if (err)
		return err;
	err = lro_apply(port, lro, &values[UPLINK_LRO], &values[UPLINK_BO], error);
	return port_join(port, &place, err, error);
}

int uplink_set(const struct conf_value *values, json_t **result, struct error *error)
{
	struct port *port = port_find_kind(values[ARG_NAME].text, true, error);

	if (!port)
		return -ENOENT;
	return lro_change(port, &values[UPLINK_SET_LRO], &values[UPLINK_SET_BO], error);
}

int uplink_del(const struct conf_value *values, json_t **result, struct error *error)
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
		.flip = values[GUEST_CHANNEL].number == CHANNEL_FLIP,
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
		if (values[GUEST_CHANNEL].number != CHANNEL_ZONES &&
		    values[GUEST_TRUST].number == TRUST_SHARED)
			return fail(error, -EINVAL,
				    "channel=%s copies everything, trust=shared nothing",
				    values[GUEST_CHANNEL].text);
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

int guest_add(const struct conf_value *values, json_t **result, struct error *error)
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
	return port_join(port, &place, err, error);
}

int guest_del(const struct conf_value *values, json_t **result, struct error *error)
{
	struct port *port = port_find_kind(values[ARG_NAME].text, false, error);

	if (!port)
		return -ENOENT;
	if (xen_is_guest(port))
		return fail(error, -EINVAL,
			    "'%s' is there because Xen says so ('xl network-detach' ends it)",
			    port->name);
	port_remove(port);
	return 0;
}

int guest_set(const struct conf_value *values, json_t **result, struct error *error)
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

/* ---- Xen ---- */

#ifdef VIFD_XEN
static const struct xen_ops *const xen_libs = &xen_libs_ops;
#else
static const struct xen_ops *const xen_libs; /* built without them */
#endif

static char xen_bridge[PORT_NAME_MAX]; /* of the guests for which Xen names none that exists */

static int xen_join(struct port *port, const char *name, struct error *error)
{
	struct bridge *named = name ? bridge_by_name(name) : NULL;
	struct place place = { .bridge = named ? named : bridge_find(xen_bridge, error) };

	worker_attach(port);
	return port_join(port, &place, place.bridge ? 0 : -ENOENT, error);
}

int xen_serve(const struct conf_value *values, json_t **result, struct error *error)
{
	static const enum xen_tx_mode modes[] = { XEN_TX_COPY, XEN_TX_HEADER, XEN_TX_MAP };
	const struct conf_value *queues = &values[XEN_QUEUES], *mtu = &values[XEN_MTU];
	struct xen_backend_config config = {
		.ops = xen_libs,
		.tx_mode = modes[values[XEN_TX].number],
		.queues = queues->given ? (unsigned)queues->number : 1,
		.mtu = mtu->given ? (uint16_t)mtu->number : GUEST_DEFAULT_MTU,
		.spoof_strict = values[XEN_SPOOF].number == SPOOF_STRICT,
		.isolated = values[XEN_ISOLATED].number,
		.join = xen_join,
		.leave = port_remove,
	};
	int err;

	if (!config.ops)
		return fail(error, -ENOTSUP, "vifd was built without Xen's libraries");
	if (xen_backend_is_open())
		return fail(error, -EBUSY, "Xen's guests are served already, on bridge '%s'",
			    xen_bridge);
	if (!bridge_find(values[XEN_BRIDGE].text, error))
		return -ENOENT;
	err = command_start_workers(error);
	if (err)
		return err;
	snprintf(xen_bridge, sizeof(xen_bridge), "%s", values[XEN_BRIDGE].text);
	return xen_backend_open(&config, error);
}
