package main

import "context"

// peer is a switch that is measured.
type peer interface {
	// name is what the peer is called in flags and tables.
	name() string

	// version returns what is measured. An error says what is missing, and how
	// to install it.
	version(context.Context) (string, error)

	// start runs the switch in the lab with n guests connected, and returns where
	// they are. What was started ends with the lab, the caller closes the ends.
	start(ctx context.Context, l *lab, n int) ([]end, error)
}

// base is the peer that the others are compared with.
const base = "bridge"

// peers are all there are, in the order of the table. binary is vswitch.
func peers(binary string) []peer {
	return []peer{bridge{}, ovs{}, vswitch{binary}}
}
