package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/files/sockfile"
)

// checkPeer reports what is wrong with a path to connect to. An absent file is fine:
// the peer may come.
func checkPeer(path string) error {
	i, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && i.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is no socket; name the one that the peer listens at", path)
	}
	return sockfile.Explain(path, err)
}

// noPeer returns an error that says why there is no peer at path, and what to do about
// it.
func noPeer(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("nobody listens at %s; start the peer", show(path))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied; give vswitch the right to write to that socket", show(path))
	case errors.Is(err, unix.EPROTOTYPE):
		return fmt.Errorf("%s is a socket of the other type, of stream and dgram; use --kind for that", show(path))
	}
	return sockfile.Explain(show(path), err)
}

// show formats a path for a line of text. A peer chooses its own path, with any bytes
// in it.
func show(path string) string {
	if q := strconv.Quote(path); q != `"`+path+`"` {
		return q
	}
	return path
}
