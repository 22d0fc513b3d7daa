/* SPDX-License-Identifier: BSD-3-Clause */
/* The grammar: what a line means, and what is said about one that means nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "offload/lro.h"
#include "sys/conf.h"

#include <cmocka.h> /* last: it has a fail() of its own */

static struct conf_line line;
static struct error error;

static const struct conf_value *parse(const char *text, enum conf_command_id id)
{
	int err = conf_parse(text, &line, &error);

	if (err)
		print_error("%s\n-> %s\n", text, error.text);
	assert_int_equal(err, 0);
	assert_ptr_equal(line.command, &conf_commands[id]);
	return line.values;
}

static void blank_lines_and_comments(void **state)
{
	const char *const texts[] = { "", "   \t ", "# bridge add br0", "  # x", "\n", "\r\n" };

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		assert_int_equal(conf_parse(texts[i], &line, &error), 0);
		assert_null(line.command);
	}
}

static void options_in_any_order(void **state)
{
	const struct conf_value *values = parse(
		" guest add web\tbridge=br0 isolated mac=52:54:00:aB:00:01 queues=16 spoof=strict "
		"vhost-user=/run/a#b.sock mode=0600 mtu=9000 client=off # a comment\r\n",
		CMD_GUEST_ADD);

	assert_string_equal(values[ARG_NAME].text, "web");
	assert_string_equal(values[GUEST_BRIDGE].text, "br0");
	assert_string_equal(values[GUEST_VHOST_USER].text, "/run/a#b.sock");
	assert_int_equal(values[GUEST_QUEUES].number, 16);
	assert_int_equal(values[GUEST_MTU].number, 9000);
	assert_int_equal(values[GUEST_MODE].number, 0600);
	assert_int_equal(values[GUEST_SPOOF].number, SPOOF_STRICT);
	assert_int_equal(values[GUEST_ISOLATED].number, 1);
	assert_true(values[GUEST_CLIENT].given);
	assert_int_equal(values[GUEST_CLIENT].number, 0);
	assert_memory_equal(values[GUEST_MAC].mac, "\x52\x54\x00\xab\x00\x01", 6);
}

static void what_is_not_given_is_zero(void **state)
{
	const struct conf_value *values = parse("uplink add wire tap=vif0 bridge=br0",
						CMD_UPLINK_ADD);

	assert_string_equal(values[UPLINK_TAP].text, "vif0");
	assert_false(values[UPLINK_QUEUES].given);
	assert_int_equal(values[UPLINK_MTU].number, 0);
	assert_null(values[UPLINK_NETNS].text);
}

static void quotes(void **state)
{
	const struct conf_value *values =
		parse("\"guest\" add web vhost-user=\"/run/my \\\"guest\\\" # 1\" bridge=\"br0\"",
		      CMD_GUEST_ADD);

	assert_string_equal(values[GUEST_VHOST_USER].text, "/run/my \"guest\" # 1");
	assert_string_equal(values[GUEST_BRIDGE].text, "br0");
}

static void a_port_may_be_called_like_an_option(void **state)
{
	const struct conf_value *values =
		parse("guest add client vhost-user=x client bridge=bridge", CMD_GUEST_ADD);

	assert_string_equal(values[ARG_NAME].text, "client");
	assert_int_equal(values[GUEST_CLIENT].number, 1);
	assert_string_equal(values[GUEST_BRIDGE].text, "bridge");
}

static void cpu_lists(void **state)
{
	const struct conf_value *cpus = &parse("set cpus=3,0-2,7-7", CMD_SET)[SET_CPUS];
	const int expected[] = { 3, 0, 1, 2, 7 };

	assert_int_equal(cpus->list_count, 5);
	assert_memory_equal(cpus->list, expected, sizeof(expected));
	assert_int_equal(parse("set cpus=0-63", CMD_SET)[SET_CPUS].list_count, 64);
}

static void lro(void **state)
{
	static const struct {
		const char *text;
		enum lro_mode mode;
		int value;
	} right[] = {
		{ "off", LRO_OFF, 0 },
		{ "poll", LRO_POLL, 0 },
		{ "every:2", LRO_EVERY, 2 },
		{ "every:1000", LRO_EVERY, 1000 },
		{ "usec:10000", LRO_USEC, 10000 },
		{ "auto", LRO_AUTO, 0 },
	};

	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		char line[64];

		snprintf(line, sizeof(line), "uplink set wire lro=%s", right[i].text);

		const struct conf_value *value = &parse(line, CMD_UPLINK_SET)[UPLINK_SET_LRO];

		assert_int_equal(value->number, right[i].mode);
		assert_int_equal(value->list[0], right[i].value);
	}
	assert_int_equal(parse("uplink set wire bo=off", CMD_UPLINK_SET)[UPLINK_SET_BO].number,
			 BO_OFF);
	assert_int_equal(parse("guest set web lro=poll", CMD_GUEST_SET)[GUEST_SET_LRO].number,
			 LRO_POLL);
}

static void idle_spin(void **state)
{
	assert_int_equal(parse("set idle-spin=auto", CMD_SET)[SET_IDLE_SPIN].number, -1);
	assert_int_equal(parse("set idle-spin=off", CMD_SET)[SET_IDLE_SPIN].number, 0);
	assert_int_equal(parse("set idle-spin=20", CMD_SET)[SET_IDLE_SPIN].number, 20);
}

static void optional_words(void **state)
{
	assert_null(parse("show stats", CMD_SHOW_STATS)[SHOW_ONE].text);
	assert_string_equal(parse("show stats web", CMD_SHOW_STATS)[SHOW_ONE].text, "web");
	assert_false(parse("profile", CMD_PROFILE)[PROFILE_RESET].given);
	assert_true(parse("profile reset", CMD_PROFILE)[PROFILE_RESET].given);
}

/* Each mistake, and the sentence that answers it. */
static void mistakes(void **state)
{
#define VHOST "vhost-user=/x bridge=b"
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "guest add web brige=br0",
		  "guest add: unknown option 'brige' (did you mean 'bridge'?)" },
		{ "guest add web vhost=/x",
		  "guest add: unknown option 'vhost' (did you mean 'vhost-user'?)" },
		{ "guest add web isolate " VHOST,
		  "guest add: unknown option 'isolate' (did you mean 'isolated'?)" },
		{ "bridge add br0 colour=red",
		  "bridge add: unknown option 'colour' (its options: ageing, fdb-max, too-big)" },
		{ "bridge del br0 x=1", "bridge del: unknown option 'x' (it has none)" },
		{ "bridge del br0 br1", "bridge del: 'br1' is one word too many" },
		{ "shwo ports", "unknown command 'shwo ports' (did you mean 'show ports'?)" },
		{ "show prots", "unknown command 'show prots' (did you mean 'show ports'?)" },
		{ "proflie reset", "unknown command 'proflie reset' (did you mean 'profile'?)" },
		{ "bridge remove br0",
		  "unknown command 'bridge remove' (after 'bridge' comes one of: add, del)" },
		{ "guest", "guest: say what, one of: add, set, del" },
		{ "reboot now", "unknown command 'reboot' ('help' lists the commands)" },
		{ "bridge add", "bridge add: NAME is missing" },
		{ "guest add web vhost-user=/x",
		  "guest add: bridge=BRIDGE or direct=PORT is missing" },
		{ "guest add web bridge=b", "guest add: vhost-user=PATH or snet=PATH is missing" },
		{ "guest add web snet=/x vhost-user=/y bridge=b",
		  "guest add: give only one of vhost-user=PATH or snet=PATH" },
		{ "uplink add wire tap=vif0 bridge=b direct=web",
		  "uplink add: give only one of bridge=BRIDGE or direct=PORT" },
		{ "guest add web snet=/x bridge=b trust=all",
		  "guest add: trust=all: give isolated or shared" },
		{ "guest add web snet=/x bridge=b channel",
		  "guest add: 'channel' needs a value: channel=zones|remap|flip" },
		{ "guest add web snet=/x bridge=b ring=8",
		  "guest add: ring=8: give a number from 16 to 4096" },
		{ "uplink add wire bridge=br0",
		  "uplink add: tap=IFNAME or af-packet=IFNAME or af-xdp=IFNAME is missing" },
		{ "guest add web mtu " VHOST, "guest add: 'mtu' needs a value: mtu=BYTES" },
		{ "guest add web mtu=1 mtu=2", "guest add: mtu=1: give a number from 68 to 65535" },
		{ "guest add web mtu=99 mtu=99", "guest add: 'mtu' is given twice" },
		{ "guest add web queues=0", "guest add: queues=0: give a number from 1 to 16" },
		{ "guest add web queues=17", "guest add: queues=17: give a number from 1 to 16" },
		{ "guest add web queues=2x", "guest add: queues=2x: give a number from 1 to 16" },
		{ "guest add web queues=-1", "guest add: queues=-1: give a number from 1 to 16" },
		{ "guest add web queues=99999999999999999999",
		  "guest add: queues=99999999999999999999: give a number from 1 to 16" },
		{ "guest add web spoof=on", "guest add: spoof=on: give off or strict" },
		{ "guest add web offload=none", "guest add: offload=none: give off or on" },
		{ "uplink add wire tap=a af-xdp=b bridge=br0",
		  "uplink add: give only one of tap=IFNAME or af-packet=IFNAME or af-xdp=IFNAME" },
		{ "uplink add wire offload=sg",
		  "uplink add: offload=sg: give none, csum, csum+sg or all" },
		{ "guest add web isolated=yes", "guest add: isolated=yes: give on or off" },
		{ "guest add web mode=0888",
		  "guest add: mode=0888: give permissions in octal, like 0660" },
		{ "guest add web mode=1777",
		  "guest add: mode=1777: give permissions in octal, like 0660" },
		{ "guest add web vhost-user=",
		  "guest add: vhost-user=: the path of a socket has 1 to 107 characters" },
		{ "guest add a/b",
		  "guest add: 'a/b': use 1 to 31 letters, digits, '-', '_' or '.', "
		  "a letter or digit first" },
		{ "guest add -x", "guest add: '-x': use 1 to 31 letters, digits, '-', '_' or '.', "
				  "a letter or digit first" },
		{ "uplink add wire tap=vif%d",
		  "uplink add: tap=vif%d: an interface name has 1 to 15 characters, without '/', ':' or '%'" },
		{ "fdb add br0 1:2:3 web",
		  "fdb add: '1:2:3': give the address of one station, like 52:54:00:12:34:56 "
		  "(no group address, not zero)" },
		{ "guest set web", "guest set: nothing to set: guest set NAME [isolated[=on|off]] "
				   "[spoof=off|strict] [mac=MAC] "
				   "[lro=off|poll|every:K|usec:T|auto]" },
		{ "set",
		  "set: nothing to set: set [workers=N] [cpus=0,1,...] [idle-spin=auto|off|USEC] [pages=best|4k]" },
		{ "set cpus=0,", "set: cpus=0,: give up to 64 CPU numbers, like 0,1 or 2-5" },
		{ "set cpus=3-1", "set: cpus=3-1: give up to 64 CPU numbers, like 0,1 or 2-5" },
		{ "set cpus=0-64", "set: cpus=0-64: give up to 64 CPU numbers, like 0,1 or 2-5" },
		{ "uplink set wire",
		  "uplink set: nothing to set: "
		  "uplink set NAME [lro=off|poll|every:K|usec:T|auto] [bo=off|on]" },
		{ "uplink set wire lro=every",
		  "uplink set: lro=every: give off, poll, auto, every:K (polls, up to 1000) "
		  "or usec:T (up to 10000)" },
		{ "uplink set wire lro=usec:10001",
		  "uplink set: lro=usec:10001: give off, poll, auto, every:K (polls, up to 1000) "
		  "or usec:T (up to 10000)" },
		{ "uplink set wire lro=auto:1",
		  "uplink set: lro=auto:1: give off, poll, auto, every:K (polls, up to 1000) "
		  "or usec:T (up to 10000)" },
		{ "set idle-spin=fast",
		  "set: idle-spin=fast: give auto, off or microseconds up to 1000000" },
		{ "profile restet", "profile: 'restet': give reset" },
		{ "bridge add \"br0", "a quote (\") is not closed" },
		{ "bridge add br0\x01", "the line contains a control character (0x01)" },
		{ "bridge add br\xff", "the line is not valid UTF-8" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		error.text[0] = 0;
		assert_true(conf_parse(cases[i].text, &line, &error) < 0);
		assert_string_equal(error.text, cases[i].says);
	}
}

static void addresses_of_stations_only(void **state)
{
	const char *const bad[] = {
		"01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff",    "00:00:00:00:00:00",
		"52:54:00:00:00",    "52:54:00:00:00:01:02", "52-54-00-00-00-01",
		"52:54:00:00:00:0g", "525400000001",         " "
	};
	char text[64];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "fdb del br0 \"%s\"", bad[i]);
		assert_true(conf_parse(text, &line, &error) < 0);
	}
}

static void limits(void **state)
{
	char text[CONF_LINE_BYTES + 2];

	/* The longest name, and one more letter. */
	parse("bridge add a123456789012345678901234567890", CMD_BRIDGE_ADD);
	assert_true(conf_parse("bridge add a1234567890123456789012345678901", &line, &error) < 0);

	/* The longest line, and one more blank. */
	memset(text, ' ', sizeof(text));
	memcpy(text, "help", 4);
	text[CONF_LINE_BYTES - 1] = 0;
	parse(text, CMD_HELP);
	text[CONF_LINE_BYTES - 1] = ' ';
	text[CONF_LINE_BYTES] = 0;
	assert_true(conf_parse(text, &line, &error) < 0);
	assert_string_equal(error.text, "the line is longer than 2047 characters");

	/* More words than any command takes. */
	for (size_t i = 0; i < CONF_LINE_BYTES - 1; i++)
		text[i] = i % 2 ? 'x' : ' ';
	text[CONF_LINE_BYTES - 1] = 0;
	assert_true(conf_parse(text, &line, &error) < 0);
	assert_string_equal(error.text, "the line has more than 32 words");
}

/* Commands and options are found by name: none may hide another, and usage must name all of
 * them. */
static void table_is_sound(void **state)
{
	for (int id = 0; id < CMD_COUNT; id++) {
		const struct conf_command *command = &conf_commands[id];
		char usage[512];

		assert_non_null(command->words);
		assert_non_null(command->help);
		for (int other = 0; other < id; other++)
			assert_string_not_equal(command->words, conf_commands[other].words);
		conf_usage(command, usage, sizeof(usage));
		assert_true(strlen(usage) < sizeof(usage) - 1);
		for (int i = 0; i < CONF_ARGS_MAX && command->args[i].name; i++) {
			assert_non_null(strstr(usage, command->args[i].name));
			if (i > 0 && command->args[i].positional)
				assert_true(command->args[i - 1].positional);
			if (command->args[i].type == CONF_CHOICE)
				assert_non_null(command->args[i].choices);
		}
	}
}

static void usage(void **state)
{
	char text[512];

	conf_usage(&conf_commands[CMD_UPLINK_ADD], text, sizeof(text));
	assert_string_equal(
		text,
		"uplink add NAME (tap=IFNAME | af-packet=IFNAME | af-xdp=IFNAME) "
		"[netns=NAME|PATH] [queues=N] [mtu=BYTES] [offload=none|csum|csum+sg|all] "
		"[xdp-mode=auto|native|skb] [buffers=mtu|page] "
		"[lro=off|poll|every:K|usec:T|auto] [bo=off|on] (bridge=BRIDGE | direct=PORT)");
	conf_usage(&conf_commands[CMD_PROFILE], text, sizeof(text));
	assert_string_equal(text, "profile [reset]");
	conf_usage(&conf_commands[CMD_UPLINK_ADD], text, 8); /* cut, not overrun */
	assert_string_equal(text, "uplink ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blank_lines_and_comments),
		cmocka_unit_test(options_in_any_order),
		cmocka_unit_test(what_is_not_given_is_zero),
		cmocka_unit_test(quotes),
		cmocka_unit_test(a_port_may_be_called_like_an_option),
		cmocka_unit_test(cpu_lists),
		cmocka_unit_test(lro),
		cmocka_unit_test(idle_spin),
		cmocka_unit_test(optional_words),
		cmocka_unit_test(mistakes),
		cmocka_unit_test(addresses_of_stations_only),
		cmocka_unit_test(limits),
		cmocka_unit_test(table_is_sound),
		cmocka_unit_test(usage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
