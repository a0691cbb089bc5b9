package losses

import (
	"bytes"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// host is a TAP that nobody reads, in a network namespace of its own. Each has the same number
// there.
type host struct {
	ns    *testenv.Netns
	index int
}

func newHost(t *testing.T) *host {
	h := &host{ns: testenv.NewNetns(t)}
	h.ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	h.ns.Run("ip", "link", "set", "vm0", "up")
	h.ns.Do(func() {
		tuntest.Boot(t, "vm0", tuntest.TSO)
		device, err := net.InterfaceByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		h.index = device.Index
	})
	return h
}

// sender makes a packet socket at the TAP, beside the queueing discipline or through it.
func (h *host) sender(t *testing.T, beside bool) (send func(wire []byte, o port.Offload)) {
	t.Helper()
	fd := -1
	var err error
	h.ns.Do(func() { fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		t.Fatal(err)
	}
	if beside {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: h.index}); err != nil {
		t.Fatal(err)
	}
	return func(wire []byte, o port.Offload) {
		b := make([]byte, vnet.HeaderLen, vnet.HeaderLen+len(wire))
		vnet.Encode(b, o)
		_, _ = unix.Write(fd, append(b, wire...)) // it is an error if the TAP is full
	}
}

// shown collects what a Tracer shows.
func shown(t *testing.T, tracer *Tracer) <-chan vswitch.FastCopy {
	t.Helper()
	all := make(chan vswitch.FastCopy, 1<<12)
	tracer.Begin(func(c *vswitch.FastCopy) {
		one := *c
		one.Data = bytes.Clone(c.Data)
		all <- one
	})
	return all
}

// TestLosses has a full TAP lose frames: with an error, without one, and one of the same number
// in another namespace.
func TestLosses(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	h, other := newHost(t), newHost(t)
	if h.index != other.index {
		t.Fatalf("the TAPs have the numbers %d and %d", h.index, other.index)
	}
	tracer := New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	tracer.cookie = func() (cookie uint64, err error) {
		h.ns.Do(func() { cookie, err = ownCookie() })
		return cookie, err
	}
	tracer.Devices(map[int]uint16{h.index: 7})
	copies := shown(t, tracer)
	tracer.Begin(nil) // another one wants them, too

	const room = 1000 // frames of a TAP's queue; it can have some more
	loud, silent, elsewhere := h.sender(t, true), h.sender(t, false), other.sender(t, false)
	small := tuntest.Ethernet(1, 60)
	for range 2 * room {
		loud(small, port.Offload{})
	}
	super, o := tuntest.TCP4(3000)
	for range 2 * room {
		elsewhere(super, o)
	}
	before := time.Now()
	silent(super, o)
	select {
	case c := <-copies:
		if c.Kind != vswitch.CopyLost || c.Number != 7 || c.Drop != port.DropQueueFull || c.Length != len(super) || c.Of != 0 ||
			!bytes.Equal(c.Data, super[:len(c.Data)]) || len(c.Data) < 54 || c.Tag.Present() || c.Time.Before(before.Add(-time.Second)) {
			t.Errorf("shown is %+v", c)
		}
	case <-time.After(time.Minute):
		t.Fatal("the loss of a super-frame is not shown")
	}

	// Of a flood, some are shown, and all are counted.
	const flood = 3000
	for range flood {
		silent(super, o)
	}
	sent, told := flood, 0
	testenv.Eventually(t, "the flood is shown or counted", func() bool {
		silent(super, o) // the first of a lap tells of those before it
		sent++
		for len(copies) > 0 {
			c := <-copies
			told += 1 + int(c.Of)
		}
		return told == sent
	})

	// A device that is not watched any more is not shown, nor any after the last End.
	tracer.Devices(nil)
	silent(super, o)
	tracer.Devices(map[int]uint16{h.index: 8})
	silent(super, o)
	if c := <-copies; c.Number != 8 || c.Of != 0 {
		t.Errorf("watched again: %+v", c)
	}
	tracer.End()
	silent(super, o)
	<-copies
	tracer.End()
	if tracer.running != nil {
		t.Error("it goes on after the last End")
	}
	silent(super, o)
	copies = shown(t, tracer)
	silent(super, o)
	if c := <-copies; c.Of != 0 {
		t.Errorf("a new beginning has %d frames from before", c.Of)
	}
	tracer.End()
	if len(copies) != 0 {
		t.Errorf("more is shown: %+v", <-copies)
	}
}
