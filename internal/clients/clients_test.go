package clients

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory, so that their time is the test's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// server serves in a test's bubble: /follow answers until the client goes, /large with a megabyte, /stream
// with one whose deadline is its own, everything else at once.
type server struct {
	*pipes
	bound net.Listener
	log   strings.Builder
	ended chan error // of large answers
}

func serve(t *testing.T, most int) *server {
	s := &server{pipes: &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}, ended: make(chan error, 9)}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if Conn(r) == nil {
			t.Error("a request has no connection")
		}
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/follow" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		switch r.URL.Path {
		case "/stream":
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
			fallthrough
		case "/large":
			_, err := w.Write(make([]byte, 1<<20))
			s.ended <- err
			return
		}
		_, _ = io.WriteString(w, "got "+string(b))
	})}
	s.bound = Bound(srv, s.pipes, most, slog.New(slog.NewTextHandler(&s.log, nil)))
	var done sync.WaitGroup
	done.Go(func() { _ = srv.Serve(s.bound) })
	t.Cleanup(func() { srv.Close(); done.Wait() })
	return s
}

// caller is the other end of a connection.
type caller struct {
	net.Conn
	in *bufio.Reader
}

// dial connects and sends what it is given.
func (s *server) dial(t *testing.T, send string) *caller {
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close() })
	s.conns <- there
	c := &caller{here, bufio.NewReader(here)}
	c.send(send)
	return c
}

// send returns at once: a pipe has no buffer, and a server reads only clients that have a place.
func (c *caller) send(s string) { go func() { _, _ = io.WriteString(c.Conn, s) }() }

// answer returns the body of the next answer, or why there is none.
func (c *caller) answer() string {
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err.Error()
	}
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

// gone reports whether the server closed the connection.
func (c *caller) gone() bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.in.Peek(1)
	return err == io.EOF
}

const get, post = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"

// However many clients are silent, a client with a request is answered.
func TestSilentClientsKeepNobodyOut(t *testing.T) {
	for name, said := range map[string]string{
		"nothing": "", "half a request": "GET / HT", "half a body": post + "bo",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, 4)
				for range 100 {
					s.dial(t, said)
				}
				for range 5 {
					if got := s.dial(t, post+"body").answer(); got != "got body" {
						t.Errorf("a client is told %q", got)
					}
				}
				if n := strings.Count(s.log.String(), "\n"); n != 1 {
					t.Errorf("%d lines in the log:\n%s", n, s.log.String())
				}
			})
		})
	}
}

// The client that has been silent longest gives its place; before, it may go on.
func TestTheLongestSilentGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, 2)
		first := s.dial(t, get)
		first.answer()
		time.Sleep(time.Second)
		second := s.dial(t, "")
		time.Sleep(time.Second)
		first.send(get)
		if got := first.answer(); got != "got " {
			t.Fatalf("a client that was silent is told %q", got)
		}
		third := s.dial(t, get)
		if got := third.answer(); got != "got " || !second.gone() || first.gone() {
			t.Errorf("the third client is told %q; the second is gone: %v, the first: %v", got, second.gone(), first.gone())
		}
	})
}

// A client that has just come has a moment to say what it wants.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, 1)
		first := s.dial(t, "GET / HT")
		second := s.dial(t, get)
		time.Sleep(patience / 2)
		first.send("TP/1.1\r\nHost: x\r\n\r\n")
		if got := first.answer(); got != "got " {
			t.Errorf("the first client is told %q", got)
		}
		if got := second.answer(); got != "got " {
			t.Errorf("the second client is told %q", got)
		}
	})
}

// Clients that are being answered keep their places. The next one waits until one of them ends, or
// the server.
func TestFollowersKeepTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, 2)
		follow := strings.Replace(get, "/", "/follow", 1)
		a, b := s.dial(t, follow), s.dial(t, follow)
		waiting := s.dial(t, get)
		if got := waiting.answer(); !strings.Contains(got, "timeout") || a.gone() && b.gone() {
			t.Errorf("beside followers a client is told %q", got)
		}
		a.Close()
		if got := waiting.answer(); got != "got " {
			t.Errorf("once a follower has left, a client is told %q", got)
		}
		waiting.Close()
		s.dial(t, follow)
		last := s.dial(t, get)
		synctest.Wait()
		s.bound.Close()
		b.Close()
		if got := last.answer(); strings.HasPrefix(got, "got") {
			t.Errorf("after the end a client is told %q", got)
		}
	})
}

// A client that does not read its answer loses its place; one that reads slowly gets all of it, and
// a handler can wait longer.
func TestAnswersThatNobodyReads(t *testing.T) {
	request := func(path string) string { return strings.Replace(get, "/", path, 1) }
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, 2)
		s.dial(t, request("/large"))
		slow := s.dial(t, request("/large"))
		go func() {
			for {
				time.Sleep(stuck / 2)
				if _, err := io.CopyN(io.Discard, slow.Conn, part); err != nil {
					return
				}
			}
		}()
		if err := <-s.ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the answer that nobody reads ends with %v", err)
		}
		if got := s.dial(t, get).answer(); got != "got " {
			t.Errorf("then a client is told %q", got)
		}
		if err := <-s.ended; err != nil {
			t.Errorf("the answer that is read slowly ends with %v", err)
		}
		slow.Close()
		stream := s.dial(t, request("/stream"))
		time.Sleep(10 * stuck)
		if n := len(stream.answer()); n != 1<<20 {
			t.Errorf("of an answer with a deadline of its own come %d bytes", n)
		}
		if err := <-s.ended; err != nil {
			t.Errorf("it ends with %v", err)
		}
	})
}

// What a client sent counts, though the server has not read it.
func TestUnread(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	here, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if unread(there) {
		t.Error("a client that sent nothing has unread bytes")
	}
	if _, err := io.WriteString(here, "G"); err != nil {
		t.Fatal(err)
	}
	if !unread(there) {
		t.Error("a byte that a client sent is not seen")
	}
	if _, err := there.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if unread(there) {
		t.Error("a byte that was read is unread")
	}
	here.Close()
	if unread(there) {
		t.Error("a client that left has unread bytes")
	}
}
