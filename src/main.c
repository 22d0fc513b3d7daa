/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vifd: configuration -> ports -> workers -> serve.
 *
 * The main thread runs the control plane: the event loop of control and vhost-user sockets, timers
 * and signals. The workers, started with the first port, carry the packets.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bridge/bridge.h"
#include "guest/snet_control.h"
#include "guest/vhost_user.h"
#include "guest/xen_backend.h"
#include "port/worker.h"
#include "sys/commands.h"
#include "sys/ctl_socket.h"
#include "sys/log.h"
#include "sys/loop.h"
#include "uplink/netif.h"

enum { TICK_MSEC = 250, EXIT_USAGE = 2, DEFAULT_MTU = 1500 };

struct options {
	const char *file;
	const char *control_socket;
	const char *socket_path; /* back-end program conventions */
	int fd;
	char **commands;
	int command_count;
};

static const char usage[] =
	"Usage: vifd [-c FILE] [-s CONTROL_SOCKET] [--log LEVEL] [COMMAND ...]\n"
	"       vifd --socket-path=PATH | --fd=N [COMMAND ...]\n"
	"       vifd --print-capabilities | --version | --help\n"
	"\n"
	"A network driver domain in user space: gives guests a paravirtual NIC, bridges them,\n"
	"and owns the uplinks.\n"
	"\n"
	"  -c, --config FILE        run the commands in FILE first, one a line\n"
	"  -s, --control-socket PATH  where vifctl connects (default " CTL_SOCKET_DEFAULT ")\n"
	"      --log LEVEL          error, warn, info (default) or debug\n"
	"      --socket-path PATH   serve one front end on this vhost-user socket, on bridge br0\n"
	"      --fd N               serve the front end that is connected to descriptor N\n"
	"      --print-capabilities as vhost-user back ends do, in JSON\n"
	"\n"
	"COMMANDs are those of vifctl and of the file, each one argument: 'bridge add br0'.\n"
	"See vifd(8), vifd.conf(5).\n";

static int bad_usage(const char *what, const char *arg)
{
	fprintf(stderr, "vifd: %s%s\nTry 'vifd --help'.\n", what, arg);
	return -EINVAL;
}

static int set_log_level(const char *name)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]) == 0) {
			log_set_level(i);
			return 0;
		}
	}
	return bad_usage("--log is error, warn, info or debug, not ", name);
}

/* 0 to go on, 1 when all is done, -EINVAL */
static int parse_options(int argc, char **argv, struct options *options)
{
	enum { OPT_LOG = 256, OPT_SOCKET_PATH, OPT_FD, OPT_CAPABILITIES, OPT_VERSION };
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "control-socket", required_argument, NULL, 's' },
		{ "log", required_argument, NULL, OPT_LOG },
		{ "socket-path", required_argument, NULL, OPT_SOCKET_PATH },
		{ "fd", required_argument, NULL, OPT_FD },
		{ "print-capabilities", no_argument, NULL, OPT_CAPABILITIES },
		{ "version", no_argument, NULL, OPT_VERSION },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	bool capabilities = false;
	char *end;
	int c;

	while ((c = getopt_long(argc, argv, "c:s:h", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			options->file = optarg;
			break;
		case 's':
			options->control_socket = optarg;
			break;
		case OPT_LOG:
			if (set_log_level(optarg))
				return -EINVAL;
			break;
		case OPT_SOCKET_PATH:
			options->socket_path = optarg;
			break;
		case OPT_FD:
			options->fd = strtol(optarg, &end, 10);
			if (*end || end == optarg || options->fd < 0)
				return bad_usage(
					"--fd needs the number of a connected socket, not ",
					optarg);
			break;
		case OPT_CAPABILITIES:
			capabilities = true;
			break;
		case OPT_VERSION:
			puts("vifd " VIFD_VERSION);
			return 1;
		case 'h':
			fputs(usage, stdout);
			return 1;
		default:
			return bad_usage("unknown or incomplete option", "");
		}
	}
	if (capabilities) {
		puts("{\n  \"type\": \"net\"\n}");
		return 1;
	}
	if (options->socket_path && options->fd >= 0)
		return bad_usage("--socket-path and --fd exclude each other", "");
	options->commands = argv + optind;
	options->command_count = argc - optind;
	return 0;
}

/* ---- the back-end program conventions (QEMU, interop/vhost-user) ---- */

static int serve_one_front_end(const struct options *options, struct error *error)
{
	struct vhost_user_config config = {
		.name = "guest0",
		.path = options->socket_path,
		.fd = options->fd,
		.pairs = 1,
		.mtu = DEFAULT_MTU,
		.mode = 0660,
	};
	struct bridge *bridge;
	struct port *port;
	int err = bridge_create("br0", 0, 0, &bridge, error);

	if (!err)
		err = command_start_workers(error);
	if (!err)
		err = vhost_user_open(&config, &port, error);
	if (!err)
		err = bridge_add_port(bridge, port, error);
	return err;
}

/* ---- running ---- */

static int configure(const struct options *options, struct error *error)
{
	int err = options->file ? conf_load(options->file, error) : 0;

	if (!err && (options->socket_path || options->fd >= 0))
		err = serve_one_front_end(options, error);
	for (int i = 0; !err && i < options->command_count; i++) {
		struct error why;
		json_t *result = NULL;

		err = command_run(options->commands[i], true, &result, &why);
		if (err)
			fail(error, err, "'%s': %s", options->commands[i], why.text);
		else
			json_decref(result);
	}
	return err ? err : command_start_workers(error);
}

static void on_tick(void *arg)
{
	static time_t ticked;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec != ticked) {
		ticked = now.tv_sec;
		bridge_tick(now.tv_sec);
		ports_tick();
	}
	workers_watchdog();
	vhost_user_tick();
	snet_tick();
	loop_add_timer(TICK_MSEC, on_tick, NULL);
}

static void on_signal(void *arg, uint32_t events)
{
	loop_quit();
}

/* SIGTERM and SIGINT end the loop; blocked here, before workers start, they are in every thread. */
static int watch_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);

	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);

	return fd < 0 ? -errno : loop_add_fd(fd, EPOLLIN, on_signal, NULL);
}

/* Tell systemd (sd_notify(3), one datagram) and whoever reads stderr. */
static void announce_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	fputs("vifd: ready\n", stderr);
	if (!path || !*path || strlen(path) >= sizeof(address.sun_path))
		return;
	strcpy(address.sun_path, path);
	if (path[0] == '@')
		address.sun_path[0] = '\0';

	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&address,
			     offsetof(struct sockaddr_un, sun_path) + strlen(path)) < 0)
		log_warn("systemd could not be told that vifd is ready: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void close_ports(void)
{
	for (unsigned id = 1; id < PORTS_MAX; id++) {
		struct port *port = port_by_id(id);

		if (!port)
			continue;
		bridge_remove_port(port);
		port_untie(port);
		worker_detach(port);
		port->ops->close(port);
	}
}

static int run(const struct options *options, struct error *error)
{
	/* A back end started for one front end is its starter's; a control socket only if told. */
	bool managed = options->socket_path || options->fd >= 0;
	const char *control = options->control_socket;
	int err = loop_init();

	if (!err)
		err = watch_signals();
	if (err)
		return fail(error, err, "cannot set up the event loop: %s", strerror(-err));
	if (!control && !managed)
		control = getenv("VIFD_SOCKET") ? getenv("VIFD_SOCKET") : CTL_SOCKET_DEFAULT;
	/* The control socket first: it tells whether another vifd has this place. */
	if (control)
		err = ctl_socket_open(control, error);
	if (err)
		return err;
	netif_restore_all();
	err = configure(options, error);
	if (!err) {
		on_tick(NULL);
		announce_ready();
		err = loop_run();
		if (err)
			fail(error, err, "the event loop failed: %s", strerror(-err));
	}
	close_ports();
	xen_backend_close();
	workers_stop();
	ctl_socket_close();
	return err;
}

int main(int argc, char **argv)
{
	struct options options = { .fd = -1 };
	struct error error = { "" };
	int parsed = parse_options(argc, argv, &options);

	if (parsed)
		return parsed > 0 ? EXIT_SUCCESS : EXIT_USAGE;
	if (run(&options, &error)) {
		fprintf(stderr, "vifd: %s\n", error.text);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
