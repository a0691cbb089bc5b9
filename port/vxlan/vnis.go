package vxlan

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vswitch/vswitch/port"
)

// maxVNI is the highest VXLAN network identifier; it has 24 bits (RFC 7348 section 5).
const maxVNI = 1<<24 - 1

// VNIs says which virtual networks a port carries: one alone, or one for each of its VLANs.
// The zero VNIs is none. It is never changed once it is read.
type VNIs struct {
	all    uint32 // the one alone; 0: by VLAN
	ranges []vniRange
}

// vniRange is a range of VLANs, the first of which is in the network vni, the next one in
// the network vni+1.
type vniRange struct {
	from, to uint16
	vni      uint32
}

// IsZero reports whether there is none.
func (v VNIs) IsZero() bool { return v.all == 0 && len(v.ranges) == 0 }

// UnmarshalText implements encoding.TextUnmarshaler. The text is a list such as
// 10=10010,20-29=10020-10029, or one number.
func (v *VNIs) UnmarshalText(b []byte) error {
	*v = VNIs{}
	text := string(b)
	if text == "" {
		return nil
	}
	if !strings.Contains(text, "=") {
		vni, err := parseVNI(text)
		*v = VNIs{all: vni}
		return err
	}
	var read VNIs
	for part := range strings.SplitSeq(text, ",") {
		r, err := parseRange(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		read.ranges = append(read.ranges, r)
	}
	slices.SortFunc(read.ranges, func(a, b vniRange) int { return int(a.from) - int(b.from) })
	if err := read.unique(); err != nil {
		return err
	}
	*v = read
	return nil
}

// errVNIs says how to write VNIs.
func errVNIs(text string) error {
	return fmt.Errorf("%q does not name virtual networks; write VLANs and their VNIs, as 10=10010,20-29=10020-10029, or one VNI from 1 to %d", text, maxVNI)
}

func parseVNI(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n < 1 || n > maxVNI {
		return 0, errVNIs(text)
	}
	return uint32(n), nil
}

func parseRange(text string) (r vniRange, err error) {
	vlans, vnis, _ := strings.Cut(text, "=")
	set, err := port.ParseVLANSet(vlans)
	first, last, isRange := strings.Cut(vnis, "-")
	if err != nil || strings.ContainsAny(vlans, ", a") {
		return r, errVNIs(text)
	}
	if r.vni, err = parseVNI(first); err != nil {
		return r, errVNIs(text)
	}
	end := r.vni
	if isRange {
		if end, err = parseVNI(last); err != nil {
			return r, errVNIs(text)
		}
	}
	for vid := range set.All() {
		if r.from == 0 {
			r.from = vid
		}
		r.to = vid
	}
	if int(r.to-r.from) != int(end)-int(r.vni) {
		return r, fmt.Errorf("%q has %d VLANs and %d VNIs; give as many of each", text, set.Len(), max(int(end)-int(r.vni)+1, 0))
	}
	return r, nil
}

// unique returns an error if a VLAN or a VNI appears twice in the sorted ranges.
func (v *VNIs) unique() error {
	byVNI := slices.Clone(v.ranges)
	slices.SortFunc(byVNI, func(a, b vniRange) int { return int(a.vni) - int(b.vni) })
	for i := range v.ranges[1:] {
		if a, b := v.ranges[i], v.ranges[i+1]; b.from <= a.to {
			return fmt.Errorf("VLAN %d is given two VNIs; give it one", b.from)
		}
		if a, b := byVNI[i], byVNI[i+1]; b.vni <= a.last() {
			return fmt.Errorf("VNI %d is given to two VLANs; each needs its own", b.vni)
		}
	}
	return nil
}

func (r vniRange) last() uint32 { return r.vni + uint32(r.to-r.from) }

func (r vniRange) String() string {
	if r.from == r.to {
		return fmt.Sprintf("%d=%d", r.from, r.vni)
	}
	return fmt.Sprintf("%d-%d=%d-%d", r.from, r.to, r.vni, r.last())
}

// MarshalText writes the networks in the form that UnmarshalText reads.
func (v VNIs) MarshalText() ([]byte, error) {
	if v.all != 0 {
		return strconv.AppendUint(nil, uint64(v.all), 10), nil
	}
	var all []string
	for _, r := range v.ranges {
		all = append(all, r.String())
	}
	return []byte(strings.Join(all, ",")), nil
}

// list returns each network, by VLAN; VLAN 0 is that of the one alone.
func (v VNIs) list() (all []port.VNI) {
	if v.all != 0 {
		return []port.VNI{{VNI: v.all}}
	}
	for _, r := range v.ranges {
		for vid := r.from; vid <= r.to; vid++ {
			all = append(all, port.VNI{VLAN: vid, VNI: r.vni + uint32(vid-r.from)})
		}
	}
	return all
}

// vlans returns the VLANs that have a network; none if one network carries all frames.
func (v VNIs) vlans() (set port.VLANSet) {
	for _, n := range v.list() {
		if n.VLAN != 0 {
			set.Add(n.VLAN)
		}
	}
	return set
}

// Peers are the addresses of other hosts.
type Peers []string

// ReadFlag implements setting.FlagReader.
func (p *Peers) ReadFlag(text string) error {
	*p = Peers{}
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		*p = append(*p, strings.TrimSpace(part))
	}
	return nil
}

// FlagText implements setting.FlagWriter.
func (Peers) FlagText(v any) string {
	list, _ := v.([]any)
	var all []string
	for _, a := range list {
		all = append(all, fmt.Sprint(a))
	}
	return strings.Join(all, ",")
}

// addrs returns the peers of a tunnel with the given address.
func (p Peers) addrs(local netip.Addr) (all []netip.Addr, err error) {
	for _, text := range p {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("peer %q is not an IP address; write it as 192.0.2.2 or 2001:db8::2", text)
		}
		if err := checkVTEP(a, local); err != nil {
			return nil, err
		}
		if a.IsLoopback() && !local.IsLoopback() {
			return nil, fmt.Errorf("peer %s is a loopback address, and so this host itself; name the other hosts", a)
		}
		if slices.Contains(all, a) {
			return nil, fmt.Errorf("peer %s is named twice", a)
		}
		all = append(all, a)
	}
	if len(all) > maxVTEPs {
		return nil, fmt.Errorf("%d peers are too many; a tunnel has at most %d", len(all), maxVTEPs)
	}
	return all, nil
}

// checkVTEP returns an error unless a can be the VTEP of another host, for a tunnel with
// the given address.
func checkVTEP(a, local netip.Addr) error {
	switch err := checkUnicast(a); {
	case err != nil:
		return err
	case a == local:
		return fmt.Errorf("VTEP %s is this host's own; name the other hosts", a)
	case a.Is4() != local.Is4():
		return fmt.Errorf("VTEP %s is not of the same IP version as this host's %s; use one version for all hosts", a, local)
	}
	return nil
}

// checkUnicast returns an error unless a can be an address of a host in an IP network.
func checkUnicast(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("a VTEP needs an address")
	case a.Is4In6():
		return fmt.Errorf("write %s as %s", a, a.Unmap())
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is no host's address; use a unicast address", a)
	case a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("%s is a link-local address, which is not unique; use another one of the host's", a)
	}
	return nil
}
