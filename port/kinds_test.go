package port_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// kind is a kind that has settings and no ports.
type kind struct {
	name     string
	settings any
}

func (k kind) Name() string { return k.name }
func (k kind) Describe() port.Description {
	return port.Description{Help: "for tests", Settings: k.settings}
}
func (k kind) Check(s port.Spec) error {
	if port.SettingsOf[lamp](s).Shade == "pink" {
		return errors.New("no lamp is pink")
	}
	return nil
}
func (kind) Open(port.Spec, *port.Trace) (port.Port, error) { return nil, errors.New("no ports") }
func (kind) Set(port.Port, port.Spec, port.Spec) error      { return nil }
func (kind) Delete(port.Spec, port.Trace) error             { return nil }

type lamp struct {
	Shade string `json:"shade,omitempty" help:"color of the lamp"`
	MTU   int    `json:"mtu,omitempty" min:"68" max:"9000" help:"longest payload"`
	Plug  int    `json:"plug,omitempty" fixed:"true" help:"which plug it has"`
}

type door struct {
	MTU int `json:"mtu,omitempty" min:"1" max:"100" help:"longest payload"`
}

type glow struct {
	Glow int `json:"glow,omitempty" min:"1" max:"9" help:"how bright it is"`
}

func (g glow) Check(s *port.Spec) error {
	if g.Glow > 0 && s.Isolated {
		return errors.New("an isolated port does not glow")
	}
	return nil
}

var kinds = port.Catalog{
	Kinds:    port.Kinds{kind{"lamp", lamp{}}, kind{"door", door{}}, kind{"wall", nil}},
	Sections: []any{glow{}},
}

func patch(t *testing.T, text string) (p setting.Patch) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSpec(t *testing.T) {
	got, err := kinds.Spec("l0", "lamp", patch(t, `{"shade": "red", "access": 10}`))
	want := port.Spec{Name: "l0", Kind: "lamp", Settings: lamp{Shade: "red"}, Policy: port.Policy{VLAN: port.VLAN{Access: 10}}, Sections: []any{glow{}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	b, err := json.Marshal(got)
	if want := `{"name":"l0","kind":"lamp","shade":"red","access":10}`; err != nil || string(b) != want {
		t.Errorf("%s, %v, want %s", b, err, want)
	}
	again, err := kinds.Spec("l0", "lamp", got.Patch())
	if diff := cmp.Diff(got, again); err != nil || diff != "" {
		t.Errorf("there and back: %v (-want +got):\n%s", err, diff)
	}
	if s, err := kinds.Spec("w0", "wall", patch(t, `{"isolated": true}`)); err != nil || !s.Isolated || s.Settings != nil {
		t.Errorf("a kind without settings: %+v, %v", s, err)
	}
}

func TestSpecRefuses(t *testing.T) {
	for _, c := range []struct{ name, kind, patch, want string }{
		{"a/b", "lamp", `{}`, "port name"},
		{"l0", "door", `{"shade": "red"}`, "a door port has no --shade; that is a setting of lamp ports"},
		{"l0", "wall", `{"mtu": 68}`, "a wall port has no --mtu; that is a setting of lamp and door ports"},
		{"l0", "lamp", `{"shadow": 1}`, `there is no setting "shadow"`},
		{"l0", "lamp", `{"shade": "pink"}`, "no lamp is pink"},
		{"l0", "lamp", `{"mtu": 67}`, "mtu: 67 is out of range"},
		{"l0", "door", `{"mtu": 101}`, "mtu: 101 is out of range"},
		{"l0", "lamp", `{"native": 5}`, "native VLAN"},
		{"l0", "lamp", `{"access": 4095}`, "access: 4095 is out of range"},
		{"l0", "lamp", `{"trunk": "10-x"}`, "trunk: "},
		{"l0", "lamp", `{"accept": "none"}`, "accept: there is no"},
		{"l0", "lamp", `{"glow": 10}`, "glow: 10 is out of range"},
		{"l0", "wall", `{"glow": 1, "isolated": true}`, "an isolated port does not glow"},
	} {
		if s, err := kinds.Spec(c.name, c.kind, patch(t, c.patch)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %s %s: %+v, %v, want %q", c.name, c.kind, c.patch, s, err, c.want)
		}
	}
}

// The settings of features are among those of every kind. A spec that is made by hand has
// none of them.
func TestSections(t *testing.T) {
	s, err := kinds.Spec("w0", "wall", patch(t, `{"glow": 3}`))
	if got := port.SectionOf[glow](&s); err != nil || got.Glow != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if got := port.SectionOf[glow](&port.Spec{}); got.Glow != 0 {
		t.Errorf("%+v of a spec without sections", got)
	}
	s, err = kinds.Merge(port.Spec{Name: "w0", Kind: "wall"}, patch(t, `{"glow": 4}`))
	if got := port.SectionOf[glow](&s); err != nil || got.Glow != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	all, err := kinds.Differences(s, patch(t, `{"glow": 5}`))
	if diff := cmp.Diff([]string{"--glow is 4, not 5"}, all); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	// With one that is wrong, none of the common settings is in force.
	if s, err := kinds.Read("w0", "wall", patch(t, `{"glow": 10, "isolated": true}`)); err == nil || s.Isolated || s.Kind != "wall" {
		t.Errorf("%+v, %v", s, err)
	}
}

// What another build's kind had is kept, so that nothing is lost.
func TestSpecOfAnUnknownKind(t *testing.T) {
	s, err := kinds.Spec("q0", "quantum", patch(t, `{"spin":"up","isolated":true}`))
	if err != nil || !s.Isolated {
		t.Fatalf("%+v, %v", s, err)
	}
	b, err := json.Marshal(s.Patch())
	if want := `{"isolated":true,"spin":"up"}`; err != nil || string(b) != want {
		t.Errorf("%s, %v, want %s", b, err, want)
	}
}

func TestMerge(t *testing.T) {
	former, err := kinds.Spec("l0", "lamp", patch(t, `{"shade": "red", "plug": 3, "access": 10, "accept": "all", "isolated": true}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ patch, want string }{
		{`{}`, `{"name":"l0","kind":"lamp","shade":"red","plug":3,"access":10,"accept":"all","isolated":true}`},
		{`{"shade": null, "plug": 3}`, `{"name":"l0","kind":"lamp","plug":3,"access":10,"accept":"all","isolated":true}`},
		{`{"access": 11}`, `{"name":"l0","kind":"lamp","shade":"red","plug":3,"access":11,"accept":"all","isolated":true}`},
		{`{"trunk": "10-11,20", "isolated": false}`, `{"name":"l0","kind":"lamp","shade":"red","plug":3,"trunk":"10-11,20"}`},
		{`{"qinq": 7, "accept": "all"}`, `{"name":"l0","kind":"lamp","shade":"red","plug":3,"qinq":7,"accept":"all","isolated":true}`},
		{`{"glow": 7, "isolated": false}`, `{"name":"l0","kind":"lamp","shade":"red","plug":3,"access":10,"accept":"all","glow":7}`},
		{`{"access": 0, "trunk": "", "qinq": null}`, `{"name":"l0","kind":"lamp","shade":"red","plug":3,"isolated":true}`},
	} {
		p := patch(t, c.patch)
		got, err := kinds.Merge(former, p)
		b, _ := json.Marshal(got)
		if err != nil || string(b) != c.want {
			t.Errorf("%s:\n got %s, %v\nwant %s", c.patch, b, err, c.want)
		}
		if diff := cmp.Diff(patch(t, c.patch), p); diff != "" {
			t.Errorf("%s is used up", c.patch)
		}
	}
	for text, want := range map[string]string{
		`{"plug": 4}`:                 "--plug is set when the port is added",
		`{"plug": null}`:              "--plug is set when the port is added",
		`{"access": 5, "trunk": "6"}`: "one of access, trunk and qinq",
		`{"shade": "pink"}`:           "no lamp is pink",
	} {
		if got, err := kinds.Merge(former, patch(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want %q", text, got, err, want)
		}
	}
}

func TestSettings(t *testing.T) {
	var got []string
	for _, s := range kinds.Settings()[:4] {
		got = append(got, s.Key+" of "+strings.Join(s.Kinds, ","))
	}
	if diff := cmp.Diff([]string{"shade of lamp", "mtu of lamp,door", "plug of lamp", "access of "}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// So it does whichever stands first.
	got = nil
	for _, s := range (port.Catalog{Kinds: port.Kinds{kinds.Kinds[1], kinds.Kinds[0]}}).Settings()[:4] {
		got = append(got, s.Key+" of "+strings.Join(s.Kinds, ","))
	}
	if diff := cmp.Diff([]string{"mtu of door,lamp", "shade of lamp", "plug of lamp", "access of "}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s := kinds.Settings()[1]; s.Min != 1 || s.Max != 9000 {
		t.Errorf("the range of several kinds is %d to %d", s.Min, s.Max)
	}
}

func TestKindsClash(t *testing.T) {
	if err := kinds.Check(); err != nil {
		t.Error(err)
	}
	type other struct {
		MTU string `json:"mtu" help:"another type"`
	}
	type flag struct {
		Color string `json:"color" flag:"shade" help:"the flag of another key"`
	}
	type reserved struct {
		Name string `json:"name" help:"taken"`
	}
	type policy struct {
		Access string `json:"access" help:"what every port has"`
	}
	for want, k := range map[string]kind{
		"two kinds are called lamp": {"lamp", lamp{}},
		"the setting mtu":           {"x", other{}},
		"the flag --shade":          {"x", flag{}},
		"is called name":            {"x", reserved{}},
		"the setting access":        {"x", policy{}},
	} {
		if err := (port.Catalog{Kinds: append(slices.Clone(kinds.Kinds), k), Sections: kinds.Sections}).Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", k, err, want)
		}
	}
}

// A VLAN mode takes the place of another only when it is set.
func TestTextTypes(t *testing.T) {
	var p port.Policy
	if err := json.Unmarshal([]byte(`{"trunk_tpid": "0x9100"}`), &p); err == nil {
		t.Errorf("%+v", p)
	}
	for _, flood := range []struct{ text, want string }{
		{"all", "[]"}, {"", "[]"}, {"none", `["broadcast","multicast","unicast"]`}, {"unicast,broadcast", `["multicast"]`},
		{"unknown", `["broadcast","multicast"]`}, {"broadcast,multicast,unicast", "[]"}, {"broadcast,multicast,unknown", `["none"]`},
	} {
		var n port.NoFlood
		err := n.ReadFlag(flood.text)
		if b, _ := json.Marshal(n); err != nil || string(b) != flood.want {
			t.Errorf("--flood %q: %s, %v", flood.text, b, err)
		}
	}
	for _, flood := range []struct {
		text string
		asks bool
	}{{"all", false}, {"none", false}, {"unknown", true}, {"unicast", true}, {"broadcast", false}, {"broadcast,multicast,unicast", false}, {"broadcast,multicast,unknown", true}} {
		var n port.NoFlood
		if err := n.ReadFlag(flood.text); err != nil || n.AsksUnknown() != flood.asks {
			t.Errorf("--flood %q asks for unknown stations: %v, %v", flood.text, n.AsksUnknown(), err)
		}
	}
	if err := new(port.NoFlood).ReadFlag("anycast"); err == nil {
		t.Error("a class that does not exist")
	}
}
