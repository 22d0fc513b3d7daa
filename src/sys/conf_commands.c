/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands of the grammar, as data: conf.c checks lines against this table, and usage and help are made from it. */
#include "port/port.h"
#include "sys/conf.h"

#define NAME(word)  {.name = word, .type = CONF_NAME, .positional = true, .required = true}
#define BRIDGE      {.name = "bridge", .type = CONF_NAME, .required = true, .shown = "BRIDGE"}
#define QUEUES      {.name = "queues", .type = CONF_NUMBER, .min = 1, .max = PORT_QUEUES_MAX}
#define MTU         {.name = "mtu", .type = CONF_NUMBER, .min = 68, .max = 65535, .shown = "BYTES"}
#define MAC         {.name = "mac", .type = CONF_MAC}
#define SPOOF       {.name = "spoof", .type = CONF_CHOICE, .choices = "off|strict"}
#define SWITCH(key) {.name = key, .type = CONF_SWITCH}

/* clang-format off */
const struct conf_command conf_commands[CMD_COUNT] = {
	[CMD_SET] = {
		.words = "set",
		.help = "worker threads and where they run (before start), and how long they spin when idle",
		.needs_option = true,
		.args = {
			[SET_WORKERS] = {.name = "workers", .type = CONF_NUMBER, .min = 1, .max = WORKERS_MAX},
			[SET_CPUS] = {.name = "cpus", .type = CONF_CPUS},
			[SET_IDLE_SPIN] = {.name = "idle-spin", .type = CONF_SPIN, .max = 1000000},
		},
	},
	[CMD_BRIDGE_ADD] = {
		.words = "bridge add",
		.help = "make a learning bridge",
		.args = {
			[ARG_NAME] = NAME("NAME"),
			[BRIDGE_AGEING] = {.name = "ageing", .type = CONF_NUMBER, .max = 1000000, .shown = "SECONDS"},
			[BRIDGE_FDB_MAX] = {.name = "fdb-max", .type = CONF_NUMBER, .min = 64, .max = 1 << 20,
					    .shown = "ENTRIES"},
		},
	},
	[CMD_BRIDGE_DEL] = {
		.words = "bridge del",
		.help = "remove a bridge that has no ports",
		.args = {[ARG_NAME] = NAME("NAME")},
	},
	[CMD_UPLINK_ADD] = {
		.words = "uplink add",
		.help = "put a TAP interface on a bridge",
		.args = {
			[ARG_NAME] = NAME("NAME"),
			[UPLINK_TAP] = {.name = "tap", .type = CONF_IFNAME, .required = true},
			[UPLINK_NETNS] = {.name = "netns", .type = CONF_PATH, .shown = "NAME|PATH"},
			[UPLINK_QUEUES] = QUEUES,
			[UPLINK_MTU] = MTU,
			[UPLINK_BRIDGE] = BRIDGE,
		},
	},
	[CMD_UPLINK_DEL] = {
		.words = "uplink del",
		.help = "remove an uplink",
		.args = {[ARG_NAME] = NAME("NAME")},
	},
	[CMD_GUEST_ADD] = {
		.words = "guest add",
		.help = "give a guest a network interface, at a vhost-user socket",
		.args = {
			[ARG_NAME] = NAME("NAME"),
			[GUEST_VHOST_USER] = {.name = "vhost-user", .type = CONF_SOCKET, .required = true},
			[GUEST_CLIENT] = SWITCH("client"),
			[GUEST_QUEUES] = QUEUES,
			[GUEST_MTU] = MTU,
			[GUEST_MAC] = MAC,
			[GUEST_SPOOF] = SPOOF,
			[GUEST_ISOLATED] = SWITCH("isolated"),
			[GUEST_MODE] = {.name = "mode", .type = CONF_MODE},
			[GUEST_BRIDGE] = BRIDGE,
		},
	},
	[CMD_GUEST_SET] = {
		.words = "guest set",
		.help = "change what a guest may do",
		.needs_option = true,
		.args = {
			[ARG_NAME] = NAME("NAME"),
			[GUEST_SET_ISOLATED] = SWITCH("isolated"),
			[GUEST_SET_SPOOF] = SPOOF,
			[GUEST_SET_MAC] = MAC,
		},
	},
	[CMD_GUEST_DEL] = {
		.words = "guest del",
		.help = "remove a guest's interface and its socket",
		.args = {[ARG_NAME] = NAME("NAME")},
	},
	[CMD_FDB_ADD] = {
		.words = "fdb add",
		.help = "pin an address to a port",
		.args = {
			[FDB_BRIDGE] = NAME("BRIDGE"),
			[FDB_MAC] = {.name = "MAC", .type = CONF_MAC, .positional = true, .required = true},
			[FDB_PORT] = NAME("PORT"),
		},
	},
	[CMD_FDB_DEL] = {
		.words = "fdb del",
		.help = "forget an address, learnt or pinned",
		.args = {
			[FDB_BRIDGE] = NAME("BRIDGE"),
			[FDB_MAC] = {.name = "MAC", .type = CONF_MAC, .positional = true, .required = true},
		},
	},
	[CMD_SHOW_BRIDGES] = {.words = "show bridges", .help = "bridges, their ports and how full their tables are"},
	[CMD_SHOW_PORTS] = {.words = "show ports", .help = "every port, and what it can take"},
	[CMD_SHOW_UPLINKS] = {.words = "show uplinks", .help = "uplinks and their interfaces"},
	[CMD_SHOW_GUESTS] = {.words = "show guests", .help = "guests: connection, features, rings, memory"},
	[CMD_SHOW_FDB] = {
		.words = "show fdb",
		.help = "which address is behind which port",
		.args = {[SHOW_ONE] = {.name = "BRIDGE", .type = CONF_NAME, .positional = true}},
	},
	[CMD_SHOW_STATS] = {
		.words = "show stats",
		.help = "counters of every port, every dropped packet under its reason",
		.args = {[SHOW_ONE] = {.name = "PORT", .type = CONF_NAME, .positional = true}},
	},
	[CMD_SHOW_WORKERS] = {.words = "show workers", .help = "worker threads, what they poll and how they rest"},
	[CMD_PROFILE] = {
		.words = "profile",
		.help = "where the cycles go, by stage; reset starts a new measurement",
		.args = {[PROFILE_RESET] = {.name = "reset", .type = CONF_CHOICE, .choices = "reset", .positional = true}},
	},
	[CMD_HELP] = {.words = "help", .help = "this list"},
};
/* clang-format on */
