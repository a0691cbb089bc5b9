package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/ethernet"
	"pgregory.net/rapid"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// oracle is the switch as the standard describes it, slow and plain: one frame at
// a time, an independent decoder, and maps.
type oracle struct {
	up      map[int]bool
	entries map[string]*oracleEntry // by address
	rx, tx  map[int]*vswitch.Counters
}

type oracleEntry struct {
	port   int
	static bool
	seen   time.Time
}

const aging = 300 * time.Second

// forward returns the ports that a frame from port in leaves by.
func (o *oracle) forward(in int, wire []byte) []int {
	rx := o.rx[in]
	rx.Frames++
	rx.Bytes += uint64(len(wire))
	drop := func(why port.Drop) []int {
		rx.Dropped[why]++
		return nil
	}
	var f ethernet.Frame
	if f.UnmarshalBinary(wire) != nil {
		return drop(port.DropRunt)
	}
	if !o.up[in] {
		return drop(port.DropPortDown)
	}
	if f.Source[0]&1 != 0 || bytes.Equal(f.Source, make([]byte, 6)) {
		return drop(port.DropBadSource)
	}
	if bytes.HasPrefix(f.Destination, []byte{0x01, 0x80, 0xc2, 0, 0}) && f.Destination[5] < 16 {
		return drop(port.DropReserved)
	}
	if e := o.live(f.Source); e == nil {
		o.entries[f.Source.String()] = &oracleEntry{port: in, seen: time.Now()}
	} else if !e.static {
		e.port, e.seen = in, time.Now()
	}
	if f.Destination[0]&1 == 0 {
		if e := o.live(f.Destination); e != nil {
			switch {
			case e.port == in:
				return drop(port.DropSamePort)
			case !o.up[e.port]:
				return drop(port.DropNoDestination)
			}
			return []int{e.port}
		}
	}
	var to []int
	for p, up := range o.up {
		if up && p != in {
			to = append(to, p)
		}
	}
	if len(to) == 0 {
		return drop(port.DropNoDestination)
	}
	rx.Copies += uint64(len(to) - 1)
	slices.Sort(to)
	return to
}

// live returns the entry of an address that has not aged out.
func (o *oracle) live(addr net.HardwareAddr) *oracleEntry {
	e := o.entries[addr.String()]
	if e == nil || !e.static && time.Since(e.seen) >= aging {
		return nil
	}
	return e
}

func (o *oracle) flush(p int) {
	maps.DeleteFunc(o.entries, func(_ string, e *oracleEntry) bool { return e.port == p && !e.static })
}

// TestAgainstOracle puts random frames and random changes to a switch and to the
// oracle: the same frames must come out of the same ports, and all counters agree.
func TestAgainstOracle(t *testing.T) {
	const ports = 4
	synctest.Test(t, func(t *testing.T) {
		// Inside a bubble a test's deadline must not be asked for.
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) {
			r := newRig(t, vswitch.Config{FDB: fdb.Config{Aging: aging}}, ports, memory.Options{})
			defer r.Close()
			o := &oracle{up: map[int]bool{}, entries: map[string]*oracleEntry{}, rx: map[int]*vswitch.Counters{}, tx: map[int]*vswitch.Counters{}}
			for p := range ports {
				o.up[p], o.rx[p], o.tx[p] = true, new(vswitch.Counters), new(vswitch.Counters)
			}
			addr := rapid.Custom(func(t *rapid.T) port.MAC {
				if rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
					return rapid.SampledFrom([]port.MAC{0, port.Broadcast, 0x0180_c200_0000, 0x0180_c200_000e,
						0x0180_c200_0010, 0x0100_5e00_0001, 0x3333_0000_0001}).Draw(t, "special")
				}
				return station(rapid.IntRange(0, 5).Draw(t, "station"))
			})
			number := uint32(0)
			t.Repeat(map[string]func(*rapid.T){
				"frame": func(t *rapid.T) {
					in := rapid.IntRange(0, ports-1).Draw(t, "in")
					number++
					wire := frame(addr.Draw(t, "dst"), addr.Draw(t, "src"), number, rapid.SampledFrom([]int{18, 60, 1514, 9000}).Draw(t, "size"))
					switch rapid.IntRange(0, 5).Draw(t, "form") {
					case 0: // runt
						wire = wire[:rapid.IntRange(0, 13).Draw(t, "length")]
					case 1: // tagged
						tag := rapid.SampledFrom([]uint32{0x8100_0064, 0x8100_0000, 0x8100_e001, 0x8100_0ffe}).Draw(t, "tag")
						wire = slices.Concat(wire[:12], binary.BigEndian.AppendUint32(nil, tag), wire[12:])
					}
					to := o.forward(in, wire)
					if r.lines[in].Put(0, memory.Packet{Wire: wire}) != 1 {
						t.Fatal("the line is full")
					}
					synctest.Wait()
					for p := range ports {
						got := r.taken(p)
						want := 0
						if slices.Contains(to, p) {
							want = 1
							o.tx[p].Frames++
							o.tx[p].Bytes += uint64(len(wire))
						}
						if len(got) != want {
							t.Fatalf("frame %x from port %d: %d came out of port %d, want %d", wire[:min(18, len(wire))], in, len(got), p, want)
						}
						if want == 1 && !bytes.Equal(got[0], wire) {
							t.Fatalf("frame %x came out of port %d as %x", wire, p, got[0])
						}
					}
				},
				"link": func(t *rapid.T) {
					p := rapid.IntRange(0, ports-1).Draw(t, "port")
					up := rapid.Bool().Draw(t, "up")
					if o.up[p] && !up {
						o.flush(p)
					}
					o.up[p] = up
					r.ports[p].SetForwarding(up)
				},
				"reattach": func(t *rapid.T) {
					p := rapid.IntRange(0, ports-1).Draw(t, "port")
					if err := r.ports[p].Detach(); err != nil {
						t.Fatal(err)
					}
					o.flush(p)
					r.lines[p] = memory.New(memory.Options{})
					if err := r.ports[p].Attach(r.lines[p]); err != nil {
						t.Fatal(err)
					}
				},
				"static": func(t *rapid.T) {
					p := rapid.IntRange(0, ports-1).Draw(t, "port")
					mac := station(rapid.IntRange(0, 5).Draw(t, "station"))
					if err := r.FDB().Add(fdb.MakeKey(1, uint64(mac)), r.ports[p].Number(), fdb.Static); err != nil {
						t.Fatal(err)
					}
					o.entries[mac.String()] = &oracleEntry{port: p, static: true}
				},
				"delete": func(t *rapid.T) {
					mac := station(rapid.IntRange(0, 5).Draw(t, "station"))
					_, want := o.entries[mac.String()]
					want = want && o.live(mac.HardwareAddr()) != nil
					if got := r.FDB().Delete(fdb.MakeKey(1, uint64(mac))); want && !got {
						t.Fatalf("%v is not there to be deleted", mac)
					}
					delete(o.entries, mac.String())
				},
				"time": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.SampledFrom([]int{1, 100, 200, 300}).Draw(t, "seconds")) * time.Second)
					synctest.Wait()
				},
				"": func(t *rapid.T) {
					for p := range ports {
						st := r.ports[p].Stats()
						if st.RX != *o.rx[p] || st.TX != *o.tx[p] {
							t.Fatalf("port %d counts\n%s, want\n%s", p, text(st.RX, st.TX), text(*o.rx[p], *o.tx[p]))
						}
					}
					got := map[string]int{}
					for e := range r.FDB().All() {
						got[port.MAC(e.Key.MAC()).String()] = int(e.Port)
					}
					want := map[string]int{}
					for mac := range o.entries {
						hw, _ := net.ParseMAC(mac)
						if e := o.live(hw); e != nil {
							want[mac] = int(r.ports[e.port].Number())
						}
					}
					if !maps.Equal(got, want) {
						t.Fatalf("the FDB has %v, want %v", got, want)
					}
				},
			})
		})
	})
}

func text(rx, tx vswitch.Counters) string {
	s := fmt.Sprintf("rx %d frames, %d bytes, %d copies; tx %d frames, %d bytes", rx.Frames, rx.Bytes, rx.Copies, tx.Frames, tx.Bytes)
	for why := range rx.Dropped {
		if rx.Dropped[why]+tx.Dropped[why] != 0 {
			s += fmt.Sprintf("; %v %d/%d", port.Drop(why), rx.Dropped[why], tx.Dropped[why])
		}
	}
	return s
}
