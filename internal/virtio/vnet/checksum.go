package vnet

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/vswitch/vswitch/port"
)

// ErrChecksum means that the checksum cannot be computed. It maps to
// port.DropBadOffload.
var ErrChecksum = errors.New("the offload header does not say where in the frame the checksum lies; the sender's driver is at fault")

// Complete writes the checksum that o leaves undone into data; after that the frame
// needs no offload. A frame with a complete checksum is left unchanged. Complete
// ignores the segmentation type in o, which is the Segmenter's job.
func Complete(data []byte, o port.Offload) error {
	if o.Flags&port.NeedsCsum == 0 {
		return nil
	}
	start := int(o.CsumStart)
	at := start + int(o.CsumOffset)
	if start < port.HeaderLen || at+2 > len(data) {
		return ErrChecksum
	}
	binary.BigEndian.PutUint16(data[at:], complement(uint32(Sum(data[start:]))))
	return nil
}

// CompleteTo copies data to dst, completes the checksum there, and returns the length.
// It is for data that others also receive. dst holds at least len(data) bytes.
func CompleteTo(dst, data []byte, o port.Offload) (int, error) {
	n := copy(dst[:len(data)], data)
	// The sum covers the copy, which nobody who shares data can change any more.
	return n, Complete(dst[:n], o)
}

// complement turns a sum into a header's checksum. Zero is sent as all ones, its equal,
// because zero tells UDP that there is no checksum (RFC 768); the kernel's
// skb_checksum_help does the same for every protocol.
func complement(sum uint32) uint16 {
	if c := ^fold(sum); c != 0 {
		return c
	}
	return 0xffff
}

// fold adds a sum's carries back in, down to 16 bits.
func fold(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	return uint16(sum + sum>>16)
}

// Sum returns the ones' complement sum of the 16-bit words in b before it is
// complemented (RFC 1071). An odd last byte is padded with zero.
func Sum(b []byte) uint16 {
	// The sum depends neither on the byte order nor on the width of the words, as long
	// as carries are kept (RFC 1071 section 2). Each line of 64-bit additions is one
	// chain of add-with-carry; a carry out of the chain goes into the next one.
	var sum, carry uint64
	if len(b) >= 256 && wide {
		sum = sumWords(b) // a carry out of 32 bits counts as one, too
		b = b[len(b)&^127:]
	}
	for len(b) >= 128 {
		w := (*[128]byte)(b)
		sum, carry = bits.Add64(sum, word(w[0:]), carry)
		sum, carry = bits.Add64(sum, word(w[8:]), carry)
		sum, carry = bits.Add64(sum, word(w[16:]), carry)
		sum, carry = bits.Add64(sum, word(w[24:]), carry)
		sum, carry = bits.Add64(sum, word(w[32:]), carry)
		sum, carry = bits.Add64(sum, word(w[40:]), carry)
		sum, carry = bits.Add64(sum, word(w[48:]), carry)
		sum, carry = bits.Add64(sum, word(w[56:]), carry)
		sum, carry = bits.Add64(sum, word(w[64:]), carry)
		sum, carry = bits.Add64(sum, word(w[72:]), carry)
		sum, carry = bits.Add64(sum, word(w[80:]), carry)
		sum, carry = bits.Add64(sum, word(w[88:]), carry)
		sum, carry = bits.Add64(sum, word(w[96:]), carry)
		sum, carry = bits.Add64(sum, word(w[104:]), carry)
		sum, carry = bits.Add64(sum, word(w[112:]), carry)
		sum, carry = bits.Add64(sum, word(w[120:]), carry)
		b = b[128:]
	}
	for len(b) >= 32 {
		w := (*[32]byte)(b)
		sum, carry = bits.Add64(sum, word(w[0:]), carry)
		sum, carry = bits.Add64(sum, word(w[8:]), carry)
		sum, carry = bits.Add64(sum, word(w[16:]), carry)
		sum, carry = bits.Add64(sum, word(w[24:]), carry)
		b = b[32:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, word(b), carry)
		b = b[8:]
	}
	if len(b) >= 4 {
		sum, carry = bits.Add64(sum, uint64(binary.NativeEndian.Uint32(b)), carry)
		b = b[4:]
	}
	if len(b) >= 2 {
		sum, carry = bits.Add64(sum, uint64(binary.NativeEndian.Uint16(b)), carry)
		b = b[2:]
	}
	if len(b) > 0 {
		last := [2]byte{b[0], 0}
		sum, carry = bits.Add64(sum, uint64(binary.NativeEndian.Uint16(last[:])), carry)
	}
	sum += carry // never overflows: a sum that carried is below all ones

	sum = sum>>32 + sum&0xffff_ffff
	sum = sum>>32 + sum&0xffff_ffff
	var wire [2]byte
	binary.NativeEndian.PutUint16(wire[:], fold(uint32(sum)))
	return binary.BigEndian.Uint16(wire[:])
}

func word(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
