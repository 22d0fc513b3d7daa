// SPDX-License-Identifier: BSD-3-Clause
/*
 * A vhost-user front end for tests: the driver's side of rings (virtio 1.2 §2.7), frames on them.
 *
 * It checks what a driver relies on and never forgives: a used entry must name a chain that is
 * outstanding, in order when that was negotiated; a used length must fit the buffer; all buffers of
 * a merged frame must be there at once. Each violation is a sentence in front->fault and the end of
 * the test.
 */
#include "front.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int __attribute__((format(printf, 2, 3))) fault(struct front *front, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (!front->fault[0])
		vsnprintf(front->fault, sizeof(front->fault), format, args);
	va_end(args);
	return -1;
}

uint64_t front_gpa(const struct front *front, const void *pointer)
{
	return FRONT_GPA + (uint64_t)((const uint8_t *)pointer - front->mem);
}

static uint16_t take_desc(struct front_ring *ring)
{
	uint16_t desc = ring->free[ring->free_head];

	ring->free_head = (ring->free_head + 1) % ring->size;
	ring->free_count--;
	return desc;
}

static void give_desc(struct front_ring *ring, uint16_t desc)
{
	ring->free[(ring->free_head + ring->free_count) % ring->size] = desc;
	ring->free_count++;
}

int front_add(struct front *front, struct front_ring *ring, const struct front_piece *pieces,
	      unsigned count, bool writable, struct vring_desc *table, unsigned cookie)
{
	unsigned needed = table ? 1 : count;
	uint16_t write = writable ? VRING_DESC_F_WRITE : 0;

	if (needed > ring->free_count)
		return -1;

	uint16_t head = take_desc(ring), at = head;

	if (table) {
		for (unsigned i = 0; i < count; i++)
			table[i] = (struct vring_desc){ pieces[i].gpa, pieces[i].len,
							write | (i + 1 < count ? VRING_DESC_F_NEXT
									       : 0),
							(uint16_t)(i + 1 < count ? i + 1 : 0) };
		ring->desc[head] = (struct vring_desc){ front_gpa(front, table), count * 16,
							VRING_DESC_F_INDIRECT, 0 };
	} else {
		for (unsigned i = 0; i < count; i++) {
			bool more = i + 1 < count;
			uint16_t next = more ? take_desc(ring) : 0;

			ring->desc[at] =
				(struct vring_desc){ pieces[i].gpa, pieces[i].len,
						     write | (more ? VRING_DESC_F_NEXT : 0), next };
			at = next;
		}
	}
	ring->chains[head] = (struct front_chain){ (uint16_t)needed, cookie };
	front_push(ring, head);
	return head;
}

void front_push(struct front_ring *ring, uint16_t head)
{
	unsigned slot = ring->avail_next++ % ring->size;

	ring->avail->ring[slot] = head;
	ring->order[slot] = head;
}

void front_publish(struct front_ring *ring)
{
	__atomic_store_n(&ring->avail->idx, ring->avail_next, __ATOMIC_RELEASE);
}

void front_force_kick(struct front_ring *ring)
{
	uint64_t one = 1;

	if (write(ring->kick_fd, &one, sizeof(one)) == sizeof(one))
		ring->kicks++;
}

void front_kick(struct front_ring *ring)
{
	uint16_t from = ring->kicked, to = ring->avail_next;

	ring->kicked = to;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (ring->event_idx) {
		uint16_t event = *(volatile uint16_t *)&ring->used->ring[ring->size];

		if ((uint16_t)(to - event - 1) >= (uint16_t)(to - from))
			return;
	} else if (*(volatile uint16_t *)&ring->used->flags & VRING_USED_F_NO_NOTIFY) {
		return;
	}
	front_force_kick(ring);
}

static uint16_t used_idx(const struct front_ring *ring)
{
	return __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
}

void front_suppress_calls(struct front_ring *ring)
{
	if (ring->event_idx)
		ring->avail->ring[ring->size] = (uint16_t)(ring->used_next - 1);
	else
		ring->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
}

bool front_wait(struct front_ring *ring, int msec)
{
	struct pollfd ready = { .fd = ring->call_fd, .events = POLLIN };
	uint64_t count;

	if (used_idx(ring) != ring->used_next)
		return true;
	ring->avail->flags = 0;
	if (ring->event_idx)
		ring->avail->ring[ring->size] = ring->used_next;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (used_idx(ring) == ring->used_next) {
		/* False also if entries came without a call: a lost wake-up is what we look for. */
		if (poll(&ready, 1, msec) != 1)
			return false;
		if (read(ring->call_fd, &count, sizeof(count)) == sizeof(count))
			ring->calls++;
	}
	return true;
}

/* Give back a chain's descriptors; its cookie is returned. */
static unsigned retire(struct front_ring *ring, uint16_t head)
{
	struct front_chain *chain = &ring->chains[head];
	uint16_t at = head;

	for (unsigned i = 0; i < chain->count; i++) {
		uint16_t next = ring->desc[at].next;

		give_desc(ring, at);
		at = next;
	}
	chain->count = 0;
	return chain->cookie;
}

int front_reclaim(struct front *front, unsigned number)
{
	struct front_ring *ring = &front->rings[2 * number + 1];
	struct front_pair *pair = &front->pairs[number];
	uint16_t idx = used_idx(ring);
	int count = 0;

	if ((uint16_t)(idx - ring->used_next) > ring->size)
		return fault(front, "transmit ring: used index jumped from %u to %u",
			     ring->used_next, idx);
	while (ring->used_next != idx) {
		uint32_t id = ring->used->ring[ring->used_next % ring->size].id;

		if (id >= ring->size || !ring->chains[id].count)
			return fault(front,
				     "transmit ring: used entry %u names %u, not outstanding",
				     ring->used_next, id);
		/* In order, one entry may stand for a batch that ends with its chain. */
		uint16_t head;

		do {
			head = ring->in_order ? ring->order[ring->oldest++ % ring->size]
					      : (uint16_t)id;
			if (ring->used_next == idx || !ring->chains[head].count)
				return fault(front,
					     "transmit ring: used entry for %u is out of order",
					     id);
			unsigned slot = retire(ring, head);

			pair->free_slots[(pair->free_head + pair->free_count) %
					 front->config.tx_slots] = slot;
			pair->free_count++;
			ring->used_next++;
			count++;
		} while (head != id);
	}
	return count;
}

/* Spread header and frame over a slot as layout says; returns the number of pieces, 0 when it
 * cannot hold them. */
static unsigned spread(struct front *front, uint8_t *slot, const void *hdr, const void *frame,
		       unsigned len, const struct front_layout *layout, struct front_piece *pieces)
{
	unsigned total = front->header_len + len, done = 0, count = 0, at = 0;

	do {
		unsigned want = count ? layout->piece : layout->first;
		unsigned piece = want && want < total - done ? want : total - done;

		if (count == FRONT_PIECES_MAX || at + piece > FRONT_SLOT_DATA)
			return 0;
		unsigned from_hdr = done < front->header_len ? front->header_len - done : 0;

		from_hdr = from_hdr < piece ? from_hdr : piece;
		memcpy(slot + at, (const uint8_t *)hdr + done, from_hdr);
		if (piece > from_hdr)
			memcpy(slot + at + from_hdr,
			       (const uint8_t *)frame + (done + from_hdr - front->header_len),
			       piece - from_hdr);
		pieces[count++] = (struct front_piece){ front_gpa(front, slot + at), piece };
		at += piece + layout->gap;
		done += piece;
	} while (done < total);
	return count;
}

int front_queue(struct front *front, unsigned number, const struct virtio_net_hdr_v1 *hdr,
		const void *frame, unsigned len, const struct front_layout *layout)
{
	static const struct virtio_net_hdr_v1 no_hdr;
	static const struct front_layout whole;
	struct front_ring *ring = &front->rings[2 * number + 1];
	struct front_pair *pair = &front->pairs[number];
	struct front_piece pieces[FRONT_PIECES_MAX];

	if (front_reclaim(front, number) < 0 || pair->free_count == 0)
		return -1;
	layout = layout ? layout : &whole;
	unsigned slot = pair->free_slots[pair->free_head];
	uint8_t *data = pair->slots + (size_t)slot * (FRONT_SLOT_DATA + FRONT_SLOT_TABLE);
	unsigned count = spread(front, data, hdr ? hdr : &no_hdr, frame, len, layout, pieces);
	struct vring_desc *table = layout->indirect ? (void *)(data + FRONT_SLOT_DATA) : NULL;

	if (count == 0 || (!table && count > ring->size))
		return fault(front, "a frame does not fit its layout (test's own error)");
	if (front_add(front, ring, pieces, count, false, table, slot) < 0)
		return -1;
	pair->free_head = (pair->free_head + 1) % front->config.tx_slots;
	pair->free_count--;
	return 0;
}

int front_send(struct front *front, const struct virtio_net_hdr_v1 *hdr, const void *frame,
	       unsigned len, const struct front_layout *layout, int msec)
{
	uint64_t give_up = front_now_ns() + (uint64_t)msec * 1000000;

	while (front_queue(front, 0, hdr, frame, len, layout)) {
		if (front->fault[0])
			return -1;
		if (!front_wait(front_tx(front), msec) || front_now_ns() > give_up)
			return fault(front, "transmit ring: no room within %d ms", msec);
	}
	front_publish(front_tx(front));
	front_kick(front_tx(front));
	return 0;
}

int front_drain(struct front *front, unsigned number, int msec)
{
	struct front_ring *ring = &front->rings[2 * number + 1];
	struct front_pair *pair = &front->pairs[number];

	while (pair->free_count < front->config.tx_slots) {
		int count = front_reclaim(front, number);

		if (count < 0)
			return -1;
		if (count == 0 && !front_wait(ring, msec))
			return fault(front, "transmit ring: %u frames not given back within %d ms",
				     front->config.tx_slots - pair->free_count, msec);
	}
	return 0;
}

void front_post(struct front *front, unsigned number)
{
	const struct front_config *config = &front->config;
	struct front_ring *ring = &front->rings[2 * number];
	struct front_pair *pair = &front->pairs[number];
	unsigned share = config->rx_buf_len / config->rx_chain;

	while (pair->idle_count) {
		unsigned buffer = pair->idle_buffers[pair->idle_count - 1];
		uint8_t *data = pair->buffers + (size_t)buffer * pair->rx_stride;
		struct vring_desc *table = (void *)(data + (config->rx_buf_len + 15) / 16 * 16);
		struct front_piece pieces[config->rx_chain];

		for (unsigned i = 0; i < config->rx_chain; i++) {
			bool last = i == config->rx_chain - 1;

			pieces[i].gpa = front_gpa(front, data + i * share);
			pieces[i].len = last ? config->rx_buf_len - i * share : share;
		}
		if (front_add(front, ring, pieces, config->rx_chain, true,
			      config->rx_indirect ? table : NULL, buffer) < 0)
			break;
		pair->idle_count--;
	}
	front_publish(ring);
	front_kick(ring);
}

/* One used receive buffer: its bytes, and how many in *len. NULL: fault. It becomes idle; nobody
 * writes to it before front_post(). */
static const uint8_t *take_buffer(struct front *front, struct front_ring *ring, unsigned *len)
{
	struct front_pair *pair = &front->pairs[ring->index / 2];
	struct vring_used_elem used = ring->used->ring[ring->used_next % ring->size];

	if (used.id >= ring->size || !ring->chains[used.id].count) {
		fault(front, "receive ring: used entry %u names %u, not outstanding",
		      ring->used_next, used.id);
		return NULL;
	}
	if (ring->in_order && ring->order[ring->oldest++ % ring->size] != used.id) {
		fault(front, "receive ring: used entry for %u is out of order", used.id);
		return NULL;
	}
	if (used.len > front->config.rx_buf_len) {
		fault(front, "receive ring: used length %u exceeds the buffer", used.len);
		return NULL;
	}
	ring->used_next++;
	unsigned buffer = retire(ring, (uint16_t)used.id);

	pair->idle_buffers[pair->idle_count++] = buffer;
	*len = used.len;
	return pair->buffers + (size_t)buffer * pair->rx_stride;
}

int front_receive(struct front *front, unsigned number, struct virtio_net_hdr_v1 *hdr, void *frame,
		  unsigned size)
{
	struct front_ring *ring = &front->rings[2 * number];
	bool mergeable = front->features & FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF);
	uint16_t ready = (uint16_t)(used_idx(ring) - ring->used_next);
	unsigned len, total, buffers;
	const uint8_t *data;

	if (ready == 0)
		return 0;
	if (ready > ring->size)
		return fault(front, "receive ring: used index jumped by %u", ready);
	data = take_buffer(front, ring, &len);
	if (!data)
		return -1;
	if (len <= front->header_len)
		return fault(front, "receive ring: used length %u is not even a header and a byte",
			     len);
	*hdr = (struct virtio_net_hdr_v1){ .num_buffers = 1 };
	memcpy(hdr, data, front->header_len);
	buffers = front->header_len == 12 ? hdr->num_buffers : 1;
	if (buffers == 0 || (!mergeable && buffers != 1) || buffers > ready)
		return fault(front, "receive ring: frame in %u buffers, %u are there", buffers,
			     ready);
	total = len - front->header_len;
	if (total > size)
		return fault(front, "receive ring: frame of %u bytes", total);
	memcpy(frame, data + front->header_len, total);
	for (unsigned i = 1; i < buffers; i++) {
		data = take_buffer(front, ring, &len);
		if (!data)
			return -1;
		if (total + len > size)
			return fault(front, "receive ring: frame of more than %u bytes",
				     total + len);
		memcpy((uint8_t *)frame + total, data, len);
		total += len;
	}
	front_post(front, number);
	return (int)total;
}
