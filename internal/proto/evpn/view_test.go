package evpn

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

// What users see: where a station is, with the addresses that it has there, and of each route whether its peer
// has said it again since it was lost, and whether a network of this host uses it.
func TestView(t *testing.T) {
	r := newRig(t, Config{})
	r.local(mac1)
	r.frame(ask(ip4a, ip4b))
	r.Receive(7, remote(2, mac2, 3))
	r.Receive(7, remoteIP(2, mac2, ip6b))
	r.Receive(7, remoteIP(2, mac2, ip4b))
	old := remoteIP(3, mac2, ip6a) // the station was there before, with another address
	r.Receive(8, old)
	second := remoteIP(3, mac2, ip4c) // it is there as well (multihoming), and asked its second host for an address
	second.Seq = 3
	r.Receive(8, second)
	other := remote(2, mac2+1, 0)
	other.Targets = Targets{vni + 1}
	r.Receive(7, other)

	got := slices.SortedFunc(r.Stations(), Station.Compare)
	want := []Station{
		{VNI: vni, MAC: mac1, VTEP: self, Port: 1, IPs: []netip.Addr{ip4a}},
		{VNI: vni, MAC: mac2, VTEP: vtep(2), Seq: 3, IPs: []netip.Addr{ip4b, ip4c, ip6b}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("stations: %+v\nwant %+v", got, want)
	}

	r.Down(7, time.Minute)
	r.Receive(7, remote(2, mac2, 3))
	stale, unused := map[Peer]int{}, 0
	for p := range r.Paths() {
		if p.Stale {
			stale[p.Peer]++
		}
		if !p.Used {
			unused++
		}
	}
	if stale[7] != 3 || stale[8] != 0 || unused != 1 {
		t.Errorf("of 4 routes of a peer that has said one again, %d are stale, and %d of another; %d are unused, want 1", stale[7], stale[8], unused)
	}
}

// An answer to ARP as RFC 826 and IEEE 802.3 want it: a reply, in a frame of the least length.
func TestAnswerOnTheWire(t *testing.T) {
	r := newRig(t, Config{})
	r.local(mac1)
	r.Receive(7, remoteIP(2, mac2, ip4b))
	r.frame(ask(ip4a, ip4b))
	if len(r.frames) != 1 {
		t.Fatalf("%d answers", len(r.frames))
	}
	b := slices.Concat(mac1.HardwareAddr(), mac2.HardwareAddr(), []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}, mac2.HardwareAddr(), ip4b.AsSlice(), mac1.HardwareAddr(), ip4a.AsSlice(), make([]byte, 18))
	if !bytes.Equal(r.frames[0], b) {
		t.Errorf("the answer is\n%s, not\n%s", hex.EncodeToString(r.frames[0]), hex.EncodeToString(b))
	}
}

// A duplicate is held for defaultHold unless the configuration says otherwise.
func TestDefaultHold(t *testing.T) {
	r := newRig(t, Config{})
	for n := range Moves {
		r.Receive(7, remote(2, mac1, uint32(2*n)))
		r.pass(time.Second)
		r.local(mac1)
	}
	if len(r.conflicts) != 1 || r.conflicts[0].Held != defaultHold {
		t.Errorf("%+v, want one held for %v", r.conflicts, defaultHold)
	}
}

// No station has the address 0, so no message from it counts.
func TestMessageOfNobody(t *testing.T) {
	for _, b := range [][]byte{
		arp(broadcast, 0, arpRequest, 0, ip4a, 0, ip4b),
		neighbour(nodes, 0, ip6a, ip6b, solicitation, 0, ip6b, sourceLink),
	} {
		if m, ok := parse(b); ok {
			t.Errorf("%x is understood as %+v", b, m)
		}
	}
}

// A limit of one is one.
func TestLimitOfOne(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{VTEPs: 1}})
	r.Receive(7, remote(2, mac1, 0))
	r.Receive(7, remote(3, mac2, 0))
	if s := r.Stats(); s.Routes != 1 || s.RefusedRoutes != 1 || r.LeftOut(7) != 1 {
		t.Errorf("%+v, %d routes are left out", s, r.LeftOut(7))
	}
	if r.Down(7, time.Minute); r.LeftOut(7) != 0 {
		t.Errorf("in a new session, %d routes are left out", r.LeftOut(7))
	}
}
