// Package porttest is the conformance suite of port kinds: it tests what package port
// promises to the switch, on a real port with a real peer at the other end. A kind's tests
// call Run; a kind that passes can be attached to a switch.
package porttest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// Peer holds the other end: it sends and receives frames as they are on the wire, VLAN
// tags inline. One goroutine sends while another receives.
type Peer interface {
	// Send sends one frame to the port under test, waiting if necessary.
	Send(wire []byte, o port.Offload) error

	// Recv waits for a frame until the timeout, then returns os.ErrDeadlineExceeded.
	// The caller may keep what it returns.
	Recv(timeout time.Duration) (wire []byte, o port.Offload, err error)
}

// Fixture is a newly opened port and its properties.
type Fixture struct {
	Port port.Port
	Peer Peer

	// MaxLen is the longest frame, without tag, that passes without
	// segmentation offload in both directions.
	MaxLen int

	// Offloads is true if Peer carries offload headers both ways.
	Offloads bool

	// Silent is true if something behind Send, invisible to the kind, may lose frames
	// when the peer does not take them.
	Silent bool
}

// Run tests all promises. open makes a new port and peer, and has t clean up both; each
// subtest opens its own. The suite ignores frames of other EtherTypes than its own, so
// traffic from a host on the port does no harm.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Fixture)
	}{
		{"Receive", testReceive},
		{"Send", testSend},
		{"ReceiveOrder", testReceiveOrder},
		{"SendOrder", testSendOrder},
		{"Borrow", testBorrow},
		{"SendKeepsNothing", testSendKeepsNothing},
		{"ConcurrentSend", testConcurrentSend},
		{"FullQueue", testFullQueue},
		{"PartialChecksum", testPartialChecksum},
		{"SuperFrame", testSuperFrame},
		{"SendTail", testSendTail},
		{"MalformedOffload", testMalformedOffload},
		{"Pause", testPause},
		{"Polled", testPolled},
		{"CloseWakesRecv", testCloseWakesRecv},
		{"CloseWhileBorrowed", testCloseWhileBorrowed},
		{"SendAfterClose", testSendAfterClose},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t)
			t.Cleanup(func() { f.Port.Close() })
			c.run(t, f)
		})
	}
	t.Run("NoAllocs", func(t *testing.T) { testNoAllocs(t, open(t)) })
	t.Run("NoLeaks", func(t *testing.T) { testNoLeaks(t, open) })
}

const (
	patience = 30 * time.Second
	// etherType is one that no other protocol uses (802 local experimental 1).
	etherType = 0x88b5
	dst, src  = port.MAC(0x02_00_00_00_00_02), port.MAC(0x02_00_00_00_00_01)
)

// body makes the frame without outer tag, size bytes long: the addresses, the
// suite's EtherType, its number, and bytes that follow from the number.
func body(number uint32, size int) []byte {
	b := binary.BigEndian.AppendUint16(nil, etherType)
	b = append(append(dst.HardwareAddr(), src.HardwareAddr()...), b...)
	b = binary.BigEndian.AppendUint32(b, number)
	for i := len(b); i < size; i++ {
		b = append(b, byte(uint32(i)*7+number))
	}
	return b[:size]
}

// wire puts tag into an untagged frame.
func wire(b []byte, tag port.Tag) []byte {
	if !tag.Present() {
		return b
	}
	w := append([]byte{}, b[:12]...)
	w = binary.BigEndian.AppendUint32(w, uint32(tag))
	return append(w, b[12:]...)
}

func number(data []byte) uint32 { return binary.BigEndian.Uint32(data[14:]) }

func ours(data []byte) bool {
	return len(data) >= 14 && binary.BigEndian.Uint16(data[12:]) == etherType
}

// frame returns a frame as the switch would pass it to Send.
func frame(b []byte) *port.Frame {
	f := new(port.Frame)
	f.SetStripped(b, 0)
	return f
}

// sizes are frame lengths without tag that every port carries.
func (f Fixture) sizes() []int {
	all := []int{18, 42, 60, 64, 65, 128, 1023, 1514}
	if f.MaxLen > 1514 {
		all = append(all, f.MaxLen)
	}
	return all
}

var tags = []port.Tag{
	0,
	port.MakeTag(port.TPIDCustomer, 100),
	port.MakeTag(port.TPIDCustomer, 5<<13), // priority tag: VID 0
	port.MakeTag(port.TPIDCustomer, 7<<13|1<<12|4094),
	port.MakeTag(port.TPIDService, 200),
}

// recv calls Recv until it has want frames of the suite, and passes each to take before
// release. It fails the test if that takes too long.
func recv(t *testing.T, f Fixture, want int, take func(*port.Frame)) {
	t.Helper()
	timeout := time.AfterFunc(patience, func() { f.Port.Close() })
	defer timeout.Stop()
	var frames [port.BatchSize]port.Frame
	q := f.Port.Queues()[0]
	for want > 0 {
		n, err := q.Recv(frames[:])
		if err != nil {
			t.Fatalf("Recv with %d frames to come: %v", want, err)
		}
		if n < 1 || n > len(frames) {
			t.Fatalf("Recv returned %d frames of %d", n, len(frames))
		}
		for i := range frames[:n] {
			fr := &frames[i]
			if !ours(fr.Data) {
				continue
			}
			if fr.Drop != port.DropNone {
				t.Fatalf("a good frame of %d bytes came with drop reason %v", len(fr.Data), fr.Drop)
			}
			take(fr)
			want--
		}
		q.Release()
	}
	if want < 0 {
		t.Fatalf("%d frames more than were sent", -want)
	}
}

// send sends one vector to the port and returns how many frames it took.
func send(q port.Queue, out []port.Out) (took int) {
	for i := range out {
		out[i].Drop = port.NumDrops // Send must set each
	}
	q.Send(out)
	for i := range out {
		if out[i].Drop == port.DropNone {
			took++
		}
	}
	return took
}

// peerRecv receives the suite's next frame at the other end.
func peerRecv(t *testing.T, f Fixture, timeout time.Duration) ([]byte, port.Offload, bool) {
	t.Helper()
	for {
		w, o, err := f.Peer.Recv(timeout)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, o, false
		}
		if err != nil {
			t.Fatalf("peer: %v", err)
		}
		var fr port.Frame
		fr.SetWire(bytes.Clone(w))
		if fr.Tag.Present() { // perhaps two
			fr.SetWire(fr.Data)
		}
		if ours(fr.Data) {
			return w, o, true
		}
	}
}

func testReceive(t *testing.T, f Fixture) {
	type sent struct {
		body []byte
		tag  port.Tag
	}
	var all []sent
	for _, size := range f.sizes() {
		for _, tag := range tags {
			all = append(all, sent{body(uint32(len(all)), size), tag})
		}
	}
	for i := 0; i < len(all); {
		few := all[i:min(i+8, len(all))]
		for _, s := range few {
			if err := f.Peer.Send(wire(s.body, s.tag), port.Offload{}); err != nil {
				t.Fatal(err)
			}
		}
		recv(t, f, len(few), func(fr *port.Frame) {
			s := all[i]
			i++
			if !bytes.Equal(fr.Data, s.body) {
				t.Errorf("frame of %d bytes, tag %#x: other bytes came in (%d of them)", len(s.body), s.tag, len(fr.Data))
			}
			if fr.Tag != s.tag {
				t.Errorf("tag %#x came in as %#x", s.tag, fr.Tag)
			}
			if fr.Dst != dst || fr.Src != src {
				t.Errorf("addresses came in as %v, %v", fr.Dst, fr.Src)
			}
			if fr.Offload.IsGSO() || fr.Offload.Flags&port.NeedsCsum != 0 {
				t.Errorf("a whole frame came in with offload %+v", fr.Offload)
			}
		})
	}
}

func testSend(t *testing.T, f Fixture) {
	q := f.Port.Queues()[0]
	// A tunnel's tag goes in front of the one that the frame came with.
	tunnelled := frame(body(9999, 100))
	tunnelled.Tag = tags[1]
	if out := []port.Out{{Frame: tunnelled, Tag: tags[4], Flags: port.Push}}; send(q, out) != 1 {
		t.Fatalf("frame with two tags: dropped: %v", out[0].Drop)
	}
	if got, _, ok := peerRecv(t, f, patience); !ok || !bytes.Equal(got, wire(wire(body(9999, 100), tags[1]), tags[4])) {
		t.Errorf("frame with two tags arrived as %d other bytes", len(got))
	}
	n := uint32(0)
	for _, size := range f.sizes() {
		for _, tag := range tags {
			if tag.Present() && size == f.MaxLen && size > 1514 {
				continue // whether a tag fits beyond the longest frame is up to the device
			}
			b := body(n, size)
			n++
			// The frame came in with another tag than it leaves with.
			fr := frame(b)
			fr.Tag = port.MakeTag(port.TPIDCustomer, 7)
			out := []port.Out{{Frame: fr, Tag: tag}}
			if send(q, out) != 1 {
				t.Fatalf("frame of %d bytes, tag %#x: dropped: %v", size, tag, out[0].Drop)
			}
			got, _, ok := peerRecv(t, f, patience)
			if !ok {
				t.Fatalf("frame of %d bytes, tag %#x: did not arrive", size, tag)
			}
			// An Ethernet device may pad a short frame (802.3 clause 3.2.8).
			if want := wire(b, tag); !bytes.Equal(got[:min(len(got), len(want))], want) {
				t.Errorf("frame of %d bytes, tag %#x: arrived as %d other bytes", size, tag, len(got))
			}
		}
	}
}

// orderRun is how many frames the order tests send; window is how many of them
// are under way at most, which every port's queue has room for.
const orderRun, window = 1024, 64

func testReceiveOrder(t *testing.T, f Fixture) {
	next := uint32(0)
	for sent := uint32(0); sent < orderRun; {
		for range window {
			if err := f.Peer.Send(body(sent, 64), port.Offload{}); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		recv(t, f, window, func(fr *port.Frame) {
			if got := number(fr.Data); got != next {
				t.Fatalf("frame %d came where %d was due", got, next)
			}
			next++
		})
	}
}

func testSendOrder(t *testing.T, f Fixture) {
	q := f.Port.Queues()[0]
	next := uint32(0)
	for next < orderRun {
		var out []port.Out
		for i := range uint32(window) {
			tag := tags[i%3] // a frame's tag must not change its place
			out = append(out, port.Out{Frame: frame(body(next+i, 64)), Tag: tag})
		}
		if took := send(q, out); took != window {
			t.Fatalf("an idle port took %d of %d frames", took, window)
		}
		for i := range uint32(window) {
			w, _, ok := peerRecv(t, f, patience)
			if !ok {
				t.Fatalf("frame %d did not arrive", next)
			}
			var fr port.Frame
			fr.SetWire(w)
			if got := number(fr.Data); got != next {
				t.Fatalf("frame %d arrived where %d was due", got, next)
			}
			if fr.Tag != tags[i%3] {
				t.Fatalf("frame %d arrived with tag %#x, sent with %#x", next, fr.Tag, tags[i%3])
			}
			next++
		}
	}
}

// testBorrow: frames stay as they are until Release, whatever comes in meanwhile.
func testBorrow(t *testing.T, f Fixture) {
	q := f.Port.Queues()[0]
	timeout := time.AfterFunc(patience, func() { f.Port.Close() })
	defer timeout.Stop()
	next := uint32(0)
	for round := range 4 {
		for i := range uint32(8) {
			if err := f.Peer.Send(body(uint32(round)*100+i, 200), port.Offload{}); err != nil {
				t.Fatal(err)
			}
		}
		for seen := 0; seen < 8; {
			var frames [4]port.Frame
			n, err := q.Recv(frames[:])
			if err != nil {
				t.Fatal(err)
			}
			for i := range uint32(4) {
				if err := f.Peer.Send(body(10_000+i, 300), port.Offload{}); err != nil {
					t.Fatal(err)
				}
			}
			for _, fr := range frames[:n] {
				if !ours(fr.Data) {
					continue
				}
				num := number(fr.Data)
				size := 200
				if num >= 10_000 {
					size = 300
				} else {
					if num != uint32(round)*100+next {
						t.Fatalf("frame %d came where %d was due", num, uint32(round)*100+next)
					}
					next++
					seen++
				}
				if !bytes.Equal(fr.Data, body(num, size)) {
					t.Fatalf("frame %d changed before it was released", num)
				}
			}
			q.Release()
		}
		next = 0
	}
}

// testPause: a paused port receives nothing and loses nothing, whether Recv waits or not, and
// sends meanwhile.
func testPause(t *testing.T, f Fixture) {
	p, ok := f.Port.(port.Pausable)
	if !ok {
		t.Fatal("the port is no port.Pausable; an upgrade of the switch would lose frames")
	}
	q := f.Port.Queues()[0]
	var frames [port.BatchSize]port.Frame
	for round := range uint32(3) {
		// Before the pause, so that a peer that connects is there.
		if err := f.Peer.Send(body(round*100, 64), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		recv(t, f, 1, func(*port.Frame) {})
		paused := make(chan error)
		go func() {
			for {
				_, err := q.Recv(frames[:])
				if err != nil {
					paused <- err
					return
				}
				q.Release() // traffic of others
			}
		}()
		if round == 1 {
			time.Sleep(10 * time.Millisecond) // most likely Recv waits
		}
		p.Pause()
		select {
		case err := <-paused:
			if !errors.Is(err, port.ErrPaused) {
				t.Fatalf("Recv of a paused port returned %v", err)
			}
		case <-time.After(patience):
			t.Fatal("Recv still waits after Pause")
		}
		for i := range uint32(4) {
			if err := f.Peer.Send(body(round*100+i, 64), port.Offload{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := q.Recv(frames[:]); !errors.Is(err, port.ErrPaused) {
			t.Fatalf("Recv of a paused port returned %v", err)
		}
		if send(q, []port.Out{{Frame: frame(body(7, 64))}}) != 1 {
			t.Fatal("a paused port does not send")
		}
		if _, _, ok := peerRecv(t, f, patience); !ok {
			t.Fatal("what a paused port sent did not arrive")
		}
		p.Resume()
		next := round * 100
		recv(t, f, 4, func(fr *port.Frame) {
			if got := number(fr.Data); got != next {
				t.Errorf("frame %d came after the pause where %d was due", got, next)
			}
			next++
		})
	}
	p.Pause()
	f.Port.Close()
	if _, err := q.Recv(frames[:]); !errors.Is(err, port.ErrPaused) && !errors.Is(err, port.ErrClosed) {
		t.Errorf("Recv of a closed port returned %v", err)
	}
}

// testPolled: Poll of a queue that is polled never waits, Wait returns when there is something to
// see, and without frames the queue is not polled for long.
func testPolled(t *testing.T, f Fixture) {
	q, ok := f.Port.Queues()[0].(port.Polled)
	if !ok {
		return // most are not
	}
	var frames [port.BatchSize]port.Frame
	var came atomic.Int64
	poll := func() chan error {
		ended := make(chan error, 1)
		go func() {
			for {
				n, err := q.Poll(frames[:])
				switch {
				case err != nil:
					ended <- err
					return
				case n > 0:
					came.Add(int64(n))
					q.Release()
				default:
					if q.Eager(time.Hour) {
						ended <- errors.New("a queue that had no frame for an hour asks to be polled")
						return
					}
					q.Wait()
				}
			}
		}()
		return ended
	}
	ends := func(ended chan error, want error) {
		t.Helper()
		select {
		case err := <-ended:
			if !errors.Is(err, want) {
				t.Fatalf("Poll returned %v, not %v", err, want)
			}
		case <-time.After(patience):
			t.Fatalf("Wait does not return for %v", want)
		}
	}
	ended := poll()
	for i := range uint32(3) {
		seen := came.Load()
		if err := f.Peer.Send(body(i, 64), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		for limit := time.Now().Add(patience); came.Load() == seen; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("frame %d was not seen", i)
			}
		}
	}
	p := f.Port.(port.Pausable)
	p.Pause()
	ends(ended, port.ErrPaused)
	p.Resume()
	ended = poll()
	if err := f.Port.Close(); err != nil {
		t.Fatal(err)
	}
	ends(ended, port.ErrClosed)
}

// testSendKeepsNothing: after Send, the port no longer uses the frame's memory.
func testSendKeepsNothing(t *testing.T, f Fixture) {
	q := f.Port.Queues()[0]
	b := body(1, 500)
	if send(q, []port.Out{{Frame: frame(b)}}) != 1 {
		t.Fatal("not sent")
	}
	clear(b)
	got, _, ok := peerRecv(t, f, patience)
	if !ok || !bytes.Equal(got, body(1, 500)) {
		t.Fatalf("the frame did not arrive as it was when sent (%d bytes)", len(got))
	}
	// Nor does Send write to it: flooding sends the same bytes to others.
	b = body(2, 500)
	if send(q, []port.Out{{Frame: frame(b), Tag: tags[1]}}) != 1 {
		t.Fatal("not sent")
	}
	if !bytes.Equal(b, body(2, 500)) {
		t.Fatal("Send wrote to the frame")
	}
}

// testConcurrentSend: many workers send at once, each frame arrives once.
func testConcurrentSend(t *testing.T, f Fixture) {
	const workers, each = 4, 500
	q := f.Port.Queues()[0]
	var wg sync.WaitGroup
	took := make([][]bool, workers)
	for w := range workers {
		took[w] = make([]bool, each)
		wg.Go(func() {
			for i := 0; i < each; i += 10 {
				var out []port.Out
				for j := range 10 {
					out = append(out, port.Out{Frame: frame(body(uint32(w<<16|(i+j)), 64+w))})
				}
				send(q, out)
				for j := range out {
					took[w][i+j] = out[j].Drop == port.DropNone
					if d := out[j].Drop; d != port.DropNone && d != port.DropQueueFull {
						t.Errorf("dropped: %v", d)
					}
				}
			}
		})
	}
	seen := make(map[uint32]int)
	last := [workers]int{-1, -1, -1, -1}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for idle := false; !idle; {
		wait := patience
		select {
		case <-done:
			wait = 100 * time.Millisecond // all was sent: what is there is there
		default:
			wait = 20 * time.Millisecond
		}
		got, _, ok := peerRecv(t, f, wait)
		if !ok {
			select {
			case <-done:
				idle = wait == 100*time.Millisecond
			default:
			}
			continue
		}
		num := number(got)
		w, i := int(num>>16), int(num&0xffff)
		if w >= workers || !bytes.Equal(got, body(num, 64+w)) {
			t.Fatalf("frame %#x arrived changed", num)
		}
		if i <= last[w] {
			t.Fatalf("worker %d: frame %d arrived after %d", w, i, last[w])
		}
		last[w] = i
		seen[num]++
	}
	sent := 0
	for w := range took {
		for i, ok := range took[w] {
			num := uint32(w<<16 | i)
			switch {
			case !ok && seen[num] != 0:
				t.Errorf("frame %#x was dropped and arrived", num)
			case ok && seen[num] > 1:
				t.Errorf("frame %#x arrived %d times", num, seen[num])
			case ok && seen[num] == 0 && !f.Silent:
				t.Errorf("frame %#x was sent and did not arrive", num)
			}
			if ok {
				sent++
			}
		}
	}
	if sent == 0 {
		t.Error("nothing was sent")
	}
}

// testFullQueue: a peer that takes nothing makes Send drop, never wait; and what
// Send says it took is what the peer then finds.
func testFullQueue(t *testing.T, f Fixture) {
	q := f.Port.Queues()[0]
	const limit = 200_000
	took, dropped := 0, 0
	start := time.Now()
	for n := uint32(0); n < limit && dropped < 1000; {
		var out []port.Out
		for range window {
			out = append(out, port.Out{Frame: frame(body(n, 1000))})
			n++
		}
		took += send(q, out)
		for i := range out {
			switch out[i].Drop {
			case port.DropNone:
			case port.DropQueueFull:
				dropped++
			default:
				t.Fatalf("a full queue drops with reason %v", out[i].Drop)
			}
		}
		if time.Since(start) > 30*time.Second {
			t.Fatal("Send waits for the peer")
		}
		if f.Silent && n > 20_000 {
			break
		}
	}
	if dropped == 0 && !f.Silent {
		t.Fatalf("%d frames and the queue is never full", took)
	}
	got := 0
	for {
		if _, _, ok := peerRecv(t, f, 200*time.Millisecond); !ok {
			break
		}
		got++
	}
	if got > took || got < took && !f.Silent {
		t.Errorf("Send took %d frames, %d arrived", took, got)
	}
	// The queue has room again.
	if send(q, []port.Out{{Frame: frame(body(1, 64))}}) != 1 {
		t.Error("the queue stays full after the peer emptied it")
	}
}

// testPartialChecksum: a frame whose checksum was left to others arrives with the
// same left to the peer, or completed, never wrong. Its sender's hint of where the
// headers end, past the end of the frame, is neither a reason to lose it nor passed on.
func testPartialChecksum(t *testing.T, f Fixture) {
	if f.Port.Caps()&port.CapCsum == 0 {
		return // never given such a frame
	}
	for _, tag := range tags[:2] {
		b, o := udp4(600)
		o.HdrLen = 0xffff
		fr := frame(b)
		fr.Offload = o
		fr.Tag = tag
		out := []port.Out{{Frame: fr, Tag: tag}}
		if send(f.Port.Queues()[0], out) != 1 {
			t.Fatalf("dropped: %v", out[0].Drop)
		}
		want, _ := udp4(600)
		var got port.Frame
		var off port.Offload
		deadline := time.Now().Add(patience)
		for {
			w, o, err := f.Peer.Recv(time.Until(deadline))
			if err != nil {
				t.Fatal(err)
			}
			got.SetWire(w)
			if len(got.Data) == len(want) && got.Src == src {
				off = o
				break
			}
		}
		if got.Tag != tag {
			t.Errorf("tag %#x arrived as %#x", tag, got.Tag)
		}
		if int(off.HdrLen) > len(b)+tag.Len() {
			t.Errorf("hdr_len %d arrived with a frame of %d bytes", off.HdrLen, len(b)+tag.Len())
		}
		if off.Flags&port.NeedsCsum != 0 {
			if int(off.CsumStart) != 34+tag.Len() || off.CsumOffset != 6 {
				t.Errorf("the checksum moved to %d+%d, tag %#x", off.CsumStart, off.CsumOffset, tag)
			}
			completeUDP4(got.Data)
		}
		completeUDP4(want)
		if !bytes.Equal(got.Data, want) {
			t.Errorf("tag %#x: arrived with a wrong checksum", tag)
		}
	}
}

// testMalformedOffload: a frame with an offload header that contradicts it is refused
// by the kernel, marked by the port, or comes with what the switch refuses, and never
// as a good one. What is sent next comes.
func testMalformedOffload(t *testing.T, f Fixture) {
	if !f.Offloads {
		return
	}
	timeout := time.AfterFunc(patience, func() { f.Port.Close() })
	defer timeout.Stop()
	q := f.Port.Queues()[0]
	for n, c := range []struct {
		name string
		o    port.Offload
	}{
		{"checksum past the end", port.Offload{Flags: port.NeedsCsum, CsumStart: 600, CsumOffset: 6}},
		{"checksum's place past the end", port.Offload{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: 600 - 34 - 1}},
		{"checksum's place wraps", port.Offload{Flags: port.NeedsCsum, CsumStart: 0xffff, CsumOffset: 0xffff}},
		{"checksum of the addresses", port.Offload{Flags: port.NeedsCsum, CsumStart: 6, CsumOffset: 2}},
		{"unknown segmentation", port.Offload{GSOType: 9, GSOSize: 100}},
		{"ECN of nothing", port.Offload{GSOType: port.GSOECN, GSOSize: 100}},
		{"segments of no size", port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOUDPL4, CsumStart: 34, CsumOffset: 6}},
		{"TCP segments, UDP's checksum", port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 100, CsumStart: 34, CsumOffset: 6}},
		{"UDP segments without checksum", port.Offload{GSOType: port.GSOUDPL4, GSOSize: 100}},
	} {
		bad, _ := udp4(600)
		refused := f.Peer.Send(bad, c.o) // an error is the kernel's
		if err := f.Peer.Send(body(uint32(n), 64), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		for came := false; !came; {
			var frames [port.BatchSize]port.Frame
			got, err := q.Recv(frames[:])
			if err != nil {
				t.Fatalf("%s (%v): the frame after it: %v", c.name, refused, err)
			}
			for i := range frames[:got] {
				fr := &frames[i]
				switch {
				case ours(fr.Data) && number(fr.Data) == uint32(n):
					came = true
				case fr.Src == src && fr.Drop == port.DropNone && vnet.Valid(fr.Offload, len(fr.Data)):
					t.Errorf("%s: comes in with %+v", c.name, fr.Offload)
				case fr.Src == src && fr.Drop != port.DropNone && fr.Drop != port.DropBadOffload:
					t.Errorf("%s: drop %v", c.name, fr.Drop)
				}
			}
			q.Release()
		}
	}
}

func testCloseWakesRecv(t *testing.T, f Fixture) {
	ended := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		var frames [8]port.Frame
		q := f.Port.Queues()[0]
		close(started)
		for {
			if _, err := q.Recv(frames[:]); err != nil {
				ended <- err
				return
			}
			q.Release()
		}
	}()
	<-started
	time.Sleep(20 * time.Millisecond) // either order must work; this makes waiting the likely one
	if err := f.Port.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, port.ErrClosed) {
			t.Errorf("Recv of a closed port: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close leaves Recv waiting")
	}
	if err := f.Port.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	var frames [8]port.Frame
	if _, err := f.Port.Queues()[0].Recv(frames[:]); !errors.Is(err, port.ErrClosed) {
		t.Errorf("Recv after Close: %v", err)
	}
}

// testCloseWhileBorrowed: a worker may still read its batch when the port closes.
func testCloseWhileBorrowed(t *testing.T, f Fixture) {
	if err := f.Peer.Send(body(5, 400), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	q := f.Port.Queues()[0]
	timeout := time.AfterFunc(patience, func() { f.Port.Close() })
	defer timeout.Stop()
	for {
		var frames [8]port.Frame
		n, err := q.Recv(frames[:])
		if err != nil {
			t.Fatal(err)
		}
		if !ours(frames[0].Data) {
			q.Release()
			continue
		}
		f.Port.Close()
		if n != 1 && !ours(frames[n-1].Data) {
			t.Log("other frames came along")
		}
		if !bytes.Equal(frames[0].Data, body(5, 400)) {
			t.Error("the frame changed when the port was closed")
		}
		q.Release()
		return
	}
}

func testSendAfterClose(t *testing.T, f Fixture) {
	q := f.Port.Queues()[0]
	f.Port.Close()
	out := []port.Out{{Frame: frame(body(1, 64))}, {Frame: frame(body(2, 64)), Tag: tags[1]}}
	send(q, out)
	for _, o := range out {
		if o.Drop != port.DropPortClosed {
			t.Errorf("Send after Close: %v", o.Drop)
		}
	}
}

// testNoAllocs: the path of a frame leaves nothing to the garbage collector.
func testNoAllocs(t *testing.T, f Fixture) {
	defer f.Port.Close()
	if testenv.RaceEnabled {
		return // the race detector allocates; the suite also runs without it
	}
	q := f.Port.Queues()[0]
	w := body(1, 64)
	var frames [port.BatchSize]port.Frame
	out := []port.Out{{Frame: frame(body(2, 64))}, {Frame: frame(body(3, 64)), Tag: tags[1]}}
	// The peer's own allocations must not count: it sends before and takes after.
	const rounds = 100
	for range rounds + 1 {
		if err := f.Peer.Send(w, port.Offload{}); err != nil {
			t.Fatal(err)
		}
	}
	// A port that keeps its buffers may make each of them once.
	for range 1024 {
		q.Send(out)
		for range out {
			peerRecv(t, f, patience)
		}
	}
	timeout := time.AfterFunc(patience, func() { f.Port.Close() })
	defer timeout.Stop()
	allocs := testing.AllocsPerRun(rounds, func() {
		n, err := q.Recv(frames[:1])
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		q.Release()
		q.Send(out)
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a frame received and two sent", allocs)
	}
}

// testNoLeaks: a port returns all resources of the process that it took.
func testNoLeaks(t *testing.T, open func(*testing.T) Fixture) {
	cycle := func(name string) {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			q := f.Port.Queues()[0]
			send(q, []port.Out{{Frame: frame(body(1, 64))}})
			if err := f.Peer.Send(body(2, 64), port.Offload{}); err != nil {
				t.Fatal(err)
			}
			recv(t, f, 1, func(*port.Frame) {})
			if err := f.Port.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	cycle("warm-up") // what is kept for the whole process may be made here
	quiet := goleak.IgnoreCurrent()
	before := testenv.OpenFiles(t)
	for i := range 5 {
		cycle(fmt.Sprint(i))
	}
	if err := goleak.Find(quiet); err != nil {
		t.Error(err)
	}
	if after := testenv.OpenFiles(t); after > before {
		t.Errorf("%d files open before, %d after", before, after)
	}
}
