/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Split virtqueues: setting up, walking chains, notifications. Theory of operation: virtq.h.
 */
#include "guest/virtq.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "sys/log.h"

enum {
	USED_NO_NOTIFY = 1,     /* virtio 1.2 §2.7.10 */
	AVAIL_NO_INTERRUPT = 1, /* §2.7.7 */
	INDIRECT_MAX = 1024,    /* entries of an indirect table we walk */
};

const char *const virtq_error_names[VIRTQ_ERRORS] = {
	[VIRTQ_OK] = "ok",
	[VIRTQ_INDEX_JUMP] = "available index jumped by more than the queue size",
	[VIRTQ_BAD_HEAD] = "descriptor index out of the table",
	[VIRTQ_LOOP] = "descriptor chain longer than its table",
	[VIRTQ_BAD_ADDRESS] = "buffer outside guest memory",
	[VIRTQ_ZERO_LENGTH] = "buffer of zero length",
	[VIRTQ_BAD_INDIRECT] = "indirect descriptor not negotiated, nested or of a wrong length",
	[VIRTQ_BAD_DIRECTION] = "buffer of the wrong direction",
	[VIRTQ_CALL_BLOCKED] = "the call descriptor cannot be written to",
};

/* Ring parts in host memory, or NULL when a part is not wholly inside one region. */
static int virtq_translate(struct virtq *vq, const struct guest_mem *mem)
{
	const struct virtq_setup *setup = &vq->setup;
	uint64_t size = setup->size;

	if (size == 0 || size > VIRTQ_SIZE_MAX || (size & (size - 1)))
		return -EINVAL;
	if (!mem)
		return -EFAULT;

	/* Both index rings end with an event index of two bytes. */
	void *desc = guest_mem_from_uva(mem, setup->desc_uva, size * sizeof(struct virtq_desc));
	void *avail = guest_mem_from_uva(mem, setup->avail_uva,
					 sizeof(struct virtq_avail) + size * 2 + 2);
	void *used = guest_mem_from_uva(mem, setup->used_uva,
					sizeof(struct virtq_used) +
						size * sizeof(struct virtq_used_elem) + 2);

	if (!desc || !avail || !used)
		return -EFAULT;
	if ((uintptr_t)desc % 16 || (uintptr_t)avail % 2 || (uintptr_t)used % 4)
		return -EINVAL;
	vq->desc = desc;
	vq->avail = avail;
	vq->used = used;
	vq->mem = mem;
	vq->last_region = 0;
	return 0;
}

int virtq_start(struct virtq *vq, const struct guest_mem *mem)
{
	int err = virtq_translate(vq, mem);

	if (err)
		return err;
	vq->size = vq->setup.size;
	vq->event_idx = vq->setup.event_idx;
	vq->indirect = vq->setup.indirect;
	vq->in_order = vq->setup.in_order;
	vq->last_avail = vq->setup.base;
	/* Continue where the driver saw us stop, even if "us" was a back end before this one. */
	vq->next_used = __atomic_load_n(&vq->used->idx, __ATOMIC_RELAXED);
	vq->notify_valid = false;
	vq->broken = false;
	vq->error = VIRTQ_OK;
	vq->started = true;
	virtq_disarm(vq);
	return 0;
}

int virtq_remap(struct virtq *vq, const struct guest_mem *mem)
{
	return virtq_translate(vq, mem);
}

uint16_t virtq_stop(struct virtq *vq)
{
	vq->started = false;
	vq->setup.base = vq->last_avail;
	return vq->last_avail;
}

void virtq_break(struct virtq *vq, enum virtq_error error, const char *name)
{
	if (vq->broken)
		return;
	vq->broken = true;
	vq->error = error;
	log_warn("guest %s: a ring is broken and left alone until the guest resets it: %s", name,
		 virtq_error_names[error]);
}

/* Append [addr, addr + len) of guest memory to iov, split at region edges. */
static enum virtq_error append_buffer(struct virtq *vq, uint64_t addr, uint64_t len,
				      struct iovec *iov, unsigned max, struct virtq_chain *chain)
{
	while (len > 0) {
		uint64_t got;
		void *host = guest_mem_at(vq->mem, &vq->last_region, addr, len, &got);

		if (!host)
			return VIRTQ_BAD_ADDRESS;
		if (chain->count == max) {
			chain->cut = true;
			return VIRTQ_OK;
		}
		iov[chain->count++] = (struct iovec){ host, got };
		chain->len += got;
		addr += got;
		len -= got;
	}
	return VIRTQ_OK;
}

/* The table an indirect descriptor points to, and its first entry in *desc. */
static enum virtq_error enter_indirect(struct virtq *vq, struct virtq_desc *desc,
				       const struct virtq_desc **table, unsigned *table_size)
{
	uint32_t count = desc->len / sizeof(struct virtq_desc);

	if (!vq->indirect || desc->len % sizeof(struct virtq_desc) || count == 0 ||
	    count > INDIRECT_MAX || (desc->flags & VIRTQ_DESC_NEXT))
		return VIRTQ_BAD_INDIRECT;
	*table = (const struct virtq_desc *)virtq_buffer(vq, desc);
	if (!*table || (uintptr_t)*table % sizeof(uint64_t))
		return VIRTQ_BAD_ADDRESS;
	*table_size = count;
	*desc = virtq_desc_read(*table, 0);
	return desc->flags & VIRTQ_DESC_INDIRECT ? VIRTQ_BAD_INDIRECT : VIRTQ_OK;
}

enum virtq_error virtq_gather(struct virtq *vq, const struct virtq_desc *first, bool writable,
			      struct iovec *iov, unsigned max, struct virtq_chain *chain)
{
	const struct virtq_desc *table = vq->desc;
	unsigned table_size = vq->size, walked = 0;
	struct virtq_desc desc = *first;
	bool indirect = false; /* walking an indirect table, which may even lie over the ring's */
	enum virtq_error error;

	*chain = (struct virtq_chain){ 0 };
	for (;;) {
		/* At the end of the chain in the ring, and only there (§2.7.5.3). */
		if (desc.flags & VIRTQ_DESC_INDIRECT) {
			if (indirect)
				return VIRTQ_BAD_INDIRECT;
			error = enter_indirect(vq, &desc, &table, &table_size);
			if (error)
				return error;
			indirect = true;
			walked = 0;
		}
		if (!!(desc.flags & VIRTQ_DESC_WRITE) != writable)
			return VIRTQ_BAD_DIRECTION;
		if (desc.len == 0)
			return VIRTQ_ZERO_LENGTH;
		error = append_buffer(vq, desc.addr, desc.len, iov, max, chain);
		if (error)
			return error;
		if (chain->cut || !(desc.flags & VIRTQ_DESC_NEXT))
			return VIRTQ_OK;
		if (++walked >= table_size)
			return VIRTQ_LOOP;
		if (desc.next >= table_size)
			return VIRTQ_BAD_HEAD;
		desc = virtq_desc_read(table, desc.next);
	}
}

/* ---- notifications ---- */

/* Event indices (§2.7.10): the driver's behind the available ring, ours behind the used ring. */
static uint16_t used_event(const struct virtq *vq)
{
	return __atomic_load_n(&vq->avail->ring[vq->size], __ATOMIC_RELAXED);
}

static void set_avail_event(struct virtq *vq, uint16_t index)
{
	__atomic_store_n((uint16_t *)&vq->used->ring[vq->size], index, __ATOMIC_RELAXED);
}

bool virtq_should_signal(struct virtq *vq)
{
	uint16_t old = vq->signalled_used, new = vq->next_used;
	bool first = !vq->notify_valid;

	/* What we published must be visible before we look whether the driver still sleeps. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vq->signalled_used = new;
	vq->notify_valid = true;
	if (!vq->event_idx)
		return !(__atomic_load_n(&vq->avail->flags, __ATOMIC_RELAXED) & AVAIL_NO_INTERRUPT);
	return first || (uint16_t)(new - used_event(vq) - 1) < (uint16_t)(new - old);
}

bool virtq_signal(struct virtq *vq)
{
	return vq->call_fd < 0 || eventfd_write(vq->call_fd, 1) == 0;
}

bool virtq_arm(struct virtq *vq)
{
	if (vq->event_idx)
		set_avail_event(vq, vq->last_avail);
	else
		__atomic_store_n(&vq->used->flags, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (virtq_available(vq) == 0)
		return false;
	virtq_disarm(vq);
	return true;
}

void virtq_disarm(struct virtq *vq)
{
	/* With event indices nothing needs doing: the one we last asked for lies behind. */
	if (!vq->event_idx)
		__atomic_store_n(&vq->used->flags, USED_NO_NOTIFY, __ATOMIC_RELAXED);
}
