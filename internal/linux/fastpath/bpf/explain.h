/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What would become of a frame: a program that user space runs on one that nobody sent. It is
 * the code that decides about real frames, on the same tables, but nothing is sent, copied,
 * counted or heard. It returns an enum decision. Rates are not asked: they depend on when.
 */
#pragma once

/* take_tag has the outer tag of a frame beside its bytes, as a frame has it that a device
 * received. */
static inline int take_tag(struct __sk_buff *skb)
{
	struct {
		u16 tpid, tci;
	} tag;
	if (skb->vlan_present || ((u16)skb->protocol != C_TPID && (u16)skb->protocol != be16(0x88a8)))
		return 1;
	return bpf_skb_load_bytes(skb, ETHERNET - 2, &tag, sizeof(tag)) == 0 && bpf_skb_vlan_pop(skb) == 0 &&
	       bpf_skb_vlan_push(skb, tag.tpid, be16(tag.tci)) == 0;
}

SEC("tcx/ingress") int explain(struct __sk_buff *skb)
{
	struct verdict v = {};
	if (!take_tag(skb))
		return UP;
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	if (data + ETHERNET > end)
		return UP;
	if (is_shared(skb)) {
		if (skb->pkt_type == PACKET_HOST)
			return HOSTS;
		if (is_crowded(skb))
			return UP;
	}
	enum decision is;
	struct frame of = {
		.dst_src = *(u64 *)data,
		.src = *(u32 *)(data + 8),
		.ifindex = skb->ifindex,
		.tag = tag_of(skb),
	};
	if (data[0] & 1) {
		u32 n = PLANS;
		struct flooded f = {.skb = skb, .plan = bpf_map_lookup_elem(&plans, &n)};
		if (!f.plan)
			return UP;
		is = make_plan(skb, &f, &of, ASKED);
		v = f.plan->is;
		if (is == ON && f.plan->exits >= BUSY_EXITS && !is_shared(skb) && switch_floods(v.in, term()))
			return UP;
	} else {
		is = decide(skb, &of, &v, ASKED);
		if (is == ON)
			return can_send(skb, &v) ? ON : UP;
	}
	if (is == UP || (is != ON && wanted(v.in)) || !can_copy(skb, &v) || !can_see(skb, v.watch))
		return UP;
	return is;
}
