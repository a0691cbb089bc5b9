package durable

import (
	"errors"
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
	if err := writeSynced(Host{}, "/proc/self/comm", []byte("vswitch")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a file that cannot be synced: %v", err)
	}
}
