// SPDX-License-Identifier: BSD-3-Clause
/*
 * Two honest guests whose back end dies and comes back: they reconnect and go on where the used
 * index says, with the same rings and memory, as a VM does.
 *
 *      a --- vifd, killed and started again --- b
 *
 * Every used entry must name a chain that is outstanding, across restarts, too: nothing is
 * completed twice. Numbers of packets may repeat only where a restart could not know that they had
 * been sent, at most a ring's worth.
 *
 * Usage: restart SOCKET_A SOCKET_B RESTARTS [in-order] [event-idx]. Ends a second after the last
 * restart, prints JSON.
 */
#include "frame.h"
#include "front.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BURST = 8, SIZE = 256, RECONNECT_MSEC = 10000, DRAIN_MSEC = 3000 };

struct side {
	struct front front;
	struct frame_addresses to;
	uint64_t sent, received, repeated, wrong;
	int64_t newest;
};

static struct side sides[2] = {
	{ .to = { { 2, 0, 0, 0, 0, 2 }, { 2, 0, 0, 0, 0, 1 } }, .newest = -1 },
	{ .to = { { 2, 0, 0, 0, 0, 1 }, { 2, 0, 0, 0, 0, 2 } }, .newest = -1 },
};
static uint8_t frame[FRONT_FRAME_MAX];

static void receive_all(struct side *side)
{
	struct virtio_net_hdr_v1 hdr;
	int len;

	while ((len = front_receive(&side->front, 0, &hdr, frame, sizeof(frame))) > 0) {
		int64_t number = frame_udp_check(frame, (unsigned)len);

		side->wrong += number < 0;
		side->repeated += number >= 0 && number <= side->newest;
		side->newest = number > side->newest ? number : side->newest;
		side->received++;
	}
	if (len < 0)
		errx(EXIT_FAILURE, "%s", side->front.fault);
}

static void send_burst(struct side *side)
{
	for (unsigned i = 0; i < BURST; i++) {
		unsigned len = frame_udp(frame, &side->to, side->sent, 600);

		if (front_queue(&side->front, 0, NULL, frame, len, NULL))
			break;
		side->sent++;
	}
	if (side->front.fault[0])
		errx(EXIT_FAILURE, "%s", side->front.fault);
	front_publish(front_tx(&side->front));
	front_kick(front_tx(&side->front));
}

/* Both reconnect; the time from noticing until a packet has come through to each. */
static double outage_ms(void)
{
	uint64_t start_ns = front_now_ns(), before[2] = { sides[0].received, sides[1].received };

	for (unsigned i = 0; i < 2; i++)
		if (front_reconnect(&sides[i].front, RECONNECT_MSEC))
			errx(EXIT_FAILURE, "%s", sides[i].front.fault);
	while (sides[0].received == before[0] || sides[1].received == before[1]) {
		if (front_now_ns() - start_ns > RECONNECT_MSEC * UINT64_C(1000000))
			errx(EXIT_FAILURE, "no packet after the restart");
		for (unsigned i = 0; i < 2; i++) {
			send_burst(&sides[i]);
			receive_all(&sides[i]);
		}
		front_sleep_us(200);
	}
	return (double)(front_now_ns() - start_ns) / 1e6;
}

int main(int argc, char **argv)
{
	uint64_t features = FRONT_BIT(VIRTIO_F_VERSION_1) | FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF),
		 end_ns = UINT64_MAX;
	double longest_ms = 0;

	if (argc < 4)
		errx(2, "usage: restart SOCKET_A SOCKET_B RESTARTS [in-order] [event-idx]");
	for (int i = 4; i < argc; i++)
		features |= strcmp(argv[i], "in-order") ? FRONT_BIT(VIRTIO_RING_F_EVENT_IDX)
							: FRONT_BIT(VIRTIO_F_IN_ORDER);
	for (int i = 0; i < 2; i++) {
		struct front_config config = { .path = argv[1 + i],
					       .features = features,
					       .size = { SIZE, SIZE },
					       .protocol_features =
						       FRONT_BIT(VU_PROTOCOL_F_REPLY_ACK) };

		if (front_open(&sides[i].front, &config))
			errx(EXIT_FAILURE, "%s", sides[i].front.fault);
	}
	puts("ready");
	fflush(stdout);
	for (int left = atoi(argv[3]); front_now_ns() < end_ns;) {
		for (unsigned i = 0; i < 2; i++) {
			send_burst(&sides[i]);
			receive_all(&sides[i]);
		}
		front_sleep_us(200);
		if (left && front_disconnected(&sides[0].front, 0)) {
			double outage = outage_ms();

			longest_ms = outage > longest_ms ? outage : longest_ms;
			if (--left == 0)
				end_ns = front_now_ns() + UINT64_C(1000000000);
		}
	}
	for (unsigned i = 0; i < 2; i++) {
		receive_all(&sides[i]);
		if (front_drain(&sides[i].front, 0, DRAIN_MSEC))
			errx(EXIT_FAILURE, "%s", sides[i].front.fault);
	}
	receive_all(&sides[0]);
	receive_all(&sides[1]);
	printf("{\"sent\": %lu, \"received\": %lu, \"repeated\": %lu, \"wrong\": %lu, \"longest_outage_ms\": %.1f}\n",
	       sides[0].sent + sides[1].sent, sides[0].received + sides[1].received,
	       sides[0].repeated + sides[1].repeated, sides[0].wrong + sides[1].wrong, longest_ms);
	return 0;
}
