package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/files/sockfile"
)

// lockSocket takes the lock that a socket's daemon holds while it runs. The kernel releases
// it however the process ends, so if the lock is free, no daemon serves the socket. The file
// stays: if it were removed, two processes could lock two files of one name.
func lockSocket(path string) (flock.File, error) {
	if len(path) > sockfile.MaxPath {
		return flock.File{}, fmt.Errorf("socket path %s has %d bytes, the system allows %d; choose a shorter one with --socket", path, len(path), sockfile.MaxPath)
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return flock.File{}, fmt.Errorf("making the socket's directory: %w; choose another with --socket", err)
	}
	name := lockPath(path)
	f, err := flock.Open(name, os.O_RDWR|os.O_CREATE, 0o644)
	switch {
	case errors.Is(err, flock.ErrHeld):
		holder := "another process"
		if pid, _ := os.ReadFile(name); len(pid) > 0 {
			holder = "process " + strings.TrimSpace(string(pid))
		}
		return flock.File{}, fmt.Errorf("%s serves %s already; stop it, or run another switch with --name or --socket", holder, path)
	case err != nil:
		return flock.File{}, fmt.Errorf("making the socket's lock: %w; choose another socket with --socket", err)
	}
	// The pid only serves the message above; a full file system has no room for it.
	_ = f.Truncate(0)
	_ = writePID(f)
	return f, nil
}

// makeDir makes a directory that everyone may traverse, whatever the umask: the sockets in it
// have permissions of their own. An existing directory is unchanged.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// closedTo reports whether a directory keeps out the members of a group that is not the group
// of its owner.
func closedTo(dir string, gid int) bool {
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) != nil {
		return false
	}
	const groupMay, othersMay = 0o010, 0o001
	if int(st.Gid) == gid {
		return st.Mode&groupMay == 0
	}
	return st.Mode&othersMay == 0
}

func lockPath(socket string) string { return socket + ".lock" }

func writePID(f flock.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// fileID identifies a file, whatever its name.
type fileID struct{ dev, ino uint64 }

// idOf identifies the file at path; it is zero if there is none.
func idOf(path string) (id fileID) {
	var st syscall.Stat_t
	if syscall.Lstat(path, &st) == nil {
		id = fileID{uint64(st.Dev), st.Ino}
	}
	return id
}

// listener is the control socket. It removes its socket on Close and makes it again if
// somebody deletes it, such as a cleaner of /run: otherwise nobody could reach the daemon. It
// leaves another process's file alone.
type listener struct {
	path string
	gid  int // -1: unchanged
	log  *slog.Logger

	mu     sync.Mutex
	socket *net.UnixListener
	id     fileID // of socket
	closed bool
	left   bool // see leave
	spare  spare
	locks  []flock.File // the caller's, and those in newer directories

	stop chan struct{}
	done sync.WaitGroup
}

// maxClients limits the connections, which use files that ports need (ownFiles).
const maxClients = 40

// socketCheck is the interval of checks that the socket is still there. It is made again when
// it is missing twice in a row: by then, whoever moves it or replaces the daemon is done.
const socketCheck = time.Second

// listen makes the control socket for root and the group, replacing a stale one. lock is the
// lock from lockSocket.
func listen(path, group string, lock flock.File, log *slog.Logger) (*listener, error) {
	l, err := newListener(path, group, log)
	if err != nil {
		return nil, err
	}
	l.locks = []flock.File{lock}
	if err := l.place(); err != nil {
		return nil, err
	}
	if dir := filepath.Dir(path); l.gid >= 0 && closedTo(dir, l.gid) {
		log.Warn("the directory of the control socket is closed to its group", "socket", path, "group", group,
			"advice", "let it in, as by `chmod o+x "+dir+"`")
	}
	l.done.Go(l.watch)
	return l, nil
}

// newListener makes a listener without a socket.
func newListener(path, group string, log *slog.Logger) (l *listener, err error) {
	l = &listener{path: path, gid: -1, log: log, stop: make(chan struct{})}
	l.spare.fill()
	if group != "" {
		l.gid, err = groupID(group)
	}
	return l, err
}

// give returns what another process needs to go on.
func (l *listener) give() (*net.UnixListener, []flock.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.socket, slices.Clone(l.locks)
}

// leave leaves the socket to another process that has it: Close then closes descriptors only.
func (l *listener) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = true
}

// place makes the socket and releases the one before.
func (l *listener) place() error {
	s, err := sockfile.Listen(l.path)
	if err != nil {
		return fmt.Errorf("--socket: %w", err)
	}
	if l.gid >= 0 {
		if err := os.Chown(l.path, -1, l.gid); err != nil {
			return errors.Join(fmt.Errorf("giving the control socket to its group: %w", err), os.Remove(l.path), s.Close())
		}
	}
	l.mu.Lock()
	former := l.socket
	l.socket, l.id = s, idOf(l.path)
	closed := l.closed
	l.mu.Unlock()
	switch {
	case closed:
		return errors.Join(os.Remove(l.path), s.Close())
	case former != nil:
		return former.Close()
	}
	return nil
}

// watch makes the socket again whenever it is gone, until Close.
func (l *listener) watch() {
	tick := time.NewTicker(socketCheck)
	defer tick.Stop()
	away, failed := 0, false
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		if idOf(l.path) == l.current() {
			away, failed = 0, false
			continue
		}
		if away++; away < 2 {
			continue
		}
		switch err := l.renew(); {
		case err == nil:
			l.log.Warn("the control socket was deleted; it is made again", "socket", l.path)
		case !failed:
			failed = true
			l.log.Error("the control socket was deleted, and cannot be made again; it is tried each second", "socket", l.path, "error", err)
		}
	}
}

// renew makes the socket again, with a lock in the directory that is there now.
func (l *listener) renew() error {
	if !l.locked() {
		lock, err := lockSocket(l.path)
		if err != nil {
			return err
		}
		l.locks = append(l.locks, lock)
	}
	return l.place()
}

// locked reports whether this process holds the lock at the socket's path.
func (l *listener) locked() bool {
	at := idOf(lockPath(l.path))
	for _, lock := range l.locks {
		var st syscall.Stat_t
		if syscall.Fstat(int(lock.Fd()), &st) == nil && at == (fileID{uint64(st.Dev), st.Ino}) {
			return true
		}
	}
	return false
}

func (l *listener) current() fileID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for lent := false; ; {
		l.mu.Lock()
		s, closed := l.socket, l.closed
		if !closed && !lent {
			l.spare.fill()
		}
		l.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		c, err := s.Accept()
		if err == nil {
			return c, nil
		}
		l.mu.Lock()
		renewed := l.socket != s
		lent = !renewed && l.spare.lend(err)
		l.mu.Unlock()
		if !renewed && !lent {
			return nil, err
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close implements net.Listener. It removes the name first, so that nobody connects to a
// daemon that is about to end, unless the name belongs to somebody else by now.
func (l *listener) Close() (err error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.stop)
	left := l.left
	if !left && idOf(l.path) == l.id {
		err = os.Remove(l.path)
	}
	err = errors.Join(err, l.socket.Close())
	l.spare.close()
	l.mu.Unlock()
	l.done.Wait()
	if left {
		return err
	}
	for _, lock := range l.locks[1:] { // the first is the caller's
		err = errors.Join(err, lock.Close())
	}
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
