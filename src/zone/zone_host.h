/* SPDX-License-Identifier: BSD-3-Clause */
/* The zones of vifd itself: one space for all its ports. */
#ifndef VIFD_ZONE_HOST_H
#define VIFD_ZONE_HOST_H

#include "zone/zone.h"

/*
 * Main thread. The space, made when it is first asked for and there until vifd ends. Its zones may
 * take a quarter of the machine's memory. NULL, and a sentence: there is none to be had.
 */
struct zone_space *zone_host(struct error *error);

#endif
