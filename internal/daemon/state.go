package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// stateVersion is the format of state.json that this code writes, and the newest that it
// reads.
const stateVersion = 1

// savedState is the content of state.json: what users requested, and what the switch needs to
// resume it.
type savedState struct {
	Version   int    `json:"version"`
	WrittenBy string `json:"written_by,omitempty"` // the version of vswitch

	Switch setting.Patch `json:"switch,omitempty"` // Settings
	Ports  []savedPort   `json:"ports"`

	Applied []string       `json:"applied,omitempty"` // items that a configuration named, see portMark
	Pending *pendingChange `json:"pending,omitempty"` // the change that waits for its confirmation

	// Sections are what features keep, by their names, beside the keys above.
	Sections map[string]json.RawMessage `json:"-"`
}

// MarshalJSON implements json.Marshaler.
func (st savedState) MarshalJSON() ([]byte, error) {
	type fields savedState
	b, err := json.Marshal(fields(st))
	if err != nil || len(st.Sections) == 0 {
		return b, err
	}
	sections, err := json.Marshal(st.Sections) // sorted
	return append(append(b[:len(b)-1], ','), sections[1:]...), err
}

// UnmarshalJSON implements json.Unmarshaler. It refuses unknown keys within what it knows.
func (st *savedState) UnmarshalJSON(b []byte) error {
	all := setting.Patch{}
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	for key, to := range map[string]any{
		"version": &st.Version, "written_by": &st.WrittenBy,
		"switch": &st.Switch, "ports": &st.Ports, "applied": &st.Applied, "pending": &st.Pending,
	} {
		if text, ok := all[key]; ok {
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(to); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			delete(all, key)
		}
	}
	if len(all) > 0 {
		st.Sections = all
	}
	return nil
}

type savedPort struct {
	Spec  savedSpec  `json:"spec"`
	Trace port.Trace `json:"trace"`
}

// savedSpec is a port.Spec as one flat object. The kinds read its settings, which the state
// does not know; settings that a kind rejects stay in the state unchanged.
type savedSpec struct {
	Name, Kind string
	Settings   setting.Patch
}

func (s savedSpec) MarshalJSON() ([]byte, error) {
	all := setting.Patch{}
	all.Add(s.Settings)
	all.Set("name", s.Name)
	all.Set("kind", s.Kind)
	return json.Marshal(all)
}

func (s *savedSpec) UnmarshalJSON(b []byte) error {
	var compact bytes.Buffer // without the file's indentation
	if err := json.Compact(&compact, b); err != nil {
		return err
	}
	if err := json.Unmarshal(compact.Bytes(), &s.Settings); err != nil {
		return err
	}
	return errors.Join(s.Settings.Take("name", &s.Name), s.Settings.Take("kind", &s.Kind))
}

// store keeps a savedState in a directory of its own.
type store struct {
	path    string // of state.json
	program string // the version of this vswitch
	disk    disk
	log     *slog.Logger
	beside  func() error // writes what else the directory has, if it is gone; nil: nothing

	mu  sync.Mutex
	dir flock.File
}

// openStore makes the directory if it is missing and locks it: two daemons that wrote to one
// directory would undo each other's work.
func openStore(dir, program string) (*store, error) {
	if err := makeSyncedDir(hostDisk{}, dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w; choose another with --state, or use --ephemeral", err)
	}
	d, err := flock.Open(dir, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, flock.ErrHeld):
		return nil, fmt.Errorf("another vswitch keeps its state in %s; choose another directory with --state", dir)
	case err != nil:
		return nil, fmt.Errorf("opening the state directory: %w; choose another with --state, or use --ephemeral", err)
	}
	return newStore(d, dir, program), nil
}

// newStore returns the store in a directory that is locked.
func newStore(lock flock.File, dir, program string) *store {
	return &store{
		dir: lock, path: filepath.Join(dir, "state.json"), program: program, disk: hostDisk{}, log: slog.New(slog.DiscardHandler),
	}
}

func (s *store) Close() error { return s.lock().Close() }

// lock returns the directory, which is locked.
func (s *store) lock() flock.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dir
}

// own makes sure that the directory at the path is the locked one: the state would not outlive the
// process in one that was deleted, and another process could use one that took its place.
func (s *store) own() error {
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
	if err := makeSyncedDir(s.disk, dir, 0o700); err != nil {
		return err
	}
	lock, err := flock.Open(dir, os.O_RDONLY, 0)
	if errors.Is(err, flock.ErrHeld) {
		return fmt.Errorf("another vswitch keeps its state in %s since the directory was deleted; stop one of them", dir)
	} else if err != nil {
		return err
	}
	s.log.Warn("the state directory was deleted; it is made again", "state_dir", dir)
	former := s.dir
	s.dir = lock
	return former.Close()
}

// load reads the state, which is empty if there is no file. It moves a broken file to the
// name in aside, so that no later save can replace it. An error means that there may be a
// state that this process cannot use: a newer vswitch's state, for instance, stays where that
// program looks for it.
func (s *store) load() (st savedState, aside string, err error) {
	if i, err := os.Lstat(s.path); err == nil && i.Mode()&fs.ModeSymlink != 0 {
		// The next save would replace the link and leave what it leads to as it was.
		return savedState{}, "", fmt.Errorf("%s is a symbolic link; put the file itself there, or name its directory with --state", s.path)
	}
	b, err := readRegular(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return savedState{}, "", nil
	case err != nil:
		return savedState{}, "", fmt.Errorf("reading the state: %w", err)
	}
	st, bad := parseState(b)
	var unknown unknownError
	if bad == nil {
		return st, "", nil
	} else if errors.As(bad, new(setting.TwiceError)) {
		return savedState{}, "", fmt.Errorf("%s: %w; remove one of them", s.path, bad)
	} else if errors.As(bad, &unknown) {
		return savedState{}, "", fmt.Errorf("%s %w; %s", s.path, bad, runTheOther(s.program))
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
	return to, s.disk.SyncDir(filepath.Dir(to))
}

// unknownError names what this code does not know in a state.
type unknownError string

func (e unknownError) Error() string { return string(e) }

// writer names the vswitch that wrote a state.
func writer(version string) string {
	if version == "" {
		return "another vswitch"
	}
	return "vswitch " + version
}

// unknownKey returns the unknownError of a key.
func unknownKey(key, version string) unknownError {
	return unknownError(fmt.Sprintf("has the key %s, which %s wrote or a slip of the pen", key, writer(version)))
}

// runTheOther returns the advice that goes with an unknownError.
func runTheOther(program string) string {
	return fmt.Sprintf("this is vswitch %s: run the other one, or keep the state elsewhere with --state", program)
}

// known returns an error if the state has a setting or a feature that this program lacks, or more
// ports than a switch can have: a newer program or a user wrote it, and the switch would not be as
// requested without them.
func (st savedState) known(kinds port.Catalog, features []feature.Feature, program string) error {
	if n := len(st.Ports); n > vswitch.MaxPorts {
		return fmt.Errorf("state.json has %d ports, and a switch has at most %d; remove some there", n, vswitch.MaxPorts)
	}
	for key := range st.Sections {
		if !slices.ContainsFunc(features, func(f feature.Feature) bool { return keyOf(&f) == key }) {
			return fmt.Errorf("state.json %w; %s", unknownKey(strconv.Quote(key), st.WrittenBy), runTheOther(program))
		}
	}
	keys := make(map[string]bool)
	for _, s := range kinds.Settings() {
		keys[s.Key] = true
	}
	for _, p := range st.Ports {
		if kinds.Find(p.Spec.Kind) == nil {
			continue // the port waits for a program that has its kind
		}
		for _, key := range p.Spec.Settings.Keys() {
			if !keys[key] {
				return fmt.Errorf("state.json %w; %s", unknownKey(strconv.Quote(key), st.WrittenBy), runTheOther(program))
			}
		}
	}
	return nil
}

// parseState parses a state and checks its consistency. Unknown content was written by
// another version, and the next save would lose it: that is an unknownError.
func parseState(b []byte) (savedState, error) {
	var v struct {
		Version   int
		WrittenBy string `json:"written_by"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return savedState{}, setting.Plain(err)
	}
	switch {
	case v.Version > stateVersion:
		return savedState{}, unknownError(fmt.Sprintf("was written by %s in format %d, newer than format %d", writer(v.WrittenBy), v.Version, stateVersion))
	case v.Version != stateVersion:
		return savedState{}, fmt.Errorf("its format is %d, this vswitch reads %d", v.Version, stateVersion)
	}
	if err := setting.CheckKeys(b); err != nil {
		return savedState{}, err
	}
	var st savedState
	if err := json.Unmarshal(b, &st); err != nil {
		if _, key, ok := strings.Cut(err.Error(), "json: unknown field "); ok {
			return savedState{}, unknownKey(key, v.WrittenBy)
		}
		return savedState{}, setting.Plain(err)
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
	return st, nil
}

// save replaces the state on disk. state.json is whole after a crash at any moment; once save
// returns nil, the new state survives a power cut.
func (s *store) save(st savedState) error {
	st.Version, st.WrittenBy = stateVersion, s.program
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if err := s.own(); err != nil {
		return fmt.Errorf("writing the state: %w", err)
	}
	if s.beside != nil {
		if err := s.beside(); err != nil {
			return err
		}
	}
	if err := replaceFile(s.disk, s.path, append(b, '\n')); err != nil {
		return fmt.Errorf("writing the state: %w; make room or mend the disk, then try again", err)
	}
	return nil
}
