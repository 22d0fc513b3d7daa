/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The forwarding table of one bridge: MAC address -> port. Set-associative; readers take no lock,
 * writers (workers that learn, the main thread) take one. The theory of operation, fair eviction
 * included, is in mac_table.c.
 */
#ifndef VIFD_MAC_TABLE_H
#define VIFD_MAC_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
	MAC_TABLE_WAYS = 8,
	MAC_TABLE_DEFAULT = 8192,
	MAC_TABLE_MAX = 1 << 20,
	MAC_TABLE_PORTS = 1024,
};

enum mac_learn {
	MAC_KNOWN,
	MAC_NEW,
	MAC_MOVED,
	MAC_REFUSED /* static elsewhere, or no fair place */
};

/* One cache line, all that a look-up reads. Address, port and static flag in a word; 0: free. */
struct mac_set {
	_Alignas(64) _Atomic uint64_t entries[MAC_TABLE_WAYS];
};

/* When each learned entry of a set was last seen as a source, in seconds. */
struct mac_stamps {
	_Atomic uint32_t seen[MAC_TABLE_WAYS];
};

struct mac_table {
	struct mac_set *sets;
	struct mac_stamps *stamps;
	uint32_t set_mask;
	uint64_t seed[2];            /* secret: guests cannot aim at a set */
	_Atomic uint32_t generation; /* counts every change but refreshes; caches compare it */

	_Alignas(64) atomic_flag lock; /* what follows is changed under it */
	uint32_t used;
	uint32_t per_port[MAC_TABLE_PORTS]; /* learned entries by port id */
	_Atomic uint64_t learned, moved, evicted, aged, refused;
};

/* A row for listings. */
struct mac_row {
	uint8_t mac[6];
	uint16_t port;
	bool is_static;
	uint32_t age_sec;
};

/* entries: 0 is the default; rounded up to a power of two, 64..MAC_TABLE_MAX. 0 or -ENOMEM. */
int mac_table_init(struct mac_table *table, unsigned entries);
void mac_table_fini(struct mac_table *table);
/* Entries that there is room for. */
static inline unsigned mac_table_size(const struct mac_table *table)
{
	return (table->set_mask + 1) * MAC_TABLE_WAYS;
}

/*
 * Port id behind mac, 0 when unknown or not seen for more than ageing_sec (0: no limit).
 * A cache of the answer is good while generation is what it was before the call.
 */
uint16_t mac_table_lookup(const struct mac_table *table, const uint8_t *mac, uint32_t now_sec,
			  uint32_t ageing_sec);
/* mac (neither group nor zero) was seen as a source on port (1..MAC_TABLE_PORTS - 1). */
enum mac_learn mac_table_learn(struct mac_table *table, const uint8_t *mac, uint16_t port,
			       uint32_t now_sec);
/* Put mac on port for good; a learned entry of mac becomes this one. 0, -EEXIST when static on
 * another port, -ENOSPC when its set is full of static entries. */
int mac_table_add_static(struct mac_table *table, const uint8_t *mac, uint16_t port);
/* Delete any entry of mac. 0 or -ENOENT. */
int mac_table_delete(struct mac_table *table, const uint8_t *mac);
/* Delete all entries of port, static ones too. */
void mac_table_forget_port(struct mac_table *table, uint16_t port);
/* Delete learned entries not seen for more than ageing_sec (0: none). */
void mac_table_age(struct mac_table *table, uint32_t now_sec, uint32_t ageing_sec);
/* Copy up to n rows from *position on (start with 0); returns how many, 0 at the end. */
unsigned mac_table_list(const struct mac_table *table, unsigned *position, struct mac_row *rows,
			unsigned n, uint32_t now_sec);

#endif
