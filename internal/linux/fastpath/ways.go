package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	cilium "github.com/cilium/ebpf/link"

	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// under is the suffix of links at the devices by which hosts are reached, which may be ports as well.
const under = "-under"

var unwrapHook = hook{"vswitch_unwrap", ebpf.AttachTCXIngress, under}

// underlay is the program at a device by which hosts are reached.
type underlay struct {
	cilium.Link
	users map[uint32]bool // tunnels by ifindex
}

// The values of enum detour in wrap.h.
const (
	filtered  = 1
	encrypted = 2
)

// SetWays says how hosts are reached of which that is known, with IPv4 addresses. Programs at those
// devices then exchange small frames with them, as long as it is said at least every half a minute; frames to and from others go by the
// tunnel's device. It reports whether that is in force: it is not before Start.
func (t *Tunnel) SetWays(e port.Encapsulation, udpPort uint16, all map[netip.Addr]link.Way) (done bool) {
	if !t.p.live.Load() {
		return false
	}
	if len(all) > 0 {
		_, _ = t.p.programs.get(unwrapHook.program) // now: others need mu, and the kernel may take its time
	}
	t.try("setting the ways of a tunnel", func(bpf *bpfMaps, s *paths) error {
		done = true
		all = maps.Clone(all)
		err := t.p.under(t.ifindex, all)
		if !maps.Equal(t.ways, all) || t.udpPort != udpPort {
			before := t.ways
			t.ways, t.header, t.udpPort = all, e, udpPort
			for o, number := range s.number {
				if vtep := address(o.Remote, false); o.Ifindex == t.ifindex && before[vtep] != all[vtep] {
					err = errors.Join(err, t.setWay(bpf, number, all[vtep]))
				}
			}
			t.p.bump()
		}
		if len(all) > 0 {
			err = errors.Join(err, bpf.Ends.Put(t.end(), t.ifindex))
		}
		return errors.Join(err, beat(bpf))
	})
	return done
}

// end is the key of the tunnel's end here.
func (t *Tunnel) end() *bpfEnd { return &bpfEnd{Local: wire(t.local), Port: wirePort(t.udpPort)} }

// wire returns an IPv4 address in network byte order.
func wire(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func wirePort(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// setWay writes the way of one path.
func (t *Tunnel) setWay(bpf *bpfMaps, number uint16, w link.Way) error {
	var p bpfPath
	if err := bpf.Paths.Lookup(uint32(number), &p); err != nil || p.Ifindex != t.ifindex {
		return err
	}
	t.lead(&p, w)
	return bpf.Paths.Put(uint32(number), &p)
}

// headers are the first four bytes of the tunnel headers: VXLAN_HEADER and GENEVE_HEADER in wrap.h.
var headers = map[port.Encapsulation]uint32{port.VXLAN: wireHeader(0x0800_0000), port.Geneve: wireHeader(0x6558)}

func wireHeader(h uint32) uint32 {
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, h))
}

// lead sets the way of a path.
func (t *Tunnel) lead(p *bpfPath, w link.Way) {
	p.Way, p.Via, p.Port, p.Header = uint32(w.Ifindex), 0, wirePort(t.udpPort), headers[t.header]
	if w.Ifindex != 0 {
		p.Via = wire(w.Via)
	}
}

// Detour returns why the last frame that could have gone by the ways of SetWays did not; empty if it did.
func (t *Tunnel) Detour() (why string) {
	t.try("reading the ways of tunnels", func(bpf *bpfMaps, _ *paths) error {
		var s bpfShortcut
		err := bpf.Ways.Lookup(uint32(0), &s)
		switch s.Detour {
		case filtered:
			why = "netfilter has rules for the host's packets"
		case encrypted:
			why = "the host has IPsec policies"
		}
		return err
	})
	return why
}

// beat confirms all ways.
func beat(bpf *bpfMaps) error {
	var s bpfShortcut
	if err := bpf.Ways.Lookup(uint32(0), &s); err != nil {
		return err
	}
	s.Beat = heardAt(0)
	s.FirstPort, s.Ports = sourcePorts()
	return bpf.Ways.Put(uint32(0), &s)
}

// sourcePorts returns the first UDP port from which the kernel's tunnels send, and how many there are.
func sourcePorts() (first, n uint16) {
	var from, to uint16
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if _, err := fmt.Sscan(string(b), &from, &to); err == nil && from < to {
			return from, to - from
		}
	}
	return 32768, 60999 - 32768 // the kernel's own default
}

// under attaches the program to the devices of a tunnel's ways, and detaches it from those that no tunnel
// needs any more. It removes ways by a device without the program. The caller holds mu.
func (p *Path) under(tunnel uint32, all map[netip.Addr]link.Way) error {
	var errs []error
	wanted, failed := make(map[int]bool), make(map[int]bool)
	for _, w := range all {
		wanted[w.Ifindex] = true
	}
	for ifindex := range wanted {
		if err := p.underlay(ifindex, tunnel); err != nil {
			errs = append(errs, err)
			failed[ifindex] = true
		}
	}
	maps.DeleteFunc(all, func(_ netip.Addr, w link.Way) bool { return failed[w.Ifindex] })
	for ifindex, u := range p.underlays {
		if !wanted[ifindex] {
			delete(u.users, tunnel)
		}
		if len(u.users) == 0 {
			errs = append(errs, p.uncover(ifindex))
		}
	}
	return errors.Join(errs...)
}

// underlay has the program at a device, for a tunnel.
func (p *Path) underlay(ifindex int, tunnel uint32) error {
	u := p.underlays[ifindex]
	var is uint32
	if u != nil && p.bpf.Underlays.Lookup(uint32(ifindex), &is) == nil && isThere(u, ifindex) {
		p.pinAgain(u.Link, ifindex, under)
		u.users[tunnel] = true
		return nil
	}
	// It is new, or another device that has the number now, or somebody detached the program.
	users := map[uint32]bool{tunnel: true}
	if u != nil {
		users = u.users
		users[tunnel] = true
		_ = p.uncover(ifindex)
	}
	l, err := p.link(ifindex, unwrapHook)
	if err != nil {
		return err
	}
	p.underlays[ifindex] = &underlay{l, users}
	return p.bpf.Underlays.Put(uint32(ifindex), uint32(ifindex))
}

// isThere reports whether an underlay's program is at the device, as far as the kernel says.
func isThere(u *underlay, ifindex int) bool {
	is, err := hoststack.IsAt(u.Link, ifindex)
	return is || err != nil
}

// uncover detaches the program from a device, which may be gone.
func (p *Path) uncover(ifindex int) error {
	u := p.underlays[ifindex]
	delete(p.underlays, ifindex)
	_ = u.Detach()
	err := u.Close()
	if p.pins != nil {
		err = errors.Join(err, p.pins.dropLink(ifindex, under))
	}
	return errors.Join(err, absent(p.bpf.Underlays.Delete(uint32(ifindex))))
}

// forgetUnderlays removes what earlier processes left about devices that no tunnel needs.
func (p *Path) forgetUnderlays() error {
	var errs []error
	var ifindex, is uint32
	var old []uint32
	all := p.bpf.Underlays.Iterate()
	for all.Next(&ifindex, &is) {
		if p.underlays[int(ifindex)] == nil {
			old = append(old, ifindex)
		}
	}
	errs = append(errs, all.Err())
	for _, ifindex := range old {
		errs = append(errs, absent(p.bpf.Underlays.Delete(ifindex)))
	}
	return errors.Join(errs...)
}

// forgetEnds removes the ends of tunnels.
func forgetEnds(bpf *bpfMaps, wanted func(ifindex uint32) bool) error {
	var e bpfEnd
	var ifindex uint32
	var old []bpfEnd
	all := bpf.Ends.Iterate()
	for all.Next(&e, &ifindex) {
		if !wanted(ifindex) {
			old = append(old, e)
		}
	}
	err := all.Err()
	for i := range old {
		err = errors.Join(err, absent(bpf.Ends.Delete(&old[i])))
	}
	return err
}
