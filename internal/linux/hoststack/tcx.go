package hoststack

import (
	"errors"
	"fmt"
	"io"
	"slices"
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
	l, err := attachShut(ifindex)
	if err != nil {
		return nil, err
	}
	return &program{ifindex: ifindex, link: l}, nil
}

func attachShut(ifindex int) (link.Link, error) {
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
		Anchor:    BeforeOthers(ifindex, ebpf.AttachTCXIngress),
	})
	prog.Close() // the link holds the program
	return l, err
}

// program is an attached program.
type program struct {
	ifindex int

	mu   sync.Mutex
	link link.Link // not at the interface any more if somebody detached it; see Renew
	off  bool
}

// Close detaches the program. Closing the descriptor alone would not detach it immediately
// while a process that is just being started holds a copy.
func (p *program) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return nil
	}
	p.off = true
	return errors.Join(p.link.Detach(), p.link.Close())
}

// Info implements Program.
func (p *program) Info() (*link.Info, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link.Info()
}

// Renew implements Program.
func (p *program) Renew() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if is, err := IsAt(p.link, p.ifindex); p.off || is || err != nil {
		return nil
	}
	l, err := attachShut(p.ifindex)
	if err != nil {
		return err
	}
	_ = p.link.Close()
	p.link = l
	return nil
}

// IsAt reports whether a link is at the interface that has the number now, in the calling
// thread's network namespace. The link's own interface may be gone and its number reused, and
// somebody may have detached the link.
func IsAt(l link.Link, ifindex int) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, err
	}
	if info.TCX() == nil {
		return false, nil
	}
	at, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachType(info.TCX().AttachType)})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(at.Programs, func(a link.AttachedProgram) bool {
		id, _ := a.LinkID()
		return id == info.ID
	}), nil
}

// Program is implemented by what is attached to an interface, if it can tell where it is.
type Program interface {
	Info() (*link.Info, error)

	// Renew attaches the program again if somebody detached it (`bpftool link detach`).
	Renew() error
}

// Renew puts the switch's program back at the interface, which must still be the one that the
// Guard is for, if somebody detached it: the kernel tells nobody. Without it the host sees the
// frames, and the switch gets none of those that an Ingress punts.
func (g *Guard) Renew() error {
	if g == nil {
		return nil
	}
	p, ok := g.program.(Program)
	if !ok {
		return nil
	}
	if err := p.Renew(); err != nil {
		return fmt.Errorf("somebody detached the switch's program from the device, and it cannot be attached again: %w", err)
	}
	return nil
}

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
		return errors.New("a macvlan or the like, such as a container's, stands on the device and takes its frames; `ip -all netns exec ip -d link` lists it in its namespace, as NAME@..., delete it there")
	}
	before, after := g.others()
	for _, o := range append(before, after...) {
		if strings.HasPrefix(o.name, programs) {
			return fmt.Errorf("another switch has its program %s (id %d) at the device as well; `bpftool net` lists both, stop that switch or delete its port", o.name, o.id)
		}
	}
	return nil
}

// Overtaken says whose program sees the interface's frames before that of the switch, which may get
// none of them then; it is empty if there is none. Programs of switches do not count, see Contested.
func (g *Guard) Overtaken() string {
	if g == nil || g.program == nil {
		return ""
	}
	before, _ := g.others()
	for _, o := range before {
		if !strings.HasPrefix(o.name, programs) {
			return fmt.Sprintf("program %q (id %d) sees frames before the switch's, which gets those that it passes on (TCX_NEXT); `bpftool net` lists both: detach it, or add the port anew, which puts the switch's first", o.name, o.id)
		}
	}
	return ""
}

// other is a program that somebody else put at the interface.
type other struct {
	id   ebpf.ProgramID
	name string
}

// others returns the programs of others at the interface's ingress, before and after the switch's;
// none if the process may not ask, or the switch's is not there.
func (g *Guard) others() (before, after []other) {
	at, err := link.QueryPrograms(link.QueryOptions{Target: g.ifindex, Attach: ebpf.AttachTCXIngress})
	if err != nil || len(at.Programs) < 2 {
		return nil, nil
	}
	l, ok := g.program.(Program)
	if !ok {
		return nil, nil
	}
	own, err := l.Info()
	if err != nil {
		return nil, nil
	}
	for i, a := range at.Programs {
		if id, ok := a.LinkID(); ok && id == own.ID {
			return programsOf(at.Programs[:i]), programsOf(at.Programs[i+1:])
		}
	}
	return nil, nil
}

func programsOf(list []link.AttachedProgram) (all []other) {
	for _, a := range list {
		all = append(all, other{a.ID, programName(a.ID)})
	}
	return all
}

// BeforeOthers returns the place for a program of the switch at an interface: before those of others,
// most of which end with a verdict, and behind one of the process that this one replaces.
func BeforeOthers(ifindex int, at ebpf.AttachType) link.Anchor {
	all, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: at})
	if err != nil {
		return nil // no such interface, or no right to ask
	}
	for _, a := range all.Programs {
		if !strings.HasPrefix(programName(a.ID), programs) {
			return link.BeforeProgramByID(a.ID)
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
