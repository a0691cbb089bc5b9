package loopguard

import (
	"iter"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// host is a daemon with ports to networks, and none of its other parts. What it does is
// tested with the real one, in internal/daemon.
type host struct {
	sw    *vswitch.Switch
	ports []feature.Port
	due   func()
}

func (h *host) Log() *slog.Logger             { return slog.New(slog.DiscardHandler) }
func (h *host) MAC() port.MAC                 { return 0x0200_0000_0001 }
func (h *host) Switch() *vswitch.Switch       { return h.sw }
func (h *host) Ports() iter.Seq[feature.Port] { return slices.Values(h.ports) }
func (h *host) Tree() bool                    { return false }
func (h *host) Shut(feature.Port, string)     {}
func (h *host) Port(number uint16) feature.Port {
	for _, p := range h.ports {
		if p.Number() == number {
			return p
		}
	}
	return nil
}

func (h *host) After(_ time.Duration, f func()) func() {
	h.due = f
	return func() { h.due = nil }
}

type uplink struct {
	core   *vswitch.Port
	policy port.Policy
}

func (p *uplink) Name() string            { return p.core.Name() }
func (p *uplink) Number() uint16          { return p.core.Number() }
func (p *uplink) Policy() *port.Policy    { return &p.policy }
func (p *uplink) VLANs() (s port.VLANSet) { s.Add(1); return s }
func (p *uplink) Up() bool                { return true }
func (p *uplink) Disabled() bool          { return false }
func (p *uplink) Station() bool           { return false }
func (p *uplink) Core() *vswitch.Port     { return p.core }

// What is remembered of probes is bounded by how long they are good.
func TestProbesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{sw: vswitch.New(vswitch.Config{})}
		defer h.sw.Close()
		for _, name := range []string{"up0", "up1"} {
			core, err := h.sw.AddPort(name)
			if err != nil {
				t.Fatal(err)
			}
			h.ports = append(h.ports, &uplink{core: core})
		}
		g := start(h)
		for range 20 {
			time.Sleep(time.Second)
			h.due()
		}
		if n, m := len(g.out), len(g.order); n > 8 || m > 8 || n < 6 {
			t.Errorf("%d probes are remembered, %d in order", n, m)
		}
		g.Linked(h.ports[1], true)
		g.Removed(h.ports[1])
		if len(g.suspect)+len(g.next) != 0 {
			t.Errorf("%v, %v", g.suspect, g.next)
		}
		g.Stop()
		if h.due != nil {
			t.Error("it goes on after its end")
		}
	})
}

// Whatever comes to the group, a frame that was not sent as a probe does nothing.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{}, uint16(1))
	f.Add(make([]byte, probeLen), uint16(0))
	f.Fuzz(func(t *testing.T, frame []byte, vlan uint16) {
		h := &shutting{host: host{sw: vswitch.New(vswitch.Config{})}}
		defer h.sw.Close()
		core, err := h.sw.AddPort("up0")
		if err != nil {
			t.Fatal(err)
		}
		p := &uplink{core: core}
		h.ports = []feature.Port{p}
		g := start(h)
		g.send()
		g.Receive(p, vswitch.ControlFrame{VLAN: vlan, Data: frame})
		if h.shut != 0 {
			t.Fatalf("%x shuts a port", frame)
		}
	})
}

type shutting struct {
	host
	shut int
}

func (h *shutting) Shut(feature.Port, string) { h.shut++ }
