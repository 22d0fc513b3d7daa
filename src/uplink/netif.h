/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Interfaces of the kernel, in whatever network namespace: what the uplinks share. Main thread
 * only. The theory of operation is in netif.c.
 */
#ifndef VIFD_NETIF_H
#define VIFD_NETIF_H

#include <jansson.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sys/error.h"

struct netif {
	char name[IFNAMSIZ];
	char *netns; /* as configured, NULL: vifd's */
	ino_t ns;    /* identity of that namespace */
	bool found;  /* it existed at netif_open() */
	int sock;    /* for requests; in the interface's namespace, wherever we are */
	int old_mtu; /* to be restored; 0: unchanged */
	int note;    /* locked file that remembers it; -1: none */
};

/* One that is not open. */
#define NETIF_NONE ((struct netif){ .sock = -1, .note = -1 })

/* Move the calling thread to a network namespace, name (/run/netns/NAME) or path; NULL: stay.
 * *back is for netns_leave(). 0, or -errno and a sentence. */
int netns_enter(const char *netns, int *back, struct error *error);
void netns_leave(int back);

/*
 * Begin to deal with the interface of that name in the namespace that the calling thread is in,
 * which is called netns; it need not exist yet. 0, or -errno and a sentence.
 */
int netif_open(struct netif *netif, const char *ifname, const char *netns, struct error *error);
/* Restore the MTU, if it was changed and the interface is still there, and let go. Also of one that
 * could not be opened. */
void netif_close(struct netif *netif);

/* Index, MTU, or IFF_* flags of the interface; -errno: -ENODEV when there is none. */
int netif_index(const struct netif *netif);
int netif_mtu(const struct netif *netif);
int netif_flags(const struct netif *netif);
bool netif_is_ethernet(const struct netif *netif);
/* An ethtool request, struct ethtool_*. 0 or -errno. */
int netif_ethtool(const struct netif *netif, void *request);

/*
 * Bring the interface up, and set its MTU unless mtu is 0. The MTU is restored by netif_close(), or,
 * if vifd is killed, by the next one, unless the interface was made since netif_open(). It stays up,
 * for addresses may depend on it. Returns the MTU, or -errno and a sentence.
 */
int netif_set_up(struct netif *netif, uint16_t mtu, struct error *error);

/* What `show uplinks` tells of it: interface, netns, state (up, no carrier, down, gone). New
 * reference. */
json_t *netif_show(const struct netif *netif);

/* Restore the interfaces of vifds that were killed. */
void netif_restore_all(void);

#endif
