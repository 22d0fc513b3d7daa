// SPDX-License-Identifier: BSD-3-Clause
/*
 * The hostile guest: every lie that we know of, one function each.
 *
 *      left --- vifd --- right     the witness, who must not notice (witness.c)
 *      evil ---      --- mate      ours: evil lies, mate is an honest neighbour it talks with
 *
 * Usage: hostile SCENARIO EVIL_SOCKET MATE_SOCKET, or hostile --list. Does its worst, prints "done"
 * and stays connected until standard input ends, so that counters and broken rings can be looked
 * at. Status 0 says only that the lie was told and that the honest steps around it worked; what
 * vifd must have made of it is in test_hostile.py. Scenarios are in hostile_*.c, a table at the end
 * of each.
 */
#include "hostile.h"

#include <err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct scenario *const tables[] = { tx_scenarios,         rx_scenarios,
						 frame_scenarios,      race_scenarios,
						 storm_scenarios,      message_scenarios,
						 descriptor_scenarios, memory_scenarios };

void broken_test(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	verrx(EXIT_FAILURE, format, args);
}

/* xorshift; the seed is fixed, so that a failure can be repeated as far as scheduling allows. */
uint32_t random_u32(void)
{
	static uint32_t state = 2463534242;

	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

bool time_left(uint64_t start_ns, unsigned msec)
{
	return front_now_ns() - start_ns < msec * UINT64_C(1000000);
}

unsigned good_frame(struct front *evil)
{
	memset(evil->scratch, 0, evil->header_len);
	return evil->header_len +
	       frame_udp(evil->scratch + evil->header_len, &evil_to_mate, 1, 200);
}

unsigned good_gso_frame(struct front *evil, unsigned payload_len)
{
	struct virtio_net_hdr_v1 hdr;
	unsigned len = frame_tcp(evil->scratch + evil->header_len, &evil_to_mate, 1, payload_len,
				 false, GSO_SIZE, &hdr);

	memcpy(evil->scratch, &hdr, evil->header_len);
	return evil->header_len + len;
}

void mate_sends(struct front *mate, unsigned count)
{
	static uint8_t frame[FRONT_FRAME_MAX];
	struct virtio_net_hdr_v1 hdr;

	for (unsigned i = 0; i <= count; i++) {
		unsigned len = i < count ? frame_udp(frame, &mate_to_evil, i, 500)
					 : frame_tcp(frame, &mate_to_evil, 1, 64000, false,
						     GSO_SIZE, &hdr);

		if (front_send(mate, i < count ? NULL : &hdr, frame, len, NULL, 2000))
			broken_test("mate: %s", mate->fault);
	}
	if (front_drain(mate, 0, 2000))
		broken_test("mate: %s", mate->fault);
}

unsigned mate_receives(struct front *mate)
{
	static uint8_t frame[FRONT_FRAME_MAX];
	struct virtio_net_hdr_v1 hdr;
	unsigned count = 0;
	int len;

	while ((len = front_receive(mate, 0, &hdr, frame, sizeof(frame))) > 0) {
		const char *wrong = frame_hdr_wrong(&hdr, frame, (unsigned)len, mate->features);

		if (wrong)
			broken_test("mate was sent a frame with %s", wrong);
		count++;
	}
	if (len < 0)
		broken_test("mate: %s", mate->fault);
	return count;
}

bool all_used(struct front_ring *ring, int msec)
{
	uint64_t start_ns = front_now_ns();

	while (__atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE) != ring->avail_next) {
		if (!time_left(start_ns, (unsigned)msec))
			return false;
		front_sleep_us(20);
	}
	return true;
}

void revive(struct front *evil, struct front_ring *ring)
{
	if (front_restart_ring(evil, ring))
		broken_test("evil: %s", evil->fault);
}

static void open_evil(struct front *evil, const char *path, const struct scenario *scenario)
{
	uint64_t all = FRONT_BIT(VIRTIO_NET_F_CSUM) | FRONT_BIT(VIRTIO_NET_F_GUEST_CSUM) |
		       FRONT_BIT(VIRTIO_NET_F_GUEST_TSO4) | FRONT_BIT(VIRTIO_NET_F_GUEST_TSO6) |
		       FRONT_BIT(VIRTIO_NET_F_HOST_TSO4) | FRONT_BIT(VIRTIO_NET_F_HOST_TSO6) |
		       FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF) | FRONT_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
		       FRONT_BIT(VIRTIO_RING_F_EVENT_IDX) | FRONT_BIT(VIRTIO_F_VERSION_1);
	struct front_config config = {
		.path = path,
		.listen = scenario->listen,
		.features = all & ~scenario->without,
		.protocol_features = FRONT_BIT(VU_PROTOCOL_F_REPLY_ACK) |
				     FRONT_BIT(VU_PROTOCOL_F_MQ) |
				     FRONT_BIT(VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS),
		.size = { scenario->size[0], scenario->size[1] },
		.regions = scenario->regions,
		.rx_idle = scenario->rx_idle,
	};

	if (scenario->raw || scenario->listen ? front_allocate(evil, &config)
					      : front_open(evil, &config))
		broken_test("evil: %s", evil->fault);
}

static void open_mate(struct front *mate, const char *path)
{
	struct front_config config = {
		.path = path,
		.features = FRONT_BIT(VIRTIO_NET_F_CSUM) | FRONT_BIT(VIRTIO_NET_F_GUEST_CSUM) |
			    FRONT_BIT(VIRTIO_NET_F_GUEST_TSO4) |
			    FRONT_BIT(VIRTIO_NET_F_GUEST_TSO6) | FRONT_BIT(VIRTIO_NET_F_HOST_TSO4) |
			    FRONT_BIT(VIRTIO_NET_F_MRG_RXBUF) | FRONT_BIT(VIRTIO_F_VERSION_1),
		.protocol_features = FRONT_BIT(VU_PROTOCOL_F_REPLY_ACK),
		.size = { 1024, 256 },
	};

	if (front_open(mate, &config))
		broken_test("mate: %s", mate->fault);
}

static const struct scenario *find(const char *name)
{
	for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct scenario *scenario = tables[i]; scenario->name; scenario++)
			if (!strcmp(scenario->name, name))
				return scenario;
	errx(2, "no scenario '%s'", name);
}

int main(int argc, char **argv)
{
	static struct front evil, mate;

	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
			for (const struct scenario *scenario = tables[i]; scenario->name;
			     scenario++)
				puts(scenario->name);
		return 0;
	}
	if (argc != 4)
		errx(2, "usage: hostile SCENARIO EVIL_SOCKET MATE_SOCKET | --list");

	const struct scenario *scenario = find(argv[1]);
	char end;

	open_mate(&mate, argv[3]);
	open_evil(&evil, argv[2], scenario);
	scenario->run(&evil, &mate);
	puts("done");
	fflush(stdout);
	while (read(STDIN_FILENO, &end, 1) > 0)
		;
	front_close(&evil);
	front_close(&mate);
	return 0;
}
