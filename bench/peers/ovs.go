package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ovs is Open vSwitch with its userspace datapath (datapath_type=netdev): TAPs are system
// interfaces, which it reads through AF_PACKET, so that guests keep the fd ends.
// userspace-tso-enable is set, because otherwise segments of guests with offloads are lost;
// everything else has the package's defaults.
type ovs struct{}

// schema is the path of the database schema in packages.
const schema = "/usr/share/openvswitch/vswitch.ovsschema"

func (ovs) name() string { return "ovs" }

func (ovs) version(ctx context.Context) (string, error) {
	return ovsVersion(ctx, "ovs-vswitchd", "openvswitch-switch")
}

// ovsVersion asks an Open vSwitch daemon from a package for its version.
func ovsVersion(ctx context.Context, daemon, pkg string) (string, error) {
	out, err := exec.CommandContext(ctx, daemon, "--version").Output()
	if err == nil {
		_, err = os.Stat(schema)
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s is missing; install the package %s, or leave it out with -only vswitch,bridge", filepath.Base(daemon), pkg)
	}
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", daemon, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines, ", ") + ", userspace datapath", nil
}

func (ovs) media() []medium { return []medium{byTAP} }

func (ovs) makesTAPs() bool { return false }

func (ovs) attach(ctx context.Context, l *lab, _ medium, taps []string) error {
	settings := []string{"userspace-tso-enable=true"}
	return l.openVSwitch(ctx, "ovs-vswitchd", settings, taps, func(tap string) []string { return []string{tap} })
}

// openVSwitch runs an Open vSwitch database and daemon with a userspace bridge. settings are
// for other_config; port returns what follows add-port BRIDGE for a guest.
func (l *lab) openVSwitch(ctx context.Context, daemon string, settings, guests []string, port func(guest string) []string) error {
	file := func(name string) string { return filepath.Join(l.dir, name) }
	// DPDK uses RUNTIME_DIRECTORY.
	env := []string{"OVS_RUNDIR=" + l.dir, "OVS_LOGDIR=" + l.dir, "OVS_DBDIR=" + l.dir, "OVS_SYSCONFDIR=" + l.dir, "RUNTIME_DIRECTORY=" + l.dir}
	remote := "unix:" + file("db.sock")
	vsctl := func(args ...string) error {
		_, err := l.run(ctx, "ovs-vsctl", append([]string{"--db=" + remote}, args...)...)
		return err
	}

	if _, err := l.run(ctx, "ovsdb-tool", "create", file("conf.db"), schema); err != nil {
		return err
	}
	if _, err := l.start(env, "ovsdb-server", file("conf.db"), "--remote=p"+remote, "--unixctl="+file("db.ctl")); err != nil {
		return err
	}
	err := l.poll(ctx, func() error {
		_, err := os.Stat(file("db.sock"))
		return err
	})
	if err != nil {
		return err
	}
	// The daemon reads some settings once, so they must be set before it starts.
	args := []string{"--no-wait", "init", "--", "set", "Open_vSwitch", "."}
	for _, s := range settings {
		args = append(args, "other_config:"+s)
	}
	if err := vsctl(args...); err != nil {
		return err
	}
	if _, err := l.start(env, daemon, remote, "--unixctl="+file("vswitchd.ctl")); err != nil {
		return err
	}
	args = []string{"add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"}
	for _, g := range guests {
		args = append(args, "--", "add-port", "br0")
		args = append(args, port(g)...)
	}
	return vsctl(args...)
}
