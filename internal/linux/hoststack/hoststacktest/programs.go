// Package hoststacktest plays others who attach and detach tcx programs at the ingress of interfaces,
// for tests. Calls act on the calling thread's network namespace.
package hoststacktest

import (
	"errors"
	"io"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// program is attached until Close. To close its descriptor does not detach it at once: a process that
// is just being started has a copy.
type program struct{ link.Link }

func (p program) Close() error { return errors.Join(p.Detach(), p.Link.Close()) }

// Attach puts a program of a name, which lets all frames pass, at an interface.
func Attach(t testing.TB, ifindex int, name string, at link.Anchor) io.Closer {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: ebpf.AttachTCXIngress, Anchor: at})
	if err != nil {
		t.Fatal(err)
	}
	return program{l}
}

// Detach takes all programs off an interface, as `bpftool link detach` does.
func Detach(t testing.TB, ifindex int) {
	t.Helper()
	all, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
	if err != nil || len(all.Programs) == 0 {
		t.Fatalf("interface %d has the programs %v, %v", ifindex, all, err)
	}
	for _, a := range all.Programs {
		id, _ := a.LinkID()
		l, err := link.NewFromID(id)
		if err == nil {
			err = l.Detach()
			l.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Names returns the names of the programs at an interface, in the order in which they see frames.
func Names(t testing.TB, ifindex int) (names []string) {
	t.Helper()
	all, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all.Programs {
		p, err := ebpf.NewProgramFromID(a.ID)
		if err != nil {
			t.Fatal(err)
		}
		i, err := p.Info()
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, i.Name)
	}
	return names
}
