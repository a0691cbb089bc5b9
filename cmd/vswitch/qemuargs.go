package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/qemu"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

func qemuArgsCommand() *cli.Command {
	return &cli.Command{
		Name:      "qemu-args",
		Usage:     "print QEMU's flags or libvirt's XML for a port",
		UsageText: "vswitch qemu-args NAME [--memory SIZE] [--qemu-version VERSION] [--format qemu|libvirt]",
		Description: `Prints the -netdev and -device flags that give a virtual machine the NIC behind
the port. Its MAC address belongs to the port of this switch: it is the same each
time, and no other port has it, of this host or another. An --ephemeral switch
draws new ones when the host boots.

A vhost-user port shares the machine's memory: --memory prints -m and what makes
it so. QEMU 7.2 without KVM cannot have MSI-X on such a port; add ",vectors=0".

How QEMU is told to connect again depends on its version: that of --qemu-version,
else of the qemu-system program that is found here, else QEMU 7.2 to 10.1 will do.

A path with a space or a sign of the shell is quoted, so that the printed line can be
pasted; $(…) does not read quotes, but eval "qemu-system-x86_64 … $(…)" does. -o json
prints the arguments as a program takes them, without a shell.

--format libvirt prints the <interface> element of a domain in place of flags.

Example:

    qemu-system-x86_64 -m 512 disk.qcow2 $(vswitch qemu-args vm0)
    qemu-system-x86_64 disk.qcow2 $(vswitch qemu-args fast0 --memory 512M)
    vswitch qemu-args vm0 --format libvirt >nic.xml; virsh attach-device DOMAIN nic.xml`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "memory", Usage: "vhost-user: also give the machine `SIZE` of shared memory, such as 512M"},
			&cli.StringFlag{Name: "qemu-version", Usage: "`VERSION` of the QEMU that takes the flags, such as 9.2", DefaultText: "that of the QEMU here"},
			oneOf(&cli.StringFlag{Name: "format", Value: "qemu", Usage: "`FORMAT` of what is printed: qemu or libvirt"}, []string{"qemu", "libvirt"}),
		},
		Action: steering(printQEMUArgs, "NAME"),
	}
}

func printQEMUArgs(c *cli.Context, cl *api.Client, names []string) error {
	p, err := cl.Port(c.Context, names[0])
	if err != nil {
		return err
	}
	s, err := cl.Switch(c.Context)
	if err != nil {
		return err
	}
	switch c.String("format") {
	case "qemu":
	case "libvirt":
		if c.IsSet("memory") || c.IsSet("qemu-version") {
			return usagef("libvirt writes QEMU's flags by itself; leave --memory and --qemu-version out")
		}
		if c.String("output") != "table" {
			return usagef("libvirt takes XML; leave --output out")
		}
		text, err := libvirtXML(s, p)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.App.Writer, text)
		return err
	default:
		return usagef("there is no format %q; use qemu or libvirt", c.String("format"))
	}
	var v qemu.Version
	if text := c.String("qemu-version"); text == "" {
		v = findQEMU(c.Context)
	} else if v, err = qemu.ParseVersion(text); err != nil {
		return usageError(err.Error())
	}
	args, err := qemuArgs(s, p, c.String("memory"), v)
	if err != nil {
		return err
	}
	return show(c, qemuJSON{args}, func(w io.Writer) { fmt.Fprintln(w, qemu.Line(args)) })
}

// qemuJSON is what -o json prints.
type qemuJSON struct {
	Args []string `json:"args"` // as a program takes them, without a shell
}

// qemuArgs returns the arguments for a port. The device's options are last, so that a user can
// append to them.
func qemuArgs(s api.Switch, p api.Port, memory string, v qemu.Version) ([]string, error) {
	kind, spec, err := machineOf(s, p)
	if err != nil {
		return nil, err
	}
	id := qemu.ID(p.Name)
	flags, err := kind.QEMU(spec, qemu.Guest{ID: id, Ifname: p.Ifname, MTU: cmp.Or(p.GuestMTU, p.MTU), Memory: memory, Version: v})
	if err != nil {
		return nil, usageError(err.Error())
	}
	return append(flags.Backend, "-device", fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%s%s", id, guestMAC(s, p), flags.Device)), nil
}

// libvirtXML writes the <interface> element for a port, and in a comment what the domain needs
// beside it.
func libvirtXML(s api.Switch, p api.Port) (string, error) {
	kind, spec, err := machineOf(s, p)
	if err != nil {
		return "", err
	}
	if kind.Libvirt == nil {
		return "", fmt.Errorf("libvirt has no interface for %s ports; add one of the kind %s", p.Kind,
			strings.Join(kindsWith(func(d port.Description) bool { return d.Libvirt != nil }), ", "))
	}
	i := kind.Libvirt(spec, qemu.Guest{ID: qemu.ID(p.Name), Ifname: p.Ifname, MTU: cmp.Or(p.GuestMTU, p.MTU)})
	i.MAC, i.Model = qemu.Address{Address: guestMAC(s, p).String()}, qemu.Model{Type: "virtio"}
	text, err := i.Write()
	if i.Needs != "" {
		text += "\n<!-- The domain needs this beside its devices:\n" + i.Needs + "\n-->"
	}
	return text, err
}

// machineOf returns the kind of a port for a virtual machine, and the port's spec.
func machineOf(s api.Switch, p api.Port) (port.Description, port.Spec, error) {
	all, err := kinds(kindOptions{Switch: cmp.Or(s.Name, api.DefaultName), SocketDir: cmp.Or(s.SocketDir, "/")})
	if err != nil {
		return port.Description{}, port.Spec{}, err
	}
	kind := all.Find(p.Kind)
	if kind == nil || kind.Describe().QEMU == nil {
		return port.Description{}, port.Spec{}, fmt.Errorf("port %s is not for a virtual machine; add one of the kind %s for QEMU", p.Name,
			strings.Join(kindsWith(func(d port.Description) bool { return d.QEMU != nil }), ", "))
	}
	set := setting.Patch{}
	if p.Spec.RawMessage != nil {
		if err := p.Spec.Decode(&set); err != nil {
			return port.Description{}, port.Spec{}, err
		}
	}
	delete(set, "name")
	delete(set, "kind")
	spec, err := daemon.Catalog(all, features).Read(p.Name, p.Kind, set)
	return kind.Describe(), spec, err
}

// kindsWith returns the names of the kinds of port whose description has something.
func kindsWith(has func(port.Description) bool) (names []string) {
	for _, k := range kindList() {
		if has(k.Describe()) {
			names = append(names, k.Name())
		}
	}
	return names
}

// guestMAC returns the daemon's address for the machine behind a port. An older daemon leaves
// it to the command, which derives it from the names.
func guestMAC(s api.Switch, p api.Port) port.MAC {
	if p.GuestMAC != 0 {
		return p.GuestMAC
	}
	h := sha256.Sum256([]byte(s.Name + "\x00" + p.Name))
	return port.MACFrom([]byte{0x52, 0x54, 0x00, h[0], h[1], h[2]})
}
