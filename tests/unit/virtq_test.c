/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Split virtqueues: setting up, every legal chain, every illegal one, index arithmetic,
 * notifications.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake.h"

enum { SIZE = 256, EDGE_SIZE = 4096, IOV_MAX_HERE = 600 };

static struct fake_guest guest;
static struct fake_ring ring;
static struct virtq vq;
static struct iovec iov[IOV_MAX_HERE];
static struct virtq_chain chain;

/* Region 0 for rings and tables, then two small ones with edges at EDGE and EDGE + EDGE_SIZE. */
static uint64_t edge;

static int set_up(void **state)
{
	const uint64_t sizes[] = { 2 << 20, EDGE_SIZE, EDGE_SIZE };

	fake_guest_init(&guest, sizes, 3);
	fake_ring_init(&ring, &guest, SIZE);
	edge = FAKE_GPA + sizes[0];
	vq = (struct virtq){ .setup = ring.setup, .enabled = true, .call_fd = -1, .kick_fd = -1 };
	vq.setup.indirect = true;
	return virtq_start(&vq, &guest.mem);
}

static int tear_down(void **state)
{
	fake_guest_fini(&guest);
	return 0;
}

/* ---- setting up ---- */

static void test_sizes(void **state)
{
	for (unsigned size = 1; size <= VIRTQ_SIZE_MAX; size *= 2) {
		fake_ring_init(&ring, &guest, size);
		vq.setup = ring.setup;
		assert_int_equal(virtq_start(&vq, &guest.mem), 0);
		assert_int_equal(vq.size, size);
		assert_true(virtq_running(&vq));
		assert_ptr_equal(vq.desc, ring.desc);
		assert_ptr_equal(vq.avail, ring.avail);
		assert_ptr_equal(vq.used, ring.used);
		assert_int_equal(virtq_available(&vq), 0);
		virtq_stop(&vq);
		guest.next = FAKE_GPA;
	}
	for (unsigned i = 0; i < 5; i++) {
		static const uint16_t wrong[] = { 0, 3, 257, VIRTQ_SIZE_MAX + 1, 65535 };

		vq.setup.size = wrong[i];
		assert_int_equal(virtq_start(&vq, &guest.mem), -EINVAL);
		assert_false(virtq_running(&vq));
	}
}

/* Each part must be aligned and lie in memory whole, to its last byte. */
static void test_placement(void **state)
{
	static const struct {
		unsigned align;
		uint64_t len;
	} parts[] = { { 16, SIZE * 16 }, { 2, 4 + SIZE * 2 + 2 }, { 4, 4 + SIZE * 8 + 2 } };
	const struct virtq_setup good = vq.setup;
	uint64_t *addresses[] = { &vq.setup.desc_uva, &vq.setup.avail_uva, &vq.setup.used_uva };

	for (unsigned part = 0; part < 3; part++) {
		uint64_t end = edge + FAKE_UVA, at = end - parts[part].len;

		vq.setup = good;
		at -= at % parts[part].align;
		*addresses[part] = at;
		assert_int_equal(virtq_start(&vq, &guest.mem), 0);
		*addresses[part] = at + parts[part].align;
		assert_int_equal(virtq_start(&vq, &guest.mem), -EFAULT);
		*addresses[part] = at - parts[part].align / 2;
		assert_int_equal(virtq_start(&vq, &guest.mem), -EINVAL);
		*addresses[part] = FAKE_UVA;
		assert_int_equal(virtq_start(&vq, &guest.mem), -EFAULT);
		*addresses[part] = -8;
		assert_int_equal(virtq_start(&vq, &guest.mem), -EFAULT);
	}
	vq.setup = good;
	assert_int_equal(virtq_start(&vq, NULL), -EFAULT);
}

static void test_stop_and_restart(void **state)
{
	struct fake_buf buf = { edge, 64 };

	fake_ring_age(&ring, 1000);
	vq.setup.base = 1000;
	assert_int_equal(virtq_start(&vq, &guest.mem), 0);
	assert_int_equal(vq.next_used, 1000);
	for (unsigned i = 0; i < 3; i++)
		fake_offer(&ring, fake_chain(&ring, &buf, 1, 0));
	assert_int_equal(virtq_available(&vq), 3);
	vq.last_avail += 2;
	virtq_put_used(&vq, 0, 0, 0);
	virtq_publish(&vq, 1);

	/*
	 * What was taken but not given back is not taken again; the used ring goes on where the
	 * driver is.
	 */
	assert_int_equal(virtq_stop(&vq), 1002);
	assert_false(virtq_running(&vq));
	vq.next_used = 7;
	assert_int_equal(virtq_start(&vq, &guest.mem), 0);
	assert_int_equal(vq.next_used, 1001);
	assert_int_equal(virtq_available(&vq), 1);

	/* A broken queue is whole again after a start, and is not run before it is enabled. */
	virtq_break(&vq, VIRTQ_LOOP, "g");
	assert_false(virtq_running(&vq));
	assert_int_equal(vq.error, VIRTQ_LOOP);
	virtq_break(&vq, VIRTQ_BAD_HEAD, "g");
	assert_int_equal(vq.error, VIRTQ_LOOP);
	virtq_stop(&vq);
	vq.enabled = false;
	assert_int_equal(virtq_start(&vq, &guest.mem), 0);
	assert_false(virtq_running(&vq));
	vq.enabled = true;
	assert_true(virtq_running(&vq));
	assert_int_equal(vq.error, VIRTQ_OK);
}

static void test_remap(void **state)
{
	struct guest_mem moved = guest.mem;
	uint8_t *copy = malloc(moved.regions[0].size);
	struct fake_buf buf = { edge, 64 };

	fake_offer(&ring, fake_chain(&ring, &buf, 1, 0));
	vq.last_avail = 1;
	memcpy(copy, moved.regions[0].host, moved.regions[0].size);
	moved.regions[0].host = copy;
	assert_int_equal(virtq_remap(&vq, &moved), 0);
	assert_ptr_equal(vq.desc, copy);
	assert_int_equal(vq.last_avail, 1);
	assert_int_equal(virtq_available(&vq), 0);
	moved.count = 0;
	assert_int_equal(virtq_remap(&vq, &moved), -EFAULT);
	assert_int_equal(virtq_remap(&vq, NULL), -EFAULT);
	free(copy);
}

static void test_every_error_has_a_name(void **state)
{
	for (unsigned i = 0; i < VIRTQ_ERRORS; i++)
		assert_true(virtq_error_names[i] && virtq_error_names[i][0]);
}

/* ---- chains ---- */

/* As the device does: read the descriptor, gather the chain. */
static enum virtq_error gather(uint16_t head, bool writable, unsigned max)
{
	struct virtq_desc desc = virtq_desc_read(vq.desc, head);

	memset(iov, 0xee, sizeof(iov));
	return virtq_gather(&vq, &desc, writable, iov, max, &chain);
}

/* The chain was found to be exactly these buffers, which do not cross edges. */
static void check_gathered(const struct fake_buf *bufs, unsigned n)
{
	uint64_t len = 0;

	assert_int_equal(chain.count, n);
	assert_false(chain.cut);
	for (unsigned i = 0; i < n; i++) {
		assert_ptr_equal(iov[i].iov_base, fake_at(&guest, bufs[i].gpa, bufs[i].len));
		assert_int_equal(iov[i].iov_len, bufs[i].len);
		len += bufs[i].len;
	}
	assert_int_equal(chain.len, len);
}

/* n buffers of odd sizes anywhere. */
static void make_bufs(struct fake_buf *bufs, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		bufs[i] = (struct fake_buf){ edge + i * 7 % 2000, 1 + i * 13 % 97 };
}

static void test_chains(void **state)
{
	static const unsigned counts[] = { 1, 2, 3, 64, SIZE - 1, SIZE };
	struct fake_buf bufs[SIZE];

	make_bufs(bufs, SIZE);
	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		for (unsigned writable = 0; writable < 2; writable++) {
			uint16_t flags = writable ? VIRTQ_DESC_WRITE : 0, head;

			/* Heads differ, so that most chains wrap around the table's end. */
			head = fake_chain(&ring, bufs, counts[i], flags);
			assert_int_equal(gather(head, writable, SIZE), VIRTQ_OK);
			check_gathered(bufs, counts[i]);
			head = fake_chain_indirect(&ring, bufs, counts[i], flags);
			assert_int_equal(gather(head, writable, SIZE), VIRTQ_OK);
			check_gathered(bufs, counts[i]);
			ring.next_desc = (ring.next_desc + 77) % SIZE;
		}
	}
}

/* An indirect table may be longer than the ring. */
static void test_long_indirect_chain(void **state)
{
	struct fake_buf bufs[500];

	make_bufs(bufs, 500);
	assert_int_equal(gather(fake_chain_indirect(&ring, bufs, 500, 0), false, 500), VIRTQ_OK);
	check_gathered(bufs, 500);
}

/*
 * Direct descriptors may be followed by one indirect (virtio 1.2 2.7.5.3.2); its WRITE flag says
 * nothing.
 */
static void test_direct_then_indirect(void **state)
{
	struct fake_buf bufs[10];
	uint16_t tail, head;

	make_bufs(bufs, 10);
	for (unsigned writable = 0; writable < 2; writable++) {
		uint16_t flags = writable ? VIRTQ_DESC_WRITE : 0;

		tail = fake_chain_indirect(&ring, bufs + 3, 7, flags);
		ring.desc[tail].flags ^= VIRTQ_DESC_WRITE;
		assert_int_equal(gather(tail, writable, 10), VIRTQ_OK);
		check_gathered(bufs + 3, 7);
		head = fake_chain(&ring, bufs, 3, flags);
		ring.desc[(head + 2) % SIZE].flags |= VIRTQ_DESC_NEXT;
		ring.desc[(head + 2) % SIZE].next = tail;
		assert_int_equal(gather(head, writable, 10), VIRTQ_OK);
		check_gathered(bufs, 10);
	}
}

/* What does not fit is cut, and says so; what just fits is not. */
static void test_cut(void **state)
{
	struct fake_buf bufs[300];
	uint64_t len = 0;
	uint16_t head;

	make_bufs(bufs, 300);
	head = fake_chain_indirect(&ring, bufs, 300, 0);
	assert_int_equal(gather(head, false, 300), VIRTQ_OK);
	check_gathered(bufs, 300);
	for (unsigned max = 0; max < 300; max += 23) {
		len = 0;
		for (unsigned i = 0; i < max; i++)
			len += bufs[i].len;
		assert_int_equal(gather(head, false, max), VIRTQ_OK);
		assert_true(chain.cut);
		assert_int_equal(chain.count, max);
		assert_int_equal(chain.len, len);
		assert_true((uintptr_t)iov[max].iov_base == UINT64_C(0xeeeeeeeeeeeeeeee));
	}
}

/*
 * A chain that is cut is not walked on: with a table of 32768 entries offered 32 times over, that
 * would be a million descriptors for one doorbell. Where nobody walks, nobody stumbles.
 */
static void test_cut_bounds_the_walk(void **state)
{
	struct fake_buf bufs[SIZE];
	uint16_t head;

	make_bufs(bufs, SIZE);
	head = fake_chain(&ring, bufs, SIZE, 0);
	ring.desc[(head + 100) % SIZE].len = 0;
	assert_int_equal(gather(head, false, SIZE), VIRTQ_ZERO_LENGTH);
	assert_int_equal(gather(head, false, 50), VIRTQ_OK);
	assert_true(chain.cut);
}

static void test_region_edges(void **state)
{
	struct fake_buf whole = { edge, EDGE_SIZE }, across = { edge - 10, 30 };
	struct fake_buf over_two = { edge - 1, 1 + EDGE_SIZE + 1 };
	struct fake_buf to_the_end = { edge + 2 * EDGE_SIZE - 1, 1 };
	struct virtq_desc desc;

	assert_int_equal(gather(fake_chain(&ring, &whole, 1, 0), false, 4), VIRTQ_OK);
	check_gathered(&whole, 1);
	assert_int_equal(gather(fake_chain(&ring, &to_the_end, 1, 0), false, 4), VIRTQ_OK);
	check_gathered(&to_the_end, 1);

	for (unsigned i = 0; i < 2; i++) {
		uint16_t head = i ? fake_chain(&ring, &across, 1, 0)
				  : fake_chain_indirect(&ring, &across, 1, 0);

		assert_int_equal(gather(head, false, 4), VIRTQ_OK);
		assert_int_equal(chain.count, 2);
		assert_int_equal(chain.len, 30);
		assert_ptr_equal(iov[0].iov_base, fake_at(&guest, edge - 10, 10));
		assert_int_equal(iov[0].iov_len, 10);
		assert_ptr_equal(iov[1].iov_base, fake_at(&guest, edge, 20));
		assert_int_equal(iov[1].iov_len, 20);
		/* The half that fits is no whole. */
		assert_int_equal(gather(head, false, 1), VIRTQ_OK);
		assert_true(chain.cut);
	}
	assert_int_equal(gather(fake_chain(&ring, &over_two, 1, 0), false, 4), VIRTQ_OK);
	assert_int_equal(chain.count, 3);
	assert_int_equal(chain.len, EDGE_SIZE + 2);
	assert_int_equal(iov[1].iov_len, EDGE_SIZE);

	/* One piece of memory is what virtq_buffer() is for. */
	desc = (struct virtq_desc){ .addr = edge - 10, .len = 10 };
	assert_ptr_equal(virtq_buffer(&vq, &desc), fake_at(&guest, edge - 10, 10));
	desc.len = 11;
	assert_null(virtq_buffer(&vq, &desc));
	desc.addr = edge + 2 * EDGE_SIZE;
	assert_null(virtq_buffer(&vq, &desc));
}

/* ---- what a driver must not do ---- */

static void test_bad_addresses(void **state)
{
	const struct fake_buf bad[] = {
		{ 0, 1 },
		{ FAKE_GPA - 1, 2 },
		{ edge + 2 * EDGE_SIZE - 1, 2 },
		{ edge + 2 * EDGE_SIZE, 1 },
		{ edge, 2 * EDGE_SIZE + 1 },
		{ edge, UINT32_MAX },
		{ UINT64_MAX, 1 },
		{ UINT64_MAX - 10, UINT32_MAX },
		{ -EDGE_SIZE, FAKE_GPA + EDGE_SIZE + 100 },
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct fake_buf bufs[] = { { edge, 1 }, bad[i] };
		uint64_t got;
		uint16_t head;

		for (vq.last_region = 0; vq.last_region < 4; vq.last_region++) {
			unsigned last = vq.last_region;

			got = 0;
			assert_true(
				!guest_mem_at(&guest.mem, &last, bad[i].gpa, bad[i].len, &got) ||
				got < bad[i].len);
		}
		head = fake_chain(&ring, bufs, 2, 0);
		assert_int_equal(gather(head, false, 8), VIRTQ_BAD_ADDRESS);
		head = fake_chain_indirect(&ring, bufs, 2, 0);
		assert_int_equal(gather(head, false, 8), VIRTQ_BAD_ADDRESS);
		/* ... and as the address of a table */
		head = fake_chain(&ring, &bad[i], 1, VIRTQ_DESC_INDIRECT);
		ring.desc[head].len = 16;
		if (bad[i].gpa < edge || bad[i].gpa > edge + 2 * EDGE_SIZE - 16)
			assert_int_equal(gather(head, false, 8), VIRTQ_BAD_ADDRESS);
	}
}

static void test_bad_lengths_and_directions(void **state)
{
	struct fake_buf bufs[] = { { edge, 10 }, { edge + 100, 0 }, { edge, 10 } };
	uint16_t head;

	assert_int_equal(gather(fake_chain(&ring, bufs + 1, 1, 0), false, 8), VIRTQ_ZERO_LENGTH);
	assert_int_equal(gather(fake_chain(&ring, bufs, 3, 0), false, 8), VIRTQ_ZERO_LENGTH);
	assert_int_equal(gather(fake_chain_indirect(&ring, bufs, 2, 0), false, 8),
			 VIRTQ_ZERO_LENGTH);
	bufs[1].len = 5;
	assert_int_equal(gather(fake_chain(&ring, bufs, 3, VIRTQ_DESC_WRITE), false, 8),
			 VIRTQ_BAD_DIRECTION);
	assert_int_equal(gather(fake_chain(&ring, bufs, 3, 0), true, 8), VIRTQ_BAD_DIRECTION);
	for (unsigned i = 0; i < 3; i++) {
		head = fake_chain(&ring, bufs, 3, 0);
		ring.desc[(head + i) % SIZE].flags |= VIRTQ_DESC_WRITE;
		assert_int_equal(gather(head, false, 8), VIRTQ_BAD_DIRECTION);
		assert_int_equal(gather(head, true, 8), VIRTQ_BAD_DIRECTION);
	}
}

static void test_bad_links(void **state)
{
	struct fake_buf bufs[SIZE];
	uint16_t head;

	make_bufs(bufs, SIZE);
	/* next out of the table */
	head = fake_chain(&ring, bufs, 3, 0);
	ring.desc[head + 1].next = SIZE;
	assert_int_equal(gather(head, false, SIZE), VIRTQ_BAD_HEAD);
	ring.desc[head + 1].next = 65535;
	assert_int_equal(gather(head, false, SIZE), VIRTQ_BAD_HEAD);

	/* loops: onto itself, and the whole table once around */
	ring.desc[head].next = head;
	assert_int_equal(gather(head, false, IOV_MAX_HERE), VIRTQ_LOOP);
	head = fake_chain(&ring, bufs, SIZE, 0);
	assert_int_equal(gather(head, false, IOV_MAX_HERE), VIRTQ_OK);
	ring.desc[(head + SIZE - 1) % SIZE].flags = VIRTQ_DESC_NEXT;
	assert_int_equal(gather(head, false, IOV_MAX_HERE), VIRTQ_LOOP);

	/* the same within an indirect table, whose size counts there, not the ring's */
	head = fake_chain_indirect(&ring, bufs, 4, 0);
	struct virtq_desc *table = fake_at(&guest, ring.desc[head].addr, 1);

	table[1].next = 4;
	assert_int_equal(gather(head, false, SIZE), VIRTQ_BAD_HEAD);
	table[1].next = 0;
	assert_int_equal(gather(head, false, SIZE), VIRTQ_LOOP);
	table[1].next = 1;
	assert_int_equal(gather(head, false, SIZE), VIRTQ_LOOP);
}

static void test_bad_indirect(void **state)
{
	struct fake_buf bufs[2] = { { edge, 10 }, { edge, 10 } };
	uint16_t head = fake_chain_indirect(&ring, bufs, 2, 0);
	struct virtq_desc *desc = &ring.desc[head], good = *desc;
	struct virtq_desc *table = fake_at(&guest, good.addr, 1), entry = table[1];

	assert_int_equal(gather(head, false, 8), VIRTQ_OK);
	vq.indirect = false; /* not negotiated */
	assert_int_equal(gather(head, false, 8), VIRTQ_BAD_INDIRECT);
	vq.indirect = true;

	static const uint32_t lengths[] = { 0, 1, 15, 17, 33, 16 * 1025, 1 << 20, UINT32_MAX - 15 };

	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		desc->len = lengths[i];
		assert_int_equal(gather(head, false, 8), VIRTQ_BAD_INDIRECT);
	}
	*desc = good;
	desc->flags |= VIRTQ_DESC_NEXT;
	assert_int_equal(gather(head, false, 8), VIRTQ_BAD_INDIRECT);
	*desc = good;
	/* nested: as the first or a later entry */
	for (unsigned i = 0; i < 2; i++) {
		table[i].flags ^= VIRTQ_DESC_INDIRECT;
		table[i].len = 16;
		assert_int_equal(gather(head, false, 8), VIRTQ_BAD_INDIRECT);
		table[i] = entry;
		table[i].flags = i ? 0 : VIRTQ_DESC_NEXT;
		table[i].next = 1;
	}
	assert_int_equal(gather(head, false, 8), VIRTQ_OK);
	/* a table in two regions, or badly aligned, cannot be read */
	desc->addr = edge - 16;
	assert_int_equal(gather(head, false, 8), VIRTQ_BAD_ADDRESS);
	desc->addr = good.addr + 4;
	assert_int_equal(gather(head, false, 8), VIRTQ_BAD_ADDRESS);
}

/* Nested by way of the ring's own table: a loop that no table's length bounds. */
static void test_indirect_over_the_rings_table(void **state)
{
	struct fake_buf bufs[] = { { edge, 10 }, { vq.setup.desc_uva - FAKE_UVA, 32 } };
	uint16_t head = fake_chain(&ring, bufs, 2, 0);

	assert_int_equal(head, 0);
	ring.desc[1].flags = VIRTQ_DESC_INDIRECT;
	assert_int_equal(gather(0, false, IOV_MAX_HERE), VIRTQ_BAD_INDIRECT);
	assert_int_equal(gather(1, false, IOV_MAX_HERE), VIRTQ_BAD_INDIRECT);
}

/* ---- index arithmetic ---- */

/* Rings of any size, running over the end of the 16-bit index. */
static void test_indices_wrap(void **state)
{
	static const unsigned sizes[] = { 1, 2, 256, VIRTQ_SIZE_MAX };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned size = sizes[i], step = size < 8 ? size : 7;
		struct virtq_used_elem elem;
		struct fake_buf buf = { edge, 64 };

		guest.next = FAKE_GPA;
		fake_ring_init(&ring, &guest, size);
		fake_ring_age(&ring, 65500);
		vq.setup = ring.setup;
		assert_int_equal(virtq_start(&vq, &guest.mem), 0);
		for (unsigned at = 0; at < 100; at += step) {
			uint16_t heads[8];

			for (unsigned j = 0; j < step; j++)
				fake_offer(&ring, heads[j] = fake_chain(&ring, &buf, 1, 0));
			assert_int_equal(virtq_available(&vq), step);
			for (unsigned j = 0; j < step; j++) {
				uint16_t position = vq.last_avail + j;

				assert_int_equal(virtq_head(&vq, position), heads[j]);
				virtq_put_used(&vq, j, heads[j], at + j);
			}
			assert_false(fake_used(&ring, &elem));
			vq.last_avail += step;
			virtq_publish(&vq, step);
			for (unsigned j = 0; j < step; j++) {
				assert_true(fake_used(&ring, &elem));
				assert_int_equal(elem.id, heads[j]);
				assert_int_equal(elem.len, at + j);
			}
			assert_false(fake_used(&ring, &elem));
		}
		assert_int_equal(vq.last_avail, ring.avail_idx);
		assert_true(vq.last_avail < 65500);
		/* A full ring, and one entry more than that: what the caller recognises as a jump. */
		ring.avail->idx = vq.last_avail + size;
		assert_int_equal(virtq_available(&vq), size);
		ring.avail->idx++;
		assert_int_equal(virtq_available(&vq), size + 1);
		ring.avail->idx = vq.last_avail - 1;
		assert_true(virtq_available(&vq) > size);
	}
}

/* ---- notifications ---- */

/*
 * The driver wants to hear when the entry at its event index is used: as it says in virtio 1.2
 * 2.7.10, with indices as they lie on a circle, worked out here by walking it.
 */
static void test_event_index_decides(void **state)
{
	static const uint16_t olds[] = { 0, 1, 255, 32767, 65534, 65535 };
	static const unsigned counts[] = { 0, 1, 2, 31, 256, 30000, 65535 };

	vq.event_idx = true;
	for (unsigned i = 0; i < 6; i++) {
		for (unsigned j = 0; j < 7; j++) {
			uint16_t old = olds[i];

			for (int around = -3; around <= (int)counts[j] + 3;
			     around += counts[j] > 300 && around > 3 ? 97 : 1) {
				uint16_t event = old + around;
				bool wanted = (uint16_t)(event - old) < counts[j];

				vq.notify_valid = true;
				vq.signalled_used = old;
				vq.next_used = old + counts[j];
				*fake_used_event(&ring) = event;
				assert_int_equal(virtq_should_signal(&vq), wanted);
				assert_int_equal(vq.signalled_used, vq.next_used);
				/* Nothing new since: no reason to signal again. */
				assert_false(virtq_should_signal(&vq));
			}
		}
	}
	/* Nobody knows what was signalled before we started. */
	vq.setup.event_idx = true;
	assert_int_equal(virtq_start(&vq, &guest.mem), 0);
	*fake_used_event(&ring) = 12345;
	assert_true(virtq_should_signal(&vq));
	assert_false(virtq_should_signal(&vq));
}

/* So much was used since the driver was last told that the index has been all the way around. */
static void test_event_index_overrun(void **state)
{
	vq.setup.event_idx = true;
	assert_int_equal(virtq_start(&vq, &guest.mem), 0);
	virtq_should_signal(&vq);
	*fake_used_event(&ring) = 100; /* the driver sleeps until 100 is used */
	for (unsigned i = 0; i < 65536 + 50; i += 50)
		virtq_publish(&vq, 50);
	assert_true(virtq_should_signal(&vq));
}

static void test_flags_decide(void **state)
{
	vq.event_idx = false;
	*fake_used_event(&ring) = 12345; /* means nothing */
	for (unsigned i = 0; i < 3; i++) {
		ring.avail->flags = 0;
		assert_true(virtq_should_signal(&vq));
		ring.avail->flags = 1;
		assert_false(virtq_should_signal(&vq));
	}
}

static void test_signal(void **state)
{
	eventfd_t count = 0;

	assert_true(virtq_signal(&vq));
	vq.call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(virtq_signal(&vq));
	assert_true(virtq_signal(&vq));
	assert_int_equal(eventfd_read(vq.call_fd, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(eventfd_write(vq.call_fd, UINT64_MAX - 1), 0);
	assert_false(virtq_signal(&vq));
	close(vq.call_fd);
	vq.call_fd = -1;
}

static void test_arm_with_event_index(void **state)
{
	struct fake_buf buf = { edge, 64 };

	fake_ring_age(&ring, 65535);
	vq.setup.base = 65535;
	vq.setup.event_idx = true;
	ring.used->flags = 0;
	assert_int_equal(virtq_start(&vq, &guest.mem), 0);
	assert_int_equal(ring.used->flags, 0);
	assert_false(virtq_arm(&vq));
	assert_int_equal(*fake_avail_event(&ring),
			 65535); /* a kick for the entry with this index */
	fake_offer(&ring, fake_chain(&ring, &buf, 1, 0));
	assert_true(virtq_arm(&vq));
	vq.last_avail++;
	assert_false(virtq_arm(&vq));
	assert_int_equal(*fake_avail_event(&ring), 0);
}

static void test_arm_with_flags(void **state)
{
	struct fake_buf buf = { edge, 64 };

	/* Started queues are polled until they are armed. */
	assert_int_equal(ring.used->flags, 1);
	assert_false(virtq_arm(&vq));
	assert_int_equal(ring.used->flags, 0);
	assert_int_equal(*fake_avail_event(&ring), 0);
	virtq_disarm(&vq);
	assert_int_equal(ring.used->flags, 1);
	/* Work came in between: the wish is withdrawn. */
	fake_offer(&ring, fake_chain(&ring, &buf, 1, 0));
	assert_true(virtq_arm(&vq));
	assert_int_equal(ring.used->flags, 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sizes),
		TEST(test_placement),
		TEST(test_stop_and_restart),
		TEST(test_remap),
		TEST(test_every_error_has_a_name),
		TEST(test_chains),
		TEST(test_long_indirect_chain),
		TEST(test_direct_then_indirect),
		TEST(test_cut),
		TEST(test_cut_bounds_the_walk),
		TEST(test_region_edges),
		TEST(test_bad_addresses),
		TEST(test_bad_lengths_and_directions),
		TEST(test_bad_links),
		TEST(test_bad_indirect),
		TEST(test_indirect_over_the_rings_table),
		TEST(test_indices_wrap),
		TEST(test_event_index_decides),
		TEST(test_event_index_overrun),
		TEST(test_flags_decide),
		TEST(test_signal),
		TEST(test_arm_with_event_index),
		TEST(test_arm_with_flags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
