/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One end of a TCP connection, made by who starts this and inherited as a descriptor.
 *
 *      tcp_end write FD SIZE     write SIZE bytes at a time, without end
 *      tcp_end sendfile FD SIZE  the same from a file, by reference
 *      tcp_end read FD SIZE      read up to SIZE bytes at a time, to the end
 *      tcp_end discard FD SIZE   the same, but let the kernel throw them away
 *      tcp_end ping FD SIZE      write SIZE bytes, wait for as many, again and again
 *      tcp_end echo FD SIZE      the other end of that
 *
 * Ends when the connection does. Nothing is counted here: who made the connection asks the kernel
 * what it has carried (TCP_INFO), whenever he likes.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE_MAX_BYTES = 1 << 20 };

static char buffer[SIZE_MAX_BYTES];

static bool write_all(int fd, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t sent = write(fd, buffer + done, size - done);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		done += sent;
	}
	return true;
}

static bool send_file(int fd, int file, size_t size)
{
	for (off_t at = 0; at < (off_t)size;) {
		if (sendfile(fd, file, &at, size - at) <= 0 && errno != EINTR)
			return false;
	}
	return true;
}

/* flags: MSG_TRUNC for what nobody wants to see */
static bool read_some(int fd, size_t size, int flags, size_t *got)
{
	ssize_t len = recv(fd, buffer, size, flags);

	*got = len > 0 ? len : 0;
	return len > 0 || (len < 0 && errno == EINTR);
}

static bool read_all(int fd, size_t size)
{
	for (size_t done = 0, got; done < size; done += got) {
		if (!read_some(fd, size - done, 0, &got))
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	int fd = argc == 4 ? atoi(argv[2]) : -1;
	size_t size = argc == 4 ? strtoul(argv[3], NULL, 10) : 0, got;

	signal(SIGPIPE, SIG_IGN);
	if (fd < 0 || size == 0 || size > sizeof(buffer)) {
		fprintf(stderr, "usage: tcp_end write|sendfile|read|discard|ping|echo FD SIZE\n");
		return EXIT_FAILURE;
	}
	if (strcmp(argv[1], "write") == 0) {
		while (write_all(fd, size))
			;
	} else if (strcmp(argv[1], "read") == 0) {
		while (read_some(fd, size, 0, &got))
			;
	} else if (strcmp(argv[1], "discard") == 0) {
		while (read_some(fd, size, MSG_TRUNC, &got))
			;
	} else if (strcmp(argv[1], "sendfile") == 0) {
		int file = memfd_create("sendfile", MFD_CLOEXEC);

		if (file < 0 || !write_all(file, size))
			return EXIT_FAILURE;
		while (send_file(fd, file, size))
			;
	} else if (strcmp(argv[1], "ping") == 0) {
		while (write_all(fd, size) && read_all(fd, size))
			;
	} else if (strcmp(argv[1], "echo") == 0) {
		while (read_all(fd, size) && write_all(fd, size))
			;
	}
	return EXIT_SUCCESS;
}
