package stp

import "fmt"

// Config are the parameters of a bridge (17.13, table 17-1). Times are in seconds.
type Config struct {
	Address      [6]byte // of the bridge; the lowest of equal priority is the root
	Priority     uint16  // a multiple of 4096; the lowest is the root
	HelloTime    int     // 1 to 10
	MaxAge       int     // 6 to 40
	ForwardDelay int     // 4 to 30
	TxHoldCount  int     // BPDUs a port may send in a second, 1 to 10

	// GuardRecovery is the time in seconds after which a port that BPDU guard disabled
	// recovers; 0 means not before Recover.
	GuardRecovery int
}

// DefaultConfig returns the recommended values of table 17-1 and table 17-2, and
// recovery after five minutes.
func DefaultConfig(address [6]byte) Config {
	return Config{Address: address, Priority: 0x8000, HelloTime: 2, MaxAge: 20, ForwardDelay: 15,
		TxHoldCount: 6, GuardRecovery: 300}
}

// Check reports what is wrong with c. It allows hello times beyond table 17-1, up to
// those of 802.1D-1998 table 8-3.
func (c Config) Check() error {
	if c.Address == [6]byte{} || c.Address[0]&1 != 0 {
		return fmt.Errorf("a bridge needs the address of one station, not %x", c.Address)
	}
	if c.Priority%4096 != 0 {
		return fmt.Errorf("bridge priority %d is no multiple of 4096", c.Priority)
	}
	for _, r := range []struct {
		name            string
		value, min, max int
	}{
		{"hello time", c.HelloTime, 1, 10},
		{"max age", c.MaxAge, minMaxAge, maxMaxAge},
		{"forward delay", c.ForwardDelay, minForwardDelay, maxForwardDelay},
		{"transmit hold count", c.TxHoldCount, 1, 10},
		{"guard recovery", c.GuardRecovery, 0, 1 << 30},
	} {
		if r.value < r.min || r.value > r.max {
			return fmt.Errorf("%s %d is out of range; it is %d to %d", r.name, r.value, r.min, r.max)
		}
	}
	// 17.14: information must not age out in transit.
	if 2*(c.ForwardDelay-1) < c.MaxAge {
		return fmt.Errorf("max age %d is too long for forward delay %d; it is %d at most", c.MaxAge, c.ForwardDelay, 2*(c.ForwardDelay-1))
	}
	if c.MaxAge < 2*(c.HelloTime+1) {
		return fmt.Errorf("max age %d is too short for hello time %d; it is %d at least", c.MaxAge, c.HelloTime, 2*(c.HelloTime+1))
	}
	return nil
}

// The ranges of table 17-1, in seconds. They also bound how long a root bridge can make
// this bridge wait.
const (
	minMaxAge, maxMaxAge             = 6, 40
	minForwardDelay, maxForwardDelay = 4, 30
)

// migrateTime is Migrate Time of table 17-1, in seconds.
const migrateTime = 3

// PortConfig are the parameters of a port.
type PortConfig struct {
	PathCost uint32 // 1 to 200,000,000; 0: the cost of Speed
	Speed    uint64 // of the link in bit/s; 0: unknown
	Priority uint8  // a multiple of 16; the lowest is preferred

	AdminEdge bool // no bridge is expected: forward as soon as the link is up
	AutoEdge  bool // become an edge port if no bridge is heard
	Shared    bool // not a point-to-point link: ignore agreements from it

	BPDUGuard  bool // disable the port when it hears a BPDU
	RootGuard  bool // never make it the root port (restrictedRole of 802.1Q)
	BPDUFilter bool // neither send BPDUs nor hear them; overrides BPDUGuard
}

// DefaultPort returns the recommended values of 17.13 and table 17-2.
func DefaultPort() PortConfig { return PortConfig{Priority: 0x80, AutoEdge: true} }

const maxPathCost = 200_000_000

// Check reports what is wrong with c.
func (c PortConfig) Check() error {
	if c.Priority%16 != 0 {
		return fmt.Errorf("port priority %d is no multiple of 16", c.Priority)
	}
	if c.PathCost > maxPathCost {
		return fmt.Errorf("path cost %d is out of range; it is 1 to %d, or 0 for that of the link's speed", c.PathCost, maxPathCost)
	}
	return nil
}

func (c PortConfig) cost() uint32 {
	if c.PathCost != 0 {
		return c.PathCost
	}
	return PathCost(c.Speed)
}

// PathCost returns the recommended path cost of a link of the given speed in bit/s
// (table 17-3). A link of unknown speed costs as much as one of 1 Gbit/s.
func PathCost(speed uint64) uint32 {
	if speed == 0 {
		speed = 1e9
	}
	return uint32(min(max(20e12/speed, 1), maxPathCost))
}
