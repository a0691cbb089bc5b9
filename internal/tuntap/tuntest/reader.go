package tuntest

import (
	"bytes"
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
