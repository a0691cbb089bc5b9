package port_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/port"
)

func TestNotes(t *testing.T) {
	labels := func(n int) port.Labels {
		l := make(port.Labels)
		for i := range n {
			l[fmt.Sprint(i)] = "x"
		}
		return l
	}
	long := strings.Repeat("a", 255)
	for _, c := range []struct {
		notes port.Notes
		want  string // of the error; empty: none
	}{
		{port.Notes{}, ""},
		{port.Notes{Description: "the router's second port, 100 % ours – äöü"}, ""},
		{port.Notes{Description: long}, ""},
		{port.Notes{Description: long + "a"}, "the description has 256 bytes; write at most 255"},
		{port.Notes{Description: "ab\ncd"}, "the description has a character that cannot be printed at byte 2"},
		{port.Notes{Description: "\x1b[2J"}, "at byte 0"},
		{port.Notes{Description: "ab\xff"}, "at byte 2"},
		{port.Notes{Labels: labels(32)}, ""},
		{port.Notes{Labels: labels(33)}, "33 labels are too many; a port has at most 32"},
		{port.Notes{Labels: port.Labels{"a": long}}, ""},
		{port.Notes{Labels: port.Labels{"a": long + "a"}}, "label a has 256 bytes; write at most 255"},
		{port.Notes{Labels: port.Labels{"a": "b\tc"}}, "label a has a character that cannot be printed at byte 1"},
		{port.Notes{Labels: port.Labels{"k8s.io/app_name-2": "", "x": ""}}, ""},
		{port.Notes{Labels: port.Labels{long[:63]: ""}}, ""},
		{port.Notes{Labels: port.Labels{long[:64]: ""}}, "cannot be a label's name"},
		{port.Notes{Labels: port.Labels{"": ""}}, "cannot be a label's name"},
		{port.Notes{Labels: port.Labels{"-a": ""}}, "cannot be a label's name"},
		{port.Notes{Labels: port.Labels{"a/": ""}}, "cannot be a label's name"},
		{port.Notes{Labels: port.Labels{"a b": ""}}, "cannot be a label's name"},
	} {
		wantError(t, fmt.Sprintf("%+v", c.notes), c.notes.Check(), c.want)
		p := port.Policy{Notes: c.notes}
		wantError(t, "policy", p.Check(), c.want)
	}
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// What labels are given by flags, and back.
func TestLabelFlags(t *testing.T) {
	for _, c := range []struct {
		texts []string
		want  string
	}{
		{[]string{"a=1", "b=x=y", "c="}, `{"a":"1","b":"x=y","c":null}`},
	} {
		if b, err := (port.Labels{}).ReadFlags(c.texts); err != nil || string(b) != c.want {
			t.Errorf("%q: %s, %v, want %s", c.texts, b, err, c.want)
		}
	}
	_, err := port.Labels{}.ReadFlags([]string{"a=1", "b"})
	wantError(t, "no value", err, `"b" is no label; write it as KEY=VALUE`)
	for _, twice := range [][]string{{"a=1", "a=2"}, {"a=1", "a="}, {"a=", "a=1"}} {
		_, err := port.Labels{}.ReadFlags(twice)
		wantError(t, "twice", err, `label "a" is given twice; give it once`)
	}
	if got, want := (port.Labels{}).FlagText(map[string]any{"b": "2", "a": "1"}), "a=1 --label b=2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := (port.Labels{}).FlagText(nil); got != "" {
		t.Errorf("without labels: %q", got)
	}
}
