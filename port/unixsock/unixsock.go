// Package unixsock provides the port kinds for machines behind a unix socket, which
// need no root: Stream (QEMU `-netdev stream`, passt, libkrun's unixstream) and Dgram
// (QEMU `-netdev dgram`, vfkit, libkrun's unixgram). A port stays open while its peer
// comes and goes. Neither kind carries an offload header: the switch finishes frames
// first.
package unixsock

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/vswitch/vswitch/internal/files/sockfile"
	"github.com/vswitch/vswitch/internal/qemu"
	"github.com/vswitch/vswitch/port"
)

// Stream makes ports for one connection at a time, on which each frame follows its
// length. It implements port.Kind.
type Stream struct {
	// Dir holds the sockets of ports that name no path.
	Dir string
}

// Dgram makes ports that exchange one frame per datagram with one peer. It implements
// port.Kind.
type Dgram struct {
	// Dir holds the sockets of ports that name no path.
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
	port.Socket
}

// Describe implements port.Kind.
func (k Stream) Describe() port.Description {
	return port.Description{
		Help:     "a virtual machine behind a unix socket, without rights: QEMU's\n-netdev stream, passt, libkrun.",
		Settings: Settings{},
		Station:  true,
		QEMU:     k.qemuFlags,
	}
}

// Describe implements port.Kind.
func (k Dgram) Describe() port.Description {
	return port.Description{
		Help:     "the same with one frame in a datagram: QEMU's -netdev dgram, vfkit,\nlibkrun.",
		Settings: Settings{},
		Station:  true,
		QEMU:     k.qemuFlags,
	}
}

// qemuFlags makes QEMU connect to the port's socket, or listen there for the switch.
func (k Stream) qemuFlags(s port.Spec, g qemu.Guest) (f qemu.Flags, err error) {
	server, reconnect := "off", g.Version.StreamReconnect()
	if port.SettingsOf[Settings](s).Client {
		server, reconnect = "on", ""
	}
	f.Backend = []string{"-netdev", "stream,id=" + g.ID + ",server=" + server + ",addr.type=unix,addr.path=" + qemu.Value(pathOf(s, k.Dir)) + reconnect}
	f.Device = qemu.MTU(g.MTU)
	return f, cmp.Or(noMemory(s, g), g.Version.HasSocketNetdev("stream"))
}

// qemuFlags gives QEMU its own socket and the port's.
func (k Dgram) qemuFlags(s port.Spec, g qemu.Guest) (f qemu.Flags, err error) {
	own, peer := k.paths(s)
	f.Backend = []string{"-netdev", "dgram,id=" + g.ID + ",local.type=unix,local.path=" + qemu.Value(peer) +
		",remote.type=unix,remote.path=" + qemu.Value(own)}
	f.Device = qemu.MTU(g.MTU)
	return f, cmp.Or(noMemory(s, g), g.Version.HasSocketNetdev("dgram"))
}

func noMemory(s port.Spec, g qemu.Guest) error {
	if g.Memory != "" {
		return fmt.Errorf("port %s needs no shared memory; leave --memory out", s.Name)
	}
	return nil
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
// that it creates for the socket stays.
func (k Stream) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	path := pathOf(s, k.Dir)
	if port.SettingsOf[Settings](s).Client {
		if err := checkPeer(path); err != nil {
			return nil, err
		}
		return dialStream(path), nil
	}
	a, err := access(s)
	if err != nil {
		return nil, err
	}
	trace.IntendToMake("")
	server, err := sockfile.Serve(path, a)
	if err != nil {
		return nil, err
	}
	if err := letIn(s, a, k.Dir); err != nil {
		return nil, errors.Join(err, server.Close(), sockfile.Remove(path))
	}
	trace.Created = true
	return serveStream(server), nil
}

// Open implements port.Kind. A directory that it creates for the socket stays.
func (k Dgram) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	own, peer := k.paths(s)
	if port.SettingsOf[Settings](s).Client {
		if err := checkPeer(peer); err != nil {
			return nil, err
		}
	}
	a, err := access(s)
	if err != nil {
		return nil, err
	}
	trace.IntendToMake("")
	p, err := newDgram(own, peer, a)
	if err != nil {
		return nil, err
	}
	if err := letIn(s, a, k.Dir); err != nil {
		return nil, errors.Join(err, p.Close(), sockfile.Remove(own))
	}
	trace.Created = true
	return p, nil
}

// Set implements port.Kind.
func (k Stream) Set(p port.Port, from, to port.Spec) error { return set(p, from, to, k.Dir) }

// Set implements port.Kind.
func (k Dgram) Set(p port.Port, from, to port.Spec) error { return set(p, from, to, k.Dir) }

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

// pathOf returns the path of the socket that the user knows.
func pathOf(s port.Spec, dir string) string {
	return port.SettingsOf[Settings](s).PathOf(s.Name, dir)
}

// PeerSuffix ends the path where a dgram port looks for its peer until one has sent
// something. It lets the switch reach a machine that only waits, and one that keeps
// running while the switch restarts.
const PeerSuffix = ".vm"

// ownSuffix ends the path of a dgram client's own socket, to which its peer replies.
const ownSuffix = ".sw"

// paths returns the port's own socket and its initial peer's.
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
	case o.Client && k.Name() == "stream" && (o.Owner != "" || o.Group != "" || o.Mode != ""):
		return errors.New("a stream port with --client makes no socket; leave --owner, --group and --mode out")
	case path == "":
		return fmt.Errorf("a %s port needs a socket; name it with --path", k.Name())
	case !filepath.IsAbs(path):
		return fmt.Errorf("socket path %q is not absolute; write it from the root on, as /run/vswitch/vm0.sock", path)
	case len(path) > sockfile.MaxPath:
		return fmt.Errorf("socket %s has %d bytes in its path, of at most %d; use a shorter one", path, len(path), sockfile.MaxPath)
	}
	return sockfile.CheckMode(o.Mode)
}

// set changes who may use the socket; its path is fixed.
func set(p port.Port, from, to port.Spec, dir string) error {
	was, is := port.SettingsOf[Settings](from), port.SettingsOf[Settings](to)
	if was.SameAccess(is.Socket) {
		return nil
	}
	a, err := access(to)
	if err == nil {
		err = letIn(to, a, dir)
	}
	if err != nil {
		return err
	}
	return p.(interface{ setAccess(sockfile.Access) error }).setAccess(a)
}

// access returns who may use the socket.
func access(s port.Spec) (sockfile.Access, error) {
	o := port.SettingsOf[Settings](s)
	return sockfile.ParseAccess(o.Owner, o.Group, o.Mode)
}

// letIn gives those who may use a socket access to the ports' directory.
func letIn(s port.Spec, a sockfile.Access, dir string) error {
	if port.SettingsOf[Settings](s).Path != "" {
		return nil
	}
	return sockfile.LetIn(dir, a)
}

// refuse returns why a frame cannot leave through a socket, or DropNone if it can.
func refuse(o *port.Out) port.Drop {
	switch {
	case len(o.Frame.Data) < port.HeaderLen:
		return port.DropRunt
	case o.Len() > port.MaxFrame:
		return port.DropTooBig
	case o.Frame.Offload.Needs() != port.CapsNone:
		return port.DropBadOffload // violates Caps
	}
	return port.DropNone
}

// errClosed is why a link is down after the switch itself closed it.
var errClosed = errors.New("the port was closed")
