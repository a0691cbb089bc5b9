#!/bin/sh
# deb: remove, purge, upgrade; rpm: 0 for the removal, 1 for an upgrade. The group vswitch stays:
# files may belong to it.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "$1" = purge ]; then
	rm -rf /var/lib/vswitch /run/vswitch
	rmdir --ignore-fail-on-non-empty /etc/vswitch 2>/dev/null || true
fi
