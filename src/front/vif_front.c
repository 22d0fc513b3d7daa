/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vif-front: an interface for a network namespace, whose other end is an snet channel to vifd.
 *
 *      programs ── kernel ── TAP ═══ vif-front ═══ zones, rings ═══ vifd
 *
 * Theory of operation. A frame that the kernel sends is read from the TAP straight into a buffer
 * that vifd maps, and one from vifd is written to the TAP straight from where it lies: the kernel's
 * copy is the only one here, and vif-front reads no payload. Frames come with what they ask (struct
 * virtio_net_hdr), which crosses in the ring, so that they are up to 64 KiB long, both ways (S33).
 *
 *      readv    vnet | small buffer | large buffer      the large one only of frames that need it
 *      writev   vnet | buffers of the frame
 *
 * One thread polls both ends in bursts as long as there is work, then arms them and sleeps. TAP's
 * wake-ups are edges: once a read has said EAGAIN, the next frame is one. When no buffer is left, or
 * no room in the ring, frames wait in the TAP's queue.
 *
 * The channel can be virtio-net over vhost-user instead (vhost_front.c), to compare with: the same
 * copies here, and one of vifd's into memory that the guest owns.
 *
 * When vifd goes, the link loses its carrier and everything else stays; when it is back, MTU and
 * offloads are what the new one says.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "front/asks.h"
#include "front/channel.h"
#include "front/tap_end.h"

enum {
	EXIT_USAGE = 2,
	ADDRESSES_MAX = 16,
	BURST = 32,              /* frames */
	BURST_BYTES = 256 << 10, /* sent while they are in the second-level cache */
	RECV_BUFS = 4 * VIFRONT_FRAME_BUFS,
	SEND_BYTES = 8 << 20, /* a full ring of frames, and then some */
	RETRY_MS = 100,
	ANSWER_MS = 2000,
};

static_assert(VIFRONT_BUF_SMALL + VIFRONT_BUF_LARGE > PKT_LEN_MAX, "whatever is read fits");

struct options {
	const char *connect, *vhost_user, *netns, *ifname;
	struct tap_address addresses[ADDRESSES_MAX];
	unsigned address_count;
	uint8_t mac[6];
	bool has_mac;
	int cpu; /* -1: any */
};

/* The interface and the channel. */
struct ends {
	struct tap_end tap;
	struct channel channel;
	uint32_t mtu; /* what vifd said last */
	bool drained; /* TAP: the last read found nothing */
	bool blocked; /* no room to send: wait for some */
	bool gone;    /* the interface has been deleted */
	/* read, not sent: the ring was full */
	struct vifront_buf unsent[2 * BURST];
	unsigned unsent_count;
};

static volatile sig_atomic_t stopped;
static int stop_fd; /* readable when stopped */

static const char usage[] =
	"Usage: vif-front --connect PATH | --vhost-user PATH [OPTIONS]\n"
	"       vif-front --help | --version\n"
	"\n"
	"Gives a network namespace an interface whose other end is a port of vifd.\n"
	"\n"
	"  -c, --connect PATH    the snet socket of vifd (guest add NAME snet=PATH)\n"
	"      --vhost-user PATH instead: its vhost-user socket, to compare with\n"
	"  -n, --netns NAME      the network namespace, a name or a path (default: this one)\n"
	"  -i, --ifname NAME     of the interface (default: eth0 with --netns, else vif0, ...)\n"
	"  -a, --ip ADDRESS/LEN  give it this address, IPv4 or IPv6; can be repeated\n"
	"  -m, --mac MAC         its MAC address (default: what vifd says, else a random one)\n"
	"      --cpu N           run on this CPU only\n"
	"\n"
	"Runs in the foreground until SIGTERM; the interface is gone then. It survives vifd.\n"
	"See vif-front(1).\n";

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- options ---- */

static int bad_usage(const char *what, const char *arg)
{
	fprintf(stderr, "vif-front: %s%s\nTry 'vif-front --help'.\n", what, arg);
	return -EINVAL;
}

static bool parse_mac(const char *text, uint8_t mac[6])
{
	int end = 0;

	return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2],
		      &mac[3], &mac[4], &mac[5], &end) == 6 &&
	       text[end] == 0 && !(mac[0] & 1);
}

static int parse_cpu(const char *text, int *cpu)
{
	char *end;
	long number = strtol(text, &end, 10);

	if (end == text || *end || number < 0 || number >= CPU_SETSIZE)
		return bad_usage("--cpu needs the number of a CPU, not ", text);
	*cpu = number;
	return 0;
}

/* 0 to go on, 1 when all is done, -EINVAL */
static int parse_option(int c, struct options *options)
{
	switch (c) {
	case 'c':
		options->connect = optarg;
		return 0;
	case 'u':
		options->vhost_user = optarg;
		return 0;
	case 'n':
		options->netns = optarg;
		return 0;
	case 'i':
		options->ifname = optarg;
		return 0;
	case 'a':
		if (options->address_count == ADDRESSES_MAX)
			return bad_usage("too many addresses at --ip ", optarg);
		if (!tap_address_parse(optarg, &options->addresses[options->address_count++]))
			return bad_usage("--ip needs an address as 10.0.0.2/24 or fd00::2/64, not ",
					 optarg);
		return 0;
	case 'm':
		options->has_mac = true;
		if (!parse_mac(optarg, options->mac))
			return bad_usage(
				"--mac needs a station's address as 52:54:00:00:00:01, not ",
				optarg);
		return 0;
	case 'p':
		return parse_cpu(optarg, &options->cpu);
	case 'v':
		puts("vif-front " VIFD_VERSION);
		return 1;
	case 'h':
		fputs(usage, stdout);
		return 1;
	}
	return bad_usage("unknown or incomplete option", "");
}

static int parse_options(int argc, char **argv, struct options *options)
{
	static const struct option longs[] = {
		{ "connect", required_argument, NULL, 'c' },
		{ "vhost-user", required_argument, NULL, 'u' },
		{ "netns", required_argument, NULL, 'n' },
		{ "ifname", required_argument, NULL, 'i' },
		{ "ip", required_argument, NULL, 'a' },
		{ "mac", required_argument, NULL, 'm' },
		{ "cpu", required_argument, NULL, 'p' },
		{ "version", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c, err;

	while ((c = getopt_long(argc, argv, "c:n:i:a:m:h", longs, NULL)) != -1) {
		err = parse_option(c, options);
		if (err)
			return err;
	}
	if (optind < argc)
		return bad_usage("unexpected argument ", argv[optind]);
	if (!options->connect == !options->vhost_user)
		return bad_usage(options->connect ? "--connect and --vhost-user exclude each other"
						  : "--connect is missing",
				 "");
	return 0;
}

/* ---- from the TAP to vifd ---- */

/* The frame that was read into two buffers: what it asks goes into the first. How many of them it
 * has, 0: it is not to be sent. */
static unsigned make_frame(const uint8_t *vnet, size_t len, struct vifront_buf bufs[2])
{
	struct pkt_offload offload;

	if (len < PKT_LEN_MIN || !vnet_to_offload(vnet, &offload))
		return 0;
	buf_put_offload(&bufs[0], &offload);
	if (len <= bufs[0].len) {
		bufs[0].len = len;
		return 1;
	}
	bufs[0].flags |= VIFRONT_MORE;
	bufs[1].len = len - bufs[0].len;
	return 2;
}

/* Send what waits. False: the ring is full, or vifd is gone. */
static bool send_unsent(struct ends *ends)
{
	int sent = channel_send(&ends->channel, ends->unsent, ends->unsent_count);

	if (sent > 0) {
		ends->unsent_count -= sent;
		memmove(ends->unsent, ends->unsent + sent,
			ends->unsent_count * sizeof(ends->unsent[0]));
	}
	return ends->unsent_count == 0;
}

/* One frame of the TAP into two buffers. Bytes, -1: there is none. */
static ssize_t read_frame(struct ends *ends, uint8_t *vnet, const struct vifront_buf bufs[2])
{
	struct iovec iov[3] = { { vnet, VNET_LEN },
				{ bufs[0].data, bufs[0].len },
				{ bufs[1].data, bufs[1].len } };
	ssize_t got = readv(ends->tap.fd, iov, 3);

	if (likely(got >= VNET_LEN))
		return got - VNET_LEN;
	ends->drained = got >= 0 || errno != EINTR;
	ends->gone = got < 0 && errno == EBADFD;
	return -1;
}

/* A burst; was there anything? */
static bool tap_to_vifd(struct ends *ends)
{
	const struct channel *channel = &ends->channel;
	struct vifront_buf next[2]; /* what is read into: small, large */
	bool have[2] = { false, false };
	unsigned bytes = 0, reads = 0;

	ends->blocked = ends->unsent_count && !send_unsent(ends);
	if (ends->blocked)
		return false;
	ends->drained = false;
	while (reads < BURST && bytes < BURST_BYTES) {
		uint8_t vnet[VNET_LEN];
		unsigned used;
		ssize_t len;

		if (!have[0])
			have[0] = channel_alloc(channel, 1, &next[0], 1) == 1;
		if (!have[1])
			have[1] = channel_alloc(channel, VIFRONT_BUF_LARGE, &next[1], 1) == 1;
		ends->blocked = !have[0] || !have[1];
		if (ends->blocked)
			break;
		len = read_frame(ends, vnet, next);
		if (len < 0)
			break;
		reads++;
		bytes += len;
		used = make_frame(vnet, len, next);
		memcpy(&ends->unsent[ends->unsent_count], next, used * sizeof(next[0]));
		ends->unsent_count += used;
		have[0] = used < 1;
		have[1] = used < 2;
	}
	for (unsigned i = 0; i < 2; i++)
		channel_free(channel, &next[i], have[i]);
	if (ends->unsent_count)
		ends->blocked = !send_unsent(ends);
	return reads > 0;
}

/* ---- from vifd to the TAP ---- */

/* The frame of count buffers. What the kernel does not take is lost, and counted by it. */
static void write_frame(const struct ends *ends, const struct vifront_buf *bufs, unsigned count)
{
	struct iovec iov[1 + VIFRONT_FRAME_BUFS];
	uint8_t vnet[VNET_LEN];

	if (unlikely(count > VIFRONT_FRAME_BUFS))
		return;
	buf_get_vnet(bufs, vnet);
	iov[0] = (struct iovec){ vnet, VNET_LEN };
	for (unsigned i = 0; i < count; i++)
		iov[1 + i] = (struct iovec){ bufs[i].data, bufs[i].len };
	while (writev(ends->tap.fd, iov, 1 + count) < 0 && errno == EINTR)
		;
}

static bool vifd_to_tap(struct ends *ends, unsigned queue)
{
	struct vifront_buf bufs[RECV_BUFS];
	int got = channel_recv(&ends->channel, queue, bufs, RECV_BUFS);

	if (got <= 0)
		return false;
	for (int first = 0, i = 0; i < got; i++) {
		if (bufs[i].flags & VIFRONT_MORE)
			continue;
		write_frame(ends, bufs + first, i + 1 - first);
		first = i + 1;
	}
	channel_release(&ends->channel, queue, bufs, got);
	return true;
}

/* ---- both ---- */

static bool work(struct ends *ends)
{
	bool worked = tap_to_vifd(ends);

	for (unsigned q = 0; q < channel_info(&ends->channel)->queues; q++)
		worked |= vifd_to_tap(ends, q);
	return worked;
}

/* Sleep until there is work. 0, or -errno: the channel is of no use any more. */
static int sleep_for_work(struct ends *ends, int epoll)
{
	unsigned queues = channel_info(&ends->channel)->queues, q;
	bool attend = false;
	int there = 0, err;

	for (q = 0; q < queues && there == 0; q++) {
		bool room = ends->blocked && q == ends->channel.send_queue;

		there = channel_arm(&ends->channel, q, VIFRONT_RECV | (room ? VIFRONT_SEND : 0));
	}
	if (there == 0 && (ends->drained || ends->blocked)) {
		struct epoll_event events[8];
		int count = epoll_wait(epoll, events, 8, -1);

		for (int i = 0; i < count; i++)
			attend |= events[i].data.fd == channel_socket_fd(&ends->channel);
	}
	while (q-- > 0)
		channel_disarm(&ends->channel, q);
	err = attend ? channel_attend(&ends->channel) : 0;
	return there < 0 ? there : err;
}

static int watch(int epoll, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Carry packets until there is nobody to carry them for. */
static void carry(struct ends *ends)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC), err = 0;

	if (epoll < 0 || watch(epoll, ends->tap.fd, EPOLLIN | EPOLLET) ||
	    watch(epoll, stop_fd, EPOLLIN) ||
	    watch(epoll, channel_socket_fd(&ends->channel), EPOLLIN))
		err = -errno;
	for (unsigned q = 0; !err && q < channel_info(&ends->channel)->queues; q++)
		err = watch(epoll, channel_event_fd(&ends->channel, q), EPOLLIN);
	if (err)
		say("epoll: %s", strerror(errno));
	ends->drained = ends->blocked = false;
	ends->unsent_count = 0;
	while (!err && !stopped && !ends->gone) {
		if (!work(ends))
			err = sleep_for_work(ends, epoll);
	}
	if (epoll >= 0)
		close(epoll);
}

/* ---- connecting ---- */

static void say(const char *format, ...)
{
	va_list args;

	fputs("vif-front: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* Sleep a little, unless stopped. */
static void pause_a_little(void)
{
	struct pollfd pollfd = { .fd = stop_fd, .events = POLLIN };

	poll(&pollfd, 1, RETRY_MS);
}

/* Connect, first or again. 0, or -errno and a sentence. */
static int connect_once(struct ends *ends, const struct options *options, bool first,
			struct error *why)
{
	const struct vifront_options wishes = { .takes = ends->tap.takes,
						.send_bytes = SEND_BYTES,
						.timeout_ms = ANSWER_MS };
	struct channel *channel = &ends->channel;

	if (options->vhost_user) {
		if (first)
			channel->vhost = vhost_front_new(options->vhost_user, ends->tap.takes);
		return channel->vhost ? vhost_front_reopen(channel->vhost, why)
				      : fail(why, -ENOMEM, "out of memory");
	}
	return first ? vifront_open(&channel->snet, options->connect, &wishes,
				    (struct vifront_error *)why)
		     : vifront_reopen(channel->snet, (struct vifront_error *)why);
}

/* Connect, or connect again, as soon as vifd is there. 0; or -errno: it never will, or stopped. */
static int connect_to_vifd(struct ends *ends, const struct options *options, struct error *error)
{
	const bool again = ends->mtu > 0;
	struct error said = { "" };

	while (!stopped) {
		bool first = !ends->channel.snet && !ends->channel.vhost;
		int err = connect_once(ends, options, first, error);

		if (err == 0)
			return 0;
		if (!again && err != -ENOENT && err != -ECONNREFUSED && err != -ENOTCONN)
			return err;
		if (strcmp(error->text, said.text) != 0)
			say("%s; waiting", error->text);
		said = *error;
		pause_a_little();
	}
	return -EINTR;
}

static_assert(sizeof(struct error) == sizeof(struct vifront_error), "one is passed for the other");

/* A queue is a worker of vifd's: let not all front ends send into the same. */
static unsigned choose_queue(const char *path, unsigned queues)
{
	uint32_t hash = 2166136261; /* FNV-1a */

	while (*path)
		hash = (hash ^ (uint8_t)*path++) * 16777619;
	return (hash >> 16) % queues;
}

/* Make the interface what vifd says it is. */
static int adopt(struct ends *ends, const struct options *options, struct error *error)
{
	static const uint8_t nothing[6];
	const struct vifront_info *info = channel_info(&ends->channel);
	bool told = memcmp(info->mac, nothing, 6) != 0;
	int err = tap_end_set_offload(&ends->tap, info->offload, error);

	if (!err && info->mtu != ends->mtu)
		err = tap_end_set_mtu(&ends->tap, info->mtu, error);
	ends->mtu = info->mtu;
	if (ends->channel.snet)
		ends->channel.send_queue = choose_queue(options->connect, info->queues);
	if (options->has_mac && told && memcmp(info->mac, options->mac, 6) != 0)
		say("warning: vifd expects another MAC address than that of --mac");
	if (!err && (options->has_mac || told))
		err = tap_end_set_mac(&ends->tap, options->has_mac ? options->mac : info->mac,
				      error);
	return err;
}

/* Tell systemd (sd_notify(3), one datagram) and whoever reads stderr. */
static void announce_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	say("ready");
	if (!path || !*path || strlen(path) >= sizeof(address.sun_path))
		return;
	strcpy(address.sun_path, path);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&address,
			     offsetof(struct sockaddr_un, sun_path) + strlen(path)) < 0)
		say("warning: systemd could not be told: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static int run(struct ends *ends, const struct options *options, struct error *error)
{
	int err = tap_end_open(&ends->tap, options->ifname, options->netns, error);

	if (!err)
		err = connect_to_vifd(ends, options, error);
	if (!err)
		err = adopt(ends, options, error);
	for (unsigned i = 0; !err && i < options->address_count; i++)
		err = tap_end_add(&ends->tap, &options->addresses[i], error);
	if (!err)
		err = tap_end_up(&ends->tap, error);
	if (!err)
		announce_ready();
	while (!err && !stopped) {
		carry(ends);
		if (ends->gone)
			return fail(error, -ENODEV, "interface '%s' has been deleted",
				    ends->tap.name);
		if (stopped)
			break;
		say("%s", channel_why(&ends->channel));
		tap_end_link(&ends->tap, false);
		err = connect_to_vifd(ends, options, error);
		if (!err)
			err = adopt(ends, options, error);
		if (!err) {
			tap_end_link(&ends->tap, true);
			say("connected again");
		}
	}
	return stopped ? 0 : err;
}

static void on_signal(int number)
{
	int saved = errno;

	stopped = 1;
	eventfd_write(stop_fd, 1);
	errno = saved;
}

static int prepare(const struct options *options, struct error *error)
{
	const struct sigaction action = { .sa_handler = on_signal };
	cpu_set_t cpus;

	stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (stop_fd < 0 || sigaction(SIGTERM, &action, NULL) || sigaction(SIGINT, &action, NULL))
		return fail(error, -errno, "signals: %s", strerror(errno));
	if (options->cpu < 0)
		return 0;
	CPU_ZERO(&cpus);
	CPU_SET(options->cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		return fail(error, -errno, "CPU %d: %s", options->cpu, strerror(errno));
	return 0;
}

int main(int argc, char **argv)
{
	static struct ends ends = { .tap = { .fd = -1, .sock = -1, .netlink = -1 } };
	struct options options = { .cpu = -1 };
	struct error error = { "" };
	int parsed = parse_options(argc, argv, &options), err;

	if (parsed)
		return parsed > 0 ? EXIT_SUCCESS : EXIT_USAGE;
	err = prepare(&options, &error);
	if (!err)
		err = run(&ends, &options, &error);
	if (err)
		say("%s", error.text);
	vifront_close(ends.channel.snet);
	vhost_front_free(ends.channel.vhost);
	tap_end_close(&ends.tap);
	return err ? EXIT_FAILURE : EXIT_SUCCESS;
}
