/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packet.
 *
 * Theory of operation. A packet is a private copy of its headers, followed by fragments that
 * reference payload where it lies: in guest memory, or in an uplink's receive buffer (M11: headers
 * are copied once and judged privately, payload stays where it is until its one copy). Frame bytes
 * [0, header_len) are header[], the rest are frags[0..frag_count) in order; together they make len
 * bytes. Bridge and offload read only the first cache line and header[]; nothing in vifd parses
 * memory that a guest can write.
 *
 *      line 0   source, cookie, frags, lengths, offsets, offload request, vnet[12]
 *      line 1.. header[192]: Ethernet + VLAN + IPv6 + TCP with options fit
 *      then     inline_frags[]: enough for 64 KiB in 4 KiB pages; longer lists in a pool block
 *      last     next: of a chain of riders, the packets that an aggregate is made of (lro.c)
 *
 * A packet belongs to the worker whose pool it came from and never leaves it. It has refs owners: a
 * flooded packet one for each port it goes to. The last pkt_put() hands it to its worker, which
 * tells the source once per burst (struct pkt_source) and returns it to the pool.
 */
#ifndef VIFD_PKT_H
#define VIFD_PKT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum {
	PKT_BURST = 32,               /* packets handled together everywhere */
	PKT_HEADER_MAX = 192,         /* bytes of private header copy */
	PKT_HEADER_FAST = 64,         /* bytes copied at once when the frame has them */
	PKT_INLINE_FRAGS = 19,        /* fragments without a block */
	PKT_FRAGS_MAX = 512,          /* fragments at most; Windows drivers send more than 64 */
	PKT_LEN_MIN = 14,             /* shorter than an Ethernet header: dropped before any port */
	PKT_LEN_MAX = 65535 + 14 + 8, /* 64 KiB of IP, Ethernet, two VLAN tags */
};

/* What a packet asks of its next port: virtio_net_hdr (virtio 1.2 §5.1.6), host order, checked. */
enum pkt_offload_flags {
	PKT_CSUM_PARTIAL = 1, /* finish L4 checksum: sum from csum_start, stored at + csum_offset */
	PKT_CSUM_VALID = 2,   /* L4 checksum found good by someone we trust, which no guest is */
	PKT_GSO_ECN = 4,      /* TCP GSO packet carries CWR: only the first segment keeps it */
	PKT_GSO_FIXED_ID = 8, /* segments of an IPv4 GSO packet keep its ID: it does not count up */
	PKT_REMOTE = 64,      /* payload is still with the sender: see pkt_fetch() */
};

enum pkt_gso_type { PKT_GSO_NONE = 0, PKT_GSO_TCPV4 = 1, PKT_GSO_TCPV6 = 4, PKT_GSO_UDP = 5 };

struct pkt_offload {
	uint8_t flags;        /* enum pkt_offload_flags */
	uint8_t gso_type;     /* enum pkt_gso_type */
	uint16_t gso_size;    /* payload bytes per segment, 0 without GSO */
	uint16_t csum_start;  /* offset from the frame's start */
	uint16_t csum_offset; /* offset from csum_start */
};

struct pkt;

/*
 * Who lent a packet its fragments and wants to know when they may be reused.
 * done: n (1..) packets of this source are no longer referenced; called once for all of a burst
 *       that leave together, on the worker that received them, in any order. The packets return to
 *       the pool afterwards: keep no pointer.
 * fetch: for pkt_fetch(): bring the payload of n packets to where their fragments say it is, and
 *       clear PKT_REMOTE of those that could be had. NULL: it makes no such packets.
 */
struct pkt_source {
	void (*done)(struct pkt_source *source, struct pkt **pkts, unsigned n);
	void (*fetch)(struct pkt_source *source, struct pkt **pkts, unsigned n);
};

struct pkt {
	struct pkt_source *source; /* told when the packet is done; NULL: nobody */
	union {
		uint64_t cookie;    /* the source's: a ring position, a buffer */
		struct pkt *parent; /* whose fragments a segment or an aggregate borrows */
	};
	struct iovec *frags; /* inline_frags, or a block of the pool */
	uint32_t len;        /* frame bytes, Ethernet header included, FCS not */
	uint32_t hash;       /* flow hash, 0: not computed */
	uint16_t in_port;    /* id of the port it came from */
	uint16_t header_len; /* valid bytes of header[] */
	uint16_t frag_count;
	uint16_t refs; /* owners */
	/* offsets from the frame's start, set by headers_parse() */
	uint8_t l3_off;      /* 0: not parsed */
	uint8_t l4_off;      /* 0: not IP */
	uint8_t payload_off; /* end of the TCP or UDP header, in reach of pkt_pull(); 0: none */
	uint8_t l4_proto;    /* IPPROTO_TCP, ...; 0: not IP, a fragment, or not parsed */
	struct pkt_offload offload;
	uint8_t vnet[12]; /* the virtio_net_hdr as read, little endian; directly before header[] */

	uint8_t header[PKT_HEADER_MAX];
	struct iovec inline_frags[PKT_INLINE_FRAGS];
	struct pkt *next; /* rider of the same aggregate */
} __attribute__((aligned(64)));

static_assert(offsetof(struct pkt, vnet) + 12 == 64, "decisions are made on one cache line");
static_assert(offsetof(struct pkt, header) == 64, "the frame starts a cache line");
static_assert(sizeof(struct pkt_offload) == 8, "needs are tested as one word");
static_assert(sizeof(struct pkt) == 576, "packet stride");

/* Packets and fragment blocks of one worker. Not thread safe. */
struct pkt_pool {
	struct pkt **free; /* LIFO: the hottest packet is handed out first */
	unsigned free_count;
	unsigned capacity;
	struct iovec **blocks; /* free fragment blocks, PKT_FRAGS_MAX entries each */
	unsigned block_count;
	unsigned block_capacity;
	void *memory;
	size_t memory_len;
};

/* Allocate capacity packets and some fragment blocks, zeroed, on huge pages if any. 0 or -errno. */
int pkt_pool_init(struct pkt_pool *pool, unsigned capacity);
void pkt_pool_fini(struct pkt_pool *pool);

/* Replace the inline fragment list by a block of PKT_FRAGS_MAX. False: the pool has none left. */
bool pkt_take_frag_block(struct pkt_pool *pool, struct pkt *pkt);

/* Give back packets (and their blocks). The caller has told their sources. */
void pkt_pool_put(struct pkt_pool *pool, struct pkt **pkts, unsigned n);

/*
 * Take up to n packets, each with refs 1, no fragments, no offload request, no source.
 * Returns how many there were. len, header_len and in_port are the caller's to set.
 */
static inline unsigned pkt_pool_get(struct pkt_pool *pool, struct pkt **pkts, unsigned n)
{
	if (unlikely(n > pool->free_count))
		n = pool->free_count;
	pool->free_count -= n;
	struct pkt **from = pool->free + pool->free_count;

	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt = from[n - 1 - i];

		pkt->source = NULL;
		pkt->frags = pkt->inline_frags;
		pkt->hash = 0;
		pkt->frag_count = 0;
		pkt->refs = 1;
		pkt->l3_off = pkt->l4_off = pkt->payload_off = pkt->l4_proto = 0;
		pkt->offload = (struct pkt_offload){ 0 };
		pkts[i] = pkt;
	}
	return n;
}

/* True when the packet asks nothing: no checksum to finish, no segmentation. */
static inline bool pkt_needs_nothing(const struct pkt *pkt)
{
	return !(pkt->offload.flags & PKT_CSUM_PARTIAL) && pkt->offload.gso_type == PKT_GSO_NONE;
}

/* The checksum that the packet asked for has been finished. */
static inline void pkt_csum_done(struct pkt *pkt)
{
	pkt->offload.flags &= ~PKT_CSUM_PARTIAL;
	pkt->offload.csum_start = pkt->offload.csum_offset = 0;
}

/* Say of a packet made from another, with the same headers, what is known about that. */
static inline void pkt_copy_facts(struct pkt *to, const struct pkt *from)
{
	to->in_port = from->in_port;
	to->hash = from->hash;
	to->l3_off = from->l3_off;
	to->l4_off = from->l4_off;
	to->payload_off = from->payload_off;
	to->l4_proto = from->l4_proto;
}

/*
 * Payload may be left with its sender until it is known who wants it (M11): a packet with PKT_REMOTE
 * has header[] and fragments as any other, but what these point at is not there yet. port_send() has
 * it brought for ports that cannot take it from its sender themselves, so that nobody else need
 * know. This brings it, at once for runs of packets of one source. What keeps PKT_REMOTE cannot be
 * had: to be dropped.
 */
void pkt_fetch(struct pkt **pkts, unsigned n);

/* Copy frame bytes [off, off + len) to buf. The range must lie within the packet. */
void pkt_copy_out(const struct pkt *pkt, uint32_t off, void *buf, uint32_t len);

/*
 * Make header[] at least want bytes long (want <= PKT_HEADER_MAX) by copying just the missing bytes
 * from the fragments, which shrink: no byte is read twice. False: the frame is shorter than want.
 */
bool pkt_pull(struct pkt *pkt, unsigned want);

#endif
