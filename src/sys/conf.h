/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The grammar: one line of text to one checked command. The start-up file, vifd's arguments, the
 * control socket and vifctl all speak it. Pure: reads its argument, writes its result, has no
 * effect.
 */
#ifndef VIFD_CONF_H
#define VIFD_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sys/error.h"

enum {
	CONF_LINE_BYTES = 2048, /* longest line, with its terminating 0 */
	CONF_ARGS_MAX = 20,     /* arguments of one command */
	CONF_LIST_MAX = 64,     /* numbers in a list */
	ONE_OFS = 2,            /* sets of which one is required, of one command */
};

enum conf_type {
	CONF_NAME,   /* of a bridge or port: text */
	CONF_IFNAME, /* of a network interface: text */
	CONF_SOCKET, /* path of a unix socket: text */
	CONF_PATH,   /* any other path, or a name that stands for one: text */
	CONF_MAC,    /* address of one station: mac */
	CONF_NUMBER, /* min <= number <= max */
	CONF_SWITCH, /* "key", "key=on": number 1; "key=off": 0 */
	CONF_CHOICE, /* one of choices "a|b|c": number is its index */
	CONF_MODE,   /* octal permissions: number */
	CONF_CPUS,   /* "0,2-3": list and list_count */
	CONF_SPIN,   /* "auto": number -1; "off": 0; else microseconds up to max */
	CONF_LRO,    /* number is the enum lro_mode, list[0] its value */
	CONF_TYPES
};

/* What a command takes. Positional arguments come first, in this order; options are key=value, in
 * any order. */
struct conf_arg {
	const char *name; /* the option's key; of a positional argument the word that usage shows */
	enum conf_type type;
	bool positional;
	bool required;
	/* 0: none; of those with the same number, which stand together, exactly one is required */
	unsigned char one_of;
	const char *shown; /* the value as usage shows it, when its type says too little */
	const char *choices;
	int min, max;
};

struct conf_command {
	const char *words; /* "guest add" */
	const char *help;  /* half a sentence */
	bool needs_option; /* without any option it would do nothing */
	struct conf_arg args[CONF_ARGS_MAX];
};

/* Commands, and the arguments of each by their place in conf_command.args and conf_line.values. */
enum conf_command_id {
	CMD_SET,
	CMD_BRIDGE_ADD,
	CMD_BRIDGE_DEL,
	CMD_UPLINK_ADD,
	CMD_UPLINK_SET,
	CMD_UPLINK_DEL,
	CMD_GUEST_ADD,
	CMD_GUEST_SET,
	CMD_GUEST_DEL,
	CMD_XEN,
	CMD_FDB_ADD,
	CMD_FDB_DEL,
	CMD_SHOW_BRIDGES,
	CMD_SHOW_PORTS,
	CMD_SHOW_UPLINKS,
	CMD_SHOW_GUESTS,
	CMD_SHOW_FDB,
	CMD_SHOW_STATS,
	CMD_SHOW_LRO,
	CMD_SHOW_MEMORY,
	CMD_SHOW_WORKERS,
	CMD_PROFILE,
	CMD_HELP,
	CMD_COUNT
};

enum { ARG_NAME }; /* of every add, set and del */
enum { SET_WORKERS, SET_CPUS, SET_IDLE_SPIN, SET_PAGES };
enum { BRIDGE_AGEING = ARG_NAME + 1, BRIDGE_FDB_MAX, BRIDGE_TOO_BIG };
enum {
	UPLINK_TAP = ARG_NAME + 1,
	UPLINK_AF_PACKET,
	UPLINK_AF_XDP,
	UPLINK_NETNS,
	UPLINK_QUEUES,
	UPLINK_MTU,
	UPLINK_OFFLOAD,
	UPLINK_XDP_MODE,
	UPLINK_BUFFERS,
	UPLINK_LRO,
	UPLINK_BO,
	UPLINK_BRIDGE,
	UPLINK_DIRECT
};
enum { UPLINK_SET_LRO = ARG_NAME + 1, UPLINK_SET_BO };
enum {
	GUEST_VHOST_USER = ARG_NAME + 1,
	GUEST_SNET,
	GUEST_CLIENT,
	GUEST_QUEUES,
	GUEST_MTU,
	GUEST_MAC,
	GUEST_SPOOF,
	GUEST_ISOLATED,
	GUEST_MODE,
	GUEST_OFFLOAD,
	GUEST_LRO,
	GUEST_TRUST,
	GUEST_CHANNEL,
	GUEST_RING,
	GUEST_ENTRY,
	GUEST_BRIDGE,
	GUEST_DIRECT
};
enum { GUEST_SET_ISOLATED = ARG_NAME + 1, GUEST_SET_SPOOF, GUEST_SET_MAC, GUEST_SET_LRO };
enum { XEN_BRIDGE, XEN_TX, XEN_QUEUES, XEN_MTU, XEN_SPOOF, XEN_ISOLATED };
enum { FDB_BRIDGE, FDB_MAC, FDB_PORT };
enum { SHOW_ONE }; /* show fdb: bridge, show stats and lro: port */
enum { PROFILE_RESET };

enum { PAGES_BEST, PAGES_4K };                                     /* choices of pages= */
enum { SPOOF_OFF, SPOOF_STRICT };                                  /* of spoof= */
enum { TRUST_ISOLATED, TRUST_SHARED };                             /* of trust= */
enum { CHANNEL_ZONES, CHANNEL_REMAP, CHANNEL_FLIP };               /* of channel= */
enum { OFFLOAD_NONE, OFFLOAD_CSUM, OFFLOAD_CSUM_SG, OFFLOAD_ALL }; /* of an uplink's offload= */
enum { BUFFERS_MTU, BUFFERS_PAGE };                                /* of buffers= */
enum { BO_OFF, BO_ON };                                            /* of bo= */
enum { TOO_BIG_ON, TOO_BIG_OFF };                                  /* of a bridge's too-big= */

struct conf_value {
	bool given;
	const char *text; /* as written; lives as long as the line */
	int number;
	uint8_t mac[6];
	int list[CONF_LIST_MAX];
	unsigned list_count;
};

struct conf_line {
	const struct conf_command *command; /* in conf_commands; NULL: only blanks and comment */
	struct conf_value values[CONF_ARGS_MAX];
	char text[CONF_LINE_BYTES];
};

extern const struct conf_command conf_commands[CMD_COUNT];

/*
 * Parse text into *line. Words are separated by blanks; "#" at the start of a word begins a
 * comment; "double quotes" hold blanks and "#", and within them a backslash keeps the next
 * character as it is. 0, or -EINVAL and in error what is wrong and what would be right, beginning
 * with the command's words when they are known.
 */
int conf_parse(const char *text, struct conf_line *line, struct error *error);

/* Write how a command is called, "bridge add NAME [ageing=SECONDS]", into buf of size bytes. */
void conf_usage(const struct conf_command *command, char *buf, size_t size);

#endif
