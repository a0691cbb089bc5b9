package snoop

import (
	"os"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/port"
)

// Snooping goes on with what the former process has learned, and starts anew if that does not fit.
func TestHandOver(t *testing.T) {
	older, err := os.ReadFile("testdata/given-1.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		format int
		data   string
		wants  string // of the error
		groups int
	}{
		"of the first version": {1, string(older), "", 1},
		"a port is gone":       {1, strings.ReplaceAll(string(older), "vm1", "vm9"), "", 0},
		"of another format":    {parcelFormat + 1, string(older), "format 2", 0},
		"not JSON":             {parcelFormat, "{", "unexpected end", 0},
		"nothing":              {parcelFormat, "{}", "no snooper", 0},
		"of no snooping":       {parcelFormat, strings.ReplaceAll(string(older), "239.1.2.3", "224.0.0.1"), "no snooping", 0},
	} {
		h := featuretest.New(t)
		for _, name := range []string{"vm0", "vm1"} {
			h.Add(t, port.Spec{Name: name}, true)
		}
		h.Do(func() {
			sn := start(h, Settings{Snooping: true})
			defer sn.Stop()
			err := sn.Take(&feature.Parcel{Format: c.format, Data: []byte(c.data)})
			if (err == nil) != (c.wants == "") || err != nil && !strings.Contains(err.Error(), c.wants) {
				t.Errorf("%s: %v", name, err)
			}
			for p := range h.Ports() {
				sn.Configured(p)
				sn.Linked(p, true)
			}
			if n := len(sn.core.Groups()); n != c.groups {
				t.Errorf("%s: %d groups", name, n)
			}
			parcel, err := sn.Give()
			if err != nil || parcel.Format != parcelFormat || (c.groups > 0) != strings.Contains(string(parcel.Data), `"239.1.2.3"`) {
				t.Errorf("%s: it gives %v, %v", name, parcel, err)
			}
		})
	}
}
