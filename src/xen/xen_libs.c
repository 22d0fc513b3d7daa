/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Xen's own libraries behind struct xen_ops.
 *
 * Theory of operation. One handle for the store and one for grants, which threads may share: a
 * grant copy is one ioctl and keeps its state on the kernel's stack, in hypercalls of 16 copies.
 * Each queue has a handle for its event channels, for whose worker its descriptor is.
 *
 * In a PV domain every system call costs two loads of CR3. Events are therefore taken by one read()
 * and unmasked by one write() for all channels of a queue, which is what the descriptor of
 * /dev/xen/evtchn is made for, where the library's functions take them one by one.
 */
#include "xen/xen_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#include <xen/io/netif.h>

#include "sys/log.h"
#include "xen/netif_ring.h"

static struct xs_handle *store;
static xengnttab_handle *grants;
static xengntshr_handle *own_grants; /* NULL: there can be none */

/* ---- our words are Xen's ---- */

static_assert(sizeof(struct xen_copy) == sizeof(xengnttab_grant_copy_segment_t) &&
		      offsetof(struct xen_copy, dest) ==
			      offsetof(xengnttab_grant_copy_segment_t, dest) &&
		      offsetof(struct xen_copy, len) ==
			      offsetof(xengnttab_grant_copy_segment_t, len) &&
		      offsetof(struct xen_copy, flags) ==
			      offsetof(xengnttab_grant_copy_segment_t, flags) &&
		      offsetof(struct xen_copy, status) ==
			      offsetof(xengnttab_grant_copy_segment_t, status) &&
		      offsetof(struct xen_copy, source.foreign.offset) ==
			      offsetof(xengnttab_grant_copy_segment_t, source.foreign.offset) &&
		      offsetof(struct xen_copy, source.foreign.domid) ==
			      offsetof(xengnttab_grant_copy_segment_t, source.foreign.domid),
	      "a copy is handed over as it is");
static_assert((int)XEN_COPY_FROM_GRANT == GNTCOPY_source_gref &&
		      (int)XEN_COPY_TO_GRANT == GNTCOPY_dest_gref && (int)XEN_SELF == DOMID_SELF,
	      "so are its flags");
static_assert(sizeof(struct xen_tx_request) == sizeof(netif_tx_request_t) &&
		      offsetof(struct xen_tx_request, size) == offsetof(netif_tx_request_t, size) &&
		      sizeof(struct xen_rx_request) == sizeof(netif_rx_request_t) &&
		      offsetof(struct xen_rx_request, gref) == offsetof(netif_rx_request_t, gref) &&
		      sizeof(struct xen_rx_response) == sizeof(netif_rx_response_t) &&
		      sizeof(struct xen_extra) == sizeof(netif_extra_info_t) &&
		      offsetof(struct xen_tx_ring, slots) == offsetof(netif_tx_sring_t, ring) &&
		      offsetof(struct xen_rx_ring, slots) == offsetof(netif_rx_sring_t, ring),
	      "the rings");
static_assert((int)XEN_TXF_CSUM_BLANK == NETTXF_csum_blank &&
		      (int)XEN_TXF_MORE_DATA == NETTXF_more_data &&
		      (int)XEN_TXF_EXTRA_INFO == NETTXF_extra_info &&
		      (int)XEN_RXF_DATA_VALIDATED == NETRXF_data_validated &&
		      (int)XEN_RXF_CSUM_BLANK == NETRXF_csum_blank &&
		      (int)XEN_RXF_MORE_DATA == NETRXF_more_data &&
		      (int)XEN_RXF_EXTRA_INFO == NETRXF_extra_info &&
		      (int)XEN_EXTRA_END == XEN_NETIF_EXTRA_TYPE_MAX &&
		      (int)XEN_GSO_TCPV6 == XEN_NETIF_GSO_TYPE_TCPV6 &&
		      (int)XEN_RSP_NULL == NETIF_RSP_NULL && (int)XEN_RSP_ERROR == NETIF_RSP_ERROR,
	      "and what they say");

/* ---- open and close ---- */

static void libs_close(void)
{
	if (own_grants)
		xengntshr_close(own_grants);
	if (grants)
		xengnttab_close(grants);
	if (store)
		xs_close(store);
	own_grants = NULL;
	grants = NULL;
	store = NULL;
}

/*
 * The kernel's back end takes every interface for its own, connected ones too: its guests would
 * have two back ends, and no network.
 */
static bool kernel_serves(void)
{
	return access("/sys/bus/xen-backend/drivers/vif", F_OK) == 0;
}

static int libs_open(struct error *error)
{
	xenevtchn_handle *events;

	if (kernel_serves())
		return fail(error, -EBUSY,
			    "xen-netback is loaded, which would fight for each guest's interface: "
			    "rmmod xen-netback, and keep it out (modprobe.d: blacklist)");
	store = xs_open(0);
	if (!store)
		return fail(error, -ENODEV,
			    "there is no Xen under this system, or no xenstored: %s",
			    strerror(errno));
	/* the logger would print what we say ourselves, but there is none that says nothing */
	grants = xengnttab_open(NULL, 0);
	events = grants ? xenevtchn_open(NULL, 0) : NULL;
	if (!events) {
		int err = errno;
		const char *what = grants ? "evtchn" : "gntdev";

		libs_close();
		return fail(error, -err,
			    "cannot use Xen's /dev/xen/%s: %s (modprobe xen-%s, and be root)", what,
			    strerror(err), what);
	}
	xenevtchn_close(events);
	own_grants = xengntshr_open(NULL, 0);
	if (!own_grants)
		log_warn("no /dev/xen/gntalloc (modprobe xen-gntalloc): copies cost more");
	return 0;
}

/* ---- the store ---- */

static char *libs_read(const char *path)
{
	unsigned len;

	return xs_read(store, XBT_NULL, path, &len);
}

static char **libs_list(const char *path, unsigned *count)
{
	return xs_directory(store, XBT_NULL, path, count);
}

static int libs_begin(uint32_t *transaction)
{
	*transaction = xs_transaction_start(store);
	return *transaction == XBT_NULL ? -errno : 0;
}

static int libs_end(uint32_t transaction)
{
	return xs_transaction_end(store, transaction, false) ? 0 : -errno;
}

static int libs_write(uint32_t transaction, const char *path, const char *value)
{
	return xs_write(store, transaction, path, value, strlen(value)) ? 0 : -errno;
}

static int libs_watch(const char *path, const char *token)
{
	return xs_watch(store, path, token) ? 0 : -errno;
}

static void libs_unwatch(const char *path, const char *token)
{
	xs_unwatch(store, path, token);
}

static int libs_store_fd(void)
{
	return xs_fileno(store);
}

static bool libs_change(struct xen_change *change)
{
	char **found = xs_check_watch(store);

	if (!found)
		return false;
	snprintf(change->path, sizeof(change->path), "%s", found[XS_WATCH_PATH]);
	snprintf(change->token, sizeof(change->token), "%s", found[XS_WATCH_TOKEN]);
	free(found);
	return true;
}

/* ---- event channels ---- */

static xenevtchn_handle *handle_of(struct xen_events *events)
{
	return (xenevtchn_handle *)events;
}

static struct xen_events *libs_events_open(void)
{
	xenevtchn_handle *handle = xenevtchn_open(NULL, 0);

	if (handle)
		fcntl(xenevtchn_fd(handle), F_SETFL, O_NONBLOCK);
	return (struct xen_events *)handle;
}

static void libs_events_close(struct xen_events *events)
{
	xenevtchn_close(handle_of(events));
}

static int libs_events_fd(struct xen_events *events)
{
	return xenevtchn_fd(handle_of(events));
}

static int libs_bind(struct xen_events *events, uint16_t domid, uint32_t remote_port)
{
	int port = xenevtchn_bind_interdomain(handle_of(events), domid, remote_port);

	return port < 0 ? -errno : port;
}

static void libs_notify(struct xen_events *events, uint32_t port)
{
	xenevtchn_notify(handle_of(events), port);
}

static unsigned libs_take(struct xen_events *events, uint32_t *ports)
{
	ssize_t len = read(xenevtchn_fd(handle_of(events)), ports, XEN_EVENTS_MAX * sizeof(*ports));

	return len < 0 ? 0 : len / sizeof(*ports);
}

static void libs_unmask(struct xen_events *events, const uint32_t *ports, unsigned count)
{
	ssize_t len = count * sizeof(*ports);

	if (write(xenevtchn_fd(handle_of(events)), ports, len) != len)
		log_error("an event channel cannot be unmasked: %s", strerror(errno));
}

/* ---- grants ---- */

static void *libs_map(uint16_t domid, uint32_t *refs, unsigned count, bool writable)
{
	return xengnttab_map_domain_grant_refs(grants, count, domid, refs,
					       PROT_READ | (writable ? PROT_WRITE : 0));
}

static void libs_unmap(void *pages, unsigned count)
{
	if (xengnttab_unmap(grants, pages, count))
		log_error("pages of a guest cannot be unmapped: %s", strerror(errno));
}

static void *libs_own(unsigned count, uint32_t *refs)
{
	char *domid = libs_read("domid");
	void *pages = NULL;

	if (own_grants && domid)
		pages = xengntshr_share_pages(own_grants, strtoul(domid, NULL, 10), count, refs, 1);
	free(domid);
	return pages;
}

static void libs_disown(void *pages, unsigned count)
{
	xengntshr_unshare(own_grants, pages, count);
}

static void libs_copy(struct xen_copy *copies, unsigned count)
{
	/* what the kernel did not come to, as it found one that it would not even try */
	for (unsigned i = 0; i < count; i++)
		copies[i].status = GNTST_general_error;
	xengnttab_grant_copy(grants, count, (xengnttab_grant_copy_segment_t *)copies);
}

const struct xen_ops xen_libs_ops = {
	.open = libs_open,
	.close = libs_close,
	.read = libs_read,
	.list = libs_list,
	.begin = libs_begin,
	.end = libs_end,
	.write = libs_write,
	.watch = libs_watch,
	.unwatch = libs_unwatch,
	.store_fd = libs_store_fd,
	.change = libs_change,
	.events_open = libs_events_open,
	.events_close = libs_events_close,
	.events_fd = libs_events_fd,
	.bind = libs_bind,
	.notify = libs_notify,
	.take = libs_take,
	.unmask = libs_unmask,
	.map = libs_map,
	.unmap = libs_unmap,
	.own = libs_own,
	.disown = libs_disown,
	.copy = libs_copy,
};
