// SPDX-License-Identifier: BSD-3-Clause
/*
 * Packets of 64 KiB from one honest guest to another, as many as are asked for, for whoever counts
 * what vifd does:
 *
 *      a --- vifd --- b
 *
 * Both drivers poll and want no calls, so that nothing but the packets themselves gives vifd work.
 *
 * Usage: pump SOCKET_A SOCKET_B PIECE BUFFER: bytes of a transmit descriptor (0: one for the frame)
 * and of a receive buffer. Each number on standard input is answered with a line of JSON when so
 * many packets have arrived, checked.
 */
#include "frame.h"
#include "front.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAYLOAD = 65535 - 40, WAIT_MSEC = 10000 };

static struct front a, b;

static void open_front(struct front *front, const char *path, unsigned rx_buf_len)
{
	struct front_config config = {
		.path = path,
		.features = FRONT_BIT(VIRTIO_F_VERSION_1) | FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    FRONT_BIT(VIRTIO_NET_F_CSUM) | FRONT_BIT(VIRTIO_NET_F_GUEST_CSUM) |
			    FRONT_BIT(VIRTIO_NET_F_GUEST_TSO4) | FRONT_BIT(VIRTIO_NET_F_HOST_TSO4),
		.protocol_features = FRONT_BIT(VU_PROTOCOL_F_REPLY_ACK),
		.size = { 256, 1024 },
		.rx_buf_len = rx_buf_len,
	};

	if (front_open(front, &config))
		errx(EXIT_FAILURE, "%s: %s", path, front->fault);
	front_suppress_calls(front_rx(front));
	front_suppress_calls(front_tx(front));
}

static void transfer(unsigned count, const struct front_layout *layout)
{
	static const struct frame_addresses to = { { 2, 0, 0, 0, 0, 2 }, { 2, 0, 0, 0, 0, 1 } };
	static uint8_t frame[FRONT_FRAME_MAX];
	static uint32_t seq;
	uint64_t give_up = front_now_ns() + WAIT_MSEC * UINT64_C(1000000);

	for (unsigned i = 0; i < count; i++, seq += PAYLOAD) {
		struct virtio_net_hdr_v1 hdr;
		unsigned len = frame_tcp(frame, &to, seq, PAYLOAD, false, 1448, &hdr);
		uint32_t at;
		int got;

		if (front_queue(&a, 0, &hdr, frame, len, layout))
			errx(EXIT_FAILURE, "a: %s", a.fault);
		front_publish(front_tx(&a));
		front_kick(front_tx(&a));
		while ((got = front_receive(&b, 0, &hdr, frame, sizeof(frame))) == 0) {
			if (front_now_ns() > give_up)
				errx(EXIT_FAILURE, "b: no packet");
			front_sleep_us(10);
		}
		if (got < 0 || frame_tcp_check(frame, (unsigned)got, &hdr, &at) != PAYLOAD ||
		    at != seq)
			errx(EXIT_FAILURE, "b: wrong packet, %s", b.fault);
	}
	printf("{\"packets\": %u, \"bytes\": %u, \"kicks\": %lu}\n", count,
	       PAYLOAD + FRAME_TCP_HEADERS, front_tx(&a)->kicks + front_rx(&b)->kicks);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[64];

	if (argc != 5)
		errx(2, "usage: pump SOCKET_A SOCKET_B PIECE BUFFER");
	struct front_layout layout = { .first = (unsigned)atoi(argv[3]),
				       .piece = (unsigned)atoi(argv[3]) };

	open_front(&a, argv[1], 2048);
	open_front(&b, argv[2], (unsigned)atoi(argv[4]));
	while (fgets(line, sizeof(line), stdin))
		transfer((unsigned)atoi(line), &layout);
	front_close(&a);
	front_close(&b);
	return 0;
}
