package main

import (
	"fmt"
	"time"
)

// pattern is who sends to whom.
type pattern string

const (
	oneWay    pattern = "one way"    // the first of each pair of guests to the second
	bothWays  pattern = "both ways"  // each guest to its partner
	flooding  pattern = "flood"      // the first guest to all others
	overload  pattern = "overload"   // one way, as fast as the sender can
	roundTrip pattern = "round trip" // one request at a time, answered
	awakeTrip pattern = "round trip on CPUs kept awake"
	pollTrip  pattern = "round trip of polling guests"
	circulate pattern = "circulate" // both ways, each guest returns what it receives
)

// isTrip reports whether the pattern's figure is a time.
func (p pattern) isTrip() bool { return p == roundTrip || p == awakeTrip || p == pollTrip }

// medium is what connects guests.
type medium string

const (
	byTAP    medium = "tap"
	byStream medium = "stream"     // a unix socket, as QEMU's -netdev stream
	byVhost  medium = "vhost-user" // memory shared with the switch
)

// media lists all media in the order of the table.
var media = []medium{byTAP, byStream, byVhost}

// base returns the peer that the others are compared with.
func (m medium) base() string {
	switch m {
	case byStream:
		return gvisorName
	case byVhost:
		return ovsDPDKName
	}
	return bridgeName
}

// work is one measurement, done with all peers that have its medium.
type work struct {
	Pattern pattern `json:"pattern"`
	Size    int     `json:"size"`  // bytes of a frame, without its check sequence
	Ports   int     `json:"ports"` // guests
	By      medium  `json:"by"`
}

// pollTime is how long polling guests poll: the value in QEMU's manual for vhost's poll-us,
// and more than a round trip takes.
const pollTime = 50 * time.Microsecond

// superFrame is the size of a TCP segment from guests with segmentation offload.
const superFrame = 60_000

func (w work) String() string {
	size, ports := fmt.Sprintf("%d B", w.Size), "ports"
	if w.Size == superFrame {
		size = "60 KB TSO"
	}
	if w.By != byTAP {
		ports = string(w.By) + " ports"
	}
	return fmt.Sprintf("%s, %s, %d %s", size, w.Pattern, w.Ports, ports)
}

// works returns everything that is measured, in the order of the table.
func works() (all []work) {
	for _, size := range []int{smallest, 1514, superFrame} {
		for _, ports := range []int{2, 8} {
			all = append(all, work{oneWay, size, ports, byTAP}, work{bothWays, size, ports, byTAP})
		}
	}
	return append(all,
		work{flooding, smallest, maxGuests, byTAP}, work{flooding, 1514, maxGuests, byTAP},
		work{overload, smallest, 2, byTAP},
		work{roundTrip, smallest, 2, byTAP}, work{awakeTrip, smallest, 2, byTAP}, work{pollTrip, smallest, 2, byTAP},

		work{oneWay, smallest, 2, byStream}, work{oneWay, 1514, 2, byStream},
		work{roundTrip, smallest, 2, byStream},

		work{circulate, smallest, 2, byVhost}, work{circulate, 1514, 2, byVhost},
	)
}

// assign gives the guests their roles.
func (w work) assign(guests []*guest) {
	for i, g := range guests {
		g.size = w.Size
		partner := byte(i ^ 1)
		switch {
		case w.Pattern == bothWays, w.Pattern == oneWay && i%2 == 0:
			g.sendTo(partner, w.Size, partner, 1)
		case w.Pattern == flooding && i == 0:
			g.sendTo(everyone, w.Size, 1, len(guests)-1)
		case w.Pattern == overload && i == 0:
			g.data = newPacket(g.index, partner, w.Size)
		case w.Pattern.isTrip() && i == 0:
			g.data, g.asks = newPacket(g.index, partner, w.Size), true
		}
	}
}

// expected returns how many frames are delivered without loss.
func (w work) expected(c counts) uint64 {
	if w.Pattern == flooding {
		return c.sent * uint64(w.Ports-1)
	}
	return c.sent
}
