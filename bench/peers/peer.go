package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// peer is a switch that is measured.
type peer interface {
	// name is what the peer is called in flags and tables.
	name() string

	// media are what it connects guests by.
	media() []medium

	// makesTAPs tells whether TAPs are there when it is attached, for guests to open.
	// Else guests make them before.
	makesTAPs() bool

	// version returns what is measured. An error says what is missing, and how
	// to install it.
	version(context.Context) (string, error)

	// attach runs the switch in the lab and connects guests to it, each where it is or
	// will be: at a TAP of that name, or a socket, which guests of a vhost-user port make
	// and others connect to. What was started ends with the lab.
	attach(ctx context.Context, l *lab, by medium, guests []string) error
}

// has tells whether p can be measured at w.
func has(p peer, w work) bool { return slices.Contains(p.media(), w.By) }

// peers are all there are, in the order of the table. builds are those of vswitch to
// measure, separated by commas: BINARY, or NAME=BINARY where there are several.
func peers(builds string) ([]peer, error) {
	all := []peer{bridge{}, ovs{}, gvisor{}, ovsDPDK{}}
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
		all = append(all, vswitch{as: name, binary: binary, fast: true}, vswitch{as: name, binary: binary})
	}
	return all, nil
}
