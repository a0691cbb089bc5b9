/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The way out of tunnels: what comes by a tunnel's device is a frame of a known host in a
 * known network, or refused. Then it is as if it had come by any other port, with the tag
 * of its network's VLAN. And the way in for frames that the switch itself sends.
 */
#pragma once

/* refuse drops a frame of a host that takes no part in its network. */
static inline int refuse(struct __sk_buff *skb, struct tunnel *t, struct origin *from)
{
	struct origin host = *from, network = {.ifindex = from->ifindex, .vni = from->vni};
	u32 ifindex = from->ifindex;
	host.vni = 0;
	enum refused why = UNKNOWN_VTEP;
	if (bpf_map_lookup_elem(&origins, &host) && !bpf_map_lookup_elem(&origins, &network))
		why = UNKNOWN_VNI;
	if (why == UNKNOWN_VTEP) {
		for (int i = 0; i < 4; i++)
			t->refused[i] = from->remote[i];
		__sync_fetch_and_add(&t->refusals, 1);
	}
	u32 *slot = bpf_map_lookup_elem(&slots, &ifindex);
	if (slot && wanted(*slot)) {
		skb->mark = MARK | why;
		return hand_up(skb);
	}
	struct counters *c = slot ? bpf_map_lookup_elem(&counts, slot) : 0;
	if (c) {
		c->rx_frames++;
		c->rx_bytes += wire_length(skb);
		if (why == UNKNOWN_VNI)
			c->unknown_vni++;
		else
			c->unknown_vtep++;
	}
	return TCX_DROP;
}

/* look_up_origin returns the path by which a frame came whose key is that of the tunnel's family; 0 and what becomes of
 * the frame if there is none. */
static inline u32 look_up_origin(struct __sk_buff *skb, struct bpf_tunnel_key *key, u32 ipv6, int *is)
{
	struct origin from = {.ifindex = skb->ifindex, .vni = key->tunnel_id};
	struct tunnel *t = bpf_map_lookup_elem(&tunnels, &from.ifindex);
	*is = TCX_DROP;
	if (!t || t->ipv6 != ipv6)
		return 0;
	for (int i = 0; i < 4; i++) {
		u32 part = i == 0 || ipv6;
		from.remote[i] = part ? key->remote_ipv6[i] : 0;
		if ((part ? key->local_ipv6[i] : 0) != t->local[i])
			return 0;
	}
	u32 *number = bpf_map_lookup_elem(&origins, &from);
	struct path *p = number ? bpf_map_lookup_elem(&paths, number) : 0;
	if (p && p->ifindex == from.ifindex)
		return *number & MARK_PATH;
	*is = refuse(skb, t, &from);
	return 0;
}

/* Flags of tunnel keys: control messages of Geneve, and frames behind options that a receiver has to know
 * (TUNNEL_OAM and TUNNEL_CRIT_OPT). */
#define NO_FRAME be16(0x0600)

/* is_vlan reports whether an EtherType is that of a tag. */
static inline int is_vlan(u16 type)
{
	return type == C_TPID || type == be16(0x88a8);
}

/* path_of returns the number of the path by which a frame came, which has the tag of its
 * network's VLAN then; or below 0 if it is not to be forwarded: ~ what becomes of it. */
global int path_of(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	struct arrival a = {.ifindex = skb->ifindex};
	u32 ipv6 = !!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_FLAGS), path = 0;
	if (!ipv6) {
		a.remote = key.remote_ipv4;
		a.local = key.local_ipv4;
		a.vni = key.tunnel_id;
		path = path_before(&a);
	} else if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_FLAGS | BPF_F_TUNINFO_IPV6)) {
		return ~TCX_DROP;
	}
	if (!path) {
		int is;
		path = look_up_origin(skb, &key, ipv6, &is);
		if (!path)
			return ~is;
		if (!ipv6)
			remember(&a, path);
	}
	struct path *p = bpf_map_lookup_elem(&paths, &path);
	if (!p || p->ifindex != a.ifindex)
		return ~TCX_DROP; /* it ends now */
	if (key.tunnel_flags & NO_FRAME) { /* the switch counts it */
		skb->mark = 0;
		return ~hand_up(skb);
	}
	skb->mark = MARK | path;
	if (p->vlan) {
		u16 priority = 0, vlan = p->vlan;
		if (skb->vlan_present) {
			priority = skb->vlan_tci & 0xf000;
			if ((u16)skb->vlan_proto != C_TPID || skb->vlan_tci & 0xfff) {
				skb->mark = MARK | MARK_TAGGED | path;
				return ~hand_up(skb);
			}
			if (bpf_skb_vlan_pop(skb))
				return ~TCX_DROP;
		}
		if (is_vlan(skb->protocol)) {
			skb->mark = MARK | MARK_TAGGED | path;
			return ~hand_up(skb);
		}
		if (bpf_skb_vlan_push(skb, C_TPID, priority | vlan))
			return ~TCX_DROP;
	}
	return path;
}

SEC("tcx/ingress") int vswitch_decap(struct __sk_buff *skb)
{
	int path = path_of(skb);
	return path < 0 ? ~path & 3 : forward(skb, path & MARK_PATH, TUNNELS);
}

SEC("tcx/egress") int vswitch_encap(struct __sk_buff *skb)
{
	u32 mark = skb->mark, path = mark & MARK_PATH;
	if (!(mark & MARK))
		return TCX_PASS; /* it has its key */
	struct path *p = bpf_map_lookup_elem(&paths, &path);
	if (!p || p->ifindex != skb->ifindex || !set_key(skb, path))
		return TCX_DROP;
	skb->mark = 0;
	return TCX_PASS;
}
