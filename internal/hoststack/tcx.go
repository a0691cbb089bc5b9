package hoststack

import (
	"errors"
	"io"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// shot is TC_ACT_SHOT: drop the frame (include/uapi/linux/pkt_cls.h).
const shot = 2

// attach puts a program at an interface's tcx ingress that drops every frame. It
// comes before the host stack and after AF_PACKET, which has its copy already
// (net/core/dev.c, __netif_receive_skb_core). The kernel removes it with its
// descriptor, so that a dead switch leaves nothing behind.
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

// program is an attached one.
type program struct {
	link link.Link
	off  sync.Once
}

// Close takes it off. To close the descriptor alone would not do it at once where a
// process that is just being started has it, too.
func (p *program) Close() (err error) {
	p.off.Do(func() { err = errors.Join(p.link.Detach(), p.link.Close()) })
	return err
}
