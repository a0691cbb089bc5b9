package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/stations"
)

// notes is a feature that keeps a text.
var notes = feature.Feature{
	Name: "notes",
	New:  func(feature.Host, any) (feature.Instance, error) { return new(noted), nil },
	Routes: []feature.Route{{
		Method: "POST", Path: "/v1/notes", Change: true,
		Handle: func(i feature.Instance, r *http.Request) (any, error) {
			text, err := feature.Body[string](r)
			if err != nil {
				return nil, err
			}
			i.(*noted).text = text
			return text, nil
		},
	}},
}

type noted struct {
	text  string
	fails error // to say what it keeps
	seen  int   // how many instances there were before
}

func (n *noted) End() {
	if n.text != "" {
		n.text += ", ended"
	}
}

func (n *noted) Give() (*feature.Parcel, error) { return feature.Pack(1, n.seen+1) }
func (n *noted) Take(p *feature.Parcel) error   { return p.Unpack(1, &n.seen) }

func (n *noted) Stop() {}

func (n *noted) State() (json.RawMessage, error) {
	if n.text == "" || n.fails != nil {
		return nil, n.fails
	}
	return json.Marshal(n.text)
}

func (n *noted) Restore(b json.RawMessage) error {
	if b == nil {
		n.text = ""
		return nil
	}
	return json.Unmarshal(b, &n.text)
}

func withNotes(o *Options) { withFeature(o, notes) }

func withFeature(o *Options, f feature.Feature) {
	o.Features = append(o.Features, f)
	o.settings, o.kept = noSettings(o.Features), noSettings(o.Features)
}

func (r *rig) note(text string) error { return r.call("POST", "/v1/notes", text, nil) }

func (r *rig) noteKept() string { return r.running("notes").(*noted).text }

// What a feature keeps is on disk when a call returns, is there after a restart, and is taken
// back when the disk fails.
func TestFeaturesKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startWith(t, newFakeHost(), store.State{}, withNotes)
		if err := r.note("one"); err != nil || string(r.disk.state().Sections["notes"]) != `"one"` {
			t.Errorf("%v, on disk %s", err, r.disk.state().Sections)
		}
		r.disk.fail(errors.New("disk full"))
		wantCode(t, r.note("two"), api.CodeFailed, "disk full")
		if got := r.noteKept(); got != "one" {
			t.Errorf("after a failure it has %q", got)
		}
		r.disk.fail(nil)
		r.stop()
		before := r.disk.state()
		r = startWith(t, newFakeHost(), before, withNotes)
		if got := r.noteKept(); got != "one, ended" {
			t.Errorf("after a restart it has %q", got)
		}
		if err := r.note(""); err != nil || r.disk.state().Sections["notes"] != nil {
			t.Errorf("%v, on disk %s", err, r.disk.state().Sections)
		}
	})
}

// A feature that fails to say what it keeps, whatever asks it, loses nothing: the state has what it
// kept before, and one line of the log says so.
func TestFeatureThatDoesNotSayWhatItKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startWith(t, newFakeHost(), store.State{}, withNotes)
		if err := r.note("one"); err != nil {
			t.Fatal(err)
		}
		r.inTurn(func() { r.running("notes").(*noted).fails = errors.New("no memory") })
		r.mustAdd("vm0")
		r.mustAdd("vm1")
		if got := string(r.disk.state().Sections["notes"]); got != `"one"` || len(r.disk.state().Ports) != 2 {
			t.Errorf("on disk %s, %d ports", got, len(r.disk.state().Ports))
		}
		log := r.logged()
		if n := strings.Count(log, "does not say what it keeps"); n != 1 {
			t.Errorf("%d lines:\n%s", n, log)
		}
		r.stop()
		r = startWith(t, newFakeHost(), r.disk.state(), withNotes)
		if got := r.noteKept(); got != "one" {
			t.Errorf("after a restart it has %q", got)
		}
		r.stop()
		// One that fails from the start has what a former run kept.
		failing := notes
		failing.New = func(feature.Host, any) (feature.Instance, error) { return &noted{fails: errors.New("no memory")}, nil }
		r = startWith(t, newFakeHost(), r.disk.state(), func(o *Options) { withFeature(o, failing) })
		r.mustAdd("vm2")
		if got := string(r.disk.state().Sections["notes"]); got != `"one, ended"` || len(r.disk.state().Ports) != 3 {
			t.Errorf("after a restart, on disk %s, %d ports", got, len(r.disk.state().Ports))
		}
	})
}

// Items of a port that is not in the state are named, and there is no error: they go with ports.
func TestItemsWithoutTheirPortAreNamed(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	logOrphans(store.State{
		Ports: []store.Port{{Spec: store.Spec{Name: "vm0"}}},
		Sections: map[string]json.RawMessage{
			"fdb": json.RawMessage(`[{"mac":"52:54:00:00:00:01","vlan":1,"port":"vm0"},{"mac":"52:54:00:00:00:02","vlan":5,"port":"vm9"}]`),
		},
	}, []feature.Feature{stations.Feature}, log)
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `what="fdb 52:54:00:00:00:02 vlan 5" port=vm9`) {
		t.Errorf("log:\n%s", got)
	}
}

// What was kept is not lost when the feature does not understand it: the switch does not start.
func TestFeaturesRefuseWhatTheyDoNotUnderstand(t *testing.T) {
	var refused ended
	f := notes
	f.New = func(feature.Host, any) (feature.Instance, error) { return &refused, nil }
	o := Options{Name: "sw0", Features: []feature.Feature{f}, Links: newFakeHost()}
	o.sections = map[string]json.RawMessage{"notes": json.RawMessage("5")}
	if _, err := newManager(o, nil, nil); err == nil || !strings.Contains(err.Error(), `the key "notes" cannot be restored: there is a number in place of a string;`) {
		t.Errorf("started: %v", err)
	}
	if refused.times != 1 {
		t.Errorf("the feature was stopped %d times", refused.times)
	}
}

// ended is a feature that counts how often it was stopped.
type ended struct {
	noted
	times int
}

func (e *ended) Stop() { e.times++ }
