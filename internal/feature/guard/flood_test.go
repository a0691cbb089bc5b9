package guard_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/port"
)

// A guarded VM that sends DHCP, neighbour discovery and ARP as fast as it can, true and forged,
// takes nothing from others: a neighbour gets leases, renews them and forms addresses meanwhile,
// and the daemon answers.
func TestFlood(t *testing.T) {
	t.Parallel()
	for _, k := range kinds[:2] {
		t.Run(k.name, func(t *testing.T) { flood(newLab(t, k)) })
	}
}

func flood(l *lab) {
	l.set("A", "--guard-address 10.99.0.10 --guard-address fd99::10 --guard-learn dhcp,slaac")
	l.set("V", "--guard-learn dhcp,slaac")
	l.pass("the router", "T", Eth(allNodes, macT, tIPv6, routerAdvert(localT, "fd98::")), "A", "V", "B")

	var running sync.WaitGroup
	stop := make(chan struct{})
	defer running.Wait()
	defer close(stop)
	// each runs a part until the end.
	each := func(do func()) {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					do()
				}
			}
		})
	}
	release := message4(l, dhcpv4.MessageTypeRelease, 1, macV, dhcpv4.WithClientIP(net.ParseIP("10.99.0.11")))
	frames := [][]byte{
		client(macA, message4(l, dhcpv4.MessageTypeDiscover, 1, macA)), client(macA, request(l, 1, "10.99.0.11")),
		Eth(Broadcast, macA, tIPv4, IPv4("10.99.0.10", "255.255.255.255", 17, UDP(68, 67, release))),
		Eth(Broadcast, macA, tARP, ARP(1, macA, "10.99.0.10", 0, "10.99.0.11")), garp(macA, "10.99.0.11"), garp(macA, "10.99.0.10"),
		advert(allNodes, "fd99::10", macA), advert(allNodes, "fd98::b", macA), solicitation("fd99::10"), solicitation("fd98::b"),
		Eth(0x3333_0000_0002, macA, tIPv6, ICMPv6(localA, "ff02::2", 133, make([]byte, 4))),
		Eth(0x3333_0001_0002, macA, tIPv6, IPv6(localA, "ff02::1:2", 17, UDP(546, 547, []byte{1, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0x99, 0, 0xa}))),
	}
	for i := range 100 { // new addresses and transactions all the time
		frames = append(frames, solicitation(fmt.Sprintf("fd98::%x", 0x1000+i)), client(macA, request(l, uint32(i), "10.99.0.12")))
	}
	each(func() { _ = l.guests["A"].Send(frames[rand.IntN(len(frames))], port.Offload{}) }) // what has no room is not missed
	for _, name := range []string{"V", "B"} {
		each(func() { _, _ = l.guests[name].Recv(100 * time.Millisecond) })
	}
	each(func() { // the server
		b, err := l.guests["T"].Recv(100 * time.Millisecond)
		if err != nil || len(b) < 42+240 || !bytes.Equal(b[6:12], macV.HardwareAddr()) || binary.BigEndian.Uint16(b[36:]) != 67 {
			return
		}
		if m, err := dhcpv4.FromBytes(b[42:]); err == nil && m.MessageType() == dhcpv4.MessageTypeRequest {
			a, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.ParseIP("10.99.0.11")), dhcpv4.WithLeaseTime(600))
			if err == nil {
				_ = l.guests["T"].Send(Eth(macV, macT, tIPv4, IPv4("10.99.0.1", "10.99.0.11", 17, UDP(67, 68, a.ToBytes()))), port.Offload{})
			}
		}
	})

	has := func(address, source string) (b binding, ok bool) {
		var all []binding
		if err := l.sw.Client.Do(l.Context(), http.MethodGet, "/v1/guard/vm1", nil, &all); err != nil {
			l.Fatal(err)
		}
		i := slices.IndexFunc(all, func(b binding) bool { return b.Address == address && b.Source == source && b.State == "bound" })
		if i < 0 {
			return b, false
		}
		return all[i], true
	}
	// again sends a frame of V's until it has done what it should, as hosts do.
	again := func(what string, frame func(xid uint32) []byte, done func() bool) {
		next := time.Time{}
		eventually(l, what, func() bool {
			if time.Now().After(next) {
				next = time.Now().Add(500 * time.Millisecond)
				l.xids++
				l.put("V", frame(1<<20+l.xids))
			}
			return done()
		})
	}
	again("V has a lease", func(xid uint32) []byte {
		return client(macV, message4(l, dhcpv4.MessageTypeRequest, xid, macV, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP("10.99.0.11")))))
	}, func() bool { _, ok := has("10.99.0.11", "dhcp"); return ok })
	first, _ := has("10.99.0.11", "dhcp")
	began := time.Now()
	again("V renews it", func(xid uint32) []byte {
		renew := message4(l, dhcpv4.MessageTypeRequest, xid, macV, dhcpv4.WithClientIP(net.ParseIP("10.99.0.11")))
		return Eth(macT, macV, tIPv4, IPv4("10.99.0.11", "10.99.0.1", 17, UDP(68, 67, renew)))
	}, func() bool {
		b, ok := has("10.99.0.11", "dhcp")
		left := first.ExpiresS - int64(time.Since(began).Seconds())
		return ok && b.ExpiresS > left+1
	})
	again("V forms an address", func(uint32) []byte {
		b := solicitation("fd98::c")
		copy(b[6:], macV.HardwareAddr())
		return b
	}, func() bool { _, ok := has("fd98::c", "slaac"); return ok })
	if n := l.dropped("vm0")["guard_dhcp_rate"]; n == 0 {
		l.Errorf("A was not limited: %v", l.dropped("vm0"))
	}
	if n := l.dropped("vm1"); len(n) != 0 {
		l.Errorf("V's port dropped %v", n)
	}
}
