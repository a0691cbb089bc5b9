#!/usr/bin/env bash
# A virtual machine and the host talk: the host has a NIC of its own on the switch.
set -euo pipefail
. "$(dirname "$0")/../lib/lab.sh"
lab

say "starting the switch, with a port for the VM and one for the host"
switch
vs add-port vm0
vs add-port host0 --kind host --address 10.0.0.254/24
on ip addr show dev host0

say "booting the VM"
boot a vm0 52:54:00:00:00:0a 10.0.0.1/24

say "ping, each way"
pings a 10.0.0.254
on ping -c 3 -i 0.2 10.0.0.1

say "TCP, each way: a web server on the host, and one in the VM"
mkdir "$dir/www"
echo "hello from the host" >"$dir/www/hello"
ip netns exec "$ns" busybox httpd -f -p 10.0.0.254:80 -h "$dir/www" &
within 5 on busybox wget -q -O /dev/null http://10.0.0.254/hello || die "the host's web server does not answer"
answer=$(guest a 'wget -q -O - http://10.0.0.254/hello')
echo "the VM reads: $answer"
[ "$answer" = "hello from the host" ] || die "the VM read something else"

guest a 'mkdir /tmp/www && echo "hello from the VM" >/tmp/www/hello && httpd -h /tmp/www'
answer=$(on busybox wget -q -O - http://10.0.0.1/hello)
echo "the host reads: $answer"
[ "$answer" = "hello from the VM" ] || die "the host read something else"

say "vswitch ports"
vs ports
say "done: the VM and the host reached each other"
