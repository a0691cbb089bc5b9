package flock_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// A lock excludes others until Close, and no longer, even where a child has a copy of
// the descriptor.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		flag int
	}{{dir, os.O_RDONLY}, {filepath.Join(dir, "f"), os.O_RDWR | os.O_CREATE}} {
		for range 2 {
			f, err := flock.Open(c.name, c.flag, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := flock.Open(c.name, c.flag, 0o600); !errors.Is(err, flock.ErrHeld) {
				t.Errorf("%s is locked twice: %v", c.name, err)
			}
			duplicate, err := syscall.Dup(int(f.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Close(duplicate)
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := flock.Open(filepath.Join(dir, "absent"), os.O_RDONLY, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}

func TestAwait(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	first, err := flock.Await(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var closing atomic.Bool
	got := make(chan error)
	go func() {
		second, err := flock.Await(name, os.O_RDWR, 0)
		if err == nil && !closing.Load() {
			err = errors.New("both have the lock")
		}
		if err == nil {
			err = second.Close()
		}
		got <- err
	}()
	waits := fmt.Sprintf("-> FLOCK  ADVISORY  WRITE %d ", os.Getpid())
	testenv.Eventually(t, "the second waits", func() bool {
		locks, err := os.ReadFile("/proc/locks")
		return err != nil || bytes.Contains(locks, []byte(waits))
	})
	closing.Store(true)
	first.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
}
