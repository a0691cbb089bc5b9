package vswitch

import (
	"github.com/vswitch/vswitch/internal/eth"
	"github.com/vswitch/vswitch/internal/vnet"
	"github.com/vswitch/vswitch/port"
)

// ingress tells why f may not come in by a port, or DropNone; then f's VLAN is
// known. What is checked here holds for the rest of the path.
func (w *worker) ingress(f *port.Frame, from *member) port.Drop {
	if f.Drop != port.DropNone {
		return f.Drop
	}
	if from == nil {
		return port.DropPortDown
	}
	if f.Src.IsGroup() || f.Src == 0 {
		return port.DropBadSource
	}
	if f.Offload.Flags|f.Offload.GSOType != 0 {
		if !vnet.Valid(f.Offload, f.DataLen()) || f.Offload.IsGSO() && !vnet.IsSuper(f.Data, f.Offload) {
			return port.DropBadOffload
		}
	}
	if eth.IsReserved(uint64(f.Dst)) {
		if drop := w.reserved(f, from); drop != port.DropNone {
			return drop
		}
	}
	drop := classify(f, from)
	if from.flags&ingressFlags != 0 && drop == port.DropNone {
		if from.flags&flagMirrorTarget != 0 {
			return port.DropMirrorTarget
		}
		if !from.police.allow(f, w.now()) {
			return port.DropPoliced
		}
	}
	return drop
}

// reserved deals with the addresses that a bridge keeps for the protocols between
// neighbours: the switch takes what it speaks, passes on what it was told to, and
// drops the rest (802.1Q-2018 table 8-1).
func (w *worker) reserved(f *port.Frame, from *member) port.Drop {
	if f.Dst == stpGroup && from.flags&flagSTP != 0 && !f.Tag.Present() {
		return w.sw.control.punt(f, from)
	}
	if w.set.groupForward>>(f.Dst&0xf)&1 != 0 {
		return port.DropNone
	}
	return port.DropReserved
}

// stpGroup is the address of spanning tree's frames (802.1D-2004 table 7-10).
const stpGroup port.MAC = 0x0180_c200_0000
