package vhostuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vswitch/vswitch/internal/files/sockfile"
	"github.com/vswitch/vswitch/internal/qemu"
	"github.com/vswitch/vswitch/port"
)

// Kind makes vhost-user ports. It implements port.Kind, and needs no privileges but
// write permission where the sockets are.
type Kind struct {
	// Dir holds the sockets of ports without a path of their own, and the state that a
	// port keeps in case the process dies. Open creates it if it is absent.
	Dir string
}

var _ port.Kind = Kind{}

// New returns the kind with a directory for sockets.
func New(dir string) (port.Kind, error) {
	if dir == "" {
		return nil, errors.New("vhost-user ports need the directory of their switch's sockets")
	}
	return Kind{Dir: dir}, nil
}

// Name implements port.Kind.
func (Kind) Name() string { return "vhost-user" }

// Settings are those of vhost-user ports.
type Settings struct {
	port.Socket
	Queues int  `json:"queues,omitempty" arg:"N" min:"1" max:"8" default:"1" fixed:"true" help:"queues, each with a thread of its own"`
	Poll   Poll `json:"poll,omitempty" arg:"HOW" default:"adaptive" help:"how to wait for frames: adaptive, or busy, which takes a processor for each queue"`
}

// Poll says how workers wait for frames in shared memory. Empty is PollAdaptive.
type Poll string

const (
	// PollAdaptive: under load, workers poll for a bounded time, then sleep.
	PollAdaptive Poll = "adaptive"
	// PollBusy: workers never sleep while a guest is connected. That takes a processor
	// for each queue in use and saves the guest the kick.
	PollBusy Poll = "busy"
)

// Values implements setting.Enum.
func (Poll) Values() []string { return []string{"adaptive", "busy"} }

// Describe implements port.Kind.
func (k Kind) Describe() port.Description {
	return port.Description{
		Help:     "a virtual machine's NIC in memory shared with QEMU: the fastest.",
		Settings: Settings{},
		Station:  true,
		QEMU:     k.qemuFlags,
		Libvirt:  k.libvirt,
	}
}

// qemuFlags makes QEMU share its memory through the port's socket.
func (k Kind) qemuFlags(s port.Spec, g qemu.Guest) (f qemu.Flags, err error) {
	o := port.SettingsOf[Settings](s)
	queues, device := qemu.Queues(o.Queues)
	if g.Memory != "" {
		size, err := qemu.ParseMemory(g.Memory)
		if err != nil {
			return f, fmt.Errorf("--memory: %w", err)
		}
		f.Backend = []string{"-m", size, "-object", "memory-backend-memfd,id=mem,size=" + size + ",share=on", "-numa", "node,memdev=mem"}
	}
	reconnect := g.Version.ChardevReconnect()
	if o.Client {
		reconnect = ",server=on" // the switch connects to QEMU
	}
	f.Backend = append(f.Backend,
		"-chardev", "socket,id=char-"+g.ID+",path="+qemu.Value(k.Path(s))+reconnect,
		"-netdev", "vhost-user,id="+g.ID+",chardev=char-"+g.ID+queues)
	f.Device = device + qemu.MTU(g.MTU)
	return f, nil
}

// libvirt describes a NIC in shared memory.
func (k Kind) libvirt(s port.Spec, g qemu.Guest) qemu.Interface {
	o := port.SettingsOf[Settings](s)
	source := &qemu.Source{Type: "unix", Path: k.Path(s), Mode: "client", Reconnect: &qemu.Reconnect{Enabled: "yes", Timeout: 1}}
	if o.Client {
		source.Mode, source.Reconnect = "server", nil
	}
	return qemu.Interface{Type: "vhostuser", Source: source, Driver: qemu.QueuesOf(o.Queues), MTU: qemu.SizeOf(g.MTU), Needs: qemu.SharedMemory}
}

// Path returns the path of the port's socket.
func (k Kind) Path(s port.Spec) string {
	return port.SettingsOf[Settings](s).PathOf(s.Name, k.Dir)
}

// notes returns the file that keeps the positions of packed rings from one process to
// the next, or "" if there is no directory for it.
func (k Kind) notes(s port.Spec) string {
	if k.Dir == "" {
		return ""
	}
	return filepath.Join(k.Dir, s.Name+".rings")
}

// Check implements port.Kind.
func (k Kind) Check(s port.Spec) error {
	o, path := port.SettingsOf[Settings](s), k.Path(s)
	switch {
	case o.Client && (o.Owner != "" || o.Group != "" || o.Mode != ""):
		return errors.New("a vhost-user port with --client makes no socket; leave --owner, --group and --mode out")
	case o.Path == "" && k.Dir == "":
		return errors.New("a vhost-user port needs a socket; name one with --path")
	case !filepath.IsAbs(path):
		return fmt.Errorf("the socket %q has no absolute path; write it from / on", path)
	case len(path) > sockfile.MaxPath:
		return fmt.Errorf("the path %s has %d bytes, a socket's has at most %d; name a shorter one with --path", path, len(path), sockfile.MaxPath)
	}
	return sockfile.CheckMode(o.Mode)
}

// Open implements port.Kind.
func (k Kind) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	path := k.Path(s)
	if k.Dir != "" {
		if err := sockfile.MakeDir(k.Dir); err != nil {
			return nil, err
		}
	}
	if port.SettingsOf[Settings](s).Client {
		return k.start(connect(path), s, nil)
	}
	a, err := k.access(s)
	if err != nil {
		return nil, err
	}
	trace.IntendToMake("")
	l, err := sockfile.Serve(path, a)
	if err != nil {
		return nil, err
	}
	p, err := k.start(&server{l}, s, nil)
	if err != nil {
		return nil, errors.Join(err, sockfile.Remove(path))
	}
	trace.Created = true
	return p, nil
}

// access returns who may use the socket, and gives them access to the ports' directory.
func (k Kind) access(s port.Spec) (sockfile.Access, error) {
	o := port.SettingsOf[Settings](s)
	a, err := sockfile.ParseAccess(o.Owner, o.Group, o.Mode)
	if err == nil && o.Path == "" {
		err = sockfile.LetIn(k.Dir, a)
	}
	return a, err
}

// start opens a port, with the front end that another process has unless former is nil.
func (k Kind) start(ps peers, s port.Spec, former *session) (port.Port, error) {
	p, err := open(ps, k.notes(s), port.SettingsOf[Settings](s).Poll == PollBusy, former)
	if err != nil {
		ps.close()
		if former != nil {
			former.conn.Close()
		}
		return nil, err
	}
	return p, nil
}

// Set implements port.Kind.
func (k Kind) Set(p port.Port, from, to port.Spec) error {
	pp, was, is := p.(*Port), port.SettingsOf[Settings](from), port.SettingsOf[Settings](to)
	if !was.SameAccess(is.Socket) {
		a, err := k.access(to)
		if err == nil {
			err = pp.peers.(*server).SetAccess(a)
		}
		if err != nil {
			return err
		}
	}
	pp.setBusy(is.Poll == PollBusy)
	return nil
}

// Delete implements port.Kind.
func (k Kind) Delete(s port.Spec, t port.Trace) error {
	if notes := k.notes(s); notes != "" {
		if err := os.Remove(notes); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !t.Created {
		return nil
	}
	return sockfile.Remove(k.Path(s))
}
