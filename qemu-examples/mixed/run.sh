#!/usr/bin/env bash
# Four virtual machines, each on another kind of port: all reach all.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab

say "starting the switch, with a port of each kind"
switch
vs add-port tap0
vs add-port shared0 --kind vhost-user
vs add-port stream0 --kind stream
vs add-port dgram0 --kind dgram

say "booting four VMs"
boot_on tap0 a 10.0.0.1/24
boot_shared shared0 b 10.0.0.2/24
boot_on stream0 c 10.0.0.3/24
boot_on dgram0 d 10.0.0.4/24
serve a b c d
up tap0 shared0 stream0 # dgram0 is once its VM has sent something

say "a VM can leave segmentation to the switch where its port's kind can"
for name in a b c d; do
	echo "$name: $(guest $name 'ethtool -k eth0 | grep tcp-segmentation-offload')"
done

say "all reach all: ping, then a file by TCP"
declare -A address=([a]=10.0.0.1 [b]=10.0.0.2 [c]=10.0.0.3 [d]=10.0.0.4)
for from in a b c d; do
	for to in a b c d; do
		[ $from != $to ] || continue
		pings $from "${address[$to]}"
		fetch $from $to "${address[$to]}"
	done
done

say "vswitch ports"
up dgram0
vs ports
say "done: every VM reached every other"
