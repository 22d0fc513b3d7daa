/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gen: the guests of the vhost and AF_XDP rows. Theory of operation:
 *
 * A packet generator and sink on DPDK's virtio-user ports, driven line by line over stdin by the
 * bench. EAL arguments name two ports for each switch under test (ports 2p and 2p+1 are "pair" p),
 * so that one process with one set of buffers drives every switch, and two samples of different
 * switches are milliseconds apart. Between commands it blocks on stdin and leaves the CPU alone.
 *
 *     warm PAIR SIZE MS          a trickle both ways: a learning switch learns both, and is awake
 *     run PAIR MODE SIZE MS      open loop from the pair's first port to its second; MODE is what a
 *                                guest does with a packet: "uni" writes and reads the headers only,
 *                                "touched" writes and compares every byte
 *     latency PAIR SIZE MS GAP   one packet at a time, GAP microseconds or more from send to send
 *     echo PORT SIZE MS          open loop from a port to a station behind the switch that sends
 *                                all back with the addresses swapped; every byte is compared
 *
 * Each command is answered with one line of JSON; the end of stdin ends the program. SIZE is the
 * frame's length in bytes without FCS; frames are legal Ethernet/IPv4/UDP.
 *
 * "uni" leaves the payload where the switch's core last wrote it, in that core's cache, which
 * flatters switches that copy once; "touched" is what a guest with an application on it does.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_udp.h>

enum {
	RING_SIZE = 256,
	SEND_BURST = 32,
	RECV_BURST = 64,
	BUFFERS = 16383,
	FRAME_MAX = 2048,
	LATENCIES_MAX = 1 << 20,
	LOST_AFTER_MS = 50,
	DRAIN_MS = 2,
	UDP_PORT = 9,
};

struct frame {
	struct rte_ether_hdr ether;
	struct rte_ipv4_hdr ip;
	struct rte_udp_hdr udp;
	uint64_t seq;
} __rte_packed __rte_aligned(2);

/* One direction of one pair: what it sends and what it has seen. */
struct flow {
	uint16_t from, to; /* DPDK ports */
	unsigned size;
	bool touched;
	struct frame head; /* of what it sends */
	struct frame want; /* of what it receives, but for seq */
	uint64_t sent, received;
	uint64_t first_seq; /* of this flow; lower ones are late frames of a flow before it */
	uint64_t next_seq;  /* the lowest sequence number not yet overtaken at the receiver */
	uint64_t bad;       /* frames of a wrong length, content or order */
};

static struct rte_mempool *buffers;
static uint8_t payload[FRAME_MAX];
static uint32_t latencies[LATENCIES_MAX];
static uint64_t seq; /* never used twice */

static void port_start(uint16_t port)
{
	struct rte_eth_conf conf = { 0 };

	if (rte_eth_dev_configure(port, 1, 1, &conf) ||
	    rte_eth_rx_queue_setup(port, 0, RING_SIZE, SOCKET_ID_ANY, NULL, buffers) ||
	    rte_eth_tx_queue_setup(port, 0, RING_SIZE, SOCKET_ID_ANY, NULL) ||
	    rte_eth_dev_start(port))
		rte_exit(EXIT_FAILURE, "gen: cannot start port %u\n", port);
	rte_eth_promiscuous_enable(port);
}

static uint64_t ms_to_cycles(uint64_t ms)
{
	return rte_get_tsc_hz() / 1000 * ms;
}

/* Locally administered, and different for every port of the process. */
static struct rte_ether_addr port_mac(uint16_t port)
{
	return (struct rte_ether_addr){ { 0x02, 0, 0, 0, 0xaa, port } };
}

static struct flow flow_make(uint16_t from, uint16_t to, unsigned size)
{
	struct flow flow = { .from = from, .to = to, .size = size, .first_seq = seq };
	struct rte_ipv4_hdr *ip = &flow.head.ip;

	flow.head.ether.src_addr = port_mac(from);
	flow.head.ether.dst_addr = port_mac(to);
	flow.head.ether.ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = RTE_IPV4_VHL_DEF;
	ip->total_length = rte_cpu_to_be_16(size - sizeof(struct rte_ether_hdr));
	ip->time_to_live = 64;
	ip->next_proto_id = IPPROTO_UDP;
	ip->src_addr = rte_cpu_to_be_32(RTE_IPV4(10, 77, 0, from + 1));
	ip->dst_addr = rte_cpu_to_be_32(RTE_IPV4(10, 77, 0, to + 1));
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	flow.head.udp.src_port = rte_cpu_to_be_16(UDP_PORT);
	flow.head.udp.dst_port = rte_cpu_to_be_16(UDP_PORT);
	flow.head.udp.dgram_len = rte_cpu_to_be_16(size - offsetof(struct frame, udp));
	flow.want = flow.head;
	return flow;
}

/* What a port sends to a station behind the switch, and gets back with the addresses swapped. */
static struct flow flow_echo(uint16_t port, unsigned size)
{
	struct flow flow = flow_make(port, port, size);

	flow.touched = true;
	flow.head.ether.dst_addr = (struct rte_ether_addr){ { 0x02, 0, 0, 0, 0xbb, port } };
	flow.want = flow.head;
	flow.want.ether.dst_addr = flow.head.ether.src_addr;
	flow.want.ether.src_addr = flow.head.ether.dst_addr;
	return flow;
}

/* Send up to `count` frames; what the ring cannot take is taken back. Returns how many went. */
static unsigned flow_send(struct flow *flow, unsigned count)
{
	struct rte_mbuf *mbufs[SEND_BURST];
	unsigned i, sent;

	if (rte_pktmbuf_alloc_bulk(buffers, mbufs, count))
		return 0;
	for (i = 0; i < count; i++) {
		uint8_t *data = rte_pktmbuf_mtod(mbufs[i], uint8_t *);

		mbufs[i]->data_len = mbufs[i]->pkt_len = flow->size;
		flow->head.seq = seq++;
		memcpy(data, &flow->head, sizeof(flow->head));
		if (flow->touched)
			memcpy(data + sizeof(flow->head), payload, flow->size - sizeof(flow->head));
	}
	sent = rte_eth_tx_burst(flow->from, 0, mbufs, count);
	if (sent < count)
		rte_pktmbuf_free_bulk(mbufs + sent, count - sent);
	flow->sent += sent;
	return sent;
}

/* Is this, to the last byte, a frame that flow_send() made, and later than those before it? */
static bool flow_check(struct flow *flow, const struct rte_mbuf *mbuf)
{
	const struct frame *frame = rte_pktmbuf_mtod(mbuf, const struct frame *);

	if (mbuf->pkt_len != flow->size || frame->seq < flow->next_seq ||
	    memcmp(frame, &flow->want, offsetof(struct frame, seq)))
		return false;
	flow->next_seq = frame->seq + 1;
	return !memcmp(frame + 1, payload, flow->size - sizeof(*frame));
}

static bool flow_is_late(const struct flow *flow, const struct rte_mbuf *mbuf)
{
	return mbuf->pkt_len >= sizeof(struct frame) &&
	       rte_pktmbuf_mtod(mbuf, const struct frame *)->seq < flow->first_seq;
}

static unsigned flow_recv(struct flow *flow)
{
	struct rte_mbuf *mbufs[RECV_BURST];
	unsigned i, count, good = 0;

	count = rte_eth_rx_burst(flow->to, 0, mbufs, RECV_BURST);
	for (i = 0; i < count; i++) {
		if (flow->touched ? flow_check(flow, mbufs[i]) : mbufs[i]->pkt_len == flow->size)
			good++;
		else if (!flow_is_late(flow, mbufs[i]))
			flow->bad++;
	}
	if (count)
		rte_pktmbuf_free_bulk(mbufs, count);
	flow->received += good;
	return good;
}

static void port_discard(uint16_t port)
{
	struct rte_mbuf *mbufs[RECV_BURST];
	unsigned count = rte_eth_rx_burst(port, 0, mbufs, RECV_BURST);

	if (count)
		rte_pktmbuf_free_bulk(mbufs, count);
}

/* Let what is under way arrive and forget it. */
static void pair_drain(const struct flow *flow)
{
	uint64_t end = rte_rdtsc() + ms_to_cycles(DRAIN_MS);

	while (rte_rdtsc() < end) {
		port_discard(flow->from);
		port_discard(flow->to);
	}
}

static void command_warm(struct flow *flow, unsigned ms)
{
	struct flow back = flow_make(flow->to, flow->from, flow->size);
	uint64_t now, end = rte_rdtsc() + ms_to_cycles(ms), next = 0;

	while ((now = rte_rdtsc()) < end) {
		flow_recv(flow);
		flow_recv(&back);
		if (now >= next) {
			flow_send(&back, 1);
			flow_send(flow, 1);
			next = now + ms_to_cycles(1) / 20;
		}
	}
	pair_drain(flow);
	printf("{\"there\":%" PRIu64 ",\"back\":%" PRIu64 "}\n", flow->received, back.received);
}

static void command_run(struct flow *flow, unsigned ms)
{
	uint64_t now, start, end;

	pair_drain(flow);
	start = rte_rdtsc();
	end = start + ms_to_cycles(ms);
	while ((now = rte_rdtsc()) < end) {
		flow_recv(flow);
		flow_send(flow, SEND_BURST);
		if (flow->from != flow->to)
			port_discard(flow->from);
	}
	printf("{\"seconds\":%.9f,\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",\"bad\":%" PRIu64
	       "}\n",
	       (double)(now - start) / rte_get_tsc_hz(), flow->sent, flow->received, flow->bad);
	pair_drain(flow);
}

static int compare_latency(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double cycles_to_ns(uint64_t cycles)
{
	return cycles * 1e9 / rte_get_tsc_hz();
}

static void command_latency(struct flow *flow, unsigned ms, unsigned gap_us)
{
	uint64_t gap = ms_to_cycles(gap_us) / 1000, patience = ms_to_cycles(LOST_AFTER_MS);
	uint64_t sent_at, now = rte_rdtsc(), end = now + ms_to_cycles(ms);
	uint64_t count = 0, lost = 0;

	pair_drain(flow);
	while (now < end && count < LATENCIES_MAX) {
		sent_at = rte_rdtsc();
		if (!flow_send(flow, 1)) {
			now = rte_rdtsc();
			continue;
		}
		while (!flow_recv(flow) && (now = rte_rdtsc()) - sent_at < patience)
			;
		now = rte_rdtsc();
		if (now - sent_at < patience)
			latencies[count++] = RTE_MIN(now - sent_at, UINT32_MAX);
		else
			lost++;
		port_discard(flow->from);
		while (now - sent_at < gap)
			now = rte_rdtsc();
	}
	qsort(latencies, count, sizeof(latencies[0]), compare_latency);
	printf("{\"count\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"bad\":%" PRIu64, count, lost,
	       flow->bad);
	if (count)
		printf(",\"p50\":%.1f,\"p99\":%.1f", cycles_to_ns(latencies[count / 2]),
		       cycles_to_ns(latencies[count * 99 / 100]));
	printf("}\n");
}

static bool obey(const char *line)
{
	unsigned pair, port, size, ms, gap;
	char mode[16];
	struct flow flow;

	if (sscanf(line, "echo %u %u %u", &port, &size, &ms) == 3) {
		if (port >= rte_eth_dev_count_avail() || size < sizeof(struct frame) ||
		    size > FRAME_MAX)
			return false;
		flow = flow_echo(port, size);
		command_run(&flow, ms);
		return true;
	}
	if (sscanf(line, "warm %u %u %u", &pair, &size, &ms) != 3 &&
	    sscanf(line, "run %u %15s %u %u", &pair, mode, &size, &ms) != 4 &&
	    sscanf(line, "latency %u %u %u %u", &pair, &size, &ms, &gap) != 4)
		return false;
	if (2 * pair + 1 >= rte_eth_dev_count_avail() || size < sizeof(struct frame) ||
	    size > FRAME_MAX)
		return false;

	flow = flow_make(2 * pair, 2 * pair + 1, size);
	if (line[0] == 'w') {
		command_warm(&flow, ms);
	} else if (line[0] == 'r') {
		flow.touched = !strcmp(mode, "touched");
		command_run(&flow, ms);
	} else {
		command_latency(&flow, ms, gap);
	}
	return true;
}

int main(int argc, char **argv)
{
	char line[128];
	uint16_t port;
	unsigned i;

	if (rte_eal_init(argc, argv) < 0)
		rte_exit(EXIT_FAILURE, "gen: cannot initialise DPDK\n");
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 0; i < FRAME_MAX; i++)
		payload[i] = i * 7 + 3;
	buffers = rte_pktmbuf_pool_create("buffers", BUFFERS, 256, 0,
					  FRAME_MAX + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
	if (!buffers)
		rte_exit(EXIT_FAILURE, "gen: no memory for packets\n");
	RTE_ETH_FOREACH_DEV(port)
	port_start(port);

	printf("{\"ports\":%u}\n", rte_eth_dev_count_avail());
	while (fgets(line, sizeof(line), stdin))
		if (!obey(line))
			printf("{\"error\":\"not understood\"}\n");

	RTE_ETH_FOREACH_DEV(port)
	{
		rte_eth_dev_stop(port);
		rte_eth_dev_close(port);
	}
	rte_eal_cleanup();
	return 0;
}
