// Command vswitch-cni is a CNI plugin: it gives containers a NIC on a running switch. For
// each attachment it adds a port of kind veth, and asks an IPAM plugin for addresses. What it
// knows of an attachment is in the port's labels and in a file with the result, so DEL and GC
// find all that an ADD made, even one that was killed. docs/containers.md has the
// configuration.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/vswitch/vswitch/api"
)

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status},
		version.VersionsStartingFrom("0.3.0"), "vswitch-cni: NICs of containers on a virtual switch")
}

// add gives a container its NIC. If it has it already, the answer is the same as before.
func add(args *skel.CmdArgs) error {
	a, err := newAttachment(args)
	if err != nil {
		return err
	}
	defer a.client.Close()
	var former *current.Result // of the plugins before this one
	if a.RawPrevResult != nil {
		if former, err = a.former(); err != nil {
			return err
		}
	}
	ctx := context.Background()
	if err := a.catchUp(ctx, a.client); err != nil {
		return err
	}
	result, err := a.again(ctx)
	if err != nil {
		return err
	}
	if result == nil {
		if result, err = a.add(ctx); err != nil {
			return err
		}
	}
	return types.PrintResult(a.behind(former, result), a.CNIVersion)
}

// del takes the NIC of a container away. What is gone already is no error, nor is a daemon that
// is away.
func del(args *skel.CmdArgs) error {
	a, err := newAttachment(args)
	if err != nil {
		return err
	}
	defer a.client.Close()
	ctx := context.Background()
	err = a.release(ctx)
	away := a.forget(ctx, a.client, a.port)
	if errors.Is(away, api.ErrNoDaemon) {
		return errors.Join(err, a.removeLater(a.port))
	}
	return errors.Join(err, away, a.catchUp(ctx, a.client))
}

// check returns what is wrong with the NIC of a container.
func check(args *skel.CmdArgs) error {
	a, err := newAttachment(args)
	if err != nil {
		return err
	}
	defer a.client.Close()
	result, err := a.former()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := a.check(ctx, result); err != nil {
		return err
	}
	if a.IPAM.Type == "" {
		return nil
	}
	return invoke.DelegateCheck(ctx, a.IPAM.Type, args.StdinData, nil)
}

// gc removes the ports of the network whose attachments the runtime does not name, and what is kept
// of these.
func gc(args *skel.CmdArgs) error {
	c, err := readConf(args.StdinData)
	if err != nil {
		return err
	}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx := context.Background()
	if err := c.catchUp(ctx, cl); err != nil {
		return err
	}
	valid := make(map[string]bool) // by name of the port
	for _, a := range c.ValidAttachments {
		valid[portName(labels{c.Name, a.ContainerID, a.IfName})] = true
	}
	ports, err := cl.Ports(ctx)
	if err != nil {
		return unavailable(err)
	}
	var failed error
	for _, p := range ports {
		if labelsOf(p).network == c.Name && !valid[p.Name] {
			failed = errors.Join(failed, c.forgetNow(ctx, cl, p.Name))
		}
	}
	failed = errors.Join(failed, c.sweep(valid))
	if c.IPAM.Type != "" {
		failed = errors.Join(failed, invoke.DelegateGC(ctx, c.IPAM.Type, args.StdinData, nil))
	}
	return failed
}

// status returns why the plugin could not add a container now.
func status(args *skel.CmdArgs) error {
	c, err := readConf(args.StdinData)
	if err != nil {
		return err
	}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx := context.Background()
	if _, err := cl.Switch(ctx); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, "the switch does not answer", err.Error())
	}
	if err := c.catchUp(ctx, cl); err != nil {
		return err
	}
	if c.IPAM.Type == "" {
		return nil
	}
	return invoke.DelegateStatus(ctx, c.IPAM.Type, args.StdinData, nil)
}

// patience is how long a change waits for those of others, which a host that starts many
// containers has.
const patience = time.Minute

// patiently repeats a change while the daemon is busy.
func patiently(change func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := change()
		var refused *api.Error
		if !errors.As(err, &refused) || !isBusy(refused) || time.Now().After(deadline) {
			return err
		}
	}
}

// isBusy reports whether the daemon refused a change for those of others.
func isBusy(e *api.Error) bool { return e.Code == api.CodeBusy || e.Code == api.CodeConflict }

// unavailable returns a daemon's error for the runtime: one that does not answer may do so
// later, and settings that it refuses are an invalid configuration.
func unavailable(err error) error {
	var refused *api.Error
	switch {
	case errors.As(err, &refused) && refused.Code == api.CodeInvalid:
		return invalid("%v", err)
	case errors.As(err, &refused) && isBusy(refused):
		return types.NewError(types.ErrTryAgainLater, "the switch is busy", err.Error())
	case errors.As(err, &refused):
		return err
	}
	return types.NewError(types.ErrTryAgainLater, "the switch does not answer", err.Error())
}
