package vxlan

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/nic"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/port"
)

// device is a port on a vxlan or geneve device of the kernel. Programs at the device and at the
// other ports pass frames between known stations; the switch gets the others, and sends
// by the device what it floods. Each such frame has a mark that names its path.
//
//	port's program ── key of the path ──▶ device ──▶ UDP
//	Send ── mark ──▶ program at the device's egress ── key ──▶ device ──▶ UDP
//	Recv ◀── mark ── program at the device's ingress ◀── key ── device ◀── UDP
type device struct {
	tunnel
	*nic.Own
	kernel   Kernel
	replica  *replica
	paused   atomic.Bool
	unfollow func() // stop hearing of routes
	queues   []port.Queue

	// What the device had lost when it was opened.
	lostBefore, unroutedBefore uint64
	unrouted                   atomic.Uint64 // of Lost's last result
}

var _ interface {
	openTunnel
	port.KernelEnd
	port.Lossy
	port.Unrouted
	port.Giver
	port.Leaver
	port.Bound
	port.Exclusive
	port.Contested
	port.Overtaken
	port.Programmed
	port.Routed
} = (*device)(nil)

// deviceMTU is the MTU of devices: the most that the kernel takes for both kinds, for what fits is up to
// the way to each host.
const deviceMTU = 65505

// find looks up the port's device.
func (k kind) find(s port.Spec, t port.Trace) (link.Link, error) {
	e := port.SettingsOf[Settings](s).Encapsulation
	return owner.Find(k.Switch, e.kind(), s.Name, t)
}

// made reports whether a device is the one that the switch made for a port.
func (k kind) made(l link.Link, t port.Trace) bool {
	return slices.Contains(Encapsulation("").Values(), l.Kind) && owner.Makes(l, k.Switch, t)
}

// Find implements port.Finder.
func (k kind) Find(s port.Spec, t port.Trace) (index int, is bool) {
	l, err := k.find(s, t)
	if err != nil || !k.made(l, t) {
		return 0, false
	}
	return l.Index, true
}

// openDevice opens a port on a device, which it makes if absent; with the sockets that another
// process gives unless from is nil. The error says why there can be none; nothing is changed
// then.
func (k kind) openDevice(s port.Spec, trace *port.Trace, from *port.Parcel) (_ port.Port, err error) {
	if k.Kernel == nil {
		return nil, errors.New(cmp.Or(k.NoKernel, "the switch has no fast path"))
	}
	o := port.SettingsOf[Settings](s)
	var done port.Steps
	defer func() {
		if err != nil {
			done.Undo()
		}
	}()
	if err := isHere(o.Local.Addr); err != nil {
		return nil, err
	}
	l, err := k.find(s, *trace)
	switch {
	case errors.Is(err, link.ErrNotFound):
	case err != nil:
		return nil, err
	case !k.made(l, *trace):
		return nil, fmt.Errorf("an interface %s is there already", l.Name)
	case l.Kind != o.Encapsulation.kind(), l.TunnelPort != o.udpPort():
		if err := k.remove(l); err != nil {
			return nil, err
		}
		l = link.Link{}
	default:
		if err := owner.Sign(l, k.Switch); err != nil {
			return nil, err
		}
	}
	if l.Index == 0 {
		if l, err = k.make(s.Name, &o); err != nil {
			return nil, err
		}
		done.Undoable(func() { _ = k.remove(l) })
	}
	// A NIC's driver has merged segments already: to look for more here costs, and finds none.
	_, _ = l.TurnOff("rx-gro")
	p := new(device)
	p.init(o.Local.Addr, o.Encapsulation.number(), o.udpPort())
	if p.kernel, err = k.Kernel(l.Index, o.Local.Addr); err != nil {
		return nil, err
	}
	p.replica = newReplica(&p.tunnel, p.kernel)
	p.follow(p.replica)
	p.measureDevice()
	if err := p.set(s); err != nil {
		return nil, err
	}
	p.replica.inherit()
	if from != nil {
		p.inherit(from.Data)
	}
	if p.Own, err = nic.OpenOwn(l, p.kernel, afpacket.Config{Marked: true, From: from}); err != nil {
		return nil, err
	}
	if from == nil { // else another process uses it
		done.Undoable(p.Undo)
	}
	if !p.Punted() {
		return nil, errors.New("the fast path's programs cannot be attached to its device")
	}
	p.unfollow, err = link.FollowWays(func() { signal(p.replica.ways.events) })
	if err != nil {
		return nil, err
	}
	p.lostBefore, p.unroutedBefore, _ = link.TunnelLosses(l.Index)
	for _, q := range p.Port.Queues() {
		p.queues = append(p.queues, &deviceQueue{p: p, q: q.(afpacket.MarkedQueue)})
	}
	own := &replyQueue{p: p, news: make(chan struct{}, 1)}
	p.replies.wake = func() { signal(own.news) }
	p.queues = append(p.queues, own)
	p.tasks.Go(func() { p.watch(p.quit) })
	p.tasks.Go(func() { p.replica.run(p.quit) })
	p.tasks.Go(func() { p.replica.followWays(p.quit) })
	trace.Created = true
	owner.Note(trace, l)
	return p, nil
}

// make makes a port's device.
func (k kind) make(name string, o *Settings) (link.Link, error) {
	t := link.Tunnel{Name: name, MAC: owner.Address(k.Switch, name), Kind: o.Encapsulation.kind(), Port: o.udpPort(), MTU: deviceMTU}
	if err := link.MakeTunnel(t); err != nil {
		return link.Link{}, err
	}
	l, err := link.ByName(name)
	if err == nil {
		if err = l.SetAlias(owner.Made(k.Switch)); err != nil {
			_ = l.Delete()
		}
	}
	return l, err
}

// remove removes a device that the switch made.
func (k kind) remove(l link.Link) error {
	err := l.Delete()
	if k.Kernel == nil {
		return err
	}
	kernel, e := k.Kernel(l.Index, netip.IPv4Unspecified())
	if e != nil {
		return cmp.Or(err, e)
	}
	return cmp.Or(err, hoststack.Lift(l.Index, kernel))
}

// Delete implements port.Kind.
func (k kind) Delete(s port.Spec, t port.Trace) error {
	l, err := k.find(s, t)
	switch {
	case errors.Is(err, link.ErrNotFound), err == nil && !k.made(l, t):
		return nil
	case err != nil:
		return err
	}
	return k.remove(l)
}

// Queues implements port.Port.
func (p *device) Queues() []port.Queue { return p.queues }

// Close implements port.Port. The device stays: known traffic goes on without the switch.
func (p *device) Close() error { return p.end(p.Own.Close) }

// Leave implements port.Leaver.
func (p *device) Leave() error { return p.end(p.Own.Leave) }

// end ends what the port does; last closes the device.
func (p *device) end(last func() error) error {
	if p.closed.Swap(true) {
		return nil
	}
	close(p.quit)
	p.unfollow()
	err := last()
	p.tasks.Wait()
	if _, e := link.ByIndex(p.Ifindex()); errors.Is(e, link.ErrNotFound) {
		err = cmp.Or(err, hoststack.Lift(p.Ifindex(), p.kernel))
	}
	return err
}

// Pause implements port.Pausable. What hosts send meanwhile waits in the device's sockets.
func (p *device) Pause() {
	p.paused.Store(true)
	p.Port.Pause()
	p.replies.wake()
}

// deviceFormats is where the formats of devices' Parcels begin, those of afpacket's; below are
// those of sockets.
const deviceFormats = 16

// Give implements port.Giver. What the kernel knows of the tunnel, the next process finds there; the
// rest is the Parcel's heritage.
func (p *device) Give(paused bool) (*port.Parcel, error) {
	parcel, err := p.Last()
	if err == nil {
		p.replica.halted.Store(paused)
		parcel.Data, err = p.give()
	}
	return parcel, err
}

// LastChanged implements port.Lasting: it never does.
func (p *device) LastChanged() <-chan struct{} { return nil }

// Last implements port.Lasting.
func (p *device) Last() (*port.Parcel, error) {
	parcel, err := p.Port.Give(false)
	if err == nil {
		parcel.Format += deviceFormats
	}
	return parcel, err
}

// Resume implements port.Pausable.
func (p *device) Resume() {
	if p.replica.halted.Swap(false) {
		signal(p.replica.all)
	}
	p.paused.Store(false)
	p.Port.Resume()
}

// Lost implements port.Lossy: the device counts packets that the way to a host did not
// take, and those for which there was no way.
func (p *device) Lost(others uint64) uint64 {
	lost, unrouted, err := link.TunnelLosses(p.Ifindex())
	if err != nil || lost < p.lostBefore {
		return 0
	}
	lost = min(lost-p.lostBefore, others+p.sent.Load())
	p.unrouted.Store(min(unrouted-min(unrouted, p.unroutedBefore), lost))
	return lost
}

// Unrouted implements port.Unrouted.
func (p *device) Unrouted() uint64 { return p.unrouted.Load() }

// Notice implements port.Noticer.
func (p *device) Notice() string {
	if why := p.replica.full.Load(); why != nil {
		return *why
	}
	return p.tunnel.Notice()
}

// deviceQueue implements port.Queue.
type deviceQueue struct {
	p     *device
	q     afpacket.MarkedQueue
	known lastKnown // of the one worker that receives
}

// Recv implements port.Queue.
func (q *deviceQueue) Recv(frames []port.Frame) (int, error) {
	n, err := q.q.Recv(frames)
	learning := q.p.learning.Load()
	q.known = lastKnown{}
	for i, mark := range q.q.Marks()[:n] {
		if f := &frames[i]; f.Drop == port.DropNone {
			f.Drop = q.place(f, mark, learning)
		}
	}
	return n, err
}

// Release implements port.Queue.
func (q *deviceQueue) Release() { q.q.Release() }

// place finds out where a frame came from, and learns its sender.
func (q *deviceQueue) place(f *port.Frame, mark uint32, learning bool) port.Drop {
	path := uint16(mark % maxPaths)
	m := q.p.replica.member(path)
	switch {
	case mark&marked == 0:
		return port.DropBadTunnel // it did not come by the programs
	case path == unknownVNI:
		return port.DropUnknownVNI
	case m == nil:
		return port.DropUnknownVTEP
	case m.n.vlan != 0 && (mark&markTagged != 0 || f.Tag.VID() != m.n.vlan || tagged(f.Data)):
		return port.DropVLANTagged
	}
	if learning && (q.known != lastKnown{m.n, f.Src, m.v.number}) && f.Src != 0 && !f.Src.IsGroup() {
		q.p.stations.Learn(m.n.key(f.Src), m.v.number)
		q.known = lastKnown{m.n, f.Src, m.v.number}
	}
	return port.DropNone
}

// Send implements port.Queue.
func (q *deviceQueue) Send(out []port.Out) {
	r := deviceRuns.Get().(*deviceRun)
	nets := q.p.networks.Load()
	for i := range out {
		r.add(q, nets, &out[i])
	}
	r.flush(q)
	deviceRuns.Put(r)
}

// deviceRun is the frames of one call of Send on their way to the device, one for each
// host that gets a frame.
type deviceRun struct {
	n     int
	out   [port.BatchSize]port.Out
	marks [port.BatchSize]uint32
	from  [port.BatchSize]*port.Out
}

var deviceRuns = sync.Pool{New: func() any { return new(deviceRun) }}

// add takes one frame. A frame for several hosts is lost if it is lost on the way to one.
func (r *deviceRun) add(q *deviceQueue, nets *networks, o *port.Out) {
	inner, n, why := nets.inner(o)
	if o.Drop = why; why != port.DropNone {
		return
	}
	length := wireLen(&inner)
	if v := q.p.target(n, o.Frame.Dst); v != nil {
		if limit := v.limit.Load(); limit != 0 && length > int(limit) {
			o.Drop = port.DropTooBig
			q.p.tooBig(o, inner.TagLen(), int(limit))
			return
		}
		r.to(q, v, n, o, &inner)
		return
	}
	flood := *n.flood.Load()
	if len(flood) == 0 {
		o.Drop = port.DropNoVTEP
	}
	for _, v := range flood {
		if limit := v.limit.Load(); limit != 0 && length > int(limit) {
			o.Drop = port.DropTooBig
			continue
		}
		r.to(q, v, n, o, &inner)
	}
}

// to takes one frame for one host.
func (r *deviceRun) to(q *deviceQueue, v *vtep, n *network, o, inner *port.Out) {
	path := n.path(v)
	if path == 0 {
		o.Drop = port.DropNoVTEP
		return
	}
	if r.n == len(r.out) {
		r.flush(q)
	}
	r.out[r.n], r.marks[r.n], r.from[r.n] = *inner, marked|uint32(path), o
	r.n++
}

// flush sends what was taken.
func (r *deviceRun) flush(q *deviceQueue) {
	q.q.SendMarked(r.out[:r.n], r.marks[:r.n])
	for i := range r.n {
		if why := r.out[i].Drop; why != port.DropNone {
			r.from[i].Drop = why
		}
	}
	q.p.sent.Add(uint64(r.n))
	clear(r.out[:r.n])
	clear(r.from[:r.n])
	r.n = 0
}

// wireLen returns how long a frame is on the wire; a super-frame, how long its segments are.
func wireLen(o *port.Out) int {
	f, off := o.Frame, &o.Frame.Offload
	if !off.IsGSO() || off.GSOSize == 0 {
		return o.Len()
	}
	headers := int(off.HdrLen)
	if off.Flags&port.NeedsCsum != 0 {
		headers = int(off.CsumStart) + 8
		if at := int(off.CsumStart) + 12; off.GSOType&7 != port.GSOUDPL4 && at < len(f.Data) {
			headers = int(off.CsumStart) + int(f.Data[at]>>4)*4 // of TCP
		}
	}
	return min(headers+int(off.GSOSize)+o.TagLen(), o.Len())
}

// replyQueue is a queue for what the tunnel itself tells stations.
type replyQueue struct {
	p    *device
	news chan struct{}
}

// Recv implements port.Queue.
func (q *replyQueue) Recv(frames []port.Frame) (int, error) {
	for {
		if n := q.p.replies.take(frames); n > 0 {
			return n, nil
		}
		if q.p.paused.Load() {
			return 0, port.ErrPaused
		}
		select {
		case <-q.p.quit:
			return 0, port.ErrClosed
		case <-q.news:
		}
	}
}

// Release implements port.Queue.
func (q *replyQueue) Release() {}

// Send implements port.Queue.
func (q *replyQueue) Send(out []port.Out) { q.p.queues[0].Send(out) }
