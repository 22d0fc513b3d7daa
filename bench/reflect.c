/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reflect: the far end of the AF_XDP rows' wire. Theory of operation:
 *
 *     reflect INTERFACE
 *
 * Attaches to an interface of the present network namespace an XDP program that sends every unicast
 * frame back where it came from, its two addresses swapped, and drops the others. The frame turns
 * round in the driver's receive path, so that the far end costs a fraction of what the near end
 * does and no process of its own. The program is a dozen instructions, given to the kernel as they
 * are: nothing has to compile or load BPF objects for them. Says "ready" once it is attached; the
 * program goes with the process.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INSN(op, d, s, o, i)                                                                       \
	((struct bpf_insn){ .code = (op), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
#define LOAD(size, d, s, o)   INSN(BPF_LDX | (size) | BPF_MEM, d, s, o, 0)
#define STORE(size, d, o, s)  INSN(BPF_STX | (size) | BPF_MEM, d, s, o, 0)
#define MOVE(d, s)            INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define MOVE_IMM(d, i)        INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define ADD_IMM(d, i)         INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define JUMP_GREATER(d, s, o) INSN(BPF_JMP | BPF_JGT | BPF_X, d, s, o, 0)
#define JUMP_BITS(d, i, o)    INSN(BPF_JMP | BPF_JSET | BPF_K, d, 0, o, i)
#define EXIT()                INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

enum { ETHER_HEADER = 14, ETHER_SRC = 6, GROUP_BIT = 1 };
enum { R0, R1, R2, R3, R4, R5, R6 };

static void fail(const char *what)
{
	fprintf(stderr, "reflect: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int program_load(void)
{
	static char log[4096];
	const struct bpf_insn program[] = {
		MOVE_IMM(R0, XDP_DROP),
		LOAD(BPF_W, R2, R1, offsetof(struct xdp_md, data)),
		LOAD(BPF_W, R3, R1, offsetof(struct xdp_md, data_end)),
		MOVE(R4, R2),
		ADD_IMM(R4, ETHER_HEADER),
		JUMP_GREATER(R4, R3, 10),
		LOAD(BPF_W, R3, R2, 0), /* the destination, 4 and 2 bytes */
		JUMP_BITS(R3, GROUP_BIT, 8),
		LOAD(BPF_H, R4, R2, 4),
		LOAD(BPF_W, R5, R2, ETHER_SRC),
		LOAD(BPF_H, R6, R2, ETHER_SRC + 4),
		STORE(BPF_W, R2, 0, R5),
		STORE(BPF_H, R2, 4, R6),
		STORE(BPF_W, R2, ETHER_SRC, R3),
		STORE(BPF_H, R2, ETHER_SRC + 4, R4),
		MOVE_IMM(R0, XDP_TX),
		EXIT(),
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_XDP,
		.insn_cnt = sizeof(program) / sizeof(program[0]),
		.insns = (uintptr_t)program,
		.license = (uintptr_t) "BSD",
		.log_buf = (uintptr_t)log,
		.log_size = sizeof(log),
		.log_level = 1,
		.prog_name = "reflect",
	};
	int fd = bpf(BPF_PROG_LOAD, &attr);

	if (fd < 0) {
		fprintf(stderr, "%s", log);
		fail("BPF_PROG_LOAD");
	}
	return fd;
}

int main(int argc, char **argv)
{
	union bpf_attr attr = { 0 };

	if (argc != 2) {
		fprintf(stderr, "usage: reflect INTERFACE\n");
		return 2;
	}
	attr.link_create.prog_fd = program_load();
	attr.link_create.target_ifindex = if_nametoindex(argv[1]);
	attr.link_create.attach_type = BPF_XDP;
	if (!attr.link_create.target_ifindex || bpf(BPF_LINK_CREATE, &attr) < 0)
		fail(argv[1]);
	printf("ready\n");
	fflush(stdout);
	for (;;)
		pause();
}
