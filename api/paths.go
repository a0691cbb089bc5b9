package api

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// DefaultName is the switch that is meant where none is named.
const DefaultName = "sw0"

// maxName is the longest name of a switch, so that its socket's path fits into
// the 108 bytes of sockaddr_un.
const maxName = 64

// CheckName tells whether name can be a switch's: it is part of file names.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxName && name[0] != '.' && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
	if !ok {
		return fmt.Errorf("%q cannot be a switch's name; use up to %d letters, digits, '-', '_' and '.'", name, maxName)
	}
	return nil
}

// systemDir has the control sockets of root's daemons.
const systemDir = "/run/vswitch"

// SocketPath is where the daemon of that name listens unless told otherwise.
func SocketPath(name string) (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join(systemDir, name+".sock"), nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return "", errors.New("XDG_RUNTIME_DIR is not set; set it, or say where the socket is with --socket")
	}
	return filepath.Join(dir, "vswitch", name+".sock"), nil
}

// FindSocket is where a command looks for the daemon of that name unless told otherwise:
// another user than root may belong to the group of root's daemon (run --socket-group),
// which it takes where it runs none of its own.
func FindSocket(name string) (string, error) {
	own, err := SocketPath(name)
	if os.Geteuid() == 0 {
		return own, err
	}
	if err == nil {
		if _, e := os.Lstat(own); e == nil {
			return own, nil
		}
	}
	system := filepath.Join(systemDir, name+".sock")
	if _, e := os.Lstat(system); e == nil || err != nil {
		return system, nil
	}
	return own, err
}

// StatePath is where the daemon of that name keeps its state unless told otherwise.
func StatePath(name string) (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/vswitch", name), nil
	}
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		// The default of the XDG base directory specification, 0.8.
		home, err := os.UserHomeDir()
		if err != nil {
			return "", errors.New("neither XDG_STATE_HOME nor HOME is set; set one, or use --state DIR or --ephemeral")
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "vswitch", name), nil
}
