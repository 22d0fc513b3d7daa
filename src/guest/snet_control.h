/* SPDX-License-Identifier: BSD-3-Clause */
/* The control side of a guest's snet channel: its socket, and what is set up over it. The theory of
 * operation is in snet_control.c. Main thread. */
#ifndef VIFD_SNET_CONTROL_H
#define VIFD_SNET_CONTROL_H

#include <jansson.h>
#include <sys/types.h>

#include "port/port.h"
#include "sys/error.h"

struct snet_config {
	const char *name;   /* of the port */
	const char *path;   /* socket */
	uint16_t mtu;       /* told to the front end, bytes */
	const uint8_t *mac; /* the guest's address, NULL: not known */
	bool spoof_strict, isolated;
	bool no_offload;    /* a NIC without checksum and segmentation offloads */
	bool shared;        /* trust=shared */
	bool remap, flip;   /* channel=remap, channel=flip: for measurement */
	uint32_t ring_size; /* places, SNET_RING_MIN..SNET_RING_MAX, a power of two */
	uint32_t stride; /* bytes from entry to entry, SNET_ENTRY_MIN..SNET_ENTRY_MAX, 16 divides */
	mode_t mode;     /* of the socket */
};

/* Create the guest's port, with a queue for each worker, register it, attach it and listen. The
 * caller then puts it on a bridge. 0 and *port, or -errno and a sentence. */
int snet_open(const struct snet_config *config, struct port **port, struct error *error);

/* To be called some times a second: new zones are announced and made, broken front ends sent away,
 * what is done with is freed. */
void snet_tick(void);

/* For `show guests`. New reference. */
json_t *snet_show(struct port *port);
/* Add rows of `show memory` to list: zones and rings. */
void snet_show_memory(struct port *port, json_t *list);

#endif
