/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket.
 *
 * Theory of operation. A client sends lines of the grammar; each is answered by one line of JSON,
 * in order:
 *
 *	{"ok":true,"result":...}
 *	{"ok":false,"error":"guest add: unknown option 'brige' (did you mean 'bridge'?)"}
 *
 * Nothing here waits. A client that does not read its answers is not read from either (its next
 * line is served when the last answer has left), so what one client can hold is one line, one
 * answer and a socket buffer. A line without end is refused and ends the conversation. A client may
 * shut down its sending side and still gets its answers; a last line needs no newline.
 *
 * Who may connect may do everything: the socket's owner, group and mode decide.
 */
#include "sys/ctl_socket.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sys/commands.h"
#include "sys/conf.h"
#include "sys/log.h"
#include "sys/loop.h"

enum { CLIENTS_MAX = 64, BACKLOG = 128, ACCEPT_PAUSE_MSEC = 1000 };
enum { SOCKET_MODE = 0660, DIRECTORY_MODE = 0755 };

struct client {
	struct client *next;
	int fd;
	bool ended; /* nothing more is read from it; closed once its answers have left */
	size_t in_len;
	char in[CONF_LINE_BYTES]; /* received and not yet served */
	char *out;                /* the answer that leaves; NULL: none */
	size_t out_len, out_sent;
};

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static int listen_fd = -1;
static struct client *clients;
static unsigned client_count;

static int replace_stale(const char *path, struct error *error);
static void accept_client(void *arg, uint32_t events);
static void accept_pause(void);
static void accept_again(void *arg);
static void client_event(void *arg, uint32_t events);
static bool client_read(struct client *client);
static bool client_serve(struct client *client);
static json_t *line_answer(const char *line, size_t len);
static json_t *error_json(struct error *error);
static void client_answer(struct client *client, json_t *answer);
static bool client_send(struct client *client);
static void client_close(struct client *client);

int ctl_socket_open(const char *path, struct error *error)
{
	char directory[sizeof(address.sun_path)];
	char *slash;
	int err;

	if (!path[0] || strlen(path) >= sizeof(address.sun_path))
		return fail(error, -ENAMETOOLONG,
			    "the path of the control socket must have 1 to %zu characters",
			    sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	strcpy(directory, path);
	slash = strrchr(directory, '/');
	if (slash && slash > directory) {
		*slash = 0;
		if (mkdir(directory, DIRECTORY_MODE) < 0 && errno != EEXIST)
			return fail(error, -errno,
				    "cannot make the directory %s for the control socket: %s",
				    directory, strerror(errno));
	}
	err = replace_stale(path, error);
	if (err)
		return err;

	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listen_fd < 0)
		return fail(error, -errno, "cannot make the control socket: %s", strerror(errno));
	/* A socket is born with the mode of its descriptor, less the umask: never wider than it
	 * shall be. */
	if (fchmod(listen_fd, SOCKET_MODE) < 0 ||
	    bind(listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(path, SOCKET_MODE) < 0 || listen(listen_fd, BACKLOG) < 0) {
		err = fail(error, -errno, "cannot listen at the control socket %s: %s", path,
			   strerror(errno));
		close(listen_fd);
		listen_fd = -1;
		return err;
	}
	err = loop_add_fd(listen_fd, EPOLLIN, accept_client, NULL);
	if (err) {
		ctl_socket_close();
		return fail(error, err, "cannot watch the control socket: %s", strerror(-err));
	}
	return 0;
}

void ctl_socket_close(void)
{
	if (listen_fd < 0)
		return;
	while (clients)
		client_close(clients);
	loop_del_fd(listen_fd);
	close(listen_fd);
	listen_fd = -1;
	unlink(address.sun_path);
}

/* Nobody answers at a socket whose vifd is dead: remove it. Whatever else is there stays. */
static int replace_stale(const char *path, struct error *error)
{
	struct stat status;
	int fd, err;

	if (lstat(path, &status) < 0)
		return errno == ENOENT ? 0
				       : fail(error, -errno, "cannot look at %s: %s", path,
					      strerror(errno));
	if (!S_ISSOCK(status.st_mode))
		return fail(error, -EEXIST,
			    "%s exists and is no socket (-s names another control socket)", path);

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(error, -errno, "cannot make a socket: %s", strerror(errno));
	err = connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? errno : 0;
	close(fd);
	if (err != ECONNREFUSED)
		return fail(error, -EADDRINUSE,
			    "another vifd is running on %s (-s names another control socket)",
			    path);
	if (unlink(path) < 0)
		return fail(error, -errno, "cannot replace the stale socket %s: %s", path,
			    strerror(errno));
	return 0;
}

static void accept_client(void *arg, uint32_t events)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *client;

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			accept_pause();
		return;
	}
	client = calloc(1, sizeof(*client));
	if (!client || loop_add_fd(fd, EPOLLIN, client_event, client)) {
		free(client);
		close(fd);
		return;
	}
	client->fd = fd;
	client->next = clients;
	clients = client;
	if (++client_count > CLIENTS_MAX) {
		client_answer(client, json_pack("{s:b, s:s}", "ok", 0, "error",
						"too many control connections"));
		client->ended = true;
		client_event(client, 0);
	}
}

/* Out of descriptors: the connection stays in the backlog, and would wake the loop for ever. */
static void accept_pause(void)
{
	log_warn("control socket: %s: no new connections for a second", strerror(errno));
	if (loop_add_timer(ACCEPT_PAUSE_MSEC, accept_again, NULL) > 0)
		loop_set_events(listen_fd, 0);
}

static void accept_again(void *arg)
{
	loop_set_events(listen_fd, EPOLLIN);
}

static void client_event(void *arg, uint32_t events)
{
	struct client *client = arg;

	if (!client_send(client) ||
	    (!client->out && !client->ended && events && !client_read(client)) ||
	    !client_serve(client) || (client->ended && !client->out)) {
		client_close(client);
		return;
	}
	loop_set_events(client->fd, client->out ? EPOLLOUT : EPOLLIN);
}

/* Read what is there, once, so that one client does not keep the others waiting. False: it is
 * lost. */
static bool client_read(struct client *client)
{
	ssize_t got = recv(client->fd, client->in + client->in_len,
			   sizeof(client->in) - client->in_len, 0);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	client->in_len += (size_t)got;
	if (got > 0)
		return true;
	client->ended = true;
	if (client->in_len > 0)
		client->in[client->in_len++] = '\n';
	return true;
}

/* Serve the lines received, one after the other as their answers leave. False: the client is
 * lost. */
static bool client_serve(struct client *client)
{
	struct error error;

	while (!client->out) {
		char *end = memchr(client->in, '\n', client->in_len);
		size_t used = end ? (size_t)(end - client->in) + 1 : client->in_len;

		if (end) {
			*end = 0;
			client_answer(client, line_answer(client->in, used - 1));
			client->in_len -= used;
			memmove(client->in, end + 1, client->in_len);
		} else if (client->in_len == sizeof(client->in)) {
			fail(&error, -EINVAL, "the line is longer than %d characters",
			     CONF_LINE_BYTES - 1);
			client_answer(client, error_json(&error));
			client->in_len = 0;
			client->ended = true;
		} else {
			return true;
		}
		if (!client_send(client))
			return false;
	}
	return true;
}

/* Run one line, which shall hold len characters. */
static json_t *line_answer(const char *line, size_t len)
{
	struct error error;
	json_t *result = NULL;

	if (strlen(line) != len) {
		fail(&error, -EINVAL, "the line contains a zero byte");
		return error_json(&error);
	}
	if (command_run(line, false, &result, &error))
		return error_json(&error);
	return json_pack("{s:b, s:o}", "ok", 1, "result", result);
}

static json_t *error_json(struct error *error)
{
	json_t *answer = json_pack("{s:b, s:s}", "ok", 0, "error", error->text);

	if (answer)
		return answer;
	/* The sentence quotes something that is no UTF-8, or was cut within a character. */
	for (char *c = error->text; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	return json_pack("{s:b, s:s}", "ok", 0, "error", error->text);
}

/* Make answer, which is taken, what leaves next. Without memory for it the client is hung up on. */
static void client_answer(struct client *client, json_t *answer)
{
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(answer);
	client->out = text;
	if (!text) {
		client->ended = true;
		return;
	}
	client->out[len] = '\n'; /* in the place of the terminating 0 */
	client->out_len = len + 1;
	client->out_sent = 0;
}

/* Send what can leave now. False: the client is lost. */
static bool client_send(struct client *client)
{
	while (client->out) {
		ssize_t sent = send(client->fd, client->out + client->out_sent,
				    client->out_len - client->out_sent, MSG_NOSIGNAL);

		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		client->out_sent += (size_t)sent;
		if (client->out_sent == client->out_len) {
			free(client->out);
			client->out = NULL;
		}
	}
	return true;
}

static void client_close(struct client *client)
{
	struct client **at = &clients;

	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	client_count--;
	loop_del_fd(client->fd);
	close(client->fd);
	free(client->out);
	free(client);
}
