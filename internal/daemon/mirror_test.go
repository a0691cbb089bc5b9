package daemon

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
)

func (r *rig) addMirror(req api.Mirror) error {
	_, err := ask(r.manager, func() (api.Mirror, error) { return r.manager.addMirror(req) })
	return err
}

func (r *rig) mirrorList() []api.Mirror {
	r.t.Helper()
	all, err := ask(r.manager, r.listMirrors)
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func TestMirrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := twoPorts(t, 0)
		if got := r.mirrorList(); got == nil || len(got) != 0 {
			t.Errorf("mirrors of a new switch: %#v", got)
		}
		b := api.Mirror{Name: "b", From: []string{"vm0"}, To: "vm1", Filter: "arp or port 53", SnapLen: 64, Direction: "in"}
		a := api.Mirror{Name: "a", FromVLAN: "10,20-29", ToVLAN: 900}
		for _, req := range []api.Mirror{b, a} {
			if err := r.addMirror(req); err != nil {
				t.Fatal(err)
			}
		}
		a.Direction = "both"
		if diff := cmp.Diff([]api.Mirror{a, b}, r.mirrorList()); diff != "" {
			t.Errorf("mirrors (-want +got):\n%s", diff)
		}
		for _, c := range []struct {
			edit       func(*api.Mirror)
			code, text string
		}{
			{func(m *api.Mirror) { m.Name = "a" }, api.CodeExists, "exists"},
			{func(m *api.Mirror) { m.Name = "" }, api.CodeInvalid, "name"},
			{func(m *api.Mirror) { m.Name = "a b" }, api.CodeInvalid, "space"},
			{func(m *api.Mirror) { m.Name = strings.Repeat("x", maxMirrorName+1) }, api.CodeInvalid, "32"},
			{func(m *api.Mirror) { m.From = []string{"vm9"} }, api.CodeNotFound, "vm9"},
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
			wantCode(t, r.addMirror(bad), c.code, c.text)
		}
		r.diskErr = errors.New("disk full")
		wantCode(t, r.addMirror(api.Mirror{Name: "c", From: []string{"vm0"}, To: "vm1"}), api.CodeFailed, "disk full")
		wantCode(t, r.do(func() error { return r.delMirror("a") }), api.CodeFailed, "disk full")
		r.diskErr = nil
		if diff := cmp.Diff([]api.Mirror{a, b}, r.mirrorList()); diff != "" {
			t.Errorf("after failures (-want +got):\n%s", diff)
		}

		// They are there after a restart, and outlive the ports they name.
		if err := r.do(func() error { return r.delPort("vm1", false) }); err != nil {
			t.Fatal(err)
		}
		r.stop()
		r = start(t, newFakeHost(), r.disk)
		if diff := cmp.Diff([]api.Mirror{a, b}, r.mirrorList()); diff != "" {
			t.Errorf("after a restart (-want +got):\n%s", diff)
		}
		if err := r.do(func() error { return r.delMirror("a") }); err != nil {
			t.Fatal(err)
		}
		wantCode(t, r.do(func() error { return r.delMirror("a") }), api.CodeNotFound, "no mirror a")
		if len(r.disk.Mirrors) != 1 || r.disk.Mirrors[0].Name != "b" {
			t.Errorf("on disk: %+v", r.disk.Mirrors)
		}
	})
}
