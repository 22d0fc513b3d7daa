/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Frames for tests: built in flat memory from a description, turned into packets of any geometry
 * and back. Checksums and offsets are worked out here byte by byte, independently of what is
 * tested.
 */
#ifndef VIFD_TEST_FRAMES_H
#define VIFD_TEST_FRAMES_H

#include <stdlib.h>
#include <string.h>

#include "pkt/pkt.h"
#include "port/worker.h"

enum { FRAME_MAX = PKT_LEN_MAX + 300 };

/* xorshift64*: the same numbers in every run. */
static inline uint32_t rnd(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1d >> 32;
}

/* From low to high, both included. */
static inline uint32_t rnd_in(uint64_t *state, uint32_t low, uint32_t high)
{
	return low + rnd(state) % (high - low + 1);
}

struct frame_desc {
	int vlans;       /* 0..3 tags */
	int ip;          /* 4, 6, or 0: none */
	int ip_options;  /* bytes of IPv4 options, or of IPv6 destination options (8, 16, ..) */
	int proto;       /* what follows the IP header */
	int tcp_options; /* multiple of 4 */
	uint8_t tcp_flags;
	int payload; /* bytes behind the L4 header */
};

struct frame {
	uint8_t *bytes; /* FRAME_MAX of them */
	uint32_t len;
	uint32_t l3, l4, payload; /* offsets; 0: not there */
	int ip, proto;
};

static inline void be16(uint8_t *p, uint32_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static inline uint32_t rd16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static inline uint32_t rd32(const uint8_t *p)
{
	return rd16(p) << 16 | rd16(p + 2);
}

/* Sum of 16-bit big-endian words, the last byte padded with zero, folded. */
static inline uint32_t slow_sum(const uint8_t *p, uint32_t len, uint32_t sum)
{
	for (uint32_t i = 0; i < len; i++) {
		sum += i % 2 ? p[i] : p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

/* Folded sum of the pseudo header (RFC 793, RFC 8200 8.1). */
static inline uint32_t slow_pseudo(const struct frame *frame, uint32_t l4_len)
{
	uint32_t sum = frame->proto + (l4_len >> 16) + (l4_len & 0xffff);

	sum = (sum & 0xffff) + (sum >> 16);
	if (frame->ip == 6)
		return slow_sum(frame->bytes + frame->l3 + 8, 32, sum);
	return slow_sum(frame->bytes + frame->l3 + 12, 8, sum);
}

/*
 * Build a frame as a guest with checksum offload sends it: the L4 checksum holds the pseudo
 * header's sum.
 */
static inline void frame_build(struct frame *frame, const struct frame_desc *desc, uint64_t *seed)
{
	uint8_t *b = frame->bytes;
	uint32_t off = 14;
	uint32_t l4_header = desc->proto == 6 ? 20 + desc->tcp_options : desc->proto == 17 ? 8 : 0;
	uint32_t l4_len = l4_header + desc->payload;

	for (uint32_t i = 0; i < 300; i++)
		b[i] = rnd(seed);
	b[0] = b[6] = 2; /* unicast, local */
	for (int i = 0; i < desc->vlans; i++, off += 4)
		be16(b + off - 2, i == 0 && desc->vlans > 1 ? 0x88a8 : 0x8100);
	be16(b + off - 2, desc->ip == 4 ? 0x0800 : desc->ip == 6 ? 0x86dd : 0x88b5);
	frame->l3 = off;
	frame->l4 = frame->payload = 0;
	frame->ip = desc->ip;
	frame->proto = desc->proto;
	if (desc->ip == 4) {
		uint8_t *ip = b + off;

		off += 20 + desc->ip_options;
		memset(ip + 20, 1, desc->ip_options);
		ip[0] = 0x40 | (20 + desc->ip_options) / 4;
		be16(ip + 2, off - frame->l3 + l4_len);
		be16(ip + 6, 0x4000);
		ip[9] = desc->proto;
		be16(ip + 10, 0);
		be16(ip + 10, ~slow_sum(ip, off - frame->l3, 0));
	} else if (desc->ip == 6) {
		uint8_t *ip = b + off;

		off += 40 + desc->ip_options;
		ip[0] = 0x60;
		be16(ip + 4, desc->ip_options + l4_len);
		ip[6] = desc->ip_options ? 60 : desc->proto;
		if (desc->ip_options) {
			ip[40] = desc->proto;
			ip[41] = desc->ip_options / 8 - 1;
		}
	}
	if (desc->ip) {
		uint8_t *l4 = b + off;

		frame->l4 = off;
		if (desc->proto == 6) {
			l4[12] = l4_header / 4 << 4;
			l4[13] = desc->tcp_flags;
			be16(l4 + 16, slow_pseudo(frame, l4_len));
		} else if (desc->proto == 17) {
			be16(l4 + 4, l4_len);
			be16(l4 + 6, slow_pseudo(frame, l4_len));
		}
		off += l4_header;
		frame->payload = l4_header ? off : 0;
	}
	for (int i = 0; i < desc->payload; i++)
		b[off + i] = rnd(seed);
	frame->len = off + desc->payload;
}

/* What a parser finds; offsets, 0: not there. */
struct found {
	uint32_t l3, l4, payload;
	int proto;
};

/*
 * What headers.h promises, from flat memory of which bytes behind PKT_HEADER_MAX are out of
 * reach.
 */
static inline struct found slow_parse(const uint8_t *b, uint32_t len)
{
	struct found found = { 14 };
	uint32_t reach = len < PKT_HEADER_MAX ? len : PKT_HEADER_MAX;
	uint32_t type = rd16(b + 12), off, end;

	while ((type == 0x8100 || type == 0x88a8) && found.l3 < 22 && found.l3 + 4 <= reach) {
		found.l3 += 4;
		type = rd16(b + found.l3 - 2);
	}
	off = found.l3;
	const uint8_t *ip = b + off;

	if (type == 0x0800 && off + 20 <= reach) {
		uint32_t header_len = (ip[0] & 15) * 4;

		end = off + rd16(ip + 2);
		if (ip[0] >> 4 != 4 || header_len < 20 || rd16(ip + 2) < header_len || end > len ||
		    off + header_len > reach)
			return found;
		off += header_len;
		found.proto = rd16(ip + 6) & 0x3fff ? 0 : ip[9];
	} else if (type == 0x86dd && off + 40 <= reach && ip[0] >> 4 == 6) {
		off += 40;
		end = off + rd16(ip + 4);
		if (end > len)
			return found;
		found.proto = ip[6];
		for (;;) {
			int proto = found.proto;

			if (proto != 0 && proto != 43 && proto != 44 && proto != 60)
				break;
			if (off + 8 > end || off + 8 > reach)
				return (struct found){ found.l3 };
			uint32_t ext_len = proto == 44 ? 8 : b[off + 1] * 8 + 8;

			if (off + ext_len > end || off + ext_len > reach)
				return (struct found){ found.l3 };
			bool stop = (proto == 44 && rd16(b + off + 2) & 0xfff9) ||
				    (proto == 43 && b[off + 3]);

			found.proto = stop ? 0 : b[off];
			off += ext_len;
			if (stop)
				break;
		}
	} else {
		return found;
	}
	found.l4 = off;
	if (found.proto == 6 && off + 20 <= end && off + 20 <= reach)
		found.payload = off + (b[off + 12] >> 4) * 4;
	if (found.proto == 6 && found.payload < off + 20)
		found.payload = 0;
	if (found.proto == 17 && off + 8 <= end && off + 8 <= reach && rd16(b + off + 4) >= 8 &&
	    off + rd16(b + off + 4) <= end)
		found.payload = off + 8;
	if (found.payload > end || found.payload > PKT_HEADER_MAX)
		found.payload = 0;
	return found;
}

/*
 * Fill pkt with a frame: header_len bytes in the header copy, the rest in at most PKT_FRAGS_MAX
 * fragments of 1..frag_max bytes. Each fragment is an allocation of its own, so that a sanitizer
 * sees a byte too far. Undone by pkt_empty().
 */
static inline void pkt_fill(struct pkt *pkt, const uint8_t *bytes, uint32_t len,
			    uint32_t header_len, uint32_t frag_max, uint64_t *seed)
{
	memset(pkt, 0, offsetof(struct pkt, header));
	memset(pkt->header, 0xa5, sizeof(pkt->header));
	pkt->frags = calloc(PKT_FRAGS_MAX, sizeof(*pkt->frags));
	pkt->refs = 1;
	pkt->len = len;
	pkt->header_len = header_len < len ? header_len : len;
	memcpy(pkt->header, bytes, pkt->header_len);
	for (uint32_t off = pkt->header_len; off < len;) {
		uint32_t part = rnd_in(seed, 1, frag_max);

		if (part > len - off || pkt->frag_count == PKT_FRAGS_MAX - 1)
			part = len - off;
		pkt->frags[pkt->frag_count].iov_base = malloc(part);
		pkt->frags[pkt->frag_count].iov_len = part;
		memcpy(pkt->frags[pkt->frag_count++].iov_base, bytes + off, part);
		off += part;
	}
	/*
	 * What malloc() returned, kept behind the fragments' end for pkt_empty(): pulling moves
	 * iov_base.
	 */
	pkt->cookie = (uintptr_t)malloc((pkt->frag_count + 1) * sizeof(void *));
	void **bases = (void **)(uintptr_t)pkt->cookie;

	for (unsigned i = 0; i < pkt->frag_count; i++)
		bases[i] = pkt->frags[i].iov_base;
	bases[pkt->frag_count] = NULL;
}

static inline void pkt_empty(struct pkt *pkt)
{
	void **bases = (void **)(uintptr_t)pkt->cookie;

	for (unsigned i = 0; bases[i]; i++)
		free(bases[i]);
	free(bases);
	free(pkt->frags);
}

/* The calling thread becomes a worker with a pool of its own. */
static inline struct worker *fake_worker(unsigned packets)
{
	struct worker *worker = aligned_alloc(64, sizeof(*worker));

	memset(worker, 0, sizeof(*worker));
	if (pkt_pool_init(&worker->pool, packets))
		abort();
	/* Also parents that are not from the pool pass through the list. */
	worker->done = calloc(packets + 1, sizeof(*worker->done));
	worker->done_spare = calloc(packets + 1, sizeof(*worker->done_spare));
	worker_self = worker;
	return worker;
}

static inline void fake_worker_free(struct worker *worker)
{
	pkt_pool_fini(&worker->pool);
	free(worker->done);
	free(worker->done_spare);
	free(worker);
	worker_self = NULL;
}

#endif
