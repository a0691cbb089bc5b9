package lldp

import (
	"fmt"
	"testing"
	"time"
)

// begin is some moment.
var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at returns a moment some seconds later.
func at(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }

// sends returns the seconds in which an agent sends, of n from the second from.
func sends(a *Agent, from, n int) (all []int) {
	for s := from; s < from+n; s++ {
		if a.Tick(at(s)) {
			all = append(all, s)
		}
	}
	return all
}

func from(chassis string, ttl uint16) []byte {
	return Append(nil, source, &PDU{Chassis: ID{KindLocal, chassis}, Port: ID{KindLocal, "p"}, TTL: ttl, SystemName: chassis})
}

func TestTransmission(t *testing.T) {
	var a Agent
	want := func(got []int, want ...int) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("sends in %v, want %v", got, want)
		}
	}
	want(sends(&a, 0, 70), 0, 30, 60)
	a.Announce()
	a.Announce()
	want(sends(&a, 70, 40), 70, 100)
	// Four PDUs greet a new neighbour, one a second, and none greets one that is known.
	for range 3 {
		if err := a.Receive(at(110), from("n", TTL)); err != nil {
			t.Fatal(err)
		}
	}
	want(sends(&a, 110, 50), 110, 111, 112, 113, 143)
	// What a lost cable interrupts is not made up for.
	if err := a.Receive(at(160), from("m", TTL)); err != nil {
		t.Fatal(err)
	}
	want(sends(&a, 160, 2), 160, 161)
	a.Reset()
	a.Announce()
	want(sends(&a, 162, 40), 162, 192)
	if a.Counters.Sent != 14 || a.Counters.Received != 4 {
		t.Errorf("%+v", a.Counters)
	}
}

func TestNeighbours(t *testing.T) {
	var a Agent
	names := func() (all []string) {
		for _, n := range a.Neighbors() {
			all = append(all, n.SystemName)
		}
		return all
	}
	want := func(want ...string) {
		t.Helper()
		if got := names(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("neighbours %v, want %v", got, want)
		}
	}
	receive := func(second int, frame []byte) {
		t.Helper()
		if err := a.Receive(at(second), frame); err != nil {
			t.Fatal(err)
		}
	}
	receive(0, from("one", 10))
	receive(1, from("two", 100))
	want("one", "two")
	receive(9, from("one", 10))
	a.Tick(at(18))
	want("one", "two")
	if n := a.Neighbors()[0]; !n.Since.Equal(at(0)) || !n.Until.Equal(at(19)) {
		t.Errorf("%+v", n)
	}
	a.Tick(at(19))
	want("two")
	receive(20, Shutdown(source, PDU{Chassis: ID{KindLocal, "other"}, Port: ID{KindLocal, "p"}}))
	want("two")
	receive(20, from("two", 0))
	want()
	if err := a.Receive(at(21), make([]byte, 60)); err == nil {
		t.Error("a frame of zeros is a PDU")
	}
	// Whoever makes up neighbours fills the table, and no more.
	for i := range 3 * MaxNeighbors {
		receive(22, from(fmt.Sprintf("n%02d", i), 50))
	}
	if n := len(names()); n != MaxNeighbors {
		t.Errorf("%d neighbours", n)
	}
	if c := a.Counters; c.Aged != 1 || c.Discarded != 1 || c.Refused != 2*MaxNeighbors || c.Received != 6+3*MaxNeighbors {
		t.Errorf("%+v", c)
	}
	receive(23, from("n00", 500))
	a.Tick(at(80))
	want("n00")
	a.Reset()
	want()
}
