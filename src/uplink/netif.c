/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Interfaces of the kernel: network namespaces, MTU, flags, ethtool.
 *
 * Theory of operation. A socket belongs to the network namespace in which it was made, wherever its
 * user goes. So the main thread enters an interface's namespace once, opens what it needs there and
 * returns; requests go through netif.sock ever after.
 *
 * The MTU of an interface that others made is changed for as long as the uplink lasts. A note of how
 * it was lies in RESTORE_DIR meanwhile, locked by the vifd that has to come back to it:
 *
 *      /run/vifd/restore/4026531840-7    {"interface", "netns", "mtu"}
 *                        namespace-index
 *
 * The kernel drops the lock with its owner. A note that nobody has locked is therefore that of a
 * vifd which was killed; the next one that starts does what it says (netif_restore_all()). The
 * folder is gone after a reboot, as is the change.
 */
#include "uplink/netif.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_arp.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/log.h"

#define RUN_DIR     "/run/vifd"
#define RESTORE_DIR RUN_DIR "/restore"
#define OUR_NETNS   "/proc/thread-self/ns/net"

enum { NOTE_NAME_BYTES = 320 };

static void note_write(struct netif *netif, int mtu);
static void note_remove(struct netif *netif);

int netns_enter(const char *netns, int *back, struct error *error)
{
	char path[PATH_MAX];
	int there, err = 0;

	*back = -1;
	if (!netns)
		return 0;
	snprintf(path, sizeof(path), "%s%s", strchr(netns, '/') ? "" : "/run/netns/", netns);
	there = open(path, O_RDONLY | O_CLOEXEC);
	if (there < 0)
		return errno == ENOENT
			       ? fail(error, -ENOENT, "there is no network namespace '%s' (%s)",
				      netns, path)
			       : fail(error, -errno, "network namespace %s: %s", path,
				      strerror(errno));
	*back = open(OUR_NETNS, O_RDONLY | O_CLOEXEC);
	if (*back < 0)
		err = fail(error, -errno, "%s: %s", OUR_NETNS, strerror(errno));
	else if (setns(there, CLONE_NEWNET))
		err = errno == EPERM ? fail(error, -EPERM,
					    "no permission to enter network namespace '%s': it "
					    "takes root or CAP_SYS_ADMIN",
					    netns)
				     : fail(error, -errno, "%s is no network namespace: %s", path,
					    strerror(errno));
	if (err && *back >= 0) {
		close(*back);
		*back = -1;
	}
	close(there);
	return err;
}

void netns_leave(int back)
{
	if (back < 0)
		return;
	if (setns(back, CLONE_NEWNET)) /* it was ours a moment ago */
		log_error("cannot return to the network namespace: %s", strerror(errno));
	close(back);
}

int netif_open(struct netif *netif, const char *ifname, const char *netns, struct error *error)
{
	struct stat ns;

	*netif = NETIF_NONE;
	if (strlen(ifname) >= IFNAMSIZ)
		return fail(error, -ENAMETOOLONG,
			    "interface name '%s' is longer than %u characters", ifname,
			    IFNAMSIZ - 1);
	strcpy(netif->name, ifname);
	netif->netns = netns ? strdup(netns) : NULL;
	if (netns && !netif->netns)
		return fail(error, -ENOMEM, "out of memory");
	netif->ns = stat(OUR_NETNS, &ns) ? 0 : ns.st_ino;
	netif->sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (netif->sock < 0)
		return fail(error, -errno, "socket: %s", strerror(errno));
	netif->found = netif_index(netif) >= 0;
	return 0;
}

/* One request about the interface: 0, and its answer in *ifr, or -errno. */
static int request(const struct netif *netif, unsigned long what, struct ifreq *ifr)
{
	strcpy(ifr->ifr_name, netif->name);
	return ioctl(netif->sock, what, ifr) ? -errno : 0;
}

int netif_index(const struct netif *netif)
{
	struct ifreq ifr;
	int err = request(netif, SIOCGIFINDEX, &ifr);

	return err ? err : ifr.ifr_ifindex;
}

int netif_mtu(const struct netif *netif)
{
	struct ifreq ifr;
	int err = request(netif, SIOCGIFMTU, &ifr);

	return err ? err : ifr.ifr_mtu;
}

int netif_flags(const struct netif *netif)
{
	struct ifreq ifr;
	int err = request(netif, SIOCGIFFLAGS, &ifr);

	return err ? err : (uint16_t)ifr.ifr_flags;
}

bool netif_is_ethernet(const struct netif *netif)
{
	struct ifreq ifr;

	return request(netif, SIOCGIFHWADDR, &ifr) == 0 && ifr.ifr_hwaddr.sa_family == ARPHRD_ETHER;
}

int netif_ethtool(const struct netif *netif, void *ethtool)
{
	struct ifreq ifr = { .ifr_data = ethtool };

	return request(netif, SIOCETHTOOL, &ifr);
}

static int set_mtu(const struct netif *netif, int mtu)
{
	struct ifreq ifr = { .ifr_mtu = mtu };

	return request(netif, SIOCSIFMTU, &ifr);
}

static int set_flags(const struct netif *netif, int flags)
{
	struct ifreq ifr = { .ifr_flags = (short)flags };

	return request(netif, SIOCSIFFLAGS, &ifr);
}

int netif_set_up(struct netif *netif, uint16_t mtu, struct error *error)
{
	int old_mtu = netif_mtu(netif), flags = netif_flags(netif), err;

	if (old_mtu < 0)
		return fail(error, old_mtu, "interface '%s': %s", netif->name, strerror(-old_mtu));
	if (mtu && mtu != old_mtu) {
		if (netif->found)
			note_write(netif, old_mtu);
		err = set_mtu(netif, mtu);
		if (err)
			return fail(error, err, "interface '%s': MTU %u: %s", netif->name, mtu,
				    strerror(-err));
		netif->old_mtu = netif->found ? old_mtu : 0;
	}
	if (!(flags & IFF_UP)) {
		err = set_flags(netif, flags | IFF_UP);
		if (err)
			return fail(error, err, "interface '%s' cannot be brought up: %s",
				    netif->name, strerror(-err));
	}
	return mtu ? mtu : old_mtu;
}

void netif_close(struct netif *netif)
{
	int err = netif->old_mtu ? set_mtu(netif, netif->old_mtu) : 0;

	if (err && err != -ENODEV)
		log_warn("interface '%s' cannot be given its MTU of %d again: %s", netif->name,
			 netif->old_mtu, strerror(-err));
	note_remove(netif);
	if (netif->sock >= 0)
		close(netif->sock);
	free(netif->netns);
	*netif = NETIF_NONE;
}

json_t *netif_show(const struct netif *netif)
{
	int flags = netif_flags(netif);
	const char *state = flags < 0                ? "gone"
			    : !(flags & IFF_UP)      ? "down"
			    : !(flags & IFF_RUNNING) ? "no carrier"
						     : "up";

	return json_pack("{s:s, s:s?, s:s}", "interface", netif->name, "netns", netif->netns,
			 "state", state);
}

/* ---- notes ---- */

/* A path in RESTORE_DIR: the interface, by what stays its own when it is renamed. -ENODEV if it is
 * gone. */
static int note_name(const struct netif *netif, char *name, size_t size)
{
	int index = netif_index(netif);

	snprintf(name, size, RESTORE_DIR "/%ju-%d", (uintmax_t)netif->ns, index);
	return index < 0 ? index : 0;
}

/* Open and lock a note. Returns a descriptor; -EWOULDBLOCK: a vifd that lives has it; -errno. */
static int note_lock(const char *name, int flags)
{
	int fd = open(name, O_RDWR | O_CLOEXEC | flags, 0644), err;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* Remember the MTU. What cannot be remembered is changed all the same. */
static void note_write(struct netif *netif, int mtu)
{
	char name[NOTE_NAME_BYTES];
	json_t *note;

	if (netif->note >= 0 || note_name(netif, name, sizeof(name)))
		return;
	mkdir(RUN_DIR, 0755);
	mkdir(RESTORE_DIR, 0755);
	netif->note = note_lock(name, O_CREAT);
	if (netif->note == -EWOULDBLOCK)
		return; /* another uplink has changed it before, and remembers */
	note = json_pack("{s:s, s:s*, s:i}", "interface", netif->name, "netns", netif->netns, "mtu",
			 mtu);
	if (netif->note < 0 || ftruncate(netif->note, 0) || json_dumpfd(note, netif->note, 0))
		log_warn("%s: the MTU of '%s' will not be restored if vifd is killed: %s", name,
			 netif->name, strerror(errno));
	json_decref(note);
}

static void note_remove(struct netif *netif)
{
	char link[64], name[NOTE_NAME_BYTES];
	ssize_t len;

	if (netif->note < 0)
		return;
	/* The interface may be gone, and with it the way to the note's name. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", netif->note);
	len = readlink(link, name, sizeof(name) - 1);
	if (len > 0) {
		name[len] = 0;
		unlink(name);
	}
	close(netif->note);
}

/* Do what the note says if its interface is still there. */
static void note_follow(const char *name, int fd)
{
	const char *ifname, *netns = NULL;
	char now[NOTE_NAME_BYTES];
	struct netif netif;
	struct error error;
	int back, mtu;
	json_t *note = json_loadfd(fd, 0, NULL);

	if (json_unpack(note, "{s:s, s?:s, s:i}", "interface", &ifname, "netns", &netns, "mtu",
			&mtu) == 0 &&
	    netns_enter(netns, &back, &error) == 0) {
		if (netif_open(&netif, ifname, netns, &error) == 0 &&
		    note_name(&netif, now, sizeof(now)) == 0 && strcmp(name, now) == 0) {
			log_info(
				"interface '%s': its MTU is %d again, which a vifd that was killed had changed",
				ifname, mtu);
			netif.old_mtu = mtu;
		}
		netif_close(&netif);
		netns_leave(back);
	}
	json_decref(note);
}

void netif_restore_all(void)
{
	DIR *dir = opendir(RESTORE_DIR);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char name[NOTE_NAME_BYTES];
		int fd;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), RESTORE_DIR "/%s", entry->d_name);
		fd = note_lock(name, 0);
		if (fd < 0)
			continue;
		note_follow(name, fd);
		unlink(name);
		close(fd);
	}
	if (dir)
		closedir(dir);
}
