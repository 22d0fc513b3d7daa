// SPDX-License-Identifier: BSD-3-Clause
/*
 * The witness: two honest guests that exchange numbered packets without pause while somebody else
 * misbehaves.
 *
 *      left --- vifd --- right        (and, in the same vifd, the guest that lies)
 *
 * Every packet is checked byte by byte, numbers must only grow, and whatever else arrives must
 * carry a virtio header that a driver could trust. Packets may be lost when the bridge is flooded;
 * service may not: the longest time without a packet in either direction is the figure that
 * matters.
 *
 * Usage: witness LEFT_SOCKET RIGHT_SOCKET. Each line on standard input is answered with one line of
 * JSON about the time since the line before; end of file ends it, with status 1 when a rule above
 * was broken.
 */
#include "frame.h"
#include "front.h"

#include <err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BURST = 8, PERIOD_US = 500, NUMBERED_LEN = 600 };

struct side {
	const char *name;
	struct front front;
	struct frame_addresses to; /* of what it sends */
	uint64_t sent, received, strangers;
	int64_t newest; /* number of the last packet received */
	uint64_t last_ns, longest_gap_ns;
};

static struct side sides[2] = {
	{ "left", .to = { { 0x52, 0x54, 0, 0, 1, 2 }, { 0x52, 0x54, 0, 0, 1, 1 } }, .newest = -1 },
	{ "right", .to = { { 0x52, 0x54, 0, 0, 1, 1 }, { 0x52, 0x54, 0, 0, 1, 2 } }, .newest = -1 },
};
static uint8_t frame[FRONT_FRAME_MAX];
static uint64_t corrupt, disorder;
static char complaint[256];

static void complain(const struct side *side, const char *what)
{
	if (!complaint[0])
		snprintf(complaint, sizeof(complaint), "%s: %s", side->name, what);
}

static void open_side(struct side *side, const char *path)
{
	struct front_config config = {
		.path = path,
		.features = FRONT_BIT(VIRTIO_F_VERSION_1) | FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    FRONT_BIT(VIRTIO_NET_F_GUEST_CSUM) |
			    FRONT_BIT(VIRTIO_NET_F_GUEST_TSO4) |
			    FRONT_BIT(VIRTIO_NET_F_GUEST_TSO6) | FRONT_BIT(VIRTIO_RING_F_EVENT_IDX),
		.protocol_features = FRONT_BIT(VU_PROTOCOL_F_REPLY_ACK),
		.size = { 1024, 256 },
	};

	if (front_open(&side->front, &config))
		errx(EXIT_FAILURE, "%s: %s", path, side->front.fault);
	side->last_ns = front_now_ns();
}

static void send_burst(struct side *side)
{
	for (unsigned i = 0; i < BURST; i++) {
		unsigned len = frame_udp(frame, &side->to, side->sent, NUMBERED_LEN);

		if (front_queue(&side->front, 0, NULL, frame, len, NULL))
			break;
		side->sent++;
	}
	front_publish(front_tx(&side->front));
	front_kick(front_tx(&side->front));
}

static void receive_all(struct side *side)
{
	const struct side *peer = &sides[side == sides];
	struct virtio_net_hdr_v1 hdr;
	int len;

	while ((len = front_receive(&side->front, 0, &hdr, frame, sizeof(frame))) > 0) {
		const char *wrong = frame_hdr_wrong(&hdr, frame, (unsigned)len,
						    side->front.features);

		if (wrong)
			complain(side, wrong);
		if (memcmp(frame + 6, peer->to.src, 6) || len != FRAME_UDP_HEADERS + NUMBERED_LEN) {
			side->strangers++;
			continue;
		}
		int64_t number = frame_udp_check(frame, (unsigned)len);
		uint64_t now = front_now_ns();

		corrupt += number < 0;
		disorder += number >= 0 && number <= side->newest;
		side->newest = number;
		side->received++;
		if (now - side->last_ns > side->longest_gap_ns)
			side->longest_gap_ns = now - side->last_ns;
		side->last_ns = now;
	}
	if (side->front.fault[0])
		complain(side, side->front.fault);
}

static void report(uint64_t since_ns)
{
	uint64_t now = front_now_ns(), packets = 0, gap = 0;

	for (unsigned i = 0; i < 2; i++) {
		struct side *side = &sides[i];

		if (now - side->last_ns > side->longest_gap_ns)
			side->longest_gap_ns = now - side->last_ns;
		gap = side->longest_gap_ns > gap ? side->longest_gap_ns : gap;
		packets += side->received;
	}
	printf("{\"packets\": %lu, \"pps\": %.0f, \"longest_gap_ms\": %.1f, \"sent\": %lu, \"strangers\": %lu, "
	       "\"corrupt\": %lu, \"disorder\": %lu, \"complaint\": \"%s\"}\n",
	       packets, (double)packets * 1e9 / (double)(now - since_ns), (double)gap / 1e6,
	       sides[0].sent + sides[1].sent, sides[0].strangers + sides[1].strangers, corrupt,
	       disorder, complaint);
	fflush(stdout);
	for (unsigned i = 0; i < 2; i++)
		sides[i].received = sides[i].strangers = sides[i].longest_gap_ns = 0;
}

int main(int argc, char **argv)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	uint64_t since_ns = front_now_ns();
	char line[64];

	if (argc != 3)
		errx(2, "usage: witness LEFT_SOCKET RIGHT_SOCKET");
	open_side(&sides[0], argv[1]);
	open_side(&sides[1], argv[2]);
	for (;;) {
		for (unsigned i = 0; i < 2; i++)
			send_burst(&sides[i]);
		front_sleep_us(PERIOD_US);
		for (unsigned i = 0; i < 2; i++)
			receive_all(&sides[i]);
		if (poll(&input, 1, 0) == 1) {
			if (read(STDIN_FILENO, line, sizeof(line)) <= 0)
				break;
			report(since_ns);
			since_ns = front_now_ns();
		}
	}
	front_close(&sides[0].front);
	front_close(&sides[1].front);
	if (complaint[0] || corrupt || disorder)
		errx(EXIT_FAILURE, "corrupt %lu, disorder %lu, %s", corrupt, disorder, complaint);
	return 0;
}
