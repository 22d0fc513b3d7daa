/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One virtual interface of a Xen guest: the handshake over the store.
 *
 * Theory of operation. Each end has a directory in the store, and in it a state that only it writes
 * (and the toolstack, which makes both directories and asks for the end). We follow the front end:
 *
 *      front end            we            then
 *      1 Initialising       1, 4, 5, 6    offer our features, 2 InitWait
 *      4 Connected          2             read its rings and features, serve them, 4
 *      4 Connected          4, not served the back end before us died: go on where it stopped
 *      5 Closing            4             stop serving, 5
 *      6 Closed, or gone    4, 5          stop serving, 6
 *      4 Connected          5             the toolstack wants the interface gone: stop, 6
 *
 * After 6 a front end may begin anew with 1, if the toolstack says online.
 *
 * We do not wait for the hotplug script, for it has nothing to do that we need: the port is on its
 * bridge since the directory was found.
 *
 * What is read from the front end's directory is the guest's word, and treated so; where that
 * directory is, and who the guest is, we read from ours, which the guest cannot write. When we end,
 * states stay as they are: guests wait for whoever comes after us and lose nothing.
 */
#include "guest/xen_vif.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port/worker.h"

enum { TRANSACTIONS_MAX = 100 };

/* ---- reading and writing the store ---- */

static char *read_text(const struct xen_vif *vif, const char *dir, const char *key)
{
	char path[4 * XEN_STORE_PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, key);
	return vif->config->ops->read(path);
}

/* False: there is no such node, or no such number in it. */
static bool read_number(const struct xen_vif *vif, const char *dir, const char *key,
			uint32_t *number)
{
	char *text = read_text(vif, dir, key), *end = NULL;
	unsigned long value;
	bool good;

	if (!text)
		return false;
	errno = 0;
	value = strtoul(text, &end, 10);
	good = isdigit((unsigned char)text[0]) && *end == '\0' && !errno && value <= UINT32_MAX;
	free(text);
	if (good)
		*number = value;
	return good;
}

static uint32_t number_or(const struct xen_vif *vif, const char *dir, const char *key,
			  uint32_t otherwise)
{
	read_number(vif, dir, key, &otherwise);
	return otherwise;
}

static int write_number(const struct xen_vif *vif, uint32_t transaction, const char *key,
			unsigned value)
{
	char path[2 * XEN_STORE_PATH_MAX], text[16];

	snprintf(path, sizeof(path), "%s/%s", vif->dir, key);
	snprintf(text, sizeof(text), "%u", value);
	return vif->config->ops->write(transaction, path, text);
}

static void set_state(struct xen_vif *vif, enum xen_state state)
{
	int err = write_number(vif, 0, "state", state);

	if (err && err != -ENOENT)
		log_error("guest %s: its state cannot be written to the store: %s",
			  vif->netif.channel.port.name, strerror(-err));
}

/* ---- the handshake ---- */

static int write_features(const struct xen_vif *vif, uint32_t transaction)
{
	const struct {
		const char *key;
		unsigned value;
	} keys[] = {
		{ "feature-sg", 1 },
		{ "feature-gso-tcpv4", 1 },
		{ "feature-gso-tcpv6", 1 },
		{ "feature-ipv6-csum-offload", 1 },
		{ "feature-rx-copy", 1 },
		{ "feature-rx-flip", 0 },
		{ "feature-multicast-control", 1 },
		{ "feature-split-event-channels", 1 },
		{ "multi-queue-max-queues", vif->config->queues },
		{ "state", XEN_STATE_INIT_WAIT },
	};
	int err = 0;

	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]) && !err; i++)
		err = write_number(vif, transaction, keys[i].key, keys[i].value);
	return err;
}

/* Say what we can, and that we are waiting: both or neither. */
static void offer(struct xen_vif *vif)
{
	const struct xen_ops *ops = vif->config->ops;
	int err = -EAGAIN;

	for (unsigned i = 0; i < TRANSACTIONS_MAX && err == -EAGAIN; i++) {
		uint32_t transaction;
		int ended;

		err = ops->begin(&transaction);
		if (err)
			break;
		err = write_features(vif, transaction);
		ended = ops->end(transaction);
		if (!err)
			err = ended;
	}
	if (err)
		log_error("guest %s: our features cannot be written to the store: %s",
			  vif->netif.channel.port.name, strerror(-err));
}

/* What the front end says about a queue, in dir. */
static int read_queue(struct xen_vif *vif, const char *dir, struct xen_queue_config *queue,
		      struct error *error)
{
	bool split = read_number(vif, dir, "event-channel-tx", &queue->tx_event) &&
		     read_number(vif, dir, "event-channel-rx", &queue->rx_event);

	if (!split) {
		if (!read_number(vif, dir, "event-channel", &queue->tx_event))
			return fail(error, -EPROTO, "its front end names no event channel");
		queue->rx_event = queue->tx_event;
	}
	vif->split_events = split;
	if (!read_number(vif, dir, "tx-ring-ref", &queue->tx_ref) ||
	    !read_number(vif, dir, "rx-ring-ref", &queue->rx_ref))
		return fail(error, -EPROTO, "its front end names no rings");
	return 0;
}

static int read_queues(struct xen_vif *vif, struct xen_config *config, struct error *error)
{
	uint32_t count = number_or(vif, vif->front, "multi-queue-num-queues", 1);
	int err = 0;

	if (count < 1 || count > vif->config->queues)
		return fail(error, -EPROTO, "its front end wants %u queues of %u", count,
			    vif->config->queues);
	config->queues = count;
	if (count == 1) /* has its keys where they were before there were several */
		return read_queue(vif, vif->front, &config->queue[0], error);
	for (uint32_t i = 0; i < count && !err; i++) {
		char dir[2 * XEN_STORE_PATH_MAX];

		snprintf(dir, sizeof(dir), "%s/queue-%u", vif->front, i);
		err = read_queue(vif, dir, &config->queue[i], error);
	}
	return err;
}

static bool front_has(const struct xen_vif *vif, const char *key)
{
	return number_or(vif, vif->front, key, 0) == 1;
}

/* What the front end takes. Checksums are one thing to us, IPv4 and IPv6 alike. */
static void read_features(const struct xen_vif *vif, struct xen_config *config)
{
	bool csum = !front_has(vif, "feature-no-csum-offload") &&
		    front_has(vif, "feature-ipv6-csum-offload");

	config->sg = front_has(vif, "feature-sg");
	config->caps = PORT_CAP_SG | PORT_CAP_REMOTE | (csum ? PORT_CAP_CSUM : 0);
	if (config->sg && csum) {
		if (front_has(vif, "feature-gso-tcpv4"))
			config->caps |= PORT_CAP_TSO4;
		if (front_has(vif, "feature-gso-tcpv6"))
			config->caps |= PORT_CAP_TSO6;
	}
	config->multicast_asks = front_has(vif, "request-multicast-control");
}

static int try_connect(struct xen_vif *vif, struct error *error)
{
	struct xen_config config = { 0 };
	int err;

	if (!front_has(vif, "request-rx-copy"))
		return fail(error, -EPROTO,
			    "its front end wants pages to change hands, which nobody does any "
			    "more");
	err = read_queues(vif, &config, error);
	if (err)
		return err;
	read_features(vif, &config);
	xen_vif_read_rate(vif);
	return xen_netif_connect(&vif->netif, &config, error);
}

static bool connect_front(struct xen_vif *vif)
{
	struct error why = { "" };

	if (try_connect(vif, &why)) {
		if (strcmp(vif->why.text, why.text) != 0 && log_allowed(&vif->limit))
			log_error("guest %s: %s", vif->netif.channel.port.name, why.text);
		vif->why = why;
		return false;
	}
	vif->why.text[0] = '\0';
	vif->connected = true;
	vif->connections++;
	if (log_allowed(&vif->limit))
		log_info("guest %s: front end connected, %u queue%s", vif->netif.channel.port.name,
			 vif->netif.channel.pairs, vif->netif.channel.pairs == 1 ? "" : "s");
	return true;
}

static void disconnect_front(struct xen_vif *vif)
{
	if (!vif->connected)
		return;
	xen_netif_disconnect(&vif->netif);
	vif->connected = false;
	if (log_allowed(&vif->limit))
		log_info("guest %s: front end disconnected", vif->netif.channel.port.name);
}

static void on_front_connected(struct xen_vif *vif, enum xen_state ours)
{
	switch (ours) {
	case XEN_STATE_INIT_WAIT:
	case XEN_STATE_INITIALISED:
		if (connect_front(vif))
			set_state(vif, XEN_STATE_CONNECTED);
		break;
	case XEN_STATE_CONNECTED:
		if (!vif->connected)
			connect_front(vif);
		break;
	case XEN_STATE_CLOSING:
		disconnect_front(vif);
		set_state(vif, XEN_STATE_CLOSED);
		break;
	default:
		break;
	}
}

/* It begins, or begins anew. */
static void on_front_initialising(struct xen_vif *vif, enum xen_state ours)
{
	disconnect_front(vif);
	if (ours == XEN_STATE_INIT_WAIT)
		return;
	if (number_or(vif, vif->dir, "online", 0))
		offer(vif);
	else if (ours != XEN_STATE_CLOSED)
		set_state(vif, XEN_STATE_CLOSED);
}

bool xen_vif_step(struct xen_vif *vif)
{
	uint32_t ours, theirs = number_or(vif, vif->front, "state", XEN_STATE_UNKNOWN);

	if (!read_number(vif, vif->dir, "state", &ours))
		return false;
	if (ours == XEN_STATE_INITIALISING) {
		disconnect_front(vif);
		offer(vif);
		return true;
	}
	switch (theirs) {
	case XEN_STATE_INITIALISING:
		on_front_initialising(vif, ours);
		break;
	case XEN_STATE_CONNECTED:
		on_front_connected(vif, ours);
		break;
	case XEN_STATE_CLOSING:
		disconnect_front(vif);
		if (ours == XEN_STATE_CONNECTED)
			set_state(vif, XEN_STATE_CLOSING);
		break;
	case XEN_STATE_UNKNOWN:
	case XEN_STATE_CLOSED:
		disconnect_front(vif);
		if (ours != XEN_STATE_CLOSED && ours != XEN_STATE_INIT_WAIT)
			set_state(vif, XEN_STATE_CLOSED);
		break;
	default: /* on its way */
		break;
	}
	return true;
}

/* "bytes,usec"; each queue has its share. */
void xen_vif_read_rate(struct xen_vif *vif)
{
	char *text = read_text(vif, vif->dir, "rate");
	unsigned long long bytes = 0;
	unsigned usec = 0;
	char rest;

	if (!text || sscanf(text, "%llu,%u%c", &bytes, &usec, &rest) != 2 || usec == 0)
		bytes = 0;
	free(text);
	xen_netif_set_rate(&vif->netif, bytes, usec);
}

/* ---- making and ending it ---- */

static void watch_path(const struct xen_vif *vif, char *path, size_t size)
{
	snprintf(path, size, "%s/state", vif->front);
}

void xen_vif_free(struct xen_vif *vif)
{
	char path[4 * XEN_STORE_PATH_MAX];

	watch_path(vif, path, sizeof(path));
	vif->config->ops->unwatch(path, vif->token);
	disconnect_front(vif);
	xen_backend_forget(vif);
	workers_pause();
	port_unregister(&vif->netif.channel.port);
	workers_resume();
	free(vif);
}

static void channel_close(struct channel *channel)
{
	xen_vif_free(xen_vif_of_port(&channel->port));
}

static const struct channel_ops *channel_ops(void)
{
	static struct channel_ops ops;

	ops = xen_channel_ops;
	ops.close = channel_close;
	return &ops;
}

static void port_tick(struct port *port)
{
	xen_netif_tick(&xen_vif_of_port(port)->netif);
}

/* Those of any guest channel, and a clock. */
const struct port_ops *xen_port_ops(void)
{
	static struct port_ops ops;

	ops = guest_port_ops;
	ops.kind = "xen";
	ops.tick = port_tick;
	return &ops;
}

static bool read_mac(const struct xen_vif *vif, uint8_t *mac)
{
	char *text = read_text(vif, vif->dir, "mac");
	unsigned part[6];
	bool good = text && sscanf(text, "%x:%x:%x:%x:%x:%x", &part[0], &part[1], &part[2],
				   &part[3], &part[4], &part[5]) == 6;

	free(text);
	for (unsigned i = 0; i < 6 && good; i++) {
		good = part[i] <= UINT8_MAX;
		mac[i] = part[i];
	}
	return good && !(mac[0] & 1);
}

static void fill_port(struct xen_vif *vif)
{
	const struct xen_backend_config *config = vif->config;
	struct port *port = &vif->netif.channel.port;
	uint32_t mtu = number_or(vif, vif->dir, "mtu", config->mtu);

	snprintf(port->name, sizeof(port->name), "vif%u.%u", vif->domid, vif->devid);
	port->ops = xen_port_ops();
	port->caps = PORT_CAP_SG;
	port->mtu = mtu >= 68 && mtu <= UINT16_MAX ? mtu : config->mtu;
	port->queues = config->queues;
	port->isolated = config->isolated;
	port->has_mac = read_mac(vif, port->mac);
	port->spoof_strict = config->spoof_strict && port->has_mac;
}

static int join(struct xen_vif *vif, struct error *error)
{
	struct port *port = &vif->netif.channel.port;
	char *bridge;
	int err;

	workers_pause();
	err = port_register(port);
	workers_resume();
	if (err) {
		free(vif);
		return fail(error, err, "there is no room for it: %s", strerror(-err));
	}
	bridge = read_text(vif, vif->dir, "bridge");
	err = vif->config->join(port, bridge, error); /* frees the interface if it cannot */
	free(bridge);
	return err;
}

struct xen_vif *xen_vif_new(const struct xen_backend_config *config, unsigned domid, unsigned devid,
			    struct error *error)
{
	struct xen_vif *vif = aligned_alloc(64, (sizeof(*vif) + 63) & ~(size_t)63);
	char path[2 * XEN_STORE_PATH_MAX], *front;
	int err;

	error->text[0] = '\0';
	if (!vif) {
		fail(error, -ENOMEM, "out of memory");
		return NULL;
	}
	memset(vif, 0, sizeof(*vif));
	vif->config = config;
	vif->domid = domid;
	vif->devid = devid;
	vif->netif.channel.ops = channel_ops();
	vif->netif.channel.pairs = 1;
	vif->netif.ops = config->ops;
	vif->netif.tx_mode = config->tx_mode;
	snprintf(vif->dir, sizeof(vif->dir), "backend/vif/%u/%u", domid, devid);
	snprintf(vif->token, sizeof(vif->token), "front/%u/%u", domid, devid);
	vif->netif.domid = number_or(vif, vif->dir, "frontend-id", domid);
	front = read_text(vif, vif->dir, "frontend");
	if (!front) {
		free(vif);
		return NULL;
	}
	snprintf(vif->front, sizeof(vif->front) - sizeof("/state"), "%s", front);
	free(front);
	fill_port(vif);
	if (join(vif, error))
		return NULL;
	watch_path(vif, path, sizeof(path));
	err = config->ops->watch(path, vif->token);
	if (err)
		log_error("guest %s: its front end cannot be watched: %s",
			  vif->netif.channel.port.name, strerror(-err));
	return vif;
}
