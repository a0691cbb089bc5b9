// Package bench measures the forwarding core as a whole: frames go in at memory
// ports, through all stages, and out at memory ports.
//
//	go test -run x -bench . ./bench
//
// An operation is one frame that came in; frames/s counts those that arrived, so
// a flood to eight ports counts eight. The memory ports copy each frame twice.
// BenchmarkIdleTaps has the daemon and real TAPs instead.
package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// BenchmarkForward: known unicast, pairs of ports talking one way.
func BenchmarkForward(b *testing.B) {
	for _, size := range []int{64, 1514, 60_000} {
		for _, pairs := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("size=%d/ports=%d", size, 2*pairs), func(b *testing.B) {
				run(b, 2*pairs, func(i int) (port.MAC, bool) { return station(i ^ 1), i%2 == 0 }, size, 1)
			})
		}
	}
}

// BenchmarkFlood: broadcast from one port to eight.
func BenchmarkFlood(b *testing.B) {
	for _, size := range []int{64, 1514, 60_000} {
		b.Run(fmt.Sprintf("size=%d/ports=9", size), func(b *testing.B) {
			run(b, 9, func(i int) (port.MAC, bool) { return port.Broadcast, i == 0 }, size, 8)
		})
	}
}

// BenchmarkVLANs: known unicast from one trunk to another, in one VLAN and in all.
func BenchmarkVLANs(b *testing.B) {
	for _, vlans := range []int{1, port.MaxVID} {
		b.Run(fmt.Sprintf("size=64/vlans=%d", vlans), func(b *testing.B) {
			sw := vswitch.New(vswitch.Config{})
			defer sw.Close()
			trunk := vswitch.PortConfig{VLAN: port.VLAN{Trunk: port.AllVLANs}}
			lines := attach(b, sw, 2, trunk)
			var there []memory.Packet
			for i := range port.MaxVID { // as many stations in one VLAN as in all
				vid, here, other := 1+i%vlans, station(2*i), station(2*i+1)
				there = append(there, memory.Packet{Wire: tagged(frame(other, here, 60), vid)})
				// The other station speaks first, and is known from then on.
				lines[1].Put(0, memory.Packet{Wire: tagged(frame(here, other, 60), vid)})
				if _, err := lines[0].Take(0, nil); err != nil {
					b.Fatal(err)
				}
			}
			pump(lines[0], lines[1:], there, len(there))
			b.SetBytes(64)
			b.ReportAllocs()
			b.ResetTimer()
			pump(lines[0], lines[1:], there, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
		})
	}
}

func tagged(b []byte, vid int) []byte {
	return slices.Concat(b[:12], binary.BigEndian.AppendUint32(nil, uint32(port.TPIDCustomer)<<16|uint32(vid)), b[12:])
}

func station(i int) port.MAC { return 0x0200_0000_0001 + port.MAC(i) }

// run drives b.N frames through a switch. role tells where port i sends to, and
// whether it sends. Each frame arrives copies times.
func run(b *testing.B, ports int, role func(int) (port.MAC, bool), size, copies int) {
	sw := vswitch.New(vswitch.Config{})
	defer sw.Close()
	lines := attach(b, sw, ports, vswitch.PortConfig{})
	// All stations are known, and all buffers made, before the clock starts.
	buf := make([]byte, 0, port.MaxFrame)
	for range 2 * port.BatchSize {
		for i, line := range lines {
			line.Put(0, memory.Packet{Wire: frame(port.Broadcast, station(i), size)})
			for j, other := range lines {
				if j != i {
					if _, err := other.Take(0, buf); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
	}
	senders := 0
	for i := range lines {
		if _, sends := role(i); sends {
			senders++
		}
	}
	b.SetBytes(int64(size * copies))
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	sender := 0
	for i, line := range lines {
		dst, sends := role(i)
		if !sends {
			continue
		}
		share := b.N / senders
		if sender == 0 {
			share += b.N % senders
		}
		sender++
		var to []*memory.Port
		for j, other := range lines {
			if j != i && (copies > 1 || station(j) == dst) {
				to = append(to, other)
			}
		}
		packets := make([]memory.Packet, port.BatchSize)
		for j := range packets {
			packets[j].Wire = frame(dst, station(i), size)
		}
		all.Go(func() { pump(line, to, packets, share) })
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N*copies)/b.Elapsed().Seconds(), "frames/s")
	for _, p := range sw.Ports() {
		if st := p.Stats(); st.RX.Drops()+st.TX.Drops() != 0 {
			b.Fatalf("port %s dropped %d of %d in, %d of %d out", p.Name(), st.RX.Drops(), st.RX.Frames, st.TX.Drops(), st.TX.Frames)
		}
	}
}

// attach gives a switch so many memory ports.
func attach(b *testing.B, sw *vswitch.Switch, ports int, c vswitch.PortConfig) []*memory.Port {
	lines := make([]*memory.Port, ports)
	for i := range lines {
		p, err := sw.AddPort(fmt.Sprint(i))
		if err != nil {
			b.Fatal(err)
		}
		lines[i] = memory.New(memory.Options{Depth: 2 * port.BatchSize})
		if err := errors.Join(p.Configure(c), p.Attach(lines[i])); err != nil {
			b.Fatal(err)
		}
		p.SetForwarding(true)
	}
	return lines
}

// pump sends n frames by line, packets in turn, and takes them at all the ports they
// go to, with no more under way than the queues have room for, so that none is dropped.
func pump(line *memory.Port, to []*memory.Port, packets []memory.Packet, n int) {
	take := func(memory.Packet) {}
	at := 0
	for n > 0 {
		put := line.Put(0, packets[at:min(at+port.BatchSize, at+n, len(packets))]...)
		n -= put
		if at += put; at == len(packets) {
			at = 0
		}
		for _, p := range to {
			for got := 0; got < put; {
				k := p.Drain(0, put-got, take)
				if got += k; k == 0 {
					runtime.Gosched()
				}
			}
		}
	}
}

// frame makes a frame of size bytes.
func frame(dst, src port.MAC, size int) []byte {
	b := append(dst.HardwareAddr(), src.HardwareAddr()...)
	b = binary.BigEndian.AppendUint16(b, 0x88b5)
	return append(b, make([]byte, size-len(b))...)
}
