// Package shape has the kernel keep an egress rate at an interface, by queueing disciplines (tc-htb(8),
// tc-fq_codel(8)), so that frames which the kernel forwards by itself wait in one queue with those that are sent.
// Calls act on the calling thread's network namespace. Package afpacket makes them for a port, and sees to it that nothing
// is lost meanwhile; the kinds call Remove when they give an interface back.
package shape

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
)

// A shaped interface has htb at its root, with a class that has the rate: htb lets a frame of any
// length pass whole once it is its turn, and counts a super-frame as its segments.
//
// The handle of htb tells the switch's from those of others, and what was there before.
const (
	handle        = 0x7673 << 16 // in place of what the kernel puts there by itself
	handleNoQueue = 0x7674 << 16 // in place of noqueue
	rateClass     = 1
)

const (
	// superBytes is the longest super-frame on the wire.
	superBytes = 68 << 10

	// burst is how far the interface may run ahead of its rate after silence. On a busy
	// machine the kernel's timers fire late, and time beyond this is lost.
	burst = 20 * time.Millisecond

	// mostBytes bounds what waits, and the burst, at high rates.
	mostBytes = 2 << 20

	// lifted is the rate, in bit/s, of an interface whose waiting frames leave at once.
	lifted = 100e9
)

const noQueue = "noqueue"

// State is what shapes an interface.
type State struct {
	On      bool
	Waiting int    // frames
	Dropped uint32 // frames, since it is on; it wraps

	handle uint32
	fair   bool // flows share the rate by fq_codel; set by Set
}

// Read returns what shapes an interface.
func Read(index int) (State, error) {
	r, err := link.ReadRoot(index)
	return stateOf(r), err
}

func stateOf(r link.Root) State {
	if r.Kind != "htb" || r.Handle != handle && r.Handle != handleNoQueue {
		return State{}
	}
	return State{On: true, Waiting: r.Waiting, Dropped: r.Dropped, handle: r.Handle}
}

// How says in words how the interface that Set has shaped keeps its rate.
func (s State) How() string {
	if s.fair {
		return "htb with fq_codel"
	}
	return fmt.Sprintf("htb with %d classes, since the kernel lacks fq_codel", numFlows)
}

// Priority returns the priority (SO_PRIORITY) of frames that leave the interface at once, before those
// that wait.
func (s State) Priority() int { return int(s.handle) }

// Set has an interface send no more than a rate in bit/s. One that is shaped gets the rate without losing a
// frame. Another one loses what is sent meanwhile, except past its discipline; it must have none that
// somebody put there. An error of Check changes nothing; after another one nothing shapes it.
func Set(index int, bits uint64) (s State, err error) {
	if err := Check(bits); err != nil {
		return s, err
	}
	r, err := link.ReadRoot(index)
	if err != nil {
		return s, err
	}
	if s = stateOf(r); !s.On {
		if r.Kind != "" && r.Kind != noQueue {
			return s, fmt.Errorf("the queueing discipline %s is on the interface, which the switch did not put there", r.Kind)
		}
		s = State{On: true, handle: handle}
		if r.Kind == noQueue {
			s.handle = handleNoQueue
		}
		htb := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT, Handle: s.handle})
		htb.Defcls = rateClass
		if err := netlink.QdiscReplace(htb); err != nil {
			return State{}, explain("htb", err)
		}
	}
	err = explain("htb", setClass(index, s.handle, s.handle|rateClass, bits, bits))
	if err == nil {
		s.fair, err = setFlows(index, s.handle, bits)
	}
	if err != nil {
		return State{}, errors.Join(err, Remove(index))
	}
	return s, nil
}

// setClass makes or changes a class of htb that is sure to get a rate, and gets ceil at most. It runs ahead of
// the first whatever others send, so all of them together by no more than burst.
func setClass(index int, parent, class uint32, bits, ceil uint64) error {
	ahead := func(bits uint64) uint32 { return uint32(min(timed(bits/8, burst), mostBytes) + 1) }
	return netlink.ClassReplace(netlink.NewHtbClass(
		netlink.ClassAttrs{LinkIndex: index, Parent: parent, Handle: class},
		netlink.HtbClassAttrs{Rate: bits, Ceil: ceil, Buffer: ahead(bits), Cbuffer: ahead(ceil), Quantum: superBytes},
	))
}

// setQdisc makes or changes a queueing discipline in a class, with options that package netlink
// does not know.
func setQdisc(index int, class, handle uint32, kind string, options nl.NetlinkRequestData) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: class, Handle: handle})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kind)))
	req.AddData(options)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// timed returns how many bytes pass in a time.
func timed(rate uint64, t time.Duration) uint64 { return uint64(float64(rate) * t.Seconds()) }

// Lift has a shaped interface send what waits, and returns when nothing does.
func Lift(index int) error {
	if _, err := Set(index, lifted); err != nil {
		return err
	}
	for begin := time.Now(); time.Since(begin) < time.Second; time.Sleep(time.Millisecond) {
		if s, err := Read(index); err != nil || s.Waiting == 0 {
			return err
		}
	}
	return nil // it is down: nothing leaves it
}

// Remove undoes Set. Frames that wait, or are sent meanwhile, are lost. At an interface that is
// not shaped, or not there, it does nothing.
func Remove(index int) error {
	s, err := Read(index)
	switch {
	case errors.Is(err, link.ErrNotFound):
		return nil
	case err != nil || !s.On:
		return err
	case s.handle == handleNoQueue:
		return link.Link{Index: index}.SetNoQueue()
	}
	err = netlink.QdiscDel(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT, Handle: s.handle},
		QdiscType:  "htb",
	})
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// explain says why an interface cannot be shaped.
func explain(kind string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("the kernel lacks the queueing discipline %s; `modprobe sch_%s`, where its modules have it", kind, kind)
	case errors.Is(err, unix.EPERM):
		return errors.New("queueing disciplines need CAP_NET_ADMIN")
	}
	return fmt.Errorf("the kernel refuses the queueing discipline %s: %w", kind, err)
}
