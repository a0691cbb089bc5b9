package eth

import "testing"

func TestIsReserved(t *testing.T) {
	for addr, want := range map[uint64]bool{
		0x0180_c200_0000: true,  // nearest customer bridge group, STP
		0x0180_c200_000e: true,  // nearest bridge group, LLDP
		0x0180_c200_000f: true,  // the last
		0x0180_c200_0010: false, // all-LANs bridge management: forwarded
		0x0180_c200_0020: false,
		0x0180_c1ff_ffff: false,
		0xffff_ffff_ffff: false,
	} {
		if got := IsReserved(addr); got != want {
			t.Errorf("%012x: %v", addr, got)
		}
	}
}
