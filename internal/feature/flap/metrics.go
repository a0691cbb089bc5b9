package flap

import "github.com/vswitch/vswitch/internal/feature"

var (
	moves = feature.Metric{Name: "vswitch_fdb_moves_total",
		Help: "Stations that were learned behind another port than before."}
	flaps = feature.Metric{Name: "vswitch_fdb_flaps_total",
		Help: "Times that a station moved too often between ports."}
	held = feature.Metric{Name: "vswitch_fdb_held_stations",
		Help: "Stations that are held at a port for flapping."}
)

// Collect implements feature.Collected.
func (g *guard) Collect(add feature.Add) {
	add(&moves, float64(g.moves.Load()))
	add(&flaps, float64(g.flaps.Load()))
	add(&held, float64(len(g.held)))
}
