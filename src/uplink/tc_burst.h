/* SPDX-License-Identifier: BSD-3-Clause */
/* Sends a worker's packets in one system call. The theory of operation is in tc_burst.c. */
#ifndef VIFD_TC_BURST_H
#define VIFD_TC_BURST_H

#include <stdatomic.h>

#include "port/port.h"

struct tc_burst {
	int link_fd;       /* holds the program on the interface; -1: not open */
	int sock;          /* packet socket, by which the program is run */
	unsigned workers;  /* each has a block */
	size_t stride;     /* bytes of a frame in it, with its head */
	size_t block_size; /* bytes of a block */
	uint8_t *blocks;   /* shared with the program */
	size_t blocks_len;
	_Atomic bool bypassed; /* the program is no longer there */
};

/*
 * Attach the program to an interface in the calling thread's network namespace; workers are
 * started. frame_size: a power of two of bytes that has room for any frame and eight more. 0 or
 * -errno, then nothing is held and link_fd is -1: the kernel has no tcx (Linux 6.6), say.
 */
int tc_burst_open(struct tc_burst *burst, unsigned ifindex, unsigned frame_size);
/* Also of one that is not open: does nothing. */
void tc_burst_close(struct tc_burst *burst);

/* May it be sent with? False from then on when somebody took the program away. */
static inline bool tc_burst_works(const struct tc_burst *burst)
{
	return burst->link_fd >= 0 && !atomic_load_explicit(&burst->bypassed, memory_order_relaxed);
}

/* struct port_ops, for the calling worker; flush returns the system calls that it took. */
void tc_burst_send(struct tc_burst *burst, struct port *port, struct pkt **pkts, unsigned n);
unsigned tc_burst_flush(struct tc_burst *burst, struct port *port);

#endif
