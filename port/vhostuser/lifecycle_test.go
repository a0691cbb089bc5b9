package vhostuser_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/vhostuser"
)

// exchange expects frames to pass both ways.
func exchange(t *testing.T, p *vhostuser.Port, g *vhosttest.Guest, frames <-chan port.Frame) {
	t.Helper()
	for range 3 {
		if err := g.Send([12]byte{}, wire(200)); err != nil {
			t.Fatal(err)
		}
		if f := frame(t, frames); !bytes.Equal(f.Data, wire(200)) {
			t.Fatalf("from the guest: %d bytes, %v", len(f.Data), f.Drop)
		}
		if d := send(p, wire(300)); d != port.DropNone {
			t.Fatalf("to the guest: %v", d)
		}
		if _, b, err := g.Recv(patience); err != nil || !bytes.Equal(b, wire(300)) {
			t.Fatalf("to the guest: %d bytes, %v", len(b), err)
		}
	}
}

// Guests come and go on one open port, without and with good-bye.
func TestGuestComesAndGoes(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	frames := reader(t, p)
	if d := send(p, wire(60)); d != port.DropNoCarrier || p.Link() || p.Caps() != port.CapsAll|port.CapTail {
		t.Errorf("without a guest: %v, link %v, caps %b", d, p.Link(), p.Caps())
	}
	for _, name := range []string{"modern", "legacy", "packed", "flags"} {
		g := boot(t, p, path, guests[name])
		exchange(t, p, g, frames)
		g.Close()
		linked(t, p, false)
		if d := send(p, wire(60)); d != port.DropNoCarrier {
			t.Errorf("after a guest: %v", d)
		}
	}
}

// A driver stops and starts its rings, as in a reboot: new rings, the same connection.
func TestDriverRestart(t *testing.T) {
	for _, name := range []string{"modern", "packed"} {
		path := socketPath(t)
		p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
		frames := reader(t, p)
		g := boot(t, p, path, guests[name])
		for range 3 {
			exchange(t, p, g, frames)
			for i := range 2 {
				base := g.Ask(t, vhosttest.GetVringBase, vhosttest.U32s(uint32(i), 0))
				if used := uint16(base >> 32); used&0x7fff == 0 || uint32(base) != uint32(i) {
					t.Errorf("%s: ring %d stops at %#x", name, i, base)
				}
			}
			linked(t, p, false)
			if d := send(p, wire(60)); d != port.DropNoCarrier {
				t.Errorf("%s: to a ring that is stopped: %v", name, d)
			}
			for i := range 2 {
				g.StartRing(t, i)
			}
			linked(t, p, true)
		}
	}
}

// A device that is reset has no ring at work; the driver begins anew with both, also where
// the port keeps how far rings were.
func TestResetDevice(t *testing.T) {
	for _, name := range []string{"modern", "packed"} {
		path := socketPath(t)
		p := open(t, vhostuser.Kind{Dir: filepath.Dir(path)}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
		frames := reader(t, p)
		g := boot(t, p, path, guests[name])
		for range 3 {
			exchange(t, p, g, frames)
			g.Request(t, vhosttest.ResetDevice, nil)
			linked(t, p, false)
			if d := send(p, wire(60)); d != port.DropNoCarrier {
				t.Errorf("%s: to a device that was reset: %v", name, d)
			}
			for i := range 2 {
				g.StartRing(t, i)
			}
			if p.Link() {
				t.Errorf("%s: rings that are not enabled are a link", name)
			}
			for i := range uint32(2) {
				g.Request(t, vhosttest.SetVringEnable, vhosttest.U32s(i, 1))
			}
			linked(t, p, true)
		}
	}
}

// A ring that is disabled gives nothing to the guest, and what it takes is thrown away
// and counted (docs/interop/vhost-user.rst, ring states).
func TestDisabledRing(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	frames := reader(t, p)
	g := boot(t, p, path, guests["modern"])
	for i := range uint32(2) {
		g.Request(t, vhosttest.SetVringEnable, vhosttest.U32s(i, 0))
	}
	linked(t, p, false)
	if d := send(p, wire(60)); d != port.DropNoCarrier {
		t.Errorf("to a ring that is disabled: %v", d)
	}
	if err := g.Send([12]byte{}, wire(60)); err != nil {
		t.Fatal(err)
	}
	if f := frame(t, frames); f.Drop != port.DropPortDown {
		t.Errorf("from a ring that is disabled: %v", f.Drop)
	}
	for i := range uint32(2) {
		g.Request(t, vhosttest.SetVringEnable, vhosttest.U32s(i, 1))
	}
	linked(t, p, true)
	exchange(t, p, g, frames)
}

// A guest with several pairs of queues gets a flow by the queue that it belongs to, and
// by those that it has enabled at the time.
func TestQueuePairs(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	o := guests["packed"]
	o.Pairs, o.Features = 3, o.Features|vhosttest.MQ
	g := boot(t, p, path, o)
	at := func(i, want int) {
		t.Helper()
		f := new(port.Frame)
		f.SetStripped(wire(100+i), 0)
		out := []port.Out{{Frame: f}}
		p.Queues()[i].Send(out)
		if out[0].Drop != port.DropNone {
			t.Fatalf("queue %d: %v", i, out[0].Drop)
		}
		if _, b, err := g.RX[want].Recv(patience); err != nil || len(b) != 100+i {
			t.Fatalf("queue %d, at the guest's %d: %d bytes, %v", i, want, len(b), err)
		}
	}
	for i, q := range p.Queues() {
		at(i, i%3)
		if i < 3 {
			if err := g.TX[i].Send([12]byte{}, wire(60)); err != nil {
				t.Fatal(err)
			}
			var batch [2]port.Frame
			if n, err := q.Recv(batch[:]); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			q.Release()
		}
	}
	g.Request(t, vhosttest.SetVringEnable, vhosttest.U32s(2, 0))
	for i := range p.Queues() {
		at(i, []int{0, 2}[i%2])
	}
}

// The front end tells where a guest is now, and its neighbours hear of it.
func TestAnnounce(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	frames := reader(t, p)
	g := boot(t, p, path, guests["modern"])
	g.Request(t, vhosttest.SendRARP, []byte{0x52, 0x54, 0, 0, 0, 9, 0, 0})
	f := frame(t, frames)
	// RFC 903: hardware and protocol as in ARP, opcode 3, the sender asks for itself.
	want := append(bytes.Repeat([]byte{0xff}, 6), 0x52, 0x54, 0, 0, 0, 9, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3,
		0x52, 0x54, 0, 0, 0, 9, 0, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 9)
	if f.Dst != port.Broadcast || f.Src != 0x5254_0000_0009 || f.Drop != port.DropNone || !bytes.Equal(f.Data, append(want, make([]byte, 60-len(want))...)) {
		t.Errorf("%v from %v: %x", f.Dst, f.Src, f.Data)
	}
	exchange(t, p, g, frames)
}

// What is sent to a station goes to where it was announced, before it says a word there.
func TestAnnounceMoves(t *testing.T) {
	sw := vswitch.New(vswitch.Config{})
	t.Cleanup(func() { sw.Close() })
	const station = 0x5254_0000_0009
	at := func(p *vswitch.Port) {
		t.Helper()
		testenv.Eventually(t, "the station is at "+p.Name(), func() bool {
			number, ok := sw.FDB().Lookup(fdb.MakeKey(port.DefaultVLAN, station))
			return ok && number == p.Number()
		})
	}
	for _, name := range []string{"here", "there"} {
		path := socketPath(t)
		p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
		g := boot(t, p, path, guests["modern"])
		sp, err := sw.AddPort(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := sp.Attach(p); err != nil {
			t.Fatal(err)
		}
		sp.SetForwarding(true)
		g.Request(t, vhosttest.SendRARP, []byte{0x52, 0x54, 0, 0, 0, 9, 0, 0})
		at(sp)
	}
}

// A guest that was given an MTU is sent nothing longer, but what is yet to be cut.
func TestMTU(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	g := boot(t, p, path, guests["modern"])
	g.Request(t, vhosttest.NetSetMTU, vhosttest.U64(1400))
	for n, want := range map[int]port.Drop{1400 + 14: port.DropNone, 1400 + 18: port.DropNone, 1400 + 19: port.DropTooBig} {
		if d := send(p, wire(n)); d != want {
			t.Errorf("%d bytes: %v, want %v", n, d, want)
		}
	}
	f := new(port.Frame)
	f.SetStripped(wire(5000), 0)
	f.Offload = port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1300, CsumStart: 34, CsumOffset: 16}
	out := []port.Out{{Frame: f}}
	if p.Queues()[0].Send(out); out[0].Drop != port.DropNone {
		t.Errorf("a super-frame: %v", out[0].Drop)
	}
}

// Caps is what the guest has agreed to, while it is there.
func TestCaps(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	for features, want := range map[uint64]port.Caps{
		vhosttest.Version1:                       port.CapsNone,
		vhosttest.Version1 | vhosttest.GuestCsum: port.CapCsum,
		vhosttest.Version1 | vhosttest.GuestTSO4: port.CapsNone, // needs the checksum
		vhosttest.Version1 | vhosttest.GuestCsum | vhosttest.GuestTSO4 | vhosttest.GuestECN: port.CapCsum | port.CapTSO4 | port.CapTSOECN,
		vhosttest.Version1 | vhosttest.GuestCsum | vhosttest.GuestTSO6 | vhosttest.GuestUFO: port.CapCsum | port.CapTSO6 | port.CapUFO,
		vhosttest.Version1 | vhosttest.GuestCsum | 3<<54:                                    port.CapCsum | port.CapUSO,
		vhosttest.Version1 | vhosttest.GuestCsum | 1<<54:                                    port.CapCsum,
	} {
		g := boot(t, p, path, vhosttest.Options{Features: features})
		if want |= port.CapTail; p.Caps() != want {
			t.Errorf("features %#x: caps %b, want %b", features, p.Caps(), want)
		}
		g.Close()
		linked(t, p, false)
	}
}

// Memory comes and goes while rings are at work, and the log of a live migration tells
// of each page that the port writes to.
func TestMemoryWhileRunning(t *testing.T) {
	for _, name := range []string{"modern", "packed"} {
		path := socketPath(t)
		p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
		frames := reader(t, p)
		g := boot(t, p, path, guests[name])
		exchange(t, p, g, frames)

		// More memory, and less again.
		fd, err := unix.MemfdCreate("more", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Ftruncate(fd, 1<<21); err != nil {
			t.Fatal(err)
		}
		more := append(vhosttest.U64(0), vhosttest.U64(1<<40)...)
		more = append(append(append(more, vhosttest.U64(1<<21)...), vhosttest.U64(1<<46)...), vhosttest.U64(0)...)
		g.Request(t, vhosttest.AddMemReg, more, fd)
		exchange(t, p, g, frames)
		g.Request(t, vhosttest.RemMemReg, more)
		exchange(t, p, g, frames)

		// The log begins.
		log, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(log) })
		size := (vhosttest.GPA+len(g.Mem))/4096/8 + 8
		if err := unix.Ftruncate(log, int64(size)); err != nil {
			t.Fatal(err)
		}
		bits, err := unix.Mmap(log, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(bits) })
		if got := g.Ask(t, vhosttest.SetLogBase, append(vhosttest.U64(uint64(size)), vhosttest.U64(0)...), log); got != 0 {
			t.Fatal(got)
		}
		g.Request(t, vhosttest.SetFeatures, vhosttest.U64(g.Features|vhosttest.Protocol|vhosttest.LogAll))
		for i := range 2 {
			g.Request(t, vhosttest.SetVringAddr, g.AddrBytes(i, 1))
		}
		before := bytes.Clone(g.Mem)
		exchange(t, p, g, frames)
		if d := send(p, wire(5000)); d != port.DropNone {
			t.Fatal(d)
		}
		// Pages of receive buffers that have other bytes now were written to by the
		// port, and by nobody else.
		changed := 0
		for at := g.RX[0].Buffers() &^ 4095; at < g.RX[0].Buffers()+g.Size*g.Buffer; at += 4096 {
			page := (vhosttest.GPA + at) / 4096
			if !bytes.Equal(before[at:at+4096], g.Mem[at:at+4096]) {
				changed++
				if bits[page/8]>>(page%8)&1 == 0 {
					t.Errorf("%s: page %#x was written to and is not in the log", name, page)
				}
			}
		}
		if changed == 0 {
			t.Errorf("%s: nothing was written", name)
		}
		for i := range 2 {
			_, _, device := g.Queue(i).Rings()
			if desc, _, _ := g.Queue(i).Rings(); name == "packed" {
				device = desc
			}
			page := (vhosttest.GPA + len(g.Mem) - len(device)) / 4096
			if bits[page/8]>>(page%8)&1 == 0 {
				t.Errorf("%s: ring %d is not in the log", name, i)
			}
		}
		g.Close()
	}
}

// Under load neither side tells the other what it sees for itself.
func TestFewNotifications(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	for _, name := range []string{"modern", "flags", "packed"} {
		g := boot(t, p, path, guests[name])
		frames := make([]port.Frame, 64)
		const n = 64
		for i := range n {
			if err := g.Send([12]byte{}, wire(60+i)); err != nil {
				t.Fatal(err)
			}
		}
		// The first is a kick; for the rest the worker is not asleep.
		if g.TX[0].Kicks > n {
			t.Errorf("%s: %d kicks for %d frames", name, g.TX[0].Kicks, n)
		}
		for got := 0; got < n; {
			k, err := p.Queues()[0].Recv(frames)
			if err != nil {
				t.Fatal(err)
			}
			p.Queues()[0].Release()
			got += k
		}
		kicks := g.TX[0].Kicks
		if err := g.Send([12]byte{}, wire(60)); err != nil {
			t.Fatal(err)
		}
		if more := g.TX[0].Kicks - kicks; more > 1 || name != "modern" && more != 0 {
			t.Errorf("%s: %d kicks while the worker is at work", name, more)
		}
		var out []port.Out
		for range n {
			f := new(port.Frame)
			f.SetStripped(wire(100), 0)
			out = append(out, port.Out{Frame: f})
		}
		p.Queues()[0].Send(out)
		for range n {
			if _, _, err := g.Recv(patience); err != nil {
				t.Fatal(err)
			}
		}
		if g.RX[0].Calls > 2 {
			t.Errorf("%s: %d calls for one vector", name, g.RX[0].Calls)
		}
		if k, err := p.Queues()[0].Recv(frames); k != 1 || err != nil {
			t.Fatal(k, err)
		}
		p.Queues()[0].Release()
		g.Close()
		linked(t, p, false)
	}
}

// A driver that sleeps is called for each frame.
func TestCall(t *testing.T) {
	for name, o := range guests {
		path := socketPath(t)
		p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
		g := boot(t, p, path, o)
		for i := range 2*max(o.Size, 256) + 10 {
			if _, _, err := g.Recv(0); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
			if d := send(p, wire(60)); d != port.DropNone {
				t.Fatalf("%s: frame %d: %v", name, i, d)
			}
			if !g.RX[0].Called(patience) {
				t.Fatalf("%s: frame %d came without a call", name, i)
			}
			if _, _, err := g.Recv(0); err != nil {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
		}
	}
}

// A worker that never sleeps needs no kick; one that may sleeps when nothing comes.
func TestBusy(t *testing.T) {
	k, path := vhostuser.Kind{}, socketPath(t)
	adaptive, busy := port.Spec{Name: "vm0", Settings: vhostuser.Settings{Socket: port.Socket{Path: path}, Poll: vhostuser.PollAdaptive}}, port.Spec{Name: "vm0", Settings: vhostuser.Settings{Socket: port.Socket{Path: path}, Poll: vhostuser.PollBusy}}
	p := open(t, k, busy)
	frames := reader(t, p)
	g := boot(t, p, path, guests["flags"])
	quiet := func() {
		t.Helper()
		exchange(t, p, g, frames)
		kicks := g.TX[0].Kicks
		for range 10 {
			exchange(t, p, g, frames)
		}
		if g.TX[0].Kicks != kicks {
			t.Errorf("%d kicks", g.TX[0].Kicks-kicks)
		}
	}
	quiet()
	if err := k.Set(p, busy, adaptive); err != nil {
		t.Fatal(err)
	}
	kicks := g.TX[0].Kicks
	for limit := time.Now().Add(patience); g.TX[0].Kicks == kicks; {
		if time.Now().After(limit) {
			t.Fatal("the worker does not sleep")
		}
		time.Sleep(time.Millisecond)
		exchange(t, p, g, frames)
	}
	if err := k.Set(p, adaptive, busy); err != nil { // while it sleeps
		t.Fatal(err)
	}
	quiet()
}

// As a client the port waits for a front end that listens, and comes back to it.
func TestClientReconnects(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path, Client: true}}})
	frames := reader(t, p)
	for limit := time.Now().Add(patience); !strings.Contains(p.LinkError().Error(), "start the front end"); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the reason is %q", p.LinkError())
		}
	}
	for range 2 {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		g := vhosttest.Start(t, conn.(*net.UnixConn), guests["modern"])
		linked(t, p, true)
		exchange(t, p, g, frames)
		l.Close()
		g.Close()
		linked(t, p, false)
	}
}

func TestKind(t *testing.T) {
	path := socketPath(t)
	k := vhostuser.Kind{}
	for _, c := range []struct {
		spec port.Spec
		want string
	}{
		{port.Spec{Name: "a/b", Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}}, "port name"},
		{port.Spec{Name: "vm0"}, "--path"},
		{port.Spec{Name: "vm0", Settings: vhostuser.Settings{Socket: port.Socket{Path: "s"}}}, "absolute"},
		{port.Spec{Name: "vm0", Settings: vhostuser.Settings{Socket: port.Socket{Path: "/" + strings.Repeat("x", 107)}}}, "shorter"},
		{port.Spec{Name: "vm0", Settings: vhostuser.Settings{Socket: port.Socket{Path: path}, Poll: "never"}}, "adaptive, busy"},
		{port.Spec{Name: "vm0", Settings: vhostuser.Settings{Socket: port.Socket{Path: path}, Queues: 9}}, "1 to 8"},
	} {
		if _, err := (port.Catalog{Kinds: port.Kinds{k}}).Spec(c.spec.Name, k.Name(), c.spec.Patch()); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", c.spec, err)
		}
	}
	k.Dir = filepath.Dir(path)
	spec := port.Spec{Name: "vm0", Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}}
	refused := func(want string) {
		t.Helper()
		var trace port.Trace
		p, err := k.Open(spec, &trace)
		if err == nil {
			p.Close()
			t.Fatal("it opens")
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || trace.Created {
			t.Errorf("%v, trace %+v", err, trace)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("is no socket")
	os.Remove(path)

	var trace port.Trace
	p, err := k.Open(spec, &trace)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("%v, %v", info, err)
	}
	refused("held by another program")
	if err := k.Set(p, spec, spec); err != nil {
		t.Error(err)
	}
	// One that a daemon left behind when it died is replaced.
	p.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if p, err = k.Open(spec, &trace); err != nil {
		t.Fatal(err)
	}
	p.Close()
	for range 2 { // what is gone is no error
		if err := k.Delete(spec, trace); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(k.Dir); err != nil || len(left) != 0 {
			t.Fatalf("after Delete: %v, %v", left, err)
		}
	}
}

// Who may use the socket is a setting, and a socket whose file is deleted comes back as it
// was. A guest that is connected notices neither.
func TestSocketAccess(t *testing.T) {
	path := socketPath(t)
	k := vhostuser.Kind{}
	spec := func(o vhostuser.Settings) port.Spec {
		o.Path = path
		return port.Spec{Name: "vm0", Settings: o}
	}
	from := spec(vhostuser.Settings{Socket: port.Socket{Mode: "0600"}})
	p := open(t, k, from)
	frames := reader(t, p)
	g := boot(t, p, path, guests["modern"])
	want := func(mode os.FileMode) {
		t.Helper()
		if i, err := os.Lstat(path); err != nil || i.Mode() != os.ModeSocket|mode {
			t.Errorf("%v, %v, want mode %v", i, err, mode)
		}
	}
	want(0o600)
	to := spec(vhostuser.Settings{Socket: port.Socket{Mode: "0620"}})
	if err := k.Set(p, from, to); err != nil {
		t.Fatal(err)
	}
	want(0o620)
	bad := spec(vhostuser.Settings{Socket: port.Socket{Mode: "0620", Group: "no-such-group"}})
	if err := k.Set(p, to, bad); err == nil || !strings.Contains(err.Error(), "no group") {
		t.Errorf("for a group that is not there: %v", err)
	}
	want(0o620)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	exchange(t, p, g, frames)
	g.Close()
	testenv.Eventually(t, "the socket is there again", func() bool { _, err := os.Lstat(path); return err == nil })
	want(0o620)
	exchange(t, p, boot(t, p, path, guests["modern"]), frames)
	for _, o := range []port.Socket{{Mode: "rw"}, {Mode: "0660", Client: true}, {Owner: "root", Client: true}, {Group: "root", Client: true}} {
		if err := k.Check(spec(vhostuser.Settings{Socket: o})); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v is taken", o)
		}
	}
}

// TestChurn changes everything that can be changed while frames flow both ways.
func TestChurn(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	frames := reader(t, p)
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for i := range 3 {
		senders.Go(func() {
			out := make([]port.Out, 8)
			for k := range out {
				f := new(port.Frame)
				f.SetStripped(wire(64+500*k), 0)
				out[k].Frame = f
			}
			for {
				select {
				case <-stop:
					return
				default:
				}
				p.Queues()[i].Send(out)
				for k := range out {
					if d := out[k].Drop; d != port.DropNone && d != port.DropNoCarrier && d != port.DropQueueFull && d != port.DropTooBig {
						t.Errorf("dropped: %v", d)
						return
					}
				}
			}
		})
	}
	defer senders.Wait()
	defer close(stop)
	for _, name := range []string{"modern", "packed", "one buffer", "packed chains"} {
		g := boot(t, p, path, guests[name])
		fd, err := unix.MemfdCreate("more", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Ftruncate(fd, 1<<21); err != nil {
			t.Fatal(err)
		}
		for i := range uint32(10) {
			for range 5 {
				if err := g.Send([12]byte{}, wire(700)); err != nil {
					t.Fatal(err)
				}
			}
			for range 5 {
				if _, _, err := g.Recv(patience); err != nil {
					t.Fatal(err)
				}
			}
			region := append(vhosttest.U64(0), vhosttest.U64(1<<40)...)
			region = append(append(append(region, vhosttest.U64(1<<21)...), vhosttest.U64(1<<46)...), vhosttest.U64(0)...)
			g.Request(t, vhosttest.AddMemReg, region, fd)
			g.Request(t, vhosttest.SetVringEnable, vhosttest.U32s(i%2, 0))
			g.Request(t, vhosttest.SetFeatures, vhosttest.U64(g.Features|vhosttest.Protocol))
			g.Request(t, vhosttest.SetVringAddr, g.AddrBytes(int(i%2), 0))
			g.Request(t, vhosttest.SetVringEnable, vhosttest.U32s(i%2, 1))
			g.Request(t, vhosttest.RemMemReg, region)
			if i%5 == 4 {
				for ring := range 2 {
					g.Ask(t, vhosttest.GetVringBase, vhosttest.U32s(uint32(ring), 0))
					g.StartRing(t, ring)
				}
			}
		}
		for len(frames) > 0 {
			<-frames
		}
		if err := g.Send([12]byte{}, wire(701)); err != nil {
			t.Fatal(err)
		}
		for f := frame(t, frames); len(f.Data) != 701; f = frame(t, frames) {
			if len(f.Data) != 700 {
				t.Fatalf("a frame of %d bytes: %v", len(f.Data), f.Drop)
			}
		}
		g.Close() // with frames on their way
		linked(t, p, false)
	}
}
