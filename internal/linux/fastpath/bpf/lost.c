/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Copies of frames that TAPs had no room for, or that nobody was there to read, or that a device's
 * egress rate did not let pass. The kernel frees such a frame with the reason FULL_RING, or with
 * QDISC_DROP at a device without a carrier, or at one that the switch shapes, which
 * a tracepoint shows. The program is there only while somebody
 * wants the copies: it runs for every packet of the host that is freed as lost.
 */
#include "kernel.h"

static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;

enum skb_drop_reason { SKB_DROP_REASON_FULL_RING = 1, SKB_DROP_REASON_QDISC_DROP = 2 }; /* each kernel has other numbers */

struct Qdisc___lost {
	void *enqueue;
	u32 handle;
} __attribute__((preserve_access_index));

struct netdev_queue___lost {
	struct Qdisc___lost *qdisc;
} __attribute__((preserve_access_index));

#define NO_CARRIER 4 /* of the device's state: 1 << __LINK_STATE_NOCARRIER */

struct net_device___lost {
	unsigned long state;
	int ifindex;
	possible_net_t nd_net;
	struct netdev_queue___lost *_tx;
} __attribute__((preserve_access_index));

struct skb_shared_info___lost {
	unsigned short gso_size;
} __attribute__((preserve_access_index));

struct sk_buff___lost {
	struct net_device___lost *dev;
	unsigned int len, data_len;
	unsigned short vlan_proto, vlan_tci;
	u8 redirected : 1;
	unsigned int end;
	u8 *head, *data;
} __attribute__((preserve_access_index));

#define BYTES 128 /* that are copied of a frame: the headers */
#define LAP_SHIFT 27 /* of a device at most EACH frames are copied in 2^27 ns */
#define EACH 128

/* Why a frame was lost. */
enum { FULL, NOBODY, SHAPED };

/* A copy as user space reads it. */
struct loss {
	u64 time; /* ns of CLOCK_MONOTONIC */
	u32 ifindex;
	u32 length; /* of the frame without the tag beside it */
	u32 bytes; /* of data */
	u32 others; /* of the device that were not copied before it */
	u32 why;
	u16 tpid, tci; /* the tag; no tpid: none */
	u8 data[BYTES];
};
const struct loss *unused __attribute__((unused)); /* for the type information */

/* A device whose losses are wanted. */
struct device {
	u64 lap;
	u32 copied; /* in that lap */
	u32 others;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, u32); /* its number */
	__type(value, struct device);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} copies SEC(".maps");

volatile const u64 netns; /* the cookie of the devices' network namespace */

/* is_silent reports whether nobody but the kernel knows of the loss: of frames of the fast path,
 * and of the switch's super-frames behind a queueing discipline. The switch gets an error for
 * its other frames. */
static inline int is_silent(struct sk_buff___lost *skb)
{
	if (read_bits(skb, redirected))
		return 1;
	if (!skb->dev->_tx->qdisc->enqueue)
		return 0;
	struct skb_shared_info___lost *shared = (void *)(skb->head + skb->end);
	unsigned short gso_size = 0;
	bpf_probe_read_kernel(&gso_size, sizeof(gso_size), __builtin_preserve_access_index(&shared->gso_size));
	return gso_size != 0;
}

/* is_shaped reports whether the switch put a device's queueing discipline there (internal/linux/shape). */
static inline int is_shaped(struct net_device___lost *dev)
{
	u32 handle = dev->_tx->qdisc->handle >> 16;
	return handle == 0x7673 || handle == 0x7674;
}

SEC("tp_btf/kfree_skb") int lost(u64 *args)
{
	struct sk_buff___lost *skb = (void *)args[0];
	struct net_device___lost *dev = skb->dev;
	u32 reason = args[2], why = FULL;
	if (reason == __builtin_preserve_enum_value(*(enum skb_drop_reason *)SKB_DROP_REASON_QDISC_DROP, 1)) {
		if (dev->state & NO_CARRIER)
			why = NOBODY;
		else if (is_shaped(dev) && read_bits(skb, redirected)) /* the switch gets an error for its own */
			why = SHAPED;
		else
			return 0; /* a queueing discipline was full */
	} else if (reason != __builtin_preserve_enum_value(*(enum skb_drop_reason *)SKB_DROP_REASON_FULL_RING, 1)) {
		return 0;
	}
	u32 ifindex = dev->ifindex;
	struct device *of = bpf_map_lookup_elem(&devices, &ifindex);
	if (!of || dev->nd_net.net->net_cookie != netns || !is_silent(skb))
		return 0;
	u64 now = bpf_ktime_get_ns(), lap = now >> LAP_SHIFT;
	if (of->lap != lap) {
		of->lap = lap;
		of->copied = 0;
	}
	if (of->copied >= EACH) {
		__sync_fetch_and_add(&of->others, 1);
		return 0;
	}
	struct loss *l = bpf_ringbuf_reserve(&copies, sizeof(*l), 0);
	if (!l) {
		__sync_fetch_and_add(&of->others, 1);
		return 0;
	}
	of->copied++;
	u32 bytes = skb->len - skb->data_len;
	if (bytes > BYTES)
		bytes = BYTES;
	l->time = now;
	l->ifindex = ifindex;
	l->length = skb->len;
	l->why = why;
	l->others = __sync_lock_test_and_set(&of->others, 0);
	l->tpid = skb->vlan_proto;
	l->tci = skb->vlan_tci;
	l->bytes = bpf_probe_read_kernel(l->data, bytes, skb->data) ? 0 : bytes;
	bpf_ringbuf_submit(l, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
