package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	proto "github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// Settings are the guard's settings of a port.
type Settings struct {
	Guard     Mode     `json:"guard,omitempty" default:"off" help:"guard: check who the VM says it is: on; mac: Ethernet alone; off"`
	MACs      []string `json:"guard_mac,omitempty" arg:"MAC" default:"the one of qemu-args" help:"guard: MAC addresses that the VM may use"`
	Addresses []string `json:"guard_address,omitempty" arg:"ADDR[/LEN][@VLAN]" help:"guard: addresses that belong to the VM's first MAC"`
	Pairs     []string `json:"guard_pair,omitempty" arg:"MAC=ADDR" help:"guard: a further address with a MAC of its own; vrrp:ID=ADDR for one that virtual routers share"`
	Learn     Sources  `json:"guard_learn,omitempty" arg:"SOURCE" default:"dhcp,slaac" help:"guard: where the VM's addresses are learned from: dhcp, slaac, arp (the first it uses), pd (prefixes that DHCPv6 delegates), or none"`
	Allow     Roles    `json:"guard_allow,omitempty" arg:"ROLE" help:"guard: what the VM may be: dhcp-server, router, vrrp"`
	Types     []string `json:"guard_ethertypes,omitempty" arg:"TYPE" help:"guard: EtherTypes that the VM may send beside IPv4, ARP and IPv6, such as 0x88cc"`
	Prefixes  []string `json:"guard_prefix,omitempty" arg:"PREFIX" default:"those that routers advertise" help:"guard: prefixes in which the VM may form addresses"`
	Limit     int      `json:"guard_limit,omitempty" arg:"N" min:"1" max:"256" default:"4 leases of DHCP, 16 of DHCPv6, 32 formed addresses" help:"guard: maximum of learned addresses"`
	Action    Action   `json:"guard_action,omitempty" default:"drop" help:"guard: what becomes of a port whose VM sends what it may not: drop (those frames), shutdown"`
	Most      int      `json:"guard_violations,omitempty" arg:"N" min:"1" max:"1000000" default:"100" help:"guard: with --guard-action shutdown, how many such frames in a second are too many"`
	Unknown   bool     `json:"guard_unknown,omitempty" help:"guard: also send the VM frames to unknown stations; as --flood unknown"`
}

// SwitchSettings are the guard's settings of the switch.
type SwitchSettings struct {
	Protect []string `json:"guard_protect,omitempty" arg:"ADDR" help:"guard: addresses that no port learns, such as a router's"`
}

// Mode says how much the guard checks. Empty is off.
type Mode string

const (
	on  Mode = "on"
	mac Mode = "mac"
	off Mode = "off"
)

// Values implements setting.Enum.
func (Mode) Values() []string { return []string{string(on), string(mac), string(off)} }

// Action says what becomes of a port whose VM sends what it may not. Empty is drop.
type Action string

const (
	drop     Action = "drop"
	shutdown Action = "shutdown"

	// tooMany is how many frames in a second shut a port down, unless its settings say.
	tooMany = 100
)

// Values implements setting.Enum.
func (Action) Values() []string { return []string{string(drop), string(shutdown)} }

// Sources are where addresses are learned from.
type Sources []string

// Values implements setting.Enum.
func (Sources) Values() []string { return []string{"dhcp", "slaac", "arp", "pd", "none"} }

// Roles are what only trusted stations are.
type Roles []string

// Values implements setting.Enum.
func (Roles) Values() []string { return []string{"dhcp-server", "router", "vrrp"} }

var (
	sources = map[string]proto.Learn{"dhcp": proto.LearnDHCP, "slaac": proto.LearnSLAAC, "arp": proto.LearnARP, "pd": proto.LearnPD, "none": 0}
	roles   = map[string]proto.Allow{"dhcp-server": proto.AllowDHCPServer, "router": proto.AllowRouter, "vrrp": proto.AllowVRRP}
)

// on reports whether the port is guarded.
func (s *Settings) on() bool { return s.Guard == on || s.Guard == mac }

// Check implements port.Section.
func (s Settings) Check(spec *port.Spec) error {
	if _, err := s.config(0, port.VLANSet{}); err != nil {
		return err
	}
	if s.Most != 0 && s.Action != shutdown {
		return errors.New("--guard-violations says when --guard-action shutdown acts; give both or neither")
	}
	if s.on() && spec.QinQ != 0 {
		return errors.New("--guard does not go with --qinq: the tenant's own VLANs are inside its frames, where the guard cannot tell whose addresses they are; leave one of them out")
	}
	return nil
}

// check returns what only the port's own VLANs and MAC can decide.
func (s *Settings) check(c *proto.Config) error {
	if len(c.MACs) == 0 {
		return errors.New("--guard needs --guard-mac here: qemu-args gives such a port no MAC address")
	}
	for _, a := range c.Addresses {
		if a.VLAN != 0 && !c.VLANs.Has(a.VLAN) {
			return fmt.Errorf("--guard-address has VLAN %d, which the port does not carry", a.VLAN)
		}
	}
	for _, p := range c.Pairs {
		if p.VLAN != 0 && !c.VLANs.Has(p.VLAN) {
			return fmt.Errorf("--guard-pair has VLAN %d, which the port does not carry", p.VLAN)
		}
	}
	return nil
}

// config converts the settings. station is the MAC that qemu-args gives, 0 if none.
func (s *Settings) config(station port.MAC, vlans port.VLANSet) (c proto.Config, err error) {
	c = proto.Config{MACOnly: s.Guard == mac, VLANs: vlans, Limit: s.Limit, Learn: proto.LearnDHCP | proto.LearnSLAAC}
	for _, text := range s.MACs {
		m, err := port.ParseStation(text)
		if err != nil {
			return c, fmt.Errorf("--guard-mac: %w", err)
		}
		c.MACs = append(c.MACs, m)
	}
	if len(s.MACs) == 0 && station != 0 {
		c.MACs = []port.MAC{station}
	}
	for _, text := range s.Addresses {
		a, err := readAddress(text)
		if err != nil {
			return c, fmt.Errorf("--guard-address: %w", err)
		}
		c.Addresses = append(c.Addresses, a)
	}
	for _, text := range s.Pairs {
		pairs, err := readPair(text)
		if err != nil {
			return c, fmt.Errorf("--guard-pair: %w", err)
		}
		c.Pairs = append(c.Pairs, pairs)
	}
	if len(c.MACs)+len(c.Pairs) > maxMACs || len(c.Addresses)+len(c.Pairs) > maxStatic {
		return c, fmt.Errorf("a guarded port has at most %d MAC addresses and %d addresses; give a port with more no guard, or `--guard mac` with its MAC addresses", maxMACs, maxStatic)
	}
	if len(s.Learn) > 0 {
		c.Learn = 0
	}
	for _, name := range s.Learn {
		if name == "none" && len(s.Learn) > 1 {
			return c, errors.New("--guard-learn: none stands alone")
		}
		c.Learn |= sources[name]
	}
	for _, name := range s.Allow {
		c.Allow |= roles[name]
	}
	for _, text := range s.Types {
		n, err := strconv.ParseUint(text, 0, 16)
		if err != nil || n < 0x600 || n == uint64(port.TPIDCustomer) || n == uint64(port.TPIDService) || n == 0x9100 {
			return c, fmt.Errorf("--guard-ethertypes: %q is no EtherType that a guard can let pass; write one from 0x0600 to 0xffff that is no VLAN tag, such as 0x88cc", text)
		}
		c.EtherTypes = append(c.EtherTypes, uint16(n))
	}
	for _, text := range s.Prefixes {
		p, err := netip.ParsePrefix(text)
		if err != nil || !p.Addr().Is6() || p.Addr().Is4In6() || p.Bits() == 0 {
			return c, fmt.Errorf("--guard-prefix: %q is no IPv6 prefix; write one such as 2001:db8:1::/64", text)
		}
		c.Prefixes = append(c.Prefixes, p.Masked())
	}
	return c, nil
}

// Bounds of what one port may have.
const (
	maxMACs   = 64
	maxStatic = 256
)

// readAddress reads ADDR[/LEN][@VLAN]. With a length, an address whose host bits are 0 stands
// for the whole prefix.
func readAddress(text string) (a proto.Address, err error) {
	addr, vlan, tagged := strings.Cut(text, "@")
	if tagged {
		n, err := strconv.ParseUint(vlan, 10, 16)
		if err != nil || n == 0 || n > port.MaxVID {
			return a, fmt.Errorf("%q: a VLAN is a number from 1 to %d", text, port.MaxVID)
		}
		a.VLAN = uint16(n)
	}
	if strings.Contains(addr, "/") {
		p, err := netip.ParsePrefix(addr)
		if err != nil {
			return a, fmt.Errorf("%q is no address; write one such as 192.0.2.10, 2001:db8::10 or 192.0.2.0/28", text)
		}
		if p.Bits() == 0 {
			return a, fmt.Errorf("%q would allow every address", text)
		}
		if p != p.Masked() {
			p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		}
		a.Prefix = p
	} else {
		ip, err := netip.ParseAddr(addr)
		if err != nil || ip.Zone() != "" {
			return a, fmt.Errorf("%q is no address; write one such as 192.0.2.10, 2001:db8::10 or 192.0.2.0/28", text)
		}
		a.Prefix = netip.PrefixFrom(ip, ip.BitLen())
	}
	ip := a.Addr()
	if ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip.Is4In6() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return a, fmt.Errorf("%q is no address of a station", text)
	}
	return a, nil
}

// readPair reads MAC=ADDR or vrrp:ID=ADDR.
func readPair(text string) (p proto.Pair, err error) {
	owner, addr, ok := strings.Cut(text, "=")
	if !ok {
		return p, fmt.Errorf("%q is no pair; write 00:11:22:33:44:55=192.0.2.10, or vrrp:10=192.0.2.10", text)
	}
	if p.Address, err = readAddress(addr); err != nil {
		return p, err
	}
	id, isVRRP := strings.CutPrefix(owner, "vrrp:")
	if !isVRRP {
		p.MAC, err = port.ParseStation(owner)
		return p, err
	}
	n, err := strconv.ParseUint(id, 10, 8)
	if err != nil || n == 0 {
		return p, fmt.Errorf("%q: a virtual router has a number from 1 to 255", text)
	}
	// RFC 9568 section 7.3.
	p.VRRP, p.MAC = true, 0x0000_5e00_0100|port.MAC(n)
	if p.Addr().Is6() {
		p.MAC += 0x100
	}
	return p, nil
}

// Check returns what is wrong with the settings.
func (s SwitchSettings) Check() error {
	_, err := s.config()
	return err
}

// config converts the settings of the switch.
func (s *SwitchSettings) config() (all []netip.Prefix, err error) {
	for _, text := range s.Protect {
		a, err := readAddress(text)
		if err != nil || a.VLAN != 0 {
			return nil, fmt.Errorf("--guard-protect: %q is no address; write one such as 192.0.2.1 or 2001:db8::/64", text)
		}
		all = append(all, a.Prefix)
	}
	return slices.Clip(all), nil
}
