/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Xen's network interface, back end: unmodified guests' netfront gets its NIC from here in place of
 * the kernel's xen-netback.
 *
 * Theory of operation. A guest grants us pages, for as long as one packet lives: those that it
 * sends from, those that it wants to receive into, and for good the two pages that the rings of a
 * queue lie in. We copy from and to the former by grant copy (xen_tx.c, xen_rx.c), which is done by
 * the hypervisor; we map the latter and poll them as we poll any ring.
 *
 * System calls are what costs: in a PV domain each is worth two loads of CR3. There are, at most,
 *
 *      for a burst from the guest    one grant copy call, one notification if there is no more
 *      for a burst to the guest      one grant copy call, one notification at the end of the round
 *      to sleep and be woken         one read() of events, and one write() if there were any
 *
 * A ring's event index asks for one wake-up, when we sleep; while we poll it lies in the past and
 * nobody is woken. On the receive ring it always does: buffers are looked at when there is something
 * to put into them.
 *
 * Events. Who is told of an event is not told of the next one before the first has been taken and
 * unmasked. We do that when we arm. A front end could send events without end, for nothing: with
 * too many in a second that found no packet, the channel stays masked until the next tick.
 *
 * A front end that breaks the protocol loses its interface, and no other does: nothing of it is
 * touched until it connects anew.
 */
#include "guest/xen_netif.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "port/worker.h"
#include "sys/log.h"

enum { SPURIOUS_EVENTS_MAX = 64 };

const char *const xen_error_names[XEN_ERRORS] = {
	[XEN_OK] = "none",
	[XEN_TX_JUMPED] = "more was sent than the ring holds",
	[XEN_RX_JUMPED] = "more buffers were posted than the ring holds",
	[XEN_HALF_PACKET] = "the first half of a packet without the second",
	[XEN_MISSING_EXTRA] = "a packet without the extra information that it announced",
	[XEN_BAD_EXTRA] = "extra information of no kind",
	[XEN_BAD_GSO] = "segmentation into nothing, or of no kind",
	[XEN_ACROSS_PAGE] = "a packet's data crosses the end of a page",
	[XEN_TOO_MANY_SLOTS] = "a packet of too many slots",
};

const char *const xen_tx_mode_names[XEN_TX_MODES] = {
	[XEN_TX_COPY] = "copy",
	[XEN_TX_HEADER] = "header",
	[XEN_TX_MAP] = "map",
};

static struct xen_netif *netif_of(struct channel *channel)
{
	return (struct xen_netif *)((char *)channel - offsetof(struct xen_netif, channel));
}

/* The queue, if it is to be served. */
static struct xen_queue *queue_of(struct channel *channel, unsigned pair)
{
	struct xen_netif *netif = netif_of(channel);

	return likely(xen_ok(netif)) ? netif->queues[pair] : NULL;
}

void xen_break(struct xen_netif *netif, enum xen_error error)
{
	uint8_t none = XEN_OK;

	if (!atomic_compare_exchange_strong(&netif->error, &none, error))
		return;
	__atomic_fetch_add(&netif->breaks, 1, __ATOMIC_RELAXED);
	log_warn("guest %s: its front end broke the protocol: %s", netif->channel.port.name,
		 xen_error_names[error]);
}

/* ---- what costs ---- */

void xen_wake(struct xen_queue *queue, const struct xen_ring_indexes *at, uint32_t old,
	      uint32_t now, uint32_t port, struct xen_costs *costs)
{
	if (!xen_must_wake(at, old, now))
		return;
	queue->netif->ops->notify(queue->events, port);
	costs->notifies++;
	port_stats(&queue->netif->channel.port)->doorbells++;
}

void xen_copy(struct xen_queue *queue, struct xen_copy *copies, unsigned count,
	      struct xen_costs *costs)
{
	struct port_stats *stats = port_stats(&queue->netif->channel.port);

	queue->netif->ops->copy(copies, count);
	costs->copies += count;
	costs->copy_calls++;
	stats->grant_copies += count;
	stats->grant_calls++;
}

/* ---- events ---- */

/* Take what has come, and let more come, unless too much came for nothing. */
static void take_events(struct xen_queue *queue)
{
	const struct xen_ops *ops = queue->netif->ops;
	uint32_t ports[XEN_EVENTS_MAX];
	unsigned count = ops->take(queue->events, ports);

	queue->tx_costs.takes++;
	if (count == 0)
		return;
	if (queue->worked)
		queue->spurious = 0;
	else
		queue->spurious++;
	queue->worked = false;
	if (likely(queue->spurious < SPURIOUS_EVENTS_MAX)) {
		ops->unmask(queue->events, ports, count);
		queue->tx_costs.unmasks++;
		return;
	}
	for (unsigned i = 0; i < count; i++)
		atomic_store(&queue->masked[ports[i] != queue->tx_port], true);
}

/* What take_events() left masked. */
static void unmask_again(struct xen_queue *queue)
{
	const uint32_t known[XEN_EVENTS_MAX] = { queue->tx_port, queue->rx_port };

	__atomic_store_n(&queue->spurious, 0, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < XEN_EVENTS_MAX; i++) {
		if (atomic_exchange(&queue->masked[i], false))
			queue->netif->ops->unmask(queue->events, &known[i], 1);
	}
}

/* Have the worker woken when a guest that used up its rate may send again. False: it may now. */
static bool wait_for_credit(struct xen_queue *queue)
{
	uint64_t now = worker_self->profile.last;
	struct itimerspec when = { 0 };
	uint64_t nsec;

	if (now >= queue->credit_due)
		return false;
	nsec = (queue->credit_due - now) * 1000 / (cycles_hz() / 1000000) + 1;
	when.it_value.tv_sec = nsec / 1000000000;
	when.it_value.tv_nsec = nsec % 1000000000;
	return timerfd_settime(queue->timer_fd, 0, &when, NULL) == 0;
}

static bool netif_arm(struct channel *channel, unsigned pair)
{
	struct xen_queue *queue = queue_of(channel, pair);

	if (!queue)
		return false;
	xen_tx_tell(queue);
	take_events(queue);
	if (unlikely(queue->limited))
		return !wait_for_credit(queue);
	if (!xen_ring_arm(&queue->tx->at, queue->tx_cons))
		return false;
	xen_ring_disarm(&queue->tx->at, queue->tx_cons);
	return true;
}

static void netif_disarm(struct channel *channel, unsigned pair)
{
	struct xen_queue *queue = queue_of(channel, pair);

	if (queue)
		xen_ring_disarm(&queue->tx->at, queue->tx_cons);
}

void xen_netif_tick(struct xen_netif *netif)
{
	for (unsigned i = 0; i < PORT_QUEUES_MAX && netif->queues[i]; i++) {
		struct xen_queue *queue = netif->queues[i];

		unmask_again(queue);
		if (atomic_load(&queue->lacking) == 0)
			queue->lacking_ticks = 0;
		else if (++queue->lacking_ticks == XEN_STALL_SECONDS) {
			atomic_store(&queue->stalled, true);
			log_warn("guest %s: has not posted what it is to receive into for %d "
				 "seconds",
				 netif->channel.port.name, XEN_STALL_SECONDS);
		}
	}
}

/* ---- the channel ---- */

static unsigned netif_guest_tx(struct channel *channel, unsigned pair, struct pkt **pkts,
			       unsigned n)
{
	struct xen_queue *queue = queue_of(channel, pair);

	return likely(queue != NULL) ? xen_tx_take(queue, pkts, n) : 0;
}

static unsigned netif_guest_rx(struct channel *channel, unsigned pair, struct pkt **pkts,
			       unsigned n, uint64_t **why)
{
	struct xen_queue *queue = queue_of(channel, pair);

	if (likely(queue != NULL))
		return xen_rx_put(queue, pkts, n, why);
	*why = &port_stats(&channel->port)->drop_not_ready;
	return 0;
}

static void netif_kick(struct channel *channel, unsigned pair)
{
	struct xen_queue *queue = queue_of(channel, pair);

	if (!queue || queue->rx_told == queue->rx_cons)
		return;
	xen_wake(queue, &queue->rx->at, queue->rx_told, queue->rx_cons, queue->rx_port,
		 &queue->rx_costs);
	queue->rx_told = queue->rx_cons;
}

const struct channel_ops xen_channel_ops = {
	.kind = "xen",
	.guest_tx = netif_guest_tx,
	.guest_rx = netif_guest_rx,
	.kick = netif_kick,
	.arm = netif_arm,
	.disarm = netif_disarm,
};

/* ---- connecting ---- */

/* Pages of ours, granted if that can be. */
static bool own_open(const struct xen_queue *queue, struct xen_own *own, unsigned count)
{
	own->pages = queue->netif->ops->own(count, own->refs);
	own->granted = own->pages != NULL;
	if (!own->granted)
		own->pages = aligned_alloc(XEN_PAGE, (size_t)count * XEN_PAGE);
	if (own->pages)
		memset(own->pages, 0, (size_t)count * XEN_PAGE);
	return own->pages != NULL;
}

static void own_close(const struct xen_queue *queue, struct xen_own *own, unsigned count)
{
	if (own->granted)
		queue->netif->ops->disown(own->pages, count);
	else
		free(own->pages);
}

static void queue_free(struct xen_queue *queue)
{
	const struct xen_ops *ops = queue->netif->ops;

	if (queue->wake_fd >= 0 && queue->timer_fd >= 0)
		close(queue->wake_fd);
	if (queue->timer_fd >= 0)
		close(queue->timer_fd);
	if (queue->events)
		ops->events_close(queue->events);
	if (queue->tx)
		ops->unmap(queue->tx, 1);
	if (queue->rx)
		ops->unmap(queue->rx, 1);
	own_close(queue, &queue->memory, XEN_RING);
	own_close(queue, &queue->stage, XEN_STAGE);
	free(queue);
}

static struct xen_queue *queue_new(struct xen_netif *netif, unsigned number)
{
	struct xen_queue *queue = aligned_alloc(64, sizeof(*queue));

	if (!queue)
		return NULL;
	memset(queue, 0, sizeof(*queue));
	queue->source.done = xen_tx_done;
	queue->source.fetch = xen_tx_fetch;
	queue->netif = netif;
	queue->number = number;
	queue->wake_fd = queue->timer_fd = -1;
	for (unsigned i = 0; i < XEN_RING; i++)
		queue->free_pages[queue->free_count++] = XEN_RING - 1 - i;
	if (own_open(queue, &queue->memory, XEN_RING) && own_open(queue, &queue->stage, XEN_STAGE))
		return queue;
	queue_free(queue);
	return NULL;
}

static int bind_event(struct xen_queue *queue, uint32_t remote, uint32_t *port, struct error *error)
{
	int ret = queue->netif->ops->bind(queue->events, queue->netif->domid, remote);

	if (ret == -EINVAL)
		return fail(error, ret,
			    "its event channel is taken: another back end (xen-netback?) has this "
			    "vif");
	if (ret < 0)
		return fail(error, ret, "its event channel %u cannot be bound: %s", remote,
			    strerror(-ret));
	*port = ret;
	return 0;
}

static int bind_events(struct xen_queue *queue, const struct xen_queue_config *config,
		       struct error *error)
{
	int ret;

	queue->events = queue->netif->ops->events_open();
	if (!queue->events)
		return fail(error, -errno, "no event channels: %s", strerror(errno));
	queue->wake_fd = queue->netif->ops->events_fd(queue->events);
	ret = bind_event(queue, config->tx_event, &queue->tx_port, error);
	queue->rx_port = queue->tx_port;
	if (!ret && config->rx_event != config->tx_event)
		ret = bind_event(queue, config->rx_event, &queue->rx_port, error);
	return ret;
}

/* The ring's index that the back end before us stopped at; nothing is lost by starting there. */
static int ring_position(const struct xen_ring_indexes *at, uint32_t *position, struct error *error)
{
	*position = xen_look(&at->rsp_prod);
	if (xen_look(&at->req_prod) - *position <= XEN_RING)
		return 0;
	return fail(error, -EPROTO, "the indexes of its rings contradict each other");
}

static int map_rings(struct xen_queue *queue, const struct xen_queue_config *config,
		     struct error *error)
{
	const struct xen_netif *netif = queue->netif;
	uint32_t tx_ref = config->tx_ref, rx_ref = config->rx_ref;
	int ret;

	queue->tx = netif->ops->map(netif->domid, &tx_ref, 1, true);
	if (queue->tx)
		queue->rx = netif->ops->map(netif->domid, &rx_ref, 1, true);
	if (!queue->rx)
		return fail(error, -errno, "its rings (grants %u, %u) cannot be mapped: %s", tx_ref,
			    rx_ref, strerror(errno));
	ret = ring_position(&queue->tx->at, &queue->tx_cons, error);
	if (!ret)
		ret = ring_position(&queue->rx->at, &queue->rx_cons, error);
	queue->tx_rsp = queue->tx_told = queue->tx_cons;
	queue->rx_told = queue->rx_cons;
	return ret;
}

/* A guest with a rate is also woken by a timer: two descriptors behind one. False: errno. */
static bool make_timer(struct xen_queue *queue)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int both = epoll_create1(EPOLL_CLOEXEC);

	queue->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (both >= 0 && queue->timer_fd >= 0 &&
	    epoll_ctl(both, EPOLL_CTL_ADD, queue->timer_fd, &event) == 0 &&
	    epoll_ctl(both, EPOLL_CTL_ADD, queue->wake_fd, &event) == 0) {
		queue->wake_fd = both;
		return true;
	}
	if (both >= 0)
		close(both);
	if (queue->timer_fd >= 0)
		close(queue->timer_fd);
	queue->timer_fd = -1;
	return false;
}

static int queue_open(struct xen_queue *queue, const struct xen_queue_config *config,
		      struct error *error)
{
	int ret = map_rings(queue, config, error);

	if (!ret)
		ret = bind_events(queue, config, error);
	if (!ret && queue->netif->rate_bytes > 0 && !make_timer(queue))
		ret = fail(error, -errno, "no timer: %s", strerror(errno));
	return ret;
}

/* While paused. */
static void queue_watch(struct xen_queue *queue)
{
	struct port *port = &queue->netif->channel.port;
	int err = worker_watch(port, queue->number, queue->wake_fd);

	if (err)
		log_warn("guest %s: the events of queue %u cannot be watched: %s", port->name,
			 queue->number, strerror(-err));
}

/* While paused: from now on it is served. */
static void queue_start(struct xen_queue *queue)
{
	xen_ring_disarm(&queue->tx->at, queue->tx_cons);
	xen_ring_disarm(&queue->rx->at, queue->rx_cons);
	queue_watch(queue);
	/* After a restart the front end may wait for what the back end before us did not say. */
	queue->netif->ops->notify(queue->events, queue->tx_port);
	if (queue->rx_port != queue->tx_port)
		queue->netif->ops->notify(queue->events, queue->rx_port);
}

int xen_netif_connect(struct xen_netif *netif, const struct xen_config *config, struct error *error)
{
	struct xen_queue *queues[PORT_QUEUES_MAX] = { NULL };
	int ret = 0;

	for (unsigned i = 0; i < config->queues && !ret; i++) {
		queues[i] = queue_new(netif, i);
		ret = queues[i] ? queue_open(queues[i], &config->queue[i], error)
				: fail(error, -ENOMEM, "out of memory");
	}
	if (ret) {
		for (unsigned i = 0; i < config->queues && queues[i]; i++)
			queue_free(queues[i]);
		return ret;
	}
	workers_pause();
	memcpy(netif->queues, queues, sizeof(queues));
	netif->channel.pairs = config->queues;
	netif->channel.port.caps = config->caps;
	netif->sg = config->sg;
	netif->multicast_asks = config->multicast_asks;
	memset(netif->multicast, 0, sizeof(netif->multicast));
	atomic_store(&netif->error, XEN_OK);
	for (unsigned i = 0; i < config->queues; i++)
		queue_start(queues[i]);
	workers_resume();
	return 0;
}

void xen_netif_disconnect(struct xen_netif *netif)
{
	struct xen_queue *queues[PORT_QUEUES_MAX];

	workers_pause();
	ports_let_go(&netif->channel.port);
	memcpy(queues, netif->queues, sizeof(queues));
	memset(netif->queues, 0, sizeof(netif->queues));
	netif->channel.pairs = 1;
	netif->channel.port.caps = PORT_CAP_SG;
	for (unsigned i = 0; i < PORT_QUEUES_MAX && queues[i]; i++)
		worker_watch(&netif->channel.port, i, -1);
	workers_resume();
	for (unsigned i = 0; i < PORT_QUEUES_MAX && queues[i]; i++)
		queue_free(queues[i]);
}

void xen_netif_set_rate(struct xen_netif *netif, uint64_t bytes, uint32_t usec)
{
	workers_pause();
	netif->rate_bytes = bytes;
	netif->rate_usec = usec;
	for (unsigned i = 0; i < PORT_QUEUES_MAX && netif->queues[i]; i++) {
		struct xen_queue *queue = netif->queues[i];

		queue->credit = 0;
		queue->credit_due = 0;
		queue->limited = false;
		if (bytes == 0 || queue->timer_fd >= 0)
			continue;
		if (make_timer(queue))
			queue_watch(queue);
		else
			netif->rate_bytes = 0;
	}
	workers_resume();
}
