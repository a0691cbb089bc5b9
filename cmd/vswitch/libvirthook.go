package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/libvirt"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

func libvirtHookCommand() *cli.Command {
	return &cli.Command{
		Name:      "libvirt-hook",
		Usage:     "add and remove the ports that libvirt's domains ask for",
		UsageText: "vswitch libvirt-hook DOMAIN OPERATION SUBOPERATION [EXTRA] <XML",
		Description: `Is for /etc/libvirt/hooks/qemu.d: libvirt calls it before a machine starts, and after
it has ended, with the domain's XML. It adds the ports of the domain's metadata, and
removes them when the machine is gone:

    <metadata>
      <vswitch:ports xmlns:vswitch='` + libvirt.Namespace + `' switch='sw0'>
        <vswitch:port name='vm0' access='10' rate-out='100mbit' guard='on'/>
        <vswitch:port name='fast0' kind='vhost-user'/>
      </vswitch:ports>
    </metadata>

Attributes are flags of add-port, but only of settings that every port has; a flag
that can be repeated has its values between spaces. Queues and MTU are those of the
port's <interface>, as is the address of --guard-mac unless it is given. The hook
changes no port but those that it added for this domain.

Example:

    vswitch libvirt-hook web prepare begin - <web.xml`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "owner", Usage: "`USER` of libvirt's QEMU, who may use the sockets", DefaultText: "libvirt-qemu or qemu, whichever there is"},
		},
		Action: libvirtHook,
	}
}

func libvirtHook(c *cli.Context) error {
	args, err := words(c, "DOMAIN", "OPERATION", "SUBOPERATION", "[EXTRA]")
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(os.Stdin, libvirt.MaxSize+1))
	if err != nil {
		return err
	}
	act := map[string]func(*libvirtPorts) error{
		"prepare begin": (*libvirtPorts).add,
		"release end":   (*libvirtPorts).remove,
	}[args[1]+" "+args[2]]
	if act == nil {
		return nil // nothing to do
	}
	d, err := libvirt.Parse(text)
	if err != nil || len(d.Ports) == 0 {
		return err
	}
	h := &libvirtPorts{Context: c.Context, domain: d, flags: c}
	defer h.close()
	return act(h)
}

// libvirtPorts are the ports that a domain asks for.
type libvirtPorts struct {
	context.Context
	domain   libvirt.Domain
	flags    *cli.Context
	switches map[string]*libvirtSwitch // by the name in the metadata
}

type libvirtSwitch struct {
	*api.Client
	socketDir string
}

func (h *libvirtPorts) close() {
	for _, s := range h.switches {
		s.Close()
	}
}

// at returns the switch that the metadata names; "" is that of the command's flags.
func (h *libvirtPorts) at(name string) (*libvirtSwitch, error) {
	if s := h.switches[name]; s != nil {
		return s, nil
	}
	named, socket := h.flags.String("name"), h.flags.String("socket")
	if named == "" && socket == "" {
		named = name
	}
	_, socket, err := resolve(named, socket, api.FindSocket)
	if err != nil {
		return nil, err
	}
	cl := api.NewClient(socket)
	sw, err := cl.Switch(h)
	if err == nil && name != "" && sw.Name != name {
		err = fmt.Errorf("the metadata names the switch %s, and this hook serves %s", name, sw.Name)
	}
	if err != nil {
		cl.Close()
		return nil, err
	}
	s := &libvirtSwitch{cl, sw.SocketDir}
	if h.switches == nil {
		h.switches = make(map[string]*libvirtSwitch)
	}
	h.switches[name] = s
	return s, nil
}

// libvirtLabel has the UUID of the domain that a port was added for.
const libvirtLabel = "libvirt-domain"

// add adds the ports: all, or none.
func (h *libvirtPorts) add() error {
	for i, p := range h.domain.Ports {
		if err := h.addPort(p); err != nil {
			for _, q := range h.domain.Ports[:i] {
				err = also(err, h.removePort(q))
			}
			return fmt.Errorf("port %s: %w", p.Name, err)
		}
	}
	return nil
}

func (h *libvirtPorts) addPort(p libvirt.Port) error {
	s, err := h.at(p.Switch)
	if err != nil {
		return err
	}
	set, err := h.settings(p, s)
	if err != nil {
		return err
	}
	req := api.AddPort{Name: p.Name, Kind: p.Kind, Settings: sent(set), MayExist: true}
	_, err = s.AddPort(h, req)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeExists {
		return err
	}
	// An earlier run of the domain may have left it, with other settings.
	if err := h.mine(s, p.Name); err != nil {
		return err
	}
	if err := s.DelPort(h, p.Name); err != nil {
		return err
	}
	_, err = s.AddPort(h, req)
	return err
}

// mine returns an error unless a port was added for the domain.
func (h *libvirtPorts) mine(s *libvirtSwitch, name string) error {
	p, err := s.Port(h, name)
	if err != nil {
		return err
	}
	var of struct{ Labels map[string]string }
	if err := p.Spec.Decode(&of); err != nil {
		return err
	}
	switch of.Labels[libvirtLabel] {
	case h.domain.UUID:
		return nil
	case "":
		return errors.New("it exists, and no domain's metadata added it; delete it with `vswitch del-port`, or take it out of the metadata")
	}
	return fmt.Errorf("it is a port of the domain %s; give each domain ports of its own", of.Labels[libvirtLabel])
}

// remove removes those of the ports that were added for the domain.
func (h *libvirtPorts) remove() error {
	var failed error
	for _, p := range h.domain.Ports {
		if err := h.removePort(p); err != nil {
			failed = also(failed, fmt.Errorf("port %s: %w", p.Name, err))
		}
	}
	return failed
}

// also joins two errors, each of which may be nil, on one line.
func also(err, other error) error {
	if err == nil || other == nil {
		return cmp.Or(err, other)
	}
	return fmt.Errorf("%w; %w", err, other)
}

func (h *libvirtPorts) removePort(p libvirt.Port) error {
	s, err := h.at(p.Switch)
	if err == nil {
		err = h.mine(s, p.Name)
	}
	if err == nil {
		err = s.ForceDelPort(h, p.Name) // its machine is gone, whether or not the switch knows
	}
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeNotFound {
		return nil
	}
	return err
}

// settings returns the settings of a port: those of the metadata that every port has, and what
// follows from the port's NIC.
func (h *libvirtPorts) settings(p libvirt.Port, s *libvirtSwitch) (setting.Patch, error) {
	catalog := portCatalog()
	kind := catalog.Find(p.Kind)
	if kind == nil || kind.Describe().Libvirt == nil {
		return nil, fmt.Errorf("libvirt has no interface for %s ports; use one of the kind %s", p.Kind, strings.Join(kindsWith(func(d port.Description) bool { return d.Libvirt != nil }), ", "))
	}
	nic, found := h.domain.NIC(p.Name, filepath.Join(s.socketDir, p.Name+".sock"))
	if found && nic.Device != "" && nic.Managed {
		return nil, fmt.Errorf("libvirt would make a device of its own; write <target dev='%s' managed='no'/> in its <interface>", p.Name)
	}
	set := setting.Patch{}
	all := catalog.Settings()
	for _, given := range p.Settings {
		i := slices.IndexFunc(all, func(f port.Setting) bool { return f.Flag == given.Flag })
		switch {
		case i < 0:
			return nil, fmt.Errorf("there is no setting %q; `vswitch add-port --help` lists those that exist", given.Flag)
		case all[i].Kinds != nil || all[i].Key == "labels":
			return nil, fmt.Errorf("the metadata of a domain cannot have %q; only settings that every port has", given.Flag)
		}
		texts := []string{given.Text}
		if all[i].List() {
			texts = strings.Fields(given.Text)
		}
		value, err := all[i].ReadFlag(texts...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", given.Flag, err)
		}
		set[all[i].Key] = value
	}
	has := func(key string) bool {
		return slices.ContainsFunc(all, func(f port.Setting) bool {
			return f.Key == key && (f.Kinds == nil || slices.Contains(f.Kinds, p.Kind))
		})
	}
	if nic.Queues > 1 && has("queues") {
		set.Set("queues", nic.Queues)
	}
	if nic.MTU > 0 && has("mtu") {
		set.Set("mtu", nic.MTU)
	}
	if nic.MAC != "" && set["guard"] != nil && set["guard_mac"] == nil {
		set.Set("guard_mac", []string{nic.MAC})
	}
	if owner := h.owner(has("path")); owner != "" && has("owner") {
		set.Set("owner", owner)
	}
	set.Set("labels", map[string]string{libvirtLabel: h.domain.UUID})
	_, err := catalog.Read(p.Name, p.Kind, set)
	return set, err
}

// owner returns who opens a port, which is a socket or a TAP; "" is root. QEMU opens sockets by
// itself. TAPs are opened by libvirt, which is root but for qemu:///session.
func (h *libvirtPorts) owner(socket bool) string {
	if uid := os.Geteuid(); uid != 0 {
		return strconv.Itoa(uid)
	}
	if !socket {
		return ""
	}
	if name := h.flags.String("owner"); name != "" {
		return name
	}
	for _, name := range []string{"libvirt-qemu", "qemu"} { // Debian's, Fedora's
		if _, err := user.Lookup(name); err == nil {
			return name
		}
	}
	return ""
}
