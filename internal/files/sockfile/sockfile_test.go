package sockfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// types make sockets of both types.
var types = map[string]func(path string) (io.Closer, error){
	"stream": func(path string) (io.Closer, error) { return Listen(path) },
	"dgram":  func(path string) (io.Closer, error) { return ListenPacket(path) },
}

// put makes a socket that the test can use.
func put(t *testing.T, kind, path string) io.Closer {
	t.Helper()
	s, err := types[kind](path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// refused expects that there can be no socket at path, and to be told why.
func refused(t *testing.T, kind, path, why string) {
	t.Helper()
	s, err := types[kind](path)
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s at %s: %v, want it to say %q", kind, path, err, why)
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// A socket and what leads to it are made, for the owner and the group alone whatever
// the umask. A socket that nobody holds is replaced; Remove deletes it, and only it.
func TestLife(t *testing.T) {
	for kind := range types {
		dir := t.TempDir()
		path := filepath.Join(dir, "a/b/s")
		for range 2 { // the first leaves its socket to the second
			s := put(t, kind, path)
			for path, want := range map[string]fs.FileMode{
				path: fs.ModeSocket | 0o660, filepath.Join(dir, "a/b"): fs.ModeDir | 0o770, filepath.Join(dir, "a"): fs.ModeDir | 0o770,
			} {
				if i, err := os.Stat(path); err != nil || i.Mode() != want {
					t.Errorf("%s: %v, want %v: %v", path, i.Mode(), want, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if !exists(t, path) {
				t.Errorf("%s: closing it removed the file", kind)
			}
		}
		for range 2 {
			if err := Remove(path); err != nil || exists(t, path) {
				t.Errorf("%s: Remove leaves it: %v", kind, err)
			}
		}
	}
}

// Nothing but a stale socket is replaced or removed, by a socket of either type.
func TestInTheWay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for kind := range types {
		refused(t, kind, file, "is no socket")
		refused(t, kind, filepath.Join(file, "s"), "is no directory")
		for other := range types {
			path := filepath.Join(dir, kind+other)
			s := put(t, other, path)
			// No other goroutine has anything to do, so the clock jumps.
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				refused(t, kind, path, "held by another program")
				if waited := time.Since(start); waited != patience {
					t.Errorf("held for good is told after %v", waited)
				}
				if err := Remove(path); err != nil || !exists(t, path) {
					t.Errorf("Remove took what another holds: %v", err)
				}
			})
			s.Close()
		}
	}
	if err := Remove(file); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is gone: %v", err)
	}
}

// A copy of the descriptor, as a child has it before exec, holds a socket that was
// closed. Both to make another and to remove it wait for that.
func TestReleasedMeanwhile(t *testing.T) {
	for kind := range types {
		path := filepath.Join(t.TempDir(), "s")
		// holdOn closes the socket and, soon after, a copy.
		holdOn := func(t *testing.T, s io.Closer) {
			var duplicate int
			raw, err := s.(syscall.Conn).SyscallConn()
			if err == nil {
				err = errors.Join(raw.Control(func(fd uintptr) { duplicate, err = syscall.Dup(int(fd)) }), err)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			if state, err := look(path); state != held {
				t.Fatalf("%s: the copy does not hold it: %v, %v", kind, state, err)
			}
			time.AfterFunc(patience/2, func() { syscall.Close(duplicate) })
		}
		first := put(t, kind, path)
		var second io.Closer
		synctest.Test(t, func(t *testing.T) {
			holdOn(t, first)
			var err error
			if second, err = types[kind](path); err != nil {
				t.Fatal(err)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			holdOn(t, second)
			if err := Remove(path); err != nil || exists(t, path) {
				t.Errorf("%s: Remove leaves it: %v", kind, err)
			}
		})
	}
}

// The longest path is taken, one byte more is not, and what a failure made on its way
// is gone.
func TestFailureLeavesNothing(t *testing.T) {
	for kind := range types {
		dir := filepath.Join(t.TempDir(), "d")
		path := filepath.Join(dir, strings.Repeat("x", MaxPath-len(dir)-len("/")))
		refused(t, kind, path+"x", "invalid argument")
		if exists(t, dir) {
			t.Errorf("%s: the directory is there", kind)
		}
		put(t, kind, path)
	}
	dir := filepath.Join(t.TempDir(), "d")
	const nameMax = 255 // bytes in a file's name (limits.h)
	if err := MakeDir(filepath.Join(dir, strings.Repeat("x", nameMax+1))); !errors.Is(err, syscall.ENAMETOOLONG) || exists(t, dir) {
		t.Errorf("half of a path is made: %v", err)
	}
}
