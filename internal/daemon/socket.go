package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// maxSocketPath is the longest path a unix socket can have: sockaddr_un's 108
// bytes end with a zero (unix(7)), and the socket is made under a longer name.
const maxSocketPath = 107 - len(newSuffix)

const newSuffix = ".new"

// lockSocket takes the lock that the daemon of a socket holds while it runs. The
// kernel gives it back however the process ends, so a lock that is free means that
// a socket beside it is stale. The file stays: to remove it would let two
// processes lock two files of one name.
func lockSocket(path string) (*os.File, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket path %s has %d bytes, the system allows %d; choose a shorter one with --socket", path, len(path), maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the socket's directory: %w; choose another with --socket", err)
	}
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("making the socket's lock: %w; choose another socket with --socket", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder, _ := io.ReadAll(io.LimitReader(f, 20))
			return nil, fmt.Errorf("process %s serves %s already; stop it, or run another switch with --name or --socket",
				strings.TrimSpace(string(holder)), path)
		}
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	// The number is for the message above alone; the lock does not depend on it.
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		f.Close()
		return nil, fmt.Errorf("writing %s: %w", f.Name(), err)
	}
	return f, nil
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// listen makes the control socket, in place of a stale one, for root and the
// group. The caller holds the lock. The socket gets its mode under another name
// first: at no moment can others open it.
func listen(path, group string) (net.Listener, error) {
	gid := -1
	if group != "" {
		var err error
		if gid, err = groupID(group); err != nil {
			return nil, err
		}
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is there and is no socket; remove it, or choose another with --socket", path)
	}
	temp := path + newSuffix
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing what an earlier run left: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("making the control socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	err = os.Chmod(temp, 0o660)
	if err == nil && gid >= 0 {
		err = os.Chown(temp, -1, gid)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		ln.Close()
		os.Remove(temp)
		return nil, fmt.Errorf("making the control socket: %w", err)
	}
	return &listener{UnixListener: ln, path: path}, nil
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
