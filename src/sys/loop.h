/* SPDX-License-Identifier: BSD-3-Clause */
/* The main thread's event loop: descriptors and timers. Control path only; one loop, one thread. */
#ifndef VIFD_LOOP_H
#define VIFD_LOOP_H

#include <stdint.h>

typedef void loop_fd_fn(void *arg, uint32_t events);
typedef void loop_timer_fn(void *arg);

/* Make the loop; before any other of these. 0 or -errno. */
int loop_init(void);
/* Serve until loop_quit(), then return 0; or -errno. */
int loop_run(void);
/* End loop_run() once the function that is being called has returned. */
void loop_quit(void);

/* Call fn(arg, events) when fd has epoll events (level-triggered). fd stays the caller's.
 * 0, -EEXIST (already watched) or -errno. */
int loop_add_fd(int fd, uint32_t events, loop_fd_fn *fn, void *arg);
/* Wait for other events of a watched fd. 0 or -errno. */
int loop_set_events(int fd, uint32_t events);
/* Forget fd (before it is closed). Its function is not called again, also not for events already
 * fetched. */
void loop_del_fd(int fd);

/* Call fn(arg) once in msec milliseconds. Returns an id > 0, or -errno. */
int loop_add_timer(unsigned msec, loop_timer_fn *fn, void *arg);
/* Forget a timer that has not run yet; one that has (or id 0) is no error. */
void loop_del_timer(int id);

#endif
