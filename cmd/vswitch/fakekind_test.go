package main

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// A kind of port is one type and one line in kindMakers, and its settings are the fields
// of one struct. Here is one that only a script has that asks for it: testdata/script/kind.txtar
// finds it in the help, the completion, the API and the state.
func init() {
	if os.Getenv("VSWITCH_TEST_KIND") != "" {
		kindMakers = append(kindMakers, func(kindOptions) (port.Kind, error) { return lampKind{}, nil })
		features = append(features, glow)
	}
}

// glow is a feature: one value and one line in features.
var glow = feature.Feature{
	Name: "glow", Help: "lights lamps", Switch: glowSettings{},
	On: func(s any) bool { return s.(glowSettings).Glow > 0 },
	New: func(h feature.Host, s any) (feature.Instance, error) {
		h.Log().Info("it glows", "level", s.(glowSettings).Glow)
		return glowing{h}, nil
	},
}

type glowSettings struct {
	Glow int `json:"glow,omitempty" arg:"N" min:"1" max:"9" help:"how bright lamps are"`
}

type glowing struct{ feature.Host }

func (g glowing) Stop()                     { g.Log().Info("it glows no more") }
func (g glowing) Configured(p feature.Port) { g.Log().Info("it sees a port", "port", p.Name()) }

type lampSettings struct {
	Shade shade `json:"shade,omitempty" arg:"COLOR" default:"white" help:"color of the lamp"`
	Dim   bool  `json:"dim,omitempty" help:"half of its light"`
	Plug  int   `json:"plug,omitempty" arg:"N" min:"1" max:"9" fixed:"true" help:"which plug it has"`
}

type shade string

func (shade) Values() []string { return []string{"white", "amber"} }

type lampKind struct{}

func (lampKind) Name() string { return "lamp" }
func (lampKind) Describe() port.Description {
	return port.Description{Help: "a lamp, which carries no frame.", Settings: lampSettings{}, Station: true}
}
func (lampKind) Check(s port.Spec) error {
	if o := port.SettingsOf[lampSettings](s); o.Dim && o.Shade == "amber" {
		return errors.New("an amber lamp does not dim")
	}
	return nil
}
func (lampKind) Open(port.Spec, *port.Trace) (port.Port, error) {
	return memory.New(memory.Options{}), nil
}
func (lampKind) Set(port.Port, port.Spec, port.Spec) error { return nil }
func (lampKind) Delete(port.Spec, port.Trace) error        { return nil }

// The API's description has the settings of a kind that is added.
func TestSettingsInOpenAPI(t *testing.T) {
	ks := append(kindList(), lampKind{})
	want := map[string]string{
		"shade": `{type: string, enum: ["", "white", "amber"], description: "lamp: color of the lamp; default: white"}`,
		"dim":   `{type: boolean, description: "lamp: half of its light"}`,
		"plug":  `{type: integer, minimum: 0, maximum: 9, description: "lamp: which plug it has; fixed when it is made"}`,
	}
	for _, s := range ks.Settings() {
		if text, ok := want[s.Key]; ok {
			if got := schemaOf(s); got != text {
				t.Errorf("%s: %s, want %s", s.Key, got, text)
			}
			delete(want, s.Key)
		}
	}
	for key := range want {
		t.Errorf("%s is missing", key)
	}
}

// testdata/state-1.json was written by the version before settings had a description of
// their own, with every setting that there was. It is read without a loss.
func TestStateOfTheFirstVersion(t *testing.T) {
	b, err := os.ReadFile("testdata/state-1.json")
	if err != nil {
		t.Fatal(err)
	}
	var state struct {
		Ports []struct{ Spec setting.Patch }
	}
	if err := json.Unmarshal(b, &state); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, p := range state.Ports {
		var name, kind string
		rest := setting.Patch{}
		rest.Add(p.Spec)
		if err := errors.Join(rest.Take("name", &name), rest.Take("kind", &kind)); err != nil {
			t.Fatal(err)
		}
		spec, err := kindList().Spec(name, kind, rest)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		before, _ := json.Marshal(p.Spec)
		if err := errors.Join(json.Unmarshal(again, &got), json.Unmarshal(before, &want)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-file +read):\n%s", name, diff)
		}
		for key := range rest {
			seen[key] = true
		}
	}
	for _, key := range []string{
		"owner", "group", "queues", "mtu", "address", "exclusive", "path", "client", "poll",
		"access", "trunk", "qinq", "native", "trunk_tpid", "accept", "isolated", "locked", "no_learning", "no_flood",
		"learn_limit", "learn_action", "storm_broadcast", "storm_multicast", "storm_unicast", "storm_action", "rate_in", "rate_out",
		"stp_edge", "bpdu_guard", "root_guard", "bpdu_filter", "stp_cost", "stp_priority", "mcast_fast_leave", "mcast_router", "mcast_limit",
	} {
		if !seen[key] {
			t.Errorf("the file lacks %s", key)
		}
	}
}
