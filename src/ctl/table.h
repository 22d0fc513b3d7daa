/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables for people, of cells that are text or of JSON. */
#ifndef VIFD_TABLE_H
#define VIFD_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { COLUMNS_MAX = 12, CELL_BYTES = 256 };

enum format {
	TEXT,
	NUMBER,
	COUNT,
	RATIO,
	YES,
	LIST,
	SECONDS,
	USEC,
	NSEC,
	ROLE,
	QUEUES,
	COUNTS,
	SIZE
};

struct column {
	const char *title;
	const char *key;
	enum format format;
};

struct cell {
	char text[CELL_BYTES];
};

/* Rows of cells; the first one may be titles. */
struct table {
	unsigned columns, rows;
	bool right[COLUMNS_MAX];
	struct cell *cells;
};

void table_init(struct table *table, unsigned columns);
/* A new row of empty cells, until the next one is asked for. */
struct cell *table_row(struct table *table);
/* Print the table on stdout, each line behind indent blanks, and free it. */
void table_print(struct table *table, unsigned indent);

/* Print a list of objects: a row each, under titles; columns end with one that has none, or are
 * COLUMNS_MAX. */
void print_rows(const json_t *rows, const struct column *columns, unsigned indent);

/* A member; "-", or 0: there is none. */
const char *text_of(const json_t *object, const char *key);
int64_t count_of(const json_t *object, const char *key);

/* Into a cell: 1234567 as "1,234,567"; */
void format_count(char *cell, int64_t count);
/* a size as the largest binary unit that divides it evenly, "512 MiB"; */
void format_size(char *cell, int64_t bytes);
/* a ratio, or "-" where there was nothing to divide by. */
void format_ratio(char *cell, const json_t *value, int decimals);
/* About three digits that count. */
int decimals_of(double value);

#endif
