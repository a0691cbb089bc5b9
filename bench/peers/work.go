package main

import (
	"fmt"
	"time"
)

// pattern is who sends to whom.
type pattern string

const (
	oneWay    pattern = "one way"                       // the first of each pair of guests to the second
	bothWays  pattern = "both ways"                     // each guest to its partner
	flooding  pattern = "flood"                         // the first guest to all others
	overload  pattern = "overload"                      // one way, as fast as the sender can
	spoofed   pattern = "one way beside a spoofer"      // the third guest passes for the first, as fast as it can
	crowded   pattern = "one way beside another sender" // the third guest sends to the fourth, as fast as it can
	roundTrip pattern = "round trip"                    // one request at a time, answered
	awakeTrip pattern = "round trip on CPUs kept awake"
	pollTrip  pattern = "round trip of polling guests"
	circulate pattern = "circulate"          // both ways, each guest returns what it receives
	tcpStream pattern = "one TCP connection" // between the kernels of two containers
	tcpBBR    pattern = "one TCP connection by BBR"
	multicast pattern = "multicast" // the first guest to a group that the next four joined
)

// members is how many guests join the group of multicast.
const members = 4

// setting is what is set on the switch for a work.
type setting string

const (
	plain     setting = ""
	rateIn    setting = "rate-in above the load" // on all ports
	storm     setting = "storm limits"           // on all ports, above what there is
	mirrored  setting = "one port mirrored"      // the first one, to the last one, which has no other frames
	unlearned setting = "learning off"           // on the first port
	snooping  setting = "snooping"
	rateOut   setting = "rate-out 1 Gbit/s" // on the second port
)

// since is from when on the frames of a work are counted.
type since string

const (
	settled since = "" // once they have flowed for a moment
	atOnce  since = "from the first frame on"
	later   since = "after 5 s"
)

// isTrip reports whether the pattern's figure is a time.
func (p pattern) isTrip() bool { return p == roundTrip || p == awakeTrip || p == pollTrip }

// congestion returns how the connection's sender avoids congestion, or "" if there is no connection.
// Linux's default is cubic, whatever this host's is. Some hosts have BBR, which sends at the rate that
// it infers from round trips.
func (p pattern) congestion() string {
	switch p {
	case tcpStream:
		return "cubic"
	case tcpBBR:
		return "bbr"
	}
	return ""
}

// medium is what connects guests.
type medium string

const (
	byTAP    medium = "tap"
	byStream medium = "stream"     // a unix socket, as QEMU's -netdev stream
	byVhost  medium = "vhost-user" // memory shared with the switch
	byVXLAN  medium = "vxlan"      // a TAP at each of two hosts that VXLAN joins; a veth for TCP
	byVeth   medium = "veth"       // a container's, for TCP
)

// media lists all media in the order of the table.
var media = []medium{byTAP, byVeth, byStream, byVhost, byVXLAN}

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
	With    setting `json:"with,omitempty"`

	// InFlight is how many frames circulate each way between two ports; 0 means 128.
	InFlight int `json:"in_flight,omitempty"`

	Since since `json:"since,omitempty"`

	// Observed: it is measured with observed switches, too.
	Observed bool `json:"observed,omitempty"`
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
	if w.By == byVXLAN {
		ports = "hosts joined by VXLAN"
	}
	name := fmt.Sprintf("%s, %s, %d %s", size, w.Pattern, w.Ports, ports)
	if w.InFlight > 0 {
		name += fmt.Sprintf(", %d in flight", w.InFlight)
	}
	for _, more := range []string{string(w.With), string(w.Since)} {
		if more != "" {
			name += ", " + more
		}
	}
	return name
}

// works returns what is measured unless other works are asked for, in the order of the table.
func works() (all []work) {
	for _, size := range []int{smallest, 1514, superFrame} {
		for _, ports := range []int{2, 8} {
			all = append(all, atTAPs(oneWay, size, ports), atTAPs(bothWays, size, ports))
		}
	}
	return append(all,
		atTAPs(flooding, smallest, 9), atTAPs(flooding, 1514, 9),
		atTAPs(overload, smallest, 2),
		atTAPs(roundTrip, smallest, 2), atTAPs(awakeTrip, smallest, 2), atTAPs(pollTrip, smallest, 2),

		work{Pattern: oneWay, Size: smallest, Ports: 2, By: byStream}, work{Pattern: oneWay, Size: 1514, Ports: 2, By: byStream},
		work{Pattern: roundTrip, Size: smallest, Ports: 2, By: byStream},

		work{Pattern: circulate, Size: smallest, Ports: 2, By: byVhost}, work{Pattern: circulate, Size: 1514, Ports: 2, By: byVhost},
	)
}

// overlayWorks returns the works of two hosts.
func overlayWorks() []work {
	return []work{
		{Pattern: tcpStream, Size: 1514, Ports: 2, By: byVXLAN}, {Pattern: tcpBBR, Size: 1514, Ports: 2, By: byVXLAN},
		{Pattern: oneWay, Size: smallest, Ports: 2, By: byVXLAN}, {Pattern: bothWays, Size: smallest, Ports: 2, By: byVXLAN},
		{Pattern: oneWay, Size: superFrame, Ports: 2, By: byVXLAN},
		{Pattern: roundTrip, Size: smallest, Ports: 2, By: byVXLAN}, {Pattern: awakeTrip, Size: smallest, Ports: 2, By: byVXLAN},
	}
}

// observedWorks returns the works of switches that are observed.
func observedWorks() (all []work) {
	for _, w := range []work{atTAPs(oneWay, smallest, 2), atTAPs(bothWays, smallest, 2), atTAPs(bothWays, 1514, 2), atTAPs(bothWays, smallest, 8)} {
		w.Observed = true
		all = append(all, w)
	}
	return all
}

// moreWorks returns the works with settings that users turn on, and those of shared memory with
// few and many frames and ports.
func moreWorks() (all []work) {
	for _, ports := range []int{2, 8} {
		for _, with := range []setting{plain, rateIn, storm} {
			all = append(all, atTAPs(bothWays, smallest, ports).with(with))
		}
	}
	all = append(all,
		atTAPs(bothWays, smallest, 9).with(mirrored), atTAPs(oneWay, smallest, 9).with(mirrored),
		atTAPs(oneWay, smallest, 2), atTAPs(oneWay, smallest, 2).with(unlearned),
		atTAPs(flooding, smallest, 9), atTAPs(flooding, smallest, maxGuests),
		atTAPs(multicast, smallest, maxGuests).with(snooping),
		atTAPs(oneWay, 1514, 2).with(rateOut), atTAPs(oneWay, superFrame, 2).with(rateOut),
		work{Pattern: tcpStream, Size: 1514, Ports: 2, By: byVeth, With: rateOut},
	)
	for _, size := range []int{smallest, 1514} { // without a third sender, with a spoofer, and with one that may send
		all = append(all, atTAPs(oneWay, size, 3), atTAPs(spoofed, size, 3), atTAPs(crowded, size, 4))
	}
	for _, inFlight := range []int{8, 32, 128, 256} {
		all = append(all, work{Pattern: circulate, Size: smallest, Ports: 2, By: byVhost, InFlight: inFlight})
	}
	for _, ports := range []int{4, 8} {
		all = append(all, work{Pattern: circulate, Size: smallest, Ports: ports, By: byVhost, InFlight: 32})
	}
	for _, from := range []since{atOnce, later} {
		all = append(all, work{Pattern: circulate, Size: smallest, Ports: 2, By: byVhost, InFlight: 128, Since: from})
	}
	return all
}

func atTAPs(p pattern, size, ports int) work {
	return work{Pattern: p, Size: size, Ports: ports, By: byTAP}
}

func (w work) with(s setting) work {
	w.With = s
	return w
}

// assign gives the guests their roles.
func (w work) assign(guests []*guest) {
	for i, g := range guests {
		g.size = w.Size
		partner := byte(i ^ 1)
		switch {
		case w.Pattern == spoofed && i == 2:
			g.data, g.aside = newPacket(0, 1, w.Size), true
		case w.Pattern == crowded && i == 2:
			g.data, g.aside = newPacket(2, 3, w.Size), true
		case int(partner) >= len(guests): // it observes
		case w.Pattern == bothWays, (w.Pattern == oneWay || w.Pattern == spoofed || w.Pattern == crowded) && i%2 == 0:
			g.sendTo(partner, w.Size, partner, 1)
		case w.Pattern == flooding && i == 0:
			g.sendTo(everyone, w.Size, 1, len(guests)-1)
		case w.Pattern == multicast && i == 0:
			g.sendTo(theGroup, w.Size, 1, members)
		case w.Pattern == overload && i == 0:
			g.data = newPacket(g.index, partner, w.Size)
		case w.Pattern.isTrip() && i == 0:
			g.data, g.asks = newPacket(g.index, partner, w.Size), true
		}
	}
}

// expected returns how many frames are delivered without loss.
func (w work) expected(c counts) uint64 {
	switch w.Pattern {
	case flooding:
		return c.sent * uint64(w.Ports-1)
	case multicast:
		return c.sent * members
	}
	return c.sent
}
