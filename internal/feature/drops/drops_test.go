package drops

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// rig is a switch with the ports vm0 and vm1 and the feature.
type rig struct {
	*drops
	t     *testing.T
	host  *featuretest.Host
	ports []*featuretest.Port
	lines []*memory.Port
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, host: featuretest.New(t)}
	r.drops = newDrops(r.host)
	for _, name := range []string{"vm0", "vm1"} {
		p := r.host.Add(t, port.Spec{Name: name, Kind: "tap"}, true)
		line := memory.New(memory.Options{Depth: 4})
		if err := p.Core().Attach(line); err != nil {
			t.Fatal(err)
		}
		p.Core().SetForwarding(true)
		r.ports, r.lines = append(r.ports, p), append(r.lines, line)
	}
	return r
}

// put puts frames to a port until the switch has them.
func (r *rig) put(number int, frames ...[]byte) {
	r.t.Helper()
	for _, f := range frames {
		for deadline := time.Now().Add(time.Minute); r.lines[number].Put(0, memory.Packet{Wire: slices.Clone(f)}) != 1; time.Sleep(time.Microsecond) {
			if time.Now().After(deadline) {
				r.t.Fatal("the line stays full")
			}
		}
	}
}

// Frames that are dropped for different reasons.
var (
	runt      = make([]byte, 5)
	badSource = make([]byte, 60)
	reserved  = frame(0x0180_c200_000e, 0x5254_0000_0001)
	toAll     = frame(port.Broadcast, 0x5254_0000_0001)
)

func frame(dst, src port.MAC) []byte {
	b := append(dst.HardwareAddr(), src.HardwareAddr()...)
	return append(b, make([]byte, 48)...)
}

// ask calls a route of the API that is handled in the turn.
func (r *rig) ask(query string) ([]Dropped, error) {
	all, err := r.list(httptest.NewRequest("GET", "/v1/drops/recent?"+query, nil))
	if err != nil {
		return nil, err
	}
	return all.([]Dropped), nil
}

// reasonsOf returns the reasons of dropped frames with their ports.
func reasonsOf(all []Dropped) (names []string) {
	for _, d := range all {
		names = append(names, d.Port+" "+string(d.Direction)+" "+d.Reason)
	}
	return names
}

// The last frames of each port and reason are kept, however many others there are.
func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.Stop()
		for _, frame := range [][]byte{reserved, badSource, runt} {
			r.put(0, frame)
			time.Sleep(time.Millisecond)
		}
		r.put(1, runt)
		synctest.Wait()
		r.put(0, toAll) // known now: vm0
		synctest.Wait()
		r.put(1, frame(0x5254_0000_0001, 0x5254_0000_0001))
		synctest.Wait()
		for range 5000 { // a flood, and the line of vm1 is full
			r.put(0, runt, toAll)
			synctest.Wait()
		}
		all, err := r.ask("")
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		for _, name := range reasonsOf(all) {
			count[name]++
		}
		want := map[string]int{"vm0 rx reserved_address": 1, "vm0 rx bad_source": 1, "vm0 rx runt": keep, "vm1 rx runt": 1, "vm1 tx queue_full": keep, "vm1 rx same_port": 1}
		for name, n := range want {
			if count[name] != n {
				t.Errorf("%d of %s are kept, want %d; all: %v", count[name], name, n, count)
			}
		}
		first := all[0]
		if first.Reason != "reserved_address" || first.Length != 60 || len(first.Data) != 60 || first.VLAN != 1 ||
			first.Frame != "52:54:00:00:00:01 > 01:80:c2:00:00:0e LLC 0x00 > 0x00 len 60" || !strings.HasPrefix(first.Words, "to an address that bridges") {
			t.Errorf("the first is %+v", first)
		}

		for query, want := range map[string][]string{
			"reason=bad_source":                         {"vm0 rx bad_source"},
			"reason=bad_source&reason=reserved_address": {"vm0 rx reserved_address", "vm0 rx bad_source"},
			"port=vm1&reason=runt":                      {"vm1 rx runt"},
			"filter=ether+dst+01:80:c2:00:00:0e":        {"vm0 rx reserved_address"},
			"filter=greater+61":                         nil,
		} {
			all, err := r.ask(query)
			if err != nil || !slices.Equal(reasonsOf(all), want) {
				t.Errorf("%s: %v, %v; want %v", query, reasonsOf(all), err, want)
			}
		}
		for _, query := range []string{"port=vm9", "reason=nosuch", "filter=foo", "x=1"} {
			if all, err := r.ask(query); err == nil {
				t.Errorf("%s: %v", query, all)
			}
		}

		// A port that takes the number has none of them.
		r.Removed(r.ports[0])
		if all, _ := r.ask("port=vm0"); len(all) != 0 {
			t.Errorf("a removed port has %v", reasonsOf(all))
		}
	})
}

// Samples come at the rate, tell what was missed between them, and one flood costs the others
// nothing.
func TestSampler(t *testing.T) {
	var s sampler
	now := time.Unix(1_000_000, 0)
	var taken, missed, others uint64
	for i := range 10_000 { // a frame each millisecond
		now = now.Add(time.Millisecond)
		if n, ok := s.take(7, port.DropRunt, now); ok {
			taken++
			missed += n
		}
		if i%100 == 0 {
			if n, ok := s.take(7, port.DropLocked, now); ok && n == 0 {
				others++
			}
			if n, ok := s.take(8, port.DropRunt, now); ok && n == 0 {
				others++
			}
		}
	}
	if taken < 100 || taken > 100+sampleBurst || others != 200 {
		t.Errorf("%d samples of a flood of 10 s, %d of 200 others", taken, others)
	}
	if n, ok := s.take(7, port.DropRunt, now.Add(time.Hour)); !ok || taken+missed+n != 10_000 {
		t.Errorf("%d taken, %d and %d missed", taken, missed, n)
	}
	if _, ok := s.take(8, port.DropRunt, now.Add(-time.Hour)); !ok {
		t.Error("no sample since somebody set the clock back")
	}
	s.forget(7)
	if n, ok := s.take(7, port.DropRunt, now); !ok || n != 0 {
		t.Errorf("a new port begins with %d missed", n)
	}
}

// A follower gets what is dropped from then on and is selected, and the frames that its filter
// does not select hide none.
func TestFollow(t *testing.T) {
	r := newRig(t)
	server := httptest.NewServer(http.HandlerFunc(r.follow))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	open := func(query string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/v1/drops/follow?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	r.put(0, runt)
	a := open("port=vm0&filter=ether+src+00:00:00:00:00:00+and+less+100")
	var long []byte
	long = append(long, badSource...)
	long = append(long, make([]byte, 1000)...)
	for range 1000 {
		r.put(0, long)
	}
	r.put(1, badSource)
	r.put(0, badSource)
	d := json.NewDecoder(bufio.NewReader(a.Body))
	var got Dropped
	if err := d.Decode(&got); err != nil || got.Port != "vm0" || got.Reason != "bad_source" || got.Length != 60 || got.Missed != 0 || len(got.Data) != 60 {
		t.Errorf("%v: the first is %+v", err, got)
	}
	if a := open("port=vm9"); a.StatusCode != http.StatusNotFound {
		t.Errorf("of no port: %v", a.Status)
	}
	if a := open("filter=foo"); a.StatusCode != http.StatusBadRequest {
		t.Errorf("by no filter: %v", a.Status)
	}
	for range maxFollowers - 1 {
		open("")
	}
	if a := open(""); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one too many: %v", a.Status)
	}
	r.Stop()
	if err := d.Decode(&got); err == nil {
		t.Errorf("after the end comes %+v", got)
	}
}

// A follower that does not read is told how many it missed.
func TestSlowFollower(t *testing.T) {
	r := newRig(t)
	defer r.Stop()
	want, err := newSelection(&query{})
	if err != nil {
		t.Fatal(err)
	}
	f := newFollower(want)
	f.waiting = make([]sample, maxWaiting)
	v := sightOf(r, runt)
	f.see(v)
	if got := f.samples(); len(got) != maxWaiting {
		t.Fatalf("%d wait", len(got))
	}
	f.see(v)
	if got := f.samples(); len(got) != 1 || got[0].missed != 1 {
		t.Errorf("then %d wait, the first says %+v", len(got), got)
	}
}

// sightOf returns what a watch sees of a dropped frame.
func sightOf(r *rig, wire []byte) vswitch.Sight {
	return vswitch.Sight{Port: r.ports[0].Core(), Out: port.Out{Frame: &port.Frame{Data: wire}, Drop: port.DropRunt}}
}
