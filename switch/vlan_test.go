package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// vlanOracle says by the words of the standard what a port makes of a frame.
type vlanOracle struct{ port.VLAN }

func (o vlanOracle) tpid() uint16 {
	switch {
	case o.Transparent():
		return 0
	case o.TrunkTPID != 0:
		return uint16(o.TrunkTPID)
	}
	return 0x8100
}

// native is the VLAN that leaves without a tag.
func (o vlanOracle) native() uint16 {
	switch {
	case o.Access != 0:
		return o.Access
	case o.QinQ != 0:
		return o.QinQ
	case o.Trunk.Len() > 0:
		return o.Native
	}
	return 1
}

func (o vlanOracle) carries(vid uint16) bool {
	return vid != 0 && vid == o.native() || o.Trunk.Has(vid)
}

// in returns the VLAN of a frame on the wire, its priority bits, and what the VLAN
// carries: the frame without the tag that named it. vid 0: refused.
func (o vlanOracle) in(wire []byte) (vid, pcp uint16, inner []byte) {
	vid, inner = o.native(), wire
	tagged := false
	tpid := binary.BigEndian.Uint16(wire[12:])
	tci := binary.BigEndian.Uint16(wire[14:])
	if tpid == 0x8100 || tpid == 0x88a8 {
		pcp = tci & 0xf000 // a customer's priority goes into the service tag too
	}
	if tpid == o.tpid() {
		inner = slices.Concat(wire[:12], wire[16:])
		if tci&0xfff != 0 {
			vid, tagged = tci&0xfff, true
		}
	}
	switch {
	case tagged && o.Access != 0 && o.Accept == "",
		tagged && o.Accept == port.AcceptUntagged,
		!tagged && o.Accept == port.AcceptTagged,
		!o.carries(vid):
		return 0, 0, nil
	}
	return vid, pcp, inner
}

// out returns the frame as it leaves, nil where it must not.
func (o vlanOracle) out(vid, pcp uint16, inner []byte) []byte {
	if !o.carries(vid) {
		return nil
	}
	if vid != o.native() {
		tag := uint32(o.tpid())<<16 | uint32(pcp|vid)
		return slices.Concat(inner[:12], binary.BigEndian.AppendUint32(nil, tag), inner[12:])
	}
	if o.tpid() != 0 && binary.BigEndian.Uint16(inner[12:]) == o.tpid() {
		return nil // the receiver would take what it carries for its VLAN
	}
	return inner
}

func drawVLAN(t *rapid.T) port.VLAN {
	vids := []uint16{1, 10, 20, 4094}
	vid := rapid.SampledFrom(vids)
	v := port.VLAN{Accept: rapid.SampledFrom([]port.Accept{"", port.AcceptAll, port.AcceptUntagged}).Draw(t, "accept")}
	switch rapid.SampledFrom([]string{"none", "access", "qinq", "trunk"}).Draw(t, "mode") {
	case "access":
		v.Access = vid.Draw(t, "access")
	case "qinq":
		v.QinQ = vid.Draw(t, "qinq")
	case "trunk":
		for _, vid := range rapid.SliceOfN(vid, 1, len(vids)).Draw(t, "trunk") {
			v.Trunk.Add(vid)
		}
		v.Native = rapid.SampledFrom(append(vids, 0)).Draw(t, "native")
		v.TrunkTPID = rapid.SampledFrom([]port.TPID{0, port.TPID(port.TPIDCustomer), port.TPID(port.TPIDService)}).Draw(t, "TPID")
		accepts := []port.Accept{"", port.AcceptAll, port.AcceptTagged}
		if v.Native != 0 {
			accepts = append(accepts, port.AcceptUntagged)
		}
		v.Accept = rapid.SampledFrom(accepts).Draw(t, "accept of a trunk")
	}
	return v
}

// TestVLANsAgainstOracle: under any configuration of ports a frame leaves by just
// the ports that carry its VLAN, with just the tag it must have there, whatever else is in
// its batch.
func TestVLANsAgainstOracle(t *testing.T) {
	const ports = 4
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) {
			r := newRig(t, vswitch.Config{}, ports, memory.Options{})
			defer r.Close()
			oracle := make([]vlanOracle, ports)
			learned := map[fdb.Key]int{}
			configure := func(t *rapid.T, p int) {
				v := drawVLAN(t)
				if err := r.ports[p].Configure(vswitch.PortConfig{VLAN: v}); err != nil {
					t.Fatal(err)
				}
				oracle[p] = vlanOracle{v}
				for k, at := range learned {
					if at == p && !oracle[p].carries(k.VLAN()) {
						delete(learned, k)
					}
				}
			}
			for p := range ports {
				configure(t, p)
			}
			tag := rapid.Custom(func(t *rapid.T) []byte {
				tpid := rapid.SampledFrom([]uint16{0x8100, 0x88a8}).Draw(t, "tpid")
				vid := rapid.SampledFrom([]uint16{0, 1, 10, 20, 30, 4094, 4095}).Draw(t, "vid")
				tci := rapid.SampledFrom([]uint16{0, 0xe000, 0x1000}).Draw(t, "priority") | vid
				return binary.BigEndian.AppendUint32(nil, uint32(tpid)<<16|uint32(tci))
			})
			t.Repeat(map[string]func(*rapid.T){
				"configure": func(t *rapid.T) { configure(t, rapid.IntRange(0, ports-1).Draw(t, "port")) },
				"batch": func(t *rapid.T) {
					in := rapid.IntRange(0, ports-1).Draw(t, "in")
					var batch []memory.Packet
					var want [ports][][]byte
					for range rapid.IntRange(1, 8).Draw(t, "frames") {
						src, dst := station(rapid.IntRange(0, 2).Draw(t, "src")), station(rapid.IntRange(0, 2).Draw(t, "dst"))
						if rapid.IntRange(0, 3).Draw(t, "cast") == 0 {
							dst = port.Broadcast
						}
						wire := frame(dst, src, uint32(len(batch)), 60)
						for range rapid.IntRange(0, 3).Draw(t, "tags") {
							wire = slices.Concat(wire[:12], tag.Draw(t, "tag"), wire[12:])
						}
						batch = append(batch, memory.Packet{Wire: wire})
						vid, pcp, inner := oracle[in].in(wire)
						if vid == 0 {
							continue
						}
						learned[fdb.MakeKey(vid, uint64(src))] = in
						only, known := learned[fdb.MakeKey(vid, uint64(dst))]
						for p := range ports {
							if p == in || known && only != p {
								continue
							}
							if out := oracle[p].out(vid, pcp, inner); out != nil {
								want[p] = append(want[p], out)
							}
						}
					}
					r.lines[in].Put(0, batch...)
					synctest.Wait()
					for p := range ports {
						if got := r.taken(p); !slices.EqualFunc(got, want[p], bytes.Equal) {
							t.Fatalf("%x from port %d %+v: port %d %+v sent %x, want %x", batch, in, oracle[in].VLAN, p, oracle[p].VLAN, got, want[p])
						}
					}
				},
			})
		})
	})
}

// TestVLANDrops: each way to be refused has its name.
func TestVLANDrops(t *testing.T) {
	var ten port.VLANSet
	ten.Add(10)
	for _, c := range []struct {
		name string
		vlan port.VLAN
		tag  uint32
		want port.Drop
	}{
		{"tagged on access", port.VLAN{Access: 10}, 0x8100_000a, port.DropVLANTagged},
		{"priority tag on access", port.VLAN{Access: 10}, 0x8100_a000, port.DropNone},
		{"foreign tag on access", port.VLAN{Access: 10}, 0x88a8_000a, port.DropNone},
		{"untagged on trunk without native", port.VLAN{Trunk: ten}, 0, port.DropVLANUntagged},
		{"priority tag on trunk without native", port.VLAN{Trunk: ten}, 0x8100_e000, port.DropVLANUntagged},
		{"untagged on tagged-only trunk", port.VLAN{Trunk: ten, Native: 10, Accept: port.AcceptTagged}, 0, port.DropVLANUntagged},
		{"tagged on access that takes all", port.VLAN{Access: 10, Accept: port.AcceptAll}, 0x8100_000a, port.DropNone},
		{"tagged with another VLAN on such", port.VLAN{Access: 10, Accept: port.AcceptAll}, 0x8100_000b, port.DropVLANFiltered},
		{"tagged on untagged-only trunk", port.VLAN{Trunk: ten, Native: 1, Accept: port.AcceptUntagged}, 0x8100_000a, port.DropVLANTagged},
		{"VLAN not carried", port.VLAN{Trunk: ten}, 0x8100_000b, port.DropVLANFiltered},
		{"VLAN carried", port.VLAN{Trunk: ten}, 0x8100_000a, port.DropNone},
		{"VID 4095", port.VLAN{Trunk: port.AllVLANs}, 0x8100_0fff, port.DropVLANFiltered},
		{"any tag on transparent", port.VLAN{}, 0x8100_0fff, port.DropNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, vswitch.Config{}, 2, memory.Options{})
				defer r.Close()
				if err := r.ports[0].Configure(vswitch.PortConfig{VLAN: c.vlan}); err != nil {
					t.Fatal(err)
				}
				if err := r.ports[1].Configure(vswitch.PortConfig{VLAN: port.VLAN{Trunk: port.AllVLANs, Native: 1, TrunkTPID: port.TPID(port.TPIDService)}}); err != nil {
					t.Fatal(err)
				}
				wire := frame(port.Broadcast, station(0), 0, 60)
				if c.tag != 0 {
					wire = slices.Concat(wire[:12], binary.BigEndian.AppendUint32(nil, c.tag), wire[12:])
				}
				r.lines[0].Put(0, memory.Packet{Wire: wire})
				synctest.Wait()
				st := r.ports[0].Stats()
				got := port.DropNone
				for why, n := range st.RX.Dropped {
					if n != 0 {
						got = port.Drop(why)
					}
				}
				if got != c.want {
					t.Errorf("dropped as %v, want %v", got, c.want)
				}
			})
		})
	}
}

// TestTunnel: what a customer sends through two QinQ ports arrives as it was sent,
// and stands under a service tag between them (802.1Q-2018 clause 15).
func TestTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 3, memory.Options{})
		defer r.Close()
		var carried port.VLANSet
		carried.Add(300)
		for p, v := range []port.VLAN{{QinQ: 300}, {Trunk: carried, TrunkTPID: port.TPID(port.TPIDService)}, {QinQ: 300}} {
			if err := r.ports[p].Configure(vswitch.PortConfig{VLAN: v}); err != nil {
				t.Fatal(err)
			}
		}
		plain := frame(port.Broadcast, station(0), 7, 60)
		for _, tag := range []uint32{0, 0x8100_000a, 0x8100_0000, 0x8100_0fff} {
			wire := plain
			if tag != 0 {
				wire = slices.Concat(plain[:12], binary.BigEndian.AppendUint32(nil, tag), plain[12:])
			}
			r.lines[0].Put(0, memory.Packet{Wire: wire})
			synctest.Wait()
			if got := r.taken(2); len(got) != 1 || !bytes.Equal(got[0], wire) {
				t.Errorf("tag %#x: the other customer port sent %x", tag, got)
			}
			want := slices.Concat(wire[:12], binary.BigEndian.AppendUint32(nil, 0x88a8_012c|tag&0xf000), wire[12:])
			got := r.taken(1)
			if len(got) != 1 || !bytes.Equal(got[0], want) {
				t.Fatalf("tag %#x: the trunk sent %x, want %x", tag, got, want)
			}
			r.lines[1].Put(0, memory.Packet{Wire: got[0]})
			synctest.Wait()
			if back := r.taken(0); len(back) != 1 || !bytes.Equal(back[0], wire) {
				t.Errorf("tag %#x: came back as %x", tag, back)
			}
			r.taken(2)
		}
	})
}

// A port that knows no tags takes what stands behind one, even the type 0, which is no TPID.
func TestNoHopWithoutTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		if err := r.ports[0].Configure(trunk(1, 1)); err != nil {
			t.Fatal(err)
		}
		wire := withType(port.Broadcast, station(0), 0, make([]byte, 46)...)
		r.lines[0].Put(0, memory.Packet{Wire: slices.Concat(wire[:12], []byte{0x81, 0, 0, 1}, wire[12:])})
		synctest.Wait()
		if got := r.taken(1); len(got) != 1 || !bytes.Equal(got[0], wire) {
			t.Errorf("sent %x, want %x", got, wire)
		}
	})
}

// TestManyVLANs: a trunk of all VLANs learns in each on its own.
func TestManyVLANs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 3, memory.Options{Depth: 8192})
		defer r.Close()
		trunk := vswitch.PortConfig{VLAN: port.VLAN{Trunk: port.AllVLANs}}
		for _, p := range r.ports {
			if err := p.Configure(trunk); err != nil {
				t.Fatal(err)
			}
		}
		tagged := func(dst, src port.MAC, vid int) memory.Packet {
			b := frame(dst, src, 0, 60)
			return memory.Packet{Wire: slices.Concat(b[:12], binary.BigEndian.AppendUint32(nil, 0x8100_0000|uint32(vid)), b[12:])}
		}
		// In odd VLANs the station is behind port 1, in even ones behind 2.
		// One port after the other: two that learn at once may put it off.
		for first := 1; first <= 2; first++ {
			for vid := first; vid <= port.MaxVID; vid += 2 {
				r.lines[first].Put(0, tagged(port.Broadcast, station(9), vid))
			}
			synctest.Wait()
		}
		for p := range r.lines {
			r.taken(p)
		}
		for vid := 1; vid <= port.MaxVID; vid++ {
			r.lines[0].Put(0, tagged(station(9), station(0), vid))
		}
		synctest.Wait()
		if one, two := len(r.taken(1)), len(r.taken(2)); one != port.MaxVID/2 || two != port.MaxVID/2 {
			t.Errorf("%d and %d frames arrived, want %d each", one, two, port.MaxVID/2)
		}
	})
}

func TestBadVLANs(t *testing.T) {
	r := newRig(t, vswitch.Config{}, 1, memory.Options{})
	defer r.Close()
	for _, v := range []port.VLAN{{QinQ: 4095}, {Native: 5}, {Access: 5000}, {Access: 1, QinQ: 2}, {Accept: port.AcceptTagged}} {
		if err := r.ports[0].Configure(vswitch.PortConfig{VLAN: v}); err == nil {
			t.Errorf("%+v is taken", v)
		}
	}
	if got := r.ports[0].Config(); fmt.Sprint(got) != fmt.Sprint(vswitch.PortConfig{}) {
		t.Errorf("a refused setting is kept: %+v", got)
	}
}
