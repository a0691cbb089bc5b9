#!/usr/bin/env bash
# Tests the packages, as root on Debian or Ubuntu: two builds are the same; the package installs,
# its switch runs, goes on over an upgrade, and nothing is left after purge. The package is
# installed in a copy of this machine's root that is thrown away, in namespaces of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "packages: $*" >&2
	exit 1
}

# inside runs in the new root, as the first process of its namespaces.
inside() {
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t bpf bpf /sys/fs/bpf
	mount -t tmpfs tmpfs /run
	ip link set lo up
	deb=/tmp/vswitch.deb
	export DEBIAN_FRONTEND=noninteractive

	dpkg -i $deb >/dev/null
	getent group vswitch >/dev/null || fail "there is no group vswitch"
	[ "$(stat -c %a /run/vswitch)" = 755 ] || fail "there is no /run/vswitch"
	man -w vswitch >/dev/null 2>&1 || [ -s /usr/share/man/man8/vswitch.8.gz ] || fail "there is no manual page"
	vswitch version | grep -q '^vswitch 0' || fail "the version is $(vswitch version)"

	# libvirt's hook is for root to run, and no obstacle where there is nothing to do.
	hook=/etc/libvirt/hooks/qemu.d/vswitch
	$hook vm prepare begin - <<<'<domain/>' || fail "libvirt's hook refuses a machine that has nothing to do with it"

	printf 'version: 1\nports: {vm0: {access: 10}}\n' >/etc/vswitch/pkg0.yaml
	# The command line of the unit, as systemd runs it.
	start=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/vswitch@.service | sed 's/%i/pkg0/g; s/ \$VSWITCH_FLAGS//')
	$start 2>/tmp/log &
	daemon=$!
	answers() { vswitch --name pkg0 ports 2>/dev/null | grep -q '^vm0 .*access=10'; }
	for _ in $(seq 300); do
		answers && break
		sleep 0.1
	done
	answers || fail "the switch does not have its port: $(cat /tmp/log)"
	ip link show vm0 >/dev/null || fail "there is no TAP"

	dpkg -i $deb >/dev/null # an upgrade
	kill -0 $daemon && answers || fail "the switch does not go on over an upgrade"
	sed -n 's/^ExecReload=//p' /usr/lib/systemd/system/vswitch@.service | sed 's/%i/pkg0/g' >/tmp/reload
	sh -e /tmp/reload >/tmp/reloaded || fail "reload fails: $(cat /tmp/reloaded /tmp/log)"
	grep -q '^handed over 1 ports' /tmp/reloaded || fail "reload keeps the former program: $(cat /tmp/reloaded)"
	grep -q '^no changes$' /tmp/reloaded || fail "reload changes something"
	wait $daemon || fail "the switch ends with an error: $(cat /tmp/log)"
	answers || fail "the switch does not go on after a reload: $(cat /tmp/log)"
	daemon=$(vswitch --name pkg0 show -o json | sed -n 's/^ *"pid": *\([0-9]*\).*/\1/p')
	kill $daemon
	while kill -0 $daemon 2>/dev/null; do sleep 0.1; done

	dpkg -r vswitch >/dev/null
	! command -v vswitch >/dev/null || fail "the program is there after the removal"
	$hook vm prepare begin - <<<'<domain/>' || fail "without the program libvirt's hook refuses machines"
	[ -s /var/lib/vswitch/pkg0/state.json ] || fail "the removal takes the state away"
	[ -z "$(ls -A /sys/fs/bpf/vswitch 2>/dev/null)" ] || fail "the kernel's programs stay: $(ls /sys/fs/bpf/vswitch)"
	dpkg -P vswitch >/dev/null
	[ ! -e /var/lib/vswitch ] || fail "purge leaves the state"
	rm /etc/vswitch/pkg0.yaml
	left=$(find / -xdev -name '*vswitch*' -newer /tmp/vswitch.deb -not -path '/tmp/*' -not -path '/var/lib/dpkg/*' 2>/dev/null | grep -v '^/etc/vswitch$' || true)
	[ -z "$left" ] || fail "left behind: $left"
}

if [ "${1:-}" = inside ]; then
	inside
	exit
fi
[ "$(id -u)" -eq 0 ] || fail "this takes root"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
packaging/build.sh "$work/one" >/dev/null
# Another place, so that no path gets into a package.
mkdir "$work/tree"
git ls-files -z -co --exclude-standard | xargs -0 cp --parents -t "$work/tree"
(
	export COMMIT SOURCE_DATE_EPOCH
	COMMIT=$(git rev-parse HEAD)
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
	cd "$work/tree"
	packaging/build.sh "$work/two" >/dev/null
)
for package in "$work"/one/*; do
	cmp "$package" "$work/two/${package##*/}" || fail "two builds of ${package##*/} differ"
done

lintian --tag-display-limit 0 --fail-on error "$work"/one/*.deb

# Each program's bill of materials has the modules that the program says it has.
dpkg -x "$work"/one/*.deb "$work/files"
for program in usr/bin/vswitch usr/lib/cni/vswitch-cni; do
	bill=$work/files/usr/share/doc/vswitch/${program##*/}.cdx.json
	modules=$(go version -m "$work/files/$program" | awk '$1 == "dep" {print $2 "@" $3}')
	[ -n "$modules" ] || fail "$program names no modules"
	for module in $modules; do
		grep -qF "\"pkg:golang/$module?" "$bill" || fail "$bill lacks $module"
	done
done

mkdir "$work/root"
# shellcheck disable=SC2016 # the inner shell expands them
unshare --mount --net --pid --fork bash -euc '
	root=$1/root
	mount -t tmpfs tmpfs "$root"
	mkdir "$root/upper" "$root/work" "$root/new"
	mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$root/new"
	mount --rbind /dev "$root/new/dev"
	mount -t tmpfs tmpfs "$root/new/tmp"
	cp packaging/test.sh "$root/new/tmp/test.sh"
	cp "$1"/one/*.deb "$root/new/tmp/vswitch.deb"
	mkdir -p "$root/new/tmp/packaging"
	cp packaging/test.sh "$root/new/tmp/packaging/"
	chroot "$root/new" bash /tmp/packaging/test.sh inside
' bash "$work"
echo "packages: two builds are the same; installed, run, upgraded, removed and purged"
go test -c -o "$work/flows" ./internal/test/upgradetest
packaging/systemd-test.sh "$work"/one/*.deb "$work/flows"
