package vhostuser

import (
	"unsafe"

	"github.com/vswitch/vswitch/port"
)

// Needs implements port.Sized: the connection, the guest's memory and the eventfds of a
// few queues, which are kept twice, for another process as well. Go's poller waits on them.
func (Kind) Needs(_ port.Spec, _ int) port.Needs {
	return port.Needs{Files: 28, Memory: int(unsafe.Sizeof(arena{}))}
}
