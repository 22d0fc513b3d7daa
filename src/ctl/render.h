/* SPDX-License-Identifier: BSD-3-Clause */
/* Answers of vifd as tables for people. */
#ifndef VIFD_RENDER_H
#define VIFD_RENDER_H

#include <jansson.h>
#include <stdbool.h>

/* Print the result of command ("show ports"; what follows those words does not matter) on stdout.
 * all: counters that are zero, too. A result without a table of its own is printed as JSON, and
 * null not at all. */
void render(const char *command, const json_t *result, bool all);

#endif
