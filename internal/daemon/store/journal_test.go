package store

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// An entry stays, also for a next process, until a state has what it says.
func TestJournal(t *testing.T) {
	entry := func(mtu string, trace port.Trace) Port {
		return Port{Spec{"eth0", "netdev", setting.Patch{"mtu": json.RawMessage(mtu)}}, trace}
	}
	was := func(mtu int) *port.DeviceSettings { return &port.DeviceSettings{MTU: mtu} }
	members := func(all ...port.Trace) port.Trace { return port.Trace{Members: &all} }
	a := port.Trace{Ifname: "a0", Before: was(1500)}
	renamed := port.Trace{Ifname: "x0", Name: "a0", Before: was(1500)}
	b := port.Trace{Ifname: "b0", Before: was(1400)}
	for _, c := range []struct {
		name         string
		entry, state Port
		has          bool
	}{
		{"no such port", entry("1400", a), Port{Spec: Spec{Name: "eth1"}}, false},
		{"of another kind", entry("1400", a), Port{Spec{"eth0", "lag", setting.Patch{"mtu": json.RawMessage("1400")}}, a}, false},
		{"other settings", entry("1400", a), entry("1500", a), false},
		{"nothing known of the device", entry("1400", a), entry("1400", port.Trace{}), false},
		{"another device", entry("1400", a), entry("1400", b), false},
		{"the same", entry("1400", a), entry("1400", a), true},
		{"renamed", entry("1400", a), entry("1400", renamed), true},
		{"made", entry("1400", port.Trace{Created: true}), entry("1400", port.Trace{Created: true, Ifname: "eth0"}), true},
		{"not made", entry("1400", port.Trace{Created: true}), entry("1400", port.Trace{}), false},
		{"no members", entry("1400", members(a)), entry("1400", port.Trace{}), false},
		{"a member more", entry("1400", members(a, b)), entry("1400", members(a)), false},
		{"a member less", entry("1400", members(a)), entry("1400", members(b, renamed)), true},
		{"another member", entry("1400", members(a)), entry("1400", members(port.Trace{Ifname: "a0", Before: was(1)})), false},
	} {
		dir := t.TempDir()
		j := OpenJournal(dir)
		j.Note(c.entry)
		j.Settle(State{Ports: []Port{c.state}})
		for _, j := range []*Journal{j, OpenJournal(dir)} {
			if j.Has("eth0") == c.has {
				t.Errorf("%s: the journal has it: %v", c.name, !c.has)
			}
		}
	}
}

// A next process finds the newest of each port. It counts only for devices with the mark of the switch.
func TestJournalOfAFormerProcess(t *testing.T) {
	dir := t.TempDir()
	j := OpenJournal(dir)
	if len(j.Entries()) != 0 {
		t.Errorf("a new one has %+v", j.Entries())
	}
	first := Port{Spec{Name: "al0", Kind: "lag"}, port.Trace{Members: &[]port.Trace{{Ifname: "a0"}}}}
	wantFiles := func(want ...string) {
		t.Helper()
		var all []string
		list, err := os.ReadDir(filepath.Join(dir, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprint(info.Mode(), " ", f.Name()))
		}
		if !slices.Equal(all, want) {
			t.Errorf("the files are %q, want %q", all, want)
		}
	}
	j.Note(Port{Spec: Spec{Name: "gone", Kind: "tap"}})
	wantFiles("-rw------- gone.json")
	if i, err := os.Stat(filepath.Join(dir, "journal")); err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v", i, err)
	}
	j.Note(first)
	j.NoteSpec(Port{Spec: Spec{Name: "al0", Kind: "lag", Settings: setting.Patch{"mtu": json.RawMessage("1400")}}})
	j.Remove("gone")
	wantFiles("-rw------- al0.json")
	for broken, content := range map[string]string{ // as a power cut leaves them
		"half.json": `{"spec": {"name": "half"`, "odd.json": `{"spec": {"name": "odd"}, "trace": 1}`,
		"other.json": `{"spec": {"name": "al0"}}`, "al0.json.new": `{"spec": {"name": "al0"}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "journal", broken), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := OpenJournal(dir).Entries()
	if len(all) != 1 || string(all[0].Spec.Settings["mtu"]) != "1400" {
		t.Fatalf("the next one has %+v", all)
	}
	if m := all[0].Trace.Members; m == nil || len(*m) != 1 || (*m)[0].Ifname != "a0" || !(*m)[0].IfMarked || !all[0].Trace.IfMarked {
		t.Errorf("the next one has %+v", all[0].Trace)
	}
	wantFiles("-rw------- al0.json")
}

// A disk that does not answer holds up the first port for a moment, and no other. It gets all once it answers.
func TestJournalOnASlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := OpenJournal(t.TempDir())
		answers := make(chan struct{})
		var mu sync.Mutex
		files := make(map[string]string)
		j.write = func(path string, content []byte) {
			<-answers
			mu.Lock()
			defer mu.Unlock()
			files[filepath.Base(path)] = string(content)
		}
		note := func(name string, most time.Duration) {
			t.Helper()
			began := time.Now()
			j.Note(Port{Spec: Spec{Name: name, Kind: "tap"}})
			if took := time.Since(began); took != most {
				t.Errorf("%s waits for %v, want %v", name, took, most)
			}
		}
		note("vm0", journalWait)
		note("vm1", 0)
		note("vm2", 0)
		j.Remove("vm1")
		close(answers)
		synctest.Wait()
		note("vm3", 0)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(files) != 4 || files["vm0.json"] == "" || files["vm1.json"] != "" || files["vm2.json"] == "" || files["vm3.json"] == "" {
			t.Errorf("the files are %q", files)
		}
		if j.late || j.running {
			t.Error("the disk is late though it has all")
		}
	})
}

// What cannot be written is not kept, and a Journal of none keeps nothing.
func TestJournalWithoutADisk(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, j := range []*Journal{nil, OpenJournal(dir)} {
		p := Port{Spec: Spec{Name: "vm0", Kind: "tap"}}
		j.Note(p)
		j.Settle(State{Ports: []Port{p}})
		if j.Has("vm0") || len(j.Entries()) != 0 {
			t.Errorf("%+v is left", j.Entries())
		}
	}
}
