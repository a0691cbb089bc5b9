package main

import (
	"context"
	"fmt"
	"strings"
)

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

// peers are all there are, in the order of the table. builds are those of vswitch to
// measure, separated by commas: BINARY, or NAME=BINARY where there are several.
func peers(builds string) ([]peer, error) {
	all := []peer{bridge{}, ovs{}}
	for build := range strings.SplitSeq(builds, ",") {
		name, binary, named := strings.Cut(build, "=")
		if !named {
			name, binary = "vswitch", build
		}
		if name == "" || binary == "" {
			return nil, fmt.Errorf("-vswitch %q makes no sense; use BINARY or NAME=BINARY", build)
		}
		for _, p := range all {
			if p.name() == name {
				return nil, fmt.Errorf("two peers are named %q; name each build, as in -vswitch new=BINARY,old=BINARY", name)
			}
		}
		all = append(all, vswitch{name, binary})
	}
	return all, nil
}
