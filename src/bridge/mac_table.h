/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The forwarding table of one bridge: MAC address -> port. Set-associative; readers take no lock, writers (workers
 * that learn, the main thread) take one. The theory of operation, fair eviction included, is in mac_table.c.
 */
#ifndef VIFD_MAC_TABLE_H
#define VIFD_MAC_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { MAC_TABLE_WAYS = 8, MAC_TABLE_DEFAULT = 8192, MAC_TABLE_PORTS = 1024 };

enum mac_learn { MAC_KNOWN, MAC_NEW, MAC_MOVED, MAC_REFUSED /* static elsewhere, or no fair place */ };

struct mac_entry {
	_Atomic uint64_t key;   /* 48-bit address, bit 63 set; 0: free */
	_Atomic uint64_t value; /* port id, static flag, last use in seconds */
};

struct mac_table {
	struct mac_entry *entries;      /* [sets * MAC_TABLE_WAYS] */
	uint32_t set_mask;
	uint64_t seed;                  /* secret: guests cannot aim at a set */
	_Atomic uint32_t generation;    /* counts every change but refreshes; caches of look-ups compare it */
	atomic_flag lock;
	uint32_t used;
	uint32_t per_port[MAC_TABLE_PORTS]; /* entries by port id */
	uint64_t learned, moved, evicted, aged, refused;
};

/* A row for listings. */
struct mac_row {
	uint8_t mac[6];
	uint16_t port;
	bool is_static;
	uint32_t age_sec;
};

/* entries: rounded up to a power of two >= 64. 0 or -ENOMEM. */
int mac_table_init(struct mac_table *table, unsigned entries);
void mac_table_fini(struct mac_table *table);
/* Port id behind mac, 0 when unknown or older than ageing_sec (0: no limit). */
uint16_t mac_table_lookup(const struct mac_table *table, const uint8_t *mac, uint32_t now_sec, uint32_t ageing_sec);
/* mac was seen as a source on port. */
enum mac_learn mac_table_learn(struct mac_table *table, const uint8_t *mac, uint16_t port, uint32_t now_sec);
/* 0, -EEXIST when static on another port, -ENOSPC when its set is full of static entries. */
int mac_table_add_static(struct mac_table *table, const uint8_t *mac, uint16_t port);
/* Delete any entry of mac. 0 or -ENOENT. */
int mac_table_delete(struct mac_table *table, const uint8_t *mac);
void mac_table_forget_port(struct mac_table *table, uint16_t port);
void mac_table_age(struct mac_table *table, uint32_t now_sec, uint32_t ageing_sec);
/* Copy up to n rows from *position on (start with 0); returns how many, 0 at the end. */
unsigned mac_table_list(struct mac_table *table, unsigned *position, struct mac_row *rows, unsigned n, uint32_t now_sec);

#endif
