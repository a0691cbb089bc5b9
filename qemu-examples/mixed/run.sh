#!/usr/bin/env bash
# Four virtual machines, each on another kind of port, and the host: all reach all.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab

say "starting the switch, with a port of each kind"
switch
vs add-port tap0
vs add-port shared0 --kind vhost-user
vs add-port stream0 --kind stream
vs add-port dgram0 --kind dgram
vs add-port host0 --kind host --address 10.0.0.254/24

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

# station NAME COMMAND runs a command in a VM, or on the host.
station() {
	if [ "$1" = host ]; then
		on sh -c "$2"
	else
		guest "$1" "$2"
	fi
}

say "all reach all: ping, then a file by TCP"
declare -A address=([a]=10.0.0.1 [b]=10.0.0.2 [c]=10.0.0.3 [d]=10.0.0.4 [host]=10.0.0.254)
for from in a b c d; do
	for to in a b c d; do
		[ $from != $to ] || continue
		pings $from "${address[$to]}"
		fetch $from $to "${address[$to]}"
	done
	pings $from "${address[host]}"
done

say "every two exchange TCP, both ways at once"
rest=(host d c b a)
for from in a b c d; do
	unset 'rest[-1]'
	for to in "${rest[@]}"; do
		station "$to" 'iperf3 -s -1 -D'
		rate=$(station $from "iperf3 -c ${address[$to]} -t 1 -i 0 --bidir -f m" | awk '/receiver/ {print $(NF-2), $(NF-1)}') ||
			die "no TCP between $from and $to"
		echo "$from and $to: $(tr '\n' ' ' <<<"$rate")"
	done
done

say "nobody was sent a wrong checksum"
for name in a b c d host; do
	wrong=$(station $name 'cat /proc/net/snmp' | awk '
		$1 != group { group = $1; for (i in at) delete at[i]; for (i = 2; i <= NF; i++) if ($i == "InCsumErrors") at[i]; next }
		{ for (i in at) sum += $i } END { print sum+0 }')
	echo "$name: $wrong"
	[ "$wrong" = 0 ] || die "$name was sent wrong checksums"
done

say "vswitch ports"
up dgram0
vs ports
say "done: every station reached every other"
