// SPDX-License-Identifier: BSD-3-Clause
/*
 * Double fetches: a second thread changes guest memory, between a good and a bad value, as fast as
 * it can while vifd works on it. Whoever reads a word twice meets both values. What vifd makes of
 * each attempt is open; what it passes on to mate must always be something that a driver can trust,
 * and nothing may crash.
 */
#include "hostile.h"

#include <pthread.h>
#include <string.h>

enum { NEXT = VRING_DESC_F_NEXT, WRITE = VRING_DESC_F_WRITE, INDIRECT = VRING_DESC_F_INDIRECT };

/* A place in guest memory and the values that take turns there. */
struct flip {
	void *at;
	unsigned len; /* 1, 2, 4 or 8 bytes */
	uint64_t good, bad;
};

struct flipper {
	pthread_t thread;
	const struct flip *flips;
	unsigned count;
	_Atomic bool stop;
};

static void put(const struct flip *flip, uint64_t value)
{
	switch (flip->len) {
	case 1:
		*(volatile uint8_t *)flip->at = (uint8_t)value;
		break;
	case 2:
		*(volatile uint16_t *)flip->at = (uint16_t)value;
		break;
	case 4:
		*(volatile uint32_t *)flip->at = (uint32_t)value;
		break;
	default:
		*(volatile uint64_t *)flip->at = value;
	}
}

/* Each lie is told alone for a while, then taken back; intervals vary lest they hide a window. */
static void *flip_thread(void *arg)
{
	struct flipper *flipper = arg;

	for (uint32_t round = 1; !flipper->stop; round = round * 1103515245 + 12345) {
		const struct flip *flip = &flipper->flips[(round >> 16) % flipper->count];

		for (unsigned i = 0; i < 50; i++) {
			put(flip, flip->bad);
			for (volatile unsigned wait = round >> 24 & 63; wait; wait--)
				;
			put(flip, flip->good);
			for (volatile unsigned wait = round >> 20 & 63; wait; wait--)
				;
		}
	}
	return NULL;
}

/*
 * Offer head 0 again and again while the flips go on; revive the ring whenever it was given up. A
 * receive ring is looked at only when the mate sends: it gets more time to meet a lie.
 */
static void race(struct front *evil, struct front *mate, struct front_ring *ring,
		 const struct flip *flips, unsigned count, void (*set_up)(struct front *evil))
{
	struct flipper flipper = { .flips = flips, .count = count };
	uint64_t start_ns = front_now_ns();
	bool given_up = ring->index != 0;

	set_up(evil);
	pthread_create(&flipper.thread, NULL, flip_thread, &flipper);
	while (time_left(start_ns, given_up ? RACE_MSEC : 5 * RACE_MSEC)) {
		for (unsigned i = 0; i < ring->size / 2; i++)
			front_push(ring, 0);
		front_publish(ring);
		front_force_kick(ring);
		if (ring->index == 0)
			mate_sends(mate, 60);
		if (!all_used(ring, 5)) {
			revive(evil, ring);
			set_up(evil);
			given_up = true;
		}
		mate_receives(mate);
	}
	flipper.stop = true;
	pthread_join(flipper.thread, NULL);
}

#define RACE(ring, flips, set_up)                                                                  \
	race(evil, mate, ring, flips, sizeof(flips) / sizeof(flips[0]), set_up)

static struct vring_desc *table_of(struct front *evil)
{
	return (void *)(evil->scratch + 128 * 1024);
}

static void set_up_frame(struct front *evil)
{
	unsigned len = good_gso_frame(evil, 9000);

	put_desc(front_tx(evil), 0, front_gpa(evil, evil->scratch), len, 0, 0);
}

static void set_up_chain(struct front *evil)
{
	unsigned len = good_gso_frame(evil, 9000);
	uint64_t gpa = front_gpa(evil, evil->scratch);

	put_desc(front_tx(evil), 0, gpa, 40, NEXT, 1);
	put_desc(front_tx(evil), 1, gpa + 40, len - 40, 0, 0);
}

static void set_up_table(struct front *evil)
{
	unsigned len = good_gso_frame(evil, 9000);
	uint64_t gpa = front_gpa(evil, evil->scratch);

	table_of(evil)[0] = (struct vring_desc){ gpa, 40, NEXT, 1 };
	table_of(evil)[1] = (struct vring_desc){ gpa + 40, len - 40, 0, 0 };
	put_desc(front_tx(evil), 0, front_gpa(evil, table_of(evil)), 32, INDIRECT, 0);
}

static void set_up_receive(struct front *evil)
{
	put_desc(front_rx(evil), 0, front_gpa(evil, evil->scratch), 2048, WRITE, 0);
}

static void descriptor(struct front *evil, struct front *mate)
{
	struct vring_desc *desc = front_tx(evil)->desc;
	const struct flip flips[] = {
		{ &desc->addr, 8, front_gpa(evil, evil->scratch), 0x1000 },
		{ &desc->addr, 8, front_gpa(evil, evil->scratch), FRONT_GPA + evil->mem_len - 8 },
		{ &desc->len, 4, 9066, UINT32_MAX },
		{ &desc->len, 4, 9066, 0 },
		{ &desc->len, 4, 9066, 13 },
		{ &desc->flags, 2, 0, NEXT },
		{ &desc->flags, 2, 0, INDIRECT },
		{ &desc->flags, 2, 0, WRITE },
	};
	RACE(front_tx(evil), flips, set_up_frame);
}

static void chain(struct front *evil, struct front *mate)
{
	struct vring_desc *desc = front_tx(evil)->desc;
	const struct flip flips[] = {
		{ &desc[0].next, 2, 1, 0xffff },
		{ &desc[0].next, 2, 1, 0 },
		{ &desc[0].len, 4, 40, 65000 },
		{ &desc[0].len, 4, 40, 1 },
		{ &desc[1].len, 4, 9026, 1 },
		{ &desc[1].len, 4, 9026, UINT32_MAX },
		{ &desc[1].flags, 2, 0, NEXT },
		{ &desc[1].addr, 8, front_gpa(evil, evil->scratch + 40), UINT64_MAX - 100 },
	};
	RACE(front_tx(evil), flips, set_up_chain);
}

static void indirect_table(struct front *evil, struct front *mate)
{
	struct vring_desc *desc = front_tx(evil)->desc, *table = table_of(evil);
	const struct flip flips[] = {
		{ &desc->len, 4, 32, 0xfffffff0 },
		{ &desc->len, 4, 32, 16384 + 16 },
		{ &desc->len, 4, 32, 16 },
		{ &desc->addr, 8, front_gpa(evil, table), FRONT_GPA + evil->mem_len - 16 },
		{ &table[0].next, 2, 1, 0xffff },
		{ &table[0].flags, 2, NEXT, NEXT | INDIRECT },
		{ &table[1].flags, 2, 0, INDIRECT },
		{ &table[1].len, 4, 9026, UINT32_MAX },
		{ &table[0].len, 4, 40, 0 },
	};
	RACE(front_tx(evil), flips, set_up_table);
}

static void vnet_header(struct front *evil, struct front *mate)
{
	struct virtio_net_hdr_v1 *hdr = (void *)evil->scratch;
	const struct flip flips[] = {
		{ &hdr->flags, 1, 1, 0 },
		{ &hdr->gso_type, 1, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6 },
		{ &hdr->gso_type, 1, VIRTIO_NET_HDR_GSO_TCPV4, 0x7f },
		{ &hdr->gso_size, 2, GSO_SIZE, 0 },
		{ &hdr->gso_size, 2, GSO_SIZE, 1 },
		{ &hdr->csum_start, 2, 34, 0xffff },
		{ &hdr->csum_offset, 2, 16, 0xffff },
	};
	RACE(front_tx(evil), flips, set_up_frame);
	RACE(front_tx(evil), flips, set_up_table);
}

static void headers(struct front *evil, struct front *mate)
{
	uint8_t *frame = evil->scratch + evil->header_len;
	const struct flip flips[] = {
		{ frame + 12, 2, 0x0008, 0xdd86 }, { frame + 12, 2, 0x0008, 0x0081 },
		{ frame + 14, 1, 0x45, 0x4f },     { frame + 14, 1, 0x45, 0x60 },
		{ frame + 16, 2, 0x5023, 0xffff }, { frame + 23, 1, 6, 17 },
		{ frame + 46, 1, 0x50, 0xf0 },     { frame + 46, 1, 0x50, 0 },
		{ frame, 1, 0x52, 0x53 },
	};
	RACE(front_tx(evil), flips, set_up_frame);
	RACE(front_tx(evil), flips, set_up_chain);
}

static void available_index(struct front *evil, struct front *mate)
{
	struct vring_avail *avail = front_tx(evil)->avail;
	const struct flip flips[] = {
		{ &avail->ring[3], 2, 0, 0xffff },
		{ &avail->ring[0], 2, 0, 300 },
		{ &avail->flags, 2, 0, 0xffff },
		{ &avail->ring[front_tx(evil)->size], 2, 0, 0x7fff },
	};
	RACE(front_tx(evil), flips, set_up_frame);
}

/* vifd's own used ring is guest memory, too. */
static void used_ring(struct front *evil, struct front *mate)
{
	struct vring_used *used = front_tx(evil)->used;
	const struct flip flips[] = {
		{ &used->flags, 2, 0, 0xffff },
		{ &used->ring[0].id, 4, 0, UINT32_MAX },
		{ &used->ring[front_tx(evil)->size], 2, 0, 0x7fff },
	};
	RACE(front_tx(evil), flips, set_up_frame);
}

static void receive_descriptor(struct front *evil, struct front *mate)
{
	struct vring_desc *desc = front_rx(evil)->desc;
	const struct flip flips[] = {
		{ &desc->addr, 8, front_gpa(evil, evil->scratch), 0x1000 },
		{ &desc->addr, 8, front_gpa(evil, evil->scratch), FRONT_GPA + evil->mem_len - 20 },
		{ &desc->len, 4, 2048, UINT32_MAX },
		{ &desc->len, 4, 2048, 1 },
		{ &desc->len, 4, 2048, 0 },
		{ &desc->flags, 2, WRITE, WRITE | NEXT },
		{ &desc->flags, 2, WRITE, INDIRECT },
		{ &desc->flags, 2, WRITE, 0 },
	};
	RACE(front_rx(evil), flips, set_up_receive);
}

/* Descriptors, tables and heads at random, mostly plausible: chains become long and strange. */
static void fuzzed(struct front *evil, struct front *mate)
{
	struct front_ring *ring = front_tx(evil);
	uint64_t start_ns = front_now_ns();

	while (time_left(start_ns, 3000)) {
		for (unsigned i = 0; i < 96; i++) {
			struct vring_desc *desc = i < 64 ? &ring->desc[i] : &table_of(evil)[i - 64];

			desc->addr = random_u32() % 32
					     ? front_gpa(evil,
							 evil->scratch + random_u32() % 100000)
					     : random_u32();
			desc->len = random_u32() % 32 ? random_u32() % 2000 : random_u32();
			desc->flags = random_u32() % 4 ? NEXT : 0;
			desc->next = (uint16_t)(random_u32() % 64 ? i + 1 + random_u32() % 4
								  : random_u32());
			if (random_u32() % 16 == 0)
				desc->flags = (uint16_t)(random_u32() % 8);
			if (random_u32() % 8 == 0) {
				desc->flags |= INDIRECT;
				desc->addr = front_gpa(evil, &table_of(evil)[random_u32() % 16]);
				desc->len = 16 * (random_u32() % 32);
			}
		}
		good_gso_frame(evil, 9000);
		for (unsigned i = random_u32() % 32; i; i--)
			front_push(ring, (uint16_t)(random_u32() % 64));
		front_publish(ring);
		front_force_kick(ring);
		if (!all_used(ring, 2))
			revive(evil, ring);
		mate_receives(mate);
	}
}

const struct scenario race_scenarios[] = {
	{ "race-descriptor", descriptor },
	{ "race-chain", chain },
	{ "race-indirect-table", indirect_table },
	{ "race-vnet-header", vnet_header },
	{ "race-headers", headers },
	{ "race-available-index", available_index },
	{ "race-used-ring", used_ring },
	{ "race-receive-descriptor", receive_descriptor, .rx_idle = true },
	{ "race-fuzzed", fuzzed },
	{ 0 },
};
