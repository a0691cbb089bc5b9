package unixsock

import (
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/files/sockfile"
	"github.com/vswitch/vswitch/port"
)

// A peer does not notice that another process goes on with its socket: that one gets the sockets,
// what was read of a stream and not returned, and the backlog.

// Formats of the Parcels.
const (
	dgramFormat  = 1 // files: the socket, then the peer's if it was looked up
	streamFormat = 1 // files: the listening socket of a server, then the connection if there is one
)

// dgramParcel is what a dgram port gives.
type dgramParcel struct {
	Peer    []byte // its path, as in sockaddr_un
	UID     uint32
	Named   bool
	ByPath  bool // frames go to the path itself
	Up      bool
	Backlog []byte
}

// streamParcel is what a stream port gives.
type streamParcel struct {
	Listens, Connected bool
	Read, Backlog      []byte
}

func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// add appends a duplicate of a descriptor to a Parcel.
func add(p *port.Parcel, fd int) error {
	own, err := dup(fd)
	if err == nil {
		p.Files = append(p.Files, own)
	}
	return err
}

// pack completes a Parcel, or closes its files after an error.
func pack(p *port.Parcel, data any, err error) (*port.Parcel, error) {
	if err == nil {
		p.Data, err = json.Marshal(data)
	}
	if err != nil {
		for _, fd := range p.Files {
			unix.Close(fd)
		}
		return nil, err
	}
	return p, nil
}

// unpack reads a Parcel's data.
func unpack(p *port.Parcel, format int, data any) error {
	if p.Format != format {
		return p.Check(format, len(p.Files))
	}
	if err := json.Unmarshal(p.Data, data); err != nil {
		return fmt.Errorf("what is given is not understood: %w", err)
	}
	return nil
}

// Give implements port.Giver.
func (p *dgramPort) Give(paused bool) (*port.Parcel, error) {
	if !paused {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return nil, port.ErrClosed
	}
	p.given = true
	p.room.interrupt()
	return p.pack(p.backlog.bytes())
}

// Last implements port.Lasting.
func (p *dgramPort) Last() (*port.Parcel, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return nil, port.ErrClosed
	}
	return p.pack(nil)
}

// LastChanged implements port.Lasting.
func (p *dgramPort) LastChanged() <-chan struct{} { return p.other }

// pack returns the Parcel. The caller holds mu.
func (p *dgramPort) pack(backlog []byte) (*port.Parcel, error) {
	parcel := &port.Parcel{Format: dgramFormat}
	err := add(parcel, p.sock.Load().fd)
	if err == nil && p.peer.fd > 0 {
		err = add(parcel, p.peer.fd)
	}
	name := &p.peer.name
	return pack(parcel, dgramParcel{
		Peer: pathBytes(name), UID: p.peer.uid, Named: p.peer.named,
		ByPath: p.peer.fd <= 0 && p.peer.to.len > 0, Up: p.up.Load(), Backlog: backlog,
	}, err)
}

// pathBytes returns the path of an address.
func pathBytes(a *address) []byte {
	b := make([]byte, 0, a.len)
	for _, c := range a.raw.Path[:max(a.len, unnamed)-unnamed] {
		b = append(b, byte(c))
	}
	return b
}

// Take implements port.Heir.
func (k Dgram) Take(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	var d dgramParcel
	if err := unpack(from, dgramFormat, &d); err != nil {
		return nil, err
	}
	own, named := k.paths(s)
	var to peer
	switch n := len(from.Files); {
	case n < 1 || n > 2 || n == 2 && d.ByPath:
		return nil, fmt.Errorf("what is given has %d files", n)
	case len(d.Peer) > len(to.name.raw.Path):
		return nil, errors.New("the peer that is given has too long a path")
	}
	a, err := access(s)
	if err != nil {
		return nil, err
	}
	conn, file, err := sockfile.TakePacket(own, from.Files[0])
	if err != nil {
		return nil, err
	}
	sock, err := useDgramSocket(conn, file)
	if err != nil {
		return nil, err
	}
	p := makeDgram(sock, own, named, a)
	to = peer{uid: d.UID, named: d.Named}
	to.name.raw.Family = unix.AF_UNIX
	for i, c := range d.Peer {
		to.name.raw.Path[i] = int8(c)
	}
	to.name.len = unnamed + uint32(len(d.Peer))
	switch {
	case len(from.Files) == 2:
		if to.fd, err = dup(from.Files[1]); err == nil {
			to.to = addressOf(fmt.Sprintf("/proc/self/fd/%d", to.fd))
		}
	case d.ByPath:
		to.to = to.name
	}
	if err == nil && (!p.backlog.fill(d.Backlog) || !p.backlog.whole()) {
		err = errors.New("the frames that are given are not whole")
	}
	if err != nil {
		to.close()
		return nil, errors.Join(err, sock.close())
	}
	p.peer = to
	if d.Up {
		p.setLink(true, nil)
	}
	signal(p.waiting)
	p.running.Go(p.drain)
	trace.Created = true
	return p, nil
}

// Give implements port.Giver.
func (p *streamPort) Give(paused bool) (*port.Parcel, error) {
	if !paused {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return nil, port.ErrClosed
	}
	p.given = true
	parcel, d := &port.Parcel{Format: streamFormat}, streamParcel{Listens: p.server != nil}
	if p.server != nil {
		fd, err := p.server.Give()
		if err != nil {
			return nil, err
		}
		parcel.Files = append(parcel.Files, fd)
	}
	c := p.conn
	if c == nil || c.broken || p.from != nil && p.from != c {
		return pack(parcel, d, nil)
	}
	d.Connected, d.Backlog = true, c.backlog.bytes()
	if p.from == c && p.in.buf != nil {
		d.Read = append([]byte{}, p.in.buf[p.in.r:p.in.w]...) // no worker runs
	}
	return pack(parcel, d, add(parcel, c.fd))
}

// isGiven reports whether another process may have the port.
func (p *streamPort) isGiven() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.given
}

// Take implements port.Heir.
func (k Stream) Take(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	var d streamParcel
	if err := unpack(from, streamFormat, &d); err != nil {
		return nil, err
	}
	client := port.SettingsOf[Settings](s).Client
	files := from.Files
	want := 0
	for _, on := range []bool{d.Listens, d.Connected} {
		if on {
			want++
		}
	}
	switch {
	case d.Listens == client:
		return nil, errors.New("what is given is of a port that connects the other way")
	case len(files) != want:
		return nil, from.Check(streamFormat, want)
	case len(d.Read) > bufLen:
		return nil, errors.New("more is given than a port reads at once")
	}
	p := newStream(nil)
	p.path = pathOf(s, k.Dir)
	if !client {
		a, err := access(s)
		if err != nil {
			return nil, err
		}
		if p.server, err = sockfile.Take(p.path, a, files[0]); err != nil {
			return nil, err
		}
		files = files[1:]
		trace.Created = true
	}
	if !d.Connected {
		p.serve(nil)
		return p, nil
	}
	fd, err := dup(files[0])
	var c *conn
	if err == nil {
		c, err = useConn(fd)
	}
	if err == nil && !c.backlog.fill(d.Backlog) {
		c.drop()
		err = errors.New("more frames are given than wait for a peer")
	}
	if err != nil {
		if p.server != nil {
			err = errors.Join(err, p.server.Close())
		}
		return nil, err
	}
	p.conn, p.from = c, c
	if len(d.Read) > 0 {
		p.in.w = copy(p.in.room(), d.Read)
	}
	p.setLink(true, nil)
	signal(c.waiting)
	p.serve(c)
	return p, nil
}

// serve starts the goroutines of a port, which has the connection c unless that is nil.
func (p *streamPort) serve(c *conn) {
	if p.server == nil {
		p.running.Go(func() {
			if c != nil {
				p.drain(c)
			}
			p.dial()
		})
		return
	}
	if c != nil {
		p.running.Go(func() { p.drain(c) })
	}
	p.running.Go(p.accept)
}
