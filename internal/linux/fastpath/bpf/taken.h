/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether somebody takes the frames of a device between tcx and packet sockets, where hand_up
 * leaves those for the switch: a program that user space runs on a frame that nobody sent. A
 * macvlan in another network namespace shows itself nowhere else.
 */
#pragma once

SEC("tcx/ingress") int taken(struct __sk_buff *skb)
{
	struct sk_buff *kernel_skb = bpf_cast_to_kern_ctx(skb);
	return kernel_skb->dev->rx_handler != 0;
}
