// SPDX-License-Identifier: BSD-3-Clause
/*
 * Lies on the transmit ring: descriptors, chains, tables and indices that break the rules of
 * virtio 1.2 §2.7. Each makes one head available that is wrong in one way; `good` is where a good
 * frame lies in guest memory.
 */
#include "hostile.h"

#include <string.h>

enum { NEXT = VRING_DESC_F_NEXT, WRITE = VRING_DESC_F_WRITE, INDIRECT = VRING_DESC_F_INDIRECT };

/* A good frame and room for an indirect table behind it. */
struct parts {
	struct front_ring *ring;
	uint64_t good, table_gpa;
	uint32_t len;
	struct vring_desc *table;
};

static struct parts prepare(struct front *evil)
{
	uint32_t len = good_frame(evil);
	uint8_t *table = evil->scratch + 65536;

	return (struct parts){ front_tx(evil), front_gpa(evil, evil->scratch),
			       front_gpa(evil, table), len, (void *)table };
}

static void loop(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	put_desc(p.ring, 0, p.good, 64, NEXT, 1);
	put_desc(p.ring, 1, p.good, 64, NEXT, 0);
	offer(p.ring, 0);
}

static void loop_to_self(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	put_desc(p.ring, 3, p.good, p.len, NEXT, 3);
	offer(p.ring, 3);
}

static void loop_in_table(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.table[0] = (struct vring_desc){ p.good, 64, NEXT, 1 };
	p.table[1] = (struct vring_desc){ p.good, 1, NEXT, 1 };
	put_desc(p.ring, 0, p.table_gpa, 32, INDIRECT, 0);
	offer(p.ring, 0);
}

static void index_jump(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.ring->avail_next += p.ring->size + 1;
	front_publish(p.ring);
	front_force_kick(p.ring);
}

static void index_back(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.ring->avail_next -= 1;
	front_publish(p.ring);
	front_force_kick(p.ring);
}

static void bad_head(struct front *evil, struct front *mate)
{
	offer(front_tx(evil), (uint16_t)front_tx(evil)->size);
}

static void bad_head_far(struct front *evil, struct front *mate)
{
	offer(front_tx(evil), 0xffff);
}

static void bad_next(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	put_desc(p.ring, 0, p.good, 64, NEXT, (uint16_t)p.ring->size);
	offer(p.ring, 0);
}

static void bad_next_in_table(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.table[0] = (struct vring_desc){ p.good, 64, NEXT, 2 };
	put_desc(p.ring, 0, p.table_gpa, 32, INDIRECT, 0);
	offer(p.ring, 0);
}

static void address_unmapped(struct front *evil, struct front *mate)
{
	put_desc(front_tx(evil), 0, 0x1000, 200, 0, 0);
	offer(front_tx(evil), 0);
}

static void address_beyond(struct front *evil, struct front *mate)
{
	put_desc(front_tx(evil), 0, FRONT_GPA + evil->mem_len - 100, 200, 0, 0);
	offer(front_tx(evil), 0);
}

static void address_wraps(struct front *evil, struct front *mate)
{
	put_desc(front_tx(evil), 0, UINT64_MAX - 63, 200, 0, 0);
	offer(front_tx(evil), 0);
}

static void length_maximal(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	put_desc(p.ring, 0, p.good, UINT32_MAX, 0, 0);
	offer(p.ring, 0);
}

static void length_zero(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	put_desc(p.ring, 0, p.good, 0, 0, 0);
	offer(p.ring, 0);
}

static void length_zero_in_chain(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	put_desc(p.ring, 0, p.good, 12, NEXT, 1);
	put_desc(p.ring, 1, p.good + 12, 0, NEXT, 2);
	put_desc(p.ring, 2, p.good + 12, p.len - 12, 0, 0);
	offer(p.ring, 0);
}

static void writable(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	put_desc(p.ring, 0, p.good, p.len, WRITE, 0);
	offer(p.ring, 0);
}

static void writable_in_chain(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	put_desc(p.ring, 0, p.good, 64, NEXT, 1);
	put_desc(p.ring, 1, p.good + 64, p.len - 64, WRITE, 0);
	offer(p.ring, 0);
}

static void nested_table(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.table[0] = (struct vring_desc){ p.table_gpa + 4096, 16, INDIRECT, 0 };
	p.table[256] = (struct vring_desc){ p.good, p.len, 0, 0 };
	put_desc(p.ring, 0, p.table_gpa, 16, INDIRECT, 0);
	offer(p.ring, 0);
}

static void nested_table_later(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.table[0] = (struct vring_desc){ p.good, 64, NEXT, 1 };
	p.table[1] = (struct vring_desc){ p.table_gpa, 32, INDIRECT, 0 };
	put_desc(p.ring, 0, p.table_gpa, 32, INDIRECT, 0);
	offer(p.ring, 0);
}

static void table_in_chain(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.table[0] = (struct vring_desc){ p.good + 64, p.len - 64, 0, 0 };
	put_desc(p.ring, 0, p.good, 64, NEXT, 1);
	put_desc(p.ring, 1, p.table_gpa, 16, INDIRECT | NEXT, 0);
	offer(p.ring, 0);
}

/* Legal, if unusual, and to be handled: plain descriptors, then a table (§2.7.5.3.2). */
static void table_after_chain(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.table[0] = (struct vring_desc){ p.good + 64, 10, NEXT, 1 };
	p.table[1] = (struct vring_desc){ p.good + 74, p.len - 74, 0, 0 };
	put_desc(p.ring, 0, p.good, 12, NEXT, 1);
	put_desc(p.ring, 1, p.good + 12, 52, NEXT, 2);
	put_desc(p.ring, 2, p.table_gpa, 32, INDIRECT, 0);
	offer(p.ring, 0);
	if (!all_used(p.ring, 2000))
		broken_test("a table behind plain descriptors was not taken");
	front_sleep_us(20000);
	if (mate_receives(mate) < 1)
		broken_test("a frame in plain descriptors and a table did not arrive");
}

static void table_with_next(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.table[0] = (struct vring_desc){ p.good, p.len, 0, 0 };
	put_desc(p.ring, 0, p.table_gpa, 16, INDIRECT | NEXT, 1);
	put_desc(p.ring, 1, p.good, p.len, 0, 0);
	offer(p.ring, 0);
}

/* One good table of one entry, announced with len bytes at address. */
static void offer_table(struct front *evil, uint64_t offset, uint32_t len)
{
	struct parts p = prepare(evil);

	p.table[0] = (struct vring_desc){ p.good, p.len, 0, 0 };
	put_desc(p.ring, 0, p.table_gpa + offset, len, INDIRECT, 0);
	offer(p.ring, 0);
}

static void table_not_negotiated(struct front *evil, struct front *mate)
{
	offer_table(evil, 0, 16);
}

static void table_odd_length(struct front *evil, struct front *mate)
{
	offer_table(evil, 0, 17);
}

static void table_empty(struct front *evil, struct front *mate)
{
	offer_table(evil, 0, 0);
}

static void table_huge(struct front *evil, struct front *mate)
{
	offer_table(evil, 0, 65536 * 16);
}

static void table_maximal(struct front *evil, struct front *mate)
{
	offer_table(evil, 0, UINT32_MAX - 15);
}

static void table_unmapped(struct front *evil, struct front *mate)
{
	offer_table(evil, UINT64_C(1) << 40, 16);
}

static void table_over_end(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	put_desc(p.ring, 0, FRONT_GPA + evil->mem_len - 16, 32, INDIRECT, 0);
	offer(p.ring, 0);
}

/* Regions adjacent to the guest need not be so to vifd: no table is read past the first's end. */
static void table_over_regions(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);
	uint64_t edge = evil->regions[2].gpa;
	struct vring_desc *table = (void *)(evil->mem + (edge - FRONT_GPA) - 16);

	table[0] = (struct vring_desc){ p.good, 64, NEXT, 1 };
	table[1] = (struct vring_desc){ p.good + 64, p.len - 64, 0, 0 };
	put_desc(p.ring, 0, edge - 16, 32, INDIRECT, 0);
	offer(p.ring, 0);
}

/* A frame whose bytes lie across the edge of two regions: legal, and must arrive. */
static void frame_over_regions(struct front *evil, struct front *mate)
{
	uint32_t len = good_frame(evil);
	uint64_t edge = evil->regions[2].gpa;

	memcpy(evil->mem + (edge - FRONT_GPA) - 40, evil->scratch, len);
	put_desc(front_tx(evil), 0, edge - 40, len, 0, 0);
	offer(front_tx(evil), 0);
	if (!all_used(front_tx(evil), 2000))
		broken_test("a frame across two regions was not taken");
	front_sleep_us(20000);
	if (mate_receives(mate) < 1)
		broken_test("a frame across two regions did not arrive");
}

/* The indirect table's WRITE flag means nothing and must be ignored (§2.7.5.3.2). */
static void table_write_flag(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	p.table[0] = (struct vring_desc){ p.good, p.len, 0, 0 };
	put_desc(p.ring, 0, p.table_gpa, 16, INDIRECT | WRITE, 0);
	offer(p.ring, 0);
	if (!all_used(p.ring, 2000))
		broken_test("a table with the write flag was not taken");
}

/* The ring transmits itself: descriptors, available and used ring as one frame, while in use. */
static void transmit_the_ring(struct front *evil, struct front *mate)
{
	struct front_ring *ring = front_tx(evil);

	for (unsigned i = 0; i < 3000; i++) {
		void *part = i % 3 == 0   ? (void *)ring->desc
			     : i % 3 == 1 ? (void *)ring->avail
					  : (void *)ring->used;

		put_desc(ring, i % 64, front_gpa(evil, part), 500, 0, 0);
		offer(ring, i % 64);
		if (!all_used(ring, 200))
			revive(evil, ring);
		mate_receives(mate);
	}
}

/* Every entry of the largest ring is the longest chain there can be, again and again. */
static void longest_chains(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);
	uint64_t start_ns = front_now_ns();

	for (unsigned i = 0; i < p.ring->size; i++)
		put_desc(p.ring, i, p.good, 1, i + 1 < p.ring->size ? NEXT : 0, (uint16_t)(i + 1));
	while (time_left(start_ns, 2000)) {
		uint16_t used = __atomic_load_n(&p.ring->used->idx, __ATOMIC_ACQUIRE);

		while ((uint16_t)(p.ring->avail_next - used) < p.ring->size)
			front_push(p.ring, 0);
		front_publish(p.ring);
		front_force_kick(p.ring);
		front_sleep_us(200);
	}
}

/* Transmit queue disabled, then kicked. */
static void not_enabled(struct front *evil, struct front *mate)
{
	struct parts p = prepare(evil);

	if (front_enable_ring(evil, p.ring, false))
		broken_test("evil: %s", evil->fault);
	put_desc(p.ring, 0, p.good, p.len, 0, 0);
	offer(p.ring, 0);
	if (all_used(p.ring, 100))
		broken_test("a disabled ring was served");
	if (front_enable_ring(evil, p.ring, true))
		broken_test("evil: %s", evil->fault);
	if (!all_used(p.ring, 2000))
		broken_test("what was there when the ring was enabled is not served");
}

/* A broken ring must come back after the guest resets it. */
static void revived(struct front *evil, struct front *mate)
{
	bad_head(evil, mate);
	front_sleep_us(100000);
	revive(evil, front_tx(evil));

	struct parts p = prepare(evil);

	put_desc(p.ring, 0, p.good, p.len, 0, 0);
	offer(p.ring, 0);
	if (!all_used(p.ring, 2000))
		broken_test("the ring was set up again and does not work");
}

const struct scenario tx_scenarios[] = {
	{ "tx-loop", loop },
	{ "tx-loop-to-self", loop_to_self },
	{ "tx-loop-in-table", loop_in_table },
	{ "tx-index-jump", index_jump },
	{ "tx-index-back", index_back },
	{ "tx-bad-head", bad_head },
	{ "tx-bad-head-far", bad_head_far },
	{ "tx-bad-next", bad_next },
	{ "tx-bad-next-in-table", bad_next_in_table },
	{ "tx-address-unmapped", address_unmapped },
	{ "tx-address-beyond", address_beyond },
	{ "tx-address-wraps", address_wraps },
	{ "tx-length-maximal", length_maximal },
	{ "tx-length-zero", length_zero },
	{ "tx-length-zero-in-chain", length_zero_in_chain },
	{ "tx-writable", writable },
	{ "tx-writable-in-chain", writable_in_chain },
	{ "tx-nested-table", nested_table },
	{ "tx-nested-table-later", nested_table_later },
	{ "tx-table-in-chain", table_in_chain },
	{ "tx-table-after-chain", table_after_chain },
	{ "tx-table-with-next", table_with_next },
	{ "tx-table-not-negotiated", table_not_negotiated,
	  .without = FRONT_BIT(VIRTIO_RING_F_INDIRECT_DESC) },
	{ "tx-table-odd-length", table_odd_length },
	{ "tx-table-empty", table_empty },
	{ "tx-table-huge", table_huge },
	{ "tx-table-maximal", table_maximal },
	{ "tx-table-unmapped", table_unmapped },
	{ "tx-table-over-end", table_over_end },
	{ "tx-table-over-regions", table_over_regions, .regions = 4 },
	{ "tx-frame-over-regions", frame_over_regions, .regions = 4 },
	{ "tx-table-write-flag", table_write_flag },
	{ "tx-transmit-the-ring", transmit_the_ring },
	{ "tx-longest-chains", longest_chains, .size = { 0, 32768 } },
	{ "tx-not-enabled", not_enabled },
	{ "tx-revived", revived },
	{ 0 },
};
