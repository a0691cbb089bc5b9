#!/bin/sh
# deb: remove, upgrade; rpm: 0 for the removal, 1 for an upgrade.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl stop 'vswitch@*.service'
fi
# The kernel goes on forwarding for switches that are gone, until this.
for dir in /var/lib/vswitch/*/; do
	[ -d "$dir" ] || continue
	/usr/bin/vswitch run --cleanup --name "$(basename "$dir")" || true
done
