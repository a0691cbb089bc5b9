package host_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/internal/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/host"
	"github.com/vswitch/vswitch/port/porttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	ns := testenv.NewNetns(t)
	var serial atomic.Int32
	porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
		spec := port.Spec{Name: fmt.Sprintf("host%d", serial.Add(1)), MTU: 65521}
		ns.Do(func() {
			p := open(t, spec, new(port.Trace))
			// An S-tag counts for the MTU at the other end.
			// The host takes what the port sends at once, or loses it itself.
			f = porttest.Fixture{Port: p, Peer: tuntest.Listen(t, spec.Name), MaxLen: 65535 - 4, Offloads: true, Silent: true}
		})
		return f
	})
}

// open opens a port in the calling thread's namespace.
func open(t *testing.T, spec port.Spec, trace *port.Trace) *host.Port {
	t.Helper()
	p, err := host.Kind{}.Open(spec, trace)
	if err != nil {
		t.Fatalf("open %s: %v", spec.Name, err)
	}
	t.Cleanup(func() { p.Close() })
	return p.(*host.Port)
}
