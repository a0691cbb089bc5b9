package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "no", "dir"), stale, file, filepath.Join(file, "below")} {
		c := NewClient(socket)
		_, err := c.Ports(t.Context())
		if !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), socket+";") {
			t.Errorf("%s: %v", socket, err)
		}
		c.Close()
	}
}

// What answers on the socket but is no vswitch is not taken for one.
func TestNotAVswitch(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"another program's error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who?", http.StatusTeapot) },
		"another program's page":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"no answer": func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: handler}
			served := make(chan struct{})
			go func() { defer close(served); _ = srv.Serve(ln) }()
			defer func() { srv.Close(); <-served }()
			c := NewClient(socket)
			defer c.Close()
			_, err = c.Switch(t.Context())
			if err == nil || errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), socket) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A daemon that ends during a call: the user is told where to look, and that a change may be done.
func TestDaemonEndsDuringACall(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			conn.Close()
		}
	}()
	c := NewClient(socket)
	defer c.Close()
	if _, err := c.Switch(t.Context()); err == nil || !strings.HasSuffix(err.Error(), socket+" ended without an answer; see its log") {
		t.Errorf("a question: %v", err)
	}
	if err := c.DelPort(t.Context(), "vm0"); err == nil || !strings.HasSuffix(err.Error(), "see its log; what was asked for may still be done") {
		t.Errorf("a change: %v", err)
	}
}

// A daemon that is stopped or stuck: a call ends, and is no success.
func TestDaemonDoesNotAnswer(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":       "",
		"half a header": "HTTP/1.1 200 OK\r\n",
		"half a body":   "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[",
		"half an error": "HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			quit := make(chan struct{})
			served := make(chan struct{})
			go func() {
				defer close(served)
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 4096)) // what comes before the request is no answer
				_, _ = io.WriteString(conn, answer)
				<-quit
			}()
			defer func() { close(quit); ln.Close(); <-served }()
			c := NewClient(socket)
			defer c.Close()
			c.http.Timeout = 50 * time.Millisecond
			_, err = c.Ports(t.Context())
			if !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), socket) || !strings.Contains(err.Error(), "stuck") {
				t.Errorf("a question: %v", err)
			}
		})
	}
	// The caller's own patience is not the daemon's fault.
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := NewClient(socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.DelPort(ctx, "vm0"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNoDaemon) {
		t.Errorf("with a deadline: %v", err)
	}
	c.http.Timeout = 20 * time.Millisecond
	if err := c.DelPort(t.Context(), "vm0"); !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "may still be done") {
		t.Errorf("a change: %v", err)
	}
}

// A request has the settings beside its other keys.
func TestAddPortIsFlat(t *testing.T) {
	b, err := json.Marshal(AddPort{Name: "vm0", Kind: "tap", NoWait: true, MayExist: true, Settings: Settings{"access": 10}})
	if want := `{"access":10,"kind":"tap","may_exist":true,"name":"vm0","no_wait":true}`; err != nil || string(b) != want {
		t.Errorf("%s, %v, want %s", b, err, want)
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"sw0": true, "lab-1_a.b": true, strings.Repeat("x", 64): true,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "ä": false, strings.Repeat("x", 65): false, "-x": false, "--": false, "_x": true,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDefaultPaths(t *testing.T) {
	if os.Geteuid() == 0 {
		for _, f := range []func(string) (string, error){SocketPath, StatePath} {
			if p, err := f("lab"); err != nil || !strings.HasPrefix(p, "/run/vswitch/lab") && p != "/var/lib/vswitch/lab" {
				t.Errorf("root's path is %q, %v", p, err)
			}
		}
		return
	}
	t.Setenv("XDG_RUNTIME_DIR", "/r")
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "/h")
	if p, err := SocketPath("lab"); p != "/r/vswitch/lab.sock" || err != nil {
		t.Errorf("socket %q, %v", p, err)
	}
	if p, err := StatePath("lab"); p != "/h/.local/state/vswitch/lab" || err != nil {
		t.Errorf("state %q, %v", p, err)
	}
	// The directory is another for each caller of a relative path, and so is the switch.
	t.Setenv("XDG_RUNTIME_DIR", "r")
	t.Setenv("XDG_STATE_HOME", "s")
	for _, f := range []func(string) (string, error){SocketPath, StatePath} {
		if p, err := f("lab"); err == nil || !strings.Contains(err.Error(), "no absolute path") {
			t.Errorf("%q, %v from a relative path", p, err)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if _, err := SocketPath("lab"); err == nil {
		t.Error("a socket's path out of nothing")
	}
}
