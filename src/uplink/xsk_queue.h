/* SPDX-License-Identifier: BSD-3-Clause */
/* One queue of an AF_XDP uplink: socket, UMEM, rings. The theory of operation is in xsk_queue.c. */
#ifndef VIFD_XSK_QUEUE_H
#define VIFD_XSK_QUEUE_H

#include <stdatomic.h>
#include <xdp/xsk.h>

#include "port/port.h"
#include "zone/zone_group.h"

enum {
	XSK_RX_FRAMES = 2048, /* as many as a worker has packets */
	XSK_TX_FRAMES = 1024,
	XSK_FRAME_SMALL = 2048, /* the two sizes that the kernel knows */
	XSK_FRAME_LARGE = 4096,
	XSK_FRAME_RESERVED = 256, /* XDP_PACKET_HEADROOM: taken of each frame received into */
};

struct xsk_queue_config {
	const char *ifname;
	unsigned queue;    /* of the interface */
	unsigned xdp_mode; /* XDP_FLAGS_DRV_MODE or XDP_FLAGS_SKB_MODE */
	unsigned frame_size;
	bool zero_copy;
	bool multi_buffer; /* packets may take several frames */
	bool unfinished;   /* checksums may arrive unfinished */
	bool zeroing;      /* what was received into is zeroed before it is again */
};

struct xsk_queue {
	struct pkt_source source; /* first: done() finds the queue by it */

	/* the receive side is the polling worker's */
	struct xsk_ring_cons rx;
	struct xsk_ring_prod fill;
	uint32_t frame_size;
	uint8_t *frames; /* the UMEM, zones in a row: XSK_RX_FRAMES, then XSK_TX_FRAMES */
	bool multi_buffer, unfinished, zeroing;
	uint64_t zeroed;              /* frames */
	bool watched;                 /* the socket is in wake_fd */
	unsigned bursts;              /* received since the worker last slept */
	uint16_t next[XSK_RX_FRAMES]; /* next frame of the same packet */

	/* the send side is shared */
	atomic_flag held __attribute__((aligned(64)));
	_Atomic bool later; /* the device had no room: to be tried again */
	struct xsk_ring_prod tx;
	struct xsk_ring_cons completion;
	unsigned free_count;
	uint16_t free[XSK_TX_FRAMES]; /* frames that may be filled */

	int wake_fd; /* readable when packets come to a queue that is armed */
	struct xsk_umem *umem;
	struct xsk_socket *socket;
	struct zone_group zones; /* of the frames; those to send from are private */
} __attribute__((aligned(64)));

/*
 * Open a socket on a queue of an interface in the calling thread's network namespace, with as many
 * frames to receive into as there can be. queue is zeroed. 0 or -errno, then nothing is held.
 */
int xsk_queue_open(struct xsk_queue *queue, const struct xsk_queue_config *config);
/* No packet may reference its frames any more. Also of one that is zeroed: does nothing. */
void xsk_queue_close(struct xsk_queue *queue);

/* struct port_ops for one queue: */
unsigned xsk_queue_recv(struct xsk_queue *queue, struct port *port, struct pkt **pkts, unsigned n);
void xsk_queue_send(struct xsk_queue *queue, struct port *port, struct pkt **pkts, unsigned n);
/* Have the kernel send what it has not yet sent, if it has to be told. Returns the system calls
 * that took: one a burst. */
unsigned xsk_queue_kick(struct xsk_queue *queue);
bool xsk_queue_arm(struct xsk_queue *queue);

#endif
