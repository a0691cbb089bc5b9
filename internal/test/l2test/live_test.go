package l2test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// flow is one host sending frames at a steady pace.
type flow struct {
	t      testing.TB
	n      atomic.Int64
	tokens []string // what was sent, n of them; read it after stop
	quit   chan struct{}
	once   sync.Once
	done   sync.WaitGroup
}

func startFlow(t testing.TB, from *host, f frame, pace time.Duration) *flow {
	fl := &flow{t: t, quit: make(chan struct{})}
	t.Cleanup(fl.stop)
	fl.done.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			wire, token := f.wire()
			if err := from.Send(wire, port.Offload{}); err != nil {
				t.Errorf("%s sends: %v", from.port, err)
				return
			}
			fl.tokens = append(fl.tokens, string(token))
			fl.n.Add(1)
			select {
			case <-tick.C:
			case <-fl.quit:
				return
			}
		}
	})
	return fl
}

// sent is how many frames are on their way at the least.
func (f *flow) sent() int { return int(f.n.Load()) }

func (f *flow) stop() {
	f.once.Do(func() { close(f.quit) })
	f.done.Wait()
}

// at returns for each frame of the flow that came to a host its number, in the order
// in which they came. The flow was stopped.
func (f *flow) at(h *host) (numbers []int) {
	f.t.Helper()
	number := make(map[string]int, len(f.tokens))
	for i, token := range f.tokens {
		number[token] = i
	}
	for {
		wire, ok, err := h.receive(tokenPrefix, time.Now().Add(quiet))
		if err != nil {
			f.t.Fatal(err)
		}
		if !ok {
			return numbers
		}
		at := 14 + 4*len(tagsOf(wire))
		if i, ok := number[string(wire[at:at+len(f.tokens[0])])]; ok {
			numbers = append(numbers, i)
		}
	}
}

// TestSettingsUnderTraffic changes settings that do not concern a flow, while it runs:
// it loses no frame. Its order is kept, but for frames that the kernel forwards while
// the switch has one before them.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 ┘
func TestSettingsUnderTraffic(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.ctl("set-port p1 --access 10")
	l.sw.ctl("set-port p2 --access 10")
	l.sw.ctl("fdb add %s p2 --vlan 10", h2.mac)
	fl := startFlow(t, h1, h1.to(h2), 200*time.Microsecond)
	for _, command := range []string{
		"set-port p2 --trunk 10,20 --native 10",
		"set-port p1 --trunk 10 --native 10",
		"set-port p1 --isolated",
		"set-port p2 --flood none",
		"set-port p2 --learning off",
		"set-port p1 --learn-limit 5 --learn-action protect",
		"set-port p1 --storm-broadcast 1pps --storm-multicast 1pps --storm-unicast 1pps",
		"set-port p1 --rate-in 10gbit",
		"set-port p1 --rate-in off",
		"set-port p2 --rate-out 1gbit",
		"set-port p2 --rate-out off",
		"mirror add m0 --from p1 --to p3 --filter arp",
		"mirror del m0",
		"set-port p3 --access 30",
		"fdb flush",
		"del-port p3",
		"add-port p3 --kind netdev",
		"set-port p1 --access 10 --isolated=false --storm-broadcast off",
		"set-port p2 --access 10 --flood all --learning on",
	} {
		before := fl.sent()
		l.sw.ctl("%s", command)
		testenv.Eventually(t, "some more is sent", func() bool { return fl.sent() > before+20 })
	}
	fl.stop()
	testenv.Eventually(t, "all frames are counted", func() bool { return int(l.counted(h1)()) >= fl.sent() })
	got := fl.at(h2)
	inOrder := slices.IsSorted(got) || daemontest.FastPath()
	slices.Sort(got)
	if len(got) != fl.sent() || len(slices.Compact(got)) != fl.sent() || !inOrder {
		t.Errorf("of %d frames %d come to h2, in order %v; p1 has lost %v, p2 %v", fl.sent(), len(got), inOrder,
			l.sw.port("p1").RX.Dropped, l.sw.port("p2").TX.Dropped)
	}
	if got := fl.at(h3); len(got) != 0 {
		t.Errorf("%d frames come to h3", len(got))
	}
}

// TestVLANMoveUnderTraffic moves a port to another VLAN and back while it is sent to:
// when the command has returned, nothing of the former VLAN comes any more.
//
//	h1 ── p1 access 10             ┐
//	h2 ── p2 access 10, 20, 10 …   ┼ switch
//	h3 ── p3 access 10             ┘
func TestVLANMoveUnderTraffic(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	for _, h := range l.hosts {
		l.sw.ctl("set-port %s --access 10", h.port)
	}
	l.want(h2, h2.toAll(), h1, h3)
	fl := startFlow(t, h1, h1.to(h2), 200*time.Microsecond)
	// What the switch gave to h3's device, which a busy host may lose yet.
	flooded := func() uint64 { return l.sw.port("p3").TX.Frames }
	type span struct{ from, to int } // numbers of frames
	var away []span
	for range 5 {
		l.sw.ctl("set-port p2 --access 20")
		// The frame that is being sent may have come before.
		s, before := span{from: fl.sent() + 1}, flooded()
		testenv.Eventually(t, "some more is sent", func() bool { return fl.sent() > s.from+50 })
		// To h3, for the entry went with the VLAN.
		testenv.Eventually(t, "frames are flooded", func() bool { return flooded() > before })
		s.to = fl.sent()
		away = append(away, s)
		l.sw.ctl("set-port p2 --access 10")
		sent := fl.sent()
		testenv.Eventually(t, "some more is sent", func() bool { return fl.sent() > sent+50 })
	}
	fl.stop()
	testenv.Eventually(t, "all frames are counted", func() bool { return int(l.counted(h1)()) >= fl.sent() })
	at2, at3 := fl.at(h2), fl.at(h3)
	for _, s := range away {
		inside := func(i int) bool { return i >= s.from && i < s.to }
		if i := slices.IndexFunc(at2, inside); i >= 0 {
			t.Errorf("frame %d comes to h2, which was in another VLAN from %d to %d", at2[i], s.from, s.to)
		}
	}
	if len(at2) == 0 || len(at3) == 0 {
		t.Errorf("%d frames come to h2 and %d to h3", len(at2), len(at3))
	}
}
