/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libvifront: packets from and to vifd through shared memory, without a kernel in between. The
 * manual is libvifront(3); examples/ has programs.
 *
 * Theory of operation. A connection has queues; each is used by one thread at a time and shares
 * nothing with the others. Frames lie in memory that vifd maps too: to send one, take a buffer, fill
 * it, send it; what is received is read where it lies, and released. A frame may have several
 * buffers, in a row in the array, all but its last with VIFRONT_MORE.
 *
 *      vifront_alloc() ──> fill ──> vifront_send()        vifront_recv() ──> read ──> vifront_release()
 *                      └──────────> vifront_free()
 *
 * Nothing blocks but vifront_open(), vifront_reopen() and vifront_wait(). What returns int returns
 * -errno when something is wrong; -ENOTCONN means that vifd has gone (or was restarted), and that
 * vifront_reopen() begins anew.
 */
#ifndef VIFRONT_H
#define VIFRONT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define VIFRONT_API __attribute__((visibility("default")))
#else
#define VIFRONT_API
#endif

enum {
	VIFRONT_BUF_SMALL = 2112,  /* bytes that a small buffer holds */
	VIFRONT_BUF_LARGE = 65536, /* bytes that a large one holds */
	VIFRONT_FRAME_BUFS = 64,   /* buffers of one frame at most */
};

/* Of a buffer. But for VIFRONT_MORE they are of the frame, and count in its first buffer. */
enum vifront_flags {
	VIFRONT_MORE = 1,         /* the frame goes on in the next buffer */
	VIFRONT_CSUM_PARTIAL = 2, /* the checksum at csum_start + csum_offset is to be finished */
	VIFRONT_CSUM_VALID = 4,   /* the checksum was found good */
	VIFRONT_GSO_ECN = 8,      /* a TCP frame to be segmented that carries CWR */
};

/* Kinds of frames larger than the MTU, to be segmented; the values are those of virtio-net. */
enum vifront_gso {
	VIFRONT_GSO_NONE = 0,
	VIFRONT_GSO_TCPV4 = 1,
	VIFRONT_GSO_TCPV6 = 4,
	VIFRONT_GSO_UDP = 5,
};

/* What a front end takes as it is, else vifd finishes checksums and segments before. */
enum vifront_takes {
	VIFRONT_TAKES_CSUM = 1,
	VIFRONT_TAKES_TSO4 = 2,
	VIFRONT_TAKES_TSO6 = 4,
	VIFRONT_TAKES_TSO_ECN = 8,
	VIFRONT_TAKES_USO = 16,
};

struct vifront;

struct vifront_buf {
	void *data;           /* an Ethernet frame, without FCS, or a piece of one */
	uint32_t len;         /* bytes at data */
	uint32_t id;          /* the library's: leave it alone */
	uint8_t flags;        /* enum vifront_flags */
	uint8_t gso_type;     /* enum vifront_gso */
	uint16_t gso_size;    /* payload bytes per segment, 0 without GSO */
	uint16_t csum_start;  /* offset from the frame's start */
	uint16_t csum_offset; /* offset from csum_start */
};

/* A sentence that goes with a -errno. */
struct vifront_error {
	char text[512];
};

/* Zero: the default. */
struct vifront_options {
	uint32_t takes;      /* enum vifront_takes */
	uint32_t send_bytes; /* memory to send from that it would like: 0, as vifd likes */
	uint32_t timeout_ms; /* vifd must have answered after so long; 0: 5000 */
};

struct vifront_info {
	uint32_t queues;    /* numbered from 0 */
	uint32_t ring_size; /* buffers that can be on their way, each way, in each queue */
	uint32_t mtu;       /* bytes of L3 packet */
	uint8_t mac[6];     /* what vifd wants it to be; zero: anything */
	uint8_t shared;     /* 1: trust=shared, others can read what is received */
	uint8_t offload;    /* 0: send nothing unfinished, nothing larger than the MTU */
	uint32_t send_bufs; /* large buffers each queue has; or, for each of them, 31 small ones */
};

/* What to wait for. */
enum vifront_events {
	VIFRONT_RECV = 1, /* frames to receive */
	VIFRONT_SEND = 2, /* room: buffers that were sent came back since the last send or alloc */
};

/* ---- connecting ---- */

/*
 * Connect to the snet socket of vifd at path. options, NULL for the default, is copied. 0, and
 * *front is the caller's, to be closed; or -errno and a sentence: -ENOENT or -ECONNREFUSED: no vifd
 * there; -EPERM: vifd refuses, and error says why; -ETIMEDOUT; -EINTR; -EPROTO: not a vifd that we
 * understand. error may be NULL.
 */
VIFRONT_API int vifront_open(struct vifront **front, const char *path,
			     const struct vifront_options *options, struct vifront_error *error);
/*
 * Connect again, as vifront_open() did, whether vifd has gone or not. No thread may be using front:
 * all its buffers, sent, received or held, are void, also if this fails, and the memory they were in
 * is gone. Queues, MTU and the rest may be different afterwards. After a failure front is not
 * connected, and this can be tried again.
 */
VIFRONT_API int vifront_reopen(struct vifront *front, struct vifront_error *error);
/* Give everything back; NULL is ignored. No thread may be using front. */
VIFRONT_API void vifront_close(struct vifront *front);
/* What vifd said; valid until front is reopened or closed. */
VIFRONT_API const struct vifront_info *vifront_info(const struct vifront *front);
/* A sentence: why there is -ENOTCONN or -EPROTO. Valid as long. */
VIFRONT_API const char *vifront_why(const struct vifront *front);

/* ---- packets: for each queue one thread at a time ---- */

/*
 * Receive up to count buffers, whole frames only; with count >= VIFRONT_FRAME_BUFS any frame fits.
 * They may be read until they are released, in any order; vifd does not write to them meanwhile. It
 * has only so many: who keeps them gets less, or nothing. Returns how many, 0: nothing is there;
 * -EMSGSIZE: the next frame has more than count; -ENOTCONN, -EPROTO.
 */
VIFRONT_API int vifront_recv(struct vifront *front, unsigned queue, struct vifront_buf *bufs,
			     unsigned count);
/* Give back what vifront_recv() gave, each once. */
VIFRONT_API void vifront_release(struct vifront *front, unsigned queue,
				 const struct vifront_buf *bufs, unsigned count);

/*
 * Take up to count buffers of at least bytes each (1..VIFRONT_BUF_LARGE) to write frames into; data
 * and len say what there is, flags and the rest are 0. They are the caller's until sent or freed.
 * Returns how many, 0: all are on their way, wait for VIFRONT_SEND; -EMSGSIZE, -ENOTCONN.
 */
VIFRONT_API int vifront_alloc(struct vifront *front, unsigned queue, uint32_t bytes,
			      struct vifront_buf *bufs, unsigned count);
/* Give back what was not sent. */
VIFRONT_API void vifront_free(struct vifront *front, unsigned queue, const struct vifront_buf *bufs,
			      unsigned count);
/*
 * Send buffers of vifront_alloc() on the same queue, whole frames in a row. data and len say what is
 * sent, anywhere within the buffer. Returns how many of them, from the first on, went, as far as the
 * ring had room; these are no longer the caller's. -EINVAL, and nothing went: the first frame has no
 * end, too many buffers, an empty one, or one that is not the caller's; -ENOTCONN, -EPROTO.
 */
VIFRONT_API int vifront_send(struct vifront *front, unsigned queue, const struct vifront_buf *bufs,
			     unsigned count);

/*
 * Sleep until one of events (enum vifront_events) is there, at most timeout_ms, -1: as long as it
 * takes. Returns those that are, 0: none in time; -EINTR, -ENOTCONN, -EPROTO.
 */
VIFRONT_API int vifront_wait(struct vifront *front, unsigned queue, unsigned events,
			     int timeout_ms);

/* ---- for an event loop of one's own, in place of vifront_wait() ---- */

/* Readable when an event that was asked for with vifront_arm() has come. The library's. */
VIFRONT_API int vifront_event_fd(const struct vifront *front, unsigned queue);
/* Readable when vifd has something to say: then call vifront_attend(). The library's, another one
 * after vifront_reopen(). */
VIFRONT_API int vifront_socket_fd(const struct vifront *front);
/*
 * Before sleeping: ask for these events. Returns those that are there already, and then nothing was
 * asked for; 0: sleep; -ENOTCONN, -EPROTO. After sleeping call vifront_disarm(), whatever has come.
 */
VIFRONT_API int vifront_arm(struct vifront *front, unsigned queue, unsigned events);
VIFRONT_API void vifront_disarm(struct vifront *front, unsigned queue);
/* Hear what vifd says; any thread. 0, or -ENOTCONN: it has gone, -EPROTO: it speaks nonsense. */
VIFRONT_API int vifront_attend(struct vifront *front);

#ifdef __cplusplus
}
#endif

#endif
