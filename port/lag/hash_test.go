package lag

import (
	"encoding/binary"
	"testing"

	"github.com/vswitch/vswitch/port"
)

// No bucket moves that need not, and members have equal shares.
func TestRebalance(t *testing.T) {
	b := noBuckets
	for _, active := range [][]int{{0}, {0, 3}, {0, 3, 5}, {3, 5}, {3, 5}, {1, 3, 5, 7, 0, 2, 4, 6}, {6}, nil, {2, 1}} {
		before := b
		b = b.rebalance(active)
		var has, had [maxMembers]int
		moved := 0
		is := make(map[uint8]bool)
		for _, m := range active {
			is[uint8(m)] = true
		}
		for i := range b {
			if before[i] != none {
				had[before[i]]++
			}
			if b[i] == none {
				if len(active) > 0 {
					t.Fatalf("%v: a bucket is nobody's", active)
				}
				continue
			}
			if !is[b[i]] {
				t.Fatalf("%v: a bucket is %d's", active, b[i])
			}
			has[b[i]]++
			if is[before[i]] && before[i] != b[i] {
				moved++
			}
		}
		need := 0
		for _, m := range active {
			if n := has[m]; n < numBuckets/len(active) || n > numBuckets/len(active)+1 {
				t.Errorf("%v: %d has %d buckets", active, m, n)
			}
			need += max(0, had[m]-has[m])
		}
		if moved != need {
			t.Errorf("%v: %d buckets move from one to another, %d need to", active, moved, need)
		}
	}
}

// frame is one of IPv4, or IPv6 with long.
func frame(long bool, protocol byte, fragment uint16, last, port1 byte) *port.Frame {
	b := make([]byte, 14, 80)
	b[5], b[11] = 1, 2
	if long {
		binary.BigEndian.PutUint16(b[12:], typeIPv6)
		b = append(b, make([]byte, 40)...)
		b[14+6], b[14+39] = protocol, last
	} else {
		binary.BigEndian.PutUint16(b[12:], typeIPv4)
		b = append(b, make([]byte, 24)...)
		b[14], b[14+9], b[14+19] = 0x46, protocol, last
		binary.BigEndian.PutUint16(b[14+6:], fragment)
	}
	b = append(b, 0, port1, 0, 80, 0, 0, 0, 0)
	f := new(port.Frame)
	f.SetStripped(b, 0)
	return f
}

// Frames with the same addresses and ports, as far as they count, go together; others spread.
func TestBucket(t *testing.T) {
	differ := func(h Hash, make func(byte) *port.Frame) int {
		seen := map[uint8]bool{}
		for i := range 200 {
			seen[h.bucket(make(byte(i)))] = true
		}
		return len(seen)
	}
	address := func(i byte) *port.Frame { return frame(false, protocolTCP, 0, i, 1) }
	address6 := func(i byte) *port.Frame { return frame(true, protocolTCP, 0, i, 1) }
	ports := func(i byte) *port.Frame { return frame(false, protocolTCP, 0, 1, i) }
	ports6 := func(i byte) *port.Frame { return frame(true, protocolUDP, 0, 1, i) }
	fragments := func(i byte) *port.Frame { return frame(false, protocolUDP, 0x2000, 1, i) }
	icmp := func(i byte) *port.Frame { return frame(false, 1, 0, 1, i) }
	stations := func(i byte) *port.Frame {
		f := frame(false, 1, 0, 1, 1)
		f.Src = port.MAC(i) + 1
		return f
	}
	strange := func(i byte) *port.Frame {
		f := stations(i)
		f.Data = f.Data[:14+i%20]
		return f
	}
	for _, c := range []struct {
		what string
		make func(byte) *port.Frame
		by   map[Hash]bool // what spreads them
	}{
		{"addresses", address, map[Hash]bool{hashIP: true, "": true, hashPorts: true}},
		{"addresses of IPv6", address6, map[Hash]bool{hashIP: true, "": true, hashPorts: true}},
		{"ports", ports, map[Hash]bool{hashPorts: true}},
		{"ports by IPv6", ports6, map[Hash]bool{hashPorts: true}},
		{"fragments", fragments, nil},
		{"no ports", icmp, nil},
		{"stations", stations, map[Hash]bool{hashMAC: true, hashIP: true, "": true}},
		{"cut off", strange, map[Hash]bool{hashMAC: true, hashIP: true, "": true, hashPorts: true}},
	} {
		for _, h := range []Hash{hashMAC, hashIP, "", hashPorts} {
			if n := differ(h, c.make); c.by[h] != (n > 1) || n > 1 && n < 80 {
				t.Errorf("%s by %q: %d buckets", c.what, h, n)
			}
		}
	}
}

// FuzzBucket: no frame is too strange.
func FuzzBucket(f *testing.F) {
	f.Add(frame(false, protocolTCP, 0, 1, 1).Data)
	f.Add(frame(true, protocolUDP, 0, 1, 1).Data)
	f.Fuzz(func(t *testing.T, b []byte) {
		f := new(port.Frame)
		f.SetStripped(b, 0)
		for _, h := range []Hash{hashMAC, hashIP, hashPorts} {
			was := h.bucket(f)
			if again := h.bucket(f); again != was {
				t.Error("two of the same frame part")
			}
		}
	})
}
