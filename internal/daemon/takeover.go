package daemon

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/handover"
	"github.com/vswitch/vswitch/port"
)

// This file is the side of the process that takes a switch over; handover.go is that of the
// former one. Until Go, the former process may go on: an error here ends this process and must
// leave everything as it is.

// TakeOver is how a process takes a switch over.
type TakeOver struct {
	Conn handover.Conn // to the former process

	// Began is called when this process forwards and the former one is about to end.
	Began func(handover.Report)
}

// former is the process that this one replaces.
type former struct {
	handover.Conn
	began func(handover.Report)
	offer handover.Offer
	saved store.State

	listener, state, pins, claim *os.File // nil: there is none
	locks                        []flock.File

	ports  map[string]*given
	failed chan error // has why this process cannot go on
}

// given is a port of the former process.
type given struct {
	handover.Port
	parcel *port.Parcel // nil: not yet, or nothing
}

// claimSwitch asks the former process for the switch.
func claimSwitch(t *TakeOver, version string) (*former, error) {
	f := &former{Conn: t.Conn, began: t.Began, ports: make(map[string]*given), failed: make(chan error, 1)}
	_ = f.SetDeadline(time.Now().Add(startWait))
	err := f.Send(handover.Claim{Format: handover.Format, Version: version, PID: os.Getpid()})
	if err != nil {
		return nil, err
	}
	files, err := f.Receive(&f.offer)
	if err != nil {
		return nil, fmt.Errorf("taking the switch over: %w", err)
	}
	if f.offer.Refused != "" {
		return nil, errors.New(f.offer.Refused)
	}
	take := func(n int) (all []*os.File) {
		for ; n > 0 && len(files) > 0; n-- {
			all, files = append(all, os.NewFile(uintptr(files[0]), "handover")), files[1:]
		}
		return all
	}
	one := func(n int) *os.File {
		if all := take(n); len(all) > 0 {
			return all[0]
		}
		return nil
	}
	f.listener = one(f.offer.Listeners)
	for _, l := range take(f.offer.Locks) {
		f.locks = append(f.locks, flock.File{File: l})
	}
	f.state, f.pins, f.claim = one(f.offer.StateLocks), one(f.offer.Pins), one(f.offer.Interfaces)
	if f.listener == nil || len(f.locks) == 0 {
		return nil, fmt.Errorf("vswitch %s gives no control socket", f.offer.Version)
	}
	if err := json.Unmarshal(f.offer.State, &f.saved); err != nil {
		return nil, fmt.Errorf("the state of vswitch %s is not understood: %w", f.offer.Version, err)
	}
	return f, f.receive(f.offer.Ports, files)
}

// receive enters what is given of ports; files are all of them.
func (f *former) receive(ports []handover.Port, files []int) error {
	for _, p := range ports {
		g := &given{Port: p}
		if p.Files < 0 || p.Files > len(files) {
			return fmt.Errorf("port %s is given with %d files, and %d came", p.Name, p.Files, len(files))
		}
		if p.Given {
			g.parcel = &port.Parcel{Format: p.Format, Data: p.Data, Files: files[:p.Files]}
			files = files[p.Files:]
		}
		f.ports[p.Name] = g
	}
	return nil
}

// say tells the former process how a step ended, and returns why this one cannot go on.
func (f *former) say(err error) error {
	if err != nil {
		_ = f.Send(handover.Result{Error: err.Error()}) // or it sees the end of this process
		return err
	}
	return f.Send(handover.Result{})
}

// takeOver takes the ports over and returns when this process forwards. The switch is held
// meanwhile. It runs beside the loop.
func (m *manager) takeOver(f *former) error {
	if err := f.say(m.takeAll(f, m.takePort)); err != nil {
		return err
	}
	var r handover.Rest
	files, err := f.Receive(&r)
	switch {
	case err != nil:
		return fmt.Errorf("taking the switch over: %w", err)
	case r.Error != "":
		return errors.New(r.Error)
	}
	err = f.receive(r.Ports, files)
	if err == nil {
		err = m.takeAll(f, m.takeGiven)
	}
	if err == nil {
		err = m.do(func() error { return m.takeRest(r) })
	}
	if err := f.say(err); err != nil {
		return err
	}
	if _, err := f.Receive(new(handover.Go)); err != nil {
		return fmt.Errorf("the former process goes on: %w", err)
	}
	m.own.leave.Store(false)
	report := handover.Report{Stations: m.sw.FDB().Len()}
	_ = m.do(func() error {
		if m.fast != nil {
			m.fast.Start()
		}
		for name, c := range r.Counters {
			if p := m.ports[name]; p != nil {
				p.sw.Carry(fromWire(c))
			}
		}
		m.sw.CarryTotals(r.Injected, fromWire(r.Departed))
		m.sw.Resume()
		report.Held, report.Ports = time.Since(r.Held), len(m.ports)
		return nil
	})
	_ = f.say(nil) // or the former process has ended already
	// Its end: until then the service manager hears nobody else, and some sockets are held.
	_ = f.SetDeadline(time.Now().Add(holdWait))
	_, _ = f.Receive(new(handover.Go))
	f.Close()
	time.AfterFunc(takenGap, func() {
		_ = m.do(func() error { m.taking.Store(false); m.followAll(); return nil })
	})
	_ = m.do(func() error {
		m.former = nil
		for _, p := range m.ports {
			m.keep(p)
			if p.dev == nil {
				p.retryAt(time.Now())
			}
		}
		m.saveTrace()
		m.emit(api.Event{Type: api.EventDaemonStarted, Reason: m.version})
		return nil
	})
	f.began(report)
	m.log.Info("switch taken over", "from", f.offer.Version, "ports", report.Ports, "stations", report.Stations, "held", report.Held.Round(100*time.Microsecond))
	close(m.restored)
	return nil
}

// takeAll calls take for all ports. Those of a kind are taken one after another.
func (m *manager) takeAll(f *former, take func(*managed, *given) error) error {
	errs := make(chan error, len(f.ports))
	waiting := 0
	for _, kind := range m.byKind() {
		waiting++
		go func() {
			errs <- m.do(func() error {
				for _, p := range kind {
					if err := take(p, f.ports[p.spec.Name]); err != nil {
						return fmt.Errorf("port %s: %w", p.spec.Name, err)
					}
				}
				return nil
			})
		}()
	}
	var err error
	for range waiting {
		err = errors.Join(err, <-errs)
	}
	return err
}

// takePort takes a port if the former process has given it, or opens it if that one has not.
func (m *manager) takePort(p *managed, g *given) error {
	switch {
	case g != nil && g.parcel != nil:
		return m.takeGiven(p, g)
	case g != nil && g.Open: // it comes later, or the port is opened when the former process has ended
		m.wait(p, errors.New("the former process has it open"))
		return nil
	}
	m.claim(p)
	defer p.release()
	m.tryOpen(p)
	return nil
}

// takeGiven takes a port if the former process has given it.
func (m *manager) takeGiven(p *managed, g *given) error {
	if g == nil || g.parcel == nil {
		return nil
	}
	m.claim(p)
	defer p.release()
	p.from = g.parcel
	defer func() { handover.Close(g.parcel.Files); p.from, g.parcel = nil, nil }()
	p.shutBy, p.recovery = g.Shut, g.Recovery
	if err := m.open(p); err != nil {
		return err
	}
	m.reconcile(p)
	return nil
}

// takeRest takes what is not of ports.
func (m *manager) takeRest(r handover.Rest) error {
	table := m.sw.FDB()
	for name, b := range r.Stations {
		p := m.ports[name]
		if p == nil {
			continue
		}
		for ; len(b) >= stationSize; b = b[stationSize:] {
			table.Restore(fdb.Key(binary.BigEndian.Uint64(b)), p.sw.Number(), time.Duration(binary.BigEndian.Uint32(b[8:]))*time.Second)
		}
	}
	for _, h := range m.hosted {
		h.kept = r.Sections[h.key()]
		if given, ok := r.Features[h.Name]; ok {
			parcel := feature.Parcel(given)
			h.given = &parcel
		}
	}
	return m.setFeatures(noSettings(features(m.hosted)).features, m.settings.features)
}

// receiveListener is listen for a socket that another process has made.
func receiveListener(path, group string, f *os.File, locks []flock.File, log *slog.Logger) (*listener, error) {
	defer f.Close()
	l, err := newListener(path, group, log)
	if err != nil {
		return nil, err
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	l.socket, l.id, l.locks = ln.(*net.UnixListener), idOf(path), locks
	l.done.Go(l.watch)
	return l, nil
}
