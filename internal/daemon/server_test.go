package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// serve runs a daemon on a fake host until the test ends or stop is called.
func serve(t *testing.T, host *fakeHost, dir string) (cl *api.Client, stop func() error) {
	t.Helper()
	o := Options{
		Name: "lab", Version: "v1", Socket: filepath.Join(dir, "s"), StateDir: filepath.Join(dir, "state"),
		Overrides: setting.Patch{"aging": json.RawMessage(`"60s"`)}, Kinds: port.Kinds{host}, Links: host, Log: slog.New(slog.DiscardHandler),
		Features: testFeatures,
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	cl = api.NewClient(o.Socket)
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cl.Close()
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := cl.Switch(t.Context())
		if err == nil {
			return cl, stop
		}
		if !errors.Is(err, api.ErrNoDaemon) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestAPI(t *testing.T) {
	ctx, dir, host := t.Context(), t.TempDir(), newFakeHost()
	cl, stop := serve(t, host, dir)

	if ports, err := cl.Ports(ctx); err != nil || ports == nil || len(ports) != 0 {
		t.Errorf("ports of a new switch: %#v, %v", ports, err)
	}
	if entries, err := cl.FDB(ctx); err != nil || entries == nil || len(entries) != 0 {
		t.Errorf("FDB of a new switch: %#v, %v", entries, err)
	}
	p, err := cl.AddPort(ctx, wanted(port.Spec{Name: "vm0", Kind: "fake", Settings: fakeSettings{MTU: 1400}}))
	if err != nil {
		t.Fatal(err)
	}
	none := api.Counters{Dropped: map[string]uint64{}}
	want := api.Port{
		Name: "vm0", Kind: "fake", State: api.StateNoCarrier, Reason: "the other end of vm0 is down or not there", Ifname: "vm0", MTU: 1500,
		Station: true, VLAN: api.VLAN{Mode: "transparent", Native: 1, Trunk: []uint16{}, Accept: "all"}, RX: none, TX: none,
		FastPath: api.PortFastPath{Off: []string{"the switch has none: "}},
		Spec:     api.Spec{RawMessage: json.RawMessage(`{"name":"vm0","kind":"fake","mtu":1400}`)},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("port (-want +got):\n%s", diff)
	}
	_, err = cl.AddPort(ctx, wanted(port.Spec{Name: "vm0", Kind: "fake"}))
	wantCode(t, err, api.CodeExists, "vm0")
	_, err = cl.Port(ctx, "vm9")
	wantCode(t, err, api.CodeNotFound, "vm9")
	wantCode(t, cl.DelPort(ctx, "a/../b?c"), api.CodeNotFound, "a/../b?c")
	if p, err = cl.SetPort(ctx, "vm0", api.Settings{"mtu": 9000, "access": 7}); err != nil || p.Spec.Settings()["mtu"] != 9000.0 {
		t.Errorf("set-port: %+v, %v", p.Spec, err)
	}
	const mac = port.MAC(0x525400000001)
	e, err := cl.AddFDB(ctx, api.AddFDB{MAC: mac, VLAN: 7, Port: "vm0"})
	if diff := cmp.Diff(api.FDBEntry{MAC: mac, VLAN: 7, Port: "vm0", Type: "static"}, e); err != nil || diff != "" {
		t.Errorf("FDB entry (-want +got):\n%s, %v", diff, err)
	}
	if n, err := cl.FlushFDB(ctx, api.FlushFDB{}); n != 0 || err != nil {
		t.Errorf("flushed %d, %v", n, err)
	}

	before, err := cl.Switch(ctx)
	if err != nil || before.MAC == 0 {
		t.Errorf("the switch: %+v, %v", before, err)
	}

	// Another daemon takes up where this one stopped.
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Ports(ctx); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
	cl, _ = serve(t, host, dir)
	if p, err = cl.Port(ctx, "vm0"); err != nil || p.Spec.Settings()["mtu"] != 9000.0 || p.State != api.StateNoCarrier {
		t.Errorf("after a restart: %+v, %v", p, err)
	}
	entries, err := cl.FDB(ctx)
	if diff := cmp.Diff([]api.FDBEntry{e}, entries); err != nil || diff != "" {
		t.Errorf("FDB after a restart (-want +got):\n%s, %v", diff, err)
	}
	wantCode(t, cl.DelFDB(ctx, mac, 0), api.CodeNotFound, "VLAN 1")
	if err := cl.DelFDB(ctx, mac, 7); err != nil {
		t.Error(err)
	}
	sw, err := cl.Switch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sw.UptimeS = 0
	wantSwitch := api.Switch{
		Name: "lab", PID: os.Getpid(), Version: "v1", StateDir: filepath.Join(dir, "state"),
		Ports: map[api.State]int{"up": 0, "no-carrier": 1, "waiting": 0, "down": 0},
		FDB:   api.FDBInfo{Capacity: 65536, AgingS: 60}, RX: none, TX: none, RecoveryS: 300,
		Settings: api.Spec{RawMessage: json.RawMessage(`{"aging":"1m0s"}`)},
		Sandbox:  []string{},
		MAC:      before.MAC,
	}
	if diff := cmp.Diff(wantSwitch, sw); diff != "" {
		t.Errorf("switch (-want +got):\n%s", diff)
	}
	host.attended = "a machine holds it"
	wantCode(t, cl.DelPort(ctx, "vm0"), api.CodeInUse, "a machine holds it")
	if err := cl.ForceDelPort(ctx, "vm0"); err != nil {
		t.Error(err)
	}
	if ports, err := cl.Ports(ctx); err != nil || len(ports) != 0 {
		t.Errorf("after del-port: %v, %v", ports, err)
	}
}

// Settings and VLANs as a Go program sees them.
func TestAPIOfPolicies(t *testing.T) {
	ctx := t.Context()
	cl, _ := serve(t, newFakeHost(), t.TempDir())
	for _, name := range []string{"vm0", "vm1"} {
		if _, err := cl.AddPort(ctx, wanted(port.Spec{Name: name, Kind: "fake", Policy: port.Policy{VLAN: port.VLAN{Access: 10}}})); err != nil {
			t.Fatal(err)
		}
	}
	want := api.Settings{
		"name": "vm1", "kind": "fake", "trunk": "10,20", "native": 1.0, "no_flood": []any{"unicast"},
		"storm_broadcast": "100pps", "rate_out": "1mbit", "stp_cost": 7.0, "stp_priority": 16.0,
	}
	p, err := cl.SetPort(ctx, "vm1", api.Settings{
		"trunk": "10,20", "native": 1, "no_flood": []string{"unicast"},
		"storm_broadcast": port.Rate{PerSecond: 100}, "rate_out": "1mbit", "stp_cost": 7, "stp_priority": 16, "access": 0,
	})
	if diff := cmp.Diff(want, p.Spec.Settings()); err != nil || diff != "" {
		t.Errorf("settings (-want +got):\n%s, %v", diff, err)
	}
	p, err = cl.SetPort(ctx, "vm1", api.Settings{"no_flood": []string{}, "storm_broadcast": "off", "rate_out": nil})
	for _, key := range []string{"no_flood", "storm_broadcast", "rate_out"} {
		if v, ok := p.Spec.Settings()[key]; err != nil || ok {
			t.Errorf("%s, taken back: %v, %v", key, v, err)
		}
	}
	vlans, err := cl.VLANs(ctx)
	wantVLANs := []api.VLANMembers{
		{VLAN: 1, Untagged: []string{"vm1"}, Tagged: []string{}},
		{VLAN: 10, Untagged: []string{"vm0"}, Tagged: []string{"vm1"}},
		{VLAN: 20, Untagged: []string{}, Tagged: []string{"vm1"}},
	}
	if diff := cmp.Diff(wantVLANs, vlans); err != nil || diff != "" {
		t.Errorf("VLANs (-want +got):\n%s, %v", diff, err)
	}
}

// What does not come from the Go client gets an answer of one line too.
func TestAPIRefuses(t *testing.T) {
	dir := t.TempDir()
	serve(t, newFakeHost(), dir)
	hc := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "s"))
	}}}
	defer hc.CloseIdleConnections()
	for _, test := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/", "", 404, "not_found"},
		{"GET", "/v2/ports", "", 404, "not_found"},
		{"PUT", "/v1/ports", "{}", 405, "method"},
		{"POST", "/v1/ports/vm0", "{}", 405, "method"},
		{"GET", "/v1/upgrade", "", 405, "method"},
		{"PATCH", "/v1/fdb", "{}", 405, "method"},
		{"OPTIONS", "/v1/openapi.yaml", "", 405, "method"},
		{"GET", "/v1/ports?name=vm0", "", 400, "invalid"},
		{"GET", "/v1/openapi.yaml?v=2", "", 400, "invalid"},
		{"PATCH", "/v1/switch?dry_run=true", "{}", 400, "invalid"},
		{"POST", "/v1/config?dry_run=true", "{}", 400, "invalid"},
		{"POST", "/v1/fdb/flush?port=vm0", "{}", 400, "invalid"},
		{"POST", "/v1/upgrade?x", "", 400, "invalid"},
		{"DELETE", "/v1/ports/vm9?Force=true", "", 400, "invalid"},
		{"DELETE", "/v1/ports/vm9?force=true&force=false", "", 400, "invalid"},
		{"DELETE", "/v1/ports/vm9?force=true;x=1", "", 400, "invalid"},
		{"DELETE", "/v1/ports/vm9?force=%zz", "", 400, "invalid"},
		{"DELETE", "/v1/fdb/52:54:00:00:00:01?vlan=7&vlan=8", "", 400, "invalid"},
		{"DELETE", "/v1/fdb/52:54:00:00:00:01?vlna=7", "", 400, "invalid"},
		{"POST", "/v1/ports", "", 400, "invalid"},
		{"POST", "/v1/ports", "{", 400, "invalid"},
		{"POST", "/v1/ports", `{"name":"vm0","kind":"fake"}{}`, 400, "invalid"},
		{"POST", "/v1/ports", `{"name":"vm0","kind":"fake","mtuu":1}`, 400, "invalid"},
		{"POST", "/v1/ports", `{"name":"vm0","kind":"fake","mtu":"big"}`, 400, "invalid"},
		{"POST", "/v1/ports", `{"name":"vm0","kind":"fake","isolated":true,"isolated":false}`, 400, "invalid"},
		{"POST", "/v1/ports", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 400, "invalid"},
		{"POST", "/v1/ports", `[]`, 400, "invalid"},
		{"PATCH", "/v1/switch", "{", 400, "invalid"},
		{"POST", "/v1/config", "{", 400, "invalid"},
		{"POST", "/v1/config/rollback", `{"to":"x"}`, 400, "invalid"},
		{"POST", "/v1/config/rollback", `{"to":9}`, 404, "not_found"},
		{"POST", "/v1/config/confirm", "", 404, "not_found"},
		{"DELETE", "/v1/ports/vm9?force=maybe", "", 400, "invalid"},
		{"DELETE", "/v1/ports/vm9?force=true", "", 404, "not_found"},
		{"POST", "/v1/fdb", `{"mac":"zz","port":"vm0"}`, 400, "invalid"},
		{"DELETE", "/v1/fdb/zz", "", 400, "invalid"},
		{"DELETE", "/v1/fdb/52:54:00:00:00:01?vlan=x", "", 400, "invalid"},
		{"POST", "/v1/fdb/flush", `{"vlan":5000}`, 400, "invalid"},
		{"POST", "/v1/fdb/flush", `{"port":"vm9"}`, 404, "not_found"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, "http://x"+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		a, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(a.Body)
		a.Body.Close()
		var e api.Error
		if err != nil || json.Unmarshal(body, &e) != nil {
			t.Fatalf("%s %s: %q, %v", test.method, test.path, body, err)
		}
		if allow := a.Header.Get("Allow"); (allow != "") != (test.status == 405) || strings.Contains(allow, test.method) {
			t.Errorf("%s %s: allowed are %q", test.method, test.path, allow)
		}
		if a.StatusCode != test.status || e.Code != test.code || e.Message == "" || strings.Contains(e.Message, "\n") {
			t.Errorf("%s %s %.40s: %d %+v, want %d %s", test.method, test.path, test.body, a.StatusCode, e, test.status, test.code)
		}
	}
	a, err := hc.Get("http://x/v1/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if b, err := io.ReadAll(a.Body); err != nil || !bytes.Equal(b, api.OpenAPI) {
		t.Errorf("openapi.yaml: %v", err)
	}
}

// A client that has opened a connection and says nothing must not hold up a stop.
func TestStopDoesNotWaitForClients(t *testing.T) {
	dir := t.TempDir()
	_, stop := serve(t, newFakeHost(), dir)
	c, err := net.Dial("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /v1/sw"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("stopped after %v", d)
	}
}

// Many users at once: each call is done whole, and the result is that of some order.
func TestConcurrentUsers(t *testing.T) {
	host := newFakeHost()
	cl, _ := serve(t, host, t.TempDir())
	var users sync.WaitGroup
	for i := range 8 {
		users.Go(func() {
			own, shared := fmt.Sprint("own", i), "shared"
			for range 10 {
				if _, err := cl.AddPort(t.Context(), wanted(spec(own))); err != nil {
					t.Error(err)
				}
				_, err := cl.AddPort(t.Context(), wanted(spec(shared)))
				if e := new(api.Error); err != nil && !(errors.As(err, &e) && e.Code == api.CodeExists) {
					t.Error(err)
				}
				if _, err := cl.Ports(t.Context()); err != nil {
					t.Error(err)
				}
				if err := cl.DelPort(t.Context(), own); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
	ports, err := cl.Ports(t.Context())
	if err != nil || len(ports) != 1 || ports[0].Name != "shared" {
		t.Errorf("left: %+v, %v", ports, err)
	}
}

// A request may have 64 KiB, and a configuration 16 MiB. A longer one is refused, with the limit.
func TestRequestLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		for path, limit := range map[string]int{"/v1/ports": 64 << 10, "/v1/fdb": 64 << 10, "/v1/config": 16 << 20} {
			for n := limit; n <= limit+1; n++ {
				err := r.call("POST", path, json.RawMessage(`{"x":"`+strings.Repeat("x", n-8)+`"}`), nil)
				if refused := err != nil && strings.Contains(err.Error(), fmt.Sprintf("send at most %d bytes", limit)); refused != (n > limit) {
					t.Errorf("%s with %d bytes: %v", path, n, err)
				}
			}
		}
	})
}
