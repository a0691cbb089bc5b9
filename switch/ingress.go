package vswitch

import (
	"github.com/vswitch/vswitch/internal/eth"
	"github.com/vswitch/vswitch/internal/vnet"
	"github.com/vswitch/vswitch/port"
)

// ingress tells why f may not come in, or DropNone. open is whether its port is
// forwarding. What is checked here holds for the rest of the path.
func (w *worker) ingress(f *port.Frame, open bool) port.Drop {
	if f.Drop != port.DropNone {
		return f.Drop
	}
	if !open {
		return port.DropPortDown
	}
	if f.Src.IsGroup() || f.Src == 0 {
		return port.DropBadSource
	}
	if eth.IsReserved(uint64(f.Dst)) {
		return port.DropReserved
	}
	if f.Offload.Flags|f.Offload.GSOType != 0 && !vnet.Valid(f.Offload, len(f.Data)) {
		return port.DropBadOffload
	}
	return port.DropNone
}
