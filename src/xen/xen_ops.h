/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a back end needs of Xen: the store, event channels and grants, as one table of functions.
 *
 * There are two: the libraries of a real Xen (xen_libs.c), and one in this process for tests and
 * the fuzzer (tests/unit/fake_xen.h), with domains whose pages are allocations and in which every
 * operation is counted. Nothing else in vifd knows that there is a hypervisor.
 */
#ifndef VIFD_XEN_OPS_H
#define VIFD_XEN_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "sys/error.h"

enum {
	XEN_STORE_PATH_MAX = 256, /* of the paths that we have to do with, with their final 0 */
	XEN_EVENTS_MAX = 2,       /* event channels of a queue */
	XEN_SELF = 0x7ff0,        /* the domid that is always ours */
};

/* One grant copy. Both ends may be grants, one must be. */
struct xen_copy {
	union xen_copy_end {
		void *virt;
		struct {
			uint32_t ref;
			uint16_t offset;
			uint16_t domid;
		} foreign;
	} source, dest;
	uint16_t len;
	uint16_t flags; /* enum xen_copy_flags: which ends are grants */
	int16_t status; /* 0: done */
};

enum xen_copy_flags { XEN_COPY_FROM_GRANT = 1, XEN_COPY_TO_GRANT = 2 };

struct xen_events; /* the event channels of one queue, behind a descriptor */

/* A change in the store. */
struct xen_change {
	char path[XEN_STORE_PATH_MAX];
	char token[XEN_STORE_PATH_MAX];
};

/*
 * Relative paths are our own domain's. Everything but notify, take, unmask, copy, map and unmap is
 * the main thread's. Those that can fail return -errno.
 *
 * open:    before all others. 0, or -errno and a sentence.
 * close:   after all others.
 * read:    the value of a node, to be freed; NULL: there is none, or it cannot be read.
 * list:    names of the nodes below, to be freed as one; NULL: none.
 * begin, end: a transaction. -EAGAIN: somebody interfered, do it again.
 * write:   in a transaction, or 0: by itself.
 * watch, unwatch: changes at path and below come with token.
 * store_fd: readable when there are changes.
 * change:  the next one; false: no more for now.
 *
 * events_open, events_close: NULL: errno says why. Closing unbinds.
 * events_fd: readable when an event has come that was not taken, an edge for the first.
 * bind:    to a port of another domain. Our port. -EINVAL: it is bound to already.
 * notify:  send an event.
 * take:    the ports that events came from, at most XEN_EVENTS_MAX; none of these comes again
 *          before it is unmasked.
 *
 * map:     count pages side by side; NULL: errno says why.
 * own:     count pages of ours, side by side, which we grant to ourselves. A copy between grants
 *          costs the kernel nothing; for one of its ends at an address it looks our page tables up,
 *          which costs as much as the copy. NULL: there are none to be had.
 * copy:    all of them; each has its status, whatever is returned.
 */
struct xen_ops {
	int (*open)(struct error *error);
	void (*close)(void);

	char *(*read)(const char *path);
	char **(*list)(const char *path, unsigned *count);
	int (*begin)(uint32_t *transaction);
	int (*end)(uint32_t transaction);
	int (*write)(uint32_t transaction, const char *path, const char *value);
	int (*watch)(const char *path, const char *token);
	void (*unwatch)(const char *path, const char *token);
	int (*store_fd)(void);
	bool (*change)(struct xen_change *change);

	struct xen_events *(*events_open)(void);
	void (*events_close)(struct xen_events *events);
	int (*events_fd)(struct xen_events *events);
	int (*bind)(struct xen_events *events, uint16_t domid, uint32_t remote_port);
	void (*notify)(struct xen_events *events, uint32_t port);
	unsigned (*take)(struct xen_events *events, uint32_t *ports);
	void (*unmask)(struct xen_events *events, const uint32_t *ports, unsigned count);

	void *(*map)(uint16_t domid, uint32_t *refs, unsigned count, bool writable);
	void (*unmap)(void *pages, unsigned count);
	void *(*own)(unsigned count, uint32_t *refs);
	void (*disown)(void *pages, unsigned count);
	void (*copy)(struct xen_copy *copies, unsigned count);
};

extern const struct xen_ops xen_libs_ops; /* where vifd was built with Xen's libraries */

#endif
