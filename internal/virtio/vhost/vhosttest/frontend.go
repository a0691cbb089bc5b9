// Package vhosttest is the other end of vhost-user for tests: a front end and a guest's
// virtio-net driver, in Go, over a memfd. It shares no code with what it tests. One
// goroutine may send while another takes; the rest is for one goroutine.
package vhosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Features by their bits (virtio 1.2, 5.1.3 and 6).
const (
	Csum       = 1 << 0
	GuestCsum  = 1 << 1
	GuestTSO4  = 1 << 7
	GuestTSO6  = 1 << 8
	GuestECN   = 1 << 9
	GuestUFO   = 1 << 10
	HostTSO4   = 1 << 11
	HostTSO6   = 1 << 12
	MrgRxBuf   = 1 << 15
	MQ         = 1 << 22
	LogAll     = 1 << 26
	AnyLayout  = 1 << 27
	Indirect   = 1 << 28
	EventIdx   = 1 << 29
	Protocol   = 1 << 30
	Version1   = 1 << 32
	RingPacked = 1 << 34
	InOrder    = 1 << 35
)

// Requests, as the protocol numbers them.
const (
	GetFeatures = 1 + iota
	SetFeatures
	SetOwner
	ResetOwner
	SetMemTable
	SetLogBase
	SetLogFD
	SetVringNum
	SetVringAddr
	SetVringBase
	GetVringBase
	SetVringKick
	SetVringCall
	SetVringErr
	GetProtocolFeatures
	SetProtocolFeatures
	GetQueueNum
	SetVringEnable
	SendRARP
	NetSetMTU
	SetBackendReqFD

	GetInflightFD  = 31
	SetInflightFD  = 32
	ResetDevice    = 34
	GetMaxMemSlots = 36
	AddMemReg      = 37
	RemMemReg      = 38
	SetStatus      = 39
	GetStatus      = 40
)

const protocolFeatures = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<12 | 1<<13 | 1<<15 | 1<<16

// GPA is where the guest's memory begins in its physical address space.
const GPA = 0x4000_0000

// Options say what guest to play.
type Options struct {
	Features uint64 // to agree on, beside Protocol
	Pairs    int    // of queues; 0 is one
	Size     int    // of a ring; 0 is 256
	Buffer   int    // bytes of a receive buffer; 0 is 2048
	Table    bool   // SET_MEM_TABLE, not ADD_MEM_REG
	Split    int    // bytes of a descriptor on transmission; 0 is as much as there is
	Apart    bool   // the header has a descriptor of its own
	Unsealed bool   // the memory can be taken away
	Base     uint16 // where split rings begin
	Inflight bool   // keep what is in flight for the back end
}

// Guest is a front end with its driver, connected.
type Guest struct {
	Options
	Conn *net.UnixConn
	FD   int    // of the memory
	Mem  []byte // the memory

	RX, TX   []*Queue // by pair
	acks     bool
	extra    []int
	inflight int    // descriptor, -1 before the first connection
	kept     []byte // payload that goes with it
}

// Queue is one virtqueue as the driver has it.
type Queue struct {
	g         *Guest
	ring      ring
	index     int
	kick      int
	call      int
	area      int // where it lies in the memory
	buffers   int // where its buffers lie
	stride    int
	tables    int // where its indirect tables lie
	free      []int
	headerLen int
	sent      [][]part // by chain, what Send made available last

	Kicks, Calls int // given and taken
}

// ring is a split or packed virtqueue, the driver's side.
type ring interface {
	// add makes a chain available; id comes back with it.
	add(id int, parts []part, table int)
	// room is how many descriptors are free.
	room() int
	// used returns the next chain that was used.
	used() (id, n int, ok bool)
	// wantsKick reports whether to kick for what was added since it was last asked.
	wantsKick() bool
	// wantCall asks for a call for the next chain used, or for none.
	wantCall(on bool)
	// addr is where the parts lie: descriptors, driver's and device's.
	addr() (desc, driver, device int)
}

// part is a buffer: offset in the memory, length, direction.
type part struct {
	at, n int
	write bool
}

// Dial connects to a back end that listens and starts all rings.
func Dial(t testing.TB, path string, o Options) *Guest {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return Start(t, conn, o)
}

// Start is Dial on a connection that is there.
func Start(t testing.TB, conn *net.UnixConn, o Options) *Guest {
	t.Helper()
	g := New(t, conn, o)
	g.Negotiate(t)
	g.AddMemory(t)
	g.keepInflight(t)
	for i := range 2 * g.Pairs {
		g.StartRing(t, i)
	}
	g.Request(t, SetStatus, U64(0xf))
	return g
}

// Reconnect connects to a back end that took the place of one that died. As QEMU, it has
// no better place for the rings to go on at than the one they once began at.
func (g *Guest) Reconnect(t testing.TB, path string) {
	t.Helper()
	g.Conn.Close()
	var err error
	for limit := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if g.Conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"}); err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	g.acks = false
	g.Negotiate(t)
	g.AddMemory(t)
	g.keepInflight(t)
	for i := range 2 * g.Pairs {
		g.SetRing(t, i, uint32(g.Base))
	}
	g.Request(t, SetStatus, U64(0xf))
}

// keepInflight gives the back end what it had in flight, and first asks it for memory
// to keep that in.
func (g *Guest) keepInflight(t testing.TB) {
	t.Helper()
	if !g.Inflight {
		return
	}
	if g.inflight < 0 {
		if err := g.Write(GetInflightFD, 1, append(append(U64(0), U64(0)...), U32s(uint32(2*g.Pairs|g.Size<<16), 0)...)); err != nil {
			t.Fatal(err)
		}
		var reply [12 + 24]byte
		oob := make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := g.Conn.ReadMsgUnix(reply[:], oob)
		if err != nil || n != len(reply) || binary.NativeEndian.Uint32(reply[:]) != GetInflightFD {
			t.Fatalf("reply to GET_INFLIGHT_FD: %x, %v", reply[:n], err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			t.Fatalf("no descriptor with what is in flight: %v", err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		g.inflight, g.kept = fds[0], reply[12:]
	}
	g.Request(t, SetInflightFD, g.kept, g.inflight)
}

// New makes a guest that has said nothing yet.
func New(t testing.TB, conn *net.UnixConn, o Options) *Guest {
	t.Helper()
	o.Pairs, o.Size, o.Buffer = max(o.Pairs, 1), orElse(o.Size, 256), orElse(o.Buffer, 2048)
	g := &Guest{Options: o, Conn: conn, FD: -1, inflight: -1}
	t.Cleanup(g.Close)
	headerLen := 10
	if o.Features&(MrgRxBuf|Version1) != 0 {
		headerLen = 12
	}
	// A queue has its rings, then its indirect tables, then its buffers.
	at := 4096
	const txStride = 70 << 10
	for i := range 2 * o.Pairs {
		q := &Queue{g: g, index: i, area: at, headerLen: headerLen, kick: -1, call: -1}
		at += (o.Size*26 + 8191) &^ 4095
		q.tables = at
		at += o.Size * tableLen * 16
		q.buffers, q.stride = at, o.Buffer
		if i%2 == 1 {
			q.stride = txStride
		}
		at = (at + o.Size*q.stride + 4095) &^ 4095
		for id := range o.Size {
			q.free = append(q.free, id)
		}
		q.sent = make([][]part, o.Size)
		if i%2 == 0 {
			g.RX = append(g.RX, q)
		} else {
			g.TX = append(g.TX, q)
		}
	}
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	if o.Unsealed {
		flags = unix.MFD_CLOEXEC
	}
	var err error
	if g.FD, err = unix.MemfdCreate("guest", flags); err != nil {
		t.Fatal(err)
	}
	size := (at + 1<<20) &^ 4095
	if err := unix.Ftruncate(g.FD, int64(size)); err != nil {
		t.Fatal(err)
	}
	if g.Mem, err = unix.Mmap(g.FD, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	for _, q := range append(g.RX[:len(g.RX):len(g.RX)], g.TX...) {
		q.reset()
	}
	return g
}

// tableLen is the length of an indirect table, in descriptors.
const tableLen = 64

func orElse(n, or int) int {
	if n == 0 {
		return or
	}
	return n
}

// reset makes the ring as a driver does that starts.
func (q *Queue) reset() {
	g := q.g
	clear(g.Mem[q.area : q.area+(g.Size*26+8191)&^4095])
	if g.Features&RingPacked != 0 {
		q.ring = newPacked(g, q.area)
	} else {
		q.ring = newSplit(g, q.area)
	}
}

// Close ends the connection, as a front end that dies.
func (g *Guest) Close() {
	g.Conn.Close()
	for _, q := range append(g.RX[:len(g.RX):len(g.RX)], g.TX...) {
		closeFD(&q.kick)
		closeFD(&q.call)
	}
	closeFD(&g.FD)
	closeFD(&g.inflight)
	for i := range g.extra {
		closeFD(&g.extra[i])
	}
	if g.Mem != nil {
		_ = unix.Munmap(g.Mem)
		g.Mem = nil
	}
}

func closeFD(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}

// U64 and U32s are payloads.
func U64(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }

func U32s(v ...uint32) (b []byte) {
	for _, v := range v {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

// Write sends a message as it is.
func (g *Guest) Write(request, flags uint32, payload []byte, fds ...int) error {
	b := append(U32s(request, flags, uint32(len(payload))), payload...)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := g.Conn.WriteMsgUnix(b, oob, nil)
	return err
}

// Read takes a reply.
func (g *Guest) Read() (request uint32, payload []byte, err error) {
	_ = g.Conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	var head [12]byte
	if err := readFull(g.Conn, head[:]); err != nil {
		return 0, nil, err
	}
	request = binary.NativeEndian.Uint32(head[:])
	if flags := binary.NativeEndian.Uint32(head[4:]); flags != 5 {
		return request, nil, fmt.Errorf("reply to %d has flags %#x", request, flags)
	}
	payload = make([]byte, binary.NativeEndian.Uint32(head[8:]))
	return request, payload, readFull(g.Conn, payload)
}

func readFull(c *net.UnixConn, b []byte) error {
	for len(b) > 0 {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Ask sends a request that has a reply, and returns its first 64 bits.
func (g *Guest) Ask(t testing.TB, request uint32, payload []byte, fds ...int) uint64 {
	t.Helper()
	if err := g.Write(request, 1, payload, fds...); err != nil {
		t.Fatal(err)
	}
	return g.reply(t, request)
}

func (g *Guest) reply(t testing.TB, request uint32) uint64 {
	t.Helper()
	got, p, err := g.Read()
	if err != nil {
		t.Fatalf("reply to %d: %v", request, err)
	}
	if got != request || len(p) != 8 {
		t.Fatalf("reply to %d is one to %d of %d bytes", request, got, len(p))
	}
	return binary.NativeEndian.Uint64(p)
}

// Request sends a request that must succeed, and waits until it is done.
func (g *Guest) Request(t testing.TB, request uint32, payload []byte, fds ...int) {
	t.Helper()
	flags := uint32(1)
	if g.acks {
		flags |= 8
	}
	if err := g.Write(request, flags, payload, fds...); err != nil {
		t.Fatal(err)
	}
	if g.acks {
		if status := g.reply(t, request); status != 0 {
			t.Fatalf("request %d failed: %d", request, status)
		}
	}
}

// Negotiate does what QEMU does before the guest's driver starts, and the features.
func (g *Guest) Negotiate(t testing.TB) {
	t.Helper()
	all := uint64(Protocol) | g.Features
	if offered := g.Ask(t, GetFeatures, nil); offered&all != all {
		t.Fatalf("features %#x are offered, %#x are wanted", offered, all)
	}
	if offered := g.Ask(t, GetProtocolFeatures, nil); offered != protocolFeatures {
		t.Fatalf("protocol features %#x are offered, not %#x", offered, protocolFeatures)
	}
	g.Request(t, SetProtocolFeatures, U64(protocolFeatures))
	g.acks = true
	if pairs := g.Ask(t, GetQueueNum, nil); int(pairs) < g.Pairs {
		t.Fatalf("%d pairs of queues are offered", pairs)
	}
	if slots := g.Ask(t, GetMaxMemSlots, nil); slots < 32 {
		t.Fatalf("%d slots of memory are offered", slots)
	}
	channel, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.extra = append(g.extra, channel[0])
	g.Request(t, SetBackendReqFD, nil, channel[1])
	unix.Close(channel[1])
	g.Request(t, SetOwner, nil)
	for i := range 2 * g.Pairs {
		g.Request(t, SetVringEnable, U32s(uint32(i), 1))
	}
	g.Request(t, SetFeatures, U64(all))
	g.Request(t, SetStatus, U64(8))
	if got := g.Ask(t, GetStatus, nil); got != 8 {
		t.Fatalf("status %d", got)
	}
}

// UVA is the address of an offset in the memory, in the front end's process.
func (g *Guest) UVA(at int) uint64 { return uint64(uintptr(unsafe.Pointer(&g.Mem[0]))) + uint64(at) }

// RegionBytes is a region as messages have it.
func (g *Guest) RegionBytes(at, n int) []byte {
	b := U64(GPA + uint64(at))
	b = append(b, U64(uint64(n))...)
	b = append(b, U64(g.UVA(at))...)
	return append(b, U64(uint64(at))...)
}

// AddMemory tells of the memory: two regions that the guest has in one piece, cut in the
// midst of a receive buffer, where no page begins; the first one twice, as QEMU does.
func (g *Guest) AddMemory(t testing.TB) {
	t.Helper()
	half := g.RX[0].buffers + 3*g.Buffer + 100
	low, high := g.RegionBytes(0, half), g.RegionBytes(half, len(g.Mem)-half)
	if g.Table {
		g.Request(t, SetMemTable, append(append(U32s(2, 0), low...), high...), g.FD, g.FD)
		return
	}
	for _, r := range [][]byte{low, high, low} {
		g.Request(t, AddMemReg, append(U64(0), r...), g.FD)
	}
}

// Queue returns a ring by its number.
func (g *Guest) Queue(i int) *Queue {
	if i%2 == 0 {
		return g.RX[i/2]
	}
	return g.TX[i/2]
}

// StartRing starts a ring, as a driver that was just loaded; a receive ring is filled.
func (g *Guest) StartRing(t testing.TB, i int) {
	t.Helper()
	q := g.Queue(i)
	q.reset()
	q.free = q.free[:0]
	for id := range g.Size {
		q.free = append(q.free, id)
	}
	if s, ok := q.ring.(*split); ok {
		s.begin(g.Base)
	}
	if i%2 == 0 {
		for id := range g.Size {
			q.ring.add(id, []part{{q.buffers + id*q.stride, q.stride, true}}, 0)
		}
		q.ring.wantsKick()
	}
	g.SetRing(t, i, uint32(g.Base))
}

// SetRing tells of a ring that is there.
func (g *Guest) SetRing(t testing.TB, i int, base uint32) {
	t.Helper()
	q := g.Queue(i)
	closeFD(&q.kick)
	closeFD(&q.call)
	for _, fd := range []*int{&q.kick, &q.call} {
		var err error
		if *fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			t.Fatal(err)
		}
	}
	n := uint32(i)
	if g.Features&RingPacked != 0 && base == 0 {
		base = 1 << 15 // the wrap counter
	}
	g.Request(t, SetVringNum, U32s(n, uint32(g.Size)))
	g.Request(t, SetVringBase, U32s(n, base))
	g.Request(t, SetVringAddr, g.AddrBytes(i, 0))
	g.Request(t, SetVringKick, U64(uint64(n)), q.kick)
	g.Request(t, SetVringCall, U64(uint64(n)), q.call)
}

// AddrBytes is the payload of SET_VRING_ADDR.
func (g *Guest) AddrBytes(i int, flags uint32) []byte {
	desc, driver, device := g.Queue(i).ring.addr()
	b := U32s(uint32(i), flags)
	for _, at := range []int{desc, device, driver} {
		b = append(b, U64(g.UVA(at))...)
	}
	return append(b, U64(GPA+uint64(device))...)
}

// Send is the guest sending a frame behind a virtio-net header by pair 0, waiting for
// room.
func (g *Guest) Send(header [12]byte, wire []byte) error { return g.TX[0].Send(header, wire) }

// Send puts a frame into the queue, waiting for room.
func (q *Queue) Send(header [12]byte, wire []byte) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		for id, _, ok := q.ring.used(); ok; id, _, ok = q.ring.used() {
			q.free = append(q.free, id)
		}
		if len(q.free) > 0 && q.ring.room() >= min(q.g.Size, tableLen) {
			break
		}
		if time.Now().After(deadline) {
			return os.ErrDeadlineExceeded
		}
		time.Sleep(50 * time.Microsecond)
	}
	id := q.free[0]
	q.free = q.free[1:]
	at := q.buffers + id*q.stride
	n := copy(q.g.Mem[at:], header[:q.headerLen])
	n += copy(q.g.Mem[at+n:], wire)
	var parts []part
	end := at + n
	if q.g.Apart {
		parts = append(parts, part{at, q.headerLen, false})
		at += q.headerLen
	}
	for at < end {
		n := end - at
		if s := q.g.Split; s > 0 && len(parts) < tableLen-1 {
			n = min(n, s)
		}
		parts = append(parts, part{at, n, false})
		at += n
	}
	q.sent[id] = parts
	q.ring.add(id, parts, q.table(id))
	q.Kick()
	return nil
}

// Used returns the next chain that was given back, and how many bytes were written.
func (q *Queue) Used() (id, n int, ok bool) { return q.ring.used() }

// table is where a chain's indirect table lies, 0 if it has none.
func (q *Queue) table(id int) int {
	if q.g.Features&Indirect == 0 {
		return 0
	}
	return q.tables + id*tableLen*16
}

// Again makes what was used available again as it is: the frames of a transmit queue are
// sent once more, the buffers of a receive queue are free. It returns how many chains.
func (q *Queue) Again() (n int) {
	for id, _, ok := q.ring.used(); ok; id, _, ok = q.ring.used() {
		parts := q.sent[id]
		if parts == nil {
			q.sent[id] = []part{{q.buffers + id*q.stride, q.stride, true}}
			parts = q.sent[id]
		}
		q.ring.add(id, parts, q.table(id))
		n++
	}
	q.Kick()
	return n
}

// Kick tells the back end of what was made available, if it wants to know.
func (q *Queue) Kick() {
	if q.ring.wantsKick() {
		q.Kicks++
		_, _ = unix.Write(q.kick, U64(1))
	}
}

// Recv waits for a frame on pair 0.
func (g *Guest) Recv(timeout time.Duration) ([12]byte, []byte, error) { return g.RX[0].Recv(timeout) }

// Recv waits for a frame, and returns its header and its bytes.
func (q *Queue) Recv(timeout time.Duration) (header [12]byte, wire []byte, err error) {
	deadline := time.Now().Add(timeout)
	left := 1
	for first := true; left > 0; left-- {
		id, n, err := q.next(deadline)
		if err != nil {
			return header, nil, err
		}
		at := q.buffers + id*q.stride
		b := q.g.Mem[at : at+n]
		if first {
			first = false
			copy(header[:], b[:q.headerLen])
			b = b[q.headerLen:]
			if q.g.Features&MrgRxBuf != 0 {
				left = int(binary.LittleEndian.Uint16(header[10:]))
			}
		}
		wire = append(wire, b...)
		q.ring.add(id, []part{{at, q.stride, true}}, 0)
		q.Kick()
	}
	return header, wire, nil
}

// BlockCalls makes the back end's next call wait: the descriptor is full, and no longer
// non-blocking.
func (q *Queue) BlockCalls(t testing.TB) {
	t.Helper()
	q.Called(0)
	if _, err := unix.Write(q.call, U64(1<<64-2)); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(q.call, false); err != nil {
		t.Fatal(err)
	}
}

// ErrNoCall is what Recv returns when the back end used a buffer and did not call.
var ErrNoCall = errors.New("a buffer was used without a call, which was asked for")

// next waits for a used chain, sleeping on the call descriptor.
func (q *Queue) next(deadline time.Time) (id, n int, err error) {
	for {
		id, n, ok := q.ring.used()
		if !ok {
			q.ring.wantCall(true)
			id, n, ok = q.ring.used()
		}
		if ok {
			return id, n, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return 0, 0, os.ErrDeadlineExceeded
		}
		if !q.Called(left) {
			// It may have come just now; then so does the call.
			if id, n, ok := q.ring.used(); ok {
				if !q.Called(time.Second) {
					return 0, 0, ErrNoCall
				}
				return id, n, nil
			}
		}
	}
}

// Called waits for a call.
func (q *Queue) Called(timeout time.Duration) bool {
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(q.call), Events: unix.POLLIN}}, int(timeout/time.Millisecond)+1)
	var b [8]byte
	if n, _ := unix.Read(q.call, b[:]); n != 8 {
		return false
	}
	q.Calls++
	return true
}

func word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[:4][0])) }

func load(b []byte) uint32     { return atomic.LoadUint32(word(b)) }
func store(b []byte, v uint32) { atomic.StoreUint32(word(b), v) }

// Rings returns the bytes of a queue's parts: descriptors, the driver's and the
// device's. A hostile driver writes to them what it likes.
func (q *Queue) Rings() (desc, driver, device []byte) {
	d, a, u := q.ring.addr()
	return q.g.Mem[d:], q.g.Mem[a:], q.g.Mem[u:]
}

// Buffers is the offset in the memory at which the queue's buffers begin.
func (q *Queue) Buffers() int { return q.buffers }

// KickAlways kicks whether that is wanted or not.
func (q *Queue) KickAlways() { _, _ = unix.Write(q.kick, U64(1)) }
