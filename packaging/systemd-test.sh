#!/usr/bin/env bash
# Tests a package under a real systemd: systemd-test.sh PACKAGE.deb FLOWS, as root on Debian or Ubuntu
# with systemd installed; FLOWS is the test binary of internal/test/upgradetest. It boots a copy of this machine's root that is thrown away, in
# namespaces and a control group of its own. Nothing there can change the machine's devices or
# the kernel's settings, other than those of its own network.
set -euo pipefail

fail() {
	echo "packages under systemd: $*" >&2
	exit 1
}

# await COMMAND… repeats a command until it succeeds.
await() {
	for _ in $(seq 300); do
		"$@" && return
		sleep 0.1
	done
	fail "not so in time: $*"
}

main_pid() { systemctl show --value -p MainPID vswitch@sw0; }
has() { vswitch ports 2>/dev/null | grep -qE "^$1 "; }
another() { [ "$(main_pid)" != "$1" ] && has 'vm0 +tap'; }

# inside is the test, a service of the systemd.
inside() {
	export DEBIAN_FRONTEND=noninteractive
	install=(apt-get install -qq -y --no-install-recommends /srv/vswitch.deb)
	ip link set lo up

	"${install[@]}"
	systemctl start vswitch@sw0
	vswitch add-port vm0
	has 'vm0 +tap' || fail "there is no vm0: $(vswitch ports)"
	ip link show dev vm0 >/dev/null

	echo "# the unit leaves the switch its own sandbox"
	vswitch show | grep -E '^Sandbox .*landlock.*seccomp.*capabilities' || fail "$(vswitch show) $(journalctl -q --no-pager -u vswitch@sw0)"
	[ "$(stat -c '%a %U' /var/lib/vswitch/sw0)" = "700 root" ] || fail "the state is open to others"

	echo "# the unit lets ports of all kinds be"
	vswitch add-port gw0 --kind host --address 10.0.0.1/24
	vswitch add-port fast0 --kind vhost-user --owner nobody
	vswitch add-port s0 --kind stream
	ip link add eth1 type veth peer name eth2
	vswitch add-port eth1 --kind netdev
	vswitch add-port up0 --kind vxlan --local 10.0.0.1 --vni 100 --peers 10.0.0.2
	await has 'gw0 +host +up'

	echo "# a drop-in lets it into other network namespaces"
	dropin=vswitch@.service.d/netns.conf
	install -D "/usr/share/doc/vswitch/examples/$dropin" "/etc/systemd/system/$dropin"
	ip netns add web
	systemctl daemon-reload
	systemctl restart vswitch@sw0
	vswitch add-port web0 --kind veth --netns web --address 10.0.0.7/24
	ip netns exec web ping -q -c 1 -w 20 10.0.0.1
	vswitch del-port web0 --force
	rm "/etc/systemd/system/$dropin"
	systemctl daemon-reload
	systemctl restart vswitch@sw0

	echo "# a switch that is killed comes back"
	pid=$(main_pid)
	systemctl kill -s KILL vswitch@sw0
	await another "$pid"
	await systemctl -q is-active vswitch@sw0

	echo "# what comes meanwhile waits in sockets that systemd keeps"
	systemctl reset-failed vswitch@sw0 # or it takes this for a switch that cannot start
	TMPDIR=/run/vswitch timeout 120 /srv/flows -test.run '^$' -test.bench '^BenchmarkUnit$' -test.benchtime 1x -test.timeout 2m -unit vswitch@sw0 ||
		fail "$(vswitch ports; vswitch stats; journalctl -q --no-pager -u vswitch@sw0 | tail -n 50)"

	echo "# reload applies the configuration"
	printf 'version: 1\nports: {vm1: {access: 10}}\n' >/etc/vswitch/sw0.yaml
	systemctl reload vswitch@sw0
	has 'vm1 .*access=10' || fail "the configuration is not in force: $(vswitch ports)"
	has vm0 || fail "a port that was added by hand is gone"

	echo "# an upgrade hands it over"
	pid=$(main_pid)
	"${install[@]}" --reinstall
	await another "$pid"
	journalctl -q --no-pager -u vswitch@sw0 | grep "switch handed over.*to_process=$(main_pid) " >/dev/null || fail "it was restarted: $(journalctl -q --no-pager -u vswitch@sw0 | tail -n 30)"

	echo "# it stops in time, and the removal stops it"
	systemctl stop vswitch@sw0
	[ "$(systemctl show --value -p Result vswitch@sw0)" = success ] || fail "it did not stop: $(systemctl status vswitch@sw0)"
	systemctl start vswitch@sw0
	apt-get remove -qq -y vswitch
	! systemctl -q is-active vswitch@sw0 || fail "it runs after the removal"
	[ -z "$(ls -A /sys/fs/bpf/vswitch 2>/dev/null)" ] || fail "the kernel's programs stay"
	[ -z "$(systemctl --failed --plain --no-legend 'vswitch@*')" ] || fail "$(systemctl --failed)"
	errors=$(journalctl -q --no-pager -p err -t vswitch)
	[ -z "$errors" ] || fail "$errors"
}

# boot makes the root and runs its systemd, in new namespaces.
boot() {
	dir=$1 root=$1/new
	mount -t tmpfs tmpfs "$dir"
	mkdir "$dir/upper" "$dir/work" "$dir/new" "$dir/net"
	mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$root"
	cd "$root"
	mount -t tmpfs -o mode=755 tmpfs dev
	mkdir dev/net dev/pts dev/shm
	for device in null zero full random urandom tty net/tun; do
		: >"dev/$device"
		mount --bind "/dev/$device" "dev/$device"
	done
	ln -s /proc/self/fd dev/fd
	mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
	ln -s pts/ptmx dev/ptmx
	mount -t proc proc proc
	mount --bind proc/sys/net "$dir/net"
	mount --bind proc/sys proc/sys
	mount -o remount,bind,ro proc/sys
	mount --move "$dir/net" proc/sys/net
	mount -t sysfs -o ro sysfs sys
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	mount -t bpf bpf sys/fs/bpf
	mount -t tmpfs -o mode=755 tmpfs run
	mount -t tmpfs tmpfs tmp

	cp "$2" srv/vswitch.deb
	cp "$3" srv/flows
	cp "$4" srv/systemd-test.sh
	: >srv/log
	mount --bind "$5" srv/log
	# The test is this system's only purpose. Disks, devices and timers are the machine's.
	: >etc/fstab
	for unit in systemd-{udevd,udev-trigger,sysctl,modules-load,remount-fs,binfmt,tmpfiles-setup-dev}.service systemd-udevd-{kernel,control}.socket \
		timers.target paths.target proc-sys-fs-binfmt_misc.automount dev-{hugepages,mqueue}.mount sys-kernel-{debug,tracing,config}.mount sys-fs-fuse-connections.mount; do
		ln -sf /dev/null "etc/systemd/system/$unit"
	done
	cat >etc/systemd/system/test.target <<-END
		[Unit]
		Requires=basic.target
		Wants=test.service
		After=basic.target
	END
	cat >etc/systemd/system/test.service <<-END
		[Unit]
		After=basic.target
		[Service]
		Type=oneshot
		ExecStart=/bin/bash /srv/systemd-test.sh inside
		ExecStopPost=/bin/sh -c 'exec systemctl exit \$((EXIT_STATUS))'
		StandardOutput=append:/srv/log
		StandardError=append:/srv/log
	END
	# In what is called a container, systemd's own exit status is that of `systemctl exit`.
	exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --unit=test.target --log-target=console --show-status=no
}

case "$1" in
inside | boot)
	"$@"
	exit
	;;
esac
[ "$(id -u)" -eq 0 ] || fail "this takes root"

script=$(realpath "$0")
work=$(mktemp -d)
mkdir "$work/cgroup" "$work/root"
: >"$work/log"
mount -t cgroup2 cgroup2 "$work/cgroup"
group=$work/cgroup/vswitch-test-$$
mkdir "$group"
finish() {
	# Its processes are gone; the kernel forgets them in its own time.
	for _ in $(seq 100); do
		find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
		sleep 0.1
	done
	umount "$work/cgroup"
	rm -rf "$work"
}
trap finish EXIT
status=0
# shellcheck disable=SC2016 # the inner shell expands them
bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' bash "$group" \
	timeout -s KILL 300 unshare --mount --net --pid --cgroup --uts --ipc --fork --kill-child \
	"$script" boot "$work/root" "$(realpath "$1")" "$(realpath "$2")" "$script" "$work/log" </dev/null >"$work/console" 2>&1 || status=$?
if [ $status -ne 0 ]; then
	cat "$work/console" "$work/log"
	fail "ends with status $status"
fi
grep '^BenchmarkUnit.* lost' "$work/log" || fail "no flows passed the switch: $(cat "$work/log")"
echo "packages: installed, started, killed, reloaded, upgraded, stopped and removed under systemd"
