/* SPDX-License-Identifier: BSD-3-Clause */
/* The XDP program of an AF_XDP uplink. The theory of operation is in xdp_prog.c. */
#ifndef VIFD_XDP_PROG_H
#define VIFD_XDP_PROG_H

#include <stdbool.h>

struct xdp_prog {
	int map_fd;  /* XSKMAP: receive queue to AF_XDP socket */
	int link_fd; /* holds the program on the interface; -1: not attached */
};

/*
 * Attach the program to the interface in the calling thread's network namespace, in the driver
 * (native) or behind it (SKB mode). frags: for packets longer than a page, too. Packets of queues
 * 0..queues-1 go to sockets as soon as there are any. 0 or -errno.
 */
int xdp_prog_attach(struct xdp_prog *prog, unsigned ifindex, unsigned queues, bool native,
		    bool frags);
/* Packets of the receive queue go to this AF_XDP socket, which is bound to it. 0 or -errno. */
int xdp_prog_redirect(struct xdp_prog *prog, unsigned queue, int xsk_fd);
void xdp_prog_detach(struct xdp_prog *prog);

#endif
