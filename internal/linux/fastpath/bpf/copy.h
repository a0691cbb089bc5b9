/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Copies of frames for user space: of what comes and leaves by captured ports, and by ports with
 * mirrors that the switch serves; samples of what comes, and some of what is dropped. The frame itself goes on. A frame that is handed up
 * is not copied here: the switch shows it.
 */
#pragma once

/* Bits of struct port's watch. */
enum {
	SEE_IN = 1,      /* what comes by the port is copied */
	SEE_OUT = 2,     /* what leaves by it is copied */
	SAMPLED = 4,     /* one of so many that come by it is copied */
	NOTED = 8,       /* some that are dropped are copied */
	MIRROR_IN = 16,  /* what comes is copied, */
	MIRROR_OUT = 32, /* or what leaves, for mirrors that the switch serves */

	MIRRORED = MIRROR_IN | MIRROR_OUT,
	SEEN = SEE_IN | SEE_OUT | MIRRORED,
	SEE_COMING = SEE_IN | SAMPLED | MIRROR_IN,
	SEE_LEAVING = SEE_OUT | MIRROR_OUT,
};

/* What a copy is. */
enum kind { CAME, LEFT, SAMPLE, NOTE, MIRRORED_IN, MIRRORED_OUT };

/* What else there is to say of a frame: enum decision, what becomes of it; the slot of the port by
 * which it leaves, or one of these. Then among how many it was drawn, or how many like it were not
 * copied before it. MIRRORED_OUT has the slot that received the frame, and then whether the frame
 * has its own tag behind the one that it got. */
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
	/* What is left to others: 0 in each, or the length of segments; where the checksum is, and
	 * its place from there; and the type of the segments, as the virtio-net header has it. */
	u16 segment, checksum_from, checksum_at, type;
};

/* Where copies go, and what the switch is asked (busy.h). User space puts a ring here while it
 * wants any. */
enum rings { CAPTURES, SAMPLES, MIRRORS, COPYING, ASKS = COPYING, RINGS };

/* A port's copies. */
struct copies {
	u32 snap[COPYING]; /* how many bytes of a frame are copied at most */
	u32 missed[COPYING];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32);
	__type(value, struct copies);
} copying SEC(".maps");

/* The draw of a port's samples on one CPU. */
struct sampling {
	u32 one_in;
	u32 skip; /* frames to the next sample, with it */
	u32 of; /* those since the last one that was copied, with it */
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

/* can_see reports whether a frame can be copied, if it has to: it is short enough, and if it is a
 * super-frame for mirrors, says where its checksum is. */
static inline int can_see(struct __sk_buff *skb, u32 watch)
{
	if (!(watch & SEEN))
		return 1;
	if (watch & MIRRORED && skb->gso_size) {
		struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
		if (read_bits(k, ip_summed) != CHECKSUM_PARTIAL)
			return 0;
	}
	return skb->len <= MAX_COPY;
}

/* Samples wake nobody until so many bytes of them wait: an eighth of their ring. User space looks for
 * the others now and then: to wake a thread takes longer than all else that a sample does. */
#define WAKE_AT (128 << 10)

static inline u64 wake(void *ring)
{
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) < WAKE_AT ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP;
}

/* virtio_type returns a super-frame's type as the virtio-net header has it; 0: it has no such type. */
static inline u16 virtio_type(u32 as)
{
	u16 ecn = as & GSO_TCP_ECN ? 0x80 : 0;
	if (as & GSO_TCPV4)
		return 1 | ecn;
	if (as & GSO_TCPV6)
		return 4 | ecn;
	return as & GSO_UDP_FRAGMENTS ? 3 : as & GSO_UDP ? 5 : 0;
}

/* see copies a frame as it is at a port, and reports whether there was room. The verifier wants
 * to know the size of a place in a ring, so there are four. */
global int see(struct __sk_buff *skb, u32 slot, u32 kind, u64 with)
{
	u32 ring = kind < SAMPLE ? CAPTURES : kind < MIRRORED_IN ? SAMPLES : MIRRORS;
	u32 key = ring; /* of which the verifier of Linux 6.12 forgets the value */
	struct port *at = bpf_map_lookup_elem(&ports, &slot);
	struct copies *of = bpf_map_lookup_elem(&copying, &slot);
	void *into = bpf_map_lookup_elem(&rings, &key);
	if (!at || !of || !into)
		return 0;
	u32 bytes = skb->len < of->snap[ring] ? skb->len : of->snap[ring];
	u32 room = bytes <= 256 ? 256 : bytes <= 2048 ? 2048 : bytes <= 16384 ? 16384 : MAX_COPY;
	struct copy *c = bpf_ringbuf_reserve(into, sizeof(*c) + room, 0);
	if (!c) {
		__sync_fetch_and_add(&of->missed[ring], 1);
		return 0;
	}
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	u16 from = 0, sum = 0;
	if (read_bits(k, ip_summed) == CHECKSUM_PARTIAL) {
		from = start_of(k);
		sum = k->csum_offset;
	}
	c->time = bpf_ktime_get_ns();
	c->ifindex = at->ifindex;
	c->length = skb->len;
	c->bytes = bytes;
	c->tag = tag_of(skb);
	c->missed = of->missed[ring] ? __sync_lock_test_and_set(&of->missed[ring], 0) : 0;
	c->slot = slot;
	c->kind = kind;
	c->with = with;
	c->segment = skb->gso_size;
	c->checksum_from = from;
	c->checksum_at = sum;
	c->type = skb->gso_size ? virtio_type(gso_type(k)) : 0;
	if (!bytes || bytes > room || bpf_skb_load_bytes(skb, 0, c + 1, bytes)) {
		__sync_fetch_and_add(&of->missed[ring], c->missed + 1);
		bpf_ringbuf_discard(c, 0);
		return 0;
	}
	bpf_ringbuf_submit(c, kind == SAMPLE ? wake(into) : 0);
	return 1;
}

/* drawn counts a frame that came by a port, and reports whether it is a sample. */
static inline int drawn(u32 slot)
{
	struct sampling *s = bpf_map_lookup_elem(&samplings, &slot);
	return s && --s->skip == 0;
}

/* copy_coming copies a frame that came by a port. The port is the slot in the lower half of where,
 * and the upper half is for with. */
global int copy_coming(struct __sk_buff *skb, u32 watch, u32 where, u32 why)
{
	u32 slot = where & 0xffff, to = where >> 16;
	if (watch & SEE_IN)
		see(skb, slot, CAME, with(why, to, 0));
	if (watch & MIRROR_IN)
		see(skb, slot, MIRRORED_IN, with(why, to, 0));
	struct sampling *s = watch & SAMPLED ? bpf_map_lookup_elem(&samplings, &slot) : 0;
	if (!s)
		return 0;
	if (see(skb, slot, SAMPLE, with(why, to, s->of)))
		s->of = 0;
	s->skip = 1 + bpf_get_prandom_u32() % (2 * s->one_in - 1);
	s->of += s->skip;
	return 0;
}

/* see_coming is copy_coming if the frame is wanted. Most frames of a sampled port are not: that is
 * decided without a call. */
static inline void see_coming(struct __sk_buff *skb, u32 watch, u32 where, u32 why)
{
	if (!(watch & SEE_COMING))
		return;
	if (watch & SAMPLED && !drawn(where & 0xffff)) {
		watch &= ~SAMPLED;
		if (!(watch & SEE_COMING))
			return;
	}
	copy_coming(skb, watch, where, why);
}

/* see_leaving copies a frame that leaves by a port, which is in the upper half of where; it came by
 * that in the lower half. It got this tag, if any, and lost the one that it came with if pop is set. */
global int see_leaving(struct __sk_buff *skb, u32 watch, u32 where, u32 tpid, u32 pop)
{
	u16 type = skb->protocol;
	if (watch & SEE_OUT)
		see(skb, where >> 16, LEFT, 0);
	if (watch & MIRROR_OUT)
		see(skb, where >> 16, MIRRORED_OUT, with(0, where & 0xffff, tpid && !pop && (type == C_TPID || type == S_TPID)));
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
