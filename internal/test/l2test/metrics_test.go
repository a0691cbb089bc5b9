package l2test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// scrape reads the daemon's metrics by TCP as Prometheus does, in the daemon's namespace.
func (d *daemon) scrape(address string) (page []byte, families map[string]*dto.MetricFamily) {
	d.t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (c net.Conn, err error) {
			d.Netns.Do(func() { c, err = net.Dial("tcp", address) })
			return c, err
		},
	}}
	a, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer a.Body.Close()
	page, err = io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		d.t.Fatalf("%s, %v: %s", a.Status, err, page)
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	if families, err = p.TextToMetricFamilies(bytes.NewReader(page)); err != nil {
		d.t.Fatal(err)
	}
	return page, families
}

// value returns the value of the series with these labels, in the order of their names; 0 if
// there is none.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	for _, m := range families[name].GetMetric() {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetValue())
		}
		if strings.Join(got, " ") == strings.Join(labels, " ") {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

// TestMetrics scrapes a switch with traffic.
//
//	h1 ─ p1 [ switch, 127.0.0.1:9190 ] p2 ─ h2
func TestMetrics(t *testing.T) {
	t.Parallel()
	const address = "127.0.0.1:9190"
	l := newLAN(t, 2, "--metrics", address, "--stp", "--snooping", "--sflow-collector", "127.0.0.1", "--evpn-as", "65001")
	l.ns.Run("ip", "link", "set", "lo", "up")
	h1, h2 := l.hosts[0], l.hosts[1]
	for _, h := range l.hosts {
		l.sw.ctl("set-port %s --stp-edge on", h.port)
	}
	testenv.Eventually(t, "frames pass", func() bool {
		wire, _ := h1.toAll().wire()
		if err := h1.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		return l.sw.port("p2").TX.Frames > 0
	})
	l.sw.ctl("set-port p1 --access 20")
	wire, _ := h1.to(h2, customer(30)).wire() // in a VLAN that the port lacks
	if err := h1.Send(wire, port.Offload{}); err != nil {
		t.Fatal(err)
	}
	var page []byte
	var families map[string]*dto.MetricFamily
	testenv.Eventually(t, "the dropped frame is counted", func() bool {
		page, families = l.sw.scrape(address)
		return value(families, "vswitch_dropped_frames_total", "receive", "vlan_tagged") > 0 ||
			value(families, "vswitch_dropped_frames_total", "receive", "vlan_filtered") > 0
	})
	p := l.sw.port("p1")
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"vswitch_port_state", []string{"p1", "up"}, 1},
		{"vswitch_port_state", []string{"p1", "down"}, 0},
		{"vswitch_port_info", []string{"20", "p1", "netdev", "p1", "access"}, 1},
		{"vswitch_port_mtu_bytes", []string{"p1"}, float64(p.MTU)},
		{"vswitch_port_frames_total", []string{"receive", "p1"}, float64(p.RX.Frames)},
		{"vswitch_port_bytes_total", []string{"receive", "p1"}, float64(p.RX.Bytes)},
	} {
		if got := value(families, c.name, c.labels...); got != c.want {
			t.Errorf("%s %q is %v, want %v", c.name, c.labels, got, c.want)
		}
	}
	if addresses := regexp.MustCompile(`="[^"]*([0-9a-f]{2}:){5}[0-9a-f]{2}`).FindAll(page, -1); addresses != nil {
		t.Errorf("labels have addresses: %q", addresses)
	}

	for name, atLeast := range map[string]uint64{"vswitch_batch_frames": 1, "vswitch_state_save_duration_seconds": 2, "vswitch_api_request_duration_seconds": 1} {
		n := uint64(0)
		for _, m := range families[name].GetMetric() {
			n += m.GetHistogram().GetSampleCount()
		}
		if n < atLeast {
			t.Errorf("%s has %d values, want %d or more", name, n, atLeast)
		}
	}
	if n := value(families, "vswitch_config_generation"); n < 3 { // the ports, and what was set
		t.Errorf("the configuration has generation %v", n)
	}

	// The dashboard, the alerts and the document name no metric that there is not.
	for _, file := range []string{"packaging/grafana/vswitch.json", "packaging/prometheus/alerts.yml", "docs/operations.md"} {
		text, err := os.ReadFile("../../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile(`\bvswitch_[a-z_]+`).FindAllString(string(text), -1)
		if len(named) < 8 {
			t.Errorf("%s names %d metrics", file, len(named))
		}
		for _, name := range named {
			if families[name] == nil {
				t.Errorf("%s names %s, which a scrape does not have", file, name)
			}
		}
	}
	// The document names all of them.
	text, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range families {
		if strings.HasPrefix(name, "vswitch_") && !strings.Contains(string(text), name) {
			t.Errorf("docs/operations.md lacks %s", name)
		}
	}

	t.Run("promtool", func(t *testing.T) {
		promtool, err := exec.LookPath("promtool")
		if err != nil && os.Getenv("CI") != "" {
			t.Fatal(err)
		} else if err != nil {
			t.Skip("left out: needs promtool, of Debian's package prometheus")
		}
		check := exec.Command(promtool, "check", "metrics")
		check.Stdin = bytes.NewReader(page)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("promtool check metrics: %v: %s", err, out)
		}
		if out, err := exec.Command(promtool, "test", "rules", "../../../packaging/prometheus/alerts_test.yml").CombinedOutput(); err != nil {
			t.Errorf("promtool test rules: %v: %s", err, out)
		}
	})

	// A setting takes the address back, and the control socket serves on.
	l.sw.ctl("set --metrics=")
	l.ns.Do(func() {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Error("the address is still served")
		}
	})
	if out := l.sw.ctl("health"); out != "ready" {
		t.Errorf("vswitch health says %q", out)
	}
}

// TestEvents follows a switch through the command line, and its end.
func TestEvents(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 1)
	for _, want := range []string{"daemon.started", "port.added  p1", "port.state  p1"} {
		if out := l.sw.ctl("events"); !strings.Contains(out, want) {
			t.Errorf("the events lack %q:\n%s", want, out)
		}
	}
	var events bytes.Buffer
	follow := l.sw.Command("events", "--follow", "--since", "0", "--type", "port", "--type", "daemon.stopping")
	follow.Stdout = &events
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	l.sw.ctl("set-port p1 --isolated=on")
	ip(t, l.ns, "link set p1 down\n")
	testenv.Eventually(t, "the port is down", func() bool { return l.sw.port("p1").State == "down" })
	l.sw.ctl("del-port p1")
	l.sw.Stop(t)
	if err := follow.Wait(); err == nil || follow.ProcessState.ExitCode() != 3 {
		t.Errorf("the command ends with %v, want status 3: there is no daemon any more", err)
	}
	at := 0
	for _, want := range []string{"port.added  p1", "port.state  p1", "port.changed  p1  isolated", "up → down: interface p1 is set down", "port.removed  p1", "daemon.stopping"} {
		i := strings.Index(events.String()[at:], want)
		if i < 0 {
			t.Fatalf("after byte %d there is no %q in\n%s", at, want, &events)
		}
		at += i
	}
}
