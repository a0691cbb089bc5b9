#!/usr/bin/env bash
# A virtual machine moves from one QEMU to another while it pings.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab

learned_there() { vs fdb list | grep "^$mac " | grep -qw there; }

say "starting the switch: a port where the VM is, one where it goes, one for another VM"
switch
for port in here there other; do
	vs add-port $port --kind vhost-user
done

say "booting the VM, and the other"
mkfifo "$dir/qmp.in" "$dir/qmp.out"
boot_shared here a 10.0.0.1/24 -chardev "pipe,id=qmp,path=$dir/qmp" -mon chardev=qmp,mode=control
boot_shared other b 10.0.0.2/24
exec 3>"$dir/qmp.in" 4<"$dir/qmp.out"
qmp '"qmp_capabilities"'
serve a b
up here other
pings a 10.0.0.2
before=$(guest a 'sha256sum </tmp/www/file')

say "starting the QEMU that the VM goes to; its NIC has the same MAC address"
source=$(vs qemu-args here)
mac=${source##*mac=}
target=$(vs qemu-args there --memory 192M)
target=${target%mac=*}mac=$mac,vectors=0
echo "qemu-system-x86_64 … $target -incoming unix:…"
# shellcheck disable=SC2086 # flags, one a word
qemu moved 10.0.0.1/24 $target -incoming "unix:$dir/channel"
within 20 test -S "$dir/channel" || die "the second QEMU does not wait for the VM"
vs fdb list

say "the VM begins to ping the other, and moves"
guest a 'ping -c 40 -i 0.2 10.0.0.2 >/tmp/ping 2>&1 & until grep -qs seq=4 /tmp/ping; do usleep 100000; done'
qmp "\"migrate\", \"arguments\": {\"uri\": \"unix:$dir/channel\"}"
within 60 migrated || die "the migration does not end: $answer"
echo "$answer" | grep -oE '"(total-time|downtime)": [0-9]+' # in milliseconds
qmp '"quit"'
up there
within 20 learned_there || die "the VM's address has not moved: $(vs fdb list)"
vs fdb list

say "the same ping, in the VM that moved"
out=$(guest moved 'while pidof ping >/dev/null; do usleep 100000; done; cat /tmp/ping')
tail -n 3 <<<"$out"
came=$(sed -n 's/.*transmitted, \([0-9]*\) packets received.*/\1/p' <<<"$out")
echo "lost while it moved: $((40 - came))"
[ "$came" -ge 36 ] || die "too many pings were lost"

say "ping, each way, and TCP: the file that it had in memory"
pings moved 10.0.0.2
pings b 10.0.0.1
fetch b moved 10.0.0.1
[ "$before" = "$(guest moved 'sha256sum </tmp/www/file')" ] || die "the file is another than before"
fetch moved b 10.0.0.2
vs ports
say "done: the VM has moved, and its pings went on"
