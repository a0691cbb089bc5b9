/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Super-frames that the kernel can segment. It looks at all that come from guests before they leave, header by header from
 * the front, and drops at the output what it cannot segment. So a guest's super-frame whose segments are those of
 * a packet in a tunnel (GRE, IP in IP, VXLAN) is handed up, unless the offload header says where that packet is: the
 * switch finds it by the place of the checksum, as findInner in internal/virtio/vnet. The kernel knows where it is in
 * tunnels of its own.
 */
#pragma once
#include "checksum.h"

static inline u32 type_of(struct __sk_buff *skb)
{
	u8 *p = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	return p + ETHERNET > end ? 0 : *(u16 *)(p + 12);
}

static inline u32 gso_type(struct sk_buff *k)
{
	struct skb_shared_info *shared = bpf_rdonly_cast(k->head + k->end, kernel_type(struct skb_shared_info));
	return shared->gso_type;
}

/* is_cut_as_is reports whether a super-frame with a checksum of its own is cut into what its
 * headers are, as Inspect in internal/virtio/vnet. */
global int is_cut_as_is(struct __sk_buff *skb)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	u32 as = gso_type(k);
	if (read_bits(k, encapsulation))
		return 0;
	if (k->csum_offset == CSUM_OF_UDP)
		return !!(as & GSO_UDP);
	return !!(as & (type_of(skb) == TYPE_IPV4 ? GSO_TCPV4 : GSO_TCPV6));
}

/* can_segment reports whether the kernel can segment any other super-frame: behind tags, options or extension
 * headers, with a complete checksum, or in a tunnel. */
global int can_segment(struct __sk_buff *skb)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	u32 as = gso_type(k);
	struct packet p;
	if (!as)
		return 1; /* it has no segments: every device takes it */
	if (!find_packet(skb, &p))
		return 0;
	if (read_bits(k, encapsulation)) {
		if (!(as & GSO_DODGY))
			return 1;
		switch (p.proto) {
		case PROTO_UDP:
			return !!(as & GSO_UDP_TUNNEL);
		case PROTO_GRE:
			return !!(as & GSO_GRE);
		case PROTO_IPIP:
		case PROTO_IPV6_IN_IP:
			return !!(as & GSO_IPIP);
		}
		return 0;
	}
	if (read_bits(k, ip_summed) == CHECKSUM_PARTIAL && start_of(k) != p.transport)
		return 0;
	switch (p.proto) {
	case PROTO_TCP:
		return !!(as & (p.version == 4 ? GSO_TCPV4 : GSO_TCPV6));
	case PROTO_UDP:
		return !!(as & GSO_UDP);
	case PROTO_SCTP:
		return !!(as & GSO_SCTP);
	}
	return 0;
}

/* is_plain_tunnel reports whether the kernel can finish a frame whose header says that it is a tunnel's: of IPv4 without options in IPv4
 * without options, with the checksum of the inner TCP or UDP. It says of these what is_checksum and can_segment say, by
 * two looks in place of their walks from header to header; of others it says no. */
global int is_plain_tunnel(struct __sk_buff *skb)
{
	u8 *p = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	if (p + ETHERNET + 20 > end || *(u16 *)(p + 12) != TYPE_IPV4 || p[14] != 0x45 || *(u16 *)(p + 20) & be16(0x3fff))
		return 0;
	u32 start = start_of(k), from = ETHERNET + 20, as = 0;
	switch (p[23]) {
	case PROTO_UDP:
		from += 8, as = GSO_UDP_TUNNEL;
		break;
	case PROTO_GRE:
		from += 4, as = GSO_GRE;
		break;
	case PROTO_IPIP:
		as = GSO_IPIP;
		break;
	default:
		return 0;
	}
	u32 at = start - 20;
	asm volatile("" : "+r"(at)); /* the verifier wants no offset below a place that it knows */
	if (at < from || at > 235)
		return 0;
	u8 *inner = p + at;
	if (inner + 20 > end || inner[0] != 0x45 || *(u16 *)(inner + 6) & be16(0x3fff))
		return 0;
	u32 need = covered(inner[9], k->csum_offset), last = end_of(skb, at, be16(*(u16 *)(inner + 2)));
	if (!need || start + need > last || last > skb->len)
		return 0;
	return !skb->gso_size || !(gso_type(k) & GSO_DODGY) || gso_type(k) & as;
}

/* can_finish reports whether others can do what a frame leaves to them. */
static inline int can_finish(struct __sk_buff *skb)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	if (read_bits(k, ip_summed) == CHECKSUM_PARTIAL) {
		if (is_own_checksum(skb, k))
			return !skb->gso_size || is_cut_as_is(skb);
		if (read_bits(k, encapsulation) && is_plain_tunnel(skb))
			return 1;
		if (!is_checksum(skb))
			return 0;
	}
	return !skb->gso_size || can_segment(skb);
}
