package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/packet/pcapng"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// rig is a switch with the ports vm0 and vm1, whose captures a server serves.
type rig struct {
	*captures
	t      *testing.T
	lines  []*memory.Port
	server *httptest.Server
	number uint32 // of the last frame
}

func newRig(t *testing.T) *rig {
	host := featuretest.New(t)
	r := &rig{t: t, captures: newCaptures(host)}
	for _, name := range []string{"vm0", "vm1"} {
		p := host.Add(t, port.Spec{Name: name, Kind: "tap"}, true)
		line := memory.New(memory.Options{Depth: 256})
		if err := p.Core().Attach(line); err != nil {
			t.Fatal(err)
		}
		p.Core().SetForwarding(true)
		r.Configured(p)
		r.lines = append(r.lines, line)
	}
	r.server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.server.Close)
	return r
}

// open begins a capture with a query.
func (r *rig) open(query string) *http.Response {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", r.server.URL+"/v1/capture?"+query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cancel(); a.Body.Close() })
	return a
}

// send puts a broadcast frame of a size to vm0, which has its number in it, and returns when
// vm1 has it.
func (r *rig) send(size int) {
	r.t.Helper()
	r.number++
	b := append(port.Broadcast.HardwareAddr(), 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5)
	b = binary.BigEndian.AppendUint32(b, r.number)
	b = append(b, make([]byte, size-len(b))...)
	if r.lines[0].Put(0, memory.Packet{Wire: b}) != 1 {
		r.t.Fatal("the line is full")
	}
	var buf [2048]byte
	if _, err := r.lines[1].Take(0, buf[:0]); err != nil {
		r.t.Fatal(err)
	}
}

// next returns the next packet of a capture.
func next(t *testing.T, r *pcapng.Reader) *pcapng.Packet {
	t.Helper()
	for {
		p, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if p != nil {
			return p
		}
	}
}

// A client that does not read holds up no frame. It gets those that there was room for, and
// is told of the others.
func TestSlowClient(t *testing.T) {
	r := newRig(t)
	a := r.open("port=vm0&direction=in")
	const size = 1500
	flood := 0
	for ; flood < 20000; flood++ { // 30 MB: more than the buffers of both sides have room for
		r.send(size)
	}
	capture := pcapng.NewReader(a.Body)
	var frames, lost uint64
	for lost == 0 || frames+lost < uint64(flood)+1 {
		if frames+lost >= uint64(flood) || frames%1000 == 0 {
			r.send(60) // there is room again, so that what was lost becomes known
			flood++
		}
		p := next(t, capture)
		frames++
		lost += p.Lost
		if number := binary.BigEndian.Uint32(p.Data[14:]); uint64(number) != frames+lost {
			t.Fatalf("frame %d comes after %d others, and %d are said to be lost", number, frames-1, lost)
		}
		if lost > 0 && frames+lost > 20000 {
			break
		}
	}
	if lost == 0 || frames == 0 {
		t.Errorf("%d frames, %d lost", frames, lost)
	}
}

// A capture is of what the query asks for.
func TestQuery(t *testing.T) {
	r := newRig(t)
	for query, want := range map[string]struct {
		port      string
		direction pcapng.Direction
		length    int
	}{
		"port=vm0&count=1":               {"vm0", pcapng.In, 60},
		"port=vm1&count=1&snaplen=20":    {"vm1", pcapng.Out, 20},
		"direction=out&count=1":          {"vm1", pcapng.Out, 60},
		"count=1&filter=greater+100":     {"vm0", pcapng.In, 200},
		"port=vm1&port=vm0&count=1":      {"vm0", pcapng.In, 60},
		"direction=in&count=1&port=":     {"vm0", pcapng.In, 60},
		"direction=both&count=1":         {"vm0", pcapng.In, 60},
		"port=vm1&direction=&count=1":    {"vm1", pcapng.Out, 60},
		"filter=ether+broadcast&count=1": {"vm0", pcapng.In, 60},
	} {
		a := r.open(query)
		if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/x-pcapng" {
			t.Fatalf("%s: %v", query, a)
		}
		r.send(60)
		r.send(200)
		capture := pcapng.NewReader(a.Body)
		p := next(t, capture)
		i := capture.Interface(p.Interface)
		if i.Name != want.port || i.Description != "tap" || p.Direction != want.direction || len(p.Data) != want.length || time.Since(p.Time) > time.Hour {
			t.Errorf("%s: %+v at %+v", query, p, i)
		}
		if _, err := capture.Next(); err != io.EOF {
			t.Errorf("%s: does not end: %v", query, err)
		}
	}
	for query, want := range map[string]int{
		"port=vm9": 404, "filter=foo": 400, "direction=up": 400, "count=-1": 400, "snaplen=5": 400, "nosuch=1": 400, "drops=maybe": 400,
	} {
		a := r.open(query)
		b, _ := io.ReadAll(a.Body)
		if a.StatusCode != want || strings.Count(string(b), "\n") != 1 {
			t.Errorf("%s: status %d: %s", query, a.StatusCode, b)
		}
	}
}

// Dropped frames have their reason, and a capture of drops has no other frames.
func TestDrops(t *testing.T) {
	r := newRig(t)
	a := r.open(url.Values{"drops": {"on"}, "count": {"2"}}.Encode())
	r.send(60)
	r.lines[0].Put(0, memory.Packet{Wire: make([]byte, 5)}, memory.Packet{Wire: make([]byte, 60)})
	capture := pcapng.NewReader(a.Body)
	for _, want := range []string{"dropped: runt (shorter than an Ethernet header)", "dropped: bad_source (its source address is zero or a group address)"} {
		if p := next(t, capture); p.Comment != want || p.Direction != pcapng.In {
			t.Errorf("%+v, want %s", p, want)
		}
	}
}

// The daemon ends although a client does not read, and more clients than are allowed are
// refused.
func TestEnd(t *testing.T) {
	r := newRig(t)
	var all []*http.Response
	for range maxCaptures {
		all = append(all, r.open("port=vm0"))
	}
	if a := r.open("port=vm0"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one too many: status %d", a.StatusCode)
	}
	for range 8000 {
		r.send(1500)
	}
	r.captures.Stop()
	for _, a := range all {
		capture := pcapng.NewReader(a.Body)
		var err error
		for err == nil {
			_, err = capture.Next()
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	// A client that left makes room.
	for deadline := time.Now().Add(time.Minute); r.running.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d captures are left", r.running.Load())
		}
	}
}
