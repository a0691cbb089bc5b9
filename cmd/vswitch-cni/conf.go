package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/vswitch/vswitch/api"
)

// conf is the network's configuration.
type conf struct {
	types.PluginConf

	Switch string `json:"switch"` // name of the switch; sw0 by default
	Socket string `json:"socket"` // its control socket; by default that of its name
	MTU    int    `json:"mtu"`    // 0: the switch's
	Dir    string `json:"dataDir"`

	// Port has more settings of the ports, such as {"access": 10, "isolated": true}.
	Port api.Settings `json:"port"`

	Runtime struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`

	at string // the socket, once connected
}

// dataDir has a file with the result of each attachment. It goes with the host's boot, as
// the containers do.
const dataDir = "/run/vswitch-cni"

// own are the settings of a port that follow from the attachment.
var own = []string{"name", "kind", "netns", "ifname", "mac", "mtu", "address", "labels", "no_wait", "may_exist"}

func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, "invalid network configuration", fmt.Sprintf(format, args...))
}

func readConf(b []byte) (*conf, error) {
	c := &conf{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration is not understood", err.Error())
	}
	for _, key := range own {
		if _, ok := c.Port[key]; ok {
			return nil, invalid("port.%s follows from the attachment; leave it out", key)
		}
	}
	if len(c.Name) > maxLabel {
		return nil, invalid("the network's name has more than %d bytes", maxLabel)
	}
	c.Switch, c.Dir = cmp.Or(c.Switch, api.DefaultName), cmp.Or(c.Dir, dataDir)
	if err := api.CheckName(c.Switch); err != nil {
		return nil, invalid("%v", err)
	}
	return c, nil
}

// connect returns a client of the switch's daemon.
func (c *conf) connect() (*api.Client, error) {
	socket := c.Socket
	if socket == "" {
		var err error
		if socket, err = api.FindSocket(c.Switch); err != nil {
			return nil, invalid("%v", err)
		}
	}
	c.at = socket
	return api.NewClient(socket), nil
}

// The labels of the ports, and the longest value of one.
const (
	labelNetwork   = "cni/network"
	labelContainer = "cni/container"
	labelIfname    = "cni/ifname"
	maxLabel       = 255
)

type labels struct{ network, container, ifname string }

func labelsOf(p api.Port) labels {
	var s struct{ Labels map[string]string }
	_ = p.Spec.Decode(&s) // a port without labels is not ours
	return labels{s.Labels[labelNetwork], s.Labels[labelContainer], s.Labels[labelIfname]}
}

// portName names the port of an attachment: nothing else is as short and unique.
func portName(l labels) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", l.network, l.container, l.ifname))
	return fmt.Sprintf("cni%x", sum[:6])
}

// kept is what is kept of an attachment.
type kept struct {
	Network string          `json:"network"`
	Result  *current.Result `json:"result"`
}

const keptSuffix = ".json"

// file is where the result of a port's attachment is kept.
func (c *conf) file(port string) string { return filepath.Join(c.Dir, port+keptSuffix) }

// forget removes a port and what is kept of it. The error is api.ErrNoDaemon, wrapped, if the
// daemon is away.
func (c *conf) forget(ctx context.Context, cl *api.Client, port string) error {
	err := patiently(func() error { return cl.ForceDelPort(ctx, port) })
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeNotFound {
		err = nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(c.file(port)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// forgetNow is forget with errors for the runtime.
func (c *conf) forgetNow(ctx context.Context, cl *api.Client, port string) error {
	err := c.forget(ctx, cl, port)
	if errors.As(err, new(*api.Error)) || errors.Is(err, api.ErrNoDaemon) {
		return unavailable(err)
	}
	return err
}

// store writes the result of an attachment in one step.
func (c *conf) store(port string, result *current.Result) error {
	b, err := json.Marshal(kept{c.Name, result})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	temporary := c.file(port) + ".new"
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, c.file(port))
}

// stored returns what store wrote.
func (c *conf) stored(port string) (k kept, err error) {
	b, err := os.ReadFile(c.file(port))
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	return k, err
}

// sweep removes what is kept of the network's attachments, but for those of valid ports: a container
// that ended without a DEL leaves it behind.
func (c *conf) sweep(valid map[string]bool) error {
	files, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var failed error
	for _, f := range files {
		port, is := strings.CutSuffix(f.Name(), keptSuffix)
		if !is || valid[port] {
			continue
		}
		if k, err := c.stored(port); err == nil && k.Network == c.Name {
			failed = errors.Join(failed, os.Remove(c.file(port)))
		}
	}
	return failed
}

// settings returns the settings of an attachment's port.
func (c *conf) settings(l labels, netns string) api.Settings {
	s := api.Settings{
		"netns": netns, "ifname": l.ifname, "transient": true,
		"labels": map[string]string{labelNetwork: l.network, labelContainer: l.container, labelIfname: l.ifname},
	}
	if c.Runtime.MAC != "" {
		s["mac"] = c.Runtime.MAC
	}
	if c.MTU != 0 {
		s["mtu"] = c.MTU
	}
	for key, value := range c.Port {
		s[key] = value
	}
	return s
}
