package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// powerDisk is a file system that keeps at a power cut what POSIX promises: the
// content of a file that was synced, and the names of a directory that was synced.
// Anything else may be lost, or be there.
type powerDisk struct {
	failAt int // the step that fails; 0: none
	steps  []string

	names  map[string]*powerFile // as the processes see them
	synced map[string]*powerFile // as they are certainly after a power cut
}

type powerFile struct {
	d               *powerDisk
	content, synced string
}

func newPowerDisk(content map[string]string) *powerDisk {
	d := &powerDisk{names: make(map[string]*powerFile)}
	for name, text := range content {
		d.names[name] = &powerFile{d, text, text}
	}
	d.synced = maps.Clone(d.names)
	return d
}

func (d *powerDisk) step(format string, args ...any) error {
	d.steps = append(d.steps, fmt.Sprintf(format, args...))
	if len(d.steps) == d.failAt {
		return errors.New("the disk fails")
	}
	return nil
}

func (d *powerDisk) Create(path string) (diskFile, error) {
	if err := d.step("create %s", path); err != nil {
		return nil, err
	}
	f := &powerFile{d: d}
	d.names[path] = f
	return f, nil
}

func (f *powerFile) Write(b []byte) (int, error) {
	if err := f.d.step("write"); err != nil {
		f.content += string(b[:len(b)/2])
		return len(b) / 2, err
	}
	f.content += string(b)
	return len(b), nil
}

func (f *powerFile) Sync() error {
	if err := f.d.step("sync"); err != nil {
		return err
	}
	f.synced = f.content
	return nil
}

func (f *powerFile) Close() error { return f.d.step("close") }

func (d *powerDisk) Rename(from, to string) error {
	if err := d.step("rename %s %s", from, to); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *powerDisk) Remove(path string) error {
	if d.names[path] == nil {
		return fs.ErrNotExist
	}
	delete(d.names, path)
	return nil
}

func (d *powerDisk) SyncDir(dir string) error {
	if err := d.step("sync %s", dir); err != nil {
		return err
	}
	for name := range d.names {
		if filepath.Dir(name) == dir {
			d.synced[name] = d.names[name]
		}
	}
	maps.DeleteFunc(d.synced, func(name string, _ *powerFile) bool { return d.names[name] == nil })
	return nil
}

// afterPowerCut is what can be in a file then.
func (d *powerDisk) afterPowerCut(path string) []string {
	var can []string
	for _, f := range []*powerFile{d.synced[path], d.names[path]} {
		if f == nil {
			can = append(can, "no file")
			continue
		}
		can = append(can, f.synced)
		if f.synced != f.content {
			can = append(can, "something between "+f.synced+" and "+f.content)
		}
	}
	slices.Sort(can)
	return slices.Compact(can)
}

func TestReplacedFileOutlivesAPowerCut(t *testing.T) {
	const path = "/state/state.json"
	d := newPowerDisk(map[string]string{path: "old", "/state/other": "x"})
	if err := replaceFile(d, path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got := d.afterPowerCut(path); !slices.Equal(got, []string{"new"}) {
		t.Errorf("after a power cut the file has one of %q; steps %q", got, d.steps)
	}
	for failAt := 1; failAt <= len(d.steps); failAt++ {
		d := newPowerDisk(map[string]string{path: "old"})
		d.failAt = failAt
		if err := replaceFile(d, path, []byte("new")); err == nil {
			t.Errorf("step %q fails, and no error", d.steps)
		}
		for _, got := range d.afterPowerCut(path) {
			if got != "old" && got != "new" {
				t.Errorf("after %q fails and a power cut the file can have %q", d.steps, got)
			}
		}
		if d.names[path+".new"] != nil {
			t.Errorf("after %q fails the new file is left", d.steps)
		}
		d.failAt = 0
		if err := replaceFile(d, path, []byte("newer")); err != nil || !slices.Equal(d.afterPowerCut(path), []string{"newer"}) {
			t.Errorf("the next try: %v, %q", err, d.afterPowerCut(path))
		}
	}
}

// A directory that is made is there after a power cut: what leads to it is synced.
func TestMadeDirectoryIsSynced(t *testing.T) {
	dir := t.TempDir()
	d := newPowerDisk(nil)
	for range 2 {
		if err := makeSyncedDir(d, filepath.Join(dir, "a", "b"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"sync " + dir, "sync " + filepath.Join(dir, "a")}; !slices.Equal(d.steps, want) {
		t.Errorf("steps %q, want %q", d.steps, want)
	}
	d.failAt = len(d.steps) + 1
	if err := makeSyncedDir(d, filepath.Join(dir, "c"), 0o700); err == nil {
		t.Error("no error where the sync fails")
	}
}

// The disk of the host is asked to sync: where it cannot, as in /proc, that is an error.
func TestHostDiskSyncs(t *testing.T) {
	if err := (hostDisk{}).SyncDir("/proc"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a directory that cannot be synced: %v", err)
	}
	if err := (hostDisk{}).SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := writeSynced(hostDisk{}, "/proc/self/comm", []byte("vswitch")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a file that cannot be synced: %v", err)
	}
}
