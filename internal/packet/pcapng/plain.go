package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// The file format of libpcap (draft-ietf-opsawg-pcap), which tcpdump writes: a head of 24
// bytes, and packets with a head of 16. It has one interface, without a name.
const (
	plainMicros = 0xa1b2c3d4
	plainNanos  = 0xa1b23c4d

	plainHead       = 24
	plainPacketHead = 16
)

// beginPlain reads the head of a file, of which the first 12 bytes are given.
func (r *Reader) beginPlain(head []byte) error {
	i := readInterface{}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(head) {
		case plainMicros:
			r.order, i.perSecond = order, 1e6
		case plainNanos:
			r.order, i.perSecond = order, 1e9
		}
	}
	if r.order == nil {
		return errNotPcapng
	}
	if err := r.read(plainHead); err != nil {
		return err
	}
	i.SnapLen = int(r.order.Uint32(r.block[16:]))
	i.ethernet = r.order.Uint32(r.block[20:])&0xffff == linkEthernet // above are flags
	r.plain, r.ifaces = true, append(r.ifaces, i)
	return nil
}

// nextPlain is Next for such a file.
func (r *Reader) nextPlain() (*Packet, error) {
	head, err := r.r.Peek(plainPacketHead)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	captured := r.order.Uint32(head[8:])
	if captured > maxBlock-plainPacketHead {
		return nil, fmt.Errorf("a packet of the capture claims to have %d bytes", captured)
	}
	if err := r.read(plainPacketHead + int(captured)); err != nil {
		return nil, err
	}
	i := &r.ifaces[0]
	if !i.ethernet {
		return nil, nil
	}
	b := r.block
	return &Packet{
		Time: time.Unix(int64(r.order.Uint32(b)), int64(uint64(r.order.Uint32(b[4:]))*(1e9/i.perSecond))),
		Len:  int(r.order.Uint32(b[12:])), Data: b[plainPacketHead:],
	}, nil
}

// read reads the next n bytes into the block.
func (r *Reader) read(n int) error {
	if cap(r.block) < n {
		r.block = make([]byte, n, max(n, 4096))
	}
	r.block = r.block[:n]
	if _, err := io.ReadFull(r.r, r.block); err != nil {
		return io.ErrUnexpectedEOF
	}
	return nil
}
