/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tunnels: what the programs know of them, and the way in. A tunnel is a vxlan or geneve device
 * that asks for each frame's tunnel key ("external"). The station table leads to its port;
 * a table of its own says behind which host a station is. Decap.h has the way out.
 */
#pragma once

#define MAX_PATHS 32768
#define MAX_REMOTES 262144 /* as the tunnels' own table */

/* A path is a virtual network as one other host takes part in it. Addresses are as in
 * struct bpf_tunnel_key. */
struct path {
	u32 remote[4], local[4];
	u32 ifindex; /* of the tunnel; 0: no path */
	u32 vni;
	u16 vlan;  /* of its frames, which have no tag in the tunnel; 0: any, with their tags */
	u16 limit; /* the longest frame that fits, in bytes with its tags; 0: unknown */
	u16 ipv6;
	u16 port; /* UDP; this and the next is for the short way: wrap.h */
	u32 way;  /* ifindex of the device by which the host is reached; 0: there is no short way */
	u32 via;  /* the next hop there, in network byte order like port */
	u32 header; /* VXLAN_HEADER or GENEVE_HEADER */
};

/* Where a frame comes from. Beside the paths there are entries without a VNI, for hosts that
 * are known, and without an address, for networks that are. */
struct origin {
	u32 remote[4];
	u32 ifindex;
	u32 vni;
};

/* A station behind a tunnel. */
struct remote_key {
	u64 station; /* VLAN << 48 | MAC; VLAN 0 where the path has none */
	u32 ifindex;
	u32 zero;
};

struct remote {
	u32 path;
	u32 heard; /* as in struct station */
};

/* What else counts of a tunnel. */
struct tunnel {
	u32 local[4];
	u32 refused[4]; /* a host whose frames were refused, and how many frames were */
	u64 refusals;
	u32 ipv6;
	u32 : 32;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PATHS);
	__type(key, u32);
	__type(value, struct path);
} paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * MAX_PATHS);
	__type(key, struct origin);
	__type(value, u32);
} origins SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_REMOTES);
	__type(key, struct remote_key);
	__type(value, struct remote);
} remotes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 256);
	__type(key, u32); /* ifindex */
	__type(value, struct tunnel);
} tunnels SEC(".maps");

/* The mark of a frame between a tunnel's device and the switch: the number of its path, or
 * why it was refused. No other program sees it. */
#define MARK 0x80000000
#define MARK_TAGGED 0x40000000 /* the frame has a tag where it must not */
#define MARK_PATH (MAX_PATHS - 1)

enum refused { UNKNOWN_VTEP, UNKNOWN_VNI }; /* paths have other numbers */

/* remote_of returns where a station behind a tunnel is. */
static inline struct remote *remote_of(u64 address, u16 vlan, u32 ifindex)
{
	struct remote_key key = {.station = (u64)vlan << 48 | address, .ifindex = ifindex};
	struct remote *r = bpf_map_lookup_elem(&remotes, &key);
	if (r)
		return r;
	key.station = address; /* where one network carries all VLANs */
	return bpf_map_lookup_elem(&remotes, &key);
}

/* path_to returns the number of the path to a station behind a tunnel; 0: the switch knows. */
static inline u32 path_to(u64 address, u16 vlan, u32 ifindex)
{
	struct remote *r = remote_of(address, vlan, ifindex);
	struct path *p = r ? bpf_map_lookup_elem(&paths, &r->path) : 0;
	return p && p->ifindex == ifindex && (!p->vlan || p->vlan == vlan) ? r->path : 0;
}

/* came_by reports whether a station behind a tunnel is where its frame came from, and
 * records that a real one was heard. */
static inline int came_by(u32 path, u64 address, u16 vlan, u32 ifindex, int real)
{
	struct remote *r = remote_of(address, vlan, ifindex);
	if (!r || r->path != path)
		return 0;
	u32 now = bpf_ktime_get_coarse_ns() >> 30;
	if (real && r->heard != now)
		r->heard = now;
	return 1;
}

/* set_key reports whether it could name the host and the network to which a tunnel's device
 * sends a frame. It is a function for its stack, as path_of in decap.h. */
global int set_key(struct __sk_buff *skb, u32 number)
{
	struct path *p = bpf_map_lookup_elem(&paths, &number);
	if (!p)
		return 0;
	struct bpf_tunnel_key key = {.tunnel_id = p->vni, .tunnel_ttl = 64};
	u64 flags = BPF_F_DONT_FRAGMENT; /* a tunnel must not (RFC 7348 section 4.3) */
	for (int i = 0; i < 4; i++) {
		key.remote_ipv6[i] = p->remote[i];
		key.local_ipv6[i] = p->local[i];
	}
	if (p->ipv6)
		flags |= BPF_F_TUNINFO_IPV6;
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags) == 0;
}
