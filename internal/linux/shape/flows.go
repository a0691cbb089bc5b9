package shape

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Flows share the rate of a shaped interface, so that one that fills the queue delays and loses its own
// frames. fq_codel does that. A kernel without it gets classes of htb that take turns: a program puts
// flows into them by a hash.
const (
	// numFlows is how many there are, a power of two. They are below rateClass, from flowClass on.
	numFlows   = 16
	flowClass  = 0x10
	leafHandle = 0x7680 << 16 // the queue of the first one, or fq_codel

	// longest is how long frames wait at most, of whatever flow.
	longest = 200 * time.Millisecond

	// leastFair and leastClasses are the lowest rates, in bit/s, at which two super-frames of a flow
	// have room for so long; of each class. With less room, TCP would learn of a loss only by a timeout.
	leastFair    = 10_000_000
	leastClasses = 100_000_000
)

// The kernel has fq_codel, or lacks it, as far as is known. Its module can come later, so it is asked again
// after some time.
var fqCodel struct {
	sync.Mutex
	lacked time.Time // when that was seen; zero: it has it, or nobody knows
}

// lacksFair reports whether the kernel was seen to lack fq_codel lately.
func lacksFair() bool {
	fqCodel.Lock()
	defer fqCodel.Unlock()
	return !fqCodel.lacked.IsZero() && time.Since(fqCodel.lacked) < time.Hour
}

// Check returns why Set would refuse a rate in bit/s, as far as is known without a try.
func Check(bits uint64) error {
	switch {
	case bits < leastFair:
		return errors.New("below 10mbit two super-frames in the kernel's queue would wait too long")
	case bits < leastClasses && lacksFair():
		return errors.New("below 100mbit flows share a rate fairly only by fq_codel, which the kernel lacks (`modprobe sch_fq_codel`, where its modules have it)")
	}
	return nil
}

// setFlows has flows share the rate of rateClass, and reports whether fq_codel does it.
func setFlows(index int, root uint32, bits uint64) (fair bool, err error) {
	rate := bits / 8
	super := superBytes * 1_000_000 / max(rate, 1) // the time of the longest super-frame, in µs
	o := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	o.AddRtAttr(nl.TCA_FQ_CODEL_MEMORY_LIMIT, nl.Uint32Attr(uint32(min(timed(rate, longest), 2*mostBytes)))) // frames count with their overhead
	o.AddRtAttr(nl.TCA_FQ_CODEL_TARGET, nl.Uint32Attr(uint32(max(5_000, 2*super))))
	o.AddRtAttr(nl.TCA_FQ_CODEL_INTERVAL, nl.Uint32Attr(uint32(max(100_000, 10*super))))
	if !lacksFair() {
		err := setQdisc(index, root|rateClass, leafHandle, "fq_codel", o)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.ENOENT):
			fqCodel.Lock()
			fqCodel.lacked = time.Now()
			fqCodel.Unlock()
		case !errors.Is(err, unix.EINVAL): // it has classes below it, from a time without fq_codel
			return false, explain("fq_codel", err)
		}
	}
	if err := Check(bits); err != nil {
		return false, err
	}
	room := min(timed(rate, longest)/numFlows, 4*superBytes) // some MB in all, for small frames take ten times their length
	for i := range uint32(numFlows) {
		class := root | flowClass + i
		if err := setClass(index, root|rateClass, class, bits/numFlows, bits); err != nil {
			return false, explain("htb", err)
		}
		limit := nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(uint32(room))) // struct tc_fifo_qopt
		if err := setQdisc(index, class, leafHandle+i<<16, "bfifo", limit); err != nil {
			return false, explain("bfifo", err)
		}
	}
	return false, classify(index, root)
}

// classify has htb put frames into classes by the hash of their flow.
func classify(index int, root uint32) error {
	prog, err := classifiers[root]()
	if err != nil {
		return fmt.Errorf("load the program that tells flows apart: %w", err)
	}
	return explain("htb", netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: root, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          prog.FD(),
		Name:        "vswitch_flows",
	}))
}

// classifiers are the programs that return a frame's class, by the handle of htb. They are loaded once.
var classifiers = map[uint32]func() (*ebpf.Program, error){
	handle:        sync.OnceValues(func() (*ebpf.Program, error) { return loadClassifier(handle) }),
	handleNoQueue: sync.OnceValues(func() (*ebpf.Program, error) { return loadClassifier(handleNoQueue) }),
}

func loadClassifier(root uint32) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, Name: "vswitch_flows", License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.FnGetHashRecalc.Call(), // of the frame, which is in R1 already
			asm.And.Imm(asm.R0, numFlows-1),
			asm.Add.Imm(asm.R0, int32(root|flowClass)),
			asm.Return(),
		},
	})
}
