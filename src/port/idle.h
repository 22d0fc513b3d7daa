/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a worker does without work. The theory of operation is at the top of idle.c; worker.c's loop
 * calls it.
 */
#ifndef VIFD_IDLE_H
#define VIFD_IDLE_H

#include "port/worker.h"

/* As long as it is not known how the traffic is: spin. */
void worker_start_spin(struct worker *worker);
/* Work has come after a gap of so many cycles. */
void worker_adapt_spin(struct worker *worker, uint64_t gap);

/* Send on what is held back, as far as that waits for polls, or all. When the rest is due (TSC). */
uint64_t worker_release(struct worker *worker, bool all);

/* Sleep or nap. False: there is work after all. */
bool worker_rest(struct worker *worker);

#endif
