package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

var slow, fast = port.Rate{PerSecond: 8_000, Bits: true}, port.Rate{PerSecond: 1_000_000_000, Bits: true}

// superPacket is a TCP super-frame of n bytes from station 0 to another.
func superPacket(dst port.MAC, n int) memory.Packet {
	wire, o := tuntest.TCP4(n)
	copy(wire, frame(dst, station(0), 0, 60)[:12])
	return memory.Packet{Wire: wire, Offload: o}
}

// Whatever passed under one rate does not count against the next.
func TestRatesChangeAtOnce(t *testing.T) {
	limits := map[string]struct {
		port int // which port has the rate, 0 the sender's
		set  func(port.Rate) vswitch.PortConfig
		dst  port.MAC
	}{
		"police": {0, func(r port.Rate) vswitch.PortConfig { return vswitch.PortConfig{Police: r} }, station(1)},
		"storm broadcast": {0, func(r port.Rate) vswitch.PortConfig {
			return vswitch.PortConfig{Storm: vswitch.StormRates{Broadcast: r}}
		}, port.Broadcast},
		"storm multicast": {0, func(r port.Rate) vswitch.PortConfig {
			return vswitch.PortConfig{Storm: vswitch.StormRates{Multicast: r}}
		}, 0x0100_5e01_0203},
		"storm unicast": {0, func(r port.Rate) vswitch.PortConfig {
			return vswitch.PortConfig{Storm: vswitch.StormRates{UnknownUnicast: r}}
		}, station(9)},
		"shape": {1, func(r port.Rate) vswitch.PortConfig { return vswitch.PortConfig{Shape: r} }, station(1)},
	}
	changes := map[string][]port.Rate{
		"raised":     {slow, fast},
		"off":        {slow, {}},
		"off and on": {slow, {}, fast},
		"in frames":  {slow, {PerSecond: 1000}},
		"lowered":    {fast, {PerSecond: 2_000_000, Bits: true}},
	}
	for limit, l := range limits {
		for change, rates := range changes {
			t.Run(limit+"/"+change, func(t *testing.T) {
				inRig(t, 2, func(t *testing.T, r *rig) {
					wantPass(t, r, 1, frame(port.Broadcast, station(1), 0, 60), 1, 0)
					for i, rate := range rates {
						r.configure(t, l.port, l.set(rate))
						if i > 0 {
							continue
						}
						// More than the first rate can carry in minutes, or a burst of the fast one.
						for range 20 {
							r.lines[0].Put(0, superPacket(l.dst, 60000))
							synctest.Wait()
						}
						if n := len(r.taken(1)); n == 0 {
							t.Fatal("nothing passed under the first rate")
						}
					}
					time.Sleep(300 * time.Millisecond)
					r.taken(1) // what waited
					r.lines[0].Put(0, memory.Packet{Wire: frame(l.dst, station(0), 7, 60)})
					synctest.Wait()
					time.Sleep(50 * time.Millisecond)
					synctest.Wait()
					if n := len(r.taken(1)); n != 1 {
						t.Errorf("%d frames pass under the new rate", n)
					}
				})
			})
		}
	}
}

// A setting that is put in force anew does not let another burst through.
func TestRateStaysSpent(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		c := vswitch.PortConfig{Police: port.Rate{PerSecond: 1000}, Storm: vswitch.StormRates{Broadcast: port.Rate{PerSecond: 10}}}
		r.configure(t, 0, c)
		for range 20 {
			r.pass(0, frame(port.Broadcast, station(0), 0, 60))
		}
		c.NoFlood = vswitch.Multicast
		r.configure(t, 0, c)
		wantPass(t, r, 0, frame(port.Broadcast, station(0), 0, 60), 0, 0)
		wantDrops(t, r, 0, port.DropStormBroadcast, 11)
	})
}

// A policed port that was silent may send for 400 ms at any speed, and a super-frame
// however slow its rate is; in the long run its rate holds, in bytes on the wire.
func TestPoliceBurst(t *testing.T) {
	for _, c := range []struct {
		rate        port.Rate
		set         time.Duration // the burst; 0: none is set
		size        int           // of super-frames; 0: frames of 1000 bytes
		burst, then int           // how many pass at once, and in the ten seconds after
	}{
		{port.Rate{PerSecond: 8_000_000, Bits: true}, 0, 0, 400, 10_000},
		{port.Rate{PerSecond: 1000}, 0, 0, 400, 10_000},
		{port.Rate{PerSecond: 100}, 0, 0, 46, 1000},
		// 10 segments of 1000 bytes, each with 54 bytes of headers, are 10,540 bytes.
		{port.Rate{PerSecond: 8 * 10_540 * 10, Bits: true}, 0, 10_054, 7, 100},
		{port.Rate{PerSecond: 8_000, Bits: true}, 0, 60_000, 2, 0},
		// A burst shorter than the time between batches.
		{port.Rate{PerSecond: 500}, time.Millisecond, 0, 1, 5000},
		{port.Rate{PerSecond: 4_000_000, Bits: true}, time.Millisecond, 0, 1, 5000},
	} {
		inRig(t, 2, func(t *testing.T, r *rig) {
			wantPass(t, r, 1, frame(port.Broadcast, station(1), 0, 60), 1, 0)
			r.configure(t, 0, vswitch.PortConfig{Police: c.rate, PoliceBurst: c.set})
			p := memory.Packet{Wire: frame(station(1), station(0), 0, 1000)}
			if c.size != 0 {
				p = superPacket(station(1), c.size)
				p.Offload.GSOSize = 1000
			}
			send := func(n int) (passed int) {
				for range n {
					r.lines[0].Put(0, p)
					synctest.Wait()
				}
				return len(r.taken(1))
			}
			if n := send(1000); n != c.burst {
				t.Errorf("%v: %d of frames of %d bytes pass at once, want %d", c.rate, n, len(p.Wire), c.burst)
			}
			passed := 0
			for range 1000 {
				time.Sleep(10 * time.Millisecond)
				passed += send(15)
			}
			if passed < c.then-1 || passed > c.then+1 {
				t.Errorf("%v: %d of frames of %d bytes pass in 10 s, want %d", c.rate, passed, len(p.Wire), c.then)
			}
		})
	}
}

// What waits at a shaped port waits a fifth of a second at most, at any rate, and a
// super-frame always finds room behind less.
func TestShapeDelay(t *testing.T) {
	for _, c := range []struct {
		rate port.Rate
		most time.Duration
	}{
		{port.Rate{PerSecond: 1_000_000, Bits: true}, 220 * time.Millisecond},
		{port.Rate{PerSecond: 10_000_000, Bits: true}, 210 * time.Millisecond},
		{port.Rate{PerSecond: 1_000_000_000, Bits: true}, 20 * time.Millisecond}, // 2 MiB
		{port.Rate{PerSecond: 1000}, 210 * time.Millisecond},
	} {
		inRig(t, 3, func(t *testing.T, r *rig) {
			wantPass(t, r, 1, frame(port.Broadcast, station(1), 0, 60), 1, 0, 1)
			r.configure(t, 1, vswitch.PortConfig{Shape: c.rate})
			wire := frame(station(1), station(0), 0, 1500)
			for i := range 3000 {
				binary.BigEndian.PutUint32(wire[14:], uint32(i))
				r.lines[0].Put(0, memory.Packet{Wire: bytes.Clone(wire)})
				synctest.Wait()
			}
			start := time.Now()
			dropped := r.ports[1].Stats().TX.Dropped[port.DropShaped]
			for passed := r.ports[1].Stats().TX.Frames; passed+dropped < 3000; passed = r.ports[1].Stats().TX.Frames {
				time.Sleep(time.Millisecond)
			}
			if took := time.Since(start); took > c.most || dropped == 0 {
				t.Errorf("%v: the last frame that found room left after %v, want %v at most; %d found none", c.rate, took, c.most, dropped)
			}
			r.taken(1)
			time.Sleep(time.Second)
			r.lines[0].Put(0, memory.Packet{Wire: wire}, memory.Packet{Wire: wire}, superPacket(station(1), 60000))
			time.Sleep(time.Second)
			if n := len(r.taken(1)); n != 3 {
				t.Errorf("%v: %d of two frames and a super-frame leave", c.rate, n)
			}
		})
	}
}

// A rate that is lowered drops what would wait too long under it, by name.
func TestShapeLowered(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		wantPass(t, r, 1, frame(port.Broadcast, station(1), 0, 60), 1, 0)
		r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{PerSecond: 40_000_000, Bits: true}})
		wire := frame(station(1), station(0), 0, 1000)
		for range 800 {
			r.lines[0].Put(0, memory.Packet{Wire: wire})
			synctest.Wait()
		}
		r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{PerSecond: 1_000_000, Bits: true}})
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		passed := len(r.taken(1))
		time.Sleep(time.Minute)
		if n := len(r.taken(1)); n != 0 {
			t.Errorf("%d frames waited for longer", n)
		}
		if st := r.ports[1].Stats(); st.TX.Frames != uint64(passed) || st.TX.Frames+st.TX.Dropped[port.DropShaped] != 800 {
			t.Errorf("%d passed; %s", passed, text(st.RX, st.TX))
		}
		r.configure(t, 1, vswitch.PortConfig{Shape: fast})
		wantPass(t, r, 0, wire, 0, 1)
	})
}

// lateQueue keeps its sender for 30 ms at every 50th call, as a busy machine does.
type lateQueue struct {
	port.Queue
	calls int
}

func (q *lateQueue) Send(out []port.Out) {
	if q.calls++; q.calls%50 == 0 {
		time.Sleep(30 * time.Millisecond)
	}
	q.Queue.Send(out)
}

type latePort struct {
	*memory.Port
	queue lateQueue
}

func (p *latePort) Queues() []port.Queue { return []port.Queue{&p.queue} }

// A shaped port reaches its rate, and no more, though it often sends late.
func TestShapeLate(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		late := &latePort{Port: memory.New(memory.Options{Depth: 1 << 14})}
		late.queue.Queue = late.Port.Queues()[0]
		p, err := r.AddPort("late")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Attach(late); err != nil {
			t.Fatal(err)
		}
		p.SetForwarding(true)
		if err := p.Configure(vswitch.PortConfig{Shape: port.Rate{PerSecond: 8_000_000, Bits: true}}); err != nil { // 1000 frames of 1000 bytes
			t.Fatal(err)
		}
		send := func(d time.Duration) (sent int) {
			before := p.Stats().TX.Frames
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
				for range 2 {
					r.pass(0, frame(port.Broadcast, station(0), 0, 1000))
				}
			}
			return int(p.Stats().TX.Frames - before)
		}
		send(time.Second)
		if n := send(2 * time.Second); n < 1950 || n > 2050 {
			t.Errorf("%d frames leave in two seconds, want 2000", n)
		}
		// Silence is not made up for.
		time.Sleep(time.Second)
		if n := send(10 * time.Millisecond); n > 20 {
			t.Errorf("%d frames leave in 10 ms after silence", n)
		}
	})
}

// What a shaped port keeps in memory is what waits there.
func TestShapeMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{Depth: 2})
		defer r.Close()
		wantPass(t, r, 1, frame(port.Broadcast, station(1), 0, 60), 1, 0)
		r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{PerSecond: 100_000_000_000, Bits: true}})
		big := superPacket(station(1), 65000)
		heap := func() uint64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		for range 1000 {
			r.lines[0].Put(0, big)
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if len(r.taken(1)) != 1 {
				t.Fatal("a super-frame did not leave at once")
			}
		}
		if grown := int64(heap() - before); grown > 4<<20 {
			t.Errorf("%d MiB more after super-frames none of which waited", grown>>20)
		}
	})
}

// What the switch itself sends leaves a shaped port before the data that waits there,
// counts against its rate, and is no error.
func TestControlPassesShaper(t *testing.T) {
	for name, send := range map[string]func(r *rig, wire []byte) error{
		"Transmit": func(r *rig, wire []byte) error { return r.ports[1].Transmit(1, wire) },
		"Send": func(r *rig, wire []byte) error {
			r.Send(vswitch.ControlFrame{VLAN: 1, Data: wire}, r.ports[1].Number())
			return nil
		},
		"Flood": func(r *rig, wire []byte) error {
			r.Flood(vswitch.ControlFrame{VLAN: 1, Data: wire})
			return nil
		},
	} {
		inRig(t, 2, func(t *testing.T, r *rig) {
			wantPass(t, r, 1, frame(port.Broadcast, station(1), 0, 60), 1, 0)
			r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{PerSecond: 1_000_000, Bits: true}})
			data, own := frame(station(1), station(0), 0, 1000), frame(0x0180_c200_0000, station(7), 0, 60)
			for range 100 {
				r.lines[0].Put(0, memory.Packet{Wire: data})
				synctest.Wait()
			}
			r.taken(1)
			for i := range 10 {
				if err := send(r, own); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				synctest.Wait()
				if got := r.taken(1); len(got) != 1 || !bytes.Equal(got[0], own) {
					t.Fatalf("%s: frame %d of the switch's own did not leave at once: %d frames did", name, i, len(got))
				}
			}
			time.Sleep(time.Minute)
			if st := r.ports[1].Stats(); st.TX.Frames+st.TX.Dropped[port.DropShaped] != 110 || st.TX.Dropped[port.DropShaped] == 0 {
				t.Errorf("%s: %s", name, text(st.RX, st.TX))
			}
		})
	}
}

// A flow that fills a shaped port's queue delays and loses its own frames: others leave
// soon, in order, and none is lost. Two that fill it share the rate.
func TestShapeIsFair(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		wantPass(t, r, 1, frame(port.Broadcast, station(1), 0, 60), 1, 0, 1)
		r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{PerSecond: 8_000_000, Bits: true}}) // 1000 frames of 1000 bytes
		bulk := []memory.Packet{superPacket(station(1), 1000), superPacket(station(1), 1000)}
		bulk[1].Wire[34] ^= 0x55 // another port of TCP
		for i := range bulk {
			bulk[i].Offload = port.Offload{}
		}
		count := func(number uint32) (of [2]int, pings int) {
			for _, w := range r.taken(1) {
				switch {
				case bytes.Equal(w, bulk[0].Wire):
					of[0]++
				case bytes.Equal(w, bulk[1].Wire):
					of[1]++
				case binary.BigEndian.Uint32(w[14:]) == number:
					pings++
				default:
					t.Errorf("%x arrived in place of ping %d", w[:18], number)
				}
			}
			return of, pings
		}
		var total [2]int
		for i := range 400 { // 4 s, in which twice the rate comes
			for range 10 {
				r.lines[0].Put(0, bulk[0], bulk[1])
				synctest.Wait()
			}
			number := uint32(i)
			ping := frame(station(1), station(2), number, 60)
			r.lines[2].Put(0, memory.Packet{Wire: ping})
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			of, pings := count(number)
			if pings != 1 {
				t.Fatalf("ping %d did not arrive within 10 ms", i)
			}
			total[0], total[1] = total[0]+of[0], total[1]+of[1]
		}
		if total[0] < 1900 || total[1] < 1900 || total[0]+total[1] > 4010 {
			t.Errorf("two flows got %d frames of 4000", total)
		}
	})
}
