#!/usr/bin/env bash
# Three hosts are one LAN by BGP EVPN. A virtual machine moves from one to another while it
# pings a machine on the third.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab_hosts a b c

# meets reports whether this host's sessions with the two others are established.
meets() { [ "$(vs evpn neighbors | grep -c established)" = 2 ]; }

# knows MAC WHERE reports whether this host has that station there: a port, or a host.
knows() { vs evpn macs | grep -F " $1 " | grep -qwF "$2"; }

say "starting a switch at each host, each a BGP neighbor of the two others"
n=0
for name in a b c; do
	n=$((n + 1))
	host $name
	switch
	vs add-port up0 --kind vxlan --local 192.0.2.$n --vni 100
	vs add-port vm0
	vs set --evpn-as 65001
	for other in 1 2 3; do
		[ $other = $n ] || vs evpn neighbor add 192.0.2.$other --as 65001
	done
done
for name in a b c; do
	host $name
	within 30 meets || die "host $name lacks a session: $(vs evpn neighbors)"
done
vs evpn neighbors

say "booting the VM that will move at host a, and the other at host c"
mkfifo "$dir/qmp.in" "$dir/qmp.out"
host a
nic=$(vs qemu-args vm0)
mac=$(grep -oE 'mac=[0-9a-f:]+' <<<"$nic")
mac=${mac#mac=}
echo "qemu-system-x86_64 … $nic"
# shellcheck disable=SC2086 # flags, one a word
qemu m 10.0.0.1/24 $nic -chardev "pipe,id=qmp,path=$dir/qmp" -mon chardev=qmp,mode=control
host c
boot_on vm0 c 10.0.0.3/24
exec 3>"$dir/qmp.in" 4<"$dir/qmp.out"
qmp '"qmp_capabilities"'
serve m c
host a
up vm0 up0
pings m 10.0.0.3
host c
within 20 knows "$mac" 192.0.2.1 || die "host c does not have the VM at host a: $(vs evpn macs)"
vs evpn macs
before=$(guest m 'sha256sum </tmp/www/file')

say "host c sends to the host that has the VM, and to no other: host b hears nothing of a ping"
host b
was=$(vs stats up0 -o json)
guest c 'ping -c 10 -i 0.2 10.0.0.1 >/dev/null'
now=$(vs stats up0 -o json)
frames() { grep -A2 '"rx"' <<<"$1" | grep -oE '"frames": [0-9]+' | head -n 1; }
echo "up0 of host b received $(frames "$was"), then $(frames "$now")"
[ "$(frames "$was")" = "$(frames "$now")" ] || die "frames to a known station were flooded"

say "starting the QEMU at host b that the VM goes to; its NIC has the same MAC address"
target=$(vs qemu-args vm0 | sed "s/mac=[0-9a-f:]*/mac=$mac/")
echo "qemu-system-x86_64 … $target -incoming unix:…"
# shellcheck disable=SC2086 # flags, one a word
qemu moved 10.0.0.1/24 $target -incoming "unix:$dir/channel"
within 20 test -S "$dir/channel" || die "the second QEMU does not wait for the VM"

say "the VM begins to ping the other, and moves"
guest m 'ping -c 20 -i 1 10.0.0.3 >/tmp/ping 2>&1 & until grep -qs seq=2 /tmp/ping; do usleep 100000; done'
qmp "\"migrate\", \"arguments\": {\"uri\": \"unix:$dir/channel\"}"
within 60 migrated || die "the migration does not end: $answer"
echo "$answer" | grep -oE '"(total-time|downtime)": [0-9]+' # in milliseconds
qmp '"quit"'
host c
within 20 knows "$mac" 192.0.2.2 || die "host c does not have the VM at host b: $(vs evpn macs)"
vs evpn macs
host a
within 20 knows "$mac" 192.0.2.2 || die "host a does not have the VM at host b: $(vs evpn macs)"

say "the same ping, in the VM that moved"
out=$(guest moved 'while pidof ping >/dev/null; do usleep 100000; done; cat /tmp/ping')
tail -n 3 <<<"$out"
came=$(sed -n 's/.*transmitted, \([0-9]*\) packets received.*/\1/p' <<<"$out")
echo "lost while it moved: $((20 - came))"
[ "$came" -ge 19 ] || die "more than one ping was lost"

say "TCP: the file that it had in memory"
fetch c moved 10.0.0.1
[ "$before" = "$(guest moved 'sha256sum </tmp/www/file')" ] || die "the file is another than before"
fetch moved c 10.0.0.3

say "what host b announces, and what it heard"
host b
vs evpn routes
vs ports
say "done: the VM has moved to another host, and its neighbors never noticed"
