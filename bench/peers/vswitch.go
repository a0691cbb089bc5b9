package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
)

// vswitch is the daemon as users run it: it forwards every frame itself, or known ones in the
// kernel. With guard each guest has only its own addresses.
type vswitch struct {
	as, binary  string
	fast, guard bool
	apart       bool // see the interface of that name
	by          observer
}

func (v vswitch) name() string {
	name := v.as
	if v.guard {
		name += "-guard"
	}
	if v.apart {
		name += "-apart"
	}
	if v.by != "" {
		name += "-" + string(v.by)
	}
	if v.fast {
		name += " (fast path)"
	}
	return name
}

func (v vswitch) guards() bool { return v.guard }

// spoofsApart implements apart.
func (v vswitch) spoofsApart() bool { return v.apart }

func (v vswitch) media() []medium {
	switch {
	case v.guard && v.fast, v.by != "":
		return []medium{byTAP}
	case v.guard:
		return []medium{byTAP, byStream, byVhost}
	case v.fast:
		return []medium{byTAP, byVeth, byVXLAN}
	}
	return media
}

func (vswitch) makesTAPs() bool { return true }

func (v vswitch) version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, v.binary, "version").Output()
	if err != nil {
		return "", fmt.Errorf("%s version: %w; build it with `make build`, or name another with -vswitch", v.binary, err)
	}
	version, _, _ := strings.Cut(string(out), ",") // the commit follows
	return version, nil
}

func (v vswitch) attach(ctx context.Context, l *lab, by medium, guests []string) error {
	socket := v.socket(l)
	mode := "VSWITCH_FASTPATH=off"
	if v.fast {
		mode = "VSWITCH_FASTPATH=require"
	}
	if _, err := l.start([]string{mode}, v.binary, "--socket", socket, "run", "--ephemeral"); err != nil {
		return err
	}
	err := l.poll(ctx, func() error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err
	})
	for i := 0; i < len(guests) && err == nil; i++ {
		args := []string{"--socket", socket, "add-port"}
		switch by {
		case byTAP:
			args = append(args, guests[i])
		case byVeth:
			args = append(args, guests[i], "--kind", "netdev", "--exclusive")
		case byStream:
			args = append(args, guestName(i), "--kind", "stream", "--path", guests[i])
		case byVhost:
			args = append(args, guestName(i), "--kind", "vhost-user", "--client", "--path", guests[i])
		}
		if v.guard {
			args = append(args, "--guard", "on", "--guard-mac", macText(i), "--guard-address", addressText(i), "--guard-learn", "none")
		}
		_, err = l.run(ctx, v.binary, args...)
	}
	if err != nil {
		return err
	}
	return v.observe(ctx, l)
}

// adjust implements adjustable.
func (v vswitch) adjust(ctx context.Context, l *lab, w work) error {
	ctl := func(line string) error {
		args := append([]string{"--socket", v.socket(l)}, strings.Fields(line)...)
		_, err := l.run(ctx, v.binary, args...)
		return err
	}
	each := func(settings string) error {
		for i := range w.Ports {
			if err := ctl("set-port " + guestName(i) + settings); err != nil {
				return err
			}
		}
		return nil
	}
	switch w.With {
	case rateIn:
		return each(" --rate-in 30gbit")
	case storm:
		return each(" --storm-broadcast 1000pps --storm-multicast 1000pps --storm-unicast 1000pps")
	case mirrored:
		return ctl("mirror add m0 --from vm0 --to " + guestName(w.Ports-1))
	case unlearned:
		return ctl("set-port vm0 --learning off")
	case snooping:
		if err := ctl("set --snooping --querier"); err != nil {
			return err
		}
		for i := range members {
			if err := ctl("mdb add " + groupAddress.String() + " " + guestName(i+1)); err != nil {
				return err
			}
		}
	case rateOut:
		return ctl("set-port vm1 --rate-out 1gbit")
	}
	return nil
}

func (vswitch) socket(l *lab) string { return filepath.Join(l.dir, "vswitch.sock") }
