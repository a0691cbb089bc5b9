package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// ovsDPDK is Open vSwitch with DPDK: one thread polls all ports on the lab's processor. It is
// the client, so that the front end serves it and vswitch alike. It uses ordinary pages, as
// the front end does.
type ovsDPDK struct{}

const (
	ovsDPDKName   = "ovs-dpdk"
	ovsDPDKDaemon = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
)

func (ovsDPDK) name() string { return ovsDPDKName }

func (ovsDPDK) media() []medium { return []medium{byVhost} }

func (ovsDPDK) makesTAPs() bool { return false }

func (ovsDPDK) version(ctx context.Context) (string, error) {
	return ovsVersion(ctx, ovsDPDKDaemon, "openvswitch-switch-dpdk")
}

func (ovsDPDK) attach(ctx context.Context, l *lab, _ medium, sockets []string) error {
	mask := fmt.Sprintf("%#x", uint64(1)<<l.cpu)
	settings := []string{
		"dpdk-init=true", "dpdk-lcore-mask=" + mask, "pmd-cpu-mask=" + mask,
		// Without huge pages DPDK needs its memory at once: two Open vSwitch pools of 262,144
		// buffers, because it frees one only after it has the next.
		"dpdk-extra=--no-huge --legacy-mem -m 2048 --no-pci --no-telemetry --file-prefix=ovs",
	}
	return l.openVSwitch(ctx, ovsDPDKDaemon, settings, sockets, func(socket string) []string {
		name := filepath.Base(socket)
		return []string{name, "--", "set", "interface", name, "type=dpdkvhostuserclient", "options:vhost-server-path=" + socket}
	})
}
