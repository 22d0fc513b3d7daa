/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Headers: what is found in well-formed frames of every geometry, what is not found in damaged ones
 * (against a plain parser of flat memory), which offload requests pass, and what the flow hash
 * tells apart.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "frames.h"
#include "pkt/headers.h"

static void assert_found(const struct pkt *pkt, const struct found *want)
{
	assert_int_equal(pkt->l3_off, want->l3);
	assert_int_equal(pkt->l4_off, want->l4);
	assert_int_equal(pkt->l4_proto, want->proto);
	assert_int_equal(pkt->payload_off, want->payload);
}

/* Parse bytes in some geometries; each must find the same and leave the bytes as they were. */
static void assert_parses(const uint8_t *bytes, uint32_t len, const struct found *want,
			  uint64_t *seed)
{
	static const uint32_t header_lens[] = { 14, 18, 34, 54, 64, 74, 128, 192 };
	static const uint32_t frag_maxes[] = { 1, 7, 5000 };

	for (unsigned i = 0; i < 8; i++) {
		for (unsigned j = 0; j < 3; j++) {
			uint8_t *out = malloc(len);
			struct pkt pkt;

			pkt_fill(&pkt, bytes, len, header_lens[i], frag_maxes[j], seed);
			headers_parse(&pkt);
			assert_found(&pkt, want);
			assert_true(pkt.header_len <= PKT_HEADER_MAX);
			pkt_copy_out(&pkt, 0, out, len);
			assert_memory_equal(out, bytes, len);
			pkt_empty(&pkt);
			free(out);
		}
	}
}

static const struct frame_desc well_formed[] = {
	{ 0, 4, 0, IPPROTO_TCP, 0, 0, 0 },      { 0, 4, 0, IPPROTO_TCP, 12, 0x18, 100 },
	{ 0, 4, 0, IPPROTO_UDP, 0, 0, 1 },      { 0, 4, 40, IPPROTO_TCP, 40, 0, 50 },
	{ 1, 4, 0, IPPROTO_TCP, 12, 0, 1400 },  { 2, 4, 8, IPPROTO_UDP, 0, 0, 1400 },
	{ 0, 6, 0, IPPROTO_TCP, 12, 0, 1400 },  { 0, 6, 0, IPPROTO_UDP, 0, 0, 10 },
	{ 2, 6, 0, IPPROTO_TCP, 40, 0, 10 },    { 1, 6, 24, IPPROTO_TCP, 20, 0, 10 },
	{ 2, 6, 64, IPPROTO_UDP, 0, 0, 10 },    { 0, 4, 0, IPPROTO_SCTP, 0, 0, 100 },
	{ 0, 6, 0, IPPROTO_ICMPV6, 0, 0, 100 }, { 0, 0, 0, 0, 0, 0, 46 },
	{ 3, 4, 0, IPPROTO_TCP, 0, 0, 10 },
};

enum { WELL_FORMED = sizeof(well_formed) / sizeof(well_formed[0]) };

static void parse_well_formed(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 1;

	for (int i = 0; i < WELL_FORMED; i++) {
		frame_build(&frame, &well_formed[i], &seed);

		struct found want = { frame.l3, frame.l4, frame.payload, well_formed[i].proto };

		if (well_formed[i].vlans == 3) /* the third tag is not looked behind */
			want = (struct found){ 22 };
		assert_parses(frame.bytes, frame.len, &want, &seed);
	}
	free(frame.bytes);
}

static void parse_truncated_and_padded(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 2;

	for (int i = 0; i < WELL_FORMED; i++) {
		struct frame_desc desc = well_formed[i];

		desc.payload %= 64;
		frame_build(&frame, &desc, &seed);
		memset(frame.bytes + frame.len, 0, 20);
		for (uint32_t len = 14; len < frame.len + 20; len++) {
			struct found want = slow_parse(frame.bytes, len);

			assert_parses(frame.bytes, len, &want, &seed);
		}
	}
	free(frame.bytes);
}

/* Every byte of the headers is damaged in turn, then several at a time. */
static void parse_damaged(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 3;

	for (int round = 0; round < 20000; round++) {
		struct frame_desc desc = well_formed[rnd(&seed) % WELL_FORMED];
		struct pkt pkt;

		desc.payload %= 300;
		frame_build(&frame, &desc, &seed);
		for (int damage = round % 4; damage >= 0; damage--) {
			uint32_t at = rnd_in(&seed, 12, frame.payload ? frame.payload - 1 : 60);

			frame.bytes[at] = rnd(&seed) % 3 ? rnd(&seed) : (rnd(&seed) & 1) * 0xff;
		}
		struct found want = slow_parse(frame.bytes, frame.len);

		pkt_fill(&pkt, frame.bytes, frame.len, rnd_in(&seed, 14, 192),
			 rnd_in(&seed, 1, 100), &seed);
		headers_parse(&pkt);
		assert_found(&pkt, &want);
		pkt_empty(&pkt);
	}
	free(frame.bytes);
}

/*
 * Chains of IPv6 extension headers, fragments whole and not, segments left, and too long a chain.
 */
static void parse_ipv6_chains(void **state)
{
	static const uint8_t kinds[] = { 0, 43, 44, 60 };
	uint8_t bytes[2000];
	uint64_t seed = 4;
	unsigned reached = 0, stopped = 0, lost = 0;

	for (int round = 0; round < 5000; round++) {
		uint32_t off = 54, next = 20;
		struct pkt pkt;

		memset(bytes, 0, sizeof(bytes));
		be16(bytes + 12, 0x86dd);
		bytes[14] = 0x60;
		for (int i = rnd(&seed) % 8; i > 0; i--) {
			uint32_t units = rnd(&seed) % 4 ? 1 : rnd_in(&seed, 1, 24);
			uint8_t kind = kinds[rnd(&seed) % 4];

			bytes[next] = kind;
			bytes[off + 1] = units -
					 1; /* of a fragment header reserved, to be ignored */
			if (rnd(&seed) % 8 == 0)
				bytes[off + 3] = rnd(&seed);
			next = off;
			off += kind == 44 ? 8 : units * 8;
		}
		bytes[next] = IPPROTO_UDP;
		be16(bytes + off + 4, 16);
		uint32_t len = off + 16;

		be16(bytes + 18, len - 54);
		struct found want = slow_parse(bytes, len);

		pkt_fill(&pkt, bytes, len, 64, 40, &seed);
		headers_parse(&pkt);
		assert_found(&pkt, &want);
		reached += pkt.l4_proto == IPPROTO_UDP;
		stopped += pkt.l4_off && !pkt.l4_proto;
		lost += !pkt.l4_off;
		pkt_empty(&pkt);
	}
	assert_true(reached > 100 && stopped > 100 && lost > 10);
}

/* ---- offload requests ---- */

struct offload_case {
	const char *name;
	struct frame_desc frame;
	struct pkt_offload
		ask; /* csum_start from the L4 header; for frames without one from l3_off */
	bool pass;
	int gso_type; /* afterwards */
};

#define TCP4(payload)                                                                              \
	{                                                                                          \
		0, 4, 0, IPPROTO_TCP, 12, 0x10, payload                                            \
	}
#define TCP6(payload)                                                                              \
	{                                                                                          \
		0, 6, 0, IPPROTO_TCP, 12, 0x10, payload                                            \
	}
#define UDP4(payload)                                                                              \
	{                                                                                          \
		0, 4, 0, IPPROTO_UDP, 0, 0, payload                                                \
	}
#define UDP6(payload)                                                                              \
	{                                                                                          \
		0, 6, 0, IPPROTO_UDP, 0, 0, payload                                                \
	}
#define CSUM(start, offset)                                                                        \
	{                                                                                          \
		PKT_CSUM_PARTIAL, 0, 0, start, offset                                              \
	}
#define GSO(type, size, offset)                                                                    \
	{                                                                                          \
		PKT_CSUM_PARTIAL, type, size, 0, offset                                            \
	}
#define BEFORE(bytes) ((uint16_t) - (bytes))

static const struct offload_case offload_cases[] = {
	{ "nothing", TCP4(100), { 0 }, true, 0 },
	{ "valid only", TCP4(100), { PKT_CSUM_VALID }, true, 0 },
	{ "tcp4 checksum", TCP4(100), CSUM(0, 16), true, 0 },
	{ "tcp4 checksum, udp's place", TCP4(100), CSUM(0, 6), false, 0 },
	{ "tcp4 checksum one byte off", TCP4(100), CSUM(1, 16), false, 0 },
	{ "tcp4 checksum from IP header", TCP4(100), CSUM(BEFORE(20), 16), false, 0 },
	{ "tcp4 checksum into source MAC", TCP4(100), CSUM(BEFORE(34), 6), false, 0 },
	{ "tcp6 checksum", TCP6(100), CSUM(0, 16), true, 0 },
	{ "udp4 checksum", UDP4(100), CSUM(0, 6), true, 0 },
	{ "udp6 checksum", UDP6(100), CSUM(0, 6), true, 0 },
	{ "udp4 checksum from within its header", UDP4(100), CSUM(7, 16), false, 0 },
	{ "tcp4 checksum from within its header", TCP4(100), CSUM(19, 16), false, 0 },
	{ "udp4 checksum, tcp's place", UDP4(100), CSUM(0, 16), false, 0 },
	{ "inner checksum of VXLAN", UDP4(150), CSUM(8 + 8 + 14 + 20, 16), true, 0 },
	{ "inner checksum at the end of the copy", UDP4(400), CSUM(142, 14), true, 0 },
	{ "inner checksum behind the copy", UDP4(400), CSUM(143, 14), false, 0 },
	{ "checksum at the end of the frame", UDP4(50), CSUM(40, 16), true, 0 },
	{ "checksum behind the frame", UDP4(50), CSUM(41, 16), false, 0 },
	{ "checksum far behind the frame", UDP4(50), CSUM(0xff00, 0xff00), false, 0 },
	{ "16-bit wrap", UDP4(50), CSUM(6, 0xfff8), false, 0 },
	{ "checksum of SCTP, at a place of its own",
	  { 0, 4, 0, IPPROTO_SCTP, 0, 0, 90 },
	  CSUM(0, 8),
	  true,
	  0 },
	{ "checksum of an unknown one, before it",
	  { 0, 4, 0, IPPROTO_SCTP, 0, 0, 90 },
	  CSUM(BEFORE(4), 2),
	  false,
	  0 },
	{ "checksum in what is not IP", { 0, 0, 0, 0, 0, 0, 60 }, CSUM(0, 20), true, 0 },
	{ "checksum into an Ethernet header",
	  { 0, 0, 0, 0, 0, 0, 60 },
	  CSUM(BEFORE(2), 0),
	  false,
	  0 },
	{ "checksum into a VLAN tag", { 1, 0, 0, 0, 0, 0, 60 }, CSUM(BEFORE(4), 0), false, 0 },
	{ "tcp with two tags", { 2, 6, 8, IPPROTO_TCP, 0, 0, 99 }, CSUM(0, 16), true, 0 },
	{ "tso4", TCP4(5000), GSO(PKT_GSO_TCPV4, 1448, 16), true, PKT_GSO_TCPV4 },
	{ "tso6", TCP6(5000), GSO(PKT_GSO_TCPV6, 1428, 16), true, PKT_GSO_TCPV6 },
	{ "uso4", UDP4(5000), GSO(PKT_GSO_UDP, 1200, 6), true, PKT_GSO_UDP },
	{ "uso6", UDP6(5000), GSO(PKT_GSO_UDP, 1200, 6), true, PKT_GSO_UDP },
	{ "tso4 of IPv6", TCP6(5000), GSO(PKT_GSO_TCPV4, 1448, 16), false, 0 },
	{ "tso6 of IPv4", TCP4(5000), GSO(PKT_GSO_TCPV6, 1448, 16), false, 0 },
	{ "tso4 of UDP", UDP4(5000), GSO(PKT_GSO_TCPV4, 1448, 6), false, 0 },
	{ "uso of TCP", TCP4(5000), GSO(PKT_GSO_UDP, 1448, 16), false, 0 },
	{ "UFO of old", UDP4(5000), GSO(3, 1448, 6), false, 0 },
	{ "unknown GSO", TCP4(5000), GSO(7, 1448, 16), false, 0 },
	{ "tso of what is not IP",
	  { 0, 0, 0, 0, 0, 0, 2000 },
	  GSO(PKT_GSO_TCPV4, 1000, 16),
	  false,
	  0 },
	{ "gso_size 0", TCP4(5000), GSO(PKT_GSO_TCPV4, 0, 16), false, 0 },
	{ "gso without checksum", TCP4(5000), { 0, PKT_GSO_TCPV4, 1448 }, false, 0 },
	{ "gso with only a valid checksum",
	  TCP4(5000),
	  { PKT_CSUM_VALID, PKT_GSO_TCPV4, 1448 },
	  false,
	  0 },
	{ "gso of an inner packet",
	  UDP4(5000),
	  { PKT_CSUM_PARTIAL, PKT_GSO_UDP, 1448, 8, 6 },
	  false,
	  0 },
	{ "one segment", TCP4(1448), GSO(PKT_GSO_TCPV4, 1448, 16), true, PKT_GSO_NONE },
	{ "two segments", TCP4(1449), GSO(PKT_GSO_TCPV4, 1448, 16), true, PKT_GSO_TCPV4 },
	{ "no payload", TCP4(0), GSO(PKT_GSO_TCPV4, 1448, 16), true, PKT_GSO_NONE },
	{ "greatest gso_size", TCP4(5000), GSO(PKT_GSO_TCPV4, 0xffff, 16), true, PKT_GSO_NONE },
	{ "tso, most segments", TCP4(256 * 40), GSO(PKT_GSO_TCPV4, 40, 16), true, PKT_GSO_TCPV4 },
	{ "tso, one segment too many", TCP4(256 * 40 + 1), GSO(PKT_GSO_TCPV4, 40, 16), false, 0 },
	{ "uso, most segments", UDP4(128 * 40), GSO(PKT_GSO_UDP, 40, 6), true, PKT_GSO_UDP },
	{ "uso, one segment too many", UDP4(128 * 40 + 1), GSO(PKT_GSO_UDP, 40, 6), false, 0 },
	{ "64 KiB", TCP4(65535 - 52), GSO(PKT_GSO_TCPV4, 536, 16), true, PKT_GSO_TCPV4 },
	{ "ecn",
	  TCP4(5000),
	  { PKT_CSUM_PARTIAL | PKT_GSO_ECN, PKT_GSO_TCPV4, 1448, 0, 16 },
	  true,
	  PKT_GSO_TCPV4 },
	{ "ecn of UDP",
	  UDP4(5000),
	  { PKT_CSUM_PARTIAL | PKT_GSO_ECN, PKT_GSO_UDP, 1448, 0, 6 },
	  false,
	  0 },
};

static void ask(struct pkt *pkt, const struct frame *frame, const struct pkt_offload *offload)
{
	pkt->offload = *offload;
	if (offload->flags & PKT_CSUM_PARTIAL)
		pkt->offload.csum_start += frame->l4 ? frame->l4 : frame->l3;
}

static void check_offload_table(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 5;

	for (unsigned i = 0; i < sizeof(offload_cases) / sizeof(offload_cases[0]); i++) {
		const struct offload_case *c = &offload_cases[i];

		for (int geometry = 0; geometry < 8; geometry++) {
			struct pkt pkt;

			frame_build(&frame, &c->frame, &seed);
			pkt_fill(&pkt, frame.bytes, frame.len,
				 geometry % 2 ? 64 : rnd_in(&seed, 14, 192),
				 geometry < 2 ? 5000 : rnd_in(&seed, 1, 2000), &seed);
			ask(&pkt, &frame, &c->ask);
			if (headers_check_offload(&pkt) != c->pass)
				fail_msg("%s: %s", c->name, c->pass ? "refused" : "passed");
			if (c->pass) {
				assert_int_equal(pkt.offload.gso_type, c->gso_type);
				if (c->gso_type == PKT_GSO_NONE) {
					assert_int_equal(pkt.offload.gso_size, 0);
					assert_false(pkt.offload.flags & PKT_GSO_ECN);
				}
			}
			pkt_empty(&pkt);
		}
	}
	free(frame.bytes);
}

/*
 * GSO packets whose headers say something else than the frame: lengths, fragments, headers out of
 * reach.
 */
static void check_gso_contradictions(void **state)
{
	static const struct {
		const char *name;
		struct frame_desc frame;
		int at_l3, at_l4; /* where to write value; -1: not */
		uint16_t value;
		int32_t grow; /* bytes appended to the frame */
	} cases[] = {
		{ "padded", TCP4(5000), -1, -1, 0, 4 },
		{ "padded, IPv6", TCP6(5000), -1, -1, 0, 1 },
		{ "truncated", TCP4(5000), -1, -1, 0, -1 },
		{ "IP length too short", TCP4(5000), 2, -1, 5000, 0 },
		{ "IP length too long", TCP4(5000), 2, -1, 6000, 0 },
		{ "IP length zero", TCP4(5000), 2, -1, 0, 0 },
		{ "first fragment", TCP4(5000), 6, -1, 0x2000, 0 },
		{ "later fragment", TCP4(5000), 6, -1, 1, 0 },
		{ "UDP length too short", UDP4(5000), -1, 4, 1000, 0 },
		{ "UDP length below its header", UDP4(5000), -1, 4, 7, 0 },
		{ "TCP header too short", TCP4(5000), -1, 12, 0x4010, 0 },
		{ "TCP header behind the copy",
		  { 2, 6, 80, IPPROTO_TCP, 40, 0, 5000 },
		  -1,
		  -1,
		  0,
		  0 },
	};
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 6;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool tcp = cases[i].frame.proto == IPPROTO_TCP;
		int type = !tcp                     ? PKT_GSO_UDP
			   : cases[i].frame.ip == 6 ? PKT_GSO_TCPV6
						    : PKT_GSO_TCPV4;
		struct pkt_offload offload = GSO(type, 1000, tcp ? 16 : 6);
		struct pkt pkt;

		frame_build(&frame, &cases[i].frame, &seed);
		if (cases[i].at_l3 >= 0)
			be16(frame.bytes + frame.l3 + cases[i].at_l3, cases[i].value);
		if (cases[i].at_l4 >= 0)
			be16(frame.bytes + frame.l4 + cases[i].at_l4, cases[i].value);
		pkt_fill(&pkt, frame.bytes, frame.len + cases[i].grow, 64, 2000, &seed);
		ask(&pkt, &frame, &offload);
		if (headers_check_offload(&pkt))
			fail_msg("%s: passed", cases[i].name);
		pkt_empty(&pkt);
	}
	free(frame.bytes);
}

/* ---- flow hash ---- */

static uint32_t hash_of(const struct frame *frame, uint64_t *seed)
{
	struct pkt pkt;

	pkt_fill(&pkt, frame->bytes, frame->len, 64, 100, seed);
	uint32_t hash = headers_flow_hash(&pkt);

	assert_int_not_equal(hash, 0);
	assert_int_equal(pkt.hash, hash);
	pkt_empty(&pkt);
	return hash;
}

static void hash_tells_flows_apart(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 7;

	for (int i = 0; i < WELL_FORMED; i++) {
		if (well_formed[i].vlans == 3)
			continue;
		frame_build(&frame, &well_formed[i], &seed);

		uint32_t hash = hash_of(&frame, &seed);
		uint32_t first = frame.ip == 6 ? frame.l3 + 8 : frame.ip == 4 ? frame.l3 + 12 : 0;
		uint32_t last = frame.ip == 6 ? frame.l3 + 39 : frame.ip == 4 ? frame.l3 + 19 : 11;

		for (uint32_t at = 0; at < frame.len; at++) {
			bool address = at >= first && at <= last;
			bool port = frame.payload && at >= frame.l4 && at < frame.l4 + 4;
			bool mac_or_payload = at < 12 || (frame.payload && at >= frame.payload);
			uint8_t bit = 1 << rnd(&seed) % 8;

			frame.bytes[at] ^= bit;
			if (address || port)
				assert_int_not_equal(hash_of(&frame, &seed), hash);
			else if (mac_or_payload)
				assert_int_equal(hash_of(&frame, &seed), hash);
			frame.bytes[at] ^= bit;
		}
	}
	free(frame.bytes);
}

static void hash_keeps_fragments_together(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 8;

	frame_build(&frame, &(struct frame_desc)UDP4(100), &seed);
	be16(frame.bytes + frame.l3 + 6, 0x2000);
	uint32_t first = hash_of(&frame, &seed);

	be16(frame.bytes + frame.l3 + 6, 100);
	for (int i = 0; i < 20; i++)
		frame.bytes[frame.l4 + i] = rnd(&seed);
	assert_int_equal(hash_of(&frame, &seed), first);
	free(frame.bytes);
}

/*
 * Ports that count up, as a client's do, spread evenly over 2, 3 and 16 queues by the low bits
 * and by remainder.
 */
static void hash_spreads(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t seed = 9;
	unsigned low[16] = { 0 }, third[3] = { 0 };

	frame_build(&frame, &(struct frame_desc)TCP4(0), &seed);
	for (int port = 0; port < 4096; port++) {
		be16(frame.bytes + frame.l4, 32768 + port);
		uint32_t hash = hash_of(&frame, &seed);

		low[hash % 16]++;
		third[hash % 3]++;
	}
	for (int i = 0; i < 16; i++)
		assert_in_range(low[i], 180, 340);
	for (int i = 0; i < 3; i++)
		assert_in_range(third[i], 1230, 1500);
	free(frame.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse_well_formed),
		cmocka_unit_test(parse_truncated_and_padded),
		cmocka_unit_test(parse_damaged),
		cmocka_unit_test(parse_ipv6_chains),
		cmocka_unit_test(check_offload_table),
		cmocka_unit_test(check_gso_contradictions),
		cmocka_unit_test(hash_tells_flows_apart),
		cmocka_unit_test(hash_keeps_fragments_together),
		cmocka_unit_test(hash_spreads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
