/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * LRO: flows of any kind, segments that deviate in any way or are damaged, polls, sleeps and naps
 * between them, in any mode, with any receiver. What must hold is in lro_world.h.
 *
 *      input: mode, value, capabilities, pool, kept, streams 1 + 6 each, then steps of 1 to 4 bytes
 */
#define WORLD_FLOWS 1024

#include "packet.h"

#include "lro_streams.h"

enum { STREAMS = 4, FRAMES_MAX = 400, BYTES_MAX = 200000 };

static uint8_t bytes[FRAME_MAX];

static struct lro_config take_config(struct input *input)
{
	static const enum lro_mode modes[] = { LRO_AUTO, LRO_POLL, LRO_EVERY, LRO_USEC };
	uint8_t mode = take8(input), value = take8(input);
	struct lro_config config = { .mode = modes[mode % 4], .linear = mode & 0x80 };

	if (config.mode == LRO_EVERY)
		config.value = 1 + value % LRO_EVERY_MAX;
	if (config.mode == LRO_USEC)
		config.value = 1 + value * 4;
	return config;
}

static void take_stream(struct input *input, struct stream *stream)
{
	static const uint8_t csums[] = { PKT_CSUM_VALID, PKT_CSUM_PARTIAL, 0, PKT_CSUM_VALID };
	static const uint16_t msses[] = { 100, 2, 36, 100, 536, 1448, 9000, 33000 };
	uint8_t kind = take8(input), options = take8(input), csum = take8(input);
	struct frame_desc desc = {
		.ip = kind & 1 ? 6 : 4,
		.proto = kind & 2 ? IPPROTO_UDP : IPPROTO_TCP,
		.vlans = kind / 4 % 4,
		.ip_options = options & 0x80 ? 8 : 0,
		.tcp_options = options % 11 * 4,
	};
	uint64_t seed = take8(input) + 1;

	stream_init(stream, &desc, msses[kind / 16 % 8], csum / 4 % IDS_KINDS, csums[csum % 4],
		    &seed);
	if (csum & 0x80)
		stream->seq = -take8(input) * 10;
	if (csum & 0x40)
		stream->headers[5] |= 1;
}

/* Change a byte of the headers, or of what is behind them. */
static void damage(struct input *input, struct draft *draft)
{
	uint8_t at = take8(input), value = take8(input);

	if (at < draft->frame.len && at >= 12)
		bytes[at] ^= value;
	/* Nobody has said that these checksums are right. */
	if (draft->offload.flags == PKT_CSUM_VALID)
		draft->offload = (struct pkt_offload){ 0 };
}

/* A port hands over no request that its packet contradicts. */
static bool honest(const struct draft *draft, uint64_t *seed)
{
	struct pkt pkt;
	bool good;

	if (draft->offload.flags != PKT_CSUM_PARTIAL)
		return true;
	pkt_fill(&pkt, bytes, draft->frame.len, PKT_HEADER_MAX, 65536, seed);
	pkt.offload = draft->offload;
	good = headers_check_offload(&pkt) &&
	       memcmp(&pkt.offload, &draft->offload, sizeof(pkt.offload)) == 0;
	pkt_empty(&pkt);
	return good;
}

static void send_segments(struct input *input, struct stream *stream, uint8_t step)
{
	unsigned count = step & 0x10 ? 1 + take8(input) % PKT_BURST : 1;
	enum deviation what = step & 0x20 ? take8(input) % DEVIATION_COUNT : DEVIATE_PLAIN;
	struct draft draft;

	for (; count > 0 && world.frames < FRAMES_MAX && stream->sent < BYTES_MAX; count--) {
		if (world.count == PKT_BURST)
			world_poll(world.usec);
		stream_next(stream, &draft, bytes, what, &world.seed);
		what = DEVIATE_PLAIN;
		if ((step & 0x0c) == 0x0c)
			damage(input, &draft);
		if (honest(&draft, &world.seed))
			world_frame(bytes, draft.frame.len, draft.offload,
				    step & 0x40 ? 14 + rnd(&world.seed) % 179 : 64,
				    step & 0x40 ? 0 : 65536);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const unsigned packets[] = { 2048, 2048, 300, 40 };
	struct input input = { data, size };
	struct lro_config config = take_config(&input);
	struct stream streams[STREAMS];
	uint8_t caps = take8(&input), pool = take8(&input);

	world.seed = 1;
	world_open(config, packets[pool % 4], caps & 0x80 ? caps % (WORLD_CAPS + 1) : WORLD_CAPS);
	world.keep = pool & 0x10 ? WORLD_KEEP_MAX / 2 : 0;
	for (unsigned i = 0; i < STREAMS; i++)
		take_stream(&input, &streams[i]);
	while (input.len > 0) {
		uint8_t step = take8(&input);

		if (step & 0x80)
			world_poll(take8(&input) * world.usec / (step & 0x40 ? 1 : 16));
		else if (step == 0x7f)
			world_sleep();
		else if (step == 0x7e)
			world_nap(take8(&input) * 2 * world.usec);
		else
			send_segments(&input, &streams[step % STREAMS], step);
	}
	world_close();
	return 0;
}
