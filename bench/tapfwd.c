/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tapfwd: the bare loop that the TAP rows are measured against. Theory of operation:
 *
 *     tapfwd TAP TAP
 *
 * Creates two TAPs in the present network namespace and copies whatever comes out of the one into
 * the other: one read and one write per packet, the vnet header passed through, so that segments
 * of 64 KiB cross whole. It looks at nothing: no addresses, no learning, no checks. What a user-
 * space switch on TAPs loses to it is the price of being a switch. Says "ready" once both TAPs are
 * there; SIGTERM ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BURST = 64, VNET_HEADER = 12, PACKET_MAX = VNET_HEADER + 14 + 65536 };

static void fail(const char *what)
{
	fprintf(stderr, "tapfwd: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static int tap_open(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int header = VNET_HEADER;
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		fail("/dev/net/tun");
	snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
	if (ioctl(fd, TUNSETIFF, &request) || ioctl(fd, TUNSETVNETHDRSZ, &header) ||
	    ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN))
		fail(name);
	return fd;
}

/* Frames that the other side cannot take (its interface is down) are dropped, as a wire would. */
static void forward(int from, int to)
{
	static uint8_t packet[PACKET_MAX];
	ssize_t len;
	int i;

	for (i = 0; i < BURST; i++) {
		len = read(from, packet, sizeof(packet));
		if (len <= 0)
			return;
		if (write(to, packet, len) != len && errno != EIO)
			fail("write");
	}
}

int main(int argc, char **argv)
{
	struct epoll_event events[2];
	int taps[2], epoll, i, count;

	if (argc != 3) {
		fprintf(stderr, "usage: tapfwd TAP TAP\n");
		return 2;
	}
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0)
		fail("epoll");
	for (i = 0; i < 2; i++) {
		taps[i] = tap_open(argv[i + 1]);
		events[0] = (struct epoll_event){ .events = EPOLLIN, .data.u32 = i };
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, taps[i], &events[0]))
			fail("epoll");
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		count = epoll_wait(epoll, events, 2, -1);
		for (i = 0; i < count; i++)
			forward(taps[events[i].data.u32], taps[!events[i].data.u32]);
	}
}
