/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A TAP as the near end of a channel.
 *
 * Theory of operation. The interface lives in the network namespace in which it is made; a socket
 * belongs to the one in which it was opened. So the namespace is entered once, to open all three
 * descriptors, and left again: the path of vifd's socket and systemd's are those of outside.
 *
 * Frames carry a virtio_net_hdr, so that packets of 64 KiB with an unfinished checksum cross whole,
 * both ways. While vifd is away the link has no carrier: the interface, its addresses and its
 * connections stay, the kernel drops what is sent and TCP tries again.
 */
#include "front/tap_end.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/vifront.h"
#include "pkt/vnet.h"

#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define OUR_NETNS "/proc/thread-self/ns/net"

bool tap_address_parse(const char *text, struct tap_address *address)
{
	char buffer[INET6_ADDRSTRLEN + 8], *slash, *end;
	unsigned long prefix, bits;

	if (strlen(text) >= sizeof(buffer))
		return false;
	strcpy(buffer, text);
	slash = strchr(buffer, '/');
	if (slash)
		*slash++ = 0;
	*address = (struct tap_address){ .family = strchr(buffer, ':') ? AF_INET6 : AF_INET };
	if (inet_pton(address->family, buffer, address->bytes) != 1)
		return false;
	bits = address->family == AF_INET ? 32 : 128;
	prefix = slash ? strtoul(slash, &end, 10) : bits;
	if (slash && (*slash < '0' || *slash > '9' || *end || prefix > bits))
		return false;
	address->prefix = prefix;
	return true;
}

/* ---- opening ---- */

/* A request about the interface. 0 or -errno. */
static int request(const struct tap_end *tap, unsigned long what, struct ifreq *ifr)
{
	strcpy(ifr->ifr_name, tap->name);
	return ioctl(tap->sock, what, ifr) ? -errno : 0;
}

static int netns_enter(const char *netns, int *back, struct error *error)
{
	char path[PATH_MAX];
	int there, err = 0;

	snprintf(path, sizeof(path), "%s%s", strchr(netns, '/') ? "" : "/run/netns/", netns);
	there = open(path, O_RDONLY | O_CLOEXEC);
	if (there < 0)
		return fail(error, -errno, "there is no network namespace '%s' (%s: %s)", netns,
			    path, strerror(errno));
	*back = open(OUR_NETNS, O_RDONLY | O_CLOEXEC);
	if (*back < 0)
		err = fail(error, -errno, OUR_NETNS ": %s", strerror(errno));
	else if (setns(there, CLONE_NEWNET))
		err = errno == EPERM ? fail(error, -EPERM,
					    "no permission to enter network namespace '%s': it "
					    "takes root or CAP_SYS_ADMIN",
					    netns)
				     : fail(error, -errno, "%s is no network namespace: %s", path,
					    strerror(errno));
	close(there);
	return err;
}

/* Say why the TAP could not be had. */
static int explain(const struct tap_end *tap, int code, struct error *error)
{
	const char *name = tap->name;
	struct ifreq ifr;

	if (code == EINVAL && request(tap, SIOCGIFINDEX, &ifr))
		return fail(error, -code, "'%s' cannot be the name of an interface", name);
	switch (code) {
	case EPERM:
		return fail(error, -code,
			    "no permission to make interface '%s': it takes root or CAP_NET_ADMIN",
			    name);
	case EBUSY:
		return fail(error, -code, "interface '%s' is busy: a program has it open", name);
	case EINVAL:
		return fail(error, -code,
			    "interface '%s' exists and is not a TAP with a single queue", name);
	case ENOENT:
		return fail(error, -code, "no /dev/net/tun: is the kernel's module 'tun' there?");
	}
	return fail(error, -code, "interface '%s': %s", name, strerror(code));
}

static int open_here(struct tap_end *tap, struct error *error)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int vnet_len = VNET_LEN, little_endian = 1;

	strcpy(ifr.ifr_name, tap->name);
	tap->sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	tap->netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	tap->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tap->sock < 0 || tap->netlink < 0 || tap->fd < 0 || ioctl(tap->fd, TUNSETIFF, &ifr) ||
	    ioctl(tap->fd, TUNSETVNETHDRSZ, &vnet_len) ||
	    ioctl(tap->fd, TUNSETVNETLE, &little_endian))
		return explain(tap, errno, error);
	strcpy(tap->name, ifr.ifr_name); /* the kernel fills in a %d */
	tap->offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 |
			TUN_F_USO6;
	tap->takes = VIFRONT_TAKES_CSUM | VIFRONT_TAKES_TSO4 | VIFRONT_TAKES_TSO6 |
		     VIFRONT_TAKES_TSO_ECN | VIFRONT_TAKES_USO;
	if (ioctl(tap->fd, TUNSETOFFLOAD, tap->offloads)) {
		tap->offloads &= ~(TUN_F_USO4 | TUN_F_USO6);
		tap->takes &= ~VIFRONT_TAKES_USO;
	}
	return tap_end_set_offload(tap, true, error);
}

int tap_end_open(struct tap_end *tap, const char *ifname, const char *netns, struct error *error)
{
	int back = -1, err = 0;

	*tap = (struct tap_end){ .fd = -1, .sock = -1, .netlink = -1 };
	if (!ifname)
		ifname = netns ? "eth0" : "vif%d";
	if (!*ifname || strlen(ifname) >= sizeof(tap->name))
		return fail(error, -EINVAL, "interface name '%s': 1 to %zu characters", ifname,
			    sizeof(tap->name) - 1);
	strcpy(tap->name, ifname);
	if (netns)
		err = netns_enter(netns, &back, error);
	if (!err)
		err = open_here(tap, error);
	if (back >= 0) {
		if (setns(back, CLONE_NEWNET) && !err) /* it was ours a moment ago */
			err = fail(error, -errno, "cannot return from '%s': %s", netns,
				   strerror(errno));
		close(back);
	}
	if (err)
		tap_end_close(tap);
	return err;
}

void tap_end_close(struct tap_end *tap)
{
	int *const fds[] = { &tap->fd, &tap->sock, &tap->netlink };

	for (unsigned i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

/* ---- settings ---- */

int tap_end_set_mtu(struct tap_end *tap, uint32_t mtu, struct error *error)
{
	struct ifreq ifr = { .ifr_mtu = mtu };
	int err = request(tap, SIOCSIFMTU, &ifr);

	return err ? fail(error, err, "interface '%s': MTU %u: %s", tap->name, mtu, strerror(-err))
		   : 0;
}

int tap_end_set_mac(struct tap_end *tap, const uint8_t mac[6], struct error *error)
{
	struct ifreq ifr = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };
	int err;

	memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
	err = request(tap, SIOCSIFHWADDR, &ifr);
	return err ? fail(error, err, "interface '%s': MAC %02x:%02x:%02x:%02x:%02x:%02x: %s",
			  tap->name, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], strerror(-err))
		   : 0;
}

int tap_end_set_offload(struct tap_end *tap, bool offload, struct error *error)
{
	if (ioctl(tap->fd, TUNSETOFFLOAD, offload ? tap->offloads : 0) == 0)
		return 0;
	return fail(error, -errno, "interface '%s': offloads are refused: %s", tap->name,
		    strerror(errno));
}

int tap_end_up(struct tap_end *tap, struct error *error)
{
	struct ifreq ifr = { 0 };
	int err = request(tap, SIOCGIFFLAGS, &ifr);

	if (!err) {
		ifr.ifr_flags |= IFF_UP;
		err = request(tap, SIOCSIFFLAGS, &ifr);
	}
	return err ? fail(error, err, "interface '%s' cannot be brought up: %s", tap->name,
			  strerror(-err))
		   : 0;
}

void tap_end_link(struct tap_end *tap, bool carrier)
{
	int on = carrier;

	ioctl(tap->fd, TUNSETCARRIER, &on); /* since Linux 5.0; before, it always has one */
}

/* ---- addresses ---- */

struct address_request {
	struct nlmsghdr header;
	struct ifaddrmsg message;
	uint8_t attributes[96];
};

static void put_attribute(struct address_request *asked, uint16_t type, const void *data,
			  uint16_t len)
{
	struct rtattr *at = (struct rtattr *)((char *)asked + NLMSG_ALIGN(asked->header.nlmsg_len));

	at->rta_type = type;
	at->rta_len = RTA_LENGTH(len);
	memcpy(RTA_DATA(at), data, len);
	asked->header.nlmsg_len = NLMSG_ALIGN(asked->header.nlmsg_len) + RTA_ALIGN(at->rta_len);
}

/* Send a request and hear whether it was granted. */
static int netlink_ask(int sock, const struct nlmsghdr *asked)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		uint8_t rest[256];
	} answer;
	ssize_t got;

	if (send(sock, asked, asked->nlmsg_len, 0) < 0)
		return -errno;
	got = recv(sock, &answer, sizeof(answer), 0);
	if (got < 0)
		return -errno;
	if (got < (ssize_t)NLMSG_LENGTH(sizeof(answer.error)) ||
	    answer.header.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return answer.error.error;
}

int tap_end_add(struct tap_end *tap, const struct tap_address *address, struct error *error)
{
	struct address_request asked = {
		.header = { .nlmsg_len = NLMSG_LENGTH(sizeof(asked.message)),
			    .nlmsg_type = RTM_NEWADDR,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE |
					   NLM_F_REPLACE },
		.message = { .ifa_family = address->family, .ifa_prefixlen = address->prefix },
	};
	uint8_t len = address->family == AF_INET ? 4 : 16;
	struct ifreq ifr = { 0 };
	char text[INET6_ADDRSTRLEN];
	int err = request(tap, SIOCGIFINDEX, &ifr);

	asked.message.ifa_index = ifr.ifr_ifindex;
	/* Usable at once: vifd gives every front end its own address. */
	asked.message.ifa_flags = address->family == AF_INET6 ? IFA_F_NODAD : 0;
	put_attribute(&asked, IFA_LOCAL, address->bytes, len);
	put_attribute(&asked, IFA_ADDRESS, address->bytes, len);
	if (address->family == AF_INET && address->prefix < 31) {
		uint32_t broadcast;

		memcpy(&broadcast, address->bytes, 4);
		broadcast |= htonl(address->prefix ? UINT32_MAX >> address->prefix : UINT32_MAX);
		put_attribute(&asked, IFA_BROADCAST, &broadcast, 4);
	}
	if (!err)
		err = netlink_ask(tap->netlink, &asked.header);
	if (!err)
		return 0;
	inet_ntop(address->family, address->bytes, text, sizeof(text));
	return fail(error, err, "interface '%s': address %s/%u: %s", tap->name, text,
		    address->prefix, strerror(-err));
}
