package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/flock"
	"github.com/vswitch/vswitch/port"
)

// stateVersion is the form of state.json that this code writes, and the only one
// it reads.
const stateVersion = 1

// savedState is the content of state.json: what users asked for, and what the
// switch must know to take it back.
type savedState struct {
	Version int          `json:"version"`
	Ports   []savedPort  `json:"ports"`
	FDB     []savedEntry `json:"fdb"`              // entries that users added
	Groups  []savedGroup `json:"groups,omitempty"` // static multicast groups
	Mirrors []api.Mirror `json:"mirrors,omitempty"`
}

type savedPort struct {
	Spec  port.Spec  `json:"spec"`
	Trace port.Trace `json:"trace"`
}

type savedEntry struct {
	MAC  port.MAC `json:"mac"`
	VLAN uint16   `json:"vlan"`
	Port string   `json:"port"`

	Sticky bool `json:"sticky,omitempty"`
}

type savedGroup struct {
	Group netip.Addr `json:"group"`
	VLAN  uint16     `json:"vlan"`
	Port  string     `json:"port"`
}

// store keeps a savedState in a directory that it has to itself.
type store struct {
	dir  flock.File // open to be synced
	path string     // of state.json
}

// openStore makes the directory where it is absent, and locks it: two daemons that
// wrote to one would each undo the other's work.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w; choose another with --state, or use --ephemeral", err)
	}
	d, err := flock.Open(dir, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, flock.ErrHeld):
		return nil, fmt.Errorf("another vswitch keeps its state in %s; choose another directory with --state", dir)
	case err != nil:
		return nil, fmt.Errorf("opening the state directory: %w; choose another with --state, or use --ephemeral", err)
	}
	return &store{dir: d, path: filepath.Join(dir, "state.json")}, nil
}

func (s *store) Close() error { return s.dir.Close() }

// load reads the state; without a file it is empty. A file that it does not
// understand is moved to the name that aside tells, so that no later save can
// replace it. An error means that there may be a state, but not for this process.
func (s *store) load() (st savedState, aside string, err error) {
	b, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return savedState{}, "", nil
	case err != nil:
		return savedState{}, "", fmt.Errorf("reading the state: %w", err)
	}
	if st, bad := parseState(b); bad == nil {
		return st, "", nil
	} else if aside, err = s.setAside(); err != nil {
		return savedState{}, "", fmt.Errorf("%s cannot be used (%w), nor moved away: %w", s.path, bad, err)
	} else {
		return savedState{}, fmt.Sprintf("%s (%v)", aside, bad), nil
	}
}

func (s *store) setAside() (string, error) {
	to := s.path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(s.path, to); err != nil {
		return "", err
	}
	return to, s.dir.Sync()
}

// parseState reads a state and checks that it hangs together. A key that it does
// not know was written by another version and would be lost by the next save, so
// it is an error as well.
func parseState(b []byte) (savedState, error) {
	var v struct{ Version int }
	if err := json.Unmarshal(b, &v); err != nil {
		return savedState{}, err
	}
	if v.Version != stateVersion {
		return savedState{}, fmt.Errorf("its version is %d, this vswitch reads %d", v.Version, stateVersion)
	}
	var st savedState
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&st); err != nil {
		return savedState{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return savedState{}, errors.New("something follows the state")
	}
	seen := make(map[string]bool)
	for _, p := range st.Ports {
		if err := port.CheckName(p.Spec.Name); err != nil {
			return savedState{}, err
		}
		if seen[p.Spec.Name] {
			return savedState{}, fmt.Errorf("port %s is there twice", p.Spec.Name)
		}
		seen[p.Spec.Name] = true
	}
	for _, e := range st.FDB {
		if !seen[e.Port] {
			return savedState{}, fmt.Errorf("FDB entry %s has no port %q", e.MAC, e.Port)
		}
	}
	for _, g := range st.Groups {
		if !seen[g.Port] {
			return savedState{}, fmt.Errorf("multicast group %s has no port %q", g.Group, g.Port)
		}
	}
	return st, nil
}

// save replaces the state on disk: after it, and after a crash at any moment
// before it, state.json is whole. When it returns nil the state outlives a power
// cut.
func (s *store) save(st savedState) error {
	st.Version = stateVersion
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	// The name is always the same, so that what a crash left is overwritten.
	temp := s.path + ".new"
	if err := writeSynced(temp, append(b, '\n')); err != nil {
		return fmt.Errorf("writing the state: %w; make room or mend the disk, then try again", err)
	}
	if err := os.Rename(temp, s.path); err != nil {
		return fmt.Errorf("replacing the state: %w; mend that, then try again", err)
	}
	if err := s.dir.Sync(); err != nil {
		return fmt.Errorf("writing the state: %w; mend the disk, then try again", err)
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
