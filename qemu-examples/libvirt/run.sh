#!/usr/bin/env bash
# Two VMs of a real libvirtd, by domain.xml and shared-memory.xml: the hook adds their ports when
# they start, and removes them when they end.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab
"$root/qemu-examples/lib/deps.sh" libvirt-daemon-system libvirt-clients libxml2-utils
here=$root/qemu-examples/libvirt

say "both files are what libvirt takes"
virt-xml-validate "$here/domain.xml" domain
virt-xml-validate "$here/shared-memory.xml" domain

say "and this check can fail"
sed "s/managed='no'/managed='perhaps'/" "$here/domain.xml" >"$dir/wrong.xml"
if virt-xml-validate "$dir/wrong.xml" domain 2>&1; then
	die "a wrong XML is taken"
fi

say "the interface that the switch prints for a port is what libvirt takes, too"
switch
vs add-port vm0
vs qemu-args vm0 --format libvirt | tee "$dir/nic.xml"
sed -e "/<interface/,/<\/interface>/d" -e "/<devices>/r $dir/nic.xml" "$here/domain.xml" >"$dir/printed.xml"
virt-xml-validate "$dir/printed.xml" domain
vs del-port vm0

# libvirtd has directories of its own, and so has QEMU: they and all their processes end with
# this script. Nothing of the host's libvirt is touched.
say "a libvirtd, with the hook of packaging/libvirt"
chmod 711 "$dir" # QEMU is the user libvirt-qemu
cp "$kernel" "$dir/kernel"
cp "$initrd" "$dir/initrd"
mkdir "$dir/libvirt" "$dir/etc" "$dir/etc/hooks" "$dir/etc/hooks/qemu.d"
cat >"$dir/etc/libvirtd.conf" <<END
unix_sock_dir = "$dir/libvirt"
auth_unix_ro = "none"
auth_unix_rw = "none"
END
cat >"$dir/etc/qemu.conf" <<'END'
stdio_handler = "file"
security_driver = "none"
dynamic_ownership = 0
END
printf '#!/bin/sh\nexec %s --socket %s "$@"\n' "$vswitch" "$VSWITCH_SOCKET" >"$dir/vswitch"
sed "s|/usr/bin/vswitch|$dir/vswitch|" "$root/packaging/libvirt/hooks/qemu.d/vswitch" >"$dir/etc/hooks/qemu.d/vswitch"
chmod 755 "$dir/vswitch" "$dir/etc/hooks/qemu.d/vswitch"
(
	# shellcheck disable=SC2016 # the inner shell expands it
	"${as[@]}" unshare --mount --pid --fork --kill-child --mount-proc bash -euc '
		mount -t tmpfs tmpfs /run
		for d in /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
			mount -t tmpfs -o mode=755 tmpfs $d
		done
		mount --bind "$1/etc" /etc/libvirt
		libvirtd 2>"$1/libvirtd.log" &
		wait # also for those that lose their parent
	' bash "$dir" &
	trap 'kill -KILL $!' TERM
	wait
) &
virsh=(virsh -q -c "qemu:///system?socket=$dir/libvirt/libvirt-sock")
within 30 "${virsh[@]}" list >/dev/null || die "libvirtd does not answer"

# define NAME FILE ADDRESS [SED-SCRIPT] defines a domain of a file, as a small VM on an emulated CPU.
define() {
	sed -e "s/type='kvm'/type='qemu'/; s/512/192/; /<disk/,/<\/disk>/d; /<console/d" \
		-e "s|arch='x86_64'|& machine='pc'|" \
		-e "s|<boot dev='hd'/>|<kernel>$dir/kernel</kernel><initrd>$dir/initrd</initrd><cmdline>console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check ipv6.disable=1 guest.name=$1 guest.ip=$3</cmdline>|" \
		-e "s|<serial type='pty'/>|<serial type='unix'><source mode='bind' path='$dir/$1.console'/></serial><memballoon model='none'/>|" \
		-e "${4:-}" "$2" >"$dir/$1.xml"
	"${virsh[@]}" define "$dir/$1.xml"
}

say "two VMs: one at a TAP, one in shared memory"
define a "$here/domain.xml" 10.0.0.1/24
# The socket of this switch is elsewhere. Emulated QEMU 7.2 ends with MSI-X in shared memory.
define b "$here/shared-memory.xml" 10.0.0.2/24 \
	"s|/run/vswitch/sw0/|$dir/sw0/|; s|<domain |&xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' |
	s|</domain>|<qemu:commandline><qemu:arg value='-global'/><qemu:arg value='virtio-net-pci.vectors=0'/></qemu:commandline>&|"
vs ports
"${virsh[@]}" start a
"${virsh[@]}" start b
vs ports
guest a true
guest b true # both are up
pings a 10.0.0.2
pings b 10.0.0.1

say "a VM with another's address gets nowhere: the metadata has the guard check it"
guest a "ip addr add 10.0.0.9/24 dev eth0; ping -c 2 -W 1 -I 10.0.0.9 10.0.0.2" && die "it is believed"

say "the VMs end, and their ports go"
"${virsh[@]}" destroy a
"${virsh[@]}" destroy b
vs ports | tee "$dir/ports"
if grep -E 'vm0|fast0' "$dir/ports"; then
	die "a port is left"
fi
say "done"
