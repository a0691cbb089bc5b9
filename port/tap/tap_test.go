package tap_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/internal/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/tap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	ns := testenv.NewNetns(t)
	var serial atomic.Int32
	porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
		spec := port.Spec{Name: fmt.Sprintf("vm%d", serial.Add(1)), MTU: 65521}
		ns.Do(func() {
			p := open(t, spec, new(port.Trace))
			f = porttest.Fixture{Port: p, Peer: tuntest.Boot(t, spec.Name, tuntest.USO), MaxLen: 65535, Offloads: true}
		})
		return f
	})
}

// open opens a port in the calling thread's namespace.
func open(t *testing.T, spec port.Spec, trace *port.Trace) *tap.Port {
	t.Helper()
	p, err := tap.Kind{}.Open(spec, trace)
	if err != nil {
		t.Fatalf("open %s: %v", spec.Name, err)
	}
	t.Cleanup(func() { p.Close() })
	return p.(*tap.Port)
}
