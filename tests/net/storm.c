// SPDX-License-Identifier: BSD-3-Clause
/*
 * A guest that sends super-packets of every kind (super.h) from descriptors of every layout, for
 * whoever looks at what reaches the wire.
 *
 *      storm --- vifd --- wire
 *
 * Usage: storm SOCKET SEED COUNT. Ends when vifd has given back the last; the Ethernet addresses
 * are 02:00:00:00:00:01, which sends, and 02:00:00:00:00:02.
 */
#include <err.h>

#include "../hostile/front.h"
#include "super.h"

enum { WAIT_MSEC = 10000, HOST_USO = 56 };

static void open_front(struct front *front, const char *path)
{
	struct front_config config = {
		.path = path,
		.features = FRONT_BIT(VIRTIO_F_VERSION_1) | FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    FRONT_BIT(VIRTIO_RING_F_INDIRECT_DESC) | FRONT_BIT(VIRTIO_NET_F_CSUM) |
			    FRONT_BIT(VIRTIO_NET_F_HOST_TSO4) | FRONT_BIT(VIRTIO_NET_F_HOST_TSO6) |
			    FRONT_BIT(VIRTIO_NET_F_HOST_ECN) | FRONT_BIT(HOST_USO),
		.protocol_features = FRONT_BIT(VU_PROTOCOL_F_REPLY_ACK),
	};

	if (front_open(front, &config))
		errx(1, "%s: %s", path, front->fault);
}

static struct front_layout draw_layout(uint64_t *seed, uint32_t len)
{
	static const unsigned pieces[] = { 0, 512, 1500, 4096 };
	struct front_layout layout = {
		.first = rnd(seed) % 2 ? 0 : rnd_in(seed, 1, 200),
		.piece = pieces[rnd(seed) % 4],
		.gap = rnd(seed) % 3,
		.indirect = rnd(seed) % 2,
	};

	/* A direct chain has to fit the ring. */
	if (layout.piece && len / layout.piece > 100)
		layout.indirect = true;
	return layout;
}

int main(int argc, char **argv)
{
	static const uint8_t addresses[] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1 };
	static struct front front;
	struct super super = { .frame.bytes = malloc(FRAME_MAX) };

	if (argc != 4 || !super.frame.bytes)
		errx(2, "usage: storm SOCKET SEED COUNT");

	uint64_t seed = (strtoull(argv[2], NULL, 0) + 1) * 0x9e3779b97f4a7c15;

	open_front(&front, argv[1]);
	for (unsigned long left = strtoul(argv[3], NULL, 0); left > 0; left--) {
		struct virtio_net_hdr_v1 hdr;
		struct front_layout layout;

		draw_super(&super, &seed);
		memcpy(super.frame.bytes, addresses, sizeof(addresses));
		memcpy(&hdr, super.vnet, sizeof(hdr));
		layout = draw_layout(&seed, super.frame.len);
		if (front_send(&front, &hdr, super.frame.bytes, super.frame.len, &layout,
			       WAIT_MSEC))
			errx(1, "with %lu packets left: no room: %s", left, front.fault);
	}
	if (front_drain(&front, 0, WAIT_MSEC))
		errx(1, "packets are not given back: %s", front.fault);
	front_close(&front);
	free(super.frame.bytes);
	return 0;
}
