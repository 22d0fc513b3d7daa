/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The zones of an snet guest: made here, shown to its front end, and to others.
 *
 * Theory of operation. Those that it receives into are the guest's for good: sealed memory cannot be
 * taken back from who has it mapped, so that new zones for each connection would be memory without
 * end. Those that it sends from it finds again, too, unless something sent from them is still under
 * way with somebody else: then they stay with the session in which that was sent, and the guest gets
 * others.
 *
 * More zones to receive into are made when buffers were short, up to a quota, and announced before
 * a buffer in them is used.
 *
 * trust=shared. A front end is also shown, read-only, the zones that other ports on its bridge (or
 * the one it is tied to) receive into: other shared guests' and uplinks'. Until it has been told of
 * a zone packets there are copied, so nothing depends on when that happens. A zone that goes is
 * called void to everybody who knows it; its id is never used again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "guest/snet_guest.h"
#include "guest/snet_remap.h"
#include "port/worker.h"

enum {
	RX_ZONES_MAX = 16, /* of a guest */
	TX_ZONES_MAX = 16, /* of a session */
	TX_ZONES_DEFAULT = 2,
};

/* ---- memory to receive into ---- */

/* Add buffers of a class, and zones if it takes any. */
static int add_buffers(struct snet_guest *guest, enum snet_class class, unsigned count,
		       struct error *error)
{
	struct slab *slab = guest->snet.slabs[class];
	unsigned want = slab->total + count;

	while (slab->total < want) {
		int ret = slab_grow(slab, want - slab->total);

		if (ret == -ENOSPC)
			ret = zone_group_grow(&guest->rx, 1, error);
		else if (ret)
			fail(error, ret, "out of memory");
		if (ret)
			return ret;
		if (guest->snet.session && !snet_zones_tell(guest, guest->snet.session))
			return fail(error, -EPIPE, "it does not read what it is told");
		zone_group_mapped(&guest->rx, UINT32_MAX);
	}
	return 0;
}

/* Add what the ids of all queues own: in a row, for each queue. */
static int add_own(struct snet_guest *guest, unsigned queues, struct error *error)
{
	size_t pages = (size_t)guest->ring_size * SNET_OWN_BYTES >> ZONE_PAGE_SHIFT;
	unsigned order = pages > 1 ? 64 - __builtin_clzl(pages - 1) : 0;

	for (unsigned i = 0; i < queues; i++) {
		while (!(guest->snet.own[i] = zone_pages_get(&guest->rx, order))) {
			int ret = zone_group_grow(&guest->rx, 1, error);

			if (ret)
				return ret;
			zone_group_mapped(&guest->rx, UINT32_MAX);
		}
	}
	return 0;
}

/* Buffers for a ring of small packets, and as many large ones as a worker's cache takes at once. */
int snet_zones_init(struct snet_guest *guest, struct error *error)
{
	const bool flips = snet_remap_flips(guest->snet.remap); /* nothing shares its page */
	const unsigned bytes[SNET_CLASSES] = {
		[SNET_SMALL] = flips ? SNET_FLIP_PAGE : SNET_SMALL_BYTES,
		[SNET_LARGE] = SNET_LARGE_BYTES,
	};
	unsigned workers = workers_count();
	unsigned ring = guest->ring_size < SLAB_CACHE_MAX ? SLAB_CACHE_MAX : guest->ring_size;
	const unsigned counts[SNET_CLASSES] = {
		[SNET_SMALL] = ring * workers,
		[SNET_LARGE] = SLAB_BULK * workers,
	};
	/* what is sealed vifd itself could not map again */
	enum zone_access access = guest->snet.remap ? ZONE_WRITABLE : ZONE_READ_ONLY;
	char name[ZONE_GROUP_NAME_MAX];
	int ret;

	snprintf(name, sizeof(name), "guest %s (receive)", guest->snet.port.name);
	zone_group_init(&guest->rx, guest->snet.space, name, access, RX_ZONES_MAX);
	ret = add_own(guest, workers, error);
	if (ret)
		return ret;
	for (unsigned i = 0; i < SNET_CLASSES && !ret; i++) {
		guest->snet.slabs[i] = slab_new(&guest->rx, bytes[i], workers);
		ret = guest->snet.slabs[i] ? add_buffers(guest, i, counts[i], error)
					   : fail(error, -ENOMEM, "out of memory");
	}
	/* with many workers the quota is what there is; they share it */
	return ret == -ENOSPC && guest->rx.count == RX_ZONES_MAX ? 0 : ret;
}

void snet_zones_fini(struct snet_guest *guest)
{
	for (unsigned i = 0; i < SNET_CLASSES; i++) {
		if (guest->snet.slabs[i])
			slab_free(guest->snet.slabs[i]);
	}
	if (guest->rx.space)
		zone_group_fini(&guest->rx);
	snet_zones_drop(&guest->tx);
}

void snet_zones_relieve(struct snet_guest *guest)
{
	static const unsigned more[SNET_CLASSES] = {
		[SNET_SMALL] = 512,
		[SNET_LARGE] = SLAB_BULK,
	};
	struct error error;

	for (unsigned i = 0; i < SNET_CLASSES; i++) {
		if (!slab_short(guest->snet.slabs[i]))
			continue;
		if (add_buffers(guest, i, more[i], &error) && log_allowed(&guest->limit))
			log_debug("guest %s: no more buffers: %s", guest->snet.port.name,
				  error.text);
	}
}

/* ---- memory to send from ---- */

int snet_zones_to_send(struct snet_guest *guest, uint32_t bytes, struct error *error)
{
	unsigned want = ((uint64_t)bytes + ZONE_SIZE - 1) / ZONE_SIZE;
	char name[ZONE_GROUP_NAME_MAX];
	int ret;

	want = want == 0 ? TX_ZONES_DEFAULT : want > TX_ZONES_MAX ? TX_ZONES_MAX : want;
	if (!guest->tx) {
		guest->tx = calloc(1, sizeof(*guest->tx));
		if (!guest->tx)
			return fail(error, -ENOMEM, "out of memory");
		snprintf(name, sizeof(name), "guest %s (send)", guest->snet.port.name);
		zone_group_init(guest->tx, guest->snet.space, name, ZONE_WRITABLE, TX_ZONES_MAX);
	}
	if (guest->tx->count >= want)
		return 0;
	ret = zone_group_grow(guest->tx, want - guest->tx->count, error);
	return guest->tx->count > 0 ? 0 : ret; /* better few than none */
}

/* ---- who sees what ---- */

static bool knows(const struct snet_session *session, const struct zone *zone)
{
	uint32_t id = zone_id(zone);

	return atomic_load_explicit(&session->announced[id % ZONES_MAX], memory_order_relaxed) ==
	       id;
}

static void tell_gone(struct snet_guest *guest, struct snet_session *session, uint32_t id)
{
	struct snet_msg msg = { .type = SNET_ZONE_GONE, .zone = { id, 0 } };

	atomic_store_explicit(&session->announced[id % ZONES_MAX], 0, memory_order_relaxed);
	snet_tell(guest, &msg, NULL, 0);
}

/* Announce a zone to the front end, which does not know it yet. */
static bool tell_zone(struct snet_guest *guest, struct snet_session *session,
		      const struct zone *zone, bool writable)
{
	uint32_t id = zone_id(zone);
	struct snet_msg msg = { .type = SNET_ZONE, .zone = { id, writable } };
	uint32_t before = atomic_load_explicit(&session->announced[id % ZONES_MAX],
					       memory_order_relaxed);
	int fd = zone_open(zone, writable);
	bool told;

	if (before) /* in its place */
		tell_gone(guest, session, before);
	told = fd >= 0 && snet_tell(guest, &msg, &fd, 1);
	if (fd >= 0)
		close(fd);
	if (told)
		atomic_store_explicit(&session->announced[id % ZONES_MAX], id,
				      memory_order_release);
	return told;
}

static bool tell_group(struct snet_guest *guest, struct snet_session *session,
		       const struct zone_group *group, bool writable)
{
	for (const struct zone *zone = group ? group->zones : NULL; zone; zone = zone->next) {
		if (zone->access != ZONE_PRIVATE && !knows(session, zone) &&
		    !tell_zone(guest, session, zone, writable))
			return false;
	}
	return true;
}

/* Do shared guests behind these two ports see each other's packets? */
static bool share(const struct port *a, const struct port *b)
{
	if ((a->isolated || b->isolated) && !a->uplink && !b->uplink)
		return false;
	return a->direct == b || (a->bridge && a->bridge == b->bridge);
}

bool snet_zones_tell(struct snet_guest *guest, struct snet_session *session)
{
	struct port *own = &guest->snet.port;

	if (!tell_group(guest, session, session->tx, true) ||
	    !tell_group(guest, session, &guest->rx, false))
		return false;
	for (unsigned id = 1; guest->snet.shared && id < PORTS_MAX; id++) {
		struct port *port = port_by_id(id);

		if (!port || port == own || !share(own, port))
			continue;
		for (unsigned i = 0; i < port->queues; i++) {
			if (!tell_group(guest, session, port->zones[i], false))
				return false;
		}
	}
	return true;
}

void snet_zones_tell_gone(struct snet_guest *guest, struct snet_session *session)
{
	/* while it may still read in one, it keeps them all */
	for (unsigned i = 0; i < session->queue_count; i++) {
		if (session->queues[i].orphans > 0)
			return;
	}
	for (unsigned slot = 0; slot < ZONES_MAX; slot++) {
		uint32_t id = atomic_load_explicit(&session->announced[slot], memory_order_relaxed);

		if (id && !zone_by_id(guest->snet.space, id))
			tell_gone(guest, session, id);
	}
}

void snet_zones_drop(struct zone_group **group)
{
	if (*group)
		zone_group_fini(*group);
	free(*group);
	*group = NULL;
}
