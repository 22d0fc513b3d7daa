/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio network device (virtio 1.2 §5.1): a channel whose rings are split virtqueues. Ring 2n
 * is the guest's receive queue n, ring 2n + 1 its transmit queue n. The control side (vhost_user.c)
 * sets it up.
 */
#ifndef VIFD_VIRTIO_NET_H
#define VIFD_VIRTIO_NET_H

#include "guest/channel.h"
#include "guest/virtq.h"

#define VIRTIO_BIT(n) (UINT64_C(1) << (n))

enum {
	VIRTIO_NET_F_CSUM_BIT = 0,
	VIRTIO_NET_F_GUEST_CSUM_BIT = 1,
	VIRTIO_NET_F_MTU_BIT = 3,
	VIRTIO_NET_F_MAC_BIT = 5,
	VIRTIO_NET_F_GUEST_TSO4_BIT = 7,
	VIRTIO_NET_F_GUEST_TSO6_BIT = 8,
	VIRTIO_NET_F_GUEST_ECN_BIT = 9,
	VIRTIO_NET_F_HOST_TSO4_BIT = 11,
	VIRTIO_NET_F_HOST_TSO6_BIT = 12,
	VIRTIO_NET_F_HOST_ECN_BIT = 13,
	VIRTIO_NET_F_MRG_RXBUF_BIT = 15,
	VIRTIO_NET_F_STATUS_BIT = 16,
	VIRTIO_NET_F_CTRL_VQ_BIT = 17,
	VIRTIO_NET_F_GUEST_ANNOUNCE_BIT = 21,
	VIRTIO_NET_F_MQ_BIT = 22,
	VIRTIO_F_ANY_LAYOUT_BIT = 27,
	VIRTIO_RING_F_INDIRECT_DESC_BIT = 28,
	VIRTIO_RING_F_EVENT_IDX_BIT = 29,
	VHOST_USER_F_PROTOCOL_FEATURES_BIT = 30,
	VIRTIO_F_VERSION_1_BIT = 32,
	VIRTIO_F_IN_ORDER_BIT = 35,
	VIRTIO_NET_F_GUEST_USO4_BIT = 54,
	VIRTIO_NET_F_GUEST_USO6_BIT = 55,
	VIRTIO_NET_F_HOST_USO_BIT = 56,
};

/* Everything the device offers, always, whatever the uplinks can do (M6). */
#define VIRTIO_NET_FEATURES                                                                        \
	(VIRTIO_BIT(VIRTIO_NET_F_CSUM_BIT) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM_BIT) |             \
	 VIRTIO_BIT(VIRTIO_NET_F_MTU_BIT) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4_BIT) |              \
	 VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6_BIT) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN_BIT) |        \
	 VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4_BIT) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6_BIT) |         \
	 VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN_BIT) | VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF_BIT) |          \
	 VIRTIO_BIT(VIRTIO_NET_F_STATUS_BIT) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ_BIT) |              \
	 VIRTIO_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE_BIT) | VIRTIO_BIT(VIRTIO_NET_F_MQ_BIT) |           \
	 VIRTIO_BIT(VIRTIO_F_ANY_LAYOUT_BIT) | VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC_BIT) |       \
	 VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX_BIT) |                                                 \
	 VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES_BIT) | VIRTIO_BIT(VIRTIO_F_VERSION_1_BIT) |     \
	 VIRTIO_BIT(VIRTIO_F_IN_ORDER_BIT) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO4_BIT) |             \
	 VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO6_BIT) | VIRTIO_BIT(VIRTIO_NET_F_HOST_USO_BIT))

/* One ring and, for transmit rings, what completion needs. */
struct virtio_net_ring {
	struct virtq vq;
	struct pkt_source source; /* of the packets taken from a transmit ring */
	struct virtio_net *device;
	uint32_t *returned;   /* [size] by ring position: head + 1 of what is done out of turn */
	uint16_t return_next; /* oldest position not yet given back (in_order) */
	uint16_t out_of_turn; /* how many are in returned[] (in_order) */
	bool flush_pending;   /* receive ring: entries published, driver not yet told */
	bool greet;           /* transmit ring: the pair was started, call once on both rings */
};

struct virtio_net {
	struct channel channel;        /* channel.port is the guest's port */
	uint64_t features;             /* negotiated; 0 until SET_FEATURES */
	unsigned header_len;           /* of virtio_net_hdr: 10; 12 with VERSION_1 or MRG_RXBUF */
	struct guest_mem *mem;         /* NULL: no memory known */
	struct virtio_net_ring *rings; /* [2 * pairs_max] */
	unsigned pairs_max;
	uint64_t breaks;        /* times a ring was marked broken */
	_Atomic unsigned muted; /* ticks without calls, since one blocked; see virtio_net_tick() */
};

static inline struct virtio_net_ring *virtio_net_rx_ring(struct virtio_net *device, unsigned pair)
{
	return &device->rings[2 * pair];
}

static inline struct virtio_net_ring *virtio_net_tx_ring(struct virtio_net *device, unsigned pair)
{
	return &device->rings[2 * pair + 1];
}

/* Was the feature negotiated? */
static inline bool virtio_net_has(const struct virtio_net *device, unsigned bit)
{
	return device->features & VIRTIO_BIT(bit);
}

/* Between virtio_net.c and virtio_net_control.c: give a ring up, and pkt_source.done of transmit rings. */
void virtio_net_break_ring(struct virtio_net *device, struct virtq *vq, enum virtq_error error);
void virtio_net_tx_done(struct pkt_source *source, struct pkt **pkts, unsigned n);

/* Without close(), which is the control side's. */
extern const struct channel_ops virtio_net_channel_ops;

/* All of these in the main thread; those that change a running device inside workers_pause(). */

/* Prepare the device for pairs_max queue pairs, no features, nothing running. 0 or -ENOMEM. */
int virtio_net_init(struct virtio_net *device, unsigned pairs_max);
/* Everything stopped, memory and descriptors released. */
void virtio_net_fini(struct virtio_net *device);
/* Features agreed on (a subset of VIRTIO_NET_FEATURES); sets the port's capabilities. */
void virtio_net_set_features(struct virtio_net *device, uint64_t features);
/* Publish a memory table (NULL: none). Started rings move to it, or break when their addresses are
 * no longer in it. Returns the previous table, for the caller to free after workers_resume(). */
struct guest_mem *virtio_net_set_memory(struct virtio_net *device, struct guest_mem *mem);
/* Start a ring as vq.setup, features and memory say; the guest is called once. As virtq_start(). */
int virtio_net_start_ring(struct virtio_net *device, unsigned index);
/* Stop it; returns the next available entry to look at. */
uint16_t virtio_net_stop_ring(struct virtio_net *device, unsigned index);
/* SET_VRING_ENABLE; recounts the pairs in use. */
void virtio_net_enable_ring(struct virtio_net *device, unsigned index, bool enable);
/* Replace descriptors (taken; the old one is closed; -1: none). */
void virtio_net_set_kick(struct virtio_net *device, unsigned index, int fd);
void virtio_net_set_call(struct virtio_net *device, unsigned index, int fd);
/* The front end is gone: stop and disable every ring, forget features, memory and descriptors.
 * Returns the memory table, for the caller to free after workers_resume(). */
struct guest_mem *virtio_net_reset(struct virtio_net *device);

/* About four times a second: who made a call block is not called for some ticks, then greeted. */
void virtio_net_tick(struct virtio_net *device);

#endif
