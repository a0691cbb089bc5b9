package main

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// bridge is the Linux bridge as `ip link add type bridge` makes it.
type bridge struct{}

func (bridge) name() string { return base }

func (bridge) version(context.Context) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return "Linux bridge, kernel " + unix.ByteSliceToString(u.Release[:]), nil
}

func (bridge) start(ctx context.Context, l *lab, n int) ([]end, error) {
	ends, err := l.taps(ctx, n)
	if err != nil {
		return nil, err
	}
	var batch strings.Builder
	batch.WriteString("link add br0 type bridge\nlink set br0 up\n")
	for i := range n {
		fmt.Fprintf(&batch, "link set %s master br0\n", tapName(i))
	}
	if _, err := l.runInput(ctx, batch.String(), "ip", "-batch", "-"); err != nil {
		closeAll(ends)
		return nil, err
	}
	return ends, nil
}
