// Package durabletest has a file system for tests: it fails at a step that the test chooses, and
// says what it has after a power cut.
package durabletest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/vswitch/vswitch/internal/files/durable"
)

// Disk is a file system that keeps at a power cut what POSIX promises: the
// content of a file that was synced, and the names of a directory that was synced.
// Anything else may be lost, or be there.
type Disk struct {
	FailAt int      // the step that fails; 0: none
	Steps  []string // those taken

	names  map[string]*file // as the processes see them
	synced map[string]*file // as they are certainly after a power cut
}

type file struct {
	d               *Disk
	content, synced string
}

// New returns a Disk with these files, which are synced.
func New(content map[string]string) *Disk {
	d := &Disk{names: make(map[string]*file)}
	for name, text := range content {
		d.names[name] = &file{d, text, text}
	}
	d.synced = maps.Clone(d.names)
	return d
}

func (d *Disk) step(format string, args ...any) error {
	d.Steps = append(d.Steps, fmt.Sprintf(format, args...))
	if len(d.Steps) == d.FailAt {
		return errors.New("the disk fails")
	}
	return nil
}

// Create implements durable.Disk.
func (d *Disk) Create(path string) (durable.File, error) {
	if err := d.step("create %s", path); err != nil {
		return nil, err
	}
	f := &file{d: d}
	d.names[path] = f
	return f, nil
}

func (f *file) Write(b []byte) (int, error) {
	if err := f.d.step("write"); err != nil {
		f.content += string(b[:len(b)/2])
		return len(b) / 2, err
	}
	f.content += string(b)
	return len(b), nil
}

func (f *file) Sync() error {
	if err := f.d.step("sync"); err != nil {
		return err
	}
	f.synced = f.content
	return nil
}

func (f *file) Close() error { return f.d.step("close") }

// Rename implements durable.Disk.
func (d *Disk) Rename(from, to string) error {
	if err := d.step("rename %s %s", from, to); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

// Remove implements durable.Disk.
func (d *Disk) Remove(path string) error {
	if d.names[path] == nil {
		return fs.ErrNotExist
	}
	delete(d.names, path)
	return nil
}

// SyncDir implements durable.Disk.
func (d *Disk) SyncDir(dir string) error {
	if err := d.step("sync %s", dir); err != nil {
		return err
	}
	for name := range d.names {
		if filepath.Dir(name) == dir {
			d.synced[name] = d.names[name]
		}
	}
	maps.DeleteFunc(d.synced, func(name string, _ *file) bool { return d.names[name] == nil })
	return nil
}

// Has reports whether the processes see a file.
func (d *Disk) Has(path string) bool { return d.names[path] != nil }

// AfterPowerCut returns what can be in a file after a power cut.
func (d *Disk) AfterPowerCut(path string) []string {
	var can []string
	for _, f := range []*file{d.synced[path], d.names[path]} {
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
