/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ports that flood much. Most of what a copy costs is that its reader is woken for it. The
 * switch takes frames in batches, and wakes a reader once for the copies of a batch. So the
 * program asks it to flood in its place, for a port whose floods keep a processor busy. The answer
 * is the term up to whose end the port's floods are handed up. The program asks anew in each term:
 * when the switch has ended, or cannot keep up, the program soon floods again.
 */
#pragma once

#define BUSY_EXITS 4 /* so many outputs are many */

/* A flow floods much if copies take BUSY_SPENT of BUSY_TIME, an eighth of a processor's time. Only
 * frames count that are close behind others. A frame is close if it comes within twice the time that
 * its copies take, and that of a guest's write: then batches form, and the switch's way takes less
 * CPU time (docs/design/fastpath.md). How long a copy takes is measured, since it is several times
 * longer where processors are slow to wake. All are in ns. */
#define BUSY_SPENT 512000
#define BUSY_TIME (8 * BUSY_SPENT)
#define BUSY_WRITE 1000

/* The copies of one frame in so many are timed. */
#define TIMED 16

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

/* How busy a flow is. */
struct pace {
	u64 since; /* when counting began; times are ns of CLOCK_MONOTONIC */
	u64 last;  /* when a frame came last */
	u64 spent; /* ns that copies of close frames took since then */
	u32 frames;
	u32 cost;  /* ns a copy, as measured; or 0 */
	u32 asked; /* the term in which the switch was asked last */
};

static inline u32 term(void)
{
	return bpf_jiffies64() >> TERM_SHIFT;
}

/* ask asks the switch. */
global int ask(u32 slot, u32 term)
{
	u32 index = ASKS;
	void *ring = bpf_map_lookup_elem(&rings, &index);
	if (!ring)
		return 0;
	struct ask *a = bpf_ringbuf_reserve(ring, sizeof(*a), 0);
	if (!a)
		return 0;
	a->slot = slot;
	a->term = term;
	bpf_ringbuf_submit(a, 0);
	return 1;
}

/* notice counts what a flow's frame takes, and asks the switch once in a term if that is much. It
 * returns the time. */
static inline u64 notice(struct pace *p, u32 copies, u32 slot, u32 term)
{
	u64 now = bpf_ktime_get_ns(), takes = (u64)p->cost * copies;
	if (now - p->since > BUSY_TIME) {
		p->since = now;
		p->spent = 0;
	}
	if (now - p->last <= 2 * takes + BUSY_WRITE)
		p->spent += takes;
	p->last = now;
	p->frames++;
	if (p->spent >= BUSY_SPENT && p->asked != term) {
		p->asked = term;
		ask(slot, term);
	}
	return now;
}

/* measure takes how long a frame's copies took since started into the flow's average. A frame that was
 * interrupted counts as one that took twice as long as others. */
static inline void measure(struct pace *p, u64 started, u32 copies)
{
	if (p->frames % TIMED != 1)
		return;
	u64 cost = (bpf_ktime_get_ns() - started) / copies, most = 2 * (u64)p->cost;
	if (!p->cost)
		p->cost = cost;
	else
		p->cost = (7 * (u64)p->cost + (cost < most ? cost : most)) / 8;
}

/* switch_floods reports whether the switch floods for a port in a term. */
static inline int switch_floods(u32 slot, u32 term)
{
	u32 *until = bpf_map_lookup_elem(&busy_ports, &slot);
	return until && *until - term <= 1;
}
