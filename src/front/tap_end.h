/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The interface that vif-front gives a network namespace: a TAP, its addresses, its link. The theory
 * of operation is in tap_end.c. What can fail returns 0, or -errno and a sentence.
 */
#ifndef VIFD_TAP_END_H
#define VIFD_TAP_END_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "sys/error.h"

/* An address with prefix length. */
struct tap_address {
	uint8_t family; /* AF_INET, AF_INET6 */
	uint8_t prefix;
	uint8_t bytes[16];
};

struct tap_end {
	int fd;      /* frames, each behind a virtio_net_hdr of VNET_LEN; does not block */
	int sock;    /* for requests; in the interface's namespace, wherever we are */
	int netlink; /* likewise */
	unsigned long offloads; /* TUN_F_*: what the kernel can do */
	uint32_t takes;         /* the same as enum vifront_takes */
	char name[IFNAMSIZ];
};

/* "10.0.0.2/24", "fd00::2/64"; without length it is the whole address. False: it is not one. */
bool tap_address_parse(const char *text, struct tap_address *address);

/*
 * Make, or open, the TAP of that name (NULL: eth0 with netns, else vif0, vif1, ...) in the network
 * namespace netns, a name, a path, or NULL: ours.
 */
int tap_end_open(struct tap_end *tap, const char *ifname, const char *netns, struct error *error);
/* An interface that was made is gone then. */
void tap_end_close(struct tap_end *tap);

int tap_end_set_mtu(struct tap_end *tap, uint32_t mtu, struct error *error);
int tap_end_set_mac(struct tap_end *tap, const uint8_t mac[6], struct error *error);
/* May the kernel leave checksums and segmentation to others? */
int tap_end_set_offload(struct tap_end *tap, bool offload, struct error *error);
int tap_end_add(struct tap_end *tap, const struct tap_address *address, struct error *error);
int tap_end_up(struct tap_end *tap, struct error *error);
/* Whether there is somebody behind the interface. */
void tap_end_link(struct tap_end *tap, bool carrier);

#endif
