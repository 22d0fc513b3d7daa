/* SPDX-License-Identifier: BSD-3-Clause */
/* Between commands.c and port_commands.c: the commands that make, change and remove ports. */
#ifndef VIFD_PORT_COMMANDS_H
#define VIFD_PORT_COMMANDS_H

#include <jansson.h>

#include "bridge/bridge.h"
#include "sys/conf.h"
#include "sys/error.h"

/* One command; its values are in the order of its arguments in conf_commands. *result is JSON null
 * unless replaced. */
typedef int command_fn(const struct conf_value *values, json_t **result, struct error *error);

command_fn uplink_add, uplink_set, uplink_del, guest_add, guest_set, guest_del, xen_serve;

/* commands.c: the bridge of that name. NULL, and a sentence: there is none. */
struct bridge *bridge_find(const char *name, struct error *error);
/* Pin mac to port in the table of its bridge. 0, or -errno and a sentence. */
int fdb_pin(struct port *port, const uint8_t *mac, struct error *error);

#endif
