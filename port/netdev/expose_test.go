package netdev_test

import (
	"errors"
	"io"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/netdev"
	"github.com/vswitch/vswitch/port/porttest"
)

// ingress is a program in name only. attached is how often it is at the device.
type ingress struct {
	attached int
	stuck    error // of Detach
}

func (i *ingress) Attach(int) (io.Closer, error) { i.attached++; return i, nil }
func (i *ingress) Close() error                  { i.attached--; return nil }
func (i *ingress) Detach(int) error              { return i.stuck }

// A port that cannot be shared again stays exclusive, with its guard and its program.
func TestExposeFails(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	veth(ns, "sw0", "peer0", 1500)
	ns.Do(func() {
		in := new(ingress)
		k := porttest.Kind(netdev.New(netdev.Options{Switch: "sw0", Ingress: in}))
		shared := port.Spec{Name: "sw0", Settings: netdev.Settings{}}
		exclusive := port.Spec{Name: "sw0", Settings: netdev.Settings{Exclusive: true}}
		opened, err := k.Open(exclusive, new(port.Trace))
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		p := opened.(netdev.Port)
		want := func(shut bool, programs int) {
			t.Helper()
			if p.Exclusive() != shut || p.Punted() != shut || in.attached != programs {
				t.Errorf("exclusive %v, handed up %v, %d programs; want %v and %d", p.Exclusive(), p.Punted(), in.attached, shut, programs)
			}
		}
		want(true, 1)
		in.stuck = errors.New("the kernel refuses")
		if err := k.Set(p, exclusive, shared); !errors.Is(err, in.stuck) {
			t.Errorf("got %v", err)
		}
		want(true, 1)
		in.stuck = nil
		if err := k.Set(p, exclusive, shared); err != nil {
			t.Error(err)
		}
		want(false, 0)
	})
}
