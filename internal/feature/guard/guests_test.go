package guard_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// guest is the end of a port that a VM, a container or another host has.
type guest interface {
	Send(wire []byte, o port.Offload) error
	Recv(timeout time.Duration) ([]byte, error)
}

// kind is a kind of port, and how tests get at the other end.
type kind struct {
	name     string
	device   bool // a kernel device has a frame first
	refuses  bool // and loses what it does not like, without a word
	offloads bool // frames have a virtio-net header

	// plug adds a port to the switch, and returns its other end.
	plug func(l *lab, port string) guest
}

// kinds are all kinds that a guarded port can be of.
var kinds = []kind{
	{"tap", true, false, true, func(l *lab, port string) guest {
		l.sw.Ctl(l, "add-port %s", port)
		return l.bootTap(port)
	}},
	{"vhost-user", false, false, true, func(l *lab, port string) guest {
		l.sw.Ctl(l, "add-port %s --kind vhost-user --path %s", port, l.path(port))
		return &vhostGuest{Guest: vhosttest.Dial(l, l.path(port), vhosttest.Options{Features: vhosttest.Version1 | vhosttest.Csum | vhosttest.MrgRxBuf})}
	}},
	{"stream", false, false, false, func(l *lab, port string) guest {
		l.sw.Ctl(l, "add-port %s --kind stream --path %s", port, l.path(port))
		return dialStream(l, l.path(port))
	}},
	{"dgram", false, false, false, func(l *lab, port string) guest {
		l.sw.Ctl(l, "add-port %s --kind dgram --path %s", port, l.path(port))
		return dialDgram(l, l.path(port))
	}},
	{"netdev", true, true, true, func(l *lab, port string) guest {
		l.sw.Netns.Run("ip", "link", "add", port, "mtu", mtu, "type", "veth", "peer", "name", port, "mtu", mtu, "netns", l.others().Name)
		l.sw.Netns.Run("ip", "link", "set", port, "up")
		l.sw.Ctl(l, "add-port %s --kind netdev --exclusive", port)
		return l.listen(port)
	}},
	{"veth", true, true, true, func(l *lab, port string) guest {
		l.sw.Ctl(l, "add-port %s --kind veth --netns %s --ifname %s --mtu %s", port, l.others().Name, port, mtu)
		return l.listen(port)
	}},
	{"host", true, true, true, func(l *lab, port string) guest {
		l.sw.Ctl(l, "add-port %s --kind host --netns %s --mtu %s", port, l.others().Name, mtu)
		return l.listen(port)
	}},
}

// mtu is that of interfaces behind which nobody is but a test, which sends long frames too.
const mtu = "9216"

// kindOf returns a kind by its name.
func kindOf(name string) kind {
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	panic(name)
}

// eachKind runs a test at ports of each kind.
func eachKind(t *testing.T, test func(t *testing.T, k kind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

func (l *lab) path(port string) string { return filepath.Join(l.dir, port) }

// others returns a namespace for the other ends of ports, whose own stack is silent.
func (l *lab) others() *testenv.Netns {
	if l.outside == nil {
		l.outside = testenv.NewNetns(l)
		l.outside.Run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.all.disable_ipv6=1")
	}
	return l.outside
}

// bootTap has the fd end of a TAP.
func (l *lab) bootTap(name string) (g guest) {
	l.sw.Netns.Do(func() { g = &deviceGuest{end: tuntest.Boot(l, name, tuntest.TSO)} })
	return g
}

// listen has an interface of the others' namespace.
func (l *lab) listen(name string) (g guest) {
	l.others().Run("ip", "link", "set", name, "up")
	l.others().Do(func() { g = &deviceGuest{end: tuntest.Listen(l, name)} })
	return g
}

// receive returns a frame as a host has it that completes the checksum, and the first of the
// datagrams of a super-frame of UDP, of which it keeps the others.
func (o *queued) receive(wire []byte, is port.Offload) []byte {
	b := bytes.Clone(wire)
	start, sum := int(is.CsumStart), int(is.CsumStart)+int(is.CsumOffset)
	if is.Flags&port.NeedsCsum == 0 || sum+2 > len(b) {
		return b
	}
	binary.BigEndian.PutUint16(b[sum:], ^vnet.Sum(b[start:]))
	if is.GSOType != port.GSOUDPL4 || start+8 > len(b) || is.GSOSize == 0 {
		return b
	}
	head, rest := b[:start+8], b[start+8:]
	for len(rest) > 0 {
		n := min(int(is.GSOSize), len(rest))
		one := append(bytes.Clone(head), rest[:n]...)
		rest = rest[n:]
		binary.BigEndian.PutUint16(one[start+4:], uint16(8+n))
		if one[port.HeaderLen]>>4 == 4 {
			binary.BigEndian.PutUint16(one[port.HeaderLen+2:], uint16(len(one)-port.HeaderLen))
		} else {
			binary.BigEndian.PutUint16(one[port.HeaderLen+4:], uint16(len(one)-port.HeaderLen-40))
		}
		*o = append(*o, one)
	}
	first, _ := o.next()
	return first
}

// queued are datagrams that came in a super-frame with another.
type queued [][]byte

func (o *queued) next() (wire []byte, ok bool) {
	if len(*o) == 0 {
		return nil, false
	}
	wire, *o = (*o)[0], (*o)[1:]
	return wire, true
}

// deviceGuest is at a kernel device.
type deviceGuest struct {
	queued
	end interface {
		Send(wire []byte, o port.Offload) error
		Recv(timeout time.Duration) ([]byte, port.Offload, error)
	}
}

func (g *deviceGuest) Send(wire []byte, o port.Offload) error { return g.end.Send(wire, o) }

func (g *deviceGuest) Recv(timeout time.Duration) ([]byte, error) {
	if b, ok := g.next(); ok {
		return b, nil
	}
	b, o, err := g.end.Recv(timeout)
	return g.receive(b, o), err
}

// vhostGuest shares its memory with the switch.
type vhostGuest struct {
	queued
	*vhosttest.Guest
}

func (g *vhostGuest) Send(wire []byte, o port.Offload) error {
	var header [12]byte
	vnet.Encode(header[:], o)
	return g.Guest.Send(header, wire)
}

func (g *vhostGuest) Recv(timeout time.Duration) ([]byte, error) {
	if b, ok := g.next(); ok {
		return b, nil
	}
	header, b, err := g.Guest.Recv(timeout)
	if err != nil {
		return nil, err
	}
	return g.receive(b, vnet.Decode(header[:])), nil
}

// socketGuest is at a socket. What comes is read at once: the kernel holds few datagrams.
type socketGuest struct {
	send func(wire []byte) error
	got  chan []byte
}

var errNothing = errors.New("nothing came")

func (g socketGuest) Send(wire []byte, o port.Offload) error {
	if o != (port.Offload{}) {
		return errors.New("a socket has no place for an offload header")
	}
	return g.send(wire)
}

func (g socketGuest) Recv(timeout time.Duration) ([]byte, error) {
	after := time.NewTimer(timeout)
	defer after.Stop()
	select {
	case b, ok := <-g.got:
		if !ok {
			return nil, io.EOF
		}
		return b, nil
	case <-after.C:
		return nil, errNothing
	}
}

// newSocketGuest reads frames until there are none.
func newSocketGuest(conn io.Closer, send func([]byte) error, next func() ([]byte, error), t testing.TB) socketGuest {
	g := socketGuest{send, make(chan []byte, 4096)}
	go func() {
		defer close(g.got)
		for b, err := next(); err == nil; b, err = next() {
			g.got <- b
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		for range g.got { // until the reader has ended
		}
	})
	return g
}

// dialStream is as QEMU's -netdev stream: each frame follows its length.
func dialStream(t testing.TB, path string) guest {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	send := func(wire []byte) error {
		_, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(wire))), wire...))
		return err
	}
	next := func() ([]byte, error) {
		var length [4]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return nil, err
		}
		b := make([]byte, binary.BigEndian.Uint32(length[:]))
		_, err := io.ReadFull(c, b)
		return b, err
	}
	return newSocketGuest(c, send, next, t)
}

// dialDgram is as QEMU's -netdev dgram: a frame is a datagram.
func dialDgram(t testing.TB, path string) guest {
	t.Helper()
	own := &net.UnixAddr{Name: path + ".vm", Net: "unixgram"}
	c, err := net.DialUnix("unixgram", own, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(own.Name) })
	send := func(wire []byte) error {
		_, err := c.Write(wire)
		return err
	}
	next := func() ([]byte, error) {
		b := make([]byte, 1<<16)
		n, err := c.Read(b)
		return b[:n], err
	}
	if err := send([]byte("VFKT")); err != nil { // else the port knows of nobody there
		t.Fatal(err)
	}
	return newSocketGuest(c, send, next, t)
}
