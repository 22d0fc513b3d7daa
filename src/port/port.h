/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The port: what the bridge forwards between.
 *
 * Theory of operation. A port is a guest's NIC or an uplink, seen from the driver domain (M1):
 * recv() takes packets in from it, send() puts packets out to it. Each receive queue is polled by
 * one worker. Any worker may send; a port whose send side is shared takes its own lock, once per
 * burst. port_send() is the only way out of the bridge: it compares what each packet needs with
 * what the port can do (M6, M8), passes through what fits, and has the offload driver do the
 * difference.
 */
#ifndef VIFD_PORT_H
#define VIFD_PORT_H

#include <net/if.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pkt/pkt.h"

struct bridge;
struct lro;
struct port;
struct zone_group;

enum { PORTS_MAX = 1024, PORT_QUEUES_MAX = 16, WORKERS_MAX = 64, PORT_NAME_MAX = 32 };

/* What a port takes as it is. The rest is done in software before send(). */
enum port_caps {
	PORT_CAP_SG = 1 << 0,   /* packets in several fragments */
	PORT_CAP_CSUM = 1 << 1, /* PKT_CSUM_PARTIAL */
	PORT_CAP_TSO4 = 1 << 2,
	PORT_CAP_TSO6 = 1 << 3,
	PORT_CAP_TSO_ECN = 1 << 4,
	PORT_CAP_USO = 1 << 5,
	PORT_CAP_REMOTE = 1 << 6, /* PKT_REMOTE */
};

/*
 * recv:   take up to n packets from queue; the caller owns them, in_port is set, headers parsed.
 * send:   takes ownership of all n packets, whatever happens, and counts what it drops. Without
 *         PORT_CAP_SG they are linear: header_len is 0 and the only fragment holds the frame from
 *         its first byte (header[] holds a copy of the headers, parsed, which is not sent), or there
 *         is no fragment and header[] is the frame.
 * flush:  make everything sent visible and ring the doorbell, once per burst.
 * arm:    ask for a wake-up of queue; true when work arrived meanwhile (the wake-up is withdrawn).
 * disarm: no wake-ups while polled.
 * close:  workers no longer know the port; release everything, the port itself included.
 * tick:   about once a second, on the main thread, while workers run; NULL: nothing to do.
 * let_go: from is about to close: keep no reference to a packet that came in there. On the main
 *         thread, while workers are paused; NULL: it keeps none when send() has returned.
 */
struct port_ops {
	const char *kind; /* "vhost-user", "tap" */
	unsigned (*recv)(struct port *port, unsigned queue, struct pkt **pkts, unsigned n);
	void (*send)(struct port *port, struct pkt **pkts, unsigned n);
	void (*flush)(struct port *port);
	bool (*arm)(struct port *port, unsigned queue);
	void (*disarm)(struct port *port, unsigned queue);
	void (*close)(struct port *port);
	void (*tick)(struct port *port);
	void (*let_go)(struct port *port, const struct port *from);
};

/*
 * Counters of a port, one set per worker so that each has one writer. Every dropped packet counts
 * in exactly one drop_*. PORT_STATS(X) lists X(name, what it counts), for sums, vifctl and the
 * manual page.
 */
#define PORT_STATS(X)                                                                              \
	X(recv_packets, "packets taken in from the port")                                          \
	X(recv_bytes, "bytes of those")                                                            \
	X(recv_gso_packets, "of those, packets larger than one segment")                           \
	X(send_packets, "packets put out to the port")                                             \
	X(send_bytes, "bytes of those")                                                            \
	X(send_gso_packets, "of those, packets larger than one segment")                           \
	X(flooded_packets,                                                                         \
	  "packets taken in and sent to more than one port or to an unknown address")              \
	X(passed_packets, "packets handed to the port as they came")                               \
	X(segmented_packets, "packets segmented in software before they were sent here")           \
	X(segments, "segments made of those")                                                      \
	X(checksummed_packets,                                                                     \
	  "packets whose checksum was finished in software before they were sent here")            \
	X(linearised_packets,                                                                      \
	  "packets copied into one piece of memory, their checksum with them, before they "        \
	  "were sent here")                                                                        \
	X(referenced_packets, "packets put out as they lie, the payload not copied (snet)")        \
	X(copied_bytes, "bytes of payload copied into the memory of a guest")                      \
	X(grant_copies, "copies from and to a guest's pages that Xen was asked for (xen)")         \
	X(grant_calls, "system calls for those (xen)")                                             \
	X(wakeups, "wake-ups by the port (kick, readable descriptor)")                             \
	X(doorbells, "wake-ups given to the port (call)")                                          \
	X(drop_runt, "received: shorter than an Ethernet header")                                  \
	X(drop_oversize, "received: longer than 64 KiB and headers")                               \
	X(drop_bad_vnet_header,                                                                    \
	  "received: offload request that contradicts the headers or was not negotiated")          \
	X(drop_bad_descriptor,                                                                     \
	  "received: descriptor chain that leads outside guest memory or is malformed")            \
	X(drop_too_many_fragments, "received: more fragments than a packet may have")              \
	X(drop_no_packet, "received: the worker's packet pool was empty")                          \
	X(drop_spoofed, "received: source address is not the guest's (spoof=strict)")              \
	X(drop_bad_source, "received: source address is a group address or zero")                  \
	X(drop_reserved_group,                                                                     \
	  "received: link-local control group 01:80:c2:00:00:0x, never forwarded")                 \
	X(drop_same_port, "received: destination is behind the port it came from")                 \
	X(drop_isolated, "received: between guests, one of which is isolated")                     \
	X(drop_nowhere, "received: no other port to send to")                                      \
	X(drop_not_ready, "sent: the guest is not connected or its receive queue is not running")  \
	X(drop_no_buffers, "sent: the guest has posted too few receive buffers")                   \
	X(drop_too_big, "sent: longer than the receiver's buffer or MTU")                          \
	X(too_big_answers, "of those, told to the sender with ICMP (too-big=on)")                  \
	X(drop_offload_failed,                                                                     \
	  "sent: refused, needs an offload that could not be done in software")                    \
	X(drop_queue_full, "sent: the device's queue is full")                                     \
	X(drop_unwanted_multicast, "sent: multicast that the guest has not asked for (xen)")       \
	X(drop_device_error, "sent: the device refused the packet")

struct port_stats {
#define X(name, text) uint64_t name;
	PORT_STATS(X)
#undef X
} __attribute__((aligned(64)));

struct port {
	const struct port_ops *ops;
	uint32_t caps;   /* enum port_caps, what send() takes; a guest's change at negotiation */
	uint16_t id;     /* index in the port table, 0 is never used */
	uint16_t mtu;    /* bytes of L3 packet */
	unsigned queues; /* receive queues, 1..PORT_QUEUES_MAX */
	bool uplink;
	bool isolated;     /* talks to uplinks only */
	bool spoof_strict; /* accept only mac as a source address */
	bool has_mac;
	/* an empty recv() costs a system call: polled less often while others are busy */
	bool poll_is_syscall;
	bool queue_per_worker; /* queue i is worker i's, and worker i alone sends to its other half */
	bool flush_pending[WORKERS_MAX]; /* owned by each worker: on its list of ports to flush */
	uint8_t mac[6];                  /* the guest's, if has_mac */
	struct bridge *bridge;
	char direct_name[PORT_NAME_MAX]; /* of the port that it is to be tied to; empty: none */
	struct port *direct;             /* which it is: all goes there, past any bridge (S15) */
	/* that what its queues receive lies in, and that others may be shown; NULL: elsewhere */
	struct zone_group *zones[PORT_QUEUES_MAX];
	struct lro *lro[PORT_QUEUES_MAX]; /* by queue; NULL: never merged (worker_set_lro()) */
	char name[PORT_NAME_MAX];
	struct port_stats *stats; /* [WORKERS_MAX], one writer each */
};

/*
 * Allocate the parts of a port that the port table owns (id, stats) and enter it; name and ops are
 * set. 0, -EEXIST (name taken) or -ENOSPC. Workers must be paused or not yet running for this and
 * port_unregister().
 */
int port_register(struct port *port);
/* Take the port out of the table and free what port_register() allocated. */
void port_unregister(struct port *port);

struct port *port_by_name(const char *name);
struct port *port_by_id(unsigned id);

/* To be called about once a second. */
void ports_tick(void);
/* While paused: no other port keeps a reference to a packet that came in on this one. */
void ports_let_go(const struct port *from);
/* Tie two ports that are on no bridge: what comes in on one goes out on the other (S15); and untie
 * a port that may be tied. Pause inside. */
void port_tie(struct port *a, struct port *b);
void port_untie(struct port *port);
/* The MTU of the port's interface is found to be this; it may have been changed. */
void port_note_mtu(struct port *port, int mtu);

/* Sum of all workers' counters. */
void port_stats_sum(const struct port *port, struct port_stats *sum);

/*
 * Send n packets to port; takes ownership of one reference of each. What the port cannot do is done
 * in software first (M6, M8). The doorbell is rung by the worker at the end of its round.
 */
void port_send(struct port *port, struct pkt **pkts, unsigned n);

#endif
