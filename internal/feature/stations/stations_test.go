package stations

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/port"
)

const mac = port.MAC(0x525400000001)

// What is restored replaces what was there, in the table, too; what was learned stays.
func TestRestore(t *testing.T) {
	h := featuretest.New(t)
	h.Add(t, port.Spec{Name: "vm0"}, true)
	h.Add(t, port.Spec{Name: "vm1"}, true)
	s := &stations{host: h, all: make(map[fdb.Key]entry), own: make(map[fdb.Key]string)}
	in := func(mac port.MAC) string {
		for _, e := range s.list() {
			if e.MAC == mac {
				return e.Port + " " + e.Type
			}
		}
		return ""
	}
	restore := func(state string) {
		t.Helper()
		if err := s.Restore(json.RawMessage(state)); err != nil {
			t.Fatal(err)
		}
	}
	h.Switch().FDB().Learn(fdb.MakeKey(1, uint64(mac+3)), 1)
	restore(`[{"mac":"52:54:00:00:00:01","vlan":1,"port":"vm0"},{"mac":"52:54:00:00:00:02","vlan":1,"port":"vm0","sticky":true},
		{"mac":"52:54:00:00:00:05","vlan":1,"port":"gone"},{"mac":"52:54:00:00:00:06","vlan":7,"port":"vm0"}]`)
	if in(mac) != "vm0 static" || in(mac+1) != "vm0 sticky" || in(mac+3) != "vm1 dynamic" || in(mac+4) != "" || in(mac+5) != "" {
		t.Errorf("the table has %+v", s.list())
	}
	// The next save would lose a bad entry.
	for _, bad := range []string{`[{"mac":"01:54:00:00:00:02","vlan":1,"port":"vm0"}]`, `[{"mac":"52:54:00:00:00:01","vlan":1,"port":"vm0","Port":"vm1"}]`,
		`[{"mac":"52:54:00:00:00:01","vlan":1,"port":"vm0"},{"mac":"52:54:00:00:00:01","vlan":1,"port":"vm1"}]`} {
		if err := s.Restore(json.RawMessage(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	b, err := s.State()
	want := `[{"mac":"52:54:00:00:00:01","vlan":1,"port":"vm0"},{"mac":"52:54:00:00:00:02","vlan":1,"port":"vm0","sticky":true},{"mac":"52:54:00:00:00:06","vlan":7,"port":"vm0"}]`
	if string(b) != want || err != nil {
		t.Errorf("kept is %s, %v; want %s", b, err, want)
	}
	restore(`[{"mac":"52:54:00:00:00:01","vlan":1,"port":"vm1","sticky":true}]`)
	if in(mac) != "vm1 sticky" || in(mac+1) != "" {
		t.Errorf("after a change the table has %+v", s.list())
	}
	restore(`null`)
	if in(mac) != "" || in(mac+3) != "vm1 dynamic" {
		t.Errorf("without entries the table has %+v", s.list())
	}
	if err := s.Restore(json.RawMessage(`[{"mac":"52:54:00:00:00:01","colour":1}]`)); err == nil {
		t.Error("what a newer version wrote is taken")
	}
}

// Entries go with their port, and are in force again when it forgets what it learned.
func TestPort(t *testing.T) {
	h := featuretest.New(t)
	p := h.Add(t, port.Spec{Name: "vm0"}, true)
	s := &stations{host: h, all: make(map[fdb.Key]entry), own: make(map[fdb.Key]string)}
	if _, err := s.add(api.AddFDB{MAC: mac, Port: "vm0", Sticky: true}); err != nil {
		t.Fatal(err)
	}
	k := fdb.MakeKey(1, uint64(mac))
	there := func() bool { _, ok := h.Switch().FDB().Get(k); return ok }
	h.Switch().FDB().FlushPort(p.Number())
	if there() {
		t.Fatal("the flush did nothing")
	}
	s.Forgotten(p)
	if !there() || !s.Pins(k) {
		t.Error("a sticky entry is not in force again")
	}
	s.Removed(p)
	if s.Pins(k) || h.Saves() != 1 {
		t.Error("the entry outlives its port")
	}
	s.Removed(p)
	if h.Saves() != 1 {
		t.Error("nothing is saved")
	}
}

// Nobody takes the address of the host's own interface, which may change.
func TestOwn(t *testing.T) {
	h := featuretest.New(t)
	gw, vm := h.Add(t, port.Spec{Name: "gw0"}, true), h.Add(t, port.Spec{Name: "vm0"}, true)
	s := &stations{host: h, all: make(map[fdb.Key]entry), own: make(map[fdb.Key]string)}
	table := h.Switch().FDB()
	at := func(mac port.MAC) string {
		if e, ok := table.Get(fdb.MakeKey(1, uint64(mac))); ok {
			return h.Port(e.Port).Name() + " " + e.Kind.String()
		}
		return "nowhere"
	}
	want := func(what string, mac port.MAC, where string) {
		t.Helper()
		if got := at(mac); got != where {
			t.Errorf("%s: it is at %s, not %s", what, got, where)
		}
	}
	s.Configured(vm)
	table.Learn(fdb.MakeKey(1, uint64(mac)), vm.Number()) // a guest was first
	gw.OwnMAC = mac
	s.Configured(gw)
	want("configured", mac, "gw0 static")
	table.Learn(fdb.MakeKey(1, uint64(mac)), vm.Number())
	want("claimed", mac, "gw0 static")
	if !s.Pins(fdb.MakeKey(1, uint64(mac))) || s.del(mac, 1) == nil {
		t.Error("it can be held elsewhere, or removed")
	}
	gw.OwnMAC = mac + 1
	s.Configured(gw)
	want("with another address", mac+1, "gw0 static")
	want("with another address, the former one", mac, "nowhere")
	if _, err := s.add(api.AddFDB{MAC: mac + 1, Port: "vm0"}); err != nil {
		t.Fatal(err)
	}
	s.Linked(gw, true)
	want("a user's entry", mac+1, "vm0 static")
	if err := s.del(mac+1, 1); err != nil {
		t.Error(err)
	}
	s.Linked(gw, true)
	want("once that is removed", mac+1, "gw0 static")
	if b, err := s.State(); b != nil || err != nil {
		t.Errorf("kept is %s, %v", b, err)
	}
	s.Stop()
	want("stopped", mac+1, "nowhere")
	s.Removed(gw)
	if len(s.own) != 0 {
		t.Error("it outlives its port")
	}
}

func TestEntry(t *testing.T) {
	for _, c := range []struct {
		e    entry
		want string
	}{
		{entry{MAC: 1 << 40, VLAN: 1, Port: "vm0"}, "not the address of one station"},
		{entry{VLAN: 1, Port: "vm0"}, "not the address of one station"},
		{entry{MAC: mac, VLAN: 4095, Port: "vm0"}, "no VLAN 4095"},
		{entry{MAC: mac, VLAN: 1}, "needs a port"},
	} {
		if err := c.e.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.e, err, c.want)
		}
	}
	e := entry{MAC: mac, Port: "vm0", Sticky: true}
	e.AfterMerge(nil, nil)
	if e.ID() != "fdb 52:54:00:00:00:01 vlan 1" || e.Words() != "port vm0, sticky" || e.Check() != nil {
		t.Errorf("%s: %s, %v", e.ID(), e.Words(), e.Check())
	}
}
