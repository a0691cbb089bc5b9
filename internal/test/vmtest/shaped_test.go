package vmtest_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// TestFastShapedFairly has two flows share the rate of a port on a kernel with fq_codel, which a test machine's may
// lack: a datagram in a while passes a TCP connection that fills the queue, and TCP gets the rate.
//
//	a: eth0 ── p1              ┐
//	b: eth0 ── p2 (--rate-out) ┴ switch
func TestFastShapedFairly(t *testing.T) {
	t.Parallel()
	g, vswitch := longTerm(t, "shape", "ip")
	ip := testenv.Tool(t, "ip")
	g.Run(t, "%s run --ephemeral --fastpath require --sandbox off >/tmp/log 2>&1 &", vswitch)
	testenv.Eventually(t, "the daemon answers", func() bool { _, err := g.TryRun("%s health", vswitch); return err == nil })
	for i, ns := range []string{"a", "b"} {
		g.Run(t, "%[1]s netns add %[2]s && %[1]s link add p%[3]d type veth peer name eth0 netns %[2]s && %[1]s link set p%[3]d up", ip, ns, i+1)
		g.Run(t, "%[1]s -n %[2]s link set lo up && %[1]s -n %[2]s addr add 10.0.0.%[3]d/24 dev eth0 && %[1]s -n %[2]s link set eth0 up", ip, ns, i+1)
		g.Run(t, "%s add-port p%d --kind netdev --exclusive", vswitch, i+1)
	}
	read := func() (p api.Port) {
		t.Helper()
		if err := json.Unmarshal([]byte(g.Run(t, "%s ports p2 -o json", vswitch)), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	g.Run(t, "%s netns exec b iperf3 -s -D", ip)
	const rate = 20_000_000
	g.Run(t, "%s set-port p2 --rate-out 20mbit", vswitch)
	if f := read().FastPath; !f.On || !strings.Contains(f.By, "fq_codel") || strings.Contains(f.By, "lacks") {
		t.Errorf("%s: the fast path is %+v", g.Run(t, "uname -r"), f)
	}
	g.Run(t, "%s netns exec a iperf3 -c 10.0.0.2 -t 12 -J >/tmp/iperf3 &", ip)
	g.Run(t, "sleep 2")
	before := read()
	pinged := g.Run(t, "%s netns exec a ping -c 30 -i 0.2 -W 5 10.0.0.2", ip)
	if !strings.Contains(pinged, " 0% packet loss") {
		t.Errorf("beside TCP: %s", pinged)
	}
	after := read()
	g.Run(t, "wait; true")
	var result struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	out := g.Run(t, "while pidof iperf3 | grep -q ' '; do sleep 1; done; cat /tmp/iperf3")
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.End.Received.Rate < 0.5*rate || result.End.Received.Rate > 1.02*rate {
		t.Errorf("TCP gets %.0f bit/s of %d: %v", result.End.Received.Rate, rate, err)
	}
	if n := after.FastPath.Frames - before.FastPath.Frames; n == 0 {
		t.Error("no frame takes the fast path")
	}
	t.Logf("%s; dropped as shaped: %d", pinged[strings.LastIndex(pinged, "round-trip"):], after.TX.Dropped[port.DropShaped.String()])
}
