#!/bin/sh
# deb: configure [VERSION]; rpm: 1 for the first installation, 2 for an upgrade.
set -e
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers vswitch.conf
fi
if command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles --create vswitch.conf
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# Switches that run go on with the new program; machines stay connected.
	systemctl try-restart 'vswitch@*.service'
fi
