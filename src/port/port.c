/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The port table, and the way out of the bridge. Theory of operation: port.h.
 */
#include "port/port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "offload/lro.h"
#include "offload/offload.h"
#include "offload/too_big.h"
#include "port/worker.h"
#include "sys/log.h"

static struct port *ports[PORTS_MAX]; /* by id; changed while paused */

int port_register(struct port *port)
{
	unsigned id = 0;

	if (port_by_name(port->name))
		return -EEXIST;
	for (unsigned i = 1; i < PORTS_MAX && !id; i++) {
		if (!ports[i])
			id = i;
	}
	if (!id)
		return -ENOSPC;
	port->stats = aligned_alloc(64, WORKERS_MAX * sizeof(*port->stats));
	if (!port->stats)
		return -ENOMEM;
	memset(port->stats, 0, WORKERS_MAX * sizeof(*port->stats));
	memset(port->flush_pending, 0, sizeof(port->flush_pending));
	port->id = id;
	ports[id] = port;
	return 0;
}

void port_unregister(struct port *port)
{
	ports[port->id] = NULL;
	for (unsigned i = 0; i < PORT_QUEUES_MAX; i++) {
		lro_free(port->lro[i]);
		port->lro[i] = NULL;
	}
	free(port->stats);
	port->stats = NULL;
}

struct port *port_by_name(const char *name)
{
	for (unsigned i = 1; i < PORTS_MAX; i++) {
		if (ports[i] && strcmp(ports[i]->name, name) == 0)
			return ports[i];
	}
	return NULL;
}

struct port *port_by_id(unsigned id)
{
	return id < PORTS_MAX ? ports[id] : NULL;
}

void ports_tick(void)
{
	for (unsigned i = 1; i < PORTS_MAX; i++) {
		if (ports[i] && ports[i]->ops->tick)
			ports[i]->ops->tick(ports[i]);
	}
}

void ports_let_go(const struct port *from)
{
	for (unsigned i = 1; i < PORTS_MAX; i++) {
		if (ports[i] && ports[i] != from && ports[i]->ops->let_go)
			ports[i]->ops->let_go(ports[i], from);
	}
}

void port_tie(struct port *a, struct port *b)
{
	workers_pause();
	a->direct = b;
	b->direct = a;
	workers_resume();
}

void port_untie(struct port *port)
{
	if (!port->direct)
		return;
	workers_pause();
	port->direct->direct = NULL;
	port->direct = NULL;
	workers_resume();
}

void port_note_mtu(struct port *port, int mtu)
{
	if (mtu > UINT16_MAX)
		mtu = UINT16_MAX;
	if (mtu <= 0 || mtu == port->mtu)
		return;
	log_info("%s: the MTU of its interface is %d now, was %u", port->name, mtu, port->mtu);
	__atomic_store_n(&port->mtu, mtu, __ATOMIC_RELAXED);
}

void port_stats_sum(const struct port *port, struct port_stats *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < WORKERS_MAX; i++) {
#define X(name, text) sum->name += __atomic_load_n(&port->stats[i].name, __ATOMIC_RELAXED);
		PORT_STATS(X)
#undef X
	}
}

/* Can the port take all of n packets as they are, as far as a glance tells? */
static inline bool are_plain(const struct port *port, struct pkt **pkts, unsigned n)
{
	uint32_t surely_fits = too_big_surely_fits(port), too_big = 0, asks = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct pkt *pkt = pkts[i];

		too_big |= pkt->len > surely_fits;
		asks |= (pkt->offload.flags & (PKT_CSUM_PARTIAL | PKT_REMOTE)) |
			pkt->offload.gso_type;
	}
	return !(too_big | asks) && port->caps & PORT_CAP_SG;
}

void port_send(struct port *port, struct pkt **pkts, unsigned n)
{
	if (likely(are_plain(port, pkts, n))) {
		port_stats(port)->passed_packets += n;
		port->ops->send(port, pkts, n);
		return;
	}
	n = too_big_drop(port, pkts, n);
	if (n == 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		if (unlikely(offload_needs(pkts[i]) & ~port->caps)) {
			offload_send(port, pkts, n);
			return;
		}
	}
	port_stats(port)->passed_packets += n;
	port->ops->send(port, pkts, n);
}
