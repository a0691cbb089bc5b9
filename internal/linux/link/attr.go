package link

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// attributes gives the type and the value of each route attribute in b (include/linux/
// rtnetlink.h, RTA_NEXT). It ends where one does not fit: nl.ParseRouteAttr panics there.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(typ, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
		}
	}
}
