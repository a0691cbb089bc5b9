// Package losses shows frames that TAPs lose because their readers are behind or away, and of which
// nobody gets an error: those that the kernel forwards by itself, and super-frames behind a
// queueing discipline. A program at a tracepoint of the kernel copies their beginnings (lost.c
// beside those of the fast path; Linux 5.18). It is attached only while somebody wants them, because
// it runs for every packet that the host frees as lost.
package losses

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -type device -type loss bpf ../fastpath/bpf/lost.c -- -Wall -Werror -mcpu=v3

// Tracer shows the frames that devices of a network namespace lose. It implements
// vswitch.Losses. All methods are safe for concurrent use.
type Tracer struct {
	log    *slog.Logger
	cookie func() (uint64, error)
	warned sync.Once

	mu      sync.Mutex
	devices map[uint32]uint16 // port numbers by ifindex
	wanted  int               // Begins without End
	running *running          // nil: nobody wants any
}

// running is the program while it is attached.
type running struct {
	bpf    bpfObjects
	link   link.Link
	reader *ringbuf.Reader
	done   chan struct{}
}

// New returns a Tracer of the devices in the network namespace in which the process started.
func New(log *slog.Logger) *Tracer { return &Tracer{log: log, cookie: ownCookie} }

// ownCookie returns the cookie of the calling thread's network namespace.
func ownCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// Devices implements vswitch.Losses.
func (t *Tracer) Devices(numbers map[int]uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.devices
	t.devices = make(map[uint32]uint16, len(numbers))
	for ifindex, number := range numbers {
		t.devices[uint32(ifindex)] = number
	}
	if t.running != nil {
		t.warn(t.running.change(before, t.devices))
	}
}

// change tells the program which devices count.
func (r *running) change(before, now map[uint32]uint16) error {
	var errs []error
	for ifindex := range before {
		if _, still := now[ifindex]; !still {
			errs = append(errs, r.bpf.Devices.Delete(ifindex))
		}
	}
	for ifindex := range now {
		if _, was := before[ifindex]; !was {
			errs = append(errs, r.bpf.Devices.Put(ifindex, bpfDevice{}))
		}
	}
	return errors.Join(errs...)
}

// Begin implements vswitch.Losses.
func (t *Tracer) Begin(show func(*vswitch.FastCopy)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wanted++; t.running != nil {
		return
	}
	r, err := t.start()
	if err != nil {
		t.warn(err)
		return
	}
	t.running = r
	go t.read(r, show)
}

// End implements vswitch.Losses.
func (t *Tracer) End() {
	t.mu.Lock()
	r := t.running
	if t.wanted--; t.wanted > 0 || r == nil {
		t.mu.Unlock()
		return
	}
	t.running = nil
	t.mu.Unlock()
	t.warn(errors.Join(r.link.Close(), r.reader.Close()))
	<-r.done
	t.warn(r.bpf.Close())
}

// warn logs the first error. The frames are counted all the same.
func (t *Tracer) warn(err error) {
	if err != nil {
		t.warned.Do(func() {
			t.log.Warn("frames that full TAPs lose without an error are counted, but not shown", "reason", err)
		})
	}
}

// start loads and attaches the program.
func (t *Tracer) start() (r *running, err error) {
	netns, err := t.cookie()
	if err != nil {
		return nil, fmt.Errorf("tell network namespaces apart: %w", err)
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["netns"].Set(netns); err != nil {
		return nil, err
	}
	r = &running{done: make(chan struct{})}
	if err := spec.LoadAndAssign(&r.bpf, nil); err != nil {
		return nil, fmt.Errorf("load the program of the tracepoint skb:kfree_skb: %w", err)
	}
	defer func() {
		if err != nil {
			r.bpf.Close()
		}
	}()
	if err := r.change(nil, t.devices); err != nil {
		return nil, err
	}
	if r.reader, err = ringbuf.NewReader(r.bpf.Copies); err != nil {
		return nil, err
	}
	if r.link, err = link.AttachTracing(link.TracingOptions{Program: r.bpf.Lost}); err != nil {
		r.reader.Close()
		return nil, fmt.Errorf("attach to the tracepoint skb:kfree_skb: %w", err)
	}
	return r, nil
}

// read shows copies until the reader is closed.
func (t *Tracer) read(r *running, show func(*vswitch.FastCopy)) {
	defer close(r.done)
	var record ringbuf.Record
	var l bpfLoss
	for r.reader.ReadInto(&record) == nil {
		if binary.Size(l) > len(record.RawSample) {
			continue
		}
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &l); err != nil || int(l.Bytes) > len(l.Data) {
			continue
		}
		t.mu.Lock()
		number, is := t.devices[l.Ifindex]
		t.mu.Unlock()
		if !is || l.Bytes < port.HeaderLen {
			continue
		}
		c := vswitch.FastCopy{
			Kind: vswitch.CopyLost, Number: number, Time: time.Now().Add(time.Duration(l.Time) - monotonic()),
			Drop: port.DropQueueFull, Data: l.Data[:l.Bytes], Length: int(l.Length), Of: l.Others,
		}
		switch l.Why {
		case 1:
			c.Drop = port.DropNoCarrier
		case 2:
			c.Drop = port.DropShaped
		}
		if l.Tpid != 0 {
			c.Tag = port.MakeTag(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, l.Tpid)), l.Tci)
		}
		show(&c)
	}
}

// monotonic returns the time of CLOCK_MONOTONIC.
func monotonic() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it fails for wrong arguments only
	return time.Duration(now.Nano())
}
