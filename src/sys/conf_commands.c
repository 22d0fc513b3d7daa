/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands of the grammar, as data: conf.c checks lines against this table, and usage and help
 * are made from it. */
#include "port/port.h"
#include "snet/snet_ring.h"
#include "sys/conf.h"

/* clang-format off */
#define OPTION(key, kind) .name = key, .type = kind
#define NAME(word)        { OPTION(word, CONF_NAME), .positional = true, .required = true }
#define ADDRESS           { OPTION("MAC", CONF_MAC), .positional = true, .required = true }
#define BRIDGE            { OPTION("bridge", CONF_NAME), .one_of = 2, .shown = "BRIDGE" }
#define DIRECT            { OPTION("direct", CONF_NAME), .one_of = 2, .shown = "PORT" }
#define INTERFACE(key)    { OPTION(key, CONF_IFNAME), .one_of = 1 }
#define CHANNEL(key)      { OPTION(key, CONF_SOCKET), .one_of = 1 }
#define QUEUES            { OPTION("queues", CONF_NUMBER), .min = 1, .max = PORT_QUEUES_MAX }
#define MTU               { OPTION("mtu", CONF_NUMBER), .min = 68, .max = 65535, .shown = "BYTES" }
#define MAC               { OPTION("mac", CONF_MAC) }
#define SPOOF             { OPTION("spoof", CONF_CHOICE), .choices = "off|strict" }
#define SWITCH(key)       { OPTION(key, CONF_SWITCH) }
#define LRO               { OPTION("lro", CONF_LRO) }
#define BO                { OPTION("bo", CONF_CHOICE), .choices = "off|on" }

const struct conf_command conf_commands[CMD_COUNT] = {
	[CMD_SET] = {
		.words = "set",
		.help = "workers and their CPUs (before start), and how long they spin when idle",
		.needs_option = true,
		.args = {
			[SET_WORKERS] = { OPTION("workers", CONF_NUMBER),
					  .min = 1, .max = WORKERS_MAX },
			[SET_CPUS] = { OPTION("cpus", CONF_CPUS) },
			[SET_IDLE_SPIN] = { OPTION("idle-spin", CONF_SPIN), .max = 1000000 },
			[SET_PAGES] = { OPTION("pages", CONF_CHOICE), .choices = "best|4k" },
		},
	},
	[CMD_BRIDGE_ADD] = {
		.words = "bridge add",
		.help = "make a learning bridge",
		.args = {
			[ARG_NAME] = NAME("NAME"),
			[BRIDGE_AGEING] = { OPTION("ageing", CONF_NUMBER),
					    .max = 1000000, .shown = "SECONDS" },
			[BRIDGE_FDB_MAX] = { OPTION("fdb-max", CONF_NUMBER),
					     .min = 64, .max = 1 << 20, .shown = "ENTRIES" },
			[BRIDGE_TOO_BIG] = { OPTION("too-big", CONF_CHOICE),
					     .choices = "on|off" },
		},
	},
	[CMD_BRIDGE_DEL] = {
		.words = "bridge del",
		.help = "remove a bridge that has no ports",
		.args = { [ARG_NAME] = NAME("NAME") },
	},
	[CMD_UPLINK_ADD] = {
		.words = "uplink add",
		.help = "put an interface on a bridge",
		.args = {
			[ARG_NAME] = NAME("NAME"),
			[UPLINK_TAP] = INTERFACE("tap"),
			[UPLINK_AF_PACKET] = INTERFACE("af-packet"),
			[UPLINK_AF_XDP] = INTERFACE("af-xdp"),
			[UPLINK_NETNS] = { OPTION("netns", CONF_PATH), .shown = "NAME|PATH" },
			[UPLINK_QUEUES] = QUEUES,
			[UPLINK_MTU] = MTU,
			[UPLINK_OFFLOAD] = { OPTION("offload", CONF_CHOICE),
					     .choices = "none|csum|csum+sg|all" },
			[UPLINK_XDP_MODE] = { OPTION("xdp-mode", CONF_CHOICE),
					      .choices = "auto|native|skb" },
			[UPLINK_BUFFERS] = { OPTION("buffers", CONF_CHOICE),
					     .choices = "mtu|page" },
			[UPLINK_LRO] = LRO,
			[UPLINK_BO] = BO,
			[UPLINK_BRIDGE] = BRIDGE,
			[UPLINK_DIRECT] = DIRECT,
		},
	},
	[CMD_UPLINK_SET] = {
		.words = "uplink set",
		.help = "change how an uplink merges what it receives",
		.needs_option = true,
		.args = {
			[ARG_NAME] = NAME("NAME"),
			[UPLINK_SET_LRO] = LRO,
			[UPLINK_SET_BO] = BO,
		},
	},
	[CMD_UPLINK_DEL] = {
		.words = "uplink del",
		.help = "remove an uplink",
		.args = { [ARG_NAME] = NAME("NAME") },
	},
	[CMD_GUEST_ADD] = {
		.words = "guest add",
		.help = "give a guest a network interface, at a vhost-user or snet socket",
		.args = {
			[ARG_NAME] = NAME("NAME"),
			[GUEST_VHOST_USER] = CHANNEL("vhost-user"),
			[GUEST_SNET] = CHANNEL("snet"),
			[GUEST_CLIENT] = SWITCH("client"),
			[GUEST_QUEUES] = QUEUES,
			[GUEST_MTU] = MTU,
			[GUEST_MAC] = MAC,
			[GUEST_SPOOF] = SPOOF,
			[GUEST_ISOLATED] = SWITCH("isolated"),
			[GUEST_MODE] = { OPTION("mode", CONF_MODE) },
			[GUEST_OFFLOAD] = { OPTION("offload", CONF_CHOICE), .choices = "off|on" },
			[GUEST_LRO] = LRO,
			[GUEST_TRUST] = { OPTION("trust", CONF_CHOICE),
					  .choices = "isolated|shared" },
			[GUEST_CHANNEL] = { OPTION("channel", CONF_CHOICE),
					    .choices = "zones|remap|flip" },
			[GUEST_RING] = { OPTION("ring", CONF_NUMBER), .min = SNET_RING_MIN,
					 .max = SNET_RING_MAX, .shown = "ENTRIES" },
			[GUEST_ENTRY] = { OPTION("entry", CONF_NUMBER), .min = SNET_ENTRY_MIN,
					  .max = SNET_ENTRY_MAX, .shown = "BYTES" },
			[GUEST_BRIDGE] = BRIDGE,
			[GUEST_DIRECT] = DIRECT,
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
			[GUEST_SET_LRO] = LRO,
		},
	},
	[CMD_GUEST_DEL] = {
		.words = "guest del",
		.help = "remove a guest's interface and its socket",
		.args = { [ARG_NAME] = NAME("NAME") },
	},
	[CMD_XEN] = {
		.words = "xen",
		.help = "serve the network interfaces of Xen guests",
		.args = {
			[XEN_BRIDGE] = { OPTION("bridge", CONF_NAME), .required = true,
					 .shown = "BRIDGE" },
			[XEN_TX] = { OPTION("tx", CONF_CHOICE), .choices = "copy|header|map" },
			[XEN_QUEUES] = QUEUES,
			[XEN_MTU] = MTU,
			[XEN_SPOOF] = SPOOF,
			[XEN_ISOLATED] = SWITCH("isolated"),
		},
	},
	[CMD_FDB_ADD] = {
		.words = "fdb add",
		.help = "pin an address to a port",
		.args = {
			[FDB_BRIDGE] = NAME("BRIDGE"),
			[FDB_MAC] = ADDRESS,
			[FDB_PORT] = NAME("PORT"),
		},
	},
	[CMD_FDB_DEL] = {
		.words = "fdb del",
		.help = "forget an address, learnt or pinned",
		.args = {
			[FDB_BRIDGE] = NAME("BRIDGE"),
			[FDB_MAC] = ADDRESS,
		},
	},
	[CMD_SHOW_BRIDGES] = {
		.words = "show bridges",
		.help = "bridges, their ports and how full their tables are",
	},
	[CMD_SHOW_PORTS] = {
		.words = "show ports",
		.help = "every port, and what it can take",
	},
	[CMD_SHOW_UPLINKS] = {
		.words = "show uplinks",
		.help = "uplinks and their interfaces",
	},
	[CMD_SHOW_GUESTS] = {
		.words = "show guests",
		.help = "guests: connection, features, rings, memory",
	},
	[CMD_SHOW_FDB] = {
		.words = "show fdb",
		.help = "which address is behind which port",
		.args = { [SHOW_ONE] = { OPTION("BRIDGE", CONF_NAME), .positional = true } },
	},
	[CMD_SHOW_STATS] = {
		.words = "show stats",
		.help = "counters of every port, every dropped packet under its reason",
		.args = { [SHOW_ONE] = { OPTION("PORT", CONF_NAME), .positional = true } },
	},
	[CMD_SHOW_LRO] = {
		.words = "show lro",
		.help = "how received packets are merged, how far, why not further, and the delay it adds",
		.args = { [SHOW_ONE] = { OPTION("PORT", CONF_NAME), .positional = true } },
	},
	[CMD_SHOW_MEMORY] = {
		.words = "show memory",
		.help = "memory that packets lie in, and the pages that it is on",
	},
	[CMD_SHOW_WORKERS] = {
		.words = "show workers",
		.help = "worker threads, what they poll and how they rest",
	},
	[CMD_PROFILE] = {
		.words = "profile",
		.help = "where the cycles go, by stage; reset starts a new measurement",
		.args = { [PROFILE_RESET] = { OPTION("reset", CONF_CHOICE), .choices = "reset",
					      .positional = true } },
	},
	[CMD_HELP] = {
		.words = "help",
		.help = "this list",
	},
};
/* clang-format on */
