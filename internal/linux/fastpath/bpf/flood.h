/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames to all and to groups: each is cloned to the ports of its VLAN, or of its group. Which
 * these are, a CPU finds out once for a flow: it makes a plan, and the next frames follow
 * it as long as nothing changes.
 */
#pragma once
#include "busy.h"

/* The ports to which a VLAN's frames for all stations go. A VLAN that has more of them, or
 * others than these, is not in the table: its frames are handed up. */
#define MAX_FLOOD 64

struct listeners {
	u32 ports;
	u32 output[MAX_FLOOD]; /* VLAN << 16 | slot: this memory may be another list's soon */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, u32); /* VLAN */
	__type(value, struct listeners);
} floods SEC(".maps");

/* Group addresses that are for the switch itself at some port; 0: none. */
#define MAX_TRAPS 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TRAPS);
	__type(key, u32);
	__type(value, u64);
} traps SEC(".maps");

/* An output of a flooded frame. */
struct exit {
	u32 slot, ifindex; /* or an aggregate */
	u32 tag; /* as struct frame has it; 0: none, or for an opaque one, none more */
	u32 watch;
};

/* How a flow is flooded. It is good for as long as a remembered flow is. */
struct plan {
	struct frame of;
	struct verdict is; /* what it has of the input; and the length up to which frames may follow */
	u32 tag;     /* of frames as they come, without an opaque one */
	u32 snooped; /* not for messages that the switch snoops, or that go to a link */
	u32 busy;    /* a frame follows it */
	u32 exits;
	struct pace pace;
	struct exit exit[MAX_FLOOD];
};

#define PLANS 16 /* and one for frames that somebody asks about */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PLANS + 1);
	__type(key, u32);
	__type(value, struct plan);
} plans SEC(".maps");

/* is_trapped reports whether a group's frames are for the switch, or may be. */
static inline int is_trapped(u64 group)
{
	if (group >> 4 == 0x0180c2000000 >> 4)
		return 1; /* reserved for protocols between neighbours */
#pragma unroll
	for (u32 i = 0; i < MAX_TRAPS; i++) {
		u32 key = i;
		u64 *trap = bpf_map_lookup_elem(&traps, &key);
		if (!trap || *trap == group)
			return 1;
	}
	return 0;
}

/* A flow for which a plan is made. */
struct flooded {
	struct __sk_buff *skb;
	struct listeners *all;
	struct plan *plan;
	u32 in;  /* slot */
	u32 tag; /* the frame's */
	u32 fits;
	u16 vlan, opaque;
	u32 from, unwanted; /* flags: of the input; of outputs by which it does not leave */
	u32 ask;  /* the switch has to see it */
	u32 once; /* the next frame may be another matter */
};

enum leaves { NOT_BY_IT, BY_IT, ASK };

/* leaves reports whether a flooded frame leaves by a port, as whyNot in switch/egress.go, and
 * with which tag, as retag in switch/vlan.go. The switch is asked if its device is another's. */
static inline enum leaves leaves(struct flooded *f, u32 output, struct exit *e)
{
	u32 slot = output & 0xffff;
	if (output >> 16 != f->vlan)
		return ASK;
	if (slot == f->in)
		return NOT_BY_IT;
	struct port *to = bpf_map_lookup_elem(&ports, &slot);
	if (!to || !(to->flags & TO))
		return ASK;
	if (to->flags & (f->unwanted | (f->from & ISOLATED)))
		return NOT_BY_IT;
	if (to->flags & TUNNEL)
		return ASK; /* which knows the hosts that get it */
	e->slot = slot;
	e->ifindex = to->ifindex;
	e->watch = to->watch & SEE_OUT;
	e->tag = 0;
	if (f->vlan != to->native) {
		e->tag = (u32)to->tpid << 16 | (f->tag & 0xf000) | f->vlan;
		if (!to->tpid)
			return ASK;
	} else if (f->tag && to->tpid && to->tpid == (f->opaque ? f->tag >> 16 : (u16)f->skb->protocol)) {
		return NOT_BY_IT; /* it would hop into another VLAN */
	}
	return BY_IT;
}

/* device_of returns the device by which a frame leaves; 0: it is gone, or another's. It is asked
 * for each frame: the number may be another's at the next. */
static inline u32 device_of(struct __sk_buff *skb, struct exit *e)
{
	if (e->ifindex & AGGREGATE)
		return member_for(skb, e->ifindex);
	u32 *device = bpf_map_lookup_elem(&devices, &e->slot);
	return device && *device == e->ifindex ? e->ifindex : 0;
}

/* fits returns the length up to which frames are not too long for a device, which come with one
 * tag, opaque or not, and leave with another; 0: this one is. It is a function so that the
 * verifier looks at it once. */
global u32 fits(struct __sk_buff *skb, u32 ifindex, u32 came, u32 opaque, u32 tag)
{
	u32 mtu = 0, length = wire_length(skb) - (came && !opaque ? TAG : 0) + (tag ? TAG : 0);
	u16 first = tag ? tag >> 16 : opaque ? came >> 16 : 0;
	int more = grows(skb, length, first);
	return bpf_check_mtu(skb, ifindex, &mtu, more, 0) ? 0 : mtu + ETHERNET - more;
}

/* choose adds one of all ports to a plan if a frame leaves by it. It is called in a loop; 1 ends
 * that. */
static long choose(u64 i, struct flooded *f)
{
	if (i >= MAX_FLOOD || f->plan->exits >= MAX_FLOOD)
		return 1;
	struct exit e;
	switch (leaves(f, f->all->output[i], &e)) {
	case NOT_BY_IT:
		return 0;
	case BY_IT: {
		u32 ifindex = device_of(f->skb, &e), room = 0;
		if (ifindex && can_see(f->skb, e.watch))
			room = f->skb->len > FITS_ALL ? fits(f->skb, ifindex, f->tag, f->opaque, e.tag) : FITS_ALL;
		if (room) {
			u32 n = f->plan->exits;
			if (n >= MAX_FLOOD)
				return 1;
			f->plan->exit[n] = e;
			f->plan->exits = n + 1;
			if (f->fits > room)
				f->fits = room;
			if (e.ifindex & AGGREGATE)
				f->once = 1;
			return 0;
		}
	}
	default:
		f->ask = 1;
		return 1;
	}
}

#include "groups.h"

/* class_of and has_foreign_tag are functions so that the verifier does not know what they return: it
 * looks at what follows once, and not for each result. */
global u32 class_of(u64 group)
{
	return group == 0xffffffffffff ? BROADCAST : MULTICAST;
}

global u32 has_foreign_tag(u32 tag, u32 tpid)
{
	return tag && tag >> 16 != tpid;
}

/* make_plan finds out what becomes of a frame to a group: it is sent on to all ports of its
 * VLAN that may have it, as toAll in switch/flood.go, or to those that joined the group, unless
 * the switch has to be asked about it. */
static inline enum decision make_plan(struct __sk_buff *skb, struct flooded *f, struct frame *of, enum reality is)
{
	struct plan *p = f->plan;
	p->is.fits = p->exits = 0; /* no frame follows it until it is done */

	/* All that the epoch guards is read after it. */
	u32 zero = none(of->epoch);
	u64 group = destination(of);
	u32 class = class_of(group);
	struct port *from = input(of->ifindex + zero, &f->in);
	struct hash *hash = bpf_map_lookup_elem(&hashes, &zero);
	if (!from || !hash)
		return UP;
	f->from = from->flags;
	if (from->flags & (GUARDED | PUNT << (class & 1)) || (class == MULTICAST && is_trapped(group)))
		return UP;
	f->tag = of->tag;
	f->opaque = has_foreign_tag(f->tag, from->tpid);
	f->vlan = classify(f->tag, from);
	f->unwanted = NO_FLOOD << (class & 1);
	f->once = is_tag(skb->protocol);
	f->all = listeners(f, group);
	if (!f->all || f->all->ports > MAX_FLOOD)
		return UP;
	if (!is_admitted(hash, from, f->in, source(of), f->vlan, 0, is))
		return UP;
	p->is.in = f->in;
	p->is.bucket = from->bucket;
	p->is.mirror_in = from->mirror_in;
	p->is.watch = from->watch & SEE_COMING;
	p->tag = f->opaque ? 0 : f->tag;
	f->fits = MAX_COPY;
	bpf_loop(f->all->ports, choose, f, 0);
	if (f->ask)
		return UP;
	if (!p->exits)
		return NOWHERE;
	if (!f->once) {
		p->of = *of;
		p->is.fits = f->fits;
	}
	return ON;
}

/* is_planned reports whether a frame may follow a plan. */
static inline int is_planned(struct __sk_buff *skb, struct plan *p, struct frame *of)
{
	return p->of.dst_src == of->dst_src && p->of.src == of->src && p->of.ifindex == of->ifindex &&
	       p->of.tag == of->tag && p->of.epoch == of->epoch && p->of.lap == of->lap &&
	       skb->len <= p->is.fits && !is_tag(skb->protocol) &&
	       !(p->snooped && (may_be_control(skb) || is_of_link(skb)));
}

/* A frame that follows a plan. */
struct copied {
	struct __sk_buff *skb;
	struct plan *plan;
	u32 now;  /* its tag, without an opaque one */
	u32 sent; /* how many copies */
	u32 last; /* ifindex by which the frame itself leaves, the last of all; 0: it does not */
	u32 keep; /* the frame itself stays */
};

/* wear changes the tag of a frame. */
static inline int wear(struct copied *c, u32 tag)
{
	if (c->now == tag)
		return 1;
	if (c->now && bpf_skb_vlan_pop(c->skb))
		return 0;
	c->now = 0;
	if (tag && bpf_skb_vlan_push(c->skb, tag >> 16, tag))
		return 0;
	c->now = tag;
	return 1;
}

/* send_copy sends a frame on by one of its plan's outputs, unless its device is gone. Or it leaves
 * that to the caller: a copy costs the kernel more than the frame itself. */
static long send_copy(u64 i, struct copied *c)
{
	if (i >= MAX_FLOOD)
		return 1;
	struct exit *e = &c->plan->exit[i];
	u32 ifindex = device_of(c->skb, e);
	struct counters *out = bpf_map_lookup_elem(&counts, &e->slot);
	if (!ifindex || !out || !wear(c, e->tag))
		return 0;
	c->sent++;
	if (e->watch)
		see(c->skb, e->slot, LEFT, 0);
	if (i + 1 != c->plan->exits || c->keep) {
		copy_to(c->skb, ifindex, out);
		return 0;
	}
	c->last = ifindex;
	out->tx_frames++;
	out->tx_bytes += wire_length(c->skb);
	return 1;
}

/* flood does what make_plan finds out. With keep it leaves the frame as it is, and returns
 * TCX_DROP. */
global int flood(struct __sk_buff *skb, int keep)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	u32 zero = 0, *epoch = bpf_map_lookup_elem(&epochs, &zero);
	if (data + ETHERNET > end || !epoch)
		return hand_up(skb);
	struct frame of = {
		.dst_src = *(u64 *)data,
		.src = *(u32 *)(data + 8),
		.ifindex = skb->ifindex,
		.tag = tag_of(skb),
		.epoch = *(volatile u32 *)epoch,
		.lap = bpf_jiffies64() >> LAP_SHIFT,
	};
	u32 n = (of.dst_src ^ (u64)of.src << 16 ^ of.ifindex) * 0x9e3779b97f4a7c15 >> 60 & (PLANS - 1);
	struct plan *p = bpf_map_lookup_elem(&plans, &n);
	if (!p || p->busy) /* a copy came back while others were on their way */
		return hand_up(skb);
	if (!is_planned(skb, p, &of)) {
		struct flooded f = {.skb = skb, .plan = p};
		enum decision is = make_plan(skb, &f, &of, REAL);
		if (is == UP)
			return f.from & GUARDED ? hand_up_vetted(skb) : hand_up(skb);
		if (is == NOWHERE)
			return dismiss(skb, &p->is, NOWHERE, 0);
	}

	u32 port = p->is.in, watch = p->is.watch;
	u64 started = 0;
	if (p->exits >= BUSY_EXITS && !keep) {
		u32 now = term();
		started = notice(&p->pace, p->exits, port, now);
		if (switch_floods(port, now))
			return hand_up(skb);
	}

	/* From here on it is as with a frame to one station. */
	struct counters *in = bpf_map_lookup_elem(&counts, &port);
	if (!in)
		return hand_up(skb);
	if (!can_copy(skb, &p->is) || !can_see(skb, watch))
		return hand_up(skb);
	int late = p->is.bucket && !admit(skb, p->is.bucket);
	if (late && wanted(port))
		return hand_up(skb);
	if (p->is.mirror_in)
		mirror(skb, p->is.mirror_in, port);
	see_coming(skb, watch, port | (late ? NO_PORT : p->exits > 1 ? SEVERAL : p->exit[0].slot) << 16, late ? POLICED : ON);
	if (late)
		return discard(skb, port, POLICED);

	u32 length = wire_length(skb);
	struct copied c = {.skb = skb, .plan = p, .now = p->tag, .keep = keep};
	p->busy = 1;
	bpf_loop(p->exits, send_copy, &c, 0);
	p->busy = 0;
	if (started)
		measure(&p->pace, started, p->exits);
	if (!c.sent) {
		in->lost++; /* no memory to change its tag, or all devices are gone */
		return TCX_DROP;
	}
	in->rx_frames++;
	in->rx_bytes += length;
	in->copies += c.sent - 1;
	if (keep)
		wear(&c, p->tag);
	return c.last ? bpf_redirect(c.last, 0) : TCX_DROP;
}
