/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vifctl: the command line of a running vifd.
 *
 * Theory of operation. The words of the command become one line of the grammar, which goes to
 * vifd's control socket and comes back as one line of JSON. vifctl knows no command: what is right
 * and what a mistake is called are vifd's to say. It only knows how answers look best (render.c).
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/render.h"
#include "sys/conf.h"
#include "sys/ctl_socket.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

struct options {
	const char *socket;
	bool json;
	bool all;
};

static const char usage[] =
	"Usage: vifctl [-s SOCKET] [-j] [-a] COMMAND ...\n"
	"\n"
	"  -s, --socket SOCKET  control socket of vifd; unless given, $VIFD_SOCKET of the environment,\n"
	"                       or else " CTL_SOCKET_DEFAULT "\n"
	"  -j, --json           print the answer as JSON\n"
	"  -a, --all            show counters that are zero, too\n"
	"      --version        print the version\n"
	"  -h, --help           print this\n"
	"\n"
	"'vifctl help' lists the commands of the running vifd. See vifctl(8).\n";

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *format, ...)
{
	va_list args;

	fputs("vifctl: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(EXIT_USAGE);
}

static void parse_options(int argc, char **argv, struct options *options)
{
	enum { OPT_VERSION = 256 };
	static const struct option longs[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'j' },
		{ "all", no_argument, NULL, 'a' },
		{ "version", no_argument, NULL, OPT_VERSION },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "s:jah", longs, NULL)) != -1) {
		switch (c) {
		case 's':
			options->socket = optarg;
			break;
		case 'j':
			options->json = true;
			break;
		case 'a':
			options->all = true;
			break;
		case OPT_VERSION:
			puts("vifctl " VIFD_VERSION);
			exit(EXIT_SUCCESS);
		case 'h':
			fputs(usage, stdout);
			exit(EXIT_SUCCESS);
		default:
			exit(EXIT_USAGE);
		}
	}
	if (optind == argc) {
		fputs(usage, stderr);
		exit(EXIT_USAGE);
	}
}

/* Append one character to line if there is room for it and the newline. */
static void line_add(char *line, size_t *len, char c)
{
	if (*len >= CONF_LINE_BYTES - 1)
		die("the command is longer than %d characters", CONF_LINE_BYTES - 1);
	line[(*len)++] = c;
}

/*
 * The words as one line. One argument alone is taken as typed, so that 'vifctl "show ports"' works;
 * of several, those that would not be read back as the same word are quoted.
 */
static size_t make_line(char **words, int count, char *line)
{
	size_t len = 0;

	for (int i = 0; i < count; i++) {
		bool quote = count > 1 && (!*words[i] || strpbrk(words[i], " \t\"#"));

		if (i > 0)
			line_add(line, &len, ' ');
		if (quote)
			line_add(line, &len, '"');
		for (const char *c = words[i]; *c; c++) {
			if (*c == '\n')
				die("a command is one line");
			if (quote && (*c == '"' || *c == '\\'))
				line_add(line, &len, '\\');
			line_add(line, &len, *c);
		}
		if (quote)
			line_add(line, &len, '"');
	}
	line[len++] = '\n';
	return len;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		die("the socket's path is longer than %zu characters: %s",
		    sizeof(address.sun_path) - 1, path);
	strcpy(address.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("cannot reach vifd at %s: %s%s", path, strerror(errno),
		    errno == ENOENT || errno == ECONNREFUSED
			    ? " (is it running? -s names another socket)"
			    : "");
	return fd;
}

/* Send the line and wait for the answer, which is a line as well. */
static json_t *ask(int fd, const char *line, size_t len)
{
	FILE *answer = fdopen(fd, "r");
	json_error_t where;
	char *text = NULL;
	size_t size = 0;
	json_t *root;

	for (size_t sent = 0; sent < len;) {
		ssize_t n = send(fd, line + sent, len - sent, MSG_NOSIGNAL);

		if (n < 0)
			break; /* vifd may have said why, and hung up */
		sent += (size_t)n;
	}
	if (!answer || getline(&text, &size, answer) < 0)
		die("vifd hung up without an answer");
	root = json_loads(text, 0, &where);
	if (!json_is_object(root))
		die("vifd's answer makes no sense: %s", root ? "no object" : where.text);
	free(text);
	fclose(answer);
	return root;
}

int main(int argc, char **argv)
{
	const char *environment = getenv("VIFD_SOCKET");
	struct options options = { .socket = environment && *environment ? environment
									 : CTL_SOCKET_DEFAULT };
	char line[CONF_LINE_BYTES];
	json_t *answer, *result;
	size_t len;

	parse_options(argc, argv, &options);
	len = make_line(argv + optind, argc - optind, line);
	answer = ask(connect_to(options.socket), line, len);
	if (!json_is_true(json_object_get(answer, "ok"))) {
		const char *text = json_string_value(json_object_get(answer, "error"));

		fprintf(stderr, "vifctl: %s\n", text ? text : "vifd refused, and does not say why");
		json_decref(answer);
		return EXIT_REFUSED;
	}

	result = json_object_get(answer, "result");
	if (options.json) {
		json_dumpf(result, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
		putchar('\n');
	} else {
		line[len - 1] = 0;
		render(line + strspn(line, " \t"), result, options.all);
	}
	json_decref(answer);
	if (fflush(stdout) != 0)
		die("cannot write the answer: %s", strerror(errno));
	return EXIT_SUCCESS;
}
