package setting

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type color string

func (color) Values() []string { return []string{"red", "green"} }

type words map[string]string

func (words) ReadFlags(texts []string) (json.RawMessage, error) { return json.Marshal(texts) }

type inner struct {
	Deep bool `json:"deep,omitempty" help:"stands inside"`
}

// settings has a field of each type.
type settings struct {
	inner
	On     bool     `json:"on_or_off,omitempty" help:"a switch"`
	Not    Not      `json:"no_fish,omitempty" flag:"fish" arg:"on|off" help:"fish"`
	Small  uint8    `json:"small,omitempty" arg:"N" max:"240" help:"a small number"`
	Signed int      `json:"signed,omitempty" arg:"N" min:"3" max:"9" help:"a number"`
	Color  color    `json:"color,omitempty" arg:"COLOR" default:"red" help:"a color"`
	List   []string `json:"list,omitempty" arg:"WORD" fixed:"true" help:"words"`
	Text   string   `json:"text,omitempty" help:"text"`
	File   string   `json:"file,omitempty" arg:"PATH" file:"true" help:"a file"`
	Zero   *uint16  `json:"zero,omitempty" arg:"N" max:"99" help:"0 means something"`
	Time   Duration `json:"time,omitzero" arg:"TIME" help:"a time"`
	Map    words    `json:"map,omitempty" arg:"KEY=VALUE" help:"words by name"`
	Hidden string   `json:"-"`

	merged string
}

func (s *settings) AfterMerge(former any, given func(string) bool) {
	if given("color") {
		s.merged = string(former.(settings).Color) + " was before"
	}
}

func field(t *testing.T, key string) Field {
	t.Helper()
	for _, f := range Fields(settings{}) {
		if f.Key == key {
			return f
		}
	}
	t.Fatalf("no field %s", key)
	return Field{}
}

func TestFields(t *testing.T) {
	var keys, flags []string
	for _, f := range Fields(&settings{}) {
		keys, flags = append(keys, f.Key), append(flags, f.Flag)
	}
	if diff := cmp.Diff([]string{"deep", "on_or_off", "no_fish", "small", "signed", "color", "list", "text", "file", "zero", "time", "map"}, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"deep", "on-or-off", "fish", "small", "signed", "color", "list", "text", "file", "zero", "time", "map"}, flags); diff != "" {
		t.Errorf("flags (-want +got):\n%s", diff)
	}
	if f := field(t, "small"); f.Min != 0 || f.Max != 240 || f.Bool() || f.List() {
		t.Errorf("%+v", f)
	}
	if f := field(t, "list"); !f.Fixed || !f.List() {
		t.Errorf("%+v", f)
	}
	if !(&Field{Type: field(t, "on_or_off").Type}).Bool() {
		t.Error("a switch is not one")
	}
	if f := field(t, "no_fish"); f.Bool() {
		t.Error("a switch that reads a value is none")
	}
}

func TestFieldsRefusesWhatHasNoHelp(t *testing.T) {
	for _, of := range []any{
		struct {
			A int `json:"a"`
		}{},
		struct {
			A int `help:"a"`
		}{},
		struct {
			A int `json:"a" help:"a" min:"x"`
		}{},
		struct {
			A int `json:"a" help:"a" max:"-1"`
		}{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T passes", of)
				}
			}()
			Fields(of)
		}()
	}
}

func TestReadFlag(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, c := range []struct{ key, text, want string }{
		{"on_or_off", "on", "true"}, {"on_or_off", "off", "false"}, {"on_or_off", "TRUE", "true"}, {"on_or_off", "0", "false"},
		{"no_fish", "off", "true"}, {"no_fish", "on", "false"}, {"no_fish", "", "false"},
		{"small", "240", "240"}, {"small", "0x10", "16"}, {"small", "0", "0"}, {"small", "", "0"},
		{"signed", "3", "3"}, {"signed", "9", "9"}, {"signed", "0", "0"},
		{"zero", "0", "0"}, {"zero", "99", "99"}, {"zero", "", "null"},
		{"color", "green", `"green"`}, {"color", "", `""`},
		{"list", "a", `["a"]`}, {"list", "", "[]"},
		{"text", "x y", `"x y"`},
		{"file", "a/../b", `"` + dir + `/b"`}, {"file", "/x", `"/x"`}, {"file", "", `""`},
		{"time", "1m30s", `"1m30s"`}, {"time", "", `""`},
	} {
		f := field(t, c.key)
		got, err := f.ReadFlag(c.text)
		if err != nil || string(got) != c.want {
			t.Errorf("--%s %q: %s, %v, want %s", f.Flag, c.text, got, err, c.want)
		}
	}
	list := field(t, "list")
	if got, err := list.ReadFlag("a", "", "b"); err != nil || string(got) != `["a","b"]` {
		t.Errorf("%s, %v", got, err)
	}
	for _, c := range []struct{ key, text, want string }{
		{"on_or_off", "maybe", `"maybe" is neither; use on or off`},
		{"no_fish", "maybe", `"maybe" is neither; use on or off`},
		{"small", "241", "241 is out of range; use 0 to 240"},
		{"small", "256", "256 is out of range; use 0 to 240"},
		{"small", "99999999999999999999", "99999999999999999999 is out of range; use 0 to 240"},
		{"small", "-1", "-1 is out of range; use 0 to 240"},
		{"small", "5k", `"5k" is not a whole number; write one such as 1`},
		{"small", "-5k", `"-5k" is not a whole number; write one such as 1`},
		{"small", "-", `"-" is not a whole number; write one such as 1`},
		{"small", "010", `"010" can be read as octal; write it without the 0 in front`},
		{"signed", "-00", `"-00" can be read as octal; write it without the 0 in front`},
		{"zero", "100", "100 is out of range; use 0 to 99"},
		{"signed", "2", "2 is out of range; use 3 to 9"},
		{"signed", "10", "10 is out of range; use 3 to 9"},
		{"signed", "-3", "-3 is out of range; use 3 to 9"},
		{"color", "blue", `there is no "blue"; use red, green`},
		{"text", "a\xffb", `"a\xffb" is no text in UTF-8; write it in letters that are`},
		{"list", "\xff", `"\xff" is no text in UTF-8; write it in letters that are`},
		{"file", "/a\nb", `"/a\nb" has a character that cannot be printed; name another path`},
		{"time", "60", `"60" has no unit; write 60s`},
		{"time", "-1s", `"-1s" is not a time; write one such as 60s, 5m or 250ms`},
		{"time", "x", `"x" is not a time; write one such as 60s, 5m or 250ms`},
	} {
		f := field(t, c.key)
		if got, err := f.ReadFlag(c.text); err == nil || err.Error() != c.want {
			t.Errorf("--%s %q: %s, %v, want %s", f.Flag, c.text, got, err, c.want)
		}
	}
}

func patch(t *testing.T, text string) (p Patch) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMerge(t *testing.T) {
	former := settings{On: true, Color: "red", List: []string{"a", "b"}, Small: 7}
	p := patch(t, `{"on_or_off": false, "deep": true, "color": "green", "list": ["c"], "small": null, "other": 1}`)
	got, err := Merge(former, p)
	if err != nil {
		t.Fatal(err)
	}
	want := settings{inner: inner{true}, Color: "green", List: []string{"c"}, merged: "red was before"}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(settings{}, inner{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"other"}, p.Keys()); diff != "" {
		t.Errorf("left over (-want +got):\n%s", diff)
	}
	if !former.On || former.List[0] != "a" {
		t.Errorf("the former one changed: %+v", former)
	}
	if got, err := Merge(former, patch(t, `{"list": []}`)); err != nil || got.(settings).List != nil {
		t.Errorf("an empty list is %#v, %v", got.(settings).List, err)
	}
	if got, err := Merge(former, Patch{}); err != nil || got.(settings).merged != "" {
		t.Errorf("nothing merged: %+v, %v", got, err)
	}
}

// Of a map the keys that are named change (RFC 7396).
func TestMergeOfAMap(t *testing.T) {
	former := settings{Map: words{"a": "1", "b": "2"}}
	for text, want := range map[string]words{
		`{"map": {"b": "3", "c": "4"}}`:   {"a": "1", "b": "3", "c": "4"},
		`{"map": {"a": null, "x": null}}`: {"b": "2"},
		`{"map": {"a": null, "b": null}}`: nil,
		`{"map": null}`:                   nil,
		`{"map": {}}`:                     {"a": "1", "b": "2"},
	} {
		got, err := Merge(former, patch(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.(settings).Map); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	if len(former.Map) != 2 {
		t.Errorf("the former one changed: %v", former.Map)
	}
	f := field(t, "map")
	if got, err := f.ReadFlag("a", "b"); err != nil || string(got) != `["a","b"]` || !f.List() {
		t.Errorf("%s, %v", got, err)
	}
}

func TestMergeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"small": 241}`: "small: 241 is out of range; use 0 to 240",
		`{"small": 300}`: "small: 300 is out of range; use 0 to 240",
		`{"small": -1}`:  "small: -1 is out of range; use 0 to 240",
		`{"small": 1.5}`: "small: 1.5 is out of range; use 0 to 240",
		`{"small": "x"}`: `small: "x" is not an integer`,
		`{"small": "` + strings.Repeat("é", 5000) + `"}`: `small: "` + strings.Repeat("é", 29) + "… is not an integer",
		`{"zero": 100}`:           "zero: 100 is out of range; use 0 to 99",
		`{"signed": 2}`:           "signed: 2 is out of range; use 3 to 9",
		`{"color": "blue"}`:       `color: there is no "blue"; use red, green`,
		`{"color": 1}`:            "color: 1 is not a string",
		`{"list": "a"}`:           `list: "a" is not an array`,
		`{"list": ["a","b","a"]}`: `list: a is there twice; name it once`,
		`{"on_or_off": "yes"}`:    `on_or_off: "yes" is not true or false`,
		`{"time": "5"}`:           `time: "5" has no unit; write 5s`,
		`{"map": []}`:             `map: [] is not an object of texts`,
		`{"map": {"a": 1}}`:       `map: {"a": 1} is not an object of texts`,
	} {
		if got, err := Merge(settings{}, patch(t, text)); err == nil || err.Error() != want {
			t.Errorf("%s: %+v, %v, want %s", text, got, err, want)
		}
	}
}

func TestPatchOf(t *testing.T) {
	former := settings{inner: inner{true}, On: true, Small: 7, Color: "green", List: []string{"a"}, Time: Duration(time.Minute)}
	p := PatchOf(former)
	if diff := cmp.Diff([]string{"color", "deep", "list", "on_or_off", "small", "time"}, p.Keys()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, err := Merge(settings{}, p)
	if diff := cmp.Diff(former, got, cmp.AllowUnexported(settings{}, inner{}), cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".merged" }, cmp.Ignore())); err != nil || diff != "" {
		t.Errorf("there and back: %v (-want +got):\n%s", err, diff)
	}
	if p := PatchOf(nil); p == nil || len(p) != 0 {
		t.Errorf("of nothing: %v", p)
	}
}

func TestTake(t *testing.T) {
	p := patch(t, `{"name": "vm0", "n": "x"}`)
	var name string
	if err := p.Take("name", &name); err != nil || name != "vm0" || len(p) != 1 {
		t.Errorf("%q, %v, %v", name, err, p)
	}
	if err := p.Take("absent", &name); err != nil || name != "vm0" {
		t.Errorf("%q, %v", name, err)
	}
	if err := p.Take("n", new(int)); err == nil {
		t.Error("text for a number")
	}
}

func TestSchema(t *testing.T) {
	for key, want := range map[string]string{
		"on_or_off": `{"type":"boolean","description":"a switch"}`,
		"no_fish":   `{"type":"boolean","description":"fish"}`,
		"small":     `{"type":"integer","minimum":0,"maximum":240,"description":"a small number"}`,
		"zero":      `{"type":"integer","minimum":0,"maximum":99,"description":"0 means something"}`,
		"signed":    `{"type":"integer","minimum":0,"maximum":9,"description":"a number"}`,
		"color":     `{"type":"string","enum":["","red","green"],"description":"a color; default: red"}`,
		"list":      `{"type":"array","items":{"type":"string"},"description":"words; fixed when it is made"}`,
		"time":      `{"type":"string","description":"a time"}`,
		"map":       `{"type":"object","additionalProperties":{"type":"string"},"description":"words by name"}`,
	} {
		f := field(t, key)
		if got, err := json.Marshal(f.Schema()); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", key, got, err, want)
		}
	}
}

func TestNumbersWithoutBounds(t *testing.T) {
	f := Fields(struct {
		N uint64 `json:"n" help:"n"`
		I int64  `json:"i" help:"i"`
	}{})
	if f[0].Max != math.MaxUint64 || f[1].Min != math.MinInt64 || f[1].Max != math.MaxInt64 {
		t.Errorf("%+v", f)
	}
}

// Whatever JSON a client sends, Merge answers, and what it takes can be read back.
func FuzzMerge(f *testing.F) {
	f.Add(`{"small": 7, "list": ["a"], "color": "red"}`)
	f.Add(`{"signed": 1e400, "time": "1h"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var p Patch
		if json.Unmarshal([]byte(text), &p) != nil {
			return
		}
		got, err := Merge(settings{}, p)
		if err != nil {
			return
		}
		s := got.(settings)
		if s.Small > 240 || s.Signed != 0 && (s.Signed < 3 || s.Signed > 9) {
			t.Fatalf("%s passes: %+v", text, s)
		}
		again, err := Merge(settings{}, PatchOf(s))
		s.merged = again.(settings).merged
		if diff := cmp.Diff(s, again, cmp.AllowUnexported(settings{}, inner{})); err != nil || diff != "" {
			t.Fatalf("%s is not read back: %v\n%s", text, err, diff)
		}
	})
}

func TestCheckKeys(t *testing.T) {
	for text, want := range map[string]string{
		`{"a": 1, "b": {"a": 2}, "c": [{"a": 3}, {"a": 4}], "d": "a", "e": "a"}`: "",
		`{"a": 1, "a": 1}`:                      "a",
		`{"x": {"a": "a", "b": [], "a": {}}}`:   "a",
		`[{"a": {"b": [1, {"c": 2}]}, "a": 1}]`: "a",
		`{"a": [{"b": 1, "b": 2}]}`:             "b",
		`{"a": 1, "\u0061": 2}`:                 "a",
		`"a"`:                                   "", `[]`: "", `{`: "", `{"a"`: "", `{"a": 1`: "", `]`: "", ``: "",
	} {
		err := CheckKeys([]byte(text))
		if key, ok := err.(TwiceError); want != string(key) || ok != (want != "") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Whatever the text, CheckKeys answers.
func FuzzCheckKeys(f *testing.F) {
	f.Add(`{"a": [{"b": 1, "b": 2}]}`)
	f.Add(`]}{"a`)
	f.Fuzz(func(t *testing.T, text string) { _ = CheckKeys([]byte(text)) })
}

func TestPlain(t *testing.T) {
	type inner struct {
		Name string   `json:"name"`
		Many []string `json:"many"`
	}
	for text, want := range map[string]string{
		`[]`:                          "there is an array in place of an object",
		`{"inner": {"name": 5}}`:      "inner.name: there is a number in place of a string",
		`{"inner": {"many": {}}}`:     "inner.many: there is an object in place of an array",
		`{"n": 1e30}`:                 "n: there is number 1e30 in place of an integer",
		`{"n": 99999999999999999999}`: "n: 99999999999999999999 is out of range",
		`{"n": 1.5}`:                  "n: there is number 1.5 in place of an integer",
		`{"n": true}`:                 "n: there is true or false in place of an integer",
		`{`:                           "unexpected end of JSON input",
	} {
		var v struct {
			Inner inner `json:"inner"`
			N     int   `json:"n"`
		}
		err := json.Unmarshal([]byte(text), &v)
		if got := Plain(fmt.Errorf("here: %w", err)); got == nil || got.Error() != "here: "+want {
			t.Errorf("%s: %v, want %q", text, got, want)
		}
	}
}

func TestOtherCase(t *testing.T) {
	type inner struct {
		A int `json:"a"`
	}
	type outer struct {
		inner
		B    []inner          `json:"b,omitempty"`
		C    *inner           `json:"c"`
		D    map[string]inner `json:"d"` // not looked into: names are no fields
		E    int              `json:"-"`
		Bare int
	}
	for text, want := range map[string]string{
		`{"a": 1, "b": [{"a": 1}], "c": {"a": 2}, "d": {"x": {"a": 1}, "X": {"a": 2}}, "Bare": 1}`: "",
		`{"a": 1, "A": 2}`:                  "A",
		`{"A": 2}`:                          "A",
		`{"b": [{"a": 1}, {"a": 1,"A":2}]}`: "A",
		`{"c": {"A": 1}}`:                   "A",
		`{"bare": 1}`:                       "bare",
		`{"Unknown": 1, "E": 1}`:            "", // for who refuses unknown keys
		`{"b": {"A": 1}}`:                   "", `[`: "", `5`: "", ``: "",
	} {
		if key := OtherCase([]byte(text), reflect.TypeFor[outer]()); key != want {
			t.Errorf("%s: %q, want %q", text, key, want)
		}
	}
}
