/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Xen in this process, for tests and the fuzzer: domains with a grant table each, event channels
 * and a store, behind struct xen_ops. Every operation is counted. Granted pages are allocations of
 * their own, so that a sanitizer sees a byte too far.
 *
 *      fake_front (a netfront, driven by the test) <-- granted pages --> xen_netif (the back end)
 */
#ifndef VIFD_TEST_FAKE_XEN_H
#define VIFD_TEST_FAKE_XEN_H

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fake.h"
#include "guest/xen_netif.h"

enum {
	FAKE_DOMAINS = 8, /* 0 is ours */
	FAKE_GRANTS = 2048,
	FAKE_CHANNELS = 64,
	FAKE_NODES = 512,
	FAKE_WATCHES = 32,
	FAKE_CHANGES = 1024,
	FAKE_HYPERCALL_COPIES = 16, /* that gntdev has done at a time */
	FAKE_BAD_GRANT = -3,
	FAKE_BAD_COPY = -10,
};

struct xen_events {
	int fd;
	struct fake_channel {
		uint16_t domid;
		uint32_t remote;
		bool masked, pending, queued;
	} channels[XEN_EVENTS_MAX]; /* our port is the index + 1 */
	unsigned count;
};

static struct fake_xen {
	uint8_t *grants[FAKE_DOMAINS][FAKE_GRANTS]; /* pages; NULL: not granted */

	/* store */
	struct fake_node {
		char *path, *value;
	} nodes[FAKE_NODES];
	struct fake_node pending[FAKE_NODES]; /* of the transaction */
	unsigned pending_count, conflicts;    /* transactions that will fail first */
	struct xen_change watches[FAKE_WATCHES];
	unsigned watch_count;
	struct xen_change changes[FAKE_CHANGES];
	unsigned change_first, change_end;
	int store_fd;

	/* channels that somebody bound to */
	struct fake_bound {
		struct xen_events *events;
		uint16_t domid;
		uint32_t remote;
		unsigned notified;
	} bound[FAKE_CHANNELS];

	/* what was asked for */
	unsigned copy_calls, copies, hypercalls, maps, unmaps, notifies, takes, unmasks;
	uint64_t copied_here, copied_away, copied_between; /* bytes */
	unsigned mapped;                                   /* pages now */
	bool refuse_maps, refuse_own;
	void (*on_copy)(void); /* what somebody else does meanwhile */
} fake_xen;

/* ---- grants ---- */

static inline void fake_grant(uint16_t domid, uint32_t ref)
{
	fake_xen.grants[domid][ref] = aligned_alloc(XEN_PAGE, XEN_PAGE);
	memset(fake_xen.grants[domid][ref], 0, XEN_PAGE);
}

static inline uint8_t *fake_page(uint16_t domid, uint32_t ref)
{
	if (domid == XEN_SELF)
		domid = 0;
	return domid < FAKE_DOMAINS && ref < FAKE_GRANTS ? fake_xen.grants[domid][ref] : NULL;
}

static inline void fake_revoke(uint16_t domid, uint32_t ref)
{
	free(fake_xen.grants[domid][ref]);
	fake_xen.grants[domid][ref] = NULL;
}

/* Where len bytes at an end of a copy are; NULL: nowhere, *status says why. */
static inline uint8_t *fake_end(const union xen_copy_end *end, bool grant, uint16_t len,
				int16_t *status)
{
	uint8_t *page;

	if (!grant)
		return end->virt;
	page = fake_page(end->foreign.domid, end->foreign.ref);
	if (!page)
		*status = FAKE_BAD_GRANT;
	else if (end->foreign.offset + len > XEN_PAGE)
		*status = FAKE_BAD_COPY;
	return *status ? NULL : page + end->foreign.offset;
}

/* As gntdev does it: what of our memory crosses a page is two operations of the hypervisor. */
static inline unsigned fake_operations(const struct xen_copy *copy)
{
	bool from = copy->flags & XEN_COPY_FROM_GRANT, to = copy->flags & XEN_COPY_TO_GRANT;
	uintptr_t ours = (uintptr_t)(from ? copy->dest.virt : copy->source.virt);

	if ((from && to) || copy->len == 0)
		return 1;
	return (ours + copy->len - 1) / XEN_PAGE - ours / XEN_PAGE + 1;
}

static inline void fake_copy(struct xen_copy *copies, unsigned count)
{
	unsigned operations = 0;

	if (fake_xen.on_copy)
		fake_xen.on_copy();
	for (unsigned i = 0; i < count; i++) {
		struct xen_copy *copy = &copies[i];
		bool from = copy->flags & XEN_COPY_FROM_GRANT, to = copy->flags & XEN_COPY_TO_GRANT;
		uint8_t *source, *dest = NULL;

		operations += fake_operations(copy);
		copy->status = from || to ? 0 : FAKE_BAD_COPY;
		source = fake_end(&copy->source, from, copy->len, &copy->status);
		if (!copy->status)
			dest = fake_end(&copy->dest, to, copy->len, &copy->status);
		if (copy->status)
			continue;
		memmove(dest, source, copy->len);
		from &= copy->source.foreign.domid != XEN_SELF;
		to &= copy->dest.foreign.domid != XEN_SELF;
		*(from && to ? &fake_xen.copied_between
		  : from     ? &fake_xen.copied_here
			     : &fake_xen.copied_away) += copy->len;
	}
	fake_xen.copy_calls++;
	fake_xen.copies += operations;
	fake_xen.hypercalls += (operations + FAKE_HYPERCALL_COPIES - 1) / FAKE_HYPERCALL_COPIES;
}

/* One page is the guest's own; of several, side by side, only what is in them. */
static inline void *fake_map(uint16_t domid, uint32_t *refs, unsigned count, bool writable)
{
	uint8_t *pages;

	errno = EINVAL;
	for (unsigned i = 0; i < count; i++) {
		if (!fake_page(domid, refs[i]) || fake_xen.refuse_maps)
			return NULL;
	}
	fake_xen.maps += count;
	fake_xen.mapped += count;
	if (writable)
		return fake_page(domid, refs[0]);
	pages = aligned_alloc(XEN_PAGE, (size_t)count * XEN_PAGE);
	for (unsigned i = 0; i < count; i++)
		memcpy(pages + i * XEN_PAGE, fake_page(domid, refs[i]), XEN_PAGE);
	return pages;
}

static inline void fake_unmap(void *pages, unsigned count)
{
	fake_xen.unmaps += count;
	fake_xen.mapped -= count;
	for (unsigned domid = 0; domid < FAKE_DOMAINS; domid++) {
		for (unsigned ref = 0; ref < FAKE_GRANTS; ref++) {
			if (fake_xen.grants[domid][ref] == pages)
				return;
		}
	}
	free(pages);
}

/* Pages of domain 0, side by side. */
static inline void *fake_own(unsigned count, uint32_t *refs)
{
	uint8_t *pages;

	if (fake_xen.refuse_own)
		return NULL;
	pages = aligned_alloc(XEN_PAGE, (size_t)count * XEN_PAGE);
	for (unsigned i = 0, ref = 0; i < count; ref++) {
		if (fake_xen.grants[0][ref])
			continue;
		fake_xen.grants[0][ref] = pages + i * XEN_PAGE;
		refs[i++] = ref;
	}
	return pages;
}

static inline void fake_disown(void *pages, unsigned count)
{
	for (unsigned ref = 0; ref < FAKE_GRANTS; ref++) {
		uint8_t *page = fake_xen.grants[0][ref];

		if (page >= (uint8_t *)pages && page < (uint8_t *)pages + count * XEN_PAGE)
			fake_xen.grants[0][ref] = NULL;
	}
	free(pages);
}

/* ---- event channels ---- */

static inline struct xen_events *fake_events_open(void)
{
	struct xen_events *events = calloc(1, sizeof(*events));

	events->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return events;
}

static inline void fake_events_close(struct xen_events *events)
{
	for (unsigned i = 0; i < FAKE_CHANNELS; i++) {
		if (fake_xen.bound[i].events == events)
			fake_xen.bound[i].events = NULL;
	}
	close(events->fd);
	free(events);
}

static inline int fake_events_fd(struct xen_events *events)
{
	return events->fd;
}

static inline struct fake_bound *fake_bound(uint16_t domid, uint32_t remote)
{
	for (unsigned i = 0; i < FAKE_CHANNELS; i++) {
		struct fake_bound *bound = &fake_xen.bound[i];

		if (bound->events && bound->domid == domid && bound->remote == remote)
			return bound;
	}
	return NULL;
}

static inline int fake_bind(struct xen_events *events, uint16_t domid, uint32_t remote)
{
	if (fake_bound(domid, remote) || events->count == XEN_EVENTS_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < FAKE_CHANNELS; i++) {
		if (fake_xen.bound[i].events)
			continue;
		fake_xen.bound[i] = (struct fake_bound){ events, domid, remote };
		events->channels[events->count] = (struct fake_channel){ domid, remote };
		return ++events->count;
	}
	return -ENOSPC;
}

static inline void fake_notify(struct xen_events *events, uint32_t port)
{
	const struct fake_channel *channel = &events->channels[port - 1];

	fake_xen.notifies++;
	fake_bound(channel->domid, channel->remote)->notified++;
}

/* Deliver what is pending and not masked. */
static inline void fake_deliver(struct xen_events *events)
{
	for (unsigned i = 0; i < events->count; i++) {
		struct fake_channel *channel = &events->channels[i];

		if (!channel->pending || channel->masked)
			continue;
		channel->pending = false;
		channel->masked = channel->queued = true;
		eventfd_write(events->fd, 1);
	}
}

static inline unsigned fake_take(struct xen_events *events, uint32_t *ports)
{
	unsigned count = 0;
	eventfd_t value;

	fake_xen.takes++;
	eventfd_read(events->fd, &value);
	for (unsigned i = 0; i < events->count; i++) {
		if (events->channels[i].queued)
			ports[count++] = i + 1;
		events->channels[i].queued = false;
	}
	return count;
}

static inline void fake_unmask(struct xen_events *events, const uint32_t *ports, unsigned count)
{
	fake_xen.unmasks++;
	for (unsigned i = 0; i < count; i++)
		events->channels[ports[i] - 1].masked = false;
	fake_deliver(events);
}

/* The other domain sends an event; lost if nobody has bound to the channel. */
static inline void fake_event(uint16_t domid, uint32_t remote)
{
	struct fake_bound *bound = fake_bound(domid, remote);

	for (unsigned i = 0; bound && i < bound->events->count; i++) {
		if (bound->events->channels[i].remote == remote)
			bound->events->channels[i].pending = true;
	}
	if (bound)
		fake_deliver(bound->events);
}

/* ---- the store ---- */

static inline void fake_changed(const char *path)
{
	for (unsigned i = 0; i < fake_xen.watch_count; i++) {
		const struct xen_change *watch = &fake_xen.watches[i];
		size_t len = strlen(watch->path);

		if (strncmp(path, watch->path, len) != 0 || (path[len] && path[len] != '/'))
			continue;
		struct xen_change *change = &fake_xen.changes[fake_xen.change_end++ % FAKE_CHANGES];

		*change = *watch;
		snprintf(change->path, sizeof(change->path), "%s", path);
		eventfd_write(fake_xen.store_fd, 1);
	}
}

static inline struct fake_node *fake_node(const char *path)
{
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		if (fake_xen.nodes[i].path && strcmp(fake_xen.nodes[i].path, path) == 0)
			return &fake_xen.nodes[i];
	}
	return NULL;
}

static inline void fake_put(const char *path, const char *value)
{
	struct fake_node *node = fake_node(path);

	for (unsigned i = 0; i < FAKE_NODES && !node; i++) {
		if (!fake_xen.nodes[i].path) {
			node = &fake_xen.nodes[i];
			node->path = strdup(path);
		}
	}
	free(node->value);
	node->value = strdup(value);
	fake_changed(path);
}

/* The node and all below it. */
static inline void fake_remove(const char *path)
{
	size_t len = strlen(path);

	for (unsigned i = 0; i < FAKE_NODES; i++) {
		struct fake_node *node = &fake_xen.nodes[i];

		if (!node->path || strncmp(node->path, path, len) != 0 ||
		    (node->path[len] && node->path[len] != '/'))
			continue;
		free(node->path);
		free(node->value);
		*node = (struct fake_node){ NULL };
	}
	fake_changed(path);
}

static inline char *fake_store_read(const char *path)
{
	struct fake_node *node = fake_node(path);

	return node ? strdup(node->value) : NULL;
}

/* Names directly below path. */
static inline char **fake_list(const char *path, unsigned *count)
{
	char **list = calloc(FAKE_NODES, sizeof(*list) + 64), *text = (char *)&list[FAKE_NODES];
	size_t len = strlen(path);

	*count = 0;
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		const char *node = fake_xen.nodes[i].path;
		bool known = false;
		int end;

		if (!node || strncmp(node, path, len) != 0 || node[len] != '/')
			continue;
		end = strcspn(node + len + 1, "/");
		for (unsigned j = 0; j < *count; j++)
			known |= strncmp(list[j], node + len + 1, end) == 0 && !list[j][end];
		if (known)
			continue;
		list[*count] = text + *count * 64;
		snprintf(list[(*count)++], 64, "%.*s", end, node + len + 1);
	}
	return list;
}

static inline int fake_begin(uint32_t *transaction)
{
	*transaction = 1;
	return 0;
}

static inline int fake_end_transaction(uint32_t transaction)
{
	bool good = fake_xen.conflicts == 0;

	for (unsigned i = 0; i < fake_xen.pending_count; i++) {
		if (good)
			fake_put(fake_xen.pending[i].path, fake_xen.pending[i].value);
		free(fake_xen.pending[i].path);
		free(fake_xen.pending[i].value);
	}
	fake_xen.pending_count = 0;
	fake_xen.conflicts -= !good;
	return good ? 0 : -EAGAIN;
}

static inline int fake_write_node(uint32_t transaction, const char *path, const char *value)
{
	if (transaction)
		fake_xen.pending[fake_xen.pending_count++] = (struct fake_node){ strdup(path),
										 strdup(value) };
	else
		fake_put(path, value);
	return 0;
}

static inline int fake_watch(const char *path, const char *token)
{
	struct xen_change *watch = &fake_xen.watches[fake_xen.watch_count++];

	snprintf(watch->path, sizeof(watch->path), "%s", path);
	snprintf(watch->token, sizeof(watch->token), "%s", token);
	fake_changed(path);
	return 0;
}

static inline void fake_unwatch(const char *path, const char *token)
{
	for (unsigned i = 0; i < fake_xen.watch_count; i++) {
		struct xen_change *watch = &fake_xen.watches[i];

		if (strcmp(watch->path, path) == 0 && strcmp(watch->token, token) == 0)
			*watch-- = fake_xen.watches[--fake_xen.watch_count];
	}
}

static inline int fake_store_fd(void)
{
	return fake_xen.store_fd;
}

static inline bool fake_change(struct xen_change *change)
{
	eventfd_t value;

	if (fake_xen.change_first == fake_xen.change_end) {
		eventfd_read(fake_xen.store_fd, &value);
		return false;
	}
	*change = fake_xen.changes[fake_xen.change_first++ % FAKE_CHANGES];
	return true;
}

/* ---- the table ---- */

static inline int fake_open(struct error *error)
{
	return 0;
}

static inline void fake_close(void)
{
}

static const struct xen_ops fake_xen_ops = {
	.open = fake_open,
	.close = fake_close,
	.read = fake_store_read,
	.list = fake_list,
	.begin = fake_begin,
	.end = fake_end_transaction,
	.write = fake_write_node,
	.watch = fake_watch,
	.unwatch = fake_unwatch,
	.store_fd = fake_store_fd,
	.change = fake_change,
	.events_open = fake_events_open,
	.events_close = fake_events_close,
	.events_fd = fake_events_fd,
	.bind = fake_bind,
	.notify = fake_notify,
	.take = fake_take,
	.unmask = fake_unmask,
	.map = fake_map,
	.unmap = fake_unmap,
	.own = fake_own,
	.disown = fake_disown,
	.copy = fake_copy,
};

static inline void fake_xen_init(void)
{
	memset(&fake_xen, 0, sizeof(fake_xen));
	fake_xen.store_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static inline void fake_xen_fini(void)
{
	for (unsigned domid = 0; domid < FAKE_DOMAINS; domid++) {
		for (unsigned ref = 0; ref < FAKE_GRANTS; ref++)
			free(fake_xen.grants[domid][ref]);
	}
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		free(fake_xen.nodes[i].path);
		free(fake_xen.nodes[i].value);
	}
	close(fake_xen.store_fd);
}

static inline void fake_xen_reset_counts(void)
{
	fake_xen.copy_calls = fake_xen.copies = fake_xen.hypercalls = fake_xen.maps = 0;
	fake_xen.unmaps = fake_xen.notifies = fake_xen.takes = fake_xen.unmasks = 0;
	fake_xen.copied_here = fake_xen.copied_away = fake_xen.copied_between = 0;
}

#endif
