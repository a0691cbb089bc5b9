package afpacket

import (
	"slices"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// Each frame has the mark that it was sent with, whatever those around it have.
func TestMarks(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		for _, name := range []string{"a0", "b0"} {
			if name == "a0" {
				ns.Run("ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0")
			}
			ns.Run("sysctl", "-qw", "net.ipv6.conf."+name+".disable_ipv6=1")
			ns.Run("ip", "link", "set", name, "up")
		}
		open := func(name string) *Port {
			t.Helper()
			l, err := link.ByName(name)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Open(Config{Ifindex: l.Index, Marked: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			return p
		}
		from, to := open("a0"), open("b0")
		marks := []uint32{7, 0, 1<<31 | 5, 0, 0xffff_ffff}
		var out []port.Out
		for i := range marks {
			f := new(port.Frame)
			f.SetStripped(tuntest.Ethernet(uint32(i), 60), 0)
			out = append(out, port.Out{Frame: f})
		}
		from.queues[0].SendMarked(out, marks)
		var got []uint32
		defer time.AfterFunc(patience, func() { to.Close() }).Stop()
		frames := make([]port.Frame, port.BatchSize)
		for len(got) < len(marks) {
			n, err := to.queues[0].Recv(frames)
			if err != nil {
				t.Fatalf("after the marks %x: %v", got, err)
			}
			got = append(got, to.queues[0].Marks()[:n]...)
			to.queues[0].Release()
		}
		if !slices.Equal(got, marks) {
			t.Errorf("marks %x, want %x", got, marks)
		}
	})
}
