package daemon

import (
	"strconv"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
)

// The numbers that the daemon itself reports.
var (
	buildInfo = feature.Metric{Name: "vswitch_build_info", Labels: []string{"version", "revision"},
		Help: "1, with the version of the daemon and its commit."}
	startTime = feature.Metric{Name: "vswitch_start_time_seconds",
		Help: "When the daemon started, in seconds since 1970."}
	portState = feature.Metric{Name: "vswitch_port_state", Labels: []string{"port", "state"},
		Help: "1 for the state that a port is in, 0 for the others."}
	portDisabled = feature.Metric{Name: "vswitch_port_error_disabled", Labels: []string{"port"},
		Help: "1 while a guard has the port error-disabled."}
	portInfo = feature.Metric{Name: "vswitch_port_info", Labels: []string{"port", "kind", "ifname", "vlan_mode", "access_vlan"},
		Help: "1, with what a port is."}
	portStations = feature.Metric{Name: "vswitch_port_fdb_entries", Labels: []string{"port"},
		Help: "Stations that are learned behind a port."}
	portQueues = feature.Metric{Name: "vswitch_port_queues", Labels: []string{"port"},
		Help: "Queues of a port's device; 0 while nothing is attached."}
	portMTU = feature.Metric{Name: "vswitch_port_mtu_bytes", Labels: []string{"port"},
		Help: "MTU of a port's interface; 0 if the switch sees none."}
	fdbEntries = feature.Metric{Name: "vswitch_fdb_entries",
		Help: "Entries of the forwarding database."}
	fdbCapacity = feature.Metric{Name: "vswitch_fdb_capacity",
		Help: "Most entries that the forwarding database can have."}
	fdbEvictions = feature.Metric{Name: "vswitch_fdb_evictions_total",
		Help: "Entries that were evicted for a new station."}
	fastPathOn = feature.Metric{Name: "vswitch_fastpath_enabled",
		Help: "1 if the kernel forwards known traffic, 0 if all passes the daemon."}
	fastBacklog = feature.Metric{Name: "vswitch_fastpath_station_backlog",
		Help: "Stations that wait to be written to the kernel."}
	configGeneration = feature.Metric{Name: "vswitch_config_generation",
		Help: "How often the desired state was changed since the daemon started."}
	confirmUntil = feature.Metric{Name: "vswitch_config_confirm_deadline_seconds",
		Help: "When a configuration takes itself back that nobody confirms, in seconds since 1970; 0 if none waits."}
	batchFrames = feature.Metric{Name: "vswitch_batch_frames",
		Help: "Frames that a worker received at once."}
	apiDuration = feature.Metric{Name: "vswitch_api_request_duration_seconds", Labels: []string{"call"},
		Help: "How long calls of the API took, without those that go on until the client ends them."}
	saveDuration = feature.Metric{Name: "vswitch_state_save_duration_seconds",
		Help: "How long the disk took to keep the state."}
)

// collect reports the numbers of the daemon and of its features.
func (m *manager) collect(add feature.Add) {
	add(&buildInfo, 1, m.version, m.revision)
	add(&startTime, float64(m.start.UnixMilli())/1000)
	for _, p := range m.sorted() {
		m.collectPort(p, add)
	}
	table := m.sw.FDB()
	stats := table.Stats()
	add(&fdbEntries, float64(table.Len()))
	add(&fdbCapacity, float64(stats.Capacity))
	add(&fdbEvictions, float64(stats.Evictions))
	add(&fastPathOn, oneIf(m.fast != nil))
	backlog := 0
	if m.fast != nil {
		backlog = m.fast.Backlog()
	}
	add(&fastBacklog, float64(backlog))
	add(&configGeneration, float64(m.generation.Load()))
	until := 0.0
	if m.pending != nil {
		until = float64(m.pending.Until.UnixMilli()) / 1000
	}
	add(&confirmUntil, until)
	for f := range instances[feature.Collected](m) {
		f.Collect(add)
	}
}

// distributions implements feature.Host.Distributions.
func (m *manager) distributions(add feature.AddDistribution) {
	sizes := m.sw.BatchSizes()
	batches := feature.Distribution{AtMost: make(map[float64]uint64), Sum: float64(sizes.Frames)}
	for i, n := range sizes.Batches {
		batches.Count += n
		batches.AtMost[float64(int(1)<<i)] = batches.Count
	}
	add(&batchFrames, batches)
	for call, d := range m.durations.all() {
		add(&apiDuration, d.distribution(), call)
	}
	add(&saveDuration, m.saves.distribution())
}

func (m *manager) collectPort(p *managed, add feature.Add) {
	name := p.spec.Name
	for _, s := range api.States {
		add(&portState, oneIf(p.state == s), name, string(s))
	}
	add(&portDisabled, oneIf(p.shutBy != ""), name)
	v := vlanOf(&p.spec.Policy)
	access := ""
	if v.Access != 0 {
		access = strconv.Itoa(int(v.Access))
	}
	add(&portInfo, 1, name, p.spec.Kind, p.ifname(), v.Mode, access)
	add(&portStations, float64(m.sw.FDB().Count(p.sw.Number())), name)
	queues := 0
	if p.dev != nil {
		queues = len(p.dev.Queues())
	}
	add(&portQueues, float64(queues), name)
	add(&portMTU, float64(p.link.MTU), name)
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
