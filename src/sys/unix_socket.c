/* SPDX-License-Identifier: BSD-3-Clause */
/* Listening Unix sockets. What the functions promise is in unix_socket.h. */
#include "sys/unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int make_room(const struct sockaddr_un *addr, int type, struct error *error);

int unix_address(const char *path, struct sockaddr_un *addr, struct error *error)
{
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(addr->sun_path))
		return fail(error, -ENAMETOOLONG, "path of a socket is longer than %zu bytes: %s",
			    sizeof(addr->sun_path) - 1, path);
	strcpy(addr->sun_path, path);
	return 0;
}

int unix_listen(const char *path, int type, mode_t mode, struct unix_file *file,
		struct error *error)
{
	struct sockaddr_un addr;
	struct stat st;
	int ret = unix_address(path, &addr, error), fd;

	if (!ret)
		ret = make_room(&addr, type, error);
	if (ret)
		return ret;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	/* the mode given before bind() holds, less the umask, from the file's first moment; chmod()
	 * adds the rest */
	if (fd < 0 || fchmod(fd, mode) || bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		goto failed;
	if (lstat(path, &st) == 0)
		*file = (struct unix_file){ st.st_dev, st.st_ino };
	if (chmod(path, mode) || listen(fd, 4)) {
		ret = errno;
		unlink(path);
		errno = ret;
		goto failed;
	}
	return fd;

failed:
	ret = -errno;
	if (fd >= 0)
		close(fd);
	return fail(error, ret, "cannot listen on %s: %s", path, strerror(-ret));
}

void unix_unlink(const char *path, const struct unix_file *file)
{
	struct stat st;

	if (lstat(path, &st) == 0 && st.st_dev == file->dev && st.st_ino == file->ino)
		unlink(path);
}

/* Remove a socket that nobody listens on any more; anything else that is in the way is an error. */
static int make_room(const struct sockaddr_un *addr, int type, struct error *error)
{
	struct stat st;
	int fd, saved;

	if (lstat(addr->sun_path, &st))
		return 0; /* nothing there, or bind() will say what is wrong */
	if (!S_ISSOCK(st.st_mode))
		return fail(error, -EEXIST, "%s exists and is not a socket", addr->sun_path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(error, -errno, "cannot make a socket: %s", strerror(errno));
	saved = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) ? errno : 0;
	close(fd);
	/* EPROTOTYPE: somebody listens for another type */
	if (saved == 0 || saved == EAGAIN || saved == EPROTOTYPE)
		return fail(error, -EADDRINUSE, "%s is in use by another program", addr->sun_path);
	if (saved != ECONNREFUSED)
		return fail(error, -saved, "cannot replace %s: %s", addr->sun_path,
			    strerror(saved));
	unlink(addr->sun_path);
	return 0;
}
