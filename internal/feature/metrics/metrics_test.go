package metrics

import (
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/httpd"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// daemon is one whose features report what the test says.
type daemon struct {
	*featuretest.Host
	report func(feature.Add)
	spread func(feature.AddDistribution)
	gone   string // a port that was removed
}

func (d *daemon) Ports() iter.Seq[feature.Port] {
	return func(yield func(feature.Port) bool) {
		for p := range d.Host.Ports() {
			if p.Name() != d.gone && !yield(p) {
				return
			}
		}
	}
}

func (d *daemon) Collect(add feature.Add) {
	if d.report != nil {
		d.report(add)
	}
}

func (d *daemon) Distributions(add feature.AddDistribution) {
	if d.spread != nil {
		d.spread(add)
	}
}

// scrape returns the families of a page by name.
func scrape(t testing.TB, page http.Handler) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	page.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// series returns the values of a family by the values of its labels.
func series(f *dto.MetricFamily) map[string]float64 {
	all := make(map[string]float64)
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetValue())
		}
		all[strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return all
}

// pair is a host with two ports, between which frames flow.
func pair(t testing.TB) (*daemon, [2]*memory.Port) {
	t.Helper()
	d := &daemon{Host: featuretest.New(t)}
	var ends [2]*memory.Port
	for i := range ends {
		p := d.Add(t, port.Spec{Name: fmt.Sprintf("vm%d", i)}, true)
		ends[i] = memory.New(memory.Options{})
		if err := p.Core().Attach(ends[i]); err != nil {
			t.Fatal(err)
		}
		p.Core().SetForwarding(true)
	}
	return d, ends
}

// A port's drops appear with the reasons that occurred, the switch's with all from 0, and
// those of removed ports stay.
func TestDrops(t *testing.T) {
	d, ends := pair(t)
	s := start(d, httpd.Address{})
	defer s.Stop()
	families := scrape(t, s.page)
	if f := families["vswitch_port_dropped_frames_total"]; f != nil {
		t.Errorf("drops of ports before any: %v", f)
	}
	all := series(families["vswitch_dropped_frames_total"])
	if len(all) != int(port.NumDrops)-1 {
		t.Errorf("%d reasons, want %d: %v", len(all), port.NumDrops-1, all)
	}
	for why, n := range all {
		if n != 0 {
			t.Errorf("%s is %v before any", why, n)
		}
	}

	broadcast := append(port.Broadcast.HardwareAddr(), 2, 0, 0, 0, 0, 9)
	ends[0].Put(0, memory.Packet{Wire: []byte("runt")}, memory.Packet{Wire: append(broadcast, make([]byte, 48)...)})
	if _, err := ends[1].Take(0, nil); err != nil { // it came after the runt
		t.Fatal(err)
	}
	check := func(when string, ports, runts float64) {
		t.Helper()
		testenv.Eventually(t, when, func() bool { // a batch is counted at its end
			families = scrape(t, s.page)
			return series(families["vswitch_dropped_frames_total"])["receive runt"] == runts &&
				series(families["vswitch_port_dropped_frames_total"])["receive vm0 runt"] == ports
		})
	}
	check("the runt is counted", 1, 1)
	testenv.Eventually(t, "the port's frames are counted", func() bool {
		families = scrape(t, s.page)
		frames, bytes := series(families["vswitch_port_frames_total"]), series(families["vswitch_port_bytes_total"])
		return frames["receive vm0"] == 2 && bytes["receive vm0"] == 64 && frames["transmit vm1"] == 1 && bytes["transmit vm1"] == 60
	})
	if err := d.Switch().RemovePort("vm0"); err != nil {
		t.Fatal(err)
	}
	d.gone = "vm0"
	check("the runt of a removed port is counted", 0, 1)
}

func TestFamilies(t *testing.T) {
	d, _ := pair(t)
	up := feature.Metric{Name: "vswitch_test_up", Help: "Whether it is up.", Labels: []string{"port"}}
	d.report = func(add feature.Add) { add(&up, 1, "vm0") }
	s := start(d, httpd.Address{})
	defer s.Stop()
	families := scrape(t, s.page)
	for name, kind := range map[string]dto.MetricType{
		"vswitch_port_frames_total":          dto.MetricType_COUNTER,
		"vswitch_port_bytes_total":           dto.MetricType_COUNTER,
		"vswitch_port_copies_total":          dto.MetricType_COUNTER,
		"vswitch_port_fastpath_frames_total": dto.MetricType_COUNTER,
		"vswitch_dropped_frames_total":       dto.MetricType_COUNTER,
		"vswitch_fastpath_frames_total":      dto.MetricType_COUNTER,
		"vswitch_test_up":                    dto.MetricType_GAUGE,
		"go_goroutines":                      dto.MetricType_GAUGE,
		"process_open_fds":                   dto.MetricType_GAUGE,
	} {
		if f := families[name]; f == nil || f.GetType() != kind || f.GetHelp() == "" {
			t.Errorf("%s is %v, want a %v", name, f, kind)
		}
	}
	if got := series(families["vswitch_test_up"]); got["vm0"] != 1 {
		t.Errorf("the feature's number is %v", got)
	}
}

// A distribution is a histogram, with its bounds, its sum and its label.
func TestDistribution(t *testing.T) {
	d, _ := pair(t)
	took := feature.Metric{Name: "vswitch_took_seconds", Help: "How long it took.", Labels: []string{"call"}}
	d.spread = func(add feature.AddDistribution) {
		add(&took, feature.Distribution{AtMost: map[float64]uint64{1: 2, 10: 3}, Count: 4, Sum: 50}, "GET /")
		add(&took, feature.Distribution{}) // without its label: left out
	}
	s := start(d, httpd.Address{})
	defer s.Stop()
	f := scrape(t, s.page)["vswitch_took_seconds"]
	if f.GetType() != dto.MetricType_HISTOGRAM || len(f.GetMetric()) != 1 {
		t.Fatalf("it is %v", f)
	}
	h := f.GetMetric()[0].GetHistogram()
	at := make(map[float64]uint64)
	for _, b := range h.GetBucket() {
		at[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	if h.GetSampleCount() != 4 || h.GetSampleSum() != 50 || at[1] != 2 || at[10] != 3 || f.GetMetric()[0].GetLabel()[0].GetValue() != "GET /" {
		t.Errorf("it is %v", f)
	}
}

// One feature that reports nonsense hides no other number.
func TestBadSeries(t *testing.T) {
	d, _ := pair(t)
	twice := feature.Metric{Name: "vswitch_twice", Help: "Reported twice."}
	labelled := feature.Metric{Name: "vswitch_labelled", Help: "Reported without its label.", Labels: []string{"port"}}
	d.report = func(add feature.Add) { add(&twice, 1); add(&twice, 2); add(&labelled, 1) }
	s := start(d, httpd.Address{})
	defer s.Stop()
	if families := scrape(t, s.page); families["vswitch_port_frames_total"] == nil {
		t.Error("the other numbers are missing")
	}
}

// Totals never go back, whatever the lists of a moment say.
func TestTotalsOnlyGrow(t *testing.T) {
	d, _ := pair(t)
	s := start(d, httpd.Address{})
	defer s.Stop()
	s.shown.drops[port.DropRunt] = 7
	s.shown.fast = 9
	families := scrape(t, s.page)
	if got := series(families["vswitch_dropped_frames_total"])["receive runt"]; got != 7 {
		t.Errorf("drops went back from 7 to %v", got)
	}
	if got := series(families["vswitch_fastpath_frames_total"])[""]; got != 9 {
		t.Errorf("frames of the fast path went back from 9 to %v", got)
	}
}

// By TCP there are the metrics, and nothing else of the API.
func TestListen(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := httpd.Address{AddrPort: netip.MustParseAddrPort(free.Addr().String())}
	d, _ := pair(t)
	s := start(d, httpd.Address{})
	defer s.Stop()
	if err := s.Set(Settings{Address: at}); err == nil {
		t.Fatal("it serves at an address that another has")
	}
	free.Close()
	if err := s.Set(Settings{Address: at}); err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	for path, want := range map[string]int{"/metrics": http.StatusOK, "/v1/ports": http.StatusNotFound, "/": http.StatusNotFound} {
		a, err := client.Get("http://" + at.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, a.Status, want)
		}
	}
	if a, err := client.Post("http://"+at.String()+"/metrics", "text/plain", nil); err != nil || a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", a, err)
	}
}

// BenchmarkScrape is a scrape of a switch with 1,000 ports, each of which has dropped for
// three reasons.
func BenchmarkScrape(b *testing.B) {
	d := &daemon{Host: featuretest.New(b)}
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("vm%d", i)
		d.Add(b, port.Spec{Name: names[i]}, true)
	}
	var gauges [7]feature.Metric
	for i := range gauges {
		gauges[i] = feature.Metric{Name: fmt.Sprintf("vswitch_gauge%d", i), Help: "A number of each port.", Labels: []string{"port"}}
	}
	d.report = func(add feature.Add) {
		for _, name := range names {
			for i := range gauges {
				add(&gauges[i], 1, name)
			}
			for _, why := range []string{"runt", "isolated", "no_destination"} {
				add(&portDrops, 1, name, "receive", why)
			}
		}
	}
	s := start(d, httpd.Address{})
	defer s.Stop()
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		s.page.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		b.SetBytes(int64(w.Body.Len()))
	}
}
