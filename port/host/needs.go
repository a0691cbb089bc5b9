package host

import (
	"github.com/vswitch/vswitch/port"
)

// Needs implements port.Sized: Go's netpoller waits on the device.
func (kind) Needs(_ port.Spec, queues int) port.Needs {
	return port.Needs{Files: max(queues, 1) + 1}
}
