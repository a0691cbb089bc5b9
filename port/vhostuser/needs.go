package vhostuser

import (
	"github.com/vswitch/vswitch/port"
)

// Needs implements port.Sized: the connection, the guest's memory and the eventfds of a
// few queues. Go's poller waits on them.
func (Kind) Needs(_ port.Spec, _ int) port.Needs {
	return port.Needs{Files: 16}
}
