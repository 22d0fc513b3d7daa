/* SPDX-License-Identifier: BSD-3-Clause */
/* What `show guests` and `show memory` tell about a guest behind snet. */
#include "guest/snet_control.h"
#include "guest/snet_guest.h"
#include "guest/snet_remap.h"
#include "sys/pages.h"

static json_t *show_takes(uint32_t takes)
{
	static const struct {
		enum snet_takes bit;
		const char *name;
	} names[] = {
		{ SNET_TAKES_CSUM, "csum" }, { SNET_TAKES_TSO4, "tso4" },
		{ SNET_TAKES_TSO6, "tso6" }, { SNET_TAKES_TSO_ECN, "ecn" },
		{ SNET_TAKES_USO, "uso" },
	};
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (takes & names[i].bit)
			json_array_append_new(list, json_string(names[i].name));
	}
	return list;
}

/* What the worker writes meanwhile is read as it is. */
static json_t *show_queues(const struct snet_session *session, unsigned *out, unsigned *references)
{
	json_t *list = json_array();

	*out = *references = 0;
	for (unsigned i = 0; session && i < session->queue_count; i++) {
		const volatile struct snet_queue *queue = &session->queues[i];
		unsigned here = queue->rings.mask + 1 - queue->id_count;
		uint8_t error = session->queues[i].error;

		*out += here;
		*references += queue->references;
		json_array_append_new(
			list, json_pack("{s:i, s:i, s:b, s:s?, s:i, s:i, s:i}", "index", (int)i,
					"size", (int)queue->rings.mask + 1, "broken", error != 0,
					"why", error ? snet_error_names[error] : NULL, "sent",
					(int)(queue->tx_taken - queue->tx_returned), "out",
					(int)here, "references", (int)queue->references));
	}
	return list;
}

static void show_group(json_t *list, const struct zone_group *group, const char *access)
{
	for (const struct zone *zone = group ? group->zones : NULL; zone; zone = zone->next)
		json_array_append_new(list, json_pack("{s:I, s:s, s:I, s:s}", "id",
						      (json_int_t)zone_id(zone), "access", access,
						      "size", (json_int_t)ZONE_SIZE, "pages",
						      zone_backing_name(zone->backing)));
}

json_t *snet_show(struct port *port)
{
	struct snet_guest *guest = snet_guest_of(port);
	const struct snet_session *session = guest->snet.session;
	uint64_t again = guest->connections > 1 ? guest->connections - 1 : 0;
	json_t *zones = json_array(), *queues, *show;
	unsigned out, references;

	show_group(zones, guest->tx, "write");
	show_group(zones, &guest->rx, "read");
	queues = show_queues(session, &out, &references);
	show = json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:o, s:i, s:i, s:o, s:o, s:i, s:i, s:i, s:I, "
		"s:I, s:I, s:I, s:I}",
		"name", port->name, "kind", "snet", "path", guest->path, "role", "server", "trust",
		guest->snet.shared ? "shared" : "isolated", "channel",
		!guest->snet.remap                    ? "zones"
		: snet_remap_flips(guest->snet.remap) ? "flip"
						      : "remap",
		"connected", session != NULL, "features", show_takes(session ? guest->takes : 0),
		"ring", (int)guest->ring_size, "entry", (int)guest->stride, "queues", queues,
		"zones", zones, "out", (int)out, "references", (int)references, "lingering",
		(int)snet_lingering(guest), "messages", (json_int_t)guest->messages, "reconnects",
		(json_int_t)again, "throttled", (json_int_t)guest->throttled, "refused",
		(json_int_t)guest->refused, "breaks", (json_int_t)atomic_load(&guest->snet.breaks));
	if (guest->snet.remap)
		json_object_set_new(show, "remap", snet_remap_show(guest->snet.remap));
	return show;
}

/* Zones that lie in a row are one row. */
static void show_zones(json_t *list, const char *owner, const char *what,
		       const struct zone_group *group)
{
	const struct zone *zone = group ? group->zones : NULL;

	while (zone) {
		const uint8_t *base = zone->base;
		size_t len = 0;

		for (; zone && zone->base == base + len; zone = zone->next)
			len += ZONE_SIZE;
		pages_row(list, owner, what, base, len);
	}
}

void snet_show_memory(struct port *port, json_t *list)
{
	const struct snet_guest *guest = snet_guest_of(port);
	const struct snet_session *session = guest->snet.session;

	show_zones(list, port->name, "zones to send from", guest->tx);
	show_zones(list, port->name, "zones to receive into", &guest->rx);
	if (session)
		pages_row(list, port->name, "rings", session->memory, session->memory_len);
}
