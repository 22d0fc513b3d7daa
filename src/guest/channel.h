/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The I/O channel contract: one guest transport (virtio over vhost-user now; netif and snet are
 * others). Ring names are the guest's: guest_tx is what the guest sends, guest_rx what it receives.
 * backend.c makes a port of any channel. Nothing above this line of the architecture knows a ring.
 */
#ifndef VIFD_CHANNEL_H
#define VIFD_CHANNEL_H

#include "port/port.h"

struct channel;

/*
 * n is at most PKT_BURST.
 * guest_tx: take up to n packets the guest sent on a queue pair; headers copied, checked and
 *           parsed; bad ones are completed and counted here. Returned packets have the channel's
 *           source; its done() gives their buffers back and wakes the guest for that.
 * guest_rx: copy packets into the guest's posted buffers, in order. Returns how many fit; the first
 *           that did not is pkts[returned] and *why says which counter of the port it belongs to.
 *           Keeps no reference.
 * kick:     wake the guest for what guest_rx has put there, if it asked to be woken. Under the
 *           pair's lock.
 * arm, disarm: as port_ops, for the pair's transmit ring.
 * close:    the control side ends: disconnect the guest, free the channel. Workers no longer know
 *           the port.
 */
struct channel_ops {
	const char *kind;
	unsigned (*guest_tx)(struct channel *channel, unsigned pair, struct pkt **pkts, unsigned n);
	unsigned (*guest_rx)(struct channel *channel, unsigned pair, struct pkt **pkts, unsigned n,
			     uint64_t **why);
	void (*kick)(struct channel *channel, unsigned pair);
	bool (*arm)(struct channel *channel, unsigned pair);
	void (*disarm)(struct channel *channel, unsigned pair);
	void (*close)(struct channel *channel);
};

struct channel {
	const struct channel_ops *ops;
	struct port port;     /* what the bridge sees */
	unsigned pairs;       /* queue pairs in use now, 1..PORT_QUEUES_MAX; changes while paused */
	struct channel_lock { /* send side of a pair: guest_rx and kick, taken once per burst */
		atomic_flag held;
	} __attribute__((aligned(64))) locks[PORT_QUEUES_MAX];
};

extern const struct port_ops guest_port_ops; /* backend.c */

static inline struct channel *channel_of_port(struct port *port)
{
	return (struct channel *)((char *)port - offsetof(struct channel, port));
}

#endif
