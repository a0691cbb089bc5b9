package unixsock

import "github.com/vswitch/vswitch/port"

// Needs implements port.Sized: two threads wait for a connected peer, one to receive,
// one for room to send.
func (Stream) Needs(port.Spec, int) port.Needs { return port.Needs{Threads: 2, Files: 4} }

// Needs implements port.Sized: Go's poller waits for the peer.
func (Dgram) Needs(port.Spec, int) port.Needs { return port.Needs{Files: 3} }
