/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The port table, and port_send(): what a port can do passes through, the rest goes through
 * offload.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "fake.h"
#include "pkt/headers.h"

enum { POOL = 256, MSS = 1000 };

static struct worker *worker;
static struct fake_port fake;

static int set_up(void **state)
{
	worker = fake_worker(POOL);
	fake_port_init(&fake, "p0", 1, 1, 2);
	return port_register(&fake.port);
}

static int tear_down(void **state)
{
	/* Whatever happened to them: no packet is lost. */
	worker_complete(worker);
	assert_int_equal(worker->pool.free_count, POOL);
	assert_int_equal(worker->pool.block_count, worker->pool.block_capacity);
	port_unregister(&fake.port);
	fake_worker_free(worker);
	return 0;
}

/* ---- the table ---- */

static void test_names(void **state)
{
	struct fake_port other, same;

	assert_ptr_equal(port_by_name("p0"), &fake.port);
	assert_null(port_by_name("p"));
	assert_null(port_by_name("p00"));
	fake_port_init(&same, "p0", 1, 1, 2);
	assert_int_equal(port_register(&same.port), -EEXIST);
	fake_port_init(&other, "p1", 1, 1, 2);
	assert_int_equal(port_register(&other.port), 0);
	assert_ptr_equal(port_by_name("p1"), &other.port);
	port_unregister(&other.port);
	assert_null(port_by_name("p1"));
	assert_ptr_equal(port_by_name("p0"), &fake.port);
}

static void test_ids(void **state)
{
	static struct fake_port many[PORTS_MAX];
	unsigned count = 0;
	uint16_t freed;
	char name[16];

	for (;; count++) {
		snprintf(name, sizeof(name), "many%u", count);
		fake_port_init(&many[count], name, 1, 1, 2);
		if (port_register(&many[count].port))
			break;
		assert_int_not_equal(many[count].port.id, 0);
		assert_true(many[count].port.id < PORTS_MAX);
		assert_ptr_equal(port_by_id(many[count].port.id), &many[count].port);
	}
	/* Id 0 is nobody's, and p0 has one. */
	assert_int_equal(count, PORTS_MAX - 2);
	assert_int_equal(port_register(&many[count].port), -ENOSPC);
	assert_null(port_by_id(0));
	assert_null(port_by_id(PORTS_MAX));
	assert_null(port_by_id(UINT32_MAX));

	/* The only free id is given again. */
	freed = many[500].port.id;
	port_unregister(&many[500].port);
	assert_null(port_by_id(freed));
	assert_int_equal(port_register(&many[count].port), 0);
	assert_int_equal(many[count].port.id, freed);
	port_unregister(&many[count].port);
	for (unsigned i = 0; i < count; i++) {
		if (i != 500)
			port_unregister(&many[i].port);
	}
}

static void test_stats_sum(void **state)
{
	struct port_stats sum, expected;
	uint64_t *counter = (uint64_t *)&expected;
	unsigned counters = 0;

#define X(name, text) counters++;
	PORT_STATS(X)
#undef X
	port_stats_sum(&fake.port, &sum);
	memset(&expected, 0, sizeof(expected));
	assert_memory_equal(&sum, &expected, counters * sizeof(uint64_t));

	/* Every counter of every worker counts, once. */
	for (unsigned id = 0; id < WORKERS_MAX; id++) {
		uint64_t *own = (uint64_t *)&fake.port.stats[id];

		assert_int_equal((uintptr_t)own % 64, 0);
		for (unsigned i = 0; i < counters; i++) {
			own[i] = (id + 1) * (i + 1) + (UINT64_C(1) << 33);
			counter[i] += own[i];
		}
	}
	port_stats_sum(&fake.port, &sum);
	assert_memory_equal(&sum, &expected, counters * sizeof(uint64_t));
}

/* ---- port_send() ---- */

static uint8_t bytes[FRAME_MAX + 512];

/*
 * A packet of a kind: '.' nothing asked, 's' that and all in the header copy, 'c' a checksum, '4',
 * '6', 'u' segmentation, 'e' with ECN.
 */
static struct pkt *pkt_of(char kind, uint8_t mark)
{
	struct frame_desc desc = { .ip = kind == '6' ? 6 : 4, .proto = kind == 'u' ? 17 : 6 };
	struct frame frame = { .bytes = bytes };
	uint64_t seed = mark + 1;
	struct pkt *pkt, *pkts[1];

	if (pkt_pool_get(&worker->pool, pkts, 1) != 1)
		abort();
	pkt = pkts[0];
	/* Three segments; all of it in the header copy and one fragment. */
	desc.payload = strchr("46ue", kind) ? 2 * MSS + 500 : 100;
	frame_build(&frame, &desc, &seed);
	bytes[5] = mark;
	pkt->len = frame.len;
	pkt->header_len = PKT_HEADER_FAST;
	pkt->in_port = fake.port.id;
	memcpy(pkt->header, bytes, PKT_HEADER_FAST);
	pkt->frags[0] = (struct iovec){ bytes + PKT_HEADER_FAST, frame.len - PKT_HEADER_FAST };
	pkt->frag_count = 1;
	if (kind == 's') {
		pkt->len = PKT_HEADER_FAST;
		pkt->frag_count = 0;
	}
	if (kind == '.' || kind == 's')
		return pkt;
	pkt->offload.flags = PKT_CSUM_PARTIAL | (kind == 'e' ? PKT_GSO_ECN : 0);
	pkt->offload.csum_start = frame.l4;
	pkt->offload.csum_offset = kind == 'u' ? 6 : 16;
	if (kind != 'c') {
		pkt->offload.gso_size = MSS;
		pkt->offload.gso_type = kind == '6'   ? PKT_GSO_TCPV6
					: kind == 'u' ? PKT_GSO_UDP
						      : PKT_GSO_TCPV4;
	}
	assert_true(headers_check_offload(pkt));
	return pkt;
}

/* Send packets of these kinds, marked 1, 2, ..., to a port that can do caps. */
static void send_kinds(const char *kinds, uint32_t caps)
{
	struct pkt *pkts[PKT_BURST];
	unsigned n = strlen(kinds);

	fake.port.caps = caps;
	fake.sent = fake.send_calls = 0;
	for (unsigned i = 0; i < n; i++)
		pkts[i] = pkt_of(kinds[i], i + 1);
	port_send(&fake.port, pkts, n);
	worker_complete(worker);
	assert_int_equal(worker->pool.free_count, POOL);
}

/*
 * What was sent: marks, each followed by ',' if its burst ended there. Segments have their parent's
 * mark.
 */
static const char *sent(void)
{
	static char text[2 * FAKE_SENT_MAX + 1];
	char *at = text;

	for (unsigned i = 0; i < fake.sent; i++) {
		if (i > 0 && fake.log[i].call != fake.log[i - 1].call)
			*at++ = ',';
		*at++ = '0' + fake.log[i].header[5];
	}
	*at = 0;
	return text;
}

static void test_send_passes_through(void **state)
{
	const uint32_t csum = PORT_CAP_SG | PORT_CAP_CSUM;
	struct port_stats sum;

	send_kinds("....", PORT_CAP_SG);
	assert_string_equal(sent(), "1234");
	send_kinds(".c.c", csum);
	assert_string_equal(sent(), "1234");
	send_kinds("c46u", csum | PORT_CAP_TSO4 | PORT_CAP_TSO6 | PORT_CAP_USO);
	assert_string_equal(sent(), "1234");
	send_kinds("e", csum | PORT_CAP_TSO4 | PORT_CAP_TSO_ECN);
	assert_string_equal(sent(), "1");
	assert_int_equal(fake.log[0].offload.gso_size, MSS);
	/* Without fragments in two places, no SG is needed. */
	send_kinds("ss", 0);
	assert_string_equal(sent(), "12");
	send_kinds("", 0);
	assert_int_equal(fake.send_calls, 0);

	port_stats_sum(&fake.port, &sum);
	assert_int_equal(sum.passed_packets, 4 + 4 + 4 + 1 + 2);
	assert_int_equal(sum.segmented_packets + sum.checksummed_packets + sum.segments, 0);
	assert_int_equal(sum.linearised_packets, 0);
}

static void test_send_segments_what_the_port_cannot(void **state)
{
	const uint32_t csum = PORT_CAP_SG | PORT_CAP_CSUM;
	struct port_stats sum;

	/* Order stays, and all leave in one burst. */
	send_kinds("..4..", csum);
	assert_string_equal(sent(), "1233345");
	send_kinds("4..6", csum | PORT_CAP_TSO6);
	assert_string_equal(sent(), "111234");
	send_kinds("46u", csum);
	assert_string_equal(sent(), "111222333");
	send_kinds(".6", csum | PORT_CAP_TSO4);
	assert_string_equal(sent(), "1222");
	send_kinds("u.", csum | PORT_CAP_TSO4 | PORT_CAP_TSO6);
	assert_string_equal(sent(), "1112");
	/* TSO without ECN is not enough for a packet with CWR. */
	send_kinds("e", csum | PORT_CAP_TSO4);
	assert_string_equal(sent(), "111");
	assert_int_equal(fake.log[0].offload.flags, PKT_CSUM_PARTIAL);
	assert_int_equal(fake.log[2].len, 54 + 500);

	port_stats_sum(&fake.port, &sum);
	assert_int_equal(sum.segmented_packets, 8);
	assert_int_equal(sum.segments, 24);
	assert_int_equal(sum.checksummed_packets, 0);
	assert_int_equal(sum.passed_packets, 4 + 3 + 0 + 1 + 1);
}

static void test_send_finishes_checksums(void **state)
{
	struct port_stats sum;

	send_kinds(".c.", PORT_CAP_SG);
	assert_string_equal(sent(), "123");
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(fake.log[i].offload.flags, 0);
	/* Segmentation without checksums is worth nothing: both are done here. */
	send_kinds("4", PORT_CAP_SG | PORT_CAP_TSO4);
	assert_string_equal(sent(), "111");
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(fake.log[i].offload.flags, 0);

	port_stats_sum(&fake.port, &sum);
	assert_int_equal(sum.checksummed_packets, 1 + 3);
	assert_int_equal(sum.passed_packets, 2);
	assert_int_equal(sum.segments, 3);
	assert_int_equal(sum.drop_offload_failed, 0);
}

static void test_send_linearises(void **state)
{
	struct port_stats sum;

	send_kinds(".sc.4", 0);
	assert_string_equal(sent(), "1234555");
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(fake.log[i].offload.flags, 0);
	send_kinds("c4", PORT_CAP_CSUM | PORT_CAP_TSO4);
	assert_string_equal(sent(), "12");
	assert_int_equal(fake.log[0].offload.flags, PKT_CSUM_PARTIAL);
	assert_int_equal(fake.log[1].offload.gso_size, MSS);

	port_stats_sum(&fake.port, &sum);
	assert_int_equal(sum.passed_packets, 1);
	assert_int_equal(sum.linearised_packets, 3 + 3 + 2);
	assert_int_equal(sum.checksummed_packets, 1 + 3);
	assert_int_equal(sum.segments, 3);
}

/* Bursts are full, and none is more than that, when packets become many. */
static void test_send_in_full_bursts(void **state)
{
	send_kinds(".4.4.4.4.4.4.4.", PORT_CAP_SG | PORT_CAP_CSUM);
	assert_string_equal(sent(), "12223444566678889:::;<<<=>>>?");
	assert_int_equal(fake.send_calls, 1);
	send_kinds("444444444444", 0);
	assert_int_equal(fake.sent, 36);
	assert_int_equal(fake.send_calls, 2);
	assert_int_equal(fake.log[31].call, 1);
	assert_int_equal(fake.log[32].call, 2);
}

/* A packet that others share leaves as it is, segmented or not, and is done with its last owner. */
static void test_send_takes_one_reference(void **state)
{
	struct pkt *pkt = pkt_of('4', 1);

	fake.port.caps = PORT_CAP_SG;
	pkt->refs = 3;
	port_send(&fake.port, &pkt, 1);
	fake.port.caps = ~0u;
	port_send(&fake.port, &pkt, 1);
	worker_complete(worker);
	assert_int_equal(worker->pool.free_count, POOL - 1);
	assert_int_equal(pkt->refs, 1);
	assert_int_equal(pkt->offload.gso_size, MSS);
	assert_string_equal(sent(), "111,1");
	pkt_put(pkt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_ids, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stats_sum, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_send_passes_through, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_send_segments_what_the_port_cannot, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_send_finishes_checksums, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_send_linearises, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_send_in_full_bursts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_send_takes_one_reference, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
