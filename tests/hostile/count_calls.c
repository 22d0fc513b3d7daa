// SPDX-License-Identifier: BSD-3-Clause
/*
 * Counts what a program allocates and copies. Loaded with LD_PRELOAD in front of libc.
 *
 * The counters lie in the file named by COUNT_CALLS, for others to read while the program runs.
 * Copies are counted where the compiler calls the library, which it does for every copy whose
 * length it does not know.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Read by test_count.py. */
struct counters {
	_Atomic uint64_t allocations, copies, copied_bytes;
};

static struct counters nowhere, *counters = &nowhere;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t align, size_t size);

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("COUNT_CALLS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	void *at = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at != MAP_FAILED)
		counters = at;
	close(fd);
}

static void *allocated(void *memory)
{
	counters->allocations++;
	return memory;
}

void *malloc(size_t size)
{
	return allocated(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
	return allocated(__libc_calloc(count, size));
}

void *realloc(void *old, size_t size)
{
	return allocated(__libc_realloc(old, size));
}

void *aligned_alloc(size_t align, size_t size)
{
	return allocated(__libc_memalign(align, size));
}

int posix_memalign(void **memory, size_t align, size_t size)
{
	*memory = allocated(__libc_memalign(align, size));
	return *memory ? 0 : ENOMEM;
}

static void *copy(void *to, const void *from, size_t len)
{
	void *at = to;

	counters->copies++;
	counters->copied_bytes += len;
	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(len) : : "memory");
	return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t len)
{
	return copy(to, from, len);
}

void *__memcpy_chk(void *restrict to, const void *restrict from, size_t len, size_t room)
{
	return len <= room ? copy(to, from, len) : (abort(), NULL);
}

void *memmove(void *to, const void *from, size_t len)
{
	if (to <= from || (uint8_t *)to >= (uint8_t *)from + len)
		return copy(to, from, len);
	for (uint8_t *last = (uint8_t *)to + len; len--;)
		*--last = ((const uint8_t *)from)[len];
	return to;
}
