package vswitch

import (
	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// ingress returns why a port may not accept f, or DropNone. It sets f's VLAN if it
// returns DropNone. The rest of the path relies on its checks.
func (w *worker) ingress(f *port.Frame, from *member) port.Drop {
	if f.Drop != port.DropNone {
		if f.Drop == port.DropStandby && from != nil {
			// What neighbours say about a link is not the port's (802.1AX-2020 clause 6.1.3).
			if t := trapFor(f, from); t != nil && t.Queue == QueueLink {
				return w.punt(f, from.port, t.Queue, 0)
			}
		}
		return f.Drop
	}
	if from == nil {
		return port.DropPortDown
	}
	if from.flags&flagStage != 0 {
		var why port.Drop
		if why, w.heed = from.stage.Check(f, classify(f, from)); why != port.DropNone {
			return why
		}
	}
	reserved := eth.IsReserved(uint64(f.Dst))
	if reserved {
		if t := trapFor(f, from); t != nil {
			return w.punt(f, from.port, t.Queue, 0)
		}
	}
	switch {
	case f.Src.IsGroup() || f.Src == 0:
		return port.DropBadSource
	case f.Offload.Left() && !inspect(f):
		return refusal(f)
	case reserved && w.set.groupForward>>(f.Dst&0xf)&1 == 0:
		return port.DropReserved
	}
	drop := classify(f, from)
	if from.flags&ingressFlags != 0 && drop == port.DropNone {
		if from.flags&flagMirrorTarget != 0 {
			return port.DropMirrorTarget
		}
		if !from.police.allow(f, w.now()) {
			return port.DropPoliced
		}
		if from.flags&flagRouterGuard != 0 && w.set.groups.isQuery(f) {
			return w.punt(f, from.port, QueueGroups, f.VLAN)
		}
	}
	return drop
}

// refusal returns why inspect refused f: a false offload header, or a legitimate
// super-frame of a protocol that the switch cannot segment.
func refusal(f *port.Frame) port.Drop {
	if _, ip := eth.FindIP(f.Data); f.Offload.IsGSO() && !ip {
		return port.DropUnsupported
	}
	return port.DropBadOffload
}

// inspect reports whether f's offload header agrees with the frame. A checksum that
// is still to be completed lies where the frame has one, so no byte that the switch decided
// by changes on the way.
func inspect(f *port.Frame) (ok bool) {
	if f.Offload.IsGSO() {
		f.Offload, ok = vnet.Inspect(f.Data, f.DataLen(), f.Offload)
		return ok
	}
	if !vnet.Valid(f.Offload, f.DataLen()) {
		return false
	}
	return f.Offload.Flags&port.NeedsCsum == 0 || vnet.Partial(f.Data, f.DataLen(), f.Offload)
}

// trapFor returns the port's trap for f, whose destination is one of the addresses that
// bridges reserve for protocols between neighbours (802.1Q-2018 table 8-1). The switch
// takes frames of its own protocols even if a later check would drop them. It drops other
// frames to these addresses, except those that SetGroupForward lets pass.
func trapFor(f *port.Frame, from *member) *Trap {
	for i := range from.traps {
		if t := &from.traps[i]; t.matches(f) && (t.Tagged || !f.Tag.Present()) {
			return t
		}
	}
	return nil
}
