package daemon

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/files/sockfile"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

func TestOneDaemonPerSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "sw0.sock")
	lock, err := lockSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockSocket(path)
	if err == nil || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())+" ") || !strings.Contains(err.Error(), "--name") {
		t.Errorf("a second daemon is told %v", err)
	}
	lock.Close()
	if lock, err = lockSocket(path); err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	lock.Close()
	long := filepath.Join(t.TempDir(), strings.Repeat("x", sockfile.MaxPath))
	if _, err := lockSocket(long); err == nil || !strings.Contains(err.Error(), "--socket") {
		t.Errorf("a path too long: %v", err)
	}
}

// listening is lockSocket and listen.
func listening(t *testing.T, path, group string) (net.Listener, error) {
	t.Helper()
	lock, err := lockSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	return listen(path, group, lock, slog.New(slog.DiscardHandler))
}

// A socket that is deleted, alone or with its directory, is made again; one that another
// daemon or program put in its place stays, and so it does when the first daemon stops.
func TestDeletedSocketIsMadeAgain(t *testing.T) {
	answers := func(socket string) bool {
		cl := api.NewClient(socket) // one that has no connection yet
		defer cl.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := cl.Switch(ctx)
		return err == nil
	}
	for name, remove := range map[string]func(socket string) error{
		"socket":    os.Remove,
		"directory": func(socket string) error { return os.RemoveAll(filepath.Dir(socket)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "d")
			serve(t, newFakeHost(), dir)
			socket := filepath.Join(dir, "s")
			for range 2 {
				if err := remove(socket); err != nil {
					t.Fatal(err)
				}
				testenv.Eventually(t, "the daemon is reached again", func() bool { return answers(socket) })
			}
			if _, err := lockSocket(socket); err == nil {
				t.Error("another daemon could serve the socket as well")
			}
		})
	}
	t.Run("another daemon", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "d")
		_, stop := serve(t, newFakeHost(), dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		serve(t, newFakeHost(), dir)
		time.Sleep(3 * socketCheck) // the first has looked
		if err := stop(); err != nil {
			t.Error(err)
		}
		if !answers(filepath.Join(dir, "s")) {
			t.Error("the first daemon removed the second's socket")
		}
	})
	t.Run("another file", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		_, stop := serve(t, newFakeHost(), dir)
		socket := filepath.Join(dir, "s")
		if err := errors.Join(os.Remove(socket), os.WriteFile(socket, []byte("precious"), 0o600)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * socketCheck)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(socket); err != nil || string(b) != "precious" {
			t.Errorf("the file has %q, %v", b, err)
		}
	})
}

// Clients that say nothing, or half of what they want, do not keep out others, nor take the files
// of ports.
func TestSilentClients(t *testing.T) {
	dir := t.TempDir()
	serve(t, newFakeHost(), dir)
	socket := filepath.Join(dir, "s")
	for i := range 5 * maxClients {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		said := "POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
		if _, err := io.WriteString(c, said[:i%len(said)]); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		cl := api.NewClient(socket)
		defer cl.Close() // after the other calls: it stays connected
		if _, err := cl.Switch(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A file system without room for the pid in the lock still has room for sockets.
func TestLockWithoutRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.Symlink("/dev/full", lockPath(path)); err != nil {
		t.Fatal(err)
	}
	lock, err := lockSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
}

func TestSocketIsForRootAndTheGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	gid := os.Getgid()
	if os.Geteuid() == 0 {
		gid = 12345 // only root can give a file to a group that it is not in
	}
	ln, err := listening(t, path, strconv.Itoa(gid))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o660 || int(st.Sys().(*syscall.Stat_t).Gid) != gid {
		t.Errorf("socket has mode %v, group %d", st.Mode(), st.Sys().(*syscall.Stat_t).Gid)
	}
	ln.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is there after Close: %v", err)
	}
	if _, err := listening(t, path+"2", "no-such-group"); err == nil || !strings.Contains(err.Error(), "--socket-group") {
		t.Errorf("a group that is not there: %v", err)
	}
}

func TestOtherFilesAreNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listening(t, path, ""); err == nil || !strings.Contains(err.Error(), "--socket: ") || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("listen on a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file was changed")
	}
}

// The group of the socket has to pass its directory: as the directory's group, or else as others.
func TestDirectoryOfTheSocketIsClosed(t *testing.T) {
	dir := t.TempDir()
	own := os.Getgid()
	if err := os.Chown(dir, -1, own); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode   os.FileMode
		gid    int
		closed bool
	}{
		{0o755, own, false}, {0o755, own + 1, false}, {0o750, own, false}, {0o750, own + 1, true},
		{0o745, own, true}, {0o745, own + 1, false}, {0o700, own, true}, {0o700, own + 1, true}, {0o766, own, true}, {0o766, own + 1, true},
	} {
		if err := os.Chmod(dir, c.mode); err != nil {
			t.Fatal(err)
		}
		if got := closedTo(dir, c.gid); got != c.closed {
			t.Errorf("a directory with mode %o, of group %d, is closed to group %d: %v", c.mode, own, c.gid, got)
		}
	}
	if closedTo(filepath.Join(dir, "none"), own) {
		t.Error("a directory that is not there is closed")
	}
}

// A missing directory of the socket is one that everyone may traverse; one that is there stays as
// it is.
func TestDirectoryOfTheSocketIsMade(t *testing.T) {
	for _, mode := range []os.FileMode{0, 0o700} {
		dir, want := filepath.Join(t.TempDir(), "run", "vswitch"), os.FileMode(0o755)
		if mode != 0 {
			want = mode
			if err := os.MkdirAll(dir, mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := makeDir(dir); err != nil {
			t.Fatal(err)
		}
		if i, err := os.Stat(dir); err != nil || i.Mode().Perm() != want {
			t.Errorf("it has mode %v, %v; want %v", i.Mode(), err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lockSocket(filepath.Join(file, "sub", "s")); err == nil || !strings.Contains(err.Error(), "--socket") {
		t.Errorf("below a file: %v", err)
	}
	if err := os.Mkdir(lockPath(filepath.Join(filepath.Dir(file), "s")), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := lockSocket(filepath.Join(filepath.Dir(file), "s")); err == nil || !strings.Contains(err.Error(), "--socket") {
		t.Errorf("with a directory for the lock: %v", err)
	}
}

// A socket that another process has stays when this one closes it, and serves that one.
func TestSocketIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := listening(t, path, "")
	if err != nil {
		t.Fatal(err)
	}
	of, _ := ln.(*listener).give()
	file, err := of.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	other, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ln.(*listener).leave()
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal("the socket is gone:", err)
	}
	defer c.Close()
	served, err := other.Accept()
	if err != nil {
		t.Fatal(err)
	}
	served.Close()
}
