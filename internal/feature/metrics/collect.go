package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// The counters of traffic. The daemon and the features report all others, see
// feature.Collected.
var (
	frames = feature.Metric{Name: "vswitch_port_frames_total", Labels: []string{"port", "direction"},
		Help: "Frames that a port received, or sent."}
	bytes = feature.Metric{Name: "vswitch_port_bytes_total", Labels: []string{"port", "direction"},
		Help: "Bytes of those frames, with VLAN tags and without FCS."}
	copies = feature.Metric{Name: "vswitch_port_copies_total", Labels: []string{"port"},
		Help: "Copies of received frames made by flooding, mirrors and segmentation."}
	fast = feature.Metric{Name: "vswitch_port_fastpath_frames_total", Labels: []string{"port"},
		Help: "Received frames that the kernel handled without the daemon."}
	portDrops = feature.Metric{Name: "vswitch_port_dropped_frames_total", Labels: []string{"port", "direction", "reason"},
		Help: "Frames that were not delivered, at the port that lost them; only reasons that occurred."}
	drops = feature.Metric{Name: "vswitch_dropped_frames_total", Labels: []string{"direction", "reason"},
		Help: "Frames that were not delivered, at all ports, removed ones too."}
	allFast = feature.Metric{Name: "vswitch_fastpath_frames_total",
		Help: "Frames that the kernel handled without the daemon, of all ports, removed ones too."}
)

// direction names a side of a port in labels.
var direction = map[port.Direction]string{port.OnInput: "receive", port.OnOutput: "transmit"}

// collector reads the numbers of the switch at each scrape.
type collector struct {
	host feature.Host

	mu    sync.Mutex // one scrape at a time
	descs map[*feature.Metric]*prometheus.Desc
	shown totals // as last reported: counters never go back
}

// totals count at all ports.
type totals struct {
	drops [port.NumDrops]uint64 // each reason belongs to one direction
	fast  uint64
}

func newCollector(h feature.Host) *collector {
	return &collector{host: h, descs: make(map[*feature.Metric]*prometheus.Desc)}
}

func (t *totals) add(s vswitch.PortStats) {
	for why := range t.drops {
		t.drops[why] += s.RX.Dropped[why] + s.TX.Dropped[why]
	}
	t.fast += s.Fast
}

// atLeast raises each total to that of another.
func (t *totals) atLeast(o *totals) {
	for why := range t.drops {
		t.drops[why] = max(t.drops[why], o.drops[why])
	}
	t.fast = max(t.fast, o.fast)
}

// Describe implements prometheus.Collector. Features decide what there is, so nothing is
// known beforehand.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. It has the daemon's turn only to list what there
// is: the counters of ports come from the kernel, too, and are read afterwards.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	add := func(m *feature.Metric, value float64, labels ...string) {
		kind := prometheus.GaugeValue
		if m.Counter() {
			kind = prometheus.CounterValue
		}
		one, err := prometheus.NewConstMetric(c.desc(m), kind, value, labels...)
		if err != nil {
			one = prometheus.NewInvalidMetric(c.desc(m), err) // the page lacks it, the log says why
		}
		ch <- one
	}

	type series struct {
		metric *feature.Metric
		value  float64
		labels []string
	}
	var listed []series
	var ports []*vswitch.Port
	var all totals
	if !c.host.Do(func() {
		c.host.Collect(func(m *feature.Metric, value float64, labels ...string) {
			listed = append(listed, series{m, value, labels})
		})
		for p := range c.host.Ports() {
			ports = append(ports, p.Core())
		}
		all.add(c.host.Switch().Departed())
	}) {
		return
	}
	for _, s := range listed {
		add(s.metric, s.value, s.labels...)
	}
	c.host.Distributions(func(m *feature.Metric, d feature.Distribution, labels ...string) {
		one, err := prometheus.NewConstHistogram(c.desc(m), d.Count, d.Sum, d.AtMost, labels...)
		if err != nil {
			one = prometheus.NewInvalidMetric(c.desc(m), err)
		}
		ch <- one
	})
	for _, p := range ports {
		s := p.Stats()
		all.add(s)
		addPort(add, p.Name(), s)
	}
	// A port that is being removed is in neither list for a moment.
	all.atLeast(&c.shown)
	c.shown = all
	for why := port.DropNone + 1; why < port.NumDrops; why++ {
		i := why.Info()
		add(&drops, float64(all.drops[why]), direction[i.Direction], i.Name)
	}
	add(&allFast, float64(all.fast))
}

// addPort reports the counters of one port.
func addPort(add feature.Add, name string, s vswitch.PortStats) {
	for _, d := range []struct {
		on port.Direction
		*vswitch.Counters
	}{{port.OnInput, &s.RX}, {port.OnOutput, &s.TX}} {
		way := direction[d.on]
		add(&frames, float64(d.Frames), name, way)
		add(&bytes, float64(d.Bytes), name, way)
		for why, n := range d.Dropped {
			if n > 0 {
				add(&portDrops, float64(n), name, way, port.Drop(why).String())
			}
		}
	}
	add(&copies, float64(s.RX.Copies), name)
	add(&fast, float64(s.Fast), name)
}

// desc returns the library's form of a metric's description.
func (c *collector) desc(m *feature.Metric) *prometheus.Desc {
	d := c.descs[m]
	if d == nil {
		d = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
		c.descs[m] = d
	}
	return d
}
