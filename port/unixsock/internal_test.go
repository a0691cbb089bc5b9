package unixsock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// reference cuts a stream the plain way: the frames, and whether it ends in a length
// that no frame has.
func reference(stream []byte) (frames [][]byte, bad bool) {
	for len(stream) >= 4 {
		n := int(stream[0])<<24 | int(stream[1])<<16 | int(stream[2])<<8 | int(stream[3])
		if n < 14 || n > 65557 {
			return frames, true
		}
		if len(stream) < 4+n {
			break
		}
		frames = append(frames, stream[4:4+n])
		stream = stream[4+n:]
	}
	return frames, false
}

// deframe feeds a stream to a deframer in pieces of the lengths that steps give, one
// after the other and then from the start again.
func deframe(t *testing.T, stream []byte, steps []byte) (frames [][]byte, bad bool) {
	var d deframer
	defer d.reset()
	for i := 0; ; i++ {
		for {
			b, err := d.next()
			if err != nil {
				if !errors.As(err, new(lengthError)) {
					t.Fatal(err)
				}
				return frames, true
			}
			if b == nil {
				break
			}
			frames = append(frames, bytes.Clone(b))
			clear(b) // what a worker does to a frame is its own affair
		}
		d.tidy()
		if len(stream) == 0 {
			return frames, false
		}
		step := len(stream)
		if len(steps) > 0 {
			step = int(steps[i%len(steps)]) + 1
		}
		room := d.room()
		if len(room) == 0 {
			t.Fatal("no room for the rest of a frame")
		}
		n := copy(room, stream[:min(step, len(stream))])
		d.w += n
		stream = stream[n:]
	}
}

func same(t *testing.T, stream []byte, steps []byte) {
	t.Helper()
	want, wantBad := reference(stream)
	got, bad := deframe(t, stream, steps)
	if bad != wantBad || len(got) != len(want) {
		t.Fatalf("%d frames, bad end %v; want %d, %v", len(got), bad, len(want), wantBad)
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("frame %d of %d bytes is %d other bytes", i, len(want[i]), len(got[i]))
		}
	}
}

// FuzzStream holds the deframer to the plain way of cutting, whatever comes, in
// whatever pieces.
func FuzzStream(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte("\x00\x00\x00\x0e12345678901234\x00\x00\x00\x0f123456789012345"), []byte{0})
	f.Add([]byte("\x00\x00\x00\x0e12345678901234\x00\x00\x00\x0d"), []byte{3, 0, 7})
	f.Add([]byte("\xff\xff\xff\xff"), []byte{1})
	f.Add([]byte("\x00\x00\x00\x0e12345678901234\x00\x01\x00\x16"), []byte{16})
	f.Fuzz(func(t *testing.T, stream, steps []byte) { same(t, stream, steps) })
}

// Long frames in large pieces go round the deframer's memory many times.
func TestDeframerLongFrames(t *testing.T) {
	var stream []byte
	for i := range 40 {
		n := port.MaxFrame - i*997
		stream = binary.BigEndian.AppendUint32(stream, uint32(n))
		for j := range n {
			stream = append(stream, byte(i+j*7))
		}
	}
	same(t, stream, nil)
	same(t, stream, []byte{255})
}

// FuzzDgram looks at any datagram: it is the hello, or a frame, or dropped for what it
// is.
func FuzzDgram(f *testing.F) {
	f.Add([]byte("VFKT"), false)
	f.Add([]byte("VFKT0"), false)
	f.Add([]byte{}, false)
	f.Add(make([]byte, 14), false)
	f.Add([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x81\x00\x00\x64"), false)
	f.Add(make([]byte, 100), true)
	f.Fuzz(func(t *testing.T, wire []byte, cut bool) {
		fr := port.Frame{Drop: port.NumDrops}
		if !decode(&fr, bytes.Clone(wire), cut) {
			if !bytes.Equal(wire, []byte{'V', 'F', 'K', 'T'}) {
				t.Fatalf("% x is no hello", wire)
			}
			return
		}
		switch {
		case cut && fr.Drop != port.DropOversize, !cut && len(wire) < 14 && fr.Drop != port.DropRunt,
			!cut && len(wire) >= 18 && fr.Drop != port.DropNone:
			t.Fatalf("%d bytes, cut %v: %v", len(wire), cut, fr.Drop)
		case fr.Drop == port.DropNone && fr.Len() != len(wire):
			t.Fatalf("%d bytes are a frame of %d", len(wire), fr.Len())
		}
	})
}

// outs are frames of several lengths and tags, and how each looks on a stream.
func outs() (out []port.Out, wire [][]byte) {
	for i, size := range []int{14, 18, 60, 12 + inlineLen, 12 + inlineLen + 1, 1514} {
		for _, tag := range []port.Tag{0, port.MakeTag(port.TPIDCustomer, 100)} {
			f := new(port.Frame)
			b := make([]byte, size)
			for j := range b {
				b[j] = byte(i + j*3)
			}
			b[12] = 0x88 // no tag's
			f.SetStripped(b, port.MakeTag(port.TPIDCustomer, 7))
			o := port.Out{Frame: f, Tag: tag, Flags: port.OutFlags(i%2) * port.Push}
			w := binary.BigEndian.AppendUint32(nil, uint32(o.Len()))
			w = append(w, b[:12]...)
			for _, tag := range []port.Tag{tag, map[bool]port.Tag{true: f.Tag}[o.Flags&port.Push != 0]} {
				if tag.Present() {
					w = binary.BigEndian.AppendUint32(w, uint32(tag))
				}
			}
			out, wire = append(out, o), append(wire, append(w, b[12:]...))
		}
	}
	return out, wire
}

// Wherever the kernel stops in a frame, the backlog takes the rest, round its end too.
func TestBacklogEveryByte(t *testing.T) {
	out, wire := outs()
	for i := range out {
		for skip := range wire[i] {
			// The rest begins so close to the end that it goes round at any byte.
			q := backlog{buf: backlogs.Rent()}
			q.r = backlogLen - uint(skip)
			q.w = q.r
			if !q.put(&out[i], skip) {
				t.Fatal("no room")
			}
			a, b := q.at(0, q.len())
			if got := append(bytes.Clone(a), b...); !bytes.Equal(got, wire[i][skip:]) {
				t.Fatalf("frame %d from byte %d on: % x, want % x", i, skip, got, wire[i][skip:])
			}
			q.skip(q.len())
			if q.buf != nil {
				t.Fatal("an empty backlog keeps its memory")
			}
		}
	}
}

// A backlog takes what fits to the byte, in order, and says of the rest that it does not.
func TestBacklogBound(t *testing.T) {
	out, wire := outs()
	var q backlog
	var want [][]byte
	bytesIn := 0
	for round := range 5 {
		for full := false; !full; {
			for i := range out {
				fits := bytesIn+len(wire[i]) <= backlogLen
				if q.put(&out[i], 0) != fits {
					t.Fatalf("round %d: %d bytes to %d of %d: fits %v", round, len(wire[i]), bytesIn, backlogLen, fits)
				}
				if fits {
					want = append(want, wire[i])
					bytesIn += len(wire[i])
				} else {
					full = true
				}
			}
		}
		for range len(want) - 100*round {
			n := lengthLen + q.frameLen(0)
			a, b := q.at(0, n)
			if got := append(bytes.Clone(a), b...); !bytes.Equal(got, want[0]) {
				t.Fatalf("round %d: a frame came out changed", round)
			}
			q.skip(n)
			bytesIn -= n
			want = want[1:]
		}
	}
}

// The vector for the kernel holds each frame as it looks on a stream, and stops where
// each ends.
func TestStreamRun(t *testing.T) {
	out, wire := outs()
	cut := new(port.Frame)
	cut.SetStripped(make([]byte, 13), 0)
	out = append(out[:4:4], append([]port.Out{{Frame: cut}}, out[4:]...)...)
	r := streamRuns.New().(*streamRun)
	for range 2 {
		r.build(out)
		var got []byte
		for _, v := range r.pieces[:r.hdr.Iovlen] {
			got = append(got, unsafe.Slice(v.Base, v.Len)...)
		}
		if want := bytes.Join(wire, nil); !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, want %d others", len(got), len(want))
		}
		end := 0
		for i := range wire {
			if end += len(wire[i]); r.ends[i] != end {
				t.Errorf("frame %d ends at %d, want %d", i, r.ends[i], end)
			}
		}
		if r.n != len(wire) || out[4].Drop != port.DropRunt {
			t.Errorf("%d frames, the runt %v", r.n, out[4].Drop)
		}
		r.clear()
		if r.n != 0 || r.outs[0] != nil || r.pieces[0].Base != nil {
			t.Error("pointers stay")
		}
	}
}

// A kernel that takes little at a time gets a stream without a gap.
func TestStreamPartialWrites(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	// The least there is, so that frames are taken in part.
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	c := &conn{fd: fds[0], waiting: make(chan struct{}, 1), done: make(chan struct{})}
	c.hdr.Iov = &c.iov[0]
	p := newStream(nil)
	p.conn = c
	frame := new(port.Frame)
	frame.SetStripped(make([]byte, port.MaxFrame), 0)
	var want, got []byte
	buf := make([]byte, 777)
	partial := false
	for i := range 50 {
		size := 100 + i*1300
		for j := range frame.Data[:size] {
			frame.Data[j] = byte(i + j)
		}
		f := *frame
		f.SetStripped(frame.Data[:size], 0)
		out := []port.Out{{Frame: &f}}
		p.Send(out)
		if out[0].Drop != port.DropNone {
			t.Fatalf("frame %d: %v", i, out[0].Drop)
		}
		want = append(binary.BigEndian.AppendUint32(want, uint32(size)), f.Data...)
		partial = partial || c.backlog.len() > 0 && c.backlog.len() < 4+size
		for len(got) < len(want) {
			n, err := unix.Read(fds[1], buf)
			if err != nil {
				t.Fatalf("after %d of %d bytes, %d in the backlog: %v", len(got), len(want), c.backlog.len(), err)
			}
			got = append(got, buf[:n]...)
			p.flush(c)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes arrived")
	}
	if !partial {
		t.Error("no frame was taken in part: this test tried nothing")
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	var waits []time.Duration
	for range 8 {
		waits = append(waits, b.next(time.Millisecond))
	}
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		if waits[i] != want*time.Millisecond {
			t.Errorf("wait %d is %v, want %vms", i, waits[i], int(want))
		}
	}
	if d := b.next(maxBackoff); d != minBackoff {
		t.Errorf("after a connection that lasted: %v", d)
	}
}

func TestReason(t *testing.T) {
	for errno, want := range map[unix.Errno]port.Drop{
		unix.EAGAIN: port.DropNone, unix.ENOBUFS: port.DropQueueFull, unix.ENOMEM: port.DropQueueFull,
		unix.EMSGSIZE: port.DropTooBig, unix.ECONNREFUSED: port.DropNoCarrier, unix.ENOENT: port.DropNoCarrier,
		unix.EPERM: port.DropNoCarrier, unix.EIO: port.DropIOError,
	} {
		if got := reason(errno); got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
}
