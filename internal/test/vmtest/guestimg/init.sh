#!/bin/sh
# PID 1 of the guest: loads the drivers, takes its name and address from the
# kernel's command line, and gives a shell on the serial console for ever.
/bin/busybox mkdir -p /proc /sys /dev /tmp /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin HOME=/root PS1= PS2= TERM=dumb
exec </dev/ttyS0 >/dev/ttyS0 2>&1

while read -r module; do
	insmod "/modules/$module" || echo "init: $module is not loaded"
done </modules/order

for word in $(cat /proc/cmdline); do
	case $word in
	guest.name=*) hostname "${word#*=}" ;;
	guest.ip=*) address=${word#*=} ;;
	esac
done
# The driver may make its interface a moment after insmod returns.
tries=0
while [ ! -e /sys/class/net/eth0 ] && [ $tries -lt 50 ]; do
	tries=$((tries + 1))
	usleep 100000
done
ip link set lo up
[ -z "$address" ] || ip addr add "$address" dev eth0
[ ! -e /sys/class/net/eth0 ] || ip link set eth0 up

stty -echo
echo "init: $(hostname) is ready"
while :; do
	setsid cttyhack sh
done
