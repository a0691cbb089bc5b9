/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The program at a device that the host shares with the switch. The host gets every
 * frame as it came, except those for stations that the switch knows elsewhere. The
 * switch does not get those for the host's own address. For a frame that the switch has
 * to see, a marked copy comes to the device once more and passes the program: it goes to
 * the packet socket alone, as hand_up says. What the host gets goes on to the programs and
 * filters of others at the device.
 */
#pragma once

/* The mark in sk_buff of such a copy: a tag alone could come from outside. */
#define MARKED_COPY 0x76737769

#define PACKET_HOST 0
#define BPF_F_INGRESS 1

#define VID 0xfff

/* is_shared reports whether the host shares the device of a port, by which a frame came. */
static inline int is_shared(struct __sk_buff *skb)
{
	u32 ifindex = skb->ifindex;
	u32 *slot = bpf_map_lookup_elem(&slots, &ifindex);
	struct port *p = slot ? bpf_map_lookup_elem(&ports, slot) : 0;
	return p && p->flags & HOST_SHARED;
}

/* is_crowded reports whether the device has addresses of others, as a macvlan's, which are not
 * known here. */
static inline int is_crowded(struct __sk_buff *skb)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	return k->dev->rx_handler != 0;
}

/* has_master reports whether a bridge or the like takes all that comes by the device, before packet
 * sockets get it. */
static inline int has_master(struct __sk_buff *skb)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	u32 private = read_bits(k->dev, priv_flags);
	return private & DEVICE_TAKEN || (private & DEVICE_BONDING && k->dev->flags & DEVICE_SLAVE);
}

/* see_hosts has mirrors of the port, and captures, have a frame for the host. No other path has it: a
 * copy that cannot be made is lost. */
static inline void see_hosts(struct __sk_buff *skb)
{
	struct verdict v = {};
	struct port *p = input(skb->ifindex, &v.in);
	if (!p)
		return;
	v.mirror_in = p->mirror_in;
	v.watch = p->watch & (SEE_IN | MIRROR_IN);
	if (v.mirror_in && can_copy(skb, &v))
		mirror(skb, v.mirror_in, v.in);
	if (v.watch && can_see(skb, v.watch))
		see_coming(skb, v.watch, v.in | NO_PORT << 16, HOSTS);
}

/* give_both sends a marked copy of a frame that is marked to the switch, and the frame to the
 * host. The switch gets none while the port does not forward, or where a bridge would get the copy. */
static inline int give_both(struct __sk_buff *skb)
{
	u32 before = skb->mark;
	if (has_master(skb)) {
		lose(skb);
	} else if (is_shared(skb)) {
		skb->mark = MARKED_COPY;
		if (bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS))
			lose(skb);
		skb->mark = before;
	}
	return bpf_skb_vlan_pop(skb) || bpf_skb_vlan_pop(skb) ? TCX_DROP : TCX_NEXT;
}

SEC("tcx/ingress") int vswitch_shared(struct __sk_buff *skb)
{
	if (skb->vlan_present && (skb->vlan_tci & VID) == HAND_UP_TCI)
		return skb->mark == MARKED_COPY && !has_master(skb) ? TCX_PASS : TCX_DROP;
	/* Without its outer tag, the packet socket would get this one from the host's stack. */
	if (skb->vlan_present && (u16)skb->protocol == HAND_UP_TPID) {
		if (mark(skb))
			give_both(skb);
		return TCX_DROP;
	}
	if (skb->pkt_type == PACKET_HOST) {
		see_hosts(skb);
		return TCX_NEXT;
	}
	if (is_crowded(skb))
		return mark(skb) ? give_both(skb) : TCX_DROP;

	u32 tag = tag_of(skb);
	switch (forward(skb, 0, SHARED)) {
	case TCX_PASS: /* handed up, so marked */
		return give_both(skb);
	case TCX_REDIRECT:
		return TCX_REDIRECT;
	}
	return tag_of(skb) == tag ? TCX_NEXT /* not for others, but the host may have it */ : TCX_DROP;
}
