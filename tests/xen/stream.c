// SPDX-License-Identifier: BSD-3-Clause
/*
 * One TCP stream whose every byte is known from its place in it, so that the receiver can say that all is right, or
 * where it first was not. Cheaper under emulation than a random file and its digest.
 *
 *	stream recv PORT [FILE]		one connection; FILE always says how many bytes have come
 *	stream send ADDRESS PORT BYTES
 *
 * Both print "BYTES bytes, sum SUM" at the end. The exit status of recv is 1 if a byte was wrong.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORDS 8192

static void fail(const char *what)
{
	perror(what);
	exit(2);
}

/* The word at place i; neighbours differ in most of their bits. */
static inline uint64_t word_at(uint64_t i)
{
	uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u;

	return x ^ x >> 29;
}

static void fill(uint64_t *words, uint64_t first)
{
	for (uint64_t i = 0; i < WORDS; i++)
		words[i] = word_at(first + i);
}

/* Add the words to a sum in which their order counts. */
static uint64_t add(uint64_t sum, const uint64_t *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		sum = (sum << 1 | sum >> 63) + words[i];
	return sum;
}

static int send_stream(const char *address, int port, uint64_t bytes)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	static uint64_t words[WORDS];
	uint64_t sum = 0, sent = 0;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		fail(address);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	for (; sent < bytes; sent += sizeof(words)) {
		fill(words, sent / 8);
		for (size_t at = 0; at < sizeof(words);) {
			ssize_t len = write(fd, (char *)words + at, sizeof(words) - at);

			if (len < 0)
				fail("write");
			at += len;
		}
		sum = add(sum, words, WORDS);
	}
	printf("%llu bytes, sum %016llx\n", (unsigned long long)sent, (unsigned long long)sum);
	return 0;
}

static int accept_one(int port)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, client;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 1))
		fail("listen");
	client = accept(fd, NULL, NULL);
	if (client < 0)
		fail("accept");
	close(fd);
	return client;
}

/* A full buffer of words, or what there was before the end. */
static size_t read_full(int fd, void *buf, size_t size)
{
	size_t got = 0;

	while (got < size) {
		ssize_t len = read(fd, (char *)buf + got, size - got);

		if (len < 0)
			fail("read");
		if (len == 0)
			break;
		got += len;
	}
	return got;
}

static void tell(int fd, uint64_t bytes)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)bytes);

	if (fd >= 0 && pwrite(fd, text, len, 0) < 0)
		fail("progress");
}

static int recv_stream(int port, const char *progress)
{
	static uint64_t words[WORDS], want[WORDS];
	int wrong = 0, told = progress ? open(progress, O_CREAT | O_TRUNC | O_WRONLY, 0644) : -1,
	    fd;
	uint64_t sum = 0, got = 0;
	size_t len;

	tell(told, 0);
	fd = accept_one(port);
	while ((len = read_full(fd, words, sizeof(words))) > 0) {
		fill(want, got / 8);
		if (!wrong && memcmp(words, want, len)) {
			printf("wrong within 64 KiB from byte %llu\n", (unsigned long long)got);
			wrong = 1;
		}
		sum = add(sum, words, len / 8);
		got += len;
		tell(told, got);
	}
	printf("%llu bytes, sum %016llx\n", (unsigned long long)got, (unsigned long long)sum);
	return wrong;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "send"))
		return send_stream(argv[2], atoi(argv[3]), strtoull(argv[4], NULL, 0));
	if (argc >= 3 && !strcmp(argv[1], "recv"))
		return recv_stream(atoi(argv[2]), argv[3]);
	fputs("usage: stream recv PORT [FILE] | stream send ADDRESS PORT BYTES\n", stderr);
	return 2;
}
