/* SPDX-License-Identifier: BSD-3-Clause */
/* What the parts of snet's control side share: the guest. snet_control.c: its socket and sessions;
 * snet_zones.c: its memory; snet_show.c: what is told about it. Main thread. */
#ifndef VIFD_SNET_GUEST_H
#define VIFD_SNET_GUEST_H

#include "guest/snet.h"
#include "snet/snet_msg.h"
#include "sys/log.h"
#include "sys/tokens.h"
#include "sys/unix_socket.h"

struct snet_guest {
	struct snet snet; /* first */
	char *path;
	struct unix_file file;
	uint32_t ring_size, stride;
	int listen_fd;
	int fd;    /* of the front end; -1: not connected */
	int timer; /* until we accept again; 0: none */
	struct tokens tokens;
	struct log_limit limit;
	struct zone_group rx;
	struct zone_group *tx; /* NULL: none yet */
	uint32_t takes;        /* the front end's HELLO */
	unsigned id;           /* of guests, to know its lingering sessions by */
	uint64_t connections, messages, throttled, refused;
};

static inline struct snet_guest *snet_guest_of(struct port *port)
{
	return (struct snet_guest *)port;
}

/* snet_control.c */

/* Tell the front end something, with fd_count descriptors. False: it does not read what it is told.
 */
bool snet_tell(struct snet_guest *guest, const struct snet_msg *msg, const int *fds,
	       unsigned fd_count);
/* Sessions of the guest that are over, but something sent in them is under way. */
unsigned snet_lingering(const struct snet_guest *guest);

/* snet_zones.c */

/* The memory to receive into that a guest has from the start. 0 or -errno and a sentence. */
int snet_zones_init(struct snet_guest *guest, struct error *error);
/* All of the guest's zones. It has no session. */
void snet_zones_fini(struct snet_guest *guest);
/* See to it that guest->tx has room for so many bytes, within reason; 0: as it is usual. 0, or -errno
 * and a sentence. */
int snet_zones_to_send(struct snet_guest *guest, uint32_t bytes, struct error *error);
/* Announce all zones that the front end may see and does not know yet. False: it does not read. */
bool snet_zones_tell(struct snet_guest *guest, struct snet_session *session);
/* A group's zones are done with: let go of them. */
void snet_zones_drop(struct zone_group **group);
/* Tell the front end of zones that it knows and that are no more. */
void snet_zones_tell_gone(struct snet_guest *guest, struct snet_session *session);
/* More buffers where they were too few. */
void snet_zones_relieve(struct snet_guest *guest);

#endif
