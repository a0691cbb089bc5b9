// Package flock lets one process at a time use a file or directory, by flock(2): a lock
// belongs to an open file, excludes every other one, and ends with the process.
package flock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrHeld means that somebody else holds the lock.
var ErrHeld = errors.New("locked by another process")

// File is an open file or directory with its lock.
type File struct{ *os.File }

// Open opens a file as os.OpenFile does and locks it, or fails with ErrHeld.
func Open(name string, flag int, perm os.FileMode) (File, error) {
	return open(name, flag, perm, syscall.LOCK_NB)
}

// Await is Open, but waits for the lock's holder.
func Await(name string, flag int, perm os.FileMode) (File, error) {
	return open(name, flag, perm, 0)
}

func open(name string, flag int, perm os.FileMode, how int) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return File{}, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|how)
		if err != syscall.EINTR {
			break
		}
	}
	switch err {
	case nil:
		return File{f}, nil
	case syscall.EWOULDBLOCK:
		err = ErrHeld
	default:
		err = fmt.Errorf("lock %s: %w", name, err)
	}
	f.Close()
	return File{}, err
}

// Leave closes the file and leaves it locked, for another process that has it open.
func (f File) Leave() error { return f.File.Close() }

// Close unlocks and closes the file. Closing alone would not do: a child between fork
// and exec has a copy of the descriptor, and the lock with it.
func (f File) Close() error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.File.Close())
}
