/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost-user, back end: what the front end's messages do to a virtio_net device.
 * Specification: QEMU's docs/interop/vhost-user.rst. The socket is vhost_link.c's.
 *
 * Theory of operation. Each message has a row in `messages`: how long its payload is, how many
 * descriptors it carries, whether it has an answer of its own, and the function that does it. A
 * function either does all of what was asked or nothing, and then says why. With NEED_REPLY set the
 * front end is told 0 or 1; a refusal that could not be told would leave it with a wrong idea of
 * the device, so it is disconnected instead. A message that is malformed ends the connection in any
 * case: who cannot frame a message is not trusted with the next. Messages we do not know count as
 * refused (the other back ends do the same).
 *
 * Rings. A ring runs when it has size, addresses, position and kick, and its addresses lie in known
 * memory, in whatever order these come (QEMU announces memory first and sends call descriptors
 * before features; DPDK's virtio-user differs; both are right). ring_update() looks whether all is
 * there. The kick counts as the wish to run: GET_VRING_BASE stops the ring and waits for a new one.
 * A change to a running ring stops it and starts it again at its position. Rings are enabled by
 * SET_VRING_ENABLE; for front ends without protocol features they start enabled.
 *
 *      kick, size, addresses, position --ring_update()--> started --GET_VRING_BASE--> stopped
 *                                        ^                    |
 *                                        +--------------------+ memory taken away, features changed
 *
 * Memory. A change builds the new table aside and pauses the workers for the swap only. QEMU grows
 * a region by removing and adding it; rings inside stop at the first message and resume at the
 * second.
 *
 * What stays with the front end. QEMU and virtio-user serve the control queue and the configuration
 * space (MAC, link status, number of pairs, MTU) themselves: that is why CONFIG is not offered. Of
 * the guest's control commands, those that concern us arrive as messages: MQ as SET_VRING_ENABLE of
 * each ring, and reset as GET_VRING_BASE and SET_STATUS 0. GUEST_OFFLOADS, receive modes, MAC and
 * VLAN tables never arrive and are not offered; where QEMU offers them to the guest all the same, a
 * guest that switches receive offloads off with them goes on getting whole packets.
 *
 * After a migration a guest with GUEST_ANNOUNCE announces itself; SEND_RARP is for guests without,
 * belongs to the protocol feature RARP that is not offered, and is accepted without effect.
 * NET_SET_MTU lowers the port's MTU, and is refused above what is configured. Also not offered:
 * logging (live migration), the IOMMU, RESET_DEVICE, and in-flight tracking: buffers are given back
 * in turn, so that the used index says where the last back end stopped.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest/guest_mem.h"
#include "guest/vhost_messages.h"
#include "port/worker.h"

enum protocol_feature {
	F_MQ = 0,
	F_REPLY_ACK = 3,
	F_NET_MTU = 4,
	F_CONFIGURE_MEM_SLOTS = 15,
	F_STATUS = 16,
};

static const uint64_t protocol_features = VIRTIO_BIT(F_MQ) | VIRTIO_BIT(F_REPLY_ACK) |
					  VIRTIO_BIT(F_NET_MTU) |
					  VIRTIO_BIT(F_CONFIGURE_MEM_SLOTS) | VIRTIO_BIT(F_STATUS);

enum {
	INDEX_MASK = 0xff, /* of the payload of SET_VRING_KICK, CALL and ERR */
	NO_FD = 1 << 8,    /* there: no descriptor comes along, poll instead */
	MTU_MIN = 68,      /* RFC 791 */
};

static unsigned ring_count(const struct vhost_user *vu)
{
	return 2 * vu->device.pairs_max;
}

static struct virtq *ring_of(struct vhost_user *vu, unsigned index)
{
	return &vu->device.rings[index].vq;
}

/* ---- rings and memory ---- */

static bool ring_in_memory(const struct virtq_setup *setup, const struct guest_mem *mem)
{
	uint64_t size = setup->size;

	return mem && guest_mem_from_uva(mem, setup->desc_uva, size * sizeof(struct virtq_desc)) &&
	       guest_mem_from_uva(mem, setup->avail_uva,
				  sizeof(struct virtq_avail) + size * 2 + 2) &&
	       guest_mem_from_uva(mem, setup->used_uva,
				  sizeof(struct virtq_used) +
					  size * sizeof(struct virtq_used_elem) + 2);
}

/* Stop a started ring, its position kept for when it starts again. */
static void ring_halt(struct vhost_user *vu, unsigned index)
{
	struct virtq *vq = ring_of(vu, index);

	if (!vq->started)
		return;
	workers_pause();
	vq->setup.base = virtio_net_stop_ring(&vu->device, index);
	workers_resume();
}

/* Start a ring if all that it needs is there. */
static void ring_update(struct vhost_user *vu, unsigned index)
{
	const struct ring_has *has = &vu->has[index];
	struct virtq *vq = ring_of(vu, index);
	int ret;

	if (vq->started || !has->size || !has->addresses || !has->position || !has->kick ||
	    !ring_in_memory(&vq->setup, vu->device.mem))
		return;
	workers_pause();
	if (!(vu->device.features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES_BIT)))
		virtio_net_enable_ring(&vu->device, index, true);
	ret = virtio_net_start_ring(&vu->device, index);
	workers_resume();
	if (ret && log_allowed(&vu->link.limit))
		log_warn("guest %s: ring %u does not start: %s", vu->link.name, index,
			 strerror(-ret));
}

static void rings_update(struct vhost_user *vu)
{
	for (unsigned i = 0; i < ring_count(vu); i++)
		ring_update(vu, i);
}

/* Stop all rings; they wait for a new kick. */
static void rings_stop(struct vhost_user *vu)
{
	workers_pause();
	for (unsigned i = 0; i < ring_count(vu); i++) {
		ring_halt(vu, i);
		vu->has[i].kick = false;
	}
	workers_resume();
}

/* Replace the memory table by mem (taken). */
static void publish_memory(struct vhost_user *vu, struct guest_mem *mem)
{
	struct guest_mem *old;

	workers_pause();
	for (unsigned i = 0; i < ring_count(vu); i++) {
		if (!ring_in_memory(&ring_of(vu, i)->setup, mem))
			ring_halt(vu, i);
	}
	old = virtio_net_set_memory(&vu->device, mem);
	workers_resume();
	guest_mem_free(old);
	rings_update(vu);
}

/* ---- messages ---- */

static int check_index(struct vhost_user *vu, uint32_t index)
{
	if (index < ring_count(vu))
		return 0;
	return fail(&vu->why, -EINVAL, "ring %u of %u", index, ring_count(vu));
}

static int get_features(struct vhost_user *vu, struct vhost_msg *msg)
{
	msg->payload.u64 = vu->offered;
	return 0;
}

/* QEMU repeats this for every queue pair while the first ones run already. */
static int set_features(struct vhost_user *vu, struct vhost_msg *msg)
{
	uint64_t features = msg->payload.u64;

	if (features & ~vu->offered)
		return fail(&vu->why, -EINVAL, "features 0x%llx were not offered",
			    (unsigned long long)(features & ~vu->offered));
	if (features == vu->device.features)
		return 0;
	workers_pause();
	for (unsigned i = 0; i < ring_count(vu); i++)
		ring_halt(vu, i);
	virtio_net_set_features(&vu->device, features);
	rings_update(vu);
	workers_resume();
	return 0;
}

static int get_protocol_features(struct vhost_user *vu, struct vhost_msg *msg)
{
	msg->payload.u64 = protocol_features;
	return 0;
}

static int set_protocol_features(struct vhost_user *vu, struct vhost_msg *msg)
{
	if (msg->payload.u64 & ~protocol_features)
		return fail(&vu->why, -EINVAL, "protocol features 0x%llx were not offered",
			    (unsigned long long)(msg->payload.u64 & ~protocol_features));
	vu->protocol_features = msg->payload.u64;
	return 0;
}

/* Queue pairs, for a network device. */
static int get_queue_num(struct vhost_user *vu, struct vhost_msg *msg)
{
	msg->payload.u64 = vu->device.pairs_max;
	return 0;
}

/* SET_OWNER; RESET_OWNER, deprecated and best ignored, says the specification; SEND_RARP, see
 * above. */
static int accept_only(struct vhost_user *vu, struct vhost_msg *msg)
{
	return 0;
}

/* Map a region into a table that is not published yet. Takes the message's descriptor n. */
static int add_region(struct vhost_user *vu, struct guest_mem *mem,
		      const struct vhost_region *region, struct vhost_msg *msg, unsigned n)
{
	int fd = msg->fds[n], ret;

	msg->fds[n] = -1;
	ret = guest_mem_add(mem, region->gpa, region->size, region->uva, region->mmap_offset, fd);
	if (ret)
		fail(&vu->why, ret, "memory 0x%llx + 0x%llx at offset 0x%llx: %s",
		     (unsigned long long)region->gpa, (unsigned long long)region->size,
		     (unsigned long long)region->mmap_offset, strerror(-ret));
	return ret;
}

/* Payload and descriptors are as many as count says. */
static int set_mem_table(struct vhost_user *vu, struct vhost_msg *msg)
{
	struct guest_mem *mem = guest_mem_new();

	if (!mem)
		return fail(&vu->why, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < msg->payload.mem.count; i++) {
		int ret = add_region(vu, mem, &msg->payload.mem.regions[i], msg, i);

		if (ret) {
			guest_mem_free(mem);
			return ret;
		}
	}
	publish_memory(vu, mem);
	return 0;
}

static int get_max_mem_slots(struct vhost_user *vu, struct vhost_msg *msg)
{
	msg->payload.u64 = GUEST_MEM_REGIONS_MAX;
	return 0;
}

static struct guest_mem *copy_memory(struct vhost_user *vu)
{
	struct guest_mem *mem = vu->device.mem ? guest_mem_clone(vu->device.mem) : guest_mem_new();

	if (!mem)
		fail(&vu->why, -ENOMEM, "out of memory");
	return mem;
}

/* QEMU 7.2 adds and removes every region once for each queue pair: the second time there is nothing
 * to do. */
static int add_mem_reg(struct vhost_user *vu, struct vhost_msg *msg)
{
	struct guest_mem *mem = copy_memory(vu);
	int ret = mem ? add_region(vu, mem, &msg->payload.mem_reg.region, msg, 0) : -ENOMEM;

	if (ret || (vu->device.mem && mem->count == vu->device.mem->count))
		guest_mem_free(mem);
	else
		publish_memory(vu, mem);
	return ret;
}

static int rem_mem_reg(struct vhost_user *vu, struct vhost_msg *msg)
{
	const struct vhost_region *region = &msg->payload.mem_reg.region;
	struct guest_mem *mem = copy_memory(vu);

	if (!mem)
		return -ENOMEM;
	if (guest_mem_remove(mem, region->gpa, region->size, region->uva) == 0)
		publish_memory(vu, mem);
	else
		guest_mem_free(mem);
	return 0;
}

static int set_vring_num(struct vhost_user *vu, struct vhost_msg *msg)
{
	uint32_t index = msg->payload.state.index, num = msg->payload.state.num;
	int ret = check_index(vu, index);

	if (ret)
		return ret;
	if (num == 0 || num > VIRTQ_SIZE_MAX || (num & (num - 1)))
		return fail(&vu->why, -EINVAL, "ring of %u entries", num);
	ring_halt(vu, index);
	ring_of(vu, index)->setup.size = num;
	vu->has[index].size = true;
	ring_update(vu, index);
	return 0;
}

static int set_vring_addr(struct vhost_user *vu, struct vhost_msg *msg)
{
	uint32_t index = msg->payload.addr.index;
	uint64_t desc = msg->payload.addr.desc, avail = msg->payload.addr.avail;
	uint64_t used = msg->payload.addr.used;
	int ret = check_index(vu, index);
	struct virtq *vq;

	if (ret)
		return ret;
	if (msg->payload.addr.flags)
		return fail(&vu->why, -EINVAL, "ring logging was not offered");
	if (desc % 16 || avail % 2 || used % 4)
		return fail(&vu->why, -EINVAL, "misaligned ring addresses");
	ring_halt(vu, index);
	vq = ring_of(vu, index);
	vq->setup.desc_uva = desc;
	vq->setup.avail_uva = avail;
	vq->setup.used_uva = used;
	vu->has[index].addresses = true;
	ring_update(vu, index);
	return 0;
}

static int set_vring_base(struct vhost_user *vu, struct vhost_msg *msg)
{
	uint32_t index = msg->payload.state.index, num = msg->payload.state.num;
	int ret = check_index(vu, index);

	if (ret)
		return ret;
	if (num > UINT16_MAX)
		return fail(&vu->why, -EINVAL, "ring position %u", num);
	ring_halt(vu, index);
	ring_of(vu, index)->setup.base = num;
	vu->has[index].position = true;
	ring_update(vu, index);
	return 0;
}

static int get_vring_base(struct vhost_user *vu, struct vhost_msg *msg)
{
	uint32_t index = msg->payload.state.index;
	int ret = check_index(vu, index);

	if (ret)
		return ret;
	workers_pause();
	ring_halt(vu, index);
	virtio_net_set_kick(&vu->device, index, -1);
	workers_resume();
	vu->has[index].kick = false;
	msg->payload.state.num = ring_of(vu, index)->setup.base;
	return 0;
}

/* A descriptor that workers may wait for or write to without coming to harm: an eventfd, nothing
 * else. */
static bool is_eventfd(int fd)
{
	static const char eventfd[] = "anon_inode:[eventfd]";
	char path[64], target[sizeof(eventfd)];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, target, sizeof(target)) == sizeof(eventfd) - 1 &&
	       memcmp(target, eventfd, sizeof(eventfd) - 1) == 0;
}

/* The ring index and descriptor of SET_VRING_KICK, CALL and ERR; the descriptor is the caller's. */
static int take_ring_fd(struct vhost_user *vu, struct vhost_msg *msg, unsigned *index, int *fd)
{
	int ret;

	*index = msg->payload.u64 & INDEX_MASK;
	*fd = -1;
	if (msg->payload.u64 & ~(uint64_t)(INDEX_MASK | NO_FD))
		return fail(&vu->why, -EINVAL, "unknown bits beside the ring index");
	ret = check_index(vu, *index);
	if (ret)
		return ret;
	if (msg->fd_count != !(msg->payload.u64 & NO_FD))
		return fail(&vu->why, -EINVAL, "descriptor missing, or not announced");
	if (msg->fd_count == 0)
		return 0;
	if (!is_eventfd(msg->fds[0]))
		return fail(&vu->why, -EINVAL, "descriptor is not an eventfd");
	*fd = msg->fds[0];
	msg->fds[0] = -1;
	return 0;
}

static int set_vring_kick(struct vhost_user *vu, struct vhost_msg *msg)
{
	unsigned index;
	int fd, ret = take_ring_fd(vu, msg, &index, &fd);

	if (ret)
		return ret;
	workers_pause();
	virtio_net_set_kick(&vu->device, index, fd);
	vu->has[index].kick = true;
	ring_update(vu, index);
	workers_resume();
	return 0;
}

static int set_vring_call(struct vhost_user *vu, struct vhost_msg *msg)
{
	unsigned index;
	int fd, ret = take_ring_fd(vu, msg, &index, &fd);

	if (ret)
		return ret;
	/* a worker that calls must not wait for a counter that the guest does not read */
	if (fd >= 0)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	workers_pause();
	virtio_net_set_call(&vu->device, index, fd);
	workers_resume();
	return 0;
}

/* Errors are told in the log and by `show guests`; nobody waits for them there. */
static int set_vring_err(struct vhost_user *vu, struct vhost_msg *msg)
{
	unsigned index;
	int fd, ret = take_ring_fd(vu, msg, &index, &fd);

	if (fd >= 0)
		close(fd);
	return ret;
}

static int set_vring_enable(struct vhost_user *vu, struct vhost_msg *msg)
{
	uint32_t index = msg->payload.state.index, num = msg->payload.state.num;
	int ret = check_index(vu, index);

	if (ret)
		return ret;
	if (num > 1)
		return fail(&vu->why, -EINVAL, "ring enabled %u times", num);
	if (ring_of(vu, index)->enabled == num)
		return 0;
	workers_pause();
	virtio_net_enable_ring(&vu->device, index, num);
	workers_resume();
	return 0;
}

static int set_mtu(struct vhost_user *vu, struct vhost_msg *msg)
{
	uint64_t mtu = msg->payload.u64;

	if (mtu < MTU_MIN || mtu > vu->mtu)
		return fail(&vu->why, -EINVAL, "MTU %llu, configured are %u",
			    (unsigned long long)mtu, vu->mtu);
	workers_pause();
	vu->device.channel.port.mtu = mtu;
	workers_resume();
	return 0;
}

/* Status 0 is the driver's reset. Memory stays: QEMU does not announce it again. */
static int set_status(struct vhost_user *vu, struct vhost_msg *msg)
{
	if (msg->payload.u64 > UINT8_MAX)
		return fail(&vu->why, -EINVAL, "device status of more than 8 bits");
	if (msg->payload.u64 == 0)
		rings_stop(vu);
	vu->status = msg->payload.u64;
	return 0;
}

static int get_status(struct vhost_user *vu, struct vhost_msg *msg)
{
	msg->payload.u64 = vu->status;
	return 0;
}

static int reset_device(struct vhost_user *vu, struct vhost_msg *msg)
{
	workers_pause();
	rings_stop(vu);
	for (unsigned i = 0; i < ring_count(vu); i++)
		virtio_net_enable_ring(&vu->device, i, false);
	workers_resume();
	vu->status = 0;
	return 0;
}

/* ---- dispatch ---- */

#define PAYLOAD(member) sizeof(((struct vhost_msg *)NULL)->payload.member)

enum {
	REGION = sizeof(struct vhost_region),
	MEM_HEADER = PAYLOAD(mem) - VHOST_FDS_MAX * REGION,
	SET_MEM_TABLE = 5,
};

static const struct message {
	const char *name;
	uint16_t size;   /* bytes of payload */
	uint8_t fds;     /* descriptors at most; how many it must be depends on the payload */
	uint16_t answer; /* bytes of an answer of its own; 0: it has none */
	int (*handle)(struct vhost_user *vu, struct vhost_msg *msg);
} messages[] = {
	[1] = { "GET_FEATURES", 0, 0, 8, get_features },
	[2] = { "SET_FEATURES", 8, 0, 0, set_features },
	[3] = { "SET_OWNER", 0, 0, 0, accept_only },
	[4] = { "RESET_OWNER", 0, 0, 0, accept_only },
	[SET_MEM_TABLE] = { "SET_MEM_TABLE", MEM_HEADER, VHOST_FDS_MAX, 0, set_mem_table },
	[8] = { "SET_VRING_NUM", PAYLOAD(state), 0, 0, set_vring_num },
	[9] = { "SET_VRING_ADDR", PAYLOAD(addr), 0, 0, set_vring_addr },
	[10] = { "SET_VRING_BASE", PAYLOAD(state), 0, 0, set_vring_base },
	[11] = { "GET_VRING_BASE", PAYLOAD(state), 0, PAYLOAD(state), get_vring_base },
	[12] = { "SET_VRING_KICK", 8, 1, 0, set_vring_kick },
	[13] = { "SET_VRING_CALL", 8, 1, 0, set_vring_call },
	[14] = { "SET_VRING_ERR", 8, 1, 0, set_vring_err },
	[15] = { "GET_PROTOCOL_FEATURES", 0, 0, 8, get_protocol_features },
	[16] = { "SET_PROTOCOL_FEATURES", 8, 0, 0, set_protocol_features },
	[17] = { "GET_QUEUE_NUM", 0, 0, 8, get_queue_num },
	[18] = { "SET_VRING_ENABLE", PAYLOAD(state), 0, 0, set_vring_enable },
	[19] = { "SEND_RARP", 8, 0, 0, accept_only },
	[20] = { "NET_SET_MTU", 8, 0, 0, set_mtu },
	[34] = { "RESET_DEVICE", 0, 0, 0, reset_device },
	[36] = { "GET_MAX_MEM_SLOTS", 0, 0, 8, get_max_mem_slots },
	[37] = { "ADD_MEM_REG", PAYLOAD(mem_reg), 1, 0, add_mem_reg },
	/* some send a descriptor, says the specification */
	[38] = { "REM_MEM_REG", PAYLOAD(mem_reg), 1, 0, rem_mem_reg },
	[39] = { "SET_STATUS", 8, 0, 0, set_status },
	[40] = { "GET_STATUS", 0, 0, 8, get_status },
};

/* Does the message have the size and the number of descriptors that it must have? */
static bool well_formed(const struct message *message, const struct vhost_msg *msg)
{
	if (message == &messages[SET_MEM_TABLE]) {
		uint32_t count = msg->payload.mem.count;

		return msg->header.size >= MEM_HEADER && count <= VHOST_FDS_MAX &&
		       msg->header.size == MEM_HEADER + count * REGION && msg->fd_count == count;
	}
	if (message->handle == add_mem_reg && msg->fd_count != 1)
		return false;
	return msg->header.size == message->size && msg->fd_count <= message->fds;
}

bool vhost_user_message(struct vhost_link *link)
{
	static const struct message unknown = { .name = "unknown message" };
	struct vhost_user *vu = vhost_user_of_link(link);
	struct vhost_msg *msg = &link->msg;
	uint32_t request = msg->header.request;
	bool known = request < sizeof(messages) / sizeof(*messages) && messages[request].handle;
	const struct message *message = known ? &messages[request] : &unknown;
	bool malformed = known && !well_formed(message, msg);
	bool told = false;
	int ret;

	vu->messages++;
	log_debug("guest %s: vhost-user %s (%u) of %u bytes and %u descriptors: 0x%llx", link->name,
		  message->name, request, msg->header.size, msg->fd_count,
		  msg->header.size ? (unsigned long long)msg->payload.u64 : 0);
	if (!known)
		ret = fail(&vu->why, -EOPNOTSUPP, "not supported");
	else if (malformed)
		ret = fail(&vu->why, -EPROTO, "%u bytes and %u descriptors do not fit",
			   msg->header.size, msg->fd_count);
	else
		ret = message->handle(vu, msg);

	if (ret && log_allowed(&link->limit))
		log_warn("guest %s: vhost-user %s (%u) refused: %s", link->name, message->name,
			 request, vu->why.text);
	if (ret == 0 && message->answer)
		return vhost_link_reply(link, message->answer);
	/* whoever sets NEED_REPLY waits for it, negotiated or not */
	if ((msg->header.flags & VHOST_NEED_REPLY) && !message->answer) {
		msg->payload.u64 = ret != 0;
		told = vhost_link_reply(link, sizeof(msg->payload.u64));
		if (!told)
			return false;
	}
	return ret == 0 || (told && !malformed);
}
