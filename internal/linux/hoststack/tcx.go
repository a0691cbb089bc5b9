package hoststack

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// shot is TC_ACT_SHOT: drop the frame (include/uapi/linux/pkt_cls.h).
const shot = 2

// attach puts a program that drops every frame at an interface's tcx ingress. It runs
// before the host stack and after AF_PACKET, which already has its copy
// (net/core/dev.c, __netif_receive_skb_core). The kernel removes the program with its
// descriptor, so a dead switch leaves nothing behind.
func attach(ifindex int) (io.Closer, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "vswitch_shut",
		Type:         ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, shot), asm.Return()},
		License:      "Apache-2.0",
	})
	if err != nil {
		return nil, err
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex,
		Program:   prog,
		Attach:    ebpf.AttachTCXIngress,
	})
	prog.Close() // the link holds the program
	if err != nil {
		return nil, err
	}
	return &program{link: l}, nil
}

// program is an attached program.
type program struct {
	link link.Link
	off  sync.Once
}

// Close detaches the program. Closing the descriptor alone would not detach it immediately
// while a process that is just being started holds a copy.
func (p *program) Close() (err error) {
	p.off.Do(func() { err = errors.Join(p.link.Detach(), p.link.Close()) })
	return err
}

// Info describes the link.
func (p *program) Info() (*link.Info, error) { return p.link.Info() }

// programs is the prefix of the names of all programs that a switch puts at a device.
const programs = "vswitch"

// Taker is implemented by what an Ingress attached, if it can tell whether somebody takes the
// frames that it punts.
type Taker interface {
	Taken() bool
}

// Contested returns an error if somebody else gets the interface's frames: a macvlan or its
// like, also one in another network namespace, or another switch that has a program at the
// interface, too. What stands on a shared interface is part of the host. A nil Guard is never
// contested.
func (g *Guard) Contested() error {
	if g == nil || g.program == nil {
		return nil
	}
	if t, ok := g.program.(Taker); ok && !g.shared.Load() && t.Taken() {
		return errors.New("a macvlan or the like, such as a container's, stands on the device and takes its frames; `ip -all netns exec ip -d link show type macvlan` finds it, delete it there")
	}
	at, err := link.QueryPrograms(link.QueryOptions{Target: g.ifindex, Attach: ebpf.AttachTCXIngress})
	if err != nil || len(at.Programs) < 2 {
		return nil // no right to ask, or no other program
	}
	l, ok := g.program.(interface{ Info() (*link.Info, error) })
	if !ok {
		return nil
	}
	own, err := l.Info()
	if err != nil {
		return nil
	}
	for _, a := range at.Programs {
		if id, ok := a.LinkID(); ok && id == own.ID {
			continue
		}
		if name := programName(a.ID); strings.HasPrefix(name, programs) {
			return fmt.Errorf("another switch has its program %s (id %d) at the device as well; `bpftool net` lists both, stop that switch or delete its port", name, a.ID)
		}
	}
	return nil
}

func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer p.Close()
	i, err := p.Info()
	if err != nil {
		return ""
	}
	return i.Name
}
