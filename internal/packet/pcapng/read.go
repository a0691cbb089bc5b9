package pcapng

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// maxBlock is the longest block that a Reader accepts, in bytes: a packet of MaxSnapLen with
// its options, several times over.
const maxBlock = 1 << 20

// maxInterfaces is how many interfaces a Reader keeps: four times the ports of a switch.
const maxInterfaces = 1 << 14

// Reader reads a capture. Blocks that it does not know are passed over.
type Reader struct {
	r      *bufio.Reader
	order  binary.ByteOrder // nil: before the first section
	plain  bool             // it is a file of libpcap's format
	ifaces []readInterface
	block  []byte
}

type readInterface struct {
	Interface
	ethernet  bool
	perSecond uint64
}

// NewReader returns a reader of a capture, in the format pcapng or the older one of libpcap.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 1<<16)} }

// errNotPcapng is the error for a file of another kind.
var errNotPcapng = errors.New("it is no capture in the pcapng or pcap format; convert it as with: tshark -r FILE -w NEW.pcapng")

// Interfaces returns the interfaces of the section that were described so far.
func (r *Reader) Interfaces() int { return len(r.ifaces) }

// Interface returns an interface of a packet.
func (r *Reader) Interface(number int) *Interface { return &r.ifaces[number].Interface }

// Block returns the last block that Next has read, whole, as it stood in the capture. It is
// valid until the next call of Next.
func (r *Reader) Block() []byte { return r.block }

// Next reads the next block. It returns its packet, or nil if the block has none. Data is
// valid until the next call. The error is io.EOF at the end of the capture, and
// io.ErrUnexpectedEOF within a block.
func (r *Reader) Next() (*Packet, error) {
	if r.plain {
		return r.nextPlain()
	}
	head, err := r.r.Peek(12)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if binary.LittleEndian.Uint32(head) == blockSection { // the same in both orders
		switch {
		case binary.LittleEndian.Uint32(head[8:]) == byteOrder:
			r.order = binary.LittleEndian
		case binary.BigEndian.Uint32(head[8:]) == byteOrder:
			r.order = binary.BigEndian
		default:
			return nil, errNotPcapng
		}
		r.ifaces = nil
	}
	if r.order == nil {
		return nil, r.beginPlain(head)
	}
	n := r.order.Uint32(head[4:])
	if n < 12 || n%4 != 0 || n > maxBlock {
		return nil, fmt.Errorf("a block of the capture claims to have %d bytes", n)
	}
	if err := r.read(int(n)); err != nil {
		return nil, err
	}
	if r.order.Uint32(r.block[n-4:]) != n {
		return nil, fmt.Errorf("a block of the capture has two lengths, %d and %d", n, r.order.Uint32(r.block[n-4:]))
	}
	body := r.block[8 : n-4]
	switch r.order.Uint32(r.block) {
	case blockInterface:
		return nil, r.describe(body)
	case blockPacket:
		return r.packet(body)
	}
	return nil, nil
}

// describe reads the description of an interface.
func (r *Reader) describe(b []byte) error {
	if len(b) < 8 || len(r.ifaces) == maxInterfaces {
		return errors.New("the capture describes an interface too shortly, or too many of them")
	}
	i := readInterface{ethernet: r.order.Uint16(b) == linkEthernet, perSecond: 1e6}
	i.SnapLen = int(r.order.Uint32(b[4:]))
	r.options(b[8:], func(option uint16, value []byte) {
		switch {
		case option == optName:
			i.Name = string(value)
		case option == optDescription:
			i.Description = string(value)
		case option == optFilter && len(value) > 0:
			i.Filter = string(value[1:])
		case option == optResolution && len(value) > 0:
			i.perSecond = resolution(value[0])
		}
	})
	r.ifaces = append(r.ifaces, i)
	return nil
}

// resolution returns units per second; 0 if they are too many to tell.
func resolution(b byte) uint64 {
	if b&0x80 != 0 {
		return 1 << min(b&0x7f, 64)
	}
	if b > 19 {
		return 0
	}
	return uint64(math.Pow10(int(b)))
}

func (r *Reader) packet(b []byte) (*Packet, error) {
	if len(b) < 20 {
		return nil, errors.New("a packet of the capture is too short")
	}
	number, captured := r.order.Uint32(b), r.order.Uint32(b[12:])
	if number >= uint32(len(r.ifaces)) {
		return nil, fmt.Errorf("a packet of the capture is of interface %d, and only %d are described", number, len(r.ifaces))
	}
	if uint64(captured) > uint64(len(b)-20) {
		return nil, fmt.Errorf("a packet of the capture claims to have %d bytes", captured)
	}
	i := &r.ifaces[number]
	if !i.ethernet {
		return nil, nil
	}
	p := &Packet{Interface: int(number), Len: int(r.order.Uint32(b[16:])), Data: b[20 : 20+captured]}
	if units := uint64(r.order.Uint32(b[4:]))<<32 | uint64(r.order.Uint32(b[8:])); i.perSecond != 0 {
		seconds, rest := units/i.perSecond, units%i.perSecond
		if seconds < 1<<33 { // else it is no time: what UnixNano can say ends soon after
			p.Time = time.Unix(int64(seconds), int64(float64(rest)*1e9/float64(i.perSecond)))
			if i.perSecond == 1e9 {
				p.Time = time.Unix(int64(seconds), int64(rest))
			}
		}
	}
	at := 20 + (int(captured)+3)&^3
	if at > len(b) {
		return p, nil
	}
	r.options(b[at:], func(option uint16, value []byte) {
		switch {
		case option == optComment && p.Comment == "":
			p.Comment = string(value)
		case option == optFlags && len(value) >= 4:
			flags := r.order.Uint32(value)
			if d := Direction(flags & 3); d <= Out {
				p.Direction = d
			}
			if flags&flagTooLong != 0 {
				p.Fault = TooLong
			} else if flags&flagTooShort != 0 {
				p.Fault = TooShort
			}
		case option == optDropCount && len(value) >= 8:
			p.Lost = r.order.Uint64(value)
		}
	})
	return p, nil
}

// options calls f for each option in b; it stops at one that is cut off.
func (r *Reader) options(b []byte, f func(option uint16, value []byte)) {
	for len(b) >= 4 {
		option, n := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
		if option == optEnd || n > len(b)-4 {
			return
		}
		f(option, b[4:4+n])
		b = b[min(len(b), 4+(n+3)&^3):]
	}
}
