// Package store keeps on disk what users requested of one switch, and what the switch needs to resume
// it. The daemon alone uses it. A Store owns a directory and replaces state.json whole, so a crash or
// a power cut leaves the former state or the new one. A Writer saves on a goroutine of its own, so
// nothing that must be on time waits for the disk. What this program does not know in a state is an
// error and stays as it is.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/vswitch/vswitch/internal/files/durable"
	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/setting"
)

// Store keeps a State in a directory of its own.
type Store struct {
	path    string // of state.json
	program string // the version of this vswitch
	disk    durable.Disk

	// Log receives what happens to the directory.
	Log *slog.Logger

	// Beside, if it is set, is called at each save. It writes again what else the directory has, if
	// that is gone.
	Beside func() error

	mu  sync.Mutex
	dir flock.File
}

// Open makes the directory if it is missing and locks it: two daemons that wrote to one
// directory would undo each other's work.
func Open(dir, program string) (*Store, error) {
	if err := durable.MkdirAll(durable.Host{}, dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w; choose another with --state, or use --ephemeral", err)
	}
	d, err := flock.Open(dir, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, flock.ErrHeld):
		return nil, fmt.Errorf("another vswitch keeps its state in %s; choose another directory with --state", dir)
	case err != nil:
		return nil, fmt.Errorf("opening the state directory: %w; choose another with --state, or use --ephemeral", err)
	}
	return New(d, dir, program), nil
}

// New returns the Store in a directory that is locked.
func New(lock flock.File, dir, program string) *Store {
	return &Store{
		dir: lock, path: filepath.Join(dir, "state.json"), program: program, disk: durable.Host{}, Log: slog.New(slog.DiscardHandler),
	}
}

// Close gives the directory back.
func (s *Store) Close() error { return s.Lock().Close() }

// Lock returns the directory, which is locked.
func (s *Store) Lock() flock.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dir
}

// own makes sure that the directory at the path is the locked one: the state would not outlive the
// process in one that was deleted, and another process could use one that took its place.
func (s *Store) own() error {
	dir := filepath.Dir(s.path)
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, err := s.dir.Stat()
	if err != nil {
		return err
	}
	at, err := os.Stat(dir)
	switch {
	case err == nil && os.SameFile(at, mine):
		return nil
	case err == nil:
		if _, err := os.Lstat(s.path); err == nil {
			return fmt.Errorf("another directory with a state has taken the place of %s; put the former one back, or start the switch again to use this one", dir)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := durable.MkdirAll(s.disk, dir, 0o700); err != nil {
		return err
	}
	lock, err := flock.Open(dir, os.O_RDONLY, 0)
	if errors.Is(err, flock.ErrHeld) {
		return fmt.Errorf("another vswitch keeps its state in %s since the directory was deleted; stop one of them", dir)
	} else if err != nil {
		return err
	}
	s.Log.Warn("the state directory was deleted; it is made again", "state_dir", dir)
	former := s.dir
	s.dir = lock
	return former.Close()
}

// Aside is a broken file that was moved to another name.
type Aside struct {
	Path string // "": there was none
	Why  error
}

// Load reads the state, which is empty if there is no file. It moves a file that is not JSON, as a
// broken disk leaves it, to another name, so that no later save can replace it. An error means that
// there is a state that this process cannot use: somebody's slip, or a newer vswitch's state. It
// stays where it is.
func (s *Store) Load() (st State, aside Aside, err error) {
	if i, err := os.Lstat(s.path); err == nil && i.Mode()&fs.ModeSymlink != 0 {
		// The next save would replace the link and leave what it leads to as it was.
		return State{}, Aside{}, fmt.Errorf("%s is a symbolic link; put the file itself there, or name its directory with --state", s.path)
	}
	b, err := durable.ReadRegular(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return State{}, Aside{}, nil
	case err != nil:
		return State{}, Aside{}, fmt.Errorf("reading the state: %w", err)
	}
	st, bad := Parse(b)
	var unknown UnknownError
	if bad == nil {
		return st, Aside{}, nil
	} else if errors.As(bad, new(setting.TwiceError)) {
		return State{}, Aside{}, fmt.Errorf("%s: %w; remove one of them", s.path, bad)
	} else if errors.As(bad, &unknown) {
		return State{}, Aside{}, fmt.Errorf("%s %w; %s", s.path, bad, RunTheOther(s.program))
	} else if json.Valid(b) {
		return State{}, Aside{}, fmt.Errorf("%s: %w; mend it, or move the file away to start without ports", s.path, bad)
	} else if to, err := durable.SetAside(s.disk, s.path); err != nil {
		return State{}, Aside{}, fmt.Errorf("%s cannot be used (%w), nor moved away: %w", s.path, bad, err)
	} else {
		return State{}, Aside{to, bad}, nil
	}
}

// Save replaces the state on disk. state.json is whole after a crash at any moment; once Save
// returns nil, the new state survives a power cut.
func (s *Store) Save(st State) error {
	st.Version, st.WrittenBy = Version, s.program
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if err := s.own(); err != nil {
		return fmt.Errorf("writing the state: %w", err)
	}
	if s.Beside != nil {
		if err := s.Beside(); err != nil {
			return err
		}
	}
	if err := durable.Replace(s.disk, s.path, append(b, '\n')); err != nil {
		return fmt.Errorf("writing the state: %w; %s", err, durable.Advice(err))
	}
	return nil
}
