package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/port"
)

// Count returns the number of segments.
func (s *Segmenter) Count() int { return s.count }

// FrameLen returns the length of the longest segment in bytes. The caller compares it
// with the port's MTU.
func (s *Segmenter) FrameLen() int { return s.longest }

// Offload returns the offload of every segment: none, or a partial checksum.
func (s *Segmenter) Offload() port.Offload { return s.offload }

// Next writes the next segment to dst, which holds at least FrameLen bytes, and returns
// its length; ok is false when none is left. As in Frame.Data, the segment lacks the
// outer tag. Its addresses are those in data.
func (s *Segmenter) Next(dst []byte) (n int, ok bool) {
	headLen, payload, ok := s.take()
	if !ok {
		return 0, false
	}
	n = headLen + copy(dst[headLen:headLen+len(payload)], payload)
	// The checksum is computed over the copy, while it is in the cache.
	s.putHeader(dst[:headLen], dst[headLen:n])
	return n, true
}

// NextHead is Next without the copy: it writes the next segment's headers to dst, which holds
// at least MaxHead bytes, and returns their length, and the payload, which lies in data.
func (s *Segmenter) NextHead(dst []byte) (n int, payload []byte, ok bool) {
	if n, payload, ok = s.take(); ok {
		s.putHeader(dst[:n], payload)
	}
	return n, payload, ok
}

// take takes the next segment's payload.
func (s *Segmenter) take() (headLen int, payload []byte, ok bool) {
	if s.next == s.count {
		return 0, nil, false
	}
	headLen, n := s.headLen, s.size
	switch {
	case s.layout == ipFragments && s.next == 0:
		headLen, n = headLen+udpHeaderLen, n-udpHeaderLen
	case s.layout == sctpPackets:
		n, _ = bundle(s.rest, s.size)
	}
	s.next++
	n = min(n, len(s.rest))
	payload, s.rest = s.rest[:n], s.rest[n:]
	return headLen, payload, true
}

// putHeader writes the headers of the segment taken last; payload is what follows them.
func (s *Segmenter) putHeader(dst, payload []byte) {
	copy(dst, s.head[:len(dst)])
	switch s.layout {
	case tcpSegments:
		s.putIP(dst, len(payload))
		s.putTCP(dst[s.l4:], payload)
		s.id += uint16(s.step)
	case udpDatagrams:
		s.putIP(dst, len(payload))
		s.putUDP(dst[s.l4:], payload)
		s.id += uint16(s.step)
	case ipFragments:
		s.putIP(dst, len(payload))
	case sctpPackets:
		s.putIP(dst, len(payload))
		s.putSCTP(dst[s.l4:], payload)
		s.id += uint16(s.step)
	}
	if s.outer.on {
		s.putOuter(dst, len(dst)+len(payload))
	}
	if s.shim.pppoe != 0 && s.layout != whole {
		s.putShim(dst, len(dst)+len(payload))
	}
}

func (s *Segmenter) last() bool { return s.next == s.count }

func (s *Segmenter) putIP(dst []byte, payloadLen int) {
	length := s.ipLen(len(dst) + payloadLen)
	h := dst[s.ip:]
	if !s.ipv4 {
		binary.BigEndian.PutUint16(h[4:], uint16(length))
		if s.layout == ipFragments {
			// The offset is a multiple of eight; the lowest bit says that more
			// fragments follow (RFC 8200 section 4.5).
			f := dst[s.l4-fragHeaderLen:]
			binary.BigEndian.PutUint16(f[2:], uint16(s.nextOffset(dst, payloadLen)|s.more(1)))
		}
		return
	}
	sum := s.ipSum + uint32(length) + uint32(s.id)
	binary.BigEndian.PutUint16(h[2:], uint16(length))
	binary.BigEndian.PutUint16(h[4:], s.id)
	if s.layout == ipFragments {
		word := uint16(s.nextOffset(dst, payloadLen)/8 | s.more(0x2000)) // RFC 791 section 3.1
		binary.BigEndian.PutUint16(h[6:], word)
		sum += uint32(word)
	}
	binary.BigEndian.PutUint16(h[10:], ^fold(sum))
}

// nextOffset returns the fragment's offset in its datagram and moves on to the next.
func (s *Segmenter) nextOffset(dst []byte, payloadLen int) int {
	at := s.offset
	s.offset += len(dst) - s.l4 + payloadLen
	return at
}

// more returns bit for every fragment but the last, which gets 0.
func (s *Segmenter) more(bit int) int {
	if s.last() {
		return 0
	}
	return bit
}

func (s *Segmenter) putTCP(t, payload []byte) {
	flags := s.flags
	if s.next != 1 {
		flags &^= tcpCWR
	}
	if !s.last() {
		flags &^= tcpFIN | tcpPSH
	}
	binary.BigEndian.PutUint32(t[4:], s.seq)
	t[13] = flags
	sum := s.pseudoSum + uint32(len(t)+len(payload))
	if s.partial {
		binary.BigEndian.PutUint16(t[tcpCsum:], fold(sum))
	} else {
		sum += s.l4Sum + s.seq>>16 + s.seq&0xffff + uint32(flags) + uint32(Sum(payload))
		binary.BigEndian.PutUint16(t[tcpCsum:], ^fold(sum))
	}
	s.seq += uint32(len(payload))
}

func (s *Segmenter) putUDP(u, payload []byte) {
	length := uint32(len(u) + len(payload))
	binary.BigEndian.PutUint16(u[4:], uint16(length))
	sum := s.pseudoSum + length
	if s.partial {
		binary.BigEndian.PutUint16(u[udpCsum:], fold(sum))
		return
	}
	binary.BigEndian.PutUint16(u[udpCsum:], complement(sum+s.l4Sum+length+uint32(Sum(payload))))
}
