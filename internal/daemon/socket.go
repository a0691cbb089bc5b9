package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

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
	if err := makeDir(filepath.Dir(path)); err != nil {
		return flock.File{}, fmt.Errorf("making the socket's directory: %w; choose another with --socket", err)
	}
	name := lockPath(path)
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

// makeDir makes a directory that all may pass, whatever the umask: who may use what is
// in it, the sockets say themselves. One that is there stays as it is.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// closedTo reports whether the members of a group, that is none of its owner's, cannot
// reach what is in a directory.
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

// fileID is what a file is, whatever name it has.
type fileID struct{ dev, ino uint64 }

// idOf returns which file is at path, zero where there is none.
func idOf(path string) (id fileID) {
	var st syscall.Stat_t
	if syscall.Lstat(path, &st) == nil {
		id = fileID{uint64(st.Dev), st.Ino}
	}
	return id
}

// listener is the control socket. It removes its socket when it is closed, and makes it
// again where somebody deletes it (a cleaner of /run): else nobody could reach the
// daemon. What another process put there stays.
type listener struct {
	path string
	gid  int // -1: as it comes
	log  *slog.Logger

	mu     sync.Mutex
	socket *net.UnixListener
	id     fileID // of socket
	closed bool
	locks  []flock.File // the caller's, and those from newer directories

	clients chan struct{} // has a value for each connection

	stop chan struct{}
	done sync.WaitGroup
}

// maxClients bounds the connections, which take files that ports need (ownFiles). One
// more waits until another ends.
const maxClients = 40

// socketCheck is how often the listener looks whether its socket is still there. It is
// made again when it has been away twice: who moves it, or puts another daemon in this
// one's place, is done by then.
const socketCheck = time.Second

// listen makes the control socket, in place of a stale one, for root and the group.
// lock is that of lockSocket.
func listen(path, group string, lock flock.File, log *slog.Logger) (net.Listener, error) {
	l := &listener{path: path, gid: -1, log: log, locks: []flock.File{lock}, clients: make(chan struct{}, maxClients), stop: make(chan struct{})}
	if group != "" {
		var err error
		if l.gid, err = groupID(group); err != nil {
			return nil, err
		}
	}
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

// place makes the socket, and lets go of the one before.
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

// watch makes the socket again when it is gone, until Close.
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

// renew makes the socket again, with a lock in the directory that is there by now.
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

// locked reports whether a lock of this process is at the socket's path.
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
	select {
	case l.clients <- struct{}{}:
	case <-l.stop:
		return nil, net.ErrClosed
	}
	c, err := l.accept()
	if err != nil {
		<-l.clients
		return nil, err
	}
	return &client{Conn: c, leave: sync.OnceFunc(func() { <-l.clients })}, nil
}

// client is a connection that counts until it is closed.
type client struct {
	net.Conn
	leave func()
}

func (c *client) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

func (l *listener) accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		s, closed := l.socket, l.closed
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
		l.mu.Unlock()
		if !renewed {
			return nil, err
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close implements net.Listener. The name goes first, so that nobody connects to a daemon
// about to end, unless it is somebody else's by now.
func (l *listener) Close() (err error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.stop)
	if idOf(l.path) == l.id {
		err = os.Remove(l.path)
	}
	err = errors.Join(err, l.socket.Close())
	l.mu.Unlock()
	l.done.Wait()
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
