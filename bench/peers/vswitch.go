package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
)

// vswitch is the daemon as users run it, its ports on the TAPs' kernel ends.
type vswitch struct{ as, binary string }

func (v vswitch) name() string { return v.as }

func (v vswitch) version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, v.binary, "version").Output()
	if err != nil {
		return "", fmt.Errorf("%s version: %w; build it with `make build`, or name another with -vswitch", v.binary, err)
	}
	version, _, _ := strings.Cut(string(out), ",") // the commit follows
	return version, nil
}

func (v vswitch) start(ctx context.Context, l *lab, n int) ([]end, error) {
	ends, err := l.taps(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := v.attach(ctx, l, n); err != nil {
		closeAll(ends)
		return nil, err
	}
	return ends, nil
}

func (v vswitch) attach(ctx context.Context, l *lab, n int) error {
	socket := filepath.Join(l.dir, "vswitch.sock")
	if _, err := l.start(nil, v.binary, "--socket", socket, "run", "--ephemeral"); err != nil {
		return err
	}
	err := l.poll(ctx, func() error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err
	})
	for i := 0; i < n && err == nil; i++ {
		_, err = l.run(ctx, v.binary, "--socket", socket, "add-port", tapName(i))
	}
	return err
}
