// Package durable writes files that are whole at every moment and survive a power cut, and reads
// them back. What has to be on time must not call it: a disk may take any time.
package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Disk is the file system that Replace needs. Tests have one that fails, or that loses unsynced
// data at a power cut.
type Disk interface {
	Create(path string) (File, error)
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(dir string) error
}

// File is a file that Disk created.
type File interface {
	io.WriteCloser
	Sync() error
}

// Host is the system's file system.
type Host struct{}

// Create makes a new file. What is at the path goes, unless it is a directory: a link there would lead the
// content into another file.
func (Host) Create(path string) (File, error) {
	if err := syscall.Unlink(path); err != nil && err != syscall.ENOENT {
		return nil, &os.PathError{Op: "unlink", Path: path, Err: err}
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}
func (Host) Rename(from, to string) error { return os.Rename(from, to) }
func (Host) Remove(path string) error     { return os.Remove(path) }

func (Host) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Replace replaces the content of the file at path. The file is whole at every moment, also
// after a crash or a power cut; once Replace returns nil, the new content survives one. An error before the rename leaves the old content.
func Replace(d Disk, path string, content []byte) error {
	// The name is always the same, so the next call overwrites what a crash left.
	temp := path + ".new"
	if err := writeSynced(d, temp, content); err != nil {
		return err
	}
	if err := d.Rename(temp, path); err != nil {
		_ = d.Remove(temp)
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// Advice says what to do about an error of Replace.
func Advice(err error) string {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return "raise the limit of open files (ulimit -n, LimitNOFILE= of the systemd unit), then try again"
	}
	return "make room or mend the disk, then try again"
}

// maxKept is more bytes than any file of the switch has.
const maxKept = 256 << 20

// ReadRegular reads a regular file. Anything else at the path, such as a FIFO, is an error:
// reading it might never end.
func ReadRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !i.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file; move it away", path)
	case i.Size() > maxKept:
		return nil, fmt.Errorf("%s has %d bytes, which no vswitch writes; move it away", path, i.Size())
	}
	return io.ReadAll(io.LimitReader(f, maxKept))
}

// SetAside renames a file that cannot be used, so that no Replace loses it, and returns its new path.
func SetAside(d Disk, path string) (string, error) {
	to := path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := d.Rename(path, to); err != nil {
		return "", err
	}
	return to, d.SyncDir(filepath.Dir(to))
}

// writeSynced creates a file; on error it leaves none.
func writeSynced(d Disk, path string, content []byte) error {
	f, err := d.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = d.Remove(path) // it may fill a full disk
	}
	return err
}

// MkdirAll makes a directory and its parents if they are missing. What it makes survives
// a power cut.
func MkdirAll(d Disk, dir string, mode os.FileMode) error {
	err := mkdir(d, dir, mode)
	if !errors.Is(err, os.ErrNotExist) || filepath.Dir(dir) == dir {
		return err
	}
	if err := MkdirAll(d, filepath.Dir(dir), mode); err != nil {
		return err
	}
	// Where the parent is a link to nowhere, or a file system that makes no directories, it is missing still.
	return mkdir(d, dir, mode)
}

// mkdir makes a directory whose parent is there, if it is missing.
func mkdir(d Disk, dir string, mode os.FileMode) error {
	err := os.Mkdir(dir, mode)
	switch {
	case err == nil:
		return d.SyncDir(filepath.Dir(dir))
	case !errors.Is(err, os.ErrExist):
		return err
	}
	if i, err := os.Stat(dir); err == nil && !i.IsDir() {
		return &os.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	return nil
}
