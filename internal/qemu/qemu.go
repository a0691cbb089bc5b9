// Package qemu covers QEMU's command line as far as ports need it: what its versions accept,
// and how values are written. The kinds of port write their flags with it. It runs nothing
// and reads nothing.
package qemu

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Guest describes to a kind the machine that gets the flags.
type Guest struct {
	ID      string // of the NIC's back end, valid for QEMU
	Ifname  string // of the port's interface; empty: it has none
	MTU     int    // that its NIC should have; 0: that of an Ethernet, or its own
	Memory  string // size of the memory that the machine shares; empty: not requested
	Version Version
}

// Flags are the flags of one NIC.
type Flags struct {
	Backend []string // the arguments that come first: each flag, and what follows it
	Device  string   // options of the virtio-net device beside its back end and address
}

// Version is a version of QEMU; the zero one means unknown.
type Version struct{ Major, Minor int }

func (v Version) atLeast(major, minor int) bool {
	return cmp.Or(cmp.Compare(v.Major, major), cmp.Compare(v.Minor, minor)) >= 0
}

// ChardevReconnect returns the option that makes a chardev reconnect after a second:
// reconnect, which QEMU 10.2 no longer accepts, or reconnect-ms, which came with 9.2.
func (v Version) ChardevReconnect() string {
	if v.atLeast(9, 2) {
		return ",reconnect-ms=1000"
	}
	return ",reconnect=1"
}

// StreamReconnect is the same for a stream netdev, where reconnect came with 8.0. An unknown
// version may have neither.
func (v Version) StreamReconnect() string {
	switch {
	case v.atLeast(9, 2):
		return ",reconnect-ms=1000"
	case v.atLeast(8, 0):
		return ",reconnect=1"
	}
	return ""
}

var versionText = regexp.MustCompile(`^(\d{1,4})(?:\.(\d{1,4}))?(?:\.\d+)*(?:[ (~+-].*)?$`)

// ParseVersion reads a version such as 9.2 or 8.2.2.
func ParseVersion(s string) (Version, error) {
	m := versionText.FindStringSubmatch(s)
	if m == nil {
		return Version{}, fmt.Errorf("%q is not a version of QEMU; write it as 9.2", s)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2]) // "" is 0
	return Version{major, minor}, nil
}

// HasSocketNetdev returns an error if QEMU lacks a netdev that came with 7.2, stream or dgram. An
// unknown version has it.
func (v Version) HasSocketNetdev(netdev string) error {
	if v == (Version{}) || v.atLeast(7, 2) {
		return nil
	}
	return fmt.Errorf("QEMU %d.%d has no -netdev %s, which came with 7.2; take a newer QEMU, or add a port of the kind tap or vhost-user", v.Major, v.Minor, netdev)
}

var memoryText = regexp.MustCompile(`^\d{1,12}(?:\.\d{1,12})?[KMGTkmgt]?$`)

// ParseMemory reads a size of a machine's memory, such as 512M. Without a unit it is in MiB, as -m
// takes it; the result has a unit, because other flags would take such a size in bytes.
func ParseMemory(s string) (string, error) {
	if !memoryText.MatchString(s) || strings.Trim(s, "0.KMGTkmgt") == "" {
		return "", fmt.Errorf("%q is no size of a memory; write it as 512M or 4G", s)
	}
	if last := s[len(s)-1]; last >= '0' && last <= '9' {
		s += "M"
	}
	return s, nil
}

// Value escapes a value for use between commas.
func Value(text string) string { return strings.ReplaceAll(text, ",", ",,") }

// Line makes a line for the shell of arguments. One is quoted if it has a character that may be special there.
func Line(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		if words[i] = a; !plain.MatchString(a) {
			words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

var plain = regexp.MustCompile(`^[\w./:@%+,=-]+$`)

// ID makes an identifier from a port's name. QEMU requires a letter, then letters, digits,
// '-', '.' and '_' (id_wellformed in util/id.c).
func ID(name string) string {
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	id := strings.Map(func(r rune) rune {
		if letter(r) || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_' {
			return r
		}
		return '_'
	}, name)
	if id == "" || !letter(rune(id[0])) {
		id = "net" + id
	}
	return id
}

// etherMTU is the MTU of a guest's NIC unless it is told another.
const etherMTU = 1500

// MTU returns the option of a device that gives the guest's NIC its MTU; 0: its own.
func MTU(mtu int) string {
	if mtu == 0 || mtu == etherMTU {
		return ""
	}
	return fmt.Sprintf(",host_mtu=%d", mtu)
}

// Queues returns the options of a back end and a device for n queues: the device has an
// interrupt vector for each direction of each queue, and two more.
func Queues(n int) (backend, device string) {
	if n < 2 {
		return "", ""
	}
	return fmt.Sprintf(",queues=%d", n), fmt.Sprintf(",mq=on,vectors=%d", 2*n+2)
}
