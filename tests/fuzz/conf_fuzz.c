/* SPDX-License-Identifier: BSD-3-Clause */
/* The grammar's parser with any bytes. What it accepts must keep what conf.h promises to
 * commands.c. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "port/port.h"
#include "sys/conf.h"

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_value(const struct conf_arg *arg, const struct conf_value *value)
{
	if (!value->given) {
		require(!arg->required && !value->text && !value->number && !value->list_count);
		return;
	}
	require(value->text);
	switch (arg->type) {
	case CONF_NAME:
		require(value->text[0] && strlen(value->text) < PORT_NAME_MAX);
		break;
	case CONF_IFNAME:
		require(value->text[0] && strlen(value->text) < IFNAMSIZ &&
			!strchr(value->text, '/'));
		break;
	case CONF_SOCKET:
		require(value->text[0] && strlen(value->text) <= 107);
		break;
	case CONF_MAC:
		require(!(value->mac[0] & 1));
		break;
	case CONF_NUMBER:
		require(value->number >= arg->min && value->number <= arg->max);
		break;
	case CONF_CPUS:
		require(value->list_count > 0 && value->list_count <= CONF_LIST_MAX);
		break;
	case CONF_SPIN:
		require(value->number >= -1 && value->number <= arg->max);
		break;
	default:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1); /* of exactly this size, so that a read behind it is seen */
	struct conf_line line;
	struct error error = { "" };

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	if (conf_parse(text, &line, &error)) {
		require(error.text[0]);
	} else if (line.command) {
		require(line.command >= conf_commands && line.command < conf_commands + CMD_COUNT);
		for (int i = 0; i < CONF_ARGS_MAX && line.command->args[i].name; i++)
			check_value(&line.command->args[i], &line.values[i]);
	}
	free(text);
	return 0;
}
