/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory that is taken away while we use it.
 *
 * Theory of operation. A front end keeps the file that it shared as guest memory and can truncate
 * it; the next access to the lost pages is a SIGBUS in whichever worker reads a ring or copies a
 * packet. Nothing in the protocol forbids it, and checking beforehand cannot exclude it. So the
 * signal's handler puts anonymous zero pages under the whole mapping, marks it lost, and lets the
 * access go on: the worker reads zeros, which are as bad as anything else a guest may write there,
 * and nobody else notices. The main thread finds the mark and disconnects that front end.
 *
 * A SIGBUS anywhere else is what it always was: fatal.
 *
 * The table of mappings is written by the main thread and read by handlers on any thread: a slot's
 * end is stored last and cleared first.
 */
#include "guest/guest_fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

enum { SLOTS = 8192 };

static struct slot {
	_Atomic uintptr_t start, end; /* end 0: free */
	_Atomic bool lost;
} slots[SLOTS];

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	int saved = errno;

	(void)context;
	for (unsigned i = 0; i < SLOTS; i++) {
		uintptr_t end = atomic_load(&slots[i].end), start = atomic_load(&slots[i].start);

		if (at < start || at >= end)
			continue;
		if (mmap((void *)start, end - start, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
			 0) == MAP_FAILED)
			break;
		atomic_store(&slots[i].lost, true);
		errno = saved;
		return;
	}
	/* Not ours: without a handler the access faults again and ends the process as it should. */
	struct sigaction fatal = { .sa_handler = SIG_DFL };

	sigaction(signal, &fatal, NULL);
}

static void install(void)
{
	static bool installed;
	struct sigaction action = { .sa_sigaction = on_sigbus,
				    .sa_flags = SA_SIGINFO | SA_RESTART };

	if (!installed)
		sigaction(SIGBUS, &action, NULL);
	installed = true;
}

int guest_fault_watch(void *addr, size_t len)
{
	install();
	for (int i = 0; i < SLOTS; i++) {
		if (atomic_load(&slots[i].end))
			continue;
		atomic_store(&slots[i].lost, false);
		atomic_store(&slots[i].start, (uintptr_t)addr);
		atomic_store(&slots[i].end, (uintptr_t)addr + len);
		return i;
	}
	return -ENOSPC;
}

void guest_fault_forget(int slot)
{
	atomic_store(&slots[slot].end, 0);
}

bool guest_fault_lost(int slot)
{
	return atomic_load(&slots[slot].lost);
}
