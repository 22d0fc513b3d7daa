/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages for the operator.
 *
 * Theory of operation. A message is one line on stderr, where a terminal shows it and a service
 * manager keeps it with a time of its own. The line is built on the stack and written with one
 * write(), so that lines of several threads do not mix and no lock is held while a slow terminal
 * takes one. Control characters are replaced: part of a message may be a name or a path that
 * someone else chose, and it must not be able to forge a second line.
 *
 * What a guest can cause again and again passes a token bucket first (log_allowed()), so that a
 * hostile guest can neither fill the disk nor hide what other guests do.
 */
#include "sys/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024, LIMIT_BURST = 10, LIMIT_INTERVAL_MS = 5000 };

static const char *const prefixes[] = {
	[LOG_LEVEL_ERROR] = "vifd: error: ",
	[LOG_LEVEL_WARN] = "vifd: warning: ",
	[LOG_LEVEL_INFO] = "vifd: ",
	[LOG_LEVEL_DEBUG] = "vifd: debug: ",
};

static _Atomic int level_shown = LOG_LEVEL_INFO;

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&level_shown, (int)level, memory_order_relaxed);
}

void log_at(enum log_level level, const char *format, ...)
{
	char line[LINE_MAX_BYTES];
	size_t start, len;
	va_list args;

	if ((int)level > atomic_load_explicit(&level_shown, memory_order_relaxed))
		return;

	start = strlen(strcpy(line, prefixes[level]));
	va_start(args, format);
	vsnprintf(line + start, sizeof(line) - start - 1, format, args);
	va_end(args);

	len = start + strlen(line + start);
	for (size_t i = start; i < len; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';
	if (write(STDERR_FILENO, line, len) < 0)
		return; /* nobody is left to be told */
}

bool log_allowed(struct log_limit *limit)
{
	uint64_t now = now_ms();

	if (limit->next_ms == 0) {
		limit->tokens = LIMIT_BURST;
		limit->next_ms = now + LIMIT_INTERVAL_MS;
	} else if (now >= limit->next_ms) {
		uint64_t gained = 1 + (now - limit->next_ms) / LIMIT_INTERVAL_MS;

		limit->next_ms += gained * LIMIT_INTERVAL_MS;
		limit->tokens = limit->tokens + gained < LIMIT_BURST
					? limit->tokens + (unsigned)gained
					: LIMIT_BURST;
	}

	if (limit->tokens == 0) {
		limit->suppressed++;
		return false;
	}
	limit->tokens--;
	if (limit->suppressed) {
		log_warn("%u messages like the next one were suppressed", limit->suppressed);
		limit->suppressed = 0;
	}
	return true;
}
