/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snet's protocol of sleeping and waking, and its indexes (src/snet/snet_ring.h), for spin.
 *
 * One pair of rings: entries from a producer to a consumer, ids back. The other pair is the same
 * with the sides exchanged; nothing of one is used by the other but the doorbell, which can then
 * only ring more often.
 *
 *      producer                          shared memory                        consumer
 *      N entries, at most SIZE out  -->  entries, produced, wants  -->  takes them, one or several
 *      takes the ids back           <--  ids, given_back, wants    <--  gives ids back in any order
 *
 * Memory is that of x86: each side's stores wait in a buffer and become visible later, in order. A
 * fence waits until the buffer is empty. Indexes wrap at WRAP, a multiple of SIZE as 2^32 is of
 * every ring's size.
 *
 * What is checked: whoever sleeps is woken (otherwise the search ends in a state where both sleep,
 * which spin reports); entries arrive whole and in order; nothing is taken or given back twice; no
 * ring overflows. Compiled with NO_FENCE, NO_SECOND_LOOK or NO_PRODUCER_FENCE it must fail:
 * test_model.py.
 */
#define SIZE 2
#define WRAP 4
#define N    6

/* shared memory */
byte entry_id[SIZE], entry_data[SIZE], done_id[SIZE];
byte produced, given_back;
bool producer_wants, consumer_wants;
/* eventfds */
bool kick, call;

mtype = { ENTRY, PRODUCED, PRODUCER_WANTS, DONE, GIVEN_BACK, CONSUMER_WANTS };

/* stores on their way: what, where, value, second value */
chan producer_stores = [4] of { mtype, byte, byte, byte };
chan consumer_stores = [4] of { mtype, byte, byte, byte };

proctype memory(chan stores)
{
	mtype what;
	byte at, value, data;

end:	do
	:: atomic {
		stores ? what, at, value, data ->
		if
		:: what == ENTRY -> entry_id[at] = value; entry_data[at] = data
		:: what == PRODUCED -> produced = value
		:: what == PRODUCER_WANTS -> producer_wants = value
		:: what == DONE -> done_id[at] = value
		:: what == GIVEN_BACK -> given_back = value
		:: what == CONSUMER_WANTS -> consumer_wants = value
		fi
	   }
	od
}

/* before the other side's wants are looked at, after an index was published (snet_must_wake()) */
inline fence_after_publishing(stores)
{
#ifndef NO_PRODUCER_FENCE
	empty(stores)
#else
	skip
#endif
}

/* between saying what is waited for and the last look (snet_want()) */
inline fence_after_wanting(stores)
{
#ifndef NO_FENCE
	empty(stores)
#else
	skip
#endif
}

proctype producer()
{
	byte sent = 0;      /* entries, in all */
	byte index = 0;     /* the same, wrapped: as published */
	byte returned = 0;  /* ids taken back, wrapped */
	byte back = 0;      /* in all */
	byte seen, id;
	bool out[SIZE];

	do
	:: back == N -> break
	:: else ->
		/* take back what there is */
		seen = given_back;
		do
		:: returned != seen ->
			id = done_id[returned % SIZE];
			assert(id < SIZE && out[id]); /* each once */
			out[id] = false;
			returned = (returned + 1) % WRAP;
			back++
		:: else -> break
		od;
		if
		:: sent < N && sent - back < SIZE ->
			/* any id that is not out */
			if
			:: !out[0] -> id = 0
			:: !out[1] -> id = 1
			fi;
			out[id] = true;
			producer_stores ! ENTRY, index % SIZE, id, sent;
			index = (index + 1) % WRAP;
			producer_stores ! PRODUCED, 0, index, 0;
			sent++;
			fence_after_publishing(producer_stores);
			if
			:: consumer_wants -> kick = true
			:: else
			fi
		:: (sent == N || sent - back == SIZE) && back < N ->
			/* nothing to do but to wait for ids */
			producer_stores ! PRODUCER_WANTS, 0, 1, 0;
			fence_after_wanting(producer_stores);
			if
#ifndef NO_SECOND_LOOK
			:: given_back != returned
			:: given_back == returned -> call -> call = false
#else
			:: call -> call = false
#endif
			fi;
			producer_stores ! PRODUCER_WANTS, 0, 0, 0
		:: else
		fi
	od
}

proctype consumer()
{
	byte taken = 0;  /* entries, in all */
	byte index = 0;  /* wrapped */
	byte given = 0;  /* ids, in all */
	byte given_index = 0;
	byte seen, id;
	bool held[SIZE]; /* taken, not given back */
	byte holds = 0;
	bool tell = false;

	do
	:: given == N && !tell -> break
	:: else ->
		/* tell of what was given back since: not at once, but before sleep (snet.c) */
		if
		:: tell ->
			tell = false;
			fence_after_publishing(consumer_stores);
			if
			:: producer_wants -> call = true
			:: else
			fi
		:: else
		fi;
		/* take what there is */
		seen = produced;
		do
		:: index != seen ->
			id = entry_id[index % SIZE];
			assert(entry_data[index % SIZE] == taken); /* whole, in order */
			assert(id < SIZE && !held[id]);
			held[id] = true;
			holds++;
			taken++;
			index = (index + 1) % WRAP
		:: else -> break
		od;
		assert(taken - given <= SIZE);
		if
		:: holds > 0 ->
			/* give one or several back, in any order; or keep one for a while */
			do
			:: held[0] -> id = 0; goto give
			:: held[1] -> id = 1; goto give
			:: holds < SIZE && taken < N -> break /* to see if there is more */
			:: holds == 0 -> break
			od;
			goto given_enough;
give:			held[id] = false;
			holds--;
			consumer_stores ! DONE, given_index % SIZE, id, 0;
			given_index = (given_index + 1) % WRAP;
			given++;
			consumer_stores ! GIVEN_BACK, 0, given_index, 0;
			tell = true;
given_enough:		skip
		:: holds == 0 && !tell && given < N ->
			consumer_stores ! CONSUMER_WANTS, 0, 1, 0;
			fence_after_wanting(consumer_stores);
			if
#ifndef NO_SECOND_LOOK
			:: produced != index
			:: produced == index -> kick -> kick = false
#else
			:: kick -> kick = false
#endif
			fi;
			consumer_stores ! CONSUMER_WANTS, 0, 0, 0
		:: holds == 0 && tell
		:: holds == 0 && !tell && given == N
		fi
	od
}

init
{
	atomic {
		run memory(producer_stores);
		run memory(consumer_stores);
		run producer();
		run consumer()
	}
}
