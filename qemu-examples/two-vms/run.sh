#!/usr/bin/env bash
# Two virtual machines talk through vswitch: ping, then TCP.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab

say "starting the switch, with a port for each VM"
switch
vs add-port vm0
vs add-port vm1

say "booting two VMs"
boot a vm0 52:54:00:00:00:0a 10.0.0.1/24
boot b vm1 52:54:00:00:00:0b 10.0.0.2/24
guest a 'uname -sr; ip -o addr show dev eth0'
guest b 'uname -sr; ip -o addr show dev eth0'

say "ping, each way"
pings a 10.0.0.2
pings b 10.0.0.1

say "TCP: a file of random bytes, and its checksum at both ends"
sent=$(guest b 'mkdir /tmp/www && dd if=/dev/urandom of=/tmp/www/file bs=1M count=16 2>/dev/null && httpd -h /tmp/www && sha256sum </tmp/www/file')
came=$(guest a 'wget -q -O - http://10.0.0.2/file | sha256sum')
echo "sent by b:     $sent"
echo "received by a: $came"
[ "$sent" = "$came" ] || die "the bytes that came are others"

say "TCP: iperf3"
guest b 'iperf3 -s -1 -D'
guest a 'iperf3 -c 10.0.0.2 -t 3 -i 0'

say "vswitch ports"
vs ports
say "vswitch fdb list"
vs fdb list
say "vswitch top --once"
vs top --once
say "vswitch trace: the way of a frame from a to b"
vs trace vm0 --from 52:54:00:00:00:0a --to 52:54:00:00:00:0b
say "done: both VMs reached each other without loss"
