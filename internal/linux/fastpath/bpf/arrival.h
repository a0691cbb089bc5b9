/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The paths by which packets of IPv4 came last, for each CPU. They spare the next packet two lookups in hash tables.
 * A path is good for its epoch, as flows are.
 */
#pragma once

/* What a packet says of its path, in the byte order of struct path. */
struct arrival {
	u32 remote, local;
	u32 ifindex; /* of the device by which it came: the tunnel's, or one that leads to hosts */
	u32 vni;
	u32 port; /* UDP, network byte order; 0 at the tunnel's device */
	u32 epoch;
};

#define ARRIVALS 128

struct arrivals {
	struct {
		struct arrival of;
		u32 path;
		u32 : 32;
	} last[ARRIVALS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct arrivals);
} arrived SEC(".maps");

static inline u32 place_of_arrival(struct arrival *a)
{
	return ((a->remote ^ a->ifindex) * 0x9e3779b1 ^ a->vni * 0x85ebca6b) >> 25 & (ARRIVALS - 1);
}

/* path_before returns the number of the path by which such a packet came before; 0: it has to be looked up. It
 * reads the epoch, and what that guards is read later. */
static inline u32 path_before(struct arrival *a)
{
	u32 zero = 0, i = place_of_arrival(a);
	u32 *epoch = bpf_map_lookup_elem(&epochs, &zero);
	struct arrivals *all = bpf_map_lookup_elem(&arrived, &zero);
	if (!epoch || !all)
		return 0;
	a->epoch = *(volatile u32 *)epoch;
	struct arrival *was = &all->last[i + none(a->epoch)].of;
	return a->remote == was->remote && a->local == was->local && a->ifindex == was->ifindex && a->vni == was->vni &&
		a->port == was->port && a->epoch == was->epoch ? all->last[i].path : 0;
}

/* remember has path_before know the path of a packet that was looked up. */
static inline void remember(struct arrival *a, u32 path)
{
	u32 zero = 0, i = place_of_arrival(a);
	struct arrivals *all = bpf_map_lookup_elem(&arrived, &zero);
	if (!all)
		return;
	all->last[i].of = *a;
	all->last[i].path = path;
}
