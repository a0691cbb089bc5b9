package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// peer is a switch to measure.
type peer interface {
	// name returns the peer's name in flags and tables.
	name() string

	// media returns the media by which it connects guests.
	media() []medium

	// makesTAPs reports whether the peer makes the TAPs that guests open. Otherwise guests
	// make them before it is attached.
	makesTAPs() bool

	// version returns the measured version. An error says what is missing and how to install
	// it.
	version(context.Context) (string, error)

	// attach runs the switch in the lab and connects guests to it. Each guest is a TAP of
	// that name or a socket, existing or future: guests of a vhost-user port make the socket,
	// others connect to it. What attach starts ends with the lab.
	attach(ctx context.Context, l *lab, by medium, guests []string) error
}

// guarded is a peer that checks the addresses of what guests send. It is measured where that
// counts for each frame.
type guarded interface{ guards() bool }

// apart is a peer beside whose switch a spoofer sends to a TAP that no switch has. It takes the
// processors as any spoofer does, and no switch drops its frames.
type apart interface{ spoofsApart() bool }

// variant is a peer that is measured beside another one.
type variant interface {
	// of returns the name of the peer that it is compared with; empty: it is no variant.
	of() string
}

// adjustable is a peer that has the settings of works, or none that would do as much.
type adjustable interface {
	// adjust applies the work's setting, once the guests know each other.
	adjust(ctx context.Context, l *lab, w work) error
}

// has reports whether p can be measured at w.
func has(p peer, w work) bool {
	if g, ok := p.(guarded); ok && g.guards() {
		pair := w.Ports == 2 && (w.Pattern == oneWay || w.Pattern == bothWays)
		besides := w.Ports == 3 && (w.Pattern == oneWay || w.Pattern == spoofed) || w.Pattern == crowded
		if w.With != plain || !pair && !besides {
			return false
		}
	}
	if a, ok := p.(apart); ok && a.spoofsApart() && w.Pattern != spoofed {
		return false
	}
	if v, ok := p.(variant); ok && v.of() != "" && !w.Observed {
		return false
	}
	_, can := p.(adjustable)
	return slices.Contains(p.media(), w.By) && (can || w.With == plain)
}

// peers returns all peers in the order of the table. builds lists the vswitch builds to
// measure, separated by commas: BINARY, or NAME=BINARY if there are several.
func peers(builds string) ([]peer, error) {
	all := []peer{bridge{}, filtered{by: "nft"}, filtered{by: "ebtables"}, ovs{}, gvisor{}, ovsDPDK{}}
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
		for _, guard := range []bool{false, true} {
			for _, fast := range []bool{true, false} {
				all = append(all, vswitch{as: name, binary: binary, fast: fast, guard: guard})
			}
		}
		for _, fast := range []bool{true, false} {
			all = append(all, vswitch{as: name, binary: binary, fast: fast, guard: true, apart: true})
		}
		for _, by := range []observer{watched, sampled} {
			for _, fast := range []bool{true, false} {
				all = append(all, vswitch{as: name, binary: binary, fast: fast, by: by})
			}
		}
	}
	return all, nil
}
