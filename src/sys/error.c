/* SPDX-License-Identifier: BSD-3-Clause */
/* A sentence for the user beside a -errno. A sentence that does not fit is cut; it never fails
 * itself. */
#include "sys/error.h"

#include <stdarg.h>
#include <stdio.h>

int fail(struct error *error, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	return code;
}
