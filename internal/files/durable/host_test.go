package durable

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// The disk of the host is asked to sync: where it cannot, as in /proc, that is an error.
func TestHostDiskSyncs(t *testing.T) {
	if err := (Host{}).SyncDir("/proc"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a directory that cannot be synced: %v", err)
	}
	if err := (Host{}).SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := writeSynced(commDisk{}, "unused", []byte("vswitch")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a file that cannot be synced: %v", err)
	}
}

// commDisk has a file that cannot be synced.
type commDisk struct{ Host }

func (commDisk) Create(string) (File, error) { return os.OpenFile("/proc/self/comm", os.O_WRONLY, 0) }
func (commDisk) Remove(string) error         { return nil }
