package vswitch

import "github.com/vswitch/vswitch/port"

// DefaultVLAN is the VLAN that all frames belong to (802.1Q-2018 table 9-2: the
// default PVID). The switch is transparent to tags: they pass as they are.
const DefaultVLAN = 1

// classify returns the VLAN a frame belongs to.
func classify(*port.Frame) uint16 { return DefaultVLAN }

// retag returns the outer tag with which f leaves.
func retag(f *port.Frame) port.Tag { return f.Tag }
