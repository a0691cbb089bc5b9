/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The short way into a tunnel. A frame for a host that is reached by an Ethernet device gets
 * its outer headers here, as the tunnel's device would write them, and goes to that device. The kernel's own way takes
 * three times as long: a route is looked up for each frame, then come netfilter and a queue. All else takes that way:
 * frames that are no IP, super-frames of fragments or of packets in a guest's own tunnel, and all frames where the host
 * has netfilter rules or IPsec policies, which this way would skip.
 *
 * Frames of one flow may alternate. They stay in order, since the kernel's way sends
 * at once, too, from the same UDP port and by the same queue.
 */
#pragma once

#define OUTER 50 /* bytes that a frame gets */
#define MAX_WRAPPED (65535 - (OUTER - ETHERNET)) /* bytes of a frame: an IP packet is no longer */

/* What follows the Ethernet header of a packet, in network byte order: IPv4, UDP, VXLAN or Geneve without options, and the
 * frame's header. */
struct outer {
	u8 version, tos;
	u16 length, id, fragment;
	u8 ttl, proto;
	u16 sum;
	u32 src, dst;
	u16 sport, dport, udp_length, udp_sum;
	u32 header, vni;
	u8 inner[ETHERNET];
} __attribute__((packed));

_Static_assert(sizeof(struct outer) == OUTER, "layout");

#define DONT_FRAGMENT be16(0x4000)
#define VXLAN_HEADER be32(0x08000000)
#define GENEVE_HEADER be32(0x6558)
#define ECN_CE 3

/* Why frames take the kernel's way though there is a short one. */
enum detour { STRAIGHT, FILTERED, ENCRYPTED };

/* What the switch says of all short ways, and what it may know of them. */
struct shortcut {
	u32 beat; /* when the switch last confirmed routes, as heard in struct station */
	u16 first_port, ports; /* UDP source ports */
	u32 detour; /* of the last frame */
	u32 : 32;
};

/* Routes that nobody confirmed for so long may be wrong: 2^30 ns each. */
#define STALE 40

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct shortcut);
} ways SEC(".maps");

/* The devices by which hosts are reached. The kernel takes one out as from the table of devices. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 256);
	__type(key, u32); /* ifindex */
	__type(value, u32);
} underlays SEC(".maps");

/* detour_of returns what the host does with packets to and from its own programs that the short way
 * would skip. */
static inline enum detour detour_of(struct sk_buff *k)
{
	struct net *net = k->dev->nd_net.net;
	if (has_field(struct net, nf) &&
	    (net->nf.hooks_ipv4[PRE_ROUTING] || net->nf.hooks_ipv4[LOCAL_IN] || net->nf.hooks_ipv4[LOCAL_OUT] ||
	     net->nf.hooks_ipv4[POST_ROUTING]))
		return FILTERED;
	if (has_field(struct net_device, nf_hooks_ingress) && k->dev->nf_hooks_ingress)
		return FILTERED;
	if (has_field(struct net, xfrm) && (net->xfrm.policy_count[XFRM_IN] || net->xfrm.policy_count[XFRM_OUT]))
		return ENCRYPTED;
	return STRAIGHT;
}

/* sum_of returns the checksum of an outer IP header as it is; 0 if that is right. */
static inline u16 sum_of(struct outer *h)
{
	u16 *w = (u16 *)h;
	u32 sum = 0;
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += w[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/* traffic_class returns the type of service of an IP packet that follows an Ethernet header. */
static inline u8 traffic_class(u8 *ip, u16 type)
{
	return type == TYPE_IPV4 ? ip[1] : ip[0] << 4 | ip[1] >> 4;
}

#define NO_WAY 0

/* wrap sends a frame by the short way of a path and returns TCX_REDIRECT, or TCX_DROP if it is lost; or it
 * leaves the frame as it was and returns NO_WAY. */
global int wrap(struct __sk_buff *skb, u32 number)
{
	u32 zero = 0, now = bpf_ktime_get_coarse_ns() >> 30;
	struct path *p = bpf_map_lookup_elem(&paths, &number);
	struct shortcut *w = bpf_map_lookup_elem(&ways, &zero);
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	if (!p || !w || !p->way || !p->limit || now - w->beat > STALE || skb->len > MAX_WRAPPED || skb->vlan_present ||
	    data + ETHERNET + 20 > end)
		return NO_WAY;
	struct outer h = {.version = 0x45, .fragment = DONT_FRAGMENT, .ttl = 64, .proto = PROTO_UDP, .header = p->header};
	u16 type = *(u16 *)(data + 12), length = skb->len;
	if ((type != TYPE_IPV4 && type != TYPE_IPV6) || type != (u16)skb->protocol)
		return NO_WAY;
	enum detour detour = detour_of(bpf_cast_to_kern_ctx(skb));
	if (w->detour != detour)
		w->detour = detour;
	u32 way = p->way, hash = bpf_get_hash_recalc(skb);
	if (detour != STRAIGHT || !hash || !bpf_map_lookup_elem(&underlays, &way))
		return NO_WAY;

	/* As INET_ECN_encapsulate, which tells hosts between of congestion anew (RFC 6040). */
	h.tos = traffic_class(data + ETHERNET, type) & ECN_CE;
	if (h.tos == ECN_CE)
		h.tos = 2;
	h.length = be16(OUTER - ETHERNET + length);
	h.src = be32(p->local[0]);
	h.dst = be32(p->remote[0]);
	h.sum = sum_of(&h);
	hash ^= hash << 16; /* as udp_flow_src_port */
	u32 first = w->first_port, ports = w->ports;
	if (p->header == GENEVE_HEADER) { /* whatever the host's own are */
		first = 1;
		ports = 65534;
	}
	h.sport = be16(((u64)hash * ports >> 32) + first);
	h.dport = p->port;
	h.udp_length = be16(OUTER - ETHERNET - 20 + length);
	h.vni = be32(p->vni << 8);
	__builtin_memcpy(h.inner, data, ETHERNET);

	if (bpf_skb_adjust_room(skb, OUTER, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
					BPF_F_ADJ_ROOM_ENCAP_L2(ETHERNET) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH))
		return NO_WAY;
	if (bpf_skb_store_bytes(skb, ETHERNET, &h, sizeof(h), 0))
		return TCX_DROP;
	skb->queue_mapping = 0; /* the flow chooses, as on the kernel's way */
	struct bpf_redir_neigh next = {.nh_family = AF_INET, .ipv4_nh = p->via};
	return bpf_redirect_neigh(way, &next, sizeof(next), 0);
}
