// Package httpd serves HTTP by TCP at an address that users set, and change while it is served.
// Its caller makes one call at a time.
package httpd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/vswitch/vswitch/internal/clients"
)

// Address is an IP address and a TCP port. The zero Address means none.
type Address struct{ netip.AddrPort }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Address) UnmarshalText(b []byte) error {
	*a = Address{}
	if len(b) == 0 {
		return nil
	}
	v, err := netip.ParseAddrPort(string(b))
	if err != nil || v.Port() == 0 {
		return fmt.Errorf("%q is not an IP address and a port; write 127.0.0.1:9190 or [::1]:9190", b)
	}
	a.AddrPort = v
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (a Address) MarshalText() ([]byte, error) {
	if !a.IsValid() {
		return nil, nil
	}
	return a.AddrPort.MarshalText()
}

// Server serves a handler at an address, or at none. Its fields do not change.
type Server struct {
	What    string // is served, for the log: metrics
	Path    string // where it begins, for the log
	Handler http.Handler

	// Connections is how many there may be at a time. Each takes a file, of which ports need
	// many.
	Connections int

	// AnswerTime limits how long an answer takes. 0: the handler sets limits itself.
	AnswerTime time.Duration

	Log   *slog.Logger
	After func(d time.Duration, f func()) (stop func()) // as of feature.Host

	at    Address
	tcp   *http.Server // nil: it serves nowhere
	ln    net.Listener // of tcp
	retry func()       // cancels the next try to listen; nil: none
}

// again is the time between tries to listen at an address that cannot be had.
const again = 10 * time.Second

// Start serves at an address. A switch that forwards is worth more than what is served, so an
// address that cannot be had now is logged and tried again.
func (s *Server) Start(at Address) {
	s.at = at
	if !at.IsValid() {
		return
	}
	if ln, err := s.listen(at); err != nil {
		s.Log.Error(s.What+" are not served by TCP; the address is tried again", "address", at, "every", again, "error", err)
		s.tryLater()
	} else {
		s.serve(ln)
	}
}

// tryLater tries to listen until it succeeds.
func (s *Server) tryLater() {
	s.retry = s.After(again, func() {
		s.retry = nil
		if ln, err := s.listen(s.at); err != nil {
			s.tryLater()
		} else {
			s.serve(ln)
		}
	})
}

// Set serves at another address. If it cannot be had, the former one stays.
func (s *Server) Set(to Address) error {
	if to == s.at {
		return nil
	}
	former := s.at
	var ln net.Listener
	var err error
	if to.IsValid() {
		// The two may overlap, as 127.0.0.1:9190 and 0.0.0.0:9190 do.
		overlaps := s.tcp != nil && to.Port() == former.Port()
		if overlaps {
			s.Stop()
		}
		if ln, err = s.listen(to); err != nil {
			if overlaps {
				s.Start(former)
			}
			return err
		}
	}
	s.Stop()
	s.at = to
	if ln != nil {
		s.serve(ln)
	}
	return nil
}

// listen returns a listener, or an error for the user.
func (s *Server) listen(at Address) (net.Listener, error) {
	ln, err := net.Listen("tcp", at.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s cannot be served at %s: another program has this address; `ss -ltnp` lists which", s.What, at)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s cannot be served at %s: no interface of this host has the address", s.What, at)
	case err != nil:
		return nil, fmt.Errorf("%s cannot be served: %w", s.What, err)
	}
	return ln, nil
}

func (s *Server) serve(ln net.Listener) {
	s.Log.Info(s.What+" are served", "url", "http://"+ln.Addr().String()+s.Path)
	tcp := New(s.Handler, s.Log)
	tcp.WriteTimeout = s.AnswerTime
	s.tcp, s.ln = tcp, ln
	bound := clients.Bound(tcp, ln, s.Connections, s.Log.With("address", ln.Addr()))
	go func() {
		if err := tcp.Serve(bound); !errors.Is(err, http.ErrServerClosed) {
			s.Log.Error(s.What+" are no longer served by TCP", "address", ln.Addr(), "error", err)
		}
	}()
}

// New returns a server of HTTP whose clients are not trusted to be quick.
func New(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		IdleTimeout:       2 * time.Minute, // above common intervals of scrapes
		MaxHeaderBytes:    1 << 14,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Stop ends serving, and the connections there are.
func (s *Server) Stop() {
	if s.retry != nil {
		s.retry()
		s.retry = nil
	}
	if s.tcp != nil {
		s.tcp.Close()
		s.ln.Close() // tcp does not know it before it serves
		s.tcp = nil
	}
}
