package stp

import (
	"os"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// lab is a switch with two ports to networks and one to a station.
func lab(t *testing.T) (*featuretest.Host, *tree) {
	t.Helper()
	h := featuretest.New(t)
	for _, name := range []string{"up0", "up1", "vm0"} {
		h.Add(t, port.Spec{Name: name}, name == "vm0")
	}
	var tr *tree
	h.Do(func() {
		var err error
		if tr, err = start(h, Settings{STP: true}); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { h.Do(tr.Stop) })
	return h, tr
}

// begin does what the daemon does with a new instance.
func begin(h *featuretest.Host, tr *tree) {
	for p := range h.Ports() {
		tr.Configured(p)
	}
	for p := range h.Ports() {
		tr.Linked(p, true)
	}
}

func trees(h *featuretest.Host) string {
	var all []string
	for p := range h.Ports() {
		all = append(all, [...]string{vswitch.TreeForwarding: "forwarding", vswitch.TreeLearning: "learning", vswitch.TreeDiscarding: "discarding"}[p.Core().Tree()])
	}
	return strings.Join(all, " ")
}

// A tree goes on where the former one was, and starts anew if that does not fit.
func TestHandOver(t *testing.T) {
	h, tr := lab(t)
	var parcel *feature.Parcel
	h.Do(func() {
		begin(h, tr)
		for range 40 { // two forward delays: nobody is there
			tr.do(tr.bridge.Tick)
		}
		var err error
		if parcel, err = tr.Give(); err != nil {
			t.Fatal(err)
		}
	})
	const forwarding, anew = "forwarding forwarding forwarding", "discarding discarding forwarding"
	if is := trees(h); is != forwarding {
		t.Fatalf("before: %s", is)
	}
	older, err := os.ReadFile("testdata/given-1.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		format int
		data   string
		wants  string // of the error
		trees  string
	}{
		"as given":              {parcel.Format, string(parcel.Data), "", forwarding},
		"of the first version":  {1, string(older), "", forwarding},
		"of another format":     {parcelFormat + 1, string(parcel.Data), "format 2", anew},
		"not JSON":              {parcelFormat, "{", "unexpected end", anew},
		"another kind of value": {parcelFormat, "[]", "cannot unmarshal", anew},
		"nothing":               {parcelFormat, "{}", "no bridge", anew},
		"another port":          {parcelFormat, strings.ReplaceAll(string(older), "up1", "up2"), "port up1 had another number", anew},
	} {
		h, tr := lab(t)
		h.Do(func() {
			err := tr.Take(&feature.Parcel{Format: c.format, Data: []byte(c.data)})
			if (err == nil) != (c.wants == "") || err != nil && !strings.Contains(err.Error(), c.wants) {
				t.Errorf("%s: %v", name, err)
			}
			begin(h, tr)
		})
		if is := trees(h); is != c.trees {
			t.Errorf("%s: ports are %s", name, is)
		}
	}
}
