/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ports that flood much. Most of what a copy costs is that its reader is woken for it. The
 * switch takes frames in batches, and wakes a reader once for the copies of a batch. So the
 * program asks it to flood in its place, for a port whose frames go to many others, many times a
 * second. The answer is the term up to whose end the port's floods are handed up. The program asks
 * anew in each term: when the switch has ended, or cannot keep up, the program soon floods again.
 */
#pragma once

#define BUSY_EXITS 4 /* so many outputs are many */

/* So many copies of a flow in so many ns are much: 250,000 in a second. From about 330,000 on,
 * the switch's way takes less CPU time where frames come one by one; and the port can send more
 * as soon as it takes that way, if its frames come in bursts (docs/design/fastpath.md). */
#define BUSY_COPIES 1024
#define BUSY_TIME 4096000

/* A term is 16 ticks of the kernel: 16 to 160 ms, by its HZ. */
#define TERM_SHIFT 4

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32);
	__type(value, u32); /* a term */
} busy_ports SEC(".maps");

/* What the switch is asked. */
struct ask {
	u32 slot, term;
};

/* How busy a flow was in a term. */
struct pace {
	u64 since; /* ns of CLOCK_MONOTONIC, from the first frame on */
	u32 term;
	u32 copies;
};

static inline u32 term(void)
{
	return bpf_jiffies64() >> TERM_SHIFT;
}

/* ask asks the switch, if the copies of a flow were made fast. */
global int ask(u32 slot, u32 term, u64 since)
{
	u32 index = ASKS;
	void *ring = bpf_map_lookup_elem(&rings, &index);
	if (!ring || bpf_ktime_get_ns() - since > BUSY_TIME)
		return 0;
	struct ask *a = bpf_ringbuf_reserve(ring, sizeof(*a), 0);
	if (!a)
		return 0;
	a->slot = slot;
	a->term = term;
	bpf_ringbuf_submit(a, 0);
	return 1;
}

/* notice counts the copies of a flow's frame, and asks the switch once in a term. */
static inline void notice(struct pace *p, u32 copies, u32 slot, u32 term)
{
	if (p->term != term || !p->copies) {
		p->term = term;
		p->copies = copies;
		p->since = bpf_ktime_get_ns();
		return;
	}
	u32 before = p->copies;
	p->copies += copies;
	if (before < BUSY_COPIES && p->copies >= BUSY_COPIES)
		ask(slot, term, p->since);
}

/* switch_floods reports whether the switch floods for a port in a term. */
static inline int switch_floods(u32 slot, u32 term)
{
	u32 *until = bpf_map_lookup_elem(&busy_ports, &slot);
	return until && *until - term <= 1;
}
