package daemon

import (
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Without what a newer version wrote the switch would not be as requested: it does not start.
func TestFeatureOfANewerVersionStopsTheStart(t *testing.T) {
	for text, want := range map[string]string{
		`"fdb":[],"colour":[]`: `"colour"`,
		`"pending":{"by":"apply","until":"2026-01-02T03:04:05Z","undo":{"colour":1}}`: `"colour"`,
		`"fdb":[],"pending":{"by":"apply","until":"2026-01-02T03:04:05Z","undo":{}}`:  "",
	} {
		st, err := store.Parse([]byte(`{"version":1,"written_by":"v1.9","ports":[],` + text + `}`))
		if err != nil {
			t.Fatal(err)
		}
		err = known(st, port.Catalog{}, testFeatures, "v1.0")
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "v1.0")) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The same holds for a setting of a port that no kind has; a port of a kind that is not
// known waits, and keeps its settings.
func TestSettingOfANewerVersionStopsTheStart(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"a","kind":"fake","mtu":1,"access":5}`: "",
		`{"name":"a","kind":"fake","colour":1}`:         `"colour"`,
		`{"name":"a","kind":"quantum","colour":1}`:      "",
		`{"name":"a","kind":"fake","isolatet":true}`:    `"isolatet"`,
	} {
		st, err := store.Parse([]byte(`{"version":1,"ports":[{"spec":` + text + `,"trace":{}}],"fdb":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		err = known(st, port.Catalog{Kinds: port.Kinds{newFakeHost()}}, testFeatures, "v1.0")
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "v1.0")) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// So do more ports than a switch has: the next save would lose the rest.
func TestTooManyPortsStopTheStart(t *testing.T) {
	for n, ok := range map[int]bool{vswitch.MaxPorts: true, vswitch.MaxPorts + 1: false} {
		st := store.State{Ports: make([]store.Port, n)}
		err := known(st, port.Catalog{Kinds: port.Kinds{newFakeHost()}}, testFeatures, "v1.0")
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "4097 ports") {
			t.Errorf("%d ports: %v", n, err)
		}
	}
}
