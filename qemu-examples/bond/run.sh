#!/usr/bin/env bash
# Two switches are joined by two cables that are one link, by LACP. A cable is pulled while a
# VM pings another.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab
ip netns add "$ns-a"
ip netns add "$ns-b"
for cable in up0 up1; do
	ip -n "$ns-a" link add $cable type veth peer name $cable netns "$ns-b"
	ip -n "$ns-a" link set $cable up
	ip -n "$ns-b" link set $cable up
done

# members STATE… reports whether the members of this switch's link are in these states.
members() { [ "$(vs ports lag0 | sed -nE 's/^(Members)? +up[01] ([a-z-]+).*/\2/p' | xargs)" = "$*" ]; }

say "starting a switch at each end, with a port for a VM and a link of two cables"
for name in a b; do
	host $name
	switch
	vs add-port vm0
	vs add-port lag0 --kind lag --members up0,up1 --lacp-rate fast --no-wait
done

say "booting a VM at each"
host a && boot a vm0 52:54:00:00:00:0a 10.0.0.1/24
host b && boot b vm0 52:54:00:00:00:0b 10.0.0.2/24
for name in a b; do
	host $name
	within 30 members active active || die "the two ends do not join: $(vs ports lag0)"
	up lag0
done
host a
vs ports lag0
pings a 10.0.0.2
serve b
fetch a b 10.0.0.2

say "pulling a cable while a pings b"
guest a 'ping -c 50 -i 0.1 10.0.0.2 >/tmp/pings 2>&1 & echo started'
sleep 1
ip -n "$ns-b" link set up0 down
within 10 members no-carrier active || die "the cable that was pulled is not seen: $(vs ports lag0)"
vs ports lag0
lost() { guest a 'grep " packets received" /tmp/pings'; }
within 60 lost >/dev/null || die "the pings do not end"
received=$(lost | grep -oE '[0-9]+ packets received' | cut -d' ' -f1)
lost
[ "$received" -ge 48 ] || die "pulling a cable lost $((50 - received)) of 50 pings"

say "plugging it in again"
ip -n "$ns-b" link set up0 up
within 30 members active active || die "the cable is not taken: $(vs ports lag0)"
pings a 10.0.0.2
say "done: the link carried on with one cable, and has both again"
