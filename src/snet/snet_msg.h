/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snet: what front end and vifd tell each other over their socket (SOCK_SEQPACKET, Unix). vifd
 * listens. Messages are of one size, in machine byte order, descriptors beside them (SCM_RIGHTS).
 *
 *      front end                                    vifd
 *      HELLO    version, what it takes     ------>
 *               <------  WELCOME  queues, ring size and stride, MTU, MAC; fds: rings
 *               <------  QUEUE    number; fds: kick, call               for each queue
 *               <------  ZONE     id, access; fd: zone                  for each zone, now and later
 *               <------  START    from now on the rings are served
 *               <------  ZONE_GONE id                                   no entry names it any more
 *               <------  REFUSED  a sentence; then vifd closes
 *      (either closes: everything is void, the front end begins anew)
 *
 * kick: an eventfd that wakes vifd. call: one that wakes the front end. A zone is announced before
 * any entry names it; a front end that meets an id that it does not know reads its socket first.
 */
#ifndef VIFD_SNET_MSG_H
#define VIFD_SNET_MSG_H

#include <stdint.h>

enum { SNET_VERSION = 1, SNET_TEXT_MAX = 200, SNET_FDS_MAX = 2, SNET_QUEUES_MAX = 64 };

enum snet_message {
	SNET_HELLO = 1,
	SNET_WELCOME,
	SNET_QUEUE,
	SNET_ZONE,
	SNET_START,
	SNET_ZONE_GONE,
	SNET_REFUSED,
};

/* What a front end takes as it is; the rest vifd does in software (enum port_caps). */
enum snet_takes {
	SNET_TAKES_CSUM = 1,
	SNET_TAKES_TSO4 = 2,
	SNET_TAKES_TSO6 = 4,
	SNET_TAKES_TSO_ECN = 8,
	SNET_TAKES_USO = 16,
};

struct snet_msg {
	uint32_t type; /* enum snet_message */
	union {
		struct {
			uint32_t version;
			uint32_t takes; /* enum snet_takes */
			uint32_t
				tx_bytes; /* of memory to send from that it would like; 0: as vifd likes */
		} hello;
		struct {
			uint32_t version;
			uint32_t queues, ring_size, stride;
			uint32_t mtu;   /* bytes of L3 packet */
			uint8_t mac[6]; /* zero: the front end's choice */
			uint8_t shared; /* trust=shared: what is received may lie in anybody's zones */
			uint8_t offload; /* 0: offload=off, send nothing unfinished or larger than MTU */
		} welcome;
		struct {
			uint32_t number;
		} queue;
		struct {
			uint32_t id;
			uint32_t writable; /* 1: to send from; 0: read only, to receive from */
		} zone;
		char refused[SNET_TEXT_MAX];
	};
};

#endif
