/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Checksums that a frame leaves to others. Whoever completes one writes two bytes of the
 * frame after the switch has decided about it, at a place that a guest chooses. They must
 * not be an address, or anything else that somebody checked: only the checksum of a
 * transport header that the frame has, as Partial in internal/virtio/vnet.
 */
#pragma once
#include "kernel.h"

#define ETHERNET 14 /* bytes of a header without tag */
#define TAG 4       /* and of a tag */
#define C_TPID be16(0x8100)
#define S_TPID be16(0x88a8)
#define TYPE_IPV4 be16(0x0800)
#define TYPE_IPV6 be16(0x86dd)
#define TYPE_ARP be16(0x0806)
#define TYPE_RARP be16(0x8035)

enum {
	PROTO_HOP_BY_HOP = 0,
	PROTO_ICMP = 1,
	PROTO_IPIP = 4,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_IPV6_IN_IP = 41,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_GRE = 47,
	PROTO_ESP = 50,
	PROTO_ICMPV6 = 58,
	PROTO_OPTIONS = 60,
	PROTO_SCTP = 132,
	PROTO_MPLS = 137,
	PROTO_ETHERNET = 143,
};

/* A partial checksum covers what begins at start, from the destination address on. */
static inline u32 start_of(struct sk_buff *k)
{
	return k->csum_start - (u32)(k->data - k->head);
}

/* covered returns the length of the shortest header of a protocol that has its checksum at
 * this offset; 0: it has none there. */
static inline u32 covered(u8 proto, u16 offset)
{
	if (proto == PROTO_TCP && offset == CSUM_OF_TCP)
		return 20;
	return proto == PROTO_UDP && offset == CSUM_OF_UDP ? 8 : 0;
}

/* is_checksum_of reports whether a partial checksum is that of a TCP or UDP header right
 * behind an IP header without options, of the frame that begins at this byte: PartialOuter in
 * internal/virtio/vnet. */
static inline int is_checksum_of(struct __sk_buff *skb, struct sk_buff *k, u32 at)
{
	u8 *p = (u8 *)(long)skb->data + at, *end = (u8 *)(long)skb->data_end;
	if (p + ETHERNET + 20 > end)
		return 0;
	u16 type = *(u16 *)(p + 12);
	u32 transport, packet; /* lengths behind the Ethernet header */
	u8 proto;
	if (type == TYPE_IPV4 && p[14] == 0x45 && !(*(u16 *)(p + 20) & be16(0x3fff))) {
		proto = p[23], transport = 20, packet = be16(*(u16 *)(p + 16));
	} else if (type == TYPE_IPV6 && p[14] >> 4 == 6) {
		proto = p[20], transport = 40, packet = 40 + be16(*(u16 *)(p + 18));
	} else {
		return 0;
	}
	u32 need = covered(proto, k->csum_offset);
	return need && start_of(k) == at + ETHERNET + transport && transport + need <= packet && at + ETHERNET + packet <= skb->len;
}

/* is_own_checksum is that of the frame itself, which nearly all frames have that have one. */
static inline int is_own_checksum(struct __sk_buff *skb, struct sk_buff *k)
{
	return is_checksum_of(skb, k, 0);
}

/* An IP packet in a frame. */
struct packet {
	u32 transport; /* where what follows its headers begins */
	u32 end;
	u8 proto, version;
	u16 : 16;
};

/* bytes reads a number of 1 or 2 bytes, in network byte order; beyond the frame it is 0. */
static inline u32 bytes(struct __sk_buff *skb, u32 at, u32 n)
{
	u8 b[2] = {};
	if (bpf_skb_load_bytes(skb, at, b, n))
		return 0;
	return n == 1 ? b[0] : b[0] << 8 | b[1];
}

/* end_of returns where a packet ends, of which so many bytes are behind at. Super-frames of
 * more than 64 KiB (BIG TCP) say 0. */
static inline u32 end_of(struct __sk_buff *skb, u32 at, u32 length)
{
	return length || !skb->gso_size ? at + length : skb->len;
}

/* find_ip finds the headers of an IP packet. It reports whether that is whole, and no
 * fragment. */
static inline int find_ip(struct __sk_buff *skb, u32 at, struct packet *p)
{
	u32 first = bytes(skb, at, 1);
	p->version = first >> 4;
	if (first >> 4 == 4) {
		p->proto = bytes(skb, at + 9, 1);
		p->transport = at + (first & 0xf) * 4;
		p->end = end_of(skb, at, bytes(skb, at + 2, 2));
		return (first & 0xf) >= 5 && !(bytes(skb, at + 6, 2) & 0x3fff);
	}
	if (first >> 4 != 6)
		return 0;
	p->proto = bytes(skb, at + 6, 1);
	p->transport = at + 40;
	p->end = end_of(skb, at + 40, bytes(skb, at + 4, 2));
	for (int i = 0; i < 8; i++) {
		if (p->proto != PROTO_HOP_BY_HOP && p->proto != PROTO_ROUTING && p->proto != PROTO_OPTIONS)
			return p->proto != PROTO_FRAGMENT;
		p->proto = bytes(skb, p->transport, 1);
		p->transport += 8 + bytes(skb, p->transport + 1, 1) * 8;
	}
	return 0;
}

/* has_checksum reports whether a packet has a checksum where its headers end. */
static inline int has_checksum(struct __sk_buff *skb, struct packet *p, u16 offset)
{
	u32 need = covered(p->proto, offset);
	if (p->proto == PROTO_GRE && offset == CSUM_OF_GRE && bytes(skb, p->transport, 1) & 0x80)
		need = 8;
	return need && p->transport + need <= p->end && p->end <= skb->len;
}

/* find_packet is find_ip for the packet of a frame, behind up to two tags. */
static inline int find_packet(struct __sk_buff *skb, struct packet *p)
{
	u32 type = bytes(skb, 12, 2), at = ETHERNET;
	for (int i = 0; i < 2 && (type == 0x8100 || type == 0x88a8); i++, at += TAG)
		type = bytes(skb, at + 2, 2);
	return (type == 0x0800 || type == 0x86dd) && bytes(skb, at, 1) >> 4 == (type == 0x0800 ? 4 : 6) && find_ip(skb, at, p);
}

/* is_checksum reports whether a partial checksum is that of a transport header of the frame:
 * also behind options and extension headers, and inside a tunnel (VXLAN, GENEVE, GRE, IP in
 * IP). Like vnet.Partial, it searches backwards for the inner header, so the kind of tunnel
 * does not matter. It does not know all that vnet.Partial does, so the switch is asked then. */
global int is_checksum(struct __sk_buff *skb)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	u32 start = start_of(k);
	u16 offset = k->csum_offset;
	struct packet p;
	if (!find_packet(skb, &p))
		return 0;
	if (p.transport == start)
		return has_checksum(skb, &p, offset);
	if (start > skb->len)
		return 0;
	u32 from = p.transport;
	if (p.proto == PROTO_UDP)
		from += 8;
	else if (p.proto == PROTO_GRE)
		from += 4;
	else if (p.proto != PROTO_IPIP && p.proto != PROTO_IPV6_IN_IP && p.proto != PROTO_MPLS && p.proto != PROTO_ETHERNET)
		return 0;
	for (u32 length = 20; length <= 60 && from + length <= start; length += 4) {
		if (bytes(skb, start - length, 1) == (0x40 | length / 4) && find_ip(skb, start - length, &p) && has_checksum(skb, &p, offset))
			return 1;
	}
	return from + 40 <= start && bytes(skb, start - 40, 1) >> 4 == 6 && find_ip(skb, start - 40, &p) &&
	       p.transport == start && has_checksum(skb, &p, offset);
}
