/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bursts through a veth: many packets in one system call, and in one run of the kernel's receiver.
 *
 * Theory of operation. The far end of a veth pair receives in the sender's system call: each packet
 * that is sent raises a softirq, which runs as soon as the sender lets go of it. An AF_XDP socket
 * (and a packet socket) lets go after each packet of its burst, and the far end's receive path is
 * entered, runs for that one packet and is left again: with small packets half the cost of all.
 *
 * So here packets are sent by a program in the interface's egress path (tc). While it runs no
 * softirq does, and it can send as often as it likes:
 *
 *      worker     copies frames into its block, memory of a BPF map shared with the program;
 *                 at the end of the round sends one small packet, the trigger
 *      program    writes the frames, one after another, over the trigger and sends a clone of it;
 *                 the last frame leaves as the trigger itself
 *      far end    receives them all when the system call is on its way out
 *
 * A block belongs to one worker, which therefore needs no lock:
 *
 *      block  [ count, trigger | frame 0: len, lost, bytes | frame 1 | ... frame BURST - 1 ]
 *
 * The trigger is told by the mark of the socket that sends it (guests cannot set marks) and names
 * the block. Clones come by the program as well, unmarked, and pass. The program takes count to 0:
 * where it is not 0 afterwards the program was not run, because the interface is down or because
 * somebody detached it, after which AF_XDP's own way is taken.
 *
 * The program is written as instructions, as that of xdp_prog.c, and like it held on the interface
 * by a BPF link that goes with vifd, however that ends. It comes before other programs there.
 */
#include "uplink/tc_burst.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "port/worker.h"
#include "sys/log.h"

#ifndef BPF_F_BEFORE /* Linux 6.6 */
#define BPF_F_BEFORE   (1U << 3)
#define BPF_TCX_EGRESS 47
#define TCX_NEXT       (-1)
#define TCX_DROP       2
#endif

enum {
	BURST = 64, /* frames of a block */
	MARK = 0x76696664,
	SEND_BUFFER = 16 << 20, /* bytes of triggers that the far end has not taken yet */
};

/* What is sent to have the program run. */
struct trigger {
	struct ethhdr ethernet; /* of a type for experiments, should it ever get out */
	uint32_t block;
	uint8_t padding[ETH_ZLEN - sizeof(struct ethhdr) - sizeof(uint32_t)];
} __attribute__((packed));

struct block {
	uint32_t count; /* frames to send; 0: none, or they have been taken */
	struct trigger trigger;
	uint8_t frames[];
};

struct frame {
	uint32_t len;
	uint32_t lost; /* not sent: the interface had no room, or the kernel no memory */
	uint8_t bytes[];
};

static_assert(offsetof(struct block, frames) == 64, "the frames are aligned");

/* ---- the program ---- */

#define INSN(op, d, s, o, i)                                                                       \
	((struct bpf_insn){ .code = (op), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
#define LOAD(size, d, s, o)   INSN(BPF_LDX | BPF_MEM | (size), d, s, o, 0)
#define STORE(size, d, o, s)  INSN(BPF_STX | BPF_MEM | (size), d, s, o, 0)
#define MOVE(d, s)            INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define ADD(d, s)             INSN(BPF_ALU64 | BPF_ADD | BPF_X, d, s, 0, 0)
#define SET(d, i)             INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define ADD_IMM(d, i)         INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define MULTIPLY_IMM(d, i)    INSN(BPF_ALU64 | BPF_MUL | BPF_K, d, 0, 0, i)
#define IF(test, d, s, o)     INSN(BPF_JMP | BPF_X | (test), d, s, o, 0)
#define IF_IMM(test, d, i, o) INSN(BPF_JMP | BPF_K | (test), d, 0, o, i)
#define CALL(function)        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_##function)
#define EXIT()                INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

enum { R0, R1, R2, R3, R4, R5, SKB, BLOCK, NEXT, COUNT, STACK };
enum { KEY = -4, FRAME = -16, LEN = -24 }; /* on the stack */

/* Jumps count from the instruction after them; the labels are in the comments. */
static int load(int map_fd, unsigned stride)
{
	const int room = stride - sizeof(struct frame);
	const struct bpf_insn insns[] = {
		LOAD(BPF_W, R2, R1, offsetof(struct __sk_buff, mark)),
		MOVE(SKB, R1),
		IF_IMM(BPF_JNE, R2, MARK, 53), /* pass */
		SET(R2, 0),
		STORE(BPF_W, SKB, offsetof(struct __sk_buff, mark), R2),

		/* the block */
		SET(R2, offsetof(struct trigger, block)),
		MOVE(R3, STACK),
		ADD_IMM(R3, KEY),
		SET(R4, sizeof(uint32_t)),
		CALL(skb_load_bytes),
		IF_IMM(BPF_JNE, R0, 0, 43), /* drop */
		INSN(BPF_LD | BPF_IMM | BPF_DW, R1, BPF_PSEUDO_MAP_FD, 0, map_fd),
		INSN(0, 0, 0, 0, 0), /* upper half of the 64-bit immediate */
		MOVE(R2, STACK),
		ADD_IMM(R2, KEY),
		CALL(map_lookup_elem),
		IF_IMM(BPF_JEQ, R0, 0, 37), /* drop */
		MOVE(BLOCK, R0),
		SET(NEXT, 0),
		LOAD(BPF_W, COUNT, BLOCK, offsetof(struct block, count)),
		STORE(BPF_W, BLOCK, offsetof(struct block, count), NEXT),

		/* loop: the next frame over the packet */
		IF_IMM(BPF_JGE, NEXT, BURST, 32), /* drop */
		MOVE(R3, NEXT),
		MULTIPLY_IMM(R3, stride),
		ADD(R3, BLOCK),
		ADD_IMM(R3, offsetof(struct block, frames)),
		STORE(BPF_DW, STACK, FRAME, R3),
		ADD_IMM(NEXT, 1),
		LOAD(BPF_W, R2, R3, offsetof(struct frame, len)),
		IF_IMM(BPF_JLT, R2, ETH_HLEN, 20), /* lost */
		IF_IMM(BPF_JGT, R2, room, 19),     /* lost */
		STORE(BPF_DW, STACK, LEN, R2),
		MOVE(R1, SKB),
		SET(R3, 0),
		CALL(skb_change_tail),
		IF_IMM(BPF_JNE, R0, 0, 14), /* lost */
		MOVE(R1, SKB),
		SET(R2, 0),
		LOAD(BPF_DW, R3, STACK, FRAME),
		ADD_IMM(R3, offsetof(struct frame, bytes)),
		LOAD(BPF_DW, R4, STACK, LEN),
		SET(R5, BPF_F_INVALIDATE_HASH),
		CALL(skb_store_bytes),
		IF_IMM(BPF_JNE, R0, 0, 6),    /* lost */
		IF(BPF_JGE, NEXT, COUNT, 11), /* pass: the last is the packet itself */
		MOVE(R1, SKB),
		LOAD(BPF_W, R2, SKB, offsetof(struct __sk_buff, ifindex)),
		SET(R3, 0),
		CALL(clone_redirect),
		IF_IMM(BPF_JEQ, R0, 0, -29), /* loop */

		/* lost: */
		LOAD(BPF_DW, R3, STACK, FRAME),
		SET(R1, 1),
		STORE(BPF_W, R3, offsetof(struct frame, lost), R1),
		IF(BPF_JLT, NEXT, COUNT, -33), /* loop */

		/* drop: */
		SET(R0, TCX_DROP),
		EXIT(),

		/* pass: */
		SET(R0, TCX_NEXT),
		EXIT(),
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts);

	return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "vifd_burst", "Dual BSD/GPL", insns,
			     sizeof(insns) / sizeof(insns[0]), &opts);
}

/* ---- opening and closing ---- */

static struct block *block_of(const struct tc_burst *burst, unsigned worker)
{
	return (struct block *)(burst->blocks + worker * burst->block_size);
}

static struct frame *frame_of(const struct tc_burst *burst, struct block *block, unsigned number)
{
	return (struct frame *)(block->frames + number * burst->stride);
}

/* The blocks, as a map and in our memory. Returns the map's descriptor or -errno. */
static int blocks_map(struct tc_burst *burst)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	size_t page = getpagesize();
	int map_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "vifd_blocks", sizeof(uint32_t),
				    burst->block_size, burst->workers, &opts);

	if (map_fd < 0)
		return map_fd;
	burst->blocks_len = (burst->block_size * burst->workers + page - 1) / page * page;
	burst->blocks = mmap(NULL, burst->blocks_len, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd,
			     0);
	if (burst->blocks == MAP_FAILED) {
		int err = -errno;

		burst->blocks = NULL;
		close(map_fd);
		return err;
	}
	for (unsigned i = 0; i < burst->workers; i++)
		block_of(burst, i)->trigger =
			(struct trigger){ .ethernet.h_proto = htons(ETH_P_802_EX1), .block = i };
	return map_fd;
}

static int program_attach(struct tc_burst *burst, unsigned ifindex)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = BPF_F_BEFORE);
	int map_fd = blocks_map(burst), prog_fd;

	if (map_fd < 0)
		return map_fd;
	prog_fd = load(map_fd, burst->stride);
	close(map_fd); /* the program holds it */
	if (prog_fd < 0)
		return prog_fd;
	burst->link_fd = bpf_link_create(prog_fd, ifindex, BPF_TCX_EGRESS, &opts);
	close(prog_fd); /* the link holds it */
	return burst->link_fd < 0 ? burst->link_fd : 0;
}

static int socket_open(struct tc_burst *burst, unsigned ifindex)
{
	const struct sockaddr_ll where = { .sll_family = AF_PACKET, .sll_ifindex = ifindex };
	int mark = MARK, send_buffer = SEND_BUFFER;

	burst->sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (burst->sock < 0 || setsockopt(burst->sock, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) ||
	    bind(burst->sock, (const void *)&where, sizeof(where)))
		return -errno;
	setsockopt(burst->sock, SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer, sizeof(send_buffer));
	return 0;
}

int tc_burst_open(struct tc_burst *burst, unsigned ifindex, unsigned frame_size)
{
	int err;

	*burst = (struct tc_burst){
		.link_fd = -1,
		.sock = -1,
		.workers = workers_count(),
		.stride = frame_size,
		.block_size = sizeof(struct block) + (size_t)BURST * frame_size,
	};
	err = program_attach(burst, ifindex);
	if (!err)
		err = socket_open(burst, ifindex);
	if (err)
		tc_burst_close(burst);
	return err;
}

void tc_burst_close(struct tc_burst *burst)
{
	if (burst->link_fd >= 0)
		close(burst->link_fd);
	if (burst->sock >= 0)
		close(burst->sock);
	if (burst->blocks)
		munmap(burst->blocks, burst->blocks_len);
	*burst = (struct tc_burst){ .link_fd = -1, .sock = -1 };
}

/* ---- sending ---- */

/* Count a block's frames as sent, but those that were not. */
static void block_count(const struct tc_burst *burst, struct block *block, unsigned count,
			struct port_stats *stats)
{
	for (unsigned i = 0; i < count; i++) {
		const struct frame *frame = frame_of(burst, block, i);

		if (unlikely(frame->lost)) {
			stats->drop_queue_full++;
			continue;
		}
		stats->send_packets++;
		stats->send_bytes += frame->len;
	}
}

unsigned tc_burst_flush(struct tc_burst *burst, struct port *port)
{
	struct port_stats *stats = port_stats(port);
	struct block *block = block_of(burst, worker_self->id);
	unsigned count = burst->blocks ? block->count : 0;
	ssize_t sent;

	if (count == 0)
		return 0;
	sent = send(burst->sock, &block->trigger, sizeof(block->trigger), MSG_DONTWAIT);
	if (unlikely(__atomic_load_n(&block->count, __ATOMIC_RELAXED) != 0)) {
		block->count = 0;
		stats->drop_device_error += count;
		if (sent >= 0 && !atomic_exchange(&burst->bypassed, true))
			log_warn("%s: its tc program was detached: sends packet by packet",
				 port->name);
		return 1;
	}
	if (unlikely(sent < 0))
		frame_of(burst, block, count - 1)->lost = 1;
	block_count(burst, block, count, stats);
	return 1;
}

void tc_burst_send(struct tc_burst *burst, struct port *port, struct pkt **pkts, unsigned n)
{
	struct port_stats *stats = port_stats(port);
	struct block *block = block_of(burst, worker_self->id);

	for (unsigned i = 0; i < n; i++) {
		struct pkt *pkt = pkts[i];
		struct frame *frame;

		if (unlikely(block->count == BURST))
			stats->doorbells += tc_burst_flush(burst, port);
		if (unlikely(pkt->len > burst->stride - sizeof(*frame))) {
			stats->drop_too_big++;
		} else {
			frame = frame_of(burst, block, block->count++);
			frame->len = pkt->len;
			frame->lost = 0;
			pkt_copy_out(pkt, 0, frame->bytes, pkt->len);
		}
		pkt_put(pkt);
	}
	worker_need_flush(worker_self, port);
	profile_mark(&worker_self->profile, STAGE_COPY);
}
