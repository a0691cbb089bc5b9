package unixsock

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// While frames wait in the backlog, later ones wait behind them, even when the socket has
// room again before the backlog is brought out: order holds.
func TestStreamWaitsBehindBacklog(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	out := func(fill byte) []port.Out {
		f := new(port.Frame)
		wire := make([]byte, 60)
		wire[12], wire[13], wire[14] = 0x88, 0xb5, fill
		f.SetWire(wire)
		return []port.Out{{Frame: f, Drop: port.NumDrops}}
	}
	c := &conn{fd: pair[0], waiting: make(chan struct{}, 1)}
	if !c.backlog.put(&out(1)[0], 0) {
		t.Fatal("an empty backlog has no room")
	}
	r := streamRuns.Get().(*streamRun)
	later := out(2)
	r.build(later)
	c.send(r)
	r.clear()
	if later[0].Drop != port.DropNone {
		t.Errorf("the later frame is lost: %v", later[0].Drop)
	}
	if n, err := unix.Read(pair[1], make([]byte, 200)); err != unix.EAGAIN {
		t.Errorf("%d bytes passed what waits: %v", n, err)
	}
	for want := byte(1); want <= 2; want++ {
		a, b := c.backlog.at(lengthLen, 60)
		if got := append(append([]byte(nil), a...), b...)[14]; got != want {
			t.Errorf("frame %d is in place of %d", got, want)
		}
		c.backlog.skip(lengthLen + 60)
	}
	if c.backlog.len() != 0 || len(c.waiting) != 1 {
		t.Errorf("%d bytes more wait; the drain is told: %v", c.backlog.len(), len(c.waiting) == 1)
	}
}
