package setting

import (
	"encoding/json"
	"testing"
	"time"
)

// times has the types that this package offers.
type times struct {
	Never OrNever  `json:"never,omitzero" arg:"TIME" help:"a time or never"`
	Time  Duration `json:"time,omitzero" arg:"TIME" help:"a time"`
	None  OrNone   `json:"none,omitzero" arg:"TIME" help:"a time or none"`
	Addr  Addr     `json:"addr,omitzero" arg:"ADDRESS" help:"an address"`
	Tiny  int8     `json:"tiny,omitempty" arg:"N" help:"a small number"`
	Wide  int64    `json:"wide,omitempty" arg:"N" help:"a large number"`
	Huge  uint64   `json:"huge,omitempty" arg:"N" min:"2" help:"a huge number"`
	Int   int      `json:"int,omitempty" arg:"N" help:"a number"`
	Uint  uint     `json:"uint,omitempty" arg:"N" min:"10" help:"a number from 10 on"`
	Many  colors   `json:"many,omitempty" arg:"COLOR" help:"colors"`
	Big   uint32   `json:"big,omitempty" arg:"N" schema:"how big" default:"1" help:"a number"`
}

type colors []string

func (colors) Values() []string     { return []string{"red", "green"} }
func (colors) FlagValues() []string { return []string{"red", "green", "all"} }

func fieldOf(t *testing.T, of any, key string) Field {
	t.Helper()
	for _, f := range Fields(of) {
		if f.Key == key {
			return f
		}
	}
	t.Fatalf("no field %s", key)
	return Field{}
}

// What a flag is given is what JSON gives back, and merges to the same.
func TestTypes(t *testing.T) {
	for _, c := range []struct{ key, text, want string }{
		{"never", "", `""`}, {"never", "0", `"never"`}, {"never", "0s", `"never"`}, {"never", "never", `"never"`}, {"never", "90s", `"1m30s"`},
		{"time", "90s", `"1m30s"`}, {"time", "", `""`}, {"none", "0", `"0s"`}, {"none", "90s", `"1m30s"`},
		{"addr", "", `""`}, {"addr", "192.0.2.1", `"192.0.2.1"`}, {"addr", "2001:db8::1", `"2001:db8::1"`},
		{"tiny", "127", "127"}, {"tiny", "-128", "-128"}, {"tiny", "-1", "-1"},
		{"wide", "-9223372036854775808", "-9223372036854775808"}, {"wide", "9223372036854775807", "9223372036854775807"},
		{"huge", "18446744073709551615", "18446744073709551615"}, {"huge", "2", "2"},
		{"big", "4294967295", "4294967295"},
		{"int", "-9223372036854775808", "-9223372036854775808"}, {"int", "9223372036854775807", "9223372036854775807"},
		{"uint", "18446744073709551615", "18446744073709551615"}, {"uint", "10", "10"},
	} {
		f := fieldOf(t, times{}, c.key)
		got, err := f.ReadFlag(c.text)
		if err != nil || string(got) != c.want {
			t.Errorf("--%s %q: %s, %v, want %s", f.Flag, c.text, got, err, c.want)
			continue
		}
		merged, err := Merge(times{}, Patch{c.key: got})
		if err != nil {
			t.Errorf("%s: %s: %v", c.key, got, err)
			continue
		}
		again := string(PatchOf(merged)[c.key])
		if f.IsZero(merged) {
			if again != "" {
				t.Errorf("%s: none is read back as %s", c.key, again)
			}
		} else if again != c.want {
			t.Errorf("%s: %s is read back as %s", c.key, c.want, again)
		}
	}
	for _, c := range []struct{ key, text, want string }{
		{"never", "-1s", `"-1s" is not a time; write one such as 60s, 5m or 250ms`},
		{"never", "5", `"5" has no unit; write 5s`},
		{"time", "0", `"0" is not possible; use a time above 0, such as 60s, 5m or 250ms`},
		{"time", "0s", `"0s" is not possible; use a time above 0, such as 60s, 5m or 250ms`},
		{"time", "-1s", `"-1s" is not a time; write one such as 60s, 5m or 250ms`},
		{"none", "5", `"5" has no unit; write 5s`},
		{"addr", "192.0.2", `"192.0.2" is not an IP address; write it as 192.0.2.1 or 2001:db8::1`},
		{"tiny", "128", "128 is out of range; use -128 to 127"},
		{"tiny", "-129", "-129 is out of range; use -128 to 127"},
		{"wide", "9223372036854775808", "9223372036854775808 is out of range; use -9223372036854775808 or more"},
		{"huge", "1", "1 is out of range; use 2 or more"},
		{"uint", "9", "9 is out of range; use 10 or more"},
		{"big", "4294967296", "4294967296 is out of range; use 0 to 4294967295"},
	} {
		f := fieldOf(t, times{}, c.key)
		if got, err := f.ReadFlag(c.text); err == nil || err.Error() != c.want {
			t.Errorf("--%s %q: %s, %v, want %s", f.Flag, c.text, got, err, c.want)
		}
	}
}

// An address that was there does not stay when none is given.
func TestTypesForget(t *testing.T) {
	var a Addr
	if err := a.UnmarshalText([]byte("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	if err := a.UnmarshalText(nil); err != nil || a.IsValid() {
		t.Errorf("%v, %v", a, err)
	}
	d := OrNever(time.Minute)
	if err := d.UnmarshalText(nil); err != nil || d != 0 {
		t.Errorf("%v, %v", d, err)
	}
}

// A 0 of a time that may be none unsets it, and a 0 of another is refused rather than taken for the default.
func TestZeroTimes(t *testing.T) {
	for _, text := range []string{`"0"`, `"0s"`, `"0h"`} {
		got, err := Merge(times{None: OrNone(time.Minute)}, Patch{"none": json.RawMessage(text)})
		if err != nil || got.(times).None != 0 {
			t.Errorf("none %s: %v, %v", text, got, err)
		}
		if got, err := Merge(times{Time: Duration(time.Minute)}, Patch{"time": json.RawMessage(text)}); err == nil {
			t.Errorf("time %s: %v", text, got)
		}
	}
}

func TestListOfValues(t *testing.T) {
	f := fieldOf(t, times{}, "many")
	if len(f.Values) != 2 || len(f.Complete) != 3 || !f.List() {
		t.Errorf("%+v", f)
	}
	if _, err := f.ReadFlag("red", "green"); err != nil {
		t.Error(err)
	}
	const want = `there is no "blue"; use red, green`
	if got, err := f.ReadFlag("red", "blue"); err == nil || err.Error() != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	if b, err := json.Marshal(f.Schema()); err != nil || string(b) != `{"type":"array","items":{"type":"string","enum":["red","green"]},"description":"colors"}` {
		t.Errorf("%s, %v", b, err)
	}
	if f := field(t, "color"); len(f.Complete) != 2 {
		t.Errorf("completes %v", f.Complete)
	}
}

func TestSchemaOfNumbers(t *testing.T) {
	for key, want := range map[string]string{
		"tiny": `{"type":"integer","description":"a small number"}`,
		"huge": `{"type":"integer","minimum":0,"description":"a huge number"}`,
		"big":  `{"type":"integer","minimum":0,"description":"how big"}`, // schema has said it all
	} {
		f := fieldOf(t, times{}, key)
		if b, err := json.Marshal(f.Schema()); err != nil || string(b) != want {
			t.Errorf("%s: %s, %v, want %s", key, b, err, want)
		}
	}
}

// Values as users see them are what the flags take.
func TestFlagText(t *testing.T) {
	for _, c := range []struct{ key, json, want string }{
		{"on_or_off", "true", "on"}, {"on_or_off", "false", "off"},
		{"no_fish", "true", "off"}, {"no_fish", "false", "on"}, {"no_fish", "null", "on"},
		{"small", "7", "7"}, {"signed", "-3", "-3"}, {"small", "200000000", "200000000"},
		{"color", `"red"`, "red"}, {"list", `["a","b"]`, "a --list b"}, {"list", `["a"]`, "a"},
	} {
		f := field(t, c.key)
		var v any
		if err := json.Unmarshal([]byte(c.json), &v); err != nil {
			t.Fatal(err)
		}
		if got := f.FlagText(v); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.key, c.json, got, c.want)
		}
	}
}

func TestParseBool(t *testing.T) {
	for text, want := range map[string]bool{"on": true, "True": true, "yes": true, "1": true, "OFF": false, "false": false, "no": false, "0": false, "": false} {
		if on, err := ParseBool(text); err != nil || on != want {
			t.Errorf("%q: %v, %v", text, on, err)
		}
	}
}

// Get and IsZero take a struct, or what points to one.
func TestGet(t *testing.T) {
	s := settings{Small: 7}
	small, text := field(t, "small"), field(t, "text")
	for _, of := range []any{s, &s} {
		if small.Get(of) != uint8(7) || small.IsZero(of) || text.Get(of) != "" || !text.IsZero(of) {
			t.Errorf("%T: %v, %v", of, small.Get(of), text.Get(of))
		}
	}
}

func TestSetRefusesWhatHasNoJSON(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a function passes")
		}
	}()
	Patch{}.Set("f", func() {})
}

// A list can have elements that are read from text.
func TestListOfTexts(t *testing.T) {
	f := Fields(struct {
		At []Addr `json:"at,omitempty" arg:"ADDRESS" help:"where"`
	}{})[0]
	for want, texts := range map[string][]string{
		`["192.0.2.1","::1"]`: {"192.0.2.1", "::1"},
		`[]`:                  {""},
	} {
		if got, err := f.ReadFlag(texts...); err != nil || string(got) != want {
			t.Errorf("%q: %s, %v", texts, got, err)
		}
	}
	if got, err := f.ReadFlag("192.0.2.1", "x"); err == nil {
		t.Errorf("it reads %s", got)
	}
}
