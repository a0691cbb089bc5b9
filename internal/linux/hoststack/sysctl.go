package hoststack

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// arpIgnoreAll: answer ARP for none of the host's addresses (ip-sysctl.rst, arp_ignore).
const arpIgnoreAll = "8"

// addrGenNone: the kernel generates no IPv6 address (ip-sysctl.rst, addr_gen_mode).
// Without an address it sends next to nothing if somebody enables IPv6 again.
const addrGenNone = "1"

// quiet are the settings of an interface that belongs to a switch.
var quiet = port.DeviceSettings{DisableIPv6: "1", ARPIgnore: arpIgnoreAll, AddrGenMode: addrGenNone}

func disableIPv6(ifname string) string {
	return "/proc/sys/net/ipv6/conf/" + ifname + "/disable_ipv6"
}

func addrGenMode(ifname string) string {
	return "/proc/sys/net/ipv6/conf/" + ifname + "/addr_gen_mode"
}

func arpIgnore(ifname string) string {
	return "/proc/sys/net/ipv4/conf/" + ifname + "/arp_ignore"
}

// Read returns the sysctls of an interface that Shut changes, and the addresses that are
// lost with that. A kernel without IPv6 has no disable_ipv6; the field is then empty.
func Read(ifname string) port.DeviceSettings {
	s := port.DeviceSettings{
		DisableIPv6: read(disableIPv6(ifname)),
		ARPIgnore:   read(arpIgnore(ifname)),
		AddrGenMode: read(addrGenMode(ifname)),
	}
	if s.DisableIPv6 != "1" { // else it has none, and listing the host's is slow
		s.StaticIPv6 = readIPv6(ifname)
	}
	return s
}

// Complete adds to before the settings that earlier versions neither changed nor recorded.
func Complete(before port.DeviceSettings, ifname string) port.DeviceSettings {
	if before.AddrGenMode == "" {
		before.AddrGenMode = read(addrGenMode(ifname))
	}
	return before
}

// Restore puts back what Read returned, if the interface still exists.
func Restore(ifname string, before port.DeviceSettings) error {
	if err := set(ifname, before, Read(ifname)); err != nil || before.StaticIPv6 == "" {
		return err
	}
	l, err := link.ByName(ifname)
	if errors.Is(err, link.ErrNotFound) {
		return nil
	}
	// The kernel lists the newest address first.
	for _, text := range slices.Backward(strings.Fields(before.StaticIPv6)) {
		var a netip.Prefix
		if err == nil {
			a, err = netip.ParsePrefix(text)
		}
		if err == nil {
			err = l.AddAddress(a)
		}
	}
	return err
}

// readIPv6 lists addresses in the form of port.DeviceSettings. An interface that is gone
// has none.
func readIPv6(ifname string) string {
	l, err := link.ByName(ifname)
	if err != nil {
		return ""
	}
	list, err := l.StaticIPv6()
	if err != nil {
		return ""
	}
	var texts []string
	for _, a := range list {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, " ")
}

// set changes the sysctls of want that differ from have and exist.
func set(ifname string, want, have port.DeviceSettings) error {
	// The directories of these names change all interfaces of the host.
	if ifname == "all" || ifname == "default" {
		return fmt.Errorf("an interface named %q cannot be told apart from the host's settings; rename it", ifname)
	}
	return cmp.Or(
		// This comes first: it decides which address an interface makes when it gets
		// IPv6 back.
		write(addrGenMode(ifname), want.AddrGenMode, have.AddrGenMode),
		write(disableIPv6(ifname), want.DisableIPv6, have.DisableIPv6),
		write(arpIgnore(ifname), want.ARPIgnore, have.ARPIgnore),
	)
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func write(path, want, have string) error {
	if want == "" || have == "" || want == have {
		return nil
	}
	err := os.WriteFile(path, []byte(want), 0)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s cannot be written here; mount /proc/sys writable, as in a privileged container", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s cannot be written; run vswitch as root or with CAP_NET_ADMIN", path)
	}
	return err
}
