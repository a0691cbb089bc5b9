/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ports to which a frame to a group goes: in a snooped VLAN those that joined the
 * group, as multicast in switch/multicast.go. Messages that the switch snoops are
 * handed up.
 */
#pragma once

/* How groups of IP are dealt with in a VLAN; 0: as all other groups. */
enum {
	SNOOPED = 1, /* what the flags below leave open is handed up */

	/* By family, IPv4 or IPv6, shifted. Groups that are not in the table */
	REST_TO_ALL = 2, /* go to all ports; */
	REST_TO_FEW = 8, /* go to the ports of the family's group 0: those of routers. */
};

enum family { IPV4, IPV6 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, u32); /* VLAN */
	__type(value, u32);
} snooped SEC(".maps");

/* The ports that joined a group. More than MAX_FLOOD of them: it is handed up. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, u64); /* VLAN << 48 | MAC */
	__type(value, struct listeners);
} groups SEC(".maps");

#define IPV4_GROUPS 0x01005e000000 /* and 23 bits of the group */
#define IPV6_GROUPS 0x333300000000 /* and 32 bits of the group */

#define IPV6_HEADER (ETHERNET + 40)

/* everyone returns the ports of a VLAN. */
static inline struct listeners *everyone(u16 vlan)
{
	u32 key = vlan;
	return bpf_map_lookup_elem(&floods, &key);
}

/* byte_at returns a byte of a frame, and 255 behind its end, which nobody looks for. */
static inline u8 byte_at(struct __sk_buff *skb, u32 offset)
{
	u8 b, *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	if (data + offset + 1 <= end)
		return data[offset];
	return bpf_skb_load_bytes(skb, offset, &b, 1) ? 255 : b;
}

/* may_be_control reports whether a frame to a group may be a message that the switch snoops:
 * IsControl in internal/proto/mcast/packet.go, but without a look behind extension headers. */
static inline int may_be_control(struct __sk_buff *skb)
{
	if ((u16)skb->protocol == be16(0x0800)) {
		u8 protocol = byte_at(skb, ETHERNET + 9);
		return protocol == 2 || protocol == 103;
	}
	if ((u16)skb->protocol != be16(0x86dd))
		return 0;
	switch (byte_at(skb, ETHERNET + 6)) {
	case 0:   /* hop-by-hop options */
	case 43:  /* routing */
	case 51:  /* authentication */
	case 60:  /* destination options */
	case 103: /* PIM */
		return 1;
	case 44: /* a fragment, of which most are of UDP */
		return byte_at(skb, IPV6_HEADER) != 17;
	case 58: { /* ICMPv6 */
		u8 type = byte_at(skb, IPV6_HEADER);
		return (type >= 130 && type <= 132) || type == 143 || (type >= 151 && type <= 153);
	}
	}
	return 0;
}

/* is_of_link reports whether a packet goes to a group of a link's control, as isLinkControl
 * in switch/multicast.go: all ports get it, whatever group shares its MAC. */
static inline int is_of_link(struct __sk_buff *skb)
{
	return (u16)skb->protocol == be16(0x86dd) && byte_at(skb, ETHERNET + 24) == 0xff && byte_at(skb, ETHERNET + 25) == 0x02;
}

/* may_be_for_all reports whether a group may be for all ports though nobody joined it, and
 * though others like it are for few: see Groups.Rest in switch/multicast.go. */
static inline int may_be_for_all(u64 group, enum family family)
{
	u32 key = group;
	if (family == IPV4)
		return (key & 0x7fffff) <= 0xff;
	return key <= 0xff || key >> 24 == 0xff || key >> 16 == 1;
}

static inline int is_tag(u16 type)
{
	return type == C_TPID || type == be16(0x88a8);
}

/* listeners returns the ports for a frame to a group address, or to all; 0: the switch is
 * asked. */
static inline struct listeners *listeners(struct flooded *f, u64 group)
{
	u32 vlan = f->vlan, *how = bpf_map_lookup_elem(&snooped, &vlan);
	f->plan->snooped = how && *how;
	if (!how || !*how || (f->opaque && f->tag & 0xfff)) /* the latter is a network inside this one */
		return everyone(f->vlan);
	if (is_tag(f->skb->protocol)) { /* so is this one, unless the tag is a priority */
		u8 vid[2];
		if (bpf_skb_load_bytes(f->skb, ETHERNET, vid, sizeof(vid)) || !((vid[0] & 15) | vid[1]))
			return 0;
		return everyone(f->vlan);
	}
	if (may_be_control(f->skb))
		return 0;
	int ipv4 = group >> 23 == IPV4_GROUPS >> 23, ipv6 = group >> 32 == IPV6_GROUPS >> 32;
	if (!ipv4 && !ipv6)
		return everyone(f->vlan);

	enum family family = ipv4 ? IPV4 : IPV6;
	u64 key = (u64)f->vlan << 48 | group;
	struct listeners *joined = bpf_map_lookup_elem(&groups, &key);
	if (!joined) {
		if (*how & REST_TO_ALL << family)
			return everyone(f->vlan);
		if (!(*how & REST_TO_FEW << family) || may_be_for_all(group, family))
			return 0;
		key = (u64)f->vlan << 48 | (family == IPV4 ? IPV4_GROUPS : IPV6_GROUPS);
		joined = bpf_map_lookup_elem(&groups, &key);
	}
	if (is_of_link(f->skb)) {
		f->once = 1;
		return everyone(f->vlan);
	}
	f->unwanted = 0; /* it is not flooded */
	return joined;
}
