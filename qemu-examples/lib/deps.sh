#!/usr/bin/env bash
# Installs what building, testing and the examples need beside Go, on Debian and
# Ubuntu. Without root it says what is missing and ends with status 1.
#
#   deps.sh            install what is missing
#   deps.sh PACKAGE…   these packages in place of the usual ones
set -euo pipefail

packages=("$@")
if [ $# -eq 0 ]; then
	packages=(
		make git ca-certificates
		gcc libc6-dev                # go test -race
		iproute2 iputils-ping procps # namespaces, traffic, sysctl
		qemu-system-x86              # guests
		busybox-static iperf3 ethtool lz4 xz-utils zstd # what is in them
		dpdk-dev                     # testpmd, a vhost-user front end
		lldpd dnsmasq-base           # a neighbour, a DHCP server
		nftables keepalived          # for the tenant guard: rules to compare with, hosts that share an address
		containernetworking-plugins  # host-local, which gives containers addresses
		systemd                      # systemd-analyze, the judge of the unit
		zsh fish                     # judges of the completions, beside bash
		tcpdump tshark jq            # judges of filters, captures, and what the switch sends; examples use jq
	)
fi

missing=()
for package in "${packages[@]}"; do
	dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "deps: no apt-get here; install the like of: ${missing[*]}" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "deps: missing; as root: apt-get install --no-install-recommends ${missing[*]}" >&2
	exit 1
fi
echo "deps: installing ${missing[*]}"
# In runlevel 1 Debian's packages start no service.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
