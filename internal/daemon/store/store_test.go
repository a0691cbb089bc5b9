package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/files/durable"
	"github.com/vswitch/vswitch/internal/files/durable/durabletest"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

func tempStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "a", "state"), "v1.0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var someState = State{
	Version: Version, WrittenBy: "v1.0",
	Ports: []Port{{
		Spec: Spec{"vm0", "tap", setting.Patch{"mtu": json.RawMessage("9000"), "address": json.RawMessage(`["10.0.0.1/24"]`)}},
		Trace: port.Trace{Ifname: "vm0", Before: &port.DeviceSettings{
			Up: true, MTU: 1500, DisableIPv6: "0",
		}},
	}},
	Sections: map[string]json.RawMessage{"notes": json.RawMessage(`"kept"`)},
}

func TestStateIsReadBack(t *testing.T) {
	s := tempStore(t)
	if st, aside, err := s.Load(); err != nil || aside.Path != "" || len(st.Ports) != 0 {
		t.Fatalf("without a file: %+v, %q, %v", st, aside, err)
	}
	if err := s.Save(someState); err != nil {
		t.Fatal(err)
	}
	wantLoad(t, s, someState)
	if err := s.Save(State{}); err != nil {
		t.Fatal(err)
	}
	wantLoad(t, s, State{Version: Version, WrittenBy: "v1.0"})
}

func wantLoad(t *testing.T, s *Store, want State) {
	t.Helper()
	got, aside, err := s.Load()
	if err != nil || aside.Path != "" {
		t.Fatalf("load: aside %v, error %v", aside, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

// A save that fails at any step, and a crash in the midst of one, leave the state
// as it was.
func TestFailedSaveKeepsTheFormerState(t *testing.T) {
	for name, spoil := range map[string]struct{ do, undo func(*Store) error }{
		"file cannot be made": {
			func(s *Store) error { return os.Mkdir(s.path+".new", 0o700) },
			func(s *Store) error { return os.Remove(s.path + ".new") },
		},
		"disk is full": {
			func(s *Store) error { s.disk = fullDisk{}; return nil },
			func(s *Store) error { s.disk = durable.Host{}; return nil }, // another program frees the room
		},
		"file cannot be replaced": {
			func(s *Store) error {
				if err := os.Rename(s.path, s.path+".kept"); err != nil {
					return err
				}
				return os.MkdirAll(filepath.Join(s.path, "in-the-way"), 0o700)
			},
			func(s *Store) error {
				if err := os.RemoveAll(s.path); err != nil {
					return err
				}
				return os.Rename(s.path+".kept", s.path)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := tempStore(t)
			if err := s.Save(someState); err != nil {
				t.Fatal(err)
			}
			if err := spoil.do(s); err != nil {
				t.Fatal(err)
			}
			err := s.Save(State{})
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("save: %v, want an error of one line", err)
			}
			if err := spoil.undo(s); err != nil {
				t.Fatal(err)
			}
			wantLoad(t, s, someState)
			if err := s.Save(State{}); err != nil {
				t.Errorf("save after the trouble is over: %v", err)
			}
		})
	}
	t.Run("crash before the rename", func(t *testing.T) {
		s := tempStore(t)
		if err := s.Save(someState); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path+".new", []byte(`{"vers`), 0o600); err != nil {
			t.Fatal(err)
		}
		wantLoad(t, s, someState)
		if err := s.Save(State{}); err != nil {
			t.Fatal(err)
		}
		wantLoad(t, s, State{Version: Version, WrittenBy: "v1.0"})
	})
}

// fullDisk is the host's file system without room.
type fullDisk struct{ durable.Host }

func (fullDisk) Create(string) (durable.File, error) { return os.OpenFile("/dev/full", os.O_WRONLY, 0) }

// tracedDisk is the host's file system. It keeps which directories were synced.
type tracedDisk struct {
	durable.Host
	synced []string
}

func (d *tracedDisk) SyncDir(dir string) error {
	d.synced = append(d.synced, dir)
	return d.Host.SyncDir(dir)
}

func TestStateThatCannotBeUsedIsSetAside(t *testing.T) {
	for name, content := range map[string]string{
		"empty":      ``,
		"cut short":  `{"version":1,"ports":[{"spec":`,
		"not JSON":   "\x00\x00\x00\x00",
		"two values": `{"version":1,"ports":[],"fdb":[]}{}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := tempStore(t)
			if err := os.WriteFile(s.path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			d := &tracedDisk{}
			s.disk = d
			st, aside, err := s.Load()
			if err != nil || len(st.Ports) != 0 {
				t.Fatalf("load: %+v, %v", st, err)
			}
			if !slices.Equal(d.synced, []string{filepath.Dir(s.path)}) {
				t.Errorf("synced are %q; after a power cut the file is back at its place", d.synced)
			}
			path := aside.Path
			if !strings.HasPrefix(path, s.path+".corrupt-") || aside.Why == nil || strings.Contains(aside.Why.Error(), "\n") {
				t.Fatalf("set aside as %q for %v", path, aside.Why)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != content {
				t.Errorf("content kept: %q, %v", b, err)
			}
			if err := s.Save(someState); err != nil {
				t.Fatal(err)
			}
			wantLoad(t, s, someState)
			if b, _ := os.ReadFile(path); string(b) != content {
				t.Error("a later save changed what was set aside")
			}
		})
	}
}

// A document with a slip in it is no reason to start without the ports, nor to lose them.
func TestStateWithASlipStopsTheStart(t *testing.T) {
	for name, test := range map[string]struct{ content, says string }{
		"no version":  {`{"ports":[],"fdb":[]}`, "its version is 0, this vswitch reads 1"},
		"version 0":   {`{"version":0,"ports":[],"fdb":[]}`, "its version is 0"},
		"bad name":    {`{"version":1,"ports":[{"spec":{"name":"a/b","kind":"tap"},"trace":{}}],"fdb":[]}`, `"a/b"`},
		"port twice":  {`{"version":1,"ports":[{"spec":{"name":"a","kind":"tap"},"trace":{}},{"spec":{"name":"a","kind":"tap"},"trace":{}}],"fdb":[]}`, "port a is there twice"},
		"wrong type":  {`{"version":1,"ports":[{"spec":"a","trace":{}}]}`, "there is a string in place of an object"},
		"no object":   {`[1]`, "in place of an object"},
		"null":        {`null`, "its version is 0"},
		"null port":   {`{"version":1,"ports":[null]}`, "a port needs a name"},
		"name absent": {`{"version":1,"ports":[{"spec":{"kind":"tap"}}]}`, "a port needs a name"},
	} {
		t.Run(name, func(t *testing.T) {
			s := tempStore(t)
			if err := os.WriteFile(s.path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, aside, err := s.Load()
			if err == nil || aside.Path != "" || strings.Contains(err.Error(), "\n") {
				t.Fatalf("aside %v, %v", aside, err)
			}
			for _, text := range []string{s.path + ": ", test.says, "mend it"} {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q says nothing of %q", err, text)
				}
			}
			if b, err := os.ReadFile(s.path); err != nil || string(b) != test.content {
				t.Errorf("the file has %q, %v", b, err)
			}
		})
	}
}

// The error names the line, so that an editor finds the place.
func TestSyntaxErrorHasALine(t *testing.T) {
	for text, line := range map[string]string{
		"{\n\"version\": 1,\n\"ports\": [],\n}": "line 4: ", "{,\n}": "line 1: ", "{\n\"version\": 1,\n\"ports\": [": "line 3: ", "": "the file is empty",
		"{\"version\": 1}\n{": "line 2: ",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), line) {
			t.Errorf("%q: %v, want %q", text, err, line)
		}
	}
}

// What a newer version wrote stays where that looks for it: without its ports the
// switch does not start.
func TestStateOfANewerVersionStopsTheStart(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		says    []string
	}{
		"format":      {`{"version":2,"written_by":"v3.1","ports":[],"fdb":[]}`, []string{"v3.1", "format 2", "v1.0", "format 1", "--state"}},
		"format, new": {`{"version":3,"ports":{},"colour":1}`, []string{"another vswitch", "format 3", "v1.0"}},
		"key":         {`{"version":1,"written_by":"v1.9","ports":[{"spec":{"name":"a","kind":"tap"},"trace":{},"colour":1}]}`, []string{"v1.9", `"colour"`, "v1.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := tempStore(t)
			if err := os.WriteFile(s.path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, aside, err := s.Load()
			if err == nil || aside.Path != "" || strings.Contains(err.Error(), "\n") {
				t.Fatalf("aside %v, %v", aside, err)
			}
			for _, text := range append(test.says, "state.json") {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q says nothing of %q", err, text)
				}
			}
			if b, err := os.ReadFile(s.path); err != nil || string(b) != test.content {
				t.Errorf("the file has %q, %v", b, err)
			}
		})
	}
}

// A save that the disk does not outlast says so: the store uses durable.Replace.
func TestSaveIsSynced(t *testing.T) {
	s := tempStore(t)
	d := durabletest.New(nil)
	s.disk = d
	if err := s.Save(someState); err != nil {
		t.Fatal(err)
	}
	want := []string{"create " + s.path + ".new", "write", "sync", "close", "rename " + s.path + ".new " + s.path, "sync " + filepath.Dir(s.path)}
	if diff := cmp.Diff(want, d.Steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	for failAt := range want {
		d := durabletest.New(nil)
		d.FailAt = failAt + 1
		s.disk = d
		if err := s.Save(someState); err == nil {
			t.Errorf("no error though the step fails: %q", d.Steps)
		}
	}
}

func TestStateThatCannotBeReadStopsTheStart(t *testing.T) {
	s := tempStore(t)
	if err := os.Mkdir(s.path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, aside, err := s.Load(); err == nil {
		t.Errorf("load: no error, aside %v", aside)
	}
}

// What is no regular file is neither read, which might never end, nor replaced.
func TestStateIsARegularFile(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a FIFO": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a link": func(path string) error {
			return errors.Join(os.WriteFile(path+".real", nil, 0o600), os.Symlink(path+".real", path))
		},
		"a link to nowhere": func(path string) error { return os.Symlink(path+".gone", path) },
		"a device":          func(path string) error { return os.Symlink("/dev/zero", path) },
		"too long": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := tempStore(t)
			if err := put(s.path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(s.path)
			if err != nil {
				t.Fatal(err)
			}
			if _, aside, err := s.Load(); err == nil || !strings.Contains(err.Error(), s.path) {
				t.Errorf("load: aside %v, error %v", aside, err)
			}
			if after, err := os.Lstat(s.path); err != nil || !os.SameFile(before, after) {
				t.Errorf("it is another file: %v", err)
			}
		})
	}
}

// A key that an edit left twice is no reason to start without the ports.
func TestStateWithAKeyTwice(t *testing.T) {
	for _, text := range []string{
		`{"version": 1, "ports": [{"spec": {"name": "vm0", "kind": "tap", "isolated": true, "isolated": false}, "trace": {}}]}`,
		`{"version": 1, "ports": [{"spec": {"name": "vm0", "kind": "tap"}, "trace": {}}], "ports": []}`,
	} {
		s := tempStore(t)
		if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, aside, err := s.Load()
		if err == nil || aside.Path != "" || !strings.Contains(err.Error(), "twice in one object; remove one of them") {
			t.Errorf("load: aside %v, error %v", aside, err)
		}
		if b, err := os.ReadFile(s.path); err != nil || string(b) != text {
			t.Errorf("the file has %q, %v", b, err)
		}
	}
}

// A key that differs from a known one in its case alone is unknown: of two such keys one would be lost.
func TestStateWithAKeyInAnotherCase(t *testing.T) {
	for text, key := range map[string]string{
		`{"version": 1, "Ports": [], "ports": [{"spec": {"name": "vm0", "kind": "tap"}, "trace": {}}]}`:                     "Ports",
		`{"version": 1, "ports": [{"spec": {"name": "vm0", "kind": "tap"}, "Spec": {"name": "vm1", "kind": "tap"}}]}`:       "Spec",
		`{"version": 1, "ports": [{"spec": {"name": "vm0", "kind": "tap"}, "trace": {"created": true, "CREATED": false}}]}`: "CREATED",
	} {
		s := tempStore(t)
		if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, aside, err := s.Load()
		if err == nil || aside.Path != "" || !strings.Contains(err.Error(), fmt.Sprintf("has the key %q", key)) {
			t.Errorf("load: aside %v, error %v", aside, err)
		}
		if b, err := os.ReadFile(s.path); err != nil || string(b) != text {
			t.Errorf("the file has %q, %v", b, err)
		}
	}
}

// A state directory that is deleted under the daemon is made again, with all that it had, and
// locked; one that another took the place of is left alone.
func TestStateDirectoryIsDeleted(t *testing.T) {
	s := tempStore(t)
	dir := filepath.Dir(s.path)
	s.Beside = func() error { return os.WriteFile(filepath.Join(dir, "beside"), nil, 0o600) }
	if err := errors.Join(s.Save(State{}), os.RemoveAll(dir), s.Save(someState)); err != nil {
		t.Fatal(err)
	}
	wantLoad(t, s, someState)
	if _, err := os.Stat(filepath.Join(dir, "beside")); err != nil {
		t.Error("what is beside the state is not made again:", err)
	}
	if i, err := os.Stat(dir); err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("the directory is open to others: %v, %v", i.Mode(), err)
	}
	if _, err := Open(dir, "v1.0"); err == nil || !strings.Contains(err.Error(), "another vswitch keeps its state in") {
		t.Errorf("a second owner: %v", err)
	}

	if err := errors.Join(os.Rename(dir, dir+".moved"), os.Mkdir(dir, 0o700), os.WriteFile(s.path, []byte("another"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(State{}); err == nil || !strings.Contains(err.Error(), "put the former one back") {
		t.Errorf("with another state there: %v", err)
	}
	if b, err := os.ReadFile(s.path); err != nil || string(b) != "another" {
		t.Errorf("the other state is %q, %v", b, err)
	}

	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	other, err := Open(dir, "v1.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(someState); err == nil || !strings.Contains(err.Error(), "another vswitch keeps its state in") {
		t.Errorf("with another switch there: %v", err)
	}
	if err := errors.Join(other.Close(), s.Save(someState)); err != nil {
		t.Errorf("after the other switch has gone: %v", err)
	}
	wantLoad(t, s, someState)
}

func TestStateDirectoryHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, "v1.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "v1.0"); err == nil || !strings.Contains(err.Error(), "--state") {
		t.Errorf("a second owner: %v", err)
	}
	s.Close()
	if s, err = Open(dir, "v1.0"); err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	s.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, "v1.0"); err == nil || !strings.Contains(err.Error(), "--ephemeral") {
		t.Errorf("a file for a directory: %v", err)
	}
}

// The state has names of machines and their addresses, and is its owner's alone.
func TestStateIsPrivate(t *testing.T) {
	s := tempStore(t)
	if err := s.Save(someState); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{filepath.Dir(s.path): 0o700, filepath.Dir(filepath.Dir(s.path)): 0o700, s.path: 0o600} {
		if i, err := os.Stat(path); err != nil || i.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, i.Mode(), err, want)
		}
	}
}

// While something else is in the place of the state directory, or what belongs beside the state
// cannot be written, no save succeeds; afterwards one does.
func TestStateDirectoryIsNoDirectory(t *testing.T) {
	for name, c := range map[string]struct {
		do, undo func(s *Store, dir string) error
	}{
		"a link to nowhere": {
			func(_ *Store, dir string) error { return errors.Join(os.RemoveAll(dir), os.Symlink("nowhere", dir)) },
			func(_ *Store, dir string) error { return os.Remove(dir) },
		},
		"a file above it": {
			func(_ *Store, dir string) error {
				return errors.Join(os.RemoveAll(filepath.Dir(dir)), os.WriteFile(filepath.Dir(dir), nil, 0o600))
			},
			func(_ *Store, dir string) error { return os.Remove(filepath.Dir(dir)) },
		},
		"nothing beside it": {
			func(s *Store, dir string) error {
				s.Beside = func() error { return errors.New("no identity") }
				return os.RemoveAll(dir)
			},
			func(s *Store, _ string) error { s.Beside = nil; return nil },
		},
	} {
		s := tempStore(t)
		dir := filepath.Dir(s.path)
		if err := errors.Join(s.Save(someState), c.do(s, dir)); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(State{}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: save: %v, want an error of one line", name, err)
		}
		if err := errors.Join(c.undo(s, dir), s.Save(someState)); err != nil {
			t.Errorf("%s: save afterwards: %v", name, err)
			continue
		}
		wantLoad(t, s, someState)
		if other, err := Open(dir, "v1.0"); err == nil {
			other.Close()
			t.Errorf("%s: the directory has two owners", name)
		}
	}
}
