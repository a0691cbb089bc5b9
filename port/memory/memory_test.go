package memory_test

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	"github.com/vswitch/vswitch/port/porttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	porttest.Run(t, func(t *testing.T) porttest.Fixture {
		p := memory.New(memory.Options{})
		t.Cleanup(func() { p.Close() })
		return porttest.Fixture{Port: p, Peer: station{p}, MaxLen: port.MaxFrame - 4, Offloads: true}
	})
}

// station is the conformance suite's view of the other end.
type station struct{ p *memory.Port }

func (s station) Send(wire []byte, o port.Offload) error {
	for s.p.Put(0, memory.Packet{Wire: wire, Offload: o}) == 0 {
		time.Sleep(time.Millisecond) // the queue is full
	}
	return nil
}

func (s station) Recv(timeout time.Duration) ([]byte, port.Offload, error) {
	deadline := time.Now().Add(timeout)
	for {
		var got memory.Packet
		if s.p.Drain(0, 1, func(p memory.Packet) { got = memory.Packet{Wire: append([]byte{}, p.Wire...), Offload: p.Offload} }) == 1 {
			return got.Wire, got.Offload, nil
		}
		if time.Now().After(deadline) {
			return nil, port.Offload{}, os.ErrDeadlineExceeded
		}
		time.Sleep(100 * time.Microsecond)
	}
}

func TestTakeAfterClose(t *testing.T) {
	p := memory.New(memory.Options{})
	f := new(port.Frame)
	f.SetWire(make([]byte, 60))
	out := []port.Out{{Frame: f}}
	p.Queues()[0].Send(out)
	p.Close()
	if got, err := p.Take(0, nil); err != nil || len(got.Wire) != 60 {
		t.Fatalf("what was sent before Close: %d bytes, %v", len(got.Wire), err)
	}
	if _, err := p.Take(0, nil); err != port.ErrClosed {
		t.Fatalf("Take of a closed port: %v", err)
	}
	if n := p.Put(0, memory.Packet{Wire: make([]byte, 60)}); n != 0 {
		t.Fatalf("Put to a closed port took %d", n)
	}
}
