package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/clients"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/handover"
	"github.com/vswitch/vswitch/port"
)

// giver is a fake port that another process can take.
type giver struct {
	*fakePort
	early bool
	log   chan<- string
}

func (g giver) Pause()  { g.end(port.ErrPaused) }
func (g giver) Resume() { g.log <- "resume" }
func (g giver) Give(paused bool) (*port.Parcel, error) {
	if !paused && !g.early {
		return nil, nil
	}
	return &port.Parcel{Format: 7, Data: []byte(`{}`)}, nil
}

// heirHost is a fakeHost whose ports can be taken.
type heirHost struct{ *fakeHost }

func (h heirHost) Take(s port.Spec, t *port.Trace, _ *port.Parcel) (port.Port, error) {
	return h.Open(s, t)
}

// sockets returns two connected ends.
func sockets(t *testing.T) (a, b handover.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]handover.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = handover.Conn{UnixConn: c.(*net.UnixConn)}
		t.Cleanup(func() { ends[i].Close() })
		_ = ends[i].SetDeadline(time.Now().Add(time.Minute))
	}
	return ends[0], ends[1]
}

// Wherever the next process fails, the switch goes on: ports receive, features run, changes are
// accepted, and the state is written.
func TestNextProcessFails(t *testing.T) {
	claim := handover.Claim{Format: handover.Format, Version: "next", PID: 1}
	for name, c := range map[string]struct {
		says  []any // what the next process sends, each but the first in answer to a message
		wants string
		held  bool // it fails only when the switch is held
	}{
		"it leaves at once":        {nil, "EOF", false},
		"it does not come":         {[]any{handover.Result{}}, "no next process", false},
		"another format":           {[]any{handover.Result{}, handover.Claim{Format: 99, Version: "next"}}, "format 99", false},
		"no answer":                {[]any{handover.Result{}, claim}, "has ended", false},
		"a port cannot be taken":   {[]any{handover.Result{}, claim, handover.Result{Error: "port vm0: no"}}, "port vm0: no", false},
		"it ends while it is held": {[]any{handover.Result{}, claim, handover.Result{}}, "has ended", true},
		"it fails while held":      {[]any{handover.Result{}, claim, handover.Result{}, handover.Result{Error: "a feature: no"}}, "a feature: no", true},
		"it ends at the last":      {[]any{handover.Result{}, claim, handover.Result{}, handover.Result{}}, "about to go on", true},
	} {
		t.Run(name, func(t *testing.T) {
			events := make(chan string, 64)
			host := heirHost{newFakeHost()}
			host.wrap = func(p *fakePort) port.Port { return giver{p, p.index%2 == 0, events} }
			own := &belongings{}
			lock, err := lockSocket(t.TempDir() + "/s")
			if err != nil {
				t.Fatal(err)
			}
			own.lock = lock
			log := slog.New(slog.NewTextHandler(io.Discard, nil))
			if own.socket, err = listen(strings.TrimSuffix(lock.Name(), ".lock"), "", lock, log); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(own.close)
			o := Options{Name: "sw0", Version: "former", Aging: 300 * time.Second, Kinds: port.Kinds{host}, Links: host.fakeHost, Log: log, own: own}
			fast := &fakeFast{}
			o.FastPath = fast
			o.Features = append(slices.Clone(testFeatures), notes)
			o.settings, o.kept = noSettings(o.Features), noSettings(o.Features)
			written := make(chan store.State, 16)
			m, err := newManager(o, func(st store.State) error { written <- st; return nil }, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			before := store.State{Ports: []store.Port{{Spec: saved(spec("vm0"))}, {Spec: saved(spec("vm1"))}}}
			go func() { defer close(done); m.run(ctx, before, host.events) }()
			defer func() { cancel(); <-done }()
			<-m.restored
			if fast.lock, err = os.CreateTemp(t.TempDir(), "pins"); err != nil {
				t.Fatal(err)
			}
			defer fast.lock.Close()
			fast.told()
			_ = m.do(func() error {
				for _, h := range m.hosted {
					if n, ok := h.instance.(*noted); ok {
						n.text = "one"
					}
				}
				return nil
			})

			if err := m.do(func() error {
				n := m.ports["vm0"].sw.Number()
				m.sw.FDB().Learn(fdb.MakeKey(1, 0x0200_0000_0001), n)
				return m.sw.FDB().Add(fdb.MakeKey(1, 0x0200_0000_0002), n, fdb.Static)
			}); err != nil {
				t.Fatal(err)
			}
			former, next := sockets(t)
			failed := make(chan error)
			go func() {
				err := m.handOver(former)
				former.Close()
				failed <- err
			}()
			var offer handover.Offer
			var rest handover.Rest
			for i, say := range c.says {
				if err := next.Send(say); err != nil {
					t.Fatal(err)
				}
				var answer json.RawMessage
				if files, err := next.Receive(&answer); err == nil {
					handover.Close(files)
					if i == 1 && len(c.says) > 2 {
						if err := json.Unmarshal(answer, &offer); err != nil || offer.Pins != 1 || offer.Listeners != 1 || offer.StateLocks != 0 || len(files) != 3 {
							t.Errorf("offered are %+v with %d files, %v", offer, len(files), err)
						}
					}
					if i == 2 && c.held {
						if err := json.Unmarshal(answer, &rest); err != nil {
							t.Fatal(err)
						}
						if m.saver.Pause(100 * time.Millisecond) {
							t.Error("both processes may write the state")
						}
					}
				}
			}
			next.Close()
			if err := <-failed; err == nil || !strings.Contains(err.Error(), c.wants) {
				t.Errorf("it is not handed over because: %v", err)
			}
			told := fast.told()
			if slices.Contains(told, "suspend") != c.held || len(told) > 0 && told[len(told)-1] != "continue" {
				t.Errorf("the fast path hears %q", told)
			}
			if c.held {
				if given := rest.Features["notes"]; given.Format != 1 || string(given.Data) != "1" {
					t.Errorf("a feature gives %+v", given)
				}
				if got := string(rest.Sections["notes"]); got != `"one, ended"` {
					t.Errorf("a feature keeps %s", got)
				}
				want := appendStation(nil, fdb.Entry{Key: fdb.MakeKey(1, 0x0200_0000_0001)})
				if got := rest.Stations["vm0"]; !bytes.Equal(got, want) || len(rest.Stations) != 1 {
					t.Errorf("the stations are %x, want %x of vm0", rest.Stations, want)
				}
				if len(rest.Ports) != 1 || len(rest.Counters) != 2 {
					t.Errorf("the rest is %+v", rest)
				}
				for range 2 {
					if e := <-events; e != "resume" {
						t.Errorf("a port: %s", e)
					}
				}
			}
			for _, h := range m.hosted {
				if n, ok := h.instance.(*noted); ok && (n.seen == 1) != c.held {
					t.Errorf("its instance is number %d", n.seen)
				}
				if on := h.On == nil || h.On(noSettings([]feature.Feature{h.Feature}).features[0]); on != (h.instance != nil) {
					t.Errorf("feature %s: runs: %v", h.Name, h.instance != nil)
				}
			}
			for len(written) > 0 {
				<-written
			}
			if err := m.change(func() error {
				_, err := m.addPort(sent[addPort](t, wanted(spec("vm2"))))
				return err
			}); err != nil {
				t.Errorf("a port cannot be added: %v", err)
			}
			for last := -1; last != 3; { // what was on its way comes first
				select {
				case st := <-written:
					last = len(st.Ports)
				case <-time.After(time.Minute):
					t.Fatalf("the state that was written last has %d ports", last)
				}
			}
		})
	}
}

// An upgrade is asked for by the control socket, one at a time. One that failed leaves the way free
// for another.
func TestUpgradeIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	serve(t, newFakeHost(), dir)
	ask := func() (net.Conn, int) {
		t.Helper()
		c, err := net.Dial("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, "POST /v1/upgrade HTTP/1.1\r\nHost: switch\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		a, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c, a.StatusCode
	}
	first, status := ask()
	if status != http.StatusSwitchingProtocols {
		t.Errorf("an upgrade: status %d", status)
	}
	if _, status := ask(); status != http.StatusConflict {
		t.Errorf("another beside it: status %d", status)
	}
	first.Close()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c, status := ask()
		c.Close()
		if status == http.StatusSwitchingProtocols {
			break
		} else if time.Now().After(limit) {
			t.Fatalf("after the first has failed: status %d", status)
		}
	}

	// Where the connection cannot be had, no upgrade is under way.
	m := &manager{}
	conn, _ := sockets(t)
	srv := &http.Server{}
	clients.Bound(srv, nil, 1, nil)
	of := func(r *http.Request) context.Context { return srv.ConnContext(r.Context(), conn.UnixConn) }
	r := httptest.NewRequest("POST", "/v1/upgrade", nil)
	for _, c := range []struct {
		ctx  context.Context
		code string
	}{
		{r.Context(), api.CodeInvalid}, {of(r), api.CodeFailed},
		{of(r), api.CodeFailed},
	} {
		w := httptest.NewRecorder()
		m.serveUpgrade(w, r.WithContext(c.ctx))
		var e api.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code != c.code {
			t.Errorf("the answer is %q, %v; want code %s", w.Body, err, c.code)
		}
	}
}
