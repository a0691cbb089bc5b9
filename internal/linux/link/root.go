package link

import (
	"encoding/binary"
	"errors"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Root is the queueing discipline at an interface's root.
type Root struct {
	Kind    string // empty: the kernel's own
	Handle  uint32
	Waiting int    // frames
	Dropped uint32 // frames since it was put there; it wraps
}

// ReadRoot returns the queueing discipline at the root of an interface.
func ReadRoot(index int) (r Root, err error) {
	// With an acknowledgement, since the kernel sends no answer about noqueue.
	req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_ACK|unix.NLM_F_ECHO)
	req.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: qdiscRoot})
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	switch {
	case errors.Is(err, unix.ENODEV):
		return r, notFound("the interface is gone")
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return r, nil // there is none
	case err != nil:
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
