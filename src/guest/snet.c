/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The snet channel, back end (SETH §3.3, S8, S13-S16): its port and its sessions.
 *
 * Theory of operation. What a guest sends lies in zones that it writes (snet_tx.c), what it
 * receives in zones that it reads (snet_rx.c); rings say where. No descriptor chains, no address
 * translation, no mapping of anything per packet: a zone is mapped once by both sides.
 *
 *      guest's tx zones   W: the front end        its packets go on by reference; ids return in
 *                                                 tx_done when whoever got them is done
 *      guest's rx zones   W: vifd, R: front end   the one copy (trust=isolated)
 *      others' zones      W: their owners, uplinks    no copy at all (trust=shared)
 *
 * One queue per worker: queue i is polled by worker i, and worker i puts what it has for the guest
 * into receive ring i. A queue is therefore touched by one thread and needs neither lock nor atomic
 * operation but for the four ring indexes (S32), and a packet that is out with a front end belongs
 * to the worker to which it will return.
 *
 * The front end's end. Nothing that it holds is waited for: buffers and packets that are out are
 * taken back at once, on behalf of their workers, which are paused. What it has sent may still be
 * under way, with another front end even, and its zones stay as they are until that is done: the
 * session lingers, by itself, and so does the struct pkt_source that such packets name.
 *
 * Doorbells may block, for their descriptors are shared with the front end. As for virtio the
 * watchdog of the workers interrupts such a write; the queue is lost, the guest not called for a
 * while. The main thread, which is the watchdog, rings none: what it completes on behalf of a worker
 * is told to the front end when that worker polls again.
 */
#include "guest/snet.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "port/worker.h"

enum { MUTE_TICKS = 40 /* ten seconds */, SUPERPAGE = 2 << 20 };

#ifndef MADV_POPULATE_WRITE /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

const char *const snet_error_names[SNET_ERRORS] = {
	[SNET_OK] = "none",
	[SNET_TX_JUMPED] = "more was sent than the ring holds",
	[SNET_BAD_BUFFER] = "a buffer to be sent lies outside the zones to send from",
	[SNET_EMPTY_BUFFER] = "a buffer to be sent is empty",
	[SNET_LONG_CHAIN] = "a packet of too many buffers",
	[SNET_HALF_PACKET] = "the first half of a packet without the second",
	[SNET_DONE_JUMPED] = "more buffers were returned than are out",
	[SNET_BAD_ID] = "a buffer was returned that is not out",
	[SNET_CALL_BLOCKED] = "its doorbell blocks",
};

/* ---- sessions ---- */

/* Map fd where superpages begin. MAP_FAILED: errno says why. */
static void *map_aligned(int fd, size_t len)
{
	uint8_t *room = mmap(NULL, len + SUPERPAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t before = -(uintptr_t)room & (SUPERPAGE - 1);

	if (room == MAP_FAILED)
		return MAP_FAILED;
	if (before > 0)
		munmap(room, before);
	munmap(room + before + len, SUPERPAGE - before);
	return mmap(room + before, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
}

/* The memory of all rings: one file, which nobody can cut, on superpages if there are any (M15). */
static int memory_make(struct snet_session *session, size_t len)
{
	int fd = memfd_create("vifd-snet", MFD_CLOEXEC | MFD_ALLOW_SEALING), ret;
	void *memory = MAP_FAILED;

	len = (len + SUPERPAGE - 1) & ~(size_t)(SUPERPAGE - 1);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, len) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		memory = map_aligned(fd, len);
	if (memory == MAP_FAILED) {
		ret = -errno;
		close(fd);
		return ret;
	}
	/* wishes */
	madvise(memory, len, MADV_HUGEPAGE);
	madvise(memory, len, MADV_POPULATE_WRITE);
	madvise(memory, len, MADV_COLLAPSE);
	madvise(memory, len, MADV_DONTDUMP);
	session->memory = memory;
	session->memory_len = len;
	session->memory_fd = fd;
	return 0;
}

static int queue_make(struct snet_queue *queue, struct snet_session *session, unsigned number,
		      uint32_t size, uint32_t stride)
{
	queue->source.done = snet_tx_done;
	queue->session = session;
	snet_rings_at(&queue->rings, session->memory + number * snet_queue_bytes(size, stride),
		      size, stride);
	queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	queue->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	queue->tx_rest = calloc(size, sizeof(*queue->tx_rest));
	queue->out = calloc(size, sizeof(*queue->out));
	queue->ids = calloc(size, sizeof(*queue->ids));
	if (!queue->tx_rest || !queue->out || !queue->ids)
		return -ENOMEM;
	if (queue->kick_fd < 0 || queue->call_fd < 0)
		return -EMFILE;
	for (uint32_t i = 0; i < size; i++) {
		queue->ids[queue->id_count++] = size - 1 - i;
		queue->tx_rest[i].next = i; /* the one before */
	}
	queue->tx_rest_free = size;
	return 0;
}

struct snet_session *snet_session_new(unsigned count, uint32_t size, uint32_t stride)
{
	size_t len = sizeof(struct snet_session) + count * sizeof(struct snet_queue);
	struct snet_session *session = aligned_alloc(64, (len + 63) & ~(size_t)63);
	int ret;

	if (!session)
		return NULL;
	memset(session, 0, len);
	session->memory_fd = -1;
	session->queue_count = count;
	for (unsigned i = 0; i < count; i++)
		session->queues[i].kick_fd = session->queues[i].call_fd = -1;
	ret = memory_make(session, count * snet_queue_bytes(size, stride));
	for (unsigned i = 0; i < count && !ret; i++)
		ret = queue_make(&session->queues[i], session, i, size, stride);
	if (ret) {
		snet_session_free(session);
		return NULL;
	}
	return session;
}

void snet_session_free(struct snet_session *session)
{
	for (unsigned i = 0; i < session->queue_count; i++) {
		struct snet_queue *queue = &session->queues[i];

		if (queue->kick_fd >= 0)
			close(queue->kick_fd);
		if (queue->call_fd >= 0)
			close(queue->call_fd);
		free(queue->tx_rest);
		free(queue->out);
		free(queue->ids);
	}
	if (session->memory) {
		/* who keeps the descriptor keeps no memory of ours */
		fallocate(session->memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			  session->memory_len);
		munmap(session->memory, session->memory_len);
		close(session->memory_fd);
	}
	free(session);
}

bool snet_session_done(const struct snet_session *session)
{
	for (unsigned i = 0; i < session->queue_count; i++) {
		if (session->queues[i].tx_taken != session->queues[i].tx_returned)
			return false;
	}
	return true;
}

enum snet_error snet_session_error(const struct snet_session *session, unsigned *queue)
{
	for (*queue = 0; *queue < session->queue_count; (*queue)++) {
		uint8_t error = atomic_load(&session->queues[*queue].error);

		if (error)
			return error;
	}
	return SNET_OK;
}

int snet_start(struct snet *snet, struct snet_session *session)
{
	int ret = 0;

	session->snet = snet;
	snet->session = session;
	for (unsigned i = 0; i < session->queue_count && !ret; i++) {
		session->queues[i].worker = worker_by_id(i);
		snet_rx_start(snet, &session->queues[i], snet->own[i]);
		ret = worker_watch(&snet->port, i, session->queues[i].kick_fd);
	}
	if (ret)
		snet_stop(snet);
	return ret;
}

struct snet_session *snet_stop(struct snet *snet)
{
	struct snet_session *session = snet->session;

	if (!session)
		return NULL;
	snet->session = NULL;
	session->snet = NULL;
	for (unsigned i = 0; i < session->queue_count; i++) {
		worker_watch(&snet->port, i, -1);
		snet_rx_reclaim(snet, &session->queues[i]);
	}
	return session;
}

void snet_break(struct snet *snet, struct snet_queue *queue, enum snet_error error)
{
	if (!snet_queue_ok(queue))
		return;
	atomic_store_explicit(&queue->error, error, memory_order_relaxed);
	atomic_fetch_add_explicit(&snet->breaks, 1, memory_order_relaxed);
}

/* ---- the port ---- */

/* The worker's queue; NULL: there is none to be served. */
static struct snet_queue *queue_of(const struct snet *snet, unsigned number)
{
	struct snet_session *session = snet->session;

	return session && snet_queue_ok(&session->queues[number]) ? &session->queues[number] : NULL;
}

/* Wake the front end. */
static void call_front(struct snet *snet, struct snet_queue *queue)
{
	struct worker *worker = worker_self;

	if (unlikely(atomic_load_explicit(&snet->muted, memory_order_relaxed)))
		return;
	atomic_store_explicit(&worker->calling, true, memory_order_relaxed);
	/* full already (EAGAIN): then it need not be woken */
	if (unlikely(eventfd_write(queue->call_fd, 1) && errno != EAGAIN)) {
		snet_break(snet, queue, SNET_CALL_BLOCKED);
		atomic_store(&snet->muted, MUTE_TICKS);
	}
	atomic_store_explicit(&worker->calling, false, memory_order_relaxed);
	port_stats(&snet->port)->doorbells++;
}

static void tell_done(struct snet *snet, struct snet_queue *queue)
{
	queue->tell_done = false;
	if (snet_must_wake(&queue->rings.control->front, SNET_WANT_DONE))
		call_front(snet, queue);
}

static unsigned snet_recv(struct port *port, unsigned number, struct pkt **pkts, unsigned n)
{
	struct snet *snet = snet_of_port(port);
	struct snet_queue *queue = queue_of(snet, number);

	if (unlikely(!queue))
		return 0;
	if (queue->tell_done)
		tell_done(snet, queue);
	snet_rx_poll(snet, queue);
	return snet_tx_take(snet, queue, pkts, n);
}

static void snet_send(struct port *port, struct pkt **pkts, unsigned n)
{
	struct snet *snet = snet_of_port(port);
	struct snet_queue *queue = queue_of(snet, worker_self->id);

	if (likely(queue != NULL))
		snet_rx_put(snet, queue, pkts, n);
	else
		port_stats(port)->drop_not_ready += n;
	pkt_put_burst(pkts, n);
	profile_mark(&worker_self->profile, STAGE_COPY);
}

static void snet_flush(struct port *port)
{
	struct snet *snet = snet_of_port(port);
	struct snet_queue *queue = queue_of(snet, worker_self->id);

	if (!queue || !queue->tell_put)
		return;
	queue->tell_put = false;
	if (snet_must_wake(&queue->rings.control->front, SNET_WANT_ENTRIES))
		call_front(snet, queue);
}

/* Who else is waiting for what this front end has out is why we wait for its returning it. */
static bool snet_arm(struct port *port, unsigned number)
{
	struct snet *snet = snet_of_port(port);
	struct snet_queue *queue = queue_of(snet, number);
	struct snet_control *control;

	if (!queue)
		return false;
	if (queue->tell_done)
		tell_done(snet, queue);
	control = queue->rings.control;
	snet_want(&control->back, SNET_WANT_ENTRIES | (queue->references ? SNET_WANT_DONE : 0));
	if (snet_look(&control->front.produced) == queue->tx_taken &&
	    (!queue->references || snet_look(&control->front.given_back) == queue->rx_returned))
		return false;
	snet_want(&control->back, 0);
	return true;
}

static void snet_disarm(struct port *port, unsigned number)
{
	struct snet_queue *queue = queue_of(snet_of_port(port), number);

	if (queue)
		snet_want(&queue->rings.control->back, 0);
}

static void snet_let_go(struct port *port, const struct port *from)
{
	struct snet *snet = snet_of_port(port);

	/* what a front end sent stays where it is until it is done, even without a port */
	if (!snet->session || from->ops == &snet_port_ops)
		return;
	for (unsigned i = 0; i < snet->session->queue_count; i++)
		snet_rx_let_go(&snet->session->queues[i], from);
}

const struct port_ops snet_port_ops = {
	.kind = "snet",
	.recv = snet_recv,
	.send = snet_send,
	.flush = snet_flush,
	.arm = snet_arm,
	.disarm = snet_disarm,
	.close = snet_close,
	.let_go = snet_let_go,
};
