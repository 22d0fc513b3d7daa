/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The frame of every uplink.
 *
 * Theory of operation. To open one the main thread goes to the network namespace of its interface,
 * makes there what belongs to that namespace (sockets, TAP queues), and returns: descriptors work
 * wherever vifd's threads are. Then the port enters the port table and its queues are given to
 * workers, each woken by the descriptor that open() has named. Nothing is seen of an uplink before
 * all of that has worked.
 *
 * To close one is to take the port from the table while workers are paused, and to free it when
 * they run again: they know nothing of it any more.
 */
#include "uplink/uplink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "port/worker.h"
#include "uplink/recv_bufs.h"

static int check(const struct uplink_config *config, struct error *error)
{
	if (strlen(config->name) >= PORT_NAME_MAX)
		return fail(error, -ENAMETOOLONG, "port name '%s' is longer than %u characters",
			    config->name, PORT_NAME_MAX - 1);
	if (config->queues < 1 || config->queues > PORT_QUEUES_MAX)
		return fail(error, -EINVAL, "%u queues: 1 to %u are possible", config->queues,
			    PORT_QUEUES_MAX);
	return 0;
}

static struct uplink *uplink_new(const struct uplink_kind *kind, const struct uplink_config *config)
{
	struct uplink *uplink = aligned_alloc(64, kind->size);

	if (!uplink)
		return NULL;
	memset(uplink, 0, kind->size);
	uplink->netif = NETIF_NONE;
	strcpy(uplink->port.name, config->name);
	uplink->port.ops = kind->ops;
	uplink->port.queues = config->queues;
	uplink->port.uplink = true;
	return uplink;
}

/* Of a port that is not, or no longer, in the port table. */
static void uplink_free(struct uplink *uplink)
{
	if (uplink->kind)
		uplink->kind->close(uplink);
	netif_close(&uplink->netif);
	free(uplink);
}

/* Go to the interface and open what it takes there. */
static int interface_open(struct uplink *uplink, const struct uplink_kind *kind,
			  const struct uplink_config *config, struct error *error)
{
	int back, err = netns_enter(config->netns, &back, error);

	if (err)
		return err;
	err = netif_open(&uplink->netif, config->ifname, config->netns, error);
	if (!err) {
		uplink->kind = kind;
		err = kind->open(uplink, config, error);
	}
	netns_leave(back);
	return err;
}

/* Enter the port table and give the queues to workers. */
static int attach(struct uplink *uplink, struct error *error)
{
	struct port *port = &uplink->port;
	int err;

	workers_pause();
	err = port_register(port);
	if (!err) {
		worker_attach(port);
		for (unsigned i = 0; i < port->queues && !err; i++)
			err = worker_watch(port, i, uplink->wake_fds[i]);
		if (err) {
			worker_detach(port);
			port_unregister(port);
		}
	}
	workers_resume();
	return err ? fail(error, err, "port '%s' cannot be added: %s", port->name, strerror(-err))
		   : 0;
}

int uplink_open(const struct uplink_kind *kind, const struct uplink_config *config,
		struct port **port, struct error *error)
{
	struct uplink *uplink;
	int err = check(config, error);

	if (err)
		return err;
	uplink = uplink_new(kind, config);
	if (!uplink)
		return fail(error, -ENOMEM, "out of memory");
	err = interface_open(uplink, kind, config, error);
	if (!err)
		err = attach(uplink, error);
	if (err) {
		uplink_free(uplink);
		return err;
	}
	*port = &uplink->port;
	return 0;
}

int uplink_must_exist(const struct uplink *uplink, struct error *error)
{
	const struct netif *netif = &uplink->netif;

	if (netif->found)
		return 0;
	return netif->netns ? fail(error, -ENODEV,
				   "there is no interface '%s' in network namespace '%s'",
				   netif->name, netif->netns)
			    : fail(error, -ENODEV, "there is no interface '%s'", netif->name);
}

int uplink_set_up(struct uplink *uplink, const struct uplink_config *config, struct error *error)
{
	int mtu = netif_set_up(&uplink->netif, config->mtu, error);

	if (mtu < 0)
		return mtu;
	uplink->port.mtu = mtu < UINT16_MAX ? mtu : UINT16_MAX;
	return 0;
}

int uplink_recv_bufs(struct uplink *uplink, unsigned queue, struct recv_bufs *bufs,
		     struct error *error)
{
	if (recv_bufs_open(bufs, uplink->port.name))
		return fail(error, -ENOMEM, "out of memory");
	if (bufs->zones.count > 0)
		uplink->port.zones[queue] = &bufs->zones;
	return 0;
}

void uplink_close(struct port *port)
{
	workers_pause();
	port_unregister(port);
	workers_resume();
	uplink_free(uplink_of(port));
}

void uplink_tick(struct port *port)
{
	port_note_mtu(port, netif_mtu(&uplink_of(port)->netif));
}

void uplink_flush_nothing(struct port *port)
{
}

void uplink_disarm_nothing(struct port *port, unsigned queue)
{
}
