package netdev_test

import (
	"errors"
	"io"
	"testing"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/netdev"
	"github.com/vswitch/vswitch/port/porttest"
)

// ingress is a program in name only. attached is how often it is at the device.
type ingress struct {
	attached int
	shared   bool
	stuck    error // of Attach and SetShared
}

func (i *ingress) Attach(int) (io.Closer, error) { return i.put(false) }

func (i *ingress) AttachShared(int) (io.Closer, error) { return i.put(true) }

func (i *ingress) put(shared bool) (io.Closer, error) {
	if i.stuck != nil {
		return nil, i.stuck
	}
	i.attached++
	i.shared = shared
	return i, nil
}

func (i *ingress) SetShared(_ io.Closer, on bool) error {
	if i.stuck == nil {
		i.shared = on
	}
	return i.stuck
}

func (i *ingress) Close() error     { i.attached--; return nil }
func (i *ingress) Detach(int) error { return nil }

// A port that cannot be shared again stays exclusive, with its guard, and one that cannot be
// exclusive stays shared. Its program stays at the device all the time.
func TestExposeFails(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	veth(ns, "sw0", "peer0", 1500)
	ns.Do(func() {
		in := new(ingress)
		k := porttest.Kind(netdev.New(netdev.Options{Switch: "sw0", Ingress: in}))
		shared := port.Spec{Name: "sw0", Settings: netdev.Settings{}}
		exclusive := port.Spec{Name: "sw0", Settings: netdev.Settings{Exclusive: true}}
		var trace port.Trace
		opened, err := k.Open(exclusive, &trace)
		if err != nil {
			t.Fatal(err)
		}
		p := opened.(netdev.Port)
		want := func(shut bool) {
			t.Helper()
			ipv6 := ns.Run("cat", "/proc/sys/net/ipv6/conf/sw0/disable_ipv6")
			if p.Exclusive() != shut || in.shared == shut || (ipv6 == "1") != shut || !p.Punted() || in.attached != 1 {
				t.Errorf("exclusive %v, disable_ipv6 %s, handed up %v, %+v; want %v", p.Exclusive(), ipv6, p.Punted(), in, shut)
			}
		}
		set := func(from, to port.Spec, want error) {
			t.Helper()
			in.stuck = want
			if err := k.Set(p, from, to); !errors.Is(err, want) {
				t.Errorf("got %v", err)
			}
		}
		stuck := errors.New("the kernel refuses")
		want(true)
		set(exclusive, shared, stuck)
		want(true)
		set(exclusive, shared, nil)
		want(false)
		set(shared, exclusive, stuck)
		want(false)
		set(shared, exclusive, nil)
		want(true)
		if err := errors.Join(p.Close(), k.Delete(exclusive, trace)); err != nil || in.attached != 0 {
			t.Errorf("%v, %d programs are left", err, in.attached)
		}
	})
}

// Without a program, all frames reach both the switch and the host of a shared port.
func TestSharedWithoutProgram(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	veth(ns, "sw0", "peer0", 1500)
	ns.Do(func() {
		in := &ingress{stuck: errors.New("the kernel refuses")}
		k := porttest.Kind(netdev.New(netdev.Options{Switch: "sw0", Ingress: in}))
		p := porttest.Open[netdev.Port](t, k, port.Spec{Name: "sw0"}, new(port.Trace))
		if p.Punted() || p.Exclusive() || in.attached != 0 {
			t.Errorf("exclusive %v, handed up %v, %+v", p.Exclusive(), p.Punted(), in)
		}
		passes(t, p, tuntest.Read(t, p), tuntest.Listen(t, "peer0"))
	})
}
