/* SPDX-License-Identifier: BSD-3-Clause */
/* What the hostile scenarios share; see hostile.c. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "frame.h"
#include "front.h"

/* An honest guest up to the point where run() bends something. */
struct scenario {
	const char *name;
	void (*run)(struct front *evil, struct front *mate);
	uint64_t without; /* features that evil does not negotiate */
	unsigned size[2]; /* its ring sizes, 0: 256 */
	unsigned regions; /* its memory regions, 0: 1 */
	bool rx_idle;     /* it posts no receive buffers */
	bool raw;         /* memory is allocated, nothing is connected yet */
	bool listen;      /* it listens on its socket, vifd is the client; implies raw */
};

/* One table a file; each ends with a scenario without a name. */
extern const struct scenario tx_scenarios[], rx_scenarios[], frame_scenarios[], race_scenarios[],
	storm_scenarios[], message_scenarios[], descriptor_scenarios[], memory_scenarios[];

static const uint8_t evil_mac[6] = { 0x52, 0x54, 0, 0, 3, 1 },
		     mate_mac[6] = { 0x52, 0x54, 0, 0, 3, 2 };
static const struct frame_addresses evil_to_mate = { { 0x52, 0x54, 0, 0, 3, 2 },
						     { 0x52, 0x54, 0, 0, 3, 1 } };
static const struct frame_addresses mate_to_evil = { { 0x52, 0x54, 0, 0, 3, 1 },
						     { 0x52, 0x54, 0, 0, 3, 2 } };

enum { RACE_MSEC = 800, GSO_SIZE = 1440 };

/* The test itself failed: an honest step did not work. */
void __attribute__((noreturn, format(printf, 1, 2))) broken_test(const char *format, ...);

static inline void put_desc(struct front_ring *ring, unsigned index, uint64_t addr, uint32_t len,
			    uint16_t flags, uint16_t next)
{
	ring->desc[index] = (struct vring_desc){ addr, len, flags, next };
}

/* Make head available, whatever it is, and say so. */
static inline void offer(struct front_ring *ring, uint16_t head)
{
	front_push(ring, head);
	front_publish(ring);
	front_force_kick(ring);
}

/* A good UDP frame of evil to mate, with virtio header, at the start of scratch. Its length. */
unsigned good_frame(struct front *evil);
/* The same for a TCP frame of payload_len bytes with a segmentation request. */
unsigned good_gso_frame(struct front *evil, unsigned payload_len);

/* mate sends evil count UDP frames and one of 64 KiB; how they fare is vifd's affair. */
void mate_sends(struct front *mate, unsigned count);
/* mate takes in what there is; a header that no driver could trust ends the test. How many. */
unsigned mate_receives(struct front *mate);

/* Wait until the back end has used everything that was made available on ring: false after msec. */
bool all_used(struct front_ring *ring, int msec);
/* Go on with a transmit or receive ring that the back end may have marked broken. */
void revive(struct front *evil, struct front_ring *ring);
bool time_left(uint64_t start_ns, unsigned msec);
uint32_t random_u32(void);

#endif
