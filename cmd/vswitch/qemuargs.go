package main

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/port"
)

func qemuArgsCommand() *cli.Command {
	return &cli.Command{
		Name:      "qemu-args",
		Usage:     "print QEMU's flags for a port",
		UsageText: "vswitch qemu-args NAME",
		Description: `Prints the -netdev and -device flags that give a virtual machine the NIC behind
the port. Its MAC address follows from the names of the switch and the port: it
is the same each time, and not QEMU's default, which all machines would share.

Example:

    qemu-system-x86_64 -m 512 disk.qcow2 $(vswitch qemu-args vm0)`,
		Action: printQEMUArgs,
	}
}

func printQEMUArgs(c *cli.Context) error {
	w, err := words(c, "NAME")
	if err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	defer cl.Close()
	p, err := cl.Port(c.Context, w[0])
	if err != nil {
		return err
	}
	s, err := cl.Switch(c.Context)
	if err != nil {
		return err
	}
	args, err := qemuArgs(s.Name, p.Name, p.Kind, p.Ifname, p.Spec.Queues)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, args)
	return err
}

// qemuArgs writes the flags for a port of that kind with that interface. A machine
// with n queues wants an interrupt vector for each direction of each, and two more
// .
func qemuArgs(sw, name, kind, ifname string, queues int) (string, error) {
	switch kind {
	case "tap":
	case "host":
		return "", fmt.Errorf("port %s is a NIC of the host, not of a virtual machine; add one of the kind tap for QEMU", name)
	default:
		return "", fmt.Errorf("port %s is an interface of the host that QEMU cannot open; add one of the kind tap for QEMU", name)
	}
	if ifname == "" {
		ifname = name
	}
	id := qemuID(name)
	netdev, device := "", ""
	if queues > 1 {
		netdev, device = fmt.Sprintf(",queues=%d", queues), fmt.Sprintf(",mq=on,vectors=%d", 2*queues+2)
	}
	return fmt.Sprintf("-netdev tap,id=%s,ifname=%s,script=no,downscript=no%s -device virtio-net-pci,netdev=%s,mac=%s%s",
		id, strings.ReplaceAll(ifname, ",", ",,"), netdev, id, qemuMAC(sw, name), device), nil
}

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

// qemuMAC is an address of QEMU's range, 52:54:00, for a port. A zero byte, which
// no name has, keeps the two names apart.
func qemuMAC(sw, name string) port.MAC {
	h := sha256.Sum256([]byte(sw + "\x00" + name))
	return port.MACFrom([]byte{0x52, 0x54, 0x00, h[0], h[1], h[2]})
}
