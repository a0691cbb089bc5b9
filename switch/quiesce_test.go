package vswitch_test

import (
	"sync"
	"testing"
	"time"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// A change of a port returns when no batch uses the former settings: what such a batch
// learned is forgotten with the rest.
func TestChangesWaitForBatches(t *testing.T) {
	for name, change := range map[string]func(r *rig, p *vswitch.Port) error{
		"SetForwarding": func(r *rig, p *vswitch.Port) error { p.SetForwarding(false); return nil },
		"Configure": func(r *rig, p *vswitch.Port) error {
			return p.Configure(vswitch.PortConfig{VLAN: port.VLAN{Access: 7}})
		},
		"SetTree": func(r *rig, p *vswitch.Port) error {
			p.SetTree(vswitch.TreeDiscarding, true)
			r.FDB().FlushPort(p.Number())
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, vswitch.Config{}, 3, memory.Options{})
			defer r.Close()
			// A filter is called while a batch is on its way, before its senders are learned.
			reached, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			err := r.SetMirrors([]vswitch.Mirror{{Name: "m", Ports: []string{"p0"}, In: true, To: "p2",
				Filter: func(*port.Frame, port.Tag) bool {
					once.Do(func() { close(reached); <-goOn })
					return false
				}}})
			if err != nil {
				t.Fatal(err)
			}
			r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), 0, 60)})
			<-reached
			done := make(chan error)
			go func() { done <- change(r, r.ports[0]) }()
			select {
			case err = <-done:
				t.Error("it returned while a batch was on its way")
				close(goOn)
			case <-time.After(50 * time.Millisecond):
				close(goOn)
				err = <-done
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := r.FDB().Count(0); n != 0 {
				t.Errorf("%d stations are known behind the port after the change", n)
			}
		})
	}
}
