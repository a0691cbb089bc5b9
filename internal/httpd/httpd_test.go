package httpd

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestAddress(t *testing.T) {
	for text, ok := range map[string]bool{
		"127.0.0.1:9190": true, "[::1]:9190": true, "0.0.0.0:80": true, "": true,
		"127.0.0.1": false, ":9190": false, "localhost:9190": false, "127.0.0.1:0": false, "127.0.0.1:70000": false,
	} {
		var a Address
		err := a.UnmarshalText([]byte(text))
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if b, err := a.MarshalText(); ok && (err != nil || string(b) != text) {
			t.Errorf("%q becomes %q, %v", text, b, err)
		}
	}
}

// server is a Server whose clock is the test.
type server struct {
	Server
	log  strings.Builder
	next func() // nil: nothing waits for the clock
}

func newServer(t *testing.T, answer string) *server {
	s := &server{}
	s.Server = Server{
		What: "answers", Path: "/", Connections: 2,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }),
		Log:     slog.New(slog.NewTextHandler(&s.log, nil)),
		After: func(_ time.Duration, f func()) func() {
			s.next = f
			return func() { s.next = nil }
		},
	}
	t.Cleanup(s.Stop)
	return s
}

// listener returns a listener and its address.
func listener(t *testing.T) (net.Listener, Address) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln, Address{netip.MustParseAddrPort(ln.Addr().String())}
}

// answers reports whether somebody answers at an address so.
func answers(at Address, want string) bool {
	client := http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	a, err := client.Get("http://" + at.String() + "/")
	if err != nil {
		return false
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return err == nil && string(b) == want
}

func TestStartAtATakenAddress(t *testing.T) {
	taken, at := listener(t)
	s := newServer(t, "late")
	s.Start(at)
	if !strings.Contains(s.log.String(), "another program has this address") {
		t.Errorf("the log says %s", s.log.String())
	}
	s.next() // it is still taken
	if s.tcp != nil || s.next == nil {
		t.Fatal("it serves at an address that another has, or does not try again")
	}
	taken.Close()
	s.next()
	if !answers(at, "late") {
		t.Error("nobody answers once the address is free")
	}
	s.Stop()
	again, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatalf("the address is not given back: %v", err)
	}
	again.Close()
}

func TestStopEndsTheTries(t *testing.T) {
	_, at := listener(t)
	s := newServer(t, "never")
	s.Start(at)
	s.Stop()
	if s.next != nil {
		t.Error("it tries again after it has ended")
	}
}

func TestSet(t *testing.T) {
	_, taken := listener(t)
	free, at := listener(t)
	free.Close()
	s := newServer(t, "yes")
	if err := s.Set(at); err != nil {
		t.Fatal(err)
	}
	elsewhere := Address{netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), at.Port())} // no host has it
	for _, to := range []Address{taken, elsewhere} {
		if err := s.Set(to); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("set to %v: %v", to, err)
		}
		if !answers(at, "yes") {
			t.Errorf("nobody answers at the former address after %v was refused", to)
		}
	}
	all := Address{netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())}
	if err := s.Set(all); err != nil {
		t.Errorf("to all addresses with the same port: %v", err)
	} else if !answers(at, "yes") {
		t.Error("nobody answers after all addresses are served")
	}
	if err := s.Set(Address{}); err != nil || answers(at, "yes") {
		t.Errorf("after it was unset it still answers, or %v", err)
	}
	if err := s.Set(at); err != nil || !answers(at, "yes") {
		t.Errorf("set again: %v", err)
	}
}

// A scrape is answered beside clients that connected and say nothing.
func TestSilentClients(t *testing.T) {
	free, at := listener(t)
	free.Close()
	s := newServer(t, "yes")
	s.Start(at)
	for range 10 * s.Connections {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if !answers(at, "yes") {
		t.Error("nobody answers")
	}
}
