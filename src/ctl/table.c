/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tables of text.
 *
 * Theory of operation. Cells are gathered as text first, then printed as wide as each column needs:
 * text to the left, numbers to the right, nothing behind the last column.
 */
#include "ctl/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void table_init(struct table *table, unsigned columns)
{
	*table = (struct table){ .columns = columns };
}

struct cell *table_row(struct table *table)
{
	size_t row = (size_t)table->rows++ * table->columns;

	table->cells = realloc(table->cells, (row + table->columns) * sizeof(*table->cells));
	if (!table->cells) {
		fprintf(stderr, "vifctl: out of memory\n");
		exit(2);
	}
	memset(table->cells + row, 0, table->columns * sizeof(*table->cells));
	return table->cells + row;
}

void table_print(struct table *table, unsigned indent)
{
	int widths[COLUMNS_MAX] = { 0 };

	for (unsigned i = 0; i < table->rows * table->columns; i++) {
		int width = (int)strlen(table->cells[i].text);

		if (width > widths[i % table->columns])
			widths[i % table->columns] = width;
	}
	for (unsigned i = 0; i < table->rows * table->columns; i++) {
		unsigned column = i % table->columns;
		bool last = column == table->columns - 1;

		if (column == 0)
			printf("%*s", (int)indent, "");
		if (table->right[column])
			printf("%*s", widths[column], table->cells[i].text);
		else
			printf("%-*s", last ? 0 : widths[column], table->cells[i].text);
		fputs(last ? "\n" : "  ", stdout);
	}
	free(table->cells);
}

const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "-";
}

int64_t count_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

void format_count(char *cell, int64_t count)
{
	char digits[32];
	int len = snprintf(digits, sizeof(digits), "%" PRId64, count);
	int out = 0;

	for (int i = 0; i < len; i++) {
		cell[out++] = digits[i];
		if ((len - i) % 3 == 1 && i < len - 1 && digits[i] != '-')
			cell[out++] = ',';
	}
	cell[out] = 0;
}

void format_size(char *cell, int64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	unsigned unit = 0;

	while (bytes && bytes % 1024 == 0 && unit < 4) {
		bytes /= 1024;
		unit++;
	}
	snprintf(cell, CELL_BYTES, "%" PRId64 " %s", bytes, units[unit]);
}

/* The strings of a list, or of its objects' members port and queue, one after the other; "..." if
 * they do not fit. */
static void format_list(char *cell, const json_t *list, bool queues)
{
	size_t len = 0, i;
	const json_t *item;

	strcpy(cell, "-");
	json_array_foreach (list, i, item) {
		char text[CELL_BYTES];
		int need;

		if (queues)
			need = snprintf(text, sizeof(text), "%s:%" PRId64, text_of(item, "port"),
					count_of(item, "queue"));
		else
			need = snprintf(text, sizeof(text), "%s", json_string_value(item));
		if (len + (size_t)need + sizeof(" ...") >= CELL_BYTES) {
			strcpy(cell + len, " ...");
			return;
		}
		len += (size_t)sprintf(cell + len, "%s%s", len ? " " : "", text);
	}
}

int decimals_of(double value)
{
	return value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 4;
}

void format_ratio(char *cell, const json_t *value, int decimals)
{
	if (json_is_number(value))
		snprintf(cell, CELL_BYTES, "%.*f", decimals, json_number_value(value));
	else
		strcpy(cell, "-");
}

/* The members of an object that are not 0, "full 12 last 3". */
static void format_counts(char *cell, const json_t *object)
{
	size_t len = 0;
	const char *key;
	json_t *value;

	strcpy(cell, "-");
	json_object_foreach ((json_t *)object, key, value) {
		if (json_integer_value(value) && len < CELL_BYTES)
			len += (size_t)snprintf(cell + len, CELL_BYTES - len, "%s%s %" PRId64,
						len ? " " : "", key,
						(int64_t)json_integer_value(value));
	}
}

static void format_cell(char *cell, const json_t *value, enum format format)
{
	switch (format) {
	case TEXT:
		snprintf(cell, CELL_BYTES, "%s",
			 json_is_string(value) ? json_string_value(value) : "-");
		break;
	case NUMBER:
		if (json_is_integer(value))
			snprintf(cell, CELL_BYTES, "%" PRId64, (int64_t)json_integer_value(value));
		else
			strcpy(cell, "-");
		break;
	case COUNT:
		if (json_is_integer(value))
			format_count(cell, json_integer_value(value));
		else
			strcpy(cell, "-");
		break;
	case RATIO:
		format_ratio(cell, value, decimals_of(json_number_value(value)));
		break;
	case NSEC:
		if (json_is_integer(value))
			snprintf(cell, CELL_BYTES, "%.1f us", json_number_value(value) / 1000);
		else
			strcpy(cell, "-");
		break;
	case YES:
		strcpy(cell, json_is_true(value) ? "yes" : "-");
		break;
	case SECONDS:
		snprintf(cell, CELL_BYTES, "%" PRId64 " s", (int64_t)json_integer_value(value));
		break;
	case USEC:
		snprintf(cell, CELL_BYTES, "%.1f us", json_number_value(value));
		break;
	case ROLE:
		strcpy(cell, json_is_true(value) ? "uplink" : "guest");
		break;
	case LIST:
	case QUEUES:
		format_list(cell, value, format == QUEUES);
		break;
	case COUNTS:
		format_counts(cell, value);
		break;
	case SIZE:
		format_size(cell, json_integer_value(value));
		break;
	}
}

void print_rows(const json_t *rows, const struct column *columns, unsigned indent)
{
	struct table table;
	struct cell *cells;
	unsigned count = 0;
	size_t i;
	const json_t *row;

	while (count < COLUMNS_MAX && columns[count].title)
		count++;
	table_init(&table, count);
	cells = table_row(&table);
	for (unsigned c = 0; c < count; c++) {
		enum format format = columns[c].format;

		strcpy(cells[c].text, columns[c].title);
		table.right[c] = format == NUMBER || format == COUNT || format == SECONDS ||
				 format == USEC || format == NSEC || format == RATIO ||
				 format == SIZE;
	}
	json_array_foreach (rows, i, row) {
		cells = table_row(&table);
		for (unsigned c = 0; c < count; c++)
			format_cell(cells[c].text, json_object_get(row, columns[c].key),
				    columns[c].format);
	}
	table_print(&table, indent);
}
