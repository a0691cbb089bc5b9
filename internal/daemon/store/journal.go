package store

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Journal keeps what ports are about to change on the host, until a state on disk has it: a file for each port
// in a directory of its own. It outlives a kill, not a power cut, with which the devices go as well. So nothing waits until the
// disk has it, and writing takes as long as the system's memory does. A nil Journal keeps nothing. Any goroutine may
// use it.
type Journal struct {
	dir   string
	write func(path string, content []byte) // replaces a file, or removes it if content is nil

	mu      sync.Mutex
	entries map[string]Port
	todo    map[string]struct{} // entries that the files do not have yet
	done    chan struct{}       // closed once they have all of todo
	running bool                // a goroutine writes
	late    bool                // it takes too long, so nobody waits for it
}

// journalWait is how long the first port waits for a disk that does not take even what it may keep in memory.
const journalWait = 200 * time.Millisecond

// OpenJournal returns the Journal in a directory of the state, with what a former process left in it.
func OpenJournal(state string) *Journal {
	j := &Journal{dir: filepath.Join(state, "journal"), write: replace, entries: make(map[string]Port), todo: make(map[string]struct{}), done: make(chan struct{})}
	files, _ := os.ReadDir(j.dir)
	for _, f := range files {
		b, _ := os.ReadFile(filepath.Join(j.dir, f.Name()))
		var p Port
		if json.Unmarshal(b, &p) == nil && f.Name() == fileOf(p.Spec.Name) {
			p.Trace = ifMarked(p.Trace)
			j.entries[p.Spec.Name] = p
		} else { // a power cut left it
			_ = os.Remove(filepath.Join(j.dir, f.Name()))
		}
	}
	return j
}

// fileOf returns the name of a port's file.
func fileOf(name string) string { return name + ".json" }

// ifMarked returns a trace that counts only for devices with the mark of the switch.
func ifMarked(t port.Trace) port.Trace {
	t.IfMarked = true
	if t.Members != nil {
		all := make([]port.Trace, 0, len(*t.Members))
		for _, m := range *t.Members {
			all = append(all, ifMarked(m))
		}
		t.Members = &all
	}
	return t
}

// Entries returns all ports that are in the journal.
func (j *Journal) Entries() (all []Port) {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range j.entries {
		all = append(all, p)
	}
	return all
}

// Has reports whether a port is in the journal.
func (j *Journal) Has(name string) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, is := j.entries[name]
	return is
}

// Note enters a port with what is about to be done for it, in place of its former entry. It waits for a moment at most.
func (j *Journal) Note(p Port) {
	j.change(p.Spec.Name, func(Port, bool) (Port, bool) { return p, true })
}

// NoteSpec enters a port with what it is about to be. A trace that is there already stays.
func (j *Journal) NoteSpec(p Port) {
	j.change(p.Spec.Name, func(had Port, is bool) (Port, bool) {
		if is {
			p.Trace = had.Trace
		}
		return p, true
	})
}

// Remove removes the entry of a port.
func (j *Journal) Remove(name string) {
	j.change(name, func(Port, bool) (Port, bool) { return Port{}, false })
}

// Settle removes what a state on disk has.
func (j *Journal) Settle(st State) {
	for _, p := range st.Ports {
		j.change(p.Spec.Name, func(had Port, is bool) (Port, bool) { return had, is && !p.has(had) })
	}
}

// has reports whether a port of the state has all of an entry.
func (p Port) has(entry Port) bool {
	return p.Spec.Kind == entry.Spec.Kind && reflect.DeepEqual(p.Spec.Settings, entry.Spec.Settings) && hasAll(p.Trace, entry.Trace)
}

func hasAll(t, entry port.Trace) bool {
	if entry.Created && !t.Created || entry.Before != nil && (t.Before == nil || *t.Before != *entry.Before) {
		return false
	}
	if entry.Members == nil {
		return true
	}
	have := make(map[string]port.Trace)
	if t.Members != nil {
		for _, m := range *t.Members {
			have[m.Called()] = m
		}
	}
	for _, m := range *entry.Members {
		if is, ok := have[m.Called()]; !ok || !hasAll(is, m) {
			return false
		}
	}
	return true
}

// change replaces the entry of a port, or removes it, and waits until the file is the same.
func (j *Journal) change(name string, f func(had Port, is bool) (Port, bool)) {
	if j == nil {
		return
	}
	j.mu.Lock()
	had, was := j.entries[name]
	p, is := f(had, was)
	switch {
	case is && was && reflect.DeepEqual(p, had), !is && !was:
		j.mu.Unlock()
		return
	case is:
		j.entries[name] = p
	default:
		delete(j.entries, name)
	}
	j.todo[name] = struct{}{}
	done, late := j.done, j.late
	if !j.running {
		j.running = true
		go j.run()
	}
	j.mu.Unlock()
	if late {
		return
	}
	select {
	case <-done:
	case <-time.After(journalWait):
		j.mu.Lock()
		j.late = j.running
		j.mu.Unlock()
	}
}

// run writes until nothing is left to do.
func (j *Journal) run() {
	for {
		files := make(map[string][]byte)
		j.mu.Lock()
		for name := range j.todo {
			if p, is := j.entries[name]; is {
				files[name], _ = json.Marshal(p)
			} else {
				files[name] = nil
			}
		}
		if len(files) == 0 {
			j.running, j.late = false, false
			j.mu.Unlock()
			return
		}
		clear(j.todo)
		done := j.done
		j.done = make(chan struct{})
		j.mu.Unlock()
		for name, content := range files {
			j.write(filepath.Join(j.dir, fileOf(name)), content)
		}
		close(done)
	}
}

// replace replaces a file, or removes it. If that fails, the next write of the state makes up for it.
func replace(path string, content []byte) {
	if content == nil {
		_ = os.Remove(path)
		return
	}
	err := os.WriteFile(path+".new", content, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		_ = os.MkdirAll(filepath.Dir(path), 0o700)
		err = os.WriteFile(path+".new", content, 0o600)
	}
	if err == nil {
		_ = os.Rename(path+".new", path)
	}
}
