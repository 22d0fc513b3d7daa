// SPDX-License-Identifier: BSD-3-Clause
/*
 * What the specification allows must work: frames between two honest guests of one bridge, over
 * every legal ring size, with and without indirect descriptors, event index, in-order use,
 * mergeable buffers and VERSION_1, in layouts from one descriptor to hundreds, of 15 bytes to
 * 64 KiB, every byte checked at the other end.
 *
 *      a --- vifd --- b
 *
 * Both ends sleep until called, with a time limit: a lost wake-up is an error like a wrong byte.
 *
 * Usage: legal SOCKET_A SOCKET_B GROUP, where GROUP is one of the table below. Prints what was
 * done; status 1 and the case's name when something was wrong.
 */
#include "frame.h"
#include "front.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MSEC = 3000, RX_LARGE = 66000, CHAIN_LIMIT = 500 };

struct trial {
	unsigned size;
	bool indirect, event_idx, in_order, mergeable, modern;
	bool plain_receiver; /* b takes no offloads: it must get finished checksums and segments */
	unsigned rx_chain, pairs, regions;
	uint16_t base;
};

static const struct frame_addresses a_to_b = { { 0x52, 0x54, 0, 0, 2, 2 },
					       { 0x52, 0x54, 0, 0, 2, 1 } };
static const struct frame_addresses b_to_a = { { 0x52, 0x54, 0, 0, 2, 1 },
					       { 0x52, 0x54, 0, 0, 2, 2 } };
static const char *paths[2];
static struct front fronts[2];
static uint64_t trials, frames;
static char trial_name[256];
static uint8_t sent[FRONT_FRAME_MAX], got[FRONT_FRAME_MAX];

static void __attribute__((noreturn)) failed(const char *what)
{
	errx(EXIT_FAILURE, "%s: %s (a: %s) (b: %s)", trial_name, what, fronts[0].fault,
	     fronts[1].fault);
}

static void open_front(struct front *front, const char *path, const struct trial *trial, bool plain)
{
	uint64_t offloads = FRONT_BIT(VIRTIO_NET_F_GUEST_CSUM) |
			    FRONT_BIT(VIRTIO_NET_F_GUEST_TSO4) | FRONT_BIT(VIRTIO_NET_F_GUEST_TSO6);
	uint64_t features = FRONT_BIT(VIRTIO_NET_F_CSUM) | FRONT_BIT(VIRTIO_NET_F_HOST_TSO4) |
			    FRONT_BIT(VIRTIO_NET_F_HOST_TSO6) | FRONT_BIT(27 /* ANY_LAYOUT */) |
			    FRONT_BIT(VIRTIO_NET_F_MQ) | (plain ? 0 : offloads);

	features |= trial->indirect ? FRONT_BIT(VIRTIO_RING_F_INDIRECT_DESC) : 0;
	features |= trial->event_idx ? FRONT_BIT(VIRTIO_RING_F_EVENT_IDX) : 0;
	features |= trial->in_order ? FRONT_BIT(VIRTIO_F_IN_ORDER) : 0;
	features |= trial->mergeable ? FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF) : 0;
	features |= trial->modern ? FRONT_BIT(VIRTIO_F_VERSION_1) : 0;

	unsigned chain = trial->rx_chain ? trial->rx_chain : 1;
	unsigned per_buffer = trial->size < 64 ? RX_LARGE / trial->size + 64 : 2048;
	struct front_config config = {
		.path = path,
		.features = features,
		.protocol_features = FRONT_BIT(VU_PROTOCOL_F_REPLY_ACK) |
				     FRONT_BIT(VU_PROTOCOL_F_MQ),
		.size = { trial->size, trial->size },
		.rx_buf_len = trial->mergeable ? per_buffer * chain : RX_LARGE,
		.rx_chain = chain,
		.rx_indirect = trial->indirect && chain > 1,
		.rx_buffers = trial->mergeable ? 0 : 256,
		.pairs = trial->pairs,
		.regions = trial->regions,
		.base = trial->base,
	};

	if (front_open(front, &config))
		failed("cannot open");
	if (front->features != (features | FRONT_BIT(VU_F_PROTOCOL_FEATURES)))
		failed("a feature is not offered");
}

/* Next frame at any queue pair of front, waiting for a call on the first. */
static unsigned receive(struct front *front, struct virtio_net_hdr_v1 *hdr)
{
	uint64_t give_up = front_now_ns() + WAIT_MSEC * UINT64_C(1000000);

	for (;;) {
		for (unsigned i = 0; i < front->config.pairs; i++) {
			int len = front_receive(front, i, hdr, got, sizeof(got));

			if (len < 0)
				failed("the protocol was broken");
			if (len > 0) {
				const char *wrong = frame_hdr_wrong(hdr, got, (unsigned)len,
								    front->features);

				if (wrong)
					failed(wrong);
				return (unsigned)len;
			}
		}
		if (front->config.pairs == 1 && !front_wait(front_rx(front), WAIT_MSEC))
			failed("no frame, or no call for it");
		if (front_now_ns() > give_up)
			failed("no frame");
	}
}

static void queue(struct front *front, unsigned pair, const struct virtio_net_hdr_v1 *hdr,
		  unsigned len, const struct front_layout *layout)
{
	struct front_ring *ring = &front->rings[2 * pair + 1];

	while (front_queue(front, pair, hdr, sent, len, layout))
		if (front->fault[0] || !front_wait(ring, WAIT_MSEC))
			failed("transmit ring: no room, or no call for it");
	front_publish(ring);
	front_kick(ring);
	frames++;
}

/* The pieces a frame of len bytes makes must fit ring and indirect table, which may not exceed the
 * ring's size. */
static struct front_layout fit(const struct front *front, struct front_layout layout, unsigned len)
{
	unsigned limit = front_tx((struct front *)front)->size, total = front->header_len + len;

	limit = limit < CHAIN_LIMIT ? limit : CHAIN_LIMIT;
	if (limit == 1)
		return (struct front_layout){ .indirect = layout.indirect };
	if (layout.piece && (total - layout.first) / layout.piece + 2 > limit)
		layout.piece = (total - layout.first) / (limit - 1) + 1;
	return layout;
}

static void send_udp(struct front *from, struct front *to, const struct frame_addresses *addresses,
		     unsigned pair, const struct front_layout *layout, unsigned burst)
{
	static const unsigned lens[] = { 8, 9, 20, 80, 150, 214, 600, 1472 };
	static uint64_t number;
	struct virtio_net_hdr_v1 hdr;

	for (unsigned i = 0; i < burst; i++) {
		unsigned len = frame_udp(sent, addresses, number + i, lens[(number + i) % 8]);
		struct front_layout fitted = fit(from, *layout, len);

		queue(from, pair, NULL, len, &fitted);
	}
	for (unsigned i = 0; i < burst; i++) {
		unsigned len = receive(to, &hdr);

		if (frame_udp_check(got, len) != (int64_t)number + i)
			failed("wrong bytes in a UDP frame, or out of order");
	}
	number += burst;
}

/* A TCP frame of 64 KiB; the receiver gets it whole, or all of its segments. */
static void send_large(struct front *from, struct front *to,
		       const struct frame_addresses *addresses, unsigned pair,
		       const struct front_layout *layout, bool ipv6)
{
	static uint32_t seq;
	unsigned payload = 65535 - (ipv6 ? 60 : 40), done = 0; /* 64 KiB of IP */
	struct virtio_net_hdr_v1 hdr;
	unsigned len = frame_tcp(sent, addresses, seq, payload, ipv6, 1440, &hdr);
	struct front_layout fitted = fit(from, *layout, len);

	queue(from, pair, &hdr, len, &fitted);
	while (done < payload) {
		uint32_t at;
		unsigned got_len = receive(to, &hdr);
		int part = frame_tcp_check(got, got_len, &hdr, &at);

		if (part <= 0 || at != seq + done)
			failed("wrong bytes in a large TCP frame");
		if (done == 0 && (to->features & FRONT_BIT(VIRTIO_NET_F_GUEST_TSO4)) &&
		    part != (int)payload)
			failed("a large TCP frame was not passed whole");
		done += (unsigned)part;
	}
	seq += payload;
}

static void run(const struct trial *trial)
{
	const struct front_layout layouts[] = {
		{ 0 },
		{ .first = trial->modern || trial->mergeable ? 12 : 10 },
		{ .first = 26, .piece = 100, .gap = 3 },
		{ .first = 1, .piece = 1, .gap = 1 },
		{ .first = 5, .piece = 4096 },
		{ .first = 64, .piece = 211, .gap = 5 },
	};
	bool plain = trial->plain_receiver;
	/* A receiver without offloads gets 46 segments at once: it needs the room for them. */
	bool large = !plain || trial->size >= 64;

	snprintf(trial_name, sizeof(trial_name),
		 "size %u%s%s%s%s%s%s chain %u pairs %u regions %u base %u", trial->size,
		 trial->indirect ? " indirect" : "", trial->event_idx ? " event-idx" : "",
		 trial->in_order ? " in-order" : "", trial->mergeable ? " mergeable" : "",
		 trial->modern ? " version-1" : "", plain ? " plain-receiver" : "", trial->rx_chain,
		 trial->pairs, trial->regions, trial->base);
	open_front(&fronts[0], paths[0], trial, false);
	open_front(&fronts[1], paths[1], trial, plain);

	for (unsigned pair = 0; pair < fronts[0].config.pairs; pair++) {
		for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
			struct front_layout layout = layouts[i];
			unsigned burst = trial->size / (trial->rx_chain ? trial->rx_chain : 1) / 2;

			layout.indirect = trial->indirect && trial->size > 1 && i % 2 == 1;
			burst = burst > 12 ? 12 : burst ? burst : 1;
			send_udp(&fronts[0], &fronts[1], &a_to_b, pair, &layout, burst);
			send_udp(&fronts[1], &fronts[0], &b_to_a, pair, &layout, burst);
			if (large) {
				send_large(&fronts[0], &fronts[1], &a_to_b, pair, &layout, i % 2);
				send_large(&fronts[1], &fronts[0], &b_to_a, pair, &layout,
					   !(i % 2));
			}
		}
		if (front_drain(&fronts[0], pair, WAIT_MSEC) ||
		    front_drain(&fronts[1], pair, WAIT_MSEC))
			failed("not all frames were given back");
	}
	front_close(&fronts[0]);
	front_close(&fronts[1]);
	trials++;
}

static void features_of(unsigned bits, struct trial *trial)
{
	trial->indirect = bits & 1;
	trial->event_idx = bits & 2;
	trial->in_order = bits & 4;
	trial->mergeable = bits & 8;
	trial->modern = bits & 16;
}

static void run_sizes(unsigned from, unsigned to)
{
	for (unsigned size = from; size <= to; size *= 2)
		for (unsigned bits = 0; bits < 32; bits++) {
			struct trial trial = { .size = size,
					       .base = (uint16_t)(bits % 2 ? 65530 : 0) };

			features_of(bits, &trial);
			run(&trial);
		}
}

static void small_rings(void)
{
	run_sizes(1, 16);
}

static void medium_rings(void)
{
	run_sizes(32, 1024);
}

static void large_rings(void)
{
	run_sizes(2048, 32768);
}

static void receive_chains(void)
{
	static const unsigned chains[] = { 2, 3, 17 };

	for (unsigned i = 0; i < 3; i++)
		for (unsigned bits = 0; bits < 32; bits++) {
			struct trial trial = { .size = 256, .rx_chain = chains[i] };

			features_of(bits, &trial);
			run(&trial);
		}
}

static void regions(void)
{
	for (unsigned count = 2; count <= 8; count += 3)
		for (unsigned bits = 0; bits < 32; bits++) {
			struct trial trial = { .size = 512, .regions = count };

			features_of(bits, &trial);
			run(&trial);
		}
}

static void no_offloads(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct trial trial = { .size = 512, .plain_receiver = true };

		features_of(bits, &trial);
		run(&trial);
	}
}

static void queue_pairs(void)
{
	for (unsigned pairs = 2; pairs <= 4; pairs++) {
		struct trial trial = { .size = 256, .pairs = pairs };

		features_of(31, &trial);
		run(&trial);
		features_of(24, &trial);
		run(&trial);
	}
}

static const struct {
	const char *name;
	void (*run)(void);
} groups[] = {
	{ "small-rings", small_rings }, { "medium-rings", medium_rings },
	{ "large-rings", large_rings }, { "receive-chains", receive_chains },
	{ "regions", regions },         { "no-offloads", no_offloads },
	{ "queue-pairs", queue_pairs },
};

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: legal SOCKET_A SOCKET_B GROUP");
	paths[0] = argv[1];
	paths[1] = argv[2];
	for (unsigned i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		if (strcmp(groups[i].name, argv[3]))
			continue;
		groups[i].run();
		printf("%s: %lu pairs of devices, %lu frames\n", argv[3], trials, frames);
		return 0;
	}
	errx(2, "no group '%s'", argv[3]);
}
