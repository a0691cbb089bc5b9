package tap

import (
	"cmp"

	"github.com/vswitch/vswitch/port"
)

// Needs implements port.Sized: one thread waits on each queue.
func (kind) Needs(s port.Spec, queues int) port.Needs {
	n := cmp.Or(queues, port.SettingsOf[Settings](s).Queues, 1)
	return port.Needs{Threads: n, Files: 4*n + 2}
}
