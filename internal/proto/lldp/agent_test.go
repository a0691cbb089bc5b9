package lldp

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// begin is some moment.
var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at returns a moment some seconds later.
func at(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }

// sends returns what an agent sends in n seconds from the second from: a farewell, greetings and
// reminders, each with its second.
func sends(a *Agent, from, n int) (all []string) {
	for s := from; s < from+n; s++ {
		if m := a.Tick(at(s)); m != Nothing {
			all = append(all, fmt.Sprintf("%d %c", s, "-fgr"[m]))
		}
	}
	return all
}

func from(chassis string, ttl uint16) []byte {
	return Append(nil, source, &PDU{Chassis: ID{KindLocal, chassis}, Port: ID{KindLocal, "p"}, TTL: ttl, SystemName: chassis})
}

func TestTransmission(t *testing.T) {
	var a Agent
	want := func(got []string, want string) {
		t.Helper()
		if strings.Join(got, ",") != want {
			t.Errorf("sends %v, want %v", got, want)
		}
	}
	// Whoever knows the port from a former process takes this one for a new neighbour.
	want(sends(&a, 0, 70), "0 f,1 g,2 g,3 g,4 g,34 r,64 r")
	a.Announce()
	a.Announce()
	want(sends(&a, 70, 40), "70 r,100 r")
	// Four PDUs greet a new neighbour, one a second, and none greets one that is known.
	for range 3 {
		if err := a.Receive(at(110), from("n", TTL)); err != nil {
			t.Fatal(err)
		}
	}
	want(sends(&a, 110, 50), "110 g,111 g,112 g,113 g,143 r")
	// Nobody makes it send more than once a second.
	for second := 160; second < 170; second++ {
		for i := range 2 * MaxNeighbors {
			for _, ttl := range []uint16{TTL, 0} {
				if err := a.Receive(at(second), from(fmt.Sprint("made up ", i), ttl)); err != nil {
					t.Fatal(err)
				}
			}
		}
		want(sends(&a, second, 1), fmt.Sprint(second, " g"))
	}
	// What a lost cable interrupts is not made up for: the next neighbour is another one.
	want(sends(&a, 170, 1), "170 g")
	a.Reset()
	a.Announce()
	want(sends(&a, 172, 40), "172 f,173 g,174 g,175 g,176 g,206 r")
	if a.Counters.Sent != 31 || a.Counters.Received != 3+10*4*MaxNeighbors {
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
