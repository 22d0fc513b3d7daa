/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What does not fit a port's MTU, and who is told so. Two ports on a bridge, on a worker that is
 * the calling thread; answers are taken apart byte by byte.
 *
 *      sender ── "in" (MTU 9000) ── br0 ── "out" (MTU by test) ── receiver
 */
#include <netinet/in.h>
#include <stdio.h>

#include "bridge/bridge.h"
#include "frames.h"
#include "pkt/headers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h> /* last: it defines fail() */

enum { POOL = 128, SEEN_MAX = 256, MTU = 1400, ICMP = 1, ICMPV6 = 58 };

static const uint8_t sender[6] = { 2, 0, 0, 0, 0, 1 }, receiver[6] = { 2, 0, 0, 0, 0, 2 };

/* A port that remembers what it was sent. */
struct memo {
	struct port port;
	unsigned count;
	uint8_t *bytes[SEEN_MAX];
	uint32_t len[SEEN_MAX];
	struct pkt_offload offload[SEEN_MAX];
};

static struct memo in, out;
static struct bridge *bridge;
static struct worker *worker;
static uint64_t seed = 1;

static void memo_send(struct port *port, struct pkt **pkts, unsigned n)
{
	struct memo *memo = (struct memo *)port;

	for (unsigned i = 0; i < n; i++) {
		unsigned at = memo->count++;

		assert_true(at < SEEN_MAX);
		memo->len[at] = pkts[i]->len;
		memo->offload[at] = pkts[i]->offload;
		memo->bytes[at] = malloc(pkts[i]->len);
		pkt_copy_out(pkts[i], 0, memo->bytes[at], pkts[i]->len);
		pkt_put(pkts[i]);
	}
}

static const struct port_ops memo_ops = { .kind = "memo", .send = memo_send };

static void memo_forget(struct memo *memo)
{
	while (memo->count > 0)
		free(memo->bytes[--memo->count]);
}

static void memo_init(struct memo *memo, const char *name, uint16_t mtu)
{
	struct error error;

	memset(memo, 0, sizeof(*memo));
	strcpy(memo->port.name, name);
	memo->port.ops = &memo_ops;
	memo->port.caps = ~0u;
	memo->port.mtu = mtu;
	assert_int_equal(port_register(&memo->port), 0);
	assert_int_equal(bridge_add_port(bridge, &memo->port, &error), 0);
}

static int set_up(void **state)
{
	struct error error;

	worker = fake_worker(POOL);
	assert_int_equal(bridge_create("br0", 0, 0, &bridge, &error), 0);
	memo_init(&in, "in", 9000);
	memo_init(&out, "out", MTU);
	assert_int_equal(mac_table_add_static(&bridge->fdb, sender, in.port.id), 0);
	assert_int_equal(mac_table_add_static(&bridge->fdb, receiver, out.port.id), 0);
	return 0;
}

static int tear_down(void **state)
{
	assert_int_equal(worker->pool.free_count, POOL);
	memo_forget(&in);
	memo_forget(&out);
	bridge_remove_port(&in.port);
	bridge_remove_port(&out.port);
	port_unregister(&in.port);
	port_unregister(&out.port);
	bridge_destroy(bridge);
	fake_worker_free(worker);
	return 0;
}

/* A frame from the sender to the receiver, between addresses of stations. */
static void build(struct frame *frame, const struct frame_desc *desc)
{
	static const uint8_t from4[4] = { 10, 0, 0, 1 }, to4[4] = { 10, 0, 0, 2 };
	uint8_t *ip;

	frame_build(frame, desc, &seed);
	ip = frame->bytes + frame->l3;
	memcpy(frame->bytes, receiver, 6);
	memcpy(frame->bytes + 6, sender, 6);
	if (desc->ip == 4) {
		memcpy(ip + 12, from4, 4);
		memcpy(ip + 16, to4, 4);
	} else if (desc->ip == 6) {
		ip[8] = ip[24] = 0xfd;
	}
}

/* Send it to "out" as if it came from "in". The packet stays ours. */
static void send_frame(const struct frame *frame, struct pkt_offload offload, uint32_t header_len,
		       uint32_t frag_max)
{
	struct pkt pkt, *pkts[1] = { &pkt };

	pkt_fill(&pkt, frame->bytes, frame->len, header_len, frag_max, &seed);
	pkt.in_port = in.port.id;
	pkt.offload = offload;
	pkt.refs++;
	memo_forget(&in);
	memo_forget(&out);
	if (offload.gso_type)
		assert_true(headers_check_offload(&pkt));
	port_send(&out.port, pkts, 1);
	worker_complete(worker);
	assert_int_equal(pkt.refs, 1);
	assert_int_equal(worker->pool.free_count, POOL);
	pkt_empty(&pkt);
}

/* The counters, which start from zero again. */
static void counted(uint64_t dropped, uint64_t answers)
{
	struct port_stats *stats = port_stats(&out.port);

	assert_int_equal(stats->drop_too_big, dropped);
	assert_int_equal(stats->too_big_answers, answers);
	memset(stats, 0, sizeof(*stats));
}

/* Whatever time it takes the ration to be whole again, in TSC cycles. */
static void rest(void)
{
	uint64_t until = cycles_now() + cycles_hz() / 10;

	while (cycles_now() < until)
		;
}

/* ---- what fits ---- */

static void what_fits(void **state)
{
	/*
	 * L3 bytes of a frame, or of each segment, against an MTU of 1400. A frame without a tag
	 * may be four bytes longer on its way to a guest.
	 */
	static const struct {
		struct frame_desc desc;
		struct pkt_offload offload;
		bool fits, fits_guest;
	} cases[] = {
		{ { 0, 4, 0, 17, .payload = 1372 }, { 0 }, true },
		{ { 0, 4, 0, 17, .payload = 1373 }, { 0 }, false, true },
		{ { 0, 4, 0, 17, .payload = 1376 }, { 0 }, false, true },
		{ { 0, 4, 0, 17, .payload = 1377 }, { 0 }, false },
		{ { 1, 4, 0, 17, .payload = 1372 }, { 0 }, true },
		{ { 1, 4, 0, 17, .payload = 1373 }, { 0 }, false },
		{ { 2, 6, 0, 17, .payload = 1352 }, { 0 }, true },
		{ { 2, 6, 0, 17, .payload = 1353 }, { 0 }, false },
		{ { 0, 0, 0, 0, .payload = 1400 }, { 0 }, true },
		{ { 0, 0, 0, 0, .payload = 1401 }, { 0 }, false, true },
		{ { 0, 0, 0, 0, .payload = 1405 }, { 0 }, false },
		{ { 0, 4, 0, 6, .payload = 60000 }, { 1, PKT_GSO_TCPV4, 1360, 34, 16 }, true },
		{ { 0, 4, 0, 6, .payload = 60000 }, { 1, PKT_GSO_TCPV4, 1361, 34, 16 }, false },
		{ { 0, 4, 0, 6, 12, .payload = 60000 }, { 1, PKT_GSO_TCPV4, 1348, 34, 16 }, true },
		{ { 0, 4, 0, 6, 12, .payload = 60000 }, { 1, PKT_GSO_TCPV4, 1349, 34, 16 }, false },
		{ { 1, 6, 0, 6, .payload = 60000 }, { 1, PKT_GSO_TCPV6, 1340, 58, 16 }, true },
		{ { 1, 6, 0, 6, .payload = 60000 }, { 1, PKT_GSO_TCPV6, 1341, 58, 16 }, false },
		{ { 0, 4, 0, 17, .payload = 9000 }, { 1, PKT_GSO_UDP, 1372, 34, 6 }, true },
		{ { 0, 4, 0, 17, .payload = 9000 }, { 1, PKT_GSO_UDP, 1373, 34, 6 }, false },
	};
	struct frame frame = { .bytes = malloc(FRAME_MAX) };

	for (unsigned i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		bool fits = cases[i / 2].fits || (i % 2 && cases[i / 2].fits_guest);

		out.port.uplink = i % 2 == 0;
		build(&frame, &cases[i / 2].desc);
		send_frame(&frame, cases[i / 2].offload, 64, 4096);
		if ((out.count == 1) != fits)
			fail_msg("case %u: %s", i, out.count ? "sent" : "dropped");
		assert_int_equal(out.port.stats->drop_too_big, !fits);
		memset(out.port.stats, 0, sizeof(*out.port.stats));
	}
	free(frame.bytes);
}

/* The rest of a burst goes on, in order. */
static void others_go_on(void **state)
{
	static uint8_t bytes[2000];
	struct pkt *pkts[PKT_BURST];

	assert_int_equal(pkt_pool_get(&worker->pool, pkts, PKT_BURST), PKT_BURST);
	for (unsigned i = 0; i < PKT_BURST; i++) {
		struct pkt *pkt = pkts[i];

		memset(pkt->header, 0, 64);
		memcpy(pkt->header, receiver, 6);
		memcpy(pkt->header + 6, sender, 6);
		pkt->header[14] = i;
		pkt->header_len = 64;
		pkt->len = i % 3 == 1 ? 1500 : 1414;
		pkt->frags[0] = (struct iovec){ bytes, pkt->len - 64 };
		pkt->frag_count = 1;
		pkt->in_port = in.port.id;
	}
	port_send(&out.port, pkts, PKT_BURST);
	worker_complete(worker);
	assert_int_equal(out.count, PKT_BURST - 11);
	for (unsigned i = 0, at = 0; i < PKT_BURST; i++) {
		if (i % 3 != 1)
			assert_int_equal(out.bytes[at++][14], i);
	}
	counted(11, 0); /* no IP: nobody to be told */
}

/* ---- the answer ---- */

/* Take apart the one answer to a frame. */
static void check_answer(const struct frame *frame, uint32_t mtu)
{
	bool ipv6 = frame->ip == 6;
	uint32_t l3 = frame->l3, icmp = l3 + (ipv6 ? 40 : 20), quote = icmp + 8;
	uint32_t most = ipv6 ? 1280 : 576, original = frame->len - l3;

	assert_int_equal(in.count, 1);
	assert_int_equal(out.count, 0);
	assert_true(in.offload[0].flags == 0 && in.offload[0].gso_type == 0);

	uint8_t *bytes = in.bytes[0], *ip = bytes + l3;
	const uint8_t *theirs = frame->bytes + l3;
	uint32_t len = in.len[0];
	struct frame answer = { bytes, len, l3, icmp, 0, frame->ip, ICMPV6 };

	assert_memory_equal(bytes, sender, 6);
	assert_memory_equal(bytes + 6, receiver, 6);
	assert_memory_equal(bytes + 12, frame->bytes + 12, l3 - 12);
	if (ipv6) {
		assert_int_equal(ip[0], 0x60);
		assert_int_equal(rd16(ip + 4), len - icmp);
		assert_int_equal(ip[6], ICMPV6);
		assert_true(ip[7] >= 64);
		assert_memory_equal(ip + 8, theirs + 24, 16);
		assert_memory_equal(ip + 24, theirs + 8, 16);
		assert_int_equal(rd16(bytes + icmp), 0x0200);
		assert_int_equal(rd32(bytes + icmp + 4), mtu);
		assert_int_equal(
			slow_sum(bytes + icmp, len - icmp, slow_pseudo(&answer, len - icmp)),
			0xffff);
	} else {
		assert_int_equal(ip[0], 0x45);
		assert_int_equal(rd16(ip + 2), len - l3);
		assert_int_equal(ip[9], ICMP);
		assert_true(ip[8] >= 64);
		assert_memory_equal(ip + 12, theirs + 16, 4);
		assert_memory_equal(ip + 16, theirs + 12, 4);
		assert_int_equal(slow_sum(ip, 20, 0), 0xffff);
		assert_int_equal(rd16(bytes + icmp), 0x0304);
		assert_int_equal(rd32(bytes + icmp + 4), mtu);
		assert_int_equal(slow_sum(bytes + icmp, len - icmp, 0), 0xffff);
	}
	assert_int_equal(len - l3, original < most - (quote - l3) ? original + quote - l3 : most);
	assert_memory_equal(bytes + quote, theirs, len - quote);
}

static void answers(void **state)
{
	struct frame frame = { .bytes = malloc(FRAME_MAX) };

	for (unsigned i = 0; i < 2000; i++) {
		struct frame_desc desc = {
			.vlans = rnd(&seed) % 3,
			.ip = rnd(&seed) % 2 ? 4 : 6,
			.ip_options = rnd(&seed) % 4 * 8,
			.proto = rnd(&seed) % 2 ? IPPROTO_TCP : IPPROTO_UDP,
			.tcp_options = rnd(&seed) % 11 * 4,
			.payload = rnd_in(&seed, 200, 3000),
		};

		worker->id = i / 32; /* each has a ration of its own */
		out.port.uplink = true;
		/* Small MTUs, too, so that the whole packet is quoted; but IPv6 needs 1280. */
		out.port.mtu = desc.ip == 4 ? rnd_in(&seed, 100, 2000) : rnd_in(&seed, 1280, 2000);
		build(&frame, &desc);
		send_frame(&frame, (struct pkt_offload){ 0 }, rnd_in(&seed, 14, 192),
			   rnd_in(&seed, 400, 4096));
		if (frame.len - frame.l3 <= out.port.mtu) {
			assert_int_equal(out.count, 1);
			counted(0, 0);
			continue;
		}
		check_answer(&frame, out.port.mtu);
		counted(1, 1);
	}
	free(frame.bytes);
}

/* A packet of many small pieces: what is quoted is as much as the answer has fragments for. */
static void many_fragments(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_UDP, .payload = 2000 };
	struct frame frame = { .bytes = malloc(FRAME_MAX) };

	build(&frame, &desc);
	send_frame(&frame, (struct pkt_offload){ 0 }, 64, 10);
	assert_int_equal(in.count, 1);
	assert_in_range(in.len[0], 42 + 28, 42 + 576);
	assert_int_equal(rd16(in.bytes[0] + 16), in.len[0] - 14);
	assert_int_equal(slow_sum(in.bytes[0] + 34, in.len[0] - 34, 0), 0xffff);
	assert_memory_equal(in.bytes[0] + 42, frame.bytes + 14, in.len[0] - 42);
	free(frame.bytes);
}

/* A packet that was to be segmented is answered once. */
static void answers_gso(void **state)
{
	static const struct {
		struct frame_desc desc;
		struct pkt_offload offload;
	} cases[] = {
		{ { 0, 4, 0, 6, .payload = 60000 }, { 1, PKT_GSO_TCPV4, 1460, 34, 16 } },
		{ { 2, 6, 0, 6, .payload = 60000 }, { 1, PKT_GSO_TCPV6, 1440, 62, 16 } },
	};
	struct frame frame = { .bytes = malloc(FRAME_MAX) };

	for (unsigned i = 0; i < 2; i++) {
		build(&frame, &cases[i].desc);
		send_frame(&frame, cases[i].offload, 64, 4096);
		check_answer(&frame, MTU);
		counted(1, 1);
	}
	free(frame.bytes);
}

/* ---- who is told ---- */

static void set_fragment6(struct frame *frame, uint16_t offset_and_more)
{
	uint8_t *ext = frame->bytes + frame->l3 + 40; /* made of destination options */

	frame->bytes[frame->l3 + 6] = 44;
	be16(ext + 2, offset_and_more);
}

static void who_is_told(void **state)
{
	enum {
		WHOLE,
		NO_DF,
		FIRST,
		LATER,
		GROUP_MAC,
		UNKNOWN_MAC,
		ZERO_SOURCE,
		LOOPBACK,
		MULTICAST,
		MALFORMED,
		SWITCHED_OFF,
		SMALL_MTU,
		NO_PORT,
		OTHER_BRIDGE
	};
	static const struct {
		int ip, proto, type; /* ICMP type */
		int what;
		bool told;
	} cases[] = {
		{ 4, ICMP, 8, WHOLE, true },       { 4, ICMP, 0, WHOLE, true },
		{ 4, ICMP, 3, WHOLE, false },      { 4, ICMP, 5, WHOLE, false },
		{ 4, ICMP, 11, WHOLE, false },     { 4, ICMP, 12, WHOLE, false },
		{ 4, ICMP, 200, WHOLE, false },    { 4, 17, 0, NO_DF, false },
		{ 4, 17, 0, FIRST, true },         { 4, 17, 0, LATER, false },
		{ 4, ICMP, 3, FIRST, false },      { 4, 17, 0, GROUP_MAC, false },
		{ 4, 17, 0, UNKNOWN_MAC, false },  { 4, 17, 0, ZERO_SOURCE, false },
		{ 4, 17, 0, LOOPBACK, false },     { 4, 17, 0, MULTICAST, false },
		{ 4, 17, 0, MALFORMED, false },    { 4, 17, 0, SWITCHED_OFF, false },
		{ 4, 17, 0, SMALL_MTU, true },     { 4, 17, 0, NO_PORT, false },
		{ 4, 17, 0, OTHER_BRIDGE, false }, { 6, ICMPV6, 128, WHOLE, true },
		{ 6, ICMPV6, 1, WHOLE, false },    { 6, ICMPV6, 2, WHOLE, false },
		{ 6, ICMPV6, 127, WHOLE, false },  { 6, ICMPV6, 137, WHOLE, false },
		{ 6, 17, 0, FIRST, true },         { 6, 17, 0, LATER, false },
		{ 6, ICMPV6, 1, FIRST, false },    { 6, ICMPV6, 128, FIRST, true },
		{ 6, 17, 0, GROUP_MAC, false },    { 6, 17, 0, UNKNOWN_MAC, false },
		{ 6, 17, 0, ZERO_SOURCE, false },  { 6, 17, 0, LOOPBACK, false },
		{ 6, 17, 0, MULTICAST, false },    { 6, 17, 0, MALFORMED, false },
		{ 6, 17, 0, SWITCHED_OFF, false }, { 6, 17, 0, SMALL_MTU, false },
	};
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint16_t in_id = in.port.id;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int what = cases[i].what;
		bool ipv6 = cases[i].ip == 6, fragment = what == FIRST || what == LATER;
		struct frame_desc desc = { .ip = cases[i].ip,
					   .proto = cases[i].proto,
					   .ip_options = ipv6 && fragment ? 8 : 0,
					   .payload = 1480 };

		build(&frame, &desc);
		uint8_t *ip = frame.bytes + frame.l3;

		if (cases[i].proto != 17)
			frame.bytes[frame.l4] = cases[i].type;
		if (what == NO_DF)
			be16(ip + 6, 0);
		if (fragment && ipv6)
			set_fragment6(&frame, what == FIRST ? 1 : 8);
		if (fragment && !ipv6)
			be16(ip + 6, what == FIRST ? 0x6000 : 0x4001);
		if (what == GROUP_MAC)
			frame.bytes[0] = 3;
		if (what == UNKNOWN_MAC)
			frame.bytes[5] = 9;
		if (what == ZERO_SOURCE)
			memset(ip + (ipv6 ? 8 : 12), 0, ipv6 ? 16 : 4);
		if (what == LOOPBACK && ipv6) {
			memset(ip + 24, 0, 15);
			ip[39] = 1;
		}
		if (what == LOOPBACK && !ipv6)
			ip[16] = 127;
		if (what == MULTICAST)
			ip[ipv6 ? 24 : 16] = ipv6 ? 0xff : 224;
		if (what == MALFORMED)
			be16(ip + (ipv6 ? 4 : 2), 65000);
		bridge->answer_too_big = what != SWITCHED_OFF;
		out.port.mtu = what == SMALL_MTU ? 1279 : MTU;
		if (what == NO_PORT)
			in.port.id = 999;
		if (what == OTHER_BRIDGE)
			in.port.bridge = NULL;
		send_frame(&frame, (struct pkt_offload){ 0 }, 64, 4096);
		in.port.id = in_id;
		in.port.bridge = bridge;

		if (out.count || in.count != cases[i].told)
			fail_msg("case %u: %u answers", i, in.count);
		if (cases[i].told)
			check_answer(&frame, out.port.mtu);
		counted(1, cases[i].told);
	}
	free(frame.bytes);
}

/* Who causes many gets a share, and takes nobody else's. */
static void answers_are_rationed(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_UDP, .payload = 1480 };
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	uint64_t start, answers;

	build(&frame, &desc);
	rest(); /* from the tests before */
	start = cycles_now();
	for (unsigned i = 0; i < 1000; i++)
		send_frame(&frame, (struct pkt_offload){ 0 }, 64, 4096);
	answers = out.port.stats->too_big_answers;
	assert_int_equal(out.port.stats->drop_too_big, 1000);
	assert_in_range(answers, 64, 66 + (cycles_now() - start) / (cycles_hz() / 1000));
	memset(out.port.stats, 0, sizeof(*out.port.stats));

	/* The other way round nothing was asked for yet. */
	struct memo other;

	memo_init(&other, "other", 9000);
	uint16_t in_id = in.port.id;

	in.port.id = other.port.id; /* send_frame() marks packets with it */
	send_frame(&frame, (struct pkt_offload){ 0 }, 64, 4096);
	in.port.id = in_id;
	assert_int_equal(other.count, 1);
	memo_forget(&other);
	bridge_remove_port(&other.port);
	port_unregister(&other.port);

	rest();
	memset(out.port.stats, 0, sizeof(*out.port.stats));
	send_frame(&frame, (struct pkt_offload){ 0 }, 64, 4096);
	counted(1, 1);
	free(frame.bytes);
}

/* Without a packet for the answer there is none. */
static void pool_is_empty(void **state)
{
	struct frame_desc desc = { 0, 4, 0, IPPROTO_UDP, .payload = 1480 };
	struct frame frame = { .bytes = malloc(FRAME_MAX) };
	struct pkt *pkts[POOL], pkt, *offender = &pkt;

	build(&frame, &desc);
	assert_int_equal(pkt_pool_get(&worker->pool, pkts, POOL), POOL);
	pkt_fill(&pkt, frame.bytes, frame.len, 64, 4096, &seed);
	pkt.in_port = in.port.id;
	pkt.refs++;
	port_send(&out.port, &offender, 1);
	worker_complete(worker);
	counted(1, 0);
	assert_int_equal(pkt.refs, 1);
	pkt_empty(&pkt);
	pkt_pool_put(&worker->pool, pkts, POOL);
	free(frame.bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(what_fits),      TEST(others_go_on),  TEST(answers),
		TEST(answers_gso),    TEST(who_is_told),   TEST(answers_are_rationed),
		TEST(many_fragments), TEST(pool_is_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
