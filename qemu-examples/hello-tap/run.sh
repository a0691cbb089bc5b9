#!/usr/bin/env bash
# What a TUN and a TAP device are, by two experiments, and how a TAP becomes the
# NIC of a virtual machine.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab
go build -o "$dir/hello-tap" ./qemu-examples/hello-tap
# The kernel greets every new interface with IPv6 messages, which would mix with
# what the experiments send.
on sysctl -q -w net.ipv6.conf.default.disable_ipv6=1

# experiment KIND DEVICE ADDRESS ABSENT: open the device, give it an address, and
# ping one in the same subnet, which nobody has. What the kernel sends out by the
# device, the program reads.
experiment() {
	local kind=$1 device=$2 address=$3 absent=$4 program
	say "$kind: open the device"
	ip netns exec "$ns" "$dir/hello-tap" "$kind" "$device" >"$dir/$device.out" 2>"$dir/$device.log" &
	program=$!
	within 5 grep "device: $device" "$dir/$device.out" || die "hello-tap did not open $device"
	on ip addr add "$address" dev "$device"
	on ip link set "$device" up
	on ip addr show dev "$device"

	say "$kind: ping $absent, an address behind it"
	on ping -c 3 -i 0.3 -W 1 "$absent" || true # nobody answers: the program only reads
	within 5 grep 'read [0-9]* bytes' "$dir/$device.out" || die "hello-tap read nothing from $device"
	kill "$program"
	wait "$program" || true
}

experiment tun tun0 192.168.9.1/24 192.168.9.9
grep -qx 'read 84 bytes' "$dir/tun0.out" || die "a TUN device carries IP packets, and a ping has 84 bytes"
echo "An IP packet of a ping: 20 bytes of IP, 8 of ICMP, 56 of data."

experiment tap tap0 192.168.10.1/24 192.168.10.9
grep -qx 'read 42 bytes' "$dir/tap0.out" || die "a TAP device carries Ethernet frames, and an ARP request has 42 bytes"
echo "An Ethernet frame: 14 bytes of header, 28 of ARP, which asks who has the address."

say "the same TAP as a VM's NIC"
on ip addr flush dev tap0
switch
vs add-port tap0
vs add-port host0 --kind host --address 192.168.10.1/24
boot a tap0 52:54:00:00:00:0a 192.168.10.9/24
echo "Now somebody has the address:"
pings a 192.168.10.1
on ping -c 3 -i 0.3 192.168.10.9

say "one program at a time holds the device, and now that is QEMU"
if on "$dir/hello-tap" tap tap0 2>"$dir/second.out"; then
	die "a second program could open tap0"
fi
cat "$dir/second.out"
grep -q 'device or resource busy' "$dir/second.out" || die "the refusal has another reason"
say "done"
