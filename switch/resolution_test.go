package vswitch_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// withType returns a frame with an EtherType and a body.
func withType(dst, src port.MAC, etherType uint16, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(append(dst.HardwareAddr(), src.HardwareAddr()...), etherType)
	return append(append(b, body...), make([]byte, 60)...)
}

// icmpv6 returns an ICMPv6 message of a type.
func icmpv6(dst, src port.MAC, kind, next, hops byte) []byte {
	return withType(dst, src, 0x86dd, append([]byte{0x60, 0, 0, 0, 0, 24, next, hops}, append(make([]byte, 32), kind)...)...)
}

// Address resolution goes to its queue where that is asked for; of what one station sends to
// another, a copy.
func TestResolution(t *testing.T) {
	const own, group, mdns = port.MAC(0x0200_0000_ffff), port.MAC(0x3333_ff00_0001), port.MAC(0x3333_0000_00fb)
	synctest.Test(t, func(t *testing.T) {
		var heard []vswitch.ControlFrame
		r := newRig(t, vswitch.Config{OnControl: func(c vswitch.ControlFrame) {
			c.Data = slices.Clone(c.Data)
			heard = append(heard, c)
		}}, 3, memory.Options{})
		defer r.Close()
		if err := r.FDB().Add(fdb.MakeKey(1, uint64(own)), 0, fdb.Local); err != nil {
			t.Fatal(err)
		}
		r.pass(1, frame(port.Broadcast, station(1), 0, 60))
		from := station(0)
		taken := [][]byte{
			withType(port.Broadcast, from, 0x0806), withType(own, from, 0x0806),
			icmpv6(group, from, 135, 58, 255), icmpv6(group, from, 136, 58, 255), icmpv6(own, from, 136, 58, 255),
		}
		passed := map[string][]byte{
			"ARP to a station":              withType(station(1), from, 0x0806),
			"an advertisement to a station": icmpv6(station(1), from, 136, 58, 255),
		}
		flooded := map[string][]byte{
			"IPv4 to all":              withType(port.Broadcast, from, 0x0800),
			"a router advertisement":   icmpv6(group, from, 134, 58, 255),
			"a solicitation from afar": icmpv6(group, from, 135, 58, 254),
			"UDP":                      icmpv6(mdns, from, 135, 17, 255),
			"a short frame":            withType(group, from, 0x86dd)[:50],
		}
		for what, b := range flooded {
			if got := r.pass(0, b); !slices.Equal(got, []int{0, 1, 1}) || len(heard) != 0 {
				t.Errorf("%s: copies %v, %d heard", what, got, len(heard))
			}
		}
		wantPass(t, r, 0, taken[0], 0, 1, 1)

		r.ports[0].SetResolution(true)
		for i, b := range taken {
			wantPass(t, r, 0, b, 0, 0, 0)
			if len(heard) != i+1 || heard[i].Queue != vswitch.QueueResolution || heard[i].Port != r.ports[0] || heard[i].VLAN != 1 || !slices.Equal(heard[i].Data, b) {
				t.Fatalf("frame %d: %+v", i, heard)
			}
		}
		for what, b := range flooded {
			if got := r.pass(0, b); !slices.Equal(got, []int{0, 1, 1}) || len(heard) != len(taken) {
				t.Errorf("%s: copies %v, %d heard", what, got, len(heard))
			}
		}
		for what, b := range passed {
			before := len(heard)
			if got := r.pass(0, b); !slices.Equal(got, []int{0, 1, 0}) || len(heard) != before+1 || !slices.Equal(heard[before].Data, b) {
				t.Errorf("%s: copies %v, %d heard", what, got, len(heard)-before)
			}
		}
		wantPass(t, r, 0, withType(station(1), from, 0x0800), 0, 1, 0)
		// The switch's own address gets nothing else, and by other ports nothing.
		wantPass(t, r, 0, withType(own, from, 0x0800), 0, 0, 0)
		wantPass(t, r, 1, withType(own, station(1), 0x0806), 0, 0, 0)
		if len(heard) != len(taken)+len(passed) {
			t.Errorf("%d heard", len(heard))
		}
		// Who takes it floods it; other ports are not concerned.
		r.Flood(heard[0])
		synctest.Wait()
		if n := []int{len(r.taken(0)), len(r.taken(1)), len(r.taken(2))}; !slices.Equal(n, []int{0, 1, 1}) {
			t.Errorf("flooded to %v", n)
		}
		wantPass(t, r, 1, withType(port.Broadcast, station(1), 0x0806), 1, 0, 1)
		r.ports[0].SetResolution(false)
		wantPass(t, r, 0, taken[0], 0, 1, 1)
	})
}

// seen is an observer.
type seen struct {
	changed []fdb.Key
	flushed []uint16
}

func (s *seen) Changed(k fdb.Key)     { s.changed = append(s.changed, k) }
func (s *seen) Flushed(number uint16) { s.flushed = append(s.flushed, number) }

// An observer hears of changes from when it comes until it goes, beside the one of the FDB.
func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &seen{}
		r := newRig(t, vswitch.Config{FDB: fdb.Config{Observer: first}}, 2, memory.Options{})
		defer r.Close()
		a, b := &seen{}, &seen{}
		stop := r.Observe(a)
		defer r.Observe(b)()
		r.pass(0, frame(port.Broadcast, station(0), 0, 60))
		r.FDB().FlushPort(r.ports[0].Number())
		stop()
		r.pass(1, frame(port.Broadcast, station(1), 0, 60))
		k := fdb.MakeKey(1, uint64(station(0)))
		if !slices.Equal(a.changed, []fdb.Key{k}) || len(a.flushed) != 1 {
			t.Errorf("%+v", a)
		}
		if len(first.changed) != 2 || len(b.changed) != 2 || len(first.flushed) != 1 {
			t.Errorf("%+v, %+v", first, b)
		}
	})
}
