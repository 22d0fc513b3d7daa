/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The forwarding table of a bridge.
 *
 * Theory of operation. The table is set-associative: a keyed hash of the address picks a set of
 * eight entries, and an address lives in its set or nowhere. A look-up reads one cache line. An
 * entry is a single 64-bit word,
 *
 *      63      62 .. 48        47 .. 0
 *      static  port id         address (first byte on the wire lowest)
 *
 * so a reader that finds its address in a word has the port that belongs to it, whatever writers do
 * meanwhile, with no lock, no sequence count and no retry. When an address was last seen is kept
 * beside, in a word of its own: a reader may pair it with the wrong entry for an instant, and the
 * worst of that is one packet flooded or one second of ageing lost. Writers take a spinlock; the
 * refresh of a known address, the common case, does not, and writes only once a second.
 *
 * Fair eviction. The table is finite and its keys come from guests. With plain least-recently-used
 * eviction a guest that sends from random addresses pushes everybody's entries out, and traffic
 * between the others is flooded to it (a MAC flooding attack, which is also how one eavesdrops on a
 * switch). So room is shared out between ports:
 *
 *      - A free entry is anybody's: an uplink with a large network behind it may fill an idle
 *        table.
 *      - In a full set, the port that gives way is the one that owns most entries of the whole
 *        table, among those that own one in this set; its oldest entry there is the victim.
 *      - A newcomer whose port owns more of the table than every owner in the set is refused.
 *
 * Hence an entry is lost only to a port that owns no more than the loser does. A flooding guest
 * comes to own most, and from then on pays for everything itself: its newcomers replace its own
 * entries or are refused, and whatever others learn replaces its entries too. A port with few
 * entries keeps them. The hash is keyed with a secret so that a guest cannot aim at another's set.
 *
 * Static entries, the operator's and guests' configured addresses, never age, move or get evicted,
 * and do not count in their port's share.
 */
#include "bridge/mac_table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define ENTRY_STATIC  (UINT64_C(1) << 63)
#define ENTRY_ADDRESS ((UINT64_C(1) << 48) - 1)

static_assert(sizeof(struct mac_set) == 64, "a look-up reads one cache line");
static_assert(MAC_TABLE_PORTS <= 1 << 15, "a port id fits an entry");

static uint64_t address_of(const uint8_t *mac)
{
	uint32_t low;
	uint16_t high;

	memcpy(&low, mac, 4);
	memcpy(&high, mac + 4, 2);
	return low | (uint64_t)high << 32;
}

static uint64_t entry_of(uint64_t address, uint16_t port)
{
	return address | (uint64_t)port << 48;
}

static uint16_t entry_port(uint64_t entry)
{
	return entry >> 48 & 0x7fff;
}

/*
 * Multiply, fold, multiply: addresses that count up, as guests' do, are a straight line after one
 * multiplication and may all meet in a few sets; folding the upper half in between breaks the line.
 */
static uint32_t set_of(const struct mac_table *table, uint64_t address)
{
	uint64_t mixed = (address ^ table->seed[0]) * table->seed[1];

	mixed ^= mixed >> 32;
	mixed *= table->seed[1];
	return mixed >> 32 & table->set_mask;
}

/* The entry of address in set, 0 if there is none, and which way it is in. */
static uint64_t find(const struct mac_set *set, uint64_t address, unsigned *way)
{
	for (unsigned i = 0; i < MAC_TABLE_WAYS; i++) {
		uint64_t entry = atomic_load_explicit(&set->entries[i], memory_order_acquire);

		if ((entry & ENTRY_ADDRESS) == address && entry) {
			*way = i;
			return entry;
		}
	}
	return 0;
}

static uint32_t seen(const struct mac_stamps *stamps, unsigned way)
{
	return atomic_load_explicit(&stamps->seen[way], memory_order_relaxed);
}

/* Workers read the clock at slightly different times, so an entry can be from the future. */
static uint32_t age_of(const struct mac_stamps *stamps, unsigned way, uint32_t now_sec)
{
	int32_t age = (int32_t)(now_sec - seen(stamps, way));

	return age > 0 ? age : 0;
}

int mac_table_init(struct mac_table *table, unsigned entries)
{
	unsigned sets = 64 / MAC_TABLE_WAYS;

	if (entries == 0)
		entries = MAC_TABLE_DEFAULT;
	while (sets * MAC_TABLE_WAYS < entries && sets < MAC_TABLE_MAX / MAC_TABLE_WAYS)
		sets *= 2;
	memset(table, 0, sizeof(*table));
	atomic_flag_clear(&table->lock);
	table->set_mask = sets - 1;
	if (getrandom(table->seed, sizeof(table->seed), GRND_NONBLOCK) != sizeof(table->seed)) {
		/* Before the kernel has gathered randomness. Better a guessable table than none. */
		table->seed[0] = (uint64_t)time(NULL) * UINT64_C(0x9e3779b97f4a7c15);
		table->seed[1] = (uintptr_t)table ^ UINT64_C(0xd6e8feb86659fd93);
	}
	table->seed[1] |= 1;
	table->sets = aligned_alloc(64, sets * sizeof(*table->sets));
	table->stamps = calloc(sets, sizeof(*table->stamps));
	if (!table->sets || !table->stamps) {
		mac_table_fini(table);
		return -ENOMEM;
	}
	memset(table->sets, 0, sets * sizeof(*table->sets));
	return 0;
}

void mac_table_fini(struct mac_table *table)
{
	free(table->sets);
	free(table->stamps);
	table->sets = NULL;
	table->stamps = NULL;
}

uint16_t mac_table_lookup(const struct mac_table *table, const uint8_t *mac, uint32_t now_sec,
			  uint32_t ageing_sec)
{
	uint64_t address = address_of(mac);
	uint32_t set = set_of(table, address);
	unsigned way;
	uint64_t entry = find(&table->sets[set], address, &way);

	if (!entry)
		return 0;
	if (!(entry & ENTRY_STATIC) && ageing_sec &&
	    age_of(&table->stamps[set], way, now_sec) > ageing_sec)
		return 0;
	return entry_port(entry);
}

static void lock(struct mac_table *table)
{
	while (atomic_flag_test_and_set_explicit(&table->lock, memory_order_acquire))
		__builtin_ia32_pause();
}

static void unlock(struct mac_table *table)
{
	atomic_flag_clear_explicit(&table->lock, memory_order_release);
}

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* Every change goes through here, under the lock: put entry (0: none) where another or none was. */
static void replace(struct mac_table *table, uint32_t set, unsigned way, uint64_t entry,
		    uint32_t now_sec)
{
	uint64_t old = atomic_load_explicit(&table->sets[set].entries[way], memory_order_relaxed);

	if (old && !(old & ENTRY_STATIC))
		table->per_port[entry_port(old)]--;
	if (entry && !(entry & ENTRY_STATIC))
		table->per_port[entry_port(entry)]++;
	if (old && entry && ((old ^ entry) & ENTRY_ADDRESS))
		count(&table->evicted);
	table->used += (entry != 0) - (old != 0);
	/* The stamp first, so that nobody takes the new entry for an old one; the generation last,
	 * so that whoever still finds the old entry also caches it under the old generation. */
	atomic_store_explicit(&table->stamps[set].seen[way], now_sec, memory_order_relaxed);
	atomic_store_explicit(&table->sets[set].entries[way], entry, memory_order_release);
	atomic_fetch_add_explicit(&table->generation, 1, memory_order_release);
}

/*
 * The way of a set where a new entry of newcomer may go: a free one, or the victim of fair
 * eviction. -1 when there is none. must: for the operator's entries, who gives way is chosen
 * likewise but nobody is refused.
 */
static int place_for(struct mac_table *table, uint32_t set, uint16_t newcomer, bool must)
{
	uint32_t most = must ? 0 : table->per_port[newcomer];
	uint32_t oldest = 0;
	int victim = -1;

	for (unsigned way = 0; way < MAC_TABLE_WAYS; way++) {
		uint64_t entry = atomic_load_explicit(&table->sets[set].entries[way],
						      memory_order_relaxed);
		uint32_t stamp = seen(&table->stamps[set], way);

		if (!entry)
			return way;
		if (entry & ENTRY_STATIC)
			continue;
		uint32_t owned = table->per_port[entry_port(entry)];

		if (owned > most ||
		    (owned == most && (victim < 0 || (int32_t)(stamp - oldest) < 0))) {
			most = owned;
			oldest = stamp;
			victim = way;
		}
	}
	return victim;
}

/* The part of learning that changes the table, under the lock. */
static enum mac_learn learn_locked(struct mac_table *table, uint32_t set, uint64_t address,
				   uint16_t port, uint32_t now_sec)
{
	unsigned way;
	uint64_t entry = find(&table->sets[set], address, &way);
	int place;

	if (entry && entry_port(entry) == port) /* another worker was faster */
		return MAC_KNOWN;
	if (entry & ENTRY_STATIC)
		return MAC_REFUSED;
	if (entry) {
		replace(table, set, way, entry_of(address, port), now_sec);
		return MAC_MOVED;
	}
	place = place_for(table, set, port, false);
	if (place < 0)
		return MAC_REFUSED;
	replace(table, set, place, entry_of(address, port), now_sec);
	return MAC_NEW;
}

enum mac_learn mac_table_learn(struct mac_table *table, const uint8_t *mac, uint16_t port,
			       uint32_t now_sec)
{
	uint64_t address = address_of(mac);
	uint32_t set = set_of(table, address);
	enum mac_learn result = MAC_REFUSED;
	unsigned way;
	uint64_t entry = find(&table->sets[set], address, &way);

	if (entry && entry_port(entry) == port) {
		if (!(entry & ENTRY_STATIC) && seen(&table->stamps[set], way) != now_sec)
			atomic_store_explicit(&table->stamps[set].seen[way], now_sec,
					      memory_order_relaxed);
		return MAC_KNOWN;
	}
	if (!(entry & ENTRY_STATIC)) {
		lock(table);
		result = learn_locked(table, set, address, port, now_sec);
		unlock(table);
	}
	if (result == MAC_NEW)
		count(&table->learned);
	else if (result == MAC_MOVED)
		count(&table->moved);
	else if (result == MAC_REFUSED)
		count(&table->refused);
	return result;
}

int mac_table_add_static(struct mac_table *table, const uint8_t *mac, uint16_t port)
{
	uint64_t address = address_of(mac);
	uint32_t set = set_of(table, address);
	int result = 0, place;
	unsigned way;

	lock(table);
	uint64_t entry = find(&table->sets[set], address, &way);

	place = entry ? (int)way : place_for(table, set, port, true);
	if ((entry & ENTRY_STATIC) && entry_port(entry) != port)
		result = -EEXIST;
	else if (place < 0)
		result = -ENOSPC;
	else
		replace(table, set, place, entry_of(address, port) | ENTRY_STATIC, 0);
	unlock(table);
	return result;
}

int mac_table_delete(struct mac_table *table, const uint8_t *mac)
{
	uint64_t address = address_of(mac);
	uint32_t set = set_of(table, address);
	int result = -ENOENT;
	unsigned way;

	lock(table);
	if (find(&table->sets[set], address, &way)) {
		replace(table, set, way, 0, 0);
		result = 0;
	}
	unlock(table);
	return result;
}

void mac_table_forget_port(struct mac_table *table, uint16_t port)
{
	lock(table);
	for (uint32_t set = 0; set <= table->set_mask; set++) {
		for (unsigned way = 0; way < MAC_TABLE_WAYS; way++) {
			uint64_t entry = atomic_load_explicit(&table->sets[set].entries[way],
							      memory_order_relaxed);

			if (entry && entry_port(entry) == port)
				replace(table, set, way, 0, 0);
		}
	}
	unlock(table);
}

static bool expired(const struct mac_table *table, uint32_t set, unsigned way, uint32_t now_sec,
		    uint32_t ageing_sec)
{
	uint64_t entry = atomic_load_explicit(&table->sets[set].entries[way], memory_order_acquire);

	return entry && !(entry & ENTRY_STATIC) &&
	       age_of(&table->stamps[set], way, now_sec) > ageing_sec;
}

void mac_table_age(struct mac_table *table, uint32_t now_sec, uint32_t ageing_sec)
{
	if (!ageing_sec)
		return;
	for (uint32_t set = 0; set <= table->set_mask; set++) {
		for (unsigned way = 0; way < MAC_TABLE_WAYS; way++) {
			if (!expired(table, set, way, now_sec, ageing_sec))
				continue;
			/* The lock for one entry at a time: workers wait on it. */
			lock(table);
			if (expired(table, set, way, now_sec, ageing_sec)) {
				replace(table, set, way, 0, 0);
				count(&table->aged);
			}
			unlock(table);
		}
	}
}

unsigned mac_table_list(const struct mac_table *table, unsigned *position, struct mac_row *rows,
			unsigned n, uint32_t now_sec)
{
	unsigned got = 0, size = mac_table_size(table);

	for (; *position < size && got < n; ++*position) {
		uint32_t set = *position / MAC_TABLE_WAYS;
		unsigned way = *position % MAC_TABLE_WAYS;
		uint64_t entry = atomic_load_explicit(&table->sets[set].entries[way],
						      memory_order_acquire);
		struct mac_row *row = &rows[got];

		if (!entry)
			continue;
		for (unsigned i = 0; i < 6; i++)
			row->mac[i] = entry >> (8 * i);
		row->port = entry_port(entry);
		row->is_static = entry & ENTRY_STATIC;
		row->age_sec = row->is_static ? 0 : age_of(&table->stamps[set], way, now_sec);
		got++;
	}
	return got;
}
