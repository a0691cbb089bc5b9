package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/internal/table"
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

// glow is a feature: one value and one line in features. It has settings of the switch and of
// ports, calls of the API, commands, and something to keep.
var glow = feature.Feature{
	Name: "glow", Help: "light lamps", Switch: glowSettings{}, Port: tint{},
	Items: &feature.Items{Zero: flashed{}, Help: "flashes of ports", Required: []string{"port"}, PortBound: true},
	On:    func(s any) bool { return s.(glowSettings).Glow > 0 },
	New: func(h feature.Host, s any) (feature.Instance, error) {
		h.Log().Info("it glows", "level", s.(glowSettings).Glow)
		return &glowing{Host: h, Flashes: make(map[string]int)}, nil
	},
	Routes: []feature.Route{{
		Method: "POST", Path: "/v1/glow/{port}", Help: "Flash a port", Request: flash{}, Answer: flash{}, Change: true,
		Handle: func(i feature.Instance, r *http.Request) (any, error) {
			f, err := feature.Body[flash](r)
			if err != nil {
				return nil, err
			}
			return i.(*glowing).flash(r.PathValue("port"), f)
		},
	}, {
		Method: "GET", Path: "/v1/glow", Help: "What it says", Type: "text/plain",
		Serve: func(_ feature.Instance, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "glow\nglow\n") },
	}},
	Commands: []feature.Command{{
		Name: "glow", Usage: "light lamps", Description: "Lights.\n\nExample:\n\n    vswitch glow watch",
	}, {
		Name: "glow flash", Usage: "flash a port", Args: []string{"PORT"}, Flags: flash{},
		Description: "Flashes.\n\nExample:\n\n    vswitch glow flash l0 --times 3",
		Check: func(c *feature.Call) error {
			if c.Flags.(flash).Times == 0 {
				return errors.New("--times is missing")
			}
			return nil
		},
		Run: func(c *feature.Call) error {
			var f flash
			if err := c.Client.Do(c.Context, "POST", "/v1/glow/"+c.Args[0], c.Flags, &f); err != nil {
				return err
			}
			return c.Show(f, func(w io.Writer) { table.Row(w, "FLASHED", f.Times) })
		},
	}, {
		Name: "glow watch", Usage: "read what it says",
		Description: "Reads.\n\nExample:\n\n    vswitch glow watch",
		Run: func(c *feature.Call) error {
			s, err := c.Client.Stream(c.Context, "GET", "/v1/glow", nil)
			if err != nil {
				return err
			}
			defer s.Close()
			_, err = io.Copy(c.Out, s)
			return err
		},
	}},
}

type glowSettings struct {
	Glow int `json:"glow,omitempty" arg:"N" min:"1" max:"9" help:"how bright lamps are"`
}

type tint struct {
	Tint shade `json:"tint,omitempty" arg:"COLOR" help:"color of what is behind the port"`
}

// Check implements port.Section.
func (t tint) Check(s *port.Spec) error {
	if t.Tint != "" && s.Isolated {
		return errors.New("an isolated port has no tint")
	}
	return nil
}

type flash struct {
	Times int `json:"times,omitempty" arg:"N" min:"1" max:"9" help:"how often"`
}

type glowing struct {
	feature.Host
	Flashes map[string]int
}

func (g *glowing) Stop() { g.Log().Info("it glows no more") }
func (g *glowing) Configured(p feature.Port) {
	g.Log().Info("it sees a port", "port", p.Name(), "tint", feature.PortSettings[tint](p).Tint)
}

// flashed is what it keeps of a port: a section of a configuration has a list of these.
type flashed struct {
	Port  string `json:"port" arg:"PORT" help:"port that flashed"`
	Times int    `json:"times,omitempty" arg:"N" help:"how often"`
}

func (f flashed) ID() string                { return "flashes of " + f.Port }
func (f flashed) Words() string             { return fmt.Sprint(f.Times) }
func (f flashed) Needs() ([]string, uint16) { return []string{f.Port}, 0 }
func (f flashed) Check() error {
	if f.Times == 13 {
		return errors.New("it does not flash 13 times")
	}
	return nil
}

// State implements feature.Kept.
func (g *glowing) State() (json.RawMessage, error) {
	if len(g.Flashes) == 0 {
		return nil, nil
	}
	var all []flashed
	for _, name := range slices.Sorted(maps.Keys(g.Flashes)) {
		all = append(all, flashed{name, g.Flashes[name]})
	}
	return json.Marshal(all)
}

// Restore implements feature.Kept.
func (g *glowing) Restore(b json.RawMessage) error {
	all, err := feature.ReadItems[flashed](b)
	clear(g.Flashes)
	for _, f := range all {
		g.Flashes[f.Port] = f.Times
	}
	return err
}

// flash flashes a port, and returns how often it has by now. After nine flashes at once that
// is forgotten.
func (g *glowing) flash(name string, f flash) (flash, error) {
	for p := range g.Ports() {
		if p.Name() == name {
			g.Flashes[name] += f.Times
			total := flash{g.Flashes[name]}
			if f.Times == 9 {
				delete(g.Flashes, name)
			}
			return total, nil
		}
	}
	return flash{}, api.Errorf(api.CodeNotFound, "there is no port %s", name)
}

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

// The API's description has the settings of a kind and of a feature that are added, and the
// calls of the feature.
func TestSettingsInOpenAPI(t *testing.T) {
	ks := daemon.Catalog(append(kindList(), lampKind{}), append(features[:len(features):len(features)], glow))
	want := map[string]string{
		"shade": `{type: string, enum: ["", "white", "amber"], description: "lamp: color of the lamp; default: white"}`,
		"dim":   `{type: boolean, description: "lamp: half of its light"}`,
		"tint":  `{type: string, enum: ["", "white", "amber"], description: "color of what is behind the port"}`,
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
	types := make(goTypes)
	text := routes([]feature.Feature{glow}, types)
	for _, want := range []string{
		"  /v1/glow/{port}:\n    post:\n      summary: \"Flash a port\"\n      operationId: postGlowPort\n",
		"        - {name: port, in: path, required: true, schema: {type: string}}\n",
		`      requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/GlowFlash"}}}}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the routes lack %s:\n%s", want, text)
		}
	}
	if got, want := types.schemas(), "    GlowFlash:\n      type: object\n      properties:\n        times: {type: integer, description: \"how often\"}\n"; got != want {
		t.Errorf("the types are\n%s, want\n%s", got, want)
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
		spec, err := portCatalog().Spec(name, kind, rest)
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
