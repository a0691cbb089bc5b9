package vmtest_test

import (
	"encoding/json"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// TestGeneve sends TCP in bulk through GENEVE tunnels between containers at netdev ports, which move super-frames. It
// runs in a guest, since a test machine's kernel may have no GENEVE. Where super-frames are lost, TCP goes on with a few
// small frames a second, and does not end in time.
//
//	a: eth0 ── p1 ┐
//	b: eth0 ── p2 ┴ switch
func TestGeneve(t *testing.T) {
	t.Parallel()
	g, vswitch := longTerm(t, "geneve", "ip")
	ip := testenv.Tool(t, "ip")
	for i, ns := range []string{"a", "b"} {
		g.Run(t, "%[1]s netns add %[2]s && %[1]s link add p%[3]d type veth peer name eth0 netns %[2]s && %[1]s link set p%[3]d up", ip, ns, i+1)
		g.Run(t, "%[1]s -n %[2]s link set lo up && %[1]s -n %[2]s addr add 10.0.0.%[3]d/24 dev eth0 && %[1]s -n %[2]s link set eth0 up", ip, ns, i+1)
		for id, checksum := range []string{"noudpcsum", "udpcsum"} {
			g.Run(t, "%[1]s -n %[2]s link add g%[3]d type geneve id %[3]d remote 10.0.0.%[4]d %[5]s && %[1]s -n %[2]s addr add 10.9.%[3]d.%[6]d/24 dev g%[3]d && %[1]s -n %[2]s link set g%[3]d up",
				ip, ns, id, 2-i, checksum, i+1)
		}
	}
	g.Run(t, "%s netns exec b iperf3 -s -D", ip)
	for _, plane := range []string{"require", "off"} {
		g.Run(t, "%s run --ephemeral --fastpath %s --sandbox off >/tmp/log 2>&1 & echo $! >/tmp/pid", vswitch, plane)
		testenv.Eventually(t, "the ports are added", func() bool {
			_, err := g.TryRun("%[1]s add-port p1 --kind netdev --exclusive --may-exist && %[1]s add-port p2 --kind netdev --exclusive --may-exist", vswitch)
			return err == nil
		})
		for id := range 2 {
			var result struct {
				End struct {
					Received struct{ Bytes int } `json:"sum_received"`
				} `json:"end"`
			}
			const size = 16 << 20
			out := g.Run(t, "%s netns exec a iperf3 -c 10.9.%d.2 -n %d -J", ip, id, size)
			if err := json.Unmarshal([]byte(out), &result); err != nil || result.End.Received.Bytes < size/2 { // the rest is on its way at the end
				t.Errorf("--fastpath %s, tunnel %d: %d of %d bytes arrive: %v", plane, id, result.End.Received.Bytes, size, err)
			}
		}
		for n := range 2 {
			var p api.Port
			if err := json.Unmarshal([]byte(g.Run(t, "%s ports p%d -o json", vswitch, n+1)), &p); err != nil {
				t.Fatal(err)
			}
			for _, side := range []map[string]uint64{p.RX.Dropped, p.TX.Dropped} {
				for _, why := range []port.Drop{port.DropBadOffload, port.DropUnsupported, port.DropOversize} {
					if n := side[why.String()]; n != 0 {
						t.Errorf("--fastpath %s: %d frames dropped as %v at %s", plane, n, why, p.Name)
					}
				}
			}
			if all := p.RX.Bytes / max(p.RX.Frames, 1); n == 0 && all < 2*1514 {
				t.Errorf("--fastpath %s: frames have %d bytes, want super-frames", plane, all)
			}
		}
		g.Run(t, "kill $(cat /tmp/pid); while kill -0 $(cat /tmp/pid) 2>/dev/null; do usleep 100000; done")
	}
}
