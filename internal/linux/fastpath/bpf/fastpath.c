/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's share of the data path, at the tcx ingress of each port that is a
 * network device. A frame is either
 *
 *   sent on   by bpf_redirect, with the VLAN tag that the output asks for, if both
 *             its stations are known, each behind a port that takes part; or cloned to
 *             the ports of its VLAN, if it goes to all or to a group;
 *   dropped   and counted, if that is what the switch would do with it: its
 *             destination is behind the port it came by, both ports are isolated, no
 *             port may have it, or it is beyond its port's rate;
 *   handed up to the switch in every other case: unknown or moved stations, groups that
 *             are for the switch, ports with a feature that is not in here.
 *
 * Each frame meets this decision once, so none can go both ways or neither.
 *
 * Ports and stations are user space's; what is written here is counters, and
 * when a station was last heard. The rules are those of the packages switch and fdb,
 * with one shortcut: a station is only in the table in VLANs that its port carries,
 * so knowing the sender where it comes from is the ingress filter of 802.1Q-2018
 * clause 8.6.2, and knowing the destination is the egress filter of clause 8.6.4.
 */
#include "kernel.h"
#include "checksum.h"
#include "segment.h"

#define MAX_PORTS 4096 /* slots; as many as a switch has ports */

/* A port by its slot. Flags are 0 in a slot that no port has. */
struct port {
	u32 ifindex;    /* or AGGREGATE and a number: lag.h */
	u16 generation; /* stations of another one are forgotten, and soon taken out */
	u16 pvid;       /* VLAN of frames without a tag that counts; 0: handed up */
	u16 native;     /* VLAN that leaves untagged; 0: none */
	u16 tpid;       /* of the tags that count, network byte order; 0: none do */
	u32 flags;
	u16 bucket;     /* 1 + the number of the bucket that limits what comes by it; 0: no limit */
	u8 mirror_in, mirror_out; /* mirrors that copy what comes and what leaves by it, a bit each */
	u8 watch; /* what user space sees of its frames: copy.h */
	u8 resolves; /* messages of address resolution that come by it are handed up */
	u32 : 16;
};

#define MAX_MIRRORS 8

enum {
	FROM = 1,          /* frames that come by the port may be sent on */
	TO = 2,            /* frames may be sent on by the port */
	ISOLATED = 4,      /* exchanges none with another isolated port */
	UNTAGGED_ONLY = 8, /* frames with a VLAN's tag are refused: handed up */
	NO_LEARN = 16,     /* stations are not learned: their frames need not be known */
	LOCKED = 32,       /* but they need to with this one */
	DROPS = 64,        /* frames that would be dropped are handed up: somebody wants to see them */

	/* By class, BROADCAST or MULTICAST, shifted: */
	NO_FLOOD = 128, /* frames that are flooded do not leave by it */
	PUNT = 512,     /* those that come by it are handed up: limited, or taken */

	GUARDED = 2048,      /* what comes by it has to be plainly good: guard.h */
	TUNNEL = 8192,       /* leads to other hosts: encap.h */
	HOST_SHARED = 32768, /* the host has what comes by it, too: shared.h */
	SNOOP = 1 << 16,     /* the switch sees what may teach it the addresses of who is behind it */
	ROUTER_GUARD = 1 << 17, /* what may be a query to a station and comes by it is handed up */
};

enum class { BROADCAST, MULTICAST };

/* A station: where it is, and when it was last heard, in units of 2^30 ns of
 * CLOCK_MONOTONIC: about a second, without a division. */
struct station {
	u16 slot;
	u16 generation; /* of the port when the entry was made */
	u32 heard;
};

/* Stations are in a hash table whose lines are those of a CPU's cache: a station is in
 * one of two, so most are found with one miss. The key goes last when a place is given
 * to a station, and first when it is taken away. */
#define PLACES 4

struct line {
	u64 key[PLACES]; /* VLAN << 48 | MAC, as in package fdb; 0: free */
	struct station station[PLACES];
};

/* How keys lead to lines; odd factors that guests do not know. */
struct hash {
	u64 mix, choice[2];
	u32 shift; /* leaves the number of a line */
	u32 : 32;
};

/* The rate of a port, shared with the switch, which counts what it is handed up in the same
 * word: both paths of a port have one budget. A port has two buckets in a line of the
 * cache. A new rate comes with the other one, which nobody uses by then. */
struct bucket {
	u64 until; /* ns of CLOCK_MONOTONIC: what was admitted uses the rate until then */
	u64 rate;  /* RATE_BYTES, the shift in 6 bits, and what a frame or byte costs: ns << shift */
	u64 burst; /* ns */
	u64 over;  /* a frame was refused, and since then the rate was never unused for late() */
};

#define RATE_BYTES (1ULL << 63) /* else it counts frames */
#define RATE_SHIFT 56
#define RATE_COST ((1ULL << RATE_SHIFT) - 1)

#define GUARD_REASONS 7 /* BAD_TAG and the next of enum opinion */

/* What was not handed up, by slot. A frame is counted as rx of the port it came by and
 * as tx of the one it was sent to; those that are dropped are counted as rx as well. */
struct counters {
	u64 rx_frames, rx_bytes;
	u64 tx_frames, tx_bytes;
	u64 same_port, isolated, policed;
	u64 nowhere; /* no port may have it */
	u64 copies; /* beside rx: made by mirrors and floods, each counted as tx where it left */
	u64 unsent; /* tx: copies for which there was no memory */
	u64 lost; /* beside rx: no memory to change the frame's tag, or the device is another's */
	u64 unknown_vtep, unknown_vni;
	u64 guarded[GUARD_REASONS];
	u32 showing, shown; /* in which second how many of those were handed up */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32); /* ifindex */
	__type(value, u32);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32);
	__type(value, struct port);
} ports SEC(".maps");

/* The device of each slot, by which it is known from others that have its number later:
 * the kernel takes a device out when it is deleted or goes to another network
 * namespace, before any other gets the number, and whoever keeps the table. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32);
	__type(value, u32); /* ifindex */
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 65536); /* set when loaded: the FDB's capacity, rounded up */
	__type(key, u32);
	__type(value, struct line);
} stations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct hash);
} hashes SEC(".maps");

/* By which device a mirror's copies leave. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_MIRRORS);
	__type(key, u32);
	__type(value, u32); /* ifindex */
} mirrors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * MAX_PORTS);
	__type(key, u32);
	__type(value, struct bucket);
} buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32);
	__type(value, struct counters);
} counts SEC(".maps");

/* Changes with everything that user space changes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} epochs SEC(".maps");

/* What the frame looks like, as far as the decision depends on it. */
struct frame {
	u64 dst_src; /* the first 8 bytes as they are in memory */
	u32 src;     /* the next 4 */
	u32 ifindex;
	u32 tag; /* TPID << 16 | TCI, TPID in network byte order; 0: none */
	u32 epoch;
	u32 lap;
	u32 path; /* of the tunnel that it came by; 0: none */
};

/* A sender behind a guarded port. As a key it has no unnamed padding, which is not zeroed. */
struct sender {
	u32 address[4]; /* network byte order; one of IPv4 is in the first */
	u64 station;    /* VLAN << 48 | MAC; VLAN 0: every one */
	u32 slot;
	u32 type; /* EtherType of the address, network byte order; 0: the MAC alone */
};

/* How a frame is sent on. */
struct verdict {
	u32 in, out; /* slots */
	u32 ifindex;
	u16 hop; /* handed up if this EtherType shows behind the tag that goes */
	u16 tpid; /* of the tag that it gets, network byte order; 0: none */
	u16 tci;
	u16 pop; /* the tag it came with goes first */
	u32 fits; /* no frame up to this length is too long for the output */
	u16 bucket; /* as that of struct port */
	u8 mirror_in, mirror_out; /* the latter without the former: a mirror copies a frame once */
	u8 watch; /* of the input, for what comes; and of the output, for what leaves */
	u8 asks;  /* what has to be true of each frame, see guard.h; 0: nothing */
	u16 path; /* of a tunnel, by which it leaves; 0: by none */
};

/* A frame up to this length fits whatever the MTU, the smallest of which is 68, and the tags. */
#define FITS_ALL (68 + ETHERNET - 2 * TAG)

/* The flows that this CPU saw last: four lookups less for the next frame. An entry is
 * good for its epoch, and for its lap, so that `heard` is written, and an MTU that
 * became smaller is seen. A lap is 64 ticks of the kernel: 64 to 640 ms, by its HZ,
 * and the cheapest clock there is. */
#define FLOWS 256
#define LAP_SHIFT 6

struct flows {
	struct {
		struct frame of;
		struct verdict is;
	} last[FLOWS];
	struct sender from[FLOWS]; /* if that is asked */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct flows);
} recent SEC(".maps");

/*
 * hand_up leaves the frame to the switch, whose packet socket on this device is bound
 * to one EtherType and so is given what comes after tcx. The outer one of two S-tags is
 * taken off by the kernel, which finds no device for the reserved VLAN 4095; the inner
 * one makes that EtherType, and the switch takes it off. Nobody else takes frames of
 * that EtherType: without a switch they are gone, and the host never sees one.
 *
 * But a bridge, a bond, Open vSwitch or a macvlan that gets the device takes frames before
 * packet sockets of one EtherType do, and would send them on with those tags. Then the
 * frame is lost, from the first one on: the switch hears of it later, and says so.
 */
#define HAND_UP_TPID be16(0x88a8)
#define HAND_UP_TCI 0xfff

/* mark puts both tags in front of a frame. */
static inline int mark(struct __sk_buff *skb)
{
	return bpf_skb_vlan_push(skb, HAND_UP_TPID, HAND_UP_TCI) == 0 &&
	       bpf_skb_vlan_push(skb, HAND_UP_TPID, HAND_UP_TCI) == 0;
}

/* lose counts a frame that the switch should have had. */
static inline void lose(struct __sk_buff *skb)
{
	u32 ifindex = skb->ifindex;
	u32 *slot = bpf_map_lookup_elem(&slots, &ifindex);
	struct counters *c = slot ? bpf_map_lookup_elem(&counts, slot) : 0;
	if (c)
		c->lost++;
}

global int hand_up(struct __sk_buff *skb)
{
	struct sk_buff *kernel_skb = bpf_cast_to_kern_ctx(skb);
	if (!kernel_skb->dev->rx_handler && mark(skb))
		return TCX_PASS;
	lose(skb);
	return TCX_DROP;
}

static inline u32 wire_length(struct __sk_buff *skb)
{
	return skb->len + (skb->vlan_present ? TAG : 0);
}

/* headers returns how many bytes at the beginning of a super-frame each of its segments
 * repeats, as wireSize in switch/police.go: those up to the end of TCP's or UDP's, if
 * the checksum is left to others, else the shortest. */
static inline u32 headers(struct __sk_buff *skb)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	if (read_bits(k, ip_summed) != CHECKSUM_PARTIAL)
		return ETHERNET + 20 + 20;
	u32 start = start_of(k);
	if (k->csum_offset != CSUM_OF_TCP)
		return start + 8;
	u8 offset;
	return start + (bpf_skb_load_bytes(skb, start + 12, &offset, 1) ? 20 : (offset >> 4) * 4);
}

/* cost returns how much of a rate's time a frame uses, in ns. A super-frame counts as its
 * segments. */
static inline u64 cost(struct __sk_buff *skb, u64 rate)
{
	u64 frames = 1, bytes = wire_length(skb);
	if (skb->gso_size) {
		u32 each = headers(skb);
		if (each < bytes) {
			frames = (bytes - each + skb->gso_size - 1) / skb->gso_size;
			bytes += (frames - 1) * each;
		}
	}
	return (rate & RATE_BYTES ? bytes : frames) * (rate & RATE_COST) >> (rate >> RATE_SHIFT & 0x3f);
}

/* late is how much lost time a port makes up for that is over its rate: see policeLate in switch/police.go. */
static inline u64 late(u64 rate)
{
	return 50000000 + ((rate & RATE_BYTES ? 1514 : 1) * (rate & RATE_COST) >> (rate >> RATE_SHIFT & 0x3f));
}

/* admit reports whether a frame is within a rate, and counts it if so: bucket.allow in
 * switch/police.go. The exact clock is a call that takes longer than all the rest, so it is asked
 * only before a frame is refused; the coarse one is up to a tick behind. Frames of several
 * CPUs that pass the check at the same time all pass, and all count. */
global int admit(struct __sk_buff *skb, u32 bucket)
{
	u32 n = bucket - 1;
	struct bucket *b = bpf_map_lookup_elem(&buckets, &n);
	if (!b)
		return 1;
	u64 takes = cost(skb, b->rate), now = bpf_ktime_get_coarse_ns();
	u64 until = *(volatile u64 *)&b->until;
	if (until < now) {
		int over = b->over && now - until <= late(b->rate) + takes;
		if (!over && __sync_bool_compare_and_swap(&b->until, until, now + takes)) {
			if (b->over)
				b->over = 0;
			return 1;
		}
		/* Or another frame has just brought it up to now. */
	} else if (until - now >= b->burst) {
		now = bpf_ktime_get_ns();
		if (until >= now && until - now >= b->burst) {
			if (!b->over)
				b->over = 1;
			return 0;
		}
	}
	__sync_fetch_and_add(&b->until, takes);
	return 1;
}

/* target is where a mirror's copies leave. */
struct target {
	u32 slot, ifindex;
};

/* aim reports whether that is there. */
static inline int aim(u32 mirror, struct target *t)
{
	u32 *to = bpf_map_lookup_elem(&mirrors, &mirror);
	if (!to)
		return 0;
	t->ifindex = *to;
	u32 *slot = bpf_map_lookup_elem(&slots, &t->ifindex);
	if (!slot)
		return 0;
	t->slot = *slot;
	u32 *device = bpf_map_lookup_elem(&devices, &t->slot);
	return device && *device == t->ifindex;
}

/* can_mirror reports whether these mirrors can copy a frame, which is longer by more than it
 * is now when they do. */
global int can_mirror(struct __sk_buff *skb, u32 wanted, int more)
{
	for (u32 i = 0; i < MAX_MIRRORS; i++) {
		struct target t;
		u32 mtu = 0;
		if (wanted & 1 << i && (!aim(i, &t) || bpf_check_mtu(skb, t.ifindex, &mtu, more, 0)))
			return 0;
	}
	return 1;
}

/* copy_to sends a copy of a frame. */
static inline void copy_to(struct __sk_buff *skb, u32 ifindex, struct counters *out)
{
	u32 length = wire_length(skb);
	if (bpf_clone_redirect(skb, ifindex, 0) < 0) {
		out->unsent++;
		return;
	}
	out->tx_frames++;
	out->tx_bytes += length;
}

/* mirror has mirrors copy a frame as it is now. */
global int mirror(struct __sk_buff *skb, u32 wanted, u32 from)
{
	struct counters *in = bpf_map_lookup_elem(&counts, &from);
	for (u32 i = 0; i < MAX_MIRRORS; i++) {
		struct target t;
		if (!(wanted & 1 << i) || !aim(i, &t))
			continue;
		struct counters *out = bpf_map_lookup_elem(&counts, &t.slot);
		if (!in || !out)
			continue;
		in->copies++;
		copy_to(skb, t.ifindex, out);
	}
	return 0;
}

/* tag_of returns a frame's tag as struct frame has it. */
static inline u32 tag_of(struct __sk_buff *skb)
{
	return skb->vlan_present ? (u32)(u16)skb->vlan_proto << 16 | (u16)skb->vlan_tci : 0;
}

#include "copy.h"
#include "lag.h"

/* What becomes of a frame. */
enum decision { UP, ON, SAME_PORT, BOTH_ISOLATED, POLICED, NOWHERE, HOSTS };

/* wanted reports whether somebody wants to see the frames of a port that are dropped. */
static inline int wanted(u32 slot)
{
	struct port *p = bpf_map_lookup_elem(&ports, &slot);
	return p && p->flags & DROPS;
}

/* discard counts a frame that the switch does not forward. */
static inline int discard(struct __sk_buff *skb, u32 slot, enum decision why)
{
	note(skb, slot, why);
	struct counters *c = bpf_map_lookup_elem(&counts, &slot);
	if (c) {
		c->rx_frames++;
		c->rx_bytes += wire_length(skb);
		if (why == POLICED)
			c->policed++;
		else if (why == BOTH_ISOLATED)
			c->isolated++;
		else if (why == NOWHERE)
			c->nowhere++;
		else
			c->same_port++;
	}
	return TCX_DROP;
}

/* none is 0, which the next read adds to its address: some processors, such as ARM's,
 * read in the order of the program only what depends on what was read before. */
static inline u64 none(u64 read)
{
	asm volatile("%0 &= 0" : "+r"(read));
	return read;
}

/* A station that was found, and its port. */
struct found {
	struct station *is;
	struct port *at;
	u32 slot;
};

/* find reports whether a station is where its entry says. */
static inline int find(struct hash *hash, u64 address, u16 vlan, struct found *f)
{
	u64 key = (u64)vlan << 48 | address;
	u64 mixed = key * hash->mix;
	mixed ^= mixed >> 32;

#pragma unroll
	for (int choice = 0; choice < 2; choice++) {
		u32 n = mixed * hash->choice[choice] >> hash->shift;
		struct line *l = bpf_map_lookup_elem(&stations, &n);
		if (!l)
			return 0;
#pragma unroll
		for (int i = 0; i < PLACES; i++) {
			volatile u64 *at = &l->key[i], *is = (void *)&l->station[i];
			u64 there = *at;
			if (there != key)
				continue;
			union {
				u64 word;
				struct station is;
			} now = {.word = is[none(there)]};
			/* The place may have become another's in between. */
			if (at[none(now.word)] != key)
				return 0;
			f->is = &l->station[i];
			f->slot = now.is.slot;
			f->at = bpf_map_lookup_elem(&ports, &f->slot);
			return f->at && f->at->generation == now.is.generation;
		}
	}
	return 0;
}

#include "encap.h"
#include "wrap.h"

/* The addresses of a frame, 48 bits with the first octet on top. */
static inline u64 destination(struct frame *f)
{
	return be64(f->dst_src) >> 16;
}

static inline u64 source(struct frame *f)
{
	return (be64(f->dst_src) & 0xffff) << 32 | (u32)(be64((u64)f->src) >> 32);
}

/* input finds the port by which a frame came, if it takes part. */
static inline struct port *input(u32 ifindex, u32 *slot)
{
	u32 *is = bpf_map_lookup_elem(&slots, &ifindex);
	if (!is)
		return 0;
	*slot = *is;
	if (!bpf_map_lookup_elem(&devices, slot))
		return 0; /* the program went with its device to another namespace */
	struct port *p = bpf_map_lookup_elem(&ports, slot);
	if (!p || !(p->flags & FROM))
		return 0;
	return p->ifindex & AGGREGATE && !is_member(p->ifindex, ifindex) ? 0 : p;
}

/* is_opaque reports whether a frame has a tag that names no VLAN. */
static inline int is_opaque(u32 tag, struct port *from)
{
	return tag && tag >> 16 != from->tpid;
}

/* classify returns the VLAN of a frame, as in switch/vlan.go; 0: handed up. */
static inline u16 classify(u32 tag, struct port *from)
{
	if (!tag || is_opaque(tag, from) || !(tag & 0xfff))
		return from->pvid;
	return from->flags & UNTAGGED_ONLY ? 0 : tag & 0xfff;
}

/* Whether a frame is a real one, or one that somebody asks about: explain.h. */
enum reality { REAL, ASKED };

/* is_admitted reports whether a frame's sender may send by the port, or by the path of a
 * tunnel behind it, without the switch being asked, as in switch/learn.go. */
static inline int is_admitted(struct hash *hash, struct port *from, u32 slot, u64 src, u16 vlan, u32 path, enum reality is)
{
	if (from->flags & NO_LEARN && !(from->flags & LOCKED) && vlan == from->pvid)
		return !(src >> 40 & 1) && src;
	struct found s; /* a known sender also says that the port has a tag's VLAN */
	if (!find(hash, src, vlan, &s) || s.slot != slot)
		return 0;
	if (from->flags & NO_LEARN)
		return 1;
	if (path && !came_by(path, src, vlan, from->ifindex, is == REAL))
		return 0;
	u32 now = bpf_ktime_get_coarse_ns() >> 30;
	if (is == REAL && s.is->heard != now)
		s.is->heard = now;
	return 1;
}

/* is_resolution reports whether a frame is an ARP message, or a neighbour solicitation or
 * advertisement, as isResolution in switch/resolution.go. */
static inline int is_resolution(struct __sk_buff *skb)
{
	if ((u16)skb->protocol == be16(0x0806))
		return 1;
	u8 next[2], type; /* header, and the hops that are left */
	return (u16)skb->protocol == be16(0x86dd) &&
	       bpf_skb_load_bytes(skb, ETHERNET + 6, next, 2) == 0 && next[0] == 58 && next[1] == 255 &&
	       bpf_skb_load_bytes(skb, ETHERNET + 40, &type, 1) == 0 && (type == 135 || type == 136);
}

/* may_be_query reports whether a frame to a station may be a query of IGMP or MLD: all IGMP may, and
 * IPv6 with hop-by-hop options. IsQuery in internal/proto/mcast knows more. */
static inline int may_be_query(struct __sk_buff *skb)
{
	u8 next;
	switch ((u16)skb->protocol) {
	case TYPE_IPV4:
		return bpf_skb_load_bytes(skb, ETHERNET + 9, &next, 1) == 0 && next == 2;
	case TYPE_IPV6:
		return bpf_skb_load_bytes(skb, ETHERNET + 6, &next, 1) == 0 && next == 0;
	case be16(0x8100): /* a priority, behind which hosts look; not another's VLAN */
	case be16(0x88a8):
		return bpf_skb_load_bytes(skb, ETHERNET + 1, &next, 1) == 0 && next == 0 &&
		       bpf_skb_load_bytes(skb, ETHERNET, &next, 1) == 0 && (next & 0xf) == 0;
	}
	return 0;
}

#include "guard.h"

/* decide finds out what becomes of the frame, and for ON how. */
static inline enum decision decide(struct __sk_buff *skb, struct frame *f, struct verdict *v, enum reality is)
{
	/* All that the epoch guards is read after it. */
	u32 zero = none(f->epoch);
	struct port *from = input(f->ifindex + zero, &v->in);
	struct hash *hash = bpf_map_lookup_elem(&hashes, &zero);
	if (!from || !hash)
		return UP;
	u16 tpid = f->tag >> 16, tci = f->tag, vlan = classify(f->tag, from);
	int opaque = is_opaque(f->tag, from);
	v->asks = 0;
	if (from->flags & GUARDED) {
		enum opinion of = vet(skb, v->in, vlan, opaque, is);
		if (of != GOOD && of != GOOD_MAC)
			return UP;
		v->asks = of == GOOD ? ASK_SENDER : ASK_MAC;
	}
	if (from->resolves) {
		if (is_resolution(skb))
			return UP;
		v->asks |= ASK_NAMES;
	}
	if (from->flags & ROUTER_GUARD) {
		if (may_be_query(skb))
			return UP;
		v->asks |= ASK_NO_QUERY;
	}
	if (!vlan || !is_admitted(hash, from, v->in, source(f), vlan, f->path, is))
		return UP;

	struct found d;
	if (!find(hash, destination(f), vlan, &d) || !(d.at->flags & TO))
		return UP;
	struct port *to = d.at;
	if (to->flags & SNOOP) {
		if (!plain(skb))
			return UP;
		v->asks |= ASK_PLAIN;
	}
	v->out = d.slot;
	v->bucket = from->bucket;
	v->mirror_in = from->mirror_in;
	v->mirror_out = 0;
	v->watch = from->watch & SEE_COMING;
	v->path = 0;
	if (v->out == v->in)
		return SAME_PORT;
	if (from->flags & to->flags & ISOLATED)
		return BOTH_ISOLATED;

	if (to->flags & TUNNEL) {
		if (!(from->flags & TUNNEL)) /* hosts reach each other without us */
			v->path = path_to(destination(f), vlan, to->ifindex);
		if (!v->path)
			return UP;
	}

	/* The tag it leaves with, as switch/vlan.go's retag and wouldHop. */
	v->ifindex = to->ifindex;
	v->mirror_out = to->mirror_out & ~from->mirror_in;
	v->watch |= to->watch & SEE_LEAVING;
	v->fits = FITS_ALL;
	v->pop = v->tpid = v->tci = v->hop = 0;
	if (vlan != to->native) {
		v->tpid = to->tpid;
		v->tci = (tci & 0xf000) | vlan;
		if (!v->tpid)
			return UP;
		if (v->tpid == tpid && v->tci == tci && !opaque)
			v->tpid = 0; /* as it came */
		else
			v->pop = f->tag && !opaque;
	} else if (opaque) {
		if (tpid == to->tpid)
			return UP;
	} else if (f->tag) {
		v->pop = 1;
		v->hop = to->tpid;
	}
	return ON;
}

/* grows returns how much longer than now a device takes a frame to be, which has so many
 * bytes by then, with an outer tag of this TPID: a device takes a C-tag beside its MTU, no
 * other, as packet sockets have it. */
static inline int grows(struct __sk_buff *skb, u32 length, u16 tpid)
{
	return length - (tpid == C_TPID ? TAG : 0) - skb->len;
}

/* can_copy reports whether the mirrors of the input can copy a frame. */
static inline int can_copy(struct __sk_buff *skb, struct verdict *v)
{
	return !v->mirror_in ||
	       can_mirror(skb, v->mirror_in, grows(skb, wire_length(skb), skb->vlan_present ? skb->vlan_proto : 0));
}

/* fits_path reports whether a tunnel's packets have room for a frame, or for its segments. */
static inline int fits_path(struct __sk_buff *skb, struct verdict *v)
{
	u32 number = v->path;
	struct path *p = bpf_map_lookup_elem(&paths, &number);
	if (!p)
		return 0;
	u32 length = skb->gso_size ? headers(skb) + skb->gso_size : skb->len;
	if (p->vlan ? skb->vlan_present && v->tpid && !v->pop : v->tpid || (skb->vlan_present && !v->pop))
		length += TAG;
	return !p->limit || length <= p->limit;
}

/* encap sends a frame into its tunnel and returns TCX_REDIRECT, or TCX_DROP if it is lost. */
static inline int encap(struct __sk_buff *skb, struct verdict *v)
{
	u32 number = v->path, ifindex = v->ifindex;
	struct path *p = bpf_map_lookup_elem(&paths, &number);
	if (!p || p->ifindex != ifindex || (p->vlan && bpf_skb_vlan_pop(skb)))
		return TCX_DROP;
	skb->mark = 0;
	int is = wrap(skb, number);
	if (is != NO_WAY)
		return is;
	return set_key(skb, number) ? bpf_redirect(ifindex, 0) : TCX_DROP;
}

/* dismiss discards a frame for this reason, or as beyond its port's rate. */
static inline int dismiss(struct __sk_buff *skb, struct verdict *v, enum decision why, u32 path)
{
	if (wanted(v->in) || !can_copy(skb, v) || !can_see(skb, v->watch))
		return hand_up(skb); /* which polices it, too */
	if (path)
		skb->mark = 0;
	if (v->bucket && !admit(skb, v->bucket))
		why = POLICED;
	if (v->mirror_in)
		mirror(skb, v->mirror_in, v->in);
	see_coming(skb, v->watch, v->in | NO_PORT << 16, why);
	return discard(skb, v->in, why);
}

/* can_send returns the device by which a frame can be sent on so; 0: it cannot. */
static inline u32 can_send(struct __sk_buff *skb, struct verdict *v)
{
	/* Looked up for each frame: the number may be another's at the next. */
	u32 *device = bpf_map_lookup_elem(&devices, &v->out), ifindex = v->ifindex;
	if (ifindex & AGGREGATE) {
		ifindex = member_for(skb, ifindex);
		v->fits = 0; /* of another member */
	} else if (device && *device != ifindex) {
		device = 0;
	}
	if (!device || !ifindex || (v->hop && (u16)skb->protocol == v->hop))
		return 0;
	if (skb->len > v->fits || v->mirror_out || v->watch & SEEN) {
		/* A tag that shows behind the tag that goes is not seen here: what it makes too long is
		 * handed up. */
		u16 first = v->tpid ? v->tpid : v->pop || !skb->vlan_present ? 0 : skb->vlan_proto;
		int more = grows(skb, wire_length(skb) - (v->pop ? TAG : 0) + (v->tpid ? TAG : 0), first);
		u32 mtu = 0;
		if (v->path ? !fits_path(skb, v) : bpf_check_mtu(skb, ifindex, &mtu, more, 0))
			return 0;
		if ((v->mirror_out && !can_mirror(skb, v->mirror_out, more)) || !can_see(skb, v->watch))
			return 0;
		if (!v->path)
			v->fits = mtu + ETHERNET - more;
	}
	return can_copy(skb, v) ? ifindex : 0;
}

/* send_on sends on a frame that came by the path of a tunnel; 0: by none. */
static inline int send_on(struct __sk_buff *skb, struct verdict *v, u32 path)
{
	u32 length = wire_length(skb), ifindex = can_send(skb, v);
	if (!ifindex)
		return hand_up(skb);
	struct counters *in = bpf_map_lookup_elem(&counts, &v->in);
	struct counters *out = bpf_map_lookup_elem(&counts, &v->out);
	if (!in || !out)
		return hand_up(skb);
	if (v->bucket && !admit(skb, v->bucket)) {
		if (wanted(v->in))
			return hand_up(skb);
		if (path)
			skb->mark = 0;
		if (v->mirror_in)
			mirror(skb, v->mirror_in, v->in);
		see_coming(skb, v->watch, v->in | NO_PORT << 16, POLICED);
		return discard(skb, v->in, POLICED);
	}
	if (path)
		skb->mark = 0; /* it was for the switch */
	if (v->mirror_in)
		mirror(skb, v->mirror_in, v->in);
	see_coming(skb, v->watch, v->in | v->out << 16, ON);
	if ((v->pop && bpf_skb_vlan_pop(skb)) || (v->tpid && bpf_skb_vlan_push(skb, v->tpid, v->tci))) {
		in->lost++;
		return TCX_DROP;
	}
	in->rx_frames++;
	in->rx_bytes += length;
	length = wire_length(skb);
	if (v->mirror_out)
		mirror(skb, v->mirror_out, v->in);
	if (v->watch & SEE_LEAVING)
		see_leaving(skb, v->watch, v->in | v->out << 16, v->tpid, v->pop);
	int is = v->path ? encap(skb, v) : bpf_redirect(ifindex, 0);
	if (is == TCX_DROP) {
		out->unsent++;
		return TCX_DROP;
	}
	out->tx_frames++;
	out->tx_bytes += length;
	return is;
}

#include "flood.h"

/* look_up decides about a frame whose flow is not remembered in this place. If the frame is sent
 * on, it remembers that there and returns LOOKED_UP, else what becomes of the frame. It is a
 * function for its stack, which a flood does not need as well. */
#define LOOKED_UP (-1)

global int look_up(struct __sk_buff *skb, u32 epoch, u32 lap, u32 path, u32 place)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	u32 zero = 0;
	struct flows *flows = bpf_map_lookup_elem(&recent, &zero);
	if (data + ETHERNET > end || !flows || place >= FLOWS)
		return hand_up(skb);

	struct frame f = {
		.dst_src = *(u64 *)data,
		.src = *(u32 *)(data + 8),
		.ifindex = skb->ifindex,
		.tag = tag_of(skb),
		.epoch = epoch,
		.lap = lap,
		.path = path,
	};
	struct verdict v = {};
	enum decision is = decide(skb, &f, &v, REAL);
	if (is == UP)
		return hand_up_vetted(skb);
	if (is != ON)
		return dismiss(skb, &v, is, path);
	if (v.asks & ASK_SENDER)
		is_plain(skb, &flows->from[place]);
	flows->last[place].of = f;
	flows->last[place].is = v;
	return LOOKED_UP;
}

/* Which program forwards: that of a port's device, of one that the host shares, or of a tunnel's. */
enum device { OWN, SHARED, TUNNELS };

/* place_of returns where a flow is remembered. Any spread will do: what collides is looked up. */
static inline u32 place_of(u64 dst_src, u32 src, u32 ifindex)
{
	return ((dst_src ^ ((u64)src << 16 | ifindex) * 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9 >> 56) & (FLOWS - 1);
}

/* forward decides about a frame, which came by the path of a tunnel; 0: by none. What comes by a
 * tunnel is not flooded here: device is constant, so that its program is without that code. */
static inline int forward(struct __sk_buff *skb, u32 path, enum device device)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	u32 zero = 0;

	if (data + ETHERNET > end)
		return hand_up(skb);
	if (!can_finish(skb))
		return hand_up_vetted(skb);
	if (data[0] & 1)
		return device == TUNNELS ? hand_up(skb) : flood(skb, device == SHARED);
	u32 *epoch = bpf_map_lookup_elem(&epochs, &zero);
	struct flows *flows = bpf_map_lookup_elem(&recent, &zero);
	if (!epoch || !flows)
		return hand_up(skb);

	u64 dst_src = *(u64 *)data;
	u32 src = *(u32 *)(data + 8), ifindex = skb->ifindex, tag = tag_of(skb);
	u32 before = *(volatile u32 *)epoch; /* anything that it guards */
	u32 lap = bpf_jiffies64() >> LAP_SHIFT;
	u32 i = place_of(dst_src, src, ifindex);

	if (flows->last[i].of.dst_src != dst_src || flows->last[i].of.src != src ||
	    flows->last[i].of.ifindex != ifindex || flows->last[i].of.tag != tag ||
	    flows->last[i].of.epoch != before || flows->last[i].of.lap != lap ||
	    (path && flows->last[i].of.path != path) ||
	    (flows->last[i].is.asks && !is_as_before(skb, flows->last[i].is.asks, &flows->from[i]))) {
		int is = look_up(skb, before, lap, path, i);
		if (is != LOOKED_UP)
			return is;
	}
	return send_on(skb, &flows->last[i].is, path);
}

SEC("tcx/ingress") int vswitch(struct __sk_buff *skb)
{
	return forward(skb, 0, OWN);
}

#include "shared.h"
#include "arrival.h"
#include "decap.h"
#include "unwrap.h"
#include "explain.h"
#include "taken.h"

/* One of the helpers, bpf_check_mtu, is for programs under the GPL only. */
char _license[] SEC("license") = "Dual BSD/GPL";
