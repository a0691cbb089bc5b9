#!/usr/bin/env bash
# Two containers and a virtual machine on one switch: one container by hand, the other by
# the CNI plugin, as container runtimes do it.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab

say "starting the switch, with a port for the VM, and booting it"
switch
vs add-port vm0
boot vm vm0 52:54:00:00:00:0a 10.88.0.200/24

say "a container, here a bare network namespace, by hand"
ip netns add "$ns-web"
vs add-port web0 --kind veth --netns "$ns-web" --address 10.88.0.201/24
ip -n "$ns-web" -brief addr show dev eth0

say "a container by the CNI plugin, which cnitool calls as a runtime would"
ip netns add "$ns-db"
GOBIN=$dir go install github.com/containernetworking/cni/cnitool@v1.3.1
mkdir "$dir/net.d"
cat >"$dir/net.d/lab.conflist" <<END
{
	"cniVersion": "1.0.0",
	"name": "lab",
	"plugins": [{
		"type": "vswitch-cni",
		"socket": "$VSWITCH_SOCKET",
		"dataDir": "$dir/cni",
		"ipam": {"type": "host-local", "dataDir": "$dir/ipam", "ranges": [[{"subnet": "10.88.0.0/24", "rangeEnd": "10.88.0.99"}]]}
	}]
}
END
cni() { on env NETCONFPATH="$dir/net.d" CNI_PATH="$root:/usr/lib/cni" "$dir/cnitool" "$1" lab "/run/netns/$ns-db"; }
result=$(cni add)
echo "$result"
address=$(grep -o '10\.88\.0\.[0-9]*/24' <<<"$result" | head -n 1)
[ -n "$address" ] || die "the result has no address"
[ "$(cni add)" = "$result" ] || die "a second add answers otherwise"
cni check

say "ping, between the VM, the containers, and each other"
pings vm "${address%/24}"
pings vm 10.88.0.201
ip netns exec "$ns-web" ping -c 3 -i 0.2 "${address%/24}"
ip netns exec "$ns-db" ping -c 3 -i 0.2 10.88.0.200

say "vswitch ports"
vs ports

say "the containers end: one by the plugin, one by itself"
cni del
ip netns del "$ns-web"
within 20 waits web0 || die "port web0 does not wait: $(vs ports)"
vs ports
vs del-port web0
[ "$(vs ports | wc -l)" = 2 ] || die "ports are left: $(vs ports)"
say "done: the VM and the containers reached each other, and nothing is left"
