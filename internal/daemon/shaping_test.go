package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// shapedPort is a port on a device that can keep a rate.
type shapedPort struct {
	*fakePort
	of func() vswitch.PortConfig // of the port in the core

	mu    sync.Mutex
	bits  uint64
	err   error
	calls []string // with what the switch keeps meanwhile
}

func (*shapedPort) Punted() bool    { return true }
func (*shapedPort) Exclusive() bool { return true }
func (*shapedPort) Shaped() uint64  { return 0 }

func (p *shapedPort) Shape(bits uint64) (how string, err error) {
	c := p.of()
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := "nothing"
	if !c.ShapedBelow && c.Shape.PerSecond != 0 {
		kept = c.Shape.String()
	}
	p.calls = append(p.calls, fmt.Sprintf("%d, %s", bits, kept))
	switch {
	case p.err == nil:
		p.bits = bits
	case bits != 0:
		p.bits = 0
	}
	return "a queue", p.err
}

func (p *shapedPort) Shapes() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bits != 0
}

// told returns the calls since it was last asked.
func (p *shapedPort) told() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

// change changes what the device does.
func (p *shapedPort) change(how func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	how()
}

// A device gets the port's rate, and each time that it begins or ends to keep one, or may have lost it, the
// switch keeps the rate itself. Where the device does not, the port says why.
func TestShapedBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		var r *rig
		var dev *shapedPort
		h.wrap = func(p *fakePort) port.Port {
			dev = &shapedPort{fakePort: p, of: func() vswitch.PortConfig { return r.sw.Port("vm0").Config() }}
			return dev
		}
		r = startWith(t, h, store.State{}, func(o *Options) { o.FastPath = new(fakeFast) })
		r.mustAdd("vm0")
		r.change("vm0", func(l *link.Link) { l.Carrier = true })
		dev.told()
		set := func(settings string) func() {
			return func() {
				if err := r.call("PATCH", "/v1/ports/vm0", json.RawMessage(settings), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		look := func() {
			time.Sleep(lookGap + time.Second)
			synctest.Wait()
		}
		for _, c := range []struct {
			do    func()
			calls []string
			below bool   // the device keeps it
			off   string // why the port is off the fast path
		}{
			{set(`{"rate_out": "1gbit"}`), []string{"1000000000, 1gbit"}, true, ""},
			{look, nil, true, ""},
			{set(`{"description": "x"}`), nil, true, ""},
			{set(`{"rate_out": "20mbit"}`), []string{"20000000, 20mbit"}, true, ""},
			{func() { dev.change(func() { dev.bits = 0 }); look() }, []string{"20000000, 20mbit"}, true, ""},
			{func() { dev.change(func() { dev.bits, dev.err = 0, errors.New("tbf is there") }); look() }, []string{"20000000, 20mbit"}, false, "tbf is there"},
			{look, []string{"20000000, 20mbit"}, false, "tbf is there"},
			{func() { dev.change(func() { dev.err = nil }); look() }, []string{"20000000, 20mbit"}, true, ""},
			{set(`{"rate_out": "1000pps"}`), []string{"0, 4000gbit"}, false, "no rate in frames"},
			{set(`{"rate_out": "10mbit"}`), []string{"10000000, 10mbit"}, true, ""},
			{set(`{"rate_out": "off"}`), []string{"0, 4000gbit"}, false, ""},
			{set(`{"rate_out": "1gbit"}`), []string{"1000000000, 1gbit"}, true, ""},
			// What does not come off is taken off later.
			{func() { dev.change(func() { dev.err = errors.New("no memory") }); set(`{"rate_out": "1000pps"}`)() }, []string{"0, 4000gbit"}, false, "no rate in frames"},
			{look, []string{"0, 1kpps"}, false, "no rate in frames"},
			{func() { dev.change(func() { dev.err = nil }); look() }, []string{"0, 1kpps"}, false, "no rate in frames"},
			{look, nil, false, "no rate in frames"},
			{set(`{"rate_out": "1gbit"}`), []string{"1000000000, 1gbit"}, true, ""},
		} {
			c.do()
			synctest.Wait()
			if calls := dev.told(); !slices.Equal(calls, c.calls) {
				t.Errorf("the device is told %q, want %q", calls, c.calls)
			}
			p := r.port("vm0")
			off := strings.Join(p.FastPath.Off, "; ")
			if (off == "") != (c.off == "") || !strings.Contains(off, c.off) || c.below != (p.FastPath.By == "--rate-out by a queue") {
				t.Errorf("the fast path is %+v, want it off because of %q", p.FastPath, c.off)
			}
			if config := r.sw.Port("vm0").Config(); config.ShapedBelow != c.below {
				t.Errorf("the core has %+v, want it shaped below: %v", config, c.below)
			}
		}

		// The next device gets the rate before frames come by it.
		before := dev
		before.end(port.ErrGone)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if calls := dev.told(); dev == before || !slices.Equal(calls, []string{"1000000000, 1gbit"}) || !dev.Shapes() {
			t.Errorf("the next device is told %q", calls)
		}
		if config := r.sw.Port("vm0").Config(); !config.ShapedBelow {
			t.Errorf("with the next device the core has %+v", config)
		}
	})
}
