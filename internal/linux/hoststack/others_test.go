package hoststack_test

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/vswitch/vswitch/internal/linux/hoststack"
	interfaces "github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// attachProgram puts a program of a name, which lets all frames pass, at an interface's ingress.
func attachProgram(t *testing.T, ifindex int, name string, at link.Anchor) link.Link {
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
	return l
}

// The switch's program stands before those of others that are there, and says so if one gets
// before it later.
func TestProgramsOfOthers(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Do(func() {
		l, err := interfaces.ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		former := attachProgram(t, l.Index, "vswitch_former", nil)
		there := attachProgram(t, l.Index, "there", nil)
		defer there.Close()
		guard, err := hoststack.Shut("vm0", l.Index, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer guard.Close()
		all, err := link.QueryPrograms(link.QueryOptions{Target: l.Index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, a := range all.Programs {
			p, err := ebpf.NewProgramFromID(a.ID)
			if err != nil {
				t.Fatal(err)
			}
			i, err := p.Info()
			if err != nil {
				t.Fatal(err)
			}
			p.Close()
			order = append(order, i.Name)
		}
		if got := strings.Join(order, " "); got != "vswitch_former vswitch_shut there" {
			t.Errorf("the programs are %s", got)
		}
		if err := guard.Contested(); err == nil || !strings.Contains(err.Error(), "vswitch_former") {
			t.Errorf("beside a program of another switch: %v", err)
		}
		if err := former.Close(); err != nil {
			t.Fatal(err)
		}
		if why, err := guard.Overtaken(), guard.Contested(); why != "" || err != nil {
			t.Errorf("before the program of others: %q, %v", why, err)
		}
		before := attachProgram(t, l.Index, "before", link.Head())
		if why := guard.Overtaken(); !strings.HasPrefix(why, `program "before" (id `) {
			t.Errorf("behind a program: %q", why)
		}
		if err := guard.Contested(); err != nil {
			t.Errorf("behind a program: %v", err)
		}
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}
		if why := guard.Overtaken(); why != "" {
			t.Errorf("first again: %q", why)
		}
	})
}
