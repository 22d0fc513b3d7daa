// SPDX-License-Identifier: BSD-3-Clause
/*
 * vifd's data path between a guest and a TAP, round by round in one thread, for who looks at its
 * memory accesses (tlb_model.c):
 *
 *      driver (here) -- rings and buffers in guest memory -- virtio_net -- bridge -- tap -- kernel (here)
 *
 * Theory of operation. Everything between the two ends is vifd's own code on vifd's own memory:
 * guest memory is a file mapped by guest_mem_add(), packets are of a worker's pool, the TAP receives
 * into a zone. There is a worker, which stays parked; this thread does its rounds in its name. Marks in the
 * trace (tlb_marks.h) are around each round, so that what driver and kernel do in between does not
 * count.
 *
 * The driver does as Linux does: rings of 256; what it sends is a chain behind an indirect
 * table, first the virtio and packet headers in an allocation of their own, then the payload in
 * pieces; receive buffers are merged as needed, and a round's worth of new ones is posted
 * for each that was used. Where pieces and buffers lie:
 *
 *      scattered   each on a page by itself, anywhere: memory that has been in use for long,
 *                  or a file's pages
 *      blocks      next to each other in blocks of 32 KiB, which are anywhere: what Linux
 *                  takes socket buffers from while it has such blocks
 *
 * "Anywhere" is in the first SPREAD MiB of the guest's memory.
 *
 * The kernel's part of readv() and writev() is played by functions of these names, because a trace of
 * a program does not show what the kernel does. They touch vifd's memory as the kernel's copy does,
 * a word in each cache line; the kernel's own side of that copy is not vifd's, and left out.
 *
 * Usage: tlb_path [-4] [-c] tx|rx tso|mtu scattered|blocks SPREAD ROUNDS SEED MAP. Half as many
 * rounds, at least, go before to warm up. Writes the map of pages to the file MAP, as tlb_model
 * reads it, and a line of JSON to standard output.
 *
 *      -4    all memory on 4 KiB pages
 *      -c    no trace is wanted: say what CPU time vifd's part takes, and have the CPU count its
 *            misses, if it can
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "bridge/bridge.h"
#include "guest/virtio_net.h"
#include "pkt/vnet.h"
#include "port/worker.h"
#include "random.h"
#include "sys/pages.h"
#include "tlb_counters.h"
#include "tlb_marks.h"
#include "uplink/tap.h"
#include "zone/zone_group.h"

enum {
	RX,
	TX,
	RINGS,
	RING_SIZE = 256,
	PAGE = 4096,
	BLOCK = 32 << 10,
	SUPERPAGE = 2 << 20,
	LINE = 64,

	HEADERS = 14 + 20 + 32, /* Ethernet, IPv4, TCP with a timestamp */
	TSO_LEN = 14 + 65535,
	MTU_LEN = 14 + 1500,
	GSO_SIZE = 1448,
	TSO_PACKETS = 4, /* a round: what the TAP reads of such at a time */
	MTU_PACKETS = PKT_BURST,
	RX_BUF_TSO = PAGE, /* what Linux's estimate of packet sizes comes to */
	RX_BUF_MTU = 1536,
};
#define GUEST_UVA UINT64_C(0x700000000000)

#define BIT(name) VIRTIO_BIT(name##_BIT)

static struct {
	bool transmit, tso, blocks, small_pages;
	unsigned spread, rounds;
	unsigned frame_len, packets; /* of a packet; a round */
} plan;

/* ---- random numbers and places in guest memory ---- */

static uint64_t seed;

/*
 * Guest memory, from guest address 0 on:
 *
 *      | SPREAD MiB: pieces and receive buffers | headers and tables by ring slot | rings |
 *
 * Headers and tables are on pages of a kind of their own, allocations of a page or less; each slot's
 * are where they were allocated first, which is at random.
 */
static struct {
	struct guest_mem *mem;
	uint8_t *host;
	uint64_t size;
	uint64_t small[2 * RING_SIZE]; /* allocations for headers, then for tables */
	uint64_t rings_at;
	uint64_t block, block_used;
} guest;

/* Where len bytes for payload are. */
static uint64_t place(uint32_t len)
{
	uint64_t at;

	if (!plan.blocks)
		return (uint64_t)rnd_below(&seed, (uint64_t)plan.spread * (1 << 20) / PAGE) * PAGE;
	if (guest.block_used + len > BLOCK) {
		guest.block = (uint64_t)rnd_below(&seed,
						  (uint64_t)plan.spread * (1 << 20) / BLOCK) *
			      BLOCK;
		guest.block_used = 0;
	}
	at = guest.block + guest.block_used;
	guest.block_used += len;
	return at;
}

static void small_allocations(uint64_t from)
{
	enum { COUNT = 2 * RING_SIZE, EACH = 512 };

	for (unsigned i = 0; i < COUNT; i++)
		guest.small[i] = from + (uint64_t)i * EACH;
	for (unsigned i = COUNT - 1; i > 0; i--) {
		unsigned other = rnd_below(&seed, i + 1);
		uint64_t swap = guest.small[i];

		guest.small[i] = guest.small[other];
		guest.small[other] = swap;
	}
	guest.rings_at = from + (uint64_t)COUNT * EACH;
}

/* A file on superpages, without asking the administrator for some: of a tmpfs that only we see. */
static int guest_file(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("guest", "/mnt", "tmpfs", 0,
		  plan.small_pages ? "huge=never,size=100%" : "huge=always,size=100%"))
		return -1;
	return open("/mnt", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

static void guest_make(void)
{
	uint64_t spread = (uint64_t)plan.spread << 20;
	int fd = guest_file();

	guest.size = spread + SUPERPAGE;
	guest.mem = guest_mem_new();
	if (fd < 0 || ftruncate(fd, guest.size) || !guest.mem ||
	    guest_mem_add(guest.mem, 0, guest.size, GUEST_UVA, 0, fd))
		err(EXIT_FAILURE, "guest memory");
	guest.host = guest.mem->regions[0].host;
	if (madvise(guest.host, guest.size, MADV_POPULATE_WRITE))
		err(EXIT_FAILURE, "guest memory");
	small_allocations(spread);
}

/* ---- frames ---- */

/* Of a virtio header and packet headers, the same for all: 10.0.0.1 to 10.0.0.2, TCP. */
static void headers_make(uint8_t to[VNET_LEN + HEADERS])
{
	static const uint8_t frame[HEADERS] = {
		2,    0,    0,    0,    0,  2, 2,    0, 0,  0, 0, 1,  8, 0, /* Ethernet, IPv4 */
		0x45, 0,    0,    0,    0,  1, 0x40, 0, 64, 6, 0, 0,        /* DF, TCP */
		10,   0,    0,    1,    10, 0, 0,    2,                     /* addresses */
		0x30, 0x39, 0x14, 0x51, 0,  0, 0,    1, 0,  0, 0, 1,        /* ports, numbers */
		0x80, 0x10, 0xff, 0xff, 0,  0, 0,    0, 1,  1, 8, 10, /* 32 bytes, ACK, window */
		0,    0,    0,    1,    0,  0, 0,    1,               /* timestamps */
	};

	memset(to, 0, VNET_LEN);
	to[0] = VNET_NEEDS_CSUM;
	to[1] = plan.tso ? PKT_GSO_TCPV4 : PKT_GSO_NONE;
	vnet_put16(to + 2, HEADERS);
	vnet_put16(to + 4, plan.tso ? GSO_SIZE : 0);
	vnet_put16(to + 6, 14 + 20);
	vnet_put16(to + 8, 16);
	memcpy(to + VNET_LEN, frame, HEADERS);
	to[VNET_LEN + 16] = (plan.frame_len - 14) >> 8;
	to[VNET_LEN + 17] = plan.frame_len - 14;
}

/* ---- the kernel's part of a TAP ---- */

static unsigned kernel_has; /* packets to be read */
static uint64_t kernel_took, kernel_took_bytes;

/* Memory is touched as if it were copied. */
static void read_lines(const uint8_t *from, size_t len)
{
	for (size_t i = 0; i < len; i += LINE)
		*(const volatile uint8_t *)(from + i);
	if (len > 0)
		*(const volatile uint8_t *)(from + len - 1);
}

static void write_lines(uint8_t *to, size_t len)
{
	for (size_t i = 0; i < len; i += LINE)
		*(volatile uint8_t *)(to + i) = i;
	if (len > 0)
		*(volatile uint8_t *)(to + len - 1) = 0;
}

/* In front of libc's, and called by tap.c alone. */
ssize_t readv(int fd, const struct iovec *iov, int count)
{
	uint8_t headers[VNET_LEN + HEADERS];
	size_t left = VNET_LEN + plan.frame_len;

	if (kernel_has == 0) {
		errno = EAGAIN;
		return -1;
	}
	kernel_has--;
	headers_make(headers);
	for (int i = 0; i < count && left > 0; i++) {
		size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;

		write_lines(iov[i].iov_base, part);
		left -= part;
	}
	memcpy(iov[0].iov_base, headers, sizeof(headers));
	return VNET_LEN + plan.frame_len;
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	size_t len = 0;

	for (int i = 0; i < count; i++) {
		read_lines(iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	kernel_took++;
	kernel_took_bytes += len - VNET_LEN;
	return len;
}

/* ---- the guest's driver ---- */

static struct ring {
	struct virtq_desc *desc;
	struct virtq_avail *avail;
	struct virtq_used *used;
	uint16_t made, seen; /* available entries; used ones */
} rings[RINGS];

static void rings_start(struct virtio_net *device)
{
	enum { DESC = RING_SIZE * sizeof(struct virtq_desc), AVAIL = PAGE, USED = PAGE };

	for (unsigned i = 0; i < RINGS; i++) {
		uint64_t at = guest.rings_at + i * (uint64_t)(DESC + AVAIL + USED);

		rings[i].desc = (struct virtq_desc *)(guest.host + at);
		rings[i].avail = (struct virtq_avail *)(guest.host + at + DESC);
		rings[i].used = (struct virtq_used *)(guest.host + at + DESC + AVAIL);
		device->rings[i].vq.setup = (struct virtq_setup){
			.size = RING_SIZE,
			.desc_uva = GUEST_UVA + at,
			.avail_uva = GUEST_UVA + at + DESC,
			.used_uva = GUEST_UVA + at + DESC + AVAIL,
		};
		if (virtio_net_start_ring(device, i))
			errx(EXIT_FAILURE, "ring %u", i);
		virtio_net_enable_ring(device, i, true);
	}
}

static void ring_offer(struct ring *ring, uint16_t head)
{
	ring->avail->ring[ring->made++ % RING_SIZE] = head;
	__atomic_store_n(&ring->avail->idx, ring->made, __ATOMIC_RELEASE);
}

/* A packet to be sent. */
static void driver_send(void)
{
	struct ring *ring = &rings[TX];
	unsigned slot = ring->made % RING_SIZE, count = 0;
	uint64_t headers = guest.small[slot], table_at = guest.small[RING_SIZE + slot];
	struct virtq_desc *table = (struct virtq_desc *)(guest.host + table_at);
	uint32_t piece = plan.blocks ? BLOCK : PAGE;

	headers_make(guest.host + headers);
	table[count++] = (struct virtq_desc){ headers, VNET_LEN + HEADERS, VIRTQ_DESC_NEXT, 1 };
	for (uint32_t left = plan.frame_len - HEADERS; left > 0;) {
		uint32_t len = left < piece ? left : piece;

		left -= len;
		table[count] = (struct virtq_desc){ place(len), len, left ? VIRTQ_DESC_NEXT : 0,
						    left ? count + 1 : 0 };
		count++;
	}
	ring->desc[slot] = (struct virtq_desc){ table_at, count * sizeof(*table),
						VIRTQ_DESC_INDIRECT, 0 };
	ring_offer(ring, slot);
}

/* New receive buffers for all that are used. */
static void driver_post(void)
{
	struct ring *ring = &rings[RX];
	uint32_t len = plan.tso ? RX_BUF_TSO : RX_BUF_MTU;

	ring->seen = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
	while ((uint16_t)(ring->made - ring->seen) < RING_SIZE) {
		unsigned slot = ring->made % RING_SIZE;

		ring->desc[slot] = (struct virtq_desc){ place(len), len, VIRTQ_DESC_WRITE, 0 };
		ring_offer(ring, slot);
	}
}

/* ---- vifd ---- */

static struct port *tap;
static struct virtio_net *device;

static void vifd_make(void)
{
	const struct worker_config workers = { .count = 1, .idle_spin_usec = 0 };
	const struct uplink_config config = {
		.name = "wire", .ifname = "wire0", .queues = 1, .caps_mask = ~0u
	};
	struct error error = { "" };
	struct bridge *bridge;

	device = aligned_alloc(LINE, (sizeof(*device) + LINE - 1) / LINE * LINE);
	if (unshare(CLONE_NEWNET))
		err(EXIT_FAILURE, "a network namespace");
	if (!device || workers_start(&workers) || virtio_net_init(device, 1))
		errx(EXIT_FAILURE, "no memory");
	workers_pause();
	if (bridge_create("br0", 0, 0, &bridge, &error) || tap_open(&config, &tap, &error))
		errx(EXIT_FAILURE, "%s", error.text);
	worker_self = worker_by_id(0);
	strcpy(device->channel.port.name, "guest");
	device->channel.port.mtu = 1500;
	if (port_register(&device->channel.port) || bridge_add_port(bridge, tap, &error) ||
	    bridge_add_port(bridge, &device->channel.port, &error))
		errx(EXIT_FAILURE, "ports: %s", error.text);
	virtio_net_set_memory(device, guest.mem);
	virtio_net_set_features(
		device, BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
				BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) |
				BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
				BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX));
	rings_start(device);
	mac_table_add_static(&bridge->fdb, (const uint8_t[]){ 2, 0, 0, 0, 0, 2 },
			     plan.transmit ? tap->id : device->channel.port.id);
}

/* As worker.c's. */
static void round_of_worker(void)
{
	struct port *ports[] = { tap, &device->channel.port };
	struct worker *worker = worker_self;
	struct pkt *pkts[PKT_BURST];

	for (unsigned i = 0; i < 2; i++) {
		unsigned n = ports[i]->ops->recv(ports[i], 0, pkts, PKT_BURST);

		if (n > 0)
			bridge_forward(ports[i], pkts, n);
		worker_complete(worker);
	}
	for (unsigned i = 0; i < worker->flush_count; i++) {
		worker->flush[i]->flush_pending[0] = false;
		worker->flush[i]->ops->flush(worker->flush[i]);
	}
	worker->flush_count = 0;
}

/* ---- what the trace is told ---- */

static void mark(enum tlb_mark which)
{
	*(volatile uint64_t *)(uintptr_t)(TLB_MARKS + which * TLB_MARK_STRIDE) = 0;
}

static void marks_make(void)
{
	void *at = (void *)(uintptr_t)TLB_MARKS;

	if (mmap(at, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at)
		err(EXIT_FAILURE, "marks");
}

/* On superpages is what is so whole, as far as it is there. */
static void map_line(FILE *map, const char *name, const uint8_t *at, size_t len)
{
	bool super, first = at == guest.host;
	struct pages pages;

	pages_look(at, len, &pages);
	super = (uintptr_t)at % SUPERPAGE == 0 && pages.super > 0 && pages.super == pages.resident;
	fprintf(map, "%lx %lx %u %s\n", (uintptr_t)at, (uintptr_t)at + len,
		super ? SUPERPAGE : PAGE, name);
	printf("%s\"%s\": {\"size\": %zu, \"resident\": %zu, \"superpages\": %zu}",
	       first ? "" : ", ", name, len, pages.resident, pages.super);
}

static void map_write(const char *path)
{
	struct pkt_pool *pool = &worker_self->pool;
	FILE *map = fopen(path, "we");

	if (!map)
		err(EXIT_FAILURE, "%s", path);
	printf("{\"memory\": {");
	map_line(map, "guest", guest.host, guest.size);
	map_line(map, "pool", pool->memory, pool->memory_len);
	map_line(map, "zone", tap->zones[0]->zones->base, ZONE_SIZE);
	printf("}, ");
	if (fclose(map))
		err(EXIT_FAILURE, "%s", path);
}

/* ---- the run ---- */

static bool timing;
static uint64_t spent_nsec; /* CPU time of vifd's part */

static uint64_t cpu_nsec(void)
{
	struct timespec now = { 0 };

	if (timing)
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

static void run(unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		driver_post();
		for (unsigned j = 0; plan.transmit && j < plan.packets; j++)
			driver_send();
		kernel_has = plan.transmit ? 0 : plan.packets;
		tlb_counters_run(true);
		spent_nsec -= cpu_nsec();
		mark(TLB_MARK_ENTER);
		round_of_worker();
		mark(TLB_MARK_LEAVE);
		spent_nsec += cpu_nsec();
		tlb_counters_run(false);
	}
}

static struct port_stats received(void)
{
	struct port_stats stats;

	port_stats_sum(plan.transmit ? tap : &device->channel.port, &stats);
	return stats;
}

/* All packets must have arrived whole: a figure is of nothing otherwise. */
static void check(unsigned rounds)
{
	uint64_t packets = (uint64_t)rounds * plan.packets, bytes = packets * plan.frame_len;
	struct port_stats stats = received();

	if (stats.send_packets != packets || stats.send_bytes != bytes ||
	    (plan.transmit && (kernel_took != packets || kernel_took_bytes != bytes)))
		errx(EXIT_FAILURE, "of %lu packets, %lu bytes, %lu arrived, %lu bytes", packets,
		     bytes, stats.send_packets, stats.send_bytes);
}

static bool one_of(const char *text, const char *yes, const char *no)
{
	if (strcmp(text, yes) != 0 && strcmp(text, no) != 0)
		errx(2, "'%s' is neither %s nor %s", text, yes, no);
	return strcmp(text, yes) == 0;
}

static void parse(char **argv)
{
	plan.transmit = one_of(argv[0], "tx", "rx");
	plan.tso = one_of(argv[1], "tso", "mtu");
	plan.blocks = one_of(argv[2], "blocks", "scattered");
	plan.spread = atoi(argv[3]);
	plan.rounds = atoi(argv[4]);
	seed = strtoull(argv[5], NULL, 0) + 1;
	plan.frame_len = plan.tso ? TSO_LEN : MTU_LEN;
	plan.packets = plan.tso ? TSO_PACKETS : MTU_PACKETS;
	if (plan.spread == 0 || plan.rounds == 0)
		errx(2, "SPREAD (MiB) and ROUNDS are at least 1");
}

int main(int argc, char **argv)
{
	bool count = false, counted = false;
	unsigned warm_up;
	int option;

	while ((option = getopt(argc, argv, "4c")) != -1) {
		plan.small_pages |= option == '4';
		count |= option == 'c';
	}
	if (argc - optind != 7)
		errx(2,
		     "usage: tlb_path [-4] [-c] tx|rx tso|mtu scattered|blocks SPREAD ROUNDS SEED MAP");
	parse(argv + optind);
	warm_up = plan.rounds / 2 + 1;
	if (plan.small_pages && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		err(EXIT_FAILURE, "4 KiB pages");

	marks_make();
	guest_make();
	vifd_make();
	run(1); /* every part of memory has been used */
	map_write(argv[argc - 1]);
	mark(TLB_MARK_MAP);
	run(warm_up);
	mark(TLB_MARK_COUNT);
	if (count) {
		counted = tlb_counters_open();
		timing = true;
	}
	run(plan.rounds);
	check(1 + warm_up + plan.rounds);
	if (timing)
		printf("\"cpu_nsec\": %lu, ", spent_nsec);
	if (counted)
		printf("\"counted\": %lu, ", tlb_counters_read());
	printf("\"packets\": %u}\n", plan.rounds * plan.packets);
	return 0;
}
