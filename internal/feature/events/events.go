// Package events tells people and programs what happens to the switch, as it happens. The
// daemon and the features say it once, see feature.Observed; this package remembers the last
// few thousand events and serves them as lines of JSON or as server-sent events. Readers come
// in any number and at any speed, and nothing waits for them.
package events

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
)

// Feature describes the events.
var Feature = feature.Feature{
	Name: "events",
	Help: "tells what happens to the switch",
	New:  func(host feature.Host, _ any) (feature.Instance, error) { return start(host), nil },
	Routes: []feature.Route{{
		Method: "GET", Path: "/v1/events",
		Help:  "What happened to the switch: an api.Event a line, or as server-sent events with Accept: text/event-stream, which go on",
		Query: flags{}, Type: "application/x-ndjson",
		Serve: func(i feature.Instance, w http.ResponseWriter, r *http.Request) { i.(*hub).serve(w, r) },
	}},
	Commands: []feature.Command{command},
}

// hub is the running feature.
type hub struct {
	host    feature.Host
	ring    *ring
	readers atomic.Int32
	stop    func() // cancels the next sum

	mu     sync.Mutex
	limits limits
}

const (
	// maxReaders leaves connections of the control socket for others.
	maxReaders = 16

	// chunk is how many events are sent at a time, and patience how long a reader may take
	// for them.
	chunk    = 64
	patience = 30 * time.Second

	// heartbeat is the gap between comments in a silent stream, by which proxies and readers
	// see that it is alive.
	heartbeat = 15 * time.Second
)

func start(host feature.Host) *hub {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	h := &hub{host: host, ring: newRing(hex.EncodeToString(id[:]), ringSize), limits: make(limits)}
	h.stop = host.After(report, h.sumUp)
	return h
}

// Observe implements feature.Observed.
func (h *hub) Observe(e api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !limited(e.Type) || h.limits.allow(subject{e.Type, e.Port}, e.Time) {
		h.ring.add(e)
	}
}

// sumUp says how many events were left out, once per report.
func (h *hub) sumUp() {
	h.stop = h.host.After(report, h.sumUp)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.limits.sumUp(time.Now()) {
		h.ring.add(e)
	}
}

// Stop implements feature.Instance. Readers still get what is remembered.
func (h *hub) Stop() {
	h.stop()
	h.ring.end()
}

// request is what a reader wants.
type request struct {
	api.EventFilter
	from   uint64 // the number of the event before the first one
	follow bool
	stream bool // server-sent events, not lines of JSON
}

// parse reads a request. Without a place to begin, a follower gets what happens from now on,
// and others get all that is remembered.
func (h *hub) parse(r *http.Request) (q request, err error) {
	f, err := feature.Query[flags](r)
	if err != nil {
		return q, err
	}
	q.EventFilter = api.EventFilter{Port: f.Port, Types: f.Type}
	q.stream = strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	q.follow = f.Follow || q.stream
	since := f.Since
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		since = id // a browser that lost its connection goes on there
	}
	if since == "" {
		if q.from = h.ring.oldest(); q.follow {
			q.from = h.ring.newest()
		}
		return q, nil
	}
	if d, err := time.ParseDuration(since); err == nil && since != "0" {
		q.from = h.ring.since(time.Now().Add(-d.Abs()))
		return q, nil
	}
	c, err := api.ParseCursor(since)
	if err != nil {
		return q, api.Errorf(api.CodeInvalid, "%w", err)
	}
	q.from, err = h.ring.find(c)
	return q, err
}

// serve answers GET /v1/events.
func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	q, err := h.parse(r)
	if err == nil && h.readers.Add(1) > maxReaders {
		h.readers.Add(-1)
		err = api.Errorf(api.CodeBusy, "%d readers follow the events already; end one of them", maxReaders)
	} else if err == nil {
		defer h.readers.Add(-1)
	}
	if err != nil {
		feature.Refuse(w, err)
		return
	}
	kind := "application/x-ndjson"
	if q.stream {
		kind = "text/event-stream"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	out := writer{w, http.NewResponseController(w), q.stream}
	out.flush() // the reader knows at once that it is connected
	h.send(r, q, &out)
}

// send writes the events that a request selects, until they end or the reader goes.
func (h *hub) send(r *http.Request, q request, out *writer) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for seq := q.from; ; {
		b := h.ring.after(seq, chunk)
		if b.lost > 0 {
			seq += b.lost
			out.event(&api.Event{Seq: seq, Epoch: h.ring.epoch, Time: time.Now(), Type: api.EventLost, Count: b.lost})
		}
		for i := range b.events {
			seq = b.events[i].Seq
			if q.Match(&b.events[i]) {
				out.event(&b.events[i])
			}
		}
		if out.flush() != nil || b.ended || b.news != nil && !q.follow {
			return
		}
		if b.news == nil {
			continue
		}
		select {
		case <-b.news:
		case <-beat.C:
			out.comment()
		case <-r.Context().Done():
			return
		}
	}
}

// writer writes events to a reader.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	stream  bool
}

// event writes one event. A reader that is gone is found by flush.
func (w *writer) event(e *api.Event) {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // cannot fail: plain fields
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(patience))
	if w.stream {
		b = append([]byte("id: "+e.ID()+"\ndata: "), append(b, '\n')...)
	}
	_, _ = w.Write(append(b, '\n'))
}

// comment shows a reader of a silent stream that it is alive. Lines of JSON have no comments.
func (w *writer) comment() {
	if w.stream {
		_, _ = w.Write([]byte(": nothing happened\n\n"))
	}
}

func (w *writer) flush() error {
	_ = w.control.SetWriteDeadline(time.Now().Add(patience))
	return w.control.Flush()
}
