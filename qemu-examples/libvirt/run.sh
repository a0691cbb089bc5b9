#!/usr/bin/env bash
# Holds domain.xml to libvirt's schema, and makes the port that it names.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab
"$root/qemu-examples/lib/deps.sh" libvirt-clients libxml2-utils # virt-xml-validate; no libvirt daemon
xml=$root/qemu-examples/libvirt/domain.xml

say "the XML is what libvirt takes"
virt-xml-validate "$xml" domain

say "and this check can fail"
sed "s/managed='no'/managed='perhaps'/" "$xml" >"$dir/wrong.xml"
if virt-xml-validate "$dir/wrong.xml" domain 2>&1; then
	die "a wrong XML is taken"
fi

say "the port"
port=$(xmllint --xpath 'string(//interface/target/@dev)' "$xml")
switch
vs add-port "$port"
on ip link show dev "$port"

say "the interface that the switch prints for it is what libvirt takes, too"
vs qemu-args "$port" --format libvirt | tee "$dir/nic.xml"
sed -e "/<interface/,/<\/interface>/d" -e "/<devices>/r $dir/nic.xml" "$xml" >"$dir/printed.xml"
virt-xml-validate "$dir/printed.xml" domain
vs add-port fast0 --kind vhost-user
vs qemu-args fast0 --format libvirt | sed '/<!--/,$d' >"$dir/nic.xml"
sed -e "/<interface/,/<\/interface>/d" -e "/<devices>/r $dir/nic.xml" "$xml" >"$dir/printed.xml"
virt-xml-validate "$dir/printed.xml" domain

say "a VM on it, with the address that the XML gives"
boot a "$port" "$(xmllint --xpath 'string(//interface/mac/@address)' "$xml")" 10.0.0.1/24
vs add-port host0 --kind host --address 10.0.0.254/24
pings a 10.0.0.254
vs ports
say "done"
