package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/vswitch/vswitch/internal/flock"
	"github.com/vswitch/vswitch/internal/sockfile"
)

// lockSocket takes the lock that the daemon of a socket holds while it runs. The
// kernel gives it back however the process ends, so a lock that is free means that
// no daemon serves the socket. The file stays: to remove it would let two processes
// lock two files of one name.
func lockSocket(path string) (flock.File, error) {
	if len(path) > sockfile.MaxPath {
		return flock.File{}, fmt.Errorf("socket path %s has %d bytes, the system allows %d; choose a shorter one with --socket", path, len(path), sockfile.MaxPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return flock.File{}, fmt.Errorf("making the socket's directory: %w; choose another with --socket", err)
	}
	name := path + ".lock"
	f, err := flock.Open(name, os.O_RDWR|os.O_CREATE, 0o644)
	switch {
	case errors.Is(err, flock.ErrHeld):
		holder, _ := os.ReadFile(name)
		return flock.File{}, fmt.Errorf("process %s serves %s already; stop it, or run another switch with --name or --socket",
			strings.TrimSpace(string(holder)), path)
	case err != nil:
		return flock.File{}, fmt.Errorf("making the socket's lock: %w; choose another socket with --socket", err)
	}
	// The number is for the message above alone; the lock does not depend on it.
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		f.Close()
		return flock.File{}, fmt.Errorf("writing %s: %w", name, err)
	}
	return f, nil
}

func writePID(f flock.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// listen makes the control socket, in place of a stale one, for root and the group.
// The caller holds the lock.
func listen(path, group string) (net.Listener, error) {
	gid := -1
	if group != "" {
		var err error
		if gid, err = groupID(group); err != nil {
			return nil, err
		}
	}
	ln, err := sockfile.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("--socket: %w", err)
	}
	l := &listener{UnixListener: ln, path: path}
	if gid >= 0 {
		if err := os.Chown(path, -1, gid); err != nil {
			return nil, errors.Join(fmt.Errorf("giving the control socket to its group: %w", err), l.Close())
		}
	}
	return l, nil
}

// listener removes its socket when it is closed.
type listener struct {
	*net.UnixListener
	path string
	once sync.Once
}

func (l *listener) Close() (err error) {
	// The name goes first, so that nobody connects to a daemon about to end;
	// and only once, for it may be a successor's later.
	l.once.Do(func() { err = errors.Join(os.Remove(l.path), l.UnixListener.Close()) })
	return err
}

func groupID(group string) (int, error) {
	if id, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(id), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q for the control socket; make it, or name another with --socket-group", group)
	}
	return strconv.Atoi(g.Gid)
}
