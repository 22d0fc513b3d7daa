/* SPDX-License-Identifier: BSD-3-Clause */
/* A sentence for the user that goes with a -errno: what was wrong, and what to do. Control path
 * only. */
#ifndef VIFD_ERROR_H
#define VIFD_ERROR_H

struct error {
	char text[512];
};

/* Write the sentence (printf format) and return code, so that callers can `return fail(error,
 * -EINVAL, ...)`. */
int fail(struct error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
