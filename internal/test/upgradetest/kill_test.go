package upgradetest

import (
	"os"
	"slices"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// inHand is how many frames of a flow a process may have in its hands when it is killed. An outage
// costs some ten times more where nothing keeps the sockets.
const inHand = 5

// A switch that a service manager runs is killed while frames pass, and no frame is lost but those
// in its hands: what comes meanwhile waits in files that the service manager keeps. Files of no
// port are forgotten, and those of a port are forgotten with it.
func TestKilledService(t *testing.T) {
	testenv.Root(t)
	for name, flags := range map[string][]string{
		"fast path": nil,
		"slow path": {"--fastpath", "off", "--sandbox", "auto"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sw := daemontest.StartService(t, testenv.NewNetns(t), flags...)
			flows := ringOf(t, sw, []string{"dgram", "host", "lag", "netdev", "tap", "veth", "vhost-user", "vxlan", "redial"})
			want := []string{"port-padgram", "port-pbhost", "port-pclag", "port-pdnetdev", "port-petap", "port-pfveth", "port-pgvhostuser", "port-phvxlan"} // of a stream, nothing
			stored := func(what string) {
				t.Helper()
				testenv.Eventually(t, what, func() bool { return slices.Equal(sw.Stored(), want) })
			}
			stored("the sockets of all ports are kept")
			for range 2 {
				stale, err := os.Open("/dev/null")
				if err != nil {
					t.Fatal(err)
				}
				other, err := os.Open("/dev/null")
				if err != nil {
					t.Fatal(err)
				}
				sw.Keep("port-gone", stale)
				sw.Keep("other", other)
				sw.Restart(t)
				for _, f := range flows {
					f.more(t, 30)
				}
				stored("again, and nothing else")
			}
			wantAllBut(t, "kill -9", flows, 2*inHand)
			// The next process of an upgrade stores its own.
			sw.Upgrade(t)
			for _, f := range flows {
				f.more(t, 30)
			}
			stored("after an upgrade")
			sw.Ctl(t, "add-port more")
			want = append(want, "port-more")
			slices.Sort(want)
			stored("a new port's are kept")
			sw.Ctl(t, "del-port more")
			want = slices.DeleteFunc(want, func(name string) bool { return name == "port-more" })
			stored("those of a port that is gone are not")
			sw.Restart(t)
			for _, f := range flows {
				f.more(t, 30)
			}
			wantAllBut(t, "upgrade, and kill -9", flows, 3*inHand)
		})
	}
}
