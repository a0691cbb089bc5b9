/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Guarded ports: what comes by one is sent on only if it is plainly good. It is dropped if it
 * is certainly bad, and handed up in all other cases. The rules are those of Check in
 * internal/proto/guard, as far as fixed places in the headers can tell: so the two cannot
 * disagree about a frame. ARP, neighbour discovery, DHCP, fragments, options and extension
 * headers are always the switch's.
 */
#pragma once

/* When a sender may send, in ns of CLOCK_MONOTONIC, and when it was last heard, as struct station. */
struct binding {
	u64 from, until;
	u32 heard;
	u32 unused;
};

/* All addresses of a prefix. */
struct prefix {
	u32 address[4], mask[4]; /* network byte order */
	u64 station;
	u64 until;
	u32 type;
	u32 unused;
};

#define MAX_PREFIXES 8

/* A guarded port. */
struct guard {
	u32 flags;
	u32 prefixes;
	u64 vlans[64]; /* those that the port carries, a bit each */
	struct prefix prefix[MAX_PREFIXES];
};

enum {
	MAC_ONLY = 1,   /* IP addresses are free */
	MORE_TYPES = 2, /* further EtherTypes may be good */
	MORE = 4,       /* further senders may be good, which are not in the table */
	EXCEPTIONS = 8, /* frames that are not plain may be good from others' addresses */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PORTS);
	__type(key, u32); /* slot */
	__type(value, struct guard);
} guards SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct sender);
	__type(value, struct binding);
} bindings SEC(".maps");

/* What is asked of each frame of a flow that is remembered, struct verdict's asks. */
enum {
	ASK_PLAIN = 1,  /* it is plain: what teaches addresses to the switch is handed up */
	ASK_SENDER = 2, /* and from the same address; its checksum is its own */
	ASK_MAC = 4,    /* it is one of IP or ARP, and its checksum is its own */
	ASK_NAMES = 8,  /* it is no message of address resolution */
	ASK_NO_QUERY = 16, /* it may be no query */
};

/* is_innocent reports whether a packet's upper layer says nothing that the switch has to see. */
static inline int is_innocent(u16 type, u8 proto, u8 *upper, u32 length)
{
	u16 from, to;
	switch (proto) {
	case PROTO_TCP:
	case PROTO_IPIP:
	case PROTO_IPV6_IN_IP:
	case PROTO_GRE:
	case PROTO_ESP:
	case PROTO_SCTP:
		return 1;
	case PROTO_UDP:
		from = *(u16 *)upper, to = *(u16 *)(upper + 2);
		return length >= 8 && to != be16(67) && to != be16(68) && to != be16(546) && to != be16(547) &&
		       from != be16(67) && from != be16(547);
	case PROTO_ICMP:
		return type == TYPE_IPV4 && length >= 1 && upper[0] != 5 && upper[0] != 9; /* of routers */
	case PROTO_ICMPV6:
		return type == TYPE_IPV6 && length >= 4 && upper[0] < 130; /* errors and echoes */
	}
	return 0;
}

/* is_plain reports whether all that a frame claims is its sender's IP address, and reads that.
 * A packet ends where its length says; what follows is padding. */
static inline int is_plain(struct __sk_buff *skb, struct sender *s)
{
	u8 *p = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	if (p + ETHERNET + 24 > end)
		return 0;
	s->type = *(u16 *)(p + 12);
	if (s->type == TYPE_IPV4) {
		u32 length = be16(*(u16 *)(p + 16));
		u16 fragment = *(u16 *)(p + 20);
		s->address[0] = *(u32 *)(p + 26);
		s->address[1] = s->address[2] = s->address[3] = 0;
		if (p[14] != 0x45 || length < 20 || ETHERNET + length > skb->len)
			return 0;
		if (fragment & be16(0x1fff))
			return 1; /* the first fragment is looked at, and needed */
		return !(fragment & be16(0x2000)) && is_innocent(s->type, p[23], p + 34, length - 20);
	}
	if (s->type != TYPE_IPV6 || p + ETHERNET + 44 > end)
		return 0;
	u32 length = be16(*(u16 *)(p + 18));
#pragma unroll
	for (int i = 0; i < 4; i++)
		s->address[i] = *(u32 *)(p + 22 + 4 * i);
	return p[14] >> 4 == 6 && ETHERNET + 40 + length <= skb->len && is_innocent(s->type, p[20], p + 54, length);
}

/* is_tidy reports whether others are left nothing to do with a frame but with its own TCP or
 * UDP header. */
static inline int is_tidy(struct __sk_buff *skb)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	if (read_bits(k, ip_summed) != CHECKSUM_PARTIAL)
		return !skb->gso_size;
	return is_own_checksum(skb, k) && (!skb->gso_size || is_cut_as_is(skb));
}

/* is_as_before reports whether a frame is as one of its flow that was sent on. */
static inline int is_as_before(struct __sk_buff *skb, u8 asks, struct sender *was)
{
	if (asks & ASK_MAC) {
		u32 type = type_of(skb);
		if (!is_tidy(skb) || (type != TYPE_IPV4 && type != TYPE_IPV6 && type != TYPE_ARP))
			return 0;
	}
	if (asks & ASK_NAMES && is_resolution(skb))
		return 0;
	if (asks & ASK_NO_QUERY && may_be_query(skb))
		return 0;
	struct sender is;
	if (!(asks & (ASK_PLAIN | ASK_SENDER)))
		return 1;
	if (!is_plain(skb, &is))
		return 0;
	return !(asks & ASK_SENDER) ||
	       (is_tidy(skb) && is.type == was->type && is.address[0] == was->address[0] && is.address[1] == was->address[1] &&
		is.address[2] == was->address[2] && is.address[3] == was->address[3]);
}

/* plain is is_plain, for those who do not want to know the address. */
global int plain(struct __sk_buff *skb)
{
	struct sender s;
	return is_plain(skb, &s);
}

/* What the guard thinks of a frame. */
enum opinion { UNSURE, UNKNOWN, GOOD, GOOD_MAC, BAD_TAG, BAD_MAC, BAD_TYPE, BAD_OFFLOAD, BAD_IPV4, BAD_IPV6, BAD_ARP };

/* is_arp reports whether the ARP packet in a frame is one of Ethernet and IPv4. */
static inline int is_arp(u8 *p)
{
	return *(u16 *)(p + 14) == be16(1) && *(u16 *)(p + 16) == TYPE_IPV4 && *(u16 *)(p + 18) == be16(0x0604);
}

/* as_claimed reads the address that a frame which is not plain claims for its sender. It returns
 * what the frame is if the sender does not have that, or UNSURE. */
static inline enum opinion as_claimed(struct __sk_buff *skb, u32 type, struct sender *s)
{
	u8 *p = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	if (type == TYPE_ARP) {
		if (p + ETHERNET + 28 > end || !is_arp(p) || !*(u32 *)(p + 28))
			return UNSURE; /* a probe claims nothing */
		s->type = TYPE_IPV4;
		s->address[0] = *(u32 *)(p + 28);
		s->address[1] = s->address[2] = s->address[3] = 0;
		return BAD_ARP;
	}
	if (type == TYPE_IPV4) {
		if (p + ETHERNET + 20 > end)
			return UNSURE;
		u32 length = be16(*(u16 *)(p + 16)), head = (p[14] & 15) * 4;
		s->type = type;
		s->address[0] = *(u32 *)(p + 26);
		s->address[1] = s->address[2] = s->address[3] = 0;
		return p[14] >> 4 == 4 && head >= 20 && head <= length && ETHERNET + length <= skb->len && s->address[0] ? BAD_IPV4 : UNSURE;
	}
	if (type != TYPE_IPV6 || p + ETHERNET + 40 > end)
		return UNSURE;
	s->type = type;
#pragma unroll
	for (int i = 0; i < 4; i++)
		s->address[i] = *(u32 *)(p + 22 + 4 * i);
	u32 length = be16(*(u16 *)(p + 18));
	return p[14] >> 4 == 6 && ETHERNET + 40 + length <= skb->len &&
			       (s->address[0] | s->address[1] | s->address[2] | s->address[3]) ?
		       BAD_IPV6 :
		       UNSURE;
}

/* is_odd_arp reports whether an ARP packet is none that stations send: it has another's MAC, or
 * another operation than a request, or a reply by somebody with an address. */
static inline int is_odd_arp(struct __sk_buff *skb)
{
	u8 *p = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	if (p + ETHERNET + 28 > end || !is_arp(p))
		return 0; /* malformed: the switch says so */
	u16 op = *(u16 *)(p + 20);
	return (op != be16(1) && (op != be16(2) || !*(u32 *)(p + 28))) || *(u32 *)(p + 22) != *(u32 *)(p + 6) ||
	       *(u16 *)(p + 26) != *(u16 *)(p + 10);
}

/* ask_table returns whether a sender is in the table, and may send now. */
static inline enum opinion ask_table(struct sender *s, u32 reality)
{
	struct binding *b = bpf_map_lookup_elem(&bindings, s);
	if (!b)
		return UNKNOWN;
	u64 now = bpf_ktime_get_coarse_ns();
	if (now < b->from || now >= b->until)
		return UNSURE;
	u32 heard = now >> 30;
	if (reality == REAL && b->heard != heard)
		b->heard = heard;
	return GOOD;
}

/* in_prefix reports whether a sender is in a prefix. */
static inline int in_prefix(struct sender *s, struct prefix *p)
{
	u64 any_vlan = s->station & 0xffffffffffff;
	return s->type == p->type && (s->station == p->station || any_vlan == p->station) &&
	       (s->address[0] & p->mask[0]) == p->address[0] && (s->address[1] & p->mask[1]) == p->address[1] &&
	       (s->address[2] & p->mask[2]) == p->address[2] && (s->address[3] & p->mask[3]) == p->address[3];
}

/* why_untidy returns BAD_OFFLOAD if a checksum is certainly none that PartialOuter in
 * internal/virtio/vnet knows: no options are in front of the upper layer. */
static inline enum opinion why_untidy(struct __sk_buff *skb, u32 type)
{
	u8 *p = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	if (read_bits(k, ip_summed) != CHECKSUM_PARTIAL || p + ETHERNET + 20 > end || is_own_checksum(skb, k))
		return UNSURE;
	if ((type == TYPE_IPV4 && p[14] == 0x45) || (type == TYPE_IPV6 && (p[20] == PROTO_TCP || p[20] == PROTO_UDP)) ||
	    type == TYPE_ARP || type == TYPE_RARP)
		return BAD_OFFLOAD;
	return UNSURE;
}

/* vet finds out what the guard thinks of a frame that came by a slot, in a VLAN; see enum reality. */
global int vet(struct __sk_buff *skb, u32 slot, u32 vlan, u32 opaque, u32 reality)
{
	u8 *p = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	struct guard *g = bpf_map_lookup_elem(&guards, &slot);
	if (!g || p + ETHERNET > end)
		return UNSURE;
	u32 type = *(u16 *)(p + 12);
	if (opaque)
		return (u16)skb->vlan_proto == C_TPID && !(skb->vlan_tci & 0xfff) ? UNSURE : BAD_TAG;
	if (!(g->vlans[vlan >> 6 & 63] >> (vlan & 63) & 1)) /* nor VLAN 0, which stands for none */
		return skb->vlan_present ? BAD_TAG : UNSURE;
	if (type == C_TPID || type == S_TPID || type == be16(0x9100))
		return BAD_TAG;

	struct sender s = {.slot = slot};
	s.station = (be64(*(u64 *)p) & 0xffff) << 32 | (u32)(be64((u64) * (u32 *)(p + 8)) >> 32);
	if (!bpf_map_lookup_elem(&bindings, &s))
		return g->flags & MORE ? UNSURE : BAD_MAC;
	if (type != TYPE_IPV4 && type != TYPE_IPV6 && type != TYPE_ARP && type != TYPE_RARP)
		return g->flags & MORE_TYPES ? UNSURE : BAD_TYPE;
	if (!is_tidy(skb))
		return why_untidy(skb, type);
	if (g->flags & MAC_ONLY)
		return type == TYPE_RARP ? UNSURE : GOOD_MAC;
	int is_good = is_plain(skb, &s); /* if the sender is */
	enum opinion foreign = type == TYPE_IPV4 ? BAD_IPV4 : BAD_IPV6;
	if (!is_good) {
		if (type == TYPE_ARP && is_odd_arp(skb))
			return BAD_ARP;
		foreign = g->flags & EXCEPTIONS ? UNSURE : as_claimed(skb, type, &s);
		if (foreign == UNSURE)
			return UNSURE;
	}

	u64 mac = s.station;
	s.station |= (u64)vlan << 48;
	enum opinion is = ask_table(&s, reality);
	if (is != UNKNOWN)
		return is_good ? is : UNSURE;
	for (u32 i = 0; i < MAX_PREFIXES && i < g->prefixes; i++)
		if (in_prefix(&s, &g->prefix[i]))
			return is_good && bpf_ktime_get_coarse_ns() < g->prefix[i].until ? GOOD : UNSURE;
	s.station = mac;
	is = ask_table(&s, reality);
	if (is != UNKNOWN)
		return is_good ? is : UNSURE;
	return g->flags & MORE ? UNSURE : foreign;
}

/* How many bad frames of a port a CPU hands up in about a second, for the log. */
#define SHOWN 10

/* hand_up_vetted hands a frame up, unless it came by a guarded port and is certainly bad. */
global int hand_up_vetted(struct __sk_buff *skb)
{
	u32 slot;
	struct port *from = input(skb->ifindex, &slot);
	if (!from || !(from->flags & GUARDED))
		return hand_up(skb);
	u32 tag = tag_of(skb);
	int is = vet(skb, slot, classify(tag, from), is_opaque(tag, from), REAL);
	if (is < BAD_TAG || from->flags & DROPS || from->watch & SEE_IN)
		return hand_up(skb);
	struct counters *c = bpf_map_lookup_elem(&counts, &slot);
	if (!c)
		return hand_up(skb);
	u32 now = bpf_ktime_get_coarse_ns() >> 30;
	if (c->showing != now) {
		c->showing = now;
		c->shown = 0;
	}
	if (c->shown < SHOWN) {
		c->shown++;
		return hand_up(skb);
	}
	c->rx_frames++;
	c->rx_bytes += wire_length(skb);
	u32 why = is - BAD_TAG;
	if (why < GUARD_REASONS)
		c->guarded[why]++;
	return TCX_DROP;
}
