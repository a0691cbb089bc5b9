package unixsock

import "github.com/vswitch/vswitch/port"

// Needs implements port.Sized: two threads wait for a peer that is connected, to receive
// from it and for room to send to it.
func (Stream) Needs(port.Spec, int) port.Needs { return port.Needs{Threads: 2, Files: 3} }

// Needs implements port.Sized: Go's poller waits for the peer.
func (Dgram) Needs(port.Spec, int) port.Needs { return port.Needs{Files: 3} }
