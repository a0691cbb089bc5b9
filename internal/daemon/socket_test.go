package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vswitch/vswitch/internal/sockfile"
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

func TestSocketIsForRootAndTheGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	gid := os.Getgid()
	if os.Geteuid() == 0 {
		gid = 12345 // only root can give a file to a group that it is not in
	}
	ln, err := listen(path, strconv.Itoa(gid))
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
	if _, err := listen(path, "no-such-group"); err == nil || !strings.Contains(err.Error(), "--socket-group") {
		t.Errorf("a group that is not there: %v", err)
	}
}

func TestOtherFilesAreNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(path, ""); err == nil || !strings.Contains(err.Error(), "--socket: ") || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("listen on a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file was changed")
	}
}
