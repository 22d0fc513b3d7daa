/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The back end of every guest channel: makes a port of it (M1).
 *
 * Receive queue n of the port is what the guest sends on its queue pair n. Sending picks a pair by
 * flow, so that a guest's processors share the load and a flow stays in order, takes the pair's
 * lock for the burst, copies (M12: the one copy) and leaves the doorbell to the end of the round.
 */
#include "guest/channel.h"
#include "pkt/headers.h"
#include "port/worker.h"

static void pair_lock(struct channel *channel, unsigned pair)
{
	while (atomic_flag_test_and_set_explicit(&channel->locks[pair].held, memory_order_acquire))
		_mm_pause();
}

static void pair_unlock(struct channel *channel, unsigned pair)
{
	atomic_flag_clear_explicit(&channel->locks[pair].held, memory_order_release);
}

static unsigned guest_recv(struct port *port, unsigned queue, struct pkt **pkts, unsigned n)
{
	struct channel *channel = channel_of_port(port);

	return channel->ops->guest_tx(channel, queue, pkts, n);
}

/* Send to one pair. Counts what fits and what does not; the packets stay the caller's. */
static void send_to_pair(struct channel *channel, unsigned pair, struct pkt **pkts, unsigned n)
{
	struct port_stats *stats = port_stats(&channel->port);
	unsigned done = 0;

	pair_lock(channel, pair);
	while (done < n) {
		unsigned burst = n - done < PKT_BURST ? n - done : PKT_BURST;
		uint64_t *why = NULL;
		unsigned fit = channel->ops->guest_rx(channel, pair, pkts + done, burst, &why);

		for (unsigned i = done; i < done + fit; i++) {
			stats->send_bytes += pkts[i]->len;
			stats->copied_bytes += pkts[i]->len - pkts[i]->header_len;
			stats->send_gso_packets += pkts[i]->offload.gso_type != PKT_GSO_NONE;
		}
		stats->send_packets += fit;
		done += fit;
		if (fit < burst) { /* a smaller one behind it may still fit */
			(*why)++;
			done++;
		}
	}
	pair_unlock(channel, pair);
}

static void guest_send(struct port *port, struct pkt **pkts, unsigned n)
{
	struct channel *channel = channel_of_port(port);

	if (channel->pairs == 1) {
		send_to_pair(channel, 0, pkts, n);
	} else {
		for (unsigned from = 0, to; from < n; from = to) {
			unsigned pair = headers_flow_hash(pkts[from]) % channel->pairs;

			for (to = from + 1; to < n; to++) {
				if (headers_flow_hash(pkts[to]) % channel->pairs != pair)
					break;
			}
			send_to_pair(channel, pair, pkts + from, to - from);
		}
	}
	worker_need_flush(worker_self, port);
	for (unsigned i = 0; i < n; i++)
		pkt_put(pkts[i]);
	profile_mark(&worker_self->profile, STAGE_COPY);
}

static void guest_flush(struct port *port)
{
	struct channel *channel = channel_of_port(port);

	for (unsigned pair = 0; pair < channel->pairs; pair++) {
		pair_lock(channel, pair);
		channel->ops->kick(channel, pair);
		pair_unlock(channel, pair);
	}
}

static bool guest_arm(struct port *port, unsigned queue)
{
	struct channel *channel = channel_of_port(port);

	return channel->ops->arm(channel, queue);
}

static void guest_disarm(struct port *port, unsigned queue)
{
	struct channel *channel = channel_of_port(port);

	channel->ops->disarm(channel, queue);
}

static void guest_close(struct port *port)
{
	struct channel *channel = channel_of_port(port);

	channel->ops->close(channel);
}

const struct port_ops guest_port_ops = {
	.kind = "vhost-user",
	.recv = guest_recv,
	.send = guest_send,
	.flush = guest_flush,
	.arm = guest_arm,
	.disarm = guest_disarm,
	.close = guest_close,
};
