package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"

	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
)

// gvisor is the switch of gvisor-tap-vsock, which Podman machine and others use. Its own
// command connects one guest per network; so this program runs it in a separate process that
// connects any number.
type gvisor struct{}

const gvisorName = "gvisor"

// gvisorModule is the switch's Go module.
const gvisorModule = "github.com/containers/gvisor-tap-vsock"

func (gvisor) name() string { return gvisorName }

func (gvisor) media() []medium { return []medium{byStream} }

func (gvisor) makesTAPs() bool { return false }

func (gvisor) version(context.Context) (string, error) {
	info, _ := debug.ReadBuildInfo() // a binary built with modules always has it
	for _, m := range info.Deps {
		if m.Path == gvisorModule {
			return "gvisor-tap-vsock " + m.Version, nil
		}
	}
	return "", errors.New(gvisorModule + " is not part of this program")
}

func (gvisor) attach(_ context.Context, l *lab, _ medium, sockets []string) error {
	self, err := os.Executable()
	if err == nil {
		_, err = l.start(nil, self, append([]string{gvisorName}, sockets...)...)
	}
	return err
}

// serveGvisor connects the clients of the sockets by a network of gvisor-tap-vsock, with its
// command's settings where they are needed.
func serveGvisor(sockets []string) error {
	network, err := virtualnetwork.New(&types.Configuration{
		MTU:               1500,
		Subnet:            "192.168.127.0/24",
		GatewayIP:         "192.168.127.1",
		GatewayMacAddress: "5a:94:ef:e4:0c:dd",
		Protocol:          types.QemuProtocol,
	})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for _, socket := range sockets {
		l, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		go func() {
			conn, err := l.Accept()
			if err == nil {
				err = network.AcceptQemu(context.Background(), conn)
			}
			failed <- fmt.Errorf("%s: %w", socket, err)
		}()
	}
	return <-failed
}
