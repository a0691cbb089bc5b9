package link

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Root is the queueing discipline at an interface's root.
type Root struct {
	Kind    string // empty: what the kernel puts there by itself
	Handle  uint32
	Waiting int    // frames
	Dropped uint32 // frames since it was put there; it wraps
}

// ReadRoot returns the queueing discipline at the root of an interface.
func ReadRoot(index int) (r Root, err error) {
	msgs, err := qdiscsAt(index, qdiscRoot)
	if err != nil {
		return r, err
	}
	for _, m := range msgs {
		r.parse(m)
	}
	return r, nil
}

// parse takes in a message of the kernel about a discipline.
func (r *Root) parse(m []byte) {
	if len(m) < nl.SizeofTcMsg {
		return
	}
	t := nl.DeserializeTcMsg(m)
	if t.Parent != qdiscRoot || t.Handle == 0 {
		return // one that the kernel made by itself has no handle
	}
	for typ, value := range attributes(m[nl.SizeofTcMsg:]) {
		switch typ {
		case nl.TCA_KIND:
			r.Kind = unix.ByteSliceToString(value)
		case nl.TCA_STATS2:
			for typ, value := range attributes(value) {
				if typ == nl.TCA_STATS_QUEUE && len(value) >= 12 { // struct gnet_stats_queue
					r.Waiting = int(binary.NativeEndian.Uint32(value))
					r.Dropped = binary.NativeEndian.Uint32(value[8:])
				}
			}
		}
	}
	r.Handle = t.Handle
}
