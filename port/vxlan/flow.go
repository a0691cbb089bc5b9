package vxlan

import (
	"encoding/binary"
	"math/bits"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// flowOf returns a hash of the flow that a frame belongs to: the addresses, and for whole
// IP packets the transport's ports. It takes nothing that differs within a flow, so frames of
// one flow leave by one socket, in order.
func flowOf(f *port.Frame) uint64 {
	p, ok := eth.FindIP(f.Data)
	if !ok {
		return mix(uint64(f.Dst), uint64(f.Src))
	}
	ip := f.Data[p.Header:]
	var h uint64
	if p.Version == 4 {
		h = mix(binary.BigEndian.Uint64(ip[12:]), 4)
	} else {
		h = mix(binary.BigEndian.Uint64(ip[8:])^binary.BigEndian.Uint64(ip[24:]), mix(binary.BigEndian.Uint64(ip[16:]), binary.BigEndian.Uint64(ip[32:])))
	}
	if l4 := f.Data[p.Transport:]; !p.Fragment && len(l4) >= 4 && (p.Proto == eth.ProtoTCP || p.Proto == eth.ProtoUDP || p.Proto == eth.ProtoSCTP) {
		h = mix(h, uint64(binary.BigEndian.Uint32(l4)))
	}
	return mix(h, uint64(p.Proto))
}

// mix mixes two words so that each bit of the result depends on all of them.
func mix(a, b uint64) uint64 {
	const odd1, odd2 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93
	hi, lo := bits.Mul64(a^odd1, b^odd2)
	return hi ^ lo
}
