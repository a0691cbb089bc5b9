package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/unixsock"
)

func qemuArgsCommand() *cli.Command {
	return &cli.Command{
		Name:      "qemu-args",
		Usage:     "print QEMU's flags for a port",
		UsageText: "vswitch qemu-args NAME [--memory SIZE] [--qemu-version VERSION]",
		Description: `Prints the -netdev and -device flags that give a virtual machine the NIC behind
the port. Its MAC address belongs to the port of this switch: it is the same each
time, and no other port has it, of this host or another. An --ephemeral switch
draws new ones when the host boots.

A vhost-user port shares the machine's memory: --memory prints -m and what makes
it so. QEMU 7.2 without KVM cannot have MSI-X on such a port; add ",vectors=0".

How QEMU is told to connect again depends on its version: that of --qemu-version,
else of the qemu-system program that is found here, else QEMU 7.2 to 10.1 will do.

Example:

    qemu-system-x86_64 -m 512 disk.qcow2 $(vswitch qemu-args vm0)
    qemu-system-x86_64 disk.qcow2 $(vswitch qemu-args fast0 --memory 512M)`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "memory", Usage: "vhost-user: also give the machine `SIZE` of shared memory, such as 512M"},
			&cli.StringFlag{Name: "qemu-version", Usage: "`VERSION` of the QEMU that takes the flags, such as 9.2", DefaultText: "that of the QEMU here"},
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
	var v qemuVersion
	switch text := c.String("qemu-version"); {
	case text != "":
		if v, err = parseQEMUVersion(text); err != nil {
			return usagef("%v", err)
		}
	case p.Kind == "vhost-user" || p.Kind == "stream":
		v = findQEMU(c.Context)
	}
	args, err := qemuArgs(s, p, c.String("memory"), v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, args)
	return err
}

// qemuArgs writes the flags for a port. Those of the device are the last, so that a
// user can add to them.
func qemuArgs(s api.Switch, p api.Port, memory string, v qemuVersion) (string, error) {
	var spec struct {
		Path        string
		Client      bool
		Queues, MTU int
	}
	if p.Spec.RawMessage != nil {
		if err := p.Spec.Decode(&spec); err != nil {
			return "", err
		}
	}
	id := qemuID(p.Name)
	path := cmp.Or(spec.Path, filepath.Join(s.SocketDir, p.Name+".sock"))
	role := "off"
	if spec.Client {
		role = "on" // the switch connects to QEMU
	}
	queues, device := "", ""
	if n := spec.Queues; n > 1 {
		// An interrupt vector for each direction of each queue, and two more.
		queues, device = fmt.Sprintf(",queues=%d", n), fmt.Sprintf(",mq=on,vectors=%d", 2*n+2)
	}
	if mtu := cmp.Or(p.MTU, spec.MTU); p.Kind == "tap" && mtu != 0 && mtu != etherMTU {
		device += fmt.Sprintf(",host_mtu=%d", mtu) // so that the guest's NIC agrees with the TAP
	}
	var args []string
	switch p.Kind {
	case "tap":
		args = []string{"-netdev tap,id=" + id + ",ifname=" + escape(cmp.Or(p.Ifname, p.Name)) + ",script=no,downscript=no" + queues}
	case "vhost-user":
		if memory != "" {
			size := escape(memory)
			args = []string{"-m " + size, "-object memory-backend-memfd,id=mem,size=" + size + ",share=on", "-numa node,memdev=mem"}
		}
		reconnect := v.chardevReconnect()
		if spec.Client {
			reconnect = ",server=on"
		}
		args = append(args, "-chardev socket,id=char-"+id+",path="+escape(path)+reconnect,
			"-netdev vhost-user,id="+id+",chardev=char-"+id+queues)
	case "stream":
		args = []string{"-netdev stream,id=" + id + ",server=" + role + ",addr.type=unix,addr.path=" + escape(path)}
		if !spec.Client {
			args[0] += v.streamReconnect()
		}
	case "dgram":
		local, remote := path+unixsock.PeerSuffix, path
		if spec.Client {
			local, remote = path, path+switchSuffix
		}
		args = []string{"-netdev dgram,id=" + id + ",local.type=unix,local.path=" + escape(local) +
			",remote.type=unix,remote.path=" + escape(remote)}
	case "host":
		return "", fmt.Errorf("port %s is a NIC of the host, not of a virtual machine; add one of the kind tap for QEMU", p.Name)
	default:
		return "", fmt.Errorf("port %s is an interface of the host that QEMU cannot open; add one of the kind tap for QEMU", p.Name)
	}
	if memory != "" && p.Kind != "vhost-user" {
		return "", usagef("port %s needs no shared memory; leave --memory out", p.Name)
	}
	args = append(args, fmt.Sprintf("-device virtio-net-pci,netdev=%s,mac=%s%s", id, guestMAC(s, p), device))
	return strings.Join(args, " "), nil
}

// etherMTU is what a guest's NIC has that is not told another.
const etherMTU = 1500

// switchSuffix ends the path of a dgram port's own socket where the machine's was named.
const switchSuffix = ".sw"

// escape writes a value as QEMU reads it between commas.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// qemuID makes an identifier of a port's name. QEMU wants a letter, then letters,
// digits, '-', '.' and '_' (id_wellformed in util/id.c).
func qemuID(name string) string {
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	id := strings.Map(func(r rune) rune {
		if letter(r) || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_' {
			return r
		}
		return '_'
	}, name)
	if !letter(rune(id[0])) {
		id = "net" + id
	}
	return id
}

// guestMAC is the address that the daemon has for the machine behind a port, or what
// older daemons mean, who leave it to the command: one that follows from the names.
func guestMAC(s api.Switch, p api.Port) port.MAC {
	if p.GuestMAC != 0 {
		return p.GuestMAC
	}
	h := sha256.Sum256([]byte(s.Name + "\x00" + p.Name))
	return port.MACFrom([]byte{0x52, 0x54, 0x00, h[0], h[1], h[2]})
}
