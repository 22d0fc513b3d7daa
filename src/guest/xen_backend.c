/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which virtual interfaces Xen wants us to serve.
 *
 * Theory of operation. The toolstack makes a directory for each, backend/vif/DOMID/DEVID, in our
 * part of the store, and removes it when the interface has gone. We watch the part; the first event
 * of a watch names what is watched itself, so what is there already is listed, also when the back
 * end before us left it. From its directory an interface gets a port (xen_vif.c), which lives as
 * long as the directory.
 *
 * The toolstack's own writing makes some twenty events for each interface, and what we write makes
 * more: looked at are only the directory itself and those of its nodes that something follows from.
 */
#include "guest/xen_backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "guest/xen_vif.h"
#include "sys/log.h"
#include "sys/loop.h"

#define DIRECTORY "backend/vif"

static struct {
	struct xen_backend_config config; /* ops NULL: not open */
	struct xen_vif *vifs;
} backend;

bool xen_backend_is_open(void)
{
	return backend.config.ops != NULL;
}

bool xen_is_guest(const struct port *port)
{
	return port->ops == xen_port_ops();
}

static struct xen_vif *vif_find(unsigned domid, unsigned devid)
{
	struct xen_vif *vif = backend.vifs;

	while (vif && (vif->domid != domid || vif->devid != devid))
		vif = vif->next;
	return vif;
}

void xen_backend_forget(struct xen_vif *vif)
{
	struct xen_vif **at = &backend.vifs;

	while (*at && *at != vif)
		at = &(*at)->next;
	if (*at)
		*at = vif->next;
}

/* See what is to be done for an interface, which may be new, or gone. */
static void look_at(unsigned domid, unsigned devid)
{
	struct xen_vif *vif = vif_find(domid, devid);
	struct error why;

	if (!vif) {
		vif = xen_vif_new(&backend.config, domid, devid, &why);
		if (!vif) {
			if (why.text[0])
				log_error("guest vif%u.%u: %s", domid, devid, why.text);
			return;
		}
		vif->next = backend.vifs;
		backend.vifs = vif;
	}
	if (!xen_vif_step(vif))
		backend.config.leave(&vif->netif.channel.port);
}

/* A number as the toolstack writes it. */
static bool parse_number(const char *text, unsigned *number)
{
	char rest;

	return sscanf(text, "%5u%c", number, &rest) == 1;
}

/* Look at every interface that has a directory. */
static void look_at_all(void)
{
	const struct xen_ops *ops = backend.config.ops;
	unsigned domains = 0, devices, domid, devid;
	char **domain = ops->list(DIRECTORY, &domains);

	for (unsigned i = 0; domain && i < domains; i++) {
		char path[XEN_STORE_PATH_MAX], **device;

		devices = 0;
		snprintf(path, sizeof(path), DIRECTORY "/%s", domain[i]);
		device = ops->list(path, &devices);
		for (unsigned j = 0; device && j < devices; j++) {
			if (parse_number(domain[i], &domid) && parse_number(device[j], &devid))
				look_at(domid, devid);
		}
		free(device);
	}
	free(domain);
}

/* A domain has ended, or its part of the store has gone: whose directories have? */
static void look_at_known(void)
{
	for (struct xen_vif *vif = backend.vifs, *next; vif; vif = next) {
		next = vif->next;
		if (!xen_vif_step(vif))
			backend.config.leave(&vif->netif.channel.port);
	}
}

/* Something changed at, or below, our directory. */
static void on_directory(const char *path)
{
	static const char *const leaves[] = { "/state", "/online", "/frontend" };
	unsigned domid, devid;
	int end = 0;

	if (strcmp(path, DIRECTORY) == 0) {
		look_at_all();
		return;
	}
	if (sscanf(path, DIRECTORY "/%5u/%5u%n", &domid, &devid, &end) != 2) {
		look_at_known();
		return;
	}
	if (path[end] == '\0')
		look_at(domid, devid);
	for (unsigned i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
		if (strcmp(path + end, leaves[i]) == 0)
			look_at(domid, devid);
	}
	if (strcmp(path + end, "/rate") == 0 && vif_find(domid, devid))
		xen_vif_read_rate(vif_find(domid, devid));
}

static void on_change(const struct xen_change *change)
{
	unsigned domid, devid;

	if (strcmp(change->token, "directory") == 0)
		on_directory(change->path);
	else if (strcmp(change->token, "released") == 0)
		look_at_known();
	else if (sscanf(change->token, "front/%u/%u", &domid, &devid) == 2 &&
		 vif_find(domid, devid))
		look_at(domid, devid);
}

static void on_readable(void *arg, uint32_t events)
{
	struct xen_change change;

	while (backend.config.ops && backend.config.ops->change(&change))
		on_change(&change);
}

int xen_backend_open(const struct xen_backend_config *config, struct error *error)
{
	const struct xen_ops *ops = config->ops;
	int err = ops->open(error);

	if (err)
		return err;
	err = ops->watch(DIRECTORY, "directory");
	if (!err)
		err = ops->watch("@releaseDomain", "released");
	if (!err)
		err = loop_add_fd(ops->store_fd(), EPOLLIN, on_readable, NULL);
	if (err) {
		ops->close();
		return fail(error, err, "Xen's store cannot be watched: %s", strerror(-err));
	}
	backend.config = *config;
	return 0;
}

void xen_backend_close(void)
{
	if (!backend.config.ops)
		return;
	loop_del_fd(backend.config.ops->store_fd());
	backend.config.ops->close();
	backend.config.ops = NULL;
}
