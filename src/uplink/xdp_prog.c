/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The XDP program of an AF_XDP uplink.
 *
 * Theory of operation. It is five instructions: give the packet to the socket of the queue it came
 * from, and to the kernel if there is none. It is written here as instructions rather than in C, so
 * that building vifd takes no BPF compiler.
 *
 * It is held on the interface by a BPF link (Linux 5.9), which goes with the last descriptor of it:
 * however vifd ends, the kernel takes the program away, and there is never one of ours left over to
 * be recognised and removed. A program of somebody else's is neither replaced nor removed.
 */
#include "uplink/xdp_prog.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <stddef.h>
#include <unistd.h>

#ifndef BPF_F_XDP_HAS_FRAGS /* Linux 5.18 */
#define BPF_F_XDP_HAS_FRAGS (1U << 5)
#endif

/* return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS) */
static int load(int map_fd, bool frags)
{
	const struct bpf_insn insns[] = {
		{ .code = BPF_LDX | BPF_MEM | BPF_W,
		  .dst_reg = BPF_REG_2,
		  .src_reg = BPF_REG_1,
		  .off = offsetof(struct xdp_md, rx_queue_index) },
		{ .code = BPF_LD | BPF_IMM | BPF_DW,
		  .dst_reg = BPF_REG_1,
		  .src_reg = BPF_PSEUDO_MAP_FD,
		  .imm = map_fd },
		{ 0 }, /* upper half of the 64-bit immediate */
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = frags ? BPF_F_XDP_HAS_FRAGS : 0);

	return bpf_prog_load(BPF_PROG_TYPE_XDP, "vifd_xdp", "Dual BSD/GPL", insns,
			     sizeof(insns) / sizeof(insns[0]), &opts);
}

int xdp_prog_attach(struct xdp_prog *prog, unsigned ifindex, unsigned queues, bool native,
		    bool frags)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts,
		    .flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
	int prog_fd;

	prog->link_fd = -1;
	prog->map_fd = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "vifd_xsks", 4, 4, queues, NULL);
	if (prog->map_fd < 0)
		return prog->map_fd;
	prog_fd = load(prog->map_fd, frags);
	if (prog_fd >= 0) {
		prog->link_fd = bpf_link_create(prog_fd, ifindex, BPF_XDP, &opts);
		close(prog_fd); /* the link holds it */
	}
	if (prog->link_fd >= 0)
		return 0;
	close(prog->map_fd);
	prog->map_fd = -1;
	return prog_fd < 0 ? prog_fd : prog->link_fd;
}

int xdp_prog_redirect(struct xdp_prog *prog, unsigned queue, int xsk_fd)
{
	return bpf_map_update_elem(prog->map_fd, &queue, &xsk_fd, 0);
}

void xdp_prog_detach(struct xdp_prog *prog)
{
	if (prog->link_fd < 0)
		return;
	close(prog->link_fd);
	close(prog->map_fd);
	prog->link_fd = prog->map_fd = -1;
}
