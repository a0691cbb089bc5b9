package stp

import "fmt"

// MaxPort is the highest port number. A port identifier has 12 bits for it (9.2.7), in
// which port 4,096 is 0: the standard does not use 0, but neighbours only compare
// identifiers.
const MaxPort = 1 << 12

const portMask = 1<<12 - 1

// BridgeID is a bridge identifier (9.2.5): priority in the upper 16 bits, the lower 12
// of them the system ID extension, and address in the lower 48.
type BridgeID uint64

func makeBridgeID(priority uint16, a [6]byte) BridgeID {
	return BridgeID(priority)<<48 | BridgeID(a[0])<<40 | BridgeID(a[1])<<32 |
		BridgeID(a[2])<<24 | BridgeID(a[3])<<16 | BridgeID(a[4])<<8 | BridgeID(a[5])
}

// Priority returns the settable part, a multiple of 4096.
func (id BridgeID) Priority() uint16 { return uint16(id>>48) & 0xf000 }

// Address returns the bridge's address.
func (id BridgeID) Address() [6]byte {
	return [6]byte{byte(id >> 40), byte(id >> 32), byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
}

func (id BridgeID) sameBridge(other BridgeID) bool { return (id^other)<<16 == 0 }

// String returns priority and address in hexadecimal, as the Linux bridge prints them.
func (id BridgeID) String() string {
	return fmt.Sprintf("%04x.%012x", uint16(id>>48), uint64(id)&(1<<48-1))
}

// PortID is a port identifier (9.2.7): priority in the upper 4 bits, number in the
// lower 12.
type PortID uint16

func makePortID(priority uint8, number uint16) PortID {
	return PortID(priority)<<8 | PortID(number&portMask)
}

// Priority returns the port's priority, a multiple of 16.
func (id PortID) Priority() uint8 { return uint8(id>>8) & 0xf0 }

// Number returns the port's number.
func (id PortID) Number() uint16 {
	if n := uint16(id) & portMask; n != 0 {
		return n
	}
	return MaxPort
}

// String returns the identifier in hexadecimal, as the Linux bridge prints it.
func (id PortID) String() string { return fmt.Sprintf("%04x", uint16(id)) }
