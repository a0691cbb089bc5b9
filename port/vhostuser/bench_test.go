package vhostuser_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// BenchmarkSuperFrames passes TCP super-frames from one guest's memory to another's: by
// one copy, as they come in, and by two, as a port that cannot take a Tail has them. The
// guests do no more than to give the same buffers again.
func BenchmarkSuperFrames(b *testing.B) {
	for _, size := range []int{2 << 10, 4 << 10, 8 << 10, 16 << 10, 60 << 10} {
		for _, copies := range []int{1, 2} {
			b.Run(fmt.Sprintf("%dKiB/copies=%d", size>>10, copies), func(b *testing.B) { benchSuperFrames(b, size, copies) })
		}
	}
}

func benchSuperFrames(b *testing.B, size, copies int) {
	const waiting = 32
	from, fromPath := listening(b)
	to, toPath := listening(b)
	sender := boot(b, from, fromPath, vhosttest.Options{Features: modern, Split: 4096})
	receiver := boot(b, to, toPath, vhosttest.Options{Features: modern, Buffer: 4096, Size: 1024})
	wire, offload := tso(size)
	var header [12]byte
	vnet.Encode(header[:], offload)
	for range waiting {
		if err := sender.Send(header, wire); err != nil {
			b.Fatal(err)
		}
	}
	var frames [port.BatchSize]port.Frame
	var scratch [1][]byte
	var vector []port.Out
	flat := make([]byte, port.BatchSize*port.MaxFrame)
	in, out := from.Queues()[0], to.Queues()[0]
	b.SetBytes(int64(size))
	for done := 0; b.Loop(); {
		if done > 0 {
			done--
			continue
		}
		n, err := in.Recv(frames[:])
		if err != nil {
			b.Fatal(err)
		}
		vector = vector[:0]
		room := flat
		for i := range frames[:n] {
			f := &frames[i]
			if copies == 2 && f.Tail != nil {
				whole := room[:f.DataLen()]
				if !f.CopyTo(whole, &scratch) {
					b.Fatal("the guest's memory is gone")
				}
				f.Data, f.Tail, room = whole, nil, room[len(whole):]
			}
			vector = append(vector, port.Out{Frame: f})
		}
		out.Send(vector)
		for i := range vector {
			if vector[i].Drop != port.DropNone {
				b.Fatal(vector[i].Drop)
			}
		}
		in.Release()
		sender.TX[0].Again()
		receiver.RX[0].Again()
		done = n - 1
	}
}

// BenchmarkSmallFrames passes batches from one guest to another. The guests have a processor
// of their own, on which they have just written their rings and buffers. cpu-ns/frame is
// what the switch's thread takes, no waiting in it.
func BenchmarkSmallFrames(b *testing.B) {
	for _, ring := range []struct {
		name     string
		features uint64
	}{{"split", 0}, {"packed", packedRing}} {
		for _, size := range []int{60, 1514} {
			b.Run(fmt.Sprintf("%s/%dB", ring.name, size), func(b *testing.B) { benchSmallFrames(b, ring.features, size) })
		}
	}
}

func benchSmallFrames(b *testing.B, ring uint64, size int) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		b.Fatal(err)
	}
	var cpus []int
	for i := range 64 * len(allowed) { // a bit each
		if allowed.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	if len(cpus) < 2 {
		b.Skip("the guests need a processor of their own")
	}
	from, fromPath := listening(b)
	to, toPath := listening(b)
	o := vhosttest.Options{Features: vhosttest.Version1 | vhosttest.MrgRxBuf | ring}
	sender, receiver := boot(b, from, fromPath, o), boot(b, to, toPath, o)
	for _, q := range []*vhosttest.Queue{sender.TX[0], receiver.RX[0]} {
		_, driver, _ := q.Rings()
		flags := driver[0:] // of a split ring
		if ring == packedRing {
			flags = driver[2:]
		}
		flags[0] = 1 // guests that poll want no calls
	}
	for range port.BatchSize {
		if err := sender.Send([12]byte{}, wire(size)); err != nil {
			b.Fatal(err)
		}
	}

	frames, turn, done := 0, make(chan struct{}), make(chan time.Duration)
	b.Cleanup(func() { close(turn); <-done })
	go func() {
		defer close(done)
		pin(b, cpus[0])
		in, out := from.Queues()[0], to.Queues()[0]
		var batch [port.BatchSize]port.Frame
		vector := make([]port.Out, 0, len(batch))
		for range turn {
			start := threadTime()
			n, err := in.Recv(batch[:])
			if err != nil {
				b.Error(err)
			}
			vector = vector[:0]
			for i := range batch[:n] {
				vector = append(vector, port.Out{Frame: &batch[i]})
			}
			out.Send(vector)
			in.Release()
			took := threadTime() - start
			for i := range vector {
				if vector[i].Drop != port.DropNone {
					b.Error(vector[i].Drop)
				}
			}
			frames += n
			done <- took
		}
	}()
	pin(b, cpus[1])
	var cpu time.Duration
	for b.Loop() {
		turn <- struct{}{}
		cpu += <-done
		sender.TX[0].Again()
		receiver.RX[0].Again()
	}
	b.ReportMetric(float64(cpu)/float64(frames), "cpu-ns/frame")
}

// pin has the goroutine run on one processor until it ends, and its thread with it.
func pin(b *testing.B, cpu int) {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		b.Error(err)
	}
}

// threadTime is the CPU time that this thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
