/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Copies of frames for user space: of what comes and leaves by captured ports, and samples.
 * The frame itself goes on. A frame that is handed up is not copied here: the switch shows it.
 */
#pragma once

/* Bits of struct port's watch. */
enum {
	SEE_IN = 1,  /* what comes by the port is copied */
	SEE_OUT = 2, /* what leaves by it is copied */

	SEEN = SEE_IN | SEE_OUT,
};

/* What a copy is. */
enum kind { CAME, LEFT };

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
	u8 kind;
	u8 why; /* enum decision: what became of the frame */
};

/* A port's copies. */
struct copies {
	u32 snap; /* how many bytes of a frame are copied at most */
	u32 missed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32);
	__type(value, struct copies);
} copying SEC(".maps");

/* Where copies go. User space puts a ring here while it wants any. */
enum { CAPTURES, RINGS };

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

/* see copies a frame as it is at a port. */
global int see(struct __sk_buff *skb, u32 ring, u32 slot, u32 kind, u32 why)
{
	struct port *at = bpf_map_lookup_elem(&ports, &slot);
	struct copies *of = bpf_map_lookup_elem(&copying, &slot);
	void *into = bpf_map_lookup_elem(&rings, &ring);
	if (!at || !of || !into)
		return 0;
	struct copy head = {
		.time = bpf_ktime_get_ns(),
		.ifindex = at->ifindex,
		.length = skb->len,
		.bytes = skb->len < of->snap ? skb->len : of->snap,
		.tag = tag_of(skb),
		.slot = slot,
		.kind = kind,
		.why = why,
	};
	if (of->missed)
		head.missed = __sync_lock_test_and_set(&of->missed, 0);
	int ok = head.bytes <= 256 ? store(skb, into, &head, 256) :
		 head.bytes <= 2048 ? store(skb, into, &head, 2048) :
		 head.bytes <= 16384 ? store(skb, into, &head, 16384) : store(skb, into, &head, MAX_COPY);
	if (!ok)
		__sync_fetch_and_add(&of->missed, head.missed + 1);
	return 0;
}
