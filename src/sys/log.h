/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages for the operator, one line each on stderr: "vifd: guest web: ..." . Never on the
 * per-packet path. */
#ifndef VIFD_LOG_H
#define VIFD_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Show messages up to level; LOG_LEVEL_INFO until told otherwise. */
void log_set_level(enum log_level level);
void log_at(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* For messages a guest can cause: at most burst lines at once and one every interval_ms, the rest
 * are counted and the count is told with the next line. */
struct log_limit {
	uint64_t next_ms;
	unsigned tokens;
	unsigned suppressed;
};
/* True when the caller may log its line now. A zeroed limit is ready for use; callers of one limit
 * take turns. */
bool log_allowed(struct log_limit *limit);

#endif
