package lag

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/proto/lacp"
	"github.com/vswitch/vswitch/port"
)

// Neither the other end nor a flow notices that another process goes on with the members: that
// one gets their sockets, the state of LACP, and the table that spreads flows.

// parcelFormat is the format of a Port's Parcel: a bundle, and as files those of each member's
// device, then the socket for its LACPDUs.
const parcelFormat = 1

// sharedGap is how long two processes may have their programs at a device: the one that ends has
// its there until the kernel has closed its files.
const sharedGap = 15 * time.Second

type bundle struct {
	Members []givenMember // those whose interface the port has
	Group   *lacp.Saved   // nil: LACP is off
	Buckets []byte
	Current int // as Port.current
}

type givenMember struct {
	Name          string
	Slot          int
	Format, Files int // of its device's Parcel
	Data          []byte

	files []int // and the listener's
}

// Pause implements port.Pausable.
func (p *Port) Pause() {
	p.pausing.Lock()
	defer p.pausing.Unlock()
	p.paused.Store(true)
	for _, s := range p.slots {
		if m := s.member.Load(); m != nil {
			m.device.Pause()
		}
		s.rouse()
	}
}

// Resume implements port.Pausable.
func (p *Port) Resume() {
	p.mu.Lock()
	if p.given {
		p.given, p.sharedUntil = false, time.Now().Add(sharedGap)
		for _, pl := range p.order {
			switch m := pl.slot.member.Load(); {
			case m == nil:
				pl.again = time.Now() // its interface may have come meanwhile
			default:
				m.looked = false
				m.unpark()
			}
		}
	}
	p.mu.Unlock()
	p.pausing.Lock()
	p.paused.Store(false)
	for _, s := range p.slots {
		if m := s.member.Load(); m != nil {
			m.device.Resume()
		}
	}
	p.pausing.Unlock()
	p.poke()
}

// Give implements port.Giver.
func (p *Port) Give(paused bool) (*port.Parcel, error) {
	if !paused {
		return nil, nil
	}
	p.mu.Lock()
	p.given = true // no member comes from now on, and none speaks
	for _, s := range p.slots {
		if m := s.member.Load(); m != nil {
			m.listener.Interrupt(true)
		}
	}
	p.mu.Unlock()
	// What a listener has read still counts.
	for _, s := range p.slots {
		if m := s.member.Load(); m != nil {
			select {
			case <-m.parked:
			case <-m.done:
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed() {
		return nil, port.ErrClosed
	}
	return p.heirloom().pack()
}

// heirloom is a port as another process needs it.
type heirloom struct {
	members [maxMembers]named // in the order of the settings; those that are there come first
	buckets
	current int
	group   *lacp.Saved // nil: LACP is off
}

type named struct {
	name string
	*member
}

// heirloom returns the port as it is. The caller holds mu.
func (p *Port) heirloom() *heirloom {
	l := &heirloom{buckets: p.table.Load().buckets, current: p.current}
	n := 0
	for _, pl := range p.order {
		if m := pl.slot.member.Load(); m != nil {
			l.members[n] = named{pl.name, m}
			n++
		}
	}
	if p.group != nil {
		l.group = p.group.Save(time.Now())
	}
	return l
}

// like reports whether two are the same, but for times and counters.
func (l *heirloom) like(o *heirloom) bool {
	return l.members == o.members && l.buckets == o.buckets && l.current == o.current && l.group.Like(o.group)
}

// pack returns the Parcel.
func (l *heirloom) pack() (_ *port.Parcel, err error) {
	parcel := &port.Parcel{Format: parcelFormat}
	b := bundle{Buckets: l.buckets[:], Current: l.current, Group: l.group}
	for _, m := range l.members {
		if m.member != nil && err == nil {
			err = m.give(parcel, &b, m.name)
		}
	}
	if err == nil {
		parcel.Data, err = json.Marshal(b)
	}
	if err != nil {
		afpacket.Drop(parcel)
		return nil, err
	}
	return parcel, nil
}

// Last implements port.Lasting. A partner that changed its mind after the last change says so
// again, and the next process hears it.
func (p *Port) Last() (*port.Parcel, error) {
	if p.isClosed() {
		return nil, port.ErrClosed
	}
	return p.view.Load().last.pack()
}

// LastChanged implements port.Lasting.
func (p *Port) LastChanged() <-chan struct{} { return p.lastChanged }

// give adds a member to what its port gives.
func (m *member) give(parcel *port.Parcel, b *bundle, name string) error {
	of, err := m.device.Give(true)
	if errors.Is(err, port.ErrClosed) {
		return nil // its interface is gone
	}
	if err != nil {
		return err
	}
	parcel.Files = append(parcel.Files, of.Files...)
	fd, err := m.listener.Dup()
	if err != nil {
		parcel.Files = parcel.Files[:len(parcel.Files)-len(of.Files)]
		afpacket.Drop(of)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	}
	parcel.Files = append(parcel.Files, fd)
	b.Members = append(b.Members, givenMember{Name: name, Slot: m.slot.index, Format: of.Format, Data: of.Data, Files: len(of.Files)})
	return nil
}

// Take implements port.Heir.
func (k kind) Take(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	h, err := inherit(from)
	if err != nil {
		return nil, err
	}
	p, err := open(k, s, trace, h)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// heritage is what another process gave of a port. A nil one is empty.
type heritage struct {
	bundle
	group *lacp.Group
}

// inherit reads a Parcel.
func inherit(from *port.Parcel) (*heritage, error) {
	if from.Format != parcelFormat {
		return nil, from.Check(parcelFormat, len(from.Files))
	}
	h := new(heritage)
	if err := json.Unmarshal(from.Data, &h.bundle); err != nil {
		return nil, fmt.Errorf("what is given is not understood: %w", err)
	}
	if len(h.Buckets) != numBuckets || h.Current >= maxMembers {
		return nil, errors.New("what is given is of another table of members")
	}
	files := from.Files
	var used [maxMembers]bool
	for i := range h.Members {
		m := &h.Members[i]
		switch {
		case m.Slot < 0 || m.Slot >= maxMembers || used[m.Slot]:
			return nil, fmt.Errorf("member %s is given in place %d", m.Name, m.Slot)
		case m.Files < 0 || m.Files >= len(files):
			return nil, fmt.Errorf("member %s is given with %d files, and %d came", m.Name, m.Files+1, len(files))
		}
		used[m.Slot] = true
		m.files, files = files[:m.Files+1], files[m.Files+1:]
	}
	if h.Group != nil {
		g, err := lacp.Restore(time.Now(), h.Group)
		if err != nil {
			return nil, err
		}
		h.group = g
	}
	return h, nil
}

// of returns what is given of a member; nil: nothing.
func (h *heritage) of(name string) *givenMember {
	if h == nil {
		return nil
	}
	for i := range h.Members {
		if h.Members[i].Name == name {
			return &h.Members[i]
		}
	}
	return nil
}

// device returns the Parcel of a member's device.
func (m *givenMember) device() *port.Parcel {
	return &port.Parcel{Format: m.Format, Data: m.Data, Files: m.files[:m.Files]}
}

// place puts the members at the places that they had, and the table as it was.
func (p *Port) place(h *heritage) {
	used := make(map[int]bool)
	for _, name := range p.settings.Members {
		if m := h.of(name); m != nil {
			used[m.Slot] = true
		}
	}
	next := 0
	for _, name := range p.settings.Members {
		if m := h.of(name); m != nil {
			p.order = append(p.order, &place{name: name, slot: p.slots[m.Slot]})
			continue
		}
		for used[next] {
			next++
		}
		used[next] = true
		p.order = append(p.order, &place{name: name, slot: p.slots[next]})
	}
	if h == nil {
		return
	}
	p.sharedUntil = time.Now().Add(sharedGap)
	t := &table{drop: port.DropNoCarrier, buckets: buckets(h.Buckets)}
	p.table.Store(t)
	p.current, p.group = h.Current, h.group
	if !p.settings.Mode.isLACP() {
		p.group = nil
	}
	if p.group != nil { // a former version did not give it
		p.group.SetMinLinks(time.Now(), p.settings.MinLinks)
	}
}
