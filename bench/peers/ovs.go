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

// ovs is Open vSwitch with its datapath in user space (datapath_type=netdev): TAPs as
// system interfaces, which it reads by AF_PACKET, so that guests keep the fd ends.
// userspace-tso-enable is set, for without it segments of guests that have offloads
// on are lost; all the rest is as the package has it.
type ovs struct{}

// schema is where packages put the schema of the database.
const schema = "/usr/share/openvswitch/vswitch.ovsschema"

func (ovs) name() string { return "ovs" }

func (ovs) version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "ovs-vswitchd", "--version").Output()
	if err == nil {
		_, err = os.Stat(schema)
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("ovs-vswitchd is missing; install the package openvswitch-switch, or leave it out with -only vswitch,bridge")
	}
	if err != nil {
		return "", fmt.Errorf("ovs-vswitchd --version: %w", err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first + ", userspace datapath", nil
}

func (o ovs) start(ctx context.Context, l *lab, n int) ([]end, error) {
	ends, err := l.taps(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := o.attach(ctx, l, n); err != nil {
		closeAll(ends)
		return nil, err
	}
	return ends, nil
}

func (ovs) attach(ctx context.Context, l *lab, n int) error {
	file := func(name string) string { return filepath.Join(l.dir, name) }
	env := []string{"OVS_RUNDIR=" + l.dir, "OVS_LOGDIR=" + l.dir, "OVS_DBDIR=" + l.dir, "OVS_SYSCONFDIR=" + l.dir}
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
	// The daemon reads this setting once, so it must be there before.
	if err := vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true"); err != nil {
		return err
	}
	if _, err := l.start(env, "ovs-vswitchd", remote, "--unixctl="+file("vswitchd.ctl")); err != nil {
		return err
	}
	args := []string{"add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"}
	for i := range n {
		args = append(args, "--", "add-port", "br0", tapName(i))
	}
	return vsctl(args...)
}
