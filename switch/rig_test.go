package vswitch_test

import (
	"encoding/binary"
	"fmt"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// rig is a switch with memory ports p0, p1, …, all forwarding.
type rig struct {
	*vswitch.Switch
	ports []*vswitch.Port
	lines []*memory.Port
}

func newRig(t fataler, cfg vswitch.Config, ports int, o memory.Options) *rig {
	t.Helper()
	r := &rig{Switch: vswitch.New(cfg)}
	for i := range ports {
		p, err := r.AddPort(fmt.Sprintf("p%d", i))
		if err != nil {
			t.Fatal(err)
		}
		line := memory.New(o)
		if err := p.Attach(line); err != nil {
			t.Fatal(err)
		}
		p.SetForwarding(true)
		r.ports, r.lines = append(r.ports, p), append(r.lines, line)
	}
	return r
}

// fataler is what testing and rapid have in common.
type fataler interface {
	Helper()
	Fatal(...any)
}

// frame makes a frame of size bytes that carries a number.
func frame(dst, src port.MAC, number uint32, size int) []byte {
	b := append(dst.HardwareAddr(), src.HardwareAddr()...)
	b = binary.BigEndian.AppendUint16(b, 0x88b5)
	b = binary.BigEndian.AppendUint32(b, number)
	for len(b) < size {
		b = append(b, byte(len(b)))
	}
	return b
}

func station(i int) port.MAC { return 0x0200_0000_0000 + port.MAC(i) + 1 }

// taken returns copies of what arrived at line i, without waiting.
func (r *rig) taken(i int) [][]byte {
	var all [][]byte
	for q := range r.lines[i].Queues() {
		for r.lines[i].Drain(q, 1<<20, func(p memory.Packet) { all = append(all, append([]byte{}, p.Wire...)) }) != 0 {
		}
	}
	return all
}

// hearBPDUs has the switch take BPDUs from a port, as a spanning tree does.
func hearBPDUs(p *vswitch.Port) {
	p.SetTraps(vswitch.QueueTree, []vswitch.Trap{{Dst: 0x0180_c200_0000, Queue: vswitch.QueueTree}})
}
