// Command guest builds the image of a small virtual machine, and runs commands in
// one that is up. The examples use it; the tests use what is behind it.
//
//	guest image          build the image, print the paths of kernel and initramfs, a line each
//	guest exec SOCK CMD  wait until the guest at the console SOCK is up, run CMD there
//
// exec ends with the status of CMD, or 125 when it could not run it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vswitch/vswitch/internal/test/vmtest/console"
	"github.com/vswitch/vswitch/internal/test/vmtest/guestimg"
)

// patience is how long a command in a guest, including its boot, may take. An emulated guest
// boots in about five seconds on an otherwise idle machine.
const patience = 2 * time.Minute

func main() {
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "image":
		image()
	case len(args) >= 3 && args[0] == "exec":
		execute(args[1], strings.Join(args[2:], " "))
	default:
		fail(2, errors.New("write: guest image, or: guest exec SOCK CMD"))
	}
}

func image() {
	cache, err := guestimg.CacheDir()
	if err != nil {
		fail(1, err)
	}
	img, err := guestimg.Ensure(cache)
	if err != nil {
		fail(1, err)
	}
	fmt.Printf("%s\n%s\n", img.Kernel, img.Initrd)
}

func execute(socket, command string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := console.Dial(ctx, socket)
	if err != nil {
		fail(125, err)
	}
	if err := c.Ready(ctx); err != nil {
		fail(125, err)
	}
	out, err := c.Run(ctx, command)
	fmt.Print(out)
	var exit *console.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.Code)
	}
	if err != nil {
		fail(125, err)
	}
}

func fail(code int, err error) {
	fmt.Fprintln(os.Stderr, "guest:", err)
	os.Exit(code)
}
