package api

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// DefaultName is the name of the switch if none is given.
const DefaultName = "sw0"

// maxName is the longest name of a switch, so that its socket's path fits into the 108 bytes
// of sockaddr_un.
const maxName = 64

// CheckName reports whether name is valid for a switch: it becomes part of file names and
// of command lines.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxName && name[0] != '.' && name[0] != '-' && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
	if !ok {
		return fmt.Errorf("%q cannot be a switch's name; use up to %d letters, digits, '_', '-' and '.', not beginning with the last two", name, maxName)
	}
	return nil
}

// systemDir is the directory of the control sockets of root's daemons.
const systemDir = "/run/vswitch"

// SocketPath returns the default path of the daemon's control socket.
func SocketPath(name string) (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join(systemDir, name+".sock"), nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return "", errors.New("XDG_RUNTIME_DIR is not set; set it, or say where the socket is with --socket")
	}
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("XDG_RUNTIME_DIR is %q, which is no absolute path; set it to one, or say where the socket is with --socket", dir)
	}
	return filepath.Join(dir, "vswitch", name+".sock"), nil
}

// FindSocket returns the path at which a command looks for the daemon by default. A user who
// runs no daemon of that name gets root's, which admits its group (run --socket-group).
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

// StatePath returns the daemon's default state directory.
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
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%s, from XDG_STATE_HOME or HOME, is no absolute path; set them to such, or use --state DIR or --ephemeral", dir)
	}
	return filepath.Join(dir, "vswitch", name), nil
}
