/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A guest behind vhost-user: a virtio network device (virtio_net.c), a socket (vhost_link.c), and
 * the messages on it that set up the one (vhost_messages.c). Here they become a port, and end.
 *
 * Theory of operation. The port lives from vhost_user_open() to its close(), whether a front end is
 * connected or not; without one it drops what it is sent. When a front end goes, all that it said
 * is forgotten: rings, memory, descriptors, features, MTU. What was configured stays, and the next
 * front end starts from there.
 */
#include "guest/vhost_user.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/vhost_messages.h"
#include "port/worker.h"
#include "sys/pages.h"

/* What the low-level NIC of the papers does not have (M6, M30): checksums and segmentation, both
 * ways. */
static const uint64_t offloads =
	VIRTIO_BIT(VIRTIO_NET_F_CSUM_BIT) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM_BIT) |
	VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4_BIT) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4_BIT) |
	VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6_BIT) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6_BIT) |
	VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN_BIT) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN_BIT) |
	VIRTIO_BIT(VIRTIO_NET_F_HOST_USO_BIT) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO4_BIT) |
	VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO6_BIT);

static struct vhost_user *of_channel(struct channel *channel)
{
	return (struct vhost_user *)((char *)channel - offsetof(struct vhost_user, device.channel));
}

static void on_up(struct vhost_link *link)
{
	if (log_allowed(&link->limit))
		log_info("guest %s: front end connected", link->name);
}

static void forget_front_end(struct vhost_user *vu)
{
	struct guest_mem *old;

	workers_pause();
	old = virtio_net_reset(&vu->device);
	vu->device.channel.port.mtu = vu->mtu;
	workers_resume();
	guest_mem_free(old);
	memset(vu->has, 0, sizeof(vu->has));
	vu->protocol_features = 0;
	vu->status = 0;
}

static void on_down(struct vhost_link *link)
{
	if (log_allowed(&link->limit))
		log_info("guest %s: front end disconnected", link->name);
	forget_front_end(vhost_user_of_link(link));
}

static const struct vhost_link_ops link_ops = {
	.up = on_up,
	.message = vhost_user_message,
	.down = on_down,
};

/* ---- the port ---- */

static void vhost_user_close(struct channel *channel)
{
	struct vhost_user *vu = of_channel(channel);

	vhost_link_close(&vu->link);
	workers_pause();
	port_unregister(&channel->port);
	workers_resume();
	virtio_net_fini(&vu->device);
	free(vu);
}

/* virtio_net's, ended by us. */
static const struct channel_ops *vhost_user_channel_ops(void)
{
	static struct channel_ops ops;

	if (!ops.close) {
		ops = virtio_net_channel_ops;
		ops.close = vhost_user_close;
	}
	return &ops;
}

static void fill_port(struct port *port, const struct vhost_user_config *config)
{
	snprintf(port->name, sizeof(port->name), "%s", config->name);
	port->mtu = config->mtu;
	port->isolated = config->isolated;
	port->spoof_strict = config->spoof_strict;
	port->has_mac = config->mac;
	if (config->mac)
		memcpy(port->mac, config->mac, sizeof(port->mac));
}

int vhost_user_open(const struct vhost_user_config *config, struct port **port, struct error *error)
{
	struct vhost_link_config link = {
		.path = config->path,
		.fd = config->fd,
		.client = config->client,
		.mode = config->mode ? config->mode : 0660,
	};
	struct vhost_user *vu = aligned_alloc(64, sizeof(*vu));
	int ret;

	if (!vu)
		return fail(error, -ENOMEM, "out of memory");
	memset(vu, 0, sizeof(*vu));
	ret = virtio_net_init(&vu->device, config->pairs);
	if (ret) {
		free(vu);
		return fail(error, ret, "out of memory");
	}
	*port = &vu->device.channel.port;
	vu->device.channel.ops = vhost_user_channel_ops();
	vu->mtu = config->mtu;
	vu->offered = config->no_offload ? VIRTIO_NET_FEATURES & ~offloads : VIRTIO_NET_FEATURES;
	fill_port(*port, config);
	link.name = (*port)->name;

	workers_pause();
	ret = port_register(*port);
	if (ret == 0)
		worker_attach(*port);
	workers_resume();
	if (ret) {
		fail(error, ret,
		     ret == -EEXIST ? "there is a port '%s' already" : "no room for port '%s'",
		     config->name);
		virtio_net_fini(&vu->device);
		free(vu);
		return ret;
	}

	vu->link.ops = &link_ops;
	ret = vhost_link_open(&vu->link, &link, error);
	if (ret) {
		worker_detach(*port);
		vhost_user_close(&vu->device.channel);
	}
	return ret;
}

void vhost_user_tick(void)
{
	for (unsigned id = 1; id < PORTS_MAX; id++) {
		struct port *port = port_by_id(id);

		if (!port || port->ops != &guest_port_ops)
			continue;
		struct vhost_user *vu = of_channel(channel_of_port(port));

		virtio_net_tick(&vu->device);
		if (!vu->device.mem || !guest_mem_lost(vu->device.mem))
			continue;
		if (log_allowed(&vu->link.limit))
			log_warn("guest %s: its memory was taken away while in use: disconnected",
				 port->name);
		vhost_link_disconnect(&vu->link);
	}
}

/* ---- show ---- */

static const struct {
	unsigned bit;
	const char *name;
} feature_names[] = {
	{ VIRTIO_NET_F_CSUM_BIT, "csum" },
	{ VIRTIO_NET_F_GUEST_CSUM_BIT, "guest_csum" },
	{ VIRTIO_NET_F_MTU_BIT, "mtu" },
	{ VIRTIO_NET_F_MAC_BIT, "mac" },
	{ VIRTIO_NET_F_GUEST_TSO4_BIT, "guest_tso4" },
	{ VIRTIO_NET_F_GUEST_TSO6_BIT, "guest_tso6" },
	{ VIRTIO_NET_F_GUEST_ECN_BIT, "guest_ecn" },
	{ VIRTIO_NET_F_HOST_TSO4_BIT, "host_tso4" },
	{ VIRTIO_NET_F_HOST_TSO6_BIT, "host_tso6" },
	{ VIRTIO_NET_F_HOST_ECN_BIT, "host_ecn" },
	{ VIRTIO_NET_F_MRG_RXBUF_BIT, "mrg_rxbuf" },
	{ VIRTIO_NET_F_STATUS_BIT, "status" },
	{ VIRTIO_NET_F_CTRL_VQ_BIT, "ctrl_vq" },
	{ VIRTIO_NET_F_GUEST_ANNOUNCE_BIT, "guest_announce" },
	{ VIRTIO_NET_F_MQ_BIT, "mq" },
	{ VIRTIO_F_ANY_LAYOUT_BIT, "any_layout" },
	{ VIRTIO_RING_F_INDIRECT_DESC_BIT, "indirect_desc" },
	{ VIRTIO_RING_F_EVENT_IDX_BIT, "event_idx" },
	{ VHOST_USER_F_PROTOCOL_FEATURES_BIT, "protocol_features" },
	{ VIRTIO_F_VERSION_1_BIT, "version_1" },
	{ VIRTIO_F_IN_ORDER_BIT, "in_order" },
	{ VIRTIO_NET_F_GUEST_USO4_BIT, "guest_uso4" },
	{ VIRTIO_NET_F_GUEST_USO6_BIT, "guest_uso6" },
	{ VIRTIO_NET_F_HOST_USO_BIT, "host_uso" },
};

static json_t *show_features(uint64_t features)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < sizeof(feature_names) / sizeof(*feature_names); i++) {
		if (features & VIRTIO_BIT(feature_names[i].bit))
			json_array_append_new(list, json_string(feature_names[i].name));
	}
	return list;
}

/* Why a ring does not run, in words; NULL when it does. */
static const char *ring_why(struct vhost_user *vu, unsigned index)
{
	const struct ring_has *has = &vu->has[index];
	const struct virtq *vq = &vu->device.rings[index].vq;

	if (vq->started && vq->broken)
		return virtq_error_names[vq->error];
	if (vq->started)
		return vq->enabled ? NULL : "not enabled";
	if (!has->size || !has->addresses || !has->position)
		return "not set up";
	if (!has->kick)
		return "stopped";
	return "addresses outside memory";
}

static json_t *show_rings(struct vhost_user *vu)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < 2 * vu->device.pairs_max; i++) {
		const struct virtq *vq = &vu->device.rings[i].vq;

		json_array_append_new(list, json_pack("{s:i, s:i, s:b, s:b, s:s?}", "index", (int)i,
						      "size", (int)vq->setup.size, "running",
						      virtq_running(vq), "broken", vq->broken,
						      "why", ring_why(vu, i)));
	}
	return list;
}

static json_t *show_memory(const struct guest_mem *mem)
{
	json_t *list = json_array();

	for (unsigned i = 0; mem && i < mem->count; i++) {
		const struct guest_region *region = &mem->regions[i];
		bool transparent;
		size_t page_size = guest_region_page_size(region, &transparent);

		json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:b}", "gpa",
						      (json_int_t)region->gpa, "size",
						      (json_int_t)region->size, "page_size",
						      (json_int_t)page_size, "thp", transparent));
	}
	return list;
}

json_t *vhost_user_show(struct port *port)
{
	struct vhost_user *vu = of_channel(channel_of_port(port));
	const struct vhost_link *link = &vu->link;
	const char *role = link->client ? "client" : link->path ? "server" : "fd";
	uint64_t again = link->connections > 1 ? link->connections - 1 : 0;

	return json_pack("{s:s, s:s?, s:s, s:b, s:o, s:i, s:o, s:o, s:I, s:I, s:I, s:I}", "name",
			 port->name, "path", link->path, "role", role, "connected", link->fd >= 0,
			 "features", show_features(vu->device.features), "pairs",
			 (int)vu->device.channel.pairs, "rings", show_rings(vu), "memory",
			 show_memory(vu->device.mem), "messages", (json_int_t)vu->messages,
			 "reconnects", (json_int_t)again, "throttled", (json_int_t)link->throttled,
			 "breaks", (json_int_t)vu->device.breaks);
}

void vhost_user_show_memory(struct port *port, json_t *list)
{
	const struct guest_mem *mem = of_channel(channel_of_port(port))->device.mem;

	for (unsigned i = 0; mem && i < mem->count; i++)
		pages_row(list, port->name, "guest memory", mem->regions[i].host,
			  mem->regions[i].size);
}
