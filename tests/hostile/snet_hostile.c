// SPDX-License-Identifier: BSD-3-Clause
/*
 * The hostile front end of snet: every lie that we know of, one function each.
 *
 *      left --- vifd --- right     the witness, behind vhost-user, who must not notice
 *      evil ---      --- mate      snet, ours: evil lies, mate is honest
 *
 * Usage: snet_hostile SCENARIO EVIL_SOCKET MATE_SOCKET, or snet_hostile --list. Does its worst,
 * prints a line of JSON and stays connected until standard input ends. The line: was it sent away,
 * and with which words; and what the scenario has found out. What vifd must have made of it is in
 * test_snet_hostile.py.
 */
#include "frame.h"
#include "snet_front.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { GOOD_LEN = 200, SENT_AWAY_MS = 1500 };

static const struct frame_addresses evil_to_mate = { { 0x52, 0x54, 0, 0, 3, 2 },
						     { 0x52, 0x54, 0, 0, 3, 1 } };
static const struct frame_addresses mate_to_evil = { { 0x52, 0x54, 0, 0, 3, 1 },
						     { 0x52, 0x54, 0, 0, 3, 2 } };

static struct snet_front evil, mate;
static const char *evil_path, *mate_path;
static const char *finding = "";

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void sleep_ms(unsigned msec)
{
	usleep(msec * 1000);
}

static uint32_t random_u32(void)
{
	static uint32_t state = 2463534242;

	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

/* An honest frame at the start of the sender's first zone. */
static unsigned write_frame(struct snet_front *front, const struct frame_addresses *to,
			    unsigned len)
{
	return frame_udp(front_zone(front, true)->base, to, 1, len - FRAME_UDP_HEADERS);
}

/* The same from mate to evil, or, longer than a segment, TCP to be segmented. */
static void mate_puts(unsigned len)
{
	uint8_t *frame = front_zone(&mate, true)->base;
	struct virtio_net_hdr_v1 hdr;
	struct snet_entry *entry;

	if (len <= 1514) {
		front_put(&mate, 0, len);
		return;
	}
	len = frame_tcp(frame, &mate_to_evil, 1, len - FRAME_TCP_HEADERS, false, 1448, &hdr);
	entry = front_put(&mate, 0, len);
	entry->flags = SNET_CSUM_PARTIAL;
	entry->gso_type = hdr.gso_type;
	entry->gso_size = hdr.gso_size;
	entry->csum_start = hdr.csum_start;
	entry->csum_offset = hdr.csum_offset;
}

/* mate sends count frames of len bytes to evil, as fast as it gets them back, for msec at most.
 * Returns how many it got back. */
static unsigned mate_sends(unsigned count, unsigned len, unsigned msec)
{
	uint64_t end = now_ms() + msec;
	unsigned sent = 0, back = 0;

	if (len <= 1514)
		write_frame(&mate, &mate_to_evil, len);
	while (sent < count && now_ms() < end) {
		if (sent - back < mate.welcome.welcome.ring_size) {
			mate_puts(len);
			front_publish(&mate);
			sent++;
		}
		back += front_reclaim(&mate);
	}
	while (back < sent && now_ms() < end)
		back += front_reclaim(&mate);
	return back;
}

/* mate returns what it has received. */
static void mate_returns(void)
{
	struct snet_entry entry;
	unsigned queue;

	while (front_take(&mate, &entry, &queue))
		front_give(&mate, queue, entry.id);
}

/* evil sends one honest frame, so that the bridge knows where it is. */
static void evil_is_known(void)
{
	front_put(&evil, 0, write_frame(&evil, &evil_to_mate, GOOD_LEN));
	front_publish(&evil);
	sleep_ms(20);
	mate_returns();
	front_reclaim(&evil);
}

/* ---- what it sends ---- */

static void tx_honest(void)
{
	unsigned len = write_frame(&evil, &evil_to_mate, GOOD_LEN);

	for (unsigned i = 0; i < 100; i++) {
		front_put(&evil, 0, len);
		front_publish(&evil);
	}
	sleep_ms(100);
	mate_returns();
	sleep_ms(100);
	finding = front_reclaim(&evil) == 100 ? "all back" : "not all back";
}

static void tx_index_jump(void)
{
	snet_publish(&evil.queues[0].rings.control->front.produced, 1 << 20);
	eventfd_write(evil.queues[0].kick, 1);
}

static void tx_index_back(void)
{
	evil_is_known();
	snet_publish(&evil.queues[0].rings.control->front.produced, 0);
	eventfd_write(evil.queues[0].kick, 1);
}

static void bend(uint32_t zone, uint32_t offset, uint32_t len)
{
	struct snet_entry *entry = front_put(&evil, offset, len);

	entry->zone = zone;
	front_publish(&evil);
}

static void tx_zone_unknown(void)
{
	bend(4000, 0, GOOD_LEN);
}

static void tx_zone_random(void)
{
	for (unsigned i = 0; i < 1000; i++)
		front_put(&evil, 0, GOOD_LEN)->zone = random_u32();
	front_publish(&evil);
}

static void tx_zone_of_mate(void)
{
	bend(front_zone(&mate, true)->id, 0, GOOD_LEN);
}

static void tx_zone_of_mate_to_receive(void)
{
	bend(front_zone(&mate, false)->id, 0, GOOD_LEN);
}

static void tx_zone_own_to_receive(void)
{
	bend(front_zone(&evil, false)->id, 0, GOOD_LEN);
}

static void tx_offset_beyond(void)
{
	bend(front_zone(&evil, true)->id, FRONT_ZONE - GOOD_LEN + 1, GOOD_LEN);
}

static void tx_offset_far_beyond(void)
{
	bend(front_zone(&evil, true)->id, UINT32_MAX - 10, GOOD_LEN);
}

static void tx_length_huge(void)
{
	bend(front_zone(&evil, true)->id, 0, UINT32_MAX);
}

static void tx_length_zero(void)
{
	bend(front_zone(&evil, true)->id, 0, 0);
}

static void tx_endless_chain(void)
{
	for (unsigned i = 0; i < 1000; i++)
		front_put(&evil, 0, 1)->flags = SNET_MORE;
	front_publish(&evil);
}

static void tx_half_packet(void)
{
	front_put(&evil, 0, GOOD_LEN)->flags = SNET_MORE;
	front_publish(&evil);
}

static void tx_sizes(void)
{
	static const uint32_t lens[] = { 1, 13, 65535 + 14 + 8 + 1, 1 << 20, FRONT_ZONE };

	for (unsigned i = 0; i < 5; i++)
		front_put(&evil, 0, lens[i]);
	front_publish(&evil);
}

static void tx_gso_lies(void)
{
	struct virtio_net_hdr_v1 hdr;
	uint8_t *frame = front_zone(&evil, true)->base;
	unsigned len = frame_tcp(frame, &evil_to_mate, 1, 30000, false, 1448, &hdr);

	for (unsigned i = 0; i < 500; i++) {
		struct snet_entry *entry = front_put(&evil, 0, len);

		entry->flags = random_u32() & ~SNET_MORE;
		entry->gso_type = random_u32() % 6;
		entry->gso_size = random_u32() % 3 ? random_u32() : random_u32() % 20;
		entry->csum_start = random_u32() % 2 ? 34 : random_u32();
		entry->csum_offset = random_u32() % 2 ? 16 : random_u32();
	}
	front_publish(&evil);
}

static void tx_never_looks_back(void)
{
	unsigned len = write_frame(&evil, &evil_to_mate, GOOD_LEN);

	for (unsigned i = 0; i < evil.welcome.welcome.ring_size; i++)
		front_put(&evil, 0, len);
	front_publish(&evil);
}

/* Somebody else's store to memory that vifd reads at this moment. */
static _Atomic bool racing;

static void *race_entries(void *arg)
{
	struct snet_rings *rings = &evil.queues[0].rings;

	while (racing) {
		struct snet_entry *entry = snet_entry_at(rings, rings->tx, random_u32());

		entry->len = random_u32() % 2 ? GOOD_LEN : 60000 + random_u32() % 10000;
		entry->flags = random_u32() & ~SNET_MORE;
		entry->gso_type = random_u32() % 8;
		entry->gso_size = random_u32();
	}
	return NULL;
}

static void *race_headers(void *arg)
{
	uint8_t *base = front_zone(&evil, true)->base;

	while (racing)
		base[random_u32() % 80] = random_u32();
	return NULL;
}

static void *race_indexes(void *arg)
{
	struct snet_control *control = evil.queues[0].rings.control;

	while (racing) {
		control->front.wants = random_u32();
		control->back.wants = random_u32();
		control->back.produced = random_u32();
		control->back.given_back = random_u32();
	}
	return NULL;
}

static void send_while(void *(*race)(void *))
{
	unsigned len = write_frame(&evil, &evil_to_mate, GOOD_LEN);
	uint64_t end = now_ms() + 500;
	pthread_t thread;

	racing = true;
	pthread_create(&thread, NULL, race, NULL);
	while (now_ms() < end) {
		for (unsigned i = 0; i < 32; i++)
			front_put(&evil, 0, len);
		front_publish(&evil);
		eventfd_write(evil.queues[0].kick, 1);
		for (unsigned i = 0;
		     i < 50 && (int)(evil.queues[0].produced - evil.queues[0].done) > 900; i++) {
			usleep(100);
			front_reclaim(&evil);
		}
		if (race == race_indexes)
			usleep(500); /* what was given back cannot be told any more */
	}
	racing = false;
	pthread_join(thread, NULL);
}

static void tx_race_entries(void)
{
	send_while(race_entries);
}

static void tx_race_headers(void)
{
	send_while(race_headers);
}

static void tx_race_indexes(void)
{
	send_while(race_indexes);
}

/* Take the memory away under vifd: it finds zeros. */
static void tx_punch_holes(void)
{
	unsigned len = write_frame(&evil, &evil_to_mate, GOOD_LEN);

	for (unsigned i = 0; i < 300; i++) {
		front_put(&evil, 0, len);
		front_publish(&evil);
		fallocate(front_zone(&evil, true)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  0, FRONT_ZONE);
		usleep(500);
		len = write_frame(&evil, &evil_to_mate, GOOD_LEN);
	}
}

static void rings_punch_holes(void)
{
	evil_is_known();
	for (unsigned i = 0; i < 100; i++) {
		fallocate(evil.memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			  evil.memory_len);
		eventfd_write(evil.queues[0].kick, 1);
		usleep(500);
	}
}

static void rings_garbage(void)
{
	uint64_t end = now_ms() + 500;

	while (now_ms() < end) {
		for (unsigned i = 0; i < 10000; i++)
			((uint32_t *)evil.memory)[random_u32() % 20000] = random_u32();
		eventfd_write(evil.queues[0].kick, 1);
	}
}

/* ---- what it receives ---- */

static void rx_never_returned(void)
{
	evil_is_known();
	finding = mate_sends(5000, 1400, 3000) == 5000 ? "mate got all back" : "mate waits";
}

static void rx_large_never_returned(void)
{
	evil_is_known();
	finding = mate_sends(5000, 60000, 3000) == 5000 ? "mate got all back" : "mate waits";
}

/* Make mate send until an entry arrives. */
static void receive_one(struct snet_entry *entry, unsigned *queue)
{
	evil_is_known();
	mate_sends(20, 1000, 1000);
	for (unsigned i = 0; i < 100; i++) {
		if (front_take(&evil, entry, queue))
			return;
		sleep_ms(10);
	}
	errx(EXIT_FAILURE, "mate's frames do not arrive");
}

static void rx_returned_twice(void)
{
	struct snet_entry entry;
	unsigned queue;

	receive_one(&entry, &queue);
	front_give(&evil, queue, entry.id);
	front_give(&evil, queue, entry.id);
	mate_sends(20, 1000, 1000);
}

static void rx_id_not_out(void)
{
	struct snet_entry entry;
	unsigned queue;

	receive_one(&entry, &queue);
	front_give(&evil, queue, (entry.id + 500) % 1024);
	mate_sends(20, 1000, 1000);
}

static void rx_id_beyond(void)
{
	struct snet_entry entry;
	unsigned queue;

	receive_one(&entry, &queue);
	front_give(&evil, queue, UINT32_MAX);
	mate_sends(20, 1000, 1000);
}

static void rx_done_jump(void)
{
	struct snet_entry entry;
	unsigned queue;

	receive_one(&entry, &queue);
	snet_publish(&evil.queues[queue].rings.control->front.given_back, 1 << 30);
	mate_sends(20, 1000, 1000);
}

/* Every way to write to a zone that is to be read. */
static void rx_write_zone(void)
{
	struct front_zone *zone = front_zone(&evil, false);
	char path[64];
	int fd;

	if (mmap(NULL, FRONT_ZONE, PROT_READ | PROT_WRITE, MAP_SHARED, zone->fd, 0) != MAP_FAILED)
		finding = "mapped for writing";
	if (mprotect(zone->base, FRONT_ZONE, PROT_READ | PROT_WRITE) == 0)
		finding = "made writable";
	if (pwrite(zone->fd, "x", 1, 0) == 1)
		finding = "written";
	snprintf(path, sizeof(path), "/proc/self/fd/%d", zone->fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		if (mmap(NULL, FRONT_ZONE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
			finding = "mapped for writing when opened again";
		if (pwrite(fd, "x", 1, 0) == 1)
			finding = "written when opened again";
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0)
			finding = "punched";
		if (ftruncate(fd, 0) == 0)
			finding = "cut";
	}
	if (ftruncate(front_zone(&evil, true)->fd, 0) == 0 || ftruncate(evil.memory_fd, 0) == 0)
		finding = "cut";
	if (!*finding)
		finding = "nothing worked";
}

/* Who holds what is shared and never returns it: the sender is missing that much and no more. */
static void rx_holds_references(void)
{
	evil_is_known();
	mate_sends(4000, 1400, 1500);
	finding = "held";
}

/* Its doorbell is full and blocks: each wake-up stops a worker, until it is not called any more. */
static void rx_call_blocks(void)
{
	int call = evil.queues[0].call;

	evil_is_known();
	for (unsigned i = 0; i < evil.queue_count; i++) {
		call = evil.queues[i].call;
		fcntl(call, F_SETFL, fcntl(call, F_GETFL) & ~O_NONBLOCK);
		eventfd_write(call, UINT64_MAX - 1 - 1);
		snet_want(&evil.queues[i].rings.control->front, SNET_WANT_ENTRIES | SNET_WANT_DONE);
	}
	mate_sends(50, 1000, 1000);
	eventfd_write(evil.queues[0].kick, 1);
}

/* ---- the socket ---- */

static void message_second_hello(void)
{
	front_hello(&evil);
}

static void message_unknown(void)
{
	const struct snet_msg msg = { .type = 77 };

	front_say(&evil, &msg, sizeof(msg), NULL, 0);
}

static void refused_at_once(const void *msg, unsigned len, const int *fds, unsigned count)
{
	struct snet_front front;

	front_connect(&front, evil_path);
	front_say(&front, msg, len, fds, count);
	if (!front_sent_away(&front, 3000))
		finding = "not sent away";
	front_close(&front);
}

static void message_garbage(void)
{
	uint8_t bytes[1000];
	struct snet_msg hello = { .type = SNET_HELLO, .hello = { .version = 99 } };
	const int fds[3] = { 0, 1, 2 };

	for (unsigned i = 0; i < 20; i++) {
		for (unsigned j = 0; j < sizeof(bytes); j++)
			bytes[j] = random_u32();
		refused_at_once(bytes, 1 + random_u32() % sizeof(bytes), NULL, 0);
	}
	refused_at_once(&hello, sizeof(hello), NULL, 0);
	hello.hello.version = SNET_VERSION;
	refused_at_once(&hello, sizeof(hello) - 1, NULL, 0);
	refused_at_once(&hello, sizeof(hello), fds, 1);
	refused_at_once(&hello, sizeof(hello), fds, 3);
	finding = *finding ? finding : "all sent away";
}

/* More connections than a front end has for the asking at once: these many, and so many a second. */
enum { STORM = 200, STORM_MS = 10000, AT_ONCE = 100, A_SECOND = 50 };

/* Was what there was of a storm more than anybody may ask for? */
static void judge_storm(unsigned connections, uint64_t begin)
{
	bool more = connections > AT_ONCE + A_SECOND * (now_ms() - begin) / 1000;

	finding = more ? "a storm" : "a breeze: this machine is too slow";
}

static void message_storm(void)
{
	uint64_t begin = now_ms();
	unsigned i;

	for (i = 0; i < STORM && now_ms() < begin + STORM_MS; i++) {
		struct snet_front front;

		front_connect(&front, evil_path);
		front_hello(&front);
		front_hello(&front);
		while (front_read(&front, 200))
			;
		front_close(&front);
	}
	judge_storm(i, begin);
}

static void connection_storm(void)
{
	uint64_t begin = now_ms();
	unsigned i;

	for (i = 0; i < STORM && now_ms() < begin + STORM_MS; i++) {
		struct snet_front front;

		front_connect(&front, evil_path);
		front_close(&front);
	}
	judge_storm(i, begin);
}

/* Die after each of the messages of a start. */
static void die_at_each_step(void)
{
	for (unsigned steps = 0; steps < 12; steps++) {
		struct snet_front front;

		front_connect(&front, evil_path);
		if (steps > 0)
			front_hello(&front);
		for (unsigned i = 1; i < steps; i++)
			front_read(&front, 1000);
		front_close(&front);
	}
}

/* Die with packets on their way in both directions. */
static void die_in_flight(void)
{
	front_open(&mate, mate_path);
	for (unsigned i = 0; i < 15; i++) {
		front_open(&evil, evil_path);
		evil_is_known();
		mate_sends(500, 1400, 100);
		for (unsigned j = 0; j < 200; j++)
			front_put(&evil, 0, GOOD_LEN);
		front_publish(&evil);
		front_close(&evil);
	}
	front_close(&mate);
}

static void never_reads(void)
{
	front_connect(&evil, evil_path);
	front_hello(&evil);
	sleep_ms(600);
	front_close(&evil);
}

static void kick_storm(void)
{
	uint64_t end = now_ms() + 700;

	while (now_ms() < end)
		eventfd_write(evil.queues[0].kick, 1);
}

static void second_front_end(void)
{
	struct snet_front second;

	for (unsigned i = 0; i < 20; i++) {
		front_connect(&second, evil_path);
		front_hello(&second);
		if (!front_sent_away(&second, 500) || !strstr(second.refused, "another front end"))
			finding = "not sent away";
		front_close(&second);
	}
	finding = *finding ? finding : "all sent away";
}

static const struct {
	const char *name;
	void (*perform)(void);
	bool alone; /* it connects itself; otherwise evil and mate are connected */
} scenarios[] = {
	{ "tx-honest", tx_honest },
	{ "tx-index-jump", tx_index_jump },
	{ "tx-index-back", tx_index_back },
	{ "tx-zone-unknown", tx_zone_unknown },
	{ "tx-zone-random", tx_zone_random },
	{ "tx-zone-of-mate", tx_zone_of_mate },
	{ "tx-zone-of-mate-to-receive", tx_zone_of_mate_to_receive },
	{ "tx-zone-own-to-receive", tx_zone_own_to_receive },
	{ "tx-offset-beyond", tx_offset_beyond },
	{ "tx-offset-far-beyond", tx_offset_far_beyond },
	{ "tx-length-huge", tx_length_huge },
	{ "tx-length-zero", tx_length_zero },
	{ "tx-endless-chain", tx_endless_chain },
	{ "tx-half-packet", tx_half_packet },
	{ "tx-sizes", tx_sizes },
	{ "tx-gso-lies", tx_gso_lies },
	{ "tx-never-looks-back", tx_never_looks_back },
	{ "tx-race-entries", tx_race_entries },
	{ "tx-race-headers", tx_race_headers },
	{ "tx-race-indexes", tx_race_indexes },
	{ "tx-punch-holes", tx_punch_holes },
	{ "rings-punch-holes", rings_punch_holes },
	{ "rings-garbage", rings_garbage },
	{ "rx-never-returned", rx_never_returned },
	{ "rx-large-never-returned", rx_large_never_returned },
	{ "rx-returned-twice", rx_returned_twice },
	{ "rx-id-not-out", rx_id_not_out },
	{ "rx-id-beyond", rx_id_beyond },
	{ "rx-done-jump", rx_done_jump },
	{ "rx-write-zone", rx_write_zone },
	{ "rx-holds-references", rx_holds_references },
	{ "rx-call-blocks", rx_call_blocks },
	{ "message-second-hello", message_second_hello },
	{ "message-unknown", message_unknown },
	{ "message-garbage", message_garbage, true },
	{ "message-storm", message_storm, true },
	{ "connection-storm", connection_storm, true },
	{ "die-at-each-step", die_at_each_step, true },
	{ "die-in-flight", die_in_flight, true },
	{ "never-reads", never_reads, true },
	{ "kick-storm", kick_storm },
	{ "second-front-end", second_front_end },
};

int main(int argc, char **argv)
{
	const unsigned count = sizeof(scenarios) / sizeof(scenarios[0]);
	unsigned which = 0;

	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (unsigned i = 0; i < count; i++)
			puts(scenarios[i].name);
		return EXIT_SUCCESS;
	}
	if (argc != 4)
		errx(2, "usage: snet_hostile SCENARIO EVIL_SOCKET MATE_SOCKET");
	while (which < count && strcmp(scenarios[which].name, argv[1]))
		which++;
	if (which == count)
		errx(2, "no scenario %s", argv[1]);
	evil_path = argv[2];
	mate_path = argv[3];
	if (!scenarios[which].alone) {
		front_open(&evil, evil_path);
		front_open(&mate, mate_path);
	}
	scenarios[which].perform();
	if (!scenarios[which].alone)
		front_sent_away(&evil, SENT_AWAY_MS);
	printf("{\"sent_away\": %s, \"refused\": \"%s\", \"finding\": \"%s\"}\n",
	       evil.gone ? "true" : "false", evil.refused, finding);
	fflush(stdout);
	while (getchar() != EOF)
		;
	return EXIT_SUCCESS;
}
