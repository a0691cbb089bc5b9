package afpacket

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// A port that gets only what a program punts sees nothing of the frames that the program leaves to others.
func TestOnlyPunted(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0")
	ns.Run("ip", "link", "set", "a0", "up")
	ns.Run("ip", "link", "set", "b0", "up")
	ns.Do(func() {
		open := func(name string, punted bool) *Port {
			t.Helper()
			l, err := link.ByName(name)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Open(Config{Ifindex: l.Index, Punted: punted})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			return p
		}
		from, all, punted := open("a0", false), open("b0", false), open("b0", true)
		for range 2 { // when the second has come to one port, the first has come to all
			from.queues[0].Send(small(1, 0))
			receive(t, all, 1, func(_ int, f *port.Frame) {
				if !tuntest.IsEthernet(f.Data) {
					t.Errorf("a frame of %d bytes comes", len(f.Data))
				}
			})
		}
		q := punted.queues[0]
		if n, errno := q.rx.read(make([]port.Frame, port.BatchSize), q.ifindex); errno != unix.EAGAIN {
			t.Errorf("%d frames come, %v", n, errno)
		}
	})
}
