/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gen_snet: the guests of the snet rows. Theory of operation:
 *
 * A packet generator and sink, driven line by line over stdin by the bench, as gen.c is, with the
 * same commands (warm, run, latency). Its arguments name two ports for each switch under test:
 *
 *     snet:PATH     a socket of vifd, by libvifront
 *     memif:PATH    one of dpdk-testpmd (net_memif, role=server), by the client below
 *
 * The loop is the same for both, and both write a frame straight into the memory that is shared
 * with the switch, and read it there: what differs is the switch, and the rings on the way to it.
 * In a memif each place of a ring has a buffer of its own; they lie 33 cache lines apart, as
 * libvifront's do, and rings are as long as vifd's.
 *
 * All frames' headers are compared, and their sequence numbers looked at; "touched" is not offered.
 */
#include <err.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <vifront.h>

enum {
	PORTS_MAX = 16,
	BURST = 32,
	RECV_BURST = 64,
	BUFFER = 2112,
	RING_LOG2 = 10,
	RING = 1 << RING_LOG2,
	LATENCIES_MAX = 1 << 20,
	LOST_AFTER_MS = 50,
	DRAIN_MS = 2,
};

struct frame {
	uint8_t to[6], from[6];
	uint8_t type[2], ip[20], udp[8];
	uint64_t seq;
} __attribute__((packed));

/* One direction of one pair: what it sends and what it has seen. */
struct flow {
	struct port *from, *to;
	unsigned size;
	struct frame head;
	uint64_t sent, received;
	uint64_t first_seq; /* of this flow; lower ones are late frames of a flow before it */
	uint64_t next_seq;
	uint64_t bad; /* frames of a wrong length, header or order */
};

/* send: up to count frames of flow, as many as there is room for; recv: those that have come are
 * given to flow_take(), NULL: nobody is told. Both return how many. */
struct port {
	unsigned (*send)(struct port *port, struct flow *flow, unsigned count);
	unsigned (*recv)(struct port *port, struct flow *flow);
	uint8_t number;
	struct vifront *front;
	struct memif *memif;
};

static struct port ports[PORTS_MAX];
static unsigned port_count;
static uint32_t latencies[LATENCIES_MAX];
static uint64_t seq; /* never used twice */
static double tsc_hz;

/* ---- flows ---- */

static void flow_write(struct flow *flow, void *data)
{
	flow->head.seq = seq++;
	memcpy(data, &flow->head, sizeof(flow->head));
}

static inline void flow_take(struct flow *flow, const void *data, uint32_t len)
{
	const struct frame *frame = data;

	if (!flow)
		return;
	if (len == flow->size && frame->seq >= flow->next_seq &&
	    memcmp(frame, &flow->head, offsetof(struct frame, seq)) == 0) {
		flow->next_seq = frame->seq + 1;
		flow->received++;
	} else if (len < sizeof(*frame) || frame->seq >= flow->first_seq) {
		flow->bad++;
	}
}

static struct flow flow_make(struct port *from, struct port *to, unsigned size)
{
	struct flow flow = {
		.from = from, .to = to, .size = size, .first_seq = seq, .next_seq = seq
	};
	struct frame *head = &flow.head;
	uint32_t sum = 0;

	memcpy(head->from, (uint8_t[]){ 2, 0, 0, 0, 0xaa, from->number }, 6);
	memcpy(head->to, (uint8_t[]){ 2, 0, 0, 0, 0xaa, to->number }, 6);
	head->type[0] = 8;
	memcpy(head->ip,
	       (uint8_t[]){
		       0x45, 0, (size - 14) >> 8, size - 14, 0,  0, 0,         0, 64, 17, 0, 0, 10,
		       77,   0, from->number,     10,        77, 0, to->number },
	       20);
	for (unsigned i = 0; i < 20; i += 2)
		sum += head->ip[i] << 8 | head->ip[i + 1];
	sum = ~((sum & 0xffff) + (sum >> 16));
	head->ip[10] = sum >> 8;
	head->ip[11] = sum;
	memcpy(head->udp, (uint8_t[]){ 0, 9, 0, 9, (size - 34) >> 8, size - 34, 0, 0 }, 8);
	return flow;
}

/* ---- snet ---- */

static unsigned snet_send(struct port *port, struct flow *flow, unsigned count)
{
	struct vifront_buf bufs[BURST];
	int got = vifront_alloc(port->front, 0, flow->size, bufs, count), sent;

	for (int i = 0; i < got; i++) {
		flow_write(flow, bufs[i].data);
		bufs[i].len = flow->size;
	}
	sent = got > 0 ? vifront_send(port->front, 0, bufs, got) : got;
	if (sent < 0)
		errx(EXIT_FAILURE, "%s", vifront_why(port->front));
	vifront_free(port->front, 0, bufs + sent, got - sent);
	return sent;
}

static unsigned snet_recv(struct port *port, struct flow *flow)
{
	struct vifront_buf bufs[RECV_BURST];
	int got = vifront_recv(port->front, 0, bufs, RECV_BURST);
	uint32_t len = 0;

	if (got < 0)
		errx(EXIT_FAILURE, "%s", vifront_why(port->front));
	for (int i = 0, first = 0; i < got; i++) {
		len += bufs[i].len;
		if (bufs[i].flags & VIFRONT_MORE)
			continue;
		flow_take(flow, bufs[first].data, len);
		first = i + 1;
		len = 0;
	}
	vifront_release(port->front, 0, bufs, got);
	return got;
}

static void snet_open(struct port *port, const char *path)
{
	struct vifront_error error;

	port->send = snet_send;
	port->recv = snet_recv;
	if (vifront_open(&port->front, path, NULL, &error))
		errx(EXIT_FAILURE, "%s", error.text);
}

/* ---- memif, the client's side: it brings the memory ---- */

enum {
	MEMIF_ACK = 1,
	MEMIF_HELLO,
	MEMIF_INIT,
	MEMIF_ADD_REGION,
	MEMIF_ADD_RING,
	MEMIF_CONNECT,
	MEMIF_CONNECTED,
	MEMIF_VERSION = 0x200,
	MEMIF_COOKIE = 0x3e31f20,
	MEMIF_TO_SERVER = 1,
	MEMIF_NO_INTERRUPTS = 1
};

struct memif_message {
	uint16_t type;
	union {
		struct {
			uint16_t version;
			uint32_t id;
			uint8_t mode, secret[24], name[32];
		} __attribute__((packed)) init;
		struct {
			uint16_t index;
			uint64_t size;
		} __attribute__((packed)) region;
		struct {
			uint16_t flags, index, region;
			uint32_t offset;
			uint8_t log2_size;
			uint16_t private_size;
		} __attribute__((packed)) ring;
		uint8_t bytes[126];
	};
} __attribute__((packed));

struct memif_desc {
	uint16_t flags, region;
	uint32_t len, offset, metadata;
};

/* Buffers to be filled by the server are given at head, as those that the client has filled are. */
struct memif_ring {
	uint32_t cookie;
	uint16_t flags;
	_Atomic uint16_t head;
	_Atomic uint16_t tail __attribute__((aligned(64)));
	struct memif_desc desc[RING] __attribute__((aligned(64)));
};

struct memif {
	struct memif_ring rings[2]; /* to the server, from it */
	uint8_t buffers[2][RING][BUFFER] __attribute__((aligned(64)));
	uint16_t taken; /* the client's, of what came from the server */
} __attribute__((aligned(4096)));

static unsigned memif_send(struct port *port, struct flow *flow, unsigned count)
{
	struct memif_ring *ring = &port->memif->rings[0];
	uint16_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint16_t room = RING -
			(uint16_t)(head - atomic_load_explicit(&ring->tail, memory_order_acquire));

	if (count > room)
		count = room;
	for (unsigned i = 0; i < count; i++, head++) {
		flow_write(flow, port->memif->buffers[0][head % RING]);
		ring->desc[head % RING].len = flow->size;
	}
	atomic_store_explicit(&ring->head, head, memory_order_release);
	return count;
}

static unsigned memif_recv(struct port *port, struct flow *flow)
{
	struct memif *memif = port->memif;
	struct memif_ring *ring = &memif->rings[1];
	uint16_t there = atomic_load_explicit(&ring->tail, memory_order_acquire) - memif->taken;
	uint16_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	if (there > RECV_BURST)
		there = RECV_BURST;
	for (unsigned i = 0; i < there; i++, memif->taken++, head++) {
		struct memif_desc *desc = &ring->desc[memif->taken % RING];

		flow_take(flow, memif->buffers[1][memif->taken % RING], desc->len);
		desc->len = BUFFER;
	}
	if (there)
		atomic_store_explicit(&ring->head, head, memory_order_release);
	return there;
}

static void memif_say(int sock, const struct memif_message *message, int fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)message, sizeof(*message) };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		header.msg_control = &control;
		header.msg_controllen = sizeof(control.bytes);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	if (sendmsg(sock, &header, MSG_NOSIGNAL) < 0)
		err(EXIT_FAILURE, "memif");
}

static void memif_hear(int sock, uint16_t type)
{
	struct memif_message message;

	if (recv(sock, &message, sizeof(message), 0) <= 0 || message.type != type)
		errx(EXIT_FAILURE, "memif: the server said %u, not %u", message.type, type);
}

static struct memif *memif_map(int *fd)
{
	struct memif *memif;

	*fd = memfd_create("memif", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0 || ftruncate(*fd, sizeof(*memif)))
		err(EXIT_FAILURE, "memif");
	memif = mmap(NULL, sizeof(*memif), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, *fd,
		     0);
	if (memif == MAP_FAILED)
		err(EXIT_FAILURE, "memif");
	for (unsigned r = 0; r < 2; r++) {
		memif->rings[r].cookie = MEMIF_COOKIE;
		memif->rings[r].flags = MEMIF_NO_INTERRUPTS;
		for (unsigned i = 0; i < RING; i++)
			memif->rings[r].desc[i] = (struct memif_desc){
				.len = BUFFER,
				.offset = memif->buffers[r][i] - (uint8_t *)memif,
			};
	}
	return memif;
}

static void memif_open(struct port *port, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct memif_message init = { MEMIF_INIT, .init = { .version = MEMIF_VERSION } };
	struct memif_message region = { MEMIF_ADD_REGION, .region = { 0, sizeof(struct memif) } };
	struct memif_message connected = { MEMIF_CONNECT };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), fd;

	port->send = memif_send;
	port->recv = memif_recv;
	port->memif = memif_map(&fd);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(sock, (struct sockaddr *)&address, sizeof(address)))
		err(EXIT_FAILURE, "%s", path);
	memif_hear(sock, MEMIF_HELLO);
	memif_say(sock, &init, -1);
	memif_hear(sock, MEMIF_ACK);
	memif_say(sock, &region, fd);
	memif_hear(sock, MEMIF_ACK);
	for (unsigned r = 0; r < 2; r++) {
		struct memif_message ring = {
			MEMIF_ADD_RING,
			.ring = { .flags = r == 0 ? MEMIF_TO_SERVER : 0,
				  .offset = (uint8_t *)&port->memif->rings[r] -
					    (uint8_t *)port->memif,
				  .log2_size = RING_LOG2 },
		};

		memif_say(sock, &ring, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
		memif_hear(sock, MEMIF_ACK);
	}
	memif_say(sock, &connected, -1);
	memif_hear(sock, MEMIF_CONNECTED);
	/* It has set all indexes to 0: give it the buffers. */
	atomic_store_explicit(&port->memif->rings[1].head, RING, memory_order_release);
}

/* ---- commands ---- */

static uint64_t ms_to_cycles(uint64_t ms)
{
	return tsc_hz / 1000 * ms;
}

/* Let what is under way arrive and forget it. */
static void pair_drain(const struct flow *flow)
{
	uint64_t end = __rdtsc() + ms_to_cycles(DRAIN_MS);

	while (__rdtsc() < end) {
		flow->from->recv(flow->from, NULL);
		flow->to->recv(flow->to, NULL);
	}
}

static void command_warm(struct flow *flow, unsigned ms)
{
	struct flow back = flow_make(flow->to, flow->from, flow->size);
	uint64_t now, end = __rdtsc() + ms_to_cycles(ms), next = 0;

	while ((now = __rdtsc()) < end) {
		flow->to->recv(flow->to, flow);
		flow->from->recv(flow->from, &back);
		if (now >= next) {
			back.from->send(back.from, &back, 1);
			flow->from->send(flow->from, flow, 1);
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
	start = __rdtsc();
	end = start + ms_to_cycles(ms);
	while ((now = __rdtsc()) < end) {
		flow->to->recv(flow->to, flow);
		flow->sent += flow->from->send(flow->from, flow, BURST);
		flow->from->recv(flow->from, NULL);
	}
	printf("{\"seconds\":%.9f,\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",\"bad\":%" PRIu64
	       "}\n",
	       (now - start) / tsc_hz, flow->sent, flow->received, flow->bad);
	pair_drain(flow);
}

static int compare_latency(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void command_latency(struct flow *flow, unsigned ms, unsigned gap_us)
{
	uint64_t gap = ms_to_cycles(gap_us) / 1000, patience = ms_to_cycles(LOST_AFTER_MS);
	uint64_t now = __rdtsc(), end = now + ms_to_cycles(ms), count = 0, lost = 0;

	pair_drain(flow);
	while (now < end && count < LATENCIES_MAX) {
		uint64_t sent_at = __rdtsc();

		if (!flow->from->send(flow->from, flow, 1)) {
			now = __rdtsc();
			continue;
		}
		while (!flow->to->recv(flow->to, flow) && (now = __rdtsc()) - sent_at < patience)
			;
		now = __rdtsc();
		if (now - sent_at < patience)
			latencies[count++] = now - sent_at;
		else
			lost++;
		flow->from->recv(flow->from, NULL);
		while (now - sent_at < gap)
			now = __rdtsc();
	}
	qsort(latencies, count, sizeof(latencies[0]), compare_latency);
	printf("{\"count\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"bad\":%" PRIu64, count, lost,
	       flow->bad);
	if (count)
		printf(",\"p50\":%.1f,\"p99\":%.1f", latencies[count / 2] * 1e9 / tsc_hz,
		       latencies[count * 99 / 100] * 1e9 / tsc_hz);
	printf("}\n");
}

static bool obey(const char *line)
{
	unsigned pair, size, ms, gap;
	struct flow flow;

	if (sscanf(line, "warm %u %u %u", &pair, &size, &ms) != 3 &&
	    sscanf(line, "run %u uni %u %u", &pair, &size, &ms) != 3 &&
	    sscanf(line, "latency %u %u %u %u", &pair, &size, &ms, &gap) != 4)
		return false;
	if (2 * pair + 1 >= port_count || size < sizeof(struct frame) || size > 1514)
		return false;
	flow = flow_make(&ports[2 * pair], &ports[2 * pair + 1], size);
	if (line[0] == 'w')
		command_warm(&flow, ms);
	else if (line[0] == 'r')
		command_run(&flow, ms);
	else
		command_latency(&flow, ms, gap);
	return true;
}

static double measure_tsc_hz(void)
{
	struct timespec then, now;
	uint64_t begin = __rdtsc();

	clock_gettime(CLOCK_MONOTONIC, &then);
	usleep(50000);
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (__rdtsc() - begin) /
	       (now.tv_sec - then.tv_sec + (now.tv_nsec - then.tv_nsec) / 1e9);
}

int main(int argc, char **argv)
{
	char line[128];

	setvbuf(stdout, NULL, _IOLBF, 0);
	tsc_hz = measure_tsc_hz();
	for (int i = 1; i < argc && port_count < PORTS_MAX; i++) {
		struct port *port = &ports[port_count];

		port->number = ++port_count;
		if (strncmp(argv[i], "snet:", 5) == 0)
			snet_open(port, argv[i] + 5);
		else if (strncmp(argv[i], "memif:", 6) == 0)
			memif_open(port, argv[i] + 6);
		else
			errx(2, "usage: gen_snet snet:PATH|memif:PATH ...");
	}
	printf("{\"ports\":%u}\n", port_count);
	while (fgets(line, sizeof(line), stdin))
		if (!obey(line))
			printf("{\"error\":\"not understood\"}\n");
	for (unsigned i = 0; i < port_count; i++)
		vifront_close(ports[i].front);
	return 0;
}
