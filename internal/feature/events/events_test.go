package events

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
)

var _ interface {
	feature.Instance
	feature.Observed
} = (*hub)(nil)

func added(port string) api.Event {
	return api.Event{Type: api.EventPortAdded, Port: port, Time: time.Now()}
}

func filled(size, n int) *ring {
	r := newRing("e1", size)
	for i := range n {
		r.add(api.Event{Type: api.EventPortAdded, Port: fmt.Sprintf("vm%d", i+1), Time: time.Unix(int64(i+1), 0)})
	}
	return r
}

func TestRing(t *testing.T) {
	for _, c := range []struct {
		size, n     int
		after       uint64
		most        int
		first, last uint64 // of what is returned; 0: nothing
		lost        uint64
	}{
		{4, 0, 0, 10, 0, 0, 0},
		{4, 3, 0, 10, 1, 3, 0},
		{4, 3, 2, 10, 3, 3, 0},
		{4, 3, 3, 10, 0, 0, 0},
		{4, 4, 0, 10, 1, 4, 0},
		{4, 5, 0, 10, 2, 5, 1},
		{4, 5, 1, 10, 2, 5, 0},
		{4, 11, 2, 10, 8, 11, 5},
		{4, 11, 2, 2, 8, 9, 5},
		{4, 11, 9, 1, 10, 10, 0},
	} {
		b := filled(c.size, c.n).after(c.after, c.most)
		var first, last uint64
		for i, e := range b.events {
			if e.Port != fmt.Sprintf("vm%d", e.Seq) || e.Epoch != "e1" {
				t.Errorf("%+v: event %d is %+v", c, i, e)
			}
			if last = e.Seq; i == 0 {
				first = e.Seq
			}
		}
		if first != c.first || last != c.last || b.lost != c.lost || (b.news == nil) != (len(b.events) > 0) || b.ended {
			t.Errorf("%+v: events %d to %d, %d lost, news %v", c, first, last, b.lost, b.news != nil)
		}
	}
}

func TestRingSince(t *testing.T) {
	r := filled(4, 6) // has those of seconds 3 to 6
	for second, want := range map[int64]uint64{0: 2, 3: 2, 4: 3, 6: 5, 7: 6} {
		if got := r.since(time.Unix(second, 0)); got != want {
			t.Errorf("since second %d: after %d, want %d", second, got, want)
		}
	}
	if got := newRing("e1", 4).since(time.Now()); got != 0 {
		t.Errorf("an empty ring: after %d", got)
	}
}

func TestRingFind(t *testing.T) {
	r := filled(4, 6)
	for text, want := range map[string]string{
		"2": "", "6": "", "e1-3": "", "e1-6": "",
		"1": "forgotten", "e1-0": "forgotten", "7": "the last is 6", "e2-6": "earlier run",
	} {
		c, err := api.ParseCursor(text)
		if err != nil {
			t.Fatal(err)
		}
		if seq, err := r.find(c); want == "" && (err != nil || seq != c.Seq) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %d, %v; want %q", text, seq, err, want)
		}
	}
}

// What a guest can cause at one port hides nothing of others, and is summed up.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := featuretest.New(t)
		var h *hub
		host.Do(func() { h = start(host) })
		defer host.Do(func() { h.Stop() })
		state := func(port string) {
			h.Observe(api.Event{Type: api.EventPortState, Port: port, Time: time.Now()})
		}
		for range 1000 {
			state("vm0")
		}
		state("vm1")
		h.Observe(added("vm0"))
		if got := h.ring.newest(); got != burst+2 {
			t.Errorf("%d events are remembered, want %d", got, burst+2)
		}
		time.Sleep(report)
		synctest.Wait()
		b := h.ring.after(burst+2, 10)
		if len(b.events) != 1 || b.events[0].Type != api.EventLimited || b.events[0].Port != "vm0" || b.events[0].Count != 1000-burst || b.events[0].Reason != api.EventPortState {
			t.Errorf("they are summed up as %+v", b.events)
		}
		for range 1000 {
			state("vm0")
		}
		if got, want := h.ring.newest(), uint64(burst+3+report/refill); got != want {
			t.Errorf("a minute later %d events are remembered, want %d", got, want)
		}
		time.Sleep(time.Hour)
		if n := len(h.limits); n != 0 {
			t.Errorf("%d ports that are silent are still remembered", n)
		}
		// What users do is never left out.
		was := h.ring.newest()
		for range 100 {
			h.Observe(api.Event{Type: api.EventPortChanged, Port: "vm0", Time: time.Now()})
		}
		if got := h.ring.newest() - was; got != 100 {
			t.Errorf("%d of a user's 100 changes are remembered", got)
		}
	})
}

// server serves a hub until the test ends.
func server(t *testing.T) (*hub, string) {
	t.Helper()
	h := start(featuretest.New(t))
	s := httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(func() { h.Stop(); s.Close() })
	return h, s.URL
}

func get(t *testing.T, url string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Body.Close() })
	return a
}

// lines reads all events of an answer that ends.
func lines(t *testing.T, a *http.Response) (all []string) {
	t.Helper()
	for d := json.NewDecoder(a.Body); d.More(); {
		var e api.Event
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d %s %s", e.Seq, e.Type, e.Port))
	}
	return all
}

func TestLines(t *testing.T) {
	h, url := server(t)
	h.Observe(api.Event{Type: api.EventDaemonStarted, Time: time.Now()})
	h.Observe(added("vm0"))
	h.Observe(api.Event{Type: api.EventPortState, Port: "vm0", From: "waiting", To: "up", Time: time.Now()})
	h.Observe(api.Event{Type: api.EventFDBMoved, Port: "vm1", From: "vm0", MAC: 1, Time: time.Now()})
	h.Observe(added("vm1"))
	for query, want := range map[string]string{
		"":                              "1 daemon.started |2 port.added vm0|3 port.state vm0|4 fdb.moved vm1|5 port.added vm1",
		"?since=3":                      "4 fdb.moved vm1|5 port.added vm1",
		"?since=" + h.ring.epoch + "-4": "5 port.added vm1",
		"?since=1h":                     "1 daemon.started |2 port.added vm0|3 port.state vm0|4 fdb.moved vm1|5 port.added vm1",
		"?since=0":                      "1 daemon.started |2 port.added vm0|3 port.state vm0|4 fdb.moved vm1|5 port.added vm1",
		"?port=vm0":                     "2 port.added vm0|3 port.state vm0|4 fdb.moved vm1",
		"?port=vm1":                     "4 fdb.moved vm1|5 port.added vm1",
		"?port=up":                      "",
		"?type=fdb&type=port.added":     "2 port.added vm0|4 fdb.moved vm1|5 port.added vm1",
		"?type=port&port=vm1":           "5 port.added vm1",
	} {
		a := get(t, url+query)
		if kind := a.Header.Get("Content-Type"); a.StatusCode != http.StatusOK || kind != "application/x-ndjson" {
			t.Errorf("%s: %s, %s", query, a.Status, kind)
		}
		if diff := cmp.Diff(want, strings.Join(lines(t, a), "|")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	for query, want := range map[string]int{
		"?since=6": http.StatusGone, "?since=ffff-1": http.StatusGone, "?since=x": http.StatusBadRequest, "?since=-5": http.StatusBadRequest,
		"?type=nonsense": http.StatusBadRequest, "?follow=2": http.StatusBadRequest, "?sinse=1": http.StatusBadRequest,
	} {
		a := get(t, url+query)
		var e api.Error
		if err := json.NewDecoder(a.Body).Decode(&e); err != nil || a.StatusCode != want || e.Message == "" {
			t.Errorf("%s: %s, %+v, %v; want %d", query, a.Status, e, err, want)
		}
	}
}

// next reads the next server-sent event.
func next(t *testing.T, in *bufio.Reader) (id string, e api.Event) {
	t.Helper()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := strings.CutPrefix(line, "id: "); ok {
			id = strings.TrimSpace(s)
		}
		if s, ok := strings.CutPrefix(line, "data: "); ok {
			if err := json.Unmarshal([]byte(s), &e); err != nil {
				t.Fatal(err)
			}
		}
		if line == "\n" && id != "" {
			return id, e
		}
	}
}

// A stream begins with what happens after it, goes on from where a lost one was, and ends
// with the daemon.
func TestStream(t *testing.T) {
	h, url := server(t)
	h.Observe(added("before"))
	a := get(t, url, "Accept", "text/event-stream")
	if kind := a.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("it is %s", kind)
	}
	h.Observe(added("vm0"))
	in := bufio.NewReader(a.Body)
	id, e := next(t, in)
	if e.Port != "vm0" || id != h.ring.epoch+"-2" || e.ID() != id {
		t.Errorf("the first is %s, %+v", id, e)
	}
	a.Body.Close()
	h.Observe(added("vm1"))
	h.Observe(added("vm2"))
	in = bufio.NewReader(get(t, url, "Accept", "text/event-stream", "Last-Event-ID", id).Body)
	for _, want := range []string{"vm1", "vm2"} {
		if _, e = next(t, in); e.Port != want {
			t.Errorf("after it comes %+v, want %s", e, want)
		}
	}
	h.Observe(api.Event{Type: api.EventDaemonStopping, Time: time.Now()})
	h.Stop()
	if _, e = next(t, in); e.Type != api.EventDaemonStopping {
		t.Errorf("the last is %+v", e)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("the stream goes on after the daemon's end")
	}
}

// A reader that does not read delays nobody, and learns how much it missed.
func TestSlowReader(t *testing.T) {
	h, url := server(t)
	a := get(t, url+"?follow=true&since=0")
	long := strings.Repeat("x", 1000)
	const n = 6 * ringSize // more than the ring and the connection hold
	for i := range n {
		h.Observe(api.Event{Type: api.EventPortChanged, Port: fmt.Sprint(i), Reason: long, Time: time.Now()})
		if i == n/2 {
			// A second reader is up to date meanwhile.
			if got := lines(t, get(t, url+"?since=1h")); len(got) != ringSize {
				t.Errorf("another reader gets %d events", len(got))
			}
		}
	}
	h.Stop()
	var got, missed uint64
	for d := json.NewDecoder(a.Body); d.More(); {
		var e api.Event
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Type == api.EventLost {
			missed += e.Count
		} else {
			got++
		}
		if e.Seq != got+missed {
			t.Fatalf("event %d after %d that came and %d that were lost", e.Seq, got, missed)
		}
	}
	if got+missed != n || missed == 0 {
		t.Errorf("of %d events %d came and %d were reported as lost", n, got, missed)
	}
}

// Readers leave room for other clients of the daemon.
func TestReadersAreLimited(t *testing.T) {
	h, url := server(t)
	var all []*http.Response
	for range maxReaders {
		a := get(t, url+"?follow=true")
		if a.StatusCode != http.StatusOK {
			t.Fatal(a.Status)
		}
		all = append(all, a)
	}
	if a := get(t, url); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more: %s", a.Status)
	}
	h.Stop()
	for _, a := range all {
		if _, err := bufio.NewReader(a.Body).ReadByte(); err == nil {
			t.Error("a reader goes on after the end")
		}
	}
}

func TestText(t *testing.T) {
	at := time.Date(2026, 11, 26, 1, 2, 3, 4e6, time.Local)
	for want, e := range map[string]api.Event{
		"2026-11-26 01:02:03.004  7  port.state  vm0  up → no-carrier: no virtual machine holds TAP vm0": {
			Seq: 7, Time: at, Type: "port.state", Port: "vm0", From: "up", To: "no-carrier", Reason: "no virtual machine holds TAP vm0"},
		"2026-11-26 01:02:03.004  8  fdb.moved  vm1  52:54:00:00:00:01 vlan 20  from vm0": {
			Seq: 8, Time: at, Type: "fdb.moved", Port: "vm1", From: "vm0", MAC: 0x525400000001, VLAN: 20},
		"2026-11-26 01:02:03.004  9  lost  37 events":                 {Seq: 9, Time: at, Type: "lost", Count: 37},
		"2026-11-26 01:02:03.004  9  lost  1 event":                   {Seq: 9, Time: at, Type: "lost", Count: 1},
		"2026-11-26 01:02:03.004  9  config.applied  2 changes: x":    {Seq: 9, Time: at, Type: "config.applied", Count: 2, Reason: "x"},
		"2026-11-26 01:02:03.004  10  switch.changed  aging, stp":     {Seq: 10, Time: at, Type: "switch.changed", Keys: []string{"aging", "stp"}},
		"2026-11-26 01:02:03.004  11  stp.changed  p1: a?[2Jb":        {Seq: 11, Time: at, Type: "stp.changed", Port: "p1", Reason: "a\x1b[2Jb"},
		"2026-11-26 01:02:03.004  12  port.state  vm0  waiting: gone": {Seq: 12, Time: at, Type: "port.state", Port: "vm0", To: "waiting", Reason: "gone"},
	} {
		if got := text(&e); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
