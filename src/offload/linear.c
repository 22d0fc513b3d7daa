/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Linear packets (M8).
 *
 * Theory of operation. A port that takes no fragments gets frames that lie in one place:
 *
 *      packet        header[] H H H p | frag p p p p p p | frag p p p p
 *      linear copy   header[] H H H p   (as parsed; not part of the frame)
 *                    frag H H H p p p p p p p p p p p p
 *                               ^ begins a cache line
 *
 * The checksum, if it is ours to finish, is computed by the loop that copies (M30). Payload thus is
 * read once, and what a guest writes to it meanwhile cannot part the checksum from the bytes.
 *
 * Each worker has a piece of memory for this, which holds what one burst of frames needs. It is
 * handed out from its start to its end, and anew from its start as soon as everything lent has come
 * back: ports that are done with a packet when send() returns keep it in the cache, ports that are
 * not hold on to their packets as to any other (struct pkt_source). It is static memory: the kernel
 * provides it when a worker first uses it, so that ports with PORT_CAP_SG cost none.
 */
#include "offload/linear.h"

#include <string.h>

#include "pkt/csum.h"
#include "port/worker.h"

enum { CACHE_LINE = 64, LINEAR_SIZE = 128 << 10, LINEAR_SLACK = 16 };

static_assert(LINEAR_SIZE >= PKT_LEN_MAX + CACHE_LINE, "the longest packet fits");

struct linear {
	struct pkt_source source; /* first: done() finds the memory by it */
	unsigned lent;            /* packets that lie in it */
	uint32_t used;            /* bytes handed out since lent was last 0 */
	uint8_t memory[LINEAR_SIZE + LINEAR_SLACK] __attribute__((aligned(CACHE_LINE)));
};

static struct linear linears[WORKERS_MAX];

static void linear_done(struct pkt_source *source, struct pkt **pkts, unsigned n)
{
	((struct linear *)source)->lent -= n;
}

uint8_t *linear_lend(struct pkt *pkt, uint32_t len, uint32_t align_off)
{
	struct linear *linear = &linears[worker_self->id];

	if (linear->lent == 0)
		linear->used = 0;

	uint32_t at = linear->used + (-align_off & (CACHE_LINE - 1));

	if (unlikely(at + len > LINEAR_SIZE))
		return NULL;
	linear->used = (at + len + CACHE_LINE - 1) & ~(CACHE_LINE - 1u);
	linear->lent++;
	linear->source.done = linear_done;
	pkt->source = &linear->source;
	pkt->len = len;
	pkt->header_len = 0;
	pkt->frags[0] = (struct iovec){ linear->memory + at, len };
	pkt->frag_count = 1;
	return linear->memory + at;
}

/* Copy a frame, its checksum finished. */
static void copy_and_finish(uint8_t *frame, const struct pkt *pkt)
{
	unsigned start = pkt->offload.csum_start, field = start + pkt->offload.csum_offset;

	memcpy(frame, pkt->header, start);

	uint32_t sum = csum_copy_pkt(frame + start, pkt, start, pkt->len - start, 0);
	uint16_t csum = csum_finish(sum);

	memcpy(frame + field, &csum, sizeof(csum));
}

struct pkt *linear_copy(struct pkt_pool *pool, const struct pkt *pkt, bool finish)
{
	struct pkt *copy;
	uint8_t *frame;

	if (!pkt_pool_get(pool, &copy, 1))
		return NULL;
	frame = linear_lend(copy, pkt->len, pkt->payload_off);
	if (!frame) {
		pkt_pool_put(pool, &copy, 1);
		return NULL;
	}
	pkt_copy_facts(copy, pkt);
	copy->offload = pkt->offload;
	if (finish) {
		copy_and_finish(frame, pkt);
		pkt_csum_done(copy);
	} else {
		pkt_copy_out(pkt, 0, frame, pkt->len);
	}
	memcpy(copy->header, frame, pkt->len < PKT_HEADER_MAX ? pkt->len : PKT_HEADER_MAX);
	return copy;
}
