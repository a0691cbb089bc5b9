package porttest

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/vswitch/vswitch/port"
)

// tcp4 makes an IPv4 TCP super-frame of size bytes, and its offload header.
func tcp4(size int) ([]byte, port.Offload) {
	b := body(7, size)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip, tcp := b[14:34], b[34:54]
	clear(ip)
	clear(tcp)
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(size-14))
	copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip)))
	tcp[12], tcp[13] = 5<<4, 0x10 // data offset, ACK
	binary.BigEndian.PutUint16(tcp[16:], fold(sum(6+uint32(size-34), ip[12:])))
	return b, port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
}

// testSuperFrame: a super-frame is received whole. A Tail keeps its bytes as long as the
// peer does not change them; once the port is closed, it may be gone.
func testSuperFrame(t *testing.T, f Fixture) {
	if !f.Offloads {
		return
	}
	timeout := time.AfterFunc(patience, func() { f.Port.Close() })
	defer timeout.Stop()
	q := f.Port.Queues()[0]
	for _, tag := range tags[:2] {
		want, o := tcp4(30_000)
		sent := o
		sent.CsumStart += uint16(tag.Len())
		sent.HdrLen += uint16(tag.Len())
		if err := f.Peer.Send(wire(want, tag), sent); err != nil {
			t.Fatal(err)
		}
		var frames [8]port.Frame
		for came := (*port.Frame)(nil); came == nil; {
			n, err := q.Recv(frames[:])
			if err != nil {
				t.Fatalf("tag %#x: %v", tag, err)
			}
			for i := range frames[:n] {
				if fr := &frames[i]; fr.Src == src && fr.DataLen() == len(want) {
					came = fr
					checkSuperFrame(t, fr, want, tag, o)
				}
			}
			if came != nil && tag.Present() {
				f.Port.Close()
				for range 2 {
					if got := make([]byte, len(want)); came.CopyTo(got, new([1][]byte)) && !bytes.Equal(got, want) {
						t.Error("after Close the frame has other bytes")
					}
				}
			}
			q.Release()
		}
	}
}

func checkSuperFrame(t *testing.T, fr *port.Frame, want []byte, tag port.Tag, o port.Offload) {
	t.Helper()
	if fr.Drop != port.DropNone || fr.Tag != tag {
		t.Errorf("tag %#x came in as %#x, drop %v", tag, fr.Tag, fr.Drop)
	}
	if got := fr.Offload; got.GSOType != o.GSOType || got.GSOSize != o.GSOSize || got.CsumStart != o.CsumStart || got.CsumOffset != o.CsumOffset {
		t.Errorf("offload %+v came in as %+v", o, got)
	}
	if fr.Tail != nil && len(fr.Data) < port.MinHead {
		t.Errorf("%d bytes stand before the tail", len(fr.Data))
	}
	for range 2 { // flooding copies it more than once
		got := make([]byte, len(want))
		if !fr.CopyTo(got, new([1][]byte)) || !bytes.Equal(got, want) {
			t.Errorf("tag %#x: other bytes came in", tag)
		}
	}
}

// pieces is a Tail; a nil one is gone.
type pieces struct {
	bytes []byte
	n     int
}

func (p *pieces) Len() int { return p.n }

func (p *pieces) CopyTo(dst [][]byte) bool {
	left := p.bytes
	for _, d := range dst {
		left = left[copy(d, left):]
	}
	return p.bytes != nil && len(left) == 0
}

// testSendTail: a port that takes tails delivers them, and loses only the frame whose tail
// is gone.
func testSendTail(t *testing.T, f Fixture) {
	if f.Port.Caps()&(port.CapTail|port.CapTSO4) != port.CapTail|port.CapTSO4 {
		return // never given such a frame
	}
	want, o := tcp4(30_000)
	var out []port.Out
	for _, tail := range []*pieces{{want[600:], 29_400}, {nil, 29_400}, {want[600:], 29_400}} {
		fr := frame(want[:600:600])
		fr.Offload, fr.Tail = o, tail
		out = append(out, port.Out{Frame: fr, Tag: tags[1]})
	}
	out[2].Tag = 0
	took := send(f.Port.Queues()[0], out)
	if took != 2 || out[1].Drop != port.DropMemoryGone {
		t.Fatalf("dropped: %v, %v, %v", out[0].Drop, out[1].Drop, out[2].Drop)
	}
	for _, tag := range []port.Tag{tags[1], 0} {
		w, off, err := f.Peer.Recv(patience)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(w, wire(want, tag)) || off.GSOType != o.GSOType || int(off.CsumStart) != 34+tag.Len() {
			t.Errorf("tag %#x: arrived as %d other bytes, %+v", tag, len(w), off)
		}
	}
}
