package upgradetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// rate is low enough for a busy machine: a TAP holds 500 frames, and a machine may not run for a second.
var rate = flag.Int("rate", 150, "frames a second of each flow")

const (
	etherType = 0x88b5
	frameLen  = 64
)

// flow sends numbered frames from one end to another until stop.
type flow struct {
	from, to end
	frame    []byte

	quit    chan struct{}
	running sync.WaitGroup
	sent    atomic.Uint32

	mu     sync.Mutex
	seen   map[uint32]int // how often each number came
	last   time.Time
	gap    time.Duration // the longest time between two frames
	broken error
}

// mac is the address behind end number i of a test.
func mac(i int) port.MAC { return 0x0200_0000_0100 + port.MAC(i) }

// newFlow makes a flow to the station at the other end; all makes it a flow of broadcasts.
func newFlow(from, to end, src, dst port.MAC) *flow {
	f := &flow{from: from, to: to, quit: make(chan struct{}), seen: make(map[uint32]int)}
	f.frame = append(dst.HardwareAddr(), src.HardwareAddr()...)
	f.frame = binary.BigEndian.AppendUint16(f.frame, etherType)
	f.frame = append(f.frame, make([]byte, frameLen-len(f.frame))...)
	return f
}

// reconnects reports whether the flow loses what is under way when a process of the switch ends.
func (f *flow) reconnects() bool { return f.from.reconnects || f.to.reconnects }

// announce makes the switch know where the destination is.
func (f *flow) announce(t testing.TB) {
	t.Helper()
	hello := bytes.Clone(f.frame)
	copy(hello, port.Broadcast.HardwareAddr())
	copy(hello[6:], f.frame[:6])
	binary.BigEndian.PutUint32(hello[14:], ^uint32(0))
	if err := f.to.send(hello); err != nil {
		t.Fatalf("%s: %v", f.to.name, err)
	}
}

func (f *flow) start() {
	f.running.Go(f.receive)
	f.running.Go(f.transmit)
}

// transmit sends at the rate, on the average: late frames follow at once.
func (f *flow) transmit() {
	began := time.Now()
	for {
		select {
		case <-f.quit:
			return
		case <-time.After(time.Millisecond):
		}
		for due := uint32(time.Since(began).Seconds() * float64(*rate)); f.sent.Load() < due; f.sent.Add(1) {
			binary.BigEndian.PutUint32(f.frame[14:], f.sent.Load())
			if err := f.from.send(f.frame); err != nil {
				f.mu.Lock()
				f.broken = errors.Join(f.broken, err)
				f.mu.Unlock()
				return
			}
		}
	}
}

func (f *flow) receive() {
	for {
		select {
		case <-f.quit:
			return
		default:
		}
		b, err := f.to.recv(100 * time.Millisecond)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			f.mu.Lock()
			f.broken = errors.Join(f.broken, err)
			f.mu.Unlock()
			return
		case len(b) < 18 || !bytes.Equal(b[:14], f.frame[:14]):
			continue // another flow's, or the host's
		}
		now := time.Now()
		f.mu.Lock()
		f.seen[binary.BigEndian.Uint32(b[14:])]++
		if !f.last.IsZero() {
			f.gap = max(f.gap, now.Sub(f.last))
		}
		f.last = now
		f.mu.Unlock()
	}
}

// more waits until n further frames are sent, and the last of them, or a later one, has come.
func (f *flow) more(t testing.TB, n uint32) {
	t.Helper()
	until := f.sent.Load() + n
	testenv.Eventually(t, f.from.name+" → "+f.to.name+" goes on", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.broken != nil {
			t.Fatalf("%s → %s: %v", f.from.name, f.to.name, f.broken)
		}
		for k := until; k < f.sent.Load(); k++ {
			if f.seen[k] > 0 {
				return true
			}
		}
		return false
	})
}

// result ends the flow and returns how many frames were sent, how many of them did not come, and
// how many came twice.
func (f *flow) result(t testing.TB) (sent, lost, twice int, gap time.Duration) {
	t.Helper()
	f.more(t, 10)
	f.mu.Lock()
	for k, n := range f.seen {
		if n > 1 {
			twice++
		}
		sent = max(sent, int(k)+1)
	}
	lost = sent - len(f.seen)
	gap = f.gap
	f.mu.Unlock()
	return sent, lost, twice, gap
}

func (f *flow) stop() {
	close(f.quit)
	f.running.Wait()
}
