package vswitch

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/vswitch/vswitch/port"
)

// fairFrame is a frame of one of many flows.
func fairFrame(flow, number uint32) *port.Frame {
	f := &port.Frame{Src: port.MAC(flow + 1), Dst: 1, Data: make([]byte, 60)}
	binary.BigEndian.PutUint32(f.Data[14:], number)
	return f
}

// As many flows as there are places have one each, whatever their hashes are.
func TestFairFlowsDoNotCollide(t *testing.T) {
	for seed := range uint64(20) {
		q := fairQueue{seed: seed, rate: port.Rate{PerSecond: 1000}}
		for flow := range uint32(numFlows) {
			f := fairFrame(flow, 0)
			q.push(&port.Out{Frame: f}, 0, q.flowOf(f))
		}
		for i := range q.flows {
			if q.flows[i].head == nil || q.flows[i].head.next != nil {
				t.Fatalf("seed %d: place %d does not have one flow", seed, i)
			}
		}
	}
}

// A new flow gets the free place that is due first, so that it does not wait for what another
// flow has sent.
func TestFairNewFlowIsDueFirst(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		q, first := fairQueue{seed: seed}, -1
		for i := range q.flows {
			f := &q.flows[i]
			f.due = random.Int64N(1000)
			if random.IntN(2) == 0 {
				f.head = new(shaped)
			} else if first < 0 || f.due < q.flows[first].due {
				first = i
			}
		}
		if got := q.flowOf(fairFrame(7, 0)); got != &q.flows[first] {
			t.Errorf("seed %d: the flow gets a place due at %d, in use %v; one due at %d is free", seed, got.due, got.head != nil, q.flows[first].due)
		}
	}
}

// After a change of the rate, flows share the new one: what a flow has sent at the former rate does not count, what waits
// counts by the new one, and nothing is counted twice.
func TestFairRateChanges(t *testing.T) {
	q := fairQueue{rate: port.Rate{PerSecond: 1}}
	push := func(flow uint32) {
		f := fairFrame(flow, 0)
		q.push(&port.Out{Frame: f}, 0, q.flowOf(f))
	}
	pop := func() port.MAC {
		e := q.pop()
		src := e.frame.Src
		q.free(e)
		return src - 1
	}
	for range 3 {
		push(0)
		pop()
	}
	for range 3 {
		push(0)
	}
	q.setRate(port.Rate{PerSecond: 1000})
	if want := int64(3e6); q.waiting != want || q.longest().waiting != want {
		t.Errorf("frames that wait use %d ns, of the flow %d, not %d", q.waiting, q.longest().waiting, want)
	}
	for range 3 {
		push(1)
	}
	if size := 6 * fairFrame(0, 0).DataLen(); q.bytes != size {
		t.Errorf("%d bytes wait, not %d", q.bytes, size)
	}
	var sent [2]int
	for range 4 {
		sent[pop()]++
	}
	if sent != [2]int{2, 2} {
		t.Errorf("of 4 frames, the flows sent %d", sent)
	}
	for q.n > 0 {
		pop()
	}
	if q.bytes != 0 || q.waiting != 0 || q.longest().waiting != 0 {
		t.Errorf("an empty queue has %d bytes, which use %d ns", q.bytes, q.waiting)
	}
}

// A header that is cut off counts as far as it is there: in the flow, and in the frame.
func TestFairHash(t *testing.T) {
	frame := func(n int, ports uint32) *port.Frame {
		b := make([]byte, 14+20+4)
		b[12], b[14], b[17], b[23] = 8, 0x45, 24, 6 // IPv4 with 4 bytes of TCP
		binary.BigEndian.PutUint32(b[34:], ports)
		return &port.Frame{Src: 2, Dst: 4, Data: b[:n:n]}
	}
	q := fairQueue{seed: 5}
	if q.hash(frame(38, 1)) == q.hash(frame(38, 2)) {
		t.Error("the TCP ports make no difference")
	}
	if q.hash(frame(37, 1)) != q.hash(frame(37, 2<<8)) {
		t.Error("half of the ports makes a difference")
	}
}

// Hosts that share the address of a router are flows of their own, by IPv4 and IPv6.
func TestFairHashOfAddresses(t *testing.T) {
	q := fairQueue{seed: 5}
	for version, c := range map[byte]struct {
		typ      [2]byte
		from, to int // the addresses in the header
		hops     int // and the hop limit
	}{4: {[2]byte{8, 0}, 12, 20, 8}, 6: {[2]byte{0x86, 0xdd}, 8, 40, 7}} {
		b := make([]byte, 14+40)
		copy(b[12:], c.typ[:])
		b[14], b[20] = version<<4|5, 59 // no next header
		f := &port.Frame{Src: 2, Dst: 4, Data: b}
		seen := map[uint64]int{q.hash(f): -1}
		for at := c.from; at < c.to; at++ {
			b[14+at] ^= 1
			if other, same := seen[q.hash(f)]; same {
				t.Errorf("IPv%d: a change of byte %d of the header is as one of byte %d", version, at, other)
			}
			seen[q.hash(f)] = at
			b[14+at] ^= 1
		}
		whole := q.hash(f)
		for _, at := range []int{1, 2, 3, 4, 5, c.hops} {
			b[14+at] ^= 1
			if q.hash(f) != whole {
				t.Errorf("IPv%d: byte %d of the header, which can differ within a flow, makes a difference", version, at)
			}
			b[14+at] ^= 1
		}
	}
}

// Each flow stays in order, with more flows than places, as places fill and empty.
func TestFairFlowsStayInOrder(t *testing.T) {
	q := fairQueue{seed: 1, rate: port.Rate{PerSecond: 1000}}
	const flows = 3 * numFlows
	var sent, came [flows]uint32
	random := uint32(1)
	for step := range 200_000 {
		random = random*1664525 + 1013904223
		fill := step/2000%2 == 0 // the queue becomes long, then empty
		if q.n == 0 || random>>30 != 0 == fill {
			flow := random >> 8 % flows
			f := fairFrame(flow, sent[flow])
			sent[flow]++
			q.push(&port.Out{Frame: f}, 0, q.flowOf(f))
			continue
		}
		e := q.pop()
		flow, number := uint32(e.frame.Src)-1, binary.BigEndian.Uint32(e.frame.Data[14:])
		if number != came[flow] {
			t.Fatalf("step %d: frame %d of flow %d comes, want %d", step, number, flow, came[flow])
		}
		came[flow]++
		q.free(e)
	}
}
