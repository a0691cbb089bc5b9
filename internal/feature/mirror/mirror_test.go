package mirror

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/port"
)

func newMirrors(t *testing.T, names ...string) *mirrors {
	h := featuretest.New(t)
	for _, name := range names {
		h.Add(t, port.Spec{Name: name}, true)
	}
	return &mirrors{host: h, all: []api.Mirror{}}
}

func wantCode(t *testing.T, err error, code, text string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, text) || strings.Contains(e.Message, "\n") {
		t.Errorf("error %v, want %s: …%s…", err, code, text)
	}
}

func TestMirrors(t *testing.T) {
	m := newMirrors(t, "vm0", "vm1")
	if kept, err := m.State(); kept != nil || err != nil {
		t.Errorf("a new switch keeps %s, %v", kept, err)
	}
	b := api.Mirror{Name: "b", From: []string{"vm0"}, To: "vm1", Filter: "arp or port 53", SnapLen: 64, Direction: "in"}
	a := api.Mirror{Name: "a", FromVLAN: "10,20-29", ToVLAN: 900}
	for _, req := range []api.Mirror{b, a} {
		if _, err := m.add(req); err != nil {
			t.Fatal(err)
		}
	}
	a.Direction = "both"
	if diff := cmp.Diff([]api.Mirror{a, b}, m.all); diff != "" {
		t.Errorf("mirrors (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		edit       func(*api.Mirror)
		code, text string
	}{
		{func(m *api.Mirror) { m.Name = "a" }, api.CodeExists, "exists"},
		{func(m *api.Mirror) { m.Name = "" }, api.CodeInvalid, "name"},
		{func(m *api.Mirror) { m.Name = "a b" }, api.CodeInvalid, "space"},
		{func(m *api.Mirror) { m.Name = "a\u0085b" }, api.CodeInvalid, "space"},
		{func(m *api.Mirror) { m.Name = "a/b" }, api.CodeInvalid, "space"},
		{func(m *api.Mirror) { m.Name = "." }, api.CodeInvalid, `cannot be "."`},
		{func(m *api.Mirror) { m.Name = ".." }, api.CodeInvalid, `cannot be ".."`},
		{func(m *api.Mirror) { m.Name = "-m" }, api.CodeInvalid, `cannot be "-m"`},
		{func(m *api.Mirror) { m.Name = strings.Repeat("x", maxName+1) }, api.CodeInvalid, "32"},
		{func(m *api.Mirror) { m.From = []string{"vm9"} }, api.CodeNotFound, "vm9"},
		{func(m *api.Mirror) { m.From = []string{"vm0", "vm0"} }, api.CodeInvalid, "from: vm0 is there twice; name it once"},
		{func(m *api.Mirror) { m.To = "vm9" }, api.CodeNotFound, "vm9"},
		{func(m *api.Mirror) { m.To = "" }, api.CodeInvalid, "target"},
		{func(m *api.Mirror) { m.ToVLAN = 5 }, api.CodeInvalid, "one target"},
		{func(m *api.Mirror) { m.To = "vm0" }, api.CodeInvalid, "itself"},
		{func(m *api.Mirror) { m.From = nil }, api.CodeInvalid, "nowhere"},
		{func(m *api.Mirror) { m.FromVLAN = "ten" }, api.CodeInvalid, "list of VLANs"},
		{func(m *api.Mirror) { m.Direction = "up" }, api.CodeInvalid, "direction"},
		{func(m *api.Mirror) { m.SnapLen = 3 }, api.CodeInvalid, "header"},
		{func(m *api.Mirror) { m.Filter = "arp or" }, api.CodeInvalid, "filter"},
	} {
		bad := b
		bad.Name = "c"
		c.edit(&bad)
		_, err := m.add(bad)
		wantCode(t, err, c.code, c.text)
	}
	if diff := cmp.Diff([]api.Mirror{a, b}, m.all); diff != "" {
		t.Errorf("after failures (-want +got):\n%s", diff)
	}

	// They are there after a restart, and outlive the ports they name.
	kept, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	m = newMirrors(t, "vm0")
	if err := m.Restore(kept); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]api.Mirror{a, b}, m.all); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if err := m.remove("a"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, m.remove("a"), api.CodeNotFound, "no mirror a")
	if diff := cmp.Diff([]api.Mirror{b}, m.all); diff != "" {
		t.Errorf("after one is removed (-want +got):\n%s", diff)
	}
	if err := m.Restore(nil); err != nil || len(m.all) != 0 {
		t.Errorf("restored to nothing: %v, %v", m.all, err)
	}
}

// A mirror that cannot be put in force is an error, which names it, and nothing changes: without it
// the next save would lose the mirror.
func TestRestoreRefuses(t *testing.T) {
	m := newMirrors(t, "vm0")
	good := api.Mirror{Name: "good", From: []string{"vm0"}, Direction: "both", ToVLAN: 5}
	state := func(all ...api.Mirror) json.RawMessage {
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := m.Restore(state(good)); err != nil {
		t.Fatal(err)
	}
	bad := api.Mirror{Name: "bad", From: []string{"vm0"}, ToVLAN: 5, Filter: "nonsense ("}
	if err := m.Restore(state(bad, good)); err == nil || !strings.Contains(err.Error(), "mirror bad: ") {
		t.Errorf("a mirror with a filter that nobody knows: %v", err)
	}
	nameless := json.RawMessage(`[{"name":"bad","from":["vm0",null],"to_vlan":5}]`)
	if err := m.Restore(nameless); err == nil || !strings.Contains(err.Error(), "mirror bad: ") {
		t.Errorf("a mirror of a port without a name: %v", err)
	}
	if diff := cmp.Diff([]api.Mirror{good}, m.all); diff != "" {
		t.Errorf("mirrors (-want +got):\n%s", diff)
	}
	if err := m.Restore(json.RawMessage("5")); err == nil {
		t.Error("a number was restored")
	}
}
