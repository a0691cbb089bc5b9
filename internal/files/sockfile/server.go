package sockfile

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server accepts connections at a path. It creates its socket again if the file is
// deleted; existing connections stay. One goroutine calls Accept, any may call the
// other methods.
type Server struct {
	path string

	mu     sync.Mutex
	access Access
	l      *net.UnixListener
	file   *File
	closed bool
}

// Serve creates a stream socket at path as ListenAs does.
func Serve(path string, a Access) (*Server, error) {
	l, f, err := ListenAs(path, a)
	if err != nil {
		return nil, err
	}
	return &Server{path: path, access: a, l: l, file: f}, nil
}

// Accept waits for a connection. The error is net.ErrClosed after Close; any other
// error says why no connection is possible now. The next call tries again, and returns
// within LookEvery if that still holds.
func (s *Server) Accept() (*net.UnixConn, error) {
	for {
		l, err := s.renew()
		if err != nil {
			return nil, err
		}
		if err := l.SetDeadline(time.Now().Add(LookEvery)); err != nil {
			return nil, err
		}
		if c, err := l.AcceptUnix(); !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
	}
}

// renew returns the listener, a new one if the file was deleted.
func (s *Server) renew() (*net.UnixListener, error) {
	s.mu.Lock()
	l, file, a, closed := s.l, s.file, s.access, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return nil, net.ErrClosed
	case file.There():
		return l, nil
	}
	next, nextFile, err := ListenAs(s.path, a)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		next.Close()
		nextFile.Close()
		return nil, net.ErrClosed
	}
	l.Close() // nobody can find it any more
	s.file.Close()
	s.l, s.file = next, nextFile
	if s.access != a {
		return next, nextFile.SetAccess(s.access)
	}
	return next, nil
}

// SetAccess changes who may use the socket.
func (s *Server) SetAccess(a Access) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if err := s.file.SetAccess(a); err != nil {
		return err
	}
	s.access = a
	return nil
}

// Close ends Accept. The file stays; use Remove.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.file.Close()
	return s.l.Close()
}

// Dial connects to the stream socket that Find finds at path.
func Dial(ctx context.Context, path string) (*net.UnixConn, error) {
	fd, err := Find(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	c, err := new(net.Dialer).DialContext(ctx, "unix", procPath(fd))
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
