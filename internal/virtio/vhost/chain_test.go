package vhost

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// ringOf lays descriptors into a ring of a kind and makes available what a test says. A chain's
// descriptors have NEXT in their flags where they go on.
type ringOf struct {
	open  func(t *testing.T, c ringCommon, size int, all []byte, chain []descriptor) queue
	entry func(table []byte, i int, d descriptor)
}

const (
	chainMemory = 1 << 17
	tableAt     = 1 << 16 // where tables lie
	cutAt       = tableAt + 1<<15
)

var ringsOf = map[string]ringOf{
	"split": {
		func(t *testing.T, c ringCommon, size int, all []byte, chain []descriptor) queue {
			a := RingAddr{Desc: testUVA, Avail: testUVA + 16*uint64(size), Used: testUVA + 20*uint64(size)}
			for i, d := range chain {
				putDesc(all, i, d, d.flags, uint16(i+1))
			}
			binary.LittleEndian.PutUint16(all[16*size+2:], 1)
			q, err := openSplit(c, size, a)
			if err != nil {
				t.Fatal(err)
			}
			return q
		},
		func(table []byte, i int, d descriptor) { putDesc(table, i, d, d.flags, d.next) },
	},
	"packed": {
		func(t *testing.T, c ringCommon, size int, all []byte, chain []descriptor) queue {
			a := RingAddr{Desc: testUVA, Avail: testUVA + 20*uint64(size), Used: testUVA + 20*uint64(size) + 8}
			at := place{0, true}
			for i, d := range chain {
				putDesc(all, at.index, d, uint16(7+i), d.flags|availableFlag(at))
				at.move(1, size)
			}
			q, err := openPacked(c, size, a, 1<<15, nil)
			if err != nil {
				t.Fatal(err)
			}
			return q
		},
		func(table []byte, i int, d descriptor) { putDesc(table, i, d, 0, d.flags) },
	},
}

// A chain is the buffers that its descriptors and its table name, or the ring is broken.
func TestChains(t *testing.T) {
	const buf = testGPA + 1<<15
	direct := func(n uint32, flags uint16) descriptor { return descriptor{addr: buf, len: n, flags: flags} }
	table := func(n uint32, flags uint16) descriptor {
		return descriptor{addr: testGPA + tableAt, len: n, flags: descIndirect | flags}
	}
	long := func(n int) (d []descriptor) {
		for i := range n {
			d = append(d, descriptor{addr: buf, len: 1, flags: descNext, next: uint16(i + 1)})
		}
		d[n-1].flags = 0
		return d
	}
	ones := func(n int) []int { return slices.Repeat([]int{1}, n) }
	for name, c := range map[string]struct {
		size      int // of the ring; 0: 16
		chain     []descriptor
		table     []descriptor
		write     bool
		unoffered bool
		want      []int // lengths of the buffers
		err       error
		onlySplit bool
	}{
		"one":                        {chain: long(1), want: ones(1)},
		"as many as the ring has":    {chain: long(16), want: ones(16)},
		"a table":                    {chain: []descriptor{table(48, 0)}, table: long(3), want: ones(3)},
		"a table of as many":         {chain: []descriptor{table(256, 0)}, table: long(16), want: ones(16)},
		"a table of more":            {chain: []descriptor{table(272, 0)}, table: long(17), err: errLoop},
		"a table in a chain":         {chain: []descriptor{direct(5, descNext), table(48, 0)}, table: long(3), want: []int{5, 1, 1, 1}},
		"1024 of more":               {size: 2048, chain: long(1024), want: ones(1024)},
		"1025 of more":               {size: 2048, chain: long(1025), err: errLoop},
		"a table that goes on":       {chain: []descriptor{table(48, descNext), direct(1, 0)}, table: long(3), err: errIndirect},
		"a table nobody agreed to":   {chain: []descriptor{table(48, 0)}, table: long(3), unoffered: true, err: errIndirect},
		"a table in a table":         {chain: []descriptor{table(48, 0)}, table: []descriptor{table(48, 0), direct(1, 0), direct(1, 0)}, err: errIndirect},
		"a table of nothing":         {chain: []descriptor{table(0, 0)}, err: errTable},
		"a table and a half":         {chain: []descriptor{table(24, 0)}, table: long(1), err: errTable},
		"a table outside":            {chain: []descriptor{{addr: testGPA + chainMemory - 16, len: 32, flags: descIndirect}}, err: errTable},
		"a table across regions":     {chain: []descriptor{{addr: testGPA + cutAt - 16, len: 32, flags: descIndirect}}, err: errTable},
		"a buffer across regions":    {chain: []descriptor{{addr: testGPA + cutAt - 7, len: 30}}, want: []int{7, 23}},
		"a buffer outside":           {chain: []descriptor{{addr: testGPA + chainMemory, len: 1}}, err: errAddress},
		"a buffer to the outside":    {chain: []descriptor{{addr: testGPA + chainMemory - 1, len: 2}}, err: errAddress},
		"a buffer to the end":        {chain: []descriptor{{addr: testGPA + chainMemory - 1, len: 1}}, want: ones(1)},
		"an outside buffer in table": {chain: []descriptor{table(16, 0)}, table: []descriptor{{addr: testGPA + chainMemory, len: 1}}, err: errAddress},
		"an empty buffer":            {chain: []descriptor{direct(0, descNext), direct(3, 0)}, want: []int{3}},
		"to be written":              {chain: []descriptor{direct(3, descWrite)}, write: true, want: []int{3}},
		"to be written, not read":    {chain: []descriptor{direct(3, descWrite)}, err: errReadOnly},
		"to be read, not written":    {chain: []descriptor{direct(3, 0)}, write: true, err: errReadOnly},
		"to be read at the end":      {chain: []descriptor{direct(3, descWrite|descNext), direct(3, 0)}, write: true, err: errReadOnly},
		"on beyond the table":        {chain: []descriptor{table(16, 0)}, table: []descriptor{{addr: buf, len: 1, flags: descNext, next: 1}}, err: errIndex, onlySplit: true},
		"round in a table":           {chain: []descriptor{table(16, 0)}, table: []descriptor{{addr: buf, len: 1, flags: descNext}}, err: errLoop, onlySplit: true},
	} {
		for kind, ring := range ringsOf {
			if c.onlySplit && kind != "split" {
				continue
			}
			size := c.size
			if size == 0 {
				size = 16
			}
			mem, all := guestMemory(chainMemory, cutAt)
			for i, d := range c.table {
				ring.entry(all[tableAt:], i, d)
			}
			q := ring.open(t, ringCommon{mem: mem, indirect: !c.unoffered}, size, all, c.chain)
			chain, parts, ok, err := q.next(nil, c.write)
			var got []int
			for _, p := range parts {
				got = append(got, len(p.Bytes))
			}
			if c.err != nil {
				if ok || !errors.Is(err, c.err) {
					t.Errorf("%s, %s: %v, %v; want %v", kind, name, ok, err, c.err)
				}
				continue
			}
			if !ok || err != nil || !slices.Equal(got, c.want) || !inside(all, parts) {
				t.Errorf("%s, %s: %v, %v, buffers of %d bytes, want %d", kind, name, ok, err, got, c.want)
			}
			if want := uint16(7 + len(c.chain) - 1); kind == "packed" && (chain.id != want || int(chain.slots) != len(c.chain)) {
				t.Errorf("%s, %s: %+v", kind, name, chain)
			}
			if q.peek() {
				t.Errorf("%s, %s: something is left", kind, name)
			}
		}
	}
}

// More is not available than the ring has, and no chain begins beyond it.
func TestSplitOverrun(t *testing.T) {
	for _, c := range []struct {
		available, head uint16
		n               int // of single chains
		err             error
	}{
		{fuzzRing, 0, fuzzRing, nil}, {fuzzRing + 1, 0, 0, errAvail}, {65535, 0, 0, errAvail},
		{1, fuzzRing - 1, 1, nil}, {1, fuzzRing, 0, errIndex}, {1, 65535, 0, errIndex},
	} {
		q, avail, _ := splitRing(t, ringCommon{}, 0)
		binary.LittleEndian.PutUint16(avail[2:], c.available)
		binary.LittleEndian.PutUint16(avail[4:], c.head)
		singles, err := q.singles(1, false)
		if len(singles) != c.n || (err != nil) != (c.err == errAvail) {
			t.Errorf("%+v: %d chains, %v", c, len(singles), err)
		}
		if _, _, ok, err := q.next(nil, false); ok != (c.err == nil) || !errors.Is(err, c.err) {
			t.Errorf("%+v: %v, %v", c, ok, err)
		}
	}
}

// A packed ring and its areas lie in the guest's memory, and it begins within.
func TestPackedPlace(t *testing.T) {
	mem, _ := guestMemory(fuzzSize, 5000)
	good := RingAddr{Desc: testUVA, Avail: testUVA + usedAt, Used: testUVA + usedAt + 4}
	for name, c := range map[string]struct {
		a    RingAddr
		base uint32
		err  bool
	}{
		"all":                 {good, fuzzRing - 1, false},
		"base behind":         {good, fuzzRing, true},
		"descriptors outside": {RingAddr{Desc: testUVA + fuzzSize - 16*fuzzRing + 8, Avail: good.Avail, Used: good.Used}, 0, true},
		"descriptors at 4":    {RingAddr{Desc: testUVA + 4, Avail: good.Avail, Used: good.Used}, 0, true},
		"driver's outside":    {RingAddr{Desc: good.Desc, Avail: testUVA + fuzzSize, Used: good.Used}, 0, true},
		"driver's at 2":       {RingAddr{Desc: good.Desc, Avail: good.Avail + 2, Used: good.Used}, 0, true},
		"device's outside":    {RingAddr{Desc: good.Desc, Avail: good.Avail, Used: testUVA + fuzzSize}, 0, true},
		"device's at 2":       {RingAddr{Desc: good.Desc, Avail: good.Avail, Used: good.Used + 2}, 0, true},
	} {
		q, err := openPacked(ringCommon{mem: mem}, fuzzRing, c.a, c.base, nil)
		if (err != nil) != c.err || err == nil && q.base() != c.base|c.base<<16 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A driver of a packed ring wants calls for all that is used, for nothing, or for one descriptor,
// if that was agreed on.
func TestPackedCalls(t *testing.T) {
	for _, c := range []struct {
		flags    uint32
		eventIdx bool
		want     bool
	}{
		{eventsOn, false, true}, {eventsOn, true, true}, {eventsOff, false, false}, {eventsOff, true, false},
		{eventsDesc, false, true}, {eventsDesc, true, false}, {3, true, true},
	} {
		r := newPackedRing()
		p := r.open(t)
		p.eventIdx = c.eventIdx
		store32(p.driver, c.flags<<16|9|1<<15)
		if p.wantsCall() {
			t.Errorf("%+v: a call without news", c)
		}
		r.fill(place{0, true}, 1)
		use(t, p, 1)
		p.publish()
		if got := p.wantsCall(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
		if p.wantsCall() {
			t.Errorf("%+v: a second call", c)
		}
	}
}

// What the device writes while the driver is asked for kicks, or not.
func TestPackedKicks(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		r := newPackedRing()
		p := r.open(t)
		p.eventIdx = eventIdx
		r.fill(place{0, true}, 3)
		use(t, p, 3)
		p.askKick(false)
		if got := load32(p.device); got>>16 != eventsOff {
			t.Errorf("event index %v: no kicks is %#x", eventIdx, got)
		}
		p.askKick(true)
		want := uint32(eventsOn)
		if eventIdx {
			want = eventsDesc<<16 | 1<<15 | 3
		}
		if got := load32(p.device); got != want {
			t.Errorf("event index %v: kicks are %#x, want %#x", eventIdx, got, want)
		}
	}
}
