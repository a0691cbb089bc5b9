package port

// Offload says what the frame's sender left for others to do. It is the
// virtio-net header (virtio 1.2, 5.1.6) in host byte order, without the count of
// merged buffers, which concerns one ring only. The zero Offload: nothing left.
type Offload struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // a hint of the sender's; not to be trusted
	GSOSize    uint16 // payload bytes per segment
	CsumStart  uint16 // where the checksum's coverage begins in Frame.Data
	CsumOffset uint16 // where the checksum lies, from CsumStart on
}

// Values of Offload.Flags.
const (
	NeedsCsum uint8 = 1 << 0 // the checksum is partial
	DataValid uint8 = 1 << 1 // the checksum was verified
)

// Values of Offload.GSOType. GSOECN is a bit beside the others.
const (
	GSONone  uint8 = 0
	GSOTCPv4 uint8 = 1
	GSOUDP   uint8 = 3 // UDP fragmentation, legacy
	GSOTCPv6 uint8 = 4
	GSOUDPL4 uint8 = 5
	GSOECN   uint8 = 0x80
)

// Values of Offload.GSOType that exist inside the switch only: the header of virtio has
// no such types, so no port takes them, and no guest may set them.
const (
	// GSOSCTP is a row of SCTP chunks behind one SCTP header. Each packet gets as
	// many whole chunks as fit into GSOSize bytes.
	GSOSCTP uint8 = 2

	// GSOTunnel is a bit beside the others: the type is that of the packet inside a
	// tunnel (VXLAN, GENEVE, GRE, IPIP), whose outer headers each segment repeats.
	GSOTunnel uint8 = 0x10
)

// IsGSO reports whether the frame is a super-frame, which somebody has to segment.
func (o *Offload) IsGSO() bool { return o.GSOType != GSONone }

// Needs returns the abilities a port must have to be sent this frame untouched.
// A type of segmentation that is not known needs every ability there is.
func (o *Offload) Needs() Caps {
	var c Caps
	if o.Flags&NeedsCsum != 0 {
		c = CapCsum
	}
	switch o.GSOType &^ GSOECN {
	case GSONone:
		return c
	case GSOTCPv4:
		c |= CapTSO4
	case GSOTCPv6:
		c |= CapTSO6
	case GSOUDPL4:
		c |= CapUSO
	case GSOUDP:
		c |= CapUFO
	default:
		return ^Caps(0)
	}
	if o.GSOType&GSOECN != 0 {
		c |= CapTSOECN
	}
	return c
}

// Caps is the set of offloads that a port takes from the switch undone, because
// the kernel or the guest behind it does or does without the work; and CapTail.
type Caps uint8

const (
	CapCsum Caps = 1 << iota
	CapTSO4
	CapTSO6
	CapTSOECN
	CapUFO
	CapUSO

	// CapTail: frames may have a Tail.
	CapTail

	CapsNone Caps = 0
	// CapsAll are all offloads.
	CapsAll = CapCsum | CapTSO4 | CapTSO6 | CapTSOECN | CapUFO | CapUSO
)
