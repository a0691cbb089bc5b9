package guard

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/vswitch/vswitch/internal/feature"
	proto "github.com/vswitch/vswitch/internal/proto/guard"
)

// Counters are what happened to the addresses of a guarded port since it is guarded.
type Counters struct {
	Port      string  `json:"port"`
	Mode      Mode    `json:"mode"`
	Bound     int     `json:"bound"`     // addresses that the port has now
	Tentative int     `json:"tentative"` // those that somebody may still object to
	Learned   uint64  `json:"learned"`
	Expired   uint64  `json:"expired"`
	Displaced uint64  `json:"displaced"` // by another address of the port
	Ended     uint64  `json:"ended"`     // released, refused by the server, deleted
	Refused   Refused `json:"refused"`
	Defended  uint64  `json:"defended"`  // somebody objected in time
	Unmatched uint64  `json:"unmatched"` // answers of DHCP servers that the VM did not ask for
}

// Refused counts addresses that a port did not get.
type Refused struct {
	Limit     uint64 `json:"limit"`
	Conflict  uint64 `json:"conflict"`
	Protected uint64 `json:"protected"`
	Prefix    uint64 `json:"prefix"` // it is in none in which stations form addresses
}

// which names a port.
type which struct {
	Port string `json:"port,omitempty" arg:"PORT" help:"this port alone"`
}

func (g *guard) counters(r *http.Request) (any, error) {
	q, err := feature.Query[which](r)
	if err == nil && q.Port != "" {
		_, err = g.find(q.Port)
	}
	if err != nil {
		return nil, err
	}
	all := []Counters{}
	at := make(map[string]int)
	for n, x := range g.ports {
		name := x.port.Name()
		if q.Port != "" && q.Port != name {
			continue
		}
		c := g.table.Counts(n)
		all = append(all, Counters{
			Port: name, Mode: feature.PortSettings[Settings](x.port).Guard,
			Learned: c[proto.Learned], Expired: c[proto.Expired], Displaced: c[proto.Displaced], Ended: c[proto.Ended],
			Refused:  Refused{Limit: c[proto.NoRoom], Conflict: c[proto.Disputed], Protected: c[proto.Protected], Prefix: c[proto.Outside]},
			Defended: c[proto.Defended], Unmatched: c[proto.Unmatched],
		})
	}
	slices.SortFunc(all, func(a, b Counters) int { return cmp.Compare(a.Port, b.Port) })
	for i := range all {
		at[all[i].Port] = i
	}
	for _, b := range g.table.Bindings() {
		switch i, is := at[b.Port]; {
		case !is:
		case b.Bound:
			all[i].Bound++
		default:
			all[i].Tentative++
		}
	}
	return all, nil
}

// Metrics of addresses. No label has one, which a guest can make up.
var (
	bindingCount = feature.Metric{Name: "vswitch_guard_bindings", Labels: []string{"source", "state"},
		Help: "Addresses that guarded ports may use."}
	learned = feature.Metric{Name: "vswitch_guard_learned_total",
		Help: "Addresses that guarded ports learned."}
	gone = feature.Metric{Name: "vswitch_guard_ended_total", Labels: []string{"reason"},
		Help: "Learned addresses that guarded ports lost."}
	refused = feature.Metric{Name: "vswitch_guard_refused_total", Labels: []string{"reason"},
		Help: "Addresses that guarded ports did not get."}
	unmatched = feature.Metric{Name: "vswitch_guard_unmatched_replies_total",
		Help: "Answers of DHCP servers to guarded ports that had not asked."}
)

// Collect implements feature.Collected.
func (g *guard) Collect(add feature.Add) {
	type series struct {
		source proto.Source
		bound  bool
	}
	counts := make(map[series]int)
	for _, b := range g.table.Bindings() {
		counts[series{b.Source, b.Bound}]++
	}
	for _, source := range proto.Sources { // those of which there are none, too: alerts start from zero
		add(&bindingCount, float64(counts[series{source, true}]), string(source), stateOf(true))
		add(&bindingCount, float64(counts[series{source, false}]), string(source), stateOf(false))
	}
	c := g.table.Total()
	add(&learned, float64(c[proto.Learned]))
	for reason, n := range map[string]uint64{"expired": c[proto.Expired], "displaced": c[proto.Displaced], "defended": c[proto.Defended], "other": c[proto.Ended]} {
		add(&gone, float64(n), reason)
	}
	for reason, n := range map[string]uint64{"limit": c[proto.NoRoom], "conflict": c[proto.Disputed], "protected": c[proto.Protected], "prefix": c[proto.Outside]} {
		add(&refused, float64(n), reason)
	}
	add(&unmatched, float64(c[proto.Unmatched]))
}

// stateOf says in a word whether an address counts already.
func stateOf(bound bool) string {
	if bound {
		return "bound"
	}
	return "tentative"
}
