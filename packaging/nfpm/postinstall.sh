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
	for unit in $(systemctl list-units --plain --no-legend --state=active 'vswitch@*.service' | cut -d ' ' -f 1); do
		# A version that cannot hand over is restarted.
		systemctl reload "$unit" || systemctl restart "$unit"
	done
fi
