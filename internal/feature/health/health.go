// Package health answers whether the daemon works, for service managers, probes and people.
// The answer does not need the daemon's turn, since a daemon whose turn never comes is what
// it looks for.
package health

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/table"
)

// Health is the answer of a daemon that works.
type Health struct {
	Ready bool `json:"ready"` // its ports are restored
}

// Feature describes the health checks.
var Feature = feature.Feature{
	Name: "health",
	Help: "reports whether the daemon works",
	New:  func(h feature.Host, _ any) (feature.Instance, error) { return start(h), nil },
	Routes: []feature.Route{
		{Method: "GET", Path: "/v1/healthz", Help: "Whether the daemon works; status 503 if not", Answer: Health{},
			Serve: func(i feature.Instance, w http.ResponseWriter, r *http.Request) { i.(*checker).serve(w, r, false) }},
		{Method: "GET", Path: "/v1/readyz", Help: "Whether the daemon works and has restored its ports; status 503 if not", Answer: Health{},
			Serve: func(i feature.Instance, w http.ResponseWriter, r *http.Request) { i.(*checker).serve(w, r, true) }},
	},
	Commands: []feature.Command{{
		Name:  "health",
		Usage: "check that the daemon works and has its ports",
		Description: `Exits with status 0 if the daemon works and its ports are restored, and with 1 if not.
A port may wait for its device or machine all the same.

Example:

    vswitch health && echo ready`,
		Run: run,
	}},
}

// checker is the running feature.
type checker struct {
	host  feature.Host
	ready atomic.Bool

	mu    sync.Mutex
	asked chan struct{} // closed when the turn has come; nil: nobody waits for it
}

// patience is how long the turn may take to come.
const patience = time.Second

func start(h feature.Host) *checker {
	c := &checker{host: h}
	c.ask() // the first turn comes when the ports are restored
	return c
}

// Stop implements feature.Instance.
func (c *checker) Stop() {}

// ask waits for the daemon's turn, once for all who ask meanwhile. The channel is closed when
// it has come.
func (c *checker) ask() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked == nil {
		came := make(chan struct{})
		c.asked = came
		go func() {
			if c.host.Do(func() {}) {
				c.ready.Store(true)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.asked = nil
			close(came)
		}()
	}
	return c.asked
}

// works returns an error if the daemon's turn does not come in time.
func (c *checker) works(r *http.Request) error {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-c.ask():
		return nil
	case <-late.C:
	case <-r.Context().Done():
	}
	return api.Errorf(api.CodeBusy, "the daemon is stuck: its turn did not come within %v; see its log", patience)
}

// serve answers a call. A daemon that still restores its ports works, but is not ready; that
// takes as long as there are ports.
func (c *checker) serve(w http.ResponseWriter, r *http.Request, wantReady bool) {
	ready := c.ready.Load()
	var err error
	switch {
	case ready:
		err = c.works(r)
	case wantReady:
		err = api.Errorf(api.CodeBusy, "the daemon still restores its ports; ask again soon")
	}
	if err != nil {
		feature.Refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(Health{Ready: ready}) // fails if the client left
}

func run(c *feature.Call) error {
	var h Health
	if err := c.Client.Do(c.Context, http.MethodGet, "/v1/readyz", nil, &h); err != nil {
		return err
	}
	return c.Show(h, func(w io.Writer) { table.Row(w, "ready") })
}
