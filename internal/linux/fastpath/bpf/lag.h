/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ports that several devices carry together (port/lag). In place of a device's number such a
 * port has AGGREGATE and the number of its aggregate. What comes by each device leads to the
 * port's slot; the device by which a frame leaves follows from a hash.
 */
#pragma once

#define AGGREGATE (1u << 31) /* no device has such a number */
#define MAX_AGGREGATES 256
#define MAX_MEMBERS 8
#define BUCKETS 256

/* What a frame's bucket depends on: enum of port.Spread. */
enum spread { BY_MAC, BY_IP, BY_PORTS };

struct aggregate {
	u32 ifindex[MAX_MEMBERS]; /* 0: none */
	u32 spread;
	u8 member[BUCKETS]; /* MAX_MEMBERS or more: none */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_AGGREGATES);
	__type(key, u32);
	__type(value, struct aggregate);
} aggregates SEC(".maps");

/* The members' devices, as `devices` has those of ports. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, MAX_AGGREGATES * MAX_MEMBERS);
	__type(key, u32);
	__type(value, u32); /* ifindex */
} members SEC(".maps");

/* is_member reports whether a device is a member of an aggregate, and not another one that
 * has the number of a member that is gone. */
static inline int is_member(u32 aggregate, u32 ifindex)
{
	u32 n = aggregate & ~AGGREGATE;
	struct aggregate *a = bpf_map_lookup_elem(&aggregates, &n);
	for (u32 i = 0; a && i < MAX_MEMBERS; i++) {
		if (a->ifindex[i] != ifindex)
			continue;
		u32 key = n * MAX_MEMBERS + i;
		u32 *device = bpf_map_lookup_elem(&members, &key);
		return device && *device == ifindex;
	}
	return 0;
}

/* blend adds a word to a hash: mix in port/lag/hash.go. */
static inline u64 blend(u64 h, u64 word)
{
	h = (h ^ word) * 0x9e3779b97f4a7c15;
	return h ^ h >> 32;
}

struct ip4 {
	u8 version_ihl, tos;
	u16 length, id, fragment;
	u8 ttl, protocol;
	u16 checksum;
	u16 addresses[4];
};

struct ip6 {
	u16 begins[3];
	u8 protocol, hops;
	u64 addresses[4];
};

#define MORE_OR_OFFSET be16(0x3fff)
#define TCP 6
#define UDP 17

/* be32_at and the like read what is in network byte order. */
static inline u64 be32_at(const u16 *at)
{
	return (u64)(u16)be16(at[0]) << 16 | (u16)be16(at[1]);
}

/* network adds the addresses of a frame's IP header to a hash, and TCP's or UDP's ports, and
 * reports whether it has such a header: network in port/lag/hash.go. */
static inline int network(struct __sk_buff *skb, u16 type, int ports, u64 *hash)
{
	u8 protocol = 0;
	u32 next;
	u64 h = *hash;
	if (type == be16(0x0800)) {
		struct ip4 ip;
		if (bpf_skb_load_bytes(skb, ETHERNET, &ip, sizeof(ip)))
			return 0;
		h = blend(h, be32_at(ip.addresses) << 32 | be32_at(ip.addresses + 2));
		if (!(ip.fragment & MORE_OR_OFFSET))
			protocol = ip.protocol;
		next = ETHERNET + (ip.version_ihl & 0xf) * 4;
	} else if (type == be16(0x86dd)) {
		struct ip6 ip;
		if (bpf_skb_load_bytes(skb, ETHERNET, &ip, sizeof(ip)))
			return 0;
		for (int i = 0; i < 4; i++)
			h = blend(h, be64(ip.addresses[i]));
		protocol = ip.protocol;
		next = ETHERNET + sizeof(ip);
	} else {
		return 0;
	}
	u16 both[2];
	if (ports && (protocol == TCP || protocol == UDP) && !bpf_skb_load_bytes(skb, next, both, sizeof(both)))
		h = blend(h, be32_at(both));
	*hash = h;
	return 1;
}

/* bucket_of returns a frame's bucket, as Hash.bucket in port/lag/hash.go. */
static inline u32 bucket_of(struct __sk_buff *skb, u32 spread)
{
	u16 header[7];
	if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
		return 0;
	u64 hash = 0;
	if (spread != BY_PORTS || !network(skb, header[6], 1, &hash)) {
		hash = blend(0, (u64)(u16)be16(header[0]) << 32 | be32_at(header + 1));
		hash = blend(hash, (u64)(u16)be16(header[3]) << 32 | be32_at(header + 4));
		if (spread == BY_IP)
			network(skb, header[6], 0, &hash);
	}
	return hash >> 24 & (BUCKETS - 1);
}

/* member_for returns the device by which a frame leaves an aggregate; 0: the switch is to be
 * asked. */
global u32 member_for(struct __sk_buff *skb, u32 aggregate)
{
	u32 n = aggregate & ~AGGREGATE;
	struct aggregate *a = bpf_map_lookup_elem(&aggregates, &n);
	if (!a)
		return 0;
	u32 i = a->member[bucket_of(skb, a->spread) & (BUCKETS - 1)];
	if (i >= MAX_MEMBERS)
		return 0;
	u32 key = n * MAX_MEMBERS + i, ifindex = a->ifindex[i];
	u32 *device = bpf_map_lookup_elem(&members, &key);
	return device && *device == ifindex ? ifindex : 0;
}
