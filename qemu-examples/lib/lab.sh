# shellcheck shell=bash
# What the examples share: a network namespace with a switch and VMs in it, which
# is gone when the script ends, however it ends. Source it, then call lab first.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ns=vswitch-demo-$$

say() { printf '\n== %s\n' "$*"; }

die() {
	echo "error: $*" >&2
	exit 1
}

# lab gets what is missing, builds vswitch and the guests' image, and makes the
# namespace.
lab() {
	[ "$(id -u)" -eq 0 ] || die "this needs root, for network namespaces and TAP devices; try: sudo $0"
	command -v go >/dev/null || die "Go 1.25 or later is missing; get it from https://go.dev/dl/"
	dir=$(mktemp -d /tmp/vswitch-demo.XXXXXX)
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM

	say "getting what is missing, and building"
	"$root/qemu-examples/lib/deps.sh"
	cd "$root" || die "$root is gone"
	make --silent build
	go build -o "$dir/guest" ./internal/vmtest/cmd/guest
	"$dir/guest" image >"$dir/image" || die "there is no guest image"
	{ read -r kernel && read -r initrd; } <"$dir/image"
	ip netns add "$ns"
	ip -n "$ns" link set lo up
}

cleanup() {
	local status=$? log running
	trap - EXIT
	# All that runs in the background is this script's own: the daemon, the VMs.
	running=$(jobs -rp)
	# shellcheck disable=SC2086 # numbers, one a word
	[ -z "$running" ] || kill $running 2>/dev/null || true
	wait
	if [ $status -ne 0 ]; then
		for log in "$dir"/*.log; do
			[ -s "$log" ] && echo "--- $log" && tail -n 20 "$log"
		done >&2
		echo "FAILED with status $status" >&2
	fi
	ip netns del "$ns" 2>/dev/null || true
	rm -rf "$dir"
	exit $status
}

# on runs a command in the namespace.
on() { ip netns exec "$ns" "$@"; }

# switch starts the daemon.
switch() {
	ip netns exec "$ns" "$root/vswitch" run --ephemeral --socket "$dir/switch.sock" >"$dir/vswitch.log" 2>&1 &
	within 10 vs ports >/dev/null || die "vswitch does not answer"
}

# vs is vswitch, talking to that daemon.
vs() { "$root/vswitch" --socket "$dir/switch.sock" "$@"; }

# boot NAME TAP MAC ADDRESS starts a VM with its NIC on TAP, and returns while it
# boots. It has 192 MB, and an emulated CPU, so it runs on any machine.
boot() {
	local name=$1 tap=$2 mac=$3 address=$4
	ip netns exec "$ns" qemu-system-x86_64 -M pc,usb=off -accel tcg -cpu qemu64 -m 192 \
		-nodefaults -no-user-config -display none -no-reboot \
		-kernel "$kernel" -initrd "$initrd" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check ipv6.disable=1 guest.name=$name guest.ip=$address" \
		-global virtio-net-pci.romfile= -serial "unix:$dir/$name.console,server=on,wait=off" \
		-netdev "tap,id=net0,ifname=$tap,script=no,downscript=no" \
		-device "virtio-net-pci,netdev=net0,mac=$mac" 2>"$dir/$name.log" &
}

# guest NAME COMMAND… waits until a VM is up, and runs a command in it.
guest() {
	local name=$1
	shift
	"$dir/guest" exec "$dir/$name.console" "$@"
}

# pings NAME ADDRESS pings from a VM and demands every answer.
pings() {
	local out
	echo "$1\$ ping -c 5 $2"
	out=$(guest "$1" "ping -c 5 -i 0.2 $2") || true
	echo "$out"
	grep -q ' 0% packet loss' <<<"$out" || die "pings from $1 to $2 were lost"
}

# within SECONDS COMMAND… repeats a command until it succeeds.
within() {
	local end=$((SECONDS + $1))
	shift
	until "$@" 2>/dev/null; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}
