// Package unixsock is the port kinds for machines behind a unix socket, which need no
// root: Stream (QEMU `-netdev stream`, passt, libkrun's unixstream) and Dgram (QEMU
// `-netdev dgram`, vfkit, libkrun's unixgram). A port stays open while its peer comes
// and goes. Neither carries an offload header: the switch finishes frames first.
package unixsock

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/vswitch/vswitch/internal/sockfile"
	"github.com/vswitch/vswitch/port"
)

// Stream makes ports for one connection at a time, on which a frame stands behind its
// length. It implements port.Kind.
type Stream struct {
	// Dir is where the sockets of ports lie that name no path.
	Dir string
}

// Dgram makes ports that exchange one frame per datagram with one peer. It implements
// port.Kind.
type Dgram struct {
	// Dir is where the sockets of ports lie that name no path.
	Dir string
}

var (
	_ port.Kind = Stream{}
	_ port.Kind = Dgram{}
)

// NewStream returns the kind stream with a directory for sockets.
func NewStream(dir string) (port.Kind, error) { return Stream{Dir: dir}, needDir("stream", dir) }

// NewDgram returns the kind dgram with a directory for sockets.
func NewDgram(dir string) (port.Kind, error) { return Dgram{Dir: dir}, needDir("dgram", dir) }

func needDir(kind, dir string) error {
	if dir == "" {
		return fmt.Errorf("%s ports need the directory of their switch's sockets", kind)
	}
	return nil
}

// Name implements port.Kind.
func (Stream) Name() string { return "stream" }

// Name implements port.Kind.
func (Dgram) Name() string { return "dgram" }

// Settings are those of stream and dgram ports.
type Settings struct {
	Path   string `json:"path,omitempty" arg:"PATH" file:"true" default:"SWITCH/NAME.sock beside the control socket" fixed:"true" help:"unix socket"`
	Client bool   `json:"client,omitempty" fixed:"true" help:"connect to the socket; else the switch makes it and listens"`
}

// Describe implements port.Kind.
func (Stream) Describe() port.Description {
	return port.Description{
		Help:     "a virtual machine behind a unix socket, without rights: QEMU's\n-netdev stream, passt, libkrun.",
		Settings: Settings{},
		Station:  true,
	}
}

// Describe implements port.Kind.
func (Dgram) Describe() port.Description {
	return port.Description{
		Help:     "the same with one frame in a datagram: QEMU's -netdev dgram, vfkit,\nlibkrun.",
		Settings: Settings{},
		Station:  true,
	}
}

// Check implements port.Kind.
func (k Stream) Check(s port.Spec) error { return check(k, s, pathOf(s, k.Dir)) }

// Check implements port.Kind.
func (k Dgram) Check(s port.Spec) error {
	own, peer := k.paths(s)
	if len(peer) > len(own) {
		own = peer
	}
	return check(k, s, own)
}

// Open implements port.Kind. As a client it does not wait for the peer. A directory
// that it makes for the socket stays.
func (k Stream) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	path := pathOf(s, k.Dir)
	if port.SettingsOf[Settings](s).Client {
		if err := checkPeer(path); err != nil {
			return nil, err
		}
		return dialStream(path), nil
	}
	l, err := sockfile.Listen(path)
	if err != nil {
		return nil, err
	}
	trace.Created = true
	return serveStream(l), nil
}

// Open implements port.Kind. A directory that it makes for the socket stays.
func (k Dgram) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	own, peer := k.paths(s)
	if port.SettingsOf[Settings](s).Client {
		if err := checkPeer(peer); err != nil {
			return nil, err
		}
	}
	conn, err := sockfile.ListenPacket(own)
	if err != nil {
		return nil, err
	}
	p, err := newDgram(conn, peer)
	if err != nil {
		conn.Close()
		return nil, err
	}
	trace.Created = true
	return p, nil
}

// Set implements port.Kind.
func (Stream) Set(port.Port, port.Spec, port.Spec) error { return nil }

// Set implements port.Kind.
func (Dgram) Set(port.Port, port.Spec, port.Spec) error { return nil }

// Delete implements port.Kind.
func (k Stream) Delete(s port.Spec, t port.Trace) error {
	if port.SettingsOf[Settings](s).Client || !t.Created {
		return nil
	}
	return sockfile.Remove(pathOf(s, k.Dir))
}

// Delete implements port.Kind.
func (k Dgram) Delete(s port.Spec, t port.Trace) error {
	if !t.Created {
		return nil
	}
	own, _ := k.paths(s)
	return sockfile.Remove(own)
}

// pathOf is the socket that the user knows.
func pathOf(s port.Spec, dir string) string {
	path := port.SettingsOf[Settings](s).Path
	if path == "" && dir != "" {
		return filepath.Join(dir, s.Name+".sock")
	}
	return path
}

// PeerSuffix ends the path of the socket that a dgram port looks for its peer at while
// none has sent anything: a machine that only waits can be reached so, and one that
// runs on while the switch starts anew.
const PeerSuffix = ".vm"

// ownSuffix ends the path of a dgram client's own socket, which its peer answers to.
const ownSuffix = ".sw"

// paths are the port's own socket and its peer's at first.
func (k Dgram) paths(s port.Spec) (own, peer string) {
	path := pathOf(s, k.Dir)
	switch {
	case path == "":
		return "", ""
	case port.SettingsOf[Settings](s).Client:
		return path + ownSuffix, path
	}
	return path, path + PeerSuffix
}

func check(k port.Kind, s port.Spec, path string) error {
	o := port.SettingsOf[Settings](s)
	switch {
	case o.Client && o.Path == "":
		return errors.New("--client needs the socket to connect to; name it with --path")
	case path == "":
		return fmt.Errorf("a %s port needs a socket; name it with --path", k.Name())
	case !filepath.IsAbs(path):
		return fmt.Errorf("socket path %q is not absolute; write it as /run/vswitch/vm0.sock", path)
	case len(path) > sockfile.MaxPath:
		return fmt.Errorf("socket %s has %d bytes in its path, of at most %d; use a shorter one", path, len(path), sockfile.MaxPath)
	}
	return nil
}

// refuse tells why a frame cannot leave by a socket, DropNone if it can.
func refuse(o *port.Out) port.Drop {
	switch {
	case len(o.Frame.Data) < port.HeaderLen:
		return port.DropRunt
	case o.Len() > port.MaxFrame:
		return port.DropTooBig
	case o.Frame.Offload.Needs() != port.CapsNone:
		return port.DropBadOffload // not as Caps says
	}
	return port.DropNone
}

// errClosed is why a link is down that the switch itself closed.
var errClosed = errors.New("the port was closed")
