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
	paused bool
	turn   sync.Cond // signalled when paused or closed changed
}

// Serve creates a stream socket at path as ListenAs does.
func Serve(path string, a Access) (*Server, error) {
	l, f, err := ListenAs(path, a)
	if err != nil {
		return nil, err
	}
	return newServer(path, a, l, f), nil
}

func newServer(path string, a Access, l *net.UnixListener, f *File) *Server {
	s := &Server{path: path, access: a, l: l, file: f}
	s.turn.L = &s.mu
	return s
}

// Take is Serve for the socket of a Server of another process, which gave it. It duplicates the
// descriptor.
func Take(path string, a Access, fd int) (*Server, error) {
	s, f, err := take(path, fd, net.FileListener)
	if err != nil {
		return nil, err
	}
	l, ok := s.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(notASocket(path), s.Close())
	}
	return newServer(path, a, l, f), nil
}

// Give stops Accept from taking connections, and returns a descriptor of the socket, which the
// caller owns.
func (s *Server) Give() (fd int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return -1, net.ErrClosed
	}
	s.paused = true
	if err := s.l.SetDeadline(time.Unix(1, 0)); err != nil {
		return -1, err
	}
	return s.dup()
}

// Dup is Give, but Accept goes on.
func (s *Server) Dup() (fd int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return -1, net.ErrClosed
	}
	return s.dup()
}

func (s *Server) dup() (fd int, err error) {
	raw, err := s.l.SyscallConn()
	if err != nil {
		return -1, err
	}
	failed := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(failed, err)
}

// Resume undoes what Give stopped.
func (s *Server) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = false
	s.turn.Broadcast()
}

// await returns when connections may be taken, until the deadline that it sets.
func (s *Server) await(l *net.UnixListener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.paused && !s.closed {
		s.turn.Wait()
	}
	return l.SetDeadline(time.Now().Add(LookEvery))
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
		if err := s.await(l); err != nil {
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
	err = nextFile.Replace(s.file)
	s.file.Close()
	s.l, s.file = next, nextFile
	if s.access != a {
		err = errors.Join(err, nextFile.SetAccess(s.access))
	}
	return next, err
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
	s.turn.Broadcast()
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
