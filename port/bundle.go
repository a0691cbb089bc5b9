package port

// Bundled is implemented by ports that several devices carry together. Any goroutine may
// call its methods; they do not wait.
type Bundled interface {
	// Members describes the devices, in the order in which the port's settings name them.
	Members() []Member

	// SetParting sets the frame that the device of a queue sends last, when it is taken out of the
	// port; nil: none. Another device at the queue has none until it is set.
	SetParting(queue int, frame []byte)
}

// Member is one of the devices that carry a port.
type Member struct {
	Ifname string
	Queue  int // of the port: what comes by the member comes there
	State  MemberState
	Reason string // why it is not active

	// LACP is what the two ends know of each other; nil without LACP, or without a device.
	LACP *LACPMember
}

// MemberState says what a member of a port does.
type MemberState string

const (
	MemberActive      MemberState = "active"      // carries frames
	MemberStandby     MemberState = "standby"     // could, but another does
	MemberNegotiating MemberState = "negotiating" // the two ends do not agree yet
	MemberNoCarrier   MemberState = "no-carrier"  // its cable is not connected
	MemberDown        MemberState = "down"        // it is set down, or somebody else uses it
	MemberWaiting     MemberState = "waiting"     // its device is not there
)

// LACPMember is what LACP knows about a member.
type LACPMember struct {
	State   []string // flags of this end
	Partner *LACPPartner
	Churn   bool // one of the ends has not come into step for a minute

	Sent, Received, Discarded uint64 // LACPDUs
}

// LACPPartner is the other end of a member, as it describes itself.
type LACPPartner struct {
	System MAC
	Key    uint16
	Port   uint16
	State  []string // its flags
}

// Aggregate is implemented by ports that several devices of the kernel carry together, so that
// a fast path can choose the device of each frame.
type Aggregate interface {
	KernelEnd

	// Bundle returns the devices, and which frames leave by which. It does not wait. The port
	// tells the fast path when that changes.
	Bundle() *Bundle
}

// BundleSize is the most devices of a Bundle, BundleBuckets the number of its buckets.
const (
	BundleSize    = 8
	BundleBuckets = 256
)

// Bundle says how devices carry a port together. It is never changed, only replaced.
type Bundle struct {
	Devices [BundleSize]int  // by member: the device's number; 0: none
	From    [BundleSize]bool // the frames that come by it are the port's, and punted
	Spread  Spread
	Member  [BundleBuckets]uint8 // by bucket: the member by which frames leave; BundleSize or more: none
}

// Spread says what the bucket of a frame depends on.
type Spread uint8

const (
	SpreadMAC   Spread = iota // addresses of Ethernet
	SpreadIP                  // those, and of IP
	SpreadPorts               // addresses of IP, and ports of TCP and UDP
)
