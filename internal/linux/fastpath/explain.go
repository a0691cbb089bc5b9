package fastpath

import (
	"encoding/binary"

	"github.com/cilium/ebpf"

	vswitch "github.com/vswitch/vswitch/switch"
)

// verdicts are enum decision of fastpath.c, in its order.
var verdicts = []vswitch.FastVerdict{
	vswitch.FastPunted, vswitch.FastSent, vswitch.FastDropped, vswitch.FastDropped, vswitch.FastDropped, vswitch.FastDropped,
	vswitch.FastHost,
}

// Explain implements vswitch.FastPath: it asks the kernel's own code, see bpf/explain.h.
func (p *Path) Explain(number uint16, wire []byte) vswitch.FastVerdict {
	if _, err := p.programs.get("explain"); err != nil { // others need mu, and the kernel may take its time
		return vswitch.FastUnknown
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.slots.byNumber[number]
	if l == nil || !p.live.Load() {
		return vswitch.FastUnknown
	}
	return p.explain(l.is.Ifindex, wire)
}

func (p *Path) explain(ifindex uint32, wire []byte) vswitch.FastVerdict {
	n, err := p.feed("explain", ifindex, wire)
	if err != nil || int(n) >= len(verdicts) {
		return vswitch.FastUnknown // it is longer than a page, or its device is just gone
	}
	return verdicts[n]
}

// feed runs a program on a frame as if a device had received it, and returns what it returns.
func (p *Path) feed(name string, ifindex uint32, wire []byte) (uint32, error) {
	program, err := p.programs.get(name)
	if err != nil {
		return 0, err
	}
	var context [44]byte // the part of struct __sk_buff up to ifindex
	binary.NativeEndian.PutUint32(context[40:], ifindex)
	return program.Run(&ebpf.RunOptions{Data: wire, Context: context})
}
