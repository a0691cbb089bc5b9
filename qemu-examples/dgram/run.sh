#!/usr/bin/env bash
# Two virtual machines talk through a switch, and none of it runs as root.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab_rootless

say "starting the switch as a plain user, with a dgram port for each VM"
on id
switch --state "$dir/state"
vs add-port v0 --kind dgram
vs add-port v1 --kind dgram

say "booting two VMs as that user"
boot_on v0 a 10.0.0.1/24
boot_on v1 b 10.0.0.2/24
serve a b

say "ping, each way"
pings a 10.0.0.2
pings b 10.0.0.1

say "TCP: a file of random bytes, and its checksum at both ends"
fetch a b 10.0.0.2
fetch b a 10.0.0.1

say "vswitch ports: each is up since its VM sent something"
up v0 v1
vs ports

say "the switch is killed and started again; the VMs talk on, for there is no connection to lose"
{ kill -KILL "$daemon" && wait "$daemon"; } 2>/dev/null || true
if guest a 'ping -c 1 -W 1 10.0.0.2'; then
	die "a ping came through without a switch"
fi
switch --state "$dir/state"
pings a 10.0.0.2
pings b 10.0.0.1
fetch a b 10.0.0.2
say "done: both VMs reached each other, before and after, and without root"
