#!/usr/bin/env bash
# A VM that attacks its neighbours, behind a guarded port: nothing of it arrives.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab

attacker_mac=52:54:00:00:00:0a victim_mac=52:54:00:00:00:0b router_mac=52:54:00:00:00:01

say "starting the switch: the attacker's port is guarded, the others are trusted"
switch
vs add-port vm0 --guard on --guard-mac $attacker_mac --guard-address 10.0.0.10
vs add-port vm1
vs add-port vm2
vs guard list

say "booting three VMs"
boot attacker vm0 $attacker_mac 10.0.0.10/24
boot victim vm1 $victim_mac 10.0.0.11/24
boot router vm2 $router_mac 10.0.0.1/24

say "what the attacker may do: ping, each way"
pings attacker 10.0.0.1
pings victim 10.0.0.10

# knows VM ADDRESS MAC: what a VM believes about an address.
knows() {
	local has
	has=$(guest "$1" "ip neigh show $2")
	echo "$1: $has"
	[[ $has == *"$3"* ]] || die "$1 takes somebody else for $2"
}

# silent COMMAND: what the attacker does to no avail.
silent() {
	if guest attacker "$1"; then die "that got through: $1"; fi
}

say "it takes the router's address, and announces it to everybody"
pings victim 10.0.0.1
guest attacker 'ip addr add 10.0.0.1/24 dev eth0; arping -q -A -c 3 -I eth0 10.0.0.1; arping -q -U -c 3 -I eth0 10.0.0.1; ip addr del 10.0.0.1/24 dev eth0'
knows victim 10.0.0.1 $router_mac
pings victim 10.0.0.1

say "it takes the victim's address, and then its MAC address too"
silent 'ip addr add 10.0.0.11/24 dev eth0; ping -q -c 2 -W 1 -I 10.0.0.11 10.0.0.1'
silent "ip link set eth0 down; ip link set eth0 address $victim_mac; ip link set eth0 up; ping -q -c 2 -W 1 -I 10.0.0.11 10.0.0.1"
guest attacker "ip link set eth0 down; ip link set eth0 address $attacker_mac; ip link set eth0 up; ip addr del 10.0.0.11/24 dev eth0"
knows router 10.0.0.11 $victim_mac
vs fdb list

say "it is itself again"
within 20 guest attacker 'ip addr replace 10.0.0.10/24 dev eth0 && ping -q -c 1 -W 2 10.0.0.1' >/dev/null
pings attacker 10.0.0.1

say "what was dropped, and why"
vs stats vm0
vs events --type guard.violation
for reason in guard_arp guard_mac; do
	vs stats vm0 | grep -q "$reason" || die "nothing was dropped as $reason"
done
say "done: nothing forged arrived"
