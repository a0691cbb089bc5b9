package vhostuser_test

import (
	"fmt"
	"testing"

	"github.com/vswitch/vswitch/internal/vhost/vhosttest"
	"github.com/vswitch/vswitch/internal/vnet"
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
