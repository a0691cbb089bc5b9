package daemon

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// witness is a feature that remembers events and reports one number.
type witness struct {
	mu   sync.Mutex
	seen []string
}

func (l *witness) Stop() {}

func (l *witness) Observe(e api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, strings.TrimSpace(fmt.Sprintf("%s %s %s>%s %s %s", e.Type, e.Port, e.From, e.To, strings.Join(e.Keys, ","), e.Reason)))
	if e.Time.IsZero() {
		l.seen = append(l.seen, "without a time")
	}
}

var listened = feature.Metric{Name: "vswitch_listened_total", Help: "Calls of the test's feature."}

func (l *witness) Collect(add feature.Add) {
	l.mu.Lock()
	defer l.mu.Unlock()
	add(&listened, float64(len(l.seen)))
}

// take returns the events since the last call.
func (l *witness) take() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	l.seen = nil
	return seen
}

func witnessed(t *testing.T) (*rig, *witness) {
	l := new(witness)
	r := startWith(t, newFakeHost(), store.State{}, func(o *Options) {
		o.Version = "v1"
		o.Recovery = 5 * time.Minute
		o.Features = []feature.Feature{{Name: "witness", New: func(feature.Host, any) (feature.Instance, error) { return l, nil }}}
	})
	return r, l
}

// Features hear what happens, in the order in which it does.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := witnessed(t)
		want := func(what string, events ...string) {
			t.Helper()
			if diff := cmp.Diff(events, l.take()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		want("at the start", "daemon.started  >  v1")
		r.mustAdd("vm0")
		want("a port", "port.added vm0 >", "port.state vm0 >no-carrier  the other end of vm0 is down or not there")
		r.change("vm0", func(l *link.Link) { l.Carrier = true })
		want("its link", "port.state vm0 no-carrier>up")
		if err := r.set("vm0", api.Settings{"mtu": 1400}); err != nil {
			t.Fatal(err)
		}
		want("a setting", "port.changed vm0 > mtu")
		r.trip("vm0")
		want("a guard", "port.disabled vm0 >  test guard", "port.state vm0 up>down  err-disabled: test guard")
		time.Sleep(5 * time.Minute)
		want("its end", "port.recovered vm0 >", "port.state vm0 down>up")
		r.trip("vm0")
		l.take()
		if err := r.set("vm0", api.Settings{}); err != nil {
			t.Fatal(err)
		}
		want("its end by a user", "port.recovered vm0 >", "port.state vm0 down>up")
		const setDown = "interface vm0 is set down; `ip link set vm0 up` brings it back"
		r.change("vm0", func(l *link.Link) { l.Up = false })
		want("somebody sets it down", "port.state vm0 up>down  "+setDown)
		r.trip("vm0")
		want("another reason", "port.disabled vm0 >  test guard", "port.state vm0 down>down  err-disabled: test guard")
		if err := r.set("vm0", api.Settings{}); err != nil {
			t.Fatal(err)
		}
		want("the first one again", "port.recovered vm0 >", "port.state vm0 down>down  "+setDown)
		r.change("vm0", func(l *link.Link) { l.Up = true })
		want("its end", "port.state vm0 down>up")
		r.mustSetSwitch(`{"aging":"60s"}`)
		want("the switch", "switch.changed  > aging")
		if err := r.do(func() error { return r.delPort("vm0", true) }); err != nil {
			t.Fatal(err)
		}
		want("a port that goes", "port.removed vm0 >")
		r.stop()
		want("at the end", "daemon.stopping  >")
	})
}

// The daemon reports its numbers and those of its features.
func TestCollect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := witnessed(t)
		r.mustAdd("vm0")
		r.change("vm0", func(l *link.Link) { l.Carrier = true })
		_ = r.do(func() error {
			p := r.ports["vm0"].spec
			p.Policy.Access = 20
			return r.respec(r.ports["vm0"], p)
		})
		r.trip("vm0")
		for _, result := range []error{nil, errors.New("refused")} {
			if err := r.manager.change(func() error { return result }); err != result {
				t.Error(err)
			}
		}
		got := make(map[string]float64)
		_ = r.do(func() error {
			r.collect(func(m *feature.Metric, v float64, labels ...string) {
				if len(labels) != len(m.Labels) || m.Help == "" {
					t.Errorf("%s has labels %q for %q, and the help %q", m.Name, labels, m.Labels, m.Help)
				}
				got[m.Name+" "+strings.Join(labels, " ")] = v
			})
			return nil
		})
		for series, want := range map[string]float64{
			"vswitch_build_info v1 ":                   1,
			"vswitch_config_generation ":               1, // of those that come as commands; one failed
			"vswitch_config_confirm_deadline_seconds ": 0,
			"vswitch_port_state vm0 down":              1,
			"vswitch_port_state vm0 up":                0,
			"vswitch_port_error_disabled vm0":          1,
			"vswitch_port_info vm0 fake vm0 access 20": 1,
			"vswitch_port_mtu_bytes vm0":               1500,
			"vswitch_port_queues vm0":                  1,
			"vswitch_fdb_capacity ":                    65536,
			"vswitch_fastpath_enabled ":                0,
			"vswitch_listened_total ":                  float64(len(l.seen)),
			"vswitch_start_time_seconds ":              946684800, // when time begins in the test's bubble
		} {
			if v, ok := got[series]; ok != (want >= 0) || ok && v != want {
				t.Errorf("%s is %v (%v), want %v", series, v, ok, want)
			}
		}
	})
}

// How many frames come at once, and how long calls take, is reported as distributions.
func TestDistributions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, func(*Options) {}, vm("vm0"))
		for range 3 {
			w.send("vm0", ethernet(port.Broadcast, 0x525400000001))
		}
		for range 2 {
			if err := w.call("GET", "/v1/ports", nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		got := make(map[string]feature.Distribution)
		w.distributions(func(m *feature.Metric, d feature.Distribution, labels ...string) {
			if len(labels) != len(m.Labels) || m.Help == "" {
				t.Errorf("%s has labels %q for %q, and the help %q", m.Name, labels, m.Labels, m.Help)
			}
			got[m.Name+" "+strings.Join(labels, " ")] = d
		})
		frames := got[batchFrames.Name+" "]
		if frames.Count != 3 || frames.Sum != 3 {
			t.Errorf("batches of frames are %+v", frames)
		}
		for n, count := range frames.AtMost {
			if n < 1 || count != 3 {
				t.Errorf("of batches with at most %v frames there are %d", n, count)
			}
		}
		if frames.AtMost[1] != 3 || frames.AtMost[2] != 3 {
			t.Errorf("batches of frames are %+v", frames)
		}
		if calls := got[apiDuration.Name+" GET /v1/ports"]; calls.Count != 2 {
			t.Errorf("calls are %+v", calls)
		}
		if _, ok := got[saveDuration.Name+" "]; !ok {
			t.Error("how long saves take is not there")
		}
	})
}
