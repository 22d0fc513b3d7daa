/* SPDX-License-Identifier: BSD-3-Clause */
/* Guest memory that is taken away while we use it. The theory of operation is in guest_fault.c. */
#ifndef VIFD_GUEST_FAULT_H
#define VIFD_GUEST_FAULT_H

#include <stdbool.h>
#include <stddef.h>

/* Survive the loss of a mapping of len bytes at addr. Returns a slot, or -ENOSPC. Main thread. */
int guest_fault_watch(void *addr, size_t len);
/* Before it is unmapped. Main thread. */
void guest_fault_forget(int slot);
/* Has it been lost, so that what lies there now is nobody's? */
bool guest_fault_lost(int slot);

#endif
