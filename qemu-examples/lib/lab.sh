# shellcheck shell=bash
# What the examples share: a network namespace, or a directory, with a switch and VMs
# in it, which is gone when the script ends, however it ends. Source it, then call lab
# or lab_rootless first.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ns=vswitch-demo-$$
PATH=$PATH:/usr/sbin:/sbin # ip and ethtool, which plain users' PATH leaves out

say() { printf '\n== %s\n' "$*"; }

die() {
	echo "error: $*" >&2
	exit 1
}

# lab gets what is missing, builds vswitch and the guests' image, and makes the
# namespace.
lab() {
	[ "$(id -u)" -eq 0 ] || die "this needs root, for network namespaces and TAP devices; try: sudo $0"
	prepare
	unset VSWITCH_NAME
	export VSWITCH_SOCKET=$dir/switch.sock
	ip netns add "$ns"
	ip -n "$ns" link set lo up
	as=(ip netns exec "$ns")
}

# lab_hosts NAME… is lab with a namespace for each name, a host, and a network between
# them: the first host has the address 192.0.2.1 there, and so on. MTU is its MTU.
lab_hosts() {
	local name n=0 device
	lab
	ip -n "$ns" link add br0 type bridge
	ip -n "$ns" link set br0 up
	for name; do
		n=$((n + 1)) device=to-$name
		ip netns add "$ns-$name"
		ip -n "$ns-$name" link set lo up
		ip -n "$ns-$name" link add eth0 mtu "${MTU:-1500}" type veth peer name "$device" mtu "${MTU:-1500}" netns "$ns"
		ip -n "$ns-$name" address add "192.0.2.$n/24" dev eth0
		ip -n "$ns-$name" link set eth0 up
		ip -n "$ns" link set "$device" master br0 up
	done
}

# host NAME makes switch, vs, boot and on act at one of these hosts.
host() {
	as=(ip netns exec "$ns-$1")
	export VSWITCH_NAME=$1 VSWITCH_SOCKET=$dir/$1.sock
}

# lab_rootless is lab where the switch and the VMs run as a plain user: the caller,
# or nobody in root's place. There is no namespace, and there can be no device.
lab_rootless() {
	prepare
	unset VSWITCH_NAME VSWITCH_SOCKET
	export XDG_RUNTIME_DIR=$dir/run
	mkdir -m 700 "$XDG_RUNTIME_DIR"
	as=(env)
	[ "$(id -u)" -eq 0 ] || return 0
	# Nobody may be unable to read the repository.
	cp "$vswitch" "$kernel" "$initrd" "$dir"
	vswitch=$dir/${vswitch##*/} kernel=$dir/${kernel##*/} initrd=$dir/${initrd##*/}
	as=(setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs)
	chown -R nobody:nogroup "$dir"
}

prepare() {
	command -v go >/dev/null || die "Go 1.25 or later is missing; get it from https://go.dev/dl/"
	dir=$(mktemp -d /tmp/vswitch-demo.XXXXXX)
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM

	say "getting what is missing, and building"
	"$root/qemu-examples/lib/deps.sh"
	cd "$root" || die "$root is gone"
	make --silent build
	go build -o "$dir/guest" ./internal/test/vmtest/cmd/guest
	"$dir/guest" image >"$dir/image" || die "there is no guest image"
	{ read -r kernel && read -r initrd; } <"$dir/image"
	vswitch=$root/vswitch
}

cleanup() {
	local status=$? log running name
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
	for name in $(ip netns list 2>/dev/null | cut -d' ' -f1 | grep -xE "$ns(-.*)?"); do
		ip netns del "$name"
	done
	rm -rf "$dir"
	exit $status
}

# on runs a command in the namespace, or as the plain user.
on() { "${as[@]}" "$@"; }

# switch [FLAG…] starts the daemon, which keeps nothing unless a flag tells it where.
# VSWITCH_TEST_FASTPATH=off keeps it from forwarding in the kernel, as in the tests.
switch() {
	[ $# -gt 0 ] || set -- --ephemeral
	[ "${VSWITCH_TEST_FASTPATH-}" != off ] || set -- --fastpath off "$@"
	"${as[@]}" "$vswitch" run "$@" >>"$dir/vswitch.log" 2>&1 &
	daemon=$!
	within 10 vs ports >/dev/null || die "vswitch does not answer"
}

# vs is vswitch, talking to that daemon.
vs() { on "$vswitch" "$@"; }

# up PORT… waits until the ports are up.
up() {
	local port
	for port; do
		within 20 port_is_up "$port" || die "port $port is not up: $(vs ports)"
	done
}

port_is_up() { vs ports | grep -qE "^$1 +[a-z-]+ +up( |$)"; }

# waits PORT reports whether a port waits for its device.
waits() { vs ports | grep -qE "^$1 +[a-z-]+ +waiting "; }

# boot NAME TAP MAC ADDRESS starts a VM with its NIC on TAP, and returns while it
# boots.
boot() {
	qemu "$1" "$4" -netdev "tap,id=net0,ifname=$2,script=no,downscript=no" -device "virtio-net-pci,netdev=net0,mac=$3"
}

# boot_on PORT NAME ADDRESS starts a VM with the NIC that `vswitch qemu-args` gives.
boot_on() {
	local nic
	nic=$(vs qemu-args "$1")
	echo "qemu-system-x86_64 … $nic"
	# shellcheck disable=SC2086 # flags, one a word
	qemu "$2" "$3" $nic
}

# boot_shared PORT NAME ADDRESS [OPTION…] is boot_on for a vhost-user port, which
# needs shared memory, and here ",vectors=0": emulated QEMU 7.2 ends with MSI-X.
boot_shared() {
	local name=$2 address=$3 nic
	nic=$(vs qemu-args "$1" --memory 192M),vectors=0
	shift 3
	echo "qemu-system-x86_64 … $nic"
	# shellcheck disable=SC2086 # flags, one a word
	qemu "$name" "$address" $nic "$@"
}

# qemu NAME ADDRESS OPTION… starts a VM with the NIC of these options. It has 192 MB,
# and an emulated CPU, so it runs on any machine.
qemu() {
	local name=$1 address=$2
	shift 2
	"${as[@]}" qemu-system-x86_64 -M pc,usb=off -accel tcg -cpu qemu64 -m 192 \
		-nodefaults -no-user-config -display none -no-reboot \
		-kernel "$kernel" -initrd "$initrd" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check ipv6.disable=1 guest.name=$name guest.ip=$address" \
		-global virtio-net-pci.romfile= -serial "unix:$dir/$name.console,server=on,wait=off" \
		"$@" 2>"$dir/$name.log" &
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

# serve NAME… has VMs offer a file of random bytes by HTTP.
serve() {
	local name
	for name; do
		guest "$name" 'mkdir -p /tmp/www && dd if=/dev/urandom of=/tmp/www/file bs=1M count=4 2>/dev/null && httpd -h /tmp/www'
	done
}

# fetch NAME FROM ADDRESS gets that file by TCP, and compares checksums.
fetch() {
	local sent came
	sent=$(guest "$2" 'sha256sum </tmp/www/file')
	came=$(guest "$1" "wget -q -O - http://$3/file | sha256sum")
	echo "sent by $2:     $sent"
	echo "received by $1: $came"
	[ "$sent" = "$came" ] || die "the bytes that came are others"
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

# qmp COMMAND has QEMU do something by its control protocol, and keeps the answer.
# Between answers, QEMU tells of events. Descriptor 3 leads to QEMU, 4 from it.
qmp() {
	echo "{\"execute\": $1}" >&3
	while read -r -t 60 answer <&4; do
		case $answer in
		'{"return":'*) return ;;
		'{"error":'*) die "QEMU says $answer" ;;
		esac
	done
	die "QEMU does not answer"
}

# migrated reports whether a migration is complete.
migrated() {
	qmp '"query-migrate"'
	[[ $answer != *'"status": "failed"'* ]] || die "QEMU says $answer"
	[[ $answer == *'"status": "completed"'* ]]
}
