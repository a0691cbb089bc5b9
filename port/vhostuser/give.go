package vhostuser

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/files/sockfile"
	"github.com/vswitch/vswitch/internal/virtio/vhost"
	"github.com/vswitch/vswitch/port"
)

// A front end does not notice that another process goes on with its connection: that one gets the
// connection, and the messages by which the front end has set up memory and rings.

// parcelFormat is the format of a Port's Parcel: a bundle, and as files the listening socket, the
// connection, and the descriptors of the messages, as far as there are such.
const parcelFormat = 1

type bundle struct {
	Listens, Connected bool
	Said               []said
}

// said is a vhost.Said whose descriptors are among the files.
type said struct {
	Request vhost.Request
	Payload []byte
	Files   int
}

// session is a front end's connection from another process.
type session struct {
	conn *net.UnixConn
	said []vhost.Said
}

// parking lets the goroutine of run wait while another process may have the connection.
type parking struct {
	in  chan struct{} // has a value once Serve has ended
	out chan struct{} // closed to go on; nil: nobody asked run to wait
}

// parkWait is how long Give waits for the end of a message that is half read, while the whole switch stands still. A
// front end sends a message in one piece.
const parkWait = 250 * time.Millisecond

// park waits until unpark or Close.
func (p *Port) park(conn *net.UnixConn) {
	p.mu.Lock()
	in, out := p.parked.in, p.parked.out
	p.mu.Unlock()
	if out != nil {
		in <- struct{}{}
		<-out
	}
	p.backend.ResumeServe(conn)
}

// noteParked lets Give know that the connection has ended.
func (p *Port) noteParked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parked.out != nil {
		select {
		case p.parked.in <- struct{}{}:
		default:
		}
	}
}

// unpark lets run go on.
func (p *Port) unpark() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parked.out != nil {
		close(p.parked.out)
		p.parked.out = nil
	}
	p.peers.resume()
}

// Give implements port.Giver.
func (p *Port) Give(paused bool) (*port.Parcel, error) {
	if !paused {
		return nil, nil
	}
	fd, err := p.peers.give()
	if err != nil {
		return nil, err
	}
	parcel, b := &port.Parcel{Format: parcelFormat}, bundle{Listens: fd >= 0}
	if fd >= 0 {
		parcel.Files = append(parcel.Files, fd)
	}
	if err = p.giveSession(parcel, &b); err == nil {
		parcel.Data, err = json.Marshal(b)
	}
	if err != nil {
		closeAll(parcel.Files)
		return nil, err
	}
	return parcel, nil
}

// giveSession adds the front end that is there, if there is one. It adds none that does not end a
// message or does not take an answer: no front end holds up the others, and that one may connect again.
func (p *Port) giveSession(parcel *port.Parcel, b *bundle) error {
	p.mu.Lock()
	conn := p.conn
	if p.broken != nil {
		conn = nil
	}
	in := make(chan struct{}, 1)
	p.parked = parking{in: in, out: make(chan struct{})}
	p.mu.Unlock()
	if conn == nil {
		return nil
	}
	p.backend.PauseServe(conn)
	select {
	case <-in:
	case <-p.ended:
		return port.ErrClosed
	case <-time.After(parkWait):
		return nil
	}
	return p.addSession(parcel, b, conn)
}

// addSession adds a front end's connection and what it has set up.
func (p *Port) addSession(parcel *port.Parcel, b *bundle, conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var dup int
	failed := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	switch {
	case failed != nil:
		return nil // the connection has ended
	case err != nil:
		return err
	}
	parcel.Files = append(parcel.Files, dup)
	all, err := p.backend.Setup()
	if err != nil {
		return err
	}
	b.Connected = true
	for _, m := range all {
		b.Said = append(b.Said, said{m.Request, m.Payload, len(m.FDs)})
		parcel.Files = append(parcel.Files, m.FDs...)
	}
	return nil
}

// Last implements port.Lasting.
func (p *Port) Last() (*port.Parcel, error) {
	fd, err := p.peers.dup()
	if err != nil {
		return nil, err
	}
	parcel, b := &port.Parcel{Format: parcelFormat}, bundle{Listens: fd >= 0}
	if fd >= 0 {
		parcel.Files = append(parcel.Files, fd)
	}
	p.mu.Lock()
	conn := p.conn
	if p.broken != nil {
		conn = nil
	}
	p.mu.Unlock()
	if conn != nil {
		err = p.addSession(parcel, &b, conn)
	}
	if err == nil {
		parcel.Data, err = json.Marshal(b)
	}
	if err != nil {
		closeAll(parcel.Files)
		return nil, err
	}
	return parcel, nil
}

// LastChanged implements port.Lasting.
func (p *Port) LastChanged() <-chan struct{} { return p.backend.SetupChanged() }

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// Take implements port.Heir. A front end that has set up what nobody can go on with loses its
// connection, as one that breaks its rings; the port takes the next one.
func (k Kind) Take(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	var b bundle
	if from.Format != parcelFormat {
		return nil, from.Check(parcelFormat, len(from.Files))
	}
	if err := json.Unmarshal(from.Data, &b); err != nil {
		return nil, fmt.Errorf("what is given is not understood: %w", err)
	}
	files := from.Files
	next := func() (fd int, err error) {
		if len(files) == 0 {
			return -1, errors.New("a file is missing in what is given")
		}
		fd, files = files[0], files[1:]
		return fd, nil
	}
	o, path := port.SettingsOf[Settings](s), k.Path(s)
	if b.Listens == o.Client {
		return nil, errors.New("what is given is of a port that connects the other way")
	}
	var ps peers
	if b.Listens {
		fd, err := next()
		if err != nil {
			return nil, err
		}
		a, err := k.access(s)
		if err != nil {
			return nil, err
		}
		l, err := sockfile.Take(path, a, fd)
		if err != nil {
			return nil, err
		}
		ps = &server{l}
	} else {
		ps = connect(path)
	}
	var former *session
	if b.Connected {
		var err error
		if former, err = takeSession(b.Said, next); err != nil {
			ps.close()
			return nil, err
		}
	}
	p, err := k.start(ps, s, former)
	if err == nil && b.Listens {
		trace.Created = true
	}
	return p, err
}

// takeSession makes a session of what is given.
func takeSession(messages []said, next func() (int, error)) (_ *session, err error) {
	fd, err := next()
	if err != nil {
		return nil, err
	}
	dup := func(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }
	own, err := dup(fd)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), "front end")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("what is given is no connection of a front end")
	}
	s := &session{conn: conn}
	defer func() {
		if err != nil {
			conn.Close()
			for _, m := range s.said {
				closeAll(m.FDs)
			}
		}
	}()
	for _, m := range messages {
		to := vhost.Said{Request: m.Request, Payload: m.Payload}
		for range m.Files {
			if fd, err = next(); err == nil {
				fd, err = dup(fd)
			}
			if err != nil {
				closeAll(to.FDs)
				return nil, err
			}
			to.FDs = append(to.FDs, fd)
		}
		s.said = append(s.said, to)
	}
	return s, nil
}
