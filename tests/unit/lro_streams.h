/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * TCP and UDP flows, segment by segment, for tests of lro: well-behaved, or with every deviation that
 * traffic knows.
 */
#ifndef VIFD_TEST_LRO_STREAMS_H
#define VIFD_TEST_LRO_STREAMS_H

#include "lro_world.h"

enum {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_PSH = 0x08,
	TCP_ACK = 0x10,
	TCP_URG = 0x20,
	TCP_ECE = 0x40,
	TCP_CWR = 0x80
};

enum stream_ids { IDS_COUNT, IDS_CONSTANT, IDS_RANDOM, IDS_KINDS };

struct stream {
	struct frame_desc desc;
	uint8_t headers[300];
	struct frame frame; /* offsets */
	uint32_t seq;
	uint16_t id;
	enum stream_ids ids;
	uint8_t csum;  /* PKT_CSUM_PARTIAL, PKT_CSUM_VALID or 0: finished, and nobody has looked */
	uint32_t mss;  /* payload of a segment */
	uint32_t sent; /* bytes */
};

/*
 * What a segment does that the one before did not. DEVIATIONS(X) lists X(name, packets): what comes
 * of five plain segments, this one and five more, of TCP over IPv4 with a VLAN tag and timestamps.
 */
#define DEVIATIONS(X)                                                                              \
	X(PLAIN, 1)                                                                                \
	X(RETRANSMITTED, 2)   /* the one before again */                                           \
	X(OVERLAPPING, 2)     /* begins within the one before, and all that follow with it */      \
	X(LOST, 2)            /* one is missing before it */                                       \
	X(EARLY, 3)           /* comes before one that it should follow */                         \
	X(OTHER_ACK, 2)       /* from here on */                                                   \
	X(OTHER_WINDOW, 2)    /* from here on */                                                   \
	X(OTHER_TIMESTAMP, 2) /* from here on */                                                   \
	X(WITH_SACK, 3)       /* an option more */                                                 \
	X(OTHER_TOS, 3)                                                                            \
	X(OTHER_TTL, 3)                                                                            \
	X(OTHER_FRAGMENT_BIT, 3) /* DF, or the reserved one */                                     \
	X(TTL_FOR_DF, 3)         /* both, so that the header's sum stays */                        \
	X(OTHER_PRIORITY, 3)     /* of VLAN */                                                     \
	X(OTHER_MAC, 3)          /* another flow, and missing in its own */                        \
	X(OTHER_RESERVED_BIT, 3) /* beside TCP's header length */                                  \
	X(KEEPALIVE, 3)          /* one byte before the expected */                                \
	X(EMPTY_KEEPALIVE, 3)                                                                      \
	X(ACK_ALONE, 3) /* no payload */                                                           \
	X(SHORT, 2)     /* ends the train */                                                       \
	X(TINY, 2)                                                                                 \
	X(LONG, 3)   /* longer than the others */                                                  \
	X(PUSHED, 2) /* ends the train */                                                          \
	X(FINISHED, 2)                                                                             \
	X(WITH_SYN, 3)                                                                             \
	X(WITH_RST, 3)                                                                             \
	X(URGENT, 3)                                                                               \
	X(URGENT_POINTER, 3) /* without the flag */                                                \
	X(WITH_CWR, 2)       /* begins the next train, whose flags are like its own */             \
	X(WITH_ECE, 3)                                                                             \
	X(WITHOUT_ACK, 3)                                                                          \
	X(ID_JUMPED, 2) /* and counts on from there */                                             \
	X(ID_REPEATED, 2)                                                                          \
	X(PADDED, 3) /* Ethernet padding */                                                        \
	X(WRONG_L4_CSUM, 3)                                                                        \
	X(WRONG_IP_CSUM, 3)                                                                        \
	X(ZERO_L4_CSUM, 3)     /* right, in the form of zero */                                    \
	X(ONES_L4_CSUM, 3)     /* right, in the other form */                                      \
	X(ZERO_IP_CSUM, 2)     /* right; with an ID that leads to it, counting on */               \
	X(ONES_IP_CSUM, 3)     /* the form that nobody writes */                                   \
	X(OTHER_CSUM_STATE, 3) /* left to be finished, or not */                                   \
	X(OTHER_CSUM_START, 3) /* a tunnel's */                                                    \
	X(WITH_IP_OPTIONS, 3)                                                                      \
	X(FRAGMENT, 3)                                                                             \
	X(SHORT_UDP, 1) /* whose length is not that of the IP packet */                            \
	X(CUT_L4, 3)    /* a TCP or UDP header that leads outside the packet */                    \
	X(GSO, 3)       /* already an aggregate */

enum deviation {
#define X(name, packets) DEVIATE_##name,
	DEVIATIONS(X)
#undef X
		DEVIATION_COUNT
};

static const char *const deviation_names[DEVIATION_COUNT] = {
#define X(name, packets) #name,
	DEVIATIONS(X)
#undef X
};

/* A frame being made. */
struct draft {
	struct frame frame;
	struct pkt_offload offload;
	uint32_t payload;
};

static inline void stream_init(struct stream *stream, const struct frame_desc *desc, uint32_t mss,
			       enum stream_ids ids, uint8_t csum, uint64_t *seed)
{
	static uint8_t bytes[FRAME_MAX];
	struct frame_desc empty = *desc;

	empty.payload = 0;
	empty.tcp_flags = TCP_ACK;
	*stream = (struct stream){ .desc = empty, .ids = ids, .csum = csum, .mss = mss };
	stream->frame.bytes = bytes;
	frame_build(&stream->frame, &empty, seed);
	bytes[5] &= ~1;
	if (desc->proto == IPPROTO_TCP)
		be16(bytes + stream->frame.l4 + 18, 0);
	memcpy(stream->headers, bytes, sizeof(stream->headers));
	stream->seq = rnd(seed);
	stream->id = rnd(seed);
}

static inline uint8_t *draft_l4(struct draft *draft)
{
	return draft->frame.bytes + draft->frame.l4;
}

static inline unsigned draft_csum_offset(const struct draft *draft)
{
	return draft->frame.proto == IPPROTO_TCP ? 16 : 6;
}

static inline uint32_t draft_csum(struct draft *draft)
{
	return rd16(draft_l4(draft) + draft_csum_offset(draft));
}

/* Lengths, after sizes have been changed. */
static inline void draft_measure(struct draft *draft)
{
	struct frame *frame = &draft->frame;
	uint8_t *ip = frame->bytes + frame->l3;

	frame->len = frame->payload + draft->payload;
	if (frame->ip == 4)
		be16(ip + 2, frame->len - frame->l3);
	else
		be16(ip + 4, frame->len - frame->l3 - 40);
	if (frame->proto == IPPROTO_UDP)
		be16(draft_l4(draft) + 4, frame->len - frame->l4);
}

/* Put len zero bytes in at offset at, which lies behind the IP header's start. */
static inline void draft_insert(struct draft *draft, uint32_t at, uint32_t len, uint8_t fill)
{
	struct frame *frame = &draft->frame;

	memmove(frame->bytes + at + len, frame->bytes + at, frame->len - at);
	memset(frame->bytes + at, fill, len);
	frame->payload += len;
	if (at <= frame->l4)
		frame->l4 += len;
	draft_measure(draft);
}

static inline void draft_sum_ip(struct draft *draft)
{
	struct frame *frame = &draft->frame;
	uint8_t *ip = frame->bytes + frame->l3;

	if (frame->ip != 4)
		return;
	be16(ip + 10, 0);
	be16(ip + 10, ~slow_sum(ip, (ip[0] & 15) * 4, 0));
}

/* The checksums, as the stream's offloading says. */
static inline void draft_sum(struct draft *draft, uint8_t csum)
{
	struct frame *frame = &draft->frame;
	uint32_t l4_len = frame->len - frame->l4, pseudo = slow_pseudo(frame, l4_len), sum;
	unsigned offset = draft_csum_offset(draft);

	draft_sum_ip(draft);
	draft->offload = (struct pkt_offload){ .flags = csum };
	if (csum == PKT_CSUM_PARTIAL) {
		draft->offload.csum_start = frame->l4;
		draft->offload.csum_offset = offset;
		be16(draft_l4(draft) + offset, pseudo);
		return;
	}
	be16(draft_l4(draft) + offset, 0);
	sum = ~slow_sum(draft_l4(draft), l4_len, pseudo) & 0xffff;
	be16(draft_l4(draft) + offset, sum || frame->proto == IPPROTO_TCP ? sum : 0xffff);
}

/* The stream's next segment, as it should be. */
static inline void stream_draft(struct stream *stream, struct draft *draft, uint8_t *bytes,
				uint32_t payload, uint8_t tcp_flags, uint64_t *seed)
{
	uint8_t *ip = bytes + stream->frame.l3, *l4 = bytes + stream->frame.l4;

	memcpy(bytes, stream->headers, stream->frame.payload);
	*draft = (struct draft){ .frame = stream->frame, .payload = payload };
	draft->frame.bytes = bytes;
	if (stream->ids == IDS_RANDOM)
		stream->id = rnd(seed);
	if (stream->frame.ip == 4)
		be16(ip + 4, stream->id);
	stream->id += stream->ids == IDS_COUNT;
	if (stream->frame.proto == IPPROTO_TCP) {
		be16(l4 + 4, stream->seq >> 16);
		be16(l4 + 6, stream->seq);
		l4[13] = tcp_flags;
	}
	stream->seq += payload;
	stream->sent += payload;
	draft_measure(draft);
	for (uint32_t i = 0; i < payload; i += 4) {
		uint32_t word = rnd(seed);

		memcpy(bytes + draft->frame.payload + i, &word, 4);
	}
}

/* Make the finished checksum of L4 zero by a word of payload, and write it as zero or ones. */
static inline void draft_zero_l4(struct draft *draft, uint32_t form)
{
	struct frame *frame = &draft->frame;
	uint8_t *word = frame->bytes + frame->payload,
		*field = draft_l4(draft) + draft_csum_offset(draft);
	uint32_t sum;

	if (draft->payload < 2 || draft->offload.flags == PKT_CSUM_PARTIAL)
		return;
	sum = rd16(word) + rd16(field);
	be16(word, (sum & 0xffff) + (sum >> 16));
	be16(field, form);
}

/* The same with the IPv4 header's, by its ID, which is returned. */
static inline uint16_t draft_zero_ip(struct draft *draft, uint32_t form)
{
	uint8_t *ip = draft->frame.bytes + draft->frame.l3;
	uint32_t sum = rd16(ip + 4) + rd16(ip + 10);

	be16(ip + 4, (sum & 0xffff) + (sum >> 16));
	be16(ip + 10, form);
	return rd16(ip + 4);
}

/* A deviation that shows before the checksums are made. Changes that stay are made to the stream too. */
static inline void deviate_before(struct stream *stream, struct draft *draft, enum deviation what)
{
	struct frame *frame = &draft->frame;
	uint8_t *b = frame->bytes, *ip = b + frame->l3, *l4 = draft_l4(draft);
	uint8_t *stays_l4 = stream->headers + stream->frame.l4;
	bool tcp = frame->proto == IPPROTO_TCP, v4 = frame->ip == 4;

	switch (what) {
	case DEVIATE_OTHER_ACK:
		if (tcp)
			l4[8]++, stays_l4[8]++;
		break;
	case DEVIATE_OTHER_WINDOW:
		if (tcp)
			l4[15]++, stays_l4[15]++;
		break;
	case DEVIATE_OTHER_TIMESTAMP:
		if (tcp && stream->desc.tcp_options)
			b[frame->payload - 1]++, stays_l4[19 + stream->desc.tcp_options]++;
		break;
	case DEVIATE_WITH_SACK:
		if (tcp && l4[12] >> 4 < 13 && frame->payload + 8 <= PKT_HEADER_MAX) {
			l4[12] += 2 << 4;
			draft_insert(draft, frame->payload, 8, 1);
		}
		break;
	case DEVIATE_OTHER_TOS:
		ip[1] ^= 0x10;
		break;
	case DEVIATE_OTHER_TTL:
		ip[v4 ? 8 : 7]--;
		break;
	case DEVIATE_OTHER_FRAGMENT_BIT:
		ip[v4 ? 6 : 3] ^= stream->seq & 1 ? 0x40 : 0x80;
		break;
	case DEVIATE_TTL_FOR_DF:
		ip[v4 ? 8 : 7] += ip[6] & 0x40 ? 0x40 : -0x40;
		if (v4)
			ip[6] ^= 0x40;
		break;
	case DEVIATE_OTHER_PRIORITY:
		if (frame->l3 > 14)
			b[14] ^= 0x20;
		break;
	case DEVIATE_OTHER_MAC:
		b[11] ^= 1;
		break;
	case DEVIATE_OTHER_RESERVED_BIT:
		if (tcp)
			l4[12] ^= 1 << (stream->seq % 4);
		break;
	case DEVIATE_WITH_IP_OPTIONS:
		if (v4) {
			ip[0] += 2;
			draft_insert(draft, frame->l4, 8, 1);
		} else {
			draft_insert(draft, frame->l4, 8, 0);
			b[frame->l4 - 8] = frame->proto;
			b[frame->l4 - 6] = 1; /* PadN of 4 bytes */
			b[frame->l4 - 5] = 4;
			ip[6] = 60;
		}
		break;
	case DEVIATE_FRAGMENT:
		if (v4)
			ip[6] |= 0x20;
		break;
	case DEVIATE_URGENT_POINTER:
		if (tcp)
			l4[19] = 1;
		break;
	default:
		break;
	}
}

/* One that is about checksums, or must not be in them. */
static inline void deviate_after(struct stream *stream, struct draft *draft, enum deviation what)
{
	struct frame *frame = &draft->frame;
	uint8_t *ip = frame->bytes + frame->l3, *l4 = draft_l4(draft);
	bool v4 = frame->ip == 4;

	switch (what) {
	case DEVIATE_PADDED:
		memset(frame->bytes + frame->len, 0, 7);
		frame->len += 1 + stream->seq % 7;
		break;
	case DEVIATE_WRONG_L4_CSUM:
		l4[draft_csum_offset(draft) + 1]++;
		/* Whoever says that it is right is not to be believed to be wrong. */
		if (draft->offload.flags == PKT_CSUM_VALID)
			draft->offload.flags = 0;
		break;
	case DEVIATE_WRONG_IP_CSUM:
		ip[v4 ? 11 : 7]++;
		break;
	case DEVIATE_ZERO_L4_CSUM:
	case DEVIATE_ONES_L4_CSUM:
		draft_zero_l4(draft, what == DEVIATE_ZERO_L4_CSUM ? 0 : 0xffff);
		break;
	case DEVIATE_ZERO_IP_CSUM:
		if (v4)
			stream->id = draft_zero_ip(draft, 0) + (stream->ids == IDS_COUNT);
		break;
	case DEVIATE_ONES_IP_CSUM:
		if (v4)
			stream->id = draft_zero_ip(draft, 0xffff) + (stream->ids == IDS_COUNT);
		break;
	case DEVIATE_OTHER_CSUM_START:
		draft->offload = (struct pkt_offload){ .flags = PKT_CSUM_PARTIAL };
		draft->offload.csum_start = frame->payload;
		draft->offload.csum_offset = draft_csum_offset(draft);
		break;
	case DEVIATE_SHORT_UDP:
		if (frame->proto == IPPROTO_UDP && draft->payload > 1)
			be16(l4 + 4, frame->len - frame->l4 - 1);
		break;
	case DEVIATE_CUT_L4:
		if (frame->proto == IPPROTO_TCP)
			l4[12] = 0x40 | (l4[12] & 15);
		else
			be16(l4 + 4, 7);
		draft->offload = (struct pkt_offload){ 0 };
		break;
	default:
		break;
	}
}

static inline uint8_t deviant_flags(const struct stream *stream, enum deviation what)
{
	static const uint8_t flags[DEVIATION_COUNT] = {
		[DEVIATE_PUSHED] = TCP_PSH,   [DEVIATE_FINISHED] = TCP_FIN,
		[DEVIATE_WITH_SYN] = TCP_SYN, [DEVIATE_WITH_RST] = TCP_RST,
		[DEVIATE_URGENT] = TCP_URG,   [DEVIATE_WITH_CWR] = TCP_CWR,
		[DEVIATE_WITH_ECE] = TCP_ECE, [DEVIATE_WITHOUT_ACK] = TCP_ACK,
	};

	return TCP_ACK ^ flags[what];
}

static inline uint32_t deviant_payload(const struct stream *stream, enum deviation what)
{
	uint32_t more = stream->mss + 1 + stream->seq % stream->mss;

	switch (what) {
	case DEVIATE_KEEPALIVE:
	case DEVIATE_TINY:
		return 1;
	case DEVIATE_EMPTY_KEEPALIVE:
	case DEVIATE_ACK_ALONE:
		return 0;
	case DEVIATE_SHORT:
		return stream->mss - (stream->mss > 1);
	case DEVIATE_LONG:
		return stream->mss + 1;
	case DEVIATE_GSO:
		return more < 65000 ? more : 65000;
	default:
		return stream->mss;
	}
}

/* The stream's next segment, which may deviate. bytes: FRAME_MAX. */
static inline void stream_next(struct stream *stream, struct draft *draft, uint8_t *bytes,
			       enum deviation what, uint64_t *seed)
{
	uint32_t payload = deviant_payload(stream, what), seq = stream->seq;
	uint8_t csum = stream->csum;

	if (what == DEVIATE_RETRANSMITTED)
		stream->seq -= stream->mss;
	if (what == DEVIATE_OVERLAPPING)
		stream->seq -= stream->mss / 2 + 1;
	if (what == DEVIATE_LOST || what == DEVIATE_EARLY)
		stream->seq += stream->mss;
	if (what == DEVIATE_KEEPALIVE || what == DEVIATE_EMPTY_KEEPALIVE)
		stream->seq--;
	if (what == DEVIATE_ID_JUMPED)
		stream->id += 2;
	if (what == DEVIATE_ID_REPEATED)
		stream->id--;
	if (what == DEVIATE_OTHER_CSUM_STATE)
		csum = csum == PKT_CSUM_PARTIAL ? PKT_CSUM_VALID : PKT_CSUM_PARTIAL;
	if (what == DEVIATE_GSO)
		csum = PKT_CSUM_PARTIAL;
	stream_draft(stream, draft, bytes, payload, deviant_flags(stream, what), seed);
	deviate_before(stream, draft, what);
	draft_sum(draft, csum);
	/* One that is zero by chance would be a deviation. */
	while (what == DEVIATE_PLAIN && csum != PKT_CSUM_PARTIAL &&
	       (draft_csum(draft) == 0 || draft_csum(draft) == 0xffff)) {
		bytes[draft->frame.payload]++;
		draft_sum(draft, csum);
	}
	deviate_after(stream, draft, what);
	if (what == DEVIATE_EARLY || what == DEVIATE_KEEPALIVE || what == DEVIATE_EMPTY_KEEPALIVE ||
	    what == DEVIATE_RETRANSMITTED)
		stream->seq = seq;
	if (what == DEVIATE_GSO) {
		draft->offload.gso_size = stream->mss;
		draft->offload.gso_type = draft->frame.proto == IPPROTO_UDP ? PKT_GSO_UDP
					  : draft->frame.ip == 4            ? PKT_GSO_TCPV4
									    : PKT_GSO_TCPV6;
	}
}

#endif
