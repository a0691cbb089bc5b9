package table

import (
	"io"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

// What programs get can be read by people, too: frames are A > B.
func TestJSON(t *testing.T) {
	var b strings.Builder
	if err := Show(&b, true, map[string]string{"frame": "A > B & <C>"}, nil); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"frame\": \"A > B & <C>\"\n}\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// A reader that ends at the first line that it looks for does not make the command fail.
func TestShowWritesOnce(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var o testenv.OneWrite
		rows := []string{"a", "b", "c"}
		err := Show(&o, asJSON, rows, func(w io.Writer) {
			for _, r := range rows {
				Row(w, r, len(r), "last")
			}
		})
		if err != nil || strings.Count(o.String(), "\n") < len(rows) {
			t.Errorf("JSON %t: %q, %v", asJSON, o.String(), err)
		}
	}
}
