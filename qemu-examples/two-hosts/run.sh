#!/usr/bin/env bash
# Two virtual machines on two hosts talk through a switch at each, and a tunnel between them.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab_hosts a b

say "starting a switch at each host, with a port to the other"
host a
switch
vs add-port up0 --kind vxlan --local 192.0.2.1 --peers 192.0.2.2 --vni 100
vs add-port vm0
host b
switch
vs add-port up0 --kind vxlan --local 192.0.2.2 --peers 192.0.2.1 --vni 100
vs add-port vm0

say "booting a VM at each host; what fits through the tunnel is the MTU of its NIC"
host a
boot_on vm0 a 10.0.0.1/24
host b
boot_on vm0 b 10.0.0.2/24
serve a b
up vm0 up0
for name in a b; do
	mtu=$(guest $name 'cat /sys/class/net/eth0/mtu')
	echo "$name: MTU $mtu"
	[ "$mtu" = 1450 ] || die "the NIC of $name has an MTU of $mtu, not 1450"
done

say "ping, each way"
pings a 10.0.0.2
pings b 10.0.0.1

say "TCP: a file of random bytes, and its checksum at both ends"
fetch a b 10.0.0.2
fetch b a 10.0.0.1

say "the ports at each host, and where host a has the stations"
host a
vs ports
vs fdb list
host b
vs ports
for why in too_big unknown_vtep unknown_vni bad_tunnel; do
	! vs stats up0 | grep -w "$why" || die "frames were lost in the tunnel"
done
say "done: two hosts are one LAN"
