/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The parser of the grammar.
 *
 * Theory of operation. A line is cut into words in a copy of its own. The first words name a
 * command of the table (conf_commands.c); each word after them is an option when it has the form
 * key=value or is the key of a switch, and otherwise fills the next positional argument. A value is
 * checked by its type in one place, value_parse(). What comes out is complete and valid in itself;
 * whether the bridge exists is for commands.c to find out.
 *
 * Each sentence of an error says what was read and what would be right. A misspelt word is answered
 * with the nearest right one, if one is near (nearest()).
 */
#include "sys/conf.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <jansson.h>

#include "offload/lro.h"
#include "port/port.h"

enum { WORDS_MAX = 32, NEAR_BYTES = 32, HINT_BYTES = 256 };

#define BLANKS " \t\r\n"

/* Candidates for a misspelt word are offered one by one; the nearest is kept. */
struct nearest {
	const char *word;
	const char *best;
	unsigned distance;
};

static int split(char *text, char **words, struct error *error);
static const struct conf_command *command_find(char **words, int count, struct error *error);
static int command_unknown(char **words, int count, struct error *error);
static int arg_take(struct conf_line *line, char *word, struct error *error);
static int arg_find(const struct conf_line *line, const char *word, bool has_value);
static int option_unknown(const struct conf_command *command, const char *word, bool has_value,
			  struct error *error);
static int args_complete(const struct conf_line *line, struct error *error);
static int one_of_complete(const struct conf_line *line, int which, struct error *error);
static bool value_parse(const struct conf_arg *arg, const char *text, struct conf_value *value,
			char *hint);
static void nearest_offer(struct nearest *nearest, const char *candidate);
static void arg_usage(const struct conf_arg *arg, char *buf, size_t size);
static void one_of_usage(const struct conf_command *command, int which, const char *separator,
			 char *buf, size_t size);

static int arg_count(const struct conf_command *command)
{
	int count = 0;

	while (count < CONF_ARGS_MAX && command->args[count].name)
		count++;
	return count;
}

int conf_parse(const char *text, struct conf_line *line, struct error *error)
{
	char *words[WORDS_MAX];
	int count, used;

	memset(line, 0, sizeof(*line));
	if (strlen(text) >= sizeof(line->text))
		return fail(error, -EINVAL, "the line is longer than %d characters",
			    CONF_LINE_BYTES - 1);
	strcpy(line->text, text);

	count = split(line->text, words, error);
	if (count <= 0)
		return count;
	line->command = command_find(words, count, error);
	if (!line->command)
		return -EINVAL;

	used = strchr(line->command->words, ' ') ? 2 : 1;
	for (int i = used; i < count; i++)
		if (arg_take(line, words[i], error))
			return -EINVAL;
	return args_complete(line, error);
}

void conf_usage(const struct conf_command *command, char *buf, size_t size)
{
	char arg[HINT_BYTES];
	size_t len = (size_t)snprintf(buf, size, "%s", command->words);

	for (int i = 0; i < arg_count(command) && len < size; i++) {
		const char *format = command->args[i].required ? " %s" : " [%s]";

		int one_of = command->args[i].one_of;

		if (one_of) {
			if (command->args[i - 1].one_of == one_of)
				continue; /* shown with the first of them */
			one_of_usage(command, one_of, " | ", arg, sizeof(arg));
			format = strchr(arg, '|') ? " (%s)" : " %s";
		} else {
			arg_usage(&command->args[i], arg, sizeof(arg));
		}
		len += (size_t)snprintf(buf + len, size - len, format, arg);
	}
}

/* Cut text into words, in place. Returns how many, or -EINVAL. */
static int split(char *text, char **words, struct error *error)
{
	json_t *utf8 = json_string(text); /* what jansson takes can be answered and shown */
	char *in = text, *out = text;
	int count = 0;

	if (!utf8)
		return fail(error, -EINVAL, "the line is not valid UTF-8");
	json_decref(utf8);
	for (char *c = text; *c; c++)
		if (iscntrl((unsigned char)*c) && !strchr(BLANKS, *c))
			return fail(error, -EINVAL,
				    "the line contains a control character (0x%02x)", *c);

	for (;;) {
		bool quoted = false;

		in += strspn(in, BLANKS);
		if (!*in || *in == '#')
			return count;
		if (count == WORDS_MAX)
			return fail(error, -EINVAL, "the line has more than %d words", WORDS_MAX);
		words[count++] = out;
		while (*in && (quoted || !strchr(BLANKS, *in))) {
			if (*in == '"') {
				quoted = !quoted;
				in++;
				continue;
			}
			if (quoted && *in == '\\' && in[1])
				in++;
			*out++ = *in++;
		}
		if (quoted)
			return fail(error, -EINVAL, "a quote (\") is not closed");
		if (*in)
			in++; /* out may be here: the blank becomes the word's end */
		*out++ = 0;
	}
}

static const struct conf_command *command_find(char **words, int count, struct error *error)
{
	for (int id = 0; id < CMD_COUNT; id++) {
		const char *name = conf_commands[id].words;
		size_t first = strcspn(name, " ");

		if (strlen(words[0]) != first || strncmp(words[0], name, first) != 0)
			continue;
		if (!name[first] || (count > 1 && strcmp(words[1], name + first + 1) == 0))
			return &conf_commands[id];
	}
	command_unknown(words, count, error);
	return NULL;
}

/* The first words name no command: say which they may have meant, or which there are. */
static int command_unknown(char **words, int count, struct error *error)
{
	char pair[2 * NEAR_BYTES], follow[HINT_BYTES] = "";
	struct nearest nearest = { 0 };
	size_t len = 0;

	snprintf(pair, sizeof(pair), "%.*s%s%.*s", NEAR_BYTES - 1, words[0], count > 1 ? " " : "",
		 NEAR_BYTES - 1, count > 1 ? words[1] : "");
	for (int id = 0; id < CMD_COUNT; id++) {
		const char *name = conf_commands[id].words;
		size_t first = strcspn(name, " ");

		nearest.word = name[first] ? pair : words[0];
		nearest_offer(&nearest, name);
		if (name[first] && strlen(words[0]) == first && strncmp(words[0], name, first) == 0)
			len += (size_t)snprintf(follow + len, sizeof(follow) - len, "%s%s",
						len ? ", " : "", name + first + 1);
	}
	if (count == 1 && len)
		return fail(error, -EINVAL, "%s: say what, one of: %s", words[0], follow);
	if (nearest.best)
		return fail(error, -EINVAL, "unknown command '%s' (did you mean '%s'?)", pair,
			    nearest.best);
	if (len)
		return fail(error, -EINVAL, "unknown command '%s' (after '%s' comes one of: %s)",
			    pair, words[0], follow);
	return fail(error, -EINVAL, "unknown command '%.*s' ('help' lists the commands)",
		    NEAR_BYTES, words[0]);
}

/* One word after the command's own: an option, or the next positional argument. */
static int arg_take(struct conf_line *line, char *word, struct error *error)
{
	const struct conf_command *command = line->command;
	char *value = strchr(word, '=');
	char hint[HINT_BYTES];
	const struct conf_arg *arg;
	const char *text;
	int i;

	if (value)
		*value++ = 0;
	i = arg_find(line, word, value);
	if (i < 0)
		return option_unknown(command, word, value, error);
	arg = &command->args[i];
	if (line->values[i].given)
		return fail(error, -EINVAL, "%s: '%s' is given twice", command->words, word);
	if (!value && !arg->positional && arg->type != CONF_SWITCH) {
		arg_usage(arg, hint, sizeof(hint));
		return fail(error, -EINVAL, "%s: '%s' needs a value: %s", command->words, word,
			    hint);
	}

	text = arg->positional ? word : value ? value : "on";
	line->values[i].given = true;
	line->values[i].text = text;
	if (value_parse(arg, text, &line->values[i], hint))
		return 0;
	if (arg->positional)
		return fail(error, -EINVAL, "%s: '%.64s': %s", command->words, text, hint);
	return fail(error, -EINVAL, "%s: %s=%.64s: %s", command->words, arg->name, text, hint);
}

/* A bare word is the next positional argument that is missing; otherwise it must be an option's
 * key. */
static int arg_find(const struct conf_line *line, const char *word, bool has_value)
{
	for (int i = 0; i < arg_count(line->command); i++) {
		const struct conf_arg *arg = &line->command->args[i];

		if (arg->positional ? !has_value && !line->values[i].given
				    : strcmp(arg->name, word) == 0)
			return i;
	}
	return -1;
}

static int option_unknown(const struct conf_command *command, const char *word, bool has_value,
			  struct error *error)
{
	struct nearest nearest = { .word = word };
	char options[HINT_BYTES] = "";
	size_t len = 0;

	for (int i = 0; i < arg_count(command); i++) {
		const struct conf_arg *arg = &command->args[i];

		if (arg->positional && arg->type != CONF_CHOICE)
			continue;
		nearest_offer(&nearest, arg->name);
		len += (size_t)snprintf(options + len, sizeof(options) - len, "%s%s",
					len ? ", " : "", arg->name);
	}
	if (nearest.best)
		return fail(error, -EINVAL, "%s: unknown option '%.64s' (did you mean '%s'?)",
			    command->words, word, nearest.best);
	if (!has_value)
		return fail(error, -EINVAL, "%s: '%.64s' is one word too many", command->words,
			    word);
	if (!len)
		return fail(error, -EINVAL, "%s: unknown option '%.64s' (it has none)",
			    command->words, word);
	return fail(error, -EINVAL, "%s: unknown option '%.64s' (its options: %s)", command->words,
		    word, options);
}

static int args_complete(const struct conf_line *line, struct error *error)
{
	const struct conf_command *command = line->command;
	char usage[HINT_BYTES];
	bool any = false;

	for (int i = 0; i < arg_count(command); i++) {
		const struct conf_arg *arg = &command->args[i];

		any = any || (line->values[i].given && !arg->positional);
		if (!arg->required || line->values[i].given)
			continue;
		arg_usage(arg, usage, sizeof(usage));
		return fail(error, -EINVAL, "%s: %s is missing", command->words, usage);
	}
	if (command->needs_option && !any) {
		conf_usage(command, usage, sizeof(usage));
		return fail(error, -EINVAL, "%s: nothing to set: %s", command->words, usage);
	}
	for (int which = 1; which <= ONE_OFS; which++) {
		int err = one_of_complete(line, which, error);

		if (err)
			return err;
	}
	return 0;
}

static int one_of_complete(const struct conf_line *line, int which, struct error *error)
{
	const struct conf_command *command = line->command;
	char usage[HINT_BYTES];
	int marked = 0, given = 0;

	for (int i = 0; i < arg_count(command); i++) {
		if (command->args[i].one_of != which)
			continue;
		marked++;
		given += line->values[i].given;
	}
	if (!marked || given == 1)
		return 0;
	one_of_usage(command, which, " or ", usage, sizeof(usage));
	if (given)
		return fail(error, -EINVAL, "%s: give only one of %s", command->words, usage);
	return fail(error, -EINVAL, "%s: %s is missing", command->words, usage);
}

/* A decimal number of nothing but digits, from min to max. */
static bool number_parse(const char *text, int min, int max, int *number)
{
	char *end;
	long value;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	value = strtol(text, &end, 10);
	if (*end || errno || value < min || value > max)
		return false;
	*number = (int)value;
	return true;
}

static bool name_ok(const char *text, size_t max)
{
	size_t len = strlen(text);

	if (len == 0 || len > max || !isalnum((unsigned char)text[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("-_.", text[i]))
			return false;
	return true;
}

/* What the kernel's dev_valid_name() takes, and no '%', which the TUN driver would fill in. */
static bool ifname_ok(const char *text)
{
	size_t len = strlen(text);

	return len > 0 && len < IFNAMSIZ && strcmp(text, ".") != 0 && strcmp(text, "..") != 0 &&
	       strcspn(text, "/:% \t\r\n") == len;
}

static bool mac_parse(const char *text, uint8_t mac[6])
{
	uint8_t any = 0;

	for (int i = 0; i < 6; i++, text += 3) {
		if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]) ||
		    text[2] != (i < 5 ? ':' : 0))
			return false;
		mac[i] = (uint8_t)strtoul(text, NULL, 16);
		any |= mac[i];
	}
	return any && !(mac[0] & 1);
}

static bool choice_parse(const char *choices, const char *text, int *number)
{
	size_t len = strlen(text);

	for (*number = 0; *choices; (*number)++) {
		size_t choice = strcspn(choices, "|");

		if (choice == len && strncmp(choices, text, len) == 0)
			return true;
		choices += choice + (choices[choice] == '|');
	}
	return false;
}

/* "a|b|c" as "give a, b or c". */
static void choices_hint(const char *choices, char *hint)
{
	size_t len = (size_t)snprintf(hint, HINT_BYTES, "give ");

	for (const char *c = choices; *c && len < HINT_BYTES; c++) {
		const char *between = strchr(c + 1, '|') ? ", " : " or ";

		if (*c == '|')
			len += (size_t)snprintf(hint + len, HINT_BYTES - len, "%s", between);
		else
			len += (size_t)snprintf(hint + len, HINT_BYTES - len, "%c", *c);
	}
}

static bool mode_parse(const char *text, int *number)
{
	size_t len = strlen(text);

	if (len == 0 || len > 4 || strspn(text, "01234567") != len)
		return false;
	*number = (int)strtol(text, NULL, 8);
	return *number <= 0777;
}

static bool cpus_parse(const char *text, struct conf_value *value)
{
	const int cpu_max = 4095;

	while (*text) {
		char part[16];
		size_t len = strcspn(text, ",");
		int first, last;
		char *dash;

		if (len >= sizeof(part))
			return false;
		snprintf(part, sizeof(part), "%.*s", (int)len, text);
		dash = strchr(part, '-');
		if (dash)
			*dash = 0;
		if (!number_parse(part, 0, cpu_max, &first) ||
		    !number_parse(dash ? dash + 1 : part, first, cpu_max, &last))
			return false;
		if (last - first >= CONF_LIST_MAX - (int)value->list_count)
			return false;
		while (first <= last)
			value->list[value->list_count++] = first++;
		text += len;
		if (*text == ',' && !*++text)
			return false;
	}
	return value->list_count > 0;
}

/* "off", "poll", "every:K", "usec:T" or "auto": the mode, and its number in list[0]. */
static bool lro_parse(const char *text, struct conf_value *value)
{
	static const struct {
		const char *word;
		int max; /* of the number behind a colon; 0: there is none */
	} modes[] = {
		[LRO_OFF] = { "off" },
		[LRO_POLL] = { "poll" },
		[LRO_EVERY] = { "every", LRO_EVERY_MAX },
		[LRO_USEC] = { "usec", LRO_USEC_MAX },
		[LRO_AUTO] = { "auto" },
	};
	size_t len = strcspn(text, ":");

	for (value->number = 0; value->number <= LRO_AUTO; value->number++) {
		int max = modes[value->number].max;

		if (strlen(modes[value->number].word) != len ||
		    strncmp(modes[value->number].word, text, len) != 0)
			continue;
		if (!max)
			return !text[len];
		return text[len] && number_parse(text + len + 1, 1, max, &value->list[0]);
	}
	return false;
}

/* Check text by the argument's type; false: hint (HINT_BYTES) says what would be right. */
static bool value_parse(const struct conf_arg *arg, const char *text, struct conf_value *value,
			char *hint)
{
	const size_t path_max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

	switch (arg->type) {
	case CONF_NAME:
		snprintf(hint, HINT_BYTES,
			 "use 1 to %d letters, digits, '-', '_' or '.', a letter or digit first",
			 PORT_NAME_MAX - 1);
		return name_ok(text, PORT_NAME_MAX - 1);
	case CONF_IFNAME:
		snprintf(hint, HINT_BYTES,
			 "an interface name has 1 to %d characters, without '/', ':' or '%%'",
			 IFNAMSIZ - 1);
		return ifname_ok(text);
	case CONF_SOCKET:
		snprintf(hint, HINT_BYTES, "the path of a socket has 1 to %zu characters",
			 path_max);
		return text[0] && strlen(text) <= path_max;
	case CONF_PATH:
		snprintf(hint, HINT_BYTES, "give a name or a path");
		return text[0];
	case CONF_MAC:
		snprintf(hint, HINT_BYTES,
			 "give the address of one station, like 52:54:00:12:34:56 "
			 "(no group address, not zero)");
		return mac_parse(text, value->mac);
	case CONF_NUMBER:
		snprintf(hint, HINT_BYTES, "give a number from %d to %d", arg->min, arg->max);
		return number_parse(text, arg->min, arg->max, &value->number);
	case CONF_SWITCH:
		snprintf(hint, HINT_BYTES, "give on or off");
		return choice_parse("off|on", text, &value->number);
	case CONF_CHOICE:
		choices_hint(arg->choices, hint);
		return choice_parse(arg->choices, text, &value->number);
	case CONF_MODE:
		snprintf(hint, HINT_BYTES, "give permissions in octal, like 0660");
		return mode_parse(text, &value->number);
	case CONF_CPUS:
		snprintf(hint, HINT_BYTES, "give up to %d CPU numbers, like 0,1 or 2-5",
			 CONF_LIST_MAX);
		return cpus_parse(text, value);
	case CONF_SPIN:
		snprintf(hint, HINT_BYTES, "give auto, off or microseconds up to %d", arg->max);
		if (choice_parse("auto|off", text, &value->number)) {
			value->number--; /* -1, 0 */
			return true;
		}
		return number_parse(text, 0, arg->max, &value->number);
	case CONF_LRO:
		snprintf(hint, HINT_BYTES,
			 "give off, poll, auto, every:K (polls, up to %d) or usec:T (up to %d)",
			 LRO_EVERY_MAX, LRO_USEC_MAX);
		return lro_parse(text, value);
	case CONF_TYPES:
		break;
	}
	return false;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;

	return least < c ? least : c;
}

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal string
 * alignment). */
static unsigned edit_distance(const char *a, const char *b)
{
	unsigned rows[3][NEAR_BYTES + 1];
	size_t a_len = strlen(a), b_len = strlen(b);

	if (a_len > NEAR_BYTES || b_len > NEAR_BYTES)
		return UINT_MAX;
	for (unsigned j = 0; j <= b_len; j++)
		rows[0][j] = j;
	for (unsigned i = 1; i <= a_len; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i - 1) % 3],
			 *above2 = rows[(i + 1) % 3];

		row[0] = i;
		for (unsigned j = 1; j <= b_len; j++) {
			bool same = a[i - 1] == b[j - 1];

			row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + !same);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    above2[j - 2] + 1 < row[j])
				row[j] = above2[j - 2] + 1;
		}
	}
	return rows[a_len % 3][b_len];
}

/* Near is what differs in one letter of a short word, in two of a longer one, or what the word
 * begins. */
static void nearest_offer(struct nearest *nearest, const char *candidate)
{
	size_t len = strlen(nearest->word);
	unsigned distance = edit_distance(nearest->word, candidate);

	if (distance > (len > 3 ? 2 : 1)) {
		if (len < 3 || strncmp(nearest->word, candidate, len) != 0)
			return;
		distance = 2;
	}
	if (!nearest->best || distance < nearest->distance) {
		nearest->best = candidate;
		nearest->distance = distance;
	}
}

/* How an argument is written: "NAME", "queues=N", "client", "spoof=off|strict". */
static void arg_usage(const struct conf_arg *arg, char *buf, size_t size)
{
	static const char *const shown[CONF_TYPES] = {
		[CONF_NAME] = "NAME",
		[CONF_IFNAME] = "IFNAME",
		[CONF_SOCKET] = "PATH",
		[CONF_PATH] = "PATH",
		[CONF_MAC] = "MAC",
		[CONF_NUMBER] = "N",
		[CONF_SWITCH] = "on|off",
		[CONF_CHOICE] = "CHOICE",
		[CONF_MODE] = "0660",
		[CONF_CPUS] = "0,1,...",
		[CONF_SPIN] = "auto|off|USEC",
		[CONF_LRO] = "off|poll|every:K|usec:T|auto",
	};
	const char *value = arg->shown     ? arg->shown
			    : arg->choices ? arg->choices
					   : shown[arg->type];

	if (arg->positional)
		snprintf(buf, size, "%s", arg->name);
	else
		snprintf(buf, size, arg->type == CONF_SWITCH ? "%s[=%s]" : "%s=%s", arg->name,
			 value);
}

/* The arguments of which exactly one is required, "tap=IFNAME | af-packet=IFNAME". */
static void one_of_usage(const struct conf_command *command, int which, const char *separator,
			 char *buf, size_t size)
{
	char arg[HINT_BYTES];
	size_t len = 0;

	for (int i = 0; i < arg_count(command) && len < size; i++) {
		if (command->args[i].one_of != which)
			continue;
		arg_usage(&command->args[i], arg, sizeof(arg));
		len += (size_t)snprintf(buf + len, size - len, "%s%s", len ? separator : "", arg);
	}
}
