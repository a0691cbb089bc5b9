/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The short way out of tunnels, a program at the devices by which other hosts are reached. A packet
 * of a known host with a small frame from and for stations that are known becomes that frame, and goes to the
 * station's port. Whatever is doubtful about a packet, the program leaves it as it is: the kernel's own way leads to the tunnel's device
 * and its program (decap.h), which counts, refuses and hands up. So nothing has to be decided here that is not plain.
 *
 * On the kernel's way a packet waits in a queue where one on the short way would pass it. So while a
 * flow has packets there, the others follow them.
 */
#pragma once

/* A tunnel's end here: its address and UDP port, in network byte order. */
struct end {
	u32 local;
	u16 port;
	u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 256);
	__type(key, struct end);
	__type(value, u32); /* ifindex of the tunnel's device */
} ends SEC(".maps");

/* When a packet of a flow last took the kernel's way, in ticks. Flows are told apart by the UDP
 * source port, by few of its bits. */
#define TRAILS 256
#define TRAIL 4 /* ticks after which such a packet has left its queue */

struct trail {
	u32 at[TRAILS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct trail);
} trails SEC(".maps");

static inline u32 *trail_of(struct trail *t, struct outer *h)
{
	return &t->at[(h->sport ^ h->src) * 0x9e3779b1 >> 24];
}

/* tag_in returns the tag of a path's frames, which they do not have in the tunnel, as struct frame has it. */
static inline u32 tag_in(struct path *p)
{
	return p->vlan ? (u32)C_TPID << 16 | p->vlan : 0;
}

/* is_sound reports whether the kernel would take a packet for one of a path with one small frame of IP inside,
 * whose length is right everywhere. */
static inline int is_sound(struct __sk_buff *skb, struct path *p, struct outer *h, u8 *frame)
{
	u16 type = *(u16 *)(frame + 12);
	u32 length = skb->len - ETHERNET;
	return (h->tos & ECN_CE) != ECN_CE && be16(h->length) == length && !sum_of(h) &&
	       be16(h->udp_length) == length - 20 && h->header == p->header && !(h->vni & be32(0xff)) &&
	       !(frame[0] & 1) && (type == TYPE_IPV4 || type == TYPE_IPV6);
}

/* is_summed reports whether the outer checksum is right, as far as that is known already, and
 * if the inner one is left to others, whether it is one. */
static inline int is_summed(struct __sk_buff *skb, struct outer *h, u8 *frame, u8 *end)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	u32 is = read_bits(k, ip_summed);
	if (is != CHECKSUM_PARTIAL)
		return !h->udp_sum || is == CHECKSUM_UNNECESSARY;
	if (start_of(k) == ETHERNET + 20 && k->csum_offset == CSUM_OF_UDP)
		return 1; /* this host sent it */
	return is_checksum_of(skb, k, OUTER);
}

/* look_up_path reports whether a packet is one of a tunnel, and finds the path by which it came, if that is known. */
static inline int look_up_path(struct arrival *a, u32 *path)
{
	struct end to = {.local = be32(a->local), .port = a->port};
	u32 *tunnel = bpf_map_lookup_elem(&ends, &to);
	if (!tunnel)
		return 0;
	struct origin from = {.remote = {a->remote}, .ifindex = *tunnel, .vni = a->vni};
	u32 *number = bpf_map_lookup_elem(&origins, &from);
	struct path *p = number ? bpf_map_lookup_elem(&paths, number) : 0;
	if (p && p->ifindex == *tunnel) {
		*path = *number & MARK_PATH;
		remember(a, *path);
	}
	return 1;
}

/* find_way returns the number of the path by which a packet came that can go on by the short way; 0: it cannot. */
global u32 find_way(struct __sk_buff *skb)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end, *frame = data + OUTER;
	if ((u16)skb->protocol != TYPE_IPV4 || skb->pkt_type != PACKET_HOST || skb->vlan_present ||
	    frame + ETHERNET + 20 > end)
		return 0;
	struct outer *h = (struct outer *)(data + ETHERNET);
	if (h->version != 0x45 || h->proto != PROTO_UDP || h->fragment & be16(0x3fff))
		return 0;
	u32 zero = 0, now = bpf_jiffies64();
	struct trail *t = bpf_map_lookup_elem(&trails, &zero);
	if (!t)
		return 0;
	u32 *trail = trail_of(t, h);
	if (skb->gso_size) { /* nothing else has to be known of a super-frame */
		*trail = now;
		return 0;
	}
	struct arrival a = {
		.remote = be32(h->src), .local = be32(h->dst), .ifindex = skb->ifindex, .vni = be32(h->vni) >> 8, .port = h->dport};
	u32 path = path_before(&a);
	if (!path && !look_up_path(&a, &path))
		return 0;
	struct path *p = path ? bpf_map_lookup_elem(&paths, &path) : 0;
	if (p && is_sound(skb, p, h, frame) && is_summed(skb, h, frame, end) && now - *trail > TRAIL &&
	    detour_of(bpf_cast_to_kern_ctx(skb)) == STRAIGHT && p->way == a.ifindex &&
	    bpf_map_lookup_elem(&underlays, &a.ifindex))
		return path;
	*trail = now;
	return 0;
}

/* leave_trail has the flow of a packet that takes the kernel's way after all stay there. */
global int leave_trail(struct __sk_buff *skb)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	u32 zero = 0;
	struct trail *t = bpf_map_lookup_elem(&trails, &zero);
	if (t && data + OUTER + ETHERNET <= end)
		*trail_of(t, (struct outer *)(data + ETHERNET)) = bpf_jiffies64();
	return 0;
}

/* satisfies reports whether a frame of IP has what a verdict asks: unlike guard.h, this only knows
 * that a frame is no message of address resolution. */
static inline int satisfies(u8 *frame, u16 type, u8 asks)
{
	return !asks || (asks == ASK_NAMES && (type == TYPE_IPV4 || frame[ETHERNET + 6] != PROTO_ICMPV6));
}

/* look_inside is look_up for the frame in a packet: it decides and remembers, or returns UP. */
global int look_inside(struct __sk_buff *skb, u32 epoch, u32 lap, u32 path, u32 place)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end, *frame = data + OUTER;
	u32 zero = 0;
	struct flows *flows = bpf_map_lookup_elem(&recent, &zero);
	struct path *p = bpf_map_lookup_elem(&paths, &path);
	if (frame + ETHERNET + 20 > end || !flows || !p || place >= FLOWS)
		return UP;
	struct frame f = {
		.dst_src = *(u64 *)frame,
		.src = *(u32 *)(frame + 8),
		.ifindex = p->ifindex,
		.tag = tag_in(p),
		.epoch = epoch,
		.lap = lap,
		.path = path,
	};
	struct verdict v = {};
	struct port *from = input(f.ifindex, &v.in);
	if (!from || from->flags & (GUARDED | ROUTER_GUARD))
		return UP; /* decide would look into the frame, which is elsewhere */
	u16 type = *(u16 *)(frame + 12);
	u32 resolves = from->resolves ? ASK_NAMES : 0;
	if (!satisfies(frame, type, resolves) || decide(skb, &f, &v, REAL) != ON || v.asks != resolves)
		return UP;
	flows->last[place].of = f;
	flows->last[place].is = v;
	return ON;
}

/* unwrap sends on the frame in a packet that came by a path, or returns TCX_NEXT and leaves the packet as it was. */
static inline int unwrap(struct __sk_buff *skb, u32 path)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end, *frame = data + OUTER;
	u32 zero = 0;
	struct path *p = bpf_map_lookup_elem(&paths, &path);
	u32 *epoch = bpf_map_lookup_elem(&epochs, &zero);
	struct flows *flows = bpf_map_lookup_elem(&recent, &zero);
	if (frame + ETHERNET + 20 > end || !p || !epoch || !flows)
		return TCX_NEXT;

	struct {
		u64 dst_src;
		u32 src;
		u16 type;
	} __attribute__((packed)) header = {*(u64 *)frame, *(u32 *)(frame + 8), *(u16 *)(frame + 12)};
	u32 ifindex = p->ifindex, tag = tag_in(p), before = *(volatile u32 *)epoch;
	u32 lap = bpf_jiffies64() >> LAP_SHIFT;
	u32 i = place_of(header.dst_src, header.src, ifindex);
	if ((flows->last[i].of.dst_src != header.dst_src || flows->last[i].of.src != header.src ||
	     flows->last[i].of.ifindex != ifindex || flows->last[i].of.tag != tag ||
	     flows->last[i].of.epoch != before || flows->last[i].of.lap != lap || flows->last[i].of.path != path) &&
	    look_inside(skb, before, lap, path, i) != ON)
		return TCX_NEXT;

	struct verdict *v = &flows->last[i].is;
	u32 output = v->ifindex;
	if (!satisfies(frame, header.type, v->asks) || v->mirror_in || v->mirror_out || v->watch || v->bucket || v->path || output & AGGREGATE)
		return TCX_NEXT;
	u32 *device = bpf_map_lookup_elem(&devices, &v->out);
	struct counters *in = bpf_map_lookup_elem(&counts, &v->in);
	struct counters *out = bpf_map_lookup_elem(&counts, &v->out);
	if (!device || *device != output || !in || !out)
		return TCX_NEXT;
	u32 leaves = v->tpid ? (u32)v->tpid << 16 | v->tci : v->pop ? 0 : tag;
	u32 length = skb->len - OUTER;
	if (length > v->fits) {
		int more = leaves && leaves >> 16 != C_TPID ? TAG : 0;
		u32 mtu = 0;
		if (bpf_check_mtu(skb, output, &mtu, more - OUTER, 0))
			return TCX_NEXT;
		v->fits = mtu + ETHERNET - more;
	}

	if (bpf_skb_adjust_room(skb, -OUTER, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | (header.type == TYPE_IPV6 ? BPF_F_ADJ_ROOM_DECAP_L3_IPV6 : 0)))
		return TCX_NEXT;
	if (bpf_skb_store_bytes(skb, 0, &header, sizeof(header), 0) ||
	    (leaves && bpf_skb_vlan_push(skb, leaves >> 16, leaves))) {
		in->lost++;
		return TCX_DROP;
	}
	in->rx_frames++;
	in->rx_bytes += length + (tag ? TAG : 0);
	out->tx_frames++;
	out->tx_bytes += length + (leaves ? TAG : 0);
	return bpf_redirect(output, 0);
}

SEC("tcx/ingress") int vswitch_unwrap(struct __sk_buff *skb)
{
	u32 path = find_way(skb);
	if (!path)
		return TCX_NEXT;
	int is = unwrap(skb, path & MARK_PATH);
	if (is == TCX_NEXT)
		leave_trail(skb);
	return is;
}
