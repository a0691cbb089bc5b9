package unixsock_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/unixsock"
)

// BenchmarkStream is one direction at a time: frames a peer has in store, and frames
// for a peer that throws them away.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{64, 1514} {
		b.Run(fmt.Sprintf("in/%d", size), func(b *testing.B) {
			dir := tempDir(b)
			p := open(b, unixsock.Stream{Dir: dir}, port.Spec{})
			peer := dialPeer(b, sock(dir))
			store := bytes.Repeat(framed(frame(1, size)), 1<<17/size)
			go func() {
				for {
					if _, err := peer.Write(store); err != nil {
						return
					}
				}
			}()
			var frames [port.BatchSize]port.Frame
			q := p.Queues()[0]
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for n := 0; n < b.N; {
				got, err := q.Recv(frames[:])
				if err != nil {
					b.Fatal(err)
				}
				q.Release()
				n += got
			}
			p.Close()
		})
		b.Run(fmt.Sprintf("out/%d", size), func(b *testing.B) {
			dir := tempDir(b)
			p := open(b, unixsock.Stream{Dir: dir}, port.Spec{})
			peer := dialPeer(b, sock(dir))
			awaitLink(b, p, true)
			go io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{peer}, make([]byte, 1<<17))
			f := new(port.Frame)
			f.SetStripped(frame(1, size), 0)
			out := make([]port.Out, port.BatchSize)
			for i := range out {
				out[i].Frame = f
			}
			q := p.Queues()[0]
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; {
				q.Send(out)
				for i := range out {
					if out[i].Drop == port.DropNone {
						n++ // those it has no room for are not counted
					}
				}
			}
			p.Close()
		})
	}
}
