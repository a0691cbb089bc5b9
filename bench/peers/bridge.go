package main

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// bridge is the Linux bridge with the defaults of `ip link add type bridge`.
type bridge struct{}

const bridgeName = "bridge"

func (bridge) name() string { return bridgeName }

func (bridge) media() []medium { return []medium{byTAP} }

func (bridge) makesTAPs() bool { return false }

func (bridge) version(context.Context) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return "Linux bridge, kernel " + unix.ByteSliceToString(u.Release[:]), nil
}

func (bridge) attach(ctx context.Context, l *lab, _ medium, taps []string) error {
	var batch strings.Builder
	batch.WriteString("link add br0 type bridge\nlink set br0 up\n")
	for _, tap := range taps {
		fmt.Fprintf(&batch, "link set %s master br0\n", tap)
	}
	_, err := l.runInput(ctx, batch.String(), "ip", "-batch", "-")
	return err
}
