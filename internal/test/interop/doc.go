// Package interop tests vswitch beside programs of others that it must get on with: FRR, as a
// host of an EVPN fabric and as its route reflector; libvirt, whose machines are at the ports of a
// switch; Podman, whose containers are; and Chromium, as the reader of its page. It has tests only, which `make test-interop`
// runs: they need programs that no other test needs.
package interop
