//go:build interop

package interop

import (
	"bufio"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature/lldp"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// serveWeb runs `vswitch web` until the test ends, and returns the address that it prints.
func serveWeb(t *testing.T, d *daemontest.Daemon) string {
	t.Helper()
	cmd := d.Command("web")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "http://127.0.0.1:") {
		t.Fatalf("vswitch web prints %q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

// rows returns what the rows of a table show, cell by cell.
func (b *browser) rows(table string) (all [][]string) {
	b.t.Helper()
	b.eval(&all, fmt.Sprintf(`[...document.querySelectorAll("#%s tbody tr")].map(r => [...r.cells].map(c => c.innerText.trim()))`, table))
	return all
}

// column returns some columns of a table's rows, joined.
func column(rows [][]string, columns ...int) (all []string) {
	for _, r := range rows {
		var parts []string
		for _, c := range columns {
			if c < len(r) {
				parts = append(parts, strings.ReplaceAll(r[c], "\n", " "))
			}
		}
		all = append(all, strings.Join(parts, " | "))
	}
	return all
}

// TestWeb compares what the page shows in Chromium with what the API says.
//
//	h0, h1 ── switch ══ up0, up1 ══ other ── h0
//	vm0, vm1 ──┘
func TestWeb(t *testing.T) {
	b := startBrowser(t)
	here, there := testenv.NewNetns(t), testenv.NewNetns(t)
	for _, n := range []string{"0", "1"} {
		ip(t, here, "link add up"+n+" type veth peer name up"+n+" netns "+there.Name+"\nlink set up"+n+" up\n")
		ip(t, there, "link set up"+n+" up\n")
	}
	d, other := daemontest.Start(t, here), daemontest.Start(t, there)
	for _, s := range []*daemontest.Daemon{d, other} {
		s.Ctl(t, "set --stp --lldp")
		s.Ctl(t, "add-port up0 --kind netdev")
		s.Ctl(t, "add-port up1 --kind netdev")
		s.Ctl(t, "add-port h0 --kind host")
	}
	d.Ctl(t, "set --lldp-name here --stp-priority 8192")
	other.Ctl(t, "set --lldp-name there --stp-priority 4096")
	d.Ctl(t, "add-port h1 --kind host --access 30")
	d.Ctl(t, "add-port vm0 --access 10")
	d.Ctl(t, "add-port vm1 --trunk 10,20-29 --native 5")
	here.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "h0")
	there.Run("ip", "addr", "add", "192.0.2.2/24", "dev", "h0")
	here.Run("ip", "addr", "add", "198.51.100.1/24", "dev", "h1")
	here.Run("ip", "neigh", "add", "198.51.100.2", "lladdr", "02:00:00:00:00:99", "dev", "h1")

	b.look(1600, 900, false)
	b.open(serveWeb(t, d))
	testenv.Eventually(t, "the page shows the ports", func() bool { return b.holds(`document.querySelectorAll("#ports-table tbody tr").length == 6`) })
	if b.holds(`location.href.includes("token")`) {
		t.Error("the token stays in the address bar")
	}
	testenv.Eventually(t, "the hosts reach each other", func() bool {
		return here.Command("ping", "-c", "1", "-W", "1", "192.0.2.2").Run() == nil
	})
	load := here.Command("ping", "-q", "-i", "0.002", "-s", "1000", "192.0.2.2")
	lost := here.Command("ping", "-q", "-i", "0.02", "198.51.100.2") // nobody else is in its VLAN
	for _, c := range []interface {
		Start() error
		Wait() error
	}{load, lost} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_ = load.Process.Kill()
		_ = lost.Process.Kill()
		_, _ = load.Wait(), lost.Wait()
	})

	ctx := t.Context()
	same := func(what string, get func() (shown, said []string)) {
		t.Helper()
		var shown, said []string
		defer func() {
			if t.Failed() {
				t.Logf("%s: the page shows %q, the API says %q", what, shown, said)
			}
		}()
		testenv.Eventually(t, "the page and the API agree about "+what, func() bool {
			shown, said = get()
			slices.Sort(shown)
			slices.Sort(said)
			return slices.Equal(shown, said)
		})
	}
	signs := map[api.State]string{api.StateUp: "●", api.StateNoCarrier: "○", api.StateWaiting: "◔", api.StateDown: "✕"}
	vlans := map[string]string{"up0": "-", "up1": "-", "h0": "-", "h1": "30", "vm0": "10", "vm1": "trunk 10,20-29 native 5"}
	same("ports", func() (shown, said []string) {
		ports, err := d.Client.Ports(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ports {
			state := signs[p.State] + " " + string(p.State)
			if p.Reason != "" {
				state += " " + p.Reason
			}
			said = append(said, strings.Join([]string{p.Name, p.Kind, state, vlans[p.Name]}, " | "))
		}
		return column(b.rows("ports-table"), 0, 1, 2, 3), said
	})
	same("stations", func() (shown, said []string) {
		fdb, err := d.Client.FDB(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range fdb {
			name := e.Port
			if name == "" {
				name = "-"
			}
			said = append(said, fmt.Sprintf("%v | %d | %s | %s", e.MAC, e.VLAN, name, e.Type))
		}
		return column(b.rows("stations-table"), 0, 1, 2, 3), said
	})
	same("VLANs", func() (shown, said []string) {
		return column(b.rows("vlans-table"), 0, 1, 2), []string{
			"1 | h0, up0, up1 | -", "5 | vm1 | -", "10 | vm0 | vm1", "20-29 | - | vm1", "30 | h1 | -",
		}
	})
	same("the tree and neighbours", func() (shown, said []string) {
		tree, err := d.Client.STP(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var heard []lldp.Port
		if err := d.Client.Do(ctx, "GET", "/v1/lldp", nil, &heard); err != nil {
			t.Fatal(err)
		}
		far := make(map[string]string)
		for _, p := range heard {
			for _, n := range p.Neighbors {
				far[p.Name] = n.SystemName + " | " + n.Port
			}
		}
		for _, p := range tree.Ports {
			if strings.HasPrefix(p.Port, "up") {
				said = append(said, fmt.Sprintf("%s | %s, %s | %d | %s", p.Port, p.Role, p.State, p.Cost, far[p.Port]))
			}
		}
		if len(far) < 2 { // they hear each other after a while
			return nil, said
		}
		return column(b.rows("links-table"), 0, 1, 2, 3, 4), said
	})
	if tree := strings.Join(column(b.rows("links-table"), 1), ", "); !strings.Contains(tree, "root, forwarding") || !strings.Contains(tree, "alternate, discarding") {
		t.Errorf("one of the two links is not blocked: %s", tree)
	}
	reasons, err := d.Client.Drops(ctx)
	if err != nil {
		t.Fatal(err)
	}
	same("drops", func() (shown, said []string) {
		ports, err := d.Client.Ports(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ports {
			for _, way := range []api.Counters{p.RX, p.TX} {
				for _, why := range slices.Sorted(maps.Keys(way.Dropped)) {
					i := slices.IndexFunc(reasons, func(r api.DropReason) bool { return r.Name == why })
					said = append(said, p.Name+" | "+strings.ReplaceAll(reasons[i].Words, "DEV", p.Name))
				}
			}
		}
		return column(b.rows("drops-table"), 0, 1), said
	})
	d.Ctl(t, "set-port vm0 --description changed")
	testenv.Eventually(t, "the page shows events", func() bool {
		return slices.ContainsFunc(b.rows("events-table"), func(r []string) bool {
			return r[1] == "vm0" && strings.HasPrefix(r[2], "port.changed") && strings.Contains(r[2], "description")
		})
	})
	testenv.Eventually(t, "the page shows rates", func() bool {
		for _, r := range b.rows("ports-table") {
			if r[0] == "h0" && (r[4] == "0" || r[5] == "0") || r[0] == "h1" && r[8] == "0" {
				return false
			}
		}
		return true
	})
	if svg := ""; true {
		b.eval(&svg, `document.querySelector("#drawing svg").textContent`)
		for _, want := range []string{"there", "up0", "up1", "vm0", "VLAN 10", "alternate, discarding"} {
			if !strings.Contains(svg, want) {
				t.Errorf("the drawing lacks %q: %s", want, svg)
			}
		}
	}
	b.pictures("few")

	// By keyboard: sort, choose a port, and go back.
	b.look(1600, 900, false)
	b.eval(nil, `document.querySelector('th[data-sort=drops] button').focus()`)
	b.press("Enter")
	testenv.Eventually(t, "the ports are sorted by drops", func() bool {
		return b.holds(`document.querySelector('th[data-sort=drops]').ariaSort == "descending"`) && b.rows("ports-table")[0][0] == "h1"
	})
	b.eval(nil, `document.querySelector('#ports-filter').focus()`)
	for range 20 {
		if b.holds(`document.activeElement.closest("#ports-table tbody")`) {
			break
		}
		b.press("Tab")
	}
	var name string
	b.eval(&name, `document.activeElement.textContent`)
	b.press("Enter")
	if !b.holds(fmt.Sprintf(`document.activeElement.textContent == "Port %s" && !document.querySelector("#detail").hidden`, name)) {
		t.Errorf("Enter on port %q does not show it", name)
	}
	testenv.Eventually(t, "the port's settings are shown", func() bool {
		return b.holds(`document.querySelector("#detail-facts").innerText.includes("access 30")`)
	})
	b.picture("detail")
	b.press("Escape")
	if !b.holds(fmt.Sprintf(`document.activeElement.textContent == %q && document.querySelector("#detail").hidden`, name)) {
		t.Error("Escape does not go back to the port")
	}

	// Nothing but the page and its calls was asked for, and nothing failed.
	var foreign []string
	b.eval(&foreign, `performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith(location.origin + "/"))`)
	if len(foreign) > 0 {
		t.Errorf("the page loads %q", foreign)
	}
	if c := b.complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %q", c)
	}

	// The page says that the daemon is gone, and goes on with the next.
	d.Kill()
	testenv.Eventually(t, "the page says that nobody answers", func() bool { return b.holds(`document.body.classList.contains("stale")`) })
	d.Restart(t)
	testenv.Eventually(t, "the page goes on", func() bool { return b.holds(`document.querySelector("#status").textContent == "Live"`) })
	testenv.Eventually(t, "events go on", func() bool {
		return slices.ContainsFunc(b.rows("events-table"), func(r []string) bool { return strings.HasPrefix(r[2], "daemon.started") })
	})
}

// TestWebManyPorts shows 300 ports.
func TestWebManyPorts(t *testing.T) {
	b := startBrowser(t)
	d := daemontest.Start(t, testenv.NewNetns(t))
	const n = 300
	for i := range n {
		if _, err := d.Client.AddPort(t.Context(), api.AddPort{Name: fmt.Sprintf("vm%d", i), Kind: "dgram", Settings: api.Settings{"access": 10 + i/30}}); err != nil {
			t.Fatal(err)
		}
	}
	d.Ctl(t, "add-port h0 --kind host")
	b.look(1600, 900, false)
	b.open(serveWeb(t, d))
	testenv.Eventually(t, "the page shows all ports", func() bool { return len(b.rows("ports-table")) == n+1 })
	testenv.Eventually(t, "it draws them by VLAN", func() bool {
		return b.holds(`document.querySelector("#drawing svg").textContent.includes("VLAN 19")`)
	})
	b.pictures("many")
	b.eval(nil, `document.querySelector("#ports-filter").value = "vm29"; document.querySelector("#ports-filter").dispatchEvent(new Event("input"))`)
	if rows := b.rows("ports-table"); len(rows) != 11 || rows[0][0] != "vm29" || rows[1][0] != "vm290" {
		t.Errorf("of 300 ports, vm29 selects %q", column(rows, 0))
	}
	if c := b.complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %q", c)
	}
}

// pictures takes pictures in the forms that users have, in which nothing is wider than the
// window.
func (b *browser) pictures(name string) {
	b.t.Helper()
	for _, w := range []int{1600, 1024, 400} {
		for _, dark := range []bool{false, true} {
			b.look(w, 900, dark)
			var wide int
			b.eval(&wide, `new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(document.documentElement.scrollWidth))))`)
			if wide > w {
				b.t.Errorf("%s: the page is %d wide in a window of %d", name, wide, w)
			}
			b.picture(fmt.Sprintf("%s-%d-%v", name, w, map[bool]string{false: "light", true: "dark"}[dark]))
		}
	}
}
