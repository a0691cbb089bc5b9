/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Copies of frames for user space: of what comes and leaves by captured ports, samples of
 * what comes, and some of what is dropped. The frame itself goes on. A frame that is handed up
 * is not copied here: the switch shows it.
 */
#pragma once

/* Bits of struct port's watch. */
enum {
	SEE_IN = 1,  /* what comes by the port is copied */
	SEE_OUT = 2, /* what leaves by it is copied */
	SAMPLED = 4, /* one of so many that come by it is copied */
	NOTED = 8,   /* some that are dropped are copied */

	SEEN = SEE_IN | SEE_OUT,
	SEE_COMING = SEE_IN | SAMPLED,
};

/* What a copy is. */
enum kind { CAME, LEFT, SAMPLE, NOTE };

/* What else there is to say of a frame: enum decision, what becomes of it; the slot of the port by
 * which it leaves, or else one of these; and among how many it was drawn, or how many like it
 * were not copied before it. */
#define NO_PORT 0xffffu
#define SEVERAL 0xfffeu

static inline u64 with(u32 why, u32 to, u32 of)
{
	return why | to << 16 | (u64)of << 32;
}

/* A frame longer than that is handed up where it would be copied. */
#define MAX_COPY (65536 + 256)

/* A copy as user space reads it. The frame follows, without the tag that is beside it. */
struct copy {
	u64 time; /* ns of CLOCK_MONOTONIC */
	u32 ifindex; /* of the port's device */
	u32 length; /* of the frame without that tag */
	u32 bytes; /* that are copied of it */
	u32 tag; /* as struct frame has it */
	u32 missed; /* copies of the port's frames before this one, for which there was no room */
	u16 slot;
	u16 kind;
	u64 with;
};

/* Where copies go. User space puts a ring here while it wants any. */
enum rings { CAPTURES, SAMPLES, RINGS };

/* A port's copies. */
struct copies {
	u32 snap; /* how many bytes of a captured frame are copied at most */
	u32 missed[RINGS];
};

#define SAMPLE_BYTES 256 /* that are copied of others */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32);
	__type(value, struct copies);
} copying SEC(".maps");

/* The draw of a port's samples on one CPU. */
struct sampling {
	u32 one_in;
	u32 skip; /* frames before the next sample, with it */
	u32 of; /* frames since the last one, with it */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32);
	__type(value, struct sampling);
} samplings SEC(".maps");

/* What is dropped at a port for one reason: one frame in a lap is copied. */
struct note {
	u32 lap;
	u32 others; /* not copied since */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8 * MAX_PORTS);
	__type(key, u32); /* slot << 8 | enum decision */
	__type(value, struct note);
} notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, RINGS);
	__type(key, u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_RINGBUF);
		__uint(max_entries, 4096); /* each ring has its own size */
	});
} rings SEC(".maps");

/* store puts a copy of a frame into a ring, in a place for so many bytes: the verifier wants
 * a number that it knows. */
static inline int store(struct __sk_buff *skb, void *ring, struct copy *head, u32 room)
{
	u32 bytes = head->bytes;
	if (!bytes || bytes > room)
		return 0;
	struct copy *c = bpf_ringbuf_reserve(ring, sizeof(*c) + room, 0);
	if (!c)
		return 0;
	*c = *head;
	if (bpf_skb_load_bytes(skb, 0, c + 1, bytes)) {
		bpf_ringbuf_discard(c, 0);
		return 0;
	}
	bpf_ringbuf_submit(c, 0);
	return 1;
}

/* can_see reports whether a frame is short enough to be copied, if it has to. */
static inline int can_see(struct __sk_buff *skb, u32 watch)
{
	return !(watch & SEEN) || skb->len <= MAX_COPY;
}

/* see copies a frame as it is at a port, and reports whether there was room. */
global int see(struct __sk_buff *skb, u32 slot, u32 kind, u64 with)
{
	u32 ring = kind < SAMPLE ? CAPTURES : SAMPLES;
	struct port *at = bpf_map_lookup_elem(&ports, &slot);
	struct copies *of = bpf_map_lookup_elem(&copying, &slot);
	void *into = bpf_map_lookup_elem(&rings, &ring);
	if (!at || !of || !into)
		return 0;
	u32 *missed = &of->missed[ring], snap = ring == CAPTURES ? of->snap : SAMPLE_BYTES;
	struct copy head = {
		.time = bpf_ktime_get_ns(),
		.ifindex = at->ifindex,
		.length = skb->len,
		.bytes = skb->len < snap ? skb->len : snap,
		.tag = tag_of(skb),
		.slot = slot,
		.kind = kind,
		.with = with,
	};
	if (*missed)
		head.missed = __sync_lock_test_and_set(missed, 0);
	int ok = head.bytes <= 256 ? store(skb, into, &head, 256) :
		 head.bytes <= 2048 ? store(skb, into, &head, 2048) :
		 head.bytes <= 16384 ? store(skb, into, &head, 16384) : store(skb, into, &head, MAX_COPY);
	if (!ok)
		__sync_fetch_and_add(missed, head.missed + 1);
	return ok;
}

/* see_coming copies a frame that came by a port, if it is wanted. The port is the slot in the
 * lower half of where, and the upper half is for with. */
global int see_coming(struct __sk_buff *skb, u32 watch, u32 where, u32 why)
{
	u32 slot = where & 0xffff, to = where >> 16;
	if (watch & SEE_IN)
		see(skb, slot, CAME, with(why, to, 0));
	struct sampling *s = watch & SAMPLED ? bpf_map_lookup_elem(&samplings, &slot) : 0;
	if (!s)
		return 0;
	s->of++;
	if (s->skip > 1) {
		s->skip--;
		return 0;
	}
	s->skip = 1 + bpf_get_prandom_u32() % (2 * s->one_in - 1);
	if (see(skb, slot, SAMPLE, with(why, to, s->of)))
		s->of = 0;
	return 0;
}

/* note copies a frame that is dropped at a port, if it is wanted. */
global int note(struct __sk_buff *skb, u32 slot, u32 why)
{
	struct port *at = bpf_map_lookup_elem(&ports, &slot);
	if (!at || !(at->watch & NOTED))
		return 0;
	u32 key = slot << 8 | (u8)why, lap = bpf_jiffies64() >> LAP_SHIFT;
	struct note *n = bpf_map_lookup_elem(&notes, &key);
	if (!n) {
		struct note first = {.lap = lap};
		bpf_map_update_elem(&notes, &key, &first, 0);
		see(skb, slot, NOTE, with(why, NO_PORT, 0));
	} else if (n->lap == lap) {
		__sync_fetch_and_add(&n->others, 1);
	} else {
		n->lap = lap;
		see(skb, slot, NOTE, with(why, NO_PORT, __sync_lock_test_and_set(&n->others, 0)));
	}
	return 0;
}
