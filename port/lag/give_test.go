package lag_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/lag"
)

// Another process goes on with a port: the other end of LACP sees nothing of it, what came
// meanwhile is received, and flows keep their members. A process that gave it and resumes does
// the same.
func TestGive(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 2, 1500)
	ns.Do(func() {
		trace := new(port.Trace)
		s := spec(lag.Settings{Members: lag.Names{"a1", "a0"}, LACPRate: "fast"})
		p := open(t, s, trace)
		b := open(t, port.Spec{Name: "lag1", Settings: lag.Settings{Members: lag.Names{"b0", "b1"}, LACPRate: "fast"}}, new(port.Trace))
		waitStates(t, p, "active active")
		waitStates(t, b, "active active")
		sent := func(p *lag.Port) (n uint64) {
			for _, m := range p.Members() {
				n += m.LACP.Sent
			}
			return n
		}
		give := func() *port.Parcel {
			t.Helper()
			if parcel, err := p.Give(false); parcel != nil || err != nil {
				t.Fatalf("a port that works gives %+v, %v", parcel, err)
			}
			p.Pause()
			parcel, err := p.Give(true)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { afpacket.Drop(parcel) })
			return parcel
		}

		// Nobody takes it.
		give()
		said := sent(b)
		testenv.Eventually(t, "the other end speaks meanwhile", func() bool { return sent(b) > said })
		heard := p.Members()[0].LACP.Received
		p.Resume()
		testenv.Eventually(t, "it hears what was said", func() bool { return p.Members()[0].LACP.Received > heard })
		waitStates(t, p, "active active")

		parcel := give()
		table := p.Bundle().Member
		want := tuntest.Ethernet(3, 60)
		if d := tuntest.Send(b, want, port.Offload{}); d != port.DropNone {
			t.Fatalf("a frame is %v", d)
		}
		p.Close()
		for _, bad := range []port.Parcel{
			{Format: parcel.Format + 1, Data: parcel.Data, Files: parcel.Files},
			{Format: parcel.Format, Data: []byte("{}"), Files: parcel.Files},
			{Format: parcel.Format, Data: parcel.Data, Files: parcel.Files[:3]},
			{Format: parcel.Format, Data: []byte(strings.Replace(string(parcel.Data), `"Slot":1`, `"Slot":8`, 1)), Files: parcel.Files},
			{Format: parcel.Format, Data: []byte(strings.Replace(string(parcel.Data), `"Slot":1`, `"Slot":0`, 1)), Files: parcel.Files},
			{Format: parcel.Format, Data: []byte(strings.Replace(string(parcel.Data), `"Files":1`, `"Files":-1`, 1)), Files: parcel.Files},
		} {
			if _, err := kind.(port.Heir).Take(s, trace, &bad); err == nil {
				t.Errorf("%s with %d files is taken", bad.Data, len(bad.Files))
			}
		}
		next, err := kind.(port.Heir).Take(s, trace, parcel)
		if err != nil {
			t.Fatal(err)
		}
		p = next.(*lag.Port)
		t.Cleanup(func() { p.Close() })
		if now := states(p); now != "active active" || p.Bundle().Member != table || !p.Link() {
			t.Errorf("the members are %s, flows leave by %v, before %v", now, p.Bundle().Member, table)
		}
		if states(b) != "active active" {
			t.Errorf("the other end sees %s", states(b))
		}
		if f := read(t, p).next(t, want); f.Drop != port.DropNone {
			t.Errorf("what came meanwhile is dropped as %v", f.Drop)
		}
		said, heard = sent(p), p.Members()[0].LACP.Received
		testenv.Eventually(t, "both go on to speak", func() bool {
			return sent(p) > said+2 && p.Members()[0].LACP.Received > heard && states(p) == "active active" && states(b) == "active active"
		})
	})
}

// What is kept of a port that works is enough for another process after this one has died, with the
// state of LACP. It changes with the members.
func TestLast(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 2, 1500)
	ns.Do(func() {
		trace := new(port.Trace)
		s := spec(lag.Settings{Members: lag.Names{"a0", "a1"}, LACPRate: "fast"})
		p := open(t, s, trace)
		b := open(t, port.Spec{Name: "lag1", Settings: lag.Settings{Members: lag.Names{"b0", "b1"}, LACPRate: "fast"}}, new(port.Trace))
		changes := func(want string) {
			t.Helper()
			waitStates(t, p, want)
			waitStates(t, b, strings.Replace(want, "no-carrier", "down", 1))
			select {
			case <-p.LastChanged():
			case <-time.After(time.Minute):
				t.Fatalf("with members that are %s, what is kept has not changed", want)
			}
		}
		changes("active active")
		ns.Run("ip", "link", "set", "b0", "down")
		changes("no-carrier active")
		ns.Run("ip", "link", "set", "b0", "up")
		changes("active active")
		parcel, err := p.Last()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { afpacket.Drop(parcel) })
		// It dies without a word, as a port that is given does.
		p.Pause()
		given, err := p.Give(true)
		if err != nil {
			t.Fatal(err)
		}
		afpacket.Drop(given)
		p.Close()
		if _, err := p.Last(); err == nil {
			t.Error("a port that is closed is kept")
		}
		want := tuntest.Ethernet(3, 60)
		if d := tuntest.Send(b, want, port.Offload{}); d != port.DropNone {
			t.Fatalf("a frame is %v", d)
		}
		next, err := kind.(port.Heir).Take(s, trace, parcel)
		if err != nil {
			t.Fatal(err)
		}
		p = next.(*lag.Port)
		t.Cleanup(func() { p.Close() })
		if states(p) != "active active" || states(b) != "active active" {
			t.Errorf("the members are %s, and at the other end %s", states(p), states(b))
		}
		if f := read(t, p).next(t, want); f.Drop != port.DropNone {
			t.Errorf("what came meanwhile is dropped as %v", f.Drop)
		}
		heard := p.Members()[0].LACP.Received
		testenv.Eventually(t, "both go on to speak", func() bool {
			return p.Members()[0].LACP.Received > heard+2 && states(p) == "active active" && states(b) == "active active"
		})
	})
}

// A member that is not there when the port is given comes later.
func TestGiveWithoutMember(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	cables(ns, "a", "b", 2, 1500)
	ns.Do(func() {
		trace := new(port.Trace)
		s := spec(lag.Settings{Members: lag.Names{"a0", "a1", "a2"}, Mode: "active-backup"})
		members := []port.Trace{}
		trace.Members = &members
		p := open(t, s, trace)
		waitStates(t, p, "active standby waiting")
		ns.Run("ip", "link", "set", "b0", "down")
		waitStates(t, p, "no-carrier active waiting")
		p.Pause()
		parcel, err := p.Give(true)
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
		defer afpacket.Drop(parcel)
		ns.Run("ip", "link", "set", "b0", "up")
		next, err := kind.(port.Heir).Take(s, trace, parcel)
		if err != nil {
			t.Fatal(err)
		}
		p = next.(*lag.Port)
		defer p.Close()
		waitStates(t, p, "standby active waiting")
		ns.Run("ip", "link", "add", "a2", "type", "veth", "peer", "name", "b2")
		ns.Run("ip", "link", "set", "a2", "up")
		ns.Run("ip", "link", "set", "b2", "up")
		waitStates(t, p, "standby active standby")
	})
}
