package vnet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// slowSum adds one octet after the other, as RFC 1071 defines the sum.
func slowSum(b []byte) uint16 {
	var sum uint64
	for i, c := range b {
		if i%2 == 0 {
			sum += uint64(c) << 8
		} else {
			sum += uint64(c)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestSum(t *testing.T) {
	t.Run("AVX2, where the processor has it", testSum)
	t.Run("without", func(t *testing.T) {
		defer vnet.Narrow()()
		testSum(t)
	})
}

func testSum(t *testing.T) {
	// The example of RFC 1071 section 3.
	if got := vnet.Sum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != 0xddf2 {
		t.Errorf("%#x, want 0xddf2", got)
	}
	r := rand.New(rand.NewPCG(1, 1))
	random := make([]byte, 1100)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	ones := bytes.Repeat([]byte{0xff}, len(random)) // every addition carries
	for _, b := range [][]byte{random, ones, make([]byte, len(random))} {
		for from := range 9 {
			for to := from; to <= len(b); to++ {
				if got, want := vnet.Sum(b[from:to]), slowSum(b[from:to]); got != want {
					t.Fatalf("Sum of bytes %d to %d: %#x, want %#x", from, to, got, want)
				}
			}
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Add(bytes.Repeat([]byte{0xff}, 200))
	f.Add(bytes.Repeat([]byte{0xff}, 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := vnet.Sum(b), slowSum(b); got != want {
			t.Fatalf("%#x, want %#x", got, want)
		}
	})
}

func TestCompleteWritesNoZero(t *testing.T) {
	// A frame whose sum is all ones would get a checksum of zero, which to UDP is
	// none (RFC 768).
	data := make([]byte, 42)
	binary.BigEndian.PutUint16(data[34:], 0xffff)
	o := port.Offload{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: 6}
	if err := vnet.Complete(data, o); err != nil {
		t.Fatal(err)
	}
	if got := binary.BigEndian.Uint16(data[40:]); got != 0xffff {
		t.Errorf("checksum %#x", got)
	}
}

// FuzzComplete: where the header is valid the frame's checksum then verifies, and
// nothing but the checksum has changed; CompleteTo makes the same and leaves the
// original alone.
func FuzzComplete(f *testing.F) {
	f.Add(make([]byte, 60), uint8(1), uint16(34), uint16(16))
	f.Add(make([]byte, 60), uint8(0), uint16(34), uint16(16))
	f.Add(make([]byte, 51), uint8(1), uint16(34), uint16(16))
	f.Add(make([]byte, 52), uint8(1), uint16(34), uint16(16))
	f.Add(make([]byte, 60), uint8(1), uint16(14), uint16(6)) // right behind the Ethernet header
	f.Add(make([]byte, 100), uint8(1), uint16(0xffff), uint16(0xffff))
	f.Add([]byte("twelve bytes\x08\x00and some more that make a payload of it"), uint8(1), uint16(20), uint16(6))
	f.Add(make([]byte, 13), uint8(1), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, flags uint8, start, offset uint16) {
		o := port.Offload{Flags: flags, CsumStart: start, CsumOffset: offset}
		orig := bytes.Clone(data)
		done := bytes.Clone(data)
		err := vnet.Complete(done, o)

		dst := bytes.Repeat([]byte{0xa5}, len(data)+3)
		n, errTo := vnet.CompleteTo(dst, data, o)
		if !bytes.Equal(data, orig) {
			t.Fatal("CompleteTo wrote to the original")
		}
		if n != len(data) || errTo != err || !bytes.Equal(dst[:n], done) || string(dst[n:]) != "\xa5\xa5\xa5" {
			t.Fatalf("CompleteTo: %d bytes %x, %v; Complete: %x, %v", n, dst, errTo, done, err)
		}
		if err != nil || flags&port.NeedsCsum == 0 {
			if vnet.Valid(o, len(data)) != (err == nil) && err != nil {
				t.Fatalf("%+v is valid, and still %v", o, err)
			}
			if !bytes.Equal(done, orig) {
				t.Fatal("a frame that needs nothing was changed")
			}
			return
		}
		at := int(start) + int(offset)
		// What the field held before stands for the pseudo header, which is not in
		// the frame. A field at an odd offset adds up in other places than it was
		// read from, so only an even one verifies.
		check := append(binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(orig[at:])), done[start:]...)
		if got := slowSum(check); offset%2 == 0 && got != 0xffff {
			t.Fatalf("the sum is %#x", got)
		}
		copy(done[at:at+2], orig[at:at+2])
		if !bytes.Equal(done, orig) {
			t.Fatal("bytes beside the checksum changed")
		}
	})
}

func TestCompleteAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates")
	}
	data, dst := make([]byte, 1514), make([]byte, 1514)
	o := port.Offload{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: 16}
	if n := testing.AllocsPerRun(100, func() {
		if vnet.Complete(data, o) != nil {
			t.Error("refused")
		}
		if _, err := vnet.CompleteTo(dst, data, o); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var sink uint16

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 64, 576, 1500, 65535} {
		data := bytes.Repeat([]byte{0x5a, 0xc3, 0x99}, n/3+1)[:n]
		b.Run(fmt.Sprintf("%dB", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				sink = vnet.Sum(data)
			}
		})
	}
	data := bytes.Repeat([]byte{0x5a, 0xc3, 0x99}, 500)
	b.Run("slow/1500B", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			sink = slowSum(data)
		}
	})
}
