package veth

import "github.com/vswitch/vswitch/port"

// Needs implements port.Sized: one thread waits on the queue.
func (kind) Needs(port.Spec, int) port.Needs { return port.Needs{Threads: 1, Files: 6} }
