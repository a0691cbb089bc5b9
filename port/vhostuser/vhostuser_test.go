package vhostuser_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/vhostuser"
)

const patience = 30 * time.Second

// socketPath is short: a test's own directory has its name in it, and gets too long.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// open opens a port.
func open(t testing.TB, k vhostuser.Kind, spec port.Spec) *vhostuser.Port {
	t.Helper()
	if spec.Name == "" {
		spec.Name = "vm0"
	}
	if err := k.Check(spec); err != nil {
		t.Fatal(err)
	}
	var trace port.Trace
	p, err := k.Open(spec, &trace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if err := k.Delete(spec, trace); err != nil {
			t.Error(err)
		}
	})
	return p.(*vhostuser.Port)
}

// boot connects a guest and waits until the port has it.
func boot(t testing.TB, p *vhostuser.Port, path string, o vhosttest.Options) *vhosttest.Guest {
	t.Helper()
	g := vhosttest.Dial(t, path, o)
	linked(t, p, true)
	return g
}

// linked waits for the link to be as it should.
func linked(t testing.TB, p *vhostuser.Port, up bool) {
	t.Helper()
	linkedIn(t, p, up, patience)
}

func linkedIn(t testing.TB, p *vhostuser.Port, up bool, patience time.Duration) {
	t.Helper()
	limit := time.After(patience)
	for p.Link() != up {
		select {
		case <-p.LinkChanged():
		case <-limit:
			t.Fatalf("link %v: %v", p.Link(), p.LinkError())
		}
	}
}

// station is a guest as the conformance suite wants it.
type station struct{ *vhosttest.Guest }

func (s station) Send(wire []byte, o port.Offload) error {
	var h [12]byte
	vnet.Encode(h[:], o)
	return s.Guest.Send(h, wire)
}

func (s station) Recv(timeout time.Duration) ([]byte, port.Offload, error) {
	h, wire, err := s.Guest.Recv(timeout)
	return wire, vnet.Decode(h[:]), err
}

const (
	offloads = vhosttest.Csum | vhosttest.GuestCsum | vhosttest.GuestTSO4 | vhosttest.GuestTSO6 |
		vhosttest.GuestECN | vhosttest.GuestUFO | vhosttest.HostTSO4 | vhosttest.HostTSO6
	packedRing = vhosttest.RingPacked
	modern     = vhosttest.Version1 | vhosttest.MrgRxBuf | vhosttest.EventIdx | vhosttest.Indirect | offloads
)

// wholeFrame is room for the longest frame in one receive buffer.
const wholeFrame = port.MaxFrame + 12

// guests are the kinds of drivers that there are.
var guests = map[string]vhosttest.Options{
	"modern":         {Features: modern, Split: 700},
	"one buffer":     {Features: modern},
	"event index":    {Features: vhosttest.Version1 | vhosttest.MrgRxBuf | vhosttest.EventIdx, Base: 65500},
	"flags":          {Features: vhosttest.Version1 | vhosttest.MrgRxBuf, Base: 40000, Split: 1000, Size: 512},
	"big buffers":    {Features: vhosttest.Version1 | vhosttest.Indirect | offloads, Buffer: wholeFrame, Apart: true},
	"legacy":         {Features: 0, Buffer: wholeFrame, Apart: true, Table: true, Size: 512},
	"legacy merging": {Features: vhosttest.MrgRxBuf | vhosttest.AnyLayout, Table: true, Split: 100, Size: 512},
	"small buffers":  {Features: modern, Buffer: 256, Size: 1024},
	"packed":         {Features: modern | vhosttest.RingPacked, Split: 700},
	"packed buffers": {Features: modern | vhosttest.RingPacked, Size: 300},
	"packed flags":   {Features: vhosttest.Version1 | vhosttest.RingPacked, Buffer: wholeFrame, Size: 300, Apart: true},
	"packed chains":  {Features: vhosttest.Version1 | vhosttest.MrgRxBuf | vhosttest.EventIdx | vhosttest.RingPacked | vhosttest.InOrder, Split: 1100, Size: 511},
}

func TestConformance(t *testing.T) {
	for name, o := range guests {
		t.Run(name, func(t *testing.T) {
			porttest.Run(t, func(t *testing.T) porttest.Fixture {
				path := socketPath(t)
				p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
				g := boot(t, p, path, o)
				return porttest.Fixture{Port: p, Peer: station{g}, MaxLen: port.MaxFrame - 8, Offloads: o.Features&vhosttest.GuestCsum != 0}
			})
		})
	}
}

// The port may also be the one that connects.
func TestConformanceClient(t *testing.T) {
	porttest.Run(t, func(t *testing.T) porttest.Fixture {
		path := socketPath(t)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path, Client: true}}})
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		g := vhosttest.Start(t, conn.(*net.UnixConn), guests["modern"])
		linked(t, p, true)
		return porttest.Fixture{Port: p, Peer: station{g}, MaxLen: port.MaxFrame - 8, Offloads: true}
	})
}
