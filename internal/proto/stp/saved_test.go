package stp_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/internal/proto/stp"
)

// replace has another Bridge go on in place of a node's.
func (x *node) replace() {
	x.net.tb.Helper()
	b, err := json.Marshal(x.rstp.Save())
	if err != nil {
		x.net.tb.Fatal(err)
	}
	v := new(stp.Saved)
	if err := json.Unmarshal(b, v); err != nil {
		x.net.tb.Fatal(err)
	}
	ports := make(map[uint16]stp.PortConfig)
	for _, p := range x.rstp.Status().Ports {
		ports[p.Number] = p.Config
	}
	next, err := stp.Restore(x.config, ports, v, x)
	if err != nil {
		x.net.tb.Fatalf("%s: %v: %s", x.name, err, b)
	}
	x.b, x.rstp = next, next
}

// Bridges that are replaced after whatever happens behave as if they were not: each BPDU is the
// same, at the same time, and so is each state.
func TestSaved(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		history := func(replaced bool) string {
			n := newNetwork(t, seed)
			n.delay = func() int { return 1 + n.rng.IntN(5) }
			var h strings.Builder
			sum := sha256.New()
			n.sent = func(from *node, port uint16, frame []byte) { fmt.Fprintln(sum, n.now, from.name, port, frame) }
			bridges := 2 + n.rng.IntN(4)
			for range bridges {
				n.add(uint16(n.rng.IntN(3)) * 4096)
			}
			for range 1 + n.rng.IntN(2*bridges) {
				a := n.rng.IntN(bridges)
				n.join(func(c *stp.PortConfig) {
					n.randomPort(c)
					c.Shared, c.RootGuard, c.BPDUGuard = n.rng.IntN(4) == 0, n.rng.IntN(8) == 0, n.rng.IntN(8) == 0
				}, n.nodes[a], n.nodes[(a+1+n.rng.IntN(bridges-1))%bridges])
			}
			if n.rng.IntN(2) == 0 {
				old := n.addLegacy(uint16(n.rng.IntN(3)) * 4096)
				n.join(nil, n.nodes[0], old)
				n.join(nil, n.nodes[1], old)
			}
			if replaced {
				n.then = func() {
					for _, x := range n.nodes {
						if x.rstp != nil {
							x.replace()
						}
					}
				}
			}
			for range 3 {
				n.run(3000)
				for _, x := range n.nodes {
					fmt.Fprintln(&h, n.now, x.name, len(x.events), x.flushed)
					if x.rstp != nil {
						fmt.Fprintf(&h, "%+v\n", x.rstp.Status())
					}
				}
				fmt.Fprintf(&h, "%x\n", sum.Sum(nil))
				l := n.links[n.rng.IntN(len(n.links))]
				l.set(!l.up)
			}
			return h.String()
		}
		if as, want := history(true), history(false); as != want {
			rt.Fatalf("replaced:\n%s\nnot replaced:\n%s", as, want)
		}
	})
}

// savedPorts are those of testdata/saved.json.
var savedPorts = map[uint16]stp.PortConfig{1: stp.DefaultPort(), 2: stp.DefaultPort(), 3: {Priority: 0x80, AdminEdge: true, BPDUGuard: true}}

// states hears what a Bridge does to its ports.
type states map[uint16]stp.State

func (s states) SendBPDU(uint16, []byte)           {}
func (s states) SetState(port uint16, t stp.State) { s[port] = t }
func (s states) Flush(uint16)                      {}
func (s states) Event(stp.Event)                   {}

// A state that the first version wrote, with a field and a flag that no version knows, is taken.
func TestSavedByTheFirstVersion(t *testing.T) {
	b, err := os.ReadFile("testdata/saved.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(stp.Saved)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
	is := make(states)
	bridge, err := stp.Restore(config(0, 0x8000), savedPorts, v, is)
	if err != nil {
		t.Fatal(err)
	}
	if s := bridge.Status(); s.RootPort != 1 || is[1] != stp.Forwarding || is[2] != stp.Discarding || is[3] != stp.Forwarding || s.Ports[0].Rx.RST == 0 {
		t.Errorf("%+v, %v", s, is)
	}
}

// What does not fit is refused, and no port hears of it.
func TestSavedRefused(t *testing.T) {
	b, err := os.ReadFile("testdata/saved.json")
	if err != nil {
		t.Fatal(err)
	}
	fewer := map[uint16]stp.PortConfig{1: savedPorts[1], 2: savedPorts[2]}
	others := map[uint16]stp.PortConfig{1: savedPorts[1], 2: savedPorts[2], 4: savedPorts[3]}
	dearer := map[uint16]stp.PortConfig{1: {Priority: 0x80, PathCost: 200_000_000}, 2: savedPorts[2], 3: savedPorts[3]}
	for name, c := range map[string]struct {
		ports map[uint16]stp.PortConfig
		spoil func(*stp.Saved)
		want  string
	}{
		"another bridge":   {savedPorts, func(s *stp.Saved) { s.ID++ }, "the bridge was"},
		"fewer ports":      {fewer, nil, "3 ports"},
		"other ports":      {others, nil, "has none"},
		"another port ID":  {savedPorts, func(s *stp.Saved) { s.Ports[0].ID++ }, "port 1 was"},
		"another tree":     {dearer, nil, "would be"},
		"out of order":     {savedPorts, func(s *stp.Saved) { s.Ports[1].Number = 1 }, "out of order"},
		"no such state":    {savedPorts, func(s *stp.Saved) { s.Ports[0].State = 9 }, "no state"},
		"an endless timer": {savedPorts, func(s *stp.Saved) { s.Ports[0].Timers.RrWhile = 1 << 40 }, "no state"},
		"too many BPDUs":   {savedPorts, func(s *stp.Saved) { s.Ports[0].Timers.TxCount = 11 }, "no state"},
		"a negative timer": {savedPorts, func(s *stp.Saved) { s.Ports[0].Timers.FdWhile = -1 }, "no state"},
		"a loop":           {savedPorts, func(s *stp.Saved) { s.Ports[1].State = stp.Forwarding }, "at once"},
	} {
		v := new(stp.Saved)
		if err := json.Unmarshal(b, v); err != nil {
			t.Fatal(err)
		}
		if c.spoil != nil {
			c.spoil(v)
		}
		is := make(states)
		if _, err := stp.Restore(config(0, 0x8000), c.ports, v, is); err == nil || !strings.Contains(err.Error(), c.want) || len(is) > 0 {
			t.Errorf("%s: %v, %v", name, err, is)
		}
	}
}

// FuzzRestore: whatever another process gives, the machines come to rest, and what the owner was
// told agrees with the status.
func FuzzRestore(f *testing.F) {
	b, err := os.ReadFile("testdata/saved.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		v := new(stp.Saved)
		if json.Unmarshal(in, v) != nil {
			return
		}
		is := make(states)
		b, err := stp.Restore(config(0, 0x8000), savedPorts, v, is)
		if err != nil {
			return
		}
		for range 4 {
			b.Tick()
			for n := range uint16(3) {
				b.SetLink(n+1, !b.Link(n+1))
				b.Recheck(n + 1)
			}
		}
		for _, p := range b.Status().Ports {
			if is[p.Number] != p.State {
				t.Errorf("port %d was set %v, its status is %v", p.Number, is[p.Number], p.State)
			}
		}
	})
}
