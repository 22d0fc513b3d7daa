// SPDX-License-Identifier: BSD-3-Clause
/*
 * Lies on the receive ring. evil has posted nothing when a scenario starts; it posts what is wrong,
 * and mate, who is honest, sends it frames.
 */
#include "hostile.h"

#include <string.h>

enum {
	NEXT = VRING_DESC_F_NEXT,
	WRITE = VRING_DESC_F_WRITE,
	INDIRECT = VRING_DESC_F_INDIRECT,
	FRAMES = 40
};

static uint64_t buffer(struct front *evil)
{
	return front_gpa(evil, evil->scratch);
}

/* Describe every entry like the first, and make all of them available. */
static void offer_all(struct front *evil, uint64_t addr, uint32_t len, uint16_t flags)
{
	struct front_ring *ring = front_rx(evil);

	for (unsigned i = 0; i < ring->size; i++) {
		put_desc(ring, i, addr, len, flags, 0);
		front_push(ring, (uint16_t)i);
	}
	front_publish(ring);
}

static void readable(struct front *evil, struct front *mate)
{
	offer_all(evil, buffer(evil), 2048, 0);
	mate_sends(mate, FRAMES);
}

static void readable_in_chain(struct front *evil, struct front *mate)
{
	struct front_ring *ring = front_rx(evil);

	put_desc(ring, 0, buffer(evil), 64, WRITE | NEXT, 1);
	put_desc(ring, 1, buffer(evil), 4096, 0, 0);
	offer(ring, 0);
	mate_sends(mate, FRAMES);
}

static void unmapped(struct front *evil, struct front *mate)
{
	offer_all(evil, 0x1000, 2048, WRITE);
	mate_sends(mate, FRAMES);
}

static void beyond(struct front *evil, struct front *mate)
{
	offer_all(evil, FRONT_GPA + evil->mem_len - 100, 2048, WRITE);
	mate_sends(mate, FRAMES);
}

static void wraps(struct front *evil, struct front *mate)
{
	offer_all(evil, UINT64_MAX - 10, 2048, WRITE);
	mate_sends(mate, FRAMES);
}

static void zero_length(struct front *evil, struct front *mate)
{
	offer_all(evil, buffer(evil), 0, WRITE);
	mate_sends(mate, FRAMES);
}

static void maximal_length(struct front *evil, struct front *mate)
{
	offer_all(evil, buffer(evil), UINT32_MAX, WRITE);
	mate_sends(mate, FRAMES);
}

/* Mergeable buffers of one byte: not even the header fits one. */
static void one_byte(struct front *evil, struct front *mate)
{
	offer_all(evil, buffer(evil), 1, WRITE);
	mate_sends(mate, FRAMES);
}

/* Not mergeable, and too small. */
static void too_small(struct front *evil, struct front *mate)
{
	offer_all(evil, buffer(evil), 40, WRITE);
	mate_sends(mate, FRAMES);
}

static void index_jump(struct front *evil, struct front *mate)
{
	front_rx(evil)->avail_next += front_rx(evil)->size + 1;
	front_publish(front_rx(evil));
	mate_sends(mate, FRAMES);
}

static void bad_head(struct front *evil, struct front *mate)
{
	offer(front_rx(evil), 0xffff);
	mate_sends(mate, FRAMES);
}

static void loop(struct front *evil, struct front *mate)
{
	struct front_ring *ring = front_rx(evil);

	put_desc(ring, 0, buffer(evil), 16, WRITE | NEXT, 1);
	put_desc(ring, 1, buffer(evil), 16, WRITE | NEXT, 0);
	offer(ring, 0);
	mate_sends(mate, FRAMES);
}

static void nested_table(struct front *evil, struct front *mate)
{
	struct vring_desc *table = (void *)(evil->scratch + 65536);

	table[0] = (struct vring_desc){ front_gpa(evil, table), 16, INDIRECT | WRITE, 0 };
	put_desc(front_rx(evil), 0, front_gpa(evil, table), 16, INDIRECT, 0);
	offer(front_rx(evil), 0);
	mate_sends(mate, FRAMES);
}

static void never_posted(struct front *evil, struct front *mate)
{
	mate_sends(mate, 500);
}

/* Posted once and never again. */
static void never_consumed(struct front *evil, struct front *mate)
{
	offer_all(evil, buffer(evil), 2048, WRITE);
	mate_sends(mate, 2000);
}

/* vifd writes frames over the very rings it is reading. */
static void onto_the_rings(struct front *evil, struct front *mate)
{
	struct front_ring *ring = front_rx(evil);
	void *const targets[] = { ring->desc, ring->avail, ring->used, front_tx(evil)->desc,
				  front_tx(evil)->used };

	for (unsigned round = 0; round < 200; round++) {
		uint64_t target = front_gpa(evil, targets[round % 5]);

		for (unsigned i = 0; i < 32; i++) {
			put_desc(ring, i, target, 2048, WRITE, 0);
			front_push(ring, (uint16_t)i);
		}
		front_publish(ring);
		mate_sends(mate, 20);
		revive(evil, ring);
		if (round % 5 > 2)
			revive(evil, front_tx(evil));
	}
}

static void longest_chains(struct front *evil, struct front *mate)
{
	struct front_ring *ring = front_rx(evil);
	uint64_t start_ns = front_now_ns();

	for (unsigned i = 0; i < ring->size; i++)
		put_desc(ring, i, buffer(evil), 1, i + 1 < ring->size ? NEXT | WRITE : WRITE,
			 (uint16_t)(i + 1));
	for (unsigned i = 0; i < ring->size; i++)
		front_push(ring, 0);
	front_publish(ring);
	while (time_left(start_ns, 2000))
		mate_sends(mate, 60);
}

/* A buffer across two regions is legal: the frame must arrive in it whole. */
static void over_regions(struct front *evil, struct front *mate)
{
	uint64_t edge = evil->regions[2].gpa;
	uint8_t *data = evil->mem + (edge - FRONT_GPA) - 300;

	put_desc(front_rx(evil), 0, edge - 300, 2048, WRITE, 0);
	offer(front_rx(evil), 0);
	mate_sends(mate, 1);
	if (front_rx(evil)->used->idx != 1 ||
	    frame_udp_check(data + evil->header_len,
			    front_rx(evil)->used->ring[0].len - evil->header_len) != 0)
		broken_test("a frame into a buffer across two regions is not whole");
}

/* Only what used.len says of a buffer may be written; no memory of vifd or others may show. */
static void rest_untouched(struct front *evil, struct front *mate)
{
	struct vring_used *used = front_rx(evil)->used;

	memset(evil->scratch, 0xa5, 4096);
	put_desc(front_rx(evil), 0, buffer(evil), 4096, WRITE, 0);
	offer(front_rx(evil), 0);
	mate_sends(mate, 1);
	if (used->idx != 1 || used->ring[0].len != evil->header_len + 500 + FRAME_UDP_HEADERS)
		broken_test("used length is %u", used->ring[0].len);
	for (unsigned i = used->ring[0].len; i < 4096; i++)
		if (evil->scratch[i] != 0xa5)
			broken_test("byte %u behind a frame was written", i);
}

#define IDLE .rx_idle = true

const struct scenario rx_scenarios[] = {
	{ "rx-readable", readable, IDLE },
	{ "rx-readable-in-chain", readable_in_chain, IDLE },
	{ "rx-unmapped", unmapped, IDLE },
	{ "rx-beyond", beyond, IDLE },
	{ "rx-wraps", wraps, IDLE },
	{ "rx-zero-length", zero_length, IDLE },
	{ "rx-maximal-length", maximal_length, IDLE },
	{ "rx-one-byte", one_byte, IDLE },
	{ "rx-too-small", too_small, IDLE, .without = FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF) },
	{ "rx-index-jump", index_jump, IDLE },
	{ "rx-bad-head", bad_head, IDLE },
	{ "rx-loop", loop, IDLE },
	{ "rx-nested-table", nested_table, IDLE },
	{ "rx-never-posted", never_posted, IDLE },
	{ "rx-never-consumed", never_consumed, IDLE },
	{ "rx-onto-the-rings", onto_the_rings, IDLE },
	{ "rx-longest-chains", longest_chains, IDLE, .size = { 32768 } },
	{ "rx-rest-untouched", rest_untouched, IDLE },
	{ "rx-over-regions", over_regions, IDLE, .regions = 4 },
	{ 0 },
};
