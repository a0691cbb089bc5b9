package tuntest

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Reader receives from a port as a switch's worker does, and keeps what came.
type Reader struct {
	frames chan port.Frame
	err    error // set before frames is closed
}

// Read starts to receive from the port's first queue. The port is closed, and the
// Reader has ended, when the test ends.
func Read(t testing.TB, p port.Port) *Reader {
	r := &Reader{frames: make(chan port.Frame, 1<<14)}
	t.Cleanup(func() {
		p.Close()
		for range r.frames {
		}
	})
	go func() {
		defer close(r.frames)
		q := p.Queues()[0]
		batch := make([]port.Frame, port.BatchSize)
		for {
			n, err := q.Recv(batch)
			if err != nil {
				r.err = err
				return
			}
			for _, f := range batch[:n] {
				f.Data = bytes.Clone(f.Data)
				r.frames <- f
			}
			q.Release()
		}
	}()
	return r
}

// Next returns the next frame, waiting for it up to timeout; os.ErrDeadlineExceeded
// then, and what Recv returned when the port has ended.
func (r *Reader) Next(timeout time.Duration) (port.Frame, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case f, ok := <-r.frames:
		if !ok {
			return port.Frame{}, r.err
		}
		return f, nil
	case <-timer.C:
		return port.Frame{}, os.ErrDeadlineExceeded
	}
}

// End waits until the port has ended, and returns what Recv said.
func (r *Reader) End(t testing.TB, timeout time.Duration) error {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		_, err := r.Next(time.Until(deadline))
		if err == os.ErrDeadlineExceeded {
			t.Fatalf("the port has not ended after %v", timeout)
		}
		if err != nil {
			return err
		}
	}
}

// Send gives one frame to the port as it is on the wire and returns the reason it
// was lost for, if any.
func Send(p port.Port, wire []byte, o port.Offload) port.Drop {
	var f port.Frame
	f.SetWire(bytes.Clone(wire))
	f.Offload = o
	out := []port.Out{{Frame: &f, Tag: f.Tag, Drop: port.NumDrops}}
	p.Queues()[0].Send(out)
	return out[0].Drop
}

// Insist sends until it is heard that something has come: until the kernel has seen a
// carrier, an interface loses what it is given. heard takes what comes next, waiting
// for it as Next does, and reports whether that is it.
func Insist(t testing.TB, what string, send func() error, heard func(timeout time.Duration) (bool, error)) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if err := send(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for again := time.Now().Add(100 * time.Millisecond); ; {
			found, err := heard(time.Until(again))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if found {
				return
			}
		}
	}
	t.Fatalf("%s: nothing arrives", what)
}

// Answers expects the host behind a port, from which r reads, to answer ARP for an address.
func Answers(t testing.TB, p port.Port, r *Reader, who string) {
	t.Helper()
	a := netip.MustParseAddr(who)
	Insist(t, "an answer for "+who, func() error {
		if d := Send(p, ARPRequest(a), port.Offload{}); d != port.DropNone {
			return errors.New(d.String())
		}
		return nil
	}, func(wait time.Duration) (bool, error) {
		f, err := r.Next(wait)
		return IsARPReply(f.Data, a), err
	})
}
