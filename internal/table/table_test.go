package table

import (
	"strings"
	"testing"
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
