/* SPDX-License-Identifier: BSD-3-Clause */
/* What the commands of the grammar do. Main thread only. */
#ifndef VIFD_COMMANDS_H
#define VIFD_COMMANDS_H

#include <jansson.h>
#include <stdbool.h>

#include "sys/error.h"

/*
 * Run one line of the grammar. at_start: from the start-up file or vifd's arguments, where workers
 * may still be set; the first uplink or guest starts them (command_start_workers()). 0, and in
 * *result what the command shows (a new reference; JSON null when it has nothing to show), or
 * -errno, a sentence in error, and nothing changed.
 */
int command_run(const char *line, bool at_start, json_t **result, struct error *error);

/* Run the lines of a start-up file in order. 0, or -errno and "FILE:LINE: what is wrong" of the
 * first bad one. */
int conf_load(const char *path, struct error *error);

/* Start the workers as set, unless they run already. 0, or -errno and a sentence. */
int command_start_workers(struct error *error);

#endif
