/* SPDX-License-Identifier: BSD-3-Clause */
/* What `show guests` tells about a Xen guest. Counters are read while workers write them. */
#include "guest/xen_backend.h"
#include "guest/xen_vif.h"

#define READ(counter) (*(const volatile __typeof__(counter) *)&(counter))

static json_t *show_features(const struct xen_vif *vif)
{
	uint32_t caps = vif->netif.channel.port.caps;
	const struct {
		bool has;
		const char *name;
	} features[] = {
		{ vif->netif.sg, "sg" },
		{ caps & PORT_CAP_CSUM, "csum" },
		{ caps & PORT_CAP_TSO4, "gso-tcpv4" },
		{ caps & PORT_CAP_TSO6, "gso-tcpv6" },
		{ vif->split_events, "split-event-channels" },
		{ vif->netif.multicast_asks, "multicast-control" },
	};
	json_t *list = json_array();

	for (unsigned i = 0; vif->connected && i < sizeof(features) / sizeof(features[0]); i++) {
		if (features[i].has)
			json_array_append_new(list, json_string(features[i].name));
	}
	return list;
}

static void add_costs(struct xen_costs *sum, const struct xen_costs *one)
{
	sum->copies += READ(one->copies);
	sum->copy_calls += READ(one->copy_calls);
	sum->maps += READ(one->maps);
	sum->unmaps += READ(one->unmaps);
	sum->notifies += READ(one->notifies);
	sum->takes += READ(one->takes);
	sum->unmasks += READ(one->unmasks);
}

static json_t *show_costs(const struct xen_costs *costs)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "grant_copies",
			 (json_int_t)costs->copies, "grant_calls", (json_int_t)costs->copy_calls,
			 "grant_maps", (json_int_t)costs->maps, "grant_unmaps",
			 (json_int_t)costs->unmaps, "notifies", (json_int_t)costs->notifies,
			 "event_reads", (json_int_t)costs->takes, "event_unmasks",
			 (json_int_t)costs->unmasks);
}

static json_t *show_queues(const struct xen_netif *netif, struct xen_costs *from,
			   struct xen_costs *to)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < PORT_QUEUES_MAX && netif->queues[i]; i++) {
		const struct xen_queue *queue = netif->queues[i];
		unsigned out = READ(queue->tx_cons) - READ(queue->tx_rsp);
		unsigned posted = xen_look(&queue->rx->at.req_prod) - READ(queue->rx_cons);

		add_costs(from, &queue->tx_costs);
		add_costs(to, &queue->rx_costs);
		json_array_append_new(list, json_pack("{s:i, s:i, s:i, s:b, s:b}", "index", (int)i,
						      "sent", (int)out, "posted",
						      (int)(posted > XEN_RING ? 0 : posted),
						      "stalled", atomic_load(&queue->stalled),
						      "limited", READ(queue->limited)));
	}
	return list;
}

json_t *xen_show(struct port *port)
{
	const struct xen_vif *vif = xen_vif_of_port(port);
	const struct xen_netif *netif = &vif->netif;
	uint8_t error = atomic_load(&netif->error);
	const char *why = error ? xen_error_names[error] : vif->why.text[0] ? vif->why.text : NULL;
	struct xen_costs from = { 0 }, to = { 0 };
	json_t *queues = show_queues(netif, &from, &to);

	return json_pack(
		"{s:s, s:s, s:s, s:s, s:b, s:i, s:i, s:s, s:s, s:o, s:o, s:b, s:s?, s:I, s:I, s:o, "
		"s:o, s:I, s:I}",
		"name", port->name, "kind", "xen", "path", vif->dir, "role", "back end",
		"connected", vif->connected, "domid", (int)vif->domid, "devid", (int)vif->devid,
		"frontend", vif->front, "tx", xen_tx_mode_names[netif->tx_mode], "features",
		show_features(vif), "queues", queues, "broken", error != 0, "why", why,
		"rate_bytes", (json_int_t)netif->rate_bytes, "rate_usec",
		(json_int_t)netif->rate_usec, "from_guest", show_costs(&from), "to_guest",
		show_costs(&to), "reconnects",
		(json_int_t)(vif->connections > 1 ? vif->connections - 1 : 0), "breaks",
		(json_int_t)netif->breaks);
}
