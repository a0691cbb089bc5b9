package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/netdev"
	"github.com/vswitch/vswitch/port/tap"
	"github.com/vswitch/vswitch/port/unixsock"
)

// format is that of a program with three kinds of port.
func format(t testing.TB) Format {
	t.Helper()
	a, err1 := tap.New(tap.Options{Switch: "sw0"})
	b, err2 := netdev.New(netdev.Options{Switch: "sw0"})
	c, err3 := unixsock.NewStream("/run/vswitch/sw0")
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return Format{
		Ports:    port.Catalog{Kinds: port.Kinds{a, b, c}},
		Sections: []Section{section("fdb", false, entry{}), section("mirrors", true, mirror{})},
		Features: []string{"guard"},
		Switch: setting.Fields(struct {
			Aging setting.OrNever `json:"aging,omitzero" help:"h"`
			STP   bool            `json:"stp,omitempty" help:"h"`
			Mask  uint16          `json:"group_forward,omitempty" help:"h"`
		}{}),
		CheckSwitch: func(p setting.Patch) error {
			if p["stp"] != nil && p["group_forward"] != nil {
				return errors.New("stp and group_forward exclude each other")
			}
			return nil
		},
	}
}

// entry and mirror are items of two sections.
type entry struct {
	MAC    port.MAC `json:"mac" help:"h"`
	VLAN   uint16   `json:"vlan,omitempty" max:"4094" min:"1" help:"h"`
	Port   string   `json:"port,omitempty" help:"h"`
	Sticky bool     `json:"sticky,omitempty" help:"h"`
}

func (e *entry) AfterMerge(any, func(string) bool) { e.VLAN = max(e.VLAN, 1) }
func (e entry) ID() string                         { return fmt.Sprintf("%s in VLAN %d", e.MAC, e.VLAN) }
func (e entry) Check() error {
	if e.Port == "" {
		return errors.New("an entry needs a port")
	}
	return nil
}

type mirror struct {
	Name   string   `json:"name" help:"h"`
	From   []string `json:"from,omitempty" help:"h"`
	To     string   `json:"to,omitempty" help:"h"`
	ToVLAN uint16   `json:"to_vlan,omitempty" help:"h"`
	Filter string   `json:"filter,omitempty" help:"h"`
}

func (m mirror) ID() string { return m.Name }
func (m mirror) Check() error {
	if m.From == nil {
		return fmt.Errorf("mirror %s copies from somewhere", m.Name)
	}
	return nil
}

func section(key string, named bool, zero any) Section {
	return Section{
		Key: key, Fields: setting.Fields(zero), Named: named,
		Read: func(p setting.Patch) (setting.Patch, string, error) {
			v, err := setting.Merge(zero, p)
			if err != nil {
				return nil, "", err
			}
			item := v.(interface {
				ID() string
				Check() error
			})
			return setting.PatchOf(item), item.ID(), item.Check()
		},
	}
}

const whole = `# two machines and an uplink
version: 1
x-mine: {anything: [1, 2]}
switch:
  aging: 5m
  stp: on
defaults: {isolated: true, storm_broadcast: 100pps, access: 10, owner: root}
ports:
  vm0:
  vm1: {kind: tap, access: 0x14, owner: 1000, isolated: no}
  up0:
    kind: netdev
    trunk: [10, 20-29]
    native: 1
    exclusive: false
  1e3: {kind: stream, path: "/run/x, y.sock", no_flood: [unicast], stp_edge: off}
fdb:
  - {mac: "52:54:00:00:00:01", port: vm0, vlan: 10, sticky: true}
  - mac: 52:54:00:00:00:02
    port: vm1
mirrors:
  m0: {from: [vm0], to: mon0, filter: "arp or port 53"}
features:
  guard: {bindings: [{ip: 10.0.0.1, vlan: 10, by: "7", off: no, none: null, x: 1.5}]}
`

func TestParse(t *testing.T) {
	d, places, err := format(t).Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	got, err := format(t).Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"switch":{"aging":"5m","stp":true},"ports":{` +
		`"1e3":{"access":10,"isolated":true,"kind":"stream","no_flood":["unicast"],"owner":"root","path":"/run/x, y.sock","storm_broadcast":"100pps","stp_edge":"off"},` +
		`"up0":{"isolated":true,"kind":"netdev","native":1,"storm_broadcast":"100pps","trunk":"10,20-29"},` +
		`"vm0":{"access":10,"isolated":true,"kind":"tap","owner":"root","storm_broadcast":"100pps"},` +
		`"vm1":{"access":20,"kind":"tap","owner":"1000","storm_broadcast":"100pps"}},` +
		`"fdb":[{"mac":"52:54:00:00:00:01","port":"vm0","sticky":true,"vlan":10},{"mac":"52:54:00:00:00:02","port":"vm1","vlan":1}],` +
		`"mirrors":{"m0":{"filter":"arp or port 53","from":["vm0"],"to":"mon0"}},` +
		`"features":{"guard":{"bindings":[{"by":"7","ip":"10.0.0.1","none":null,"off":"no","vlan":10,"x":1.5}]}}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("document (-want +got):\n%s", diff)
	}
	if again, err := format(t).Decode(got); err != nil || !cmp.Equal(d, again) {
		t.Errorf("read again: %v\n%s", err, cmp.Diff(d, again))
	}
	if marked, _, err := format(t).Parse([]byte("\ufeff" + whole)); err != nil || !cmp.Equal(d, marked) {
		t.Errorf("with a byte order mark: %v\n%s", err, cmp.Diff(d, marked))
	}
	for _, c := range []struct {
		at           Path
		line, column int
	}{
		{"ports/vm1/access", 10, 28},
		{"ports/up0/trunk", 13, 12},
		{"ports/vm0/access", 9, 3}, // of the defaults, so the port's own place
		{"fdb/1", 19, 5},
		{"mirrors/m0", 22, 3},
		{"switch", 4, 1},
		{"nowhere/at/all", 1, 1},
	} {
		if p := places.Problem(c.at, "x"); p.Line != c.line || p.Column != c.column {
			t.Errorf("%s is at %d:%d, want %d:%d", c.at, p.Line, p.Column, c.line, c.column)
		}
	}
}

// Every mistake is named with its place, all of them at once.
func TestProblems(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "1:1: the file is empty; it begins with `version: 1`"},
		{"only a comment", "# nothing\n", "1:1: the file is empty; it begins with `version: 1`"},
		{"no mapping", "- a\n", "1:1: the file is a mapping, of lines such as `key: value`"},
		{"no version", "ports: {}\n", "1:1: the version is missing; begin with `version: 1`"},
		{"other version", "version: 2\n", "1:10: version 2 is not known; this vswitch reads version 1"},
		{"no number", "version: one\n", "1:10: the version is a number; write `version: 1`"},
		{"syntax", "version: 1\nports: {vm0: {kind: tap}\n", "2:8: could not find flow mapping end token '}'"},
		{"tab", "version: 1\nports:\n\tvm0: {}\n", "3:1: found character '\t' that cannot start any token"},
		{"section", "version: 1\nport: {}\n", "2:1: there is no section \"port\"; did you mean ports? use version, switch, defaults, ports, fdb, mirrors, features"},
		{"twice", "version: 1\nports:\n  vm0: {}\n  vm0: {}\n", "4:3: \"vm0\" is there twice"},
		{"setting", "version: 1\nports:\n  vm0: {acess: 10}\n", "3:9: there is no setting \"acess\"; did you mean access?"},
		{"flag", "version: 1\nports:\n  vm0: {storm-broadcast: 1pps}\n", "3:9: there is no setting \"storm-broadcast\"; did you mean storm_broadcast?"},
		{"other kind", "version: 1\nports:\n  vm0: {exclusive: true}\n", "3:9: \"exclusive\" is a setting of netdev ports"},
		{"kind", "version: 1\nports:\n  vm0: {kind: tab}\n", "3:15: there is no port kind \"tab\"; use one of tap, netdev, stream"},
		{"range", "version: 1\nports:\n  vm0: {access: 5000}\n", "3:17: access: 5000 is out of range; use 1 to 4094"},
		{"text for a number", "version: 1\nports:\n  vm0: {access: ten}\n", "3:17: access: \"ten\" is not a whole number"},
		{"octal", "version: 1\nports:\n  vm0: {access: 010}\n", "3:17: access: 010 can be read as octal; write it without the 0 in front"},
		{"list for a number", "version: 1\nports:\n  vm0: {access: [1]}\n", "3:17: access: one value is needed, not a collection"},
		{"number for a list", "version: 1\nports:\n  vm0: {no_flood: unicast}\n", "3:19: no_flood: a list is needed; write it as [a, b]"},
		{"a list in a flow mapping", "version: 1\nports:\n  up0: {kind: netdev, trunk: 10,20-29}\n",
			"3:33: there is no setting \"20-29\""},
		{"rate", "version: 1\nports:\n  vm0: {storm_broadcast: 100 fps}\n",
			"3:26: storm_broadcast: \"100 fps\" is not a rate; write frames as 100pps, bits as 10mbit, or off"},
		{"no value", "version: 1\nports:\n  vm0:\n    access:\n", "4:5: access has no value; write one, or leave the key out; a list with commas in it is quoted"},
		{"contradiction", "version: 1\nports:\n  vm0: {access: 1, qinq: 2}\n", "3:3: port vm0: a port is one of access, trunk and qinq; give one of them"},
		{"name", "version: 1\nports:\n  a/b: {}\n", "3:3: port a/b: port name \"a/b\" has \"/\" in it; use letters, digits and any of -_.+@"},
		{"port", "version: 1\nports:\n  vm0: tap\n", "3:8: a port is a mapping of its settings, such as {kind: tap, access: 10}"},
		{"switch", "version: 1\nswitch: {stp: true, group_forward: 0x4000}\n", "2:1: stp and group_forward exclude each other"},
		{"anchor", "version: 1\nports:\n  vm0: &a {}\n  vm1: *a\n", "3:8: anchors, aliases and merges are not read; put common settings of ports under `defaults`"},
		{"tag", "version: 1\nports: !!map {}\n", "2:8: tags are not read; quote what is a text"},
		{"complex key", "version: 1\n? a\n: b\n", "2:1: a key written with \"? \" is not read; write it as `key: value`"},
		{"kind misspelt", "version: 1\nports:\n  vm0: {kind: netdef}\n", "3:15: there is no port kind \"netdef\"; did you mean netdev? use one of tap, netdev, stream"},
		{"two documents", "version: 1\n---\nversion: 1\n", "3:1: a second document is not read; write one file for each switch"},
		{"item", "version: 1\nfdb:\n  - {mac: 01:00:5e:00:00:01, port: vm0}\n  - {port: vm0, vlan: 5000}\n  - {mac: 52:54:00:00:00:01}\n",
			"4:23: vlan: 5000 is out of range; use 1 to 4094\n5:5: an entry needs a port"},
		{"item twice", "version: 1\nfdb:\n  - {mac: 52:54:00:00:00:01, port: vm0}\n  - {mac: 52:54:00:00:00:01, port: vm1, vlan: 1}\n",
			"4:5: 52:54:00:00:00:01 in VLAN 1 is there twice"},
		{"named item", "version: 1\nmirrors:\n  m0: {to: vm0}\n  m1: {from: [vm0], name: m2, to: vm1}\n",
			"3:3: mirror m0 copies from somewhere\n4:21: there is no setting \"name\""},
		{"many", "version: 1\nswitch: {aging: 60}\nports:\n  vm0: {access: 5000}\n  vm1: {kind: nap}\n",
			"2:17: aging: \"60\" has no unit; write 60s\n4:17: access: 5000 is out of range; use 1 to 4094\n" +
				"5:15: there is no port kind \"nap\"; use one of tap, netdev, stream"},
		{"deep in brackets", "version: 1\nports: " + strings.Repeat("[", 1<<14), "2:24: collections stand too deep in each other"},
		{"deep in dashes", "version: 1\nports:\n" + strings.Repeat("- ", 1<<13) + "a", "3:33: collections stand too deep in each other"},
		{"long", strings.Repeat("#", maxText+1), "1:1: the file has more than 4194304 bytes, and no more are read"},
		{"UTF-16", "\xff\xfev\x00e\x00", "1:1: the file is in UTF-16; save it as UTF-8"},
		{"UTF-16, the other way", "\xfe\xff\x00v", "1:1: the file is in UTF-16; save it as UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := format(t).Parse([]byte(c.text))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDeepBlocks(t *testing.T) {
	var b strings.Builder
	for i := range 2000 {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	_, _, err := format(t).Parse([]byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "too deep") {
		t.Errorf("got %v", err)
	}
}

func TestYAML(t *testing.T) {
	f := format(t)
	d, _, err := f.Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	want := `# yaml-language-server: $schema=` + SchemaURL + `
version: 1
switch:
  aging: "5m"
  stp: true
ports:
  "1e3": {kind: stream, owner: root, path: "/run/x, y.sock", access: 10, isolated: true, no_flood: [unicast], storm_broadcast: "100pps", stp_edge: "off"}
  up0: {kind: netdev, trunk: "10,20-29", native: 1, isolated: true, storm_broadcast: "100pps"}
  vm0: {kind: tap, owner: root, access: 10, isolated: true, storm_broadcast: "100pps"}
  vm1: {kind: tap, owner: "1000", access: 20, storm_broadcast: "100pps"}
fdb:
  - {mac: "52:54:00:00:00:01", vlan: 10, port: vm0, sticky: true}
  - {mac: "52:54:00:00:00:02", vlan: 1, port: vm1}
mirrors:
  m0: {from: [vm0], to: mon0, filter: "arp or port 53"}
features:
  guard: {bindings: [{by: "7", ip: "10.0.0.1", none: null, "off": "no", vlan: 10, x: 1.5}]}
`
	if diff := cmp.Diff(want, string(f.YAML(d))); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	if got := string(f.YAML(Document{Version: 1, Switch: setting.Patch{}, Ports: map[string]setting.Patch{}})); !strings.HasSuffix(got, "\nswitch: {}\nports: {}\n") {
		t.Errorf("an empty switch is\n%s", got)
	}
}

// What is accepted can be written, and means the same when it is read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("version: 1\nports: {vm0: {kind: tap, notes: {a: \"b\\nc\"}}}\n"))
	f.Add([]byte(`{"version": 1, "ports": {"vm0": {"kind": "tap"}}, "fdb": []}`))
	f.Add([]byte("version: 1\nmirrors: {\"a: b\": {from: [x], to_vlan: 9}}\n"))
	f.Add([]byte("version: 1\nfdb:\n- \n"))
	of := format(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		d, places, err := of.Parse(text)
		if err != nil {
			var ps Problems
			if !errors.As(err, &ps) || len(ps) == 0 {
				t.Fatalf("an error without a place: %v", err)
			}
			for _, p := range ps {
				if p.Line < 1 || p.Column < 1 || p.Message == "" || strings.Contains(p.Message, "\n") {
					t.Fatalf("a problem without a place or words: %+v", p)
				}
			}
			return
		}
		places.Problem("ports/x/y", "")
		again, _, err := of.Parse(of.YAML(d))
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, of.YAML(d))
		}
		if a, b := of.YAML(d), of.YAML(again); string(a) != string(b) {
			t.Fatalf("what was written means something else:\n%s\n%s", a, b)
		}
	})
}

// A thousand ports are read in linear time: ten times as many ports do not take a hundred
// times as many allocations.
func TestParseGrowsWithTheFile(t *testing.T) {
	f := format(t)
	allocs := func(n int) float64 {
		var b strings.Builder
		b.WriteString("version: 1\nports:\n")
		for i := range n {
			fmt.Fprintf(&b, "  vm%d: {kind: tap, access: %d}\n", i, i%4094+1)
		}
		return testing.AllocsPerRun(1, func() {
			if _, _, err := f.Parse([]byte(b.String())); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := allocs(100), allocs(1000); many > 15*few {
		t.Errorf("%.0f allocations for 100 ports, %.0f for 1,000", few, many)
	}
}

// The schema has each setting, and names nothing that the parser does not know.
func TestSchema(t *testing.T) {
	f := format(t)
	var s struct {
		Properties struct {
			Ports struct {
				AdditionalProperties struct {
					AnyOf []struct{ Properties map[string]any }
				}
			}
			Version, Switch, Defaults, FDB, Groups, Mirrors any
		}
	}
	if err := json.Unmarshal(f.Schema(), &s); err != nil {
		t.Fatal(err)
	}
	of := s.Properties.Ports.AdditionalProperties.AnyOf
	if len(of) != len(f.Ports.Kinds) {
		t.Fatalf("%d kinds", len(of))
	}
	for i, k := range f.Ports.Kinds {
		want := len(f.fieldsOf(k.Name())) + 1
		if got := len(of[i].Properties); got != want || of[i].Properties["kind"] == nil {
			t.Errorf("kind %s has %d properties, want %d", k.Name(), got, want)
		}
	}
}
