/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A vhost-user front end of our own: the driver's side of a virtio network device, for tests.
 *
 * It is honest unless a caller makes it lie. Every step that the honest calls take (a message, a
 * descriptor, an index, a doorbell) is a public function or a public field, so that a hostile
 * scenario is an honest guest up to the one step that it bends. It shares no code with vifd: the
 * layouts come from the kernel's headers and the specifications, so that an error of ours is not
 * made twice.
 *
 * Guest memory is one memfd, mapped once here, announced to the back end as one region or several:
 *
 *      FRONT_GPA                                                                    front->mem_len
 *      | rings: desc, avail, used each | pair 0: tx slots, rx buffers | pair 1 ... | scratch |
 *        region 0 (all of it when there is one region)  regions 1.. cut the rest into equal parts
 *
 * A tx slot holds the bytes of one frame in flight and its indirect table. User addresses are those
 * of our mapping.
 */
#ifndef FRONT_H
#define FRONT_H

#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRONT_BIT(n) (UINT64_C(1) << (n))
#define FRONT_GPA    UINT64_C(0x40000000)

enum {
	FRONT_PAIRS_MAX = 8,
	FRONT_REGIONS_MAX = 8,
	FRONT_PIECES_MAX = 1024,      /* descriptors of one frame */
	FRONT_SLOT_DATA = 192 * 1024, /* bytes of a tx slot */
	FRONT_SLOT_TABLE = FRONT_PIECES_MAX * 16,
	FRONT_SCRATCH = 1 << 20,
	FRONT_FRAME_MAX = 65535 + 14 + 8,
};

/* vhost-user requests and flags (QEMU, interop/vhost-user.rst). */
enum {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES,
	VU_SET_OWNER,
	VU_RESET_OWNER,
	VU_SET_MEM_TABLE,
	VU_SET_LOG_BASE,
	VU_SET_LOG_FD,
	VU_SET_VRING_NUM,
	VU_SET_VRING_ADDR,
	VU_SET_VRING_BASE,
	VU_GET_VRING_BASE,
	VU_SET_VRING_KICK,
	VU_SET_VRING_CALL,
	VU_SET_VRING_ERR,
	VU_GET_PROTOCOL_FEATURES,
	VU_SET_PROTOCOL_FEATURES,
	VU_GET_QUEUE_NUM,
	VU_SET_VRING_ENABLE,
	VU_SEND_RARP,
	VU_NET_SET_MTU,
	VU_GET_INFLIGHT_FD = 31,
	VU_SET_INFLIGHT_FD,
	VU_GET_MAX_MEM_SLOTS = 36,
	VU_ADD_MEM_REG,
	VU_REM_MEM_REG,
	VU_SET_STATUS,
	VU_GET_STATUS,
	VU_VERSION = 1,
	VU_REPLY = 4,
	VU_NEED_REPLY = 8,
	VU_NOFD = 1 << 8, /* in the u64 of SET_VRING_KICK, _CALL and _ERR */
	VU_PROTOCOL_F_MQ = 0,
	VU_PROTOCOL_F_REPLY_ACK = 3,
	VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
	VU_F_PROTOCOL_FEATURES = 30,
};

struct vu_header {
	uint32_t request, flags, size;
};
struct vu_vring_state {
	uint32_t index, num;
};
struct vu_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};
struct vu_region {
	uint64_t gpa, size, uva, mmap_offset;
};
struct vu_mem_table {
	uint32_t count, padding;
	struct vu_region regions[FRONT_REGIONS_MAX];
};
struct vu_mem_reg {
	uint64_t padding;
	struct vu_region region;
};

struct front_config {
	const char *path;           /* vhost-user socket */
	bool listen;                /* be the server: vifd's guest has the option `client` */
	unsigned pairs;             /* queue pairs, 0 means 1 */
	unsigned size[2];           /* entries of receive [0] and transmit [1] rings, 0 means 256 */
	uint64_t features;          /* wanted; what is offered of these is acknowledged */
	uint64_t protocol_features; /* wanted, likewise */
	unsigned rx_buf_len; /* bytes of a receive buffer, virtio header included, 0 means 2048 */
	unsigned rx_chain;   /* descriptors it is spread over, 0 means 1 */
	bool rx_indirect;    /* as an indirect table */
	unsigned rx_buffers; /* at most so many, 0: as many as the ring holds */
	bool rx_idle;        /* post none when the device is opened */
	uint16_t base;       /* ring index to start from */
	unsigned tx_slots;   /* frames in flight at most, 0 means 64 */
	unsigned regions;    /* entries of the memory table, 0 means 1 */
};

/* A chain the driver made available: what its head stands for until it comes back used. */
struct front_chain {
	uint16_t count;  /* descriptors of the ring that it occupies; 0: not outstanding */
	unsigned cookie; /* tx slot or rx buffer */
};

struct front_ring {
	unsigned index; /* 2 * pair receives, 2 * pair + 1 transmits */
	unsigned size;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	int kick_fd, call_fd;
	bool event_idx, in_order;

	uint16_t avail_next; /* next available entry to write */
	uint16_t used_next;  /* next used entry to read */
	uint16_t kicked;     /* avail_next at the last doorbell decision */
	uint16_t *free; /* free descriptors, first in first out: ring order when used in order */
	unsigned free_head, free_count;
	uint16_t *order;            /* [size] heads by available position */
	uint16_t oldest;            /* oldest outstanding position, in order only */
	struct front_chain *chains; /* [size] by head */
	uint64_t kicks, calls;
};

struct front {
	struct front_config config;
	int socket, listener;
	uint64_t offered, features;
	uint64_t protocol_offered, protocol_features;
	unsigned header_len; /* of virtio_net_hdr on the rings */
	int memfd;
	uint8_t *mem;
	size_t mem_len;
	unsigned region_count;
	struct vu_region regions[FRONT_REGIONS_MAX];
	uint8_t *scratch; /* FRONT_SCRATCH bytes of guest memory for whoever wants them */
	struct front_ring rings[2 * FRONT_PAIRS_MAX];
	struct front_pair {
		uint8_t *slots; /* tx_slots * (FRONT_SLOT_DATA + FRONT_SLOT_TABLE) */
		unsigned *free_slots, free_head, free_count;
		uint8_t *buffers; /* rx_count * (rx_buf_len + table) */
		unsigned *idle_buffers, idle_count;
		unsigned rx_count, rx_stride;
	} pairs[FRONT_PAIRS_MAX];
	char fault[200]; /* how the back end broke the protocol; empty: it did not */
};

/* How a frame (with its virtio header) is cut into descriptors. All zero: one descriptor. */
struct front_layout {
	unsigned first; /* bytes of the first piece, 0: everything */
	unsigned piece; /* bytes of each that follows, 0: the rest */
	unsigned gap;   /* bytes left unused between pieces */
	bool indirect;
};

struct front_piece {
	uint64_t gpa;
	uint32_t len;
};

/* Life. Functions return 0 or -1 with a sentence in front->fault, unless they say otherwise. */

/* Connect, negotiate, announce memory, set up and enable every ring, post receive buffers. */
int front_open(struct front *front, const struct front_config *config);
/* Give everything back; also of a front that never opened fully. */
void front_close(struct front *front);
/* The same device over a new connection (retried for msec): rings go on where used indices say. */
int front_reconnect(struct front *front, unsigned msec);

/* The steps of front_open(), in order. */
int front_allocate(struct front *front, const struct front_config *config);
int front_connect(struct front *front);
int front_negotiate(struct front *front);
int front_announce_memory(struct front *front);
int front_start_ring(struct front *front, struct front_ring *ring, uint16_t base);
int front_enable_ring(struct front *front, struct front_ring *ring, bool enable);
/* GET_VRING_BASE: the next available entry the back end would have taken, or -1. */
int front_stop_ring(struct front *front, struct front_ring *ring);
/* Stop, forget what is outstanding, clear, start from entry 0: how a driver revives a ring. */
int front_restart_ring(struct front *front, struct front_ring *ring);

/* Messages. */

/* Raw: sends exactly this. */
int front_message(struct front *front, const struct vu_header *header, const void *payload,
		  size_t len, const int *fds, unsigned fd_count);
/* A request as it should be, and its acknowledgement if negotiated: 0, 1 (refused) or -1. */
int front_request(struct front *front, uint32_t request, const void *payload, uint32_t size,
		  const int *fds, unsigned fd_count);
/* A reply's payload: its length, or -1 when none came within msec. */
int front_reply(struct front *front, uint32_t request, void *payload, size_t len, int msec);
int front_get_u64(struct front *front, uint32_t request, uint64_t *value);
/* The back end has closed the connection (or does so within msec). */
bool front_disconnected(struct front *front, int msec);

/* Rings, step by step. */

uint64_t front_gpa(const struct front *front, const void *pointer);
/* Describe pieces (in the ring, or in table when it is not NULL) and put them into the available
 * ring, unpublished. The head, or -1 when there is no room. */
int front_add(struct front *front, struct front_ring *ring, const struct front_piece *pieces,
	      unsigned count, bool writable, struct vring_desc *table, unsigned cookie);
/* Raw: make head available, whatever it is. */
void front_push(struct front_ring *ring, uint16_t head);
void front_publish(struct front_ring *ring);
/* Ring the doorbell if the back end asked for it. */
void front_kick(struct front_ring *ring);
/* Ring it in any case. */
void front_force_kick(struct front_ring *ring);
/* Ask for no calls (a polling driver). */
void front_suppress_calls(struct front_ring *ring);
/* Ask for a call and wait for used entries: true when there are any within msec. */
bool front_wait(struct front_ring *ring, int msec);

/* Frames. */

/* Queue a frame; hdr NULL: all zero. 0, or -1 without room (nothing in fault) or for a fault. Then
 * publish and kick. */
int front_queue(struct front *front, unsigned pair, const struct virtio_net_hdr_v1 *hdr,
		const void *frame, unsigned len, const struct front_layout *layout);
/* Queue, publish and kick, waiting up to msec for room. */
int front_send(struct front *front, const struct virtio_net_hdr_v1 *hdr, const void *frame,
	       unsigned len, const struct front_layout *layout, int msec);
/* Take back transmitted frames. How many, or -1. */
int front_reclaim(struct front *front, unsigned pair);
/* Wait until the back end has given back every transmitted frame of pair. */
int front_drain(struct front *front, unsigned pair, int msec);
/* Offer idle receive buffers to the back end. */
void front_post(struct front *front, unsigned pair);
/* Next received frame (its buffers are posted again): its length, 0 when there is none, or -1. */
int front_receive(struct front *front, unsigned pair, struct virtio_net_hdr_v1 *hdr, void *frame,
		  unsigned size);

static inline struct front_ring *front_rx(struct front *front)
{
	return &front->rings[0];
}

static inline struct front_ring *front_tx(struct front *front)
{
	return &front->rings[1];
}

uint64_t front_now_ns(void);
void front_sleep_us(unsigned usec);

#endif
