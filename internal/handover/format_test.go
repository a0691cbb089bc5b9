package handover

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// The messages of format 1 as they were recorded. A version that adds a field adds it here and to
// its record, and must work without it: the former version does not send it. Anything else is
// another format.
var messages = map[string]any{
	"hello": &Hello{
		Format: 1, Version: "1.4", Args: []string{"run", "--name", "sw0"}, Env: []string{"A=b"}, Dir: "/",
		PID: 7, Executable: FileID{1, 2}, Netns: FileID{3, 4}, Cgroup: "0::/x", Managed: true,
	},
	"claim": &Claim{Format: 1, Version: "1.4", PID: 8},
	"offer": &Offer{
		Refused: "no", Version: "1.4", State: json.RawMessage(`{"version":1}`),
		Ports: []Port{{
			Name: "vm0", Open: true, Later: true, Shut: "loop: why", Recovery: time.Unix(1e9, 0).UTC(),
			Given: true, Format: 2, Data: []byte(`{"a":1}`), Files: 3,
		}},
		Listeners: 1, Locks: 2, StateLocks: 3, Pins: 4, Interfaces: 5,
	},
	"rest": &Rest{
		Error: "no", Ports: []Port{{Name: "fast0", Given: true, Format: 1, Files: 2}},
		Sections: map[string]json.RawMessage{"fdb": json.RawMessage(`[1]`)},
		Features: map[string]Feature{"stp": {Format: 1, Data: json.RawMessage(`{"b":2}`)}},
		Stations: map[string][]byte{"vm0": {0, 1, 2, 0, 0, 0, 0, 1, 0, 0, 0, 9}},
		Counters: map[string]Counters{"vm0": {RX: Direction{1, 2, 3, map[string]uint64{"runt": 4}}, TX: Direction{5, 6, 7, nil}, Fast: 8}},
		Departed: Counters{RX: Direction{Frames: 9}}, Injected: 10, Held: time.Unix(1e9, 5).UTC(),
	},
	"result": &Result{Error: "why"},
	"go":     &Go{},
}

// What the former version says is understood as it was meant, and what this one says is no news to
// it.
func TestFormat(t *testing.T) {
	for name, want := range messages {
		recorded, err := os.ReadFile(filepath.Join("testdata", name+"-1.json"))
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(want).Elem())
		if err := json.Unmarshal(recorded, got.Interface()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got.Interface(), want) {
			t.Errorf("%s is read as %+v, not %+v", name, got.Elem(), want)
		}
		said, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var is, was any
		if json.Unmarshal(said, &is) != nil || json.Unmarshal(recorded, &was) != nil || !reflect.DeepEqual(is, was) {
			t.Errorf("%s is said as\n%s\nand was\n%s", name, said, recorded)
		}
	}
	if Format != 1 {
		t.Errorf("the format is %d now; record its messages, too", Format)
	}
}

// No field of a message is left out of its record.
func TestFormatIsComplete(t *testing.T) {
	for name, m := range messages {
		v := reflect.ValueOf(m).Elem()
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%s: the record lacks %s", name, v.Type().Field(i).Name)
			}
		}
	}
	p := reflect.ValueOf(messages["offer"].(*Offer).Ports[0])
	for i := range p.NumField() {
		if p.Field(i).IsZero() {
			t.Errorf("the record of a port lacks %s", p.Type().Field(i).Name)
		}
	}
}
