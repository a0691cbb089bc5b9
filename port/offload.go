package port

// Offload says what work on the frame its sender left to others. It is the virtio-net
// header (virtio 1.2, 5.1.6) in host byte order, without the count of merged buffers,
// which concerns only one ring. The zero Offload leaves no work.
type Offload struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // the sender's hint; not to be trusted
	GSOSize    uint16 // payload bytes per segment
	CsumStart  uint16 // where the checksum's coverage begins in Frame.Data
	CsumOffset uint16 // where the checksum lies, relative to CsumStart
}

// Values of Offload.Flags.
const (
	NeedsCsum uint8 = 1 << 0 // the checksum is partial
	DataValid uint8 = 1 << 1 // the checksum was verified
)

// Values of Offload.GSOType. GSOECN is a bit that combines with the others.
const (
	GSONone  uint8 = 0
	GSOTCPv4 uint8 = 1
	GSOUDP   uint8 = 3 // UDP fragmentation, legacy
	GSOTCPv6 uint8 = 4
	GSOUDPL4 uint8 = 5
	GSOECN   uint8 = 0x80
)

// Values of Offload.GSOType that exist only inside the switch. The virtio header has no
// such types, so no port takes them and no guest may set them.
const (
	// GSOSCTP is a sequence of SCTP chunks behind one SCTP header. Each packet gets as
	// many whole chunks as fit into GSOSize bytes.
	GSOSCTP uint8 = 2

	// GSOTunnel is a bit that combines with the others: the type is that of the packet
	// inside a tunnel (VXLAN, GENEVE, GRE, IPIP), behind MPLS labels or in a PPPoE session. Each
	// segment repeats the headers in front of that packet.
	GSOTunnel uint8 = 0x10
)

// Left reports whether there is work left to do, or the result of a check to pass on. It is
// cheaper than a comparison with the zero Offload, which compares each field.
func (o *Offload) Left() bool { return o.Flags|o.GSOType != 0 }

// IsGSO reports whether the frame is a super-frame, still to be segmented.
func (o *Offload) IsGSO() bool { return o.GSOType != GSONone }

// Needs returns the abilities that a port needs to take the frame unchanged. An unknown
// segmentation type needs every ability.
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

// Caps is the set of offloads that a port accepts undone, because the kernel or the guest
// behind it does the work or does not need it; and CapTail.
type Caps uint8

const (
	CapCsum Caps = 1 << iota
	CapTSO4
	CapTSO6
	CapTSOECN
	CapUFO
	CapUSO

	// CapTail allows frames with a Tail.
	CapTail

	CapsNone Caps = 0
	// CapsAll are all offloads.
	CapsAll = CapCsum | CapTSO4 | CapTSO6 | CapTSOECN | CapUFO | CapUSO
)
