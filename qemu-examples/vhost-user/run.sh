#!/usr/bin/env bash
# Two virtual machines share their memory with the switch, which is then killed.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab

say "starting the switch, with a vhost-user port for each VM"
switch --state "$dir/state"
vs add-port v0 --kind vhost-user
vs add-port v1 --kind vhost-user

say "booting two VMs"
boot_shared v0 a 10.0.0.1/24
boot_shared v1 b 10.0.0.2/24
serve a b
up v0 v1

say "ping, each way"
pings a 10.0.0.2
pings b 10.0.0.1

say "TCP: a file of random bytes, and its checksum at both ends"
fetch a b 10.0.0.2
fetch b a 10.0.0.1
vs ports

say "a sends to b by TCP, on and on"
guest b 'iperf3 -s -1 -D'
guest a 'iperf3 -c 10.0.0.2 -t 25 -i 0 -f m >/tmp/stream 2>&1 &'

say "the switch is killed, and the VMs are alone"
{ kill -KILL "$daemon" && wait "$daemon"; } 2>/dev/null || true
if guest a 'ping -c 1 -W 1 10.0.0.2'; then
	die "a ping came through without a switch"
fi

say "the switch starts again; QEMU finds its socket, and the VMs talk on"
switch --state "$dir/state"
up v0 v1
pings a 10.0.0.2
pings b 10.0.0.1
fetch a b 10.0.0.2

say "what a was sending when the switch died, goes on to its end"
streamed() { guest a '! pidof iperf3 >/dev/null'; }
within 60 streamed || die "the stream does not end"
guest a 'cat /tmp/stream'
guest a 'grep -q receiver /tmp/stream' || die "the stream broke off"
vs ports
say "done: both VMs reached each other, before and after"
