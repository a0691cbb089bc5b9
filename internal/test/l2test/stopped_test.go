package l2test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// TestStoppedGuest: a guest that no longer reads costs the others nothing. What its
// queue has no room for is counted to the frame, also super-frames, of which the
// kernel says nothing; what others send to each other, or flood, they get.
//
//	a ── vm0 ┐
//	b ── vm1 ┼ switch
//	c ── vm2 ┘   c does not read
func TestStoppedGuest(t *testing.T) {
	t.Parallel()
	ns := quietNetns(t)
	sw := startDaemon(t, ns)
	const a, b, c = 0, 1, 2
	macs := []port.MAC{station(0), station(1), station(2)}
	guests := make([]*tuntest.Guest, len(macs))
	names := []string{"vm0", "vm1", "vm2"}
	for i, name := range names {
		sw.ctl("add-port %s", name)
		ns.Do(func() { guests[i] = tuntest.Boot(t, name, tuntest.TSO) })
		sw.AwaitState(t, name, api.StateUp)
	}
	send := func(from int, wire []byte, o port.Offload) {
		t.Helper()
		if err := guests[from].Send(wire, o); err != nil {
			t.Fatal(err)
		}
	}
	// next takes the next frame that reaches a guest, nil when none does any more.
	next := func(i int, patience time.Duration) []byte {
		t.Helper()
		wire, _, err := guests[i].Recv(patience)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return wire
	}
	tokenOf := func(wire []byte) string {
		_, token, _ := bytes.Cut(wire, tokenPrefix)
		token, _, _ = bytes.Cut(token, []byte(">"))
		return string(token)
	}
	// b and c are known from one frame each, that goes to nobody.
	for _, i := range []int{b, c} {
		wire, _ := frame{dst: macs[i], src: macs[i]}.wire()
		send(i, wire, port.Offload{})
		testenv.Eventually(t, names[i]+" is known", func() bool { return sw.entry(macs[i], 1).Port == names[i] })
	}

	// Each round a sends to b and c, and floods: more to c in all than a TAP's queue
	// holds, and to b no more at a time than it surely does. A flood and what goes to
	// one station may take different ways, and come in another order.
	super, o := tuntest.TCP4(3000)
	copy(super, macs[c].HardwareAddr())
	copy(super[6:], macs[a].HardwareAddr())
	const rounds, each = 200, 10
	for round := range rounds {
		due := map[string]bool{}
		for n := range each {
			f := frame{dst: macs[b], src: macs[a]}
			if n == 0 {
				f.dst = port.Broadcast
			}
			wire, _ := f.wire()
			send(a, wire, port.Offload{})
			due[tokenOf(wire)] = true
			toC, _ := frame{dst: macs[c], src: macs[a]}.wire()
			send(a, toC, port.Offload{})
		}
		send(a, super, o)
		for len(due) > 0 {
			wire := next(b, 5*time.Second)
			if !due[tokenOf(wire)] {
				t.Fatalf("round %d: b misses %d frames, and got %d bytes", round, len(due), len(wire))
			}
			delete(due, tokenOf(wire))
		}
	}

	const toB, toC = rounds * each, rounds * (each + 2)
	const sent = rounds * (2*each + 1)
	testenv.Eventually(t, "all frames of a are counted", func() bool { return sw.port("vm0").RX.Frames == sent })
	if p := sw.port("vm1"); p.TX.Frames != toB || len(p.TX.Dropped) != 0 {
		t.Errorf("b was sent %d frames of %d, dropped: %v", p.TX.Frames, toB, p.TX.Dropped)
	}
	p := sw.port("vm2")
	full := p.TX.Dropped[port.DropQueueFull.String()]
	came, supers := 0, 0
	for wire := next(c, time.Second); wire != nil; wire = next(c, 100*time.Millisecond) {
		came++
		if len(wire) == len(super) {
			supers++
		}
	}
	if uint64(came) != p.TX.Frames || uint64(came)+full != toC || len(p.TX.Dropped) != 1 {
		t.Errorf("of %d frames c got %d, %d of them large; counted are %d, dropped: %v", toC, came, supers, p.TX.Frames, p.TX.Dropped)
	}
	if full == 0 || supers == 0 || supers == rounds {
		t.Errorf("c got %d frames, %d of %d large ones: its queue was never full", came, supers, rounds)
	}
	// It reads again, and is a guest like others.
	wire, token := frame{dst: macs[c], src: macs[a]}.wire()
	send(a, wire, port.Offload{})
	if !bytes.Contains(next(c, 5*time.Second), token) {
		t.Error("c gets nothing any more")
	}
}

// TestDropsOfStoppedGuest follows what a full TAP drops: frames that the kernel forwards by
// itself, or the daemon sends, and super-frames. It shows no frame twice.
//
//	a ── vm0 ┐ switch
//	c ── vm1 ┘          c does not read
func TestDropsOfStoppedGuest(t *testing.T) {
	t.Parallel()
	ns := quietNetns(t)
	sw := startDaemon(t, ns)
	const a, c = 0, 1
	macs := []port.MAC{station(0), station(1)}
	guests := make([]*tuntest.Guest, len(macs))
	for i, name := range []string{"vm0", "vm1"} {
		sw.ctl("add-port %s", name)
		ns.Do(func() { guests[i] = tuntest.Boot(t, name, tuntest.TSO) })
		sw.AwaitState(t, name, api.StateUp)
	}
	send := func(from int, wire []byte, o port.Offload) {
		t.Helper()
		if err := guests[from].Send(wire, o); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"vm0", "vm1"} {
		wire, _ := frame{dst: macs[i], src: macs[i]}.wire()
		send(i, wire, port.Offload{})
		testenv.Eventually(t, name+" is known", func() bool { return sw.entry(macs[i], 1).Port == name })
	}
	// both sends a small frame and a super-frame that no other is like.
	super, o := tuntest.TCP4(3000)
	copy(super, macs[c].HardwareAddr())
	copy(super[6:], macs[a].HardwareAddr())
	number := uint32(0)
	both := func() {
		small, _ := frame{dst: macs[c], src: macs[a]}.wire()
		send(a, small, port.Offload{})
		number++
		binary.BigEndian.PutUint32(super[60:], number)
		send(a, super, o)
	}
	lost := func() uint64 { return sw.port("vm1").TX.Dropped[port.DropQueueFull.String()] }
	for range 600 { // more than fit in the queue
		both()
	}
	testenv.Eventually(t, "what was sent has passed", func() bool { return sw.port("vm0").RX.Frames == 2*uint64(number)+1 })
	if lost() == 0 {
		t.Fatal("the queue of vm1 is not full")
	}

	const some = 8 // less than what is shown of a flood at once
	follow := func(filter string) *capturing {
		return sw.begin("drops", "--follow", "--reason", "queue_full", "--port", "vm1", "--count", fmt.Sprint(some), "-o", "json", "--filter", filter)
	}
	small, large := follow("less 1000"), follow("greater 1000")
	before := sw.port("vm0").FastPath.Frames
	for range some {
		both()
	}
	if n := sw.port("vm0").FastPath.Frames - before; daemontest.FastPath() && n != 2*some {
		t.Errorf("the kernel forwarded %d frames, want %d", n, 2*some)
	}
	for name, following := range map[string]*capturing{"small frames": small, "super-frames": large} {
		out, _ := following.end()
		seen := map[string]bool{}
		for line := range strings.Lines(out) {
			var d struct {
				Port, Direction, Reason, Data string
				VLAN                          int
				Missed                        uint64
			}
			if err := json.Unmarshal([]byte(line), &d); err != nil {
				t.Fatal(err)
			}
			if d.Port != "vm1" || d.Direction != "tx" || d.Reason != "queue_full" || d.VLAN != 1 || d.Missed != 0 {
				t.Errorf("shown is %s", line)
			}
			seen[d.Data] = true
		}
		if len(seen) != some {
			t.Errorf("of %s %d are shown, want %d; all:\n%s", name, len(seen), some, out)
		}
	}
}

// TestDropsOfAbsentGuest follows what a TAP drops that nobody holds: copies of broadcasts, which
// the kernel makes or the daemon. It is not taken for a guest that is behind.
//
//	a ── vm0 ┐ switch
//	    vm1 ┘
func TestDropsOfAbsentGuest(t *testing.T) {
	t.Parallel()
	ns := quietNetns(t)
	sw := startDaemon(t, ns)
	sw.ctl("add-port vm0")
	sw.ctl("add-port vm1")
	var a *tuntest.Guest
	ns.Do(func() { a = tuntest.Boot(t, "vm0", 0) })
	sw.AwaitState(t, "vm0", api.StateUp)
	sw.AwaitState(t, "vm1", api.StateNoCarrier)
	sent := uint64(0)
	send := func() {
		t.Helper()
		wire, _ := frame{dst: port.Broadcast, src: station(0)}.wire()
		if err := a.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	send()
	testenv.Eventually(t, "the station is known", func() bool { return sw.entry(station(0), 1).Port == "vm0" })
	const some = 5
	follow := sw.begin("drops", "--follow", "--port", "vm1", "--count", fmt.Sprint(some))
	before := sw.port("vm0").FastPath.Frames
	for range some {
		send()
	}
	out, _ := follow.end()
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "vm1 out no_carrier  "+station(0).String()+" > ff:ff:ff:ff:ff:ff") {
			t.Errorf("shown is %s", line)
		}
	}
	testenv.Eventually(t, "what was sent has passed", func() bool { return sw.port("vm0").RX.Frames == sent })
	if n := sw.port("vm0").FastPath.Frames - before; daemontest.FastPath() && n != some {
		t.Errorf("the kernel handled %d frames, want %d", n, some)
	}
	want := map[string]uint64{port.DropNoCarrier.String(): sent}
	if tx := sw.port("vm1").TX; !maps.Equal(tx.Dropped, want) || tx.Frames != 0 {
		t.Errorf("%d frames sent, dropped %v; want %v", tx.Frames, tx.Dropped, want)
	}
	// What came before a guest remains what it was.
	ns.Do(func() { tuntest.Boot(t, "vm1", 0) })
	sw.AwaitState(t, "vm1", api.StateUp)
	if tx := sw.port("vm1").TX; !maps.Equal(tx.Dropped, want) {
		t.Errorf("once a guest is there, dropped is %v; want %v", tx.Dropped, want)
	}
}
