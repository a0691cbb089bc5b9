package vnet

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// SCTP's headers (RFC 9260 section 3).
const (
	sctpHeaderLen      = 12
	sctpChunkHeaderLen = 4
	sctpCsum           = 8 // offset of the checksum in the header

	// An AUTH chunk authenticates everything behind it in its packet (RFC 4895 section
	// 4.1), so no packet may continue past one.
	sctpAuth = 15
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// putCRC32c writes SCTP's checksum (RFC 9260 appendix A) over header and payload.
func putCRC32c(header, payload []byte) {
	clear(header[sctpCsum:sctpHeaderLen])
	crc := crc32.Update(crc32.Update(0, castagnoli, header), castagnoli, payload)
	binary.LittleEndian.PutUint32(header[sctpCsum:], crc)
}

// initSCTP prepares packets of whole chunks. A chunk longer than the segment size gets
// its own packet.
func (s *Segmenter) initSCTP(data []byte, o port.Offload) error {
	headLen := s.l4 + sctpHeaderLen
	rest, size := data[headLen:], int(o.GSOSize)
	count, longest := 0, 0
	for b := rest; len(b) > 0; count++ {
		n, ok := bundle(b, size)
		if !ok {
			return ErrHeaders
		}
		longest, b = max(longest, n), b[n:]
		if count == maxSegments {
			return ErrSize
		}
	}
	if err := s.cut(sctpPackets, rest, longest, headLen, max(longest, 1), maxSegments); err != nil {
		return err
	}
	s.size, s.count = size, max(count, 1)
	return nil
}

// bundle returns how many bytes of chunks go into one packet of up to size bytes, at
// least one chunk. ok is false if there is no whole chunk.
func bundle(chunks []byte, size int) (n int, ok bool) {
	for n < len(chunks) {
		b := chunks[n:]
		if len(b) < sctpChunkHeaderLen {
			break
		}
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length < sctpChunkHeaderLen || length > len(b) {
			break
		}
		length = min((length+3)&^3, len(b)) // the length excludes padding, which the last chunk may lack
		if n > 0 && (n+length > size || b[0] == sctpAuth) {
			return n, true
		}
		n += length
	}
	return n, n == len(chunks)
}

func (s *Segmenter) putSCTP(h, payload []byte) { putCRC32c(h, payload) }

// completeSCTP writes the SCTP checksum that o leaves undone, if o means that one as
// the kernel understands its offset: that of the frame, or inside a tunnel, such as of
// segment routing. It reports whether it did.
func completeSCTP(data []byte, o port.Offload) bool {
	p, _, ok := findPacket(data)
	if ok && !p.Fragment && p.Transport != int(o.CsumStart) {
		p, ok = findInner(data, len(data), p, o)
	}
	if !ok || p.Fragment || p.Proto != eth.ProtoSCTP || p.Transport != int(o.CsumStart) || len(data) < p.Transport+sctpHeaderLen {
		return false
	}
	putCRC32c(data[p.Transport:][:sctpHeaderLen], data[p.Transport+sctpHeaderLen:])
	return true
}
