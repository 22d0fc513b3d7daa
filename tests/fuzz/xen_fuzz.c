/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Xen's netif: a front end that puts anything into its rings, and changes it while it is looked at.
 * Beside it, another one that behaves.
 *
 *      input: transmit mode, multicast, then steps of 1 to 16 bytes
 *
 * What must hold: no packet leads outside the pages; what is handed over is what was asked for; the
 * other interface works at the end; nothing is lost.
 */
#include "packet.h"

#include "fake_front.h"
#include "pkt/headers.h"
#include "sys/log.h"

enum { POOL = 128, STEPS_MAX = 400 };

static struct fake_front bad, good;
static struct input *racing; /* where spoil() takes its bytes from; NULL: no race */
static struct pkt *pkts[PKT_BURST];

/* While a copy is made: words of the rings change. */
static void spoil(void)
{
	for (unsigned i = 0; racing && i < 4 && racing->len > 0; i++) {
		uint8_t at = take8(racing);

		bad.tx->slots[at].words[at % 3] ^= 1u << take8(racing) % 32;
		bad.rx->slots[at].words[at % 2] ^= 1u << take8(racing) % 32;
	}
}

/* A request; mostly one that makes sense. */
static void put_request(struct input *input)
{
	uint8_t kind = take8(input), flags = take8(input);
	uint16_t offset = take16(input), size = take16(input);
	struct xen_tx_request *request;

	if (!(kind & 1)) {
		offset %= XEN_PAGE;
		size %= XEN_PAGE - offset + 1;
	}
	request = front_put(&bad, NULL, offset, size, kind & 2 ? flags : flags % 8);
	if (kind & 4)
		request->gref = take16(input);
	request->id = take8(input);
}

static void put_extra(struct input *input)
{
	uint8_t kind = take8(input);
	union xen_tx_slot *slot = front_slot(&bad);

	memset(slot, 0, sizeof(*slot));
	slot->extra.type = kind & 0x80 ? kind : kind % XEN_EXTRA_END;
	slot->extra.flags = take8(input) % 4 == 3;
	slot->extra.gso.size = take16(input);
	slot->extra.gso.type = take8(input) % 4;
	slot->extra.gso.features = take16(input);
}

/* A well-formed frame, in slots of any geometry; its bytes may be damaged. */
static void put_frame(struct input *input)
{
	static uint8_t bytes[FRAME_MAX];
	struct frame frame = { .bytes = bytes };
	uint32_t head;
	uint16_t gso, flags;

	take_frame(input, &frame);
	head = take16(input) % 3996;
	flags = take8(input) % 4;
	gso = take8(input) % 2 ? take16(input) : 0;
	if (frame.len > XEN_TX_SLOTS_MAX * XEN_PAGE - XEN_PAGE || frame.len > UINT16_MAX)
		return;
	if (take8(input) % 4 == 0)
		bytes[take8(input)] ^= take8(input);
	front_put_frame(&bad, bytes, frame.len, head, flags, gso, 1 + take8(input) % 2);
}

/* Every byte of what was handed over can be read, and what is asked for is possible. */
static void check(struct pkt *pkt)
{
	static uint8_t copy[FRAME_MAX];
	uint32_t len = pkt->header_len;

	for (unsigned i = 0; i < pkt->frag_count; i++)
		len += pkt->frags[i].iov_len;
	HOLDS(len == pkt->len && len >= PKT_LEN_MIN);
	pkt_copy_out(pkt, 0, copy, pkt->len);
	if (pkt_needs_nothing(pkt))
		return;
	HOLDS(pkt->offload.csum_start + pkt->offload.csum_offset + 2u <= pkt->len);
	HOLDS(headers_check_offload(pkt));
}

/* To the one that behaves: it takes what it got, and posts as much. */
static void deliver_good(unsigned n)
{
	static struct front_frame frame;

	front_deliver(&good, pkts, n);
	while (front_frame(&good, &frame))
		front_post(&good, frame.slots);
}

static void receive(struct input *input)
{
	uint8_t what = take8(input);
	unsigned n = front_take(&bad, pkts);

	if (what & 1)
		deliver_good(n);
	else if (what & 2)
		front_deliver(&bad, pkts, n);
	else {
		pkt_fetch(pkts, n);
		for (unsigned i = 0; i < n; i++) {
			check(pkts[i]);
			pkt_put(pkts[i]);
		}
	}
	worker_complete(worker_self);
	front_answers(&bad);
}

/* Send it a frame, of any geometry. */
static void send_frame(struct input *input)
{
	static uint8_t bytes[FRAME_MAX];
	struct frame frame = { .bytes = bytes };
	struct pkt *pkt;

	take_frame(input, &frame);
	if (pkt_pool_get(&worker_self->pool, &pkt, 1) == 0)
		return;
	pkt->len = frame.len;
	pkt->header_len = frame.len < 64 ? frame.len : 64;
	pkt->in_port = 0;
	memcpy(pkt->header, bytes, pkt->header_len);
	if (frame.len > 64)
		pkt->frags[pkt->frag_count++] = (struct iovec){ bytes + 64, frame.len - 64 };
	front_deliver(&bad, &pkt, 1);
	worker_complete(worker_self);
}

/* It begins anew, with indexes of any value. */
static void reconnect(struct input *input)
{
	struct xen_config config = fake_front_config(FRONT_CAPS);
	struct error error;

	config.sg = take8(input) % 8;
	xen_netif_disconnect(bad.netif);
	fake_front_age(&bad, (uint32_t)take16(input) << 16 | take16(input));
	HOLDS(xen_netif_connect(bad.netif, &config, &error) == 0);
}

static void step(struct input *input)
{
	uint8_t what = take8(input);

	switch (what % 16) {
	case 0 ... 3:
		put_frame(input);
		break;
	case 4 ... 6:
		put_request(input);
		break;
	case 7:
		put_extra(input);
		break;
	case 8 ... 10:
		receive(input);
		break;
	case 11:
		send_frame(input);
		break;
	case 12:
		front_post(&bad, take8(input) % 40);
		break;
	case 13:
		bad.tx->at.rsp_event = bad.tx->at.rsp_prod + (int8_t)take8(input);
		fake_event(bad.domid, FRONT_TX_EVENT);
		xen_channel_ops.arm(&bad.netif->channel, 0);
		xen_channel_ops.disarm(&bad.netif->channel, 0);
		break;
	case 14:
		xen_netif_tick(bad.netif);
		if (what & 0x80)
			bad.tx_prod += (int8_t)take8(input);
		if (what & 0x40)
			bad.rx_prod += (int8_t)take8(input);
		if (what & 0x20)
			reconnect(input);
		break;
	default:
		racing = racing ? NULL : input;
		break;
	}
}

/* The one that behaves gets its packet through. */
static void check_good(void)
{
	static uint8_t bytes[FRAME_MAX];
	struct frame frame = { .bytes = bytes };
	struct frame_desc desc = { .ip = 4, .proto = IPPROTO_UDP, .payload = 1000 };
	uint64_t seed = 1;

	racing = NULL;
	frame_build(&frame, &desc, &seed);
	front_put_frame(&good, bytes, frame.len, 100, XEN_TXF_CSUM_BLANK, 0, 0);
	HOLDS(front_take(&good, pkts) == 1);
	pkt_fetch(pkts, 1);
	check(pkts[0]);
	pkt_put(pkts[0]);
	worker_complete(worker_self);
	front_answers(&good);
}

/* Both front ends stay from one input to the next; the bad one begins anew. */
static void begin(enum xen_tx_mode mode, bool multicast_asks)
{
	struct xen_config config = fake_front_config(FRONT_CAPS);
	struct error error;

	racing = NULL;
	if (!worker_self) {
		log_set_level(LOG_LEVEL_ERROR);
		fake_worker(POOL);
		fake_xen_init();
		fake_xen.on_copy = spoil;
		fake_front_init(&bad, 1);
		fake_front_init(&good, 2);
		HOLDS(fake_front_attach(&good, mode, &config) == 0);
		HOLDS(fake_front_attach(&bad, mode, &config) == 0);
		front_port(&good)->mtu = front_port(&bad)->mtu = 65535;
		front_post(&good, XEN_RING);
	}
	xen_netif_disconnect(bad.netif);
	fake_front_age(&bad, 0);
	config.multicast_asks = multicast_asks;
	good.netif->tx_mode = bad.netif->tx_mode = mode;
	HOLDS(xen_netif_connect(bad.netif, &config, &error) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	uint8_t mode = take8(&input);

	begin(mode % XEN_TX_MODES, mode & 0x80);
	for (unsigned i = 0; input.len > 0 && i < STEPS_MAX; i++)
		step(&input);
	check_good();
	worker_complete(worker_self);
	HOLDS(worker_self->pool.free_count == POOL);
	HOLDS(fake_xen.mapped == 4); /* the rings */
	return 0;
}
