/* SPDX-License-Identifier: BSD-3-Clause */
/* One queue of an AF_PACKET uplink: socket and buffers. The theory of operation is in packet_queue.c. */
#ifndef VIFD_PACKET_QUEUE_H
#define VIFD_PACKET_QUEUE_H

#include <linux/if_packet.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "uplink/recv_bufs.h"

/* The interface, for all its queues. */
struct packet_link {
	const char *ifname;
	_Atomic bool lost; /* it is down or gone, as far as we have noticed */
};

/* What the kernel says beside a packet. */
struct packet_control {
	_Alignas(struct cmsghdr) uint8_t bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
};

struct packet_queue {
	int fd;
	bool drained; /* the last read found nothing: an edge will announce the next packet */
	unsigned ask; /* how many packets to ask for */
	struct packet_link *link;
	struct mmsghdr msgs[PKT_BURST];
	struct recv_place places[PKT_BURST];
	struct packet_control controls[PKT_BURST];
	struct recv_bufs bufs;
	uint64_t
		lost; /* the main thread's: what the kernel had no room for, as far as it was asked */
} __attribute__((aligned(64))); /* queues belong to different workers */

/* Make ready a zeroed queue, which borrows link. Its bufs are the caller's to open and to close. */
void packet_queue_init(struct packet_queue *queue, struct packet_link *link);
/*
 * Open the socket, on an interface in the calling thread's network namespace; it receives nothing
 * until it is let in. 0 or -errno.
 */
int packet_queue_open(struct packet_queue *queue, int ifindex);
int packet_queue_let_in(struct packet_queue *queue);
/* Also of one that could not be opened. */
void packet_queue_close(struct packet_queue *queue);

/* Main thread. How many packets the kernel had no room for in the socket. */
uint64_t packet_queue_lost(struct packet_queue *queue);

/* struct port_ops for one queue: */
unsigned packet_queue_recv(struct packet_queue *queue, struct port *port, struct pkt **pkts,
			   unsigned n);
void packet_queue_send(struct packet_queue *queue, struct port *port, struct pkt **pkts,
		       unsigned n);
bool packet_queue_arm(struct packet_queue *queue);

#endif
