/* SPDX-License-Identifier: BSD-3-Clause */
/* The log: what a line looks like, which are shown, and how many a guest can cause. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys/log.h"

static char said[8192];
static int out[2], stderr_was;

/* Stderr goes into a pipe between begin() and heard(). */
static void begin(void)
{
	assert_int_equal(pipe(out), 0);
	stderr_was = dup(STDERR_FILENO);
	dup2(out[1], STDERR_FILENO);
	close(out[1]);
}

static const char *heard(void)
{
	size_t len = 0;
	ssize_t n;

	dup2(stderr_was, STDERR_FILENO); /* the last writer is gone */
	close(stderr_was);
	while ((n = read(out[0], said + len, sizeof(said) - 1 - len)) > 0)
		len += (size_t)n;
	close(out[0]);
	said[len] = 0;
	return said;
}

static void lines_and_levels(void **state)
{
	begin();
	log_error("disk %d", 1);
	log_warn("warm");
	log_info("guest %s: here", "web");
	log_debug("not shown");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("shown");
	log_set_level(LOG_LEVEL_ERROR);
	log_warn("not shown");
	log_set_level(LOG_LEVEL_INFO);
	assert_string_equal(heard(),
			    "vifd: error: disk 1\nvifd: warning: warm\nvifd: guest web: here\n"
			    "vifd: debug: shown\n");
}

static void a_name_forges_no_line(void **state)
{
	begin();
	log_info("guest %s", "x\nvifd: error: all is lost\x1b[2J\x7f");
	assert_string_equal(heard(), "vifd: guest x?vifd: error: all is lost?[2J?\n");
}

static void long_lines_are_cut(void **state)
{
	char text[4096];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = 0;
	begin();
	log_info("%s", text);
	heard();
	assert_in_range(strlen(said), 500, 1024);
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

static void a_guest_is_heard_now_and_then(void **state)
{
	struct log_limit limit = { 0 };
	unsigned allowed = 0;

	begin();
	for (unsigned i = 0; i < 1000; i++)
		allowed += log_allowed(&limit);
	assert_string_equal(heard(), "");
	assert_in_range(allowed, 2, 50);
	assert_int_equal(limit.suppressed, 1000 - allowed);

	/* An interval later one more may be said, and how many were not is told with it. */
	limit.next_ms = 1;
	limit.tokens = 0;
	limit.suppressed = 990;
	begin();
	assert_true(log_allowed(&limit));
	assert_string_equal(heard(),
			    "vifd: warning: 990 messages like the next one were suppressed\n");
	assert_int_equal(limit.suppressed, 0);
	/* Silence saves up no more than the first burst. */
	allowed = 1;
	while (log_allowed(&limit))
		allowed++;
	assert_in_range(allowed, 2, 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_and_levels),
		cmocka_unit_test(a_name_forges_no_line),
		cmocka_unit_test(long_lines_are_cut),
		cmocka_unit_test(a_guest_is_heard_now_and_then),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
