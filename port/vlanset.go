package port

import (
	"fmt"
	"iter"
	"math/bits"
	"strconv"
	"strings"
)

// VLANSet is a set of VLAN identifiers, 1 to MaxVID. The zero VLANSet is empty.
type VLANSet [64]uint64

// MaxVID is the highest usable VLAN identifier; 4095 is reserved (802.1Q-2018 table 9-2).
const MaxVID = 4094

// AllVLANs contains every VLAN identifier.
var AllVLANs = func() (s VLANSet) {
	for vid := uint16(1); vid <= MaxVID; vid++ {
		s.Add(vid)
	}
	return s
}()

// Has reports whether vid, of 12 bits, is in the set.
func (s *VLANSet) Has(vid uint16) bool { return s[vid>>6&63]&(1<<(vid&63)) != 0 }

// Add adds vid to the set.
func (s *VLANSet) Add(vid uint16) { s[vid>>6&63] |= 1 << (vid & 63) }

// Remove removes vid from the set.
func (s *VLANSet) Remove(vid uint16) { s[vid>>6&63] &^= 1 << (vid & 63) }

// Len returns the number of VLANs in the set.
func (s *VLANSet) Len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// All yields the VLANs in ascending order.
func (s *VLANSet) All() iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(uint16(i<<6 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// CheckVID returns an error unless vid can be a VLAN identifier.
func CheckVID(vid int) error {
	if vid < 1 || vid > MaxVID {
		return fmt.Errorf("%d is not a VLAN; use 1 to %d", vid, MaxVID)
	}
	return nil
}

// ParseVLANSet parses a list such as 10,20-29; "all" is every VLAN.
func ParseVLANSet(text string) (s VLANSet, err error) {
	if text == "all" {
		return AllVLANs, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		// A number with a 0 in front would be another one where numbers can be octal.
		if err1 != nil || err2 != nil || CheckVID(from) != nil || CheckVID(to) != nil || from > to || first[0] == '0' || last[0] == '0' {
			return VLANSet{}, fmt.Errorf("%q is not a list of VLANs; write it as 10,20-29 with numbers from 1 to %d", text, MaxVID)
		}
		for vid := from; vid <= to; vid++ {
			s.Add(uint16(vid))
		}
	}
	return s, nil
}

// UnmarshalText implements encoding.TextUnmarshaler. The empty text is the empty set.
func (s *VLANSet) UnmarshalText(b []byte) (err error) {
	*s = VLANSet{}
	if len(b) > 0 {
		*s, err = ParseVLANSet(string(b))
	}
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (s VLANSet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String writes the set in the shortest form that ParseVLANSet accepts.
func (s *VLANSet) String() string {
	var b strings.Builder
	for vid := uint16(1); vid <= MaxVID; vid++ {
		if !s.Has(vid) {
			continue
		}
		last := vid
		for last < MaxVID && s.Has(last+1) {
			last++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, vid)
		if last > vid {
			fmt.Fprintf(&b, "-%d", last)
		}
		vid = last
	}
	return b.String()
}
