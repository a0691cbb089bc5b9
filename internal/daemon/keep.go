package daemon

import (
	"fmt"
	"strings"

	"github.com/vswitch/vswitch/internal/handover"
	"github.com/vswitch/vswitch/port"
)

// A service manager keeps what ports need to go on after this process was killed: what comes
// meanwhile waits in their sockets. The next process gets it at its start. It is one file for each
// port; see handover.Pack.

// keptFormat is the format of kept, which says what it is by itself: a field that it lacks is
// empty, and one that is not known does not matter.
const keptFormat = 1

// kept is what is kept of a port.
type kept struct {
	Format int // keptFormat
	Kind   string
	Parcel int // the Parcel's format
	Data   []byte
}

// keptName is the name by which the service manager knows what is kept of a port.
func keptName(name string) string { return keptPrefix + name }

const keptPrefix = "port-"

// Stored is a file that a service manager kept.
type Stored struct {
	Name string
	FD   int
}

// adoptStored gives each port what was kept of it, and has the service manager forget the rest:
// of ports that are no more, and what is not the switch's.
func (m *manager) adoptStored(all []Stored) {
	for _, s := range all {
		name, ours := strings.CutPrefix(s.Name, keptPrefix)
		p := m.ports[name]
		var err error
		switch {
		case !ours || p == nil || p.inherited != nil:
			err = fmt.Errorf("no port needs it")
		default:
			p.inherited, err = unpackStored(s.FD, p.spec.Kind)
		}
		handover.Close([]int{s.FD})
		if err != nil {
			m.log.Debug("a file that the service manager has kept is not used", "name", s.Name, "reason", err)
			m.service.Remove(s.Name)
		}
	}
}

// unpackStored returns what a file keeps of a port of a kind.
func unpackStored(fd int, kind string) (*port.Parcel, error) {
	var k kept
	files, err := handover.Unpack(fd, &k)
	if err == nil && (k.Format != keptFormat || k.Kind != kind) {
		err = fmt.Errorf("it is of kind %q, in format %d", k.Kind, k.Format)
	}
	if err != nil {
		handover.Close(files)
		return nil, err
	}
	return &port.Parcel{Format: k.Parcel, Data: k.Data, Files: files}, nil
}

// keep has the service manager keep what the port needs after this process was killed.
func (m *manager) keep(p *managed) {
	if _, none := m.service.(noService); none || m.former != nil {
		return // the service manager hears the former process, and has what that one stored
	}
	parcel, err := lasting(p)
	if err == nil && parcel == nil {
		return
	}
	var fd int
	if err == nil {
		fd, err = handover.Pack(kept{keptFormat, p.spec.Kind, parcel.Format, parcel.Data}, parcel.Files...)
		handover.Close(parcel.Files)
	}
	if err != nil {
		m.log.Debug("what a port needs after a crash is not kept", "port", p.spec.Name, "reason", err)
		m.service.Remove(keptName(p.spec.Name))
		return
	}
	m.service.Store(keptName(p.spec.Name), fd)
	handover.Close([]int{fd})
}

// lasting returns what a process needs to go on with a port after this one has died; nil: it opens
// the port.
func lasting(p *managed) (*port.Parcel, error) {
	g, ok := p.dev.(port.Giver)
	if _, heir := as[port.Heir](p.kind); !ok || !heir {
		return nil, nil
	}
	if l, ok := p.dev.(port.Lasting); ok {
		return l.Last()
	}
	return g.Give(false)
}

// watchLasting keeps what the port needs whenever that changes, until stop.
func (m *manager) watchLasting(p *managed, dev port.Port) (stop func()) {
	l, ok := dev.(port.Lasting)
	if _, none := m.service.(noService); none || !ok {
		return func() {}
	}
	return m.onChange(p, dev, l.LastChanged(), func() { m.keep(p) })
}

// unkeep has the service manager forget what it keeps of a port.
func (m *manager) unkeep(p *managed) {
	if m.former == nil {
		m.service.Remove(keptName(p.spec.Name))
	}
}

// inherit takes the port over from a process that has died. It returns nil if nothing was kept of
// the port: then the caller opens it.
func (p *managed) inherit(spec port.Spec, trace *port.Trace) (port.Port, error) {
	from := p.inherited
	if from == nil {
		return nil, nil
	}
	p.inherited = nil
	defer handover.Close(from.Files)
	t := *trace
	dev, err := p.kind.(port.Heir).Take(spec, &t, from)
	if err != nil {
		return nil, err
	}
	*trace = t
	return dev, nil
}
