package guard_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
)

// metrics returns what the switch reports to Prometheus, by its control socket.
func (l *lab) metrics() string {
	l.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.sw.Socket())
	}}}
	a, err := client.Get("http://switch/metrics")
	if err != nil {
		l.Fatal(err)
	}
	defer a.Body.Close()
	page, err := io.ReadAll(a.Body)
	if err != nil {
		l.Fatal(err)
	}
	return string(page)
}

// What a VM asks for and does not get, and what it gets and loses, is counted.
func TestCounters(t *testing.T) {
	t.Parallel()
	l := newLab(t, kindOf("tap"))
	l.sw.Ctl(t, "set --guard-protect fd98::1")
	l.set("A", "--guard-learn slaac,dhcp --guard-limit 1")
	l.set("V", "--guard-address fd98::11")
	l.pass("the router", "T", Eth(allNodes, macT, tIPv6, routerAdvert(localT, "fd98::")), "A", "V", "B")
	l.drop("protected", "guard_nd", "A", solicitation("fd98::1"))
	l.drop("V's", "guard_nd", "A", solicitation("fd98::11"))
	l.drop("in no prefix", "guard_nd", "A", solicitation("fd97::10"))
	l.pass("detection", "A", solicitation("fd98::10"), everybody...)
	l.drop("one too many", "guard_nd", "A", solicitation("fd98::12"))
	l.pass("an ACK for nothing", "T", reply(macT, "10.99.0.1", ack(t, 77, "10.99.0.10", 60e9)), "A", "V", "B")
	l.sw.Ctl(t, "guard flush vm0")

	type counters struct {
		Port, Mode                                                                string
		Bound, Tentative, Learned, Expired, Displaced, Ended, Defended, Unmatched int
		Refused                                                                   struct{ Limit, Conflict, Protected, Prefix int }
	}
	want := counters{Port: "vm0", Mode: "on", Bound: 1, Learned: 1, Ended: 1, Unmatched: 1} // bound: the one that the MAC makes
	want.Refused = struct{ Limit, Conflict, Protected, Prefix int }{1, 1, 1, 1}
	var got, all []counters
	for args, into := range map[string]*[]counters{"guard show vm0 -o json": &got, "guard show -o json": &all} {
		if err := json.Unmarshal([]byte(l.sw.Ctl(t, "%s", args)), into); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 1 || got[0] != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if len(all) != 2 || all[0] != want || all[1].Port != "vm1" || all[1].Bound != 2 {
		t.Errorf("all ports: %+v", all)
	}
	if out := l.sw.Ctl(t, "guard show"); len(strings.Split(out, "\n")) != 3 || !strings.Contains(out, "UNMATCHED") {
		t.Errorf("guard show:\n%s", out)
	}
	l.refuse("is not guarded", "guard show vm2")
	l.refuse("there is no port", "guard show vm9")
	page := l.metrics()
	for _, line := range []string{
		`vswitch_guard_bindings{source="static",state="bound"} 1`, `vswitch_guard_bindings{source="slaac",state="tentative"} 0`,
		`vswitch_guard_learned_total 1`, `vswitch_guard_ended_total{reason="expired"} 0`, `vswitch_guard_ended_total{reason="other"} 1`,
		`vswitch_guard_refused_total{reason="limit"} 1`, `vswitch_guard_refused_total{reason="conflict"} 1`,
		`vswitch_guard_refused_total{reason="protected"} 1`, `vswitch_guard_refused_total{reason="prefix"} 1`,
		`vswitch_guard_unmatched_replies_total 1`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	eventually(t, "the server is reported", func() bool {
		out := l.sw.Ctl(t, "events --type guard.server -o json")
		return strings.Contains(out, `"10.99.0.1"`) && strings.Contains(out, `"vm2"`)
	})
}
