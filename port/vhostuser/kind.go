package vhostuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vswitch/vswitch/internal/sockfile"
	"github.com/vswitch/vswitch/port"
)

// Kind makes vhost-user ports. It implements port.Kind, and needs no privileges but the
// right to write where the sockets are.
type Kind struct {
	// Dir is where the sockets of ports are that have no path of their own, and what
	// a port keeps in case the process dies. Open makes it where it is absent.
	Dir string
}

var _ port.Kind = Kind{}

// New returns the kind with a directory for sockets.
func New(dir string) (port.Kind, error) {
	if dir == "" {
		return nil, errors.New("vhost-user ports need the directory of their switch's sockets")
	}
	return Kind{Dir: dir}, nil
}

// Name implements port.Kind.
func (Kind) Name() string { return "vhost-user" }

// Path is where the port's socket is.
func (k Kind) Path(s port.Spec) string {
	if s.Path != "" {
		return s.Path
	}
	return filepath.Join(k.Dir, s.Name+".sock")
}

// notes is the file that remembers packed rings from one process to the next, empty
// where there is no directory for it.
func (k Kind) notes(s port.Spec) string {
	if k.Dir == "" {
		return ""
	}
	return filepath.Join(k.Dir, s.Name+".rings")
}

// Check implements port.Kind.
func (k Kind) Check(s port.Spec) error {
	if err := port.CheckName(s.Name); err != nil {
		return err
	}
	path := k.Path(s)
	switch {
	case len(s.Address) > 0 || s.Netns != "":
		return errors.New("a vhost-user port has no address and no namespace, it is for a virtual machine; use --kind host")
	case s.Owner != "" || s.Group != "" || s.MTU != 0 || s.Exclusive:
		return errors.New("a vhost-user port has no owner, group, MTU and is always exclusive; leave these out")
	case s.Queues < 0 || s.Queues > maxPairs:
		return fmt.Errorf("%d queues make no sense; a vhost-user port has 1 to %d", s.Queues, maxPairs)
	case s.Poll != "" && s.Poll != port.PollAdaptive && s.Poll != port.PollBusy:
		return fmt.Errorf("%q is no way to poll; use %s or %s", s.Poll, port.PollAdaptive, port.PollBusy)
	case s.Path == "" && k.Dir == "":
		return errors.New("a vhost-user port needs a socket; name one with --path")
	case !filepath.IsAbs(path):
		return fmt.Errorf("the socket %q has no absolute path; write it from / on", path)
	case len(path) > sockfile.MaxPath:
		return fmt.Errorf("the path %s has %d bytes, a socket's has at most %d; name a shorter one with --path", path, len(path), sockfile.MaxPath)
	}
	return nil
}

// Open implements port.Kind.
func (k Kind) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	path := k.Path(s)
	if k.Dir != "" {
		if err := sockfile.MakeDir(k.Dir); err != nil {
			return nil, err
		}
	}
	if s.Client {
		return k.start(connect(path), s)
	}
	l, err := sockfile.Listen(path)
	if err != nil {
		return nil, err
	}
	p, err := k.start(&server{l}, s)
	if err != nil {
		return nil, errors.Join(err, sockfile.Remove(path))
	}
	trace.Created = true
	return p, nil
}

func (k Kind) start(ps peers, s port.Spec) (port.Port, error) {
	p, err := open(ps, k.notes(s), s.Poll == port.PollBusy)
	if err != nil {
		ps.close()
		return nil, err
	}
	return p, nil
}

// Set implements port.Kind.
func (k Kind) Set(p port.Port, from, to port.Spec) error {
	if k.Path(from) != k.Path(to) || from.Client != to.Client {
		return errors.New("the socket of a vhost-user port is made with it; delete the port and add it again")
	}
	p.(*Port).setBusy(to.Poll == port.PollBusy)
	return nil
}

// Delete implements port.Kind.
func (k Kind) Delete(s port.Spec, t port.Trace) error {
	if notes := k.notes(s); notes != "" {
		if err := os.Remove(notes); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !t.Created {
		return nil
	}
	return sockfile.Remove(k.Path(s))
}
