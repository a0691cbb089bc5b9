package sflow

import "github.com/vswitch/vswitch/internal/feature"

var (
	samples = feature.Metric{Name: "vswitch_sflow_samples_total",
		Help: "Samples of frames that were sent to collectors.", Labels: []string{"port"}}
	lostSamples = feature.Metric{Name: "vswitch_sflow_lost_samples_total",
		Help: "Samples of frames for which there was no room.", Labels: []string{"port"}}
	datagrams = feature.Metric{Name: "vswitch_sflow_datagrams_total",
		Help: "Datagrams that were sent to collectors, all together."}
	failed = feature.Metric{Name: "vswitch_sflow_send_errors_total",
		Help: "Datagrams that could not be sent to a collector."}
)

// Collect implements feature.Collected.
func (a *agent) Collect(add feature.Add) {
	st := a.status()
	for _, p := range st.Ports {
		add(&samples, float64(p.Samples), p.Name)
		add(&lostSamples, float64(p.Lost), p.Name)
	}
	var sent, not uint64
	for _, c := range st.Collectors {
		sent, not = sent+c.Datagrams, not+c.Errors
	}
	add(&datagrams, float64(sent))
	add(&failed, float64(not))
}
