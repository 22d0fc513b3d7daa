/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How tlb_path tells tlb_model where in the trace it is: by a store to one of these addresses, which
 * no program has anything at by chance.
 */
#ifndef VIFD_LAB_TLB_MARKS_H
#define VIFD_LAB_TLB_MARKS_H

#define TLB_MARKS UINT64_C(0x5eed0000)

enum tlb_mark {
	TLB_MARK_MAP,   /* the map of pages has been written: read it */
	TLB_MARK_COUNT, /* warmed up: misses count from here on */
	TLB_MARK_ENTER, /* vifd's work begins: the CPU switched to it, from another domain */
	TLB_MARK_LEAVE, /* it ends: what follows is not vifd's */
	TLB_MARKS_END,
	TLB_MARK_STRIDE = 8, /* bytes */
};

#endif
