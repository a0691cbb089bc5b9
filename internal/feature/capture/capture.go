// Package capture shows frames as they pass: a client of the API gets those of some ports, or
// those that are lost, as a pcapng stream. Each client has a buffer of its own. Workers copy
// frames into it and never wait: what does not fit is counted, and the client is told.
package capture

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/packet/pcapng"
	"github.com/vswitch/vswitch/internal/packet/pfilter"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Feature is the feature of the program.
var Feature = feature.Feature{
	Name: "capture",
	Help: "see frames as they pass",
	New:  func(h feature.Host, _ any) (feature.Instance, error) { return newCaptures(h), nil },
	Routes: []feature.Route{{
		Method: "GET", Path: "/v1/capture",
		Help:  "the frames that ports receive and send, or that are lost, from now on, as pcapng",
		Query: query{}, Type: "application/x-pcapng",
		Serve: func(i feature.Instance, w http.ResponseWriter, r *http.Request) { i.(*captures).serve(w, r) },
	}},
	Commands: []feature.Command{command},
}

// query says what to capture.
type query struct {
	Port      []string  `json:"port" arg:"PORTS" help:"capture at these ports" default:"all"`
	Direction direction `json:"direction" arg:"WHICH" help:"capture frames that the port received (in), sent (out), or both" default:"both"`
	Drops     bool      `json:"drops" help:"capture only frames that were dropped, each with the reason"`
	SnapLen   int       `json:"snaplen" short:"s" arg:"BYTES" min:"14" max:"262144" help:"keep the first bytes of each frame" default:"all"`
	Count     uint32    `json:"count" short:"c" arg:"N" min:"1" help:"end after so many frames" default:"no end"`
	Filter    string    `json:"filter" arg:"EXPR" help:"capture frames that match the expression" default:"all"`
}

// direction is which of a port's frames are captured.
type direction string

// Values implements setting.Enum.
func (direction) Values() []string { return []string{"in", "out", "both"} }

// maxCaptures is how many clients capture at once: a few people, and their tools. Each has
// bufferSize bytes.
const maxCaptures = 8

// captures are the running captures of a switch.
type captures struct {
	host    feature.Host
	running atomic.Int32
	stop    chan struct{}

	mu    sync.Mutex
	words map[string]string // what each port is, by its name
}

func newCaptures(h feature.Host) *captures {
	return &captures{host: h, stop: make(chan struct{}), words: map[string]string{}}
}

// Stop implements feature.Instance.
func (c *captures) Stop() { close(c.stop) }

// Configured implements feature.Configured.
func (c *captures) Configured(p feature.Port) {
	spec := p.Spec()
	words := string(spec.Kind)
	if spec.Description != "" {
		words += ", " + spec.Description
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.words[p.Name()] = words
}

// Removed implements feature.Removed.
func (c *captures) Removed(p feature.Port) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.words, p.Name())
}

// describe describes a port as an interface of a capture.
func (c *captures) describe(name string) (words string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	words, ok = c.words[name]
	return words, ok
}

// newSession returns what a query asks for.
func (c *captures) newSession(q *query) (*session, error) {
	for _, name := range q.Port {
		if _, ok := c.describe(name); !ok {
			return nil, feature.NoPort(name)
		}
	}
	s := &session{
		query: *q, describe: c.describe,
		full: make(chan struct{}, 1), ports: make(map[*vswitch.Port]*captured),
	}
	if q.Filter != "" {
		filter, err := pfilter.Compile(q.Filter)
		if err != nil {
			return nil, api.Errorf(api.CodeInvalid, "%w", err)
		}
		s.filter = filter
	}
	s.buffer = make([]byte, 0, bufferSize)
	s.buffer = pcapng.AppendSection(s.buffer, "vswitch")
	for _, name := range slices.Compact(slices.Sorted(slices.Values(q.Port))) {
		s.addInterface(name)
		s.named = append(s.named, name)
	}
	return s, nil
}

// serve answers GET /v1/capture.
func (c *captures) serve(w http.ResponseWriter, r *http.Request) {
	q, err := feature.Query[query](r)
	var s *session
	if err == nil {
		s, err = c.newSession(&q)
	}
	if err == nil && c.running.Add(1) > maxCaptures {
		c.running.Add(-1)
		err = api.Errorf(api.CodeBusy, "%d captures run already; end one of them", maxCaptures)
	}
	if err != nil {
		feature.Refuse(w, err)
		return
	}
	defer c.running.Add(-1)
	c.host.Log().Info("a capture begins", "ports", strings.Join(q.Port, ","), "drops", q.Drops, "filter", q.Filter)
	stop := c.host.Switch().Watch(s.watch())
	defer func() {
		stop()
		c.host.Log().Info("a capture ends", "frames", s.seen())
	}()
	feature.Stream(w, r, "application/x-pcapng", s.full, c.stop, s.write())
}

// watch returns what the session wants of the switch.
func (s *session) watch() *vswitch.Watch {
	w := &vswitch.Watch{Ports: s.Port, SnapLen: s.SnapLen, See: s.see}
	if s.Drops {
		w.Drops, w.Punt = true, true
	} else {
		w.In, w.Out = s.Direction != "out", s.Direction != "in"
	}
	return w
}

// write returns a function that writes what was captured since it was last called, and reports
// whether that is all.
func (s *session) write() func(w io.Writer) (done bool, err error) {
	var spare []byte
	return func(w io.Writer) (bool, error) {
		b, done := s.take(spare)
		spare = b[:0]
		if len(b) == 0 {
			return done, nil
		}
		_, err := w.Write(b)
		return done, err
	}
}

// comments are what a capture says of dropped frames.
var comments = func() (all [port.NumDrops]string) {
	for d := port.DropNone + 1; d < port.NumDrops; d++ {
		i := d.Info()
		all[d] = "dropped: " + i.Name + " (" + strings.ReplaceAll(i.Words, "DEV", "the device") + ")"
	}
	all[port.DropConsumed] = "taken by the switch itself"
	return all
}()
