package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// maxPaths is MAX_PATHS of encap.h, and firstPath the first number of a path there.
const (
	maxPaths  = 1 << 15
	firstPath = 2
)

// Tunnel tells the programs of a vxlan or geneve device where its stations and hosts are. Their numbers
// for these, paths, outlive the process with the tables.
type Tunnel struct {
	p       *Path
	ifindex uint32
	local   netip.Addr

	// Path.mu guards these: see SetWays.
	header  port.Encapsulation
	udpPort uint16
	ways    map[netip.Addr]link.Way
}

// Paths are the paths of all tunnels. Path.mu guards them.
type paths struct {
	number map[bpfOrigin]uint16
	used   [maxPaths]bool
	last   uint16 // given last
	open   map[uint32]bool
}

// load reads the paths that an earlier process left.
func (s *paths) load(bpf *bpfMaps) error {
	s.number, s.open = make(map[bpfOrigin]uint16), make(map[uint32]bool)
	var o bpfOrigin
	var number uint32
	all := bpf.Origins.Iterate()
	for all.Next(&o, &number) {
		if number >= firstPath && number < maxPaths {
			s.number[o] = uint16(number)
			s.used[number] = true
		}
	}
	return all.Err()
}

// Tunnel returns that of a device, which has the local address.
func (p *Path) Tunnel(ifindex int, local netip.Addr) (*Tunnel, error) {
	t := &Tunnel{p: p, ifindex: uint32(ifindex), local: local}
	is := bpfTunnel{Local: words(local)}
	if local.Is6() {
		is.Ipv6 = 1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped() {
		return nil, errors.New("the fast path has stopped")
	}
	var was bpfTunnel
	if p.bpf.Tunnels.Lookup(t.ifindex, &was) == nil && (was.Local != is.Local || was.Ipv6 != is.Ipv6) {
		p.check("forgetting a tunnel", p.paths.forget(&p.bpf, t.ifindex)) // another device had the number
		p.bump()
	}
	if err := p.bpf.Tunnels.Put(t.ifindex, &is); err != nil {
		return nil, fmt.Errorf("tell the fast path of a tunnel: %w", err)
	}
	p.paths.open[t.ifindex] = true
	return t, nil
}

// stopped reports whether Stop was called.
func (p *Path) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// words returns an address as struct bpf_tunnel_key has it.
func words(a netip.Addr) (w [4]uint32) {
	if a.Is4() {
		b := a.As4()
		w[0] = binary.BigEndian.Uint32(b[:])
		return w
	}
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// address is the inverse of words.
func address(w [4]uint32, ipv6 bool) netip.Addr {
	if !ipv6 {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, w[0])))
	}
	var b [16]byte
	for i := range w {
		binary.NativeEndian.PutUint32(b[4*i:], w[i])
	}
	return netip.AddrFrom16(b)
}

func (t *Tunnel) origin(vtep netip.Addr, vni uint32) bpfOrigin {
	o := bpfOrigin{Ifindex: t.ifindex, Vni: vni}
	if vtep.IsValid() {
		o.Remote = words(vtep)
	}
	return o
}

// do makes a change unless the Path has stopped, or another process goes on.
func (t *Tunnel) do(change func(bpf *bpfMaps, s *paths) error) error {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	if t.p.stopped() || t.p.suspended {
		return nil
	}
	return change(&t.p.bpf, &t.p.paths)
}

// Join makes a host a member of a network, whose frames have a VLAN, or 0 where they keep
// their tags. It returns the number of the path. limit is as that of SetLimit.
func (t *Tunnel) Join(vtep netip.Addr, vni uint32, vlan uint16, limit int) (number uint16, err error) {
	err = t.do(func(bpf *bpfMaps, s *paths) error {
		o := t.origin(vtep, vni)
		is, known := s.number[o]
		if !known {
			if len(s.number) >= maxPaths-firstPath {
				return fmt.Errorf("the kernel has room for %d pairs of a host and a virtual network", maxPaths-firstPath)
			}
			is = s.last
			for is = max((is+1)%maxPaths, firstPath); s.used[is]; {
				is = max((is+1)%maxPaths, firstPath)
			}
		}
		p := bpfPath{Remote: o.Remote, Local: words(t.local), Ifindex: t.ifindex, Vni: vni, Vlan: vlan, Limit: clamp(limit)}
		if t.local.Is6() {
			p.Ipv6 = 1
		}
		t.lead(&p, t.ways[vtep])
		if err := bpf.Paths.Put(uint32(is), &p); err != nil {
			return err
		}
		if err := bpf.Origins.Put(&o, uint32(is)); err != nil {
			return err
		}
		number, s.number[o], s.used[is], s.last = is, is, true, is
		return nil
	})
	return number, err
}

func clamp(limit int) uint16 { return uint16(min(max(limit, 0), 0xffff)) }

// SetLimit sets the longest frame that fits through a path, in bytes; 0: unknown.
func (t *Tunnel) SetLimit(number uint16, limit int) {
	t.try("limiting a path", func(bpf *bpfMaps, _ *paths) error {
		var p bpfPath
		if err := bpf.Paths.Lookup(uint32(number), &p); err != nil || p.Ifindex != t.ifindex || p.Limit == clamp(limit) {
			return err
		}
		p.Limit = clamp(limit)
		return bpf.Paths.Put(uint32(number), &p)
	})
}

// Leave ends a path.
func (t *Tunnel) Leave(number uint16) {
	t.try("ending a path", func(bpf *bpfMaps, s *paths) error {
		err := s.end(bpf, number)
		t.p.bump()
		return err
	})
}

func (t *Tunnel) try(doing string, change func(*bpfMaps, *paths) error) {
	_ = t.do(func(bpf *bpfMaps, s *paths) error {
		t.p.check(doing, change(bpf, s))
		return nil
	})
}

// end removes a path. Whoever has its number next is not mistaken for it in another VLAN.
func (s *paths) end(bpf *bpfMaps, number uint16) error {
	var is bpfPath
	err := bpf.Paths.Lookup(uint32(number), &is)
	o := bpfOrigin{Remote: is.Remote, Ifindex: is.Ifindex, Vni: is.Vni}
	err = errors.Join(err, absent(bpf.Origins.Delete(&o)), bpf.Paths.Put(uint32(number), &bpfPath{}))
	delete(s.number, o)
	s.used[number] = false
	return err
}

// absent makes the error for a key that is not there none.
func absent(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// Know says whether a host takes part in any network, or whether there is a network: one
// of vtep and vni is given. Frames that are refused have their reason by it.
func (t *Tunnel) Know(vtep netip.Addr, vni uint32, is bool) {
	t.try("naming a host", func(bpf *bpfMaps, _ *paths) error {
		o := t.origin(vtep, vni)
		if !is {
			return absent(bpf.Origins.Delete(&o))
		}
		return bpf.Origins.Put(&o, uint32(0))
	})
}

func (t *Tunnel) key(k fdb.Key) bpfRemoteKey {
	return bpfRemoteKey{Station: uint64(k), Ifindex: t.ifindex}
}

// SetStation says by which path a station is reached, which was silent for that long;
// Commit puts it into force.
func (t *Tunnel) SetStation(k fdb.Key, number uint16, silent time.Duration) {
	t.try("entering a station", func(bpf *bpfMaps, _ *paths) error {
		at := t.key(k)
		return bpf.Remotes.Put(&at, &bpfRemote{Path: uint32(number), Heard: heardAt(silent)})
	})
}

// DeleteStation forgets where a station is; Commit puts that into force.
func (t *Tunnel) DeleteStation(k fdb.Key) {
	t.try("removing a station", func(bpf *bpfMaps, _ *paths) error {
		at := t.key(k)
		return absent(bpf.Remotes.Delete(&at))
	})
}

// Commit puts changes into force for flows that the kernel remembers, too.
func (t *Tunnel) Commit() {
	t.try("", func(*bpfMaps, *paths) error {
		t.p.bump()
		return nil
	})
}

// Stations calls f for each station, with the time for which it was silent.
func (t *Tunnel) Stations(f func(k fdb.Key, number uint16, silent time.Duration)) {
	type station struct {
		fdb.Key
		bpfRemote
	}
	var all []station
	t.try("reading stations", func(bpf *bpfMaps, _ *paths) (err error) {
		all, err = remotesOf(bpf, func(k bpfRemoteKey, r bpfRemote) (station, bool) {
			return station{fdb.Key(k.Station), r}, k.Ifindex == t.ifindex
		})
		return err
	})
	now := monotonic()
	for _, s := range all {
		f(s.Key, uint16(s.Path), since(now, s.Heard))
	}
}

// remotesOf returns what pick makes of the stations behind tunnels.
func remotesOf[T any](bpf *bpfMaps, pick func(bpfRemoteKey, bpfRemote) (T, bool)) (all []T, err error) {
	const batch = 4096
	keys, values := make([]bpfRemoteKey, batch), make([]bpfRemote, batch)
	var at ebpf.MapBatchCursor
	for {
		n, err := bpf.Remotes.BatchLookup(&at, keys, values, nil)
		for i := range n {
			if one, ok := pick(keys[i], values[i]); ok {
				all = append(all, one)
			}
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return all, nil
		case err != nil:
			return all, err
		}
	}
}

// Paths calls f for each path.
func (t *Tunnel) Paths(f func(number uint16, vtep netip.Addr, vni uint32)) {
	var all []bpfOrigin
	var numbers []uint16
	t.try("", func(_ *bpfMaps, s *paths) error {
		for o, number := range s.number {
			if o.Ifindex == t.ifindex {
				all, numbers = append(all, o), append(numbers, number)
			}
		}
		return nil
	})
	for i, o := range all {
		f(numbers[i], address(o.Remote, t.local.Is6()), o.Vni)
	}
}

// Refused returns the host whose frame was refused last because it takes no part in the
// frame's network, and how many frames of such hosts were.
func (t *Tunnel) Refused() (last netip.Addr, n uint64) {
	t.try("reading what was refused", func(bpf *bpfMaps, _ *paths) error {
		var is bpfTunnel
		if err := bpf.Tunnels.Lookup(t.ifindex, &is); err != nil {
			return absent(err)
		}
		last, n = address(is.Refused, t.local.Is6()), is.Refusals
		return nil
	})
	return last, n
}

// Attach puts the programs at the tunnel's device; see Path.Attach.
func (t *Tunnel) Attach(ifindex int) (io.Closer, error) {
	in, err := t.p.hook(ifindex, decapHook)
	if err != nil {
		return nil, err
	}
	out, err := t.p.hook(ifindex, encapHook)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return both{in, out}, nil
}

// both are the programs at the ingress and the egress of a device.
type both struct {
	*attachment
	out *attachment
}

func (b both) Close() error { return errors.Join(b.attachment.Close(), b.out.Close()) }

// Renew implements hoststack.Program.
func (b both) Renew() error { return errors.Join(b.attachment.Renew(), b.out.Renew()) }

// Detach removes the programs and all that is known of a tunnel.
func (t *Tunnel) Detach(ifindex int) error {
	err := t.p.Detach(ifindex)
	t.try("forgetting a tunnel", func(bpf *bpfMaps, s *paths) error {
		delete(s.open, t.ifindex)
		t.ways = nil
		err := errors.Join(t.p.under(t.ifindex, nil), s.forget(bpf, t.ifindex))
		t.p.bump()
		return err
	})
	return err
}

// forget removes all that is known of a tunnel.
func (s *paths) forget(bpf *bpfMaps, ifindex uint32) error {
	return s.keep(bpf, func(i uint32) bool { return i != ifindex })
}

// keep removes all that is known of other tunnels.
func (s *paths) keep(bpf *bpfMaps, wanted func(ifindex uint32) bool) error {
	errs := []error{forgetEnds(bpf, wanted)}
	for o, number := range s.number {
		if !wanted(o.Ifindex) {
			errs = append(errs, s.end(bpf, number))
		}
	}
	var o bpfOrigin
	var number uint32
	var stale []bpfOrigin
	all := bpf.Origins.Iterate()
	for all.Next(&o, &number) {
		if !wanted(o.Ifindex) {
			stale = append(stale, o)
		}
	}
	errs = append(errs, all.Err())
	for i := range stale {
		errs = append(errs, absent(bpf.Origins.Delete(&stale[i])))
	}
	gone, err := remotesOf(bpf, func(k bpfRemoteKey, _ bpfRemote) (bpfRemoteKey, bool) { return k, !wanted(k.Ifindex) })
	errs = append(errs, err)
	for i := range gone {
		errs = append(errs, absent(bpf.Remotes.Delete(&gone[i])))
	}
	var ifindex uint32
	var is bpfTunnel
	var old []uint32
	tunnels := bpf.Tunnels.Iterate()
	for tunnels.Next(&ifindex, &is) {
		if !wanted(ifindex) {
			old = append(old, ifindex)
		}
	}
	errs = append(errs, tunnels.Err())
	for _, ifindex := range slices.Compact(old) {
		errs = append(errs, absent(bpf.Tunnels.Delete(ifindex)))
	}
	return errors.Join(errs...)
}
