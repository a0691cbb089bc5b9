package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/linux/link"
)

// A runtime that cannot end a container does not end its pod, so DEL succeeds while the daemon
// is away. The port is then removed by the next call of the plugin that finds the daemon. Until
// then a file names it, with the daemon's socket.
const laterSuffix = ".del"

// removeLater takes away what can be without the daemon, and notes the rest.
func (c *conf) removeLater(port string) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Dir, port+laterSuffix), []byte(c.at), 0o600); err != nil {
		return err
	}
	// Its other end is the container's. A switch in another network namespace has its devices there.
	if l, err := link.ByName(port); err == nil && l.Kind == "veth" {
		_ = l.Delete() // else it goes with the port
	}
	return nil
}

// catchUp removes ports of earlier calls. A caller that goes on to make a port of the same name
// has waited for others that remove it.
func (c *conf) catchUp(ctx context.Context, cl *api.Client) error {
	if all, err := c.waiting(); err != nil || len(all) == 0 {
		return err
	}
	lock, err := flock.Await(filepath.Join(c.Dir, "removing"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	all, err := c.waiting()
	if err != nil {
		return err
	}
	for _, port := range all {
		if err := c.forgetNow(ctx, cl, port); err != nil {
			return err
		}
		// Now others may make it again.
		if err := os.Remove(filepath.Join(c.Dir, port+laterSuffix)); err != nil {
			return err
		}
	}
	return nil
}

// waiting returns the ports of the daemon that wait to be removed.
func (c *conf) waiting() (ports []string, err error) {
	files, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range files {
		port, is := strings.CutSuffix(f.Name(), laterSuffix)
		if !is {
			continue
		}
		socket, err := os.ReadFile(filepath.Join(c.Dir, f.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // another call was quicker
			return nil, err
		}
		if string(socket) == c.at {
			ports = append(ports, port)
		}
	}
	return ports, nil
}
