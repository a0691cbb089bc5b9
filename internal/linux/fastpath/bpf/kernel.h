/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What fastpath.c uses of the kernel's interface to tc programs: a part of
 * include/uapi/linux/bpf.h and of libbpf's map declarations. It stands here so that
 * the compiler alone decides what is generated, not the headers of a distribution.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* struct __sk_buff; every field is four bytes. */
struct __sk_buff {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol; /* network byte order, like vlan_proto */
	u32 vlan_present;
	u32 vlan_tci;
	u32 vlan_proto;
	u32 priority;
	u32 ingress_ifindex;
	u32 ifindex;
	u32 tc_index;
	u32 cb[5];
	u32 hash;
	u32 tc_classid;
	u32 data;
	u32 data_end;
	u32 napi_id;
	u32 family;
	u32 remote_ip4;
	u32 local_ip4;
	u32 remote_ip6[4];
	u32 local_ip6[4];
	u32 remote_port;
	u32 local_port;
	u32 data_meta;
	u64 flow_keys __attribute__((aligned(8)));
	u64 tstamp;
	u32 wire_len;
	u32 gso_segs;
	u64 sk __attribute__((aligned(8)));
	u32 gso_size;
	u8 tstamp_type;
	u32 : 24;
	u64 hwtstamp;
};

/* enum tcx_action_base; TCX_REDIRECT is what bpf_redirect returns. */
#define TCX_NEXT (-1)
#define TCX_PASS 0
#define TCX_DROP 2
#define TCX_REDIRECT 7

/* enum bpf_map_type */
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_ARRAY_OF_MAPS 12
#define BPF_MAP_TYPE_DEVMAP 14
#define BPF_MAP_TYPE_DEVMAP_HASH 25
#define BPF_MAP_TYPE_RINGBUF 27

#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE 1024

/* The outer addresses of a tunnelled frame. IPv4 addresses are in host byte order, IPv6 ones
 * in network order. */
struct bpf_tunnel_key {
	u32 tunnel_id;
	union {
		u32 remote_ipv4;
		u32 remote_ipv6[4];
	};
	u8 tunnel_tos;
	u8 tunnel_ttl;
	u16 tunnel_flags;
	u32 tunnel_label;
	union {
		u32 local_ipv4;
		u32 local_ipv6[4];
	};
};

#define BPF_F_TUNINFO_IPV6 1
#define BPF_F_TUNINFO_FLAGS 16
#define BPF_F_DONT_FRAGMENT 4

/* By which neighbour bpf_redirect_neigh sends a packet. */
struct bpf_redir_neigh {
	u32 nh_family;
	union {
		u32 ipv4_nh; /* network byte order */
		u32 ipv6_nh[4];
	};
};

#define AF_INET 2

#define BPF_ADJ_ROOM_MAC 1
#define BPF_F_ADJ_ROOM_FIXED_GSO (1ULL << 0)
#define BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 (1ULL << 1)
#define BPF_F_ADJ_ROOM_ENCAP_L4_UDP (1ULL << 4)
#define BPF_F_ADJ_ROOM_ENCAP_L2_ETH (1ULL << 6)
#define BPF_F_ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)
#define BPF_F_ADJ_ROOM_ENCAP_L2(length) ((u64)(length) << 56)

/* enum bpf_func_id */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_prandom_u32)(void) = (void *)7;
static long (*bpf_skb_store_bytes)(struct __sk_buff *skb, u32 offset, const void *from, u32 len, u64 flags) = (void *)9;
static long (*bpf_clone_redirect)(struct __sk_buff *skb, u32 ifindex, u64 flags) = (void *)13;
static long (*bpf_skb_vlan_push)(struct __sk_buff *skb, u16 proto, u16 tci) = (void *)18;
static long (*bpf_skb_vlan_pop)(struct __sk_buff *skb) = (void *)19;
static long (*bpf_skb_get_tunnel_key)(struct __sk_buff *skb, struct bpf_tunnel_key *key, u32 size, u64 flags) = (void *)20;
static long (*bpf_skb_set_tunnel_key)(struct __sk_buff *skb, struct bpf_tunnel_key *key, u32 size, u64 flags) = (void *)21;
static long (*bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*bpf_skb_load_bytes)(const void *skb, u32 offset, void *to, u32 len) = (void *)26;
static u32 (*bpf_get_hash_recalc)(struct __sk_buff *skb) = (void *)34;
static long (*bpf_skb_adjust_room)(struct __sk_buff *skb, int by, u32 mode, u64 flags) = (void *)50;
static u64 (*bpf_jiffies64)(void) = (void *)118;
static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, u64 flags) = (void *)133;
static u64 (*bpf_ringbuf_query)(void *ring, u64 what) = (void *)134;
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 }; /* flags of submit */
enum { BPF_RB_AVAIL_DATA = 0 }; /* what query returns */
static long (*bpf_redirect_neigh)(u32 ifindex, struct bpf_redir_neigh *by, int len, u64 flags) = (void *)152;
static u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;
static long (*bpf_check_mtu)(void *ctx, u32 ifindex, u32 *mtu, int len_diff, u64 flags) = (void *)163;

static long (*bpf_loop)(u32 times, void *callback, void *with, u64 flags) = (void *)181;

/* Fields of types of the kernel that are read: the loader finds where they are in the
 * running kernel. */
struct netns_nf {
	void *hooks_ipv4[5];
} __attribute__((preserve_access_index));

struct netns_xfrm {
	u32 policy_count[6];
} __attribute__((preserve_access_index));

struct net {
	u64 net_cookie;
	struct netns_nf nf;
	struct netns_xfrm xfrm;
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} __attribute__((preserve_access_index)) possible_net_t;

struct net_device {
	void *rx_handler;
	u32 flags;
	u64 priv_flags : 32;
	void *nf_hooks_ingress;
	possible_net_t nd_net;
} __attribute__((preserve_access_index));

/* Indices of netns_nf.hooks_ipv4 and of netns_xfrm.policy_count. */
enum { PRE_ROUTING, LOCAL_IN, FORWARDED, LOCAL_OUT, POST_ROUTING };
enum { XFRM_IN, XFRM_OUT };

struct sk_buff {
	struct net_device *dev;
	u8 ip_summed : 2, encapsulation : 1;
	u16 csum_start, csum_offset; /* if ip_summed is CHECKSUM_PARTIAL */
	u8 *head, *data;
	u32 end; /* from head to struct skb_shared_info */
} __attribute__((preserve_access_index));

struct skb_shared_info {
	u32 gso_type;
} __attribute__((preserve_access_index));

/* Flags of a device, and private ones, by which it belongs to a bond, a bridge, Open vSwitch or a team. */
#define DEVICE_SLAVE (1 << 11)
#define DEVICE_BONDING (1 << 2)
#define DEVICE_TAKEN (1 << 9 | 1 << 10 | 1 << 13)

/* What the segments of a super-frame are, of gso_type; whether a guest says so, or a program; and the
 * tunnel around them. */
#define GSO_TCPV4 (1 << 0)
#define GSO_DODGY (1 << 1)
#define GSO_TCP_ECN (1 << 2)
#define GSO_TCPV6 (1 << 4)
#define GSO_GRE (1 << 6 | 1 << 7)
#define GSO_IPIP (1 << 8 | 1 << 9)
#define GSO_UDP_TUNNEL (1 << 10 | 1 << 11)
#define GSO_SCTP (1 << 14)
#define GSO_UDP_FRAGMENTS (1 << 16) /* of a datagram */
#define GSO_UDP (GSO_UDP_FRAGMENTS | 1 << 17) /* that, or datagrams */

#define CHECKSUM_UNNECESSARY 1
#define CHECKSUM_PARTIAL 3
#define CSUM_OF_TCP 16 /* csum_offset */
#define CSUM_OF_UDP 6
#define CSUM_OF_GRE 4

/* has_field reports whether a type of the running kernel has a field. */
#define has_field(type, field) __builtin_preserve_field_info(((type *)0)->field, 2)

/* read_bits reads a bit field, which is in another place in each kernel: enum
 * bpf_field_info_kind of the compiler has the place, the size of a word around it, and
 * how to shift it there and back. */
#define read_bits(s, field)                                                                   \
	({                                                                                    \
		void *at = (void *)(s) + __builtin_preserve_field_info((s)->field, 0);        \
		u64 word = 0;                                                                 \
		switch (__builtin_preserve_field_info((s)->field, 1)) {                       \
		case 1: word = *(u8 *)at; break;                                              \
		case 2: word = *(u16 *)at; break;                                             \
		case 4: word = *(u32 *)at; break;                                             \
		case 8: word = *(u64 *)at; break;                                             \
		}                                                                             \
		word << __builtin_preserve_field_info((s)->field, 4)                          \
			>> __builtin_preserve_field_info((s)->field, 5);                      \
	})

/* A function of the kernel: the sk_buff of an __sk_buff (Linux 6.2). */
extern void *bpf_cast_to_kern_ctx(void *obj) __attribute__((section(".ksyms")));

/* Likewise: memory of the kernel as a type of its own, which can only be read. */
extern void *bpf_rdonly_cast(const void *obj, u32 type) __attribute__((section(".ksyms")));
#define kernel_type(type) __builtin_btf_type_id(*(typeof(type) *)0, 1)

#define SEC(name) __attribute__((section(name), used))
#define inline inline __attribute__((always_inline))
#define global __attribute__((noinline)) /* verified once, and not for each call */

/* A map's declaration, in the type information that loaders read. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) value *name
#define __array(name, value...) typeof(value) *name[]

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(x) __builtin_bswap16(x)
#define be32(x) __builtin_bswap32(x)
#define be64(x) __builtin_bswap64(x)
#else
#define be16(x) (x)
#define be32(x) (x)
#define be64(x) (x)
#endif
