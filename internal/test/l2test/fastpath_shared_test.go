package l2test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// uplink is a pair whose third port stands on an interface of the host's.
//
//	a ── vm0 ┐
//	b ── vm1 ┤ switch
//	station ── peer0 ═══ eth0, 192.0.2.1, shared with the host
type uplink struct {
	*pair
	station *tuntest.Station
	mac     port.MAC // of the station
	eth0    port.MAC
	host    *net.UDPConn
}

const hostsPort = 4999

func newUplink(t *testing.T) *uplink {
	t.Helper()
	p := newPair(t)
	u := &uplink{pair: p, mac: station(9)}
	p.ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
	p.ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	for _, name := range []string{"eth0", "peer0"} {
		p.ns.Run("ip", "link", "set", name, "up")
	}
	u.eth0 = u.address("eth0")
	p.sw.ctl("add-port eth0 --kind netdev")
	p.sw.AwaitState(t, "eth0", api.StateUp)
	p.ns.Do(func() {
		var err error
		if u.host, err = net.ListenUDP("udp4", &net.UDPAddr{Port: hostsPort}); err != nil {
			t.Fatal(err)
		}
		u.station = tuntest.Listen(t, "peer0")
	})
	t.Cleanup(func() { u.host.Close() })
	u.know(u.mac, "eth0", u.station)
	return u
}

func (u *uplink) address(ifname string) (mac port.MAC) {
	u.t.Helper()
	if err := mac.UnmarshalText([]byte(u.ns.Run("cat", "/sys/class/net/"+ifname+"/address"))); err != nil {
		u.t.Fatal(err)
	}
	return mac
}

// know has somebody speak, to nobody, until it is known.
func (u *uplink) know(mac port.MAC, at string, from interface {
	Send([]byte, port.Offload) error
}) {
	u.t.Helper()
	testenv.Eventually(u.t, mac.String()+" is known", func() bool {
		wire, _ := frame{dst: mac, src: mac}.wire()
		if err := from.Send(wire, port.Offload{}); err != nil {
			u.t.Fatal(err)
		}
		return u.sw.entry(mac, 1).Port == at
	})
}

// hears has the station send a datagram to an address, and returns who hears it, how often:
// "host", "a", "b".
func (u *uplink) hears(dst port.MAC, tags ...port.Tag) string {
	u.t.Helper()
	wire := tuntest.Broadcast(hostsPort)
	copy(wire, dst.HardwareAddr())
	copy(wire[6:], u.mac.HardwareAddr())
	for _, tag := range slices.Backward(tags) {
		wire = tuntest.Tagged(wire, tag)
	}
	if err := u.station.Send(wire, port.Offload{}); err != nil {
		u.t.Fatal(err)
	}
	var who []string
	for _, g := range []struct {
		name string
		recv func(time.Duration) ([]byte, port.Offload, error)
	}{{"a", u.a.Recv}, {"b", u.b.Recv}, {"host", u.datagram}} {
		for {
			got, _, err := g.recv(100 * time.Millisecond)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				u.t.Fatal(err)
			}
			if g.name == "host" || bytes.Equal(got, wire) {
				who = append(who, g.name)
			}
		}
	}
	return strings.Join(who, " ")
}

func (u *uplink) datagram(wait time.Duration) ([]byte, port.Offload, error) {
	u.host.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 100)
	n, err := u.host.Read(b)
	return b[:n], port.Offload{}, err
}

// want expects that those hear the station's datagram. What has to be heard is sent again for a
// while: a machine that is busy hears late.
func (u *uplink) want(what string, dst port.MAC, who string, tags ...port.Tag) {
	u.t.Helper()
	got := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if got = u.hears(dst, tags...); got == who {
			return
		}
	}
	u.t.Errorf("%s is heard by %q, want %q", what, got, who)
}

// usual expects what holds while the host has its part: its own frames are for it alone, those
// to all for everybody, and the switch forwards the others.
func (u *uplink) usual(when string) {
	u.t.Helper()
	u.want(when+", a broadcast", port.Broadcast, "a b host")
	u.want(when+", a frame to the host", u.eth0, "host")
	u.want(when+", a frame to a", u.a.mac, "a")
}

// TestSharedWithHost has a port on an interface in which the host has its part.
func TestSharedWithHost(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	if p := u.sw.port("eth0"); len(p.FastPath.Off) > 0 {
		t.Errorf("it is kept off the fast path: %q", p.FastPath.Off)
	}
	before := u.fast()
	u.usual("shared")
	if u.fast() == before {
		t.Error("no frame of a shared port takes the fast path")
	}
	u.want("a frame to nobody", station(8), "a b")
	u.know(u.mac, "eth0", u.station)

	// What looks like a frame that was handed up is none, whatever is in it.
	u.want("a marked frame", u.a.mac, "", port.MakeTag(port.TPIDService, 0xfff), port.MakeTag(port.TPIDService, 0xfff))
	u.want("a frame that is marked within", u.a.mac, "a", port.MakeTag(port.TPIDCustomer, 5), port.MakeTag(port.TPIDService, 0xfff))
	u.want("a frame with an S-tag within", u.a.mac, "a", port.MakeTag(port.TPIDCustomer, 5), port.MakeTag(port.TPIDService, 1))

	// No guest gets the host's frames by its address.
	u.know(u.eth0, "vm0", u.a)
	u.usual("claimed")

	wire, _ := frame{dst: u.eth0, src: u.mac}.wire()
	out, err := u.sw.Try("trace", "eth0", "--hex", hex.EncodeToString(wire))
	if !strings.Contains(out, "for the host alone") {
		t.Errorf("a trace of a frame to the host: %v\n%s", err, out)
	}

	// A macvlan of the host's has an address of its own.
	u.ns.Run("ip", "link", "add", "link", "eth0", "name", "mv0", "type", "macvlan", "mode", "bridge")
	u.ns.Run("ip", "addr", "add", "192.0.2.9/24", "dev", "mv0")
	u.ns.Run("ip", "link", "set", "mv0", "up")
	u.want("a frame to a macvlan", u.address("mv0"), "a b host")
	u.want("with a macvlan, a frame to the host", u.eth0, "host")
	u.want("with a macvlan, a frame to a", u.a.mac, "a")
	u.ns.Run("ip", "link", "del", "mv0")

	// Without a daemon the host has its part, and known traffic goes on.
	u.sw.Kill()
	u.usual("killed")
	u.sw.Restart(t)
	u.sw.AwaitState(t, "eth0", api.StateUp)
	u.usual("restarted")

	u.ns.Run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
	u.sw.ctl("set-port eth0 --exclusive")
	u.want("exclusive, a broadcast", port.Broadcast, "a b")
	u.sw.ctl("set-port eth0 --exclusive=off")
	u.ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	u.usual("shared again")
	u.know(station(7), "eth0", u.station) // by a copy for the switch
	u.sw.ctl("del-port eth0")
	u.want("given back, a broadcast", port.Broadcast, "host")
	u.want("given back, a frame to the host", u.eth0, "host")
}
